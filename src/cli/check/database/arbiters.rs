//! What `on_conflict = "ignore"` without a key goes by: whatever keeps two rows apart.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::introspect;
use crate::cli::check::report::Findings;
use crate::config::{OnConflict, Table};

/// Unique indexes, those of expressions and of a part of the rows too, and exclusion constraints; and one of
/// them that the server looks at only later, where there is one.
const ARBITERS: &str =
    "SELECT coalesce(bool_or(i.indimmediate), false), min(c.relname::text) FILTER (WHERE NOT i.indimmediate)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = to_regclass($1)::oid AND i.indisvalid AND (i.indisunique OR i.indisexclusion)";

/// Says where `ignore` without a key has no effect, and where the server would refuse it.
pub(super) async fn judge(
    client: &Client,
    place: &str,
    table: &Table,
    found: &introspect::Table,
    report: &mut Findings,
) {
    if table.on_conflict != OnConflict::Ignore || !table.key.is_empty() {
        return;
    }
    let answer = client
        .query_typed_one(ARBITERS, &[(&found.qualified, Type::TEXT)])
        .await
        .and_then(|row| Ok((row.try_get::<_, bool>(0)?, row.try_get::<_, Option<String>>(1)?)));
    match answer {
        Ok((_, Some(deferrable))) => report.error(
            place,
            format!(
                "on_conflict = \"ignore\" without a key does not work with the deferrable constraint \
                 {deferrable}: the server refuses every INSERT"
            ),
            "name the key of another index, or make the constraint NOT DEFERRABLE",
        ),
        Ok((false, None)) => report.warn(
            place,
            "on_conflict has no effect: the table has no unique index and no exclusion constraint",
            "leave on_conflict out, or create the index",
        ),
        Ok((true, None)) => {}
        Err(error) => report.failure(place, &error),
    }
}
