-- Running tallies of the registry: its check and its totals read neither all files nor the whole log.
--
-- Guarantees: the tallies are changed in the transaction that changes the rows, by triggers, whoever writes
-- them; a session adds to rows of its own, so that no two wait for each other. They count rows, never what
-- events say, so they cannot be wrong as what they are compared with may be. What retention drops has been
-- counted and stays so. Where there are no triggers, rows are read.
--
-- Not seen: what is written with the triggers disabled, or into a partition or chunk by its own name. After
-- that, SELECT jetcopy.recount_registry().

CREATE TABLE jetcopy.registry_files (
    project_id text NOT NULL,
    writer integer NOT NULL,
    active bigint NOT NULL,
    active_bytes numeric NOT NULL,
    kept bigint NOT NULL,
    PRIMARY KEY (project_id, writer)
);

COMMENT ON TABLE jetcopy.registry_files IS
    'How many files each project has, as triggers of table files count: the sums over the rows of a project';
COMMENT ON COLUMN jetcopy.registry_files.project_id IS 'The project: files.project_id';
COMMENT ON COLUMN jetcopy.registry_files.writer IS
    'Process of the session that counted; 0: sums of sessions that have ended';
COMMENT ON COLUMN jetcopy.registry_files.active IS 'Files of status active';
COMMENT ON COLUMN jetcopy.registry_files.active_bytes IS 'Size of those, in bytes';
COMMENT ON COLUMN jetcopy.registry_files.kept IS 'Files that are not deleted';

CREATE TABLE jetcopy.registry_operations (
    project_id text NOT NULL,
    writer integer NOT NULL,
    created bigint NOT NULL,
    buckets bigint NOT NULL,
    tables bigint NOT NULL,
    files bigint NOT NULL,
    PRIMARY KEY (project_id, writer)
);

COMMENT ON TABLE jetcopy.registry_operations IS
    'What the log says that each project has, as triggers of '
    'operations_log count: the sums over the rows of a project';
COMMENT ON COLUMN jetcopy.registry_operations.project_id IS 'The project: operations_log.project_id';
COMMENT ON COLUMN jetcopy.registry_operations.writer IS
    'Process of the session that counted; 0: sums of sessions that have ended';
COMMENT ON COLUMN jetcopy.registry_operations.created IS
    'Creations of the project; 0: the log does not have its beginning';
COMMENT ON COLUMN jetcopy.registry_operations.buckets IS 'Buckets created less those dropped';
COMMENT ON COLUMN jetcopy.registry_operations.tables IS 'Tables created less those dropped';
COMMENT ON COLUMN jetcopy.registry_operations.files IS 'Files created less those deleted';

-- They run with the rights of their owner, since who may insert rows need not know the tallies.
CREATE FUNCTION jetcopy.count_files() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
COMMENT ON FUNCTION jetcopy.count_files IS 'Keeps jetcopy.registry_files, as a trigger of table files';

CREATE FUNCTION jetcopy.count_operations() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
COMMENT ON FUNCTION jetcopy.count_operations IS
    'Keeps jetcopy.registry_operations, as a trigger of INSERT on operations_log';

-- The lock waits for those who have written and not committed, and keeps others from writing until this is
-- committed.
CREATE FUNCTION jetcopy.recount_operations(relation regclass) RETURNS void
    LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp
AS $$
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
$$;
COMMENT ON FUNCTION jetcopy.recount_operations(regclass) IS
    'Counts jetcopy.registry_operations again from this log';

-- Rows leave the log by retention, which is no statement. Where its owner changes it manually, all is counted
-- again.
CREATE FUNCTION jetcopy.recount_operations() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM jetcopy.recount_operations(TG_RELID);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION jetcopy.recount_operations() IS
    'Counts jetcopy.registry_operations again, as a trigger of UPDATE, DELETE and TRUNCATE on operations_log';

CREATE FUNCTION jetcopy.recount_files(relation regclass) RETURNS void
    LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp
AS $$
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
$$;
COMMENT ON FUNCTION jetcopy.recount_files IS 'Counts jetcopy.registry_files again from this table';

-- Counts from the rows that are there: a project whose creation retention has dropped is not compared any
-- more after that.
CREATE FUNCTION jetcopy.recount_registry() RETURNS void LANGUAGE sql AS $$
    SELECT jetcopy.recount_files(to_regclass('files'));
    SELECT jetcopy.recount_operations(to_regclass('operations_log'));
$$;
COMMENT ON FUNCTION jetcopy.recount_registry IS
    'Counts the tallies of the registry again, for whoever has written '
    'past their triggers; takes the rights of whoever calls';

-- A session that has ended changes its rows no more. One that began since then with the number of its process
-- waits a moment.
CREATE FUNCTION jetcopy.fold_registry() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
COMMENT ON FUNCTION jetcopy.fold_registry IS
    'Puts the tallies of sessions that have ended together; jetcopy maintain calls it';

-- Nobody else has a table of their own counted.
REVOKE EXECUTE ON FUNCTION jetcopy.count_files(), jetcopy.count_operations(), jetcopy.recount_operations()
    FROM PUBLIC;

-- The triggers, on the tables that jetcopy made.
DO $registry$
DECLARE
    files regclass := to_regclass('files');
    operations regclass := to_regclass('operations_log');
BEGIN
    IF files IS NOT NULL
        AND EXISTS (SELECT FROM pg_class WHERE oid = files AND relkind = 'r'
        AND pg_has_role(relowner, 'USAGE'))
        -- A trigger that fails would keep another system from writing to its own table of the name.
        AND 4 = (SELECT count(*) FROM pg_attribute WHERE attrelid = files AND NOT attisdropped
            AND (attname::text, format_type(atttypid, NULL)) IN
                (('project_id', 'text'), ('path', 'text'), ('status', 'text'), ('size_bytes', 'bigint')))
        AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = files AND tgname = 'registry_insert')
    THEN
        EXECUTE format('CREATE TRIGGER registry_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS come
            FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.count_files()', files);
        EXECUTE format('CREATE TRIGGER registry_update AFTER UPDATE ON %s
            REFERENCING OLD TABLE AS gone NEW TABLE AS come
            FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.count_files()', files);
        EXECUTE format('CREATE TRIGGER registry_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS gone
            FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.count_files()', files);
        EXECUTE format('CREATE TRIGGER registry_truncate AFTER TRUNCATE ON %s
            FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.count_files()', files);
        PERFORM jetcopy.recount_files(files);
    END IF;

    IF operations IS NOT NULL
        AND EXISTS (SELECT FROM pg_class WHERE oid = operations AND relkind IN ('r', 'p')
        AND pg_has_role(relowner, 'USAGE'))
        AND 3 = (SELECT count(*) FROM pg_attribute WHERE attrelid = operations AND NOT attisdropped
            AND (attname::text, format_type(atttypid, NULL)) IN
                (('project_id', 'text'), ('operation', 'text'), ('error', 'text')))
        AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = operations AND tgname = 'registry_insert')
    THEN
        BEGIN
            EXECUTE format('CREATE TRIGGER registry_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS come
                FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.count_operations()', operations);
            EXECUTE format('CREATE TRIGGER registry_change AFTER UPDATE OR DELETE OR TRUNCATE ON %s
                FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.recount_operations()', operations);
            PERFORM jetcopy.recount_operations(operations);
        EXCEPTION WHEN feature_not_supported THEN
            -- TimescaleDB before 2.17.
            RAISE NOTICE 'the log is not tallied, and registry_check reads all of it: %', SQLERRM;
        END;
    END IF;
END
$registry$;
