//! What of the store there is by choice: groups of tables (`[store] tables`), and the running bucket of
//! roll-ups (`[store] real_time`).
//!
//! Guarantees: only this module and the migrations name `jetcopy.store_choice`. A group that is not chosen is
//! not created; tables that are there stay.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::catalog::groups::{Group, Groups};

const MIGRATED: &str = "SELECT to_regclass('jetcopy.store_choice') IS NOT NULL";

const READ: &str = "SELECT tables FROM jetcopy.store_choice";

const WRITE: &str = "INSERT INTO jetcopy.store_choice (tables) VALUES ($1)
    ON CONFLICT (one_row) DO UPDATE SET tables = excluded.tables";

const READ_REAL_TIME: &str = "SELECT (to_jsonb(c) ->> 'real_time')::boolean FROM jetcopy.store_choice c";

const WRITE_REAL_TIME: &str =
    "UPDATE jetcopy.store_choice SET real_time = $1 WHERE real_time IS DISTINCT FROM $1";

/// The groups that the database has: those chosen before. Before there was a choice it was all; a new
/// database has none.
pub(crate) async fn before(client: &Client, is_new: bool) -> Result<Groups, tokio_postgres::Error> {
    if is_new {
        return Ok(Groups::new());
    }
    Ok(kept(client).await?.unwrap_or_else(|| Group::ALL.into()))
}

async fn kept(client: &Client) -> Result<Option<Groups>, tokio_postgres::Error> {
    let migrated: bool = client.query_typed_one(MIGRATED, &[]).await?.try_get(0)?;
    if !migrated {
        return Ok(None);
    }
    let Some(row) = client.query_typed_opt(READ, &[]).await? else { return Ok(None) };
    let names: Vec<String> = row.try_get(0)?;
    Ok(Some(Group::ALL.into_iter().filter(|group| names.iter().any(|name| name == group.name())).collect()))
}

/// Keeps the choice.
pub(crate) async fn keep(client: &Client, groups: &Groups) -> Result<(), tokio_postgres::Error> {
    if kept(client).await?.as_ref() != Some(groups) {
        let names: Vec<&str> = groups.iter().map(|group| group.name()).collect();
        client.execute_typed(WRITE, &[(&names, Type::TEXT_ARRAY)]).await?;
    }
    Ok(())
}

/// Whether the roll-ups have the bucket that is not over yet; `None` where nobody has said.
pub(crate) async fn real_time(client: &Client) -> Result<Option<bool>, tokio_postgres::Error> {
    let migrated: bool = client.query_typed_one(MIGRATED, &[]).await?.try_get(0)?;
    if !migrated {
        return Ok(None);
    }
    Ok(client.query_typed_opt(READ_REAL_TIME, &[]).await?.map(|row| row.try_get(0)).transpose()?.flatten())
}

/// Keeps that, where it is named.
pub(crate) async fn keep_real_time(
    client: &Client,
    named: Option<bool>,
) -> Result<(), tokio_postgres::Error> {
    if named.is_some() && real_time(client).await? != named {
        client.execute_typed(WRITE_REAL_TIME, &[(&named, Type::BOOL)]).await?;
    }
    Ok(())
}
