-- The queries of the store as functions: receivers, their measurements, and time series.
SET LOCAL check_function_bodies = off;

-- Measurements

CREATE FUNCTION jetcopy.receivers(
    receiver text DEFAULT NULL,
    is_active boolean DEFAULT NULL
) RETURNS TABLE (
    id text, name text, location text, url text, active boolean, attributes jsonb, created_at timestamptz,
    updated_at timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT w.id, w.name, w.location, w.url, w.active, w.attributes, w.created_at, w.updated_at
    FROM websdrs w
    WHERE (receivers.receiver IS NULL OR w.id = receivers.receiver)
        AND (receivers.is_active IS NULL OR w.active = receivers.is_active)
    ORDER BY w.id
$$;
COMMENT ON FUNCTION jetcopy.receivers IS 'Radio receivers, by id; only active ones, or only others';

CREATE FUNCTION jetcopy.recent_measurements(
    task text DEFAULT NULL,
    receiver text DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 100,
    frequency double precision DEFAULT NULL
) RETURNS TABLE (
    timestamp_utc timestamptz, task_id text, websdr_id text, frequency_mhz double precision,
    sample_rate_khz double precision, samples_count bigint, snr_db double precision,
    frequency_offset_hz double precision, power_dbm double precision, s3_path text, attributes jsonb,
    receiver_name text
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT m.*, w.name
    FROM (
        SELECT m.timestamp_utc, m.task_id, m.websdr_id, m.frequency_mhz, m.sample_rate_khz, m.samples_count,
            m.snr_db, m.frequency_offset_hz, m.power_dbm, m.s3_path, m.attributes
        FROM measurements m
        WHERE (recent_measurements.task IS NULL OR m.task_id = recent_measurements.task)
            AND (recent_measurements.receiver IS NULL OR m.websdr_id = recent_measurements.receiver)
            AND (recent_measurements.frequency IS NULL OR m.frequency_mhz = recent_measurements.frequency)
            AND m.timestamp_utc >= CASE WHEN recent_measurements.since IS NULL THEN '-infinity'
                ELSE recent_measurements.since END
            AND m.timestamp_utc < CASE WHEN recent_measurements.until IS NULL THEN 'infinity'
                ELSE recent_measurements.until END
        ORDER BY m.timestamp_utc DESC LIMIT recent_measurements.max_rows
    ) m
    LEFT JOIN websdrs w ON w.id = m.websdr_id
    ORDER BY m.timestamp_utc DESC
$$;
COMMENT ON FUNCTION jetcopy.recent_measurements IS
    'Measurements by task, receiver, frequency and span of time, newest first';

CREATE FUNCTION jetcopy.session_measurements(
    task text,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    timestamp_utc timestamptz, task_id text, websdr_id text, frequency_mhz double precision,
    sample_rate_khz double precision, samples_count bigint, snr_db double precision,
    frequency_offset_hz double precision, power_dbm double precision, s3_path text, attributes jsonb,
    receiver_name text
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT m.timestamp_utc, m.task_id, m.websdr_id, m.frequency_mhz, m.sample_rate_khz, m.samples_count,
        m.snr_db, m.frequency_offset_hz, m.power_dbm, m.s3_path, m.attributes, w.name
    FROM measurements m
    LEFT JOIN websdrs w ON w.id = m.websdr_id
    WHERE m.task_id = session_measurements.task
        AND m.timestamp_utc >= CASE WHEN session_measurements.since IS NULL THEN '-infinity'
            ELSE session_measurements.since END
        AND m.timestamp_utc < CASE WHEN session_measurements.until IS NULL THEN 'infinity'
            ELSE session_measurements.until END
    ORDER BY m.websdr_id, m.timestamp_utc
$$;
COMMENT ON FUNCTION jetcopy.session_measurements IS
    'All measurements of a session (task), receiver by receiver, oldest first';

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
        SELECT m.websdr_id, pg_catalog.count(m.snr_db), avg(m.snr_db), min(m.snr_db), max(m.snr_db),
            stddev_samp(m.snr_db)
        FROM measurements m
        WHERE (snr_statistics.receiver IS NULL OR m.websdr_id = snr_statistics.receiver)
            AND (snr_statistics.task IS NULL OR m.task_id = snr_statistics.task)
            AND m.timestamp_utc >= CASE WHEN snr_statistics.since IS NULL THEN '-infinity'
                ELSE snr_statistics.since END
            AND m.timestamp_utc < CASE WHEN snr_statistics.until IS NULL THEN 'infinity'
                ELSE snr_statistics.until END
        GROUP BY m.websdr_id
    ) s
    LEFT JOIN websdrs w ON w.id = s.websdr_id
    ORDER BY s.websdr_id
$$;
COMMENT ON FUNCTION jetcopy.snr_statistics IS
    'Count, mean, least, greatest and spread of the signal-to-noise ratio in dB, per receiver';

CREATE FUNCTION jetcopy.frequency_drift(
    receiver text DEFAULT NULL,
    frequency double precision DEFAULT NULL,
    width interval DEFAULT '1 hour',
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT NULL,
    task text DEFAULT NULL
) RETURNS TABLE (
    websdr_id text, bucket timestamptz, measurements bigint, offset_hz_mean double precision,
    offset_hz_min double precision, offset_hz_max double precision, drift_hz double precision,
    receiver_name text
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT b.websdr_id, b.bucket, b.measurements, b.offset_mean, b.offset_min, b.offset_max,
        b.offset_mean - pg_catalog.lag(b.offset_mean) OVER (PARTITION BY b.websdr_id ORDER BY b.bucket),
        w.name
    FROM (
        SELECT m.websdr_id,
            date_bin(frequency_drift.width, m.timestamp_utc, timestamptz '2000-01-01 00:00:00+00') AS bucket,
            pg_catalog.count(m.frequency_offset_hz) AS measurements,
                    avg(m.frequency_offset_hz) AS offset_mean,
            min(m.frequency_offset_hz) AS offset_min, max(m.frequency_offset_hz) AS offset_max
        FROM measurements m
        WHERE (frequency_drift.receiver IS NULL OR m.websdr_id = frequency_drift.receiver)
            AND (frequency_drift.frequency IS NULL OR m.frequency_mhz = frequency_drift.frequency)
            AND (frequency_drift.task IS NULL OR m.task_id = frequency_drift.task)
            AND m.timestamp_utc >= CASE WHEN frequency_drift.since IS NULL THEN '-infinity'
                ELSE frequency_drift.since END
            AND m.timestamp_utc < CASE WHEN frequency_drift.until IS NULL THEN 'infinity'
                ELSE frequency_drift.until END
        GROUP BY 1, 2
    ) b
    LEFT JOIN websdrs w ON w.id = b.websdr_id
    ORDER BY b.websdr_id, b.bucket
$$;
COMMENT ON FUNCTION jetcopy.frequency_drift IS
    'Frequency offset in Hz over time, per receiver, and how far its mean went from the bucket before';

CREATE FUNCTION jetcopy.measurement_days(
    receiver text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 year',
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    bucket timestamptz, websdr_id text, measurements bigint, snr_db_mean double precision,
    snr_db_min double precision, snr_db_max double precision, offset_hz_mean double precision,
    offset_hz_min double precision, offset_hz_max double precision, receiver_name text
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT r.bucket, r.websdr_id, r.measurements, r.snr_db_mean, r.snr_db_min, r.snr_db_max,
        r.frequency_offset_hz_mean, r.frequency_offset_hz_min, r.frequency_offset_hz_max, w.name
    FROM measurements_daily r
    LEFT JOIN websdrs w ON w.id = r.websdr_id
    WHERE (measurement_days.receiver IS NULL OR r.websdr_id = measurement_days.receiver)
        AND r.bucket >= CASE WHEN measurement_days.since IS NULL THEN '-infinity'
            ELSE measurement_days.since END
        AND r.bucket < CASE WHEN measurement_days.until IS NULL THEN 'infinity'
            ELSE measurement_days.until END
    ORDER BY r.bucket, r.websdr_id
$$;
COMMENT ON FUNCTION jetcopy.measurement_days IS
    'Signal-to-noise ratio in dB and frequency offset in Hz, per day and receiver, from '
    'measurements_daily; a bucket is there when it is over, or at once with [store] real_time';

-- By the pipeline's name and the subjects of config/store.toml. It runs with the rights of its owner and
-- gives numbers alone: who may read measurements need not see what lies in the dead letters.
CREATE FUNCTION jetcopy.refused_measurements(
    task text DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL
) RETURNS TABLE (task_id text, refused bigint, messages bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT split_part(d.subject, '.', 2), sum(coalesce(cardinality(d.elements), 1))::bigint,
        count(DISTINCT (d.shard, d.sequence))
    FROM jetcopy.dead_letters d
    WHERE d.pipeline = 'measurements' AND (d.subject LIKE '%.one' OR d.subject LIKE '%.many')
        AND (refused_measurements.task IS NULL OR split_part(d.subject, '.', 2) = refused_measurements.task)
        AND (refused_measurements.since IS NULL
            OR coalesce(d.stored_at, d.failed_at) >= refused_measurements.since)
        AND (refused_measurements.until IS NULL
            OR coalesce(d.stored_at, d.failed_at) < refused_measurements.until)
    GROUP BY 1
$$;
COMMENT ON FUNCTION jetcopy.refused_measurements IS
    'How many measurements of each task are dead letters, and in how many '
    'messages; one that is refused as a whole counts as one';

CREATE FUNCTION jetcopy.measurement_results(
    task text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT NULL
) RETURNS TABLE (task_id text, stored bigint, refused bigint, refused_messages bigint)
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(s.task_id, r.task_id), coalesce(s.stored, 0), coalesce(r.refused, 0),
        coalesce(r.messages, 0)
    FROM (
        SELECT m.task_id, pg_catalog.count(*) AS stored
        FROM measurements m
        WHERE (measurement_results.task IS NULL OR m.task_id = measurement_results.task)
            AND m.timestamp_utc >= CASE WHEN measurement_results.since IS NULL THEN '-infinity'
                ELSE measurement_results.since END
            AND m.timestamp_utc < CASE WHEN measurement_results.until IS NULL THEN 'infinity'
                ELSE measurement_results.until END
        GROUP BY m.task_id
    ) s
    FULL JOIN jetcopy.refused_measurements(measurement_results.task, measurement_results.since,
        measurement_results.until) r
        ON r.task_id = s.task_id
    ORDER BY 1
$$;
COMMENT ON FUNCTION jetcopy.measurement_results IS
    'How many measurements of each task were stored, by the times in '
    'them, and refused, by the times of their messages';

-- Whole days in UTC, as retention drops them, so that no day is summed up from half of its rows. It runs with
-- the rights of its caller: they need DELETE on measurements, and INSERT on jetcopy.deletions.
CREATE FUNCTION jetcopy.delete_old_measurements(older_than interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    -- A refresh sums up the days in its window again, and would find nothing in them.
    summed interval := (SELECT l.age FROM jetcopy.store_life l
        WHERE l.relation = 'measurements_daily' AND l.setting = 'refresh.window');
    first_kept timestamptz := date_trunc('day', now() - older_than, 'UTC');
    gone bigint;
BEGIN
    IF older_than IS NULL OR older_than < interval '0' THEN
        RAISE EXCEPTION 'say how old the measurements are that go, as 30 days'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF first_kept > now() - summed THEN
        RAISE EXCEPTION 'days of the last % are summed up again, and would lose their sums with their rows',
            summed
            USING HINT = 'Name an older age, or shorten refresh.window in [store.measurements_daily] '
                    'and run jetcopy migrate.',
                ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT pg_catalog.count(*) INTO gone FROM measurements WHERE timestamp_utc < first_kept;
    -- Chunks go whole where there are any and the role may; what is left of others is decompressed, however
    -- much it is.
    IF EXISTS (SELECT FROM pg_class
            WHERE oid = to_regclass('measurements') AND pg_has_role(relowner, 'USAGE'))
        AND to_regclass('timescaledb_information.hypertables') IS NOT NULL
    THEN
        EXECUTE 'SELECT drop_chunks(
                to_regclass(pg_catalog.format(''%I.%I'', hypertable_schema, hypertable_name)), $1)
            FROM timescaledb_information.hypertables
            WHERE to_regclass(pg_catalog.format(''%I.%I'', hypertable_schema, hypertable_name))
                = to_regclass(''measurements'')'
            USING first_kept;
    END IF;
    PERFORM set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true);
    DELETE FROM measurements WHERE timestamp_utc < first_kept;
    INSERT INTO jetcopy.deletions (what, before, deleted) VALUES ('measurements', first_kept, gone);
    -- Where jetcopy keeps the roll-up, late rows of those days do not sum them up again.
    UPDATE jetcopy.partitioned_tables SET dropped_before = first_kept
    WHERE relation = to_regclass('measurements') AND dropped_before < first_kept;
    RETURN gone;
END
$$;
COMMENT ON FUNCTION jetcopy.delete_old_measurements IS
    'Deletes measurements of the days that ended that long ago, and '
    'records it in jetcopy.deletions; returns how many';

-- Time series

-- By steps from column to column in the index. The columns come out of one array, of which the planner
-- expects ten rows; of the steps it would expect a hundred.
CREATE FUNCTION jetcopy.series_columns(
    series text,
    columns text[] DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL
) RETURNS TABLE (column_name text) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT n.name
    FROM pg_catalog.unnest(coalesce(
        series_columns.columns,
        (SELECT m.value_columns FROM time_series_metadata m WHERE m.id = series_columns.series
            AND m.value_columns OPERATOR(pg_catalog.<>) '{}'),
        ARRAY(
            WITH RECURSIVE found (name) AS (
                SELECT (
                    SELECT p.column_name FROM time_series_data_points p
                    WHERE p.series_id = series_columns.series
                        AND p.timestamp >= CASE WHEN series_columns.since IS NULL THEN '-infinity'
                            ELSE series_columns.since END
                        AND p.timestamp < CASE WHEN series_columns.until IS NULL THEN 'infinity'
                            ELSE series_columns.until END
                    ORDER BY p.column_name LIMIT 1)
                UNION ALL
                SELECT (
                    SELECT p.column_name FROM time_series_data_points p
                    WHERE p.series_id = series_columns.series AND p.column_name > f.name
                        AND p.timestamp >= CASE WHEN series_columns.since IS NULL THEN '-infinity'
                            ELSE series_columns.since END
                        AND p.timestamp < CASE WHEN series_columns.until IS NULL THEN 'infinity'
                            ELSE series_columns.until END
                    ORDER BY p.column_name LIMIT 1)
                FROM found f WHERE f.name IS NOT NULL
            )
            SELECT f.name FROM found f WHERE f.name IS NOT NULL)
    )) AS n (name)
$$;
COMMENT ON FUNCTION jetcopy.series_columns IS
    'The columns of a series: those asked for, else those of its metadata, else those of its points';

CREATE FUNCTION jetcopy.series_rows(
    series text,
    columns text[] DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 1000
) RETURNS TABLE ("timestamp" timestamptz, column_name text, value double precision)
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT p.timestamp, p.column_name, p.value
    FROM jetcopy.series_columns(series_rows.series, series_rows.columns, series_rows.since,
        series_rows.until) c
    CROSS JOIN LATERAL (
        SELECT p.timestamp, p.column_name, p.value
        FROM time_series_data_points p
        WHERE p.series_id = series_rows.series AND p.column_name = c.column_name
            AND p.timestamp >= CASE WHEN series_rows.since IS NULL THEN '-infinity' ELSE series_rows.since END
            AND p.timestamp < CASE WHEN series_rows.until IS NULL THEN 'infinity' ELSE series_rows.until END
        ORDER BY p.timestamp DESC LIMIT series_rows.max_rows
    ) p
    ORDER BY p.timestamp DESC, p.column_name LIMIT series_rows.max_rows
$$;
COMMENT ON FUNCTION jetcopy.series_rows IS
    'Points of a series in a span of time, a row a value, newest first';

CREATE FUNCTION jetcopy.series_wide(
    series text,
    columns text[] DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 1000
) RETURNS TABLE ("timestamp" timestamptz, "values" jsonb) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT p.timestamp, pg_catalog.jsonb_object_agg(p.column_name, p.value)
    FROM jetcopy.series_columns(series_wide.series, series_wide.columns, series_wide.since,
        series_wide.until) c
    CROSS JOIN LATERAL (
        SELECT p.timestamp, p.column_name, p.value
        FROM time_series_data_points p
        WHERE p.series_id = series_wide.series AND p.column_name = c.column_name
            AND p.timestamp >= CASE WHEN series_wide.since IS NULL THEN '-infinity' ELSE series_wide.since END
            AND p.timestamp < CASE WHEN series_wide.until IS NULL THEN 'infinity' ELSE series_wide.until END
        -- A time takes part with all of its columns: each column's newest times hold those of the newest
        -- rows.
        ORDER BY p.timestamp DESC LIMIT series_wide.max_rows
    ) p
    GROUP BY p.timestamp
    ORDER BY p.timestamp DESC LIMIT series_wide.max_rows
$$;
COMMENT ON FUNCTION jetcopy.series_wide IS
    'Points of a series in a span of time, a row a time with an object of its values, newest first';

CREATE FUNCTION jetcopy.series_downsampled(
    series text,
    width interval,
    columns text[] DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    bucket timestamptz, column_name text, points bigint, mean double precision, min double precision,
    max double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT p.bucket, c.column_name, p.points, p.mean, p.min, p.max
    FROM jetcopy.series_columns(series_downsampled.series, series_downsampled.columns,
        series_downsampled.since, series_downsampled.until) c
    CROSS JOIN LATERAL (
        SELECT date_bin(series_downsampled.width, p.timestamp,
            timestamptz '2000-01-01 00:00:00+00') AS bucket, pg_catalog.count(p.value) AS points,
                avg(p.value) AS mean, min(p.value) AS min, max(p.value) AS max
        FROM time_series_data_points p
        WHERE p.series_id = series_downsampled.series AND p.column_name = c.column_name
            AND p.timestamp >= CASE WHEN series_downsampled.since IS NULL THEN '-infinity'
                ELSE series_downsampled.since END
            AND p.timestamp < CASE WHEN series_downsampled.until IS NULL THEN 'infinity'
                ELSE series_downsampled.until END
        GROUP BY 1
    ) p
    ORDER BY p.bucket, c.column_name
$$;
COMMENT ON FUNCTION jetcopy.series_downsampled IS
    'Count, mean, least and greatest value of a series per bucket of time and column, oldest first';

CREATE FUNCTION jetcopy.series_last(
    series text,
    columns text[] DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL
) RETURNS TABLE (column_name text, "timestamp" timestamptz, value double precision)
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT c.column_name, p.timestamp, p.value
    FROM jetcopy.series_columns(series_last.series, series_last.columns, series_last.since,
        series_last.until) c
    CROSS JOIN LATERAL (
        SELECT p.timestamp, p.value
        FROM time_series_data_points p
        WHERE p.series_id = series_last.series AND p.column_name = c.column_name
            AND p.timestamp >= CASE WHEN series_last.since IS NULL THEN '-infinity' ELSE series_last.since END
            AND p.timestamp < CASE WHEN series_last.until IS NULL THEN 'infinity' ELSE series_last.until END
        ORDER BY p.timestamp DESC LIMIT 1
    ) p
    ORDER BY c.column_name
$$;
COMMENT ON FUNCTION jetcopy.series_last IS 'The last value of each column of a series';

CREATE FUNCTION jetcopy.series_range(
    series text,
    columns text[] DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL
) RETURNS TABLE (column_name text, first_at timestamptz, last_at timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT c.column_name, f.timestamp, l.timestamp
    FROM jetcopy.series_columns(series_range.series, series_range.columns, series_range.since,
        series_range.until) c
    CROSS JOIN LATERAL (
        SELECT p.timestamp FROM time_series_data_points p
        WHERE p.series_id = series_range.series AND p.column_name = c.column_name
            AND p.timestamp >= CASE WHEN series_range.since IS NULL THEN '-infinity'
                ELSE series_range.since END
            AND p.timestamp < CASE WHEN series_range.until IS NULL THEN 'infinity' ELSE series_range.until END
        ORDER BY p.timestamp LIMIT 1
    ) f
    CROSS JOIN LATERAL (
        SELECT p.timestamp FROM time_series_data_points p
        WHERE p.series_id = series_range.series AND p.column_name = c.column_name
            AND p.timestamp >= CASE WHEN series_range.since IS NULL THEN '-infinity'
                ELSE series_range.since END
            AND p.timestamp < CASE WHEN series_range.until IS NULL THEN 'infinity' ELSE series_range.until END
        ORDER BY p.timestamp DESC LIMIT 1
    ) l
    ORDER BY c.column_name
$$;
COMMENT ON FUNCTION jetcopy.series_range IS 'When each column of a series begins and ends';

-- A document or points that come later make it again: stop publishing them first.
CREATE FUNCTION jetcopy.delete_series(series text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
    known boolean;
BEGIN
    DELETE FROM time_series_metadata WHERE id = series;
    known := FOUND;
    PERFORM set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true);
    DELETE FROM time_series_data_points WHERE series_id = series;
    GET DIAGNOSTICS gone = ROW_COUNT;
    IF NOT known AND gone = 0 THEN
        RAISE EXCEPTION 'there is no series %', series USING ERRCODE = 'no_data_found';
    END IF;
    INSERT INTO jetcopy.deletions (what, deleted) VALUES (pg_catalog.format('series %s', series), gone);
    RETURN gone;
END
$$;
COMMENT ON FUNCTION jetcopy.delete_series IS
    'Deletes a series with its points, and records it in jetcopy.deletions; returns how many points';

SET LOCAL check_function_bodies = on;
