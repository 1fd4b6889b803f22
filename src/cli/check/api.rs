//! The API's side of a check: its role reaches the database, reads the store, and can change nothing.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::CLIENT_NAME;
use super::report::Findings;
use crate::catalog::{ROLLUPS, TABLES};
use crate::chain::chain;
use crate::config::Config;
use crate::exposure::{self, Exposure};
use crate::postgres::connect::{self, ConnectError};
use crate::store::place;

const PLACE: &str = "http.api";

/// Who it is, whether the schema is there, and whether its functions can be called.
const ROLE: &str =
    "SELECT current_user::text, n.oid IS NOT NULL, coalesce(has_schema_privilege(n.oid, 'USAGE'::text), false)
    FROM (SELECT to_regnamespace('jetcopy')::oid) AS n (oid)";

/// Of the store's tables that the role finds: whether it may read them.
const READS: &str =
    "SELECT n.name, has_table_privilege(c.oid, 'SELECT'::text) FROM pg_catalog.unnest($1::text[]) AS n (name)
    JOIN pg_class c ON c.oid = to_regclass(n.name)::oid";

/// What the role may change: tables, and schemas where it may create.
const WRITES: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition
            AND n.nspname::text <> 'information_schema'
            AND n.nspname::text !~ '^(pg_|_?timescaledb)'
            AND (has_table_privilege(c.oid, 'DELETE, TRUNCATE'::text)
                OR has_any_column_privilege(c.oid, 'INSERT, UPDATE'::text))
    UNION ALL SELECT pg_catalog.format('schema %I', n.nspname) FROM pg_namespace n
        WHERE n.nspname::text !~ '^(pg_|_?timescaledb|information_schema)'
            AND has_schema_privilege(n.oid, 'CREATE'::text)
    ORDER BY 1";

/// Names that a finding shows.
const SHOWN: usize = 3;

/// What the role may do.
struct Rights {
    unreadable: Vec<String>,
    readable: usize,
    writable: Vec<String>,
}

/// Looks, where there is an API.
pub(super) async fn look(config: &Config, report: &mut Findings) {
    let Some(api) = &config.http.api else { return };
    let settings = api.postgres(config.postgres.tls.as_ref());
    let session = match connect::connect_any(&settings, CLIENT_NAME).await {
        Ok(session) => session,
        Err(error @ (ConnectError::Unreachable { .. } | ConnectError::NotWritable { .. })) => {
            return report.error(PLACE, chain(&error), "start the server, or correct http.api.url");
        }
        Err(error) => return report.failure(PLACE, &error),
    };
    if let Some(Exposure { text, remedy, .. }) = exposure::of_database(&session) {
        report.warn(PLACE, text, remedy);
    }
    if let Err(error) = judge(&session.client, session.host(), report).await {
        report.failure(PLACE, &error);
    }
    session.close().await;
}

async fn judge(client: &Client, host: &str, report: &mut Findings) -> Result<(), Error> {
    let row = client.query_typed_one(ROLE, &[]).await?;
    let (role, migrated, usage): (String, bool, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let grant = format!("GRANT jetcopy_reader TO {role}; config/postgres/roles.sql creates it");
    if !migrated {
        report.error(
            PLACE,
            "the database has no schema jetcopy",
            "run `jetcopy migrate`, or correct http.api.url",
        );
        return Ok(());
    }
    if !usage {
        report.error(
            PLACE,
            format!("role {role} has no USAGE on schema jetcopy, which holds the queries"),
            grant,
        );
        return Ok(());
    }
    let Rights { unreadable, readable, writable } = Rights::read(client).await?;
    if !unreadable.is_empty() {
        report.error(PLACE, format!("role {role} may not read {}", named(&unreadable)), &grant);
    } else if readable == 0 {
        report.error(
            PLACE,
            format!("role {role} sees no table of the store"),
            format!("name its groups in [store] tables and run `jetcopy migrate`; then {grant}"),
        );
    }
    if !writable.is_empty() {
        report.warn(
            PLACE,
            format!("role {role} should be read-only, but may change {}", named(&writable)),
            "use a role in http.api.url that is granted only jetcopy_reader from config/postgres/roles.sql",
        );
    } else if unreadable.is_empty() && readable > 0 {
        report.ok(
            PLACE,
            format!("role {role} at {host} can read {readable} tables of the store and change nothing"),
        );
    }
    Ok(())
}

impl Rights {
    async fn read(client: &Client) -> Result<Self, Error> {
        let names: Vec<&str> = TABLES
            .iter()
            .map(|table| table.name)
            .chain(ROLLUPS.iter().map(|rollup| rollup.name))
            .chain(place::OTHERS)
            .collect();
        client.batch_execute(&format!("BEGIN READ ONLY; {}", place::ENTER)).await?;
        let (mut unreadable, mut readable) = (Vec::new(), 0);
        for row in client.query_typed(READS, &[(&names, Type::TEXT_ARRAY)]).await? {
            if row.try_get(1)? {
                readable += 1;
            } else {
                unreadable.push(row.try_get(0)?);
            }
        }
        let rows = client.query_typed(WRITES, &[]).await?;
        let writable = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        client.batch_execute("ROLLBACK").await?;
        Ok(Self { unreadable, readable, writable })
    }
}

/// The first of them, and how many more there are.
fn named(names: &[String]) -> String {
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
