//! Messages that the client library cannot read are found and passed, against a real server.

use std::sync::Arc;

use async_nats::{ConnectOptions, Event, Message, Subscriber};
use futures_util::StreamExt as _;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tokio::sync::Semaphore;

use super::*;
use crate::testbed::{TestNats, Wire};

/// Header blocks that the library cannot read, and why.
const BROKEN: [(&[u8], Unreadable); 13] = [
    (b"foo", Unreadable::Version),
    (b"foo\r\n\r\n", Unreadable::Version),
    (b"\r\n", Unreadable::Version),
    (b"NATS/2.0\r\nA: b\r\n\r\n", Unreadable::Version),
    (b" NATS/1.0\r\nA: b\r\n\r\n", Unreadable::Version),
    (b"NATS/1.0\r\nA: \xff\r\n\r\n", Unreadable::NotUtf8),
    (b"\xff\xfe", Unreadable::NotUtf8),
    (b"NATS/1.0 yes\r\nA: b\r\n\r\n", Unreadable::Status),
    (b"NATS/1.01\r\nA: b\r\n\r\n", Unreadable::Status),
    (b"NATS/1.0\r\nno colon\r\n\r\n", Unreadable::Line),
    (b"NATS/1.0\r\nA B: c\r\n\r\n", Unreadable::Name),
    (b"NATS/1.0\r\n\xc3\xa4: c\r\n\r\n", Unreadable::Name),
    (b"NATS/1.0\r\nA: b\rc\r\n\r\n", Unreadable::Value),
];

/// Header blocks that it can read, odd as they are.
const ODD: [&[u8]; 10] = [
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
    b"NATS/1.0 409 Consumer Deleted\r\nA: b\r\n\r\n",
    b"NATS/1.0\nA:b\n\n",
    b"NATS/1.0\r\nA: b\r\n  continued\r\n\tonce more\r\nA:second\r\n\r\n",
    b"NATS/1.0\r\n: no name\r\nempty:\r\n\r\n\r\nlate: 1\r\n",
    b"NATS/1.0\r\nA: a:b \xe2\x80\xa8 c\r\r\n\r\n",
    b"NATS/1.0\r\nNats-Pending-Messages: 3\r\nStatus: 409\r\n\r\n",
];

/// A client of the library, and what it makes of messages that are published to it as raw bytes.
struct Library {
    /// The first token of its subjects.
    name: &'static str,
    nats: Arc<TestNats>,
    wire: Wire,
    client: Client,
    subscriber: Subscriber,
    /// Ends when the connection does.
    lost: Arc<Semaphore>,
}

const REPLY: &[u8] = b"reply.to";

/// Tells of the end also when the library panics and drops it.
struct Tells(Arc<Semaphore>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Library {
    async fn new(name: &'static str) -> Self {
        let nats = TestNats::shared().unwrap();
        let wire = Wire::connect(nats.port()).unwrap();
        let (client, subscriber, lost) = Self::connect(name, &nats).await;
        Self { name, nats, wire, client, subscriber, lost }
    }

    async fn connect(name: &str, nats: &TestNats) -> (Client, Subscriber, Arc<Semaphore>) {
        let lost = Arc::new(Semaphore::new(0));
        let tells = Tells(Arc::clone(&lost));
        let options = ConnectOptions::new().event_callback(move |event| {
            if event == Event::Disconnected {
                tells.0.close();
            }
            async {}
        });
        let client = options.connect(nats.url()).await.unwrap();
        let mut subscriber = client.subscribe(format!("{name}.>")).await.unwrap();
        client.publish(format!("{name}.hello"), "".into()).await.unwrap();
        assert!(subscriber.next().await.unwrap().subject.ends_with("hello"));
        (client, subscriber, lost)
    }

    /// The message as the library yields it; `None` where it lost its connection instead.
    async fn receives(&mut self, token: &[u8], headers: Option<&[u8]>, payload: &[u8]) -> Option<Message> {
        let subject = [self.name.as_bytes(), b".", token].concat();
        self.wire.publish(&subject, Some(REPLY), headers, payload).unwrap();
        assert_eq!(self.wire.settled().unwrap(), Vec::<String>::new());
        let received = tokio::select! {
            biased;
            received = self.subscriber.next() => received,
            _ = self.lost.acquire() => None,
        };
        if received.is_none() {
            (self.client, self.subscriber, self.lost) = Self::connect(self.name, &self.nats).await;
        }
        received
    }
}

fn stored(subject: &str, headers: &[u8]) -> Stored {
    Stored {
        sequence: 1,
        timestamp_ns: 0,
        subject: subject.into(),
        headers: headers.to_vec(),
        payload: Vec::new(),
    }
}

#[tokio::test]
async fn what_is_called_unreadable_is_what_the_library_cannot_read_and_nothing_else() {
    let mut library = Library::new("broken").await;
    for (block, reason) in BROKEN {
        assert_eq!(headers(block), Err(reason), "{}", block.escape_ascii());
        assert_eq!(library.receives(b"a", Some(block), b"{}").await.map(|message| message.headers), None);
    }
    for block in ODD {
        let received = library.receives(b"a", Some(block), b"{}").await;
        let received = received.unwrap_or_else(|| panic!("{} is readable", block.escape_ascii()));
        assert_eq!(Ok(received.headers.unwrap()), headers(block), "{}", block.escape_ascii());
    }
    let block = b"NATS/1.0\r\nA: b\r\n\r\n";
    for (subject, plain, with_headers) in [
        ("\u{a0}b", true, false),
        ("a\u{3000}b", true, false),
        ("a\u{b}b", true, false),
        ("a\u{fffd}", true, true),
        ("\u{e4}", true, true),
    ] {
        assert_eq!(
            Unreadable::check(&stored(&format!("broken.{subject}"), b""), true).is_ok(),
            plain,
            "{subject:?}"
        );
        assert_eq!(
            Unreadable::check(&stored(&format!("broken.{subject}"), block), true).is_ok(),
            with_headers,
            "{subject:?}"
        );
        let received = library.receives(subject.as_bytes(), None, b"").await;
        assert_eq!(received.is_some(), plain, "{subject:?}");
        let received = library.receives(subject.as_bytes(), Some(block), b"").await;
        assert_eq!(received.is_some(), with_headers, "{subject:?} with headers");
    }
    assert!(library.receives(b"\xff", None, b"").await.is_none());
}

/// Header blocks near the edge of what is one.
fn blocks() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => Just(b"NATS/1.0".to_vec()),
        6 => Just(b"\r\n".to_vec()),
        2 => Just(b"\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        3 => Just(b": ".to_vec()),
        2 => Just(b" ".to_vec()),
        2 => Just(b"503".to_vec()),
        4 => "[A-Za-z0-9-]{1,8}: [ -~]{0,12}\r\n".prop_map(String::into_bytes),
        2 => "\\PC{0,6}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    let rest = prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat());
    (prop::bool::weighted(0.8), rest)
        .prop_map(|(begins, rest)| if begins { [b"NATS/1.0\r\n", &rest[..], b"\r\n"].concat() } else { rest })
}

#[tokio::test]
async fn blocks_made_at_random_are_readable_just_when_the_library_reads_them() {
    let mut library = Library::new("random").await;
    let mut runner = TestRunner::deterministic();
    let (mut readable, mut unreadable) = (0, 0);
    for _ in 0..300 {
        let block = blocks().new_tree(&mut runner).unwrap().current();
        let received = library.receives(b"a", Some(&block), b"x").await;
        match headers(&block) {
            // A header block of no bytes is none.
            Ok(_) | Err(_) if block.is_empty() => assert!(received.is_none_or(|it| it.headers.is_none())),
            Ok(headers) => {
                readable += 1;
                let received = received.unwrap_or_else(|| panic!("{} is readable", block.escape_ascii()));
                assert_eq!(received.headers, Some(headers), "{}", block.escape_ascii());
            }
            Err(reason) => {
                unreadable += 1;
                assert!(received.is_none(), "{} is not {reason:?}", block.escape_ascii());
            }
        }
    }
    println!("{readable} readable, {unreadable} unreadable");
    assert!(readable > 50 && unreadable > 50, "{readable} readable, {unreadable} unreadable");
}

#[test]
fn what_can_be_read_of_broken_headers_is_kept_beside_all_of_it() {
    let block = b"NATS/1.0\r\nContent-Type: json\r\nA B: c\r\nX: \xff\r\nNats-Msg-Id: 7\r\n\r\n";
    let (kept, lacks) = salvaged(block);
    let value = |name: &str| kept.get(name).map(HeaderValue::as_str);
    assert_eq!((value("Content-Type"), value("Nats-Msg-Id"), kept.len()), (Some("json"), Some("7"), 2));
    // A line that cannot be read may go on with the header before it.
    assert_eq!(lacks, ["Content-Type", "X"]);
}
