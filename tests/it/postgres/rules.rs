//! Defaults, rules and keys of a table change under it: each batch goes by them as they are.

use super::shape::change_under_a_batch;
use crate::support::{Daemon, EVENTS, Load, World, event, eventually, oracle};

/// A world whose table `events` has more columns.
async fn world_with(columns: &str) -> World {
    let world = World::plain().await;
    let table = format!(
        "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN place AS text DEFAULT 'here';
         CREATE TABLE events (sequence bigint NOT NULL, id bigint NOT NULL, note text, {columns})"
    );
    world.database.batch_execute(&table).await.unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_that_are_set_changed_and_dropped_under_load_hold_from_the_next_row_on() {
    let columns = "site text DEFAULT 'one', spot place, feels mood DEFAULT 'good', free text, n bigint, \
        made timestamptz";
    let world = world_with(columns).await;
    let function = "CREATE FUNCTION seven() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 7::bigint';
                    ALTER TABLE events ALTER COLUMN n SET DEFAULT seven()";
    world.database.batch_execute(function).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    // The column, how its rows are filled before and after, and what changes that.
    let changes = [
        ("site", "= 'one'", "= 'two'", "ALTER TABLE events ALTER COLUMN site SET DEFAULT 'two'"),
        ("site", "= 'two'", "IS NULL", "ALTER TABLE events ALTER COLUMN site DROP DEFAULT"),
        ("free", "IS NULL", "= 'new'", "ALTER TABLE events ALTER COLUMN free SET DEFAULT 'new'"),
        (
            "made",
            "IS NULL",
            "> now() - interval '1 hour'",
            "ALTER TABLE events ALTER COLUMN made SET DEFAULT now()",
        ),
        ("made", "IS NOT NULL", "IS NULL", "ALTER TABLE events ALTER COLUMN made DROP DEFAULT"),
        ("spot", "= 'here'", "= 'there'", "ALTER DOMAIN place SET DEFAULT 'there'"),
        ("spot", "= 'there'", "= 'own'", "ALTER TABLE events ALTER COLUMN spot SET DEFAULT 'own'"),
        ("feels", "= 'good'", "= 'bad'", "ALTER TABLE events ALTER COLUMN feels SET DEFAULT 'bad'"),
        (
            "n",
            "= 7",
            "= 8",
            "CREATE OR REPLACE FUNCTION seven() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 8::bigint'",
        ),
        (
            "n",
            "= 8",
            "IS NOT NULL",
            "ALTER TABLE events ALTER COLUMN n DROP DEFAULT, ALTER COLUMN n SET NOT NULL,
                                     ALTER COLUMN n ADD GENERATED ALWAYS AS IDENTITY",
        ),
    ];
    let mut from = 0;
    for (column, before, after, sql) in changes {
        let last_before = change_under_a_batch(&world, sql).await;
        world.commits(&daemon).await;
        let old = format!(
            "SELECT count(*) FROM events WHERE sequence > {from} AND sequence <= {last_before} \
             AND ({column} {before}) IS NOT TRUE"
        );
        assert_eq!(world.count(&old).await, 0, "before {sql}");
        let new = format!(
            "SELECT count(*) FROM events WHERE sequence > {last_before} AND ({column} {after}) IS NOT TRUE"
        );
        assert_eq!(world.count(&new).await, 0, "after {sql}");
        from = last_before;
    }
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    world.judge(&daemon, load).await;
}

/// A message without a note.
fn bare(id: u64) -> Vec<u8> {
    rmp_serde::to_vec_named(&serde_json::json!({"id": id})).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_a_column_no_longer_refuses_are_rows_also_a_whole_flood_of_them() {
    let world = world_with("other text").await;
    world.database.batch_execute("ALTER TABLE events ALTER COLUMN note SET NOT NULL").await.unwrap();
    // Batches of 200, and at most 100 dead letters of each: the whole batch is poison by the table as it was.
    let daemon = Daemon::start(&world.config(&EVENTS.replace("5ms", "300ms")));
    world.publish("a", (1..=200).map(event)).await;
    world.drained("events", &daemon).await;
    world.database.batch_execute("ALTER TABLE events ALTER COLUMN note DROP NOT NULL").await.unwrap();
    world.publish("a", (201..=400).map(bare)).await;
    world.drained("events", &daemon).await;
    // And by a domain.
    let domain = "CREATE DOMAIN needed AS text NOT NULL; DELETE FROM events WHERE note IS NULL;
                  ALTER TABLE events ALTER COLUMN note TYPE needed";
    let deleted = "CREATE TABLE kept AS SELECT sequence, id, note FROM events WHERE note IS NULL";
    world.database.batch_execute(deleted).await.unwrap();
    world.database.batch_execute(domain).await.unwrap();
    world.publish("a", (401..=600).map(event)).await;
    world.drained("events", &daemon).await;
    world.database.batch_execute("ALTER DOMAIN needed DROP NOT NULL").await.unwrap();
    world.publish("a", (601..=800).map(bare)).await;
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    world.database.batch_execute("INSERT INTO events (sequence, id, note) SELECT * FROM kept").await.unwrap();
    oracle(&world, &daemon, "events", "events", event(801)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_checks_that_come_under_load_are_the_servers_and_hold_at_once() {
    let world = world_with("feels mood").await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let message = |id: u64, feels: &str| {
        rmp_serde::to_vec_named(&serde_json::json!({"id": id, "note": "a", "feels": feels})).unwrap()
    };
    let load = Load::start(&world);
    world.commits(&daemon).await;
    world.database.batch_execute("ALTER TYPE mood ADD VALUE 'fine'").await.unwrap();
    world.publish("a", [message(1, "fine")]).await;
    world.database.batch_execute("ALTER TYPE mood RENAME VALUE 'fine' TO 'grand'").await.unwrap();
    eventually("the first message", || async {
        world.count("SELECT count(*) FROM events WHERE feels = 'grand'").await == 1
            || world.count("SELECT count(*) FROM jetcopy.dead_letters").await == 1
    })
    .await;
    world.publish("a", [message(2, "grand")]).await;
    // A value that the domain refuses from now on is a dead letter, and the others of its batch are rows.
    world
        .database
        .batch_execute("CREATE DOMAIN small AS bigint; ALTER TABLE events ALTER COLUMN id TYPE small")
        .await
        .unwrap();
    world.commits(&daemon).await;
    world.database.batch_execute("ALTER DOMAIN small ADD CHECK (VALUE <> 77000077)").await.unwrap();
    world.publish("a", [message(77_000_077, "good")]).await;
    eventually("a dead letter", || async {
        world.count("SELECT count(*) FROM jetcopy.dead_letters WHERE sqlstate = '23514'").await == 1
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM events WHERE id = 2 AND feels = 'grand'").await, 1);
    world.judge(&daemon, load).await;
}

const KEYED: &str = r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "msgpack"
batch = { max_rows = 200, max_age = "5ms" }

[[pipeline.table]]
name = "events"
on_conflict = "ignore"
key = ["id"]
[pipeline.table.columns]
sequence = "$sequence"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_unique_index_that_is_dropped_pauses_a_table_that_goes_by_it_before_a_row_is_doubled() {
    let world = world_with("other text").await;
    world.database.batch_execute("CREATE UNIQUE INDEX events_id ON events (id)").await.unwrap();
    let daemon = Daemon::start(&world.config(KEYED));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    change_under_a_batch(&world, "DROP INDEX events_id").await;
    eventually("a pause", || async { daemon.status()["state"] == "paused" }).await;
    let status = daemon.status();
    assert!(status["reason"].as_str().unwrap().contains("no unique index on (id)"), "{status}");
    assert!(
        status["remedy"].as_str().unwrap().starts_with("CREATE UNIQUE INDEX ON public.events (id)"),
        "{status}"
    );
    world.database.batch_execute("CREATE UNIQUE INDEX ON events (id)").await.unwrap();
    world.commits(&daemon).await;
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_level_security_that_is_switched_on_under_load_pauses_and_says_so() {
    let world = world_with("other text").await;
    let name = world.own_url.rsplit('/').next().unwrap();
    let role = format!("writer_{name}");
    let grants = format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA jetcopy TO {role}; GRANT INSERT ON events TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jetcopy TO {role}"
    );
    world.database.batch_execute(&grants).await.unwrap();
    let mut world = world;
    world.database_url = world.own_url.replace("postgres@", &format!("{role}@"));
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    change_under_a_batch(&world, "ALTER TABLE events ENABLE ROW LEVEL SECURITY").await;
    eventually("a pause", || async { daemon.status()["state"] == "paused" }).await;
    let status = daemon.status();
    assert!(status["reason"].as_str().unwrap().contains("row-level security applies to role"), "{status}");
    assert!(status["remedy"].as_str().unwrap().contains("BYPASSRLS"), "{status}");
    world.database.batch_execute("ALTER TABLE events DISABLE ROW LEVEL SECURITY").await.unwrap();
    world.commits(&daemon).await;

    // What it may not do any more, it says; with a right to the columns that it fills, it goes on.
    change_under_a_batch(&world, &format!("REVOKE INSERT ON events FROM {role}")).await;
    eventually("the grant that would mend it", || async {
        daemon.status()["remedy"] == "GRANT INSERT ON public.events TO the role in postgres.url"
    })
    .await;
    world
        .database
        .batch_execute(&format!("GRANT INSERT (sequence, id, note, other) ON events TO {role}"))
        .await
        .unwrap();
    world.commits(&daemon).await;
    let altered = "ALTER TABLE events ALTER COLUMN id TYPE double precision";
    change_under_a_batch(&world, altered).await;
    world.commits(&daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events WHERE id < 1").await, 0);
    world.judge(&daemon, load).await;
}
