//! The registry's running counts: those of the rows, whoever changes them.

use super::*;
use crate::store::maintain;

/// Counts that are not those of the rows, of either table.
const DIFFERENCES: &str = "
    WITH counted AS (
        SELECT project_id, sum(active) AS a, sum(active_bytes) AS b, sum(kept) AS c, 0 AS d
            FROM jetcopy.registry_files
            GROUP BY 1 HAVING (sum(active), sum(active_bytes), sum(kept)) <> (0, 0, 0)
        UNION ALL
        SELECT project_id, sum(created), sum(buckets), sum(tables), sum(files)
            FROM jetcopy.registry_operations
            GROUP BY 1 HAVING (sum(created), sum(buckets), sum(tables), sum(files)) <> (0, 0, 0, 0)
    ), stored AS (
        SELECT project_id, count(*) FILTER (WHERE status = 'active'),
            coalesce(sum(size_bytes) FILTER (WHERE status = 'active'), 0), count(*)
                FILTER (WHERE status <> 'deleted'), 0
        FROM files GROUP BY 1 HAVING count(*) FILTER (WHERE status <> 'deleted') > 0
        UNION ALL
        SELECT * FROM (
            SELECT project_id, sum((operation = 'create_project')::int) AS a,
                sum((operation = 'create_bucket')::int - (operation = 'drop_bucket')::int) AS b,
                sum((operation = 'create_table')::int - (operation = 'drop_table')::int) AS c,
                sum((operation = 'create_file')::int - (operation = 'delete_file')::int) AS d
            FROM operations_log WHERE error IS NULL AND project_id IS NOT NULL GROUP BY 1
        ) o WHERE (a, b, c, d) <> (0, 0, 0, 0)
    )
    SELECT (TABLE counted EXCEPT ALL TABLE stored) UNION ALL (TABLE stored EXCEPT ALL TABLE counted)";

impl World {
    /// The counts are those of the rows, and the check and the totals say what the rows say.
    pub(super) async fn is_tallied(&self, after: &str) {
        let sql = DIFFERENCES.replace("SELECT (TABLE", "SELECT count(*) FROM ((TABLE") + ") differences";
        let differences: i64 = self.database.query_one(&sql, &[]).await.unwrap().get(0);
        assert_eq!(differences, 0, "{}: {after}", self.name);
        let check = self.ask("registry_check", &[]).await;
        assert_eq!(check, self.ask("registry_check", &["whole=true"]).await, "{}: {after}", self.name);
        let sql = "SELECT count(*), coalesce(sum(size_bytes), 0)::int8 FROM files
            WHERE status = 'active' AND NOT coalesce(staged AND expires_at <= now(), false)";
        let row = self.database.query_one(sql, &[]).await.unwrap();
        let stored: [Json; 2] = [row.get::<_, i64>(0).into(), row.get::<_, i64>(1).into()];
        assert_eq!(self.pick(["files", "file_bytes"], "registry_totals", &[]).await, [stored], "{after}");
    }

    async fn count(&self, sql: &str) -> i64 {
        self.database.query_one(sql, &[]).await.unwrap().get(0)
    }
}

/// Three projects with files and a log of four days.
const REGISTRY: &str = "
    INSERT INTO projects (id, table_count, bucket_count, status, updated_at)
        SELECT 'p' || n, n, 0, CASE n WHEN 3 THEN 'deleted' ELSE 'active' END, now()
            FROM generate_series(1, 3) n;
    INSERT INTO files (project_id, path, size_bytes, status, staged, expires_at, updated_at)
        SELECT 'p' || n % 5, 'f' || n, n, CASE WHEN n % 7 = 0 THEN 'deleted' ELSE 'active' END, n % 11 = 0,
            now() + (n % 3 - 1) * interval '1 h', now() FROM generate_series(1, 100) n;
    INSERT INTO operations_log (timestamp, project_id, operation, error)
        SELECT now() - n * interval '1 h', CASE WHEN n % 13 > 0 THEN 'p' || n % 4 END,
            (ARRAY['create_project', 'create_table',
            'create_table', 'drop_table', 'create_bucket', 'create_file', 'query'])[1 + n % 7],
            CASE WHEN n % 10 = 0 THEN 'no room' END FROM generate_series(1, 96) n";

/// What becomes of it, step by step.
const STEPS: [&str; 11] = [
    "INSERT INTO files (project_id, path, size_bytes, updated_at)
        SELECT 'p' || n % 4, 'f' || n, 1000, now() FROM generate_series(90, 110) n
        ON CONFLICT (project_id, path) DO UPDATE SET size_bytes = excluded.size_bytes,
            status = excluded.status",
    "INSERT INTO files (project_id, path, updated_at) VALUES ('p1', 'f1', now()) ON CONFLICT DO NOTHING",
    "UPDATE files SET status = 'deleted' WHERE path LIKE 'f2%'",
    "UPDATE files SET project_id = 'moved', size_bytes = NULL WHERE path LIKE 'f3%'",
    "DELETE FROM files WHERE path LIKE 'f4%'",
    "SELECT jetcopy.expire_staged_files()",
    "BEGIN; INSERT INTO files (project_id, path, updated_at) VALUES ('undone', 'a', now());
        INSERT INTO operations_log (timestamp, project_id, operation)
            VALUES (now(), 'undone', 'create_project'); ROLLBACK",
    // Late rows, and the same ones again, as after a rewind.
    "INSERT INTO operations_log SELECT * FROM operations_log WHERE timestamp < now() - interval '2 days'",
    "ALTER TABLE operations_log DISABLE TRIGGER append_only; DELETE FROM operations_log
        WHERE project_id = 'p2';
        UPDATE operations_log SET error = NULL
            WHERE error IS NOT NULL; ALTER TABLE operations_log ENABLE TRIGGER append_only",
    "SELECT jetcopy.recount_registry()",
    "TRUNCATE files, operations_log",
];

#[tokio::test]
async fn the_registrys_running_counts_are_those_of_its_rows_whatever_becomes_of_them() {
    for world in World::both().await {
        world.past_days(5).await;
        world.execute(REGISTRY).await;
        world.is_tallied("rows that came").await;
        assert!(world.ask("registry_check", &[]).await.len() > 20, "the check has something to say");
        if world.name == "TimescaleDB" {
            world.apply_life_cycle().await;
            world.compress().await;
        }
        for step in STEPS {
            world.execute(step).await;
            world.is_tallied(step).await;
        }
        world.execute(REGISTRY.split_once(';').unwrap().1).await;
        world.is_tallied("rows after a TRUNCATE").await;
    }
}

#[tokio::test]
async fn sessions_that_count_one_project_do_not_wait_and_their_counts_are_put_together_once_they_end() {
    let world = World::shared().await;
    // Who makes a hypertable's chunk keeps others from it until the commit.
    world.execute("INSERT INTO operations_log (timestamp, operation) VALUES (now(), 'before')").await;
    let sessions = [connect(&world.url).await.unwrap(), connect(&world.url).await.unwrap()];
    for session in &sessions {
        let write = "SET lock_timeout = '10s'; BEGIN;
            INSERT INTO operations_log (timestamp, project_id, operation)
                VALUES (now(), 'p', 'create_table')";
        session.batch_execute(write).await.unwrap();
    }
    for session in sessions {
        session.batch_execute("COMMIT").await.unwrap();
    }
    world.is_tallied("two transactions at a time").await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.registry_operations").await, 2);
    let gone =
        "SELECT count(*) FROM pg_stat_activity a JOIN jetcopy.registry_operations o ON o.writer = a.pid";
    while world.count(gone).await > 0 {
        tokio::task::yield_now().await;
    }
    maintain::maintain(&settings(&world.url), &config::Store::default(), false).await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.registry_operations WHERE writer = 0").await, 1);
    assert_eq!(world.count("SELECT sum(tables)::int8 FROM jetcopy.registry_operations").await, 2);
}

#[tokio::test]
async fn what_retention_drops_of_the_log_stays_counted() {
    for world in World::both().await {
        world.past_days(5).await;
        if world.name == "TimescaleDB" {
            world.execute("SELECT set_chunk_time_interval('operations_log', interval '1 day')").await;
        }
        world
            .execute(
                "INSERT INTO projects (id, table_count, bucket_count, updated_at) VALUES ('p', 2, 0, now());
                 INSERT INTO operations_log (timestamp, project_id, operation) VALUES
                    (now() - interval '5 days', 'p', 'create_project'),
                    (now() - interval '5 days', 'p', 'create_table'),
                    (now(), 'p', 'create_table')",
            )
            .await;
        assert!(world.ask("registry_check", &[]).await.is_empty(), "{}", world.name);
        if world.name == "TimescaleDB" {
            world.execute("SELECT drop_chunks('operations_log', now() - interval '4 days')").await;
        } else {
            let partition = "SELECT partition::text FROM jetcopy.partitions('operations_log'::regclass)
                WHERE starts <= now() - interval '5 days' AND ends > now() - interval '5 days'";
            let partition: String = world.database.query_one(partition, &[]).await.unwrap().get(0);
            world.execute(&format!("DROP TABLE {partition}")).await;
        }
        world.execute("UPDATE projects SET table_count = 3").await;
        let tables = world.pick(["problem", "stored", "logged"], "registry_check", &[]).await;
        assert_eq!(tables, [[Json::from("tables"), 3.into(), 2.into()]], "{}", world.name);
        assert!(world.ask("registry_check", &["whole=true"]).await.is_empty(), "its creation is gone");
    }
}

#[tokio::test]
async fn the_check_reads_the_rows_where_the_triggers_are_off_and_counts_anew_on_demand() {
    let world = World::shared().await;
    let orphan = "INSERT INTO files (project_id, path, updated_at) VALUES ('nobody', 'f', now())";
    world.execute(&format!("ALTER TABLE files DISABLE TRIGGER USER; {orphan}")).await;
    assert_eq!(world.ask("registry_check", &[]).await.len(), 1);
    assert_eq!(world.pick(["files"], "registry_totals", &[]).await, [[1]]);
    world.execute("ALTER TABLE files ENABLE TRIGGER USER").await;
    assert!(world.ask("registry_check", &[]).await.is_empty(), "a count that nobody has brought up to date");
    world.execute("SELECT jetcopy.recount_registry()").await;
    world.is_tallied("a recount").await;
    assert_eq!(world.ask("registry_check", &[]).await.len(), 1);
}

#[tokio::test]
async fn a_table_that_comes_back_is_counted_from_nothing_and_another_systems_is_left_alone() {
    let world = World::shared().await;
    world.past_days(5).await;
    world.execute(REGISTRY).await;
    world.execute("DROP TABLE files").await;
    migrate(&settings(&world.url)).await.unwrap();
    world.is_tallied("a table that came back").await;
    world.execute("DROP SCHEMA jetcopy CASCADE").await;
    migrate(&settings(&world.url)).await.unwrap();
    world.is_tallied("a schema that came back").await;
    assert!(world.count("SELECT count(*) FROM jetcopy.registry_operations").await > 0);
    world
        .execute(
            "DROP TABLE files; CREATE TABLE files (project_id integer, path text, status integer, size_bytes \
             bigint)",
        )
        .await;
    migrate(&settings(&world.url)).await.unwrap();
    world.execute("INSERT INTO files VALUES (1, 'a', 2, 3)").await;
}
