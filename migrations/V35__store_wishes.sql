-- What was asked of the store beside receivers: when a series came first, rows that a person deletes, totals of the registry,
-- and the newest frames of all cameras.

-- When a series was first told of. Its documents may say it; where none does, it is the time of the first that came.
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
COMMENT ON FUNCTION jetcopy.keep_created_at() IS
    'Keeps created_at over documents that do not say it, as a trigger of INSERT and UPDATE';

DO $migration$
BEGIN
    -- Only of the table that jetcopy made: another's may have anything under the name.
    IF 2 = (SELECT count(*) FROM pg_attribute
            WHERE attrelid = to_regclass('time_series_metadata') AND attname IN ('value_columns', 'updated_at')
                AND NOT attisdropped)
        AND EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('time_series_metadata') AND relkind = 'r'
                AND pg_has_role(relowner, 'USAGE'))
        AND NOT EXISTS (SELECT FROM pg_attribute
            WHERE attrelid = to_regclass('time_series_metadata') AND attname = 'created_at' AND NOT attisdropped)
    THEN
        ALTER TABLE time_series_metadata ADD COLUMN created_at timestamptz;
        UPDATE time_series_metadata SET created_at = updated_at;
        COMMENT ON COLUMN time_series_metadata.created_at IS
            'When the series was created, as its document says, else when its first document came';
        CREATE TRIGGER keep_created_at BEFORE INSERT OR UPDATE ON time_series_metadata
            FOR EACH ROW EXECUTE FUNCTION jetcopy.keep_created_at();
    END IF;
END
$migration$;

-- What people have deleted from the store, each line written in the transaction that deletes.
CREATE TABLE jetcopy.deletions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    deleted_by text NOT NULL DEFAULT session_user,
    -- measurements, or the series.
    what text NOT NULL,
    -- Rows with times before this; NULL: all.
    before timestamptz,
    -- Rows that went.
    deleted bigint NOT NULL
);

SET LOCAL check_function_bodies = off;

-- Whole days in UTC, as retention drops them, so that no day is summed up from half of its rows. It takes the rights of whoever
-- calls: they need DELETE on measurements, and INSERT on jetcopy.deletions.
CREATE FUNCTION jetcopy.delete_old_measurements(older_than interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    -- A refresh sums up the days in its window again, and would find nothing in them.
    summed interval := (SELECT l.age FROM jetcopy.store_life l
        WHERE l.relation = 'measurements_daily' AND l.setting = 'refresh.window');
    first_kept timestamptz := date_trunc('day', now() - older_than, 'UTC');
    gone bigint;
BEGIN
    IF older_than IS NULL OR older_than < interval '0' THEN
        RAISE EXCEPTION 'say how old the measurements are that go, as 30 days' USING ERRCODE = 'invalid_parameter_value';
    ELSIF first_kept > now() - summed THEN
        RAISE EXCEPTION 'days of the last % are summed up again, and would lose their sums with their rows', summed
            USING HINT = 'Name an older age, or shorten refresh.window in [store.measurements_daily] and run jetcopy migrate.',
                ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT count(*) INTO gone FROM measurements WHERE timestamp_utc < first_kept;
    -- Chunks go whole where there are any and the role may; what is left of others is decompressed, however much it is.
    IF EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('measurements') AND pg_has_role(relowner, 'USAGE'))
        AND to_regclass('timescaledb_information.hypertables') IS NOT NULL
    THEN
        EXECUTE 'SELECT drop_chunks(to_regclass(format(''%I.%I'', hypertable_schema, hypertable_name)), $1)
            FROM timescaledb_information.hypertables
            WHERE to_regclass(format(''%I.%I'', hypertable_schema, hypertable_name)) = to_regclass(''measurements'')'
            USING first_kept;
    END IF;
    PERFORM set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true);
    DELETE FROM measurements WHERE timestamp_utc < first_kept;
    INSERT INTO jetcopy.deletions (what, before, deleted) VALUES ('measurements', first_kept, gone);
    -- Where jetcopy keeps the roll-up, late rows of those days do not sum them up anew.
    UPDATE jetcopy.partitioned_tables SET dropped_before = first_kept
    WHERE relation = to_regclass('measurements') AND dropped_before < first_kept;
    RETURN gone;
END
$$;
COMMENT ON FUNCTION jetcopy.delete_old_measurements IS
    'Deletes measurements of the days that ended so long ago, and tells of it in jetcopy.deletions; returns how many';

-- A document or points that come later make it anew: have nothing published any more before.
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
    INSERT INTO jetcopy.deletions (what, deleted) VALUES (format('series %s', series), gone);
    RETURN gone;
END
$$;
COMMENT ON FUNCTION jetcopy.delete_series IS
    'Deletes a series with its points, and tells of it in jetcopy.deletions; returns how many points';

CREATE FUNCTION jetcopy.project_stats(project text) RETURNS TABLE (
    project_id text, name text, status text, size_bytes bigint, table_count bigint, bucket_count bigint, files bigint,
    file_bytes bigint, staged_files bigint, operations_1d bigint, failures_1d bigint, mean_duration_ms_1d double precision,
    last_operation timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT s.* FROM jetcopy.registry_stats() s WHERE s.project_id = project_stats.project
$$;
COMMENT ON FUNCTION jetcopy.project_stats IS 'What a project adds up to now, and what was done to it in the last day';

-- Sizes, tables, buckets and files are those of projects and files that are not deleted, as in stats; what was done in the last
-- day counts whatever became of its project.
CREATE FUNCTION jetcopy.registry_totals() RETURNS TABLE (
    projects bigint, active_projects bigint, deleted_projects bigint, locked_projects bigint, size_bytes bigint,
    table_count bigint, bucket_count bigint, files bigint, file_bytes bigint, staged_files bigint, operations_1d bigint,
    failures_1d bigint, mean_duration_ms_1d double precision, last_operation timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT p.*, f.*, o.*, (SELECT l.timestamp FROM operations_log l ORDER BY l.timestamp DESC LIMIT 1)
    FROM (
        SELECT count(*), count(*) FILTER (WHERE p.status = 'active'), count(*) FILTER (WHERE p.status = 'deleted'),
            count(*) FILTER (WHERE p.status = 'locked'),
            coalesce(sum(p.size_bytes) FILTER (WHERE p.status <> 'deleted'), 0)::bigint,
            coalesce(sum(p.table_count) FILTER (WHERE p.status <> 'deleted'), 0)::bigint,
            coalesce(sum(p.bucket_count) FILTER (WHERE p.status <> 'deleted'), 0)::bigint
        FROM projects p
    ) p, (
        SELECT count(*), coalesce(sum(f.size_bytes), 0)::bigint, count(*) FILTER (WHERE f.staged)
        FROM files f
        WHERE f.status = 'active' AND NOT (f.staged AND f.expires_at IS NOT NULL AND f.expires_at <= now())
    ) f, (
        SELECT count(*), count(o.error), avg(o.duration_ms)
        FROM operations_log o
        WHERE o.timestamp >= now() - interval '1 day'
    ) o
$$;
COMMENT ON FUNCTION jetcopy.registry_totals IS 'What all projects add up to now, and what was done in the last day';

-- By steps from camera to camera in the index, and the newest times before the newest rows, as jetcopy.detections() has it: no
-- index goes by time alone, and to decompress all columns costs ten times as much as their times.
CREATE FUNCTION jetcopy.recent_frames(
    since timestamptz DEFAULT now() - interval '1 hour',
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 100
) RETURNS TABLE (
    "time" timestamptz, camera_id text, frame_id bigint, width integer, height integer, codec text, fps double precision,
    key_frame boolean, size_bytes bigint, processing_ms double precision, brightness double precision,
    motion double precision, attributes jsonb
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH RECURSIVE cameras (camera_id) AS (
        SELECT (
            SELECT f.camera_id FROM frame_metadata f
            WHERE f.time >= date_trunc('day',
                    CASE WHEN recent_frames.since IS NULL THEN '-infinity' ELSE recent_frames.since END, 'UTC')
                AND f.time < date_trunc('day',
                    CASE WHEN recent_frames.until IS NULL THEN 'infinity' ELSE recent_frames.until END, 'UTC')
                    + interval '1 day'
            ORDER BY f.camera_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT f.camera_id FROM frame_metadata f
            WHERE f.time >= date_trunc('day',
                    CASE WHEN recent_frames.since IS NULL THEN '-infinity' ELSE recent_frames.since END, 'UTC')
                AND f.time < date_trunc('day',
                    CASE WHEN recent_frames.until IS NULL THEN 'infinity' ELSE recent_frames.until END, 'UTC')
                    + interval '1 day'
                AND f.camera_id > c.camera_id
            ORDER BY f.camera_id LIMIT 1)
        FROM cameras c WHERE c.camera_id IS NOT NULL
    ), newest (time, camera_id) AS (
        SELECT t.time, t.camera_id
        FROM cameras c
        CROSS JOIN LATERAL (
            SELECT f.time, f.camera_id
            FROM frame_metadata f
            WHERE f.camera_id = c.camera_id
                AND f.time >= CASE WHEN recent_frames.since IS NULL THEN '-infinity' ELSE recent_frames.since END
                AND f.time < CASE WHEN recent_frames.until IS NULL THEN 'infinity' ELSE recent_frames.until END
            ORDER BY f.time DESC LIMIT recent_frames.max_rows
        ) t
        ORDER BY t.time DESC LIMIT recent_frames.max_rows
    )
    SELECT l.*
    FROM (SELECT n.camera_id, min(n.time) AS time FROM newest n GROUP BY n.camera_id) n
    CROSS JOIN LATERAL (
        SELECT f.time, f.camera_id, f.frame_id, f.width, f.height, f.codec, f.fps, f.key_frame, f.size_bytes,
            f.processing_ms, f.brightness, f.motion, f.attributes
        FROM frame_metadata f
        WHERE f.camera_id = n.camera_id AND f.time >= n.time
            AND f.time < CASE WHEN recent_frames.until IS NULL THEN 'infinity' ELSE recent_frames.until END
        ORDER BY f.time DESC LIMIT recent_frames.max_rows
    ) l
    ORDER BY l.time DESC LIMIT recent_frames.max_rows
$$;
COMMENT ON FUNCTION jetcopy.recent_frames IS 'Frames of all cameras in a span of time, newest first';

SET LOCAL check_function_bodies = on;
