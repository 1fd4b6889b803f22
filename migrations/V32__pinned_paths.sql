-- A function or an operator that somebody made in a schema of the search path is taken before the server's own where its
-- types fit a call better. So a role that may CREATE in such a schema could have its code run with the rights of those who
-- call jetcopy's functions, or own them. From here on none of them looks for functions and operators anywhere but in pg_catalog:
-- `jetcopy migrate` sees to it, after this migration and each later one, but for these, which looked for tables by the path.

-- Where the store's tables are, by the path of whoever migrated last.
DO $migration$
BEGIN
    EXECUTE pg_catalog.format(
        'CREATE FUNCTION jetcopy.store_schemas() RETURNS name[]
            LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS %L',
        pg_catalog.format('SELECT %L::name[]', pg_catalog.current_schemas(false)));
END
$migration$;
COMMENT ON FUNCTION jetcopy.store_schemas() IS 'The schemas where monitoring looks for the tables of the store, the first one first';

-- A table of the store by its bare name; NULL where there is none. One of another owner than the schema jetcopy, this function or
-- a superuser is none of the store: a view could bring somebody's code along.
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

-- The name of a relation for people: bare where it is what the bare name means.
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

CREATE OR REPLACE FUNCTION jetcopy.monitor_rolled_up(stem text, value text, key text)
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
            WITH days AS MATERIALIZED (SELECT coalesce(max(bucket) + interval '1 day', '-infinity') AS ends FROM %1$s),
            hours AS MATERIALIZED (
                SELECT greatest(coalesce(max(bucket) + interval '1 hour', '-infinity'), (SELECT ends FROM days)) AS ends FROM %2$s)
            SELECT key, sum(value)::bigint FROM (
                SELECT %4$s::text AS key, %5$I AS value FROM %1$s
                UNION ALL SELECT %4$s::text, %5$I FROM %2$s WHERE bucket >= (SELECT ends FROM days)
                UNION ALL SELECT %4$s::text, %5$I FROM %3$s WHERE bucket >= (SELECT ends FROM hours)
            ) AS rolled_up GROUP BY key
        $query$,
        days, hours, minutes, coalesce(quote_ident(key), 'NULL'), value);
END
$$;

CREATE OR REPLACE FUNCTION jetcopy.monitor_frames()
    RETURNS TABLE (total bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    frames text := jetcopy.shown_name(jetcopy.store_relation('frame_metadata'));
BEGIN
    IF jetcopy.store_relation('frame_stats_1d') IS NOT NULL THEN
        RETURN QUERY SELECT coalesce((SELECT r.total FROM jetcopy.monitor_rolled_up('frame_stats', 'frames', NULL) r), 0);
    ELSIF frames IS NOT NULL THEN
        RETURN QUERY SELECT t.rows_estimate FROM jetcopy.monitor_tables() t WHERE t.relation = frames;
    END IF;
END
$$;

-- Only who may write to a roll-up's source has its buckets summed up again: others could keep the database busy by it.
CREATE OR REPLACE FUNCTION jetcopy.touch(rollup text, buckets timestamptz[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
