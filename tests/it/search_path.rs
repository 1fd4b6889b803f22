//! A role that may CREATE in a schema of the search path puts functions and operators before the server's
//! own; whatever of jetcopy runs afterwards calls none of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use jetcopy::store::query::named::{Kind, QUERIES};
use jetcopy::testbed::{PostgresOptions, TestPostgres, connect};
use serde_json::json;

use crate::support::{Daemon, World};

/// Every kind of statement that the daemon writes with: rows by time, a merge, elements, and a message that
/// is refused.
const PIPELINE: &str = r#"
[[pipeline]]
name = "frames"
stream = "STREAM"
format = "json"
batch = { max_rows = 50, max_age = "5ms" }
[[pipeline.table]]
name = "frame_metadata"
[pipeline.table.columns]
time = { from = "time", unit = "us" }
camera_id = "camera"
frame_id = "$sequence"
[[pipeline.table]]
name = "cameras"
on_conflict = "update"
key = ["camera"]
absent = "keep"
[pipeline.table.columns]
camera = "camera"
seen = "$sequence"
note = "note"
[[pipeline.table]]
name = "latest"
on_conflict = "update"
key = ["camera"]
newer_by = "seen"
[pipeline.table.columns]
camera = "camera"
seen = { from = "camera" }
[[pipeline.table]]
name = "boxes"
for_each = "boxes"
bad_element = "element"
[pipeline.table.columns]
sequence = "$sequence"
side = "side"
"#;

const TABLES: &str = "CREATE TABLE cameras (camera varchar(20) PRIMARY KEY, seen bigint, note text);
    CREATE TABLE latest (camera varchar(20) PRIMARY KEY, seen varchar(20));
    CREATE TABLE boxes (sequence bigint NOT NULL, side integer NOT NULL, CHECK (side < 100))";

fn own(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every second one lacks the note, and one has an element that the server refuses.
fn message(id: u64) -> String {
    let time = jiff::Timestamp::now().as_microsecond() - i64::try_from(id).unwrap() * 3_600_000_000;
    let side = if id == 50 { 200 } else { 2 };
    let mut message =
        json!({"time": time, "camera": format!("cam-{}", id % 3), "boxes": [{"side": 1}, {"side": side}]});
    if id.is_multiple_of(2) {
        message["note"] = json!("even");
    }
    message.to_string()
}

/// The types of jetcopy's tables and of the catalogs.
const TYPES: &str = "bool,\\\"char\\\",name,text,varchar,int2,int4,int8,oid,regclass,regtype,regnamespace,\
    float4,float8,numeric,timestamptz,date,interval,jsonb,tid,text[],name[],int4[],int8[],oid[]";

/// Those that the scripts compare; a backup holds the traps, too, and so does what is restored.
const TYPES_OF_SCRIPTS: &str = r#"bool,\"char\",name,text,int4,int8,oid,regclass,text[],name[]"#;

/// The server's functions that have a name which looks like a call in these directories.
async fn names(world: &World, roots: &[&str]) -> String {
    let sql = "SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace";
    let known: BTreeSet<String> =
        world.database.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let mut names = BTreeSet::new();
    for root in roots {
        for file in walk(&own(root)) {
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            for (at, _) in text.match_indices('(') {
                let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                let start = text[..at].rfind(|c| !name(c)).map_or(0, |place| place + 1);
                if text.is_char_boundary(start) && (2..40).contains(&(at - start)) {
                    names.insert(text[start..at].to_owned());
                }
            }
        }
    }
    known.intersection(&names).cloned().collect::<Vec<_>>().join(",")
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("testbed") {
            found.extend(walk(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

/// A server of its own, so that its log is; and a world there with the traps.
async fn trapped(postgres: &TestPostgres, roots: &[&str], types: &str) -> World {
    let world = World::with_postgres(postgres).await;
    world.database.batch_execute(TABLES).await.unwrap();
    let traps = std::fs::read_to_string(own("tests/it/search_path/traps.sql")).unwrap();
    let traps = traps.replace("{NAMES}", &format!("{{{}}}", names(&world, roots).await));
    world.database.batch_execute(&traps.replace("{TYPES}", &format!("{{{types}}}"))).await.unwrap();
    world
}

/// What the server's log says of traps, with the statements.
fn sprung(postgres: &TestPostgres) -> Vec<String> {
    let log = std::fs::read_to_string(postgres.log()).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let at = lines.iter().enumerate().filter(|(_, line)| line.ends_with("ERROR:  sprung")).map(|(at, _)| at);
    at.map(|at| lines[at..(at + 12).min(lines.len())].join("\n")).collect()
}

fn none_sprung(postgres: &TestPostgres, what: &str) {
    let found = sprung(postgres);
    assert!(found.is_empty(), "{what} sprang {} traps:\n{}", found.len(), found.join("\n"));
}

fn script(postgres: &TestPostgres, name: &str, url: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(own("scripts/db-maintenance").join(name));
    command
        .arg("--bin")
        .arg(postgres.programs())
        .args(["--url", url])
        .args(arguments)
        .env_remove("PGOPTIONS");
    let output = command.output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_s_function_is_called_by_the_daemon_or_a_command() {
    let postgres = TestPostgres::start(&PostgresOptions::default()).unwrap();
    let world = trapped(&postgres, &["src", "migrations", "config/postgres"], TYPES).await;
    let config = world.config(PIPELINE);
    // The traps are ones.
    world.database.batch_execute("SELECT format('%s', 'a'::name, 'b'::name)").await.unwrap_err();
    assert_eq!(sprung(&postgres).len(), 1, "the test's own");
    std::fs::File::options().write(true).open(postgres.log()).unwrap().set_len(0).unwrap();

    world.publish("a", (1..=60).map(message)).await;
    world.publish("a", ["{", r#"{"time": 1, "camera": "old", "boxes": []}"#]).await;
    let daemon = Daemon::start(&config);
    world.drained("frames", &daemon).await;
    none_sprung(&postgres, "the daemon");
    assert!(world.count("SELECT pg_catalog.count(*) FROM jetcopy.dead_letters").await > 1);

    let letters = "SELECT pg_catalog.count(*) FROM jetcopy.dead_letters";
    for command in [
        &["status"][..],
        &["check"],
        &["maintain"],
        &["store"],
        &["audit", "frames"],
        &["dead-letters", "list"],
        &["dead-letters", "retry", "--pipeline", "frames"],
        &["dead-letters", "export"],
        &["dead-letters", "discard", "--pipeline", "frames", "--yes"],
        &["pause", "frames"],
        &["status"],
        &["resume", "frames"],
        &["migrate", "--status"],
    ] {
        let answer = world.run(&config, command).await;
        println!("{command:?}: {} {}", answer.code, answer.err);
        none_sprung(&postgres, &format!("{command:?}"));
    }
    assert_eq!(world.count(letters).await, 0);
    for query in &QUERIES {
        let given = query.arguments.iter().filter(|argument| argument.default.is_none()).map(|argument| {
            let value = match argument.kind {
                Kind::Span => "1h",
                Kind::Integer | Kind::Number => "1",
                Kind::Time => "2026-01-01",
                Kind::Text | Kind::Texts | Kind::Flag | Kind::Width => "a",
            };
            format!("{}={value}", argument.name)
        });
        let arguments: Vec<String> = [query.name.to_owned()].into_iter().chain(given).collect();
        let words: Vec<&str> = ["query"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        world.run(&config, &words).await.well();
        none_sprung(&postgres, query.name);
    }
    daemon.kill();
    for command in
        [&["status"][..], &["rewind", "frames", "--to", "10", "--yes"], &["replay", "frames", "--from", "1"]]
    {
        let answer = world.run(&config, command).await;
        println!("{command:?}: {} {}", answer.code, answer.err);
        none_sprung(&postgres, &format!("{command:?}"));
    }
    let daemon = Daemon::start(&config);
    world.drained("frames", &daemon).await;
    none_sprung(&postgres, "a second start");

    // Monitoring runs with the rights of the owner.
    let functions = "SELECT p.oid::regprocedure::text FROM pg_proc p
        WHERE p.pronamespace = 'jetcopy'::regnamespace::oid AND p.proname::text LIKE 'monitor%' \
            AND p.pronargs = 0::int2";
    let found = world.database.query(functions, &[]).await.unwrap();
    assert!(found.len() > 5);
    for row in found {
        let sql = format!("SELECT * FROM {}", row.get::<_, String>(0));
        world.database.batch_execute(&sql).await.unwrap();
        none_sprung(&postgres, &sql);
    }
    let roles = std::fs::read_to_string(own("config/postgres/roles.sql")).unwrap();
    world.database.batch_execute(&roles).await.unwrap();
    none_sprung(&postgres, "roles.sql");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_s_function_is_called_by_a_backup_or_a_restore() {
    let postgres = TestPostgres::start(&PostgresOptions::default()).unwrap();
    let world = trapped(&postgres, &["scripts/db-maintenance"], TYPES_OF_SCRIPTS).await;
    let backup = world.directory.path().join("backup");
    let backup = backup.to_str().unwrap();
    let (well, said) = script(&postgres, "db-backup", &world.own_url, &["--output", backup]);
    assert!(well, "{said}");
    none_sprung(&postgres, "db-backup");
    // The traps are in the backup as well, and in the template of what is made.
    let (well, said) = script(&postgres, "db-verify", &world.own_url, &["--input", backup, "--restore"]);
    assert!(well, "{said}");
    let restored = postgres.database_url("restored");
    let (well, said) = script(&postgres, "db-restore", &restored, &["--input", backup]);
    assert!(well, "{said}");
    none_sprung(&postgres, "db-restore");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_refuses_a_path_where_another_role_s_function_stands_before_the_server_s_own() {
    let postgres = TestPostgres::shared().unwrap();
    let url = postgres.create_database().await.unwrap();
    let admin = connect(&url).await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE eve NOLOGIN; GRANT CREATE ON SCHEMA public TO eve; SET ROLE eve;
             CREATE FUNCTION public.format(text, name, name) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
             CREATE FUNCTION public.own(text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'; RESET ROLE",
        )
        .await
        .unwrap();
    let settings = jetcopy::config::Postgres { url: url.clone(), ..Default::default() };
    let refusal = jetcopy::migrate::migrate(&settings).await.unwrap_err().to_string();
    assert!(refusal.contains("function format(text,name,name) of role eve"), "{refusal}");
    assert!(refusal.contains("nothing was changed"), "{refusal}");
    let there: bool =
        admin.query_one("SELECT to_regnamespace('jetcopy') IS NOT NULL", &[]).await.unwrap().get(0);
    assert!(!there);

    // What one may do about it.
    admin.batch_execute("DROP FUNCTION public.format(text, name, name)").await.unwrap();
    jetcopy::migrate::migrate(&settings).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_calls_nothing_that_stands_in_a_schema_of_the_path_where_no_table_goes() {
    let postgres = TestPostgres::start(&PostgresOptions::default()).unwrap();
    let world = World::with_postgres(&postgres).await;
    let url = postgres.create_database_named("trapped").await.unwrap();
    let admin = connect(&url).await.unwrap();
    let traps = std::fs::read_to_string(own("tests/it/search_path/traps.sql")).unwrap();
    let traps = traps
        .replace(
            "GRANT CREATE, USAGE ON SCHEMA public",
            "CREATE SCHEMA lair AUTHORIZATION mallory; GRANT USAGE ON SCHEMA lair",
        )
        .replace("public.", "lair.")
        .replace(
            "{NAMES}",
            &format!("{{{}}}", names(&world, &["migrations", "src/migrate", "src/store"]).await),
        )
        .replace("{TYPES}", &format!("{{{TYPES}}}"));
    admin.batch_execute(&traps).await.unwrap();
    // Their owner owns the schema, which somebody has put into the path of all.
    admin.batch_execute("ALTER DATABASE trapped SET search_path = public, lair").await.unwrap();
    let settings = jetcopy::config::Postgres { url: url.clone(), ..Default::default() };
    for _ in 0..2 {
        jetcopy::migrate::migrate(&settings).await.unwrap();
        none_sprung(&postgres, "migrate");
        admin.batch_execute("DROP TABLE websdrs, files CASCADE").await.unwrap();
    }
    let tables =
        "SELECT count(*) FROM pg_class WHERE relname::text = ANY (ARRAY['frame_metadata', 'measurements'])
        AND relnamespace = 'public'::regnamespace::oid";
    assert_eq!(connect(&url).await.unwrap().query_one(tables, &[]).await.unwrap().get::<_, i64>(0), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_warns_of_schemas_of_the_path_where_others_may_create_and_names_what_stands_there() {
    let postgres = TestPostgres::shared().unwrap();
    let world = World::with_postgres(&postgres).await;
    world.database.batch_execute(TABLES).await.unwrap();
    let config = world.config(PIPELINE);
    let said = world.run(&config, &["check"]).await.out;
    assert!(!said.contains("may create objects in schema"), "{said}");
    world
        .database
        .batch_execute(
            "CREATE ROLE carol NOLOGIN; GRANT CREATE ON SCHEMA public TO PUBLIC; SET ROLE carol;
             CREATE FUNCTION public.quote_ident(name) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
             RESET ROLE",
        )
        .await
        .unwrap();
    let answer = world.run(&config, &["check"]).await;
    assert!(
        answer.out.contains("PUBLIC may create objects in schema public of the search path"),
        "{answer:?}"
    );
    assert!(answer.out.contains("REVOKE CREATE ON SCHEMA public FROM PUBLIC"), "{answer:?}");
    assert!(answer.out.contains("function quote_ident(name) of role carol"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_function_of_jetcopy_that_runs_with_its_owner_s_rights_has_a_path_without_other_schemas() {
    let world = World::new().await;
    let open = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'jetcopy'::regnamespace AND prosecdef
        AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)";
    assert_eq!(world.count(open).await, 0);
    // A view of another role's that takes the name of a roll-up brings no code along.
    world
        .database
        .batch_execute(
            "DROP TABLE IF EXISTS frame_stats_1d; CREATE ROLE dora NOLOGIN; \
             GRANT CREATE ON SCHEMA public TO dora; SET ROLE dora;
             CREATE FUNCTION public.caught() RETURNS bigint LANGUAGE plpgsql \
                 AS 'BEGIN RAISE EXCEPTION ''sprung''; END';
             CREATE VIEW public.frame_stats_1d AS SELECT now() AS bucket, 'a' AS camera_id, public.caught() \
                 AS frames;
             RESET ROLE",
        )
        .await
        .ok();
    world.database.batch_execute("SELECT * FROM jetcopy.monitor_frames()").await.unwrap();
}
