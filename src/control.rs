//! What operators do to a checkpoint: pause a pipeline, let it go on, accept dead letters, move it back.
//!
//! Guarantees: each is one transaction on the checkpoint's row. When [`pause`] has returned, nothing more of
//! the shard is committed until [`resume`]. It needs the database alone; a daemon notices within its next
//! commit, or its next look at an idle shard.

use crate::checkpoint::{self, Claim, Paused, Resumed};
use crate::config::Postgres;
use crate::postgres::connect::{ConnectError, Session, connect};
use crate::postgres::simple::{self, Answers};
use crate::shard::Shard;
use crate::write::flood::rules_sql;

pub(crate) mod accept;
pub(crate) mod rewind;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session.
    #[error("no database connection")]
    Connect(#[from] ConnectError),
    /// The server refused a statement.
    #[error("cannot {action}; is the schema migrated?")]
    Database {
        /// What was tried.
        action: &'static str,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
}

/// The error of a statement that was to do this.
pub(crate) fn failed(action: &'static str) -> impl Fn(tokio_postgres::Error) -> Error {
    move |source| Error::Database { action, source }
}

/// Pauses `shard` in the name of `by`; returns by whom it was paused already.
///
/// It waits for the transaction that is under way, if there is one. A shard that never ran is paused before
/// it starts.
pub(crate) async fn pause(session: &Session, shard: &Shard, by: &str) -> Result<Option<Paused>, Error> {
    checkpoint::pause(&session.client, shard, by).await.map_err(failed("pause the pipeline"))
}

/// Lets a paused shard go on, and one that a flood of dead letters stopped try again.
pub(crate) async fn resume(session: &Session, shard: &Shard) -> Result<Resumed, Error> {
    checkpoint::resume(&session.client, shard).await.map_err(failed("resume the pipeline"))
}

/// Lets `letters` messages of `shard` become dead letters beyond its limits; how many were accepted before,
/// `None` where it has no checkpoint yet. A transaction that is under way is waited for.
pub(crate) async fn accept(session: &Session, shard: &Shard, letters: u32) -> Result<Option<u64>, Error> {
    checkpoint::accept(&session.client, shard, letters).await.map_err(failed("accept dead letters"))
}

/// Whether a shard that a flood of dead letters stopped, and whose rows go into `tables`, is to try again:
/// letters are accepted, somebody resumed it, or the rules of a table are others than those that the flood
/// was met under.
pub(crate) async fn ends_flood(postgres: &Postgres, shard: &Shard, tables: &[&str]) -> Result<bool, Error> {
    let session = connect(postgres, "jetcopy").await?;
    let ends = checkpoint::ends_flood(&session.client, shard, &rules_sql(tables)).await;
    session.close().await;
    ends.map_err(failed("look for what may end a flood"))
}

/// Where a shard stands. Nothing is claimed by that.
pub(crate) async fn claim(session: &Session, shard: &Shard) -> Result<Option<Claim>, Error> {
    checkpoint::read(&session.client, shard).await.map_err(failed("read the checkpoint"))
}

/// What the statements of `sql` answer.
pub(crate) async fn ask(session: &Session, action: &'static str, sql: &str) -> Result<Answers, Error> {
    simple::ask(&session.client, sql).await.map_err(failed(action))
}
