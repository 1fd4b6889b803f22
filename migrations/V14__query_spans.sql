-- Queries of spans that the planner sees the ends of.
--
-- TimescaleDB compares a span with the ends of compressed batches before it decompresses them, but not through coalesce(): a
-- span that begins at now() - interval '1 day' was estimated to be all of the table, for which workers were started and code
-- was compiled. Through CASE it does. The answers are the same.
SET LOCAL check_function_bodies = off;

DO $migration$
DECLARE
    definition text;
BEGIN
    FOR definition IN
        SELECT pg_get_functiondef(p.oid) FROM pg_proc p
        WHERE p.pronamespace = 'jetcopy'::regnamespace AND p.prosrc ~ 'coalesce\(\w+\.(since|until), ''-?infinity''\)'
    LOOP
        EXECUTE regexp_replace(definition, 'coalesce\((\w+\.(?:since|until)), (''-?infinity'')\)',
            'CASE WHEN \1 IS NULL THEN \2 ELSE \1 END', 'g');
    END LOOP;
END
$migration$;

-- As before, but the columns come out of one array, of which the planner expects ten. It expected a hundred of the steps, and a
-- thousand rows of each.
CREATE OR REPLACE FUNCTION jetcopy.series_columns(
    series text,
    columns text[] DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL
) RETURNS TABLE (column_name text) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT n.name
    FROM unnest(coalesce(
        series_columns.columns,
        (SELECT m.value_columns FROM time_series_metadata m WHERE m.id = series_columns.series AND m.value_columns <> '{}'),
        ARRAY(
            WITH RECURSIVE found (name) AS (
                SELECT (
                    SELECT p.column_name FROM time_series_data_points p
                    WHERE p.series_id = series_columns.series
                        AND p.timestamp >= CASE WHEN series_columns.since IS NULL THEN '-infinity' ELSE series_columns.since END
                        AND p.timestamp < CASE WHEN series_columns.until IS NULL THEN 'infinity' ELSE series_columns.until END
                    ORDER BY p.column_name LIMIT 1)
                UNION ALL
                SELECT (
                    SELECT p.column_name FROM time_series_data_points p
                    WHERE p.series_id = series_columns.series AND p.column_name > f.name
                        AND p.timestamp >= CASE WHEN series_columns.since IS NULL THEN '-infinity' ELSE series_columns.since END
                        AND p.timestamp < CASE WHEN series_columns.until IS NULL THEN 'infinity' ELSE series_columns.until END
                    ORDER BY p.column_name LIMIT 1)
                FROM found f WHERE f.name IS NOT NULL
            )
            SELECT f.name FROM found f WHERE f.name IS NOT NULL)
    )) AS n (name)
$$;

SET LOCAL check_function_bodies = on;
