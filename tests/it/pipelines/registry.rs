//! The registry: events in, state out, whatever their order, and the same again by replay.

use serde_json::{Value, json};

use super::{carry, digest, pipeline, publish};
use crate::support::{Daemon, World, days_ago};

const TABLES: [&str; 3] = ["projects", "files", "operations_log"];

/// When it begins, in microseconds.
fn start() -> i64 {
    days_ago(10)
}

/// An event: the last token of its subject, and its body.
type Event = (&'static str, Value);

/// The life of 12 projects with 10 files each: each is changed some times, some are deleted, and each event
/// tells all.
fn events() -> Vec<Event> {
    let mut events = Vec::new();
    let mut at = start();
    let expiry =
        jiff::Timestamp::from_microsecond(days_ago(9)).unwrap().strftime("%Y-%m-%d %H:%M:%S").to_string();
    for version in 0..6 {
        for project in 0..12 {
            at += 1_000;
            let id = format!("p-{project}");
            let status =
                if version == 5 && project % 4 == 0 { "deleted" } else { ["active", "locked"][version % 2] };
            let body = json!({"id": id, "name": format!("Project {project}"), "path": format!("/data/{id}"),
                "size_bytes": project * 100 + version, "table_count": version, "bucket_count": 1,
                "status": status, "settings": {"version": version}, "created_at": start(), "updated_at": at});
            events.push(("projects", body));
            events.push((
                "operations",
                json!({"timestamp": at, "request_id": format!("r-{at}"),
                "project_id": id, "operation": "update_project", "details": {"version": version},
                "duration_ms": 1.5, "status": "ok"}),
            ));
            for file in (0..10).filter(|file| (file + version) % 3 != 0) {
                at += 1;
                let mut body = json!({"project_id": id, "path": format!("f/{file}.csv"),
                    "name": format!("{file}.csv"), "size_bytes": version * 10 + file,
                    "content_type": "text/csv", "md5": format!("{at:032x}"), "staged": version == 0,
                    "tags": ["a", file.to_string()], "created_at": start(), "updated_at": at});
                if version == 0 {
                    body["expires_at"] = json!(expiry);
                }
                if file == 7 && version > 3 {
                    body["status"] = json!("deleted");
                }
                events.push(("files", body));
            }
        }
    }
    events
}

/// The same events in an order that has nothing to do with theirs.
fn shuffled(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by_cached_key(|(_, body)| {
        // Fowler, Noll and Vo's hash of the text: any will do that is the same in every run.
        body.to_string().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    });
    events
}

/// A world that has carried `events`, in batches of `max_rows`, and a digest of each table.
async fn carried(events: Vec<Event>) -> (World, Vec<(i64, String)>) {
    let world = World::new().await;
    for (token, body) in events {
        world.publish(token, [body.to_string()]).await;
    }
    let daemon = carry(&world, "registry").await;
    daemon.kill();
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    let mut digests = Vec::new();
    for table in TABLES {
        digests.push(digest(&world, table).await);
    }
    (world, digests)
}

#[tokio::test]
async fn the_state_follows_from_the_events_in_any_order_and_is_the_same_after_a_replay() {
    let (world, state) = carried(events()).await;
    assert_eq!(state.iter().map(|(rows, _)| *rows).collect::<Vec<_>>(), [12, 120, 72]);
    let newest = "SELECT count(*) FROM projects WHERE (settings->>'version')::int = 5 AND table_count = 5
        AND status = CASE WHEN right(id, 1)::int % 4 = 0 AND id <> 'p-10' THEN 'deleted' ELSE 'locked' END";
    assert_eq!(world.count(newest).await, 12, "the newest event of each project counts");
    assert_eq!(world.count("SELECT count(*) FROM files WHERE status = 'deleted'").await, 12);

    let (other, of_shuffled) = carried(shuffled(events())).await;
    assert_eq!(of_shuffled, state);
    let order = format!(
        "SELECT count(*) FROM operations_log WHERE timestamp < to_timestamp({}::float8 / 1e6)",
        start()
    );
    assert_eq!(other.count(&order).await, 0);

    // Into fresh tables, by a pipeline that starts at the stream's beginning.
    let fresh = "CREATE SCHEMA fresh; CREATE TABLE fresh.projects (LIKE projects INCLUDING ALL);
        CREATE TABLE fresh.files (LIKE files INCLUDING ALL); \
            CREATE TABLE fresh.operations_log (LIKE operations_log)";
    for world in [&world, &other] {
        world.database.batch_execute(fresh).await.unwrap();
        let mut replay = pipeline("registry").replace("name = \"registry\"", "name = \"replay\"");
        for table in TABLES {
            replay = replay.replace(&format!("name = \"{table}\""), &format!("name = \"fresh.{table}\""));
        }
        let daemon = Daemon::start(&world.config(&replay));
        world.drained("replay", &daemon).await;
        for (table, state) in TABLES.iter().zip(&state) {
            assert_eq!(digest(world, &format!("fresh.{table}")).await, *state, "{table}");
        }
    }
}

#[tokio::test]
async fn a_project_or_file_and_its_line_of_the_log_are_one_message_and_one_transaction() {
    let world = World::new().await;
    let project = |log: Value| json!({"id": "p", "name": "One", "updated_at": start(), "log": log});
    let log = json!({"operation": "create_project", "request_id": "r", "duration_ms": 1.5, "status": "ok",
        "details": {"a": 1}});
    let file = json!({"project_id": "p", "path": "f/1", "updated_at": start() + 1,
        "log": {"operation": "create_file"}});
    publish(&world, "projects", [project(log), project(json!({"request_id": "no operation"}))]).await;
    publish(&world, "files", [file]).await;
    let _daemon = carry(&world, "registry").await;
    let both = "SELECT count(*) FROM projects p JOIN operations_log o ON o.project_id = p.id
        WHERE o.xmin = p.xmin AND o.timestamp = p.updated_at AND o.operation = 'create_project' \
            AND o.request_id = 'r'
            AND o.details = '{\"a\": 1}' AND p.name = 'One'";
    assert_eq!(world.count(both).await, 1);
    let file = "SELECT count(*) FROM files f JOIN operations_log o ON o.project_id = f.project_id \
        AND o.resource = f.path
        WHERE o.xmin = f.xmin AND o.operation = 'create_file'";
    assert_eq!(world.count(file).await, 1);
    let refused = "SELECT count(*) FROM jetcopy.dead_letters WHERE table_name LIKE '%operations_log' \
        AND column_name = 'operation'";
    assert_eq!(world.count(refused).await, 1, "a project whose line cannot be stored is not stored either");
    assert_eq!(world.count("SELECT count(*) FROM operations_log").await, 2);
}

#[tokio::test]
async fn an_event_that_comes_late_or_twice_changes_nothing() {
    let world = World::new().await;
    let event = |at: i64, status: &str| json!({"id": "p", "status": status, "updated_at": start() + at});
    let daemon = carry(&world, "registry").await;
    for (at, status, expected) in [
        (2, "active", "active"),
        (5, "deleted", "deleted"),
        (3, "active", "deleted"),
        (5, "deleted", "deleted"),
        (6, "locked", "locked"),
    ] {
        publish(&world, "projects", [event(at, status)]).await;
        world.drained("registry", &daemon).await;
        let found: String =
            world.database.query_one("SELECT status FROM projects", &[]).await.unwrap().get(0);
        assert_eq!(found, expected, "{at}");
    }
    // One that says less than it must is kept apart.
    publish(&world, "projects", [json!({"id": "p", "status": "active"})]).await;
    world.drained("registry", &daemon).await;
    assert_eq!(
        world.count("SELECT count(*) FROM jetcopy.dead_letters WHERE column_name = 'updated_at'").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_rebuilt_beside_a_running_daemon_is_what_its_events_make_of_it() {
    for world in [World::plain().await, World::new().await] {
        let config = world.config(&pipeline("registry"));
        let daemon = Daemon::start(&config);
        // Now and then a project that is none.
        let mut events = events().into_iter().enumerate().map(|(n, (token, body))| match n % 50 {
            49 => ("projects", json!({"id": "p"}).to_string()),
            _ => (token, body.to_string()),
        });
        let mut publish = async |count: usize| {
            for (token, body) in events.by_ref().take(count) {
                world.publish(token, [body]).await;
            }
        };
        publish(300).await;
        world.drained("registry", &daemon).await;
        // What a person or a lost disk does to tables.
        let damage = "UPDATE projects SET name = 'wrong'; DELETE FROM files WHERE project_id = 'p-3'; \
            TRUNCATE operations_log;
            SELECT jetcopy.fresh_registry('rebuilt')";
        world.database.batch_execute(damage).await.unwrap();
        let mut replay = vec!["replay", "registry", "--from", "1", "--keep-checkpoint"];
        let into = TABLES.map(|table| format!("{table}=rebuilt.{table}"));
        replay.extend(into.iter().flat_map(|into| ["--into", into]));
        let (said, ()) = tokio::join!(world.run(&config, &replay), publish(100));
        let said = said.well();
        let name = said.split_whitespace().nth(1).unwrap().trim_end_matches(':').to_owned();
        assert!(name.starts_with("registry-replay-1-"), "{said}");
        // The pipeline goes on, past what was replayed.
        publish(100).await;
        world.drained("registry", &daemon).await;
        // Letters that have expired are known again with their payloads.
        let expire = "UPDATE jetcopy.dead_letters SET expired_at = now(), payload = NULL, headers = NULL \
                      WHERE pipeline = 'registry'";
        assert!(world.database.execute(expire, &[]).await.unwrap() > 0);
        let take = format!("SELECT jetcopy.take_registry('rebuilt', 'registry', '{name}')");
        let (taken, ()) = tokio::join!(world.count(&take), publish(50));
        assert!(u64::try_from(taken).unwrap() < world.last_sequence().await);
        world.database.batch_execute("DROP SCHEMA rebuilt CASCADE").await.unwrap();
        world.drained("registry", &daemon).await;
        publish(usize::MAX).await;
        world.drained("registry", &daemon).await;
        assert!(daemon.is_running());

        world.run(&config, &["replay", "registry", "--from", "1"]).await.well();
        for table in TABLES {
            let expected = digest(&world, &format!("{table}_replay")).await;
            assert_eq!(digest(&world, table).await, expected, "{table}");
            assert!(expected.0 > 10, "{table}");
        }
        let letters = "SELECT count(*) FROM jetcopy.dead_letters a FULL JOIN jetcopy.dead_letters b
            ON b.sequence = a.sequence AND b.pipeline = 'registry' WHERE a.pipeline LIKE 'registry-replay-%'";
        let each = "SELECT count(*) FROM jetcopy.dead_letters WHERE pipeline = 'registry'";
        assert_eq!(world.count(each).await, 12);
        assert_eq!(world.count(&format!("{each} AND expired_at IS NULL")).await, 12);
        assert_eq!(world.count(letters).await, world.count(each).await, "each bad event is one dead letter");
        assert_eq!(world.count("SELECT count(*) FROM jetcopy.checkpoints").await, 1);
    }
}
