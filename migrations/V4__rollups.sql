-- Roll-ups: continuous aggregates where TimescaleDB is installed under the Timescale licence, elsewhere
-- tables of the same names and columns, which `jetcopy maintain` fills. jetcopy's catalog of the store lists
-- the same columns.

CREATE TABLE jetcopy.rollups (
    name text PRIMARY KEY,
    source regclass NOT NULL,
    width interval NOT NULL,
    filled_to timestamptz,
    refreshed_at timestamptz
);
-- Names of tables and roll-ups. Whoever writes rows asks with every batch.
GRANT SELECT ON jetcopy.rollups TO PUBLIC;

COMMENT ON TABLE jetcopy.rollups IS 'The roll-ups that jetcopy maintain keeps, without TimescaleDB';
COMMENT ON COLUMN jetcopy.rollups.name IS 'The roll-up';
COMMENT ON COLUMN jetcopy.rollups.source IS 'The table or roll-up that it sums up';
COMMENT ON COLUMN jetcopy.rollups.width IS 'Width of its buckets';
COMMENT ON COLUMN jetcopy.rollups.filled_to IS 'Buckets before this are there; NULL before the first run';
COMMENT ON COLUMN jetcopy.rollups.refreshed_at IS 'When it was filled last';

-- As far as known.
CREATE TABLE jetcopy.touched_buckets (
    rollup text NOT NULL,
    buckets timestamptz[] NOT NULL
);

COMMENT ON TABLE jetcopy.touched_buckets IS
    'Buckets of a roll-up whose source has changed since they were summed up';
COMMENT ON COLUMN jetcopy.touched_buckets.rollup IS 'The roll-up';
COMMENT ON COLUMN jetcopy.touched_buckets.buckets IS 'Where they begin';

-- It runs with the rights of its owner, as jetcopy.touch() does.
CREATE FUNCTION jetcopy.rollups_of(source regclass) RETURNS TABLE (name text, width interval)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.name, r.width FROM jetcopy.rollups r WHERE r.source = rollups_of.source ORDER BY r.name
$$;
COMMENT ON FUNCTION jetcopy.rollups_of IS 'The roll-ups that are filled from a table, without TimescaleDB';

-- jetcopy calls it with every batch; who writes late rows in other ways calls it too. It runs with the rights
-- of its owner, since who may insert rows need not know the roll-ups. Only who may write to a roll-up's
-- source has its buckets summed up again: others could keep the database busy by it.
CREATE FUNCTION jetcopy.touch(rollup text, buckets timestamptz[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    source regclass := (SELECT r.source FROM jetcopy.rollups r WHERE r.name = touch.rollup);
BEGIN
    IF source IS NULL THEN
        RETURN;
    END IF;
    IF NOT coalesce(has_any_column_privilege(session_user, source, 'INSERT'), true) THEN
        RAISE EXCEPTION 'permission denied for roll-up %: it needs INSERT on %', rollup, source
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO jetcopy.touched_buckets VALUES (touch.rollup, touch.buckets);
END
$$;
COMMENT ON FUNCTION jetcopy.touch IS 'Has buckets of a roll-up summed up again, where jetcopy keeps it';

-- Continuous aggregates. Each hour is made from its minutes and each day from its hours; a mean is divided
-- out of sums and counts at every step, so that it stays the mean of the rows.
--
-- They hold what was refreshed and nothing else: a query costs the same whenever it is asked. `jetcopy
-- migrate` adds the policies that refresh them.
DO $store$
DECLARE
    -- Where TimescaleDB's functions lie.
    timescale text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'timescaledb');
    frame_stats_of_rows text := 'count(*) AS frames,
        count(*) FILTER (WHERE key_frame) AS key_frames,
        sum(size_bytes)::bigint AS bytes,
        count(processing_ms) AS processing_ms_count,
        sum(processing_ms) AS processing_ms_sum,
        sum(processing_ms) / nullif(count(processing_ms), 0) AS processing_ms_mean,
        max(processing_ms) AS processing_ms_max,
        count(brightness) AS brightness_count,
        sum(brightness) AS brightness_sum,
        sum(brightness) / nullif(count(brightness), 0) AS brightness_mean,
        count(motion) AS motion_count,
        sum(motion) AS motion_sum,
        sum(motion) / nullif(count(motion), 0) AS motion_mean';
    frame_stats_of_buckets text := 'sum(frames)::bigint AS frames,
        sum(key_frames)::bigint AS key_frames,
        sum(bytes)::bigint AS bytes,
        sum(processing_ms_count)::bigint AS processing_ms_count,
        sum(processing_ms_sum) AS processing_ms_sum,
        sum(processing_ms_sum) / nullif(sum(processing_ms_count)::bigint, 0) AS processing_ms_mean,
        max(processing_ms_max) AS processing_ms_max,
        sum(brightness_count)::bigint AS brightness_count,
        sum(brightness_sum) AS brightness_sum,
        sum(brightness_sum) / nullif(sum(brightness_count)::bigint, 0) AS brightness_mean,
        sum(motion_count)::bigint AS motion_count,
        sum(motion_sum) AS motion_sum,
        sum(motion_sum) / nullif(sum(motion_count)::bigint, 0) AS motion_mean';
    detection_stats_of_rows text := 'count(*) AS detections,
        count(confidence) AS confidence_count,
        sum(confidence) AS confidence_sum,
        sum(confidence) / nullif(count(confidence), 0) AS confidence_mean,
        max(confidence) AS confidence_max';
    detection_stats_of_buckets text := 'sum(detections)::bigint AS detections,
        sum(confidence_count)::bigint AS confidence_count,
        sum(confidence_sum) AS confidence_sum,
        sum(confidence_sum) / nullif(sum(confidence_count)::bigint, 0) AS confidence_mean,
        max(confidence_max) AS confidence_max';
    measurement_stats_of_rows text := 'count(*) AS measurements,
        count(snr_db) AS snr_db_count,
        sum(snr_db) AS snr_db_sum,
        sum(snr_db) / nullif(count(snr_db), 0) AS snr_db_mean,
        min(snr_db) AS snr_db_min,
        max(snr_db) AS snr_db_max,
        count(frequency_offset_hz) AS frequency_offset_hz_count,
        sum(frequency_offset_hz) AS frequency_offset_hz_sum,
        sum(frequency_offset_hz) / nullif(count(frequency_offset_hz), 0) AS frequency_offset_hz_mean,
        min(frequency_offset_hz) AS frequency_offset_hz_min,
        max(frequency_offset_hz) AS frequency_offset_hz_max';
    -- Columns that each table has when it is the store's own.
    frame_columns name[] := '{time,camera_id,key_frame,size_bytes,processing_ms,brightness,motion}';
    detection_columns name[] := '{time,camera_id,label,confidence}';
    measurement_columns name[] := '{timestamp_utc,websdr_id,snr_db,frequency_offset_hz}';
    rollup record;
    obstacle text;
BEGIN
    IF timescale IS NULL THEN
        RETURN;
    END IF;
    IF current_setting('timescaledb.license', true) IS DISTINCT FROM 'timescale' THEN
        RAISE NOTICE 'TimescaleDB runs under the Apache licence, which has no continuous aggregates: '
            'none are created';
        RETURN;
    END IF;

    FOR rollup IN SELECT * FROM (VALUES
        (1, 'frame_stats_1m', 'frame_metadata', frame_columns, 'time', '1 minute', 'camera_id',
            frame_stats_of_rows),
        (2, 'frame_stats_1h', 'frame_stats_1m', NULL, 'bucket', '1 hour', 'camera_id',
            frame_stats_of_buckets),
        (3, 'frame_stats_1d', 'frame_stats_1h', NULL, 'bucket', '1 day', 'camera_id',
            frame_stats_of_buckets),
        (4, 'detection_stats_1m', 'detection_events', detection_columns, 'time', '1 minute',
            'camera_id, label', detection_stats_of_rows),
        (5, 'detection_stats_1h', 'detection_stats_1m', NULL, 'bucket', '1 hour', 'camera_id, label',
            detection_stats_of_buckets),
        (6, 'detection_stats_1d', 'detection_stats_1h', NULL, 'bucket', '1 day', 'camera_id, label',
            detection_stats_of_buckets),
        (7, 'measurements_daily', 'measurements', measurement_columns, 'timestamp_utc', '1 day', 'websdr_id',
            measurement_stats_of_rows)
    ) AS list (place, name, source, columns, time_column, width, keys, aggregates) ORDER BY place
    LOOP
        obstacle := CASE
            WHEN to_regclass(rollup.name) IS NOT NULL THEN format('%s is there already', rollup.name)
            WHEN to_regclass(rollup.source) IS NULL THEN format('there is no %s', rollup.source)
            -- A table that has these columns is the store's own, or as good.
            WHEN rollup.columns IS NOT NULL AND rollup.columns <> ARRAY(
                    SELECT a.attname FROM unnest(rollup.columns) WITH ORDINALITY AS c (name, place)
                    JOIN pg_attribute a ON a.attrelid = to_regclass(rollup.source) AND a.attname = c.name
                    WHERE NOT a.attisdropped ORDER BY c.place)
                THEN format('table %s is not the one that jetcopy made', rollup.source)
            WHEN rollup.columns IS NOT NULL AND NOT EXISTS (
                    SELECT FROM timescaledb_information.hypertables
                    WHERE to_regclass(format('%I.%I', hypertable_schema, hypertable_name))
                        = to_regclass(rollup.source))
                THEN format('table %s is no hypertable', rollup.source)
            -- The view of another is a roll-up only if it was made here.
            WHEN rollup.columns IS NULL AND NOT EXISTS (
                    SELECT FROM timescaledb_information.continuous_aggregates
                    WHERE to_regclass(format('%I.%I', view_schema, view_name)) = to_regclass(rollup.source))
                THEN format('%s is no continuous aggregate', rollup.source)
        END;
        IF obstacle IS NOT NULL THEN
            RAISE NOTICE 'roll-up % is not created: %', rollup.name, obstacle;
            CONTINUE;
        END IF;
        EXECUTE format(
            'CREATE MATERIALIZED VIEW %I.%I
                WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
             SELECT %s.time_bucket(interval %L, %I) AS bucket, %s, %s FROM %s GROUP BY 1, %s WITH NO DATA',
            (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.oid = to_regclass(rollup.source)),
            rollup.name, timescale, rollup.width, rollup.time_column, rollup.keys, rollup.aggregates,
            to_regclass(rollup.source), rollup.keys);
    END LOOP;
END
$store$;

-- Tables, where there are no continuous aggregates.
DO $store$
DECLARE
    frame_stats text := 'frames bigint, key_frames bigint, bytes bigint,
        processing_ms_count bigint, processing_ms_sum double precision, processing_ms_mean double precision,
        processing_ms_max double precision,
        brightness_count bigint, brightness_sum double precision, brightness_mean double precision,
        motion_count bigint, motion_sum double precision, motion_mean double precision';
    detection_stats text := 'detections bigint,
        confidence_count bigint, confidence_sum double precision, confidence_mean double precision,
        confidence_max double precision';
    measurement_stats text := 'measurements bigint,
        snr_db_count bigint, snr_db_sum double precision, snr_db_mean double precision,
        snr_db_min double precision, snr_db_max double precision,
        frequency_offset_hz_count bigint, frequency_offset_hz_sum double precision,
        frequency_offset_hz_mean double precision, frequency_offset_hz_min double precision,
        frequency_offset_hz_max double precision';
    rollup record;
    schema_name text;
BEGIN
    FOR rollup IN SELECT * FROM (VALUES
        (1, 'frame_stats_1m', 'frame_metadata', '1 minute', 'camera_id', frame_stats),
        (2, 'frame_stats_1h', 'frame_stats_1m', '1 hour', 'camera_id', frame_stats),
        (3, 'frame_stats_1d', 'frame_stats_1h', '1 day', 'camera_id', frame_stats),
        (4, 'detection_stats_1m', 'detection_events', '1 minute', 'camera_id,label', detection_stats),
        (5, 'detection_stats_1h', 'detection_stats_1m', '1 hour', 'camera_id,label', detection_stats),
        (6, 'detection_stats_1d', 'detection_stats_1h', '1 day', 'camera_id,label', detection_stats),
        (7, 'measurements_daily', 'measurements', '1 day', 'websdr_id', measurement_stats)
    ) AS list (place, name, source, width, keys, columns) ORDER BY place
    LOOP
        CONTINUE WHEN to_regclass(rollup.name) IS NOT NULL;
        -- Only of what jetcopy partitions or sums up: other tables of the name may have other columns.
        CONTINUE WHEN NOT EXISTS (
            SELECT FROM jetcopy.partitioned_tables WHERE relation = to_regclass(rollup.source)
            UNION ALL SELECT FROM jetcopy.rollups WHERE to_regclass(name) = to_regclass(rollup.source));
        SELECT quote_ident(n.nspname) INTO schema_name
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.oid = to_regclass(rollup.source);
        EXECUTE format('CREATE TABLE %s.%I (bucket timestamptz NOT NULL, %s text, %s)',
            schema_name, rollup.name, replace(rollup.keys, ',', ' text, '), rollup.columns);
        -- Serves "one camera over a span of time", and "all of a span", which is also how buckets are
        -- replaced.
        EXECUTE format('CREATE INDEX ON %s.%I (%s, bucket DESC)', schema_name, rollup.name, rollup.keys);
        EXECUTE format('CREATE INDEX ON %s.%I (bucket)', schema_name, rollup.name);
        INSERT INTO jetcopy.rollups (name, source, width)
        VALUES (rollup.name, to_regclass(rollup.source), rollup.width::interval);
    END LOOP;
END
$store$;

-- What they are. A comment that somebody made stays, and so does a table that belongs to another role.
DO $store$
DECLARE
    said record;
    kind "char";
BEGIN
    FOR said IN
        WITH rollups (name, width, source, keys, aggregates) AS (VALUES
            ('frame_stats_1m', 'minute', 'frames of a camera', '{camera_id}'::text[], 'frames'),
            ('frame_stats_1h', 'hour', 'frames of a camera', '{camera_id}', 'frames'),
            ('frame_stats_1d', 'day', 'frames of a camera', '{camera_id}', 'frames'),
            ('detection_stats_1m', 'minute', 'detections of a camera and label', '{camera_id,label}',
                'detections'),
            ('detection_stats_1h', 'hour', 'detections of a camera and label', '{camera_id,label}',
                'detections'),
            ('detection_stats_1d', 'day', 'detections of a camera and label', '{camera_id,label}',
                'detections'),
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
            SELECT r.name, NULL,
                format('Sums of the %s, a row each %s in UTC; a mean is divided out of sum and count',
                r.source, r.width)
            FROM rollups r
            UNION ALL SELECT r.name, 'bucket', format('Where the %s begins', r.width) FROM rollups r
            UNION ALL SELECT r.name, o.name, o.text FROM rollups r JOIN of_rollups o USING (aggregates)
        )
        SELECT c.relation, c.attribute, c.text FROM comments c
        LEFT JOIN pg_attribute a ON a.attrelid = to_regclass(c.relation) AND a.attname = c.attribute
            AND NOT a.attisdropped
        WHERE to_regclass(c.relation) IS NOT NULL AND (c.attribute IS NULL OR a.attnum IS NOT NULL)
            AND NOT EXISTS (SELECT FROM pg_description d WHERE d.objoid = to_regclass(c.relation)
                AND d.classoid = 'pg_class'::regclass AND d.objsubid = coalesce(a.attnum, 0))
    LOOP
        SELECT c.relkind INTO kind FROM pg_class c
        WHERE c.oid = to_regclass(said.relation) AND pg_has_role(c.relowner, 'USAGE');
        IF kind IS NULL THEN
            CONTINUE;
        ELSIF said.attribute IS NOT NULL THEN
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', to_regclass(said.relation), said.attribute,
                said.text);
        ELSE
            EXECUTE format('COMMENT ON %s %s IS %L',
                CASE kind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END,
                to_regclass(said.relation), said.text);
        END IF;
    END LOOP;
END
$store$;
