//! Read your writes: who publishes a message waits by its ack until it is committed, in SQL.

use std::time::{Duration, Instant};

use jetcopy::testbed::{PostgresOptions, TestPostgres, connect};
use tokio_postgres::Client;

use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually};

/// Longer than any commit on a loaded machine takes.
const LONG: &str = "1min";

async fn running(rest: &str) -> (World, std::path::PathBuf, Daemon) {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world.database.batch_execute("CREATE TABLE second (LIKE events)").await.unwrap();
    let config = world.config(rest);
    let daemon = Daemon::start(&config);
    daemon.says("pipeline is running").await;
    (world, config, daemon)
}

/// Publishes an event; the stream's sequence for it, as the ack has it.
async fn published(world: &World, id: u64) -> i64 {
    let subject = format!("{}.a", world.stream);
    let ack = world.jetstream.publish(subject, event(id).into()).await.unwrap().await.unwrap();
    assert_eq!(ack.stream, world.stream);
    i64::try_from(ack.sequence).unwrap()
}

/// What a call of a function answers, which `arguments` follow the stream's name in.
async fn asked(client: &Client, stream: &str, call: &str, arguments: &str) -> bool {
    let sql = format!("SELECT jetcopy.{call}('{stream}', {arguments})");
    client.query_one(&sql, &[]).await.unwrap().get(0)
}

/// Code, message and hint of the error that `sql` ends with.
async fn refused(client: &Client, sql: &str) -> (String, String) {
    let error = client.simple_query(sql).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    (error.code().code().to_owned(), format!("{}; {}", error.message(), error.hint().unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn once_wait_visible_says_true_the_next_statement_sees_the_rows() {
    let (world, _config, _daemon) = running(EVENTS).await;
    let mut slowest = Duration::ZERO;
    for id in 1..=50 {
        let start = Instant::now();
        let sequence = published(&world, id).await;
        assert!(
            asked(&world.database, &world.stream, "wait_visible", &format!("{sequence}, '{LONG}'")).await
        );
        slowest = slowest.max(start.elapsed());
        let rows = format!("SELECT count(*) FROM events WHERE id = {id} AND sequence = {sequence}");
        assert_eq!(world.count(&rows).await, 1);
        assert!(asked(&world.database, &world.stream, "is_visible", &sequence.to_string()).await);
    }
    eprintln!("slowest of 50 from publish to visible: {slowest:?}");
    // Also within a transaction, whose statements see each what is committed by then.
    let sequence = published(&world, 51).await;
    world.database.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY").await.unwrap();
    assert!(asked(&world.database, &world.stream, "wait_visible", &format!("{sequence}, '{LONG}'")).await);
    assert_eq!(world.count("SELECT count(*) FROM events WHERE id = 51").await, 1);
    world.database.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_visible_says_false_at_its_timeout_and_true_in_the_middle_of_the_wait() {
    let (world, config, _daemon) = running(EVENTS).await;
    let first = published(&world, 1).await;
    assert!(asked(&world.database, &world.stream, "wait_visible", &format!("{first}, '{LONG}'")).await);
    world.run(&config, &["pause", "events"]).await.well();
    let sequence = published(&world, 2).await;
    let start = Instant::now();
    let timeout = format!("{sequence}, '300ms'");
    assert!(!asked(&world.database, &world.stream, "wait_visible", &timeout).await);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert!(!asked(&world.database, &world.stream, "wait_visible", &format!("{sequence}, '0'")).await);
    assert!(!asked(&world.database, &world.stream, "is_visible", &sequence.to_string()).await);
    assert!(asked(&world.database, &world.stream, "is_visible", &first.to_string()).await);

    let (other, stream) = (connect(&world.own_url).await.unwrap(), world.stream.clone());
    let waiting = tokio::spawn(async move {
        asked(&other, &stream, "wait_visible", &format!("{sequence}, '{LONG}'")).await
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT jetcopy.wait_visible%' \
                 AND datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()";
    eventually("somebody to wait", || async { world.count(waits).await == 1 }).await;
    world.run(&config, &["resume", "events"]).await.well();
    assert!(waiting.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pipeline_that_reads_the_stream_counts_or_the_named_one() {
    let second = EVENTS.replace("\"events\"", "\"second\"");
    let (world, config, _daemon) = running(&format!("{EVENTS}{second}")).await;
    let first = published(&world, 1).await;
    assert!(asked(&world.database, &world.stream, "wait_visible", &format!("{first}, '{LONG}'")).await);
    assert_eq!(world.count("SELECT count(*) FROM events, second").await, 1);
    world.run(&config, &["pause", "second"]).await.well();
    let sequence = published(&world, 2).await;
    let named = format!("{sequence}, '{LONG}', 'events'");
    assert!(asked(&world.database, &world.stream, "wait_visible", &named).await);
    assert!(!asked(&world.database, &world.stream, "wait_visible", &format!("{sequence}, '50ms'")).await);
    let other = format!("{sequence}, pipeline => 'second'");
    assert!(!asked(&world.database, &world.stream, "is_visible", &other).await);
    world.run(&config, &["resume", "second"]).await.well();
    assert!(asked(&world.database, &world.stream, "wait_visible", &format!("{sequence}, '{LONG}'")).await);
    // A replay reads the stream too, but into tables of its own.
    let replay = "INSERT INTO jetcopy.checkpoints (shard, pipeline, stream, last_sequence) \
                  SELECT 'events-replay-1-9', 'events-replay-1-9', stream, 0 FROM jetcopy.checkpoints \
                  WHERE shard = 'events'";
    world.database.batch_execute(replay).await.unwrap();
    assert!(asked(&world.database, &world.stream, "is_visible", &sequence.to_string()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_an_error_that_says_why() {
    let (world, _config, _daemon) = running(EVENTS).await;
    let sequence = published(&world, 1).await;
    let (database, stream) = (&world.database, &world.stream);
    assert!(asked(database, stream, "wait_visible", &format!("{sequence}, '{LONG}'")).await);
    for (sql, code, said) in [
        ("wait_visible('NONE', 1, '1s')".to_owned(), "42704", "no pipeline has read stream \"NONE\""),
        (format!("wait_visible('{stream}', 1, '1s', 'nobody')"), "42704", "no pipeline \"nobody\" has read"),
        ("is_visible(NULL, 1)".to_owned(), "22004", "a publisher's ack names both"),
        (format!("wait_visible('{stream}', NULL, '1s')"), "22004", "a publisher's ack names both"),
        (format!("wait_visible('{stream}', 1, NULL)"), "22004", "timeout must not be NULL"),
    ] {
        let (found, message) = refused(database, &format!("SELECT jetcopy.{sql}")).await;
        assert_eq!(found, code, "{message}");
        assert!(message.contains(said), "{message}");
    }
    // There a snapshot is taken once, and what is committed later is never seen.
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        database.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).await.unwrap();
        assert!(asked(database, stream, "is_visible", &sequence.to_string()).await);
        let wait = format!("SELECT jetcopy.wait_visible('{stream}', {sequence}, '1s')");
        let (code, message) = refused(database, &wait).await;
        assert_eq!(code, "25001", "{message}");
        assert!(message.contains(&format!("a transaction in {level} never sees later commits")), "{message}");
        database.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_use_the_schema_and_read_no_table_of_it_can_wait() {
    let (world, _config, _daemon) = running(EVENTS).await;
    let sequence = published(&world, 1).await;
    let role = format!("waiting_{}", world.stream.to_lowercase());
    let setup = format!("CREATE ROLE {role}; GRANT USAGE ON SCHEMA jetcopy TO {role}; SET ROLE {role}");
    world.database.batch_execute(&setup).await.unwrap();
    let (code, _) = refused(&world.database, "SELECT last_sequence FROM jetcopy.checkpoints").await;
    assert_eq!(code, "42501");
    assert!(asked(&world.database, &world.stream, "wait_visible", &format!("{sequence}, '{LONG}'")).await);
    let undo = format!("RESET ROLE; REVOKE ALL ON SCHEMA jetcopy FROM {role}; DROP ROLE {role}");
    world.database.batch_execute(&undo).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_standby_what_it_has_replayed_is_visible() {
    let primary = TestPostgres::start(&PostgresOptions::plain()).unwrap();
    let world = World::with_postgres(&primary).await;
    world.database.batch_execute(TABLE).await.unwrap();
    let standby = primary.standby(primary.port()).unwrap();
    let url = world.own_url.replace(&primary.port().to_string(), &standby.port().to_string());
    let daemon = Daemon::start(&world.config(EVENTS));
    daemon.says("pipeline is running").await;
    let reader = connect(&url).await.unwrap();
    let known = "SELECT count(*) FROM jetcopy.checkpoints";
    eventually("the standby to know the pipeline", || async {
        reader.query_one(known, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    for id in 1..=20 {
        let sequence = published(&world, id).await;
        assert!(asked(&reader, &world.stream, "wait_visible", &format!("{sequence}, '{LONG}'")).await);
        let rows = format!("SELECT count(*) FROM events WHERE id = {id}");
        assert_eq!(reader.query_one(&rows, &[]).await.unwrap().get::<_, i64>(0), 1);
    }
}
