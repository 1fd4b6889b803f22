//! Functions of columns: what the daemon stores, what becomes a dead letter, and what `check` refuses.

use serde_json::{Value, json};

use crate::support::{Daemon, World, oracle};

const TABLES: &str = "
    CREATE TABLE plugs (sequence bigint NOT NULL, plug text NOT NULL, is_on boolean NOT NULL,
        watts numeric, kelvin double precision, millis bigint, note varchar(5), code smallint);
    CREATE TABLE latest (plug text PRIMARY KEY, name text, sequence bigint NOT NULL)";

const CONFIG: &str = r#"
[[pipeline]]
name = "plugs"
stream = "STREAM"

[[pipeline.table]]
name = "plugs"
[pipeline.table.columns]
sequence = "$sequence"
plug = { from = ["id", "name.short"], trim = true, lower = true }
is_on = { from = "state", trim = true, upper = true, map = { CLOSED = true, OPEN = false, 1 = true } }
watts = { from = "power", scale = 0.1 }
kelvin = { from = "celsius", offset = 273.15, round = 1 }
millis = { from = "seconds", scale = 1000 }
note = { truncate = 5, empty = "null" }
code = { from = "serial", substring = [1, 3] }

[[pipeline.table]]
name = "latest"
on_conflict = "update"
key = ["plug"]
absent = "keep"
[pipeline.table.columns]
sequence = "$sequence"
plug = { from = ["id", "name.short"], trim = true, lower = true }
name = { from = ["name.long", "name.short"], upper = true, truncate = 6 }
"#;

fn good() -> Vec<Value> {
    vec![
        json!({"id": " Plug-7\n", "state": " open", "power": 1234, "celsius": 21.56, "seconds": "1.5",
            "note": "", "serial": "X042Y", "name": {"long": "straße"}}),
        json!({"name": {"short": "PLUG-8"}, "state": "Closed", "note": "behind the cupboard"}),
        json!({"id": "plug-8", "state": 1.0, "power": 12_345_678_901_234_567_890_u64}),
    ]
}

/// Messages that are dead letters, with the column and a part of the reason.
fn bad() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (json!({"id": "a", "state": "ajar"}), "is_on", "`map` has no entry for it"),
        (
            json!({"id": "a", "state": 1, "power": "much"}),
            "watts",
            "`scale` and a numeric `offset` take a number",
        ),
        (
            json!({"id": "a", "state": 1, "seconds": 0.0015}),
            "millis",
            "what `scale` and `offset` make of it does not fit; an integer column needs whole numbers",
        ),
        (
            json!({"id": "a", "state": 1, "seconds": 9_000_000_000_000_000_000_u64}),
            "millis",
            "what `scale` and `offset` make of it is too large or too small for the column",
        ),
        (json!({"id": "a", "state": 1, "serial": 42}), "code", "`substring` takes text; `serial` is 42"),
        (json!({"id": "a", "state": 1, "note": {}}), "note", "`truncate` takes text; `note` is a map"),
        (json!({"state": 1}), "plug", "`id or name.short` is absent"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_what_functions_make_of_them_or_dead_letters_that_name_the_function() {
    let world = World::new().await;
    world.database.batch_execute(TABLES).await.unwrap();
    let (good, bad) = (good(), bad());
    let first_bad = i64::try_from(good.len() + 1).unwrap();
    world.publish("a", good.iter().map(Value::to_string)).await;
    world.publish("a", bad.iter().map(|(message, ..)| message.to_string())).await;
    let config = world.config(CONFIG);
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "plugs", "plugs", br#"{"id":"fresh","state":1}"#.to_vec()).await;

    let sql = "SELECT sequence, column_name, message FROM jetcopy.dead_letters ORDER BY sequence";
    let found = world.database.query(sql, &[]).await.unwrap();
    assert_eq!(found.len(), bad.len(), "{found:#?}");
    for ((at, found), (_, column, reason)) in (first_bad..).zip(&found).zip(&bad) {
        assert_eq!((found.get::<_, i64>(0), found.get::<_, &str>(1)), (at, *column), "{found:?}");
        assert!(found.get::<_, &str>(2).contains(reason), "{reason}: {found:?}");
    }
    for row in [
        "(1, 'plug-7', false, 123.4, 294.7, 1500, NULL, 42)",
        "(2, 'plug-8', true, NULL, NULL, NULL, 'behin', NULL)",
        "(3, 'plug-8', true, 1234567890123456789.0, NULL, NULL, NULL, NULL)",
    ] {
        let columns = "(sequence, plug, is_on, watts, kelvin, millis, note, code)";
        let sql = format!("SELECT count(*) FROM plugs WHERE {columns} IS NOT DISTINCT FROM {row}");
        assert_eq!(world.count(&sql).await, 1, "{row}");
    }
    // The third message has neither of the names, so the second's stays.
    let sql = "SELECT count(*) FROM latest WHERE (plug, name, sequence) IN (('plug-7', 'STRASS', 1),
        ('plug-8', 'PLUG-8', 3))";
    assert_eq!(world.count(sql).await, 2);
    let report = world.run(&config, &["audit", "plugs", "--json"]).await.well();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["differences"], 0, "{report:#}");

    // What `map` did not know is a row once it does.
    let more = world.config_file("more.toml", &CONFIG.replace("1 = true }", "1 = true, AJAR = false }"));
    world.run(&more, &["dead-letters", "retry", "--pipeline", "plugs"]).await;
    assert_eq!(world.count("SELECT count(*) FROM plugs WHERE sequence = 4 AND NOT is_on").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_line_of_a_function_that_makes_no_sense() {
    let world = World::new().await;
    world.database.batch_execute(TABLES).await.unwrap();
    let right = "note = { truncate = 5, empty = \"null\" }";
    for (wrong, said) in [
        ("note = { lower = true, upper = true }", "a text is in one case"),
        ("note = { scale = 2 }", "are for columns of numbers"),
        ("note = { from = \"$rest\", trim = true }", "$rest is an object"),
        ("note = { from = [\"a\", \"a\"] }", "names `a` twice"),
        ("code = { map = { a = \"x\" } }", "what `map` makes of `a` does not fit the column"),
        ("watts = { offset = \"+02:00\" }", "for columns of type timestamptz"),
    ] {
        let column = wrong.split(' ').next().unwrap();
        let first = CONFIG.lines().find(|line| line.starts_with(&format!("{column} = "))).unwrap();
        let text = CONFIG.replacen(if column == "note" { right } else { first }, wrong, 1);
        let config = world.config_file("wrong.toml", &text);
        let text = std::fs::read_to_string(&config).unwrap();
        let line = 1 + text.lines().position(|line| line == wrong).unwrap();
        let ended = world.run(&config, &["check"]).await;
        let text = ended.out + &ended.err;
        assert!(text.contains(said) && text.contains(&format!("wrong.toml:{line}")), "line {line}: {text}");
    }
}
