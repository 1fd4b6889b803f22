-- Roll-ups where TimescaleDB does not keep them as continuous aggregates: tables of the same names and columns, which
-- `jetcopy maintain` fills.

-- Rows before this are dropped: a bucket is not summed up again from what is left of it.
ALTER TABLE jetcopy.partitioned_tables ADD COLUMN dropped_before timestamptz NOT NULL DEFAULT '-infinity';

-- The roll-ups that `jetcopy maintain` keeps.
CREATE TABLE jetcopy.rollups (
    name text PRIMARY KEY,
    source regclass NOT NULL,
    width interval NOT NULL,
    -- Buckets before this are there; NULL before the first run.
    filled_to timestamptz,
    refreshed_at timestamptz
);

-- The roll-ups that are filled from a table. It runs with the rights of its owner, as jetcopy.touch() does.
CREATE FUNCTION jetcopy.rollups_of(source regclass) RETURNS TABLE (name text, width interval)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.name, r.width FROM jetcopy.rollups r WHERE r.source = rollups_of.source ORDER BY r.name
$$;

-- Buckets of a roll-up whose source has changed since they were summed up, as far as known.
CREATE TABLE jetcopy.touched_buckets (
    rollup text NOT NULL,
    buckets timestamptz[] NOT NULL
);

-- Has buckets summed up again, where the roll-up is kept. jetcopy calls it with every batch; who writes late rows by other
-- ways calls it too. It runs with the rights of its owner, since who may insert rows need not know the roll-ups.
CREATE FUNCTION jetcopy.touch(rollup text, buckets timestamptz[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO jetcopy.touched_buckets SELECT name, buckets FROM jetcopy.rollups WHERE name = rollup
$$;

DO $migration$
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
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(rollup.source);
        EXECUTE format('CREATE TABLE %s.%I (bucket timestamptz NOT NULL, %s text, %s)',
            schema_name, rollup.name, replace(rollup.keys, ',', ' text, '), rollup.columns);
        -- Serves "one camera over a span of time", and "all of a span", which is also how buckets are replaced.
        EXECUTE format('CREATE INDEX ON %s.%I (%s, bucket DESC)', schema_name, rollup.name, rollup.keys);
        EXECUTE format('CREATE INDEX ON %s.%I (bucket)', schema_name, rollup.name);
        INSERT INTO jetcopy.rollups (name, source, width)
        VALUES (rollup.name, to_regclass(rollup.source), rollup.width::interval);
    END LOOP;
END
$migration$;
