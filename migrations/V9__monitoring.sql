-- What postgres_exporter asks (config/postgres_exporter/queries.yaml): functions that each answer with the
-- rows of one or more metrics, also where what they look for is not there: a store table, TimescaleDB,
-- pg_stat_statements, PgBouncer.
--
-- They run with the rights of their owner, but for two, so that a role which only has pg_monitor sees numbers
-- and no row of anybody's data. They read roll-ups, statistics and catalogs, never a big table.
--
-- A function or an operator that somebody made in a schema of the search path is chosen before the server's
-- own where its types fit a call better. So a role that may CREATE in such a schema could have its code run
-- with the rights of those who own these functions. None of them looks anywhere but in pg_catalog.
GRANT USAGE ON SCHEMA jetcopy TO pg_monitor;

-- Tables of the store

-- `jetcopy migrate` puts the schemas of its search path here.
CREATE FUNCTION jetcopy.store_schemas() RETURNS name[]
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$SELECT '{}'::name[]$$;
COMMENT ON FUNCTION jetcopy.store_schemas() IS
    'The schemas where monitoring looks for the tables of the store, the first one first';

-- NULL where there is none. One of another owner than the schema jetcopy, this function or a superuser is
-- none of the store: a view could bring somebody's code along.
CREATE FUNCTION jetcopy.store_relation(bare_name text) RETURNS regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
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
COMMENT ON FUNCTION jetcopy.store_relation IS 'For monitoring: the table of the store of that name';

-- Bare where it is what the bare name means.
CREATE FUNCTION jetcopy.shown_name(relation regclass) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN c.oid = (
            SELECT o.oid FROM unnest(jetcopy.store_schemas()) WITH ORDINALITY AS s (name, place)
            JOIN pg_namespace m ON m.nspname = s.name
            JOIN pg_class o ON o.relnamespace = m.oid AND o.relname = c.relname
            ORDER BY s.place LIMIT 1)
        THEN quote_ident(c.relname) ELSE format('%I.%I', n.nspname, c.relname) END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation
$$;
COMMENT ON FUNCTION jetcopy.shown_name IS 'For monitoring: a relation as its rows name it';

-- jetcopy

-- Seconds since the last commit, seconds left of the lease.
CREATE FUNCTION jetcopy.monitor_checkpoints()
    RETURNS TABLE (pipeline text, shard text, stream text, last_sequence bigint, epoch bigint,
        age_seconds float8, lease_seconds float8)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pipeline, shard, stream, last_sequence, epoch, extract(epoch FROM now() - updated_at)::float8,
        coalesce(extract(epoch FROM lease_until - now()), 0)::float8
    FROM jetcopy.checkpoints
$$;
COMMENT ON FUNCTION jetcopy.monitor_checkpoints IS
    'For monitoring: whether each shard moves, and who may write it';

-- By the sequence of their ids: those of transactions that failed count too. How many are there now is what
-- the last ANALYZE found.
CREATE FUNCTION jetcopy.monitor_dead_letters()
    RETURNS TABLE (stored_total bigint, kept_estimate bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT coalesce(last_value, 0) FROM pg_sequences
            WHERE format('%I.%I', schemaname, sequencename)
                = pg_get_serial_sequence('jetcopy.dead_letters', 'id')),
        (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'jetcopy.dead_letters'::regclass)
$$;
COMMENT ON FUNCTION jetcopy.monitor_dead_letters IS 'For monitoring: dead letters ever stored';

-- Of each shard that has a checkpoint, also where there are none, and the age of the newest. A table of few
-- rows.
CREATE FUNCTION jetcopy.monitor_losses()
    RETURNS TABLE (pipeline text, shard text, recorded bigint, newest_age_seconds float8)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.pipeline, c.shard, count(l.id),
        coalesce(extract(epoch FROM now() - max(l.detected_at)), 'Infinity')::float8
    FROM jetcopy.checkpoints c LEFT JOIN jetcopy.losses l USING (shard)
    GROUP BY 1, 2
$$;
COMMENT ON FUNCTION jetcopy.monitor_losses IS 'For monitoring: losses of each shard';

-- The store

-- The daily roll-up, and the finer ones behind its end, by `key`. What no roll-up has yet, a minute or two,
-- is missing. NULL as key where there is none.
CREATE FUNCTION jetcopy.monitor_rolled_up(stem text, value text, key text)
    RETURNS TABLE (of text, total bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
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
$$;
COMMENT ON FUNCTION jetcopy.monitor_rolled_up IS 'For monitoring: sums of a column of roll-ups, by key';

-- Every table with its partitions or chunks: rows by the statistics, size, and for compressed chunks the size
-- before and after. The 200 biggest where there are more.
CREATE FUNCTION jetcopy.monitor_tables()
    RETURNS TABLE (relation text, rows_estimate bigint, total_bytes bigint, chunks bigint,
        compressed_chunks bigint, before_bytes bigint, after_bytes bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
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
$$;
COMMENT ON FUNCTION jetcopy.monitor_tables IS
    'For monitoring: size, rows and compression of the store''s tables';

-- Without roll-ups, the rows that are there, by the statistics.
CREATE FUNCTION jetcopy.monitor_frames()
    RETURNS TABLE (total bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
COMMENT ON FUNCTION jetcopy.monitor_frames IS 'For monitoring: frames ever stored';

CREATE FUNCTION jetcopy.monitor_detections()
    RETURNS TABLE (label text, total bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(of, ''), r.total
        FROM jetcopy.monitor_rolled_up('detection_stats', 'detections', 'label') r
$$;
COMMENT ON FUNCTION jetcopy.monitor_detections IS 'For monitoring: detections ever stored, by label';

-- The server

-- No rows without TimescaleDB. A job that has not run yet does not fail.
CREATE FUNCTION jetcopy.monitor_jobs()
    RETURNS TABLE (job_id text, task text, relation text, failing bigint, runs_total bigint,
        failures_total bigint, success_age_seconds float8, duration_seconds float8)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
COMMENT ON FUNCTION jetcopy.monitor_jobs IS 'For monitoring: TimescaleDB''s jobs and how they ended';

-- The 100 statements: calls and seconds. No text, which may hold secrets: the id leads to it in
-- pg_stat_statements. Only statements that read or write rows, for a COPY's time is mostly its client's, and
-- none of the role that asks. It runs with the rights of its caller, since pg_monitor may see the statements
-- of every role, and the owner perhaps not.
CREATE FUNCTION jetcopy.monitor_statements()
    RETURNS TABLE (queryid text, calls_total bigint, seconds_total float8)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
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
$$;
COMMENT ON FUNCTION jetcopy.monitor_statements IS 'For monitoring: the statements that take most time';

-- Whichever views say it: from PostgreSQL 17 on that is pg_stat_checkpointer and pg_stat_io, before it is
-- pg_stat_bgwriter.
CREATE FUNCTION jetcopy.monitor_writes()
    RETURNS TABLE (checkpoints_timed bigint, checkpoints_requested bigint, checkpointer_buffers bigint,
        background_writer_buffers bigint, backend_buffers bigint)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
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
COMMENT ON FUNCTION jetcopy.monitor_writes IS
    'Who wrote buffers to disk, and why the server made checkpoints, on each version of it';

-- Through a foreign server of the name pgbouncer (docs/runbooks.md); no rows where there is none.
CREATE FUNCTION jetcopy.monitor_pgbouncer()
    RETURNS TABLE (pool text, pool_user text, clients_active bigint, clients_waiting bigint,
        servers_active bigint, servers_idle bigint, servers_used bigint, max_wait_seconds float8)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
COMMENT ON FUNCTION jetcopy.monitor_pgbouncer IS 'For monitoring: PgBouncer''s pools';

REVOKE ALL ON FUNCTION
    jetcopy.monitor_checkpoints(), jetcopy.monitor_dead_letters(), jetcopy.monitor_losses(),
    jetcopy.monitor_rolled_up(text, text, text), jetcopy.monitor_tables(), jetcopy.monitor_frames(),
    jetcopy.monitor_detections(), jetcopy.monitor_jobs(), jetcopy.monitor_statements(),
        jetcopy.monitor_writes(),
    jetcopy.monitor_pgbouncer()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    jetcopy.monitor_checkpoints(), jetcopy.monitor_dead_letters(), jetcopy.monitor_losses(),
    jetcopy.monitor_rolled_up(text, text, text), jetcopy.monitor_tables(), jetcopy.monitor_frames(),
    jetcopy.monitor_detections(), jetcopy.monitor_jobs(), jetcopy.monitor_statements(),
        jetcopy.monitor_writes(),
    jetcopy.monitor_pgbouncer()
TO pg_monitor;
