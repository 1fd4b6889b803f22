//! How far ahead messages are asked for.
//!
//! Guarantees: never more than the memory given to it, but for one message of a usual size. It grows only
//! while messages are waited for that the server has, by what an answer's way there and back brings; and it
//! shrinks after a connection that broke under what was on the way, down to one message at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Messages asked for at first: one pull request, and the next when half of it has come. Measured on one
/// server over loopback, requests of 1,000 gave 482 k messages/s, 5,000 up to 741 k and 15,000 782 k.
const FIRST_MESSAGES: usize = 7_500;

/// Messages asked for at most: 200 ms away, that is 600,000 a second, and it is far below what the client
/// buffers.
const MOST_MESSAGES: usize = 120_000;

/// Bytes asked for at first: what comes behind them, such as the answer to a probe, is two seconds late on 10
/// Mbit/s; and where they are headers of a few characters each, the client library makes some 70 MiB of them.
const FIRST_BYTES: usize = 2 << 20;

/// Bytes asked for at most: half of what a server holds back for a slow client by default (`max_pending`)
/// before it ends its connection.
const MOST_BYTES: usize = 32 << 20;

/// Messages of one pull request at most.
const MOST_A_REQUEST: usize = 5_000;

/// Whoever waited so long for messages that the server has, waited for the way and not for the server.
pub(super) const STALL: Duration = Duration::from_millis(3);

/// What is on the way takes no longer than this to arrive, as far as the window can help it: answers come
/// behind it.
const LONGEST_WAY: Duration = Duration::from_secs(2);

/// How long the bound that a broken connection left behind holds, before it is doubled; then again as long.
const RELAX: Duration = Duration::from_mins(1);

/// The same where the server counts us among its slow consumers: it will again.
const RELAX_SLOW_CONSUMER: Duration = Duration::from_hours(1);

/// How many messages and bytes may be on the way, over the generations of a pipeline.
#[derive(Debug, Default)]
pub(crate) struct Window(Mutex<Size>);

#[derive(Debug, Clone, Copy)]
struct Size {
    messages: usize,
    bytes: usize,
    /// What a broken connection left as the most, and when that was doubled last.
    bound: Option<Bound>,
    /// Since when there is one request at a time, and of the least bytes.
    narrow: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Bound {
    messages: usize,
    bytes: usize,
    since: Instant,
    relax: Duration,
}

impl Default for Size {
    fn default() -> Self {
        Self { messages: FIRST_MESSAGES, bytes: FIRST_BYTES, bound: None, narrow: None }
    }
}

/// What else bounds pull requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Memory for what is on the way, in bytes.
    pub memory: usize,
    /// The largest message of a usual size with subject, headers and protocol: each request can bring it.
    pub largest: usize,
    /// Messages that the server allows one request.
    pub batch: Option<usize>,
    /// Bytes that it allows one request.
    pub bytes: Option<usize>,
    /// How long it lets one wait.
    pub expires: Option<Duration>,
}

/// The shape of pull requests at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Messages that may be open over all requests.
    pub(super) open: usize,
    /// Messages of each.
    pub(super) batch: usize,
    /// Bytes of each.
    pub(super) bytes: usize,
}

impl Window {
    /// The requests to make now.
    pub(super) fn shape(&self, limits: &Limits) -> Shape {
        let mut size = self.lock();
        size.relax(Instant::now());
        size.shape(limits)
    }

    /// Grows after a stall, where `rate` bytes a second came lately.
    pub(super) fn grow(&self, rate: usize) {
        let mut size = self.lock();
        let way = rate.saturating_mul(usize::try_from(LONGEST_WAY.as_secs()).unwrap_or(usize::MAX));
        let bytes = (size.bytes * 2).min(way.max(FIRST_BYTES)).max(size.bytes);
        size.messages = (size.messages * 2).min(MOST_MESSAGES);
        size.bytes = bytes.min(MOST_BYTES);
        size.clamp();
    }

    /// Shrinks to a quarter after a connection that broke under what was on the way; whether there was room
    /// to. The server counts slow consumers where `counted`.
    pub(crate) fn shrink(&self, counted: bool) -> Option<usize> {
        let mut size = self.lock();
        let room = size.messages > 1;
        size.bound = Some(Bound {
            messages: (size.messages / 4).max(1),
            bytes: (size.bytes / 4).max(1),
            since: Instant::now(),
            relax: if counted { RELAX_SLOW_CONSUMER } else { RELAX },
        });
        size.clamp();
        room.then_some(size.messages)
    }

    /// Asks for as little as brings any message, for a while: what came takes much more memory than its
    /// bytes.
    pub(super) fn narrow(&self) {
        self.lock().narrow = Some(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Size> {
        // Plain numbers: what a panicking thread left behind is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Size {
    fn clamp(&mut self) {
        if let Some(bound) = self.bound {
            self.messages = self.messages.min(bound.messages);
            self.bytes = self.bytes.min(bound.bytes);
        }
    }

    fn relax(&mut self, now: Instant) {
        self.narrow = self.narrow.filter(|&since| now.duration_since(since) < RELAX);
        let Some(bound) = &mut self.bound else { return };
        if now.duration_since(bound.since) < bound.relax {
            return;
        }
        bound.since = now;
        bound.messages *= 2;
        bound.bytes = bound.bytes.saturating_mul(2);
        // What it is bounded to is what it has by itself, so that it need not wait for a stall.
        self.messages = self.messages.max(bound.messages.min(FIRST_MESSAGES));
        self.bytes = self.bytes.max(bound.bytes.min(FIRST_BYTES));
        if bound.messages >= MOST_MESSAGES && bound.bytes >= MOST_BYTES {
            self.bound = None;
        }
    }

    fn shape(&self, limits: &Limits) -> Shape {
        let bytes = if self.narrow.is_some() { 0 } else { self.bytes.min(limits.memory) };
        // Below the first size, a request is two thirds of what is open, as there.
        let third = (self.messages * 2).div_ceil(3);
        let batch = third.min(MOST_A_REQUEST).min(limits.batch.unwrap_or(usize::MAX)).max(1);
        // As many requests as their bytes allow; two where that would be fewer, but for one message at a time
        // and where the memory has no room for two of the largest.
        let room = limits.memory.max(FIRST_BYTES);
        let one = self.narrow.is_some() || limits.largest.saturating_mul(2) > room;
        let least = if one { 1 } else { 2 };
        let requests = self.messages.div_ceil(batch).min((bytes / limits.largest.max(1)).max(least));
        let each = (bytes / requests).max(limits.largest);
        Shape {
            open: self.messages.min(requests * batch),
            batch,
            bytes: each.min(limits.bytes.unwrap_or(usize::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { memory: 32 << 20, largest: 1 << 20, batch: None, bytes: None, expires: None };

    fn window(messages: usize, bytes: usize) -> Size {
        Size { messages, bytes, bound: None, narrow: None }
    }

    #[test]
    fn at_first_it_is_one_request_and_the_next_when_half_of_it_has_come() {
        let shape = Window::default().shape(&LIMITS);
        assert_eq!(shape, Shape { open: 7_500, batch: 5_000, bytes: 1 << 20 });
    }

    #[test]
    fn a_request_always_fits_the_largest_message_and_all_of_them_the_memory() {
        for messages in [1, 7, 7_500, MOST_MESSAGES] {
            for memory in [0, 1 << 20, 4 << 20, 32 << 20] {
                for (batch, largest) in
                    [(None, 1 << 20), (Some(250), 8 << 20), (Some(1), 20 << 20), (None, 64 << 20)]
                {
                    let limits = Limits { memory, largest, batch, ..LIMITS };
                    let shape = window(messages, MOST_BYTES).shape(&limits);
                    let requests = shape.open.div_ceil(shape.batch);
                    let all = requests * shape.bytes;
                    assert!(shape.bytes >= limits.largest && shape.batch >= 1, "{shape:?}");
                    assert!(shape.open >= shape.batch, "{shape:?}");
                    assert!(all <= memory.max(FIRST_BYTES).max(largest), "{shape:?} of {limits:?}");
                }
            }
        }
        let shape = window(1, MOST_BYTES).shape(&LIMITS);
        assert_eq!((shape.open, shape.batch), (1, 1));
    }

    #[test]
    fn it_is_as_narrow_as_any_message_allows_for_a_while() {
        let window = Window::default();
        window.narrow();
        assert_eq!(window.shape(&LIMITS), Shape { open: 5_000, batch: 5_000, bytes: 1 << 20 });
        let mut size = *window.lock();
        size.relax(Instant::now() + RELAX);
        assert_eq!(size.shape(&LIMITS), Window::default().shape(&LIMITS));
    }

    #[test]
    fn no_more_is_asked_for_than_the_server_allows() {
        let limits = Limits { batch: Some(250), bytes: Some(1000), ..LIMITS };
        let shape = Window::default().shape(&limits);
        assert_eq!((shape.batch, shape.bytes), (250, 1000));
    }

    #[test]
    fn it_grows_by_the_way_and_no_further_than_what_arrives_in_two_seconds() {
        let window = Window::default();
        for _ in 0..20 {
            window.grow(1_000_000);
        }
        assert_eq!(window.lock().bytes, FIRST_BYTES);
        for _ in 0..20 {
            window.grow(100 << 20);
        }
        let size = *window.lock();
        assert_eq!((size.messages, size.bytes), (MOST_MESSAGES, MOST_BYTES));
    }

    #[test]
    fn it_shrinks_to_one_message_at_a_time_and_relaxes_with_time() {
        let window = Window::default();
        while window.shrink(false).is_some() {}
        let shape = window.shape(&LIMITS);
        assert_eq!((shape.open, shape.batch), (1, 1));
        window.grow(usize::MAX);
        assert_eq!(window.shape(&LIMITS).open, 1);
        let mut size = *window.lock();
        let mut now = Instant::now();
        for _ in 0..40 {
            now += RELAX;
            size.relax(now);
        }
        assert!(size.bound.is_none() && size.messages == FIRST_MESSAGES && size.bytes == FIRST_BYTES);
    }
}
