-- The queries of the store as functions, for psql, Grafana and `jetcopy query`.
--
-- Guarantees: each is one SELECT that the planner takes into the statement that calls it, so that indexes and the bounds of
-- chunks and partitions serve it; none writes unless its name says so. Spans of time hold `since` and not `until`; an argument
-- that is NULL or left out does not narrow. They find the tables by the search path of whoever calls.
--
-- Their text is looked at when they are called: no function keeps a table from being replaced, and tables of other shapes that
-- were there before jetcopy do not stop the migration.
SET LOCAL check_function_bodies = off;

-- Detections are asked for by label, over all cameras; the other indexes of the store lie beside its tables.
DO $migration$
BEGIN
    IF 2 = (SELECT count(*) FROM pg_attribute
            WHERE attrelid = to_regclass('detection_events') AND attname IN ('label', 'time') AND NOT attisdropped)
        AND to_regclass('detection_events_label_time') IS NULL
    THEN
        CREATE INDEX detection_events_label_time ON detection_events (label, time DESC);
    END IF;
END
$migration$;

-- Frames and detections

-- Steps from camera to camera in the index: as many rows are read as there are cameras. The steps look at whole days, as chunks
-- and partitions hold them, so that none walks over the rows of a camera that fell silent.
CREATE FUNCTION jetcopy.latest_frames(
    camera text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 day'
) RETURNS TABLE (
    "time" timestamptz, camera_id text, frame_id bigint, width integer, height integer, codec text, fps double precision,
    key_frame boolean, size_bytes bigint, processing_ms double precision, brightness double precision,
    motion double precision, attributes jsonb
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH RECURSIVE cameras (camera_id) AS (
        SELECT coalesce(latest_frames.camera, (
            SELECT f.camera_id FROM frame_metadata f
            WHERE f.time >= date_trunc('day', coalesce(latest_frames.since, '-infinity'), 'UTC')
            ORDER BY f.camera_id LIMIT 1))
        UNION ALL
        SELECT (
            SELECT f.camera_id FROM frame_metadata f
            WHERE f.time >= date_trunc('day', coalesce(latest_frames.since, '-infinity'), 'UTC') AND f.camera_id > c.camera_id
            ORDER BY f.camera_id LIMIT 1)
        FROM cameras c
        WHERE c.camera_id IS NOT NULL AND latest_frames.camera IS NULL
    )
    SELECT l.*
    FROM cameras c
    CROSS JOIN LATERAL (
        SELECT f.time, f.camera_id, f.frame_id, f.width, f.height, f.codec, f.fps, f.key_frame, f.size_bytes, f.processing_ms,
            f.brightness, f.motion, f.attributes
        FROM frame_metadata f
        WHERE f.camera_id = c.camera_id AND f.time >= coalesce(latest_frames.since, '-infinity')
        ORDER BY f.time DESC LIMIT 1
    ) l
$$;
COMMENT ON FUNCTION jetcopy.latest_frames IS 'The latest frame of each camera, or of one';

CREATE FUNCTION jetcopy.frames(
    camera text,
    since timestamptz DEFAULT now() - interval '1 hour',
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 1000
) RETURNS TABLE (
    "time" timestamptz, camera_id text, frame_id bigint, width integer, height integer, codec text, fps double precision,
    key_frame boolean, size_bytes bigint, processing_ms double precision, brightness double precision,
    motion double precision, attributes jsonb
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT f.time, f.camera_id, f.frame_id, f.width, f.height, f.codec, f.fps, f.key_frame, f.size_bytes, f.processing_ms,
            f.brightness, f.motion, f.attributes
    FROM frame_metadata f
    WHERE f.camera_id = frames.camera
        AND f.time >= coalesce(frames.since, '-infinity') AND f.time < coalesce(frames.until, 'infinity')
    ORDER BY f.time DESC LIMIT frames.max_rows
$$;
COMMENT ON FUNCTION jetcopy.frames IS 'Frames of a camera in a span of time, newest first';

-- Where neither camera nor label is given, the newest of each label are merged, by steps from label to label in the index.
CREATE FUNCTION jetcopy.detections(
    camera text DEFAULT NULL,
    labelled text DEFAULT NULL,
    min_confidence double precision DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 hour',
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 100
) RETURNS TABLE (
    "time" timestamptz, camera_id text, frame_id bigint, track_id bigint, label text, confidence double precision,
    bbox_left double precision, bbox_top double precision, bbox_width double precision, bbox_height double precision,
    attributes jsonb
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH RECURSIVE labels (label) AS (
        SELECT (
            SELECT d.label FROM detection_events d
            WHERE d.time >= date_trunc('day', coalesce(detections.since, '-infinity'), 'UTC')
                AND d.time < coalesce(detections.until, 'infinity') AND d.label >= ''
            ORDER BY d.label LIMIT 1)
        WHERE detections.camera IS NULL AND detections.labelled IS NULL
        UNION ALL
        SELECT (
            SELECT d.label FROM detection_events d
            WHERE d.time >= date_trunc('day', coalesce(detections.since, '-infinity'), 'UTC')
                AND d.time < coalesce(detections.until, 'infinity') AND d.label > l.label
            ORDER BY d.label LIMIT 1)
        FROM labels l WHERE l.label IS NOT NULL
    )
    SELECT e.* FROM (
        (SELECT d.* FROM labels l CROSS JOIN LATERAL (
        SELECT d.time, d.camera_id, d.frame_id, d.track_id, d.label, d.confidence, d.bbox_left, d.bbox_top, d.bbox_width,
            d.bbox_height, d.attributes
        FROM detection_events d
        WHERE d.label = l.label
            AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
            AND d.time >= coalesce(detections.since, '-infinity') AND d.time < coalesce(detections.until, 'infinity')
        ORDER BY d.time DESC LIMIT detections.max_rows) d)
        UNION ALL
        (SELECT d.time, d.camera_id, d.frame_id, d.track_id, d.label, d.confidence, d.bbox_left, d.bbox_top, d.bbox_width,
            d.bbox_height, d.attributes
        FROM detection_events d
        WHERE detections.camera IS NULL AND detections.labelled IS NULL AND d.label IS NULL
            AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
            AND d.time >= coalesce(detections.since, '-infinity') AND d.time < coalesce(detections.until, 'infinity')
        ORDER BY d.time DESC LIMIT detections.max_rows)
        UNION ALL
        (SELECT d.time, d.camera_id, d.frame_id, d.track_id, d.label, d.confidence, d.bbox_left, d.bbox_top, d.bbox_width,
            d.bbox_height, d.attributes
        FROM detection_events d
        WHERE detections.labelled IS NOT NULL AND detections.camera IS NULL AND d.label = detections.labelled
            AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
            AND d.time >= coalesce(detections.since, '-infinity') AND d.time < coalesce(detections.until, 'infinity')
        ORDER BY d.time DESC LIMIT detections.max_rows)
        UNION ALL
        (SELECT d.time, d.camera_id, d.frame_id, d.track_id, d.label, d.confidence, d.bbox_left, d.bbox_top, d.bbox_width,
            d.bbox_height, d.attributes
        FROM detection_events d
        WHERE d.camera_id = detections.camera AND (detections.labelled IS NULL OR d.label = detections.labelled)
            AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
            AND d.time >= coalesce(detections.since, '-infinity') AND d.time < coalesce(detections.until, 'infinity')
        ORDER BY d.time DESC LIMIT detections.max_rows)
    ) e
    ORDER BY e.time DESC LIMIT detections.max_rows
$$;
COMMENT ON FUNCTION jetcopy.detections IS 'Detections by camera, label and confidence in a span of time, newest first';

-- Of the three roll-ups only the one that `width` names is read.
CREATE FUNCTION jetcopy.frame_counts(
    width text DEFAULT '1m',
    camera text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    bucket timestamptz, camera_id text, frames bigint, key_frames bigint, bytes bigint, processing_ms_mean double precision,
    processing_ms_max double precision, brightness_mean double precision, motion_mean double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT s.* FROM (
        SELECT r.bucket, r.camera_id, r.frames, r.key_frames, r.bytes, r.processing_ms_mean, r.processing_ms_max,
            r.brightness_mean, r.motion_mean
        FROM frame_stats_1m r
        WHERE frame_counts.width = '1m' AND (frame_counts.camera IS NULL OR r.camera_id = frame_counts.camera)
            AND r.bucket >= coalesce(frame_counts.since, '-infinity') AND r.bucket < coalesce(frame_counts.until, 'infinity')
        UNION ALL
        SELECT r.bucket, r.camera_id, r.frames, r.key_frames, r.bytes, r.processing_ms_mean, r.processing_ms_max,
            r.brightness_mean, r.motion_mean
        FROM frame_stats_1h r
        WHERE frame_counts.width = '1h' AND (frame_counts.camera IS NULL OR r.camera_id = frame_counts.camera)
            AND r.bucket >= coalesce(frame_counts.since, '-infinity') AND r.bucket < coalesce(frame_counts.until, 'infinity')
        UNION ALL
        SELECT r.bucket, r.camera_id, r.frames, r.key_frames, r.bytes, r.processing_ms_mean, r.processing_ms_max,
            r.brightness_mean, r.motion_mean
        FROM frame_stats_1d r
        WHERE frame_counts.width = '1d' AND (frame_counts.camera IS NULL OR r.camera_id = frame_counts.camera)
            AND r.bucket >= coalesce(frame_counts.since, '-infinity') AND r.bucket < coalesce(frame_counts.until, 'infinity')
    ) s
    ORDER BY s.bucket, s.camera_id
$$;
COMMENT ON FUNCTION jetcopy.frame_counts IS 'Frames, bytes and means over time, from the roll-up of width 1m, 1h or 1d';

CREATE FUNCTION jetcopy.detection_counts(
    width text DEFAULT '1m',
    camera text DEFAULT NULL,
    labelled text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    bucket timestamptz, camera_id text, label text, detections bigint, confidence_mean double precision,
    confidence_max double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT s.* FROM (
        SELECT r.bucket, r.camera_id, r.label, r.detections, r.confidence_mean, r.confidence_max
        FROM detection_stats_1m r
        WHERE detection_counts.width = '1m' AND (detection_counts.camera IS NULL OR r.camera_id = detection_counts.camera)
            AND (detection_counts.labelled IS NULL OR r.label = detection_counts.labelled)
            AND r.bucket >= coalesce(detection_counts.since, '-infinity')
            AND r.bucket < coalesce(detection_counts.until, 'infinity')
        UNION ALL
        SELECT r.bucket, r.camera_id, r.label, r.detections, r.confidence_mean, r.confidence_max
        FROM detection_stats_1h r
        WHERE detection_counts.width = '1h' AND (detection_counts.camera IS NULL OR r.camera_id = detection_counts.camera)
            AND (detection_counts.labelled IS NULL OR r.label = detection_counts.labelled)
            AND r.bucket >= coalesce(detection_counts.since, '-infinity')
            AND r.bucket < coalesce(detection_counts.until, 'infinity')
        UNION ALL
        SELECT r.bucket, r.camera_id, r.label, r.detections, r.confidence_mean, r.confidence_max
        FROM detection_stats_1d r
        WHERE detection_counts.width = '1d' AND (detection_counts.camera IS NULL OR r.camera_id = detection_counts.camera)
            AND (detection_counts.labelled IS NULL OR r.label = detection_counts.labelled)
            AND r.bucket >= coalesce(detection_counts.since, '-infinity')
            AND r.bucket < coalesce(detection_counts.until, 'infinity')
    ) s
    ORDER BY s.bucket, s.camera_id, s.label
$$;
COMMENT ON FUNCTION jetcopy.detection_counts IS 'Detections and confidences over time, from the roll-up of width 1m, 1h or 1d';

-- Measurements

CREATE FUNCTION jetcopy.recent_measurements(
    task text DEFAULT NULL,
    receiver text DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 100
) RETURNS TABLE (
    timestamp_utc timestamptz, task_id text, websdr_id text, frequency_mhz double precision,
    sample_rate_khz double precision, samples_count bigint, snr_db double precision, frequency_offset_hz double precision,
    power_dbm double precision, s3_path text, attributes jsonb
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT m.timestamp_utc, m.task_id, m.websdr_id, m.frequency_mhz, m.sample_rate_khz, m.samples_count, m.snr_db,
        m.frequency_offset_hz, m.power_dbm, m.s3_path, m.attributes
    FROM measurements m
    WHERE (recent_measurements.task IS NULL OR m.task_id = recent_measurements.task)
        AND (recent_measurements.receiver IS NULL OR m.websdr_id = recent_measurements.receiver)
        AND m.timestamp_utc >= coalesce(recent_measurements.since, '-infinity')
        AND m.timestamp_utc < coalesce(recent_measurements.until, 'infinity')
    ORDER BY m.timestamp_utc DESC LIMIT recent_measurements.max_rows
$$;
COMMENT ON FUNCTION jetcopy.recent_measurements IS 'Measurements by task, receiver and span of time, newest first';

CREATE FUNCTION jetcopy.session_measurements(
    task text,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    timestamp_utc timestamptz, task_id text, websdr_id text, frequency_mhz double precision,
    sample_rate_khz double precision, samples_count bigint, snr_db double precision, frequency_offset_hz double precision,
    power_dbm double precision, s3_path text, attributes jsonb
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT m.timestamp_utc, m.task_id, m.websdr_id, m.frequency_mhz, m.sample_rate_khz, m.samples_count, m.snr_db,
        m.frequency_offset_hz, m.power_dbm, m.s3_path, m.attributes
    FROM measurements m
    WHERE m.task_id = session_measurements.task
        AND m.timestamp_utc >= coalesce(session_measurements.since, '-infinity')
        AND m.timestamp_utc < coalesce(session_measurements.until, 'infinity')
    ORDER BY m.websdr_id, m.timestamp_utc
$$;
COMMENT ON FUNCTION jetcopy.session_measurements IS 'All measurements of a session (task), receiver by receiver, oldest first';

CREATE FUNCTION jetcopy.snr_statistics(
    receiver text DEFAULT NULL,
    task text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    websdr_id text, measurements bigint, snr_db_mean double precision, snr_db_min double precision,
    snr_db_max double precision, snr_db_stddev double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT m.websdr_id, count(m.snr_db), avg(m.snr_db), min(m.snr_db), max(m.snr_db), stddev_samp(m.snr_db)
    FROM measurements m
    WHERE (snr_statistics.receiver IS NULL OR m.websdr_id = snr_statistics.receiver)
        AND (snr_statistics.task IS NULL OR m.task_id = snr_statistics.task)
        AND m.timestamp_utc >= coalesce(snr_statistics.since, '-infinity')
        AND m.timestamp_utc < coalesce(snr_statistics.until, 'infinity')
    GROUP BY m.websdr_id
    ORDER BY m.websdr_id
$$;
COMMENT ON FUNCTION jetcopy.snr_statistics IS 'Count, mean, least, greatest and spread of the signal-to-noise ratio in dB, per receiver';

CREATE FUNCTION jetcopy.frequency_drift(
    receiver text DEFAULT NULL,
    frequency double precision DEFAULT NULL,
    width interval DEFAULT '1 hour',
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    websdr_id text, bucket timestamptz, measurements bigint, offset_hz_mean double precision, offset_hz_min double precision,
    offset_hz_max double precision, drift_hz double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT b.websdr_id, b.bucket, b.measurements, b.offset_mean, b.offset_min, b.offset_max,
        b.offset_mean - lag(b.offset_mean) OVER (PARTITION BY b.websdr_id ORDER BY b.bucket)
    FROM (
        SELECT m.websdr_id, date_bin(frequency_drift.width, m.timestamp_utc, timestamptz '2000-01-01 00:00:00+00') AS bucket,
            count(m.frequency_offset_hz) AS measurements, avg(m.frequency_offset_hz) AS offset_mean,
            min(m.frequency_offset_hz) AS offset_min, max(m.frequency_offset_hz) AS offset_max
        FROM measurements m
        WHERE (frequency_drift.receiver IS NULL OR m.websdr_id = frequency_drift.receiver)
            AND (frequency_drift.frequency IS NULL OR m.frequency_mhz = frequency_drift.frequency)
            AND m.timestamp_utc >= coalesce(frequency_drift.since, '-infinity')
            AND m.timestamp_utc < coalesce(frequency_drift.until, 'infinity')
        GROUP BY 1, 2
    ) b
    ORDER BY b.websdr_id, b.bucket
$$;
COMMENT ON FUNCTION jetcopy.frequency_drift IS 'Frequency offset in Hz over time, per receiver, and how far its mean went from the bucket before';

CREATE FUNCTION jetcopy.measurement_days(
    receiver text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 year',
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    bucket timestamptz, websdr_id text, measurements bigint, snr_db_mean double precision, snr_db_min double precision,
    snr_db_max double precision, offset_hz_mean double precision, offset_hz_min double precision,
    offset_hz_max double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT r.bucket, r.websdr_id, r.measurements, r.snr_db_mean, r.snr_db_min, r.snr_db_max, r.frequency_offset_hz_mean,
        r.frequency_offset_hz_min, r.frequency_offset_hz_max
    FROM measurements_daily r
    WHERE (measurement_days.receiver IS NULL OR r.websdr_id = measurement_days.receiver)
        AND r.bucket >= coalesce(measurement_days.since, '-infinity') AND r.bucket < coalesce(measurement_days.until, 'infinity')
    ORDER BY r.bucket, r.websdr_id
$$;
COMMENT ON FUNCTION jetcopy.measurement_days IS 'Signal-to-noise ratio in dB and frequency offset in Hz, per day and receiver, from measurements_daily';

-- Time series

-- The columns that are asked for, else those that the metadata names, else those that its points have: by steps from column
-- to column in the index.
CREATE FUNCTION jetcopy.series_columns(
    series text,
    columns text[] DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL
) RETURNS TABLE (column_name text) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH RECURSIVE known (names) AS (
        SELECT coalesce(series_columns.columns, (
            SELECT m.value_columns FROM time_series_metadata m
            WHERE m.id = series_columns.series AND m.value_columns <> '{}'))
    ), found (name) AS (
        SELECT (
            SELECT p.column_name FROM time_series_data_points p
            WHERE p.series_id = series_columns.series
                AND p.timestamp >= coalesce(series_columns.since, '-infinity')
                AND p.timestamp < coalesce(series_columns.until, 'infinity')
            ORDER BY p.column_name LIMIT 1)
        FROM known k WHERE k.names IS NULL
        UNION ALL
        SELECT (
            SELECT p.column_name FROM time_series_data_points p
            WHERE p.series_id = series_columns.series AND p.column_name > f.name
                AND p.timestamp >= coalesce(series_columns.since, '-infinity')
                AND p.timestamp < coalesce(series_columns.until, 'infinity')
            ORDER BY p.column_name LIMIT 1)
        FROM found f WHERE f.name IS NOT NULL
    )
    SELECT n.name FROM known k CROSS JOIN LATERAL unnest(k.names) AS n (name)
    UNION ALL
    SELECT f.name FROM found f WHERE f.name IS NOT NULL
$$;
COMMENT ON FUNCTION jetcopy.series_columns IS 'The columns of a series: those asked for, else those of its metadata, else those of its points';

CREATE FUNCTION jetcopy.series_rows(
    series text,
    columns text[] DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 1000
) RETURNS TABLE ("timestamp" timestamptz, column_name text, value double precision) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT p.timestamp, p.column_name, p.value
    FROM jetcopy.series_columns(series_rows.series, series_rows.columns, series_rows.since, series_rows.until) c
    CROSS JOIN LATERAL (
        SELECT p.timestamp, p.column_name, p.value
        FROM time_series_data_points p
        WHERE p.series_id = series_rows.series AND p.column_name = c.column_name
            AND p.timestamp >= coalesce(series_rows.since, '-infinity')
            AND p.timestamp < coalesce(series_rows.until, 'infinity')
        ORDER BY p.timestamp DESC LIMIT series_rows.max_rows
    ) p
    ORDER BY p.timestamp DESC, p.column_name LIMIT series_rows.max_rows
$$;
COMMENT ON FUNCTION jetcopy.series_rows IS 'Points of a series in a span of time, a row a value, newest first';

CREATE FUNCTION jetcopy.series_wide(
    series text,
    columns text[] DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 1000
) RETURNS TABLE ("timestamp" timestamptz, "values" jsonb) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT p.timestamp, jsonb_object_agg(p.column_name, p.value)
    FROM jetcopy.series_columns(series_wide.series, series_wide.columns, series_wide.since, series_wide.until) c
    CROSS JOIN LATERAL (
        SELECT p.timestamp, p.column_name, p.value
        FROM time_series_data_points p
        WHERE p.series_id = series_wide.series AND p.column_name = c.column_name
            AND p.timestamp >= coalesce(series_wide.since, '-infinity')
            AND p.timestamp < coalesce(series_wide.until, 'infinity')
        -- A time takes part with all of its columns: each column's newest times hold those of the newest rows.
        ORDER BY p.timestamp DESC LIMIT series_wide.max_rows
    ) p
    GROUP BY p.timestamp
    ORDER BY p.timestamp DESC LIMIT series_wide.max_rows
$$;
COMMENT ON FUNCTION jetcopy.series_wide IS 'Points of a series in a span of time, a row a time with an object of its values, newest first';

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
    FROM jetcopy.series_columns(series_downsampled.series, series_downsampled.columns, series_downsampled.since,
        series_downsampled.until) c
    CROSS JOIN LATERAL (
        SELECT date_bin(series_downsampled.width, p.timestamp, timestamptz '2000-01-01 00:00:00+00') AS bucket,
            count(p.value) AS points, avg(p.value) AS mean, min(p.value) AS min, max(p.value) AS max
        FROM time_series_data_points p
        WHERE p.series_id = series_downsampled.series AND p.column_name = c.column_name
            AND p.timestamp >= coalesce(series_downsampled.since, '-infinity')
            AND p.timestamp < coalesce(series_downsampled.until, 'infinity')
        GROUP BY 1
    ) p
    ORDER BY p.bucket, c.column_name
$$;
COMMENT ON FUNCTION jetcopy.series_downsampled IS 'Count, mean, least and greatest value of a series per bucket of time and column, oldest first';

CREATE FUNCTION jetcopy.series_last(
    series text,
    columns text[] DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL
) RETURNS TABLE (column_name text, "timestamp" timestamptz, value double precision) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT c.column_name, p.timestamp, p.value
    FROM jetcopy.series_columns(series_last.series, series_last.columns, series_last.since, series_last.until) c
    CROSS JOIN LATERAL (
        SELECT p.timestamp, p.value
        FROM time_series_data_points p
        WHERE p.series_id = series_last.series AND p.column_name = c.column_name
            AND p.timestamp >= coalesce(series_last.since, '-infinity')
            AND p.timestamp < coalesce(series_last.until, 'infinity')
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
) RETURNS TABLE (column_name text, first_at timestamptz, last_at timestamptz) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT c.column_name, f.timestamp, l.timestamp
    FROM jetcopy.series_columns(series_range.series, series_range.columns, series_range.since, series_range.until) c
    CROSS JOIN LATERAL (
        SELECT p.timestamp FROM time_series_data_points p
        WHERE p.series_id = series_range.series AND p.column_name = c.column_name
            AND p.timestamp >= coalesce(series_range.since, '-infinity')
            AND p.timestamp < coalesce(series_range.until, 'infinity')
        ORDER BY p.timestamp LIMIT 1
    ) f
    CROSS JOIN LATERAL (
        SELECT p.timestamp FROM time_series_data_points p
        WHERE p.series_id = series_range.series AND p.column_name = c.column_name
            AND p.timestamp >= coalesce(series_range.since, '-infinity')
            AND p.timestamp < coalesce(series_range.until, 'infinity')
        ORDER BY p.timestamp DESC LIMIT 1
    ) l
    ORDER BY c.column_name
$$;
COMMENT ON FUNCTION jetcopy.series_range IS 'When each column of a series begins and ends';

-- Registry

CREATE FUNCTION jetcopy.find_projects(
    project text DEFAULT NULL,
    in_status text DEFAULT NULL,
    after text DEFAULT NULL,
    max_rows bigint DEFAULT 100
) RETURNS TABLE (
    id text, name text, path text, size_bytes bigint, table_count bigint, bucket_count bigint, status text, settings jsonb,
    created_at timestamptz, updated_at timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT p.id, p.name, p.path, p.size_bytes, p.table_count, p.bucket_count, p.status, p.settings, p.created_at, p.updated_at
    FROM projects p
    WHERE (find_projects.project IS NULL OR p.id = find_projects.project)
        AND (find_projects.in_status IS NULL OR p.status = find_projects.in_status)
        AND (find_projects.after IS NULL OR p.id > find_projects.after)
    ORDER BY p.id LIMIT find_projects.max_rows
$$;
COMMENT ON FUNCTION jetcopy.find_projects IS 'Projects by id and status, in the order of their ids; the next page begins after the last id';

-- A staged file is gone once it has expired, whether or not it was marked yet.
CREATE FUNCTION jetcopy.find_files(
    project text,
    path_is text DEFAULT NULL,
    name_is text DEFAULT NULL,
    tag text DEFAULT NULL,
    gone boolean DEFAULT false,
    after text DEFAULT NULL,
    max_rows bigint DEFAULT 100
) RETURNS TABLE (
    project_id text, path text, name text, size_bytes bigint, content_type text, md5 text, sha256 text, staged boolean,
    expires_at timestamptz, tags jsonb, status text, created_at timestamptz, updated_at timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT f.project_id, f.path, f.name, f.size_bytes, f.content_type, f.md5, f.sha256, f.staged, f.expires_at, f.tags, f.status,
        f.created_at, f.updated_at
    FROM files f
    WHERE f.project_id = find_files.project
        AND (find_files.path_is IS NULL OR f.path = find_files.path_is)
        AND (find_files.name_is IS NULL OR f.name = find_files.name_is)
        AND (find_files.tag IS NULL OR f.tags ? find_files.tag)
        AND (find_files.gone OR f.status = 'active' AND NOT coalesce(f.staged AND f.expires_at <= now(), false))
        AND (find_files.after IS NULL OR f.path > find_files.after)
    ORDER BY f.path LIMIT find_files.max_rows
$$;
COMMENT ON FUNCTION jetcopy.find_files IS 'Files of a project by path, name or tag, in the order of their paths; with gone also those deleted or expired';

CREATE FUNCTION jetcopy.files_by_digest(digest text) RETURNS TABLE (
    project_id text, path text, name text, size_bytes bigint, content_type text, md5 text, sha256 text, staged boolean,
    expires_at timestamptz, tags jsonb, status text, created_at timestamptz, updated_at timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT f.project_id, f.path, f.name, f.size_bytes, f.content_type, f.md5, f.sha256, f.staged, f.expires_at, f.tags, f.status,
        f.created_at, f.updated_at
    FROM files f
    WHERE f.sha256 = files_by_digest.digest AND f.status = 'active' AND NOT coalesce(f.staged AND f.expires_at <= now(), false)
    ORDER BY f.project_id, f.path
$$;
COMMENT ON FUNCTION jetcopy.files_by_digest IS 'Files of any project with this SHA-256';

CREATE FUNCTION jetcopy.expired_files(at timestamptz DEFAULT now(), max_rows bigint DEFAULT 1000) RETURNS TABLE (
    project_id text, path text, name text, size_bytes bigint, content_type text, md5 text, sha256 text, staged boolean,
    expires_at timestamptz, tags jsonb, status text, created_at timestamptz, updated_at timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT f.project_id, f.path, f.name, f.size_bytes, f.content_type, f.md5, f.sha256, f.staged, f.expires_at, f.tags, f.status,
        f.created_at, f.updated_at
    FROM files f
    WHERE f.staged AND f.status = 'active' AND f.expires_at <= expired_files.at
    ORDER BY f.expires_at LIMIT expired_files.max_rows
$$;
COMMENT ON FUNCTION jetcopy.expired_files IS 'Staged files that have expired and are not marked yet';

-- The time of the expiry is that of the event: an event from before it, replayed, does not bring the file back, and one
-- from after it does. So a registry that is rebuilt from its events comes out the same.
CREATE FUNCTION jetcopy.expire_staged_files(at timestamptz DEFAULT now()) RETURNS bigint LANGUAGE sql AS $$
    WITH expired AS (
        UPDATE files SET status = 'expired', updated_at = greatest(updated_at, expires_at)
        WHERE staged AND status = 'active' AND expires_at <= expire_staged_files.at
        RETURNING 1
    )
    SELECT count(*) FROM expired
$$;
COMMENT ON FUNCTION jetcopy.expire_staged_files IS 'Marks staged files that have expired; returns how many';

CREATE FUNCTION jetcopy.operations(
    project text DEFAULT NULL,
    request text DEFAULT NULL,
    failed boolean DEFAULT false,
    since timestamptz DEFAULT now() - interval '7 days',
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 100
) RETURNS TABLE (
    "timestamp" timestamptz, request_id text, project_id text, operation text, resource text, details jsonb,
    duration_ms double precision, status text, error text
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT o.timestamp, o.request_id, o.project_id, o.operation, o.resource, o.details, o.duration_ms, o.status, o.error
    FROM operations_log o
    WHERE (operations.project IS NULL OR o.project_id = operations.project)
        AND (operations.request IS NULL OR o.request_id = operations.request)
        AND (NOT operations.failed OR o.error IS NOT NULL)
        AND o.timestamp >= coalesce(operations.since, '-infinity') AND o.timestamp < coalesce(operations.until, 'infinity')
    ORDER BY o.timestamp DESC LIMIT operations.max_rows
$$;
COMMENT ON FUNCTION jetcopy.operations IS 'What was done, by project, request and span of time, newest first';

CREATE FUNCTION jetcopy.operation_counts(
    project text DEFAULT NULL,
    width interval DEFAULT '1 hour',
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    bucket timestamptz, operation text, operations bigint, failures bigint, duration_ms_mean double precision,
    duration_ms_max double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT date_bin(operation_counts.width, o.timestamp, timestamptz '2000-01-01 00:00:00+00'), o.operation, count(*),
        count(o.error), avg(o.duration_ms), max(o.duration_ms)
    FROM operations_log o
    WHERE (operation_counts.project IS NULL OR o.project_id = operation_counts.project)
        AND o.timestamp >= coalesce(operation_counts.since, '-infinity')
        AND o.timestamp < coalesce(operation_counts.until, 'infinity')
    GROUP BY 1, 2
    ORDER BY 1, 2
$$;
COMMENT ON FUNCTION jetcopy.operation_counts IS 'How often each operation was done and failed, and how long it took, per bucket of time';

-- Counts are compared for projects whose creation is in the log: what retention has dropped cannot be counted. While events
-- are on their way, a difference may be theirs.
CREATE FUNCTION jetcopy.registry_check() RETURNS TABLE (
    problem text, project_id text, path text, stored bigint, logged bigint
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p.id IS NULL THEN 'file without project' ELSE 'file of a deleted project' END, f.project_id, f.path,
        NULL::bigint, NULL::bigint
    FROM files f
    LEFT JOIN projects p ON p.id = f.project_id
    WHERE f.status = 'active' AND (p.id IS NULL OR p.status = 'deleted')
    UNION ALL
    SELECT c.problem, l.project_id, NULL, c.stored, c.logged
    FROM (
        SELECT o.project_id,
            count(*) FILTER (WHERE o.operation = 'create_bucket') - count(*) FILTER (WHERE o.operation = 'drop_bucket') AS buckets,
            count(*) FILTER (WHERE o.operation = 'create_table') - count(*) FILTER (WHERE o.operation = 'drop_table') AS tables,
            count(*) FILTER (WHERE o.operation = 'create_file') - count(*) FILTER (WHERE o.operation = 'delete_file') AS files
        FROM operations_log o
        WHERE o.error IS NULL
        GROUP BY o.project_id
        HAVING count(*) FILTER (WHERE o.operation = 'create_project') > 0
    ) l
    LEFT JOIN projects p ON p.id = l.project_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS files FROM files f WHERE f.project_id = l.project_id AND f.status <> 'deleted'
    ) f
    CROSS JOIN LATERAL (VALUES
        ('buckets', p.bucket_count, l.buckets),
        ('tables', p.table_count, l.tables),
        ('files', f.files, l.files)
    ) c (problem, stored, logged)
    WHERE p.status IS DISTINCT FROM 'deleted' AND c.stored IS DISTINCT FROM c.logged
    ORDER BY 2, 1, 3
$$;
COMMENT ON FUNCTION jetcopy.registry_check IS 'Files without project, and counts that disagree with the log; no row: all is well';

-- Rebuilding the registry from its events: into fresh tables beside those in use, which then take their place.

CREATE FUNCTION jetcopy.fresh_registry(fresh_schema name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE SCHEMA %I', fresh_schema);
    EXECUTE format('CREATE TABLE %I.projects (LIKE projects INCLUDING ALL)', fresh_schema);
    EXECUTE format('CREATE TABLE %I.files (LIKE files INCLUDING ALL)', fresh_schema);
    EXECUTE format('CREATE TABLE %I.operations_log (LIKE operations_log INCLUDING ALL)', fresh_schema);
    PERFORM jetcopy.time_table(format('%I.operations_log', fresh_schema)::regclass, 'timestamp', '7 days');
END
$$;
COMMENT ON FUNCTION jetcopy.fresh_registry IS 'Creates a schema with empty projects, files and operations_log, for a pipeline to replay the events into';

-- The pipeline in use goes on where the rebuilding one stands, in the same transaction: no event is in the log twice and
-- none is missing. A new epoch makes a daemon that is writing look at its checkpoint again.
CREATE FUNCTION jetcopy.take_registry(fresh_schema name, pipeline text, rebuilt_by text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    used jetcopy.checkpoints;
    rebuilt jetcopy.checkpoints;
    name text;
BEGIN
    PERFORM FROM jetcopy.checkpoints c WHERE c.shard IN (take_registry.pipeline, rebuilt_by) ORDER BY c.shard FOR UPDATE;
    SELECT * INTO used FROM jetcopy.checkpoints c WHERE c.shard = take_registry.pipeline;
    SELECT * INTO rebuilt FROM jetcopy.checkpoints c WHERE c.shard = rebuilt_by;
    IF used.shard IS NULL OR rebuilt.shard IS NULL THEN
        RAISE EXCEPTION 'there is no checkpoint of pipeline %', CASE WHEN used.shard IS NULL THEN take_registry.pipeline ELSE rebuilt_by END
            USING HINT = 'See jetcopy.checkpoints for those that there are.';
    END IF;
    IF (used.stream, used.stream_created) IS DISTINCT FROM (rebuilt.stream, rebuilt.stream_created) THEN
        RAISE EXCEPTION 'pipeline % reads stream % and pipeline % another: their positions cannot be compared',
            take_registry.pipeline, used.stream, rebuilt_by;
    END IF;
    IF rebuilt.last_sequence < used.last_sequence THEN
        RAISE EXCEPTION 'pipeline % stands at sequence % and has not come to % yet, where pipeline % is',
            rebuilt_by, rebuilt.last_sequence, used.last_sequence, take_registry.pipeline
            USING HINT = 'Let it run until it has.';
    END IF;
    -- Days whose partitions retention has dropped since.
    EXECUTE format('SELECT jetcopy.add_partitions(%L::regclass,
        ARRAY(SELECT DISTINCT (o.timestamp AT TIME ZONE ''UTC'')::date FROM %I.operations_log o))', 'operations_log', fresh_schema);
    FOREACH name IN ARRAY ARRAY['projects', 'files', 'operations_log'] LOOP
        EXECUTE format('TRUNCATE %I', name);
        EXECUTE format('INSERT INTO %I SELECT * FROM %I.%I', name, fresh_schema, name);
    END LOOP;
    UPDATE jetcopy.checkpoints c
        SET last_sequence = rebuilt.last_sequence, last_timestamp = rebuilt.last_timestamp, epoch = c.epoch + 1, updated_at = now()
        WHERE c.shard = take_registry.pipeline;
    RETURN rebuilt.last_sequence;
END
$$;
COMMENT ON FUNCTION jetcopy.take_registry IS 'Puts the rows of a rebuilt registry in the place of those in use; returns the sequence that they stand at';

SET LOCAL check_function_bodies = on;
