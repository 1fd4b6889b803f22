-- Comments on every table, column, roll-up and function that had none: `\d+` and `\df+` in psql show them.

-- The store's tables. A comment that somebody made stays, and so does a table that belongs to another role.
DO $migration$
DECLARE
    said record;
    kind "char";
BEGIN
    FOR said IN
        WITH rollups (name, width, source, keys, aggregates) AS (VALUES
            ('frame_stats_1m', 'minute', 'frames of a camera', '{camera_id}'::text[], 'frames'),
            ('frame_stats_1h', 'hour', 'frames of a camera', '{camera_id}', 'frames'),
            ('frame_stats_1d', 'day', 'frames of a camera', '{camera_id}', 'frames'),
            ('detection_stats_1m', 'minute', 'detections of a camera and label', '{camera_id,label}', 'detections'),
            ('detection_stats_1h', 'hour', 'detections of a camera and label', '{camera_id,label}', 'detections'),
            ('detection_stats_1d', 'day', 'detections of a camera and label', '{camera_id,label}', 'detections'),
            ('measurements_daily', 'day', 'measurements of a receiver', '{websdr_id}', 'measurements')
        ), of_rollups (aggregates, name, text) AS (VALUES
            ('frames', 'camera_id', 'The camera'),
            ('frames', 'frames', 'Frames'),
            ('frames', 'key_frames', 'Frames of them that are key frames'),
            ('frames', 'bytes', 'Their sizes added up, in bytes'),
            ('frames', 'processing_ms_count', 'Frames of them with a processing time'),
            ('frames', 'processing_ms_sum', 'Processing times added up, in milliseconds'),
            ('frames', 'processing_ms_mean', 'Mean processing time, in milliseconds'),
            ('frames', 'processing_ms_max', 'Longest processing time, in milliseconds'),
            ('frames', 'brightness_count', 'Frames of them with a brightness'),
            ('frames', 'brightness_sum', 'Brightness added up'),
            ('frames', 'brightness_mean', 'Mean brightness'),
            ('frames', 'motion_count', 'Frames of them with a measure of motion'),
            ('frames', 'motion_sum', 'Motion added up'),
            ('frames', 'motion_mean', 'Mean motion'),
            ('detections', 'camera_id', 'The camera'),
            ('detections', 'label', 'What was detected; NULL: without a label'),
            ('detections', 'detections', 'Detections'),
            ('detections', 'confidence_count', 'Detections of them with a confidence'),
            ('detections', 'confidence_sum', 'Confidences added up'),
            ('detections', 'confidence_mean', 'Mean confidence'),
            ('detections', 'confidence_max', 'Greatest confidence'),
            ('measurements', 'websdr_id', 'The receiver'),
            ('measurements', 'measurements', 'Measurements'),
            ('measurements', 'snr_db_count', 'Measurements of them with a signal-to-noise ratio'),
            ('measurements', 'snr_db_sum', 'Signal-to-noise ratios added up, in dB'),
            ('measurements', 'snr_db_mean', 'Mean signal-to-noise ratio, in dB'),
            ('measurements', 'snr_db_min', 'Least signal-to-noise ratio, in dB'),
            ('measurements', 'snr_db_max', 'Greatest signal-to-noise ratio, in dB'),
            ('measurements', 'frequency_offset_hz_count', 'Measurements of them with a frequency offset'),
            ('measurements', 'frequency_offset_hz_sum', 'Frequency offsets added up, in Hz'),
            ('measurements', 'frequency_offset_hz_mean', 'Mean frequency offset, in Hz'),
            ('measurements', 'frequency_offset_hz_min', 'Least frequency offset, in Hz'),
            ('measurements', 'frequency_offset_hz_max', 'Greatest frequency offset, in Hz')
        ), comments (relation, attribute, text) AS (
            SELECT r.name, NULL, format('Sums of the %s, a row each %s in UTC; a mean is divided out of sum and count',
                r.source, r.width)
            FROM rollups r
            UNION ALL SELECT r.name, 'bucket', format('Where the %s begins', r.width) FROM rollups r
            UNION ALL SELECT r.name, o.name, o.text FROM rollups r JOIN of_rollups o USING (aggregates)
            UNION ALL VALUES
            ('frame_metadata', NULL, 'Video frames, one row each'),
            ('frame_metadata', 'time', 'When the frame was taken'),
            ('frame_metadata', 'camera_id', 'The camera'),
            ('frame_metadata', 'frame_id', 'Number that the camera gives the frame'),
            ('frame_metadata', 'width', 'Width, in pixels'),
            ('frame_metadata', 'height', 'Height, in pixels'),
            ('frame_metadata', 'codec', 'How the frame is encoded'),
            ('frame_metadata', 'fps', 'Frames a second of the stream that it is of'),
            ('frame_metadata', 'key_frame', 'Whether it can be decoded by itself'),
            ('frame_metadata', 'size_bytes', 'Size as encoded, in bytes'),
            ('frame_metadata', 'processing_ms', 'How long its processing took, in milliseconds'),
            ('frame_metadata', 'brightness', 'Brightness, as the publisher measures it'),
            ('frame_metadata', 'motion', 'Motion since the frame before, as the publisher measures it'),
            ('frame_metadata', 'attributes', 'What else the message carried'),
            ('detection_events', NULL, 'Objects detected in video frames, one row each'),
            ('detection_events', 'time', 'When the frame was taken'),
            ('detection_events', 'camera_id', 'The camera'),
            ('detection_events', 'frame_id', 'The frame: frame_metadata.frame_id of this camera'),
            ('detection_events', 'track_id', 'The object, where it is followed over frames'),
            ('detection_events', 'label', 'What it is'),
            ('detection_events', 'confidence', 'How sure the detector is, from 0 to 1'),
            ('detection_events', 'bbox_left', 'Left edge of its box, in the unit of the publisher'),
            ('detection_events', 'bbox_top', 'Upper edge of its box'),
            ('detection_events', 'bbox_width', 'Width of its box'),
            ('detection_events', 'bbox_height', 'Height of its box'),
            ('detection_events', 'attributes', 'What else the detection carried'),
            ('stats', 'project_id', 'The project: projects.id'),
            ('stats', 'name', 'Its name for people'),
            ('stats', 'status', 'active, deleted or locked'),
            ('stats', 'size_bytes', 'Size of its data, in bytes, as its event said'),
            ('stats', 'table_count', 'Tables, as its event said'),
            ('stats', 'bucket_count', 'Buckets, as its event said'),
            ('stats', 'files', 'Files that are active and have not expired'),
            ('stats', 'file_bytes', 'Their sizes added up, in bytes'),
            ('stats', 'staged_files', 'Files of them that wait to be taken over'),
            ('stats', 'operations_1d', 'Operations of the last day'),
            ('stats', 'failures_1d', 'Operations of them that failed'),
            ('stats', 'mean_duration_ms_1d', 'How long they took on average, in milliseconds'),
            ('stats', 'last_operation', 'When the last operation of all began')
        )
        SELECT c.relation, c.attribute, c.text FROM comments c
        LEFT JOIN pg_attribute a ON a.attrelid = to_regclass(c.relation) AND a.attname = c.attribute AND NOT a.attisdropped
        WHERE to_regclass(c.relation) IS NOT NULL AND (c.attribute IS NULL OR a.attnum IS NOT NULL)
            AND NOT EXISTS (SELECT FROM pg_description d WHERE d.objoid = to_regclass(c.relation)
                AND d.classoid = 'pg_class'::regclass AND d.objsubid = coalesce(a.attnum, 0))
    LOOP
        SELECT c.relkind INTO kind FROM pg_class c
        WHERE c.oid = to_regclass(said.relation) AND pg_has_role(c.relowner, 'USAGE');
        IF kind IS NULL THEN
            CONTINUE;
        ELSIF said.attribute IS NOT NULL THEN
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', to_regclass(said.relation), said.attribute, said.text);
        ELSE
            EXECUTE format('COMMENT ON %s %s IS %L',
                CASE kind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END,
                to_regclass(said.relation), said.text);
        END IF;
    END LOOP;
END
$migration$;

-- jetcopy's own tables.
COMMENT ON TABLE jetcopy.schema_history IS 'Migrations that were applied';
COMMENT ON COLUMN jetcopy.schema_history.version IS 'Number of the migration';
COMMENT ON COLUMN jetcopy.schema_history.name IS 'Its name';
COMMENT ON COLUMN jetcopy.schema_history.checksum IS 'SHA-256 of its text, in hexadecimal digits';
COMMENT ON COLUMN jetcopy.schema_history.applied_at IS 'When it was applied';

COMMENT ON TABLE jetcopy.checkpoints IS
    'The truth about position: rows of sequences up to last_sequence are in the tables, rows above it are not';
COMMENT ON COLUMN jetcopy.checkpoints.shard IS 'The shard: that of a pipeline is named like it';
COMMENT ON COLUMN jetcopy.checkpoints.pipeline IS 'The pipeline';
COMMENT ON COLUMN jetcopy.checkpoints.stream IS 'The stream that it reads';
COMMENT ON COLUMN jetcopy.checkpoints.stream_created IS 'When that was created: another time is another stream of the same name';
COMMENT ON COLUMN jetcopy.checkpoints.last_sequence IS 'The last sequence whose rows are committed';
COMMENT ON COLUMN jetcopy.checkpoints.last_timestamp IS 'When the stream stored that message';
COMMENT ON COLUMN jetcopy.checkpoints.epoch IS 'Raised by each writer that takes the shard over; every commit compares it';
COMMENT ON COLUMN jetcopy.checkpoints.owner IS 'Who writes';
COMMENT ON COLUMN jetcopy.checkpoints.lease_until IS 'How long others wait for the owner';
COMMENT ON COLUMN jetcopy.checkpoints.updated_at IS 'When the row changed';
COMMENT ON COLUMN jetcopy.checkpoints.known_sequence IS 'Up to here it is no news that the stream lacks messages';
COMMENT ON COLUMN jetcopy.checkpoints.paused_at IS 'When an operator paused it; while it is set, no daemon claims the shard';
COMMENT ON COLUMN jetcopy.checkpoints.paused_by IS 'Who did';
COMMENT ON COLUMN jetcopy.checkpoints.accepted_letters IS
    'Dead letters that somebody agreed to, which are left to write before a flood of them pauses the pipeline again';
COMMENT ON COLUMN jetcopy.checkpoints.flood IS 'Why a flood of dead letters stopped the pipeline; the next commit takes it away';

COMMENT ON TABLE jetcopy.dead_letters IS
    'Messages, or elements of them, that cannot become rows, each written in the transaction that moves the checkpoint past it';
COMMENT ON COLUMN jetcopy.dead_letters.id IS 'Number of the letter';
COMMENT ON COLUMN jetcopy.dead_letters.pipeline IS 'The pipeline';
COMMENT ON COLUMN jetcopy.dead_letters.shard IS 'Its shard';
COMMENT ON COLUMN jetcopy.dead_letters.stream IS 'The stream that the message is of';
COMMENT ON COLUMN jetcopy.dead_letters.sequence IS 'The message''s sequence in it';
COMMENT ON COLUMN jetcopy.dead_letters.subject IS 'The message''s subject';
COMMENT ON COLUMN jetcopy.dead_letters.headers IS 'The message''s headers: {"name": ["value", …]}';
COMMENT ON COLUMN jetcopy.dead_letters.payload IS
    'The message''s payload, in the first of its letters; see jetcopy.payload_of(). NULL in the others';
COMMENT ON COLUMN jetcopy.dead_letters.kind IS 'The kind of fault: malformed, missing, type, range, unmatched, or refused by the server';
COMMENT ON COLUMN jetcopy.dead_letters.sqlstate IS 'The server''s code, where it refused the row';
COMMENT ON COLUMN jetcopy.dead_letters.message IS 'What is wrong, and where';
COMMENT ON COLUMN jetcopy.dead_letters.table_name IS 'The table that the row was for';
COMMENT ON COLUMN jetcopy.dead_letters.column_name IS 'The column that the fault is in';
COMMENT ON COLUMN jetcopy.dead_letters.failed_at IS 'When the letter was written';
COMMENT ON COLUMN jetcopy.dead_letters.element IS
    'The first element that the letter is about: its place in the array of for_each, from 0. NULL: the message as a whole';
COMMENT ON COLUMN jetcopy.dead_letters.elements IS 'All places that it is about, where they are several';
COMMENT ON COLUMN jetcopy.dead_letters.stored_at IS 'When the stream stored the message';
COMMENT ON COLUMN jetcopy.dead_letters.expired_at IS 'When its payload went by its age; NULL: it has not';

COMMENT ON COLUMN jetcopy.flood_samples.pipeline IS 'The pipeline';
COMMENT ON COLUMN jetcopy.flood_samples.shard IS 'Its shard';
COMMENT ON COLUMN jetcopy.flood_samples.stream IS 'The stream that the message is of';
COMMENT ON COLUMN jetcopy.flood_samples.sequence IS 'The message''s sequence in it';
COMMENT ON COLUMN jetcopy.flood_samples.subject IS 'The message''s subject';
COMMENT ON COLUMN jetcopy.flood_samples.payload IS 'The beginning of its payload';
COMMENT ON COLUMN jetcopy.flood_samples.payload_bytes IS 'Size of its payload, in bytes';
COMMENT ON COLUMN jetcopy.flood_samples.kind IS 'The kind of fault, as in jetcopy.dead_letters';
COMMENT ON COLUMN jetcopy.flood_samples.sqlstate IS 'The server''s code, where it refused the row';
COMMENT ON COLUMN jetcopy.flood_samples.message IS 'What is wrong, and where';
COMMENT ON COLUMN jetcopy.flood_samples.table_name IS 'The table that the row was for';
COMMENT ON COLUMN jetcopy.flood_samples.column_name IS 'The column that the fault is in';
COMMENT ON COLUMN jetcopy.flood_samples.element IS 'The element that the letter is about, from 0';
COMMENT ON COLUMN jetcopy.flood_samples.seen_at IS 'When it was seen';

COMMENT ON TABLE jetcopy.losses IS 'Ranges of a stream that were gone before they were read';
COMMENT ON COLUMN jetcopy.losses.id IS 'Number of the loss';
COMMENT ON COLUMN jetcopy.losses.pipeline IS 'The pipeline';
COMMENT ON COLUMN jetcopy.losses.shard IS 'Its shard';
COMMENT ON COLUMN jetcopy.losses.stream IS 'The stream';
COMMENT ON COLUMN jetcopy.losses.stream_created IS
    'When the stream was created that was found: it can be another than the one that the checkpoint counted in';
COMMENT ON COLUMN jetcopy.losses.first_sequence IS 'The first sequence that is gone';
COMMENT ON COLUMN jetcopy.losses.last_sequence IS 'The last one; NULL where it cannot be known';
COMMENT ON COLUMN jetcopy.losses.messages IS 'How many messages are missing between the two, where it is not all of them';
COMMENT ON COLUMN jetcopy.losses.resume_after IS 'After which sequence somebody wants the pipeline to go on; NULL leaves it to jetcopy';
COMMENT ON COLUMN jetcopy.losses.cause IS 'Why they are gone';
COMMENT ON COLUMN jetcopy.losses.detected_at IS 'When that was found';
COMMENT ON COLUMN jetcopy.losses.accepted_at IS 'When somebody agreed to it (jetcopy accept-loss); NULL: nobody has';

COMMENT ON TABLE jetcopy.milestones IS
    'Messages that were committed, some dozens a shard, by which a stream is known again that was restored or moved';
COMMENT ON COLUMN jetcopy.milestones.shard IS 'The shard';
COMMENT ON COLUMN jetcopy.milestones.number IS 'Number of the milestone';
COMMENT ON COLUMN jetcopy.milestones.sequence IS 'The message''s sequence';
COMMENT ON COLUMN jetcopy.milestones.stored_at IS 'When the stream stored it';

COMMENT ON TABLE jetcopy.partitioned_tables IS 'The tables that jetcopy adds partitions to and drops partitions of';
COMMENT ON COLUMN jetcopy.partitioned_tables.relation IS 'The table';
COMMENT ON COLUMN jetcopy.partitioned_tables.time_column IS 'The column that partitions go by';
COMMENT ON COLUMN jetcopy.partitioned_tables.dropped_before IS
    'Rows before this are dropped: a bucket of a roll-up is not summed up again from what is left of it';

COMMENT ON TABLE jetcopy.partition_bounds IS 'How far from today a row may lie for which a partition is added';
COMMENT ON COLUMN jetcopy.partition_bounds.one_row IS 'There is one row';
COMMENT ON COLUMN jetcopy.partition_bounds.days_back IS 'Days back';
COMMENT ON COLUMN jetcopy.partition_bounds.days_ahead IS 'Days ahead';

COMMENT ON TABLE jetcopy.rollups IS 'The roll-ups that jetcopy maintain keeps, without TimescaleDB';
COMMENT ON COLUMN jetcopy.rollups.name IS 'The roll-up';
COMMENT ON COLUMN jetcopy.rollups.source IS 'The table or roll-up that it sums up';
COMMENT ON COLUMN jetcopy.rollups.width IS 'Width of its buckets';
COMMENT ON COLUMN jetcopy.rollups.filled_to IS 'Buckets before this are there; NULL before the first run';
COMMENT ON COLUMN jetcopy.rollups.refreshed_at IS 'When it was filled last';

COMMENT ON TABLE jetcopy.touched_buckets IS 'Buckets of a roll-up whose source has changed since they were summed up';
COMMENT ON COLUMN jetcopy.touched_buckets.rollup IS 'The roll-up';
COMMENT ON COLUMN jetcopy.touched_buckets.buckets IS 'Where they begin';

COMMENT ON TABLE jetcopy.store_choice IS 'Which groups of the store''s tables jetcopy migrate creates';
COMMENT ON COLUMN jetcopy.store_choice.one_row IS 'There is one row';
COMMENT ON COLUMN jetcopy.store_choice.tables IS 'Of frames, measurements, series and registry; empty: none';

COMMENT ON TABLE jetcopy.store_life IS 'How the rows of the store''s tables and roll-ups live';
COMMENT ON COLUMN jetcopy.store_life.relation IS 'A table or roll-up of the store';
COMMENT ON COLUMN jetcopy.store_life.setting IS 'The setting, as [store.RELATION] has it';
COMMENT ON COLUMN jetcopy.store_life.age IS 'Its value; NULL: never';
COMMENT ON COLUMN jetcopy.store_life.applied IS 'Whether TimescaleDB''s jobs were brought to it';

COMMENT ON TABLE jetcopy.deletions IS
    'What people have deleted from the store, each line written in the transaction that deletes';
COMMENT ON COLUMN jetcopy.deletions.id IS 'Number of the deletion';
COMMENT ON COLUMN jetcopy.deletions.deleted_at IS 'When';
COMMENT ON COLUMN jetcopy.deletions.deleted_by IS 'By which role';
COMMENT ON COLUMN jetcopy.deletions.what IS 'What: measurements, or a series';
COMMENT ON COLUMN jetcopy.deletions.before IS 'Rows with times before this; NULL: all';
COMMENT ON COLUMN jetcopy.deletions.deleted IS 'Rows that went';

COMMENT ON FUNCTION jetcopy.add_partition IS 'Adds the partition of a day (UTC), unless a partition takes its times; whether it did';
COMMENT ON FUNCTION jetcopy.add_partitions IS
    'Adds the partitions that rows of these days need; returns the days that were left out, NULL where jetcopy does not partition the table';
COMMENT ON FUNCTION jetcopy.make_partition IS 'Makes the partition of a day (UTC), where the caller has seen that there is none';
COMMENT ON FUNCTION jetcopy.days_without_partition IS 'Of these days, those of which no partition takes any time; NULL where that cannot be told';
COMMENT ON FUNCTION jetcopy.partitions IS 'The partitions of a table and the times that they take';
COMMENT ON FUNCTION jetcopy.time_table IS
    'Makes a hypertable of a table, or without TimescaleDB a table with a partition a day; rows are kept';
COMMENT ON FUNCTION jetcopy.rollups_of IS 'The roll-ups that are filled from a table, without TimescaleDB';
COMMENT ON FUNCTION jetcopy.touch IS 'Has buckets of a roll-up summed up again, where jetcopy keeps it';
COMMENT ON FUNCTION jetcopy.dead_letter_counts IS 'How many dead letters of each pipeline there are';
COMMENT ON FUNCTION jetcopy.payload_of IS 'The payload of a letter''s message';
COMMENT ON FUNCTION jetcopy.hand_payload_on IS 'Hands the payload of letters that go on to one of the same message that stays, as a trigger';
COMMENT ON FUNCTION jetcopy.expire_dead_letters IS
    'Takes payload and headers off letters that are older than their retention; returns how many';
COMMENT ON FUNCTION jetcopy.store_relation IS 'For monitoring: the table of the store of that name';
COMMENT ON FUNCTION jetcopy.shown_name IS 'For monitoring: a relation as its rows name it';
COMMENT ON FUNCTION jetcopy.monitor_checkpoints IS 'For monitoring: whether each shard moves, and who may write it';
COMMENT ON FUNCTION jetcopy.monitor_dead_letters IS 'For monitoring: dead letters ever stored';
COMMENT ON FUNCTION jetcopy.monitor_losses IS 'For monitoring: losses of each shard';
COMMENT ON FUNCTION jetcopy.monitor_frames IS 'For monitoring: frames ever stored';
COMMENT ON FUNCTION jetcopy.monitor_detections IS 'For monitoring: detections ever stored, by label';
COMMENT ON FUNCTION jetcopy.monitor_rolled_up IS 'For monitoring: sums of a column of roll-ups, by key';
COMMENT ON FUNCTION jetcopy.monitor_tables IS 'For monitoring: size, rows and compression of the store''s tables';
COMMENT ON FUNCTION jetcopy.monitor_jobs IS 'For monitoring: TimescaleDB''s jobs and how they ended';
COMMENT ON FUNCTION jetcopy.monitor_statements IS 'For monitoring: the statements that take most time';
COMMENT ON FUNCTION jetcopy.monitor_pgbouncer IS 'For monitoring: PgBouncer''s pools';
