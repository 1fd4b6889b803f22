//! Old data: archives of years on plain PostgreSQL, with partitions as far back as the settings say.

use serde_json::json;

use crate::partitions::paused;
use crate::support::{Daemon, World, days_ago, oracle};

const PIPELINE: &str = r#"
[[pipeline]]
name = "archive"
stream = "STREAM"
format = "json"
batch = { max_rows = 1_000, max_age = "20ms" }

[[pipeline.table]]
name = "readings"
[pipeline.table.columns]
time = { from = "time", unit = "us" }
sequence = "$sequence"
"#;

const TABLE: &str = "CREATE TABLE readings (id bigint NOT NULL, time timestamptz NOT NULL, sequence bigint);
    SELECT jetcopy.time_table('readings', 'time', '1 day')";

/// A configuration whose store adds partitions as far back as this.
fn back(days: i64) -> String {
    format!("[store]\npartitions_back = \"{days}d\"\n{PIPELINE}")
}

async fn world() -> World {
    let world = World::plain().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world
}

/// A message of some moment of a day.
fn message(id: i64, days: i64) -> Vec<u8> {
    json!({"id": id, "time": days_ago(days) + id % 86_400 * 1_000_000}).to_string().into_bytes()
}

/// Carries `count` messages of the last `days` days, of which `day_of` says for each how many days ago it
/// was.
async fn is_imported(days: i64, count: i64, day_of: impl Fn(i64) -> i64) {
    let world = world().await;
    let config = world.config(&back(days));
    let said = world.run(&config, &["migrate"]).await.well();
    assert!(said.contains(&format!("within {days} days back and 7 ahead")), "{said}");
    // The one who has nothing to say of it changes nothing.
    let said = world.run(&config, &["migrate"]).await.well();
    assert!(!said.contains("days back"), "{said}");
    world.publish("a", (0..count).map(|id| message(id, day_of(id)))).await;
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "archive", "readings", message(count, days)).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    let of_archive = format!(
        "SELECT count(*) FROM jetcopy.partitions('readings') WHERE ends > now() - interval '{} days' \
         AND starts <= now()",
        days + 1
    );
    assert_eq!(world.count(&of_archive).await, days + 1, "a partition for each day");
}

#[tokio::test]
async fn an_archive_of_a_year_is_imported_in_its_order() {
    is_imported(366, 366 * 20, |id| 366 - id / 20).await;
}

#[tokio::test]
async fn an_archive_of_five_years_is_imported_in_its_order_once_the_setting_allows_it() {
    is_imported(1_827, 1_827 * 10, |id| 1_827 - id / 10).await;
}

#[tokio::test]
async fn an_archive_of_five_years_in_no_order_is_imported_too() {
    // 911 and 1,828 have no common divisor: each day comes, and no two batches are of the same time.
    is_imported(1_827, 1_828 * 5, |id| id * 911 % 1_828).await;
}

#[tokio::test]
async fn rows_that_the_configuration_wants_and_the_database_refuses_pause_until_jetcopy_migrate_has_run() {
    let world = world().await;
    world.publish("a", [message(1, 1_200), message(2, 0), message(3, 3_000)]).await;
    let config = world.config(&back(1_500));
    let daemon = Daemon::start(&config);
    let remedy = paused(&daemon, "the configuration adds them within 1500 days back and 7 ahead").await;
    assert!(remedy.contains("run `jetcopy migrate`"), "{remedy}");
    let checked = world.run(&config, &["check"]).await;
    assert!(checked.out.contains("partitions are added within 1000 days back and 7 ahead"), "{checked:?}");
    assert!(checked.out.contains("jetcopy migrate"), "{checked:?}");
    world.run(&config, &["migrate"]).await.well();
    oracle(&world, &daemon, "archive", "readings", message(4, 1_499)).await;
    let sql = "SELECT string_agg(sequence || ' ' || message, ', ') FROM jetcopy.dead_letters";
    let dead: String = world.database.query_one(sql, &[]).await.unwrap().get(0);
    assert!(
        dead.starts_with("3 no partition of readings covers ")
            && dead.ends_with(
                "within 1500 days back and 7 ahead (store.partitions_back, store.partitions_ahead)"
            ),
        "{dead}"
    );
    let checked = world.run(&config, &["check"]).await;
    assert!(!checked.out.contains("partitions are added within"), "{checked:?}");
}

#[tokio::test]
async fn a_dead_letter_of_an_old_day_becomes_rows_by_a_retry_once_the_setting_is_raised() {
    let world = world().await;
    world.publish("a", [message(1, 1_200), message(2, 0), message(3, 1_300)]).await;
    let daemon = Daemon::start(&world.config(PIPELINE));
    world.drained("archive", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 2);
    // As long as nothing has changed, it says the same.
    let config = world.config(PIPELINE);
    let retry = ["dead-letters", "retry", "--all"];
    let refused = world.run(&config, &retry).await;
    assert!(refused.out.contains("only within 1000 days back"), "{refused:?}");
    let config = world.config(&back(1_250));
    world.run(&config, &["migrate"]).await.well();
    world.run(&config, &retry).await;
    let left = world.count("SELECT sequence FROM jetcopy.dead_letters").await;
    assert_eq!(left, 3, "the one that is still too old");
    assert_eq!(world.count("SELECT count(*) FROM readings").await, 2);
}
