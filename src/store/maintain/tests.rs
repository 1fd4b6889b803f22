//! Maintenance without TimescaleDB: partitions, roll-ups and retention, compared with the rows.

use super::*;
use crate::catalog::Bucket;
use crate::config::Store;
use crate::migrate::migrate;
use crate::testbed::{TestPostgres, connect};

/// A migrated database; its server ends with it.
struct World {
    settings: config::Postgres,
    client: Client,
    _server: Arc<TestPostgres>,
}

impl World {
    async fn on(server: Arc<TestPostgres>) -> Self {
        let url = server.create_database().await.unwrap();
        let settings = config::Postgres { url: url.clone(), ..config::Postgres::default() };
        migrate(&settings).await.unwrap();
        Self { settings, client: connect(&url).await.unwrap(), _server: server }
    }

    async fn plain() -> Self {
        Self::on(TestPostgres::shared_plain().unwrap()).await
    }

    async fn maintain(&self, store: &str) -> Maintained {
        let store = settings(store);
        life::apply(&self.settings, &store.named, true).await.unwrap();
        let report = maintain(&self.settings, &store, true).await.unwrap();
        assert_ne!(report.outcome, Outcome::Failed, "{report:#?}");
        report
    }

    async fn sql(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn text(&self, sql: &str) -> String {
        self.client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    /// Partitions for rows of so many days back.
    async fn days_back(&self, days: i32) {
        for table in ["frame_metadata", "detection_events", "measurements"] {
            self.sql(&format!(
                "SELECT jetcopy.add_partitions('{table}', ARRAY(SELECT (now() AT TIME ZONE 'UTC')::date - n \
                   FROM generate_series(0, {days}) n))"
            ))
            .await;
        }
    }

    /// Compares every roll-up with its sums over the raw rows, for buckets from `days` back to an hour back;
    /// how many buckets that were.
    async fn equal_to_raw(&self, days: i32) -> i64 {
        let mut buckets = 0;
        for rollup in &ROLLUPS {
            let table = rollup.table();
            let unit = match rollup.bucket {
                Bucket::Minute => "minute",
                Bucket::Hour => "hour",
                Bucket::Day => "day",
            };
            let keys = rollup.keys.join(", ");
            let (names, raw): (Vec<_>, Vec<_>) = rollup
                .aggregates
                .iter()
                .map(|aggregate| {
                    // Sums of floats depend on the order of summing.
                    let round = |value: &str| match aggregate.sql_type {
                        "double precision" => format!("round(({value})::numeric, 6)"),
                        _ => value.to_owned(),
                    };
                    (round(aggregate.column), round(aggregate.of_rows))
                })
                .unzip();
            let span = |time: &str| {
                format!(
                    "{time} >= date_trunc('day', now() - interval '{days} days', 'UTC') AND {time} < \
                     date_trunc('{unit}', now() - interval '1 hour', 'UTC')"
                )
            };
            let sql = format!(
                "WITH kept AS (SELECT bucket, {keys}, {} FROM {} WHERE {}),
                 raw AS (SELECT date_trunc('{unit}', {time}, 'UTC'), {keys}, {} FROM {} WHERE {} GROUP BY 1,
                     {keys})
                 SELECT (SELECT count(*) FROM (TABLE kept EXCEPT ALL TABLE raw) a),
                     (SELECT count(*) FROM (TABLE raw EXCEPT ALL TABLE kept) b),
                     (SELECT count(*) FROM kept)",
                names.join(", "),
                rollup.name,
                span("bucket"),
                raw.join(", "),
                table.name,
                span(table.time),
                time = table.time,
            );
            let row =
                self.client.query_one(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            let (wrong, missing): (i64, i64) = (row.get(0), row.get(1));
            assert_eq!((wrong, missing), (0, 0), "{}: buckets that are wrong, and missing", rollup.name);
            buckets += row.get::<_, i64>(2);
        }
        buckets
    }
}

/// `[store]` out of TOML lines.
fn settings(lines: &str) -> Store {
    use figment::providers::Format as _;
    figment::Figment::from(figment::providers::Toml::string(lines)).extract().unwrap()
}

/// Rows of all three tables, evenly over `hours` back from now, some values NULL.
const ROWS: &str = "
    INSERT INTO frame_metadata (time, camera_id, frame_id, key_frame, size_bytes, processing_ms, brightness,
        motion)
    SELECT now() - n * interval '7 minutes', 'cam-' || n % 3, n, CASE n % 5 WHEN 0 THEN true WHEN 1 THEN NULL
        ELSE false END,
        1000 + n, CASE WHEN n % 4 > 0 THEN n / 7.0 END, n % 10 / 10.0, NULL FROM generate_series(1, 700) n;
    INSERT INTO detection_events (time, camera_id, frame_id, label, confidence)
    SELECT now() - n * interval '7 minutes', 'cam-' || n % 3, n, CASE WHEN n % 6 > 0 THEN 'label-' || n % 4
        END,
        CASE WHEN n % 5 > 0 THEN n % 100 / 100.0 END FROM generate_series(1, 700) n;
    INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz, snr_db, frequency_offset_hz)
    SELECT now() - n * interval '7 minutes', 't', 'sdr-' || n % 3, 145.5, CASE WHEN n % 4 > 0 THEN n % 30 END,
        n % 50 - 25
    FROM generate_series(1, 700) n";

#[tokio::test]
async fn roll_ups_equal_sums_over_the_raw_rows_after_one_run_and_stay_so_after_another() {
    let world = World::plain().await;
    world.days_back(5).await;
    world.sql(ROWS).await;
    world.maintain("").await;
    assert!(world.equal_to_raw(3).await > 1_000);
    let sizes =
        "SELECT (SELECT count(*) FROM frame_stats_1m) || ' ' || (SELECT count(*) FROM detection_stats_1h)";
    let before = world.text(sizes).await;
    world.maintain("").await;
    world.equal_to_raw(3).await;
    assert_eq!(world.text(sizes).await, before);
}

#[tokio::test]
async fn late_rows_are_taken_in_within_the_window_and_left_out_beyond_it() {
    let world = World::plain().await;
    world.days_back(7).await;
    world.sql(ROWS).await;
    world.maintain("").await;
    // At the very end of a bucket, which may be told by any time within it.
    let late = |hours: i32| {
        let time =
            format!("date_trunc('minute', now()) - interval '{hours} hours' + interval '59.75 seconds'");
        format!(
            "INSERT INTO frame_metadata (time, camera_id, frame_id) VALUES ({time}, 'late-{hours}', 1);
             SELECT jetcopy.touch('frame_stats_1m', ARRAY[{time}])"
        )
    };
    world.sql(&late(50)).await;
    world.sql(&late(160)).await;
    world
        .sql(
            "SELECT jetcopy.touch('frame_stats_1m', ARRAY['-infinity', 'infinity', '2000-01-01', \
                 '2999-01-01']::timestamptz[])",
        )
        .await;
    let report = world.maintain("").await;
    let line = report.lines.iter().find(|line| line.name == "frame_stats_1m").unwrap();
    assert!(line.text.contains("1 spans corrected"), "{line:?}");
    world.equal_to_raw(3).await;
    for table in ["frame_stats_1m", "frame_stats_1h", "frame_stats_1d"] {
        let sql = format!(
            "SELECT coalesce(string_agg(camera_id, ' '), '') FROM {table} WHERE camera_id LIKE 'late%'"
        );
        assert_eq!(world.text(&sql).await, "late-50", "{table}");
    }
    assert_eq!(world.text("SELECT count(*)::text FROM jetcopy.touched_buckets").await, "0");
}

#[tokio::test]
async fn retention_drops_whole_old_days_and_no_roll_up_with_them() {
    let world = World::plain().await;
    world.days_back(5).await;
    world.sql(ROWS).await;
    world.maintain("").await;
    let sums = "SELECT concat_ws(' ', (SELECT sum(frames) FROM frame_stats_1m),
        (SELECT sum(frames) FROM frame_stats_1h),
        (SELECT sum(frames) FROM frame_stats_1d))";
    let before = world.text(sums).await;
    let short = "[frame_metadata]\nretention = \"2d\"\n[frame_stats_1m]\nrefresh = { window = \"36h\" }";
    let report = world.maintain(short).await;
    let line = report.lines.iter().find(|line| line.name == "frame_metadata").unwrap();
    assert_eq!((line.kind, line.text.as_str()), (Kind::Changed, "3 partitions dropped, older than 2d"));
    let oldest = "SELECT (min(starts) >= date_trunc('day', now() - interval '2 days', 'UTC'))::text || \
                    count(*) FROM jetcopy.partitions('frame_metadata')";
    assert_eq!(world.text(oldest).await, "true6");
    assert_eq!(world.text("SELECT count(*)::text FROM pg_class WHERE relname LIKE '%dropped%'").await, "0");
    assert_eq!(world.text("SELECT (count(*) > 0)::text FROM frame_metadata").await, "true");

    // A late row of a day that is gone comes in, is dropped again, and changes no roll-up even where the
    // window is wider.
    world.days_back(4).await;
    world
        .sql(
            "INSERT INTO frame_metadata (time, camera_id, frame_id)
            VALUES (now() - interval '80 hours', 'late', 1);
              SELECT jetcopy.touch('frame_stats_1m', ARRAY[now() - interval '80 hours'])",
        )
        .await;
    world
        .maintain("[frame_metadata]\nretention = \"7d\"\n[frame_stats_1m]\nrefresh = { window = \"6d\" }")
        .await;
    assert_eq!(world.text(sums).await, before);
    world.maintain(short).await;
    assert_eq!(world.text("SELECT count(*)::text FROM frame_metadata WHERE camera_id = 'late'").await, "0");
}

#[tokio::test]
async fn old_buckets_of_a_roll_up_go_and_coarser_ones_stay() {
    let world = World::plain().await;
    world.days_back(5).await;
    world.sql(ROWS).await;
    world.maintain("").await;
    let frames = "SELECT sum(frames)::text FROM frame_stats_1h";
    let before = world.text(frames).await;
    world
        .maintain(
            "[frame_stats_1m]\nretention = \"1d\"\nrefresh = { window = \"1d\" \
                    }\n[frame_stats_1h]\nrefresh = { window = \"20h\" }",
        )
        .await;
    let old = "SELECT count(*)::text FROM frame_stats_1m WHERE bucket < now() - interval '1 day'";
    assert_eq!(world.text(old).await, "0");
    assert_eq!(world.text(frames).await, before);
}

#[tokio::test]
async fn partitions_ahead_are_added_and_what_was_interrupted_is_finished() {
    let world = World::plain().await;
    let ahead = "SELECT string_agg(((starts AT TIME ZONE 'UTC')::date - current_date)::text, ' ') \
                   FROM jetcopy.partitions('frame_metadata')";
    world.sql("SET timezone = 'UTC'").await;
    assert_eq!(world.text(ahead).await, "0 1 2 3");
    let last = world
        .text("SELECT partition::text FROM jetcopy.partitions('frame_metadata') ORDER BY starts DESC LIMIT 1")
        .await;
    world.sql(&format!("DROP TABLE {last}")).await;
    world.days_back(10).await;
    // One renamed, one detached: as a run that was killed leaves them.
    let old = |n: i32| {
        format!(
            "SELECT partition::text FROM jetcopy.partitions('frame_metadata') \
               ORDER BY starts OFFSET {n} LIMIT 1"
        )
    };
    let (one, other) = (world.text(&old(0)).await, world.text(&old(1)).await);
    world.sql(&format!("ALTER TABLE {one} RENAME TO {one}_dropped")).await;
    world
        .sql(&format!(
            "ALTER TABLE {other} RENAME TO {other}_dropped; ALTER TABLE frame_metadata DETACH \
                          PARTITION {other}_dropped"
        ))
        .await;
    world.maintain("").await;
    assert_eq!(world.text(ahead).await, "-7 -6 -5 -4 -3 -2 -1 0 1 2 3");
    assert_eq!(world.text("SELECT count(*)::text FROM pg_class WHERE relname LIKE '%dropped%'").await, "0");
}

#[tokio::test]
async fn a_reader_of_the_table_holds_a_run_up_for_the_time_promised_and_the_next_run_goes_on() {
    let world = World::plain().await;
    world.days_back(5).await;
    // Of another day than those that go, so that nothing but the table itself is in use.
    let reader = connect(&world.settings.url).await.unwrap();
    let today = world.text("SELECT (now() AT TIME ZONE 'UTC')::date::text").await;
    let read = format!("SELECT count(*) FROM frame_metadata WHERE time >= timestamptz '{today} 00:00Z'");
    reader.batch_execute(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {read}")).await.unwrap();
    let session = crate::postgres::connect::connect(&world.settings, "test").await.unwrap();
    let tables = partitions::tables(&session.client).await.unwrap();
    let frames = tables.iter().find(|table| table.name == "frame_metadata").unwrap();
    let age = Duration::from_hours(48);
    let drop = async |patience| partitions::drop_expired(&session, frames, age, patience).await;
    // Once it is detached concurrently, once it is gone on with.
    for _ in 0..2 {
        let error = tokio::time::timeout(Duration::from_secs(30), drop(Duration::from_millis(500))).await;
        let error = error.unwrap().unwrap_err();
        assert!(matches!(error, partitions::Error::InUse { .. }), "{error:?}");
        // The session is of use; once it has answered, the server is no longer at what was cancelled.
        session.client.batch_execute("SELECT").await.unwrap();
        let waiting = "SELECT count(*)::text FROM pg_stat_activity
            WHERE datname = current_database() AND query LIKE 'ALTER TABLE%' AND state = 'active'";
        assert_eq!(world.text(waiting).await, "0");
    }
    // Who writes to the table gets the partitions that they need meanwhile.
    world.sql("SET lock_timeout = '1s'").await;
    world
        .sql("SELECT jetcopy.add_partitions('frame_metadata', ARRAY[(now() AT TIME ZONE 'UTC')::date - 6])")
        .await;
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(drop(partitions::DETACH_PATIENCE).await.unwrap().len(), 4);
    let left = "SELECT count(*)::text FROM jetcopy.partitions('frame_metadata') \
                  WHERE ends <= now() - interval '2 days'";
    assert_eq!(world.text(left).await, "0");
    session.close().await;
}

#[tokio::test]
async fn of_two_runs_at_once_one_is_busy_and_says_so() {
    let world = World::plain().await;
    world.sql(&format!("BEGIN; {LOCK}")).await;
    assert_eq!(world.maintain("").await, Maintained { outcome: Outcome::Busy, lines: Vec::new() });
    world.sql("COMMIT").await;
    assert_eq!(world.maintain("").await.outcome, Outcome::Done);
}

#[tokio::test]
async fn a_step_that_fails_is_told_and_the_others_are_done() {
    let world = World::plain().await;
    world.days_back(5).await;
    world.sql(ROWS).await;
    world.sql("ALTER TABLE frame_stats_1m RENAME frames TO frame_count").await;
    let report = maintain(&world.settings, &Store::default(), true).await.unwrap();
    assert_eq!(report.outcome, Outcome::Failed);
    let failed: Vec<&str> =
        report.lines.iter().filter(|line| line.kind == Kind::Failed).map(|line| line.name.as_str()).collect();
    assert_eq!(failed, ["frame_stats_1m", "frame_stats_1h"], "{report:#?}");
    assert_eq!(world.text("SELECT (count(*) > 100)::text FROM detection_stats_1m").await, "true");
}

#[tokio::test]
async fn on_timescaledb_it_has_nothing_to_do_and_says_so() {
    let Some(server) = TestPostgres::shared_timescaledb().unwrap() else { return };
    let world = World::on(server).await;
    let report = world.maintain("").await;
    assert!(report.lines.len() >= 2);
    assert!(report.lines.iter().all(|line| line.text.contains("TimescaleDB's own jobs")), "{report:#?}");
}

/// Staged files: one that has expired, one that has not, one that was taken over in time.
const STAGED: &str = "INSERT INTO files (project_id, path, staged, expires_at, updated_at) VALUES
    ('p', 'past', true, now() - interval '1 minute', now() - interval '1 hour'),
    ('p', 'future', true, now() + interval '1 hour', now() - interval '1 hour'),
    ('p', 'taken', false, now() - interval '1 minute', now() - interval '1 hour')";

const FILES_NOW: &str =
    "SELECT string_agg(path || ' ' || status || (updated_at = expires_at), ', ' ORDER BY path) FROM files";

#[tokio::test]
async fn staged_files_expire_at_the_time_set_whether_tables_are_hypertables_or_not() {
    for server in [TestPostgres::shared().unwrap(), TestPostgres::shared_plain().unwrap()] {
        let world = World::on(server).await;
        world.sql(STAGED).await;
        let report = world.maintain("").await;
        let line = report.lines.iter().find(|line| line.name == FILES).unwrap();
        assert_eq!((line.kind, line.text.as_str()), (Kind::Changed, "1 staged files marked as expired"));
        assert_eq!(world.text(FILES_NOW).await, "future activefalse, past expiredtrue, taken activefalse");
        let report = world.maintain("").await;
        assert!(report.lines.iter().all(|line| line.name != FILES), "{report:#?}");
    }
}

#[tokio::test]
async fn a_role_that_may_not_change_files_is_told_and_nothing_fails() {
    let world = World::plain().await;
    world.sql(STAGED).await;
    world
        .sql(
            "CREATE ROLE maintain_reader LOGIN; GRANT USAGE ON SCHEMA jetcopy TO maintain_reader;
              GRANT SELECT ON ALL TABLES IN SCHEMA jetcopy, public TO maintain_reader;
              DELETE FROM jetcopy.partitioned_tables; DELETE FROM jetcopy.rollups",
        )
        .await;
    let settings = config::Postgres {
        url: world.settings.url.replace("postgres@", "maintain_reader@"),
        ..config::Postgres::default()
    };
    let report = maintain(&settings, &Store::default(), true).await.unwrap();
    let line = report.lines.iter().find(|line| line.name == FILES).unwrap();
    assert!(
        line.kind == Kind::Unchanged && line.text.contains("this role may not change them"),
        "{report:#?}"
    );
    assert_eq!(report.outcome, Outcome::Done, "{report:#?}");
    assert_eq!(world.text(FILES_NOW).await, "future activefalse, past activefalse, taken activefalse");
}

#[tokio::test]
async fn a_table_of_files_that_is_not_the_registrys_is_left_alone() {
    let world = World::plain().await;
    world
        .sql("DROP TABLE files; CREATE TABLE files (staged boolean, status text, expires_at timestamptz)")
        .await;
    world.sql("INSERT INTO files VALUES (true, 'active', now() - interval '1 day')").await;
    let report = world.maintain("").await;
    assert!(report.lines.iter().all(|line| line.name != FILES), "{report:#?}");
    assert_eq!(world.text("SELECT status FROM files").await, "active");
}

#[tokio::test]
async fn a_database_that_was_not_migrated_is_told_so() {
    let server = TestPostgres::shared_plain().unwrap();
    let url = server.create_database().await.unwrap();
    let settings = config::Postgres { url, ..config::Postgres::default() };
    let error = maintain(&settings, &Store::default(), true).await.unwrap_err();
    assert!(matches!(error, Error::NotMigrated), "{error:?}");
}
