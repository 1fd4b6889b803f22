//! The way of upgrading: from the released migrations to one that follows them, with rows in the tables, also
//! after an abort in the middle. It always ends in the schema of a database that was migrated in one go, with
//! every row.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::{
    Entry, MIGRATIONS, MigrateError, Migration, State, connect, migrate, relations, run, settings, status,
};
use crate::catalog::After;
use crate::catalog::groups::Group;
use crate::catalog::lives::Lives;
use crate::config;
use crate::store::life;
use crate::testbed::{Need, TestPostgres, leave_out};

/// A migration that follows the released ones: a table and a column of jetcopy's own, and a table for those
/// who have a registry.
const FURTHER: Migration = Migration {
    version: 1001,
    name: "further",
    sql: "CREATE TABLE further (n int);
ALTER TABLE jetcopy.checkpoints ADD COLUMN further int DEFAULT 7;
COMMENT ON COLUMN jetcopy.checkpoints.further IS 'Further';
DO $registry$
BEGIN
    CREATE TABLE registered (n int);
END
$registry$;
",
};

/// One that fails after its first change.
const FAILING: Migration = Migration {
    version: FURTHER.version,
    name: FURTHER.name,
    sql: "CREATE TABLE further (n int); SELECT 1 / 0",
};

/// Rows for every table. Times are of today: there is a partition for it.
const ROWS: &str = "
    INSERT INTO jetcopy.checkpoints (shard, pipeline, stream, stream_created, last_sequence, last_timestamp, \
        epoch)
        VALUES ('s', 'p', 'S', '2024-01-01', 41, '2024-01-02', 3);
    INSERT INTO jetcopy.dead_letters (pipeline, shard, stream, sequence, subject, headers, payload, kind, \
        message)
        SELECT 'p', 's', 'S', n, 'S.a', '{\"a\": [\"b\"]}', '\\xc1', 'malformed', 'no MessagePack'
        FROM generate_series(1, 3) n;
    INSERT INTO jetcopy.losses (pipeline, shard, stream, stream_created, first_sequence, last_sequence, cause)
        VALUES ('p', 's', 'S', '2024-01-01', 5, 9, 'dropped');
    INSERT INTO jetcopy.deletions (what, deleted) VALUES ('measurements', 5);
    INSERT INTO frame_metadata (time, camera_id, frame_id, key_frame, fps, attributes)
        SELECT now(), 'c' || n % 3, n, n % 10 = 0, 'NaN', '{\"a\": null}' FROM generate_series(1, 50) n;
    INSERT INTO detection_events (time, camera_id, frame_id, label, confidence)
        SELECT now(), 'c', n, 'person', 0.5 FROM generate_series(1, 50) n;
    INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz)
        SELECT now(), 't', 'r', n FROM generate_series(1, 20) n;
    INSERT INTO websdrs (id, name, updated_at) VALUES ('r', 'R', '2024-01-01');
    INSERT INTO time_series_metadata (id, name, updated_at) VALUES ('s', 'S', '2024-01-01');
    INSERT INTO time_series_data_points (series_id, timestamp, column_name, value)
        SELECT 's', now(), 'v', n FROM generate_series(1, 20) n;
    INSERT INTO projects (id, updated_at) VALUES ('p', '2024-01-01');
    INSERT INTO files (project_id, path, updated_at, tags) VALUES ('p', 'a', '2024-01-01', '[\"t\"]');
    INSERT INTO operations_log (timestamp, operation) VALUES (now(), 'create_file')";

/// Tables that have rows of their own.
const TABLES: &str =
    "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname IN ('jetcopy', 'public') AND relkind IN ('r', 'p') AND NOT relispartition
        AND c.oid <> 'jetcopy.schema_history'::regclass
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid \
            AND deptype = 'e')
    ORDER BY 1";

/// All that a migration can make, a line each. Partitions and chunks are those of the rows, and numbers of
/// TimescaleDB's are used up by what was rolled back.
const SCHEMA: &str = r"WITH ours AS (
    SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname IN ('jetcopy', 'public') AND NOT relispartition
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid
            AND deptype = 'e')
), functions AS (
    SELECT p.* FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
    WHERE nspname IN ('jetcopy', 'public')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid
            AND deptype = 'e')
), lines (line) AS (
    SELECT concat_ws(' ', 'relation', relkind, oid::regclass, reloptions, relacl, pg_get_userbyid(relowner))
        FROM ours
    UNION ALL SELECT concat_ws(' ', 'column', attrelid::regclass, attname,
            row_number() OVER (PARTITION BY attrelid ORDER BY attnum),
            format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
            pg_get_expr(adbin, adrelid), attacl)
        FROM pg_attribute JOIN ours ON ours.oid = attrelid
            LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attnum > 0 AND NOT attisdropped
    UNION ALL SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(c.oid))
        FROM pg_constraint c JOIN ours ON ours.oid = conrelid
    UNION ALL SELECT concat_ws(' ', 'index', pg_get_indexdef(oid)) FROM ours WHERE relkind IN ('i', 'I')
    UNION ALL SELECT concat_ws(' ', 'view', oid::regclass, pg_get_viewdef(oid)) FROM ours WHERE relkind = 'v'
    UNION ALL SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid))
        FROM pg_trigger t JOIN ours ON ours.oid = tgrelid WHERE NOT tgisinternal
    UNION ALL SELECT concat_ws(' ', 'function', pg_get_functiondef(oid), proacl)
        FROM functions WHERE prokind <> 'a'
    UNION ALL SELECT concat_ws(' ', 'comment', pg_describe_object(classoid, objoid, objsubid), description)
        FROM pg_description
        WHERE (classoid = 'pg_class'::regclass AND objoid IN (SELECT oid FROM ours))
            OR (classoid = 'pg_proc'::regclass AND objoid IN (SELECT oid FROM functions))
    UNION ALL SELECT concat_ws(' ', 'partitioned', relation, time_column) FROM jetcopy.partitioned_tables
    UNION ALL SELECT concat_ws(' ', 'rollup', name, source, width) FROM jetcopy.rollups
    UNION ALL SELECT concat_ws(' ', 'migration', version, name, checksum) FROM jetcopy.schema_history
)
SELECT regexp_replace(line, '_hypertable_\d+', '_hypertable_N', 'g') FROM lines ORDER BY 1";

const HYPERTABLES: &str =
    "SELECT concat_ws(' ', 'dimension', hypertable_schema, hypertable_name, column_name, time_interval)
        FROM timescaledb_information.dimensions WHERE hypertable_schema = 'public'
    UNION ALL SELECT concat_ws(' ', 'aggregate', view_schema, view_name, materialized_only)
        FROM timescaledb_information.continuous_aggregates
    ORDER BY 1";

/// A session that terminates another's, once that stands in the middle of a migration.
const END_WHO_WAITS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = 'jetcopy migrate'";

async fn lines(client: &Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// The schema, line by line.
async fn schema(url: &str, timescaledb: bool) -> Vec<String> {
    let client = connect(url).await.unwrap();
    let mut found = lines(&client, SCHEMA).await;
    if timescaledb {
        found.extend(lines(&client, HYPERTABLES).await);
    }
    found
}

fn assert_same(found: &[String], expected: &[String], what: &str) {
    let missing: Vec<&String> = expected.iter().filter(|line| !found.contains(line)).collect();
    let more: Vec<&String> = found.iter().filter(|line| !expected.contains(line)).collect();
    assert!(missing.is_empty() && more.is_empty(), "{what}: missing {missing:#?}, too much {more:#?}");
    assert_eq!(found.len(), expected.len(), "{what}");
}

/// Which tables are partitioned, how far, what is summed up and how long it lives, is the schema's; the
/// registry's counts are made of files and operations.
const NOT_ROWS: [&str; 7] = [
    "jetcopy.partitioned_tables",
    "jetcopy.rollups",
    "jetcopy.partition_bounds",
    "jetcopy.store_life",
    "jetcopy.store_choice",
    "jetcopy.registry_files",
    "jetcopy.registry_operations",
];

/// Every row of every table, as JSON.
async fn rows(client: &Client) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for table in lines(client, TABLES).await {
        if NOT_ROWS.contains(&&*table) {
            continue;
        }
        for row in lines(client, &format!("SELECT to_jsonb(t)::text FROM {table} t")).await {
            rows.push((table.clone(), row));
        }
    }
    rows
}

/// Whether each row is still there, and no other; a migration may add columns.
async fn assert_rows_kept(client: &Client, before: &[(String, String)]) {
    for (table, row) in before {
        // Frames that are alike but for columns that a row lacks do not occur: each has its number.
        let sql = format!("SELECT count(*) FROM {table} t WHERE to_jsonb(t) @> $1::text::jsonb");
        let there: i64 = client.query_one(&sql, &[row]).await.unwrap().get(0);
        assert_eq!(there, 1, "{table}: {row}");
    }
    assert_eq!(rows(client).await.len(), before.len());
}

/// A database of the released migrations, with rows in all that it has.
async fn filled(server: &TestPostgres) -> (String, Client) {
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    let client = connect(&url).await.unwrap();
    client.batch_execute(ROWS).await.unwrap_or_else(|error| panic!("{error:?}"));
    (url, client)
}

/// The released migrations, and one more.
fn and(more: Migration) -> Vec<Migration> {
    MIGRATIONS.iter().copied().chain([more]).collect()
}

fn every_group() -> config::Store {
    config::Store { groups: Some(Group::ALL.into()), ..config::Store::default() }
}

/// What a run with one migration more applied.
async fn upgrade(url: &str, more: Migration) -> Result<Vec<i32>, MigrateError> {
    let report = run(&settings(url), &every_group(), &and(more)).await?;
    Ok(report.applied.iter().map(|entry| entry.version).collect())
}

/// The version before another; 0 before the first.
fn before(version: i32) -> i32 {
    let earlier = MIGRATIONS.iter().map(|migration| migration.version).filter(|earlier| *earlier < version);
    earlier.max().unwrap_or(0)
}

pub(super) fn servers() -> Vec<Arc<TestPostgres>> {
    let (offered, plain) = (TestPostgres::shared().unwrap(), TestPostgres::shared_plain().unwrap());
    if offered.has_timescaledb() {
        vec![plain, offered]
    } else {
        leave_out(Need::TimescaleDb, "the same on TimescaleDB");
        vec![plain]
    }
}

/// The schema of a database that was migrated in one go.
async fn fresh(server: &TestPostgres) -> Vec<String> {
    let url = server.create_database().await.unwrap();
    upgrade(&url, FURTHER).await.unwrap();
    let fresh = schema(&url, server.has_timescaledb()).await;
    assert!(fresh.len() > 300, "{fresh:#?}");
    fresh
}

#[tokio::test]
async fn a_further_migration_makes_the_schema_of_a_fresh_database_keeps_every_row_and_runs_once() {
    for server in servers() {
        let fresh = fresh(&server).await;
        let (url, client) = filled(&server).await;
        let kept = rows(&client).await;
        assert_eq!(upgrade(&url, FURTHER).await.unwrap(), [FURTHER.version]);
        assert_same(&schema(&url, server.has_timescaledb()).await, &fresh, "a further one");
        assert_rows_kept(&client, &kept).await;

        let made = relations(&url).await;
        assert_eq!(upgrade(&url, FURTHER).await.unwrap(), [0; 0]);
        assert_eq!(relations(&url).await, made);
    }
}

#[tokio::test]
async fn a_further_migration_makes_no_table_of_a_group_that_is_not_chosen() {
    let server = TestPostgres::shared().unwrap();
    let url = server.create_database().await.unwrap();
    let named = config::Store { groups: Some([Group::Frames].into()), ..config::Store::default() };
    for migrations in [MIGRATIONS, &and(FURTHER)] {
        run(&settings(&url), &named, migrations).await.unwrap();
    }
    let made = relations(&url).await;
    let is_there = |wanted: &str| made.iter().any(|(name, _)| name == wanted);
    assert!(is_there("further") && is_there("frame_metadata"), "{made:?}");
    assert!(!is_there("registered") && !is_there("projects"), "{made:?}");
}

#[tokio::test]
async fn two_migrators_at_a_time_apply_a_further_migration_once() {
    let server = TestPostgres::shared().unwrap();
    let (url, _) = filled(&server).await;
    let (one, other) = tokio::join!(upgrade(&url, FURTHER), upgrade(&url, FURTHER));
    assert_eq!([one.unwrap(), other.unwrap()].concat(), [FURTHER.version]);
}

#[tokio::test]
async fn a_further_migration_that_fails_changes_nothing_and_the_next_run_succeeds() {
    let server = TestPostgres::shared().unwrap();
    let (url, client) = filled(&server).await;
    let (made, kept) = (relations(&url).await, rows(&client).await);
    let error = upgrade(&url, FAILING).await.unwrap_err();
    assert!(matches!(error, MigrateError::Migration { version: 1001, name: "further", .. }), "{error:?}");
    assert_eq!(relations(&url).await, made);
    assert_rows_kept(&client, &kept).await;
    assert_eq!(upgrade(&url, FURTHER).await.unwrap(), [FURTHER.version]);
    assert_rows_kept(&client, &kept).await;
}

#[tokio::test]
async fn a_database_of_a_later_version_is_refused_and_says_so() {
    let server = TestPostgres::shared().unwrap();
    let (url, client) = filled(&server).await;
    upgrade(&url, FURTHER).await.unwrap();
    let made = relations(&url).await;
    let error = migrate(&settings(&url)).await.unwrap_err();
    let MigrateError::Diverged(Entry { version: 1001, state: State::Unknown, .. }) = &error else {
        panic!("{error:?}")
    };
    assert!(error.to_string().starts_with("V1001 further: applied by a later version of jetcopy"), "{error}");
    assert_eq!(relations(&url).await, made);
    drop(client);
}

/// Before its first release jetcopy had many migrations of other names.
#[tokio::test]
async fn a_database_of_the_numbering_that_was_never_released_is_refused_as_such() {
    let server = TestPostgres::shared().unwrap();
    let (url, client) = filled(&server).await;
    client
        .batch_execute(
            "UPDATE jetcopy.schema_history SET checksum = 'other';
             UPDATE jetcopy.schema_history SET name = 'frame_metadata' WHERE version = 2;
             INSERT INTO jetcopy.schema_history (version, name, checksum) VALUES (50, 'raw_letters', 'x')",
        )
        .await
        .unwrap();
    let (made, kept) = (relations(&url).await, rows(&client).await);
    let error = migrate(&settings(&url)).await.unwrap_err();
    assert!(matches!(&error, MigrateError::Unreleased(entry) if entry.version == 1), "{error:?}");
    let text = error.to_string();
    for said in
        ["never released", "keep that version", "pg_dump", "docs/operations.md", "nothing was changed"]
    {
        assert!(text.contains(said), "{text}");
    }
    assert_eq!(relations(&url).await, made);
    assert_rows_kept(&client, &kept).await;
    let listed = status(&settings(&url)).await.unwrap();
    assert!(listed.iter().all(|entry| entry.state == State::Unreleased), "{listed:?}");
    let newest = listed.last().unwrap().to_string();
    assert_eq!(
        newest,
        "V50 raw_letters: applied by a development version of jetcopy that was never released"
    );
}

/// As beside a schema `jetcopy` that was dropped: TimescaleDB's jobs have a retention, or nobody has.
#[tokio::test]
async fn tables_whose_life_was_never_written_down_keep_their_rows_until_a_retention_is_named() {
    for server in servers() {
        let (url, client) = filled(&server).await;
        client.batch_execute("DELETE FROM jetcopy.store_life").await.unwrap();
        if server.has_timescaledb() {
            let policy = "SELECT add_retention_policy('frame_metadata', interval '9 days')";
            client.batch_execute(policy).await.unwrap();
        }
        let report = migrate(&settings(&url)).await.unwrap();
        assert_eq!(report.lives, [] as [String; 0]);
        let lines = life::apply(&settings(&url), &Lives::default(), false).await.unwrap();
        let kept = life::kept(&client).await.unwrap();
        let [frames, detections] = [0, 1].map(|n| kept.table(&crate::catalog::TABLES[n]).retention);
        let nine_days = After::Age(Duration::from_hours(24 * 9));
        assert_eq!(frames, if server.has_timescaledb() { nine_days } else { After::Never });
        assert_eq!(detections, After::Never);
        let said = "detection_events: it existed before, so its rows are kept";
        assert!(lines.iter().any(|line| line.starts_with(said)), "{lines:?}");
        assert_eq!(life::apply(&settings(&url), &Lives::default(), false).await.unwrap(), [] as [String; 0]);
    }
}

/// Has whoever migrates wait within a migration, after its first change, for a lock that this session holds.
fn hold(version: i32) -> String {
    format!(
        "CREATE SCHEMA held;
         CREATE FUNCTION held.wait() RETURNS event_trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF to_regclass('jetcopy.checkpoints') IS NULL THEN
                 RETURN;
             END IF;
             IF (SELECT coalesce(max(version), 0) FROM jetcopy.schema_history) = {} THEN
                 PERFORM pg_advisory_xact_lock(1);
             END IF;
         END $$;
         CREATE EVENT TRIGGER held_wait ON ddl_command_end EXECUTE FUNCTION held.wait();
         SELECT pg_advisory_lock(1)",
        before(version)
    )
}

const RELEASE: &str = "DROP EVENT TRIGGER held_wait; DROP SCHEMA held CASCADE; SELECT pg_advisory_unlock(1)";

/// Aborts the migration of that number in the middle, by the end of its backend.
async fn abort(url: &str, client: &Client, version: i32) {
    client.batch_execute(&hold(version)).await.unwrap();
    let run = upgrade(url, FURTHER);
    let kill = async {
        // In a transaction that holds a lock, the list of sessions does not change.
        let watch = connect(url).await.unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        while watch.query_one(END_WHO_WAITS, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            assert!(tokio::time::Instant::now() < deadline, "version {version} is never in the middle");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (outcome, ()) = tokio::join!(run, kill);
    let error = outcome.unwrap_err();
    assert!(matches!(error, MigrateError::Migration { version: at, .. } if at == version), "{error:?}");
    client.batch_execute(RELEASE).await.unwrap();
}

#[tokio::test]
async fn after_an_abort_in_the_middle_of_each_migration_nothing_has_changed_and_the_next_run_succeeds() {
    for server in servers() {
        let fresh = fresh(&server).await;
        for version in and(FURTHER).iter().map(|migration| migration.version) {
            let (url, client) = if version == FURTHER.version {
                filled(&server).await
            } else {
                let url = server.create_database().await.unwrap();
                let client = connect(&url).await.unwrap();
                (url, client)
            };
            let is_empty = relations(&url).await.is_empty();
            let kept = if is_empty { Vec::new() } else { rows(&client).await };
            let made = relations(&url).await;
            abort(&url, &client, version).await;
            assert_eq!(relations(&url).await, made, "version {version}");

            upgrade(&url, FURTHER).await.unwrap();
            let found = schema(&url, server.has_timescaledb()).await;
            assert_same(&found, &fresh, &format!("after an abort of version {version}"));
            assert_rows_kept(&client, &kept).await;
        }
    }
}
