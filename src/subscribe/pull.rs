//! Pull requests on a durable consumer.
//!
//! Guarantees: what is open is bounded by count and by bytes ([`Window`]), and by what the server allows, so
//! that what the client buffers is bounded too; a message that is larger is the only one that is open. What
//! the server says about a request is either accounted for or an error; silence is an error after two
//! heartbeats. Once the connection has had trouble nothing more is asked for, and what had arrived by then is
//! yielded before the trouble is. A message that a publisher dressed up as a status is still a message.
//!
//! The client library's own pull loop does the same for every kind of user. At full speed a tenth of the
//! daemon's CPU went into the copy of the JetStream context that it hands out with each message, and into a
//! timer that it recreates for each wait; here a message is just taken from the subscription.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::jetstream::consumer::{self, PullConsumer};
use async_nats::{HeaderMap, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::future::Fuse;
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep};

use super::window::{Limits, STALL, Shape, Window};
use crate::nats::{Connection, Lost};

/// How long a pull request waits at the server: long enough that an idle pipeline asks only twice a minute.
const EXPIRES: Duration = Duration::from_secs(30);

/// How often the server says on an open pull request that it has nothing. Two missed ones end the generation,
/// so this bounds how long a consumer that has lost its leader goes unseen. One is some bytes.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The header by which the server says how many messages a request that it closed would still have taken.
const PENDING_MESSAGES: &str = "Nats-Pending-Messages";

/// The same of bytes.
const PENDING_BYTES: &str = "Nats-Pending-Bytes";

/// What a request for a single message may bring that is larger than any other request may: the largest that
/// a server can be told to take, with its subject, headers and protocol.
const GIANT: usize = 65 << 20;

/// What the server says to a request for more than it allows, before the number.
const TOO_MANY: &str = "Exceeded MaxRequestBatch of ";
const TOO_LARGE: &str = "Exceeded MaxRequestMaxBytes of ";

/// About what the client library takes for the name of a header, however short: a place in a map, and three
/// allocations.
const HEADER: usize = 200;

/// How many times its bytes a message may take for its headers before the window is narrowed. Usual ones take
/// a few times theirs, those of a character each thirty times.
const HEADERS: usize = 12;

/// Requests that are refused or ended in a row without a message between them, before nothing is expected of
/// the next: more than are ever open.
const BARREN: u32 = 200;

/// Why nothing more can be pulled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The connection may have cost deliveries. All that came before has been yielded.
    #[error("{0}")]
    Lost(Lost),
    /// Two heartbeats did not come.
    #[error("the server was silent for two heartbeats")]
    MissedHeartbeat,
    /// The durable is gone.
    #[error("the durable consumer was deleted")]
    ConsumerDeleted,
    /// Nobody answers requests on the durable: it is gone, or its leader is.
    #[error("pull requests get no answer")]
    NoResponders,
    /// The server refuses such requests, so that asking again would be refused without end.
    #[error("the server refuses the pull request: {0}")]
    Refused(String),
    /// The subscription could not be made.
    #[error("cannot subscribe to the inbox")]
    Subscribe(#[from] async_nats::SubscribeError),
    /// A request could not be sent.
    #[error("cannot send a pull request")]
    Ask(#[from] async_nats::PublishError),
}

/// A duration as requests write it.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An inbox and the requests that fill it.
pub(super) struct Pull {
    connection: Connection,
    /// Resolves when it has trouble.
    broken: Fuse<Pin<Box<dyn Future<Output = Lost> + Send + Sync>>>,
    inbox: Subject,
    subscriber: Subscriber,
    /// Where requests go.
    requests: Subject,
    window: Arc<Window>,
    limits: Limits,
    /// The requests that are made at the moment, and how the next is written.
    shape: Shape,
    request: Bytes,
    /// Messages that were asked for and have neither come nor been refused.
    open: usize,
    /// Whether the next message is larger than a whole request may bring.
    giant: bool,
    /// Ends when two heartbeats are missed.
    silence: Pin<Box<Sleep>>,
    /// Whether anything came since `silence` was started.
    heard: bool,
    /// Since when there is nothing to take.
    waiting: Option<Instant>,
    /// Messages that the server had not delivered yet with the last delivery.
    pub(super) pending: u64,
    flow: Flow,
    /// Requests that ended in a row without a message.
    barren: u32,
}

/// What came since the window was looked at last.
struct Flow {
    since: Instant,
    messages: usize,
    bytes: usize,
}

impl Flow {
    fn new() -> Self {
        Self { since: Instant::now(), messages: 0, bytes: 0 }
    }
}

/// `limits`, and what the server made of the consumer's.
fn within(limits: Limits, consumer: &consumer::Config) -> Limits {
    let some = |limit: i64| usize::try_from(limit).ok().filter(|&limit| limit > 0);
    Limits {
        batch: some(consumer.max_batch),
        bytes: some(consumer.max_bytes),
        expires: Some(consumer.max_expires).filter(|limit| !limit.is_zero()),
        ..limits
    }
}

impl Pull {
    /// Subscribes to an inbox of its own and sends the first requests.
    pub(super) async fn start(
        connection: &Connection,
        consumer: &PullConsumer,
        window: Arc<Window>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let info = consumer.cached_info();
        let client = &connection.client;
        let inbox = Subject::from(client.new_inbox());
        let limits = within(limits, &info.config);
        let mut pull = Self {
            subscriber: client.subscribe(inbox.clone()).await?,
            requests: format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", info.stream_name, info.name).into(),
            shape: Shape { open: 0, batch: 0, bytes: 0 },
            request: Bytes::new(),
            window,
            limits,
            connection: connection.clone(),
            broken: FutureExt::fuse(Box::pin(connection.broken())),
            inbox,
            open: 0,
            giant: false,
            silence: Box::pin(sleep(2 * HEARTBEAT)),
            heard: true,
            waiting: None,
            pending: 0,
            flow: Flow::new(),
            barren: 0,
        };
        pull.reshape();
        pull.ask().await?;
        Ok(pull)
    }

    /// The next message. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Message, Error> {
        // Who did not ask did not wait.
        self.waiting = None;
        loop {
            self.ask().await?;
            let message = poll_fn(|context| self.poll(context)).await?;
            if let Some(since) = self.waiting.take()
                && since.elapsed() >= STALL
            {
                self.stalled();
            }
            if self.brings(&message)? {
                return Ok(message);
            }
        }
    }

    /// The next message if it has arrived already; sends no request.
    #[inline]
    pub(super) fn next_ready(&mut self) -> Option<Result<Message, Error>> {
        loop {
            match self.subscriber.next().now_or_never()? {
                Some(message) => match self.brings(&message) {
                    Ok(true) => return Some(Ok(message)),
                    Ok(false) => {}
                    Err(error) => return Some(Err(error)),
                },
                // The connection has closed, and says why when it is waited for.
                None => return None,
            }
        }
    }

    /// Sends as many requests as the window has room for; for a giant, one once all others were refused.
    async fn ask(&mut self) -> Result<(), Error> {
        loop {
            let (batch, room) = if self.giant { (1, 1) } else { (self.shape.batch, self.shape.open) };
            if self.open + batch > room || self.connection.is_broken() {
                return Ok(());
            }
            let request = if self.giant { self.written(1, GIANT) } else { self.request.clone() };
            let (to, inbox) = (self.requests.clone(), self.inbox.clone());
            match self.connection.client.publish_with_reply(to, inbox, request).await {
                Ok(()) => {}
                // The client is gone, and `broken` says so once what had arrived is taken.
                Err(error) if error.kind() == PublishErrorKind::Send => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            self.open += batch;
            self.reshape();
        }
    }

    /// Takes up the window as it is now.
    fn reshape(&mut self) {
        let shape = self.window.shape(&self.limits);
        if shape == self.shape {
            return;
        }
        self.shape = shape;
        self.request = self.written(shape.batch, shape.bytes);
    }

    /// A request for this many messages and bytes, if the server allows them.
    fn written(&self, batch: usize, bytes: usize) -> Bytes {
        let expires = self.limits.expires.map_or(EXPIRES, |allowed| allowed.min(EXPIRES));
        let request = json!({
            "batch": batch,
            "max_bytes": bytes.min(self.limits.bytes.unwrap_or(usize::MAX)),
            "expires": nanoseconds(expires),
            // The server wants two of them within the time.
            "idle_heartbeat": nanoseconds(HEARTBEAT.min(expires / 2)),
        });
        request.to_string().into()
    }

    /// Messages were waited for. Where the server has more than is on the way, the way is too long for the
    /// window.
    #[cold]
    fn stalled(&mut self) {
        let Shape { open, batch, bytes } = self.shape;
        let came = self.flow.messages >= open || self.flow.bytes >= bytes * open.div_ceil(batch);
        if self.pending <= open as u64 {
            self.flow = Flow::new();
            return;
        }
        if !came {
            return;
        }
        let seconds = self.flow.since.elapsed().as_secs_f64().max(STALL.as_secs_f64());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rate by which the window is bounded roughly"
        )]
        let rate = (self.flow.bytes as f64 / seconds) as usize;
        self.window.grow(rate);
        self.reshape();
        self.flow = Flow::new();
    }

    /// What arrives, or the end of the patience. The wait for a heartbeat begins when there is nothing left
    /// to take: while nobody asks, heartbeats queue up unheard.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        match self.subscriber.poll_next_unpin(context) {
            Poll::Ready(Some(message)) => return Poll::Ready(Ok(message)),
            // It ends with the client only, and that is trouble.
            Poll::Ready(None) | Poll::Pending => {}
        }
        if let Poll::Ready(lost) = self.broken.poll_unpin(context) {
            return Poll::Ready(Err(Error::Lost(lost)));
        }
        self.waiting.get_or_insert_with(Instant::now);
        if std::mem::take(&mut self.heard) {
            self.silence.as_mut().reset(Instant::now() + 2 * HEARTBEAT);
        }
        self.silence.as_mut().poll(context).map(|()| Err(Error::MissedHeartbeat))
    }

    /// Accounts for what arrived; whether it is a message, not a status that changes nothing else.
    #[inline]
    fn brings(&mut self, message: &Message) -> Result<bool, Error> {
        self.heard = true;
        match message.status {
            Some(status) if message.reply.is_none() => self.status(status, message).map(|()| false),
            _ => {
                self.open = self.open.saturating_sub(1);
                self.flow.messages += 1;
                self.flow.bytes += message.length;
                self.barren = 0;
                self.giant = false;
                let headers = message.headers.as_ref().map_or(0, HeaderMap::len);
                if headers * HEADER > message.length * HEADERS {
                    self.narrow();
                }
                Ok(true)
            }
        }
    }

    #[cold]
    fn narrow(&mut self) {
        self.window.narrow();
        self.reshape();
    }

    #[cold]
    fn status(&mut self, status: StatusCode, message: &Message) -> Result<(), Error> {
        let description = message.description.as_deref().unwrap_or_default();
        let number = |header: &str| {
            let value = message.headers.as_ref().and_then(|headers| headers.get(header));
            value.and_then(|value| value.as_str().parse::<usize>().ok())
        };
        let pending = number(PENDING_MESSAGES);
        if status != StatusCode::IDLE_HEARTBEAT && status != StatusCode::TIMEOUT {
            self.barren += 1;
        }
        match (status, description, pending) {
            (StatusCode::IDLE_HEARTBEAT, _, _) => Ok(()),
            // Some servers that go do not say how much a request has brought.
            (StatusCode::NO_RESPONDERS, _, _) | (_, "Leadership Change" | "Server Shutdown", None) => {
                Err(Error::NoResponders)
            }
            (_, "Consumer Deleted", _) => Err(Error::ConsumerDeleted),
            // The request is done or expired, or its server goes: what it did not bring is asked for again.
            (StatusCode::TIMEOUT, _, Some(pending))
            | (_, "Batch Completed" | "Leadership Change" | "Server Shutdown", Some(pending)) => {
                self.open = self.open.saturating_sub(pending);
                Ok(())
            }
            // It has brought as many bytes as it may, or could bring nothing: then a whole one as they are
            // made now could not. Where none brings anything, a message is larger than any may bring.
            (_, "Message Size Exceeds MaxBytes", Some(pending)) if self.barren <= BARREN => {
                self.open = self.open.saturating_sub(pending);
                self.giant |= number(PENDING_BYTES).is_none_or(|bytes| bytes >= self.shape.bytes);
                Ok(())
            }
            (_, refusal, _) if self.barren <= BARREN && self.lower(refusal) => Ok(()),
            _ => Err(Error::Refused(format!("{status} {description}"))),
        }
    }
    /// Takes in what the server allows a request, where it refused one for asking for more.
    fn lower(&mut self, refusal: &str) -> bool {
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|&number| number > 0);
        if let Some(batch) = refusal.strip_prefix(TOO_MANY).and_then(number) {
            self.limits.batch = Some(batch);
        } else if let Some(bytes) = refusal.strip_prefix(TOO_LARGE).and_then(number) {
            self.limits.bytes = Some(bytes);
        } else {
            return false;
        }
        let before = self.shape;
        self.reshape();
        if self.shape != before {
            // What was asked for alike is refused alike.
            self.open = 0;
        }
        true
    }
}
