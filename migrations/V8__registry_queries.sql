-- The queries of the store as functions: the registry.
SET LOCAL check_function_bodies = off;

CREATE FUNCTION jetcopy.registry_stats() RETURNS TABLE (
    project_id text,
    name text,
    status text,
    size_bytes bigint,
    table_count bigint,
    bucket_count bigint,
    files bigint,
    file_bytes bigint,
    staged_files bigint,
    operations_1d bigint,
    failures_1d bigint,
    mean_duration_ms_1d double precision,
    last_operation timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
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
COMMENT ON FUNCTION jetcopy.registry_stats IS
    'What each project adds up to now, and what was done to it in the last day';

DO $registry$
BEGIN
    IF to_regclass('stats') IS NOT NULL THEN
        RAISE NOTICE 'relation stats is there already and stays as it is';
        RETURN;
    END IF;
    -- Through the function, so that the view keeps no table from being replaced.
    CREATE VIEW stats AS SELECT s.* FROM jetcopy.registry_stats() s;

    COMMENT ON VIEW stats IS 'What each project adds up to now, and what was done to it in the last day';
    COMMENT ON COLUMN stats.project_id IS 'The project: projects.id';
    COMMENT ON COLUMN stats.name IS 'Its name for people';
    COMMENT ON COLUMN stats.status IS 'active, deleted or locked';
    COMMENT ON COLUMN stats.size_bytes IS 'Size of its data, in bytes, as its event said';
    COMMENT ON COLUMN stats.table_count IS 'Tables, as its event said';
    COMMENT ON COLUMN stats.bucket_count IS 'Buckets, as its event said';
    COMMENT ON COLUMN stats.files IS 'Files that are active and have not expired';
    COMMENT ON COLUMN stats.file_bytes IS 'Their sizes added up, in bytes';
    COMMENT ON COLUMN stats.staged_files IS 'Files of them that wait to be taken over';
    COMMENT ON COLUMN stats.operations_1d IS 'Operations of the last day';
    COMMENT ON COLUMN stats.failures_1d IS 'Operations of them that failed';
    COMMENT ON COLUMN stats.mean_duration_ms_1d IS 'How long they took on average, in milliseconds';
    COMMENT ON COLUMN stats.last_operation IS 'When the last operation of all began';
END
$registry$;

CREATE FUNCTION jetcopy.project_stats(project text) RETURNS TABLE (
    project_id text, name text, status text, size_bytes bigint, table_count bigint, bucket_count bigint,
    files bigint, file_bytes bigint, staged_files bigint, operations_1d bigint, failures_1d bigint,
    mean_duration_ms_1d double precision, last_operation timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT s.* FROM jetcopy.registry_stats() s WHERE s.project_id = project_stats.project
$$;
COMMENT ON FUNCTION jetcopy.project_stats IS
    'What a project adds up to now, and what was done to it in the last day';

CREATE FUNCTION jetcopy.registry_is_tallied() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT 2 = (SELECT pg_catalog.count(*) FROM pg_trigger t
        WHERE t.tgrelid IN (to_regclass('files')::oid, to_regclass('operations_log')::oid)
            AND t.tgname = 'registry_insert'
            AND t.tgenabled IN ('O', 'A'))
$$;
COMMENT ON FUNCTION jetcopy.registry_is_tallied IS
    'Whether triggers keep the tallies of the registry; else its check and its totals read the rows';

-- Sizes, tables, buckets and files are those of projects and files that are not deleted, as in stats; what
-- was done in the last day counts whatever became of its project.
CREATE FUNCTION jetcopy.registry_totals() RETURNS TABLE (
    projects bigint, active_projects bigint, deleted_projects bigint, locked_projects bigint,
    size_bytes bigint, table_count bigint, bucket_count bigint, files bigint, file_bytes bigint,
    staged_files bigint, operations_1d bigint, failures_1d bigint, mean_duration_ms_1d double precision,
    last_operation timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
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
COMMENT ON FUNCTION jetcopy.registry_totals IS
    'What all projects add up to now, and what was done in the last day';

-- Counts are compared for projects whose creation is, or was, in the log. While events are on their way, a
-- difference may be theirs.
CREATE FUNCTION jetcopy.registry_check(whole boolean DEFAULT false) RETURNS TABLE (
    problem text, project_id text, path text, stored bigint, logged bigint
) LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
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
COMMENT ON FUNCTION jetcopy.registry_check IS
    'Files without project, and counts that disagree with the log; no row: all is '
    'well. With whole, from the files and the log instead of their tallies';

CREATE FUNCTION jetcopy.find_projects(
    project text DEFAULT NULL,
    in_status text DEFAULT NULL,
    after text DEFAULT NULL,
    max_rows bigint DEFAULT 100
) RETURNS TABLE (
    id text, name text, path text, size_bytes bigint, table_count bigint, bucket_count bigint, status text,
    settings jsonb, created_at timestamptz, updated_at timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT p.id, p.name, p.path, p.size_bytes, p.table_count, p.bucket_count, p.status, p.settings,
        p.created_at, p.updated_at
    FROM projects p
    WHERE (find_projects.project IS NULL OR p.id = find_projects.project)
        AND (find_projects.in_status IS NULL OR p.status = find_projects.in_status)
        AND (find_projects.after IS NULL OR p.id > find_projects.after)
    ORDER BY p.id LIMIT find_projects.max_rows
$$;
COMMENT ON FUNCTION jetcopy.find_projects IS
    'Projects by id and status, in the order of their ids; the next page begins after the last id';

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
    project_id text, path text, name text, size_bytes bigint, content_type text, md5 text, sha256 text,
    staged boolean, expires_at timestamptz, tags jsonb, status text, created_at timestamptz,
    updated_at timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
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
COMMENT ON FUNCTION jetcopy.find_files IS
    'Files of a project by path, name or tag, in the order of '
    'their paths; with gone also those deleted or expired';

CREATE FUNCTION jetcopy.files_by_digest(digest text) RETURNS TABLE (
    project_id text, path text, name text, size_bytes bigint, content_type text, md5 text, sha256 text,
    staged boolean, expires_at timestamptz, tags jsonb, status text, created_at timestamptz,
    updated_at timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT f.project_id, f.path, f.name, f.size_bytes, f.content_type, f.md5, f.sha256, f.staged,
        f.expires_at, f.tags, f.status, f.created_at, f.updated_at
    FROM files f
    WHERE f.sha256 = files_by_digest.digest AND f.status = 'active'
        AND NOT coalesce(f.staged AND f.expires_at <= now(), false)
    ORDER BY f.project_id, f.path
$$;
COMMENT ON FUNCTION jetcopy.files_by_digest IS 'Files of any project with this SHA-256';

CREATE FUNCTION jetcopy.expired_files(at timestamptz DEFAULT now(),
max_rows bigint DEFAULT 1000) RETURNS TABLE (
    project_id text, path text, name text, size_bytes bigint, content_type text, md5 text, sha256 text,
    staged boolean, expires_at timestamptz, tags jsonb, status text, created_at timestamptz,
    updated_at timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT f.project_id, f.path, f.name, f.size_bytes, f.content_type, f.md5, f.sha256, f.staged,
        f.expires_at, f.tags, f.status, f.created_at, f.updated_at
    FROM files f
    WHERE f.staged AND f.status = 'active' AND f.expires_at <= expired_files.at
    ORDER BY f.expires_at LIMIT expired_files.max_rows
$$;
COMMENT ON FUNCTION jetcopy.expired_files IS 'Staged files that have expired and are not marked yet';

-- The time of the expiry is that of the event: an event from before it, replayed, does not bring the file
-- back, and one from after it does. So a registry that is rebuilt from its events comes out the same.
CREATE FUNCTION jetcopy.expire_staged_files(at timestamptz DEFAULT now()) RETURNS bigint LANGUAGE sql AS $$
    WITH expired AS (
        UPDATE files SET status = 'expired', updated_at = greatest(updated_at, expires_at)
        WHERE staged AND status = 'active' AND expires_at <= expire_staged_files.at
        RETURNING 1
    )
    SELECT pg_catalog.count(*) FROM expired
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
COMMENT ON FUNCTION jetcopy.operation_counts IS
    'How often each operation was done and failed, and how long it took, per bucket of time';

-- Rebuilding the registry from its events: into fresh tables beside those in use, which then take their
-- place.

CREATE FUNCTION jetcopy.fresh_registry(fresh_schema name) RETURNS void LANGUAGE plpgsql AS $$
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
COMMENT ON FUNCTION jetcopy.fresh_registry IS
    'Creates a schema with empty projects, files and '
    'operations_log, for a pipeline to replay the events into';

-- A registry is rebuilt by a replay, which ends where the pipeline stood when it began. What the pipeline has
-- moved since is not in the rebuilt tables: its checkpoint moves back to the replay's, in the same
-- transaction, so that it moves that again. A new epoch makes a daemon look at its checkpoint, also one that
-- has nothing to write.
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
    UPDATE jetcopy.checkpoints c
        SET last_sequence = rebuilt.last_sequence, last_timestamp = rebuilt.last_timestamp,
            epoch = c.epoch + 1, updated_at = now()
        WHERE c.shard = take_registry.pipeline;
    DELETE FROM jetcopy.checkpoints c WHERE c.shard = rebuilt_by;
    RETURN rebuilt.last_sequence;
END
$$;
COMMENT ON FUNCTION jetcopy.take_registry IS
    'Puts the rows of a replayed registry in the place of those in use; '
    'returns the sequence from which the pipeline goes on';

SET LOCAL check_function_bodies = on;
