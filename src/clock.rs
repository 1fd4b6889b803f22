//! The clock of the server that stores the messages: what their ages are measured by.
//!
//! Guarantees: an age is never taken from this machine's wall clock, so that a step of that changes none. The
//! server says in its answers what time it has; between two of them this process's monotonic clock advances
//! it. A step of the server's own clock is seen and told: what was stored before it keeps its age, where
//! times tell that. No age is below 0.
//!
//! Not guaranteed: more than half of a round trip to the server. After a step back, the times that the server
//! gives out a second time are taken for the later ones. Before the server was heard, the wall clock stands
//! in for it.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::stream;
use async_nats::{Client, Request};
use jiff::Timestamp;
use serde::Deserialize;

/// What the monotonic clock counts from here.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How much two clocks may drift apart: one in a thousand, twice what is allowed to set one right slowly.
const DRIFT: i64 = 1_000;

/// Beyond what two readings cannot tell for sure, a difference is a step from here on.
const STEP_NS: i64 = 100_000_000;

/// How long an answer may take, as with the client's own requests.
const ANSWER: Duration = Duration::from_secs(5);

/// The server's clock, as far as it is known; one a pipeline.
#[derive(Debug, Default)]
pub struct Clock(Mutex<Known>);

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    now: Option<Offset>,
    /// What held before the last step, and the server's time by it when that was seen.
    before: Option<(Offset, i64)>,
}

/// How far the server's clock is ahead of the monotonic one.
#[derive(Debug, Clone, Copy)]
struct Offset {
    ns: i64,
    /// How far off that may be.
    error_ns: i64,
    /// When it was measured.
    at_ns: i64,
}

/// The server's clock at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The monotonic time.
    at_ns: i64,
    now_ns: i64,
    before: Option<(Offset, i64)>,
}

/// Nanoseconds of the monotonic clock, from an origin of this process's own.
#[must_use]
pub(crate) fn monotonic_ns() -> i64 {
    since_origin(Instant::now())
}

fn since_origin(at: Instant) -> i64 {
    // An instant may be from before the first look.
    let (after, before) = (at.saturating_duration_since(*ORIGIN), ORIGIN.saturating_duration_since(at));
    let ns = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    ns(after) - ns(before)
}

impl Clock {
    /// Takes up what the server said: that it was `server_ns` (since the Unix epoch) at some time between the
    /// question and the answer.
    pub fn told(&self, server_ns: i64, asked: Instant, answered: Instant) {
        let (from, to) = (since_origin(asked), since_origin(answered));
        let error_ns = (to - from) / 2;
        let new = Offset { ns: server_ns - (from + error_ns), error_ns, at_ns: to };
        let mut known = self.lock();
        let Some(old) = known.now else {
            known.now = Some(new);
            return;
        };
        let old_error = old.error_ns + (to - old.at_ns).max(0) / DRIFT;
        let step = new.ns - old.ns;
        if step.abs() > new.error_ns + old_error + STEP_NS {
            *known = Known { now: Some(new), before: Some((old, to + old.ns)) };
            drop(known);
            #[expect(clippy::cast_precision_loss, reason = "for a person")]
            let seconds = step as f64 / 1e9;
            tracing::warn!(
                seconds,
                "the clock of the NATS server was set to another time, or another server leads"
            );
        } else if new.error_ns <= old_error {
            known.now = Some(new);
        }
    }

    /// What time it is.
    #[must_use]
    pub fn read(&self) -> Reading {
        let Known { now, before } = *self.lock();
        let at_ns = monotonic_ns();
        let wall = || i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        Reading { at_ns, now_ns: now.map_or_else(wall, |offset| at_ns + offset.ns), before }
    }

    /// Plain numbers: what a panicking thread left behind is still whole.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        self.now_ns.div_euclid(1_000)
    }

    /// When the server stored something to which it gave the time `stored_ns`, by the monotonic clock; not
    /// after now.
    #[must_use]
    pub fn stored_at(&self, stored_ns: i64) -> i64 {
        self.at_ns - self.age_ns(stored_ns)
    }

    /// Nanoseconds since the server stored something to which it gave the time `stored_ns`.
    #[must_use]
    pub fn age_ns(&self, stored_ns: i64) -> i64 {
        if let Some((offset, ended_ns)) = self.before {
            let forward = self.now_ns - self.at_ns > offset.ns;
            let error = offset.error_ns + STEP_NS;
            if (forward && stored_ns <= ended_ns + error) || (!forward && stored_ns > self.now_ns + error) {
                return (self.at_ns + offset.ns - stored_ns).max(0);
            }
        }
        (self.now_ns - stored_ns).max(0)
    }

    /// The same in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a lag")]
    pub fn age(&self, stored_ns: i64) -> f64 {
        self.age_ns(stored_ns) as f64 / 1e9
    }
}

/// Asks what a stream is like, and takes up what time the server has.
pub(crate) async fn stream_info(client: &Client, stream: &str, clock: &Clock) -> Result<stream::Info, Error> {
    #[derive(Deserialize)]
    struct Told {
        ts: Option<Timestamp>,
        error: Option<async_nats::jetstream::Error>,
    }
    let asked = Instant::now();
    let request = Request::new().timeout(Some(ANSWER));
    let answer = client.send_request(format!("$JS.API.STREAM.INFO.{stream}"), request).await;
    let (payload, answered) = (answer?.payload, Instant::now());
    let told: Told = serde_json::from_slice(&payload)?;
    if let Some(refusal) = told.error {
        return Err(Error::Refused(refusal));
    }
    if let Some(now) = told.ts {
        clock.told(i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX), asked, answered);
    }
    Ok(serde_json::from_slice(&payload)?)
}

/// The clock of the server of a stream; where it does not answer now, the wall clock stands in.
pub(crate) async fn of_server(client: &Client, stream: &str) -> Clock {
    let clock = Clock::default();
    stream_info(client, stream, &clock).await.ok();
    clock
}

/// Why a stream does not say what it is like.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No answer.
    #[error("no answer to the question about the stream")]
    Request(#[from] async_nats::RequestError),
    /// JetStream refuses.
    #[error(transparent)]
    Refused(async_nats::jetstream::Error),
    /// The answer is of another form than JetStream's.
    #[error("the answer about the stream cannot be read")]
    Answer(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const HOUR: i64 = 3_600 * SECOND;

    /// A server whose clock shows `server_ns` now.
    fn tell(clock: &Clock, server_ns: i64) {
        let now = Instant::now();
        clock.told(server_ns, now, now);
    }

    #[track_caller]
    fn about(found: i64, expected: i64) {
        assert!((found - expected).abs() < SECOND / 2, "{found} and not {expected}");
    }

    #[test]
    fn an_age_is_by_the_servers_clock_whatever_this_machines_says() {
        let clock = Clock::default();
        tell(&clock, 10 * HOUR);
        about(clock.read().age_ns(9 * HOUR), HOUR);
        assert_eq!(clock.read().age_ns(11 * HOUR), 0);
        about(clock.read().now_us() * 1_000, 10 * HOUR);
    }

    #[test]
    fn what_was_stored_before_the_servers_clock_was_set_forward_is_not_an_hour_older() {
        let clock = Clock::default();
        tell(&clock, 10 * HOUR);
        tell(&clock, 11 * HOUR);
        about(clock.read().age_ns(10 * HOUR - 5 * SECOND), 5 * SECOND);
        about(clock.read().age_ns(11 * HOUR - 2 * SECOND), 2 * SECOND);
    }

    #[test]
    fn what_was_stored_before_the_servers_clock_was_set_back_goes_on_growing_old() {
        let clock = Clock::default();
        tell(&clock, 10 * HOUR);
        tell(&clock, 9 * HOUR);
        about(clock.read().age_ns(10 * HOUR - 5 * SECOND), 5 * SECOND);
        about(clock.read().age_ns(9 * HOUR - 2 * SECOND), 2 * SECOND);
    }

    #[test]
    fn an_answer_that_took_long_is_no_step_and_does_not_replace_a_better_one() {
        let clock = Clock::default();
        tell(&clock, 10 * HOUR);
        let now = Instant::now();
        // The server answered at once, and its answer lay behind deliveries for eight seconds.
        clock.told(10 * HOUR, now, now + Duration::from_secs(8));
        about(clock.read().age_ns(9 * HOUR), HOUR);
        assert!(clock.lock().before.is_none());
    }

    #[test]
    fn before_the_server_was_heard_the_wall_clock_stands_in() {
        let wall = i64::try_from(Timestamp::now().as_nanosecond()).unwrap();
        about(Clock::default().read().age_ns(wall - HOUR), HOUR);
    }
}
