//! What is shown is true, or said to be unknown: in each state that a pipeline can be in.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jetcopy::testbed::{NatsOptions, PostgresOptions, Stop, TestNats, TestPostgres};
use serde_json::{Value, json};

use crate::support::{Daemon, EVENTS, Load, TABLE, World, event, eventually, oracle};

/// How old messages are that must not be shown as younger, in seconds.
const AGE: i32 = 2;

async fn world() -> World {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world
}

/// Looks at `/status` until that is `enough`.
async fn watched(daemon: &Daemon, what: &str, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let mut seen = Vec::new();
    eventually(what, || {
        seen.push(daemon.status());
        let enough = enough(&seen);
        async move { enough }
    })
    .await;
    seen
}

/// How many values of a field were shown: each look at the servers gives another one of what always changes.
fn values(seen: &[Value], field: &str) -> usize {
    let known = seen.iter().map(|status| &status[field]).filter(|value| !value.is_null());
    known.map(Value::to_string).collect::<BTreeSet<_>>().len()
}

/// Whether a pipeline that waits for a person has looked again whether they came.
fn looks_again(seen: &[Value]) -> bool {
    let looks = |status: &Value| status["resyncs"].as_u64();
    looks(seen.last().unwrap()) > looks(&seen[0])
}

/// Messages that are not committed, as `/status` adds up to.
fn waiting(status: &Value) -> Option<i64> {
    ["undelivered_messages", "in_flight_messages", "uncommitted_messages"]
        .into_iter()
        .map(|field| status[field].as_i64())
        .sum()
}

/// Until the figures of a pipeline in `state` are known.
async fn known(daemon: &Daemon, state: &str) -> Value {
    eventually(&format!("the figures of a pipeline that is {state}"), || async {
        let status = daemon.status();
        status["state"] == state && waiting(&status).is_some()
    })
    .await;
    daemon.status()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_is_true_right_after_a_start_and_a_resync_or_said_to_be_unknown() {
    let world = world().await;
    world.publish("a", (1..=3_000).map(event)).await;
    let stored = world.jetstream.get_stream(&world.stream).await.unwrap().cached_info().state.last_timestamp;
    let age = || jiff::Timestamp::now().as_nanosecond() - stored.unix_timestamp_nanos();
    eventually("the messages to be old", || async { age() >= i128::from(AGE) * 1_000_000_000 }).await;
    world.database.batch_execute("BEGIN; LOCK TABLE events IN SHARE MODE").await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    daemon.says("http=").await;
    let three = |seen: &[Value]| values(seen, "behind_seconds") >= 3;
    let mut seen = watched(&daemon, "three looks", three).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE application_name LIKE 'jetcopy/%' AND datname = current_database()";
    world.database.batch_execute(end).await.unwrap();
    let resynced = watched(&daemon, "three looks after a resync", |seen| {
        seen.iter().any(|status| status["state"] != "running") && three(seen)
    });
    seen.extend(resynced.await);
    for status in &seen {
        let behind = status["behind_seconds"].as_f64();
        assert!(behind.is_none_or(|behind| behind >= f64::from(AGE)), "{status:#}");
        assert!([None, Some(3_000)].contains(&waiting(status)), "{status:#}");
    }
    let told = seen.iter().filter(|status| !status["behind_seconds"].is_null()).count();
    assert!(2 * told > seen.len(), "it was known {told} of {} times", seen.len());
    world.database.batch_execute("ROLLBACK").await.unwrap();
    oracle(&world, &daemon, "events", "events", event(3_001)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_checkpoint_lies_beyond_the_end_of_a_stream_under_load() {
    let world = world().await;
    let config = world.config(EVENTS);
    let (load, daemon) = (Load::start(&world), Daemon::start(&config));
    daemon.says("pipeline is running").await;
    let waiter = Daemon::start(&config);
    waiter.says("pipeline is waiting").await;
    for daemon in [&daemon, &waiter] {
        let looks = watched(daemon, "three looks", |seen| values(seen, "stream_last_sequence") >= 3);
        for status in looks.await {
            let (at, end) = (status["checkpoint_sequence"].as_u64(), status["stream_last_sequence"].as_u64());
            assert!(at.is_none_or(|at| end.is_none_or(|end| at <= end)), "{status:#}");
        }
    }
    let status = waiter.status();
    let (at, behind) = (status["checkpoint_sequence"].as_u64(), status["behind_seconds"].as_f64());
    assert!(at > Some(0) && behind.is_some_and(|behind| behind < 5.0), "one that waits knows: {status:#}");
    drop(waiter);
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_made_anew_shows_its_own_end_and_all_of_it_as_waiting() {
    let world = world().await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    world.publish("a", (1..=1_000).map(event)).await;
    world.drained("events", &daemon).await;
    world.jetstream.delete_stream(&world.stream).await.unwrap();
    world.create_stream().await;
    world.publish("a", (1..=50).map(event)).await;
    eventually("the pipeline to halt", || async { daemon.status()["state"] == "halted" }).await;
    eventually("what waits", || async { waiting(&daemon.status()) == Some(50) }).await;
    for status in watched(&daemon, "another look", looks_again).await {
        let shown = (&status["checkpoint_sequence"], &status["stream_last_sequence"], waiting(&status));
        assert_eq!(shown, (&json!(1_000), &json!(50), Some(50)), "{status:#}");
        assert!(status["behind_seconds"].as_f64() > Some(0.0), "{status:#}");
        assert_eq!(
            (&status["headroom_sequences"], &status["state"]),
            (&json!(0), &json!("halted")),
            "{status:#}"
        );
    }
    daemon.kill();
    // The lease of the daemon that was killed ends by itself.
    eventually("a reason", || async {
        let seen = world.run(&config, &["status", "--json"]).await.objects().remove(0);
        let status = &seen["pipelines"][0];
        assert_eq!((&status["behind_seconds"], &status["headroom_sequences"]), (&Value::Null, &Value::Null));
        status["reason"].as_str().is_some_and(|reason| reason.contains("recreated, rolled back"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_never_ran_knows_what_waits_for_it() {
    let world = world().await;
    world.database.batch_execute("DROP TABLE events").await.unwrap();
    world.publish("a", (1..=70).map(event)).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    daemon.says("pipeline is paused").await;
    for status in watched(&daemon, "NATS to be met", |seen| seen.last().unwrap()["nats_up"] == true).await {
        assert!(status["nats_up"] != false && status["behind_seconds"].as_f64() != Some(0.0), "{status:#}");
    }
    let status = known(&daemon, "paused").await;
    assert_eq!((waiting(&status), &status["nats_up"]), (Some(70), &json!(true)), "{status:#}");
    assert!(status["behind_seconds"].as_f64() > Some(0.0), "{status:#}");
    // Also while it looks again, every ten seconds: an alert would resolve and fire anew.
    for status in watched(&daemon, "another look", looks_again).await {
        assert_eq!((&status["state"], &status["nats_up"]), (&json!("paused"), &json!(true)), "{status:#}");
    }
    world.database.batch_execute(TABLE).await.unwrap();
    oracle(&world, &daemon, "events", "events", event(71)).await;
    assert_eq!(daemon.status()["state"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_beginning_of_an_outage_a_pipeline_is_behind_by_what_comes_in() {
    let mut postgres = TestPostgres::start(&PostgresOptions::plain()).unwrap();
    let mut world = World::with_postgres(&postgres).await;
    world.database.batch_execute(TABLE).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", [event(1)]).await;
    world.drained("events", &daemon).await;
    postgres.stop(Stop::Fast);
    world.publish("a", [event(2)]).await;
    let published = Instant::now();
    while published.elapsed() < Duration::from_secs(10) {
        let (waited, status) = (published.elapsed().as_secs_f64(), daemon.status());
        let behind = status["behind_seconds"].as_f64();
        // It is looked every four seconds.
        assert!(behind.is_none_or(|behind| behind + 5.0 > waited), "after {waited} s: {status:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    postgres.start_again().unwrap();
    world.reconnect().await;
    oracle(&world, &daemon, "events", "events", event(3)).await;
    assert_eq!(daemon.metric("jetcopy_outages_total", ""), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_was_rewound_shows_what_it_will_carry_again() {
    let world = world().await;
    let config = world.config(EVENTS);
    world.publish("a", (1..=100).map(event)).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    world.run(&config, &["pause", "events"]).await.well();
    world.run(&config, &["rewind", "events", "--to", "40", "--yes"]).await.well();
    eventually("what is to be carried again", || async { waiting(&daemon.status()) == Some(60) }).await;
    assert_eq!(daemon.status()["checkpoint_sequence"], 40);
    daemon.kill();
    let daemon = Daemon::start(&config);
    daemon.says("pipeline is paused").await;
    let status = known(&daemon, "paused").await;
    assert_eq!((waiting(&status), &status["checkpoint_sequence"]), (Some(60), &json!(40)), "{status:#}");
    assert!(status["behind_seconds"].as_f64() > Some(0.0), "{status:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_pipeline_is_not_behind_with_subjects_of_others() {
    let world = world().await;
    let filtered = EVENTS.replace("stream = \"STREAM\"", "stream = \"STREAM\"\nsubjects = [\"STREAM.a\"]");
    let config = world.config(&filtered);
    world.publish("a", (1..=10).map(event)).await;
    let daemon = Daemon::start(&config);
    eventually("the rows", || async { world.count("SELECT count(*) FROM events").await == 10 }).await;
    world.run(&config, &["pause", "events"]).await.well();
    eventually("the pause", || async { daemon.status()["state"] == "paused" }).await;
    world.publish("b", (1..=500).map(event)).await;
    // Two looks, of which each sees what came before it.
    for last in [510, 511] {
        let seen = watched(&daemon, "a look", |seen| seen.last().unwrap()["stream_last_sequence"] == last);
        for status in seen.await {
            let behind = status["behind_seconds"].as_f64();
            assert!(behind.is_none_or(|behind| behind < 1.0), "{status:#}");
            assert!([None, Some(0)].contains(&waiting(&status)), "{status:#}");
        }
        world.publish("b", [event(501)]).await;
    }
    world.publish("a", [event(11)]).await;
    eventually("the message", || async { waiting(&daemon.status()) == Some(1) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nats_no_longer_tells_is_unknown_and_what_waited_goes_on_waiting() {
    let mut nats = TestNats::start(&NatsOptions::default()).unwrap();
    let postgres = TestPostgres::shared().unwrap();
    let world = World::on(&nats, &postgres).await;
    world.database.batch_execute(TABLE).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", (1..=10).map(event)).await;
    world.drained("events", &daemon).await;
    nats.stop(Stop::Fast);
    eventually("the lag to be unknown", || async {
        let status = daemon.status();
        status["behind_seconds"].is_null() && waiting(&status).is_none() && status["nats_up"] == false
    })
    .await;
    nats.start_again().unwrap();
    world.nats_answers().await;
    oracle(&world, &daemon, "events", "events", event(11)).await;
    assert!(daemon.status()["behind_seconds"].as_f64() < Some(1.0), "{:#}", daemon.status());

    world.database.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    world.publish("a", (12..=20).map(event)).await;
    eventually("the messages to be seen", || async { waiting(&daemon.status()) == Some(9) }).await;
    nats.stop(Stop::Fast);
    eventually("the count to be unknown", || async { waiting(&daemon.status()).is_none() }).await;
    let behind = daemon.status()["behind_seconds"].as_f64();
    assert!(behind > Some(10.0), "what waited goes on waiting: {behind:?}");
    world.database.batch_execute("ROLLBACK").await.unwrap();
    nats.start_again().unwrap();
    world.nats_answers().await;
    oracle(&world, &daemon, "events", "events", event(21)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counts_of_dead_letters_are_the_same_wherever_they_are_shown() {
    let world = world().await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    world.publish("a", ["cut"; 3]).await;
    world.drained("events", &daemon).await;
    daemon.kill();
    world.publish("a", ["cut"]).await;
    let daemon = Daemon::start(&config);
    daemon.says("http=").await;
    let counts = |status: &Value| {
        (status["dead_letters_in_table"].as_i64(), status["dead_letters_since_start"].as_i64())
    };
    eventually("both counts", || async { counts(&daemon.status()) == (Some(4), Some(1)) }).await;
    assert_eq!(daemon.metric("jetcopy_dead_letters_in_table", ""), 4);
    assert_eq!(daemon.metric("jetcopy_dead_letters_total", "kind=\"malformed\""), 4);
    assert_eq!(daemon.status()["dead_letters_by_kind"]["malformed"], 4);
    daemon.kill();
    let seen = world.run(&config, &["status", "--json"]).await.objects().remove(0);
    assert_eq!(counts(&seen["pipelines"][0]), (Some(4), None), "{seen:#}");

    let daemon = Daemon::start(&config);
    daemon.says("http=").await;
    eventually("the count of the table", || async { counts(&daemon.status()) == (Some(4), Some(0)) }).await;
    world.database.batch_execute("DELETE FROM jetcopy.dead_letters WHERE sequence > 1").await.unwrap();
    eventually("what others settled", || async { counts(&daemon.status()) == (Some(1), Some(0)) }).await;
}
