//! Which history of the database a server writes on.
//!
//! A promoted standby starts a new timeline, with a higher number. The primary that it replaced does not
//! know: where it is started again, it takes writes as before, and whoever connects to it would write into a
//! history that is given up.
//!
//! Guarantees: once a process has met a timeline of a cluster, it admits no older one of that cluster again.
//! It does not know what it has not met: a process that starts over takes the first history that it meets,
//! and on servers that do not tell their timeline every session is admitted.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_postgres::{Client, Error, SimpleQueryRow};

use super::simple::ask;

/// The cluster's identity and its timeline, as the write-ahead log has it now: what `pg_control_checkpoint`
/// tells lags behind a promotion by a second and more. Any role may ask. A standby has no place where it
/// would write.
const ASK: &str = "SELECT system_identifier, CASE WHEN NOT pg_is_in_recovery() \
     THEN substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END FROM pg_control_system()";

/// A timeline of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
struct History {
    /// What all copies of one cluster share.
    system: String,
    /// Raised by each promotion.
    timeline: u32,
}

/// The newest history that this process has met.
#[derive(Debug, Default)]
pub struct Newest(Mutex<Met>);

#[derive(Debug, Default)]
struct Met {
    newest: Option<History>,
    /// Whether it took the place of another since [`Newest::take_changed`] was asked.
    changed: bool,
}

impl Newest {
    /// Whether the server may be written to: its history is not older than one that was met before. Remembers
    /// it.
    pub async fn admit(&self, client: &Client) -> Result<bool, Error> {
        let answer = match ask(client, ASK).await {
            Ok(answer) => answer,
            Err(error) if error.as_db_error().is_some() && !client.is_closed() => {
                tracing::debug!(%error, "the server does not report its timeline");
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let found = answer.first().and_then(history);
        Ok(found.is_none_or(|found| self.is_admitted(found)))
    }

    /// Whether the history is another than when this was asked last, as after a failover.
    pub fn take_changed(&self) -> bool {
        std::mem::take(&mut self.met().changed)
    }

    /// The identifier of the cluster that was met last, where its server tells it.
    pub fn system(&self) -> Option<String> {
        self.met().newest.as_ref().map(|newest| newest.system.clone())
    }

    fn is_admitted(&self, found: History) -> bool {
        let mut met = self.met();
        match &met.newest {
            Some(known) if *known == found => return true,
            Some(known) if known.system == found.system && known.timeline > found.timeline => return false,
            Some(_) => met.changed = true,
            None => {}
        }
        met.newest = Some(found);
        true
    }

    /// Plain data: what a panicking thread left behind is still whole.
    fn met(&self) -> MutexGuard<'_, Met> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn history(row: &SimpleQueryRow) -> Option<History> {
    let timeline = u32::from_str_radix(row.get(1)?, 16).ok()?;
    Some(History { system: row.get(0)?.to_owned(), timeline })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(system: &str, timeline: u32) -> History {
        History { system: system.to_owned(), timeline }
    }

    #[test]
    fn an_older_timeline_of_the_same_cluster_is_refused_for_good() {
        let newest = Newest::default();
        assert!(newest.is_admitted(history("a", 1)) && !newest.take_changed());
        assert!(newest.is_admitted(history("a", 3)) && newest.take_changed());
        assert!(!newest.is_admitted(history("a", 1)));
        assert!(!newest.is_admitted(history("a", 2)));
        assert!(newest.is_admitted(history("a", 3)) && !newest.take_changed());
    }

    #[test]
    fn another_cluster_has_a_history_of_its_own() {
        let newest = Newest::default();
        assert!(newest.is_admitted(history("a", 7)));
        assert!(newest.is_admitted(history("b", 1)));
    }
}
