//! Deliveries that are not contiguous end the generation.

use std::sync::Arc;

use async_nats::jetstream;
use async_nats::jetstream::stream::Config;
use futures_util::{FutureExt, StreamExt, stream};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, IntoConsumerConfig};
use async_nats::jetstream::stream::Stream;
use std::time::Duration;

use super::place::differences;
use super::*;

use crate::config;
use crate::publish::{Outgoing, publish};
use crate::testbed::TestNats;

#[test]
fn deliveries_in_order_pass_and_may_leave_gaps_in_the_stream() {
    let mut order = Contiguity::after(40);
    assert_eq!(order.check(1, 41), Ok(()));
    assert_eq!(order.check(2, 45), Ok(()));
    assert_eq!(order.check(3, 46), Ok(()));
}

#[test]
fn a_missing_delivery_is_a_breach() {
    let mut order = Contiguity::after(0);
    assert_eq!(order.check(1, 1), Ok(()));
    assert_eq!(order.check(3, 3), Err(Breach::Consumer { expected: 2, got: 3 }));
}

#[test]
fn a_first_delivery_that_is_not_number_one_is_a_breach() {
    assert_eq!(Contiguity::after(7).check(2, 9), Err(Breach::Consumer { expected: 1, got: 2 }));
}

#[test]
fn a_message_at_or_below_the_checkpoint_is_a_breach() {
    assert_eq!(Contiguity::after(7).check(1, 7), Err(Breach::Stream { after: 7, got: 7 }));
}

#[test]
fn both_forms_of_the_ack_subject_are_read() {
    let numbers = |reply| AckSubjects::default().numbers(reply);
    assert_eq!(numbers("$JS.ACK.FRAMES.jetcopy.1.20.3.17x.5"), None);
    assert_eq!(numbers("$JS.ACK.FRAMES.jetcopy.1.20..17.5"), None);
    assert_eq!(numbers("$JS.ACK.FRAMES.jetcopy.1.20.3.99999999999999999999.5"), None);
    assert_eq!(
        numbers("$JS.ACK.FRAMES.jetcopy.1.20.3.1700000000000000000.5"),
        Some([20, 3, 1_700_000_000_000_000_000, 5])
    );
    let long = "$JS.ACK.hub.ACCHASH.FRAMES.jetcopy.1.20.3.1700000000000000000.5.token";
    assert_eq!(numbers(long), Some([20, 3, 1_700_000_000_000_000_000, 5]));
    assert_eq!(numbers("_INBOX.x"), None);
    assert_eq!(numbers("$JS.ACK.FRAMES.jetcopy.1"), None);
    assert_eq!(numbers("$JS.ACK.FRAMES.jetcopy.1.20.3.17"), None);
}

#[test]
fn ack_subjects_that_begin_otherwise_than_the_last_one_are_read_too() {
    let mut acks = AckSubjects::default();
    assert_eq!(acks.numbers("$JS.ACK.FRAMES.jetcopy.1.20.3.17.5"), Some([20, 3, 17, 5]));
    assert_eq!(acks.numbers("$JS.ACK.FRAMES.jetcopy.1.21.4.18.0"), Some([21, 4, 18, 0]));
    assert_eq!(acks.numbers("$JS.ACK.FRAMES.jetcopy.12.22.5.19.0"), Some([22, 5, 19, 0]), "redelivered");
    assert_eq!(acks.numbers("$JS.ACK.hub.HASH.FRAMES.jetcopy.1.23.6.20.0.x"), Some([23, 6, 20, 0]));
    assert_eq!(acks.numbers("$JS.ACK.FRAMES"), None);
    assert_eq!(acks.numbers("$JS.ACK.FRAMES.jetcopy.1.24.7.21.0"), Some([24, 7, 21, 0]));
}

fn pipeline(name: &str) -> config::Pipeline {
    use figment::Figment;
    use figment::providers::{Format, Toml};
    let text = format!("name = \"{name}\"\nstream = \"{name}\"");
    Figment::from(Toml::string(&text)).extract().unwrap()
}

impl World {
    async fn connection(&self) -> Connection {
        let settings = config::Nats { url: self.nats.url(), ..config::Nats::default() };
        Connection::open(&settings, "test").await.unwrap()
    }
}

struct World {
    client: async_nats::Client,
    stream: Stream,
    nats: Arc<TestNats>,
}

async fn stream_with(name: &str, messages: usize, bytes: usize) -> World {
    let nats = TestNats::shared().unwrap();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let config = Config { name: name.into(), subjects: vec![format!("{name}.>")], ..Default::default() };
    let stream = jetstream::new(client.clone()).create_stream(config).await.unwrap();
    add(&client, name, messages, bytes).await;
    World { client, stream, nats }
}

async fn add(client: &async_nats::Client, name: &str, messages: usize, bytes: usize) {
    let subject = async_nats::Subject::from(format!("{name}.a"));
    let outgoing = (0..messages).map(move |_| Outgoing {
        subject: subject.clone(),
        headers: None,
        payload: vec![b'x'; bytes].into(),
    });
    publish(client, stream::iter(outgoing), 100, |_| {}).await.unwrap();
}

fn wanted(pipeline: &config::Pipeline) -> consumer::pull::Config {
    let shard = pipeline.shards().remove(0);
    consumer_config(pipeline, &shard, DeliverPolicy::All)
}

/// The durable after `checkpoint`, of a stream of which nothing is known yet.
async fn placed(
    world: &World,
    pipeline: &config::Pipeline,
    checkpoint: u64,
    placement: Placement,
) -> PullConsumer {
    let (shard, known) = (pipeline.shards().remove(0), Known::default());
    let config = wanted(pipeline);
    place(&world.client, &world.stream, &shard, config, checkpoint, placement, &known).await.unwrap()
}

/// Stream sequences of the next `count` deliveries after `checkpoint`.
async fn read(
    world: &World,
    pipeline: &config::Pipeline,
    checkpoint: u64,
    placement: Placement,
    limits: Limits,
    count: usize,
) -> Vec<u64> {
    let consumer = placed(world, pipeline, checkpoint, placement).await;
    let mut subscription =
        Subscription::start(&world.connection().await, &consumer, checkpoint, Arc::default(), limits)
            .await
            .unwrap();
    let mut sequences = Vec::new();
    for _ in 0..count {
        let delivery = tokio::time::timeout(Duration::from_secs(10), subscription.next());
        sequences.push(delivery.await.expect("a delivery is due").unwrap().message.sequence);
    }
    sequences
}

const ROOMY: Limits = Limits { memory: 32 << 20, largest: 16 << 20, batch: None, bytes: None, expires: None };

#[tokio::test]
async fn reading_starts_right_after_the_checkpoint_also_when_the_durable_was_elsewhere() {
    let (world, pipeline) = (stream_with("PLACE", 20, 10).await, pipeline("PLACE"));
    for (placement, checkpoint) in [
        (Placement::Reset, 0),
        (Placement::Reset, 15),
        (Placement::Reset, 3),
        (Placement::Recreate, 7),
        (Placement::Reset, 12),
    ] {
        let sequences = read(&world, &pipeline, checkpoint, placement, ROOMY, 5).await;
        assert_eq!(sequences, (checkpoint + 1..=checkpoint + 5).collect::<Vec<_>>(), "{placement:?}");
    }
}

#[tokio::test]
async fn a_durable_at_the_end_of_the_stream_delivers_what_comes_next() {
    let (world, pipeline) = (stream_with("END", 5, 10).await, pipeline("END"));
    let consumer = placed(&world, &pipeline, 5, Placement::Reset).await;
    let mut subscription =
        Subscription::start(&world.connection().await, &consumer, 5, Arc::default(), ROOMY).await.unwrap();
    assert!(subscription.next_ready().is_none());
    add(&world.client, "END", 1, 10).await;
    assert_eq!(subscription.next().await.unwrap().message.sequence, 6);
}

#[tokio::test]
async fn a_pull_request_of_another_client_takes_nothing_away() {
    let (world, pipeline) = (stream_with("ZOMBIE", 0, 10).await, pipeline("ZOMBIE"));
    let consumer = placed(&world, &pipeline, 0, Placement::Reset).await;
    let mut zombie = consumer.stream().max_messages_per_batch(50).messages().await.unwrap();
    assert!(zombie.next().now_or_never().is_none());
    // Its pull request has reached the server.
    while consumer.get_info().await.unwrap().num_waiting == 0 {
        tokio::task::yield_now().await;
    }
    let placed = placed(&world, &pipeline, 0, Placement::Reset).await;
    let mut subscription =
        Subscription::start(&world.connection().await, &placed, 0, Arc::default(), ROOMY).await.unwrap();
    assert!(subscription.next_ready().is_none());
    add(&world.client, "ZOMBIE", 20, 10).await;
    for sequence in 1..=20 {
        assert_eq!(subscription.next().await.unwrap().message.sequence, sequence);
    }
}

#[tokio::test]
async fn a_second_puller_on_the_durable_is_a_breach() {
    let (world, pipeline) = (stream_with("SECOND", 0, 10).await, pipeline("SECOND"));
    let consumer = placed(&world, &pipeline, 0, Placement::Reset).await;
    let mut subscription =
        Subscription::start(&world.connection().await, &consumer, 0, Arc::default(), ROOMY).await.unwrap();
    assert!(subscription.next_ready().is_none());
    let mut second = consumer.stream().max_messages_per_batch(50).messages().await.unwrap();
    assert!(second.next().now_or_never().is_none());
    while consumer.get_info().await.unwrap().num_waiting < 2 {
        tokio::task::yield_now().await;
    }
    add(&world.client, "SECOND", 100, 10).await;
    let breach = loop {
        match subscription.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(breach, Error::Breach(Breach::Consumer { .. })), "{breach:?}");
}

#[tokio::test]
async fn a_durable_that_an_operator_changed_is_created_anew() {
    let (world, pipeline) = (stream_with("CHANGED", 5, 10).await, pipeline("CHANGED"));
    let mut changed = wanted(&pipeline);
    changed.ack_policy = AckPolicy::Explicit;
    changed.max_ack_pending = 7;
    world.stream.create_consumer(changed).await.unwrap();
    assert_eq!(read(&world, &pipeline, 0, Placement::Reset, ROOMY, 5).await, [1, 2, 3, 4, 5]);
    let info = world.stream.consumer_info(&pipeline.shards()[0].durable).await.unwrap();
    assert!(matches(&info.config, &wanted(&pipeline)));
}

#[tokio::test]
async fn messages_of_the_largest_size_arrive_through_the_smallest_pull_request() {
    let max_payload = 1 << 20;
    let (world, pipeline) = (stream_with("LARGE", 40, max_payload).await, pipeline("LARGE"));
    let limits = limits(0, max_payload);
    let sequences = read(&world, &pipeline, 0, Placement::Reset, limits, 40).await;
    assert_eq!(sequences, (1..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn small_and_large_messages_mixed_arrive_through_byte_bounded_pull_requests() {
    let max_payload = 1 << 20;
    let (world, pipeline) = (stream_with("MIXED", 3_000, 100).await, pipeline("MIXED"));
    add(&world.client, "MIXED", 10, max_payload).await;
    add(&world.client, "MIXED", 12_000, 100).await;
    let limits = limits(0, max_payload);
    let sequences = read(&world, &pipeline, 0, Placement::Reset, limits, 15_010).await;
    assert_eq!(sequences, (1..=15_010).collect::<Vec<_>>());
}

#[tokio::test]
async fn messages_that_no_usual_pull_request_may_bring_arrive_one_by_one_among_the_others() {
    let (world, pipeline) = (stream_with("GIANTS", 300, 100).await, pipeline("GIANTS"));
    for _ in 0..3 {
        add(&world.client, "GIANTS", 2, 1 << 20).await;
        add(&world.client, "GIANTS", 300, 100).await;
    }
    let limits = limits(0, 1_000);
    assert!(limits.largest < 1 << 20);
    let sequences = read(&world, &pipeline, 0, Placement::Reset, limits, 1_206).await;
    assert_eq!(sequences, (1..=1_206).collect::<Vec<_>>());
}

#[tokio::test]
async fn subjects_narrow_what_is_read() {
    let world = stream_with("NARROW", 4, 10).await;
    let subject = async_nats::Subject::from("NARROW.b");
    let wanted = Outgoing { subject, headers: None, payload: "b".into() };
    publish(&world.client, stream::iter([wanted]), 1, |_| {}).await.unwrap();
    let narrow = config::Pipeline { subjects: vec!["NARROW.b".into()], ..pipeline("NARROW") };
    assert_eq!(read(&world, &narrow, 0, Placement::Reset, ROOMY, 1).await, [5]);
}

#[test]
fn a_durable_that_the_server_made_without_its_filters_differs() {
    let narrow = config::Pipeline { subjects: vec!["a".into(), "b".into()], ..pipeline("OLD") };
    let wanted = wanted(&narrow);
    let asked = IntoConsumerConfig::into_consumer_config(wanted.clone());
    assert_eq!(differences(&asked, &wanted), [""; 0]);
    // What a server before 2.10 makes of it.
    let made = jetstream::consumer::Config { filter_subjects: Vec::new(), ..asked.clone() };
    assert_eq!(differences(&made, &wanted), ["filter_subjects"]);
    let edited = jetstream::consumer::Config { headers_only: true, max_deliver: 3, ..asked };
    assert_eq!(differences(&edited, &wanted), ["max_deliver", "headers_only"]);
}

#[tokio::test]
async fn a_message_that_is_dressed_up_as_a_status_is_a_delivery() {
    let world = stream_with("DRESSED", 0, 10).await;
    let headers = "NATS/1.0 409 Consumer Deleted\r\n\r\n";
    let raw = format!(
        "CONNECT {{\"headers\":true,\"verbose\":false}}\r\nHPUB DRESSED.a {0} {0}\r\n{headers}\r\nPING\r\n",
        headers.len()
    );
    let mut connection = tokio::net::TcpStream::connect(("127.0.0.1", world.nats.port())).await.unwrap();
    connection.write_all(raw.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"PONG\r\n") {
        assert_ne!(connection.read_buf(&mut said).await.unwrap(), 0, "{}", String::from_utf8_lossy(&said));
    }
    add(&world.client, "DRESSED", 1, 10).await;
    assert_eq!(read(&world, &pipeline("DRESSED"), 0, Placement::Reset, ROOMY, 2).await, [1, 2]);
}
