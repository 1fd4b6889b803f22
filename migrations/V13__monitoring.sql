-- What postgres_exporter asks (config/postgres_exporter/queries.yaml): functions that each answer with the rows of one or
-- more metrics, also where what they look for is not there: a store table, TimescaleDB, pg_stat_statements, PgBouncer.
--
-- They run with the rights of their owner, but for one, so that a role which only has pg_monitor sees numbers and no row of anybody's
-- data. They read roll-ups, statistics and catalogs, never a big table.
GRANT USAGE ON SCHEMA jetcopy TO pg_monitor;

-- The path at this moment becomes that of the functions; nobody's temporary table comes before the real one.
SELECT set_config('jetcopy.search_path', current_setting('search_path'), true),
    set_config('search_path', concat_ws(', ', nullif(current_setting('search_path'), ''), 'pg_temp'), true);

-- Whether each shard moves and who may write it: seconds since the last commit, seconds left of the lease.
CREATE FUNCTION jetcopy.monitor_checkpoints()
    RETURNS TABLE (pipeline text, shard text, stream text, last_sequence bigint, epoch bigint, age_seconds float8, lease_seconds float8)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT pipeline, shard, stream, last_sequence, epoch, extract(epoch FROM now() - updated_at)::float8,
        coalesce(extract(epoch FROM lease_until - now()), 0)::float8
    FROM jetcopy.checkpoints
$$;

-- Dead letters ever stored, by the sequence of their ids: those of transactions that failed count too. How many are there
-- now is what the last ANALYZE found.
CREATE FUNCTION jetcopy.monitor_dead_letters()
    RETURNS TABLE (stored_total bigint, kept_estimate bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT (SELECT coalesce(last_value, 0) FROM pg_sequences
            WHERE format('%I.%I', schemaname, sequencename) = pg_get_serial_sequence('jetcopy.dead_letters', 'id')),
        (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'jetcopy.dead_letters'::regclass)
$$;

-- Losses of each shard that has a checkpoint, also where there are none, and the age of the newest. A table of few rows.
CREATE FUNCTION jetcopy.monitor_losses()
    RETURNS TABLE (pipeline text, shard text, recorded bigint, newest_age_seconds float8)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT c.pipeline, c.shard, count(l.id), coalesce(extract(epoch FROM now() - max(l.detected_at)), 'Infinity')::float8
    FROM jetcopy.checkpoints c LEFT JOIN jetcopy.losses l USING (shard)
    GROUP BY 1, 2
$$;

-- Sums a column of the daily roll-up, and of the finer ones behind its end, by `key`. What no roll-up has yet, a minute
-- or two, is missing. NULL as key where there is none.
CREATE FUNCTION jetcopy.monitor_rolled_up(stem text, value text, key text)
    RETURNS TABLE (of text, total bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF to_regclass(stem || '_1d') IS NULL OR to_regclass(stem || '_1h') IS NULL OR to_regclass(stem || '_1m') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        $query$
            WITH days AS MATERIALIZED (SELECT coalesce(max(bucket) + interval '1 day', '-infinity') AS ends FROM %1$I),
            hours AS MATERIALIZED (
                SELECT greatest(coalesce(max(bucket) + interval '1 hour', '-infinity'), (SELECT ends FROM days)) AS ends FROM %2$I)
            SELECT key, sum(value)::bigint FROM (
                SELECT %4$s::text AS key, %5$I AS value FROM %1$I
                UNION ALL SELECT %4$s::text, %5$I FROM %2$I WHERE bucket >= (SELECT ends FROM days)
                UNION ALL SELECT %4$s::text, %5$I FROM %3$I WHERE bucket >= (SELECT ends FROM hours)
            ) AS rolled_up GROUP BY key
        $query$,
        stem || '_1d', stem || '_1h', stem || '_1m', coalesce(quote_ident(key), 'NULL'), value);
END
$$;

-- Frames ever stored. Without roll-ups, the rows that are there, by the statistics.
CREATE FUNCTION jetcopy.monitor_frames()
    RETURNS TABLE (total bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF to_regclass('frame_stats_1d') IS NOT NULL THEN
        RETURN QUERY SELECT coalesce((SELECT r.total FROM jetcopy.monitor_rolled_up('frame_stats', 'frames', NULL) r), 0);
    ELSIF to_regclass('frame_metadata') IS NOT NULL THEN
        RETURN QUERY SELECT t.rows_estimate FROM jetcopy.monitor_tables() t WHERE t.relation = to_regclass('frame_metadata')::text;
    END IF;
END
$$;

-- Detections ever stored, by label.
CREATE FUNCTION jetcopy.monitor_detections()
    RETURNS TABLE (label text, total bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT coalesce(of, ''), r.total FROM jetcopy.monitor_rolled_up('detection_stats', 'detections', 'label') r
$$;

-- Every table with its partitions or chunks: rows by the statistics, size, and for compressed chunks the size before and
-- after. The 200 biggest where there are more.
CREATE FUNCTION jetcopy.monitor_tables()
    RETURNS TABLE (relation text, rows_estimate bigint, total_bytes bigint, chunks bigint, compressed_chunks bigint,
        before_bytes bigint, after_bytes bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
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
                'SELECT $1::text, %1$s.approximate_row_count($1), %1$s.%2$I($1),
                    (SELECT count(*) FROM timescaledb_information.chunks
                     WHERE format(''%%I.%%I'', hypertable_schema, hypertable_name)::regclass = $1),
                    coalesce(c.compressed, 0)::bigint, coalesce(c.before, 0)::bigint, coalesce(c.after, 0)::bigint
                FROM (SELECT) AS one LEFT JOIN (
                    SELECT sum(number_compressed_chunks) AS compressed, sum(before_compression_total_bytes) AS before,
                        sum(after_compression_total_bytes) AS after
                    FROM %1$s.hypertable_compression_stats($1)) AS c ON true', timescale, size_function)
            USING hypertable;
        END LOOP;
    END IF;
    RETURN QUERY
        SELECT c.oid::regclass::text, p.tuples, p.bytes, p.leaves, 0::bigint, 0::bigint, 0::bigint
        FROM pg_class c
        CROSS JOIN LATERAL (
            SELECT sum(greatest(leaf.reltuples, 0))::bigint AS tuples, sum(pg_total_relation_size(leaf.oid))::bigint AS bytes,
                count(*) FILTER (WHERE leaf.oid <> c.oid) AS leaves
            FROM pg_class leaf
            WHERE leaf.oid = c.oid AND c.relkind = 'r'
                OR leaf.oid IN (SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf AND c.relkind = 'p')
        ) AS p
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' AND c.oid <> ALL (hypertables)
            AND c.relnamespace::regnamespace::text !~ '^(pg_|information_schema$|_?timescaledb_)'
        ORDER BY c.relpages DESC LIMIT 200;
END
$$;

-- TimescaleDB's jobs and how they last ended; no rows without TimescaleDB. A job that has not run yet does not fail.
CREATE FUNCTION jetcopy.monitor_jobs()
    RETURNS TABLE (job_id text, task text, relation text, failing bigint, runs_total bigint, failures_total bigint,
        success_age_seconds float8, duration_seconds float8)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
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
            ) IS DISTINCT FROM 'cannot drop portal "" while it is being set up')::int::bigint, coalesce(s.total_runs, 0),
            coalesce(s.total_failures, 0),
            -- It says -infinity before the first success.
            CASE WHEN isfinite(s.last_successful_finish) THEN extract(epoch FROM now() - s.last_successful_finish) END::float8,
            extract(epoch FROM s.last_run_duration)::float8
        FROM timescaledb_information.jobs j LEFT JOIN timescaledb_information.job_stats s USING (job_id)
        -- TimescaleDB's own housekeeping is its own.
        WHERE j.job_id >= 1000;
END
$$;

-- The 100 statements that take most time: calls and seconds. No text, which may hold secrets: the id leads to it in
-- pg_stat_statements. Only statements that read or write rows, for a COPY's time is mostly its client's, and none of the role
-- that asks. It runs with the rights of its caller, since pg_monitor may see the statements of every role, and the owner
-- perhaps not.
CREATE FUNCTION jetcopy.monitor_statements()
    RETURNS TABLE (queryid text, calls_total bigint, seconds_total float8)
    LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    extension text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'pg_stat_statements');
    -- It was renamed in PostgreSQL 13.
    elapsed text := CASE WHEN current_setting('server_version_num')::int >= 130000 THEN 'total_exec_time' ELSE 'total_time' END;
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

-- PgBouncer's pools, through a foreign server of the name pgbouncer (docs/runbooks.md); no rows where there is none.
CREATE FUNCTION jetcopy.monitor_pgbouncer()
    RETURNS TABLE (pool text, pool_user text, clients_active bigint, clients_waiting bigint, servers_active bigint,
        servers_idle bigint, servers_used bigint, max_wait_seconds float8)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    dblink text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'dblink');
    -- What SHOW POOLS answers: since 1.24, since 1.18, since 1.16, before.
    layouts CONSTANT text[] := ARRAY[
        'w, x, sv_active, y, z, sv_idle, sv_used, sv_tested, sv_login, maxwait, maxwait_us, pool_mode, load_balance_hosts',
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
                'SELECT pool, pool_user, cl_active::bigint, cl_waiting::bigint, sv_active::bigint, sv_idle::bigint, sv_used::bigint,
                    maxwait::float8 + maxwait_us::float8 / 1e6
                FROM %s.dblink(''pgbouncer'', ''SHOW POOLS'') AS pools (pool text, pool_user text, cl_active text, cl_waiting text, %s)',
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

SELECT set_config('search_path', current_setting('jetcopy.search_path'), true);

DO $migration$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'jetcopy'::regnamespace AND proname LIKE 'monitor\_%'
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pg_monitor', function);
    END LOOP;
END
$migration$;
