-- Roll-ups as continuous aggregates, where TimescaleDB is installed under the Timescale licence. jetcopy's catalog of the
-- store lists the same columns. Each hour is made from its minutes and each day from its hours; a mean is divided out of
-- sums and counts at every step, so that it stays the mean of the rows.
--
-- They hold what was refreshed and nothing else: a query costs the same whenever it is asked. `jetcopy migrate` adds the
-- policies that refresh them.
DO $migration$
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
        RAISE NOTICE 'TimescaleDB runs under the Apache licence, which has no continuous aggregates: none are created';
        RETURN;
    END IF;

    FOR rollup IN SELECT * FROM (VALUES
        (1, 'frame_stats_1m', 'frame_metadata', frame_columns, 'time', '1 minute', 'camera_id', frame_stats_of_rows),
        (2, 'frame_stats_1h', 'frame_stats_1m', NULL, 'bucket', '1 hour', 'camera_id', frame_stats_of_buckets),
        (3, 'frame_stats_1d', 'frame_stats_1h', NULL, 'bucket', '1 day', 'camera_id', frame_stats_of_buckets),
        (4, 'detection_stats_1m', 'detection_events', detection_columns, 'time', '1 minute', 'camera_id, label',
            detection_stats_of_rows),
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
                    WHERE to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) = to_regclass(rollup.source))
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
            'CREATE MATERIALIZED VIEW %I.%I WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
             SELECT %s.time_bucket(interval %L, %I) AS bucket, %s, %s FROM %s GROUP BY 1, %s WITH NO DATA',
            (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.oid = to_regclass(rollup.source)),
            rollup.name, timescale, rollup.width, rollup.time_column, rollup.keys, rollup.aggregates,
            to_regclass(rollup.source), rollup.keys);
    END LOOP;
END
$migration$;
