//! Dead letters that have come of age lose their payloads, and who counts on the letters goes on knowing
//! them.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Daemon, World, eventually};

/// Two pipelines over the subjects of one stream, each with a table of its own.
fn pipelines(store: &str) -> String {
    let one = |name: &str| {
        format!(
            "[[pipeline]]\nname = \"{name}\"\nstream = \"STREAM\"\nformat = \"json\"\nsubjects = \
             [\"STREAM.{name}\"]\n[[pipeline.table]]\nname = \"{name}\"\nfor_each = \"parts\"\nbad_element = \
             \"element\"\n[pipeline.table.columns]\nsequence = \"$sequence\"\nplace = \"$element\"\n"
        )
    };
    format!("{store}\n{}{}", one("events"), one("others"))
}

const RETENTION: &str = "[store]\nmaintain_interval = \"1h\"\n[store.dead_letters]\nretention = \"1d\"\n";

/// Of `events` sequences 1 (two bad elements) and 3 (no message at all) are dead letters, of `others` 4.
async fn carried() -> (World, PathBuf, Daemon) {
    let world = World::new().await;
    let tables = "CREATE TABLE events (sequence bigint, place integer, id integer NOT NULL); \
                  CREATE TABLE others (LIKE events INCLUDING ALL)";
    world.database.batch_execute(tables).await.unwrap();
    let parts = |ids: serde_json::Value| json!({"parts": ids}).to_string();
    world
        .publish("events", [parts(json!([{"id": 1}, {"id": "x"}, {"id": "y"}])), parts(json!([{"id": 2}]))])
        .await;
    world.publish("events", ["{"]).await;
    world.publish("others", ["{"]).await;
    let config = world.config(&pipelines(RETENTION));
    let daemon = Daemon::start(&config);
    for pipeline in ["events", "others"] {
        world.drained(pipeline, &daemon).await;
    }
    assert_eq!(letters(&world, "true").await, 4);
    (world, config, daemon)
}

async fn letters(world: &World, which: &str) -> i64 {
    world.count(&format!("SELECT count(*) FROM jetcopy.dead_letters WHERE {which}")).await
}

/// Lets letters have failed two days ago.
async fn age(world: &World, which: &str) {
    let sql =
        format!("UPDATE jetcopy.dead_letters SET failed_at = failed_at - interval '2 days' WHERE {which}");
    world.database.batch_execute(&sql).await.unwrap();
}

async fn maintained(world: &World, config: &Path) -> String {
    world.run(config, &["maintain"]).await.well()
}

async fn no_difference(world: &World, config: &Path) {
    for pipeline in ["events", "others"] {
        let said = world.run(config, &["audit", pipeline]).await.well();
        assert!(said.contains("verdict: no difference"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_expire_only_where_a_retention_was_set_and_somebody_said_yes() {
    let (world, config, _daemon) = carried().await;
    age(&world, "pipeline = 'events'").await;
    world.database.batch_execute("UPDATE jetcopy.dead_letters SET raw_headers = 'NATS/1.0'").await.unwrap();
    // The configuration names one; the database goes by what `jetcopy migrate` wrote.
    let said = maintained(&world, &config).await;
    assert!(
        said.contains(
            "retention is never, but the configuration says 1d: run `jetcopy migrate` to change it"
        ),
        "{said}"
    );
    assert_eq!(letters(&world, "expired_at IS NULL AND (payload IS NOT NULL OR element = 2)").await, 4);
    let refused = world.run(&config, &["migrate"]).await;
    assert_eq!(refused.code, 1);
    let said = "store.dead_letters.retention: 1d, now never: 3 payloads of letters would be dropped";
    assert!(refused.err.contains(said), "{refused:?}");
    world.run(&config, &["migrate", "--yes"]).await.well();
    let said = maintained(&world, &config).await;
    assert!(said.contains("3 letters expired: their payloads were removed"), "{said}");
    let bare = "expired_at IS NOT NULL AND payload IS NULL AND headers IS NULL AND raw_headers IS NULL";
    assert_eq!(letters(&world, bare).await, 3);
    assert_eq!(letters(&world, "pipeline = 'others' AND expired_at IS NULL AND payload = '{'").await, 1);
    let said = maintained(&world, &config).await;
    assert!(!said.contains("expired"), "{said}");
    // Never again.
    let config = world.config(&pipelines(&RETENTION.replace("1d", "never")));
    world.run(&config, &["migrate"]).await.well();
    age(&world, "true").await;
    maintained(&world, &config).await;
    assert_eq!(letters(&world, "expired_at IS NULL").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_letter_is_still_one_for_audit_lists_metrics_and_rewind_and_says_why_it_is_not_retried() {
    let (world, config, daemon) = carried().await;
    world.run(&config, &["migrate", "--yes"]).await.well();
    age(&world, "pipeline = 'events'").await;
    maintained(&world, &config).await;
    no_difference(&world, &config).await;
    let elements =
        "SELECT count(*) FROM jetcopy.dead_letter_counts() WHERE (pipeline, letters) = ('events', 3)";
    assert_eq!(world.count(elements).await, 1);
    let gauge = || daemon.metric("jetcopy_dead_letters_in_table", "pipeline=\"events\"");
    eventually("the gauge to count them", || async { gauge() == 3 }).await;

    let list = world.run(&config, &["dead-letters", "list", "--pipeline", "events"]).await.well();
    assert_eq!(list.matches("(payload expired) ").count(), 3, "{list}");
    let id = world.count("SELECT id FROM jetcopy.dead_letters WHERE sequence = 3").await.to_string();
    let shown = world.run(&config, &["dead-letters", "show", &id]).await.well();
    assert!(shown.contains("expired at ") && shown.contains("payload    removed by age"), "{shown}");
    let exported = world.run(&config, &["dead-letters", "export", "--decode"]).await.objects();
    let with = |field: &str| exported.iter().filter(|letter| letter.get(field).is_some()).count();
    assert_eq!((exported.len(), with("expired_at"), with("payload_base64") + with("payload")), (4, 3, 1));
    let retried = world.run(&config, &["dead-letters", "retry", "--pipeline", "events"]).await;
    assert_eq!(retried.code, 1);
    let why = format!("if stream {} still holds sequence 3, publish that message again", world.stream);
    assert!(
        retried.out.contains("[store.dead_letters] retention") && retried.out.contains(&why),
        "{retried:?}"
    );
    assert_eq!(letters(&world, "true").await, 4);

    // Carried again as the plan says, each is one letter again, with its payload.
    world.run(&config, &["pause", "events"]).await.well();
    let plan = world.run(&config, &["rewind", "events", "--to", "0", "--yes"]).await.well();
    assert!(plan.contains("3 dead letters would be duplicated"), "{plan}");
    for line in plan.lines().map(str::trim).filter(|line| line.starts_with("DELETE FROM")) {
        world.database.batch_execute(line).await.unwrap();
    }
    world.run(&config, &["resume", "events"]).await.well();
    world.drained("events", &daemon).await;
    assert_eq!(letters(&world, "pipeline = 'events' AND expired_at IS NULL").await, 3);
    no_difference(&world, &config).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_payload_of_a_message_goes_with_the_last_of_its_letters_and_to_no_expired_one() {
    let (world, config, _daemon) = carried().await;
    world.run(&config, &["migrate", "--yes"]).await.well();
    let payloads = || letters(&world, "sequence = 1 AND payload IS NOT NULL");
    // The letter that holds it is old, and the other is not.
    age(&world, "sequence = 1 AND payload IS NOT NULL").await;
    maintained(&world, &config).await;
    assert_eq!((payloads().await, letters(&world, "expired_at IS NULL").await), (1, 4));
    // Both are old, and somebody is at the other.
    age(&world, "sequence = 1 AND payload IS NULL").await;
    let other = jetcopy::testbed::connect(&world.own_url).await.unwrap();
    other
        .batch_execute(
            "BEGIN; SELECT FROM jetcopy.dead_letters WHERE sequence = 1 AND payload IS NULL FOR UPDATE",
        )
        .await
        .unwrap();
    maintained(&world, &config).await;
    assert_eq!((payloads().await, letters(&world, "expired_at IS NULL").await), (1, 4));
    other.batch_execute("COMMIT").await.unwrap();
    maintained(&world, &config).await;
    assert_eq!((payloads().await, letters(&world, "sequence = 1 AND expired_at IS NOT NULL").await), (0, 2));
    no_difference(&world, &config).await;

    // The message comes again as a letter beside the old ones; where that goes, its payload goes too.
    let again = "INSERT INTO jetcopy.dead_letters
            (pipeline, shard, stream, sequence, subject, payload, kind, message, stored_at)
        SELECT pipeline, shard, stream, sequence, subject, 'again', kind, message, stored_at
        FROM jetcopy.dead_letters WHERE sequence = 1 AND element = 1 RETURNING id";
    let id: i64 = world.database.query_one(again, &[]).await.unwrap().get(0);
    let known = "SELECT count(*) FROM jetcopy.dead_letters d WHERE jetcopy.payload_of(d) = 'again'";
    assert_eq!(world.count(known).await, 1);
    world.run(&config, &["dead-letters", "discard", &id.to_string(), "--yes"]).await.well();
    assert_eq!(payloads().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_lets_letters_expire_by_itself_and_goes_on() {
    let (world, config, daemon) = carried().await;
    world.run(&config, &["migrate", "--yes"]).await.well();
    daemon.kill();
    age(&world, "sequence = 3").await;
    // Who may add letters and no more lets them expire, and not sooner than was set.
    let role = format!("writer_of_{}", world.stream.to_lowercase());
    let writer = jetcopy::testbed::connect(&world.own_url).await.unwrap();
    let least = format!(
        "CREATE ROLE {role}; GRANT USAGE ON SCHEMA jetcopy TO {role}; \
         GRANT INSERT ON jetcopy.dead_letters TO {role}; SET ROLE {role}"
    );
    writer.batch_execute(&least).await.unwrap();
    let expire = "SELECT jetcopy.expire_dead_letters()";
    assert_eq!(writer.query_one(expire, &[]).await.unwrap().get::<_, i64>(0), 1);
    let drop = format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}");
    writer.batch_execute(&drop).await.unwrap();
    assert_eq!(letters(&world, "expired_at IS NOT NULL").await, 1);
    age(&world, "sequence <> 3").await;
    let daemon = Daemon::start(&world.config(&pipelines(&RETENTION.replace("1h", "50ms"))));
    eventually("all payloads to go", || async { letters(&world, "expired_at IS NULL").await == 0 }).await;
    world.publish("events", [json!({"parts": [{"id": 5}]}).to_string()]).await;
    world.drained("events", &daemon).await;
    no_difference(&world, &config).await;
}
