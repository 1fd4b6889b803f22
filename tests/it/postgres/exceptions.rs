//! Values that meet an error which is something else's fault as a rule: of SQLSTATE class 42 or XX000.

use serde_json::json;

use super::in_state;
use crate::support::{Daemon, World, eventually};

/// A table by name, how it is made, a good value of its column `p` and a bad one, and the SQLSTATE of the
/// latter, or two of them where servers differ.
type Case = (&'static str, &'static str, serde_json::Value, serde_json::Value, &'static str);

/// Makes the tables; `None` for those whose extension the server lacks.
async fn create(world: &World, cases: Vec<Case>) -> Vec<Case> {
    let mut made = Vec::new();
    for case in cases {
        match world.database.batch_execute(case.1).await {
            Ok(()) => made.push(case),
            Err(error) if case.1.starts_with("CREATE EXTENSION") => eprintln!("SKIPPED: {error}"),
            Err(error) => panic!("{}: {error}", case.0),
        }
    }
    made
}

fn pipeline(name: &str) -> String {
    format!(
        "[[pipeline]]\nname = \"{name}\"\nstream = \"STREAM\"\nsubjects = [\"STREAM.{name}\"]\nformat = \
         \"json\"\nbatch = {{ max_age = \"300ms\" }}\n[[pipeline.table]]\nname = \"{name}\"\ncolumns = {{ \
         sequence = \"$sequence\" }}\n"
    )
}

/// Publishes two good ones, a bad one and two good ones for each table, and expects four rows and the one
/// dead letter.
async fn the_bad_one_is_a_dead_letter(cases: Vec<Case>) -> String {
    let world = World::plain().await;
    let cases = create(&world, cases).await;
    let mut firsts = Vec::new();
    for (name, _, good, bad, _) in &cases {
        firsts.push(i64::try_from(world.last_sequence().await).unwrap() + 1);
        let messages = [good, good, bad, good, good].map(|p| json!({"p": p}).to_string());
        world.publish(name, messages).await;
    }
    let pipelines: String = cases.iter().map(|case| pipeline(case.0)).collect();
    let daemon = Daemon::start(&world.config(&pipelines));
    for ((name, .., code), first) in cases.iter().zip(firsts) {
        eventually(&format!("the four good rows in {name}"), || async {
            world.count(&format!("SELECT count(*) FROM {name}")).await == 4
        })
        .await;
        let sql = "SELECT sequence - $2 + 1, sqlstate FROM jetcopy.dead_letters WHERE pipeline = $1";
        let letters = world.database.query(sql, &[name, &first]).await.unwrap();
        let letters: Vec<(i64, &str)> = letters.iter().map(|row| (row.get(0), row.get(1))).collect();
        let of_the_bad_one =
            matches!(letters[..], [(3, found)] if code.split(" or ").any(|code| code == found));
        assert!(of_the_bad_one, "{name}: {letters:?}, {code} was expected: {}", daemon.log());
    }
    daemon.log()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_an_expression_of_the_table_cannot_read_is_a_dead_letter_at_once_whatever_its_code() {
    let too_many = "x".repeat(64);
    let log = the_bad_one_is_a_dead_letter(vec![
        (
            "paths",
            "CREATE EXTENSION ltree; CREATE TABLE paths (sequence bigint, p text, \
             q ltree GENERATED ALWAYS AS (text2ltree(p)) STORED)",
            json!("a.b"),
            json!("a b!"),
            "42601",
        ),
        (
            "searches",
            "CREATE TABLE searches (sequence bigint, p text, \
             q tsquery GENERATED ALWAYS AS (to_tsquery('simple', p)) STORED)",
            json!("a & b"),
            json!("a b &"),
            "42601",
        ),
        (
            "jsonpaths",
            "CREATE TABLE jsonpaths (sequence bigint, p text, q jsonpath GENERATED ALWAYS AS (p::jsonpath) \
             STORED)",
            json!("$.a"),
            json!("$$$"),
            "42601",
        ),
        ("names", "CREATE TABLE names (sequence bigint, p name)", json!("ok"), json!(too_many), "42622"),
        (
            "lists",
            "CREATE TABLE lists (sequence bigint, p name[])",
            json!(["ok"]),
            json!([too_many]),
            "42622",
        ),
        (
            "types",
            "CREATE TABLE types (sequence bigint, p text CHECK (p::regtype IS NOT NULL))",
            json!("int4"),
            json!("nope"),
            "42704",
        ),
    ])
    .await;
    assert!(!log.contains("backing off") && !log.contains("paused"), "{log}");
}

/// A table with a trigger that does `what` for each row.
fn with_trigger(name: &str, what: &str) -> String {
    format!(
        "CREATE TABLE {name} (sequence bigint, p text);
         CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {what}; RETURN NEW; END $$;
         CREATE TRIGGER t BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION {name}()"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_alone_meets_such_an_error_in_a_trigger_or_an_extension_is_a_dead_letter_if_it_lasts() {
    let named = with_trigger("named", "PERFORM NEW.p::regclass").leak();
    let raised =
        with_trigger("raised", "IF NEW.p = 'bad' THEN RAISE 'no' USING ERRCODE = 'undefined_table'; END IF")
            .leak();
    let dynamic = "EXECUTE format('INSERT INTO log_%s VALUES (1)', NEW.p)";
    let dynamic = format!("CREATE TABLE log_a (n int); {}", with_trigger("dynamic", dynamic)).leak();
    let log = the_bad_one_is_a_dead_letter(vec![
        ("named", named, json!("pg_class"), json!("nope"), "42P01"),
        ("raised", raised, json!("good"), json!("bad"), "42P01"),
        ("dynamic", dynamic, json!("a"), json!("b"), "42P01"),
        (
            "hstores",
            "CREATE EXTENSION hstore; CREATE TABLE hstores (sequence bigint, p text, \
             q hstore GENERATED ALWAYS AS (p::hstore) STORED)",
            json!("a=>1"),
            json!("zzz"),
            "XX000 or 42601",
        ),
    ])
    .await;
    assert!(log.contains("it becomes a dead letter if that persists"), "{log}");
}

async fn one_table(world: &World, what: &str, values: &[&str]) -> Daemon {
    world.database.batch_execute(&with_trigger("events", what)).await.unwrap();
    world.publish("events", values.iter().map(|p| json!({"p": p}).to_string())).await;
    Daemon::start(&world.config(&pipeline("events")))
}

/// Waits until everything is a row, and nothing a dead letter.
async fn all_are_rows(world: &World, daemon: &Daemon, rows: i64) {
    eventually("all rows", || async { world.count("SELECT count(*) FROM events").await == rows }).await;
    let letters = world.count("SELECT count(*) FROM jetcopy.dead_letters").await;
    assert_eq!(letters, 0, "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_behind_a_trigger_that_is_missing_for_a_while_makes_no_dead_letters() {
    let world = World::plain().await;
    let what = "EXECUTE format('INSERT INTO log_%s VALUES (1)', NEW.p)";
    world.database.batch_execute("CREATE TABLE log_a (n int)").await.unwrap();
    let daemon = one_table(&world, what, &["a", "b", "a"]).await;
    in_state(&daemon, "backing_off", "sequence 2 alone is refused").await;
    world.database.batch_execute("CREATE TABLE log_b (n int)").await.unwrap();
    all_are_rows(&world, &daemon, 3).await;

    // For all rows: nobody is blamed, however long it lasts.
    world.database.batch_execute("DROP TABLE log_a, log_b").await.unwrap();
    world.publish("events", ["a", "b", "a"].map(|p| json!({"p": p}).to_string())).await;
    let status = in_state(&daemon, "paused", "log_").await;
    assert!(status["remedy"].as_str().unwrap().starts_with("a trigger, generated column"), "{status}");
    world.database.batch_execute("CREATE TABLE log_a (n int); CREATE TABLE log_b (n int)").await.unwrap();
    all_are_rows(&world, &daemon, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_such_a_class_that_comes_and_goes_makes_no_dead_letters() {
    let world = World::plain().await;
    // Three tries in five; sequences do not roll back.
    world.database.batch_execute("CREATE SEQUENCE tries").await.unwrap();
    let what = "IF NEW.p = 'flaky' AND nextval('tries') % 5 IN (1, 2, 3) THEN
        RAISE 'now and then' USING ERRCODE = 'undefined_function'; END IF";
    let daemon = one_table(&world, what, &["a", "flaky", "b"]).await;
    all_are_rows(&world, &daemon, 3).await;
    daemon.says("now and then").await;
}
