//! The registry: look-ups, expiry, the check, totals, and the rebuild.

use serde_json::json;

use super::*;

const FIRST: &str = "2026-07-01T10:00:00Z";
const SECOND: &str = "2026-07-01T11:00:00Z";
const THIRD: &str = "2026-07-01T12:00:00Z";

async fn paths(world: &World, words: &[&str]) -> Vec<String> {
    let found = world.pick(["path"], "find_files", &[&["project=p"], words].concat()).await;
    found.into_iter().map(|[path]| path.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn files_are_found_by_path_name_tag_and_content_until_they_are_gone() {
    let world = World::shared().await;
    world
        .execute(
            "INSERT INTO files (project_id, path, name, sha256, tags, updated_at)
                SELECT 'p', path, 'name', 'digest of ' || path, '[\"red\", \"blue\"]', now()
                    FROM unnest('{a,b}'::text[]) path",
        )
        .await;
    assert_eq!(paths(&world, &[]).await, ["a", "b"]);
    assert_eq!(paths(&world, &["path_is=b"]).await, ["b"]);
    assert_eq!(paths(&world, &["name_is=name", "max_rows=1"]).await, ["a"]);
    assert_eq!(paths(&world, &["tag=red", "after=a"]).await, ["b"]);
    assert_eq!(paths(&world, &["tag=green"]).await, [""; 0]);
    assert_eq!(world.ask("files_by_digest", &["digest=digest of a"]).await.len(), 1);
    world.execute("UPDATE files SET status = 'deleted' WHERE path = 'a'").await;
    assert_eq!(paths(&world, &[]).await, ["b"]);
    assert_eq!(paths(&world, &["gone=true"]).await, ["a", "b"]);
}

#[tokio::test]
async fn a_staged_file_expires_with_the_time_of_its_expiry() {
    let world = World::shared().await;
    world
        .execute(&format!(
            "INSERT INTO files (project_id, path, staged, expires_at, updated_at) VALUES
                ('p', 'a', true, '{SECOND}', '{FIRST}'), ('p', 'kept', false, NULL, '{FIRST}')"
        ))
        .await;
    assert_eq!(paths(&world, &[]).await, ["kept"], "it has expired unmarked");
    assert!(world.ask("expired_files", &[&format!("at={FIRST}")]).await.is_empty());
    assert_eq!(world.pick(["path"], "expired_files", &[]).await, [["a"]]);
    for (at, marked) in [(FIRST, 0_i64), (THIRD, 1), (THIRD, 0)] {
        let sql = format!("SELECT jetcopy.expire_staged_files('{at}')");
        assert_eq!(world.database.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0), marked, "{at}");
    }
    let expired =
        world.pick(["status", "updated_at"], "find_files", &["project=p", "path_is=a", "gone=true"]).await;
    assert_eq!(expired, [["expired", SECOND]]);
}

#[tokio::test]
async fn the_check_finds_files_without_project_and_counts_that_disagree_with_the_log() {
    let world = World::shared().await;
    world
        .execute(
            "INSERT INTO operations_log (timestamp, project_id, operation, duration_ms, error) VALUES
                (now(), 'p', 'create_project', 1, NULL), (now(), 'p', 'create_table', 2, NULL),
                (now(), 'p', 'create_table', 3, 'no room'), (now(), 'p', 'create_file', 4, NULL),
                (now(), 'older', 'create_table', 5, NULL);
             INSERT INTO projects (id, size_bytes, table_count, bucket_count, updated_at)
                SELECT id, 1, 1, 0, now() FROM unnest('{p,older}'::text[]) id;
             INSERT INTO files (project_id, path, size_bytes, updated_at) VALUES ('p', 'a', 7, now())",
        )
        .await;
    let check = async || world.ask("registry_check", &[]).await;
    assert!(check().await.is_empty(), "a failed operation counts, or a project without a log");

    world
        .execute(
            "INSERT INTO files (project_id, path, updated_at) VALUES ('nobody', 'b', now());
             UPDATE projects SET table_count = 5 WHERE id = 'p';
             UPDATE files SET status = 'deleted' WHERE path = 'a'",
        )
        .await;
    let count = |problem: &str, stored: u8| {
        json!({"problem": problem, "project_id": "p", "path": null,
        "stored": stored, "logged": 1})
    };
    let lost = json!({"problem": "file without project", "project_id": "nobody", "path": "b",
        "stored": null, "logged": null});
    assert_eq!(check().await, [lost, count("files", 0), count("tables", 5)]);

    assert_eq!(world.ask("operations", &["failed=true"]).await.len(), 1);
    let counts = world.ask("operation_counts", &["project=p"]).await;
    let tables = counts.iter().find(|count| count["operation"] == "create_table").unwrap();
    assert_eq!(
        (&tables["operations"], &tables["failures"], &tables["duration_ms_mean"]),
        (&json!(2), &json!(1), &json!(2.5))
    );
    let columns = ["files", "operations_1d", "failures_1d"];
    assert_eq!(world.pick(columns, "project_stats", &["project=p"]).await, [[0, 4, 1]]);
}

#[tokio::test]
async fn totals_are_those_of_all_projects_and_of_none_where_there_are_none() {
    for world in World::both().await {
        let columns = ["projects", "size_bytes", "table_count", "files", "operations_1d"];
        assert_eq!(world.pick(columns, "registry_totals", &[]).await, [[0; 5]], "{}", world.name);
        world
            .execute(
                "INSERT INTO projects (id, size_bytes, table_count, status, updated_at) VALUES
                    ('a', 10, 1, 'active', now()), ('b', 20, 2, 'locked', now()),
                    ('c', 400, 8, 'deleted', now());
                 INSERT INTO files (project_id, path, size_bytes, status, staged, expires_at, updated_at)
                     VALUES
                    ('a', '1', 5, 'active', false, NULL, now()),
                    ('b', '1', 6, 'active', true, now() + interval '1 h', now()),
                    ('b', '2', 7, 'deleted', false, NULL, now()),
                    ('b', '3', 8, 'active', true, now() - interval '1 h', now());
                 INSERT INTO operations_log (timestamp, project_id, operation, duration_ms, error) VALUES
                    (now() - interval '3 s', 'a', 'x', 1, NULL), (now() - interval '2 s', 'c', 'x', 3, 'no')",
            )
            .await;
        let mut totals = world.ask("registry_totals", &[]).await;
        assert!(totals[0].as_object_mut().unwrap().remove("last_operation").unwrap().is_string());
        let expected = json!({"projects": 3, "active_projects": 1, "locked_projects": 1,
            "deleted_projects": 1, "size_bytes": 30, "table_count": 3, "bucket_count": 0,
            "files": 2, "file_bytes": 11, "staged_files": 1, "operations_1d": 2, "failures_1d": 1,
            "mean_duration_ms_1d": 2.0});
        assert_eq!(totals, [expected], "{}", world.name);
    }
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
                 INSERT INTO jetcopy.dead_letters
                     (pipeline, shard, stream, sequence, subject, payload, kind, message) VALUES
                    ('registry', 'registry', 'REGISTRY', 14, 'a', '', 'malformed', 'to be carried again'),
                    ('registry', 'registry', 'REGISTRY', 7, 'a', '', 'malformed', 'of the registry in use'),
                    ('registry-replay-1-12', 'registry-replay-1-12', 'REGISTRY', 7, 'a', '', 'malformed',
                        'of the replay'),
                    ('other', 'other', 'OTHER', 7, 'a', '', 'malformed', 'of another pipeline');
                 INSERT INTO projects (id, updated_at) VALUES ('wrong', now());
                 INSERT INTO operations_log (timestamp, operation) VALUES (now(), 'wrong');
                 SELECT jetcopy.fresh_registry('rebuilt');
                 INSERT INTO rebuilt.projects (id, updated_at) VALUES ('right', now());
                 INSERT INTO rebuilt.operations_log (timestamp, operation) VALUES (now(), 'right'),
                     (now(), 'too')",
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
        world.is_tallied("a rebuilt registry").await;
        let letters = "SELECT string_agg(concat_ws(' ', pipeline, sequence, message), ', ' \
                         ORDER BY pipeline) FROM jetcopy.dead_letters";
        let row = world.database.query_one(letters, &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "other 7 of another pipeline, registry 7 of the replay");
        let kept = "SELECT string_agg(shard, ', ' ORDER BY shard) FROM jetcopy.checkpoints";
        let row = world.database.query_one(kept, &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "registry, registry-replay-5-12");
    }
}
