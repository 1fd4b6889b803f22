-- Functions and operators in schema public that fit better than the server's own where a call leaves a choice: as many as there is a
-- name for that jetcopy calls (NAMES), for the types that its catalogs and tables have (TYPES). Each fails, and so stands in the server's log.
CREATE ROLE mallory LOGIN;
GRANT CREATE, USAGE ON SCHEMA public TO mallory;
SET ROLE mallory;
-- What is made here must not spring what was made before.
SET search_path = pg_catalog, pg_temp;
SET check_function_bodies = off;

DO $traps$
DECLARE
    all_types CONSTANT text[] := '{TYPES}';
    numbers CONSTANT text[] := ARRAY['int2', 'int4', 'int8', 'float4', 'float8', 'numeric', 'timestamptz', 'date', 'interval'];
    texts CONSTANT text[] := ARRAY['"char"', 'name', 'text', 'varchar', 'jsonb', 'text[]', 'name[]', 'int4[]', 'int4', 'int8', 'oid', 'regclass'];
    firsts CONSTANT text[] := ARRAY['"char"', 'name', 'text', 'int4', 'int8', 'oid', 'regclass', 'float8', 'timestamptz', 'jsonb', 'text[]',
        'int4[]', 'int8[]'];
    seconds CONSTANT text[] := ARRAY['name', 'text', 'int4', 'int8', 'oid', 'float8', 'text[]'];
    body CONSTANT text := $body$ LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''sprung''; END'$body$;
    one text;
    two text;
    operator text;
    function record;
BEGIN
    FOREACH one IN ARRAY all_types LOOP
        FOREACH two IN ARRAY all_types LOOP
            EXECUTE format('CREATE FUNCTION public.trap(%s, %s) RETURNS bool %s', one, two, body);
            FOREACH operator IN ARRAY ARRAY['=', '<>', '<', '<=', '>', '>='] LOOP
                CONTINUE WHEN to_regoperator(format('pg_catalog.%s(%s,%s)', operator, one, two)) IS NOT NULL;
                EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.trap, LEFTARG = %s, RIGHTARG = %s)', operator, one, two);
            END LOOP;
        END LOOP;
    END LOOP;
    FOR one, two, operator IN
        SELECT a, b, o FROM unnest(numbers) a, unnest(numbers) b, unnest(ARRAY['+', '-', '*', '/', '%']) o
        UNION ALL SELECT a, b, o FROM unnest(texts) a, unnest(texts) b, unnest(ARRAY['||', '~', '!~', '~~', '!~~', '~~*']) o
        UNION ALL SELECT 'jsonb', b, o FROM unnest(texts) b, unnest(ARRAY['->', '->>', '?', '@>']) o
    LOOP
        CONTINUE WHEN to_regoperator(format('pg_catalog.%s(%s,%s)', operator, one, two)) IS NOT NULL;
        IF to_regprocedure(format('public.trap_of(%s,%s)', one, two)) IS NULL THEN
            EXECUTE format('CREATE FUNCTION public.trap_of(%s, %s) RETURNS %s %s', one, two,
                CASE WHEN operator IN ('->', '->>', '?') THEN 'text' ELSE one END, body);
        END IF;
        EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.trap_of, LEFTARG = %s, RIGHTARG = %s)', operator, one, two);
    END LOOP;
    -- A function by its name and what it answers with, for one argument and for two.
    FOR function IN
        SELECT p.proname, (array_agg(CASE WHEN t.typtype = 'p' THEN NULL ELSE format_type(t.oid, NULL) END ORDER BY t.typtype))[1] AS answer,
            bool_or(p.pronargs - p.pronargdefaults <= 1 OR p.provariadic <> 0) AS of_one, bool_or(p.pronargs >= 2) AS of_two
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_type t ON t.oid = p.prorettype
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY ('{NAMES}') GROUP BY 1
    LOOP
        FOREACH one IN ARRAY all_types LOOP
            IF function.of_one AND to_regprocedure(format('pg_catalog.%I(%s)', function.proname, one)) IS NULL THEN
                EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s %s', function.proname, one,
                    coalesce(function.answer, one), body);
            END IF;
            CONTINUE WHEN NOT function.of_two OR one <> ALL (firsts);
            FOREACH two IN ARRAY seconds LOOP
                CONTINUE WHEN to_regprocedure(format('pg_catalog.%I(%s,%s)', function.proname, one, two)) IS NOT NULL;
                EXECUTE format('CREATE FUNCTION public.%I(%s, %s) RETURNS %s %s', function.proname, one, two,
                    coalesce(function.answer, one), body);
            END LOOP;
        END LOOP;
    END LOOP;
    FOR one, two IN SELECT a, b FROM unnest(texts) a, unnest(texts) b LOOP
        EXECUTE format('CREATE FUNCTION public.format(text, %s, %s) RETURNS text %s', one, two, body);
    END LOOP;
END
$traps$;
RESET ROLE;
RESET search_path;
RESET check_function_bodies;
