-- What `jetcopy migrate` makes in a database without TimescaleDB, with all groups of the store's tables, to be read.
-- With TimescaleDB the tables by time are hypertables, and the roll-ups continuous aggregates. Written by `make docs`
-- from the migrations (pg_dump); a test compares. To make a database, run `jetcopy migrate`, which keeps a history.

CREATE SCHEMA jetcopy;

CREATE FUNCTION jetcopy.add_partition(relation regclass, day date) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET "DateStyle" TO 'ISO'
    AS $$
DECLARE
    detaching boolean;
BEGIN
    IF NOT isfinite(day) THEN
        RAISE EXCEPTION 'no partition of a day takes %', day USING ERRCODE = 'datetime_field_overflow';
    END IF;
    -- One at a time adds to a table; who writes to it does not wait.
    EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', relation);
    SELECT bool_or(p.detaching) INTO detaching FROM jetcopy.partitions(relation) p
    WHERE p.starts < (day + 1)::timestamptz AND p.ends > day::timestamptz;
    IF detaching THEN
        RAISE EXCEPTION 'the partition of % that takes % is being dropped', relation, day
            USING ERRCODE = 'object_in_use';
    ELSIF NOT detaching THEN
        RETURN false;
    END IF;
    PERFORM jetcopy.make_partition(relation, day);
    RETURN true;
END
$$;

COMMENT ON FUNCTION jetcopy.add_partition(relation regclass, day date) IS 'Adds the partition of a day (UTC), unless a partition takes its times; whether it did';

CREATE FUNCTION jetcopy.add_partitions(relation regclass, days date[]) RETURNS date[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET "DateStyle" TO 'ISO'
    AS $$
DECLARE
    first date;
    last date;
    without date[];
    detaching date;
BEGIN
    IF NOT EXISTS (SELECT FROM jetcopy.partitioned_tables t WHERE t.relation = add_partitions.relation) THEN
        RETURN NULL;
    END IF;
    IF NOT has_table_privilege(session_user, relation, 'INSERT') THEN
        RAISE EXCEPTION 'permission denied for table %', relation USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT current_date - days_back, current_date + days_ahead INTO STRICT first, last
        FROM jetcopy.partition_bounds;
    -- One at a time adds to a table; who writes to it does not wait.
    EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', relation);
    SELECT min(day) INTO detaching FROM unnest(days) AS day, jetcopy.partitions(relation) AS p
    WHERE p.detaching AND day BETWEEN first AND last AND p.starts < (day + 1)::timestamptz
        AND p.ends > day::timestamptz;
    IF detaching IS NOT NULL THEN
        RAISE EXCEPTION 'the partition of % that takes % is being dropped', relation, detaching
            USING ERRCODE = 'object_in_use';
    END IF;
    without := coalesce(jetcopy.days_without_partition(relation, days), '{}');
    PERFORM jetcopy.make_partition(relation, day) FROM unnest(without) AS day
    WHERE day BETWEEN first AND last;
    RETURN ARRAY(SELECT day FROM unnest(without) AS day WHERE day NOT BETWEEN first AND last ORDER BY day);
END
$$;

COMMENT ON FUNCTION jetcopy.add_partitions(relation regclass, days date[]) IS 'Adds the partitions that rows of these days need; returns the days that were left out, NULL where jetcopy does not partition the table';

CREATE FUNCTION jetcopy.close_seal(of_shard text, of_lane integer DEFAULT 0, moved_as text DEFAULT 'moved'::text, always boolean DEFAULT false) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    c jetcopy.checkpoints;
    l jetcopy.lanes;
    seal jetcopy.seals;
BEGIN
    PERFORM FROM jetcopy.lanes WHERE shard = of_shard AND lane = of_lane;
    IF FOUND THEN
        SELECT * INTO c FROM jetcopy.checkpoints WHERE shard = of_shard FOR KEY SHARE;
        SELECT * INTO l FROM jetcopy.lanes WHERE shard = of_shard AND lane = of_lane FOR UPDATE;
        c.last_sequence := l.last_sequence;
        c.last_timestamp := l.last_timestamp;
        c.seal_number := l.seal_number;
        c.seal_hash := l.seal_hash;
        c.seal_after := l.seal_after;
        c.seal_to := l.seal_to;
        c.seal_messages := l.seal_messages;
        c.seal_letters := l.seal_letters;
        c.seal_superseded := l.seal_superseded;
        c.seal_tables := l.seal_tables;
        c.seal_rows := l.seal_rows;
        c.seal_unstored := l.seal_unstored;
        c.seal_first_at := l.seal_first_at;
        c.seal_digest := l.seal_digest;
        IF c.seal_number = 0 THEN
            SELECT coalesce(s.number, 0), s.hash, coalesce(s.to_sequence, 0), coalesce(s.to_sequence, 0)
            INTO c.seal_number, c.seal_hash, c.seal_after, c.seal_to
            FROM jetcopy.last_seal(of_shard, of_lane) s;
        END IF;
    ELSE
        SELECT * INTO c FROM jetcopy.checkpoints WHERE shard = of_shard FOR UPDATE;
    END IF;
    IF c.shard IS NULL THEN
        RETURN NULL;
    END IF;
    IF c.seal_to <> c.seal_after OR c.seal_messages > 0 THEN
        seal := ROW(c.shard, of_lane, c.seal_number + 1, 'committed', c.stream, c.stream_created,
            c.seal_after + 1, c.seal_to, c.seal_first_at,
            CASE WHEN c.last_sequence = c.seal_to THEN c.last_timestamp END,
            c.seal_messages, c.seal_letters, c.seal_superseded, c.seal_tables, c.seal_rows, c.seal_unstored,
            c.seal_digest, c.epoch, clock_timestamp(), NULL, l.lanes, l.block);
        seal.hash := sha256(convert_to(jetcopy.seal_text(seal, c.seal_hash), 'UTF8'));
        INSERT INTO jetcopy.seals VALUES (seal.*);
        c.seal_number := seal.number;
        c.seal_hash := seal.hash;
    END IF;
    IF c.last_sequence <> c.seal_to OR always THEN
        seal := ROW(c.shard, of_lane, c.seal_number + 1,
            CASE WHEN c.seal_number = 0 THEN 'begun'
                WHEN c.last_sequence < c.seal_to AND moved_as = 'moved' THEN 'rewound'
                ELSE moved_as END,
            c.stream, c.stream_created, c.seal_to, c.last_sequence, NULL, NULL, 0, 0, 0, '{}', '{}', '{}',
            NULL, c.epoch, clock_timestamp(), NULL, l.lanes, l.block);
        seal.hash := sha256(convert_to(jetcopy.seal_text(seal, c.seal_hash), 'UTF8'));
        INSERT INTO jetcopy.seals VALUES (seal.*);
        c.seal_number := seal.number;
        c.seal_hash := seal.hash;
    END IF;
    IF l.shard IS NULL THEN
        UPDATE jetcopy.checkpoints SET seal_number = c.seal_number, seal_hash = c.seal_hash,
                seal_after = last_sequence, seal_to = last_sequence, seal_messages = 0, seal_letters = 0,
                seal_superseded = 0, seal_tables = '{}', seal_rows = '{}', seal_unstored = '{}',
                seal_first_at = NULL, seal_digest = NULL,
                verified_sequence = CASE WHEN verified_sequence > last_sequence THEN last_sequence
                    ELSE verified_sequence END
            WHERE shard = of_shard
                AND (seal_number <> c.seal_number OR verified_sequence > last_sequence);
    ELSIF l.seal_number <> c.seal_number THEN
        UPDATE jetcopy.lanes SET seal_number = c.seal_number, seal_hash = c.seal_hash,
                seal_after = last_sequence, seal_to = last_sequence, seal_messages = 0, seal_letters = 0,
                seal_superseded = 0, seal_tables = '{}', seal_rows = '{}', seal_unstored = '{}',
                seal_first_at = NULL, seal_digest = NULL
            WHERE shard = of_shard AND lane = of_lane;
        UPDATE jetcopy.checkpoints SET verified_sequence = jetcopy.floor(of_shard)
            WHERE shard = of_shard AND c.last_sequence < l.seal_to
                AND verified_sequence > jetcopy.floor(of_shard);
    END IF;
    RETURN c.seal_number;
END
$$;

COMMENT ON FUNCTION jetcopy.close_seal(of_shard text, of_lane integer, moved_as text, always boolean) IS 'Seals what a shard, or one of its lanes, has committed since the last seal; returns the number of the last seal';

CREATE FUNCTION jetcopy.close_seals(of_shard text, moved_as text DEFAULT 'moved'::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    of_lane integer;
    several boolean := false;
BEGIN
    FOR of_lane IN SELECT lane FROM jetcopy.lanes WHERE shard = of_shard ORDER BY lane LOOP
        PERFORM jetcopy.close_seal(of_shard, of_lane, moved_as);
        several := true;
    END LOOP;
    IF NOT several THEN
        PERFORM jetcopy.close_seal(of_shard, 0, moved_as);
    END IF;
END
$$;

COMMENT ON FUNCTION jetcopy.close_seals(of_shard text, moved_as text) IS 'Seals what all writers of a shard have committed since their last seals';

CREATE FUNCTION jetcopy.count_files() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM jetcopy.registry_files;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO jetcopy.registry_files AS t (project_id, writer, active, active_bytes, kept)
        SELECT f.project_id, pg_backend_pid(), count(*) FILTER (WHERE f.status = 'active'),
            coalesce(sum(f.size_bytes) FILTER (WHERE f.status = 'active'), 0),
            count(*) FILTER (WHERE f.status <> 'deleted')
        FROM come f GROUP BY f.project_id
        ON CONFLICT (project_id, writer) DO UPDATE SET active = t.active + excluded.active,
            active_bytes = t.active_bytes + excluded.active_bytes, kept = t.kept + excluded.kept;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO jetcopy.registry_files AS t (project_id, writer, active, active_bytes, kept)
        SELECT f.project_id, pg_backend_pid(), -count(*) FILTER (WHERE f.status = 'active'),
            -coalesce(sum(f.size_bytes) FILTER (WHERE f.status = 'active'), 0),
            -count(*) FILTER (WHERE f.status <> 'deleted')
        FROM gone f GROUP BY f.project_id
        ON CONFLICT (project_id, writer) DO UPDATE SET active = t.active + excluded.active,
            active_bytes = t.active_bytes + excluded.active_bytes, kept = t.kept + excluded.kept;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION jetcopy.count_files() IS 'Keeps jetcopy.registry_files, as a trigger of table files';

CREATE FUNCTION jetcopy.count_operations() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    INSERT INTO jetcopy.registry_operations AS t (project_id, writer, created, buckets, tables, files)
    SELECT o.project_id, pg_backend_pid(), count(*) FILTER (WHERE o.operation = 'create_project'),
        count(*) FILTER (WHERE o.operation = 'create_bucket')
            - count(*) FILTER (WHERE o.operation = 'drop_bucket'),
        count(*) FILTER (WHERE o.operation = 'create_table')
            - count(*) FILTER (WHERE o.operation = 'drop_table'),
        count(*) FILTER (WHERE o.operation = 'create_file')
            - count(*) FILTER (WHERE o.operation = 'delete_file')
    FROM come o
    WHERE o.error IS NULL AND o.project_id IS NOT NULL AND o.operation IN
        ('create_project', 'create_bucket', 'drop_bucket', 'create_table', 'drop_table', 'create_file',
            'delete_file')
    GROUP BY o.project_id
    ON CONFLICT (project_id, writer) DO UPDATE SET created = t.created + excluded.created,
        buckets = t.buckets + excluded.buckets, tables = t.tables + excluded.tables,
        files = t.files + excluded.files;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION jetcopy.count_operations() IS 'Keeps jetcopy.registry_operations, as a trigger of INSERT on operations_log';

CREATE FUNCTION jetcopy.days_without_partition(relation regclass, days date[]) RETURNS date[]
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET "DateStyle" TO 'ISO'
    AS $$
    -- Bounds are read out of text, so once, and not for each day.
    WITH p AS MATERIALIZED (SELECT starts, ends FROM jetcopy.partitions(relation))
    SELECT (
        SELECT coalesce(array_agg(DISTINCT day ORDER BY day), '{}') FROM unnest(days) AS day
        WHERE NOT EXISTS (
            SELECT FROM p WHERE p.starts < (day + 1)::timestamptz AND p.ends > day::timestamptz))
    FROM pg_partitioned_table AS t
    JOIN pg_attribute AS a ON a.attrelid = t.partrelid AND a.attnum = t.partattrs[0]
    WHERE t.partrelid = relation AND t.partstrat = 'r' AND t.partnatts = 1 AND t.partdefid = 0
        AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
$$;

COMMENT ON FUNCTION jetcopy.days_without_partition(relation regclass, days date[]) IS 'Of these days, those of which no partition takes any time; NULL where that cannot be told';

CREATE FUNCTION jetcopy.dead_letter_counts() RETURNS TABLE(pipeline text, shard text, letters bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT pipeline, shard, count(*) FROM jetcopy.dead_letters GROUP BY 1, 2
$$;

COMMENT ON FUNCTION jetcopy.dead_letter_counts() IS 'How many dead letters of each shard there are';

CREATE FUNCTION jetcopy.delete_old_measurements(older_than interval) RETURNS bigint
    LANGUAGE plpgsql
    AS $_$
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
$_$;

COMMENT ON FUNCTION jetcopy.delete_old_measurements(older_than interval) IS 'Deletes measurements of the days that ended that long ago, and records it in jetcopy.deletions; returns how many';

CREATE FUNCTION jetcopy.delete_series(series text) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
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

COMMENT ON FUNCTION jetcopy.delete_series(series text) IS 'Deletes a series with its points, and records it in jetcopy.deletions; returns how many points';

CREATE FUNCTION jetcopy.detection_counts(width text DEFAULT '1m'::text, camera text DEFAULT NULL::text, labelled text DEFAULT NULL::text, since timestamp with time zone DEFAULT (now() - '1 day'::interval), until timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(bucket timestamp with time zone, camera_id text, label text, detections bigint, confidence_mean double precision, confidence_max double precision)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT s.* FROM (
        SELECT r.bucket, r.camera_id, r.label, r.detections, r.confidence_mean, r.confidence_max
        FROM detection_stats_1m r
        WHERE detection_counts.width = '1m'
            AND (detection_counts.camera IS NULL OR r.camera_id = detection_counts.camera)
            AND (detection_counts.labelled IS NULL OR r.label = detection_counts.labelled)
            AND r.bucket >= CASE WHEN detection_counts.since IS NULL THEN '-infinity'
                ELSE detection_counts.since END
            AND r.bucket < CASE WHEN detection_counts.until IS NULL THEN 'infinity'
                ELSE detection_counts.until END
        UNION ALL
        SELECT r.bucket, r.camera_id, r.label, r.detections, r.confidence_mean, r.confidence_max
        FROM detection_stats_1h r
        WHERE detection_counts.width = '1h'
            AND (detection_counts.camera IS NULL OR r.camera_id = detection_counts.camera)
            AND (detection_counts.labelled IS NULL OR r.label = detection_counts.labelled)
            AND r.bucket >= CASE WHEN detection_counts.since IS NULL THEN '-infinity'
                ELSE detection_counts.since END
            AND r.bucket < CASE WHEN detection_counts.until IS NULL THEN 'infinity'
                ELSE detection_counts.until END
        UNION ALL
        SELECT r.bucket, r.camera_id, r.label, r.detections, r.confidence_mean, r.confidence_max
        FROM detection_stats_1d r
        WHERE detection_counts.width = '1d'
            AND (detection_counts.camera IS NULL OR r.camera_id = detection_counts.camera)
            AND (detection_counts.labelled IS NULL OR r.label = detection_counts.labelled)
            AND r.bucket >= CASE WHEN detection_counts.since IS NULL THEN '-infinity'
                ELSE detection_counts.since END
            AND r.bucket < CASE WHEN detection_counts.until IS NULL THEN 'infinity'
                ELSE detection_counts.until END
    ) s
    ORDER BY s.bucket, s.camera_id, s.label
$$;

COMMENT ON FUNCTION jetcopy.detection_counts(width text, camera text, labelled text, since timestamp with time zone, until timestamp with time zone) IS 'Detections and confidences over time, from the roll-up of width 1m, 1h or 1d; a bucket is there when it is over, or at once with [store] real_time';

CREATE FUNCTION jetcopy.detections(camera text DEFAULT NULL::text, labelled text DEFAULT NULL::text, min_confidence double precision DEFAULT NULL::double precision, since timestamp with time zone DEFAULT (now() - '01:00:00'::interval), until timestamp with time zone DEFAULT NULL::timestamp with time zone, max_rows bigint DEFAULT 100) RETURNS TABLE("time" timestamp with time zone, camera_id text, frame_id bigint, track_id bigint, label text, confidence double precision, bbox_left double precision, bbox_top double precision, bbox_width double precision, bbox_height double precision, attributes jsonb)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    WITH RECURSIVE cameras (camera_id) AS (
        SELECT (
            SELECT d.camera_id FROM detection_events d
            WHERE d.time >= date_trunc('day',
                CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END, 'UTC')
                AND d.time < date_trunc('day',
                    CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END, 'UTC')
                    + interval '1 day'
            ORDER BY d.camera_id LIMIT 1)
        WHERE detections.camera IS NULL AND detections.labelled IS NULL
        UNION ALL
        SELECT (
            SELECT d.camera_id FROM detection_events d
            WHERE d.time >= date_trunc('day',
                CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END, 'UTC')
                AND d.time < date_trunc('day',
                    CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END, 'UTC')
                    + interval '1 day'
                AND d.camera_id > c.camera_id
            ORDER BY d.camera_id LIMIT 1)
        FROM cameras c WHERE c.camera_id IS NOT NULL
    ), newest (time, camera_id) AS (
        SELECT t.time, t.camera_id FROM (
            (SELECT t.time, t.camera_id FROM cameras c CROSS JOIN LATERAL (
                SELECT d.time, d.camera_id
                FROM detection_events d
                WHERE d.camera_id = c.camera_id
                    AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
                    AND d.time >= CASE WHEN detections.since IS NULL THEN '-infinity'
                        ELSE detections.since END
                    AND d.time < CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END
                ORDER BY d.time DESC LIMIT detections.max_rows) t)
            UNION ALL
            (SELECT d.time, d.camera_id
            FROM detection_events d
            WHERE detections.labelled IS NOT NULL AND detections.camera IS NULL
                AND d.label = detections.labelled
                AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
                AND d.time >= CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END
                AND d.time < CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END
            ORDER BY d.time DESC LIMIT detections.max_rows)
        ) t
        ORDER BY t.time DESC LIMIT detections.max_rows
    )
    SELECT e.* FROM (
        (SELECT d.* FROM (SELECT n.camera_id, min(n.time) AS time FROM newest n GROUP BY n.camera_id) n
            CROSS JOIN LATERAL (
            SELECT d.time, d.camera_id, d.frame_id, d.track_id, d.label, d.confidence, d.bbox_left,
                d.bbox_top, d.bbox_width, d.bbox_height, d.attributes
            FROM detection_events d
            WHERE d.camera_id = n.camera_id AND (detections.labelled IS NULL OR d.label = detections.labelled)
                AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
                AND d.time >= n.time
                AND d.time >= CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END
                AND d.time < CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END
            ORDER BY d.time DESC LIMIT detections.max_rows) d)
        UNION ALL
        (SELECT d.time, d.camera_id, d.frame_id, d.track_id, d.label, d.confidence, d.bbox_left, d.bbox_top,
            d.bbox_width, d.bbox_height, d.attributes
        FROM detection_events d
        WHERE d.camera_id = detections.camera
            AND (detections.labelled IS NULL OR d.label = detections.labelled)
            AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
            AND d.time >= CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END
            AND d.time < CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END
        ORDER BY d.time DESC LIMIT detections.max_rows)
    ) e
    ORDER BY e.time DESC LIMIT detections.max_rows
$$;

COMMENT ON FUNCTION jetcopy.detections(camera text, labelled text, min_confidence double precision, since timestamp with time zone, until timestamp with time zone, max_rows bigint) IS 'Detections by camera, label and confidence in a span of time, newest first';

CREATE FUNCTION jetcopy.expire_dead_letters() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    until timestamptz;
    locked bigint[];
    expired bigint;
BEGIN
    SELECT now() - l.age INTO until FROM jetcopy.store_life l
    WHERE l.relation = 'dead_letters' AND l.setting = 'retention';
    IF until IS NULL THEN
        RETURN 0;
    END IF;
    SELECT array_agg(taken.id) INTO locked FROM (
        SELECT d.id FROM (
            SELECT DISTINCT o.pipeline, o.sequence, o.shard, o.stream, o.stored_at FROM (
                SELECT * FROM jetcopy.dead_letters aged
                WHERE aged.expired_at IS NULL AND aged.failed_at < until AND NOT EXISTS (
                    SELECT FROM jetcopy.dead_letters s
                    WHERE s.pipeline = aged.pipeline AND s.sequence = aged.sequence AND s.shard = aged.shard
                        AND s.stream = aged.stream AND s.stored_at IS NOT DISTINCT FROM aged.stored_at
                        AND s.expired_at IS NULL AND s.failed_at >= until)
                ORDER BY aged.failed_at LIMIT 1000) AS o) AS due
        JOIN jetcopy.dead_letters d
            ON d.pipeline = due.pipeline AND d.sequence = due.sequence AND d.shard = due.shard
            AND d.stream = due.stream AND d.stored_at IS NOT DISTINCT FROM due.stored_at
            AND d.expired_at IS NULL
        FOR UPDATE OF d SKIP LOCKED) AS taken;
    -- Looked at again under the locks: a retry may have stored a new letter, or given one a new reason.
    UPDATE jetcopy.dead_letters d
        SET expired_at = now(), payload = NULL, headers = NULL, raw_headers = NULL,
            message = left(d.message, 200)
        WHERE d.id = ANY (locked) AND NOT EXISTS (
            SELECT FROM jetcopy.dead_letters s
            WHERE s.pipeline = d.pipeline AND s.sequence = d.sequence AND s.shard = d.shard
                AND s.stream = d.stream AND s.stored_at IS NOT DISTINCT FROM d.stored_at
                AND s.expired_at IS NULL AND (s.failed_at >= until OR NOT s.id = ANY (locked)));
    GET DIAGNOSTICS expired = ROW_COUNT;
    RETURN expired;
END
$$;

COMMENT ON FUNCTION jetcopy.expire_dead_letters() IS 'Takes payload and headers off letters that are older than their retention; returns how many';

CREATE FUNCTION jetcopy.expire_staged_files(at timestamp with time zone DEFAULT now()) RETURNS bigint
    LANGUAGE sql
    AS $$
    WITH expired AS (
        UPDATE files SET status = 'expired', updated_at = greatest(updated_at, expires_at)
        WHERE staged AND status = 'active' AND expires_at <= expire_staged_files.at
        RETURNING 1
    )
    SELECT pg_catalog.count(*) FROM expired
$$;

COMMENT ON FUNCTION jetcopy.expire_staged_files(at timestamp with time zone) IS 'Marks staged files that have expired; returns how many';

CREATE FUNCTION jetcopy.expired_files(at timestamp with time zone DEFAULT now(), max_rows bigint DEFAULT 1000) RETURNS TABLE(project_id text, path text, name text, size_bytes bigint, content_type text, md5 text, sha256 text, staged boolean, expires_at timestamp with time zone, tags jsonb, status text, created_at timestamp with time zone, updated_at timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT f.project_id, f.path, f.name, f.size_bytes, f.content_type, f.md5, f.sha256, f.staged,
        f.expires_at, f.tags, f.status, f.created_at, f.updated_at
    FROM files f
    WHERE f.staged AND f.status = 'active' AND f.expires_at <= expired_files.at
    ORDER BY f.expires_at LIMIT expired_files.max_rows
$$;

COMMENT ON FUNCTION jetcopy.expired_files(at timestamp with time zone, max_rows bigint) IS 'Staged files that have expired and are not marked yet';

CREATE FUNCTION jetcopy.files_by_digest(digest text) RETURNS TABLE(project_id text, path text, name text, size_bytes bigint, content_type text, md5 text, sha256 text, staged boolean, expires_at timestamp with time zone, tags jsonb, status text, created_at timestamp with time zone, updated_at timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT f.project_id, f.path, f.name, f.size_bytes, f.content_type, f.md5, f.sha256, f.staged,
        f.expires_at, f.tags, f.status, f.created_at, f.updated_at
    FROM files f
    WHERE f.sha256 = files_by_digest.digest AND f.status = 'active'
        AND NOT coalesce(f.staged AND f.expires_at <= now(), false)
    ORDER BY f.project_id, f.path
$$;

COMMENT ON FUNCTION jetcopy.files_by_digest(digest text) IS 'Files of any project with this SHA-256';

CREATE FUNCTION jetcopy.find_files(project text, path_is text DEFAULT NULL::text, name_is text DEFAULT NULL::text, tag text DEFAULT NULL::text, gone boolean DEFAULT false, after text DEFAULT NULL::text, max_rows bigint DEFAULT 100) RETURNS TABLE(project_id text, path text, name text, size_bytes bigint, content_type text, md5 text, sha256 text, staged boolean, expires_at timestamp with time zone, tags jsonb, status text, created_at timestamp with time zone, updated_at timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT f.project_id, f.path, f.name, f.size_bytes, f.content_type, f.md5, f.sha256, f.staged,
        f.expires_at, f.tags, f.status, f.created_at, f.updated_at
    FROM files f
    WHERE f.project_id = find_files.project
        AND (find_files.path_is IS NULL OR f.path = find_files.path_is)
        AND (find_files.name_is IS NULL OR f.name = find_files.name_is)
        AND (find_files.tag IS NULL OR f.tags ? find_files.tag)
        AND (find_files.gone OR f.status = 'active'
        AND NOT coalesce(f.staged AND f.expires_at <= now(), false))
        AND (find_files.after IS NULL OR f.path > find_files.after)
    ORDER BY f.path LIMIT find_files.max_rows
$$;

COMMENT ON FUNCTION jetcopy.find_files(project text, path_is text, name_is text, tag text, gone boolean, after text, max_rows bigint) IS 'Files of a project by path, name or tag, in the order of their paths; with gone also those deleted or expired';

CREATE FUNCTION jetcopy.find_projects(project text DEFAULT NULL::text, in_status text DEFAULT NULL::text, after text DEFAULT NULL::text, max_rows bigint DEFAULT 100) RETURNS TABLE(id text, name text, path text, size_bytes bigint, table_count bigint, bucket_count bigint, status text, settings jsonb, created_at timestamp with time zone, updated_at timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT p.id, p.name, p.path, p.size_bytes, p.table_count, p.bucket_count, p.status, p.settings,
        p.created_at, p.updated_at
    FROM projects p
    WHERE (find_projects.project IS NULL OR p.id = find_projects.project)
        AND (find_projects.in_status IS NULL OR p.status = find_projects.in_status)
        AND (find_projects.after IS NULL OR p.id > find_projects.after)
    ORDER BY p.id LIMIT find_projects.max_rows
$$;

COMMENT ON FUNCTION jetcopy.find_projects(project text, in_status text, after text, max_rows bigint) IS 'Projects by id and status, in the order of their ids; the next page begins after the last id';

CREATE FUNCTION jetcopy.floor(shard text) RETURNS bigint
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT coalesce(
        (SELECT min(CASE WHEN skip = 0 THEN last_sequence ELSE (place + skip) * block END)
            FROM (SELECT l.last_sequence, l.block, l.last_sequence / l.block AS place,
                    (l.lane - l.last_sequence / l.block % l.lanes + l.lanes) % l.lanes AS skip
                FROM jetcopy.lanes l WHERE l.shard = floor.shard) AS lane),
        (SELECT c.last_sequence FROM jetcopy.checkpoints c WHERE c.shard = floor.shard))
$$;

COMMENT ON FUNCTION jetcopy.floor(shard text) IS 'The sequence up to which all rows of a shard are committed, however many writers it has';

CREATE FUNCTION jetcopy.fold_registry() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    -- One at a time.
    LOCK TABLE jetcopy.registry_files, jetcopy.registry_operations IN SHARE UPDATE EXCLUSIVE MODE;
    WITH ended AS (
        DELETE FROM jetcopy.registry_files t
        WHERE t.writer <> 0 AND NOT EXISTS (SELECT FROM pg_stat_activity s WHERE s.pid = t.writer)
        RETURNING t.*
    )
    INSERT INTO jetcopy.registry_files AS t (project_id, writer, active, active_bytes, kept)
    SELECT e.project_id, 0, sum(e.active), sum(e.active_bytes), sum(e.kept) FROM ended e GROUP BY e.project_id
    ON CONFLICT (project_id, writer) DO UPDATE SET active = t.active + excluded.active,
        active_bytes = t.active_bytes + excluded.active_bytes, kept = t.kept + excluded.kept;
    WITH ended AS (
        DELETE FROM jetcopy.registry_operations t
        WHERE t.writer <> 0 AND NOT EXISTS (SELECT FROM pg_stat_activity s WHERE s.pid = t.writer)
        RETURNING t.*
    )
    INSERT INTO jetcopy.registry_operations AS t (project_id, writer, created, buckets, tables, files)
    SELECT e.project_id, 0, sum(e.created), sum(e.buckets), sum(e.tables), sum(e.files) FROM ended e
        GROUP BY e.project_id
    ON CONFLICT (project_id, writer) DO UPDATE SET created = t.created + excluded.created,
        buckets = t.buckets + excluded.buckets, tables = t.tables + excluded.tables,
        files = t.files + excluded.files;
END
$$;

COMMENT ON FUNCTION jetcopy.fold_registry() IS 'Puts the tallies of sessions that have ended together; jetcopy maintain calls it';

CREATE FUNCTION jetcopy.frame_counts(width text DEFAULT '1m'::text, camera text DEFAULT NULL::text, since timestamp with time zone DEFAULT (now() - '1 day'::interval), until timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(bucket timestamp with time zone, camera_id text, frames bigint, key_frames bigint, bytes bigint, processing_ms_mean double precision, processing_ms_max double precision, brightness_mean double precision, motion_mean double precision)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT s.* FROM (
        SELECT r.bucket, r.camera_id, r.frames, r.key_frames, r.bytes, r.processing_ms_mean,
            r.processing_ms_max, r.brightness_mean, r.motion_mean
        FROM frame_stats_1m r
        WHERE frame_counts.width = '1m' AND (frame_counts.camera IS NULL OR r.camera_id = frame_counts.camera)
            AND r.bucket >= CASE WHEN frame_counts.since IS NULL THEN '-infinity' ELSE frame_counts.since END
            AND r.bucket < CASE WHEN frame_counts.until IS NULL THEN 'infinity' ELSE frame_counts.until END
        UNION ALL
        SELECT r.bucket, r.camera_id, r.frames, r.key_frames, r.bytes, r.processing_ms_mean,
            r.processing_ms_max, r.brightness_mean, r.motion_mean
        FROM frame_stats_1h r
        WHERE frame_counts.width = '1h' AND (frame_counts.camera IS NULL OR r.camera_id = frame_counts.camera)
            AND r.bucket >= CASE WHEN frame_counts.since IS NULL THEN '-infinity' ELSE frame_counts.since END
            AND r.bucket < CASE WHEN frame_counts.until IS NULL THEN 'infinity' ELSE frame_counts.until END
        UNION ALL
        SELECT r.bucket, r.camera_id, r.frames, r.key_frames, r.bytes, r.processing_ms_mean,
            r.processing_ms_max, r.brightness_mean, r.motion_mean
        FROM frame_stats_1d r
        WHERE frame_counts.width = '1d' AND (frame_counts.camera IS NULL OR r.camera_id = frame_counts.camera)
            AND r.bucket >= CASE WHEN frame_counts.since IS NULL THEN '-infinity' ELSE frame_counts.since END
            AND r.bucket < CASE WHEN frame_counts.until IS NULL THEN 'infinity' ELSE frame_counts.until END
    ) s
    ORDER BY s.bucket, s.camera_id
$$;

COMMENT ON FUNCTION jetcopy.frame_counts(width text, camera text, since timestamp with time zone, until timestamp with time zone) IS 'Frames, bytes and means over time, from the roll-up of width 1m, 1h or 1d; a bucket is there when it is over, or at once with [store] real_time';

CREATE FUNCTION jetcopy.frames(camera text, since timestamp with time zone DEFAULT (now() - '01:00:00'::interval), until timestamp with time zone DEFAULT NULL::timestamp with time zone, max_rows bigint DEFAULT 1000) RETURNS TABLE("time" timestamp with time zone, camera_id text, frame_id bigint, width integer, height integer, codec text, fps double precision, key_frame boolean, size_bytes bigint, processing_ms double precision, brightness double precision, motion double precision, attributes jsonb)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT f.time, f.camera_id, f.frame_id, f.width, f.height, f.codec, f.fps, f.key_frame, f.size_bytes,
        f.processing_ms, f.brightness, f.motion, f.attributes
    FROM frame_metadata f
    WHERE f.camera_id = frames.camera
        AND f.time >= CASE WHEN frames.since IS NULL THEN '-infinity' ELSE frames.since END
        AND f.time < CASE WHEN frames.until IS NULL THEN 'infinity' ELSE frames.until END
    ORDER BY f.time DESC LIMIT frames.max_rows
$$;

COMMENT ON FUNCTION jetcopy.frames(camera text, since timestamp with time zone, until timestamp with time zone, max_rows bigint) IS 'Frames of a camera in a span of time, newest first';

CREATE FUNCTION jetcopy.frequency_drift(receiver text DEFAULT NULL::text, frequency double precision DEFAULT NULL::double precision, width interval DEFAULT '01:00:00'::interval, since timestamp with time zone DEFAULT (now() - '1 day'::interval), until timestamp with time zone DEFAULT NULL::timestamp with time zone, task text DEFAULT NULL::text) RETURNS TABLE(websdr_id text, bucket timestamp with time zone, measurements bigint, offset_hz_mean double precision, offset_hz_min double precision, offset_hz_max double precision, drift_hz double precision, receiver_name text)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION jetcopy.frequency_drift(receiver text, frequency double precision, width interval, since timestamp with time zone, until timestamp with time zone, task text) IS 'Frequency offset in Hz over time, per receiver, and how far its mean went from the bucket before';

CREATE FUNCTION jetcopy.fresh_registry(fresh_schema name) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    EXECUTE pg_catalog.format('CREATE SCHEMA %I', fresh_schema);
    EXECUTE pg_catalog.format('CREATE TABLE %I.projects (LIKE projects INCLUDING ALL)', fresh_schema);
    EXECUTE pg_catalog.format('CREATE TABLE %I.files (LIKE files INCLUDING ALL)', fresh_schema);
    EXECUTE pg_catalog.format('CREATE TABLE %I.operations_log (LIKE operations_log INCLUDING ALL)',
        fresh_schema);
    PERFORM jetcopy.time_table(pg_catalog.format('%I.operations_log', fresh_schema)::regclass, 'timestamp',
        '7 days');
END
$$;

COMMENT ON FUNCTION jetcopy.fresh_registry(fresh_schema name) IS 'Creates a schema with empty projects, files and operations_log, for a pipeline to replay the events into';

CREATE FUNCTION jetcopy.hand_payload_on() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    old record;
    heir bigint;
BEGIN
    FOR old IN SELECT * FROM gone WHERE payload IS NOT NULL LOOP
        SELECT (array_agg(stays.id ORDER BY stays.id))[1] INTO heir
        FROM (SELECT d.id, d.payload IS NOT NULL AS has_it FROM jetcopy.dead_letters d
              WHERE d.pipeline = old.pipeline AND d.sequence = old.sequence AND d.shard = old.shard
                  AND d.stream = old.stream AND d.stored_at IS NOT DISTINCT FROM old.stored_at
                  AND d.expired_at IS NULL
              ORDER BY d.id FOR UPDATE) AS stays
        HAVING NOT bool_or(stays.has_it);
        IF heir IS NOT NULL THEN
            UPDATE jetcopy.dead_letters SET payload = old.payload WHERE id = heir;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION jetcopy.hand_payload_on() IS 'Hands the payload of letters that go on to one of the same message that stays, as a trigger';

CREATE FUNCTION jetcopy.is_committed(shard text, sequence bigint) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT coalesce(
        (SELECT l.last_sequence >= is_committed.sequence FROM jetcopy.lanes l
            WHERE l.shard = is_committed.shard
                AND l.lane = (is_committed.sequence - 1) / l.block % l.lanes),
        (SELECT c.last_sequence >= is_committed.sequence
            FROM jetcopy.checkpoints c WHERE c.shard = is_committed.shard),
        false)
$$;

COMMENT ON FUNCTION jetcopy.is_committed(shard text, sequence bigint) IS 'Whether the message with that sequence is done with in that shard: its rows are in the tables, or it is a dead letter, or no table takes it';

CREATE FUNCTION jetcopy.is_visible(stream text, sequence bigint, pipeline text DEFAULT NULL::text) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    seen boolean;
BEGIN
    IF is_visible.stream IS NULL OR is_visible.sequence IS NULL THEN
        RAISE EXCEPTION 'stream and sequence must not be NULL: a publisher''s ack names both'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    SELECT bool_and(jetcopy.is_committed(c.shard, is_visible.sequence)) INTO seen
    FROM jetcopy.checkpoints c
    WHERE c.stream = is_visible.stream
        AND CASE WHEN is_visible.pipeline IS NULL THEN c.pipeline !~ '-replay-[0-9]+-[0-9]+$'
            ELSE c.pipeline = is_visible.pipeline END;
    IF seen IS NULL THEN
        RAISE EXCEPTION '%', CASE WHEN is_visible.pipeline IS NULL
                THEN format('no pipeline has read stream "%s"', is_visible.stream)
                ELSE format('no pipeline "%s" has read stream "%s"', is_visible.pipeline, is_visible.stream)
            END USING ERRCODE = 'undefined_object',
            HINT = 'jetcopy.checkpoints has the streams and pipelines; a new one is there once it has run';
    END IF;
    RETURN seen;
END $_$;

COMMENT ON FUNCTION jetcopy.is_visible(stream text, sequence bigint, pipeline text) IS 'Whether the message of that stream and sequence, as a publisher''s ack names them, is committed: by every pipeline that reads the stream, or by the named one';

CREATE FUNCTION jetcopy.keep_created_at() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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

COMMENT ON FUNCTION jetcopy.keep_created_at() IS 'Keeps created_at over documents that do not say it, as a trigger of INSERT and UPDATE';

CREATE FUNCTION jetcopy.last_seal(of_shard text, of_lane integer, OUT number bigint, OUT hash bytea, OUT to_sequence bigint) RETURNS record
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT s.number, s.hash, s.to_sequence FROM jetcopy.seals s
    WHERE s.shard = of_shard AND s.lane = of_lane ORDER BY s.number DESC LIMIT 1
$$;

COMMENT ON FUNCTION jetcopy.last_seal(of_shard text, of_lane integer, OUT number bigint, OUT hash bytea, OUT to_sequence bigint) IS 'The last seal of a chain that no row of jetcopy.lanes goes on from';

CREATE FUNCTION jetcopy.latest_frames(camera text DEFAULT NULL::text, since timestamp with time zone DEFAULT (now() - '1 day'::interval)) RETURNS TABLE("time" timestamp with time zone, camera_id text, frame_id bigint, width integer, height integer, codec text, fps double precision, key_frame boolean, size_bytes bigint, processing_ms double precision, brightness double precision, motion double precision, attributes jsonb)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    WITH RECURSIVE cameras (camera_id) AS (
        SELECT coalesce(latest_frames.camera, (
            SELECT f.camera_id FROM frame_metadata f
            WHERE f.time >= date_trunc('day',
                CASE WHEN latest_frames.since IS NULL THEN '-infinity' ELSE latest_frames.since END, 'UTC')
            ORDER BY f.camera_id LIMIT 1))
        UNION ALL
        SELECT (
            SELECT f.camera_id FROM frame_metadata f
            WHERE f.time >= date_trunc('day',
                CASE WHEN latest_frames.since IS NULL THEN '-infinity' ELSE latest_frames.since END, 'UTC')
                    AND f.camera_id > c.camera_id
            ORDER BY f.camera_id LIMIT 1)
        FROM cameras c
        WHERE c.camera_id IS NOT NULL AND latest_frames.camera IS NULL
    )
    SELECT l.*
    FROM cameras c
    CROSS JOIN LATERAL (
        SELECT f.time, f.camera_id, f.frame_id, f.width, f.height, f.codec, f.fps, f.key_frame, f.size_bytes,
            f.processing_ms, f.brightness, f.motion, f.attributes
        FROM frame_metadata f
        WHERE f.camera_id = c.camera_id
            AND f.time >= CASE WHEN latest_frames.since IS NULL THEN '-infinity' ELSE latest_frames.since END
        ORDER BY f.time DESC LIMIT 1
    ) l
$$;

COMMENT ON FUNCTION jetcopy.latest_frames(camera text, since timestamp with time zone) IS 'The latest frame of each camera, or of one';

CREATE FUNCTION jetcopy.make_partition(relation regclass, day date) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET "DateStyle" TO 'ISO'
    AS $$
DECLARE
    schema_name name;
    -- 18 bytes are left to what is put behind it, here and where a partition is dropped.
    stem text;
    owner text;
    partition text;
BEGIN
    SELECT n.nspname, left(c.relname, 45), pg_get_userbyid(c.relowner) INTO schema_name, stem, owner
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
    partition := format('%I.%I', schema_name, stem || '_p' || to_char(day, 'YYYYMMDD'));
    -- Indexes come with ATTACH, and so does an identity.
    EXECUTE format(
        'CREATE TABLE %s (LIKE %s
            INCLUDING CONSTRAINTS INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STORAGE)',
        partition, relation);
    IF owner <> current_user THEN
        EXECUTE format('ALTER TABLE %s OWNER TO %I', partition, owner);
    END IF;
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
        relation, partition, day::timestamptz, (day + 1)::timestamptz);
END
$$;

COMMENT ON FUNCTION jetcopy.make_partition(relation regclass, day date) IS 'Makes the partition of a day (UTC), where the caller has seen that there is none';

CREATE FUNCTION jetcopy.measurement_days(receiver text DEFAULT NULL::text, since timestamp with time zone DEFAULT (now() - '1 year'::interval), until timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(bucket timestamp with time zone, websdr_id text, measurements bigint, snr_db_mean double precision, snr_db_min double precision, snr_db_max double precision, offset_hz_mean double precision, offset_hz_min double precision, offset_hz_max double precision, receiver_name text)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION jetcopy.measurement_days(receiver text, since timestamp with time zone, until timestamp with time zone) IS 'Signal-to-noise ratio in dB and frequency offset in Hz, per day and receiver, from measurements_daily; a bucket is there when it is over, or at once with [store] real_time';

CREATE FUNCTION jetcopy.measurement_results(task text DEFAULT NULL::text, since timestamp with time zone DEFAULT (now() - '1 day'::interval), until timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(task_id text, stored bigint, refused bigint, refused_messages bigint)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION jetcopy.measurement_results(task text, since timestamp with time zone, until timestamp with time zone) IS 'How many measurements of each task were stored, by the times in them, and refused, by the times of their messages';

CREATE FUNCTION jetcopy.monitor_checkpoints() RETURNS TABLE(pipeline text, shard text, stream text, last_sequence bigint, epoch bigint, age_seconds double precision, lease_seconds double precision)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT c.pipeline, c.shard, c.stream, jetcopy.floor(c.shard), c.epoch,
        extract(epoch FROM now() - greatest(c.updated_at,
            (SELECT max(l.updated_at) FROM jetcopy.lanes l WHERE l.shard = c.shard)))::float8,
        coalesce(extract(epoch FROM d.lease_until - now()), 0)::float8
    FROM jetcopy.checkpoints c LEFT JOIN jetcopy.daemons d ON d.daemon = c.owner
$$;

COMMENT ON FUNCTION jetcopy.monitor_checkpoints() IS 'For monitoring: whether each shard moves, and who may write it';

CREATE FUNCTION jetcopy.monitor_dead_letters() RETURNS TABLE(stored_total bigint, kept_estimate bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT (SELECT coalesce(last_value, 0) FROM pg_sequences
            WHERE format('%I.%I', schemaname, sequencename)
                = pg_get_serial_sequence('jetcopy.dead_letters', 'id')),
        (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'jetcopy.dead_letters'::regclass)
$$;

COMMENT ON FUNCTION jetcopy.monitor_dead_letters() IS 'For monitoring: dead letters ever stored';

CREATE FUNCTION jetcopy.monitor_detections() RETURNS TABLE(label text, total bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT coalesce(of, ''), r.total
        FROM jetcopy.monitor_rolled_up('detection_stats', 'detections', 'label') r
$$;

COMMENT ON FUNCTION jetcopy.monitor_detections() IS 'For monitoring: detections ever stored, by label';

CREATE FUNCTION jetcopy.monitor_frames() RETURNS TABLE(total bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    frames text := jetcopy.shown_name(jetcopy.store_relation('frame_metadata'));
BEGIN
    IF jetcopy.store_relation('frame_stats_1d') IS NOT NULL THEN
        RETURN QUERY SELECT coalesce((SELECT r.total
            FROM jetcopy.monitor_rolled_up('frame_stats', 'frames', NULL) r), 0);
    ELSIF frames IS NOT NULL THEN
        RETURN QUERY SELECT t.rows_estimate FROM jetcopy.monitor_tables() t WHERE t.relation = frames;
    END IF;
END
$$;

COMMENT ON FUNCTION jetcopy.monitor_frames() IS 'For monitoring: frames ever stored';

CREATE FUNCTION jetcopy.monitor_jobs() RETURNS TABLE(job_id text, task text, relation text, failing bigint, runs_total bigint, failures_total bigint, success_age_seconds double precision, duration_seconds double precision)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT j.job_id::text, j.proc_name::text, coalesce(j.hypertable_name, s.hypertable_name, '')::text,
            (j.scheduled AND coalesce(s.last_run_status, '') = 'Failed' AND (
                -- TimescaleDB 2.28.3 on PostgreSQL 15.20 says so of every job, after its work is committed.
                SELECT e.err_message FROM timescaledb_information.job_errors e
                WHERE e.job_id = j.job_id ORDER BY e.finish_time DESC LIMIT 1
            ) IS DISTINCT FROM 'cannot drop portal "" while it is being set up')::int::bigint,
                coalesce(s.total_runs, 0),
            coalesce(s.total_failures, 0),
            -- It says -infinity before the first success.
            CASE WHEN isfinite(s.last_successful_finish)
                THEN extract(epoch FROM now() - s.last_successful_finish) END::float8,
            extract(epoch FROM s.last_run_duration)::float8
        FROM timescaledb_information.jobs j LEFT JOIN timescaledb_information.job_stats s USING (job_id)
        -- TimescaleDB's own housekeeping is its own.
        WHERE j.job_id >= 1000;
END
$$;

COMMENT ON FUNCTION jetcopy.monitor_jobs() IS 'For monitoring: TimescaleDB''s jobs and how they ended';

CREATE FUNCTION jetcopy.monitor_losses() RETURNS TABLE(pipeline text, shard text, recorded bigint, newest_age_seconds double precision)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT c.pipeline, c.shard, count(l.id),
        coalesce(extract(epoch FROM now() - max(l.detected_at)), 'Infinity')::float8
    FROM jetcopy.checkpoints c LEFT JOIN jetcopy.losses l USING (shard)
    GROUP BY 1, 2
$$;

COMMENT ON FUNCTION jetcopy.monitor_losses() IS 'For monitoring: losses of each shard';

CREATE FUNCTION jetcopy.monitor_pgbouncer() RETURNS TABLE(pool text, pool_user text, clients_active bigint, clients_waiting bigint, servers_active bigint, servers_idle bigint, servers_used bigint, max_wait_seconds double precision)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    dblink text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'dblink');
    -- What SHOW POOLS answers: since 1.24, since 1.18, since 1.16, before.
    layouts CONSTANT text[] := ARRAY[
        'w, x, sv_active, y, z, sv_idle, sv_used, sv_tested, sv_login, maxwait, maxwait_us, pool_mode, '
            'load_balance_hosts',
        'w, x, sv_active, y, z, sv_idle, sv_used, sv_tested, sv_login, maxwait, maxwait_us, pool_mode',
        'w, sv_active, sv_idle, sv_used, sv_tested, sv_login, maxwait, maxwait_us, pool_mode',
        'sv_active, sv_idle, sv_used, sv_tested, sv_login, maxwait, maxwait_us, pool_mode'];
    layout text;
BEGIN
    IF dblink IS NULL OR NOT EXISTS (SELECT FROM pg_foreign_server WHERE srvname = 'pgbouncer') THEN
        RETURN;
    END IF;
    FOREACH layout IN ARRAY layouts LOOP
        BEGIN
            RETURN QUERY EXECUTE format(
                'SELECT pool, pool_user, cl_active::bigint, cl_waiting::bigint, sv_active::bigint,
                    sv_idle::bigint, sv_used::bigint, maxwait::float8 + maxwait_us::float8 / 1e6
                FROM %s.dblink(''pgbouncer'', ''SHOW POOLS'') AS pools (pool text, pool_user text,
                    cl_active text, cl_waiting text, %s)',
                dblink, regexp_replace(layout, '\w+', '\& text', 'g'));
            RETURN;
        -- Another number of columns, and so another version.
        EXCEPTION WHEN datatype_mismatch THEN
            CONTINUE;
        END;
    END LOOP;
    RAISE EXCEPTION 'this version of PgBouncer answers SHOW POOLS with columns that are not known here';
END
$$;

COMMENT ON FUNCTION jetcopy.monitor_pgbouncer() IS 'For monitoring: PgBouncer''s pools';

CREATE FUNCTION jetcopy.monitor_rolled_up(stem text, value text, key text) RETURNS TABLE(of text, total bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    minutes regclass := jetcopy.store_relation(stem || '_1m');
    hours regclass := jetcopy.store_relation(stem || '_1h');
    days regclass := jetcopy.store_relation(stem || '_1d');
BEGIN
    IF days IS NULL OR hours IS NULL OR minutes IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        $query$
            WITH days AS MATERIALIZED (
                SELECT coalesce(max(bucket) + interval '1 day', '-infinity') AS ends FROM %1$s),
            hours AS MATERIALIZED (
                SELECT greatest(coalesce(max(bucket) + interval '1 hour', '-infinity'),
                    (SELECT ends FROM days)) AS ends
                FROM %2$s)
            SELECT key, sum(value)::bigint FROM (
                SELECT %4$s::text AS key, %5$I AS value FROM %1$s
                UNION ALL SELECT %4$s::text, %5$I FROM %2$s WHERE bucket >= (SELECT ends FROM days)
                UNION ALL SELECT %4$s::text, %5$I FROM %3$s WHERE bucket >= (SELECT ends FROM hours)
            ) AS rolled_up GROUP BY key
        $query$,
        days, hours, minutes, coalesce(quote_ident(key), 'NULL'), value);
END
$_$;

COMMENT ON FUNCTION jetcopy.monitor_rolled_up(stem text, value text, key text) IS 'For monitoring: sums of a column of roll-ups, by key';

CREATE FUNCTION jetcopy.monitor_statements() RETURNS TABLE(queryid text, calls_total bigint, seconds_total double precision)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    extension text := (SELECT extnamespace::regnamespace FROM pg_extension
        WHERE extname = 'pg_stat_statements');
    -- It was renamed in PostgreSQL 13.
    elapsed text := CASE WHEN current_setting('server_version_num')::int >= 130000 THEN 'total_exec_time'
        ELSE 'total_time' END;
BEGIN
    IF extension IS NULL OR current_setting('shared_preload_libraries') !~ '\mpg_stat_statements\M' THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        $query$
            SELECT queryid::text, sum(calls)::bigint, sum(%2$I) / 1000
            FROM %1$s.pg_stat_statements
            WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND userid <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
                AND query ~* '^\s*(select|with|insert|update|delete|merge)\M' AND queryid IS NOT NULL
            GROUP BY queryid ORDER BY 3 DESC LIMIT 100
        $query$, extension, elapsed);
END
$_$;

COMMENT ON FUNCTION jetcopy.monitor_statements() IS 'For monitoring: the statements that take most time';

CREATE FUNCTION jetcopy.monitor_tables() RETURNS TABLE(relation text, rows_estimate bigint, total_bytes bigint, chunks bigint, compressed_chunks bigint, before_bytes bigint, after_bytes bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    timescale text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'timescaledb');
    -- It remembers sizes, and is there since 2.14.
    size_function text := CASE WHEN EXISTS (SELECT FROM pg_proc WHERE proname = 'hypertable_approximate_size')
        THEN 'hypertable_approximate_size' ELSE 'hypertable_size' END;
    hypertables regclass[] := '{}';
    hypertable regclass;
BEGIN
    IF timescale IS NOT NULL THEN
        SELECT coalesce(array_agg(format('%I.%I', hypertable_schema, hypertable_name)::regclass), '{}')
        INTO hypertables FROM timescaledb_information.hypertables;
        FOREACH hypertable IN ARRAY hypertables LOOP
            RETURN QUERY EXECUTE format(
                'SELECT jetcopy.shown_name($1), %1$s.approximate_row_count($1), %1$s.%2$I($1),
                    (SELECT count(*) FROM timescaledb_information.chunks
                     WHERE format(''%%I.%%I'', hypertable_schema, hypertable_name)::regclass = $1),
                    coalesce(c.compressed, 0)::bigint, coalesce(c.before, 0)::bigint,
                    coalesce(c.after, 0)::bigint
                FROM (SELECT) AS one LEFT JOIN (
                    SELECT sum(number_compressed_chunks) AS compressed,
                        sum(before_compression_total_bytes) AS before,
                        sum(after_compression_total_bytes) AS after
                    FROM %1$s.hypertable_compression_stats($1)) AS c ON true', timescale, size_function)
            USING hypertable;
        END LOOP;
    END IF;
    RETURN QUERY
        SELECT jetcopy.shown_name(c.oid::regclass), p.tuples, p.bytes, p.leaves, 0::bigint, 0::bigint,
            0::bigint
        FROM pg_class c
        CROSS JOIN LATERAL (
            SELECT sum(greatest(leaf.reltuples, 0))::bigint AS tuples,
                sum(pg_total_relation_size(leaf.oid))::bigint AS bytes,
                count(*) FILTER (WHERE leaf.oid <> c.oid) AS leaves
            FROM pg_class leaf
            WHERE leaf.oid = c.oid AND c.relkind = 'r'
                OR leaf.oid IN (SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf AND c.relkind = 'p')
        ) AS p
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
            AND c.oid <> ALL (hypertables)
            AND c.relnamespace::regnamespace::text !~ '^(pg_|information_schema$|_?timescaledb_)'
        ORDER BY c.relpages DESC LIMIT 200;
END
$_$;

COMMENT ON FUNCTION jetcopy.monitor_tables() IS 'For monitoring: size, rows and compression of the store''s tables';

CREATE FUNCTION jetcopy.monitor_writes() RETURNS TABLE(checkpoints_timed bigint, checkpoints_requested bigint, checkpointer_buffers bigint, background_writer_buffers bigint, backend_buffers bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF to_regclass('pg_catalog.pg_stat_checkpointer') IS NULL THEN
        RETURN QUERY SELECT b.checkpoints_timed, b.checkpoints_req, b.buffers_checkpoint, b.buffers_clean,
                b.buffers_backend
            FROM pg_stat_bgwriter b;
        RETURN;
    END IF;
    RETURN QUERY SELECT c.num_timed, c.num_requested, c.buffers_written, b.buffers_clean, (
            -- 17 counts writes of a block each, 18 bytes.
            SELECT coalesce(sum(coalesce(
                (to_jsonb(i) ->> 'write_bytes')::numeric / current_setting('block_size')::int, i.writes)),
                    0)::bigint
            FROM pg_stat_io i
            WHERE i.backend_type NOT IN ('checkpointer', 'background writer') AND i.object = 'relation')
        FROM pg_stat_checkpointer c, pg_stat_bgwriter b;
END
$$;

COMMENT ON FUNCTION jetcopy.monitor_writes() IS 'Who wrote buffers to disk, and why the server made checkpoints, on each version of it';

CREATE FUNCTION jetcopy.operation_counts(project text DEFAULT NULL::text, width interval DEFAULT '01:00:00'::interval, since timestamp with time zone DEFAULT (now() - '1 day'::interval), until timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(bucket timestamp with time zone, operation text, operations bigint, failures bigint, duration_ms_mean double precision, duration_ms_max double precision)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT date_bin(operation_counts.width, o.timestamp, timestamptz '2000-01-01 00:00:00+00'), o.operation,
        pg_catalog.count(*), pg_catalog.count(o.error), avg(o.duration_ms), max(o.duration_ms)
    FROM operations_log o
    WHERE (operation_counts.project IS NULL OR o.project_id = operation_counts.project)
        AND o.timestamp >= CASE WHEN operation_counts.since IS NULL THEN '-infinity'
            ELSE operation_counts.since END
        AND o.timestamp < CASE WHEN operation_counts.until IS NULL THEN 'infinity'
            ELSE operation_counts.until END
    GROUP BY 1, 2
    ORDER BY 1, 2
$$;

COMMENT ON FUNCTION jetcopy.operation_counts(project text, width interval, since timestamp with time zone, until timestamp with time zone) IS 'How often each operation was done and failed, and how long it took, per bucket of time';

CREATE FUNCTION jetcopy.operations(project text DEFAULT NULL::text, request text DEFAULT NULL::text, failed boolean DEFAULT false, since timestamp with time zone DEFAULT (now() - '7 days'::interval), until timestamp with time zone DEFAULT NULL::timestamp with time zone, max_rows bigint DEFAULT 100) RETURNS TABLE("timestamp" timestamp with time zone, request_id text, project_id text, operation text, resource text, details jsonb, duration_ms double precision, status text, error text)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT o.timestamp, o.request_id, o.project_id, o.operation, o.resource, o.details, o.duration_ms,
        o.status, o.error
    FROM operations_log o
    WHERE (operations.project IS NULL OR o.project_id = operations.project)
        AND (operations.request IS NULL OR o.request_id = operations.request)
        AND (NOT operations.failed OR o.error IS NOT NULL)
        AND o.timestamp >= CASE WHEN operations.since IS NULL THEN '-infinity' ELSE operations.since END
        AND o.timestamp < CASE WHEN operations.until IS NULL THEN 'infinity' ELSE operations.until END
    ORDER BY o.timestamp DESC LIMIT operations.max_rows
$$;

COMMENT ON FUNCTION jetcopy.operations(project text, request text, failed boolean, since timestamp with time zone, until timestamp with time zone, max_rows bigint) IS 'What was done, by project, request and span of time, newest first';

CREATE FUNCTION jetcopy.partitions(relation regclass) RETURNS TABLE(partition regclass, starts timestamp with time zone, ends timestamp with time zone, detaching boolean)
    LANGUAGE sql STABLE
    SET "TimeZone" TO 'UTC'
    SET "DateStyle" TO 'ISO'
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    SELECT c.oid::regclass,
        CASE WHEN bound[1] = 'MINVALUE' THEN '-infinity' ELSE trim(bound[1], '''')::timestamptz END,
        CASE WHEN bound[2] = 'MAXVALUE' THEN 'infinity' ELSE trim(bound[2], '''')::timestamptz END,
        -- A column that servers before 14 do not have.
        coalesce((to_jsonb(i) ->> 'inhdetachpending')::boolean, false)
    FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    CROSS JOIN regexp_match(pg_get_expr(c.relpartbound, c.oid),
        '^FOR VALUES FROM \((.*)\) TO \((.*)\)$') AS bound
    WHERE i.inhparent = relation AND bound IS NOT NULL
    ORDER BY 2
$_$;

COMMENT ON FUNCTION jetcopy.partitions(relation regclass) IS 'The partitions of a table and the times that they take';

CREATE TABLE jetcopy.dead_letters (
    id bigint NOT NULL,
    pipeline text NOT NULL,
    shard text NOT NULL,
    stream text NOT NULL,
    sequence bigint NOT NULL,
    stored_at timestamp with time zone,
    subject text NOT NULL,
    raw_subject bytea,
    headers jsonb,
    raw_headers bytea,
    payload bytea,
    kind text NOT NULL,
    sqlstate text,
    message text NOT NULL,
    table_name text,
    column_name text,
    element integer,
    elements integer[],
    failed_at timestamp with time zone DEFAULT now() NOT NULL,
    expired_at timestamp with time zone,
    CONSTRAINT dead_letters_element_check CHECK ((element >= 0))
);

COMMENT ON TABLE jetcopy.dead_letters IS 'Messages, or elements of them, that cannot become rows, each written in the transaction that moves the checkpoint past it';

COMMENT ON COLUMN jetcopy.dead_letters.id IS 'Number of the letter';

COMMENT ON COLUMN jetcopy.dead_letters.pipeline IS 'The pipeline';

COMMENT ON COLUMN jetcopy.dead_letters.shard IS 'Its shard';

COMMENT ON COLUMN jetcopy.dead_letters.stream IS 'The stream that the message is of';

COMMENT ON COLUMN jetcopy.dead_letters.sequence IS 'The message''s sequence in it';

COMMENT ON COLUMN jetcopy.dead_letters.stored_at IS 'When the stream stored the message';

COMMENT ON COLUMN jetcopy.dead_letters.subject IS 'The message''s subject';

COMMENT ON COLUMN jetcopy.dead_letters.raw_subject IS 'The subject as it was published, where subject is not that; empty where it is not UTF-8, since JetStream gives no such bytes out';

COMMENT ON COLUMN jetcopy.dead_letters.headers IS 'The message''s headers: {"name": ["value", …]}';

COMMENT ON COLUMN jetcopy.dead_letters.raw_headers IS 'The header block as it was published, where headers has not all of it';

COMMENT ON COLUMN jetcopy.dead_letters.payload IS 'The message''s payload, in the first of its letters; see jetcopy.payload_of(). NULL in the others';

COMMENT ON COLUMN jetcopy.dead_letters.kind IS 'The kind of fault: malformed, missing, type, range, unmatched, or refused by the server';

COMMENT ON COLUMN jetcopy.dead_letters.sqlstate IS 'The server''s code, where it refused the row';

COMMENT ON COLUMN jetcopy.dead_letters.message IS 'What is wrong, and where';

COMMENT ON COLUMN jetcopy.dead_letters.table_name IS 'The table that the row was for';

COMMENT ON COLUMN jetcopy.dead_letters.column_name IS 'The column that the fault is in';

COMMENT ON COLUMN jetcopy.dead_letters.element IS 'The first element that the letter is about: its place in the array of for_each, from 0. NULL: the message as a whole';

COMMENT ON COLUMN jetcopy.dead_letters.elements IS 'All places that it is about, where they are several';

COMMENT ON COLUMN jetcopy.dead_letters.failed_at IS 'When the letter was written';

COMMENT ON COLUMN jetcopy.dead_letters.expired_at IS 'When its payload went by its age; NULL: it has not';

CREATE FUNCTION jetcopy.payload_of(letter jetcopy.dead_letters) RETURNS bytea
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT CASE WHEN letter.expired_at IS NULL THEN coalesce(letter.payload, (
        SELECT d.payload FROM jetcopy.dead_letters d
        WHERE d.pipeline = letter.pipeline AND d.sequence = letter.sequence AND d.shard = letter.shard
            AND d.stream = letter.stream AND d.stored_at IS NOT DISTINCT FROM letter.stored_at
            AND d.payload IS NOT NULL
        ORDER BY d.id LIMIT 1)) END
$$;

COMMENT ON FUNCTION jetcopy.payload_of(letter jetcopy.dead_letters) IS 'The payload of a letter''s message';

CREATE FUNCTION jetcopy.project_stats(project text) RETURNS TABLE(project_id text, name text, status text, size_bytes bigint, table_count bigint, bucket_count bigint, files bigint, file_bytes bigint, staged_files bigint, operations_1d bigint, failures_1d bigint, mean_duration_ms_1d double precision, last_operation timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT s.* FROM jetcopy.registry_stats() s WHERE s.project_id = project_stats.project
$$;

COMMENT ON FUNCTION jetcopy.project_stats(project text) IS 'What a project adds up to now, and what was done to it in the last day';

CREATE FUNCTION jetcopy.receivers(receiver text DEFAULT NULL::text, is_active boolean DEFAULT NULL::boolean) RETURNS TABLE(id text, name text, location text, url text, active boolean, attributes jsonb, created_at timestamp with time zone, updated_at timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT w.id, w.name, w.location, w.url, w.active, w.attributes, w.created_at, w.updated_at
    FROM websdrs w
    WHERE (receivers.receiver IS NULL OR w.id = receivers.receiver)
        AND (receivers.is_active IS NULL OR w.active = receivers.is_active)
    ORDER BY w.id
$$;

COMMENT ON FUNCTION jetcopy.receivers(receiver text, is_active boolean) IS 'Radio receivers, by id; only active ones, or only others';

CREATE FUNCTION jetcopy.recent_frames(since timestamp with time zone DEFAULT (now() - '01:00:00'::interval), until timestamp with time zone DEFAULT NULL::timestamp with time zone, max_rows bigint DEFAULT 100) RETURNS TABLE("time" timestamp with time zone, camera_id text, frame_id bigint, width integer, height integer, codec text, fps double precision, key_frame boolean, size_bytes bigint, processing_ms double precision, brightness double precision, motion double precision, attributes jsonb)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    WITH RECURSIVE cameras (camera_id) AS (
        SELECT (
            SELECT f.camera_id FROM frame_metadata f
            WHERE f.time >= date_trunc('day',
                    CASE WHEN recent_frames.since IS NULL THEN '-infinity' ELSE recent_frames.since END,
                    'UTC')
                AND f.time < date_trunc('day',
                    CASE WHEN recent_frames.until IS NULL THEN 'infinity' ELSE recent_frames.until END, 'UTC')
                    + interval '1 day'
            ORDER BY f.camera_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT f.camera_id FROM frame_metadata f
            WHERE f.time >= date_trunc('day',
                    CASE WHEN recent_frames.since IS NULL THEN '-infinity' ELSE recent_frames.since END,
                    'UTC')
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
                AND f.time >= CASE WHEN recent_frames.since IS NULL THEN '-infinity'
                    ELSE recent_frames.since END
                AND f.time < CASE WHEN recent_frames.until IS NULL THEN 'infinity'
                    ELSE recent_frames.until END
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

COMMENT ON FUNCTION jetcopy.recent_frames(since timestamp with time zone, until timestamp with time zone, max_rows bigint) IS 'Frames of all cameras in a span of time, newest first';

CREATE FUNCTION jetcopy.recent_measurements(task text DEFAULT NULL::text, receiver text DEFAULT NULL::text, since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone, max_rows bigint DEFAULT 100, frequency double precision DEFAULT NULL::double precision) RETURNS TABLE(timestamp_utc timestamp with time zone, task_id text, websdr_id text, frequency_mhz double precision, sample_rate_khz double precision, samples_count bigint, snr_db double precision, frequency_offset_hz double precision, power_dbm double precision, s3_path text, attributes jsonb, receiver_name text)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION jetcopy.recent_measurements(task text, receiver text, since timestamp with time zone, until timestamp with time zone, max_rows bigint, frequency double precision) IS 'Measurements by task, receiver, frequency and span of time, newest first';

CREATE FUNCTION jetcopy.recount_files(relation regclass) RETURNS void
    LANGUAGE plpgsql STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
BEGIN
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', relation);
    DELETE FROM jetcopy.registry_files;
    EXECUTE format($sql$
        INSERT INTO jetcopy.registry_files (project_id, writer, active, active_bytes, kept)
        SELECT f.project_id, 0, count(*) FILTER (WHERE f.status = 'active'),
            coalesce(sum(f.size_bytes) FILTER (WHERE f.status = 'active'), 0),
            count(*) FILTER (WHERE f.status <> 'deleted')
        FROM %s f GROUP BY f.project_id
    $sql$, relation);
END
$_$;

COMMENT ON FUNCTION jetcopy.recount_files(relation regclass) IS 'Counts jetcopy.registry_files again from this table';

CREATE FUNCTION jetcopy.recount_operations() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM jetcopy.recount_operations(TG_RELID);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION jetcopy.recount_operations() IS 'Counts jetcopy.registry_operations again, as a trigger of UPDATE, DELETE and TRUNCATE on operations_log';

CREATE FUNCTION jetcopy.recount_operations(relation regclass) RETURNS void
    LANGUAGE plpgsql STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
BEGIN
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', relation);
    DELETE FROM jetcopy.registry_operations;
    EXECUTE format($sql$
        INSERT INTO jetcopy.registry_operations (project_id, writer, created, buckets, tables, files)
        SELECT o.project_id, 0, count(*) FILTER (WHERE o.operation = 'create_project'),
            count(*) FILTER (WHERE o.operation = 'create_bucket')
                - count(*) FILTER (WHERE o.operation = 'drop_bucket'),
            count(*) FILTER (WHERE o.operation = 'create_table')
                - count(*) FILTER (WHERE o.operation = 'drop_table'),
            count(*) FILTER (WHERE o.operation = 'create_file')
                - count(*) FILTER (WHERE o.operation = 'delete_file')
        FROM %s o
        WHERE o.error IS NULL AND o.project_id IS NOT NULL AND o.operation IN
            ('create_project', 'create_bucket', 'drop_bucket', 'create_table', 'drop_table', 'create_file',
                'delete_file')
        GROUP BY o.project_id
    $sql$, relation);
END
$_$;

COMMENT ON FUNCTION jetcopy.recount_operations(relation regclass) IS 'Counts jetcopy.registry_operations again from this log';

CREATE FUNCTION jetcopy.recount_registry() RETURNS void
    LANGUAGE sql
    AS $$
    SELECT jetcopy.recount_files(to_regclass('files'));
    SELECT jetcopy.recount_operations(to_regclass('operations_log'));
$$;

COMMENT ON FUNCTION jetcopy.recount_registry() IS 'Counts the tallies of the registry again, for whoever has written past their triggers; takes the rights of whoever calls';

CREATE FUNCTION jetcopy.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are only ever added, and leave it by retention', TG_TABLE_NAME
        USING HINT = 'Its owner can disable the trigger append_only.';
END
$$;

COMMENT ON FUNCTION jetcopy.refuse_change() IS 'Keeps a table append-only, as a trigger of UPDATE and DELETE';

CREATE FUNCTION jetcopy.refused_measurements(task text DEFAULT NULL::text, since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(task_id text, refused bigint, messages bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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

COMMENT ON FUNCTION jetcopy.refused_measurements(task text, since timestamp with time zone, until timestamp with time zone) IS 'How many measurements of each task are dead letters, and in how many messages; one that is refused as a whole counts as one';

CREATE FUNCTION jetcopy.registry_check(whole boolean DEFAULT false) RETURNS TABLE(problem text, project_id text, path text, stored bigint, logged bigint)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$
#variable_conflict use_column
BEGIN
    IF whole OR NOT jetcopy.registry_is_tallied() THEN
        RETURN QUERY
        SELECT CASE WHEN p.id IS NULL THEN 'file without project' ELSE 'file of a deleted project' END,
            f.project_id, f.path, NULL::bigint, NULL::bigint
        FROM files f
        LEFT JOIN projects p ON p.id = f.project_id
        WHERE f.status = 'active' AND (p.id IS NULL OR p.status = 'deleted')
        UNION ALL
        SELECT c.problem, l.project_id, NULL, c.stored, c.logged
        FROM (
            SELECT o.project_id,
                pg_catalog.count(*) FILTER (WHERE o.operation = 'create_bucket')
                    - pg_catalog.count(*) FILTER (WHERE o.operation = 'drop_bucket') AS buckets,
                pg_catalog.count(*) FILTER (WHERE o.operation = 'create_table')
                    - pg_catalog.count(*) FILTER (WHERE o.operation = 'drop_table') AS tables,
                pg_catalog.count(*) FILTER (WHERE o.operation = 'create_file')
                    - pg_catalog.count(*) FILTER (WHERE o.operation = 'delete_file') AS files
            FROM operations_log o
            WHERE o.error IS NULL AND o.project_id IS NOT NULL
            GROUP BY o.project_id
            HAVING pg_catalog.count(*) FILTER (WHERE o.operation = 'create_project') > 0
        ) l
        LEFT JOIN projects p ON p.id = l.project_id
        CROSS JOIN LATERAL (
            SELECT pg_catalog.count(*) AS files FROM files f WHERE f.project_id = l.project_id
                AND f.status <> 'deleted'
        ) f
        CROSS JOIN LATERAL (VALUES
            ('buckets', p.bucket_count, l.buckets),
            ('tables', p.table_count, l.tables),
            ('files', f.files, l.files)
        ) c (problem, stored, logged)
        WHERE p.status IS DISTINCT FROM 'deleted' AND c.stored IS DISTINCT FROM c.logged
        ORDER BY 2, 1, 3;
        RETURN;
    END IF;
    -- As floats, which hold these numbers exactly and add up in a third of the time of what sum() makes of
    -- bigint.
    RETURN QUERY
    WITH odd AS MATERIALIZED (
        SELECT project_id, p.id, p.status, p.bucket_count, p.table_count, coalesce(k.kept, 0) AS file_count,
            k.active, l.created, l.buckets, l.tables, l.files
        FROM (
            SELECT t.project_id, sum(t.active::float8) AS active, sum(t.kept::float8)::bigint AS kept
            FROM jetcopy.registry_files t
            GROUP BY t.project_id
        ) k
        FULL JOIN (
            SELECT t.project_id, sum(t.created::float8) AS created, sum(t.buckets::float8)::bigint AS buckets,
                sum(t.tables::float8)::bigint AS tables, sum(t.files::float8)::bigint AS files
            FROM jetcopy.registry_operations t
            GROUP BY t.project_id
        ) l USING (project_id)
        LEFT JOIN projects p ON p.id = project_id
        WHERE k.active > 0::float8 AND (p.id IS NULL OR p.status = 'deleted')
            OR l.created > 0::float8 AND p.status IS DISTINCT FROM 'deleted'
                AND (p.bucket_count, p.table_count, coalesce(k.kept, 0)) IS DISTINCT FROM (l.buckets,
                    l.tables, l.files)
    )
    SELECT CASE WHEN o.id IS NULL THEN 'file without project' ELSE 'file of a deleted project' END,
        f.project_id, f.path, NULL::bigint, NULL::bigint
    FROM odd o
    JOIN files f ON f.project_id = o.project_id AND f.status = 'active'
    WHERE o.id IS NULL OR o.status = 'deleted'
    UNION ALL
    SELECT c.problem, o.project_id, NULL, c.stored, c.logged
    FROM odd o
    CROSS JOIN LATERAL (VALUES
        ('buckets', o.bucket_count, o.buckets),
        ('tables', o.table_count, o.tables),
        ('files', o.file_count, o.files)
    ) c (problem, stored, logged)
    WHERE o.created > 0::float8 AND o.status IS DISTINCT FROM 'deleted' AND c.stored IS DISTINCT FROM c.logged
    ORDER BY 2, 1, 3;
END
$$;

COMMENT ON FUNCTION jetcopy.registry_check(whole boolean) IS 'Files without project, and counts that disagree with the log; no row: all is well. With whole, from the files and the log instead of their tallies';

CREATE FUNCTION jetcopy.registry_is_tallied() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT 2 = (SELECT pg_catalog.count(*) FROM pg_trigger t
        WHERE t.tgrelid IN (to_regclass('files')::oid, to_regclass('operations_log')::oid)
            AND t.tgname = 'registry_insert'
            AND t.tgenabled IN ('O', 'A'))
$$;

COMMENT ON FUNCTION jetcopy.registry_is_tallied() IS 'Whether triggers keep the tallies of the registry; else its check and its totals read the rows';

CREATE FUNCTION jetcopy.registry_stats() RETURNS TABLE(project_id text, name text, status text, size_bytes bigint, table_count bigint, bucket_count bigint, files bigint, file_bytes bigint, staged_files bigint, operations_1d bigint, failures_1d bigint, mean_duration_ms_1d double precision, last_operation timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT p.id, p.name, p.status, p.size_bytes, p.table_count, p.bucket_count,
        f.files, f.file_bytes, f.staged_files, o.operations, o.failures, o.mean_duration_ms, l.timestamp
    FROM projects p
    CROSS JOIN LATERAL (
        SELECT pg_catalog.count(*) AS files, coalesce(sum(f.size_bytes), 0)::bigint AS file_bytes,
            pg_catalog.count(*) FILTER (WHERE f.staged) AS staged_files
        FROM files f
        WHERE f.project_id = p.id AND f.status = 'active'
            AND NOT (f.staged AND f.expires_at IS NOT NULL AND f.expires_at <= now())
    ) f
    CROSS JOIN LATERAL (
        SELECT pg_catalog.count(*) AS operations, pg_catalog.count(o.error) AS failures,
            avg(o.duration_ms) AS mean_duration_ms
        FROM operations_log o
        WHERE o.project_id = p.id AND o.timestamp >= now() - interval '1 day'
    ) o
    LEFT JOIN LATERAL (
        SELECT l.timestamp FROM operations_log l WHERE l.project_id = p.id ORDER BY l.timestamp DESC LIMIT 1
    ) l ON true
$$;

COMMENT ON FUNCTION jetcopy.registry_stats() IS 'What each project adds up to now, and what was done to it in the last day';

CREATE FUNCTION jetcopy.registry_totals() RETURNS TABLE(projects bigint, active_projects bigint, deleted_projects bigint, locked_projects bigint, size_bytes bigint, table_count bigint, bucket_count bigint, files bigint, file_bytes bigint, staged_files bigint, operations_1d bigint, failures_1d bigint, mean_duration_ms_1d double precision, last_operation timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT p.*, f.files - s.expired, (f.bytes - s.expired_bytes)::bigint, s.staged, o.*,
        (SELECT l.timestamp FROM operations_log l ORDER BY l.timestamp DESC LIMIT 1)
    FROM (
        SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE p.status = 'active'),
            pg_catalog.count(*) FILTER (WHERE p.status = 'deleted'),
            pg_catalog.count(*) FILTER (WHERE p.status = 'locked'),
            coalesce(sum(p.size_bytes) FILTER (WHERE p.status <> 'deleted'), 0)::bigint,
            coalesce(sum(p.table_count) FILTER (WHERE p.status <> 'deleted'), 0)::bigint,
            coalesce(sum(p.bucket_count) FILTER (WHERE p.status <> 'deleted'), 0)::bigint
        FROM projects p
    ) p, (
        SELECT coalesce(sum(c.files), 0)::bigint AS files, coalesce(sum(c.bytes), 0) AS bytes
        FROM (
            SELECT t.active AS files, t.active_bytes AS bytes
            FROM jetcopy.registry_files t
            WHERE jetcopy.registry_is_tallied()
            UNION ALL
            SELECT pg_catalog.count(*), sum(f.size_bytes)
            FROM files f
            WHERE f.status = 'active' AND NOT jetcopy.registry_is_tallied()
        ) c
    ) f, (
        -- Staged files are few, and have an index of their own.
        SELECT pg_catalog.count(*) FILTER (WHERE e.is_expired) AS expired,
            coalesce(sum(e.size_bytes) FILTER (WHERE e.is_expired), 0) AS expired_bytes,
            pg_catalog.count(*) FILTER (WHERE NOT e.is_expired) AS staged
        FROM (
            SELECT f.size_bytes, coalesce(f.expires_at <= now(), false) AS is_expired
            FROM files f
            WHERE f.staged AND f.status = 'active'
        ) e
    ) s, (
        SELECT pg_catalog.count(*), pg_catalog.count(o.error), avg(o.duration_ms)
        FROM operations_log o
        WHERE o.timestamp >= now() - interval '1 day'
    ) o
$$;

COMMENT ON FUNCTION jetcopy.registry_totals() IS 'What all projects add up to now, and what was done in the last day';

CREATE FUNCTION jetcopy.rollups_of(source regclass) RETURNS TABLE(name text, width interval)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT r.name, r.width FROM jetcopy.rollups r WHERE r.source = rollups_of.source ORDER BY r.name
$$;

COMMENT ON FUNCTION jetcopy.rollups_of(source regclass) IS 'The roll-ups that are filled from a table, without TimescaleDB';

CREATE TABLE jetcopy.seals (
    shard text NOT NULL,
    lane integer DEFAULT 0 NOT NULL,
    number bigint NOT NULL,
    kind text NOT NULL,
    stream text NOT NULL,
    stream_created timestamp with time zone,
    from_sequence bigint NOT NULL,
    to_sequence bigint NOT NULL,
    first_stored_at timestamp with time zone,
    last_stored_at timestamp with time zone,
    messages bigint DEFAULT 0 NOT NULL,
    letters bigint DEFAULT 0 NOT NULL,
    superseded bigint DEFAULT 0 NOT NULL,
    tables text[] DEFAULT '{}'::text[] NOT NULL,
    rows bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    unstored bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    digest bytea,
    epoch bigint NOT NULL,
    sealed_at timestamp with time zone NOT NULL,
    hash bytea NOT NULL,
    lanes integer,
    block bigint
);

COMMENT ON TABLE jetcopy.seals IS 'What was committed of a stream, stretch by stretch, and each move of a checkpoint by other means; some 300 bytes each, for each writer at most one in five minutes or five million messages and one a claim';

COMMENT ON COLUMN jetcopy.seals.shard IS 'The shard';

COMMENT ON COLUMN jetcopy.seals.lane IS 'Whose chain: that of the only writer, or of the first of several, is 0, and each further writer has its own';

COMMENT ON COLUMN jetcopy.seals.number IS 'Number of the seal in its chain, from 1 without a gap';

COMMENT ON COLUMN jetcopy.seals.kind IS 'committed: a stretch of the stream. lanes: the writers are others from here on. Else the checkpoint moved without commits: begun (where the ledger begins), lost, recreated, rewound, rebuilt, moved';

COMMENT ON COLUMN jetcopy.seals.stream IS 'The stream';

COMMENT ON COLUMN jetcopy.seals.stream_created IS 'When that was created';

COMMENT ON COLUMN jetcopy.seals.from_sequence IS 'Where the stretch begins, right after the seal before; of a move, the sequence that it left';

COMMENT ON COLUMN jetcopy.seals.to_sequence IS 'Where the stretch ends; of a move, where it went';

COMMENT ON COLUMN jetcopy.seals.first_stored_at IS 'When the stream stored the first message';

COMMENT ON COLUMN jetcopy.seals.last_stored_at IS 'When it stored the last one, where that is known';

COMMENT ON COLUMN jetcopy.seals.messages IS 'How many messages were committed';

COMMENT ON COLUMN jetcopy.seals.letters IS 'How many dead letters of them were stored';

COMMENT ON COLUMN jetcopy.seals.superseded IS 'How many messages between them the stream had removed before they were read';

COMMENT ON COLUMN jetcopy.seals.tables IS 'The tables that their rows went to';

COMMENT ON COLUMN jetcopy.seals.rows IS 'How many rows went to each of them';

COMMENT ON COLUMN jetcopy.seals.unstored IS 'How many of these the server took and did not store, because of on_conflict or a trigger';

COMMENT ON COLUMN jetcopy.seals.digest IS 'BLAKE3 over each message: its sequence and the length of its payload, 8 bytes each, little end first, then the payload; NULL with ledger.digest = "none". In the first chain, of the kind lanes: SHA-256 over the hashes of this kind in the other chains, in their order';

COMMENT ON COLUMN jetcopy.seals.epoch IS 'The claim under which it was sealed';

COMMENT ON COLUMN jetcopy.seals.sealed_at IS 'When it was sealed';

COMMENT ON COLUMN jetcopy.seals.hash IS 'SHA-256 over all of these and the hash of the seal before in its chain';

COMMENT ON COLUMN jetcopy.seals.lanes IS 'Of how many writers this is one, or is to be one from here on; NULL: the only one. The stretch is then that of the sequences s of the lane: those of which (s - 1) / block leaves the lane when divided by it';

COMMENT ON COLUMN jetcopy.seals.block IS 'How many sequences in a row are of the same lane';

CREATE FUNCTION jetcopy.seal_text(seal jetcopy.seals, hash_before bytea) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT concat_ws(E'\n', seal.shard, seal.lane, seal.number, seal.kind, seal.stream,
        coalesce((extract(epoch FROM seal.stream_created) * 1000000)::bigint::text, '-'),
        seal.from_sequence, seal.to_sequence,
        coalesce((extract(epoch FROM seal.first_stored_at) * 1000000)::bigint::text, '-'),
        coalesce((extract(epoch FROM seal.last_stored_at) * 1000000)::bigint::text, '-'),
        seal.messages, seal.letters, seal.superseded, seal.tables::text, seal.rows::text, seal.unstored::text,
        coalesce(encode(seal.digest, 'hex'), '-'), seal.epoch,
        (extract(epoch FROM seal.sealed_at) * 1000000)::bigint, seal.lanes, seal.block,
        coalesce(encode(hash_before, 'hex'), '-'))
$$;

COMMENT ON FUNCTION jetcopy.seal_text(seal jetcopy.seals, hash_before bytea) IS 'What the hash of a seal is over';

CREATE FUNCTION jetcopy.series_columns(series text, columns text[] DEFAULT NULL::text[], since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(column_name text)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION jetcopy.series_columns(series text, columns text[], since timestamp with time zone, until timestamp with time zone) IS 'The columns of a series: those asked for, else those of its metadata, else those of its points';

CREATE FUNCTION jetcopy.series_downsampled(series text, width interval, columns text[] DEFAULT NULL::text[], since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(bucket timestamp with time zone, column_name text, points bigint, mean double precision, min double precision, max double precision)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION jetcopy.series_downsampled(series text, width interval, columns text[], since timestamp with time zone, until timestamp with time zone) IS 'Count, mean, least and greatest value of a series per bucket of time and column, oldest first';

CREATE FUNCTION jetcopy.series_last(series text, columns text[] DEFAULT NULL::text[], since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(column_name text, "timestamp" timestamp with time zone, value double precision)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION jetcopy.series_last(series text, columns text[], since timestamp with time zone, until timestamp with time zone) IS 'The last value of each column of a series';

CREATE FUNCTION jetcopy.series_range(series text, columns text[] DEFAULT NULL::text[], since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(column_name text, first_at timestamp with time zone, last_at timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION jetcopy.series_range(series text, columns text[], since timestamp with time zone, until timestamp with time zone) IS 'When each column of a series begins and ends';

CREATE FUNCTION jetcopy.series_rows(series text, columns text[] DEFAULT NULL::text[], since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone, max_rows bigint DEFAULT 1000) RETURNS TABLE("timestamp" timestamp with time zone, column_name text, value double precision)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION jetcopy.series_rows(series text, columns text[], since timestamp with time zone, until timestamp with time zone, max_rows bigint) IS 'Points of a series in a span of time, a row a value, newest first';

CREATE FUNCTION jetcopy.series_wide(series text, columns text[] DEFAULT NULL::text[], since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone, max_rows bigint DEFAULT 1000) RETURNS TABLE("timestamp" timestamp with time zone, "values" jsonb)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION jetcopy.series_wide(series text, columns text[], since timestamp with time zone, until timestamp with time zone, max_rows bigint) IS 'Points of a series in a span of time, a row a time with an object of its values, newest first';

CREATE FUNCTION jetcopy.session_measurements(task text, since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(timestamp_utc timestamp with time zone, task_id text, websdr_id text, frequency_mhz double precision, sample_rate_khz double precision, samples_count bigint, snr_db double precision, frequency_offset_hz double precision, power_dbm double precision, s3_path text, attributes jsonb, receiver_name text)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION jetcopy.session_measurements(task text, since timestamp with time zone, until timestamp with time zone) IS 'All measurements of a session (task), receiver by receiver, oldest first';

CREATE FUNCTION jetcopy.set_lanes(of_shard text, to_lanes integer, to_block bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    c jetcopy.checkpoints;
    before jetcopy.lanes;
    seal jetcopy.seals;
    had integer;
    hashes bytea := '';
BEGIN
    PERFORM FROM jetcopy.checkpoints WHERE shard = of_shard FOR UPDATE;
    PERFORM FROM jetcopy.lanes WHERE shard = of_shard ORDER BY lane FOR UPDATE;
    SELECT count(*) INTO had FROM jetcopy.lanes WHERE shard = of_shard;
    IF had = 0 AND to_lanes = 1 THEN
        RETURN;
    END IF;
    PERFORM jetcopy.close_seals(of_shard);
    SELECT * INTO c FROM jetcopy.checkpoints WHERE shard = of_shard;
    FOR of_lane IN REVERSE greatest(had, to_lanes) - 1 .. 0 LOOP
        before := NULL;
        IF of_lane < had THEN
            SELECT * INTO before FROM jetcopy.lanes WHERE shard = of_shard AND lane = of_lane;
        ELSIF of_lane = 0 THEN
            before.seal_number := c.seal_number;
            before.seal_hash := c.seal_hash;
            before.seal_to := c.seal_to;
        ELSE
            SELECT number, hash, to_sequence INTO before.seal_number, before.seal_hash, before.seal_to
            FROM jetcopy.last_seal(of_shard, of_lane);
        END IF;
        seal := ROW(of_shard, of_lane, coalesce(before.seal_number, 0) + 1, 'lanes', c.stream,
            c.stream_created, coalesce(before.seal_to, 0), c.last_sequence, NULL, NULL, 0, 0, 0, '{}', '{}',
            '{}', CASE WHEN of_lane = 0 THEN sha256(hashes) END, c.epoch, clock_timestamp(), NULL,
            CASE WHEN to_lanes > 1 THEN to_lanes END, CASE WHEN to_lanes > 1 THEN to_block END);
        seal.hash := sha256(convert_to(jetcopy.seal_text(seal, before.seal_hash), 'UTF8'));
        INSERT INTO jetcopy.seals VALUES (seal.*);
        hashes := seal.hash || hashes;
        IF to_lanes = 1 AND of_lane = 0 THEN
            UPDATE jetcopy.checkpoints SET seal_number = seal.number, seal_hash = seal.hash,
                    seal_after = last_sequence, seal_to = last_sequence
                WHERE shard = of_shard;
        ELSIF of_lane < to_lanes THEN
            INSERT INTO jetcopy.lanes (shard, lane, lanes, block, epoch, last_sequence, last_timestamp,
                    seal_number, seal_hash, seal_after, seal_to)
                VALUES (of_shard, of_lane, to_lanes, to_block, c.epoch, c.last_sequence, c.last_timestamp,
                    seal.number, seal.hash, c.last_sequence, c.last_sequence)
                ON CONFLICT (shard, lane) DO UPDATE SET lanes = excluded.lanes, block = excluded.block,
                    epoch = excluded.epoch, last_sequence = excluded.last_sequence,
                    last_timestamp = excluded.last_timestamp, updated_at = now(),
                    seal_number = excluded.seal_number, seal_hash = excluded.seal_hash,
                    seal_after = excluded.seal_after, seal_to = excluded.seal_to;
        END IF;
    END LOOP;
    DELETE FROM jetcopy.lanes WHERE shard = of_shard AND (to_lanes = 1 OR lane >= to_lanes);
    UPDATE jetcopy.checkpoints SET verified_sequence = last_sequence
        WHERE shard = of_shard AND verified_sequence > last_sequence;
END
$$;

COMMENT ON FUNCTION jetcopy.set_lanes(of_shard text, to_lanes integer, to_block bigint) IS 'Gives a shard another number of writers, or other blocks, and seals that; with one, none has a lane';

CREATE FUNCTION jetcopy.shape(relation regclass) RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    -- The first number that initdb gives to nothing.
    first_own CONSTANT oid := 16384;
    known text;
    own_types boolean;
    defaults boolean;
BEGIN
    SELECT concat_ws(' ', count(*), sum(a.xmin::text::bigint)), bool_or(a.atttypid >= first_own),
        bool_or(a.atthasdef)
    INTO known, own_types, defaults
    FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0;

    SELECT concat_ws(' ', known, c.oid, c.relkind, c.relpersistence, row_security_active(c.oid),
        quote_ident(n.nspname), quote_ident(c.relname),
        (SELECT concat_ws(' ', 'unique', count(*), sum(i.xmin::text::bigint))
         FROM pg_index i WHERE i.indrelid = relation AND i.indisunique),
        -- The flag stays for a while once the last rule is gone.
        CASE WHEN c.relhasrules
            THEN (SELECT string_agg(concat_ws(' ', 'rule', r.oid, r.xmin), ' ' ORDER BY r.oid)
         FROM pg_rewrite r WHERE r.ev_class = relation) END,
        (SELECT concat_ws(' ', 'rollups',
            string_agg(concat_ws(' ', r.name, extract(epoch FROM r.width)), ' ' ORDER BY r.name))
         FROM jetcopy.rollups r WHERE r.source = relation),
        (SELECT concat_ws(' ', 'foreign', string_agg(f.ftrelid::text, ' ' ORDER BY f.ftrelid))
         FROM pg_foreign_table f WHERE relation IN (SELECT pg_partition_ancestors(f.ftrelid))))
    INTO known
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;

    IF own_types THEN
        known := concat_ws(' ', known, (
            WITH RECURSIVE types (oid) AS (
                SELECT a.atttypid FROM pg_attribute a
                WHERE a.attrelid = relation AND a.attnum > 0 AND a.atttypid >= first_own
            UNION
                SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END
                FROM types JOIN pg_type t USING (oid) WHERE t.typtype = 'd' OR t.typelem <> 0
            )
            SELECT string_agg(concat_ws(' ', t.oid, t.xmin, labels), ' ' ORDER BY t.oid)
            FROM types JOIN pg_type t USING (oid)
            CROSS JOIN LATERAL (
                SELECT concat_ws(' ', count(*), sum(e.xmin::text::bigint)) FROM pg_enum e
                    WHERE e.enumtypid = t.oid
            ) AS e (labels)));
    END IF;
    IF defaults THEN
        -- The functions that they call, but the server's own.
        known := concat_ws(' ', known, (
            SELECT string_agg(concat_ws(' ', p.oid, p.xmin), ' ' ORDER BY p.oid)
            FROM pg_attrdef d
            JOIN pg_depend u ON u.classid = 'pg_attrdef'::regclass AND u.objid = d.oid
                AND u.refclassid = 'pg_proc'::regclass
            JOIN pg_proc p ON p.oid = u.refobjid
            WHERE d.adrelid = relation));
    END IF;
    IF to_regclass('_timescaledb_catalog.hypertable') IS NOT NULL THEN
        -- A table that becomes a hypertable keeps its columns. And while a dump is restored, rows would go
        -- past it.
        known := concat_ws(' ', known, current_setting('timescaledb.restoring', true),
            (SELECT string_agg(s.setconfig::text, ' ' ORDER BY s.setrole)
             FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
             WHERE d.datname = current_database() AND 'timescaledb.restoring=on' ILIKE ANY (s.setconfig)),
            (SELECT h.id FROM _timescaledb_catalog.hypertable h
             JOIN pg_class c ON c.relname = h.table_name
             JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = h.schema_name
             WHERE c.oid = relation));
    END IF;
    RETURN hashtextextended(known COLLATE "C", 0);
END
$$;

COMMENT ON FUNCTION jetcopy.shape(relation regclass) IS 'A number that changes with all that jetcopy knows of a table; NULL where there is none';

CREATE FUNCTION jetcopy.shown_name(relation regclass) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT CASE WHEN c.oid = (
            SELECT o.oid FROM unnest(jetcopy.store_schemas()) WITH ORDINALITY AS s (name, place)
            JOIN pg_namespace m ON m.nspname = s.name
            JOIN pg_class o ON o.relnamespace = m.oid AND o.relname = c.relname
            ORDER BY s.place LIMIT 1)
        THEN quote_ident(c.relname) ELSE format('%I.%I', n.nspname, c.relname) END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation
$$;

COMMENT ON FUNCTION jetcopy.shown_name(relation regclass) IS 'For monitoring: a relation as its rows name it';

CREATE FUNCTION jetcopy.snr_statistics(receiver text DEFAULT NULL::text, task text DEFAULT NULL::text, since timestamp with time zone DEFAULT (now() - '1 day'::interval), until timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(websdr_id text, measurements bigint, snr_db_mean double precision, snr_db_min double precision, snr_db_max double precision, snr_db_stddev double precision, receiver_name text)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION jetcopy.snr_statistics(receiver text, task text, since timestamp with time zone, until timestamp with time zone) IS 'Count, mean, least, greatest and spread of the signal-to-noise ratio in dB, per receiver';

CREATE FUNCTION jetcopy.store_relation(bare_name text) RETURNS regclass
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT c.oid::regclass
    FROM unnest(jetcopy.store_schemas()) WITH ORDINALITY AS s (name, place)
    JOIN pg_namespace n ON n.nspname = s.name
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = bare_name
    JOIN pg_roles r ON r.oid = c.relowner
    WHERE r.rolsuper OR r.rolname = current_user
        OR r.oid = (SELECT nspowner FROM pg_namespace WHERE nspname = 'jetcopy')
    ORDER BY s.place LIMIT 1
$$;

COMMENT ON FUNCTION jetcopy.store_relation(bare_name text) IS 'For monitoring: the table of the store of that name';

CREATE FUNCTION jetcopy.store_schemas() RETURNS name[]
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$SELECT '{public}'::name[]$$;

COMMENT ON FUNCTION jetcopy.store_schemas() IS 'The schemas where monitoring looks for the tables of the store, the first one first';

CREATE FUNCTION jetcopy.take_registry(fresh_schema name, pipeline text, rebuilt_by text) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
DECLARE
    used jetcopy.checkpoints;
    rebuilt jetcopy.checkpoints;
    name text;
BEGIN
    PERFORM FROM jetcopy.checkpoints c WHERE c.shard IN (take_registry.pipeline, rebuilt_by)
        ORDER BY c.shard FOR UPDATE;
    PERFORM FROM jetcopy.lanes l WHERE l.shard = take_registry.pipeline ORDER BY l.lane FOR UPDATE;
    SELECT * INTO used FROM jetcopy.checkpoints c WHERE c.shard = take_registry.pipeline;
    SELECT * INTO rebuilt FROM jetcopy.checkpoints c WHERE c.shard = rebuilt_by;
    IF used.shard IS NULL OR rebuilt.shard IS NULL THEN
        RAISE EXCEPTION 'there is no checkpoint of %',
            CASE WHEN used.shard IS NULL THEN take_registry.pipeline ELSE rebuilt_by END
            USING HINT = 'jetcopy replay leaves one with --keep-checkpoint; '
                'see jetcopy.checkpoints for those that there are.';
    END IF;
    IF (used.stream, used.stream_created) IS DISTINCT FROM (rebuilt.stream, rebuilt.stream_created) THEN
        RAISE EXCEPTION 'pipeline % reads stream % and % was made of another: '
            'their positions cannot be compared',
            take_registry.pipeline, used.stream, rebuilt_by;
    END IF;
    -- A replay is called after its stretch; one that was interrupted has not come to its end.
    IF NOT starts_with(rebuilt_by, take_registry.pipeline || '-replay-1-') THEN
        RAISE EXCEPTION '% is no replay of pipeline % from sequence 1: '
            'what was in the stream before would be missing',
            rebuilt_by, take_registry.pipeline
            USING HINT = 'Replay the whole stream; where it does not hold its first message any more, '
                'the registry cannot be rebuilt.';
    END IF;
    IF rebuilt.last_sequence <> right(rebuilt_by,
        -length(take_registry.pipeline || '-replay-1-'))::bigint THEN
        RAISE EXCEPTION '% was interrupted after sequence %', rebuilt_by, rebuilt.last_sequence
            USING HINT = 'Give the same command again; it goes on from there.';
    END IF;
    -- Days whose partitions retention has dropped since, however old they are.
    IF EXISTS (SELECT FROM jetcopy.partitioned_tables t WHERE t.relation = 'operations_log'::regclass) THEN
        EXECUTE pg_catalog.format('SELECT jetcopy.add_partition(''operations_log''::regclass, day)
            FROM (SELECT DISTINCT (o.timestamp AT TIME ZONE ''UTC'')::date AS day
                FROM %I.operations_log o) AS days', fresh_schema);
    END IF;
    FOREACH name IN ARRAY ARRAY['projects', 'files', 'operations_log'] LOOP
        EXECUTE pg_catalog.format('TRUNCATE %I', name);
        EXECUTE pg_catalog.format('INSERT INTO %I SELECT * FROM %I.%I', name, fresh_schema, name);
    END LOOP;
    -- What could not become a row is known of the replay, up to its end; what comes after is moved again.
    DELETE FROM jetcopy.dead_letters d WHERE d.pipeline = take_registry.pipeline;
    UPDATE jetcopy.dead_letters d SET pipeline = take_registry.pipeline, shard = take_registry.pipeline
        WHERE d.pipeline = rebuilt_by;
    PERFORM jetcopy.close_seals(take_registry.pipeline);
    UPDATE jetcopy.checkpoints c
        SET last_sequence = rebuilt.last_sequence, last_timestamp = rebuilt.last_timestamp,
            epoch = c.epoch + 1, updated_at = now()
        WHERE c.shard = take_registry.pipeline;
    PERFORM jetcopy.set_lanes(take_registry.pipeline, 1, 1);
    -- What the tables hold has another history now.
    PERFORM jetcopy.close_seal(take_registry.pipeline, 0, 'rebuilt', true);
    DELETE FROM jetcopy.checkpoints c WHERE c.shard = rebuilt_by;
    RETURN rebuilt.last_sequence;
END
$$;

COMMENT ON FUNCTION jetcopy.take_registry(fresh_schema name, pipeline text, rebuilt_by text) IS 'Puts the rows of a replayed registry in the place of those in use; returns the sequence from which the pipeline goes on';

CREATE FUNCTION jetcopy.time_table(relation regclass, time_column name, chunk interval) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    -- Where TimescaleDB's functions lie, once it is installed.
    timescale text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'timescaledb');
    old pg_class%ROWTYPE;
    schema_name text;
    -- Both with their schema, whatever the search path.
    fresh text;
    aside text;
    obstacle text;
    columns text;
    days bigint;
    item text;
    later text[];
BEGIN
    IF timescale IS NOT NULL THEN
        EXECUTE format(
            'SELECT %s.create_hypertable(%L::regclass, %L::name, chunk_time_interval => %L::interval,
                create_default_indexes => false, if_not_exists => true, migrate_data => true)',
            timescale, relation, time_column, chunk);
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM jetcopy.partitioned_tables t WHERE t.relation = time_table.relation) THEN
        RETURN;
    END IF;

    SELECT * INTO STRICT old FROM pg_class WHERE oid = relation;
    schema_name := old.relnamespace::regnamespace;
    IF NOT pg_has_role(old.relowner, 'USAGE') THEN
        RAISE WARNING 'table % stays as it is, without partitions: it belongs to another role', relation;
        RETURN;
    END IF;
    IF old.relkind = 'r' THEN
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', relation);
    END IF;
    SELECT CASE
        WHEN old.relkind = 'p' THEN 'it is partitioned already'
        WHEN old.relkind <> 'r' OR old.relpersistence <> 'p' THEN 'it is no ordinary table'
        WHEN old.relispartition OR EXISTS (SELECT FROM pg_inherits WHERE relation IN (inhrelid, inhparent))
            THEN 'it inherits or is inherited from'
        WHEN NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = relation AND attname = time_column
                AND atttypid = 'timestamptz'::regtype AND attnotnull AND NOT attisdropped)
            THEN format('it has no column %I of type timestamptz NOT NULL', time_column)
        WHEN EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND relation IN (conrelid, confrelid))
            THEN 'a foreign key leaves or reaches it'
        WHEN EXISTS (SELECT FROM pg_index WHERE indrelid = relation AND (indisunique OR indisexclusion)
                AND (indisexclusion OR NOT (SELECT attnum FROM pg_attribute WHERE attrelid = relation
                AND attname = time_column)
                    = ANY ((indkey::int2[])[0:indnkeyatts - 1])))
            THEN format('it has a key without %I', time_column)
        WHEN EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND NOT tgisinternal)
            THEN 'it has triggers'
        WHEN old.relhasrules OR EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_class'::regclass
                AND refobjid = relation AND classid = 'pg_rewrite'::regclass)
            THEN 'a view or a rule reads it'
        WHEN old.relrowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = relation)
            THEN 'it has row security'
        WHEN EXISTS (SELECT FROM pg_publication_rel WHERE prrelid = relation) THEN 'it is published'
    END INTO obstacle;
    IF obstacle IS NULL THEN
        EXECUTE format('SELECT count(DISTINCT (%I AT TIME ZONE ''UTC'')::date) FROM %s', time_column,
            relation) INTO days;
        -- Each partition takes locks for the rest of this transaction.
        obstacle := CASE WHEN days > 1000 THEN format('its rows are of %s days', days) END;
    END IF;
    IF obstacle IS NOT NULL THEN
        RAISE WARNING 'table % stays as it is, without partitions: %', relation, obstacle;
        RETURN;
    END IF;

    fresh := schema_name || '.' || quote_ident(old.relname);
    aside := schema_name || '.' || quote_ident(left(old.relname, 45) || '_unpartitioned');
    -- Written down while the table has its name: keys and indexes are made under their names once the old
    -- ones are gone.
    SELECT array_agg(sql ORDER BY place, name) INTO later FROM (
        SELECT 1, conname, format('ALTER TABLE %s ADD CONSTRAINT %I %s', fresh, conname,
            pg_get_constraintdef(oid))
        FROM pg_constraint WHERE conrelid = relation AND contype IN ('p', 'u')
    UNION ALL
        SELECT 2, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
        FROM pg_index i
        WHERE i.indrelid = relation AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)
    UNION ALL
        SELECT 3, '', format('ALTER TABLE %s OWNER TO %I', fresh, pg_get_userbyid(old.relowner))
        WHERE pg_get_userbyid(old.relowner) <> current_user
    UNION ALL
        -- What the owner had from the beginning comes again, so it is taken first.
        SELECT 4, '', format('REVOKE ALL ON %s FROM %I', fresh, pg_get_userbyid(old.relowner))
        WHERE old.relacl IS NOT NULL
    UNION ALL
        SELECT 5, privilege_type, format('GRANT %s ON %s TO %s%s', privilege_type, fresh,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
            CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM aclexplode(old.relacl)
    UNION ALL
        SELECT 6, privilege_type, format('GRANT %s (%I) ON %s TO %s%s', privilege_type, attname, fresh,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
            CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM pg_attribute, aclexplode(attacl)
        WHERE attrelid = relation AND NOT attisdropped
    UNION ALL
        SELECT 7, '', format('COMMENT ON TABLE %s IS %L', fresh, obj_description(relation, 'pg_class'))
        WHERE obj_description(relation, 'pg_class') IS NOT NULL
    ) AS later (place, name, sql);
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns
    FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped AND attgenerated = '';

    BEGIN
        EXECUTE format('ALTER TABLE %s RENAME TO %s', relation,
            quote_ident(left(old.relname, 45) || '_unpartitioned'));
        EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING INDEXES) PARTITION BY RANGE (%I)',
            fresh, aside, time_column);
        EXECUTE format('SELECT count(jetcopy.add_partition(%L::regclass, day))
            FROM (SELECT DISTINCT (%I AT TIME ZONE ''UTC'')::date AS day
                FROM %s) AS days', fresh, time_column, aside);
        EXECUTE format('INSERT INTO %1$s (%2$s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM %3$s', fresh,
            columns, aside);
        FOR item IN SELECT attname FROM pg_attribute WHERE attrelid = old.oid AND attidentity <> '' LOOP
            EXECUTE format('SELECT setval(%L::regclass, last_value, is_called) FROM %s',
                pg_get_serial_sequence(fresh, item), pg_get_serial_sequence(aside, item));
        END LOOP;
        EXECUTE format('DROP TABLE %s', aside);
    EXCEPTION
        -- What else depends on the table, such as a function; and a time that is in no day, such as infinity.
        WHEN dependent_objects_still_exist OR datetime_field_overflow THEN
            RAISE WARNING 'table % stays as it is, without partitions: %', relation, SQLERRM;
            RETURN;
    END;
    FOREACH item IN ARRAY coalesce(later, '{}') LOOP
        EXECUTE item;
    END LOOP;
    INSERT INTO jetcopy.partitioned_tables (relation, time_column) VALUES (fresh::regclass,
        time_table.time_column);
    -- Rows of these days come first. Others are added on demand, and `jetcopy maintain` adds those of the
    -- next days.
    PERFORM jetcopy.add_partitions(fresh::regclass,
        ARRAY(SELECT (now() AT TIME ZONE 'UTC')::date + n FROM generate_series(0, 3) AS n));
END
$_$;

COMMENT ON FUNCTION jetcopy.time_table(relation regclass, time_column name, chunk interval) IS 'Makes a hypertable of a table, or without TimescaleDB a table with a partition a day; rows are kept';

CREATE FUNCTION jetcopy.touch(rollup text, buckets timestamp with time zone[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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

COMMENT ON FUNCTION jetcopy.touch(rollup text, buckets timestamp with time zone[]) IS 'Has buckets of a roll-up summed up again, where jetcopy keeps it';

CREATE FUNCTION jetcopy.wait_visible(stream text, sequence bigint, timeout interval DEFAULT '00:00:05'::interval, pipeline text DEFAULT NULL::text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    deadline CONSTANT timestamptz := clock_timestamp() + wait_visible.timeout;
    -- Seconds between two looks: a commit usually takes milliseconds; who waits long need not know so soon.
    pause float8 := 0.001;
    longest CONSTANT float8 := 0.05;
    remaining float8;
BEGIN
    IF deadline IS NULL THEN
        RAISE EXCEPTION 'timeout must not be NULL' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'wait_visible() would wait in vain: a transaction in % never sees later commits',
            upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'active_sql_transaction',
            HINT = 'call it before the transaction begins, or in READ COMMITTED; is_visible() only looks';
    END IF;
    LOOP
        IF jetcopy.is_visible(wait_visible.stream, wait_visible.sequence, wait_visible.pipeline) THEN
            RETURN true;
        END IF;
        remaining := extract(epoch FROM deadline - clock_timestamp());
        IF remaining <= 0 THEN
            RETURN false;
        END IF;
        PERFORM pg_sleep(least(pause, remaining));
        pause := least(pause * 1.5, longest);
    END LOOP;
END $$;

COMMENT ON FUNCTION jetcopy.wait_visible(stream text, sequence bigint, timeout interval, pipeline text) IS 'Waits until jetcopy.is_visible() says true, which the next statement then sees; false at the timeout';

CREATE TABLE jetcopy.checkpoints (
    shard text NOT NULL,
    pipeline text NOT NULL,
    stream text NOT NULL,
    stream_created timestamp with time zone,
    last_sequence bigint DEFAULT 0 NOT NULL,
    last_timestamp timestamp with time zone,
    known_sequence bigint DEFAULT 0,
    epoch bigint DEFAULT 0 NOT NULL,
    owner text,
    paused_at timestamp with time zone,
    paused_by text,
    accepted_letters bigint DEFAULT 0 NOT NULL,
    flood jsonb,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    owned_since timestamp with time zone,
    seal_number bigint DEFAULT 0 NOT NULL,
    seal_hash bytea,
    seal_after bigint DEFAULT 0 NOT NULL,
    seal_to bigint DEFAULT 0 NOT NULL,
    seal_messages bigint DEFAULT 0 NOT NULL,
    seal_letters bigint DEFAULT 0 NOT NULL,
    seal_superseded bigint DEFAULT 0 NOT NULL,
    seal_tables text[] DEFAULT '{}'::text[] NOT NULL,
    seal_rows bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    seal_unstored bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    seal_first_at timestamp with time zone,
    seal_digest bytea,
    verified_sequence bigint,
    CONSTRAINT checkpoints_accepted_letters_check CHECK ((accepted_letters >= 0)),
    CONSTRAINT checkpoints_last_sequence_check CHECK ((last_sequence >= 0))
)
WITH (fillfactor='20');

COMMENT ON TABLE jetcopy.checkpoints IS 'The truth about position: rows of sequences up to last_sequence are in the tables, rows above it are not';

COMMENT ON COLUMN jetcopy.checkpoints.shard IS 'The shard: frames-0, frames-1 and so on of the pipeline frames, or frames where it has only one stream';

COMMENT ON COLUMN jetcopy.checkpoints.pipeline IS 'The pipeline';

COMMENT ON COLUMN jetcopy.checkpoints.stream IS 'The stream that it reads';

COMMENT ON COLUMN jetcopy.checkpoints.stream_created IS 'When that was created: another time is another stream of the same name';

COMMENT ON COLUMN jetcopy.checkpoints.last_sequence IS 'The last sequence whose rows are committed. A shard with rows in jetcopy.lanes stands where jetcopy.floor() says';

COMMENT ON COLUMN jetcopy.checkpoints.last_timestamp IS 'When the stream stored that message';

COMMENT ON COLUMN jetcopy.checkpoints.known_sequence IS 'Up to here it is no news that the stream lacks messages';

COMMENT ON COLUMN jetcopy.checkpoints.epoch IS 'Raised by each writer that takes the shard over, to a number that no other has; every commit compares it';

COMMENT ON COLUMN jetcopy.checkpoints.owner IS 'The daemon that writes, as in jetcopy.daemons';

COMMENT ON COLUMN jetcopy.checkpoints.paused_at IS 'When an operator paused it; while it is set, no daemon claims the shard';

COMMENT ON COLUMN jetcopy.checkpoints.paused_by IS 'Who did';

COMMENT ON COLUMN jetcopy.checkpoints.accepted_letters IS 'Dead letters that somebody agreed to, which are left to write before a flood of them pauses the pipeline again';

COMMENT ON COLUMN jetcopy.checkpoints.flood IS 'Why a flood of dead letters stopped the pipeline; the next commit takes it away';

COMMENT ON COLUMN jetcopy.checkpoints.updated_at IS 'When the row changed';

COMMENT ON COLUMN jetcopy.checkpoints.owned_since IS 'Since when it is the owner''s';

COMMENT ON COLUMN jetcopy.checkpoints.seal_number IS 'The shard''s last seal, 0 before the first';

COMMENT ON COLUMN jetcopy.checkpoints.seal_hash IS 'Its hash';

COMMENT ON COLUMN jetcopy.checkpoints.seal_after IS 'The sequence that it ends at';

COMMENT ON COLUMN jetcopy.checkpoints.seal_to IS 'The last sequence that commits have come to since';

COMMENT ON COLUMN jetcopy.checkpoints.seal_messages IS 'How many messages were committed since the last seal';

COMMENT ON COLUMN jetcopy.checkpoints.seal_letters IS 'How many dead letters of them were stored';

COMMENT ON COLUMN jetcopy.checkpoints.seal_superseded IS 'How many messages between them the stream had removed before they were read';

COMMENT ON COLUMN jetcopy.checkpoints.seal_tables IS 'The tables that their rows went to';

COMMENT ON COLUMN jetcopy.checkpoints.seal_rows IS 'How many rows went to each of them';

COMMENT ON COLUMN jetcopy.checkpoints.seal_unstored IS 'How many of these the server took and did not store, because of on_conflict or a trigger';

COMMENT ON COLUMN jetcopy.checkpoints.seal_first_at IS 'When the stream stored the first of these messages';

COMMENT ON COLUMN jetcopy.checkpoints.seal_digest IS 'BLAKE3 over sequence, length and payload of each of them; NULL with ledger.digest = "none"';

COMMENT ON COLUMN jetcopy.checkpoints.verified_sequence IS 'Up to here jetcopy audit --record has proven what the tables hold';

CREATE TABLE jetcopy.daemons (
    daemon text NOT NULL,
    host text NOT NULL,
    process bigint NOT NULL,
    version text NOT NULL,
    since timestamp with time zone DEFAULT now() NOT NULL,
    beat bigint DEFAULT 1 NOT NULL,
    lease_until timestamp with time zone NOT NULL,
    direct boolean NOT NULL,
    shards text[] NOT NULL,
    unable text[] DEFAULT '{}'::text[] NOT NULL,
    messages_per_second double precision DEFAULT 0 NOT NULL,
    drained_at timestamp with time zone,
    drained_by text
)
WITH (fillfactor='20');

COMMENT ON TABLE jetcopy.daemons IS 'The daemons that live. Who has a row keeps its shards; the others remove the row of one that is gone';

COMMENT ON COLUMN jetcopy.daemons.daemon IS 'The daemon, as in jetcopy.checkpoints.owner';

COMMENT ON COLUMN jetcopy.daemons.host IS 'The machine that it runs on';

COMMENT ON COLUMN jetcopy.daemons.process IS 'Its process there';

COMMENT ON COLUMN jetcopy.daemons.version IS 'Its version';

COMMENT ON COLUMN jetcopy.daemons.since IS 'Since when it is here without a break';

COMMENT ON COLUMN jetcopy.daemons.beat IS 'How often it has renewed its lease';

COMMENT ON COLUMN jetcopy.daemons.lease_until IS 'Until when it counts as alive without another renewal';

COMMENT ON COLUMN jetcopy.daemons.direct IS 'Whether it reaches the server without a pooler';

COMMENT ON COLUMN jetcopy.daemons.shards IS 'The shards that it is configured for';

COMMENT ON COLUMN jetcopy.daemons.unable IS 'Those of them that it cannot run at present';

COMMENT ON COLUMN jetcopy.daemons.messages_per_second IS 'How many messages it has committed a second lately';

COMMENT ON COLUMN jetcopy.daemons.drained_at IS 'Since when it gives its shards away, because an operator drained it';

COMMENT ON COLUMN jetcopy.daemons.drained_by IS 'Who did';

ALTER TABLE jetcopy.dead_letters ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME jetcopy.dead_letters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE jetcopy.deletions (
    id bigint NOT NULL,
    deleted_at timestamp with time zone DEFAULT now() NOT NULL,
    deleted_by text DEFAULT SESSION_USER NOT NULL,
    what text NOT NULL,
    before timestamp with time zone,
    deleted bigint NOT NULL
);

COMMENT ON TABLE jetcopy.deletions IS 'What people have deleted from the store, each line written in the transaction that deletes';

COMMENT ON COLUMN jetcopy.deletions.id IS 'Number of the deletion';

COMMENT ON COLUMN jetcopy.deletions.deleted_at IS 'When';

COMMENT ON COLUMN jetcopy.deletions.deleted_by IS 'By which role';

COMMENT ON COLUMN jetcopy.deletions.what IS 'What: measurements, or a series';

COMMENT ON COLUMN jetcopy.deletions.before IS 'Rows with times before this; NULL: all';

COMMENT ON COLUMN jetcopy.deletions.deleted IS 'Rows that went';

ALTER TABLE jetcopy.deletions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME jetcopy.deletions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW jetcopy.flood_samples AS
 SELECT c.pipeline,
    c.shard,
    c.stream,
    ((c.flood ->> 'at'::text))::timestamp with time zone AS seen_at,
    s.sequence,
    s.subject,
    s.kind,
    s.sqlstate,
    s.message,
    s.table_name,
    s.column_name,
    s.element,
    decode(s.payload, 'base64'::text) AS payload,
    s.payload_bytes
   FROM (jetcopy.checkpoints c
     CROSS JOIN LATERAL jsonb_to_recordset((c.flood -> 'samples'::text)) s(sequence bigint, subject text, kind text, sqlstate text, message text, table_name text, column_name text, element integer, payload text, payload_bytes bigint));

COMMENT ON VIEW jetcopy.flood_samples IS 'The first messages of a flood that stopped a pipeline; of a long payload the beginning, payload_bytes says how long it is';

COMMENT ON COLUMN jetcopy.flood_samples.pipeline IS 'The pipeline';

COMMENT ON COLUMN jetcopy.flood_samples.shard IS 'Its shard';

COMMENT ON COLUMN jetcopy.flood_samples.stream IS 'The stream that the message is of';

COMMENT ON COLUMN jetcopy.flood_samples.seen_at IS 'When it was seen';

COMMENT ON COLUMN jetcopy.flood_samples.sequence IS 'The message''s sequence in it';

COMMENT ON COLUMN jetcopy.flood_samples.subject IS 'The message''s subject';

COMMENT ON COLUMN jetcopy.flood_samples.kind IS 'The kind of fault, as in jetcopy.dead_letters';

COMMENT ON COLUMN jetcopy.flood_samples.sqlstate IS 'The server''s code, where it refused the row';

COMMENT ON COLUMN jetcopy.flood_samples.message IS 'What is wrong, and where';

COMMENT ON COLUMN jetcopy.flood_samples.table_name IS 'The table that the row was for';

COMMENT ON COLUMN jetcopy.flood_samples.column_name IS 'The column that the fault is in';

COMMENT ON COLUMN jetcopy.flood_samples.element IS 'The element that the letter is about, from 0';

COMMENT ON COLUMN jetcopy.flood_samples.payload IS 'The beginning of its payload';

COMMENT ON COLUMN jetcopy.flood_samples.payload_bytes IS 'Size of its payload, in bytes';

CREATE TABLE jetcopy.lanes (
    shard text NOT NULL,
    lane integer NOT NULL,
    lanes integer NOT NULL,
    block bigint NOT NULL,
    epoch bigint NOT NULL,
    last_sequence bigint NOT NULL,
    last_timestamp timestamp with time zone,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    seal_number bigint DEFAULT 0 NOT NULL,
    seal_hash bytea,
    seal_after bigint DEFAULT 0 NOT NULL,
    seal_to bigint DEFAULT 0 NOT NULL,
    seal_messages bigint DEFAULT 0 NOT NULL,
    seal_letters bigint DEFAULT 0 NOT NULL,
    seal_superseded bigint DEFAULT 0 NOT NULL,
    seal_tables text[] DEFAULT '{}'::text[] NOT NULL,
    seal_rows bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    seal_unstored bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    seal_first_at timestamp with time zone,
    seal_digest bytea,
    CONSTRAINT lanes_block_check CHECK ((block > 0)),
    CONSTRAINT lanes_check CHECK ((lanes > lane)),
    CONSTRAINT lanes_lane_check CHECK ((lane >= 0)),
    CONSTRAINT lanes_last_sequence_check CHECK ((last_sequence >= 0))
)
WITH (fillfactor='10');

COMMENT ON TABLE jetcopy.lanes IS 'Where each of several writers of a shard stands. A shard without rows here has one writer, and stands where its checkpoint says';

COMMENT ON COLUMN jetcopy.lanes.shard IS 'The shard, as in jetcopy.checkpoints';

COMMENT ON COLUMN jetcopy.lanes.lane IS 'The lane, from 0: sequence s is of the lane that (s - 1) / block leaves when divided by lanes';

COMMENT ON COLUMN jetcopy.lanes.lanes IS 'How many lanes the shard has';

COMMENT ON COLUMN jetcopy.lanes.block IS 'How many sequences in a row are of the same lane';

COMMENT ON COLUMN jetcopy.lanes.epoch IS 'That of the shard; every commit compares it';

COMMENT ON COLUMN jetcopy.lanes.last_sequence IS 'All sequences of the lane up to this one are committed, and none of the lane after it';

COMMENT ON COLUMN jetcopy.lanes.last_timestamp IS 'When the stream stored the message of that sequence';

COMMENT ON COLUMN jetcopy.lanes.updated_at IS 'When the row changed';

COMMENT ON COLUMN jetcopy.lanes.seal_number IS 'The lane''s last seal, 0 before the first';

COMMENT ON COLUMN jetcopy.lanes.seal_hash IS 'Its hash';

COMMENT ON COLUMN jetcopy.lanes.seal_after IS 'The sequence that it ends at';

COMMENT ON COLUMN jetcopy.lanes.seal_to IS 'The last sequence that commits of the lane have come to since';

COMMENT ON COLUMN jetcopy.lanes.seal_messages IS 'How many messages the lane has committed since the last seal';

COMMENT ON COLUMN jetcopy.lanes.seal_letters IS 'How many dead letters of them were stored';

COMMENT ON COLUMN jetcopy.lanes.seal_superseded IS 'How many messages between them the stream had removed before they were read';

COMMENT ON COLUMN jetcopy.lanes.seal_tables IS 'The tables that their rows went to';

COMMENT ON COLUMN jetcopy.lanes.seal_rows IS 'How many rows went to each of them';

COMMENT ON COLUMN jetcopy.lanes.seal_unstored IS 'How many of these the server took and did not store, because of on_conflict or a trigger';

COMMENT ON COLUMN jetcopy.lanes.seal_first_at IS 'When the stream stored the first of these messages';

COMMENT ON COLUMN jetcopy.lanes.seal_digest IS 'BLAKE3 over sequence, length and payload of each of them; NULL with ledger.digest = "none"';

CREATE TABLE jetcopy.losses (
    id bigint NOT NULL,
    pipeline text NOT NULL,
    shard text NOT NULL,
    stream text NOT NULL,
    stream_created timestamp with time zone NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence bigint,
    messages bigint,
    cause text NOT NULL,
    detected_at timestamp with time zone DEFAULT now() NOT NULL,
    accepted_at timestamp with time zone,
    resume_after bigint,
    CONSTRAINT losses_resume_after_check CHECK ((resume_after >= 0))
);

COMMENT ON TABLE jetcopy.losses IS 'Ranges of a stream that were gone before they were read';

COMMENT ON COLUMN jetcopy.losses.id IS 'Number of the loss';

COMMENT ON COLUMN jetcopy.losses.pipeline IS 'The pipeline';

COMMENT ON COLUMN jetcopy.losses.shard IS 'Its shard';

COMMENT ON COLUMN jetcopy.losses.stream IS 'The stream';

COMMENT ON COLUMN jetcopy.losses.stream_created IS 'When the stream was created that was found: it can be another than the one that the checkpoint counted in';

COMMENT ON COLUMN jetcopy.losses.first_sequence IS 'The first sequence that is gone';

COMMENT ON COLUMN jetcopy.losses.last_sequence IS 'The last one; NULL where it cannot be known';

COMMENT ON COLUMN jetcopy.losses.messages IS 'How many messages are missing between the two, where it is not all of them';

COMMENT ON COLUMN jetcopy.losses.cause IS 'Why they are gone';

COMMENT ON COLUMN jetcopy.losses.detected_at IS 'When that was found';

COMMENT ON COLUMN jetcopy.losses.accepted_at IS 'When somebody agreed to it (jetcopy accept-loss); NULL: nobody has';

COMMENT ON COLUMN jetcopy.losses.resume_after IS 'After which sequence somebody wants the pipeline to go on; NULL leaves it to jetcopy';

ALTER TABLE jetcopy.losses ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME jetcopy.losses_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE jetcopy.milestones (
    shard text NOT NULL,
    number bigint NOT NULL,
    sequence bigint NOT NULL,
    stored_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE jetcopy.milestones IS 'Messages that were committed, some dozens a shard, by which a stream is known again that was restored or moved';

COMMENT ON COLUMN jetcopy.milestones.shard IS 'The shard';

COMMENT ON COLUMN jetcopy.milestones.number IS 'Number of the milestone';

COMMENT ON COLUMN jetcopy.milestones.sequence IS 'The message''s sequence';

COMMENT ON COLUMN jetcopy.milestones.stored_at IS 'When the stream stored it';

CREATE TABLE jetcopy.partition_bounds (
    one_row boolean DEFAULT true NOT NULL,
    days_back integer NOT NULL,
    days_ahead integer NOT NULL,
    CONSTRAINT partition_bounds_days_ahead_check CHECK ((days_ahead >= 0)),
    CONSTRAINT partition_bounds_days_back_check CHECK ((days_back >= 0)),
    CONSTRAINT partition_bounds_one_row_check CHECK (one_row)
);

COMMENT ON TABLE jetcopy.partition_bounds IS 'How far from today a row may lie for which a partition is added';

COMMENT ON COLUMN jetcopy.partition_bounds.one_row IS 'There is one row';

COMMENT ON COLUMN jetcopy.partition_bounds.days_back IS 'Days back';

COMMENT ON COLUMN jetcopy.partition_bounds.days_ahead IS 'Days ahead';

CREATE TABLE jetcopy.partitioned_tables (
    relation regclass NOT NULL,
    time_column name NOT NULL,
    dropped_before timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL
);

COMMENT ON TABLE jetcopy.partitioned_tables IS 'The tables that jetcopy adds partitions to and drops partitions of';

COMMENT ON COLUMN jetcopy.partitioned_tables.relation IS 'The table';

COMMENT ON COLUMN jetcopy.partitioned_tables.time_column IS 'The column that partitions go by';

COMMENT ON COLUMN jetcopy.partitioned_tables.dropped_before IS 'Rows before this are dropped: a bucket of a roll-up is not summed up again from what is left of it';

CREATE TABLE jetcopy.registry_files (
    project_id text NOT NULL,
    writer integer NOT NULL,
    active bigint NOT NULL,
    active_bytes numeric NOT NULL,
    kept bigint NOT NULL
);

COMMENT ON TABLE jetcopy.registry_files IS 'How many files each project has, as triggers of table files count: the sums over the rows of a project';

COMMENT ON COLUMN jetcopy.registry_files.project_id IS 'The project: files.project_id';

COMMENT ON COLUMN jetcopy.registry_files.writer IS 'Process of the session that counted; 0: sums of sessions that have ended';

COMMENT ON COLUMN jetcopy.registry_files.active IS 'Files of status active';

COMMENT ON COLUMN jetcopy.registry_files.active_bytes IS 'Size of those, in bytes';

COMMENT ON COLUMN jetcopy.registry_files.kept IS 'Files that are not deleted';

CREATE TABLE jetcopy.registry_operations (
    project_id text NOT NULL,
    writer integer NOT NULL,
    created bigint NOT NULL,
    buckets bigint NOT NULL,
    tables bigint NOT NULL,
    files bigint NOT NULL
);

COMMENT ON TABLE jetcopy.registry_operations IS 'What the log says that each project has, as triggers of operations_log count: the sums over the rows of a project';

COMMENT ON COLUMN jetcopy.registry_operations.project_id IS 'The project: operations_log.project_id';

COMMENT ON COLUMN jetcopy.registry_operations.writer IS 'Process of the session that counted; 0: sums of sessions that have ended';

COMMENT ON COLUMN jetcopy.registry_operations.created IS 'Creations of the project; 0: the log does not have its beginning';

COMMENT ON COLUMN jetcopy.registry_operations.buckets IS 'Buckets created less those dropped';

COMMENT ON COLUMN jetcopy.registry_operations.tables IS 'Tables created less those dropped';

COMMENT ON COLUMN jetcopy.registry_operations.files IS 'Files created less those deleted';

CREATE TABLE jetcopy.rollups (
    name text NOT NULL,
    source regclass NOT NULL,
    width interval NOT NULL,
    filled_to timestamp with time zone,
    refreshed_at timestamp with time zone
);

COMMENT ON TABLE jetcopy.rollups IS 'The roll-ups that jetcopy maintain keeps, without TimescaleDB';

COMMENT ON COLUMN jetcopy.rollups.name IS 'The roll-up';

COMMENT ON COLUMN jetcopy.rollups.source IS 'The table or roll-up that it sums up';

COMMENT ON COLUMN jetcopy.rollups.width IS 'Width of its buckets';

COMMENT ON COLUMN jetcopy.rollups.filled_to IS 'Buckets before this are there; NULL before the first run';

COMMENT ON COLUMN jetcopy.rollups.refreshed_at IS 'When it was filled last';

CREATE TABLE jetcopy.schema_history (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE jetcopy.schema_history IS 'Migrations that were applied';

COMMENT ON COLUMN jetcopy.schema_history.version IS 'Number of the migration';

COMMENT ON COLUMN jetcopy.schema_history.name IS 'Its name';

COMMENT ON COLUMN jetcopy.schema_history.checksum IS 'SHA-256 of its text, in hexadecimal digits';

COMMENT ON COLUMN jetcopy.schema_history.applied_at IS 'When it was applied';

CREATE TABLE jetcopy.settlements (
    id bigint NOT NULL,
    pipeline text NOT NULL,
    shard text NOT NULL,
    stream text NOT NULL,
    sequence bigint NOT NULL,
    letter bigint NOT NULL,
    action text NOT NULL,
    table_name text,
    element integer,
    elements integer[],
    tables text[] DEFAULT '{}'::text[] NOT NULL,
    rows bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    letters bigint DEFAULT 0 NOT NULL,
    settled_at timestamp with time zone DEFAULT now() NOT NULL,
    settled_by text DEFAULT SESSION_USER NOT NULL
);

COMMENT ON TABLE jetcopy.settlements IS 'Dead letters that were discarded or became rows, each noted in the transaction that took it away';

COMMENT ON COLUMN jetcopy.settlements.id IS 'Number of the settlement';

COMMENT ON COLUMN jetcopy.settlements.pipeline IS 'The pipeline';

COMMENT ON COLUMN jetcopy.settlements.shard IS 'Its shard';

COMMENT ON COLUMN jetcopy.settlements.stream IS 'The stream that the message is of';

COMMENT ON COLUMN jetcopy.settlements.sequence IS 'The message''s sequence in it';

COMMENT ON COLUMN jetcopy.settlements.letter IS 'The letter, as it was in jetcopy.dead_letters';

COMMENT ON COLUMN jetcopy.settlements.action IS 'discarded or retried';

COMMENT ON COLUMN jetcopy.settlements.table_name IS 'The table that its row was for';

COMMENT ON COLUMN jetcopy.settlements.element IS 'The first element that it was about; NULL: the message as a whole';

COMMENT ON COLUMN jetcopy.settlements.elements IS 'All places that it was about, where they were several';

COMMENT ON COLUMN jetcopy.settlements.tables IS 'The tables that its rows went to';

COMMENT ON COLUMN jetcopy.settlements.rows IS 'How many rows each of them stored';

COMMENT ON COLUMN jetcopy.settlements.letters IS 'Letters of its elements that came in its place';

COMMENT ON COLUMN jetcopy.settlements.settled_at IS 'When it was taken away';

COMMENT ON COLUMN jetcopy.settlements.settled_by IS 'The role that did it';

ALTER TABLE jetcopy.settlements ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME jetcopy.settlements_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE jetcopy.store_choice (
    one_row boolean DEFAULT true NOT NULL,
    tables text[] NOT NULL,
    real_time boolean,
    CONSTRAINT store_choice_one_row_check CHECK (one_row)
);

COMMENT ON TABLE jetcopy.store_choice IS 'Which groups of the store''s tables jetcopy migrate creates';

COMMENT ON COLUMN jetcopy.store_choice.one_row IS 'There is one row';

COMMENT ON COLUMN jetcopy.store_choice.tables IS 'Of frames, measurements, series and registry; empty: none';

COMMENT ON COLUMN jetcopy.store_choice.real_time IS 'Whether roll-ups have the bucket that is not over yet; NULL: nobody has said';

CREATE TABLE jetcopy.store_life (
    relation text NOT NULL,
    setting text NOT NULL,
    age interval,
    applied boolean DEFAULT false NOT NULL
);

COMMENT ON TABLE jetcopy.store_life IS 'How the rows of the store''s tables and roll-ups live';

COMMENT ON COLUMN jetcopy.store_life.relation IS 'A table or roll-up of the store';

COMMENT ON COLUMN jetcopy.store_life.setting IS 'The setting, as [store.RELATION] has it';

COMMENT ON COLUMN jetcopy.store_life.age IS 'Its value; NULL: never';

COMMENT ON COLUMN jetcopy.store_life.applied IS 'Whether TimescaleDB''s jobs were brought to it';

CREATE TABLE jetcopy.store_place (
    one_row boolean DEFAULT true NOT NULL,
    schema name NOT NULL,
    CONSTRAINT store_place_one_row_check CHECK (one_row)
);

COMMENT ON TABLE jetcopy.store_place IS 'In which schema the store''s tables lie; no row: where the search path finds them';

COMMENT ON COLUMN jetcopy.store_place.one_row IS 'True: there is one row at most';

COMMENT ON COLUMN jetcopy.store_place.schema IS 'The schema: [store] schema of the last configuration that named it';

CREATE TABLE jetcopy.tallies (
    shard text NOT NULL,
    event text NOT NULL,
    kind text DEFAULT ''::text NOT NULL,
    times bigint NOT NULL,
    messages bigint NOT NULL,
    newest_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE jetcopy.tallies IS 'What happened to a shard, counted in the transactions in which it happened; daemons report it';

COMMENT ON COLUMN jetcopy.tallies.shard IS 'The shard, as in jetcopy.checkpoints';

COMMENT ON COLUMN jetcopy.tallies.event IS 'dead_letter, loss, replay or superseded';

COMMENT ON COLUMN jetcopy.tallies.kind IS 'Of a dead letter its kind, of a loss its cause; empty where there is but one';

COMMENT ON COLUMN jetcopy.tallies.times IS 'How often';

COMMENT ON COLUMN jetcopy.tallies.messages IS 'Stream sequences that were lost, replayed or superseded';

COMMENT ON COLUMN jetcopy.tallies.newest_at IS 'When the newest was';

CREATE TABLE jetcopy.touched_buckets (
    rollup text NOT NULL,
    buckets timestamp with time zone[] NOT NULL
);

COMMENT ON TABLE jetcopy.touched_buckets IS 'Buckets of a roll-up whose source has changed since they were summed up';

COMMENT ON COLUMN jetcopy.touched_buckets.rollup IS 'The roll-up';

COMMENT ON COLUMN jetcopy.touched_buckets.buckets IS 'Where they begin';

CREATE TABLE public.detection_events (
    "time" timestamp with time zone NOT NULL,
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
)
PARTITION BY RANGE ("time");

COMMENT ON TABLE public.detection_events IS 'Objects detected in video frames, one row each';

COMMENT ON COLUMN public.detection_events."time" IS 'When the frame was taken';

COMMENT ON COLUMN public.detection_events.camera_id IS 'The camera';

COMMENT ON COLUMN public.detection_events.frame_id IS 'The frame: frame_metadata.frame_id of this camera';

COMMENT ON COLUMN public.detection_events.track_id IS 'The object, where it is followed over frames';

COMMENT ON COLUMN public.detection_events.label IS 'What it is';

COMMENT ON COLUMN public.detection_events.confidence IS 'How sure the detector is, from 0 to 1';

COMMENT ON COLUMN public.detection_events.bbox_left IS 'Left edge of its box, in the unit of the publisher';

COMMENT ON COLUMN public.detection_events.bbox_top IS 'Upper edge of its box';

COMMENT ON COLUMN public.detection_events.bbox_width IS 'Width of its box';

COMMENT ON COLUMN public.detection_events.bbox_height IS 'Height of its box';

COMMENT ON COLUMN public.detection_events.attributes IS 'What else the detection contained';

CREATE TABLE public.detection_stats_1d (
    bucket timestamp with time zone NOT NULL,
    camera_id text,
    label text,
    detections bigint,
    confidence_count bigint,
    confidence_sum double precision,
    confidence_mean double precision,
    confidence_max double precision
);

COMMENT ON TABLE public.detection_stats_1d IS 'Sums of the detections of a camera and label, a row each day in UTC; a mean is divided out of sum and count';

COMMENT ON COLUMN public.detection_stats_1d.bucket IS 'Where the day begins';

COMMENT ON COLUMN public.detection_stats_1d.camera_id IS 'The camera';

COMMENT ON COLUMN public.detection_stats_1d.label IS 'What was detected; NULL: without a label';

COMMENT ON COLUMN public.detection_stats_1d.detections IS 'Detections';

COMMENT ON COLUMN public.detection_stats_1d.confidence_count IS 'Detections of them with a confidence';

COMMENT ON COLUMN public.detection_stats_1d.confidence_sum IS 'Confidences added up';

COMMENT ON COLUMN public.detection_stats_1d.confidence_mean IS 'Mean confidence';

COMMENT ON COLUMN public.detection_stats_1d.confidence_max IS 'Greatest confidence';

CREATE TABLE public.detection_stats_1h (
    bucket timestamp with time zone NOT NULL,
    camera_id text,
    label text,
    detections bigint,
    confidence_count bigint,
    confidence_sum double precision,
    confidence_mean double precision,
    confidence_max double precision
);

COMMENT ON TABLE public.detection_stats_1h IS 'Sums of the detections of a camera and label, a row each hour in UTC; a mean is divided out of sum and count';

COMMENT ON COLUMN public.detection_stats_1h.bucket IS 'Where the hour begins';

COMMENT ON COLUMN public.detection_stats_1h.camera_id IS 'The camera';

COMMENT ON COLUMN public.detection_stats_1h.label IS 'What was detected; NULL: without a label';

COMMENT ON COLUMN public.detection_stats_1h.detections IS 'Detections';

COMMENT ON COLUMN public.detection_stats_1h.confidence_count IS 'Detections of them with a confidence';

COMMENT ON COLUMN public.detection_stats_1h.confidence_sum IS 'Confidences added up';

COMMENT ON COLUMN public.detection_stats_1h.confidence_mean IS 'Mean confidence';

COMMENT ON COLUMN public.detection_stats_1h.confidence_max IS 'Greatest confidence';

CREATE TABLE public.detection_stats_1m (
    bucket timestamp with time zone NOT NULL,
    camera_id text,
    label text,
    detections bigint,
    confidence_count bigint,
    confidence_sum double precision,
    confidence_mean double precision,
    confidence_max double precision
);

COMMENT ON TABLE public.detection_stats_1m IS 'Sums of the detections of a camera and label, a row each minute in UTC; a mean is divided out of sum and count';

COMMENT ON COLUMN public.detection_stats_1m.bucket IS 'Where the minute begins';

COMMENT ON COLUMN public.detection_stats_1m.camera_id IS 'The camera';

COMMENT ON COLUMN public.detection_stats_1m.label IS 'What was detected; NULL: without a label';

COMMENT ON COLUMN public.detection_stats_1m.detections IS 'Detections';

COMMENT ON COLUMN public.detection_stats_1m.confidence_count IS 'Detections of them with a confidence';

COMMENT ON COLUMN public.detection_stats_1m.confidence_sum IS 'Confidences added up';

COMMENT ON COLUMN public.detection_stats_1m.confidence_mean IS 'Mean confidence';

COMMENT ON COLUMN public.detection_stats_1m.confidence_max IS 'Greatest confidence';

CREATE TABLE public.files (
    project_id text NOT NULL,
    path text NOT NULL,
    name text,
    size_bytes bigint,
    content_type text,
    md5 text,
    sha256 text,
    staged boolean DEFAULT false NOT NULL,
    expires_at timestamp with time zone,
    tags jsonb,
    status text DEFAULT 'active'::text NOT NULL,
    created_at timestamp with time zone,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT files_status_check CHECK ((status = ANY (ARRAY['active'::text, 'deleted'::text, 'expired'::text])))
);

COMMENT ON TABLE public.files IS 'Files of projects; a newer event of a path replaces the older one, and a deleted file stays as such';

COMMENT ON COLUMN public.files.project_id IS 'The project: projects.id';

COMMENT ON COLUMN public.files.path IS 'Where it lies in the project; with the project its key';

COMMENT ON COLUMN public.files.name IS 'Its name for people';

COMMENT ON COLUMN public.files.size_bytes IS 'Its size, in bytes';

COMMENT ON COLUMN public.files.content_type IS 'Its media type';

COMMENT ON COLUMN public.files.md5 IS 'MD5 of its content, in hexadecimal digits';

COMMENT ON COLUMN public.files.sha256 IS 'SHA-256 of its content, in hexadecimal digits';

COMMENT ON COLUMN public.files.staged IS 'Whether it waits to be taken over; until then it expires';

COMMENT ON COLUMN public.files.expires_at IS 'When it expires, while it is staged';

COMMENT ON COLUMN public.files.tags IS 'Its tags: an array of texts, or an object of names and values';

COMMENT ON COLUMN public.files.status IS 'active, deleted, or expired (see jetcopy.expire_staged_files)';

COMMENT ON COLUMN public.files.created_at IS 'When it was created';

COMMENT ON COLUMN public.files.updated_at IS 'Time of the event that this row is from; an older event never replaces it';

CREATE TABLE public.frame_metadata (
    "time" timestamp with time zone NOT NULL,
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
)
PARTITION BY RANGE ("time");

COMMENT ON TABLE public.frame_metadata IS 'Video frames, one row each';

COMMENT ON COLUMN public.frame_metadata."time" IS 'When the frame was taken';

COMMENT ON COLUMN public.frame_metadata.camera_id IS 'The camera';

COMMENT ON COLUMN public.frame_metadata.frame_id IS 'Number that the camera gives the frame';

COMMENT ON COLUMN public.frame_metadata.width IS 'Width, in pixels';

COMMENT ON COLUMN public.frame_metadata.height IS 'Height, in pixels';

COMMENT ON COLUMN public.frame_metadata.codec IS 'How the frame is encoded';

COMMENT ON COLUMN public.frame_metadata.fps IS 'Frames a second of the stream that it is of';

COMMENT ON COLUMN public.frame_metadata.key_frame IS 'Whether it can be decoded by itself';

COMMENT ON COLUMN public.frame_metadata.size_bytes IS 'Size as encoded, in bytes';

COMMENT ON COLUMN public.frame_metadata.processing_ms IS 'How long its processing took, in milliseconds';

COMMENT ON COLUMN public.frame_metadata.brightness IS 'Brightness, as the publisher measures it';

COMMENT ON COLUMN public.frame_metadata.motion IS 'Motion since the frame before, as the publisher measures it';

COMMENT ON COLUMN public.frame_metadata.attributes IS 'What else the message contained';

CREATE TABLE public.frame_stats_1d (
    bucket timestamp with time zone NOT NULL,
    camera_id text,
    frames bigint,
    key_frames bigint,
    bytes bigint,
    processing_ms_count bigint,
    processing_ms_sum double precision,
    processing_ms_mean double precision,
    processing_ms_max double precision,
    brightness_count bigint,
    brightness_sum double precision,
    brightness_mean double precision,
    motion_count bigint,
    motion_sum double precision,
    motion_mean double precision
);

COMMENT ON TABLE public.frame_stats_1d IS 'Sums of the frames of a camera, a row each day in UTC; a mean is divided out of sum and count';

COMMENT ON COLUMN public.frame_stats_1d.bucket IS 'Where the day begins';

COMMENT ON COLUMN public.frame_stats_1d.camera_id IS 'The camera';

COMMENT ON COLUMN public.frame_stats_1d.frames IS 'Frames';

COMMENT ON COLUMN public.frame_stats_1d.key_frames IS 'Frames of them that are key frames';

COMMENT ON COLUMN public.frame_stats_1d.bytes IS 'Their sizes added up, in bytes';

COMMENT ON COLUMN public.frame_stats_1d.processing_ms_count IS 'Frames of them with a processing time';

COMMENT ON COLUMN public.frame_stats_1d.processing_ms_sum IS 'Processing times added up, in milliseconds';

COMMENT ON COLUMN public.frame_stats_1d.processing_ms_mean IS 'Mean processing time, in milliseconds';

COMMENT ON COLUMN public.frame_stats_1d.processing_ms_max IS 'Longest processing time, in milliseconds';

COMMENT ON COLUMN public.frame_stats_1d.brightness_count IS 'Frames of them with a brightness';

COMMENT ON COLUMN public.frame_stats_1d.brightness_sum IS 'Brightness added up';

COMMENT ON COLUMN public.frame_stats_1d.brightness_mean IS 'Mean brightness';

COMMENT ON COLUMN public.frame_stats_1d.motion_count IS 'Frames of them with a measure of motion';

COMMENT ON COLUMN public.frame_stats_1d.motion_sum IS 'Motion added up';

COMMENT ON COLUMN public.frame_stats_1d.motion_mean IS 'Mean motion';

CREATE TABLE public.frame_stats_1h (
    bucket timestamp with time zone NOT NULL,
    camera_id text,
    frames bigint,
    key_frames bigint,
    bytes bigint,
    processing_ms_count bigint,
    processing_ms_sum double precision,
    processing_ms_mean double precision,
    processing_ms_max double precision,
    brightness_count bigint,
    brightness_sum double precision,
    brightness_mean double precision,
    motion_count bigint,
    motion_sum double precision,
    motion_mean double precision
);

COMMENT ON TABLE public.frame_stats_1h IS 'Sums of the frames of a camera, a row each hour in UTC; a mean is divided out of sum and count';

COMMENT ON COLUMN public.frame_stats_1h.bucket IS 'Where the hour begins';

COMMENT ON COLUMN public.frame_stats_1h.camera_id IS 'The camera';

COMMENT ON COLUMN public.frame_stats_1h.frames IS 'Frames';

COMMENT ON COLUMN public.frame_stats_1h.key_frames IS 'Frames of them that are key frames';

COMMENT ON COLUMN public.frame_stats_1h.bytes IS 'Their sizes added up, in bytes';

COMMENT ON COLUMN public.frame_stats_1h.processing_ms_count IS 'Frames of them with a processing time';

COMMENT ON COLUMN public.frame_stats_1h.processing_ms_sum IS 'Processing times added up, in milliseconds';

COMMENT ON COLUMN public.frame_stats_1h.processing_ms_mean IS 'Mean processing time, in milliseconds';

COMMENT ON COLUMN public.frame_stats_1h.processing_ms_max IS 'Longest processing time, in milliseconds';

COMMENT ON COLUMN public.frame_stats_1h.brightness_count IS 'Frames of them with a brightness';

COMMENT ON COLUMN public.frame_stats_1h.brightness_sum IS 'Brightness added up';

COMMENT ON COLUMN public.frame_stats_1h.brightness_mean IS 'Mean brightness';

COMMENT ON COLUMN public.frame_stats_1h.motion_count IS 'Frames of them with a measure of motion';

COMMENT ON COLUMN public.frame_stats_1h.motion_sum IS 'Motion added up';

COMMENT ON COLUMN public.frame_stats_1h.motion_mean IS 'Mean motion';

CREATE TABLE public.frame_stats_1m (
    bucket timestamp with time zone NOT NULL,
    camera_id text,
    frames bigint,
    key_frames bigint,
    bytes bigint,
    processing_ms_count bigint,
    processing_ms_sum double precision,
    processing_ms_mean double precision,
    processing_ms_max double precision,
    brightness_count bigint,
    brightness_sum double precision,
    brightness_mean double precision,
    motion_count bigint,
    motion_sum double precision,
    motion_mean double precision
);

COMMENT ON TABLE public.frame_stats_1m IS 'Sums of the frames of a camera, a row each minute in UTC; a mean is divided out of sum and count';

COMMENT ON COLUMN public.frame_stats_1m.bucket IS 'Where the minute begins';

COMMENT ON COLUMN public.frame_stats_1m.camera_id IS 'The camera';

COMMENT ON COLUMN public.frame_stats_1m.frames IS 'Frames';

COMMENT ON COLUMN public.frame_stats_1m.key_frames IS 'Frames of them that are key frames';

COMMENT ON COLUMN public.frame_stats_1m.bytes IS 'Their sizes added up, in bytes';

COMMENT ON COLUMN public.frame_stats_1m.processing_ms_count IS 'Frames of them with a processing time';

COMMENT ON COLUMN public.frame_stats_1m.processing_ms_sum IS 'Processing times added up, in milliseconds';

COMMENT ON COLUMN public.frame_stats_1m.processing_ms_mean IS 'Mean processing time, in milliseconds';

COMMENT ON COLUMN public.frame_stats_1m.processing_ms_max IS 'Longest processing time, in milliseconds';

COMMENT ON COLUMN public.frame_stats_1m.brightness_count IS 'Frames of them with a brightness';

COMMENT ON COLUMN public.frame_stats_1m.brightness_sum IS 'Brightness added up';

COMMENT ON COLUMN public.frame_stats_1m.brightness_mean IS 'Mean brightness';

COMMENT ON COLUMN public.frame_stats_1m.motion_count IS 'Frames of them with a measure of motion';

COMMENT ON COLUMN public.frame_stats_1m.motion_sum IS 'Motion added up';

COMMENT ON COLUMN public.frame_stats_1m.motion_mean IS 'Mean motion';

CREATE TABLE public.measurements (
    timestamp_utc timestamp with time zone NOT NULL,
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
)
PARTITION BY RANGE (timestamp_utc);

COMMENT ON TABLE public.measurements IS 'Measurements of radio receivers, one row each';

COMMENT ON COLUMN public.measurements.timestamp_utc IS 'When the samples were taken';

COMMENT ON COLUMN public.measurements.task_id IS 'The task, or session, that asked for the measurement';

COMMENT ON COLUMN public.measurements.websdr_id IS 'The receiver';

COMMENT ON COLUMN public.measurements.frequency_mhz IS 'Frequency that was listened to, in MHz';

COMMENT ON COLUMN public.measurements.sample_rate_khz IS 'Samples taken, in thousands a second';

COMMENT ON COLUMN public.measurements.samples_count IS 'Samples taken, in all';

COMMENT ON COLUMN public.measurements.snr_db IS 'Signal-to-noise ratio, in dB';

COMMENT ON COLUMN public.measurements.frequency_offset_hz IS 'Frequency found minus frequency listened to, in Hz';

COMMENT ON COLUMN public.measurements.power_dbm IS 'Received power, in dBm';

COMMENT ON COLUMN public.measurements.s3_path IS 'Where the samples lie';

COMMENT ON COLUMN public.measurements.attributes IS 'What else the message contained';

CREATE TABLE public.measurements_daily (
    bucket timestamp with time zone NOT NULL,
    websdr_id text,
    measurements bigint,
    snr_db_count bigint,
    snr_db_sum double precision,
    snr_db_mean double precision,
    snr_db_min double precision,
    snr_db_max double precision,
    frequency_offset_hz_count bigint,
    frequency_offset_hz_sum double precision,
    frequency_offset_hz_mean double precision,
    frequency_offset_hz_min double precision,
    frequency_offset_hz_max double precision
);

COMMENT ON TABLE public.measurements_daily IS 'Sums of the measurements of a receiver, a row each day in UTC; a mean is divided out of sum and count';

COMMENT ON COLUMN public.measurements_daily.bucket IS 'Where the day begins';

COMMENT ON COLUMN public.measurements_daily.websdr_id IS 'The receiver';

COMMENT ON COLUMN public.measurements_daily.measurements IS 'Measurements';

COMMENT ON COLUMN public.measurements_daily.snr_db_count IS 'Measurements of them with a signal-to-noise ratio';

COMMENT ON COLUMN public.measurements_daily.snr_db_sum IS 'Signal-to-noise ratios added up, in dB';

COMMENT ON COLUMN public.measurements_daily.snr_db_mean IS 'Mean signal-to-noise ratio, in dB';

COMMENT ON COLUMN public.measurements_daily.snr_db_min IS 'Least signal-to-noise ratio, in dB';

COMMENT ON COLUMN public.measurements_daily.snr_db_max IS 'Greatest signal-to-noise ratio, in dB';

COMMENT ON COLUMN public.measurements_daily.frequency_offset_hz_count IS 'Measurements of them with a frequency offset';

COMMENT ON COLUMN public.measurements_daily.frequency_offset_hz_sum IS 'Frequency offsets added up, in Hz';

COMMENT ON COLUMN public.measurements_daily.frequency_offset_hz_mean IS 'Mean frequency offset, in Hz';

COMMENT ON COLUMN public.measurements_daily.frequency_offset_hz_min IS 'Least frequency offset, in Hz';

COMMENT ON COLUMN public.measurements_daily.frequency_offset_hz_max IS 'Greatest frequency offset, in Hz';

CREATE TABLE public.operations_log (
    "timestamp" timestamp with time zone NOT NULL,
    request_id text,
    project_id text,
    operation text NOT NULL,
    resource text,
    details jsonb,
    duration_ms double precision,
    status text,
    error text
)
PARTITION BY RANGE ("timestamp");

COMMENT ON TABLE public.operations_log IS 'What was done to projects and files, append-only';

COMMENT ON COLUMN public.operations_log."timestamp" IS 'When the operation began';

COMMENT ON COLUMN public.operations_log.request_id IS 'The request that it was part of';

COMMENT ON COLUMN public.operations_log.project_id IS 'The project: projects.id';

COMMENT ON COLUMN public.operations_log.operation IS 'What was done. jetcopy.registry_check() counts create_project, create_bucket, drop_bucket, create_table, drop_table, create_file and delete_file; other names are free';

COMMENT ON COLUMN public.operations_log.resource IS 'What it was done to: a bucket, a table, a path';

COMMENT ON COLUMN public.operations_log.details IS 'What else there is to say';

COMMENT ON COLUMN public.operations_log.duration_ms IS 'How long it took, in milliseconds';

COMMENT ON COLUMN public.operations_log.status IS 'How it ended, in the words of whoever did it';

COMMENT ON COLUMN public.operations_log.error IS 'Why it failed; NULL: it did not';

CREATE TABLE public.projects (
    id text NOT NULL,
    name text,
    path text,
    size_bytes bigint,
    table_count bigint,
    bucket_count bigint,
    status text DEFAULT 'active'::text NOT NULL,
    settings jsonb,
    created_at timestamp with time zone,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT projects_status_check CHECK ((status = ANY (ARRAY['active'::text, 'deleted'::text, 'locked'::text])))
);

COMMENT ON TABLE public.projects IS 'Projects; a newer event of an id replaces the older one, and a deleted project stays as such';

COMMENT ON COLUMN public.projects.id IS 'The project';

COMMENT ON COLUMN public.projects.name IS 'Its name for people';

COMMENT ON COLUMN public.projects.path IS 'Where its data lies';

COMMENT ON COLUMN public.projects.size_bytes IS 'Size of its data, in bytes';

COMMENT ON COLUMN public.projects.table_count IS 'How many tables it has';

COMMENT ON COLUMN public.projects.bucket_count IS 'How many buckets it has';

COMMENT ON COLUMN public.projects.status IS 'active, deleted or locked';

COMMENT ON COLUMN public.projects.settings IS 'Its settings';

COMMENT ON COLUMN public.projects.created_at IS 'When it was created';

COMMENT ON COLUMN public.projects.updated_at IS 'Time of the event that this row is from; an older event never replaces it';

CREATE VIEW public.stats AS
 SELECT s.project_id,
    s.name,
    s.status,
    s.size_bytes,
    s.table_count,
    s.bucket_count,
    s.files,
    s.file_bytes,
    s.staged_files,
    s.operations_1d,
    s.failures_1d,
    s.mean_duration_ms_1d,
    s.last_operation
   FROM jetcopy.registry_stats() s(project_id, name, status, size_bytes, table_count, bucket_count, files, file_bytes, staged_files, operations_1d, failures_1d, mean_duration_ms_1d, last_operation);

COMMENT ON VIEW public.stats IS 'What each project adds up to now, and what was done to it in the last day';

COMMENT ON COLUMN public.stats.project_id IS 'The project: projects.id';

COMMENT ON COLUMN public.stats.name IS 'Its name for people';

COMMENT ON COLUMN public.stats.status IS 'active, deleted or locked';

COMMENT ON COLUMN public.stats.size_bytes IS 'Size of its data, in bytes, as its event said';

COMMENT ON COLUMN public.stats.table_count IS 'Tables, as its event said';

COMMENT ON COLUMN public.stats.bucket_count IS 'Buckets, as its event said';

COMMENT ON COLUMN public.stats.files IS 'Files that are active and have not expired';

COMMENT ON COLUMN public.stats.file_bytes IS 'Their sizes added up, in bytes';

COMMENT ON COLUMN public.stats.staged_files IS 'Files of them that wait to be taken over';

COMMENT ON COLUMN public.stats.operations_1d IS 'Operations of the last day';

COMMENT ON COLUMN public.stats.failures_1d IS 'Operations of them that failed';

COMMENT ON COLUMN public.stats.mean_duration_ms_1d IS 'How long they took on average, in milliseconds';

COMMENT ON COLUMN public.stats.last_operation IS 'When the last operation of all began';

CREATE TABLE public.time_series_data_points (
    "timestamp" timestamp with time zone NOT NULL,
    series_id text NOT NULL,
    column_name text NOT NULL,
    value double precision
)
PARTITION BY RANGE ("timestamp");

COMMENT ON TABLE public.time_series_data_points IS 'Points of time series, one row a column and time';

COMMENT ON COLUMN public.time_series_data_points."timestamp" IS 'The time that the value is of';

COMMENT ON COLUMN public.time_series_data_points.series_id IS 'The series: time_series_metadata.id';

COMMENT ON COLUMN public.time_series_data_points.column_name IS 'Which of the series'' columns the value is of';

COMMENT ON COLUMN public.time_series_data_points.value IS 'The value, in the unit of its column; NULL: there was none, or no number';

CREATE TABLE public.time_series_metadata (
    id text NOT NULL,
    name text,
    description text,
    time_column text,
    value_columns text[],
    attributes jsonb,
    created_at timestamp with time zone,
    updated_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.time_series_metadata IS 'What each time series is; a newer document of an id replaces the older one';

COMMENT ON COLUMN public.time_series_metadata.id IS 'The series';

COMMENT ON COLUMN public.time_series_metadata.name IS 'Its name for people';

COMMENT ON COLUMN public.time_series_metadata.description IS 'What it is, for people';

COMMENT ON COLUMN public.time_series_metadata.time_column IS 'Name of the column of time where the series comes from';

COMMENT ON COLUMN public.time_series_metadata.value_columns IS 'Names of its columns of values; NULL: those that its points name';

COMMENT ON COLUMN public.time_series_metadata.attributes IS 'What else the document contained';

COMMENT ON COLUMN public.time_series_metadata.created_at IS 'When the series was created, as its document says, else when its first document came';

COMMENT ON COLUMN public.time_series_metadata.updated_at IS 'Time of the event that this row is from; an older event never replaces it';

CREATE TABLE public.websdrs (
    id text NOT NULL,
    name text,
    location text,
    url text,
    active boolean DEFAULT true NOT NULL,
    attributes jsonb,
    created_at timestamp with time zone,
    updated_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.websdrs IS 'Radio receivers; a newer event of an id replaces the older one';

COMMENT ON COLUMN public.websdrs.id IS 'The receiver: measurements.websdr_id';

COMMENT ON COLUMN public.websdrs.name IS 'Its name for people';

COMMENT ON COLUMN public.websdrs.location IS 'Where it stands, for people';

COMMENT ON COLUMN public.websdrs.url IS 'Where it is listened to';

COMMENT ON COLUMN public.websdrs.active IS 'Whether it is in use';

COMMENT ON COLUMN public.websdrs.attributes IS 'What else the event contained';

COMMENT ON COLUMN public.websdrs.created_at IS 'When it was created';

COMMENT ON COLUMN public.websdrs.updated_at IS 'Time of the event that this row is from; an older event never replaces it';

ALTER TABLE ONLY jetcopy.checkpoints
    ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (shard);

ALTER TABLE ONLY jetcopy.daemons
    ADD CONSTRAINT daemons_pkey PRIMARY KEY (daemon);

ALTER TABLE ONLY jetcopy.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);

ALTER TABLE ONLY jetcopy.deletions
    ADD CONSTRAINT deletions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY jetcopy.lanes
    ADD CONSTRAINT lanes_pkey PRIMARY KEY (shard, lane);

ALTER TABLE ONLY jetcopy.losses
    ADD CONSTRAINT losses_pkey PRIMARY KEY (id);

ALTER TABLE ONLY jetcopy.milestones
    ADD CONSTRAINT milestones_pkey PRIMARY KEY (shard, number);

ALTER TABLE ONLY jetcopy.partition_bounds
    ADD CONSTRAINT partition_bounds_pkey PRIMARY KEY (one_row);

ALTER TABLE ONLY jetcopy.partitioned_tables
    ADD CONSTRAINT partitioned_tables_pkey PRIMARY KEY (relation);

ALTER TABLE ONLY jetcopy.registry_files
    ADD CONSTRAINT registry_files_pkey PRIMARY KEY (project_id, writer);

ALTER TABLE ONLY jetcopy.registry_operations
    ADD CONSTRAINT registry_operations_pkey PRIMARY KEY (project_id, writer);

ALTER TABLE ONLY jetcopy.rollups
    ADD CONSTRAINT rollups_pkey PRIMARY KEY (name);

ALTER TABLE ONLY jetcopy.schema_history
    ADD CONSTRAINT schema_history_pkey PRIMARY KEY (version);

ALTER TABLE ONLY jetcopy.seals
    ADD CONSTRAINT seals_pkey PRIMARY KEY (shard, lane, number);

ALTER TABLE ONLY jetcopy.settlements
    ADD CONSTRAINT settlements_pkey PRIMARY KEY (id);

ALTER TABLE ONLY jetcopy.store_choice
    ADD CONSTRAINT store_choice_pkey PRIMARY KEY (one_row);

ALTER TABLE ONLY jetcopy.store_life
    ADD CONSTRAINT store_life_pkey PRIMARY KEY (relation, setting);

ALTER TABLE ONLY jetcopy.store_place
    ADD CONSTRAINT store_place_pkey PRIMARY KEY (one_row);

ALTER TABLE ONLY jetcopy.tallies
    ADD CONSTRAINT tallies_pkey PRIMARY KEY (shard, event, kind);

ALTER TABLE ONLY public.files
    ADD CONSTRAINT files_pkey PRIMARY KEY (project_id, path);

ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.time_series_metadata
    ADD CONSTRAINT time_series_metadata_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.websdrs
    ADD CONSTRAINT websdrs_pkey PRIMARY KEY (id);

CREATE INDEX dead_letters_failed_at ON jetcopy.dead_letters USING btree (failed_at) WHERE (expired_at IS NULL);

CREATE INDEX dead_letters_pipeline_sequence ON jetcopy.dead_letters USING btree (pipeline, sequence);

CREATE INDEX settlements_pipeline_sequence ON jetcopy.settlements USING btree (pipeline, sequence);

CREATE INDEX detection_events_camera_id_time ON ONLY public.detection_events USING btree (camera_id, "time" DESC);

CREATE INDEX detection_events_label_time ON ONLY public.detection_events USING btree (label, "time" DESC);

CREATE INDEX detection_events_time ON ONLY public.detection_events USING brin ("time");

CREATE INDEX detection_stats_1d_bucket_idx ON public.detection_stats_1d USING btree (bucket);

CREATE INDEX detection_stats_1d_camera_id_label_bucket_idx ON public.detection_stats_1d USING btree (camera_id, label, bucket DESC);

CREATE INDEX detection_stats_1h_bucket_idx ON public.detection_stats_1h USING btree (bucket);

CREATE INDEX detection_stats_1h_camera_id_label_bucket_idx ON public.detection_stats_1h USING btree (camera_id, label, bucket DESC);

CREATE INDEX detection_stats_1m_bucket_idx ON public.detection_stats_1m USING btree (bucket);

CREATE INDEX detection_stats_1m_camera_id_label_bucket_idx ON public.detection_stats_1m USING btree (camera_id, label, bucket DESC);

CREATE INDEX files_project_id_name ON public.files USING btree (project_id, name);

CREATE INDEX files_sha256 ON public.files USING btree (sha256);

CREATE INDEX files_staged_expires_at ON public.files USING btree (expires_at) WHERE (staged AND (status = 'active'::text));

CREATE INDEX files_tags ON public.files USING gin (tags);

CREATE INDEX frame_metadata_camera_id_time ON ONLY public.frame_metadata USING btree (camera_id, "time" DESC);

CREATE INDEX frame_metadata_time ON ONLY public.frame_metadata USING brin ("time");

CREATE INDEX frame_stats_1d_bucket_idx ON public.frame_stats_1d USING btree (bucket);

CREATE INDEX frame_stats_1d_camera_id_bucket_idx ON public.frame_stats_1d USING btree (camera_id, bucket DESC);

CREATE INDEX frame_stats_1h_bucket_idx ON public.frame_stats_1h USING btree (bucket);

CREATE INDEX frame_stats_1h_camera_id_bucket_idx ON public.frame_stats_1h USING btree (camera_id, bucket DESC);

CREATE INDEX frame_stats_1m_bucket_idx ON public.frame_stats_1m USING btree (bucket);

CREATE INDEX frame_stats_1m_camera_id_bucket_idx ON public.frame_stats_1m USING btree (camera_id, bucket DESC);

CREATE INDEX measurements_daily_bucket_idx ON public.measurements_daily USING btree (bucket);

CREATE INDEX measurements_daily_websdr_id_bucket_idx ON public.measurements_daily USING btree (websdr_id, bucket DESC);

CREATE INDEX measurements_frequency_mhz_timestamp_utc ON ONLY public.measurements USING btree (frequency_mhz, timestamp_utc DESC);

CREATE INDEX measurements_task_id_timestamp_utc ON ONLY public.measurements USING btree (task_id, timestamp_utc DESC);

CREATE INDEX measurements_timestamp_utc ON ONLY public.measurements USING btree (timestamp_utc DESC);

CREATE INDEX measurements_websdr_id_timestamp_utc ON ONLY public.measurements USING btree (websdr_id, timestamp_utc DESC);

CREATE INDEX operations_log_project_id_timestamp ON ONLY public.operations_log USING btree (project_id, "timestamp" DESC);

CREATE INDEX operations_log_request_id ON ONLY public.operations_log USING btree (request_id);

CREATE INDEX operations_log_timestamp ON ONLY public.operations_log USING btree ("timestamp" DESC);

CREATE INDEX projects_status_id ON public.projects USING btree (status, id);

CREATE INDEX time_series_data_points_series_id_column_name_timestamp ON ONLY public.time_series_data_points USING btree (series_id, column_name, "timestamp" DESC);

CREATE TRIGGER hand_payload_on AFTER DELETE ON jetcopy.dead_letters REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.hand_payload_on();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON public.operations_log FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.refuse_change();

CREATE TRIGGER keep_created_at BEFORE INSERT OR UPDATE ON public.time_series_metadata FOR EACH ROW EXECUTE FUNCTION jetcopy.keep_created_at();

CREATE TRIGGER registry_change AFTER DELETE OR UPDATE OR TRUNCATE ON public.operations_log FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.recount_operations();

CREATE TRIGGER registry_delete AFTER DELETE ON public.files REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.count_files();

CREATE TRIGGER registry_insert AFTER INSERT ON public.files REFERENCING NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.count_files();

CREATE TRIGGER registry_insert AFTER INSERT ON public.operations_log REFERENCING NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.count_operations();

CREATE TRIGGER registry_truncate AFTER TRUNCATE ON public.files FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.count_files();

CREATE TRIGGER registry_update AFTER UPDATE ON public.files REFERENCING OLD TABLE AS gone NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.count_files();

ALTER TABLE ONLY jetcopy.lanes
    ADD CONSTRAINT lanes_shard_fkey FOREIGN KEY (shard) REFERENCES jetcopy.checkpoints(shard) ON DELETE CASCADE;

ALTER TABLE ONLY jetcopy.seals
    ADD CONSTRAINT seals_shard_fkey FOREIGN KEY (shard) REFERENCES jetcopy.checkpoints(shard) ON DELETE CASCADE;

ALTER TABLE ONLY jetcopy.tallies
    ADD CONSTRAINT tallies_shard_fkey FOREIGN KEY (shard) REFERENCES jetcopy.checkpoints(shard) ON DELETE CASCADE;
