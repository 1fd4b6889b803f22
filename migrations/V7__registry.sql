-- A registry of projects and files, fed by events that each carry the whole row, and the log of what was done to them. There
-- are no references between the tables: events come in any order. `jetcopy.registry_check()` finds what does not fit.
DO $migration$
BEGIN
    IF to_regclass('projects') IS NOT NULL THEN
        RAISE NOTICE 'table projects is there already and stays as it is';
        RETURN;
    END IF;

    CREATE TABLE projects (
        id text PRIMARY KEY,
        name text,
        path text,
        size_bytes bigint,
        table_count bigint,
        bucket_count bigint,
        status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'deleted', 'locked')),
        settings jsonb,
        created_at timestamptz,
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX projects_status_id ON projects (status, id);

    COMMENT ON TABLE projects IS 'Projects; a newer event of an id replaces the older one, and a deleted project stays as such';
    COMMENT ON COLUMN projects.id IS 'The project';
    COMMENT ON COLUMN projects.name IS 'Its name for people';
    COMMENT ON COLUMN projects.path IS 'Where its data lies';
    COMMENT ON COLUMN projects.size_bytes IS 'Size of its data, in bytes';
    COMMENT ON COLUMN projects.table_count IS 'How many tables it has';
    COMMENT ON COLUMN projects.bucket_count IS 'How many buckets it has';
    COMMENT ON COLUMN projects.status IS 'active, deleted or locked';
    COMMENT ON COLUMN projects.settings IS 'Its settings';
    COMMENT ON COLUMN projects.created_at IS 'When it was created';
    COMMENT ON COLUMN projects.updated_at IS 'Time of the event that this row is from; an older event never replaces it';
END
$migration$;

DO $migration$
BEGIN
    IF to_regclass('files') IS NOT NULL THEN
        RAISE NOTICE 'table files is there already and stays as it is';
        RETURN;
    END IF;

    CREATE TABLE files (
        project_id text NOT NULL,
        path text NOT NULL,
        name text,
        size_bytes bigint,
        content_type text,
        md5 text,
        sha256 text,
        staged boolean NOT NULL DEFAULT false,
        expires_at timestamptz,
        tags jsonb,
        status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'deleted', 'expired')),
        created_at timestamptz,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (project_id, path)
    );
    CREATE INDEX files_project_id_name ON files (project_id, name);
    CREATE INDEX files_sha256 ON files (sha256);
    CREATE INDEX files_tags ON files USING gin (tags);
    -- Holds the files that wait for their promotion, which are few.
    CREATE INDEX files_staged_expires_at ON files (expires_at) WHERE staged AND status = 'active';

    COMMENT ON TABLE files IS 'Files of projects; a newer event of a path replaces the older one, and a deleted file stays as such';
    COMMENT ON COLUMN files.project_id IS 'The project: projects.id';
    COMMENT ON COLUMN files.path IS 'Where it lies in the project; with the project its key';
    COMMENT ON COLUMN files.name IS 'Its name for people';
    COMMENT ON COLUMN files.size_bytes IS 'Its size, in bytes';
    COMMENT ON COLUMN files.content_type IS 'Its media type';
    COMMENT ON COLUMN files.md5 IS 'MD5 of its content, in hexadecimal digits';
    COMMENT ON COLUMN files.sha256 IS 'SHA-256 of its content, in hexadecimal digits';
    COMMENT ON COLUMN files.staged IS 'Whether it waits to be taken over; until then it expires';
    COMMENT ON COLUMN files.expires_at IS 'When it expires, while it is staged';
    COMMENT ON COLUMN files.tags IS 'Its tags: an array of texts, or an object of names and values';
    COMMENT ON COLUMN files.status IS 'active, deleted, or expired (see jetcopy.expire_staged_files)';
    COMMENT ON COLUMN files.created_at IS 'When it was created';
    COMMENT ON COLUMN files.updated_at IS 'Time of the event that this row is from; an older event never replaces it';
END
$migration$;

CREATE FUNCTION jetcopy.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are only ever added, and leave it by retention', TG_TABLE_NAME
        USING HINT = 'Its owner can disable the trigger append_only.';
END
$$;
COMMENT ON FUNCTION jetcopy.refuse_change() IS 'Keeps a table append-only, as a trigger of UPDATE and DELETE';

DO $migration$
BEGIN
    IF to_regclass('operations_log') IS NOT NULL THEN
        RAISE NOTICE 'table operations_log is there already and stays as it is';
        RETURN;
    END IF;

    CREATE TABLE operations_log (
        timestamp timestamptz NOT NULL,
        request_id text,
        project_id text,
        operation text NOT NULL,
        resource text,
        details jsonb,
        duration_ms double precision,
        status text,
        error text
    );
    PERFORM jetcopy.time_table('operations_log', 'timestamp', interval '7 days');

    CREATE INDEX operations_log_project_id_timestamp ON operations_log (project_id, timestamp DESC);
    CREATE INDEX operations_log_timestamp ON operations_log (timestamp DESC);
    CREATE INDEX operations_log_request_id ON operations_log (request_id);
    -- Once a statement, not once a row: retention and compression are no statements, and appending pays nothing.
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON operations_log
        FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.refuse_change();

    COMMENT ON TABLE operations_log IS 'What was done to projects and files, append-only';
    COMMENT ON COLUMN operations_log.timestamp IS 'When the operation began';
    COMMENT ON COLUMN operations_log.request_id IS 'The request that it was part of';
    COMMENT ON COLUMN operations_log.project_id IS 'The project: projects.id';
    COMMENT ON COLUMN operations_log.operation IS 'What was done. jetcopy.registry_check() counts create_project, create_bucket, drop_bucket, create_table, drop_table, create_file and delete_file; other names are free';
    COMMENT ON COLUMN operations_log.resource IS 'What it was done to: a bucket, a table, a path';
    COMMENT ON COLUMN operations_log.details IS 'What else there is to say';
    COMMENT ON COLUMN operations_log.duration_ms IS 'How long it took, in milliseconds';
    COMMENT ON COLUMN operations_log.status IS 'How it ended, in the words of whoever did it';
    COMMENT ON COLUMN operations_log.error IS 'Why it failed; NULL: it did not';
END
$migration$;

-- Text that is looked at when it is called: a function never keeps a table from being replaced, and tables of other shapes
-- that were there already do not stop the migration.
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
        SELECT count(*) AS files, coalesce(sum(f.size_bytes), 0)::bigint AS file_bytes,
            count(*) FILTER (WHERE f.staged) AS staged_files
        FROM files f
        WHERE f.project_id = p.id AND f.status = 'active' AND NOT (f.staged AND f.expires_at IS NOT NULL AND f.expires_at <= now())
    ) f
    CROSS JOIN LATERAL (
        SELECT count(*) AS operations, count(o.error) AS failures, avg(o.duration_ms) AS mean_duration_ms
        FROM operations_log o
        WHERE o.project_id = p.id AND o.timestamp >= now() - interval '1 day'
    ) o
    LEFT JOIN LATERAL (
        SELECT l.timestamp FROM operations_log l WHERE l.project_id = p.id ORDER BY l.timestamp DESC LIMIT 1
    ) l ON true
$$;
COMMENT ON FUNCTION jetcopy.registry_stats() IS 'What each project adds up to now, and what was done to it in the last day';

DO $migration$
BEGIN
    IF to_regclass('stats') IS NOT NULL THEN
        RAISE NOTICE 'relation stats is there already and stays as it is';
        RETURN;
    END IF;
    -- Through the function, so that the view keeps no table from being replaced.
    CREATE VIEW stats AS SELECT s.* FROM jetcopy.registry_stats() s;
    COMMENT ON VIEW stats IS 'What each project adds up to now, and what was done to it in the last day';
END
$migration$;

SET LOCAL check_function_bodies = on;
