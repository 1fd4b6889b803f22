//! Where the lag goes: when it will be caught up with, and when the stream will drop what was not committed.
//!
//! Guarantees: pure arithmetic over the last half minute of probes; what is not foreseen is infinite, never a
//! guess. It only says what happens if nothing changes. Limits per subject are not looked at:
//! which messages they drop, the stream's state does not tell.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{self, DiscardPolicy};

use crate::liveness::PROBE;

/// How far back a forecast looks: long enough that a few bursts or a slow commit even out, short enough to
/// follow.
const WINDOW: Duration = Duration::from_secs(30);

/// Probes are not to the millisecond: what spans so much less than [`WINDOW`] is as long.
const SHORT_OF: Duration = Duration::from_secs(3);

/// A pipeline less behind keeps up: what it has not committed is what is always under way, and its trend is
/// noise.
pub(super) const KEEPING_UP: f64 = 1.0;

/// What a probe saw.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observation {
    pub(super) at: Instant,
    /// Messages not committed.
    pub(super) backlog: u64,
    /// Last sequence committed.
    pub(super) checkpoint: u64,
    /// Last sequence of the stream.
    pub(super) last: u64,
    /// Messages that the stream holds from the oldest one on that is not committed; others' are among them.
    pub(super) held: u64,
    /// Age of the oldest message not committed, in seconds.
    pub(super) behind: f64,
}

impl Observation {
    /// Sequences that the stream holds and that are not committed.
    fn unread(&self) -> f64 {
        float(self.last.saturating_sub(self.checkpoint))
    }
}

/// What a stream keeps before it drops its oldest; infinite where it has no such limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    messages: f64,
    age_seconds: f64,
}

impl Limits {
    /// Of a stream as it is now: its limit in bytes becomes one in messages of their present mean size.
    pub(super) fn of(stream: &stream::Info) -> Self {
        let (config, state) = (&stream.config, &stream.state);
        let limit = |limit: i64| u64::try_from(limit).ok().filter(|&limit| limit > 0).map(float);
        let by_bytes = limit(config.max_bytes)
            .filter(|_| state.bytes > 0)
            .map(|bytes| bytes * float(state.messages) / float(state.bytes));
        let messages = match config.discard {
            DiscardPolicy::Old => {
                [limit(config.max_messages), by_bytes].into_iter().flatten().reduce(f64::min)
            }
            // It refuses new messages instead.
            DiscardPolicy::New => None,
        };
        let age = config.max_age;
        Self {
            messages: messages.unwrap_or(f64::INFINITY),
            age_seconds: if age.is_zero() { f64::INFINITY } else { age.as_secs_f64() },
        }
    }
}

/// The probes of the last half minute.
#[derive(Debug, Default)]
pub(super) struct Forecast(VecDeque<Observation>);

impl Forecast {
    pub(super) fn add(&mut self, now: Observation) {
        while self.0.front().is_some_and(|old| now.at.duration_since(old.at) > WINDOW) {
            self.0.pop_front();
        }
        // Another stream or another history: what was seen before says nothing.
        if self.0.back().is_some_and(|before| now.last < before.last || now.checkpoint < before.checkpoint) {
            self.0.clear();
        }
        self.0.push_back(now);
    }

    /// Seconds until nothing is left to commit; `None` where it may be on its way and nobody can tell yet how
    /// fast: a large batch takes its time, and before it is committed the backlog only grows.
    pub(super) fn catch_up_seconds(&self) -> Option<f64> {
        let Some(now) = self.0.back().filter(|now| now.behind >= KEEPING_UP) else { return Some(0.0) };
        let first = self.0.front().unwrap_or(now);
        let Some(committed) = self.commits().last() else {
            let whole = now.at.duration_since(first.at) + SHORT_OF >= WINDOW;
            return whole.then_some(f64::INFINITY);
        };
        // Between two commits a trend shows nothing but what comes in; unless it is long since the last.
        let mut before = first.at;
        let apart =
            self.commits().map(|seen| seen.at.duration_since(std::mem::replace(&mut before, seen.at)));
        let patience = 2 * apart.max().unwrap_or_default().max(PROBE);
        if now.at.duration_since(committed.at) > patience {
            return Some(f64::INFINITY);
        }
        Some(reach(float(now.backlog), -self.slope(committed, |seen| float(seen.backlog))))
    }

    /// The probes that saw the checkpoint moved.
    fn commits(&self) -> impl Iterator<Item = &Observation> {
        let moves = self.0.iter().zip(self.0.iter().skip(1));
        moves.filter(|(before, after)| after.checkpoint > before.checkpoint).map(|(_, after)| after)
    }

    /// Seconds until the stream drops a message that is not committed.
    pub(super) fn headroom_seconds(&self, limits: &Limits) -> f64 {
        let Some(now) = self.0.back().filter(|now| now.behind >= KEEPING_UP) else { return f64::INFINITY };
        let by_messages = reach(limits.messages - float(now.held), self.slope(now, Observation::unread));
        let by_age = reach(limits.age_seconds - now.behind, self.slope(now, |seen| seen.behind));
        by_messages.min(by_age)
    }

    /// How fast a value grew over the window up to `last`, a second.
    fn slope(&self, last: &Observation, value: impl Fn(&Observation) -> f64) -> f64 {
        let Some(first) = self.0.front() else { return 0.0 };
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        if seconds > 0.0 { (value(last) - value(first)) / seconds } else { 0.0 }
    }
}

/// How long `distance` takes at `speed`. At a speed of zero it never arrives.
fn reach(distance: f64, speed: f64) -> f64 {
    if speed > 0.0 { distance.max(0.0) / speed } else { f64::INFINITY }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 messages")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDLESS: Limits = Limits { messages: f64::INFINITY, age_seconds: f64::INFINITY };

    /// Probes two seconds apart, each `(checkpoint, last, behind)`.
    fn forecast(probes: &[(u64, u64, f64)]) -> Forecast {
        let start = Instant::now();
        let mut forecast = Forecast::default();
        for (seconds, &(checkpoint, last, behind)) in (0..).step_by(2).zip(probes) {
            let at = start + Duration::from_secs(seconds);
            let backlog = last - checkpoint;
            forecast.add(Observation { at, backlog, checkpoint, last, held: backlog, behind });
        }
        forecast
    }

    #[track_caller]
    fn is(found: f64, expected: f64) {
        assert!(
            found.total_cmp(&expected).is_eq() || (found - expected).abs() < 1e-9,
            "{found} and not {expected}"
        );
    }

    #[test]
    fn a_backlog_that_shrinks_is_caught_up_with() {
        is(forecast(&[(0, 1_000, 50.0), (300, 1_100, 40.0)]).catch_up_seconds().unwrap(), 8.0);
    }

    #[test]
    fn a_large_batch_on_its_way_is_no_standstill_until_half_a_minute_has_gone_without_a_commit() {
        let mut probes: Vec<_> = (0..7).map(|probe| (0, 100_000 + 100 * probe, 80.0)).collect();
        assert_eq!(forecast(&probes).catch_up_seconds(), None);
        probes.push((20_000, 100_700, 70.0));
        // 19,300 in 14 seconds, and nothing since but what came in.
        for probes in [&probes[..], &[&probes[..], &[(20_000, 100_800, 72.0)]].concat()] {
            let (_, last, _) = probes.last().unwrap();
            let expected = float(last - 20_000) / (19_300.0 / 14.0);
            is(forecast(probes).catch_up_seconds().unwrap(), expected);
        }
        probes.extend((0..15).map(|probe| (20_000, 100_800 + 100 * probe, 75.0)));
        is(forecast(&probes).catch_up_seconds().unwrap(), f64::INFINITY);
        let stuck: Vec<_> = (0..16).map(|_| (0, 100_000, 80.0)).collect();
        is(forecast(&stuck).catch_up_seconds().unwrap(), f64::INFINITY);
    }

    #[test]
    fn a_full_stream_that_nobody_publishes_to_drops_nothing() {
        let full = forecast(&[(0, 1_000, 50.0), (0, 1_000, 52.0)]);
        is(full.headroom_seconds(&Limits { messages: 1_000.0, ..ENDLESS }), f64::INFINITY);
    }

    #[test]
    fn a_backlog_that_grows_is_never_caught_up_with() {
        is(forecast(&[(0, 1_000, 50.0), (100, 1_200, 52.0)]).catch_up_seconds().unwrap(), f64::INFINITY);
    }

    #[test]
    fn a_pipeline_that_keeps_up_has_nothing_to_catch_up_with_and_loses_nothing() {
        let forecast = forecast(&[(0, 80, 0.02), (4_000, 4_160, 0.04)]);
        is(forecast.catch_up_seconds().unwrap(), 0.0);
        is(forecast.headroom_seconds(&Limits { messages: 1_000.0, age_seconds: 10.0 }), f64::INFINITY);
    }

    #[test]
    fn a_stream_with_a_count_drops_when_what_is_unread_fills_it() {
        let stopped = forecast(&[(100, 300, 2.0), (100, 500, 4.0)]);
        is(stopped.headroom_seconds(&Limits { messages: 1_000.0, ..ENDLESS }), 6.0);
        is(stopped.headroom_seconds(&ENDLESS), f64::INFINITY);
    }

    #[test]
    fn a_stream_with_an_age_drops_what_has_waited_so_long() {
        let stopped = forecast(&[(100, 300, 2.0), (100, 500, 4.0)]);
        is(stopped.headroom_seconds(&Limits { age_seconds: 60.0, ..ENDLESS }), 56.0);
        is(stopped.headroom_seconds(&Limits { age_seconds: 3.0, ..ENDLESS }), 0.0);
    }

    #[test]
    fn only_the_last_half_minute_counts() {
        let mut probes = vec![(0, 100_000, 90.0)];
        probes.extend((0..20).map(|probe| (10_000 + 20 * probe, 100_000, 80.0)));
        is(forecast(&probes).catch_up_seconds().unwrap(), f64::from(100_000 - 10_380) / 10.0);
    }

    #[test]
    fn a_stream_that_was_made_anew_starts_a_forecast_anew() {
        assert_eq!(forecast(&[(900, 1_000, 5.0), (0, 100, 5.0)]).catch_up_seconds(), None);
    }
}
