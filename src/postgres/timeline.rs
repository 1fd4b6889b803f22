//! Which history of the database a server writes on.
//!
//! A promoted standby starts a new timeline, with a higher number. The primary that it replaced does not
//! know: where it is started again, it takes writes as before, and whoever connects to it would write into a
//! history that is given up.
//!
//! Guarantees: once a daemon has met a timeline of a cluster, or a durable consumer tells of it, it admits no
//! older one of that cluster, until every host of the URL has been heard and none is on the newer one: then
//! that history is the one that is given up ([`Newest::give_up`]). Whatever it admits, the checkpoint there
//! decides where reading goes on.
//!
//! Not guaranteed: that it knows a timeline on which nothing was placed in NATS yet by the time the process
//! ended; and on servers that do not tell their timeline every session is admitted.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_postgres::{Client, Error, SimpleQueryRow};

use super::simple::ask;

/// The cluster's identity and its timeline, as the write-ahead log has it now: what `pg_control_checkpoint`
/// tells lags behind a promotion by a second and more. Any role may ask. A standby has no place where it
/// would write: it follows the newest of those that it knows of.
const ASK: &str = "SELECT s.system_identifier, CASE WHEN pg_is_in_recovery() \
       THEN to_hex(greatest(c.timeline_id, r.min_recovery_end_timeline, w.received_tli)) \
       ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END \
     FROM pg_control_system() AS s, pg_control_checkpoint() AS c, pg_control_recovery() AS r \
     LEFT JOIN pg_stat_get_wal_receiver() AS w ON true";

/// A timeline of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// What all copies of one cluster share.
    pub system: String,
    /// Raised by each promotion.
    pub timeline: u32,
}

/// The newest history that a daemon knows of.
#[derive(Debug, Default)]
pub struct Newest(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    newest: Option<History>,
    /// What was newer once, and no host has any more.
    given_up: Option<History>,
}

/// The history that a server writes on, or follows; `None` where it does not tell.
pub async fn history(client: &Client) -> Result<Option<History>, Error> {
    match ask(client, ASK).await {
        Ok(answer) => Ok(answer.first().and_then(read)),
        Err(error) if error.as_db_error().is_some() && !client.is_closed() => {
            tracing::debug!(%error, "the server does not report its timeline");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn read(row: &SimpleQueryRow) -> Option<History> {
    let timeline = u32::from_str_radix(row.get(1)?, 16).ok()?;
    Some(History { system: row.get(0)?.to_owned(), timeline })
}

impl History {
    /// Whether a promotion of the same cluster has ended it, as far as `newest` is one.
    fn is_older_than(&self, newest: &Self) -> bool {
        self.system == newest.system && self.timeline < newest.timeline
    }
}

impl Newest {
    /// Whether a server on `found` may be written to: it is not older than what is known. Remembers it.
    pub fn admits(&self, found: &History) -> bool {
        let mut known = self.known();
        if known.newest.as_ref().is_some_and(|newest| found.is_older_than(newest)) {
            return false;
        }
        if known.newest.as_ref() != Some(found) {
            *known = Known { newest: Some(found.clone()), given_up: None };
        }
        true
    }

    /// Takes in what was written down before, unless it was given up since.
    pub fn remember(&self, noted: History) {
        let mut known = self.known();
        let is_new = known.newest.as_ref().is_none_or(|newest| newest.is_older_than(&noted));
        if is_new && known.given_up.as_ref() != Some(&noted) {
            known.newest = Some(noted);
        }
    }

    /// No host has the newest history any more: `found` takes its place.
    pub fn give_up(&self, found: &History) {
        let mut known = self.known();
        let Some(newest) = known.newest.take_if(|newest| found.is_older_than(newest)) else { return };
        known.newest = Some(found.clone());
        tracing::warn!(
            system = found.system,
            timeline = found.timeline,
            given_up = newest.timeline,
            "the database went back to an older timeline, and no host of the URL has the newer one; going on \
             from the checkpoint there"
        );
        known.given_up = Some(newest);
    }

    /// Whether a host on `found` shows that the newest history is still there, so that it may come back.
    pub fn is_kept_by(&self, found: &History) -> bool {
        let known = self.known();
        known.newest.as_ref().is_none_or(|newest| !found.is_older_than(newest))
    }

    /// What is known.
    pub fn get(&self) -> Option<History> {
        self.known().newest.clone()
    }

    /// Plain data: what a panicking thread left behind is still whole.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(system: &str, timeline: u32) -> History {
        History { system: system.to_owned(), timeline }
    }

    #[test]
    fn an_older_timeline_of_the_same_cluster_is_refused() {
        let newest = Newest::default();
        assert!(newest.admits(&of("a", 1)) && newest.admits(&of("a", 3)));
        assert!(!newest.admits(&of("a", 1)) && !newest.admits(&of("a", 2)));
        assert!(newest.admits(&of("a", 3)));
    }

    #[test]
    fn another_cluster_has_a_history_of_its_own() {
        let newest = Newest::default();
        assert!(newest.admits(&of("a", 7)) && newest.admits(&of("b", 1)));
    }

    #[test]
    fn what_was_written_down_counts_as_met_until_it_is_given_up() {
        let newest = Newest::default();
        newest.remember(of("a", 3));
        newest.remember(of("a", 2));
        assert!(!newest.admits(&of("a", 2)));
        assert!(newest.is_kept_by(&of("a", 3)) && !newest.is_kept_by(&of("a", 2)));
        newest.give_up(&of("a", 2));
        newest.remember(of("a", 3));
        assert!(newest.admits(&of("a", 2)));
        // A server that has it says more than what was written down.
        assert!(newest.admits(&of("a", 3)) && !newest.admits(&of("a", 2)));
    }
}
