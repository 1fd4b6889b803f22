-- The store: its settings, and its tables.
--
-- A block makes one table, where none of its name is there, and belongs to the group of tables that it is
-- tagged with: `jetcopy migrate` leaves out the blocks of groups that [store] tables does not name, and runs
-- a block again when its table is gone.

-- Settings

-- [store] tables and real_time of the last configuration that named them.
CREATE TABLE jetcopy.store_choice (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    tables text[] NOT NULL,
    real_time boolean
);
GRANT SELECT ON jetcopy.store_choice TO PUBLIC;

COMMENT ON TABLE jetcopy.store_choice IS 'Which groups of the store''s tables jetcopy migrate creates';
COMMENT ON COLUMN jetcopy.store_choice.one_row IS 'There is one row';
COMMENT ON COLUMN jetcopy.store_choice.tables IS 'Of frames, measurements, series and registry; empty: none';
COMMENT ON COLUMN jetcopy.store_choice.real_time IS
    'Whether roll-ups have the bucket that is not over yet; NULL: nobody has said';

CREATE TABLE jetcopy.store_place (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    schema name NOT NULL
);
-- Whoever reads the store looks here.
GRANT SELECT ON jetcopy.store_place TO PUBLIC;

COMMENT ON TABLE jetcopy.store_place IS
    'In which schema the store''s tables lie; no row: where the search path finds them';
COMMENT ON COLUMN jetcopy.store_place.one_row IS 'True: there is one row at most';
COMMENT ON COLUMN jetcopy.store_place.schema IS
    'The schema: [store] schema of the last configuration that named it';

-- `jetcopy migrate` writes the defaults for tables that it creates, and after that only what a [store]
-- section names. `jetcopy maintain` and TimescaleDB's jobs go by what stands here.
CREATE TABLE jetcopy.store_life (
    relation text NOT NULL,
    -- chunk_interval, compress_after, retention, refresh.every, refresh.window, refresh.lag
    setting text NOT NULL,
    age interval,
    -- What somebody changes in TimescaleDB's jobs afterwards is the setting in force.
    applied boolean NOT NULL DEFAULT false,
    PRIMARY KEY (relation, setting)
);
-- Whoever maintains the store reads it.
GRANT SELECT ON jetcopy.store_life TO PUBLIC;

COMMENT ON TABLE jetcopy.store_life IS 'How the rows of the store''s tables and roll-ups live';
COMMENT ON COLUMN jetcopy.store_life.relation IS 'A table or roll-up of the store';
COMMENT ON COLUMN jetcopy.store_life.setting IS 'The setting, as [store.RELATION] has it';
COMMENT ON COLUMN jetcopy.store_life.age IS 'Its value; NULL: never';
COMMENT ON COLUMN jetcopy.store_life.applied IS 'Whether TimescaleDB''s jobs were brought to it';

CREATE TABLE jetcopy.deletions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    deleted_by text NOT NULL DEFAULT session_user,
    what text NOT NULL,
    before timestamptz,
    deleted bigint NOT NULL
);

COMMENT ON TABLE jetcopy.deletions IS
    'What people have deleted from the store, each line written in the transaction that deletes';
COMMENT ON COLUMN jetcopy.deletions.id IS 'Number of the deletion';
COMMENT ON COLUMN jetcopy.deletions.deleted_at IS 'When';
COMMENT ON COLUMN jetcopy.deletions.deleted_by IS 'By which role';
COMMENT ON COLUMN jetcopy.deletions.what IS 'What: measurements, or a series';
COMMENT ON COLUMN jetcopy.deletions.before IS 'Rows with times before this; NULL: all';
COMMENT ON COLUMN jetcopy.deletions.deleted IS 'Rows that went';

-- Frames and detections
--
-- Their first index serves "one camera over a span of time". A unique key is left to those who need one:
-- exactly-once does not, it costs a third of the rows a second, and TimescaleDB compresses no COPY into a
-- table that has one. Without TimescaleDB a second one serves "every camera over a span of time", at next to
-- no cost to a table that is filled in time order; with it, chunks outside the span are not read.

DO $frames$
BEGIN
    IF to_regclass('frame_metadata') IS NOT NULL THEN
        RAISE NOTICE 'table frame_metadata is there already and stays as it is';
        RETURN;
    END IF;

    CREATE TABLE frame_metadata (
        time timestamptz NOT NULL,
        camera_id text NOT NULL,
        frame_id bigint NOT NULL,
        width integer,
        height integer,
        codec text,
        fps double precision,
        key_frame boolean,
        size_bytes bigint,
        processing_ms double precision,
        brightness double precision,
        motion double precision,
        attributes jsonb
    );
    PERFORM jetcopy.time_table('frame_metadata', 'time', interval '1 day');

    CREATE INDEX frame_metadata_camera_id_time ON frame_metadata (camera_id, time DESC);
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        CREATE INDEX frame_metadata_time ON frame_metadata USING brin (time);
    END IF;

    COMMENT ON TABLE frame_metadata IS 'Video frames, one row each';
    COMMENT ON COLUMN frame_metadata.time IS 'When the frame was taken';
    COMMENT ON COLUMN frame_metadata.camera_id IS 'The camera';
    COMMENT ON COLUMN frame_metadata.frame_id IS 'Number that the camera gives the frame';
    COMMENT ON COLUMN frame_metadata.width IS 'Width, in pixels';
    COMMENT ON COLUMN frame_metadata.height IS 'Height, in pixels';
    COMMENT ON COLUMN frame_metadata.codec IS 'How the frame is encoded';
    COMMENT ON COLUMN frame_metadata.fps IS 'Frames a second of the stream that it is of';
    COMMENT ON COLUMN frame_metadata.key_frame IS 'Whether it can be decoded by itself';
    COMMENT ON COLUMN frame_metadata.size_bytes IS 'Size as encoded, in bytes';
    COMMENT ON COLUMN frame_metadata.processing_ms IS 'How long its processing took, in milliseconds';
    COMMENT ON COLUMN frame_metadata.brightness IS 'Brightness, as the publisher measures it';
    COMMENT ON COLUMN frame_metadata.motion IS 'Motion since the frame before, as the publisher measures it';
    COMMENT ON COLUMN frame_metadata.attributes IS 'What else the message contained';
END
$frames$;

DO $frames$
BEGIN
    IF to_regclass('detection_events') IS NOT NULL THEN
        RAISE NOTICE 'table detection_events is there already and stays as it is';
        RETURN;
    END IF;

    CREATE TABLE detection_events (
        time timestamptz NOT NULL,
        camera_id text NOT NULL,
        frame_id bigint NOT NULL,
        track_id bigint,
        label text,
        confidence double precision,
        bbox_left double precision,
        bbox_top double precision,
        bbox_width double precision,
        bbox_height double precision,
        attributes jsonb
    );
    PERFORM jetcopy.time_table('detection_events', 'time', interval '1 day');

    CREATE INDEX detection_events_camera_id_time ON detection_events (camera_id, time DESC);
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        CREATE INDEX detection_events_time ON detection_events USING brin (time);
    END IF;
    -- Detections are asked for by label, over all cameras.
    CREATE INDEX detection_events_label_time ON detection_events (label, time DESC);

    COMMENT ON TABLE detection_events IS 'Objects detected in video frames, one row each';
    COMMENT ON COLUMN detection_events.time IS 'When the frame was taken';
    COMMENT ON COLUMN detection_events.camera_id IS 'The camera';
    COMMENT ON COLUMN detection_events.frame_id IS 'The frame: frame_metadata.frame_id of this camera';
    COMMENT ON COLUMN detection_events.track_id IS 'The object, where it is followed over frames';
    COMMENT ON COLUMN detection_events.label IS 'What it is';
    COMMENT ON COLUMN detection_events.confidence IS 'How sure the detector is, from 0 to 1';
    COMMENT ON COLUMN detection_events.bbox_left IS 'Left edge of its box, in the unit of the publisher';
    COMMENT ON COLUMN detection_events.bbox_top IS 'Upper edge of its box';
    COMMENT ON COLUMN detection_events.bbox_width IS 'Width of its box';
    COMMENT ON COLUMN detection_events.bbox_height IS 'Height of its box';
    COMMENT ON COLUMN detection_events.attributes IS 'What else the detection contained';
END
$frames$;

-- Measurements

DO $measurements$
BEGIN
    IF to_regclass('measurements') IS NOT NULL THEN
        RAISE NOTICE 'table measurements is there already and stays as it is';
        RETURN;
    END IF;

    CREATE TABLE measurements (
        timestamp_utc timestamptz NOT NULL,
        task_id text NOT NULL,
        websdr_id text NOT NULL,
        frequency_mhz double precision NOT NULL,
        sample_rate_khz double precision,
        samples_count bigint,
        snr_db double precision,
        frequency_offset_hz double precision,
        power_dbm double precision,
        s3_path text,
        attributes jsonb
    );
    PERFORM jetcopy.time_table('measurements', 'timestamp_utc', interval '1 day');

    -- Each serves its look-up newest first, within one chunk as a rule. Receivers measure a few times a
    -- minute, not a few thousand times a second as cameras do, so that four indexes are cheap. A unique key
    -- is left to those who need one.
    CREATE INDEX measurements_websdr_id_timestamp_utc ON measurements (websdr_id, timestamp_utc DESC);
    CREATE INDEX measurements_task_id_timestamp_utc ON measurements (task_id, timestamp_utc DESC);
    CREATE INDEX measurements_timestamp_utc ON measurements (timestamp_utc DESC);
    CREATE INDEX measurements_frequency_mhz_timestamp_utc ON measurements (frequency_mhz, timestamp_utc DESC);

    COMMENT ON TABLE measurements IS 'Measurements of radio receivers, one row each';
    COMMENT ON COLUMN measurements.timestamp_utc IS 'When the samples were taken';
    COMMENT ON COLUMN measurements.task_id IS 'The task, or session, that asked for the measurement';
    COMMENT ON COLUMN measurements.websdr_id IS 'The receiver';
    COMMENT ON COLUMN measurements.frequency_mhz IS 'Frequency that was listened to, in MHz';
    COMMENT ON COLUMN measurements.sample_rate_khz IS 'Samples taken, in thousands a second';
    COMMENT ON COLUMN measurements.samples_count IS 'Samples taken, in all';
    COMMENT ON COLUMN measurements.snr_db IS 'Signal-to-noise ratio, in dB';
    COMMENT ON COLUMN measurements.frequency_offset_hz IS
        'Frequency found minus frequency listened to, in Hz';
    COMMENT ON COLUMN measurements.power_dbm IS 'Received power, in dBm';
    COMMENT ON COLUMN measurements.s3_path IS 'Where the samples lie';
    COMMENT ON COLUMN measurements.attributes IS 'What else the message contained';
END
$measurements$;

DO $measurements$
BEGIN
    IF to_regclass('websdrs') IS NOT NULL THEN
        RAISE NOTICE 'table websdrs is there already and stays as it is';
        RETURN;
    END IF;

    -- No reference from the measurements: they may come before the event that describes their receiver.
    CREATE TABLE websdrs (
        id text PRIMARY KEY,
        name text,
        location text,
        url text,
        active boolean NOT NULL DEFAULT true,
        attributes jsonb,
        created_at timestamptz,
        updated_at timestamptz NOT NULL
    );

    COMMENT ON TABLE websdrs IS 'Radio receivers; a newer event of an id replaces the older one';
    COMMENT ON COLUMN websdrs.id IS 'The receiver: measurements.websdr_id';
    COMMENT ON COLUMN websdrs.name IS 'Its name for people';
    COMMENT ON COLUMN websdrs.location IS 'Where it stands, for people';
    COMMENT ON COLUMN websdrs.url IS 'Where it is listened to';
    COMMENT ON COLUMN websdrs.active IS 'Whether it is in use';
    COMMENT ON COLUMN websdrs.attributes IS 'What else the event contained';
    COMMENT ON COLUMN websdrs.created_at IS 'When it was created';
    COMMENT ON COLUMN websdrs.updated_at IS
        'Time of the event that this row is from; an older event never replaces it';
END
$measurements$;

-- Time series: a document of metadata for each, replaced by newer ones, and their points in long form

-- The documents may say when a series was created; where none does, it is the time of the first that came.
CREATE FUNCTION jetcopy.keep_created_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A row that meets another of its key comes by INSERT first, which has filled it in.
    IF TG_OP = 'UPDATE' AND (NEW.created_at IS NULL OR NEW.created_at = NEW.updated_at) THEN
        NEW.created_at := coalesce(OLD.created_at, NEW.updated_at);
    ELSIF NEW.created_at IS NULL THEN
        NEW.created_at := NEW.updated_at;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION jetcopy.keep_created_at IS
    'Keeps created_at over documents that do not say it, as a trigger of INSERT and UPDATE';

DO $series$
BEGIN
    IF to_regclass('time_series_metadata') IS NOT NULL THEN
        RAISE NOTICE 'table time_series_metadata is there already and stays as it is';
        RETURN;
    END IF;

    CREATE TABLE time_series_metadata (
        id text PRIMARY KEY,
        name text,
        description text,
        time_column text,
        value_columns text[],
        attributes jsonb,
        created_at timestamptz,
        updated_at timestamptz NOT NULL
    );
    CREATE TRIGGER keep_created_at BEFORE INSERT OR UPDATE ON time_series_metadata
        FOR EACH ROW EXECUTE FUNCTION jetcopy.keep_created_at();

    COMMENT ON TABLE time_series_metadata IS
        'What each time series is; a newer document of an id replaces the older one';
    COMMENT ON COLUMN time_series_metadata.id IS 'The series';
    COMMENT ON COLUMN time_series_metadata.name IS 'Its name for people';
    COMMENT ON COLUMN time_series_metadata.description IS 'What it is, for people';
    COMMENT ON COLUMN time_series_metadata.time_column IS
        'Name of the column of time where the series comes from';
    COMMENT ON COLUMN time_series_metadata.value_columns IS
        'Names of its columns of values; NULL: those that its points name';
    COMMENT ON COLUMN time_series_metadata.attributes IS 'What else the document contained';
    COMMENT ON COLUMN time_series_metadata.created_at IS
        'When the series was created, as its document says, else when its first document came';
    COMMENT ON COLUMN time_series_metadata.updated_at IS
        'Time of the event that this row is from; an older event never replaces it';
END
$series$;

DO $series$
BEGIN
    IF to_regclass('time_series_data_points') IS NOT NULL THEN
        RAISE NOTICE 'table time_series_data_points is there already and stays as it is';
        RETURN;
    END IF;

    -- No reference to the metadata: points may come before the document that describes them.
    CREATE TABLE time_series_data_points (
        timestamp timestamptz NOT NULL,
        series_id text NOT NULL,
        column_name text NOT NULL,
        value double precision
    );
    PERFORM jetcopy.time_table('time_series_data_points', 'timestamp', interval '1 day');

    -- Serves "one column of a series over a span of time" and, by skipping from column to column, all of
    -- them. A unique key is left to those who need one: exactly-once does not.
    CREATE INDEX time_series_data_points_series_id_column_name_timestamp
        ON time_series_data_points (series_id, column_name, timestamp DESC);

    COMMENT ON TABLE time_series_data_points IS 'Points of time series, one row a column and time';
    COMMENT ON COLUMN time_series_data_points.timestamp IS 'The time that the value is of';
    COMMENT ON COLUMN time_series_data_points.series_id IS 'The series: time_series_metadata.id';
    COMMENT ON COLUMN time_series_data_points.column_name IS 'Which of the series'' columns the value is of';
    COMMENT ON COLUMN time_series_data_points.value IS
        'The value, in the unit of its column; NULL: there was none, or no number';
END
$series$;

-- Registry: projects and files, fed by events that each have the whole row, and the log of what was done to
-- them. There are no references between the tables: events come in any order. `jetcopy.registry_check()`
-- finds what does not fit.

DO $registry$
BEGIN
    IF to_regclass('projects') IS NOT NULL THEN
        RAISE NOTICE 'table projects is there already and stays as it is';
        RETURN;
    END IF;

    CREATE TABLE projects (
        id text PRIMARY KEY,
        name text,
        path text,
        size_bytes bigint,
        table_count bigint,
        bucket_count bigint,
        status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'deleted', 'locked')),
        settings jsonb,
        created_at timestamptz,
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX projects_status_id ON projects (status, id);

    COMMENT ON TABLE projects IS
        'Projects; a newer event of an id replaces the older one, and a deleted project stays as such';
    COMMENT ON COLUMN projects.id IS 'The project';
    COMMENT ON COLUMN projects.name IS 'Its name for people';
    COMMENT ON COLUMN projects.path IS 'Where its data lies';
    COMMENT ON COLUMN projects.size_bytes IS 'Size of its data, in bytes';
    COMMENT ON COLUMN projects.table_count IS 'How many tables it has';
    COMMENT ON COLUMN projects.bucket_count IS 'How many buckets it has';
    COMMENT ON COLUMN projects.status IS 'active, deleted or locked';
    COMMENT ON COLUMN projects.settings IS 'Its settings';
    COMMENT ON COLUMN projects.created_at IS 'When it was created';
    COMMENT ON COLUMN projects.updated_at IS
        'Time of the event that this row is from; an older event never replaces it';
END
$registry$;

DO $registry$
BEGIN
    IF to_regclass('files') IS NOT NULL THEN
        RAISE NOTICE 'table files is there already and stays as it is';
        RETURN;
    END IF;

    CREATE TABLE files (
        project_id text NOT NULL,
        path text NOT NULL,
        name text,
        size_bytes bigint,
        content_type text,
        md5 text,
        sha256 text,
        staged boolean NOT NULL DEFAULT false,
        expires_at timestamptz,
        tags jsonb,
        status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'deleted', 'expired')),
        created_at timestamptz,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (project_id, path)
    );
    CREATE INDEX files_project_id_name ON files (project_id, name);
    CREATE INDEX files_sha256 ON files (sha256);
    CREATE INDEX files_tags ON files USING gin (tags);
    -- Holds the files that wait for their promotion, which are few.
    CREATE INDEX files_staged_expires_at ON files (expires_at) WHERE staged AND status = 'active';

    COMMENT ON TABLE files IS
        'Files of projects; a newer event of a path replaces the older one, and a deleted file stays as such';
    COMMENT ON COLUMN files.project_id IS 'The project: projects.id';
    COMMENT ON COLUMN files.path IS 'Where it lies in the project; with the project its key';
    COMMENT ON COLUMN files.name IS 'Its name for people';
    COMMENT ON COLUMN files.size_bytes IS 'Its size, in bytes';
    COMMENT ON COLUMN files.content_type IS 'Its media type';
    COMMENT ON COLUMN files.md5 IS 'MD5 of its content, in hexadecimal digits';
    COMMENT ON COLUMN files.sha256 IS 'SHA-256 of its content, in hexadecimal digits';
    COMMENT ON COLUMN files.staged IS 'Whether it waits to be taken over; until then it expires';
    COMMENT ON COLUMN files.expires_at IS 'When it expires, while it is staged';
    COMMENT ON COLUMN files.tags IS 'Its tags: an array of texts, or an object of names and values';
    COMMENT ON COLUMN files.status IS 'active, deleted, or expired (see jetcopy.expire_staged_files)';
    COMMENT ON COLUMN files.created_at IS 'When it was created';
    COMMENT ON COLUMN files.updated_at IS
        'Time of the event that this row is from; an older event never replaces it';
END
$registry$;

CREATE FUNCTION jetcopy.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are only ever added, and leave it by retention', TG_TABLE_NAME
        USING HINT = 'Its owner can disable the trigger append_only.';
END
$$;
COMMENT ON FUNCTION jetcopy.refuse_change IS 'Keeps a table append-only, as a trigger of UPDATE and DELETE';

DO $registry$
BEGIN
    IF to_regclass('operations_log') IS NOT NULL THEN
        RAISE NOTICE 'table operations_log is there already and stays as it is';
        RETURN;
    END IF;

    CREATE TABLE operations_log (
        timestamp timestamptz NOT NULL,
        request_id text,
        project_id text,
        operation text NOT NULL,
        resource text,
        details jsonb,
        duration_ms double precision,
        status text,
        error text
    );
    PERFORM jetcopy.time_table('operations_log', 'timestamp', interval '7 days');

    CREATE INDEX operations_log_project_id_timestamp ON operations_log (project_id, timestamp DESC);
    CREATE INDEX operations_log_timestamp ON operations_log (timestamp DESC);
    CREATE INDEX operations_log_request_id ON operations_log (request_id);
    -- Once a statement, not once a row: retention and compression are no statements, and appending pays
    -- nothing.
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON operations_log
        FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.refuse_change();

    COMMENT ON TABLE operations_log IS 'What was done to projects and files, append-only';
    COMMENT ON COLUMN operations_log.timestamp IS 'When the operation began';
    COMMENT ON COLUMN operations_log.request_id IS 'The request that it was part of';
    COMMENT ON COLUMN operations_log.project_id IS 'The project: projects.id';
    COMMENT ON COLUMN operations_log.operation IS
        'What was done. jetcopy.registry_check() counts create_project, create_bucket, drop_bucket, '
        'create_table, drop_table, create_file and delete_file; other names are free';
    COMMENT ON COLUMN operations_log.resource IS 'What it was done to: a bucket, a table, a path';
    COMMENT ON COLUMN operations_log.details IS 'What else there is to say';
    COMMENT ON COLUMN operations_log.duration_ms IS 'How long it took, in milliseconds';
    COMMENT ON COLUMN operations_log.status IS 'How it ended, in the words of whoever did it';
    COMMENT ON COLUMN operations_log.error IS 'Why it failed; NULL: it did not';
END
$registry$;
