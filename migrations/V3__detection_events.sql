-- One row a detected object: a hypertable where TimescaleDB is installed, a plain table where not.
DO $migration$
DECLARE
    -- Where TimescaleDB's functions lie, once it is installed.
    timescale text;
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

    -- Serves "one camera over a span of time". A unique key is left to those who need one: exactly-once does not, it
    -- costs a third of the rows a second, and TimescaleDB compresses no COPY into a table that has one.
    CREATE INDEX detection_events_camera_id_time ON detection_events (camera_id, time DESC);

    SELECT extnamespace::regnamespace INTO timescale FROM pg_extension WHERE extname = 'timescaledb';
    IF timescale IS NULL THEN
        -- Serves "every camera over a span of time", at next to no cost to a table that is filled in time order.
        CREATE INDEX detection_events_time ON detection_events USING brin (time);
        RAISE NOTICE 'TimescaleDB is not installed: detection_events is a plain table';
        RETURN;
    END IF;

    -- No default index on time: a chunk holds a day, and chunks outside the span asked for are not read.
    EXECUTE format(
        'SELECT %s.create_hypertable(%L::regclass, %L::name, chunk_time_interval => interval %L, create_default_indexes => false)',
        timescale, 'detection_events', 'time', '1 day');
END
$migration$;
