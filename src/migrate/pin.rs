//! The paths of the functions of schema `jetcopy`, whichever migration made them.
//!
//! Guarantees: after a run, a function that has rights of its owner, or a path of its own already, looks in
//! `pg_catalog` alone; so do those that find nothing by a bare name. The others are taken into the statement
//! that calls them, which a path would prevent: they name the schema of each function whose types may be
//! anything. Running it again changes nothing.

use tokio_postgres::{Client, Error};

/// What monitoring takes for the schemas of the store.
const SCHEMAS: &str = "DO $$ BEGIN
    IF jetcopy.store_schemas() OPERATOR(pg_catalog.<>) pg_catalog.current_schemas(false) THEN
        EXECUTE pg_catalog.format('CREATE OR REPLACE FUNCTION jetcopy.store_schemas() RETURNS name[]
            LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS %L',
            pg_catalog.format('SELECT %L::name[]', pg_catalog.current_schemas(false)));
    END IF;
END $$";

/// The functions. Their texts are looked at when they are called: a table that they are about need not be
/// there.
const FUNCTIONS: &str = r"SET LOCAL check_function_bodies = off;
DO $migration$
DECLARE
    function record;
    definition text;
BEGIN
    FOR function IN
        SELECT p.oid, p.proname, p.prosecdef, pg_catalog.pg_get_functiondef(p.oid) AS definition,
            EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) AS c (setting)
                WHERE c.setting OPERATOR(pg_catalog.~) '^search_path=') AS has_path
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'jetcopy' AND p.prokind = 'f'
    LOOP
        definition := pg_catalog.replace(function.definition, 'm.value_columns <> ', 'm.value_columns OPERATOR(pg_catalog.<>) ');
        IF function.proname = 'monitor_tables' THEN
            definition := pg_catalog.replace(definition, 'SELECT $1::text,', 'SELECT jetcopy.shown_name($1),');
            definition := pg_catalog.replace(definition, 'c.oid::regclass::text', 'jetcopy.shown_name(c.oid::regclass)');
        END IF;
        IF NOT (function.prosecdef OR function.has_path) THEN
            definition := pg_catalog.regexp_replace(definition,
                '([^.[:alnum:]_])(count|format|lag|lead|unnest|array_agg|jsonb_object_agg|jsonb_build_object|to_jsonb|concat_ws)\s*\(',
                '\1pg_catalog.\2(', 'g');
        END IF;
        IF definition OPERATOR(pg_catalog.<>) function.definition THEN
            EXECUTE definition;
        END IF;
        IF function.prosecdef OR function.has_path
            OR function.proname IN ('monitor_statements', 'partitions', 'refuse_change', 'time_table')
        THEN
            EXECUTE pg_catalog.format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', function.oid::regprocedure);
        END IF;
    END LOOP;
END
$migration$;
SET LOCAL check_function_bodies = on";

/// Sees to it; `all` where a migration was applied.
pub(super) async fn apply(client: &Client, all: bool) -> Result<(), Error> {
    if all {
        client.batch_execute(FUNCTIONS).await?;
    }
    client.batch_execute(SCHEMAS).await
}
