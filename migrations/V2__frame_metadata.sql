-- One row a video frame: a hypertable where the server offers TimescaleDB, a plain table where not.
DO $migration$
DECLARE
    -- Where TimescaleDB's functions lie, once it is installed.
    timescale text;
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

    -- Serves "one camera over a span of time". A unique key is left to those who need one: exactly-once does not, it
    -- costs a third of the rows a second, and TimescaleDB compresses no COPY into a table that has one.
    CREATE INDEX frame_metadata_camera_id_time ON frame_metadata (camera_id, time DESC);

    SELECT extnamespace::regnamespace INTO timescale FROM pg_extension WHERE extname = 'timescaledb';
    -- Creating the extension in a server that did not preload it ends the session, so look for the loader's setting.
    IF timescale IS NULL AND current_setting('timescaledb.disable_load', true) IS NOT NULL
        AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
    THEN
        BEGIN
            CREATE EXTENSION timescaledb;
            SELECT extnamespace::regnamespace INTO timescale FROM pg_extension WHERE extname = 'timescaledb';
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE NOTICE 'TimescaleDB is offered, but this role may not create it: %', SQLERRM;
        END;
    END IF;

    IF timescale IS NULL THEN
        -- Serves "every camera over a span of time", at next to no cost to a table that is filled in time order.
        CREATE INDEX frame_metadata_time ON frame_metadata USING brin (time);
        RAISE NOTICE 'TimescaleDB is not installed: frame_metadata is a plain table';
        RETURN;
    END IF;

    -- No default index on time: a chunk holds a day, and chunks outside the span asked for are not read.
    EXECUTE format(
        'SELECT %s.create_hypertable(%L::regclass, %L::name, chunk_time_interval => interval %L, create_default_indexes => false)',
        timescale, 'frame_metadata', 'time', '1 day');
END
$migration$;
