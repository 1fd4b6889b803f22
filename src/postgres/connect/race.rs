//! Asking the hosts of the URL at once.
//!
//! Guarantees: the first host that serves is taken, whatever the others do or leave undone; one that does not
//! answer keeps nobody from the rest. As long as it is waited for, hosts that said no are asked again, since
//! one of them may be promoted meanwhile. The search ends when every host has answered once or its time is
//! over; then what it ends with is what says most.
//!
//! Where a primary on an older timeline is all that takes writes, it is taken only if every other host has
//! answered and follows no newer one.

use std::error::Error as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use super::settings::{Purpose, Route, invalid_url};
use super::{ConnectError, Session, attend};
use crate::config::SessionAttrs;
use crate::postgres::timeline::Newest;

/// How long the first host alone is asked: more than a login takes on a network that works, so that a usual
/// connection costs one server one login.
pub(super) const HEAD_START: Duration = Duration::from_millis(250);

/// When a host that said no is asked again: a promotion is met within as much, and a login costs a standby
/// some milliseconds.
const AGAIN: Duration = Duration::from_millis(200);

/// A session on the first host that serves.
pub(super) async fn first(
    route: &Route,
    purpose: Purpose,
    newest: Option<&Newest>,
    head_start: Duration,
) -> Result<Session, ConnectError> {
    let mut failure: Option<ConnectError> = None;
    for &wanted in route.wanted(purpose)? {
        let errors = match race(route, wanted, newest, head_start).await {
            Ok(session) => return Ok(session),
            Err(errors) => errors,
        };
        if let Some(newest) = newest
            && let Some(host) = given_up(&errors, newest)
        {
            return attend(route, &route.info.hosts[host], wanted, Some(newest)).await;
        }
        for error in errors {
            if failure.as_ref().is_none_or(|known| known.rank() <= error.rank()) {
                failure = Some(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| invalid_url("it names no host")))
}

/// The first session, or what each host said last.
async fn race(
    route: &Route,
    wanted: SessionAttrs,
    newest: Option<&Newest>,
    head_start: Duration,
) -> Result<Session, Vec<ConnectError>> {
    let hosts = &route.info.hosts;
    if hosts.is_empty() {
        return Err(Vec::new());
    }
    let ask = |index: usize, after: Duration| async move {
        sleep(after).await;
        (index, attend(route, &hosts[index], wanted, newest).await)
    };
    let mut said: Vec<Option<ConnectError>> = hosts.iter().map(|_| None).collect();
    let mut asked: FuturesUnordered<_> = std::iter::once(ask(0, Duration::ZERO)).collect();
    let mut waits = hosts.len() > 1;
    let mut start = std::pin::pin!(sleep(head_start));
    loop {
        let (index, error) = tokio::select! {
            Some((index, answer)) = asked.next() => match answer {
                Ok(session) => return Ok(session),
                Err(error) => (index, error),
            },
            () = &mut start, if waits => {
                waits = false;
                asked.extend((1..hosts.len()).map(|index| ask(index, Duration::ZERO)));
                continue;
            }
        };
        tracing::debug!(%error, cause = error.source(), "cannot use this host");
        let passes = error.may_pass();
        said[index] = Some(error);
        if waits {
            waits = false;
            asked.extend((1..hosts.len()).map(|index| ask(index, Duration::ZERO)));
        } else if said.iter().all(Option::is_some) {
            break;
        }
        if passes && said.iter().any(Option::is_none) {
            asked.push(ask(index, AGAIN));
        }
    }
    Err(said.into_iter().flatten().collect())
}

/// The primary that is to be taken though it is older than what is known: every other host has answered, and
/// none has what is newer. With one host alone, nobody says what became of it.
fn given_up(errors: &[ConnectError], newest: &Newest) -> Option<usize> {
    let mut primary = None;
    for (index, error) in errors.iter().enumerate() {
        let history = match error {
            ConnectError::Superseded { history, .. } => {
                primary = primary.or(Some((index, history)));
                history
            }
            ConnectError::NotWritable { history: Some(history), .. } => history,
            _ => return None,
        };
        if newest.is_kept_by(history) {
            return None;
        }
    }
    let (index, history) = primary.filter(|_| errors.len() > 1)?;
    newest.give_up(history);
    Some(index)
}
