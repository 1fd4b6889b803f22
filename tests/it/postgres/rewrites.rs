//! Rules (`CREATE RULE`): `INSERT` goes by them and `COPY` does not, so rows could go missing by one way of
//! writing only.

use super::in_state;
use crate::support::{Daemon, EVENTS, World, event};

/// A world whose table has a key; TimescaleDB takes no rules.
async fn world() -> World {
    let world = World::plain().await;
    let table = "CREATE TABLE events (sequence bigint NOT NULL, id bigint PRIMARY KEY, note text)";
    world.database.batch_execute(table).await.unwrap();
    world
}

/// The pipeline with that `on_conflict`.
fn merging(on_conflict: &str) -> String {
    let settings = format!(
        "name = \"events\"\non_conflict = \"{on_conflict}\"\nkey = [\"id\"]\n[pipeline.table.columns]"
    );
    EVENTS.replace("name = \"events\"\n[pipeline.table.columns]", &settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_refused_at_start_and_by_check_where_rows_are_written_by_insert() {
    let world = world().await;
    world.publish("a", (1..=100).map(event)).await;
    for (on_conflict, rule, made_harmless) in [
        ("update", "ON INSERT TO events DO INSTEAD NOTHING", "ALTER TABLE events DISABLE RULE away"),
        ("ignore", "ON INSERT TO events DO INSTEAD NOTHING", "DROP RULE away ON events"),
        ("update", "ON UPDATE TO events DO ALSO NOTHING", "DROP RULE away ON events"),
    ] {
        world
            .database
            .batch_execute(&format!(
                "DELETE FROM events; DELETE FROM jetcopy.checkpoints; CREATE RULE away AS {rule}"
            ))
            .await
            .unwrap();
        let config = world.config(&merging(on_conflict));
        let daemon = Daemon::start(&config);
        let event = rule.split(' ').nth(1).unwrap();
        let reason = format!("rule away on {event}");
        let status = in_state(&daemon, "paused", &reason).await;
        let remedy = status["remedy"].as_str().unwrap();
        assert!(remedy.contains("DROP RULE away ON public.events") && remedy.contains("trigger"), "{status}");
        let checked = world.run(&config, &["check"]).await;
        assert!(checked.code == 1 && checked.out.contains(&reason), "{checked:?}");
        if event == "UPDATE" {
            // The server refuses it all the same.
            world.database.batch_execute("ALTER TABLE events DISABLE RULE away").await.unwrap();
            let checked = world.run(&config, &["check"]).await;
            assert!(checked.code == 1 && checked.out.contains(&reason), "{checked:?}");
        }
        world.database.batch_execute(made_harmless).await.unwrap();
        world.drained("events", &daemon).await;
        assert_eq!(world.count("SELECT count(*) FROM events").await, 100);
        world.database.batch_execute("DROP RULE IF EXISTS away ON events").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_made_under_a_running_daemon_pauses_it_before_a_row_goes_missing() {
    let world = world().await;
    let daemon = Daemon::start(&world.config(&merging("update")));
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    let rule = "CREATE RULE away AS ON INSERT TO events DO INSTEAD NOTHING";
    world.database.batch_execute(rule).await.unwrap();
    world.publish("a", (101..=200).map(event)).await;
    in_state(&daemon, "paused", "rule away on INSERT").await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 100);
    world.database.batch_execute("DROP RULE away ON events").await.unwrap();
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_a_table_that_is_only_copied_to_is_a_warning_and_costs_no_row() {
    let world = world().await;
    let rule = "CREATE RULE away AS ON INSERT TO events DO INSTEAD NOTHING";
    world.database.batch_execute(rule).await.unwrap();
    let config = world.config(EVENTS);
    let checked = world.run(&config, &["check"]).await.well();
    assert!(checked.contains("its rules do not apply") && checked.contains(": away"), "{checked}");
    let daemon = Daemon::start(&config);
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 100);
}
