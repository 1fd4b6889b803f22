//! Batches that take longer than the server, the role or jetcopy's own settings allow.

use jetcopy::testbed::connect;

use super::{database_resyncs, in_state, own_server};
use crate::support::{Daemon, EVENTS, Load, World, event, eventually, oracle};

/// Lets each row take so many milliseconds.
async fn slow(world: &World, when: &str, milliseconds: u32) {
    let sql = format!(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_sleep({milliseconds} / 1000.0);
             RETURN NEW;
         END $$;
         CREATE {when} FOR EACH ROW EXECUTE FUNCTION slow()"
    );
    world.database.batch_execute(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roles_limits_of_time_do_not_hold_for_batches() {
    let (_postgres, mut world) = own_server(&[]).await;
    slow(&world, "TRIGGER slow BEFORE INSERT ON events", 5).await;
    let role = "CREATE ROLE hasty LOGIN SUPERUSER;
        ALTER ROLE hasty SET statement_timeout = '200ms';
        ALTER ROLE hasty SET idle_in_transaction_session_timeout = '200ms'";
    world.database.batch_execute(role).await.unwrap();
    world.database_url = world.database_url.replace("postgres@", "hasty@");
    world.publish("a", (1..=300).map(event)).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    oracle(&world, &daemon, "events", "events", event(301)).await;
    let log = daemon.log();
    assert!(!log.contains("timeout") && !log.contains("fewer"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_outlasts_the_deadline_is_written_in_parts_that_fit() {
    for when in [
        "TRIGGER slow BEFORE INSERT ON events",
        "TRIGGER slow AFTER INSERT ON events",
        "CONSTRAINT TRIGGER slow AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED",
    ] {
        let (_postgres, mut world) = own_server(&[]).await;
        slow(&world, when, 20).await;
        world.postgres_settings = "step_timeout = \"1s\"".to_owned();
        world.publish("a", (1..=200).map(event)).await;
        let daemon = Daemon::start(&world.config(EVENTS));
        in_state(&daemon, "backing_off", "200 messages did not fit into one transaction").await;
        eventually("a part of the batch", || async { (1..200).contains(&world.checkpoint("events").await) })
            .await;
        oracle(&world, &daemon, "events", "events", event(201)).await;
        assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_somebody_cancels_are_repeated_with_fewer_messages() {
    let (_postgres, world) = own_server(&[]).await;
    slow(&world, "TRIGGER slow BEFORE INSERT ON events", 5).await;
    world.publish("a", (1..=200).map(event)).await;
    let watcher = connect(&world.own_url).await.unwrap();
    let watching = tokio::spawn(async move {
        loop {
            let cancel =
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'jetcopy/%'
                AND state = 'active' AND now() - query_start > interval '300 ms' AND query LIKE 'COPY%'";
            watcher.batch_execute(cancel).await.unwrap();
        }
    });
    let daemon = Daemon::start(&world.config(EVENTS));
    daemon.says("continuing with fewer messages at a time").await;
    oracle(&world, &daemon, "events", "events", event(201)).await;
    watching.abort();
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_message_that_outlasts_the_deadline_pauses_with_its_sequence_and_the_setting() {
    let (_postgres, mut world) = own_server(&[]).await;
    let sql = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.id = 5 THEN PERFORM pg_sleep(60); END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow()";
    world.database.batch_execute(sql).await.unwrap();
    world.postgres_settings = "step_timeout = \"1s\"".to_owned();
    world.publish("a", (1..=20).map(event)).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let status = in_state(&daemon, "paused", "sequence 5 alone").await;
    assert!(status["remedy"].as_str().unwrap().contains("step_timeout"), "{status}");
    assert_eq!(world.checkpoint("events").await, 4);
    world.database.batch_execute("DROP TRIGGER slow ON events").await.unwrap();
    oracle(&world, &daemon, "events", "events", event(21)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_a_table_that_turns_slow_and_quick_again_costs_no_row() {
    let (_postgres, mut world) = own_server(&[]).await;
    world.postgres_settings = "step_timeout = \"1s\"".to_owned();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    slow(&world, "TRIGGER slow BEFORE INSERT ON events", 20).await;
    daemon.says("did not fit into one transaction").await;
    world.commits(&daemon).await;
    world.database.batch_execute("DROP TRIGGER slow ON events").await.unwrap();
    world.commits(&daemon).await;
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roles_limit_for_idle_sessions_does_not_end_the_session_of_a_quiet_stream() {
    let (_postgres, mut world) = own_server(&[]).await;
    let role = "CREATE ROLE hasty LOGIN SUPERUSER; ALTER ROLE hasty SET idle_session_timeout = '300ms'";
    world.database.batch_execute(role).await.unwrap();
    world.database_url = world.database_url.replace("postgres@", "hasty@");
    world.publish("a", [event(1)]).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    world.commits(&daemon).await;
    // The owner looks at its checkpoint every three seconds, and nothing else happens in between.
    let beats = || async { world.count("SELECT beat FROM jetcopy.daemons").await };
    let before = beats().await;
    eventually("some looks to pass", || async { beats().await >= before + 10 }).await;
    assert_eq!(database_resyncs(&daemon), 0, "{}", daemon.log());
    oracle(&world, &daemon, "events", "events", event(2)).await;
    assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_whose_names_begin_alike_leave_each_others_sessions_alone() {
    let (_postgres, world) = own_server(&[]).await;
    let alike = "x".repeat(38);
    let (one, other) = (format!("{alike}_1"), format!("{alike}_2"));
    world.database.batch_execute("CREATE TABLE others (LIKE events INCLUDING ALL)").await.unwrap();
    let second = EVENTS.replace("\"events\"\nstream", &format!("\"{other}\"\nstream"));
    let second = second.replace("name = \"events\"", "name = \"others\"");
    let first = EVENTS.replace("\"events\"\nstream", &format!("\"{one}\"\nstream"));
    let daemon = Daemon::start(&world.config(&format!("{first}{second}")));
    for id in 1..=5 {
        world.publish("a", [event(id)]).await;
        world.drained(&one, &daemon).await;
        world.drained(&other, &daemon).await;
    }
    oracle(&world, &daemon, &one, "events", event(6)).await;
    oracle(&world, &daemon, &other, "others", event(7)).await;
    assert!(!daemon.log().contains("backing off"), "{}", daemon.log());
}
