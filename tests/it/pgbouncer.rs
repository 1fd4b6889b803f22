//! The whole way through PgBouncer in transaction pooling, and its faults.

use jetcopy::testbed::{PostgresOptions, Stop, TestPgBouncer, TestPostgres};
use serde_json::json;

use crate::support::{Daemon, EVENTS, Load, TABLE, World, event, eventually, oracle};

/// A server of its own with a pooler before it, and a world that knows both; `None` where there is no pooler.
async fn pooled() -> Option<(TestPostgres, TestPgBouncer, World)> {
    let options = PostgresOptions::plain();
    let postgres = TestPostgres::start(&options).unwrap();
    let bouncer = TestPgBouncer::start_or_skip(&postgres).unwrap()?;
    let mut world = World::with_postgres(&postgres).await;
    world.database_url = bouncer.url(&world.own_url);
    Some((postgres, bouncer, world))
}

#[tokio::test(flavor = "multi_thread")]
async fn migration_poison_and_the_merge_path_work_through_a_pooler() {
    let Some((postgres, bouncer, mut world)) = pooled().await else { return };
    // The schema too comes by way of the pooler.
    world.own_url = postgres.create_database().await.unwrap();
    world.reconnect().await;
    world.database_url = bouncer.url(&world.own_url);
    let settings = jetcopy::config::Postgres { url: world.database_url.clone(), ..Default::default() };
    jetcopy::migrate::migrate(&settings).await.unwrap();
    let table =
        "CREATE TABLE items (id integer PRIMARY KEY, sequence bigint, value integer CHECK (value <> 13))";
    world.database.batch_execute(table).await.unwrap();
    let pipeline = r#"
[[pipeline]]
name = "items"
stream = "STREAM"
format = "json"
batch = { max_rows = 50, max_age = "5ms" }
[[pipeline.table]]
name = "items"
on_conflict = "ignore"
key = ["id"]
[pipeline.table.columns]
sequence = "$sequence"
"#;
    world.database.batch_execute("INSERT INTO items VALUES (7), (8)").await.unwrap();
    let config = world.config(pipeline);
    let daemon = Daemon::start(&config);
    let message = |id: u32| match id % 50 {
        // Refused by the decoder, and by the server.
        0 => "{".to_owned(),
        1 => json!({"id": id, "value": 13}).to_string(),
        _ => json!({"id": id, "value": 100 + id}).to_string(),
    };
    world.publish("a", (2..=1_000).map(message)).await;
    world.drained("items", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 20 + 19);
    // The two that were there already stayed as they were.
    assert_eq!(world.count("SELECT count(*) FROM items").await, 999 - 39);
    assert_eq!(world.count("SELECT count(*) FROM items WHERE sequence IS NULL").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_or_a_server_behind_it_that_stops_costs_no_row() {
    let Some((mut postgres, mut bouncer, mut world)) = pooled().await else { return };
    world.database.batch_execute(TABLE).await.unwrap();
    // The pooler lets a statement wait while there is no server: only this says that it waits in vain.
    world.postgres_settings += "step_timeout = \"1s\"";
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    for stop in [Stop::Kill, Stop::Fast] {
        world.commits(&daemon).await;
        bouncer.stop(stop);
        eventually("the daemon to notice", || async { daemon.status()["state"] == "backing_off" }).await;
        bouncer.start_again().unwrap();
        let recovery = world.commits(&daemon).await;
        println!("PgBouncer, {stop:?} stop and restart: first commit after {recovery:?}");
    }
    for stop in [Stop::Kill, Stop::Fast] {
        world.commits(&daemon).await;
        postgres.stop(stop);
        eventually("the daemon to notice", || async { daemon.status()["state"] != "running" }).await;
        postgres.start_again().unwrap();
        world.reconnect().await;
        let recovery = world.commits(&daemon).await;
        println!("PostgreSQL behind PgBouncer, {stop:?} stop and restart: first commit after {recovery:?}");
    }
    // The pooler ends the server's sessions under the daemon's.
    for _ in 0..5 {
        world.commits(&daemon).await;
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE pid <> pg_backend_pid() AND datname = current_database() \
                       AND backend_type = 'client backend'";
        world.count(end).await;
    }
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roles_limits_of_time_do_not_hold_for_batches_behind_a_pooler_either() {
    let Some((_postgres, bouncer, mut world)) = pooled().await else { return };
    let sql = format!(
        "{TABLE};
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_sleep(0.005);
             RETURN NEW;
         END $$;
         CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow();
         ALTER ROLE postgres SET statement_timeout = '200ms';
         ALTER ROLE postgres SET idle_in_transaction_session_timeout = '200ms'"
    );
    world.database.batch_execute(&sql).await.unwrap();
    world.database_url = bouncer.url(&world.own_url);
    world.publish("a", (1..=300).map(event)).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    oracle(&world, &daemon, "events", "events", event(301)).await;
    let log = daemon.log();
    assert!(!log.contains("timeout") && !log.contains("fewer") && !log.contains("backing off"), "{log}");
    // What is set for one transaction stays with nobody: the pooler's own session has the role's limits as
    // before.
    let client = jetcopy::testbed::connect(&world.database_url).await.unwrap();
    let left = client.simple_query("SHOW statement_timeout").await.unwrap();
    let left = left.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert_eq!(left, Some("200ms"));
}
