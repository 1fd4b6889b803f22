//! The schema of the store's tables: `[store] schema`.
//!
//! Guarantees: only this module and the migrations name `jetcopy.store_place`. Where a schema was named, the
//! tables are created there and looked for there, whatever the search path of a role: by `jetcopy migrate`,
//! `maintain` and `store`, and by the functions of schema `jetcopy`, which are written anew with the schema
//! before each table. A store that lies elsewhere is not moved, and not made a second time: that is an error.
//!
//! Where none was ever named, they lie where the search path says, but never in schema `jetcopy`, which a
//! role of that name finds first. Pipelines name their tables themselves.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::catalog::groups::{Group, Groups};
use crate::catalog::{ROLLUPS, TABLES};

/// Tables and views of the store that are not in the catalog.
pub(crate) const OTHERS: [&str; 5] = ["websdrs", "time_series_metadata", "projects", "files", "stats"];

const MIGRATED: &str = "SELECT pg_catalog.to_regclass('jetcopy.store_place') IS NOT NULL";

const READ: &str = "SELECT schema::text FROM jetcopy.store_place";

const WRITE: &str = "INSERT INTO jetcopy.store_place (schema) VALUES ($1::text::name)
    ON CONFLICT (one_row) DO UPDATE SET schema = excluded.schema";

/// For the rest of a transaction: the schema that is kept, where there is one. A transaction without it finds
/// what the search path of its role has.
pub(crate) const ENTER: &str = "DO $$ BEGIN
    IF pg_catalog.to_regclass('jetcopy.store_place') IS NOT NULL THEN
        PERFORM pg_catalog.set_config('search_path', pg_catalog.quote_ident(schema), true)
            FROM jetcopy.store_place;
    END IF;
END $$";

/// The same for a schema that is not kept yet; it is created where it is missing.
const SETTLE: &str = "SELECT pg_catalog.set_config('search_path', pg_catalog.quote_ident($1), true)";

const EXISTS: &str =
    "SELECT pg_catalog.to_regnamespace(pg_catalog.quote_ident($1)) IS NOT NULL, pg_catalog.quote_ident($1)";

/// Tables, by these names, that the search path finds outside of a schema.
const ELSEWHERE: &str = "SELECT n.nspname::text FROM pg_catalog.unnest($1::text[]) AS name
    JOIN pg_class c ON c.oid = pg_catalog.to_regclass(name)::oid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname::text <> $2 ORDER BY 1 LIMIT 1";

/// Writes the functions of schema `jetcopy` anew, with the schema before each table of the store that they
/// read or write. Those that put statements together, or have a search path of their own, get a search path
/// that has it.
const PIN: &str = r#"DO $$
DECLARE
    place text := (SELECT quote_ident(schema) FROM jetcopy.store_place);
    names text := current_setting('jetcopy.store_names');
    found record;
    fresh text;
BEGIN
    SET LOCAL check_function_bodies = off;
    FOR found IN
        SELECT p.oid::regprocedure AS signature, pg_get_functiondef(p.oid) AS text,
            l.lanname = 'sql' AND p.proconfig IS NULL AS plain, p.proconfig
        FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
        WHERE p.pronamespace = 'jetcopy'::regnamespace AND p.prokind = 'f'
            AND p.prosrc ~ ('\m(' || names || ')\M')
            -- With rights of their owner, functions find the tables by jetcopy.store_schemas().
            AND NOT p.prosecdef
    LOOP
        IF found.plain THEN
            fresh := regexp_replace(found.text,
                '\m(FROM|JOIN|UPDATE|INTO)(\s+)((?:"[^"]+"|\w+)\.)?(' || names || ')\M',
                '\1\2' || place || '.\4', 'g');
            IF fresh <> found.text THEN
                EXECUTE fresh;
            END IF;
        ELSIF NOT coalesce('search_path=pg_catalog, ' || place || ', pg_temp' = ANY (found.proconfig), false)
        THEN
            EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, %s, pg_temp',
                found.signature, place);
        END IF;
    END LOOP;
END $$"#;

/// Why the store cannot lie where it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It lies in another schema.
    #[error(
        "[store] schema is {wanted}, but store tables are in {found}: move them and their roll-ups with \
         `ALTER TABLE … SET SCHEMA {wanted}`, or set it to {found} (nothing was changed)"
    )]
    Elsewhere {
        /// The schema that the configuration names.
        wanted: String,
        /// Where they lie.
        found: String,
    },
    /// The server refused a question.
    #[error(transparent)]
    Database(#[from] tokio_postgres::Error),
}

/// Every table, roll-up and view of the store.
fn names() -> impl Iterator<Item = &'static str> {
    let tables = TABLES.iter().map(|table| table.name);
    tables.chain(ROLLUPS.iter().map(|rollup| rollup.name)).chain(OTHERS)
}

async fn kept(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let migrated: bool = client.query_typed_one(MIGRATED, &[]).await?.try_get(0)?;
    if !migrated {
        return Ok(None);
    }
    client.query_typed_opt(READ, &[]).await?.map(|row| row.try_get(0)).transpose()
}

/// Sees to it that the rest of the transaction finds and creates the store's tables where they belong, and
/// returns the schema where one is named or kept. `before` are the groups that the database has.
pub(crate) async fn settle(
    client: &Client,
    named: Option<&str>,
    before: &Groups,
) -> Result<Option<String>, Error> {
    let kept = kept(client).await?;
    if kept.is_some() {
        client.batch_execute(ENTER).await?;
    }
    let Some(schema) = named.or(kept.as_deref()) else { return Ok(None) };
    let ours: Vec<&str> = names().filter(|name| before.contains(&Group::of(name))).collect();
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&ours, Type::TEXT_ARRAY), (&schema, Type::TEXT)];
    if let Some(row) = client.query_typed_opt(ELSEWHERE, &parameters).await? {
        return Err(Error::Elsewhere { wanted: schema.to_owned(), found: row.try_get(0)? });
    }
    let row = client.query_typed_one(EXISTS, &[(&schema, Type::TEXT)]).await?;
    let (exists, quoted): (bool, String) = (row.try_get(0)?, row.try_get(1)?);
    // Where it is there, no right to create one is needed.
    if !exists {
        client.batch_execute(&format!("CREATE SCHEMA {quoted}")).await?;
    }
    client.query_typed(SETTLE, &[(&schema, Type::TEXT)]).await?;
    Ok(Some(schema.to_owned()))
}

/// Keeps the schema, and has every function go by it.
pub(crate) async fn keep(client: &Client, schema: Option<&str>) -> Result<(), tokio_postgres::Error> {
    let Some(schema) = schema else { return Ok(()) };
    if kept(client).await?.as_deref() != Some(schema) {
        client.execute_typed(WRITE, &[(&schema, Type::TEXT)]).await?;
    }
    // The longest first: a name may begin with another.
    let mut names: Vec<&str> = names().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let setting = "SELECT pg_catalog.set_config('jetcopy.store_names', $1, true)";
    client.query_typed(setting, &[(&names.join("|"), Type::TEXT)]).await?;
    client.batch_execute(PIN).await
}
