//! The servers of the database, as all pipelines of a daemon know them.
//!
//! Guarantees: where the last good server no longer serves, the writable one is searched for once for all
//! pipelines that need it, over all hosts at once; each then logs in there. A search that fails does so for
//! all who waited for it. No more than [`LOGINS`] of them log in at the same time, so that the first ones
//! commit soon. Which timeline is the newest is known to all ([`Newest`]).
//!
//! A server that no longer answers is told from one that is slow ([`Servers::falls_silent`]): it lets nobody
//! in. So a lock, a trigger or a synchronous standby may take as long as the settings let it, and a frozen
//! server, or one that the network has cut off, is left after a few seconds, whatever it was at.
//!
//! Not guaranteed: that the server behind a pooler is noticed to be frozen. The pooler answers, and what is
//! waited for then ends by the deadline of its step.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::connect::{self, ConnectError, Session};
use super::timeline::Newest;
use crate::config;

/// Pipelines that log in at the same time: a login costs a server some milliseconds of one core, mostly for
/// the password, and a new primary has more to do.
const LOGINS: usize = 8;

/// How long the last good server alone is asked. A login takes milliseconds.
const HEAD_START: Duration = Duration::from_millis(250);

/// How long a search that found nothing stands for those who ask next: however many pipelines a daemon has,
/// standbys are asked some times a second, and a promotion is met within as much.
const AGAIN: Duration = Duration::from_millis(150);

/// A step that takes longer makes it doubtful whether the server is there.
const DOUBT: Duration = Duration::from_secs(1);

/// How long a server may take to let somebody in, and how many times as long as it took before, if that is
/// more: far from it, or when it is busy, a login takes its time.
const ANSWER: Duration = Duration::from_secs(2);
const SLOWER: u32 = 4;

/// Answers that have to be missing in a row: one may be lost behind the rows that are on their way.
const MISSED: u32 = 2;

/// How the server knows the session that searches.
const NAME: &str = "jetcopy search";

/// What a daemon knows of its database's servers.
#[derive(Debug, Default)]
pub struct Servers {
    newest: Newest,
    /// The host that served last.
    last: Mutex<Option<String>>,
    search: Joint<Search>,
    knock: Joint<Knock>,
    logins: Logins,
}

/// The host that takes writes, and when it was searched for.
type Search = (Result<String, Arc<ConnectError>>, Instant);

/// Which host was asked, whether it answered, and when.
type Knock = (String, bool, Instant);

#[derive(Debug)]
struct Logins(Semaphore);

impl Default for Logins {
    fn default() -> Self {
        Self(Semaphore::new(LOGINS))
    }
}

impl Servers {
    /// Which timeline is the newest that is known.
    pub fn newest(&self) -> &Newest {
        &self.newest
    }

    /// A session of `name` on the server that takes writes.
    pub async fn connect(
        self: &Arc<Self>,
        config: &config::Postgres,
        name: &str,
    ) -> Result<Session, Arc<ConnectError>> {
        if let Some(last) = self.last() {
            let mut login = pin!(self.login(config, name, &last));
            let known = if let Ok(known) = timeout(HEAD_START, &mut login).await {
                known
            } else {
                // It, or another one: whichever serves first.
                tokio::select! {
                    known = &mut login => known,
                    found = self.search(config) => match found? {
                        found if found == last => login.await,
                        found => self.login(config, name, &found).await,
                    },
                }
            };
            if let Some(Ok(session)) = known {
                return Ok(session);
            }
            self.forget(&last);
        }
        let found = self.search(config).await?;
        let session = self.login(config, name, &found).await;
        // A host that has been found is one of the URL's.
        session.unwrap_or_else(|| Err(unnamed(&found))).map_err(Arc::new)
    }

    /// Another session on the host of one that is there.
    pub async fn connect_beside(
        &self,
        config: &config::Postgres,
        name: &str,
        host: &str,
    ) -> Result<Session, Arc<ConnectError>> {
        let session = self.login(config, name, host).await;
        session.unwrap_or_else(|| Err(unnamed(host))).map_err(Arc::new)
    }

    /// Resolves once the server of a session on `host`, whose login `took` so long, answers nobody, while
    /// what is waited for there has been under way `since`.
    pub async fn falls_silent(
        &self,
        config: &config::Postgres,
        host: &str,
        took: Duration,
        since: impl Fn() -> Option<Duration>,
    ) {
        let limit = ANSWER.max(took * SLOWER);
        let mut missed = 0;
        loop {
            let lasted = since().unwrap_or_default();
            if lasted < DOUBT {
                missed = 0;
                sleep(DOUBT.saturating_sub(lasted).max(DOUBT / 4)).await;
                continue;
            }
            let started = Instant::now();
            let knock = || {
                let (config, host) = (config.clone(), host.to_owned());
                async move {
                    let answers = connect::answers(&config, &host, limit).await;
                    (host, answers, Instant::now())
                }
                .boxed()
            };
            let fresh = |(_, _, at): &Knock| at.elapsed() < DOUBT / 2;
            let (asked, answers, _) = self.knock.join(fresh, knock).await;
            // It may have been another pipeline's server that was asked.
            if asked == host {
                missed = if answers { 0 } else { missed + 1 };
            }
            if missed >= MISSED {
                self.forget(host);
                return;
            }
            sleep(DOUBT.saturating_sub(started.elapsed())).await;
        }
    }

    /// The host that takes writes, searched for once for all who ask meanwhile.
    async fn search(self: &Arc<Self>, config: &config::Postgres) -> Result<String, Arc<ConnectError>> {
        let search = || {
            let (servers, config) = (Arc::clone(self), config.clone());
            async move {
                let found = connect::connect_newest(&config, NAME, &servers.newest).await;
                let host = found.map(|session| {
                    let host = session.host().to_owned();
                    tokio::spawn(session.close());
                    host
                });
                (host.map_err(Arc::new), Instant::now())
            }
            .boxed()
        };
        let vain = |(found, at): &Search| found.is_err() && at.elapsed() < AGAIN;
        self.search.join(vain, search).await.0
    }

    /// A session on one host; `None` where it is none of the URL's.
    async fn login(
        &self,
        config: &config::Postgres,
        name: &str,
        host: &str,
    ) -> Option<Result<Session, ConnectError>> {
        // It is never closed.
        let _permit = self.logins.0.acquire().await.ok()?;
        let session = connect::connect_to(config, name, &self.newest, host).await?;
        if session.is_ok() {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(host.to_owned());
        }
        Some(session)
    }

    fn forget(&self, host: &str) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take_if(|last| last == host);
    }

    fn last(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn unnamed(host: &str) -> ConnectError {
    ConnectError::Unreachable { host: host.to_owned(), source: "it is no longer in the URL".into() }
}

/// Work that is done once for all who ask for it while it is under way.
struct Joint<T: Clone>(Mutex<Option<Shared<BoxFuture<'static, T>>>>);

impl<T: Clone> Joint<T> {
    /// What comes of the work that is under way, what came of it if that is still `good`, or of `work`.
    async fn join(&self, good: impl Fn(&T) -> bool, work: impl FnOnce() -> BoxFuture<'static, T>) -> T {
        let shared = {
            let mut under_way = self.under_way();
            match under_way.as_ref().filter(|shared| shared.peek().is_none_or(&good)) {
                Some(shared) => shared.clone(),
                None => under_way.insert(work().shared()).clone(),
            }
        };
        shared.await
    }

    fn under_way(&self) -> MutexGuard<'_, Option<Shared<BoxFuture<'static, T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Default for Joint<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> std::fmt::Debug for Joint<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joint").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn work_is_done_once_for_all_who_ask_meanwhile_and_again_afterwards() {
        let (joint, done) = (Joint::default(), Arc::new(AtomicU32::new(0)));
        // Closed once all have asked.
        let gate = Arc::new(Semaphore::new(0));
        let work = || {
            let (done, gate) = (Arc::clone(&done), Arc::clone(&gate));
            async move {
                assert!(gate.acquire().await.is_err());
                done.fetch_add(1, Ordering::Relaxed) + 1
            }
            .boxed()
        };
        let join = || joint.join(|_| false, work);
        let asked = futures_util::future::join4(join(), join(), join(), async { gate.close() });
        assert_eq!(asked.await, (1, 1, 1, ()));
        assert_eq!(join().await, 2);
        assert_eq!(joint.join(|&last| last == 2, work).await, 2);
    }
}
