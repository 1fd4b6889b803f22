//! People and programs do things to the durable.

use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, FromConsumer as _, pull};
use futures_util::StreamExt as _;

use jetcopy::testbed::{NatsOptions, TestNats, TestPostgres};

use super::{quiet, resyncs, shared};
use crate::support::{Daemon, EVENTS, Load, TABLE, World, event, eventually, oracle};

pub(super) const DURABLE: &str = "jetcopy-events";

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_consumer_is_created_again_at_the_checkpoint() {
    let world = shared().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    for round in 1..=3 {
        world.commits(&daemon).await;
        stream.delete_consumer(DURABLE).await.unwrap();
        // A request that comes right then finds nobody.
        let noticed = || resyncs(&daemon, "consumer_deleted") + resyncs(&daemon, "no_responders");
        eventually("the daemon to notice", || async { noticed() >= round }).await;
        let recovery = world.commits(&daemon).await;
        println!("consumer deleted: first commit after {recovery:?}");
    }
    quiet(&daemon, 40);
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_consumer_is_put_back_as_it_has_to_be() {
    let world = shared().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let made = config(&world).await;
    let edits: [fn(&mut pull::Config); 3] = [
        |config| config.max_ack_pending = 7,
        // Redelivers what the writer still holds.
        |config| config.ack_wait = Duration::from_millis(1),
        |config| config.filter_subject = "nothing.like.it".into(),
    ];
    for edit in edits {
        let before = resyncs(&daemon, "consumer_changed") + resyncs(&daemon, "contiguity");
        let mut edited = made.clone();
        edit(&mut edited);
        let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
        stream.update_consumer(edited).await.unwrap();
        eventually("the daemon to notice", || async {
            resyncs(&daemon, "consumer_changed") + resyncs(&daemon, "contiguity") > before
        })
        .await;
        let recovery = world.commits(&daemon).await;
        println!("consumer edited: first commit after {recovery:?} from its being noticed");
        assert_eq!(config(&world).await, made);
    }
    quiet(&daemon, 40);
    world.judge(&daemon, load).await;
}

async fn config(world: &World) -> pull::Config {
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let consumer: Consumer<pull::Config> = stream.get_consumer(DURABLE).await.unwrap();
    pull::Config::try_from_consumer_config(consumer.cached_info().config.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_second_puller_takes_and_acks_is_read_again() {
    let world = shared().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let mut stolen = 0;
    for _ in 0..5 {
        // Each recreation by the daemon ends the thief's requests, so it comes back.
        let Ok(consumer) = stream.get_consumer::<pull::Config>(DURABLE).await else { continue };
        let expires = Duration::from_secs(1);
        let mut messages = consumer.batch().max_messages(500).expires(expires).messages().await.unwrap();
        while let Some(Ok(message)) = messages.next().await {
            message.ack().await.unwrap();
            stolen += 1;
        }
    }
    assert!(stolen > 0, "the thief got nothing");
    let recovery = world.commits(&daemon).await;
    println!("{stolen} messages taken by a second puller: first commit after {recovery:?}");
    assert!(resyncs(&daemon, "contiguity") >= 1, "{}", daemon.get("/metrics").1);
    // An ack of the thief's that meets a durable made anew meanwhile counts deliveries of the former one:
    // until there were as many of the new one, the server takes no other ack.
    let taken = world.last_sequence().await;
    eventually("as many messages again", || async { world.checkpoint("events").await > 2 * taken }).await;
    quiet(&daemon, 60);
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_edited_to_headers_only_costs_no_payload() {
    let world = shared().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    for round in 1..=3 {
        let edited = pull::Config { headers_only: true, ..config(&world).await };
        stream.update_consumer(edited).await.unwrap();
        eventually("the daemon to notice", async || resyncs(&daemon, "consumer_changed") >= round).await;
        let recovery = world.commits(&daemon).await;
        println!("headers_only: first commit after {recovery:?} from its being noticed");
    }
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    quiet(&daemon, 40);
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publishers_own_size_header_stops_nothing() {
    let world = shared().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", (1..=10).map(event)).await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Size", "61");
    let subject = format!("{}.a", world.stream);
    world.nats.publish_with_headers(subject, headers, "".into()).await.unwrap();
    world.publish("a", (11..=20).map(event)).await;
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 20);
    daemon.needed_no_resync();
}

/// Messages that may be unacknowledged with the small batches of [`EVENTS`].
const MOST_UNACKED: u64 = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_that_counts_for_more_than_was_delivered_holds_nothing_up() {
    let world = shared().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    // While these cannot be committed, it comes: as of a delivery of an earlier generation, which had
    // delivered more.
    world.database.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    world.publish("a", (101..=600).map(event)).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let info = async || stream.consumer_info(DURABLE).await.unwrap();
    eventually("all to be delivered", async || info().await.delivered.stream_sequence == 600).await;
    let late = format!("$JS.ACK.{}.{DURABLE}.1.600.1000000000.1700000000000000000.0", world.stream);
    world.nats.publish(late, "+ACK".into()).await.unwrap();
    eventually("the late ack to count", async || info().await.ack_floor.consumer_sequence == 1_000_000_000)
        .await;
    world.database.batch_execute("ROLLBACK").await.unwrap();
    world.publish("a", (601..=600 + 3 * MOST_UNACKED).map(event)).await;
    eventually("the daemon to notice", async || resyncs(&daemon, "acks") >= 1).await;
    oracle(&world, &daemon, "events", "events", event(1_000_000)).await;
    quiet(&daemon, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_acknowledge_is_told_so() {
    let users = "no_auth_user: test
        authorization { users: [
            { user: test, password: test }
            { user: jetcopy, password: secret, permissions: { publish: { deny: \"$JS.ACK.>\" } } } ] }";
    let nats = TestNats::start(&NatsOptions { config: users.into() }).unwrap();
    let postgres = TestPostgres::shared().unwrap();
    let mut world = World::on(&nats, &postgres).await;
    world.database.batch_execute(TABLE).await.unwrap();
    world.nats_url = nats.url().replace("://", "://jetcopy:secret@");
    let daemon = Daemon::start(&world.config(EVENTS));
    let messages = 3 * MOST_UNACKED;
    world.publish("a", (1..=messages).map(event)).await;
    daemon.says("http=").await;
    eventually("the state to say what is missing", async || {
        let status = daemon.status();
        status["state"] == "paused" && status["remedy"].as_str().unwrap().contains("$JS.ACK.")
    })
    .await;
    assert_eq!(daemon.get("/readyz").0, 503);
    // Each look brings as much as goes without an ack.
    world.drained("events", &daemon).await;
    super::each_id_once(&world, messages).await;
}

/// More messages than the client holds for one subscription before it drops them: 256 Ki.
const FLOOD: u64 = 300_000;

/// Makes each batch take longer than two probes.
const SLOW: &str = "
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(5); RETURN NULL; END';
    CREATE TRIGGER slow BEFORE INSERT ON events EXECUTE FUNCTION slow()";

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_cannot_be_made_by_a_backlog_and_one_that_is_forced_loses_nothing() {
    let world = shared().await;
    let mut pulls =
        world.nats.subscribe(format!("$JS.API.CONSUMER.MSG.NEXT.{}.{DURABLE}", world.stream)).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let inbox = pulls.next().await.unwrap().reply.unwrap();

    // Each batch takes so long that the writer all but stands still.
    world.database.batch_execute(SLOW).await.unwrap();
    world.publish("burst", (1..=12_000).map(|id| event(1_000_000_000 + id))).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let ack_pending = async || stream.consumer_info(DURABLE).await.unwrap().num_ack_pending;
    eventually("a pull request's worth to be delivered", async || ack_pending().await >= 5_000).await;
    // The time is the point: in three probes, a slow writer is not taken for lost deliveries.
    tokio::time::sleep(Duration::from_secs(6)).await;
    // A window of 7,500 may have doubled on a busy machine.
    assert!(ack_pending().await <= 15_000, "no more than what was asked for may be on the way");
    let status = daemon.status();
    assert_eq!(status["state"], "running", "{status}");
    daemon.needed_no_resync();

    // What no pull request asked for comes from somebody who listened.
    for _ in 0..FLOOD {
        world.nats.publish(inbox.clone(), "".into()).await.unwrap();
    }
    eventually("the daemon to notice", || async { resyncs(&daemon, "slow_consumer") >= 1 }).await;
    world.database.batch_execute("DROP TRIGGER slow ON events").await.unwrap();
    let recovery = world.commits(&daemon).await;
    println!("slow consumer: first commit after {recovery:?}");
    quiet(&daemon, 40);
    world.judge(&daemon, load).await;
}
