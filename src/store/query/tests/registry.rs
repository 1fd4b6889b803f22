//! The registry: event order, expiry, the check, and the rebuild.

use serde_json::json;

use super::super::registry::{File, FileFilter, OperationFilter, Problem, Project, ProjectFilter};
use super::*;

fn project(id: &str, updated_at: &str) -> Project {
    Project {
        id: id.into(),
        name: Some(format!("Project {id}")),
        path: None,
        size_bytes: Some(1),
        table_count: Some(1),
        bucket_count: Some(0),
        status: "active".into(),
        settings: Some(json!({"a": [1, "b"]})),
        created_at: None,
        updated_at: time(updated_at),
    }
}

fn file(project: &str, path: &str, updated_at: &str) -> File {
    File {
        project_id: project.into(),
        path: path.into(),
        name: Some("name".into()),
        size_bytes: Some(7),
        content_type: None,
        md5: None,
        sha256: Some(format!("digest of {path}")),
        staged: false,
        expires_at: None,
        tags: Some(json!(["red", "blue"])),
        status: "active".into(),
        created_at: None,
        updated_at: time(updated_at),
    }
}

const FIRST: &str = "2026-07-01T10:00:00Z";
const SECOND: &str = "2026-07-01T11:00:00Z";
const THIRD: &str = "2026-07-01T12:00:00Z";

#[tokio::test]
async fn an_older_change_never_replaces_a_newer_one() {
    let world = World::shared().await;
    let store = &world.store;
    let (old, new) = (project("p", FIRST), Project { name: None, ..project("p", SECOND) });
    assert!(!store.update(&new).await.unwrap(), "there is nothing to replace yet");
    assert!(store.create(&new).await.unwrap());
    assert!(!store.create(&old).await.unwrap());
    assert!(!store.update(&old).await.unwrap());
    assert!(!store.put(&old).await.unwrap());
    assert_eq!(store.get::<Project>(&["p"]).await.unwrap(), Some(new.clone()));
    assert!(store.put(&Project { size_bytes: Some(2), ..new }).await.unwrap());

    assert!(!store.delete_project("p", time(FIRST)).await.unwrap());
    assert!(store.delete_project("p", time(THIRD)).await.unwrap());
    assert!(!store.put(&project("p", SECOND)).await.unwrap(), "an event from before brings it back");
    let of = |status: &str| ProjectFilter { status: Some(status.into()), ..ProjectFilter::default() };
    assert_eq!(store.find_projects(&of("active")).await.unwrap(), []);
    assert_eq!(store.find_projects(&of("deleted")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn files_are_found_by_path_name_tag_and_content_until_they_are_gone() {
    let world = World::shared().await;
    let store = &world.store;
    for path in ["a", "b"] {
        assert!(store.put(&file("p", path, FIRST)).await.unwrap());
    }
    let all = FileFilter::default;
    let paths = async |filter: FileFilter| -> Vec<String> {
        store.find_files("p", &filter).await.unwrap().into_iter().map(|file| file.path).collect()
    };
    assert_eq!(paths(all()).await, ["a", "b"]);
    assert_eq!(paths(FileFilter { path: Some("b".into()), ..all() }).await, ["b"]);
    assert_eq!(paths(FileFilter { name: Some("name".into()), max_rows: Some(1), ..all() }).await, ["a"]);
    assert_eq!(paths(FileFilter { tag: Some("red".into()), after: Some("a".into()), ..all() }).await, ["b"]);
    assert_eq!(paths(FileFilter { tag: Some("green".into()), ..all() }).await, [""; 0]);
    assert_eq!(store.files_by_digest("digest of a").await.unwrap().len(), 1);
    assert!(store.delete_file("p", "a", time(SECOND)).await.unwrap());
    assert_eq!(paths(all()).await, ["b"]);
    assert_eq!(paths(FileFilter { gone: true, ..all() }).await, ["a", "b"]);
}

#[tokio::test]
async fn a_staged_file_expires_and_only_an_event_from_after_that_brings_it_back() {
    let world = World::shared().await;
    let store = &world.store;
    let staged = File { staged: true, expires_at: Some(time(SECOND)), ..file("p", "a", FIRST) };
    assert!(store.put(&staged).await.unwrap());
    assert!(store.put(&file("p", "kept", FIRST)).await.unwrap());
    assert_eq!(
        store.find_files("p", &FileFilter::default()).await.unwrap().len(),
        1,
        "it has expired unmarked"
    );
    assert_eq!(store.expired_files(Some(time(FIRST)), None).await.unwrap(), []);
    assert_eq!(store.expired_files(None, None).await.unwrap(), std::slice::from_ref(&staged));
    assert_eq!(store.expire_staged_files(time(FIRST)).await.unwrap(), 0);
    assert_eq!(store.expire_staged_files(time(THIRD)).await.unwrap(), 1);
    let expired = store.get::<File>(&["p", "a"]).await.unwrap().unwrap();
    assert_eq!((expired.status.as_str(), expired.updated_at), ("expired", time(SECOND)));
    assert!(!store.put(&staged).await.unwrap(), "a replay of its event brings it back");
    assert!(store.put(&file("p", "a", THIRD)).await.unwrap());
    assert_eq!(store.find_files("p", &FileFilter::default()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_check_finds_files_without_project_and_counts_that_disagree_with_the_log() {
    let world = World::shared().await;
    let store = &world.store;
    world
        .execute(
            "INSERT INTO operations_log (timestamp, project_id, operation, duration_ms, error) VALUES
                (now(), 'p', 'create_project', 1, NULL), (now(), 'p', 'create_table', 2, NULL),
                (now(), 'p', 'create_table', 3, 'no room'), (now(), 'p', 'create_file', 4, NULL),
                (now(), 'older', 'create_table', 5, NULL)",
        )
        .await;
    store.put(&project("p", FIRST)).await.unwrap();
    store.put(&project("older", FIRST)).await.unwrap();
    store.put(&file("p", "a", FIRST)).await.unwrap();
    assert_eq!(
        store.registry_check().await.unwrap(),
        [],
        "a failed operation counts, or a project without a log"
    );

    store.put(&file("nobody", "b", FIRST)).await.unwrap();
    store.put(&Project { table_count: Some(5), ..project("p", FIRST) }).await.unwrap();
    store.delete_file("p", "a", time(SECOND)).await.unwrap();
    let count = |problem: &str, stored| Problem {
        problem: problem.into(),
        project_id: Some("p".into()),
        path: None,
        stored: Some(stored),
        logged: Some(1),
    };
    let lost = Problem {
        problem: "file without project".into(),
        project_id: Some("nobody".into()),
        path: Some("b".into()),
        stored: None,
        logged: None,
    };
    assert_eq!(store.registry_check().await.unwrap(), [lost, count("files", 0), count("tables", 5)]);

    let failed = OperationFilter { failed: true, ..OperationFilter::default() };
    assert_eq!(store.operations(&failed).await.unwrap().len(), 1);
    let counts = store.operation_counts(Some("p"), None, Span::default()).await.unwrap();
    let tables = counts.iter().find(|count| count.operation == "create_table").unwrap();
    assert_eq!((tables.operations, tables.failures, tables.duration_ms_mean), (2, 1, Some(2.5)));
    let stats = world
        .database
        .query_one("SELECT files, operations_1d, failures_1d FROM stats WHERE project_id = 'p'", &[]);
    let stats = stats.await.unwrap();
    assert_eq!((stats.get::<_, i64>(0), stats.get::<_, i64>(1), stats.get::<_, i64>(2)), (0, 4, 1));
}

#[tokio::test]
async fn a_rebuilt_registry_takes_the_place_of_the_one_in_use_with_its_position() {
    for world in World::both().await {
        world
            .execute(
                "INSERT INTO jetcopy.checkpoints (shard, pipeline, stream, last_sequence, epoch) VALUES
                    ('registry', 'registry', 'REGISTRY', 15, 3),
                    ('registry-replay-1-12', 'registry-replay-1-12', 'REGISTRY', 9, 1),
                    ('registry-replay-5-12', 'registry-replay-5-12', 'REGISTRY', 12, 1);
                 INSERT INTO jetcopy.dead_letters (pipeline, shard, stream, sequence, subject, payload, kind, message) VALUES
                    ('registry', 'registry', 'REGISTRY', 14, 'a', '', 'malformed', 'to be carried again'),
                    ('registry', 'registry', 'REGISTRY', 7, 'a', '', 'malformed', 'of the registry in use'),
                    ('registry-replay-1-12', 'registry-replay-1-12', 'REGISTRY', 7, 'a', '', 'malformed', 'of the replay'),
                    ('other', 'other', 'OTHER', 7, 'a', '', 'malformed', 'of another pipeline');
                 INSERT INTO projects (id, updated_at) VALUES ('wrong', now());
                 INSERT INTO operations_log (timestamp, operation) VALUES (now(), 'wrong');
                 SELECT jetcopy.fresh_registry('rebuilt');
                 INSERT INTO rebuilt.projects (id, updated_at) VALUES ('right', now());
                 INSERT INTO rebuilt.operations_log (timestamp, operation) VALUES (now(), 'right'), (now(), 'too')",
            )
            .await;
        let take =
            |rebuilt_by: &str| format!("SELECT jetcopy.take_registry('rebuilt', 'registry', '{rebuilt_by}')");
        for (rebuilt_by, refusal) in [
            ("registry-replay-1-99", "there is no checkpoint of registry-replay-1-99"),
            ("registry-replay-5-12", "no replay of pipeline registry from sequence 1"),
            ("registry-replay-1-12", "was interrupted after sequence 9"),
        ] {
            let error = world.database.query_one(&take(rebuilt_by), &[]).await.unwrap_err();
            let said = error.as_db_error().unwrap().message();
            assert!(said.contains(refusal), "{said}");
        }

        world
            .execute("UPDATE jetcopy.checkpoints SET last_sequence = 12 WHERE shard = 'registry-replay-1-12'")
            .await;
        let row = world.database.query_one(&take("registry-replay-1-12"), &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 12, "{}", world.name);
        let sql = "SELECT (SELECT string_agg(id, ',') FROM projects), (SELECT count(*) FROM operations_log),
                last_sequence, epoch FROM jetcopy.checkpoints WHERE shard = 'registry'";
        let row = world.database.query_one(sql, &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "right");
        assert_eq!((row.get::<_, i64>(1), row.get::<_, i64>(2), row.get::<_, i64>(3)), (2, 12, 4));
        let letters = "SELECT string_agg(concat_ws(' ', pipeline, sequence, message), ', ' ORDER BY pipeline) FROM jetcopy.dead_letters";
        let row = world.database.query_one(letters, &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "other 7 of another pipeline, registry 7 of the replay");
        let kept = "SELECT string_agg(shard, ', ' ORDER BY shard) FROM jetcopy.checkpoints";
        let row = world.database.query_one(kept, &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "registry, registry-replay-5-12");
    }
}
