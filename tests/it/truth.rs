//! Every metric and every field of `/status` is what NATS and the database say, in each state that a pipeline
//! can be in.
//!
//! What is shown may be as old as a probe or a look; so the servers are asked for some seconds before, and
//! what is shown must lie between the least and the most that was true meanwhile. Where nothing moves, that
//! is one number.

mod expected;
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use async_nats::HeaderMap;
use jetcopy::metrics::names;
use jetcopy::testbed::{PostgresOptions, Stop, TestPostgres};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Daemon, World, event, eventually};
use expected::Case;
use servers::{Asked, Truth};

/// A table that two pipelines may share, with a column that no message fills.
const TABLE: &str =
    "CREATE TABLE events (pipeline text, sequence bigint NOT NULL, id bigint NOT NULL, empty text);
    CREATE TABLE never (LIKE events)";

/// How often it is compared before what is shown counts as untrue: what settles needs a probe or two.
const TRIES: u32 = 4;

const EVENTS: Asked = Asked { pipeline: "events", subject: "", table: "events", from: 0 };

/// A pipeline of that name; `more` are lines of it.
fn pipeline(name: &str, more: &str) -> String {
    format!(
        "\n[[pipeline]]\nname = \"{name}\"\nstream = \"STREAM\"\nformat = \"msgpack\"\n\
         batch = {{ max_rows = 5, max_age = \"5ms\" }}\n{more}\n[[pipeline.table]]\nname = \"events\"\n\
         [pipeline.table.columns]\nsequence = \"$sequence\"\npipeline = {{ constant = \"{name}\" }}\n"
    )
}

async fn world() -> World {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world
}

/// Good messages, one that is none, and a marker.
async fn publish(world: &World, token: &str, good: u64) {
    world.publish(token, (1..=good).map(event)).await;
    world.publish(token, ["not MessagePack"]).await;
    let mut headers = HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    let subject = format!("{}.{token}", world.stream);
    let publish = world.jetstream.publish_with_headers(subject, headers, "".into());
    publish.await.unwrap().await.unwrap();
}

async fn is(daemon: &Daemon, state: &str) {
    daemon.says("http=").await;
    eventually(&format!("a pipeline that is {state}"), || async {
        let status: Value = serde_json::from_str(&daemon.get("/status").1).unwrap();
        status["pipelines"].as_array().unwrap().iter().all(|pipeline| pipeline["state"] == state)
    })
    .await;
}

/// The daemon with a pipeline `events` that has carried some messages.
async fn carried(world: &World, more: &str) -> (PathBuf, Daemon, Instant) {
    let config = world.config(&pipeline("events", more));
    publish(world, "a", 20).await;
    let (daemon, started) = (Daemon::start(&config), Instant::now());
    is(&daemon, "running").await;
    world.drained("events", &daemon).await;
    (config, daemon, started)
}

/// As a daemon is that was left alone.
fn case<'t>(truth: &'t Truth, state: &'static str, started: Instant) -> Case<'t> {
    let (ran, disturbed, blocked, outages, starts) = (true, false, false, 0.0, 1.0);
    Case { truth, state, started, ran, disturbed, blocked, outages, starts }
}

/// Compares all that is shown of a pipeline; `put` says how the test has put it.
async fn compare(world: &World, daemon: &Daemon, asked: &Asked, put: impl for<'a> Fn(&'a Truth) -> Case<'a>) {
    let mut untrue = Vec::new();
    for _ in 0..TRIES {
        let (truth, (metrics, status)) =
            Truth::around(world, asked, || (daemon.get("/metrics").1, daemon.get("/status").1)).await;
        untrue = differences(asked, &put(&truth), &metrics, &serde_json::from_str(&status).unwrap());
        if untrue.is_empty() {
            return;
        }
    }
    panic!("untrue of {}:\n{}", asked.pipeline, untrue.join("\n"));
}

fn differences(asked: &Asked, case: &Case<'_>, metrics: &str, status: &Value) -> Vec<String> {
    let (mut untrue, mut seen) = (Vec::new(), BTreeSet::new());
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        seen.insert(name);
        let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
        let labels: BTreeMap<_, _> =
            labels.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect();
        if labels.get("pipeline").is_some_and(|pipeline| pipeline != asked.pipeline) {
            continue;
        }
        let expected = case.metric(name, &labels);
        if !expected.holds(Some(value.parse().unwrap())) {
            untrue.push(format!("{line}: not {expected:?}"));
        }
    }
    for family in names::ALL {
        let shown = seen.iter().any(|name| name.trim_end_matches("_count") == family.name);
        let expected = if shown { continue } else { case.metric(&histogram(family.name), &BTreeMap::new()) };
        if !expected.holds(None) {
            untrue.push(format!("{} is absent: not {expected:?}", family.name));
        }
    }
    let of_pipelines = status["pipelines"].as_array().unwrap();
    let shown = of_pipelines.iter().find(|status| status["pipeline"] == asked.pipeline).unwrap();
    for (field, value) in shown.as_object().unwrap() {
        let expected = case.status(field);
        if !expected.holds_in_json(value) {
            untrue.push(format!("/status: {field} is {value}: not {expected:?}"));
        }
    }
    untrue.extend(in_the_whole(case, shown));
    untrue
}

/// What a family is looked up by where it is a histogram.
fn histogram(name: &str) -> String {
    let is = name.ends_with("_commit_seconds")
        || name == "jetcopy_api_request_seconds"
        || name == "jetcopy_batch_rows";
    if is { format!("{name}_count") } else { name.to_owned() }
}

/// What only several fields together tell.
fn in_the_whole(case: &Case<'_>, status: &Value) -> Vec<String> {
    let count = |name: &str| status[name].as_f64().unwrap_or(f64::NAN);
    let waiting = count("undelivered_messages") + count("in_flight_messages") + count("uncommitted_messages");
    let (low, high) = case.truth.range("waiting", 4.5);
    let sum = |name: &str| -> f64 {
        status[name].as_object().unwrap().values().filter_map(Value::as_f64).sum::<f64>()
    };
    let letters = if case.ran { case.truth.now("letters") } else { (0.0, 0.0) };
    let within = |value: f64, (low, high): (f64, f64)| low <= value && value <= high;
    let runs = case.state == "running";
    let newest = status["newest_dead_letters"].as_array().unwrap().len();
    [
        ("what waits adds up", within(waiting, (low, high))),
        ("dead letters by kind add up", within(sum("dead_letters_by_kind"), letters)),
        ("resyncs by cause add up", (sum("resyncs_by_cause") - count("resyncs")).abs() < 0.5),
        (
            "transactions take time where there were some",
            (sum("write_seconds") > 0.0) == (count("commits") > 0.0),
        ),
        ("a time since when it is down", status["down_since"].is_null() == runs),
        ("what holds it up", status["held_up"].is_null() != case.blocked),
        ("a reason", !status["reason"].is_null() || runs),
        ("newest letters", newest == status["dead_letters_since_start"].as_u64().unwrap().min(8) as usize),
        ("untaken fields by name", status["untaken"]["field_times"].as_f64() == Some(untaken(status))),
        (
            "the error before this",
            case.disturbed || case.state != "running" || status["last_error"].is_null(),
        ),
        ("nothing of a flood", status["flood"].as_array().unwrap().is_empty()),
    ]
    .into_iter()
    .filter(|(_, holds)| !holds)
    .map(|(what, _)| format!("/status, {what}: {status:#}"))
    .collect()
}

fn untaken(status: &Value) -> f64 {
    let fields = status["untaken"]["fields"].as_array().unwrap();
    fields.iter().filter_map(|field| field["times"].as_f64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_steady_pipeline_all_is_true_that_is_shown() {
    let world = world().await;
    let (_, daemon, started) = carried(&world, "").await;
    publish(&world, "a", 30).await;
    compare(&world, &daemon, &EVENTS, |truth| case(truth, "running", started)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_pipeline_that_lags_and_of_one_that_is_blocked_all_is_true_that_is_shown() {
    let world = world().await;
    let (_, daemon, started) = carried(&world, "").await;
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); \
        RETURN NEW; END';
        CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow()";
    world.database.batch_execute(slow).await.unwrap();
    world.publish("a", (1..=120).map(event)).await;
    compare(&world, &daemon, &EVENTS, |truth| case(truth, "running", started)).await;
    world.database.batch_execute("DROP TRIGGER slow ON events").await.unwrap();
    world.drained("events", &daemon).await;

    // No lock: after ten seconds the pipeline would begin anew.
    let stuck = "CREATE TABLE gate (); CREATE FUNCTION stuck() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN WHILE EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.1); END LOOP; RETURN NULL; END';
        INSERT INTO gate DEFAULT VALUES;
        CREATE TRIGGER stuck BEFORE INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION stuck()";
    world.database.batch_execute(stuck).await.unwrap();
    world.publish("a", (1..=9).map(event)).await;
    compare(&world, &daemon, &EVENTS, |truth| Case { blocked: true, ..case(truth, "running", started) })
        .await;
    world.database.batch_execute("DELETE FROM gate").await.unwrap();
    world.drained("events", &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_paused_pipeline_all_is_true_that_is_shown_also_from_its_start_on() {
    let world = world().await;
    let (config, daemon, started) = carried(&world, "").await;
    world.run(&config, &["pause", "events"]).await.well();
    publish(&world, "a", 10).await;
    is(&daemon, "paused").await;
    compare(&world, &daemon, &EVENTS, |truth| case(truth, "paused", started)).await;
    daemon.kill();
    let from = world.checkpoint("events").await;
    let (daemon, started) = (Daemon::start(&config), Instant::now());
    is(&daemon, "paused").await;
    let asked = Asked { from, ..EVENTS };
    compare(&world, &daemon, &asked, |truth| Case { ran: false, ..case(truth, "paused", started) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_all_is_true_that_is_shown_and_all_attempts_were_one() {
    let mut postgres = TestPostgres::start(&PostgresOptions::plain()).unwrap();
    let mut world = World::with_postgres(&postgres).await;
    world.database.batch_execute(TABLE).await.unwrap();
    let (_, daemon, started) = carried(&world, "").await;
    postgres.stop(Stop::Fast);
    eventually("some attempts", || async { daemon.status()["resyncs"].as_u64() > Some(5) }).await;
    publish(&world, "a", 20).await;
    postgres.start_again().unwrap();
    world.reconnect().await;
    world.drained("events", &daemon).await;
    is(&daemon, "running").await;
    compare(&world, &daemon, &EVENTS, |truth| Case {
        disturbed: true,
        outages: 1.0,
        ..case(truth, "running", started)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reload_all_counts_are_since_the_start_of_the_daemon() {
    let world = world().await;
    let (config, daemon, started) = carried(&world, "").await;
    let never = "\n[[pipeline.table]]\nname = \"never\"\nwhen = { subject = \"STREAM.never\" }\n";
    reloaded(&world, &config, &daemon, &(pipeline("events", "") + never)).await;
    publish(&world, "a", 10).await;
    world.drained("events", &daemon).await;
    compare(&world, &daemon, &EVENTS, |truth| Case { starts: 2.0, ..case(truth, "running", started) }).await;
}

async fn reloaded(world: &World, config: &Path, daemon: &Daemon, text: &str) {
    assert_eq!(world.config(text), config);
    daemon.signal(Signal::SIGHUP);
    daemon.says("configuration reloaded").await;
    eventually("the tables to be others", || async { daemon.get("/metrics").1.contains("table=\"never\"") })
        .await;
    is(daemon, "running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_pipeline_with_a_filter_all_is_true_that_is_shown_also_in_a_full_stream() {
    let world = world().await;
    let mut limited = world.stream_config();
    limited.max_messages = 100;
    world.jetstream.update_stream(limited).await.unwrap();
    let (config, daemon, started) = carried(&world, "subjects = [\"STREAM.a\"]").await;
    let asked = Asked { subject: "a", ..EVENTS };
    // Nothing of it is dropped: it is counted what the stream ever held.
    world.publish("b", (1..=50).map(event)).await;
    world.drained("events", &daemon).await;
    compare(&world, &daemon, &asked, |truth| case(truth, "running", started)).await;

    world.run(&config, &["pause", "events"]).await.well();
    is(&daemon, "paused").await;
    daemon.kill();
    world.publish("b", (1..=150).map(event)).await;
    world.publish("a", [event(1)]).await;
    world.publish("b", (1..=20).map(event)).await;
    let from = world.checkpoint("events").await;
    let (daemon, started) = (Daemon::start(&config), Instant::now());
    is(&daemon, "paused").await;
    let asked = Asked { from, ..asked };
    compare(&world, &daemon, &asked, |truth| Case { ran: false, ..case(truth, "paused", started) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_pipelines_on_a_table_all_is_true_that_is_shown() {
    let world = world().await;
    publish(&world, "a", 20).await;
    let others = pipeline("others", "subjects = [\"STREAM.a\"]");
    let config = world.config(&(pipeline("events", "") + &others));
    let (daemon, started) = (Daemon::start(&config), Instant::now());
    is(&daemon, "running").await;
    publish(&world, "b", 10).await;
    world.drained("events", &daemon).await;
    world.drained("others", &daemon).await;
    compare(&world, &daemon, &EVENTS, |truth| case(truth, "running", started)).await;
    let asked = Asked { pipeline: "others", subject: "a", ..EVENTS };
    compare(&world, &daemon, &asked, |truth| case(truth, "running", started)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_standby_all_is_true_that_is_shown_and_after_it_took_over() {
    let world = world().await;
    let (config, daemon, _) = carried(&world, "").await;
    let (standby, started) = (Daemon::start(&config), Instant::now());
    is(&standby, "waiting").await;
    compare(&world, &standby, &EVENTS, |truth| Case { ran: false, ..case(truth, "waiting", started) }).await;
    let from = world.checkpoint("events").await;
    daemon.signal(Signal::SIGTERM);
    daemon.ended().await;
    is(&standby, "running").await;
    publish(&world, "a", 5).await;
    world.drained("events", &standby).await;
    // It waited for the lease.
    let asked = Asked { from, ..EVENTS };
    compare(&world, &standby, &asked, |truth| Case { disturbed: true, ..case(truth, "running", started) })
        .await;
}
