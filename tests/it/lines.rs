//! Messages that are lists of lines: InfluxDB's line protocol, and NDJSON.

use serde_json::{Value, json};

use crate::support::{Daemon, World, oracle};

const TABLES: &str = "
    CREATE TABLE cpu (sequence bigint NOT NULL, element int NOT NULL, at timestamptz NOT NULL,
        host text NOT NULL, idle double precision CHECK (idle <= 100));
    CREATE TABLE memory (sequence bigint NOT NULL, element int NOT NULL, host text, free bigint, more jsonb);
    CREATE TABLE disks (sequence bigint NOT NULL, element int NOT NULL, path text NOT NULL, used bigint);
    CREATE VIEW messages AS SELECT sequence FROM cpu UNION SELECT sequence FROM memory
        UNION SELECT sequence FROM disks";

const TELEGRAF: &str = r#"
[[pipeline]]
name = "telegraf"
stream = "STREAM"
format = "influx"

[[pipeline.table]]
name = "cpu"
for_each = "$"
bad_element = "element"
when = { field = "name", equals = "cpu" }
[pipeline.table.columns]
sequence = "$sequence"
element = "$element"
at = { from = "timestamp", unit = "ns" }
host = "tags.host"
idle = "fields.usage_idle"

[[pipeline.table]]
name = "memory"
for_each = "$"
bad_element = "element"
when = { field = "name", equals = ["mem", "swap"] }
[pipeline.table.columns]
sequence = "$sequence"
element = "$element"
host = "tags.host"
free = "fields.free"
more = "fields"
"#;

const DISKS: &str = r#"
[[pipeline.table]]
name = "disks"
for_each = "$"
bad_element = "element"
when = { field = "name", equals = "disk" }
[pipeline.table.columns]
sequence = "$sequence"
element = "$element"
path = "tags.path"
used = "fields.used"
"#;

fn jetcopy(arguments: &[&str], config: &std::path::Path) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    let output = command.args(arguments).arg("--config").arg(config).output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

/// What `jetcopy audit` finds different.
fn differences(world: &World, pipeline: &str, config: &str) -> Value {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    command.args(["audit", pipeline, "--json", "--config"]).arg(world.config(config));
    let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    report["first_differences"].clone()
}

/// Rows of a table: sequence, element.
async fn rows(world: &World, table: &str) -> Vec<(i64, i32)> {
    let sql = format!("SELECT sequence, element FROM {table} ORDER BY 1, 2");
    let rows = world.database.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Dead letters: sequence, element, kind.
async fn dead_letters(world: &World) -> Vec<(i64, Option<i32>, String)> {
    let sql = "SELECT sequence, element, kind FROM jetcopy.dead_letters ORDER BY 1, 2";
    let rows = world.database.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_telegraf_is_a_row_of_its_measurements_table_or_a_dead_letter_by_itself() {
    let world = World::new().await;
    world.database.batch_execute(TABLES).await.unwrap();
    let batch = "cpu,cpu=cpu-total,host=web\\ 1 usage_idle=98.5,usage_user=1.5 1760000000000000000\n\
                 mem,host=web\\ 1 free=1024i,total=4096i 1760000000000000000\n\
                 disk,host=web\\ 1,path=/ used=7i 1760000000000000000\n\
                 cpu,host=b usage_idle=200 1760000000000000000\n\
                 swap free=1i,note=\"two\nlines\"\n";
    world.publish("a", [batch, "disk,path=/a used=1i\ncpu,host=c usage_idle=1 1760000001000000000\n"]).await;
    world.publish("a", ["# nothing but this\n", "cpu,host=d usage_idle=high\n"]).await;
    let daemon = Daemon::start(&world.config(TELEGRAF));
    let last = b"cpu,host=e usage_idle=0 1760000002000000000".to_vec();
    oracle(&world, &daemon, "telegraf", "messages", last).await;

    assert_eq!(rows(&world, "cpu").await, [(1, 0), (2, 1), (5, 0)]);
    assert_eq!(rows(&world, "memory").await, [(1, 1), (1, 4)]);
    let expected = [
        (1, Some(2), "unmatched"),
        (1, Some(3), "refused"),
        (2, Some(0), "unmatched"),
        (3, None, "malformed"),
        (4, None, "malformed"),
    ];
    let found = dead_letters(&world).await;
    let found: Vec<_> =
        found.iter().map(|(sequence, element, kind)| (*sequence, *element, kind.as_str())).collect();
    assert_eq!(found, expected);
    let sql = "SELECT host, at::text, (SELECT jsonb_agg(more ORDER BY element) FROM memory) FROM cpu \
               WHERE sequence = 1";
    world.database.batch_execute("SET timezone = 'UTC'").await.unwrap();
    let row = world.database.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "web 1");
    assert_eq!(row.get::<_, &str>(1), "2025-10-09 08:53:20+00");
    let more: Value = row.get(2);
    assert_eq!(more, json!([{"free": 1024, "total": 4096}, {"free": 1, "note": "two\nlines"}]));
    assert_eq!(differences(&world, "telegraf", TELEGRAF), json!([]));

    drop(daemon);
    let both = format!("{TELEGRAF}{DISKS}");
    let daemon = Daemon::start(&world.config(&both));
    world.database.batch_execute("ALTER TABLE cpu DROP CONSTRAINT cpu_idle_check").await.unwrap();
    let said = jetcopy(&["dead-letters", "retry", "--all"], &world.config(&both));
    assert!(said.contains("3 stored in 3 rows, 2 still dead letters"), "{said}");
    assert_eq!(rows(&world, "disks").await, [(1, 2), (2, 0)]);
    assert_eq!(differences(&world, "telegraf", &both), json!([]));
    let last = b"disk,path=/b used=2i".to_vec();
    oracle(&world, &daemon, "telegraf", "messages", last).await;
}

const EVENTS: &str = r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "ndjson"

[[pipeline.table]]
name = "events"
for_each = "$"
[pipeline.table.columns]
sequence = "$sequence"
element = "$element"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn each_text_of_ndjson_is_a_row_and_a_broken_one_takes_its_message_along() {
    let world = World::new().await;
    let table = "CREATE TABLE events (sequence bigint NOT NULL, element int NOT NULL, id bigint NOT NULL);
        CREATE VIEW messages AS SELECT DISTINCT sequence FROM events";
    world.database.batch_execute(table).await.unwrap();
    world.publish("a", ["{\"id\":1}\n{\"id\":2}\n", "{\"id\":3}{\"id\":4}", "{\"id\":5}\n{\"id\":"]).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    oracle(&world, &daemon, "events", "messages", b"{\"id\":6}".to_vec()).await;
    assert_eq!(rows(&world, "events").await, [(1, 0), (1, 1), (2, 0), (2, 1), (4, 0)]);
    assert_eq!(dead_letters(&world).await, [(3, None, "malformed".to_owned())]);
    assert_eq!(differences(&world, "events", EVENTS), json!([]));
}
