//! People do things to the stream, and its limits drop what is too old.

use async_nats::jetstream::stream::{Config, RetentionPolicy};
use jetcopy::testbed::{NatsOptions, PostgresOptions, Stop, TestNats, TestPostgres};

use super::{accept_loss, each_id_once, events_with, halted, losses, quiet, resyncs, shared};
use crate::postgres::in_state;
use crate::support::{Daemon, EVENTS, Load, TABLE, World, event, eventually, oracle};

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_what_is_committed_is_no_loss() {
    let world = shared().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    for _ in 0..5 {
        world.commits(&daemon).await;
        let committed = world.checkpoint("events").await;
        stream.purge().sequence(committed + 1).await.unwrap();
    }
    world.judge(&daemon, load).await;
    // All of it, too, and with the daemon away.
    daemon.kill();
    stream.purge().await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    oracle(&world, &daemon, "events", "events", event(1)).await;
    assert!(losses(&world).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_what_is_unread_halts_the_pipeline_until_it_is_accepted() {
    let world = shared().await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    let load = Load::start(&world);
    world.commits(&daemon).await;
    purge_unread(&world).await;
    halted(&daemon, "the stream dropped sequences").await;
    quiet(&daemon, 20);
    let recorded = losses(&world).await;
    assert_eq!(recorded.len(), 1, "{recorded:?}");
    assert_eq!((recorded[0].0, recorded[0].2.as_str()), (next(&world).await, "dropped"));
    accept_loss(&config);
    world.judge(&daemon, load).await;
    assert_eq!(losses(&world).await, recorded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_what_is_unread_is_recorded_and_passed_over_with_on_loss_continue() {
    let world = shared().await;
    let daemon = Daemon::start(&world.config(&events_with("on_loss = \"continue\"")));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    purge_unread(&world).await;
    eventually("the loss to be recorded", || async { !losses(&world).await.is_empty() }).await;
    world.judge(&daemon, load).await;
    let recorded = losses(&world).await;
    assert_eq!(recorded.len(), 1, "{recorded:?}");
    assert_eq!(daemon.metric("jetcopy_losses_total", ""), 1);
    let length = recorded[0].1.unwrap() - recorded[0].0 + 1;
    assert_eq!(daemon.metric("jetcopy_lost_messages_total", ""), length);
    daemon.says("continuing past a loss").await;
}

/// Purges a stream whose messages are partly committed, partly delivered and partly unread.
async fn purge_unread(world: &World) {
    world.database.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    world.publish("burst", (1..=30_000).map(|id| event(1_000_000_000 + id))).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    stream.purge().await.unwrap();
    world.database.batch_execute("ROLLBACK").await.unwrap();
}

/// The sequence after the checkpoint.
async fn next(world: &World) -> i64 {
    i64::try_from(world.checkpoint("events").await + 1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_deleted_in_the_middle_under_load_are_no_loss() {
    let world = shared().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    for _ in 0..20 {
        world.commits(&daemon).await;
        let last = world.last_sequence().await;
        // Committed, under way, or not yet read.
        for sequence in [last - 50, last - 10, last] {
            // One that was deleted in the round before stays so.
            let _ = stream.delete_message(sequence).await;
        }
    }
    world.judge(&daemon, load).await;
    assert!(losses(&world).await.is_empty());
    assert_eq!(resyncs(&daemon, "dropped"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_drops_while_the_database_is_down_is_recorded() {
    let nats = TestNats::start(&NatsOptions::default()).unwrap();
    let mut postgres = TestPostgres::start(&PostgresOptions::default()).unwrap();
    let mut world = World::on(&nats, &postgres).await;
    world.database.batch_execute(TABLE).await.unwrap();
    let stream = Config { max_messages: 1_000, ..world.stream_config() };
    world.jetstream.update_stream(stream).await.unwrap();
    let daemon = Daemon::start(&world.config(&events_with("on_loss = \"continue\"")));
    // Before it has begun, what the stream drops is no loss.
    daemon.says("pipeline is running").await;
    let load = Load::start(&world);
    world.commits(&daemon).await;

    postgres.stop(Stop::Fast);
    eventually("the daemon to notice", || async { daemon.status()["state"] == "backing_off" }).await;
    let committed = u64::try_from(daemon.metric("jetcopy_checkpoint_sequence", "")).unwrap();
    eventually("retention to pass the checkpoint", || async {
        let state = world.jetstream.get_stream(&world.stream).await.unwrap().cached_info().state.clone();
        state.first_sequence > committed + 1_000
    })
    .await;
    postgres.start_again().unwrap();
    world.reconnect().await;
    let recovery = world.commits(&daemon).await;
    println!("retention passed the checkpoint, on_loss = \"continue\": first commit after {recovery:?}");
    quiet(&daemon, 20);
    world.judge(&daemon, load).await;
    let recorded = losses(&world).await;
    assert!(!recorded.is_empty());
    assert!(recorded[0].1.unwrap() > recorded[0].0 + 500, "{recorded:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_deleted_and_recreated_is_read_from_its_start_once_that_is_accepted() {
    // With fewer messages than the former stream had, with more, and with as many.
    for (former, later) in [(2_000, 500), (500, 2_000), (700, 700)] {
        let world = shared().await;
        let config = world.config(EVENTS);
        let daemon = Daemon::start(&config);
        world.publish("a", (1..=former).map(event)).await;
        world.drained("events", &daemon).await;

        world.jetstream.delete_stream(&world.stream).await.unwrap();
        world.create_stream().await;
        world.publish("a", (former + 1..=former + later).map(event)).await;
        halted(&daemon, "the stream was recreated").await;
        let first = i64::try_from(former + 1).unwrap();
        assert_eq!(losses(&world).await, [(first, None, "recreated".to_owned())]);
        assert_eq!(world.checkpoint("events").await, former);
        quiet(&daemon, 20);

        accept_loss(&config);
        // It takes more while it goes on.
        let published = former + later + 1_000;
        world.publish("a", (former + later + 1..=published).map(event)).await;
        world.drained("events", &daemon).await;
        each_id_once(&world, published).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_gone_pauses_the_pipeline_and_names_what_to_do() {
    let world = shared().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", (1..=500).map(event)).await;
    world.drained("events", &daemon).await;
    world.jetstream.delete_stream(&world.stream).await.unwrap();
    eventually("the pipeline to pause", || async { daemon.status()["state"] == "paused" }).await;
    let (code, ready) = daemon.get("/readyz");
    assert!(code == 503 && ready.contains("create the stream"), "{code} {ready}");
    quiet(&daemon, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_retention_is_edited_under_a_running_daemon_pauses_it_until_it_is_put_back() {
    let world = shared().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    let edited = Config { retention: RetentionPolicy::Interest, ..world.stream_config() };
    world.jetstream.update_stream(edited).await.unwrap();
    let reason = "has interest retention and cannot be replayed";
    let status = in_state(&daemon, "paused", reason).await;
    assert!(status["remedy"].as_str().unwrap().contains("limits retention"), "{status}");
    // What comes meanwhile waits unread and unacknowledged.
    let committed = world.checkpoint("events").await;
    world.publish("a", (101..=200).map(event)).await;
    assert_eq!(world.checkpoint("events").await, committed);
    world.jetstream.update_stream(world.stream_config()).await.unwrap();
    oracle(&world, &daemon, "events", "events", event(201)).await;
    each_id_once(&world, 201).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subjects_that_cross_are_no_error_and_a_message_that_fits_both_comes_once() {
    let world = shared().await;
    let config = world.config(&events_with("subjects = [\"STREAM.a.*\", \"STREAM.*.b\"]"));
    world.run(&config, &["check"]).await.well();
    let daemon = Daemon::start(&config);
    for (index, token) in ["a.b", "a.c", "c.b", "c.d"].into_iter().enumerate() {
        let first = index as u64 * 100;
        world.publish(token, (first + 1..=first + 100).map(event)).await;
    }
    world.drained("events", &daemon).await;
    each_id_once(&world, 300).await;
}
