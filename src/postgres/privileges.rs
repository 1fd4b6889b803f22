//! Whether the role may do with a target table what its settings ask for.
//!
//! Guarantees: the start of a pipeline and `jetcopy check` judge by the same question, in the same words; a
//! table that the role may not write as configured is reported before a row of it is due. It cannot see what
//! triggers and defaults need.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use super::introspect::{IntrospectError, Table};
use crate::config::{self, OnConflict};

/// A right that the role lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which one, in a few words.
    pub problem: String,
    /// The `GRANT` that gives it.
    pub remedy: String,
}

/// The rights that the role lacks to write `columns` of a table as `settings` say.
pub async fn missing(
    client: &Client,
    settings: &config::Table,
    table: &Table,
    columns: &[String],
) -> Result<Vec<Missing>, Error> {
    // A right to the columns that are written or read will do; the key is never changed.
    let held = |privilege: &str, columns: &str| {
        format!(
            "has_table_privilege(t, '{privilege}') OR coalesce((SELECT bool_and(has_column_privilege(t, c, \
             '{privilege}')) FROM pg_catalog.unnest({columns}) c), false)"
        )
    };
    let sql = format!(
        "SELECT {}, {}, {}, has_database_privilege(current_database()::text, 'TEMP') \
         FROM (SELECT to_regclass($1)::oid) AS x (t)",
        held("INSERT", "$2"),
        held("SELECT", "$2"),
        held("UPDATE", "$3"),
    );
    let updated: Vec<&String> = columns.iter().filter(|column| !settings.key.contains(column)).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&table.qualified, Type::TEXT), (&columns, Type::TEXT_ARRAY), (&updated, Type::TEXT_ARRAY)];
    let row = client.query_typed_one(&sql, &parameters).await?;
    let merges = settings.on_conflict != OnConflict::Error;
    let overwrites = settings.on_conflict == OnConflict::Update;
    let mut missing = Vec::new();
    for (index, privilege, needed) in [(0, "INSERT", true), (1, "SELECT", merges), (2, "UPDATE", overwrites)]
    {
        if needed && !row.try_get::<_, bool>(index)? {
            let problem = format!("no {privilege} privilege");
            missing.push(Missing { problem, remedy: grant(privilege, &table.qualified) });
        }
    }
    if merges && !row.try_get::<_, bool>(3)? {
        missing.push(Missing {
            problem: "on_conflict needs temporary tables, and the role may not create any".to_owned(),
            remedy: "GRANT TEMPORARY ON the database TO the role in postgres.url".to_owned(),
        });
    }
    Ok(missing)
}

/// The statement that gives a right to a table.
#[must_use]
pub fn grant(privilege: &str, table: &str) -> String {
    format!("GRANT {privilege} ON {table} TO the role in postgres.url")
}

/// An error that names all that is missing.
pub async fn require(
    client: &Client,
    settings: &config::Table,
    table: &Table,
    columns: &[String],
) -> Result<(), IntrospectError> {
    let missing = missing(client, settings, table, columns)
        .await
        .map_err(|source| IntrospectError::Query { name: settings.name.clone(), source })?;
    if missing.is_empty() {
        return Ok(());
    }
    let (problems, remedies): (Vec<_>, Vec<_>) =
        missing.into_iter().map(|missing| (missing.problem, missing.remedy)).unzip();
    Err(IntrospectError::Unusable {
        table: settings.name.clone(),
        problem: problems.join(", "),
        remedy: remedies.join("; "),
    })
}
