-- Receivers, and what is asked of their measurements: by frequency, a drift by task, and how many were refused.

DO $migration$
BEGIN
    IF to_regclass('websdrs') IS NOT NULL THEN
        RAISE NOTICE 'table websdrs is there already and stays as it is';
        RETURN;
    END IF;

    -- No reference from the measurements: they may come before the event that tells of their receiver.
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
    COMMENT ON COLUMN websdrs.attributes IS 'What else the event carried';
    COMMENT ON COLUMN websdrs.created_at IS 'When it was created';
    COMMENT ON COLUMN websdrs.updated_at IS 'Time of the event that this row is from; an older event never replaces it';
END
$migration$;

-- Serves "the newest at a frequency".
DO $migration$
BEGIN
    IF 2 = (SELECT count(*) FROM pg_attribute
            WHERE attrelid = to_regclass('measurements') AND attname IN ('frequency_mhz', 'timestamp_utc') AND NOT attisdropped)
        AND EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('measurements') AND relkind IN ('r', 'p'))
        AND to_regclass('measurements_frequency_mhz_timestamp_utc') IS NULL
    THEN
        CREATE INDEX measurements_frequency_mhz_timestamp_utc ON measurements (frequency_mhz, timestamp_utc DESC);
    END IF;
END
$migration$;

-- Text that is looked at when it is called, as that of the other queries.
SET LOCAL check_function_bodies = off;

CREATE FUNCTION jetcopy.receivers(
    receiver text DEFAULT NULL,
    is_active boolean DEFAULT NULL
) RETURNS TABLE (
    id text, name text, location text, url text, active boolean, attributes jsonb, created_at timestamptz, updated_at timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT w.id, w.name, w.location, w.url, w.active, w.attributes, w.created_at, w.updated_at
    FROM websdrs w
    WHERE (receivers.receiver IS NULL OR w.id = receivers.receiver)
        AND (receivers.is_active IS NULL OR w.active = receivers.is_active)
    ORDER BY w.id
$$;
COMMENT ON FUNCTION jetcopy.receivers IS 'Radio receivers, by id; only active ones, or only others';

-- These have a column more, so each is made anew.
DROP FUNCTION jetcopy.recent_measurements(text, text, timestamptz, timestamptz, bigint);
CREATE FUNCTION jetcopy.recent_measurements(
    task text DEFAULT NULL,
    receiver text DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 100,
    frequency double precision DEFAULT NULL
) RETURNS TABLE (
    timestamp_utc timestamptz, task_id text, websdr_id text, frequency_mhz double precision,
    sample_rate_khz double precision, samples_count bigint, snr_db double precision, frequency_offset_hz double precision,
    power_dbm double precision, s3_path text, attributes jsonb, receiver_name text
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT m.*, w.name
    FROM (
        SELECT m.timestamp_utc, m.task_id, m.websdr_id, m.frequency_mhz, m.sample_rate_khz, m.samples_count, m.snr_db,
            m.frequency_offset_hz, m.power_dbm, m.s3_path, m.attributes
        FROM measurements m
        WHERE (recent_measurements.task IS NULL OR m.task_id = recent_measurements.task)
            AND (recent_measurements.receiver IS NULL OR m.websdr_id = recent_measurements.receiver)
            AND (recent_measurements.frequency IS NULL OR m.frequency_mhz = recent_measurements.frequency)
            AND m.timestamp_utc >= CASE WHEN recent_measurements.since IS NULL THEN '-infinity' ELSE recent_measurements.since END
            AND m.timestamp_utc < CASE WHEN recent_measurements.until IS NULL THEN 'infinity' ELSE recent_measurements.until END
        ORDER BY m.timestamp_utc DESC LIMIT recent_measurements.max_rows
    ) m
    LEFT JOIN websdrs w ON w.id = m.websdr_id
    ORDER BY m.timestamp_utc DESC
$$;
COMMENT ON FUNCTION jetcopy.recent_measurements IS 'Measurements by task, receiver, frequency and span of time, newest first';

DROP FUNCTION jetcopy.session_measurements(text, timestamptz, timestamptz);
CREATE FUNCTION jetcopy.session_measurements(
    task text,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    timestamp_utc timestamptz, task_id text, websdr_id text, frequency_mhz double precision,
    sample_rate_khz double precision, samples_count bigint, snr_db double precision, frequency_offset_hz double precision,
    power_dbm double precision, s3_path text, attributes jsonb, receiver_name text
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT m.timestamp_utc, m.task_id, m.websdr_id, m.frequency_mhz, m.sample_rate_khz, m.samples_count, m.snr_db,
        m.frequency_offset_hz, m.power_dbm, m.s3_path, m.attributes, w.name
    FROM measurements m
    LEFT JOIN websdrs w ON w.id = m.websdr_id
    WHERE m.task_id = session_measurements.task
        AND m.timestamp_utc >= CASE WHEN session_measurements.since IS NULL THEN '-infinity' ELSE session_measurements.since END
        AND m.timestamp_utc < CASE WHEN session_measurements.until IS NULL THEN 'infinity' ELSE session_measurements.until END
    ORDER BY m.websdr_id, m.timestamp_utc
$$;
COMMENT ON FUNCTION jetcopy.session_measurements IS 'All measurements of a session (task), receiver by receiver, oldest first';

DROP FUNCTION jetcopy.snr_statistics(text, text, timestamptz, timestamptz);
CREATE FUNCTION jetcopy.snr_statistics(
    receiver text DEFAULT NULL,
    task text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    websdr_id text, measurements bigint, snr_db_mean double precision, snr_db_min double precision,
    snr_db_max double precision, snr_db_stddev double precision, receiver_name text
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT s.*, w.name
    FROM (
        SELECT m.websdr_id, count(m.snr_db), avg(m.snr_db), min(m.snr_db), max(m.snr_db), stddev_samp(m.snr_db)
        FROM measurements m
        WHERE (snr_statistics.receiver IS NULL OR m.websdr_id = snr_statistics.receiver)
            AND (snr_statistics.task IS NULL OR m.task_id = snr_statistics.task)
            AND m.timestamp_utc >= CASE WHEN snr_statistics.since IS NULL THEN '-infinity' ELSE snr_statistics.since END
            AND m.timestamp_utc < CASE WHEN snr_statistics.until IS NULL THEN 'infinity' ELSE snr_statistics.until END
        GROUP BY m.websdr_id
    ) s
    LEFT JOIN websdrs w ON w.id = s.websdr_id
    ORDER BY s.websdr_id
$$;
COMMENT ON FUNCTION jetcopy.snr_statistics IS 'Count, mean, least, greatest and spread of the signal-to-noise ratio in dB, per receiver';

DROP FUNCTION jetcopy.frequency_drift(text, double precision, interval, timestamptz, timestamptz);
CREATE FUNCTION jetcopy.frequency_drift(
    receiver text DEFAULT NULL,
    frequency double precision DEFAULT NULL,
    width interval DEFAULT '1 hour',
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT NULL,
    task text DEFAULT NULL
) RETURNS TABLE (
    websdr_id text, bucket timestamptz, measurements bigint, offset_hz_mean double precision, offset_hz_min double precision,
    offset_hz_max double precision, drift_hz double precision, receiver_name text
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT b.websdr_id, b.bucket, b.measurements, b.offset_mean, b.offset_min, b.offset_max,
        b.offset_mean - lag(b.offset_mean) OVER (PARTITION BY b.websdr_id ORDER BY b.bucket), w.name
    FROM (
        SELECT m.websdr_id, date_bin(frequency_drift.width, m.timestamp_utc, timestamptz '2000-01-01 00:00:00+00') AS bucket,
            count(m.frequency_offset_hz) AS measurements, avg(m.frequency_offset_hz) AS offset_mean,
            min(m.frequency_offset_hz) AS offset_min, max(m.frequency_offset_hz) AS offset_max
        FROM measurements m
        WHERE (frequency_drift.receiver IS NULL OR m.websdr_id = frequency_drift.receiver)
            AND (frequency_drift.frequency IS NULL OR m.frequency_mhz = frequency_drift.frequency)
            AND (frequency_drift.task IS NULL OR m.task_id = frequency_drift.task)
            AND m.timestamp_utc >= CASE WHEN frequency_drift.since IS NULL THEN '-infinity' ELSE frequency_drift.since END
            AND m.timestamp_utc < CASE WHEN frequency_drift.until IS NULL THEN 'infinity' ELSE frequency_drift.until END
        GROUP BY 1, 2
    ) b
    LEFT JOIN websdrs w ON w.id = b.websdr_id
    ORDER BY b.websdr_id, b.bucket
$$;
COMMENT ON FUNCTION jetcopy.frequency_drift IS 'Frequency offset in Hz over time, per receiver, and how far its mean went from the bucket before';

DROP FUNCTION jetcopy.measurement_days(text, timestamptz, timestamptz);
CREATE FUNCTION jetcopy.measurement_days(
    receiver text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 year',
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    bucket timestamptz, websdr_id text, measurements bigint, snr_db_mean double precision, snr_db_min double precision,
    snr_db_max double precision, offset_hz_mean double precision, offset_hz_min double precision,
    offset_hz_max double precision, receiver_name text
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT r.bucket, r.websdr_id, r.measurements, r.snr_db_mean, r.snr_db_min, r.snr_db_max, r.frequency_offset_hz_mean,
        r.frequency_offset_hz_min, r.frequency_offset_hz_max, w.name
    FROM measurements_daily r
    LEFT JOIN websdrs w ON w.id = r.websdr_id
    WHERE (measurement_days.receiver IS NULL OR r.websdr_id = measurement_days.receiver)
        AND r.bucket >= CASE WHEN measurement_days.since IS NULL THEN '-infinity' ELSE measurement_days.since END
        AND r.bucket < CASE WHEN measurement_days.until IS NULL THEN 'infinity' ELSE measurement_days.until END
    ORDER BY r.bucket, r.websdr_id
$$;
COMMENT ON FUNCTION jetcopy.measurement_days IS 'Signal-to-noise ratio in dB and frequency offset in Hz, per day and receiver, from measurements_daily';

-- Refused measurements of each task, by the pipeline's name and the subjects of config/store.toml. It runs with the rights of its
-- owner and tells numbers alone: who may read measurements need not see what lies in the dead letters.
CREATE FUNCTION jetcopy.refused_measurements(
    task text DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL
) RETURNS TABLE (task_id text, refused bigint, messages bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT split_part(d.subject, '.', 2), sum(coalesce(cardinality(d.elements), 1))::bigint, count(DISTINCT (d.shard, d.sequence))
    FROM jetcopy.dead_letters d
    WHERE d.pipeline = 'measurements' AND (d.subject LIKE '%.one' OR d.subject LIKE '%.many')
        AND (refused_measurements.task IS NULL OR split_part(d.subject, '.', 2) = refused_measurements.task)
        AND (refused_measurements.since IS NULL OR coalesce(d.stored_at, d.failed_at) >= refused_measurements.since)
        AND (refused_measurements.until IS NULL OR coalesce(d.stored_at, d.failed_at) < refused_measurements.until)
    GROUP BY 1
$$;
COMMENT ON FUNCTION jetcopy.refused_measurements IS 'How many measurements of each task are dead letters, and in how many messages; one that is refused as a whole counts as one';

CREATE FUNCTION jetcopy.measurement_results(
    task text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT NULL
) RETURNS TABLE (task_id text, stored bigint, refused bigint, refused_messages bigint) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(s.task_id, r.task_id), coalesce(s.stored, 0), coalesce(r.refused, 0), coalesce(r.messages, 0)
    FROM (
        SELECT m.task_id, count(*) AS stored
        FROM measurements m
        WHERE (measurement_results.task IS NULL OR m.task_id = measurement_results.task)
            AND m.timestamp_utc >= CASE WHEN measurement_results.since IS NULL THEN '-infinity' ELSE measurement_results.since END
            AND m.timestamp_utc < CASE WHEN measurement_results.until IS NULL THEN 'infinity' ELSE measurement_results.until END
        GROUP BY m.task_id
    ) s
    FULL JOIN jetcopy.refused_measurements(measurement_results.task, measurement_results.since, measurement_results.until) r
        ON r.task_id = s.task_id
    ORDER BY 1
$$;
COMMENT ON FUNCTION jetcopy.measurement_results IS 'How many measurements of each task were stored, by the times in them, and refused, by the times of their messages';

SET LOCAL check_function_bodies = on;
