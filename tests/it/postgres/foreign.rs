//! Tables whose rows go to another server: they are there once only where the other server's commit is ours.

use std::process::Command;

use super::in_state;
use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually};

/// A table `events` of the database `there`, seen from here as a foreign one of the same name.
const FOREIGN: &str =
    "CREATE FOREIGN TABLE events (sequence bigint NOT NULL, id bigint NOT NULL, note text) SERVER there";

/// A world with another database beside its own, and a way to it.
async fn two_databases() -> (World, tokio_postgres::Client) {
    let world = World::plain().await;
    let there = format!("{}_there", world.own_url.rsplit('/').next().unwrap());
    world.database.batch_execute(&format!("CREATE DATABASE {there}")).await.unwrap();
    let url = format!("{}_there", world.own_url);
    let other = jetcopy::testbed::connect(&url).await.unwrap();
    other.batch_execute(TABLE).await.unwrap();
    let server = format!(
        "CREATE EXTENSION postgres_fdw;
         CREATE SERVER there FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{}', \
             dbname '{there}');
         CREATE USER MAPPING FOR postgres SERVER there OPTIONS (user 'postgres')",
        world.postgres_port()
    );
    world.database.batch_execute(&server).await.unwrap();
    (world, other)
}

/// What `jetcopy check` says of the tables.
fn check(config: &std::path::Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    let output = command.arg("check").arg("--config").arg(config).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_table_is_refused_at_start_and_by_check_unless_at_least_once_will_do() {
    let (world, other) = two_databases().await;
    world.database.batch_execute(FOREIGN).await.unwrap();
    world.publish("a", (1..=100).map(event)).await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    daemon.says("http=").await;
    let status = in_state(&daemon, "paused", "it is a foreign table").await;
    assert!(status["remedy"].as_str().unwrap().contains("foreign = \"at-least-once\""), "{status}");
    let said = check(&config);
    assert!(said.contains("error pipeline events, table events: it is a foreign table"), "{said}");
    assert!(said.contains("foreign = \"at-least-once\""), "{said}");
    assert_eq!(other.query_one("SELECT count(*) FROM events", &[]).await.unwrap().get::<_, i64>(0), 0);
    drop(daemon);

    let config = world.config(&EVENTS.replace(
        "name = \"events\"\n[pipeline.table.columns]",
        "name = \"events\"\nforeign = \"at-least-once\"\n[pipeline.table.columns]",
    ));
    assert!(!check(&config).contains("error pipeline"), "{}", check(&config));
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    // A column of the foreign table that changes is noticed all the same.
    other.batch_execute("ALTER TABLE events ALTER COLUMN id TYPE double precision").await.unwrap();
    world
        .database
        .batch_execute("ALTER FOREIGN TABLE events ALTER COLUMN id TYPE double precision")
        .await
        .unwrap();
    world.publish("a", (101..=200).map(event)).await;
    world.drained("events", &daemon).await;
    let sum: f64 = other.query_one("SELECT sum(id) FROM events", &[]).await.unwrap().get(0);
    assert!((sum - 20_100.0).abs() < 0.5, "{sum}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_partition_that_comes_under_load_pauses_before_a_row_goes_there() {
    let (world, other) = two_databases().await;
    let partitioned = "CREATE TABLE events (sequence bigint NOT NULL, id bigint NOT NULL, note text) \
        PARTITION BY RANGE (id);
                       CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (1000)";
    world.database.batch_execute(partitioned).await.unwrap();
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    let foreign = "CREATE FOREIGN TABLE events_2 PARTITION OF events FOR VALUES FROM (1000) TO (2000)
                   SERVER there OPTIONS (table_name 'events')";
    world.database.batch_execute(foreign).await.unwrap();
    world.publish("a", (901..=1_100).map(event)).await;
    let status = in_state(&daemon, "paused", "its partition public.events_2 is a foreign table").await;
    assert!(status["remedy"].as_str().unwrap().contains("foreign = \"at-least-once\""), "{status}");
    assert!(
        check(&config).contains("its partition public.events_2 is a foreign table"),
        "{}",
        check(&config)
    );
    assert_eq!(other.query_one("SELECT count(*) FROM events", &[]).await.unwrap().get::<_, i64>(0), 0);
    world
        .database
        .batch_execute(
            "DROP FOREIGN TABLE events_2; CREATE TABLE events_2 PARTITION OF events \
             FOR VALUES FROM (1000) TO (2000)",
        )
        .await
        .unwrap();
    eventually("the rest", || async { world.count("SELECT count(*) FROM events").await == 300 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_table_that_takes_no_rows_is_refused_with_the_reason() {
    let world = World::plain().await;
    let file = "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
                CREATE FOREIGN TABLE events (sequence bigint, id bigint, note text) SERVER files \
                    OPTIONS (filename '/dev/null')";
    world.database.batch_execute(file).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    daemon.says("http=").await;
    let status = in_state(&daemon, "paused", "a foreign table that accepts no rows").await;
    assert!(status["remedy"].as_str().unwrap().contains("use a table"), "{status}");
}
