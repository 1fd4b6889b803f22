//! What TimescaleDB is brought to, and what it then does; each test needs a server with TimescaleDB.

use std::collections::BTreeSet;

use super::*;
use crate::catalog;
use crate::migrate::migrate;
use crate::testbed::{PostgresOptions, TestPostgres, connect as connect_to, stop_jobs};

mod sums;

/// A migrated database on a server with TimescaleDB, or `None`, said aloud, where there is none.
async fn database(server: &TestPostgres) -> Option<String> {
    if server.lacks_timescaledb() {
        return None;
    }
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    Some(url)
}

fn settings(url: &str) -> config::Postgres {
    config::Postgres { url: url.to_owned(), ..config::Postgres::default() }
}

/// `[store]` with these lines in it.
fn store(lines: &str) -> config::Store {
    toml(&format!("[store]\n{lines}"))
}

fn toml(text: &str) -> config::Store {
    use figment::providers::{Format as _, Toml};
    figment::Figment::from(Toml::string(text)).extract::<config::Config>().unwrap().store
}

async fn lines(url: &str, store: &config::Store) -> Vec<Line> {
    life::apply(&settings(url), &store.named, true).await.unwrap();
    match apply(&settings(url)).await.unwrap() {
        Applied::Done(lines) => lines,
        other => panic!("{other:?}"),
    }
}

/// The lines about a relation.
fn about<'l>(lines: &'l [Line], relation: &str) -> Vec<&'l Change> {
    lines.iter().filter(|line| line.relation == relation).map(|line| &line.change).collect()
}

/// Every job of the store: what it is of, its procedure, its configuration and how often it runs.
async fn jobs(url: &str) -> BTreeSet<(String, String, String, String)> {
    let client = connect_to(url).await.unwrap();
    let sql = "SELECT hypertable_name::text, proc_name::text, \
                 (config - 'hypertable_id' - 'mat_hypertable_id')::text, \
               schedule_interval::text FROM timescaledb_information.jobs WHERE hypertable_name IS NOT NULL";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

/// Runs the job of a relation, as the scheduler would.
async fn run_job(client: &Client, relation: &str, procedure: &str) {
    let sql = "SELECT job_id FROM timescaledb_information.jobs WHERE hypertable_name = $1 AND proc_name = $2";
    let job: i32 = client.query_one(sql, &[&relation, &procedure]).await.unwrap().get(0);
    client.batch_execute(&format!("CALL run_job({job})")).await.unwrap();
}

#[tokio::test]
async fn every_table_and_roll_up_gets_its_policies_with_the_intervals_of_the_catalog() {
    let server = TestPostgres::shared().unwrap();
    let Some(url) = database(&server).await else { return };
    let lines = lines(&url, &config::Store::default()).await;
    assert!(!lines.iter().any(|line| matches!(line.change, Change::Left(_))), "{lines:?}");

    let days = |age: Duration| match age.as_secs() / 86_400 {
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    let job =
        |relation: &str, procedure: &str, config: String| (relation.to_owned(), procedure.to_owned(), config);
    let mut expected = BTreeSet::new();
    for table in &TABLES {
        let TableLife { compress_after, retention, .. } = table.life;
        expected.extend(compress_after.age().map(|age| {
            job(table.name, "policy_compression", format!("{{\"compress_after\": \"{}\"}}", days(age)))
        }));
        expected.extend(retention.age().map(|age| {
            job(table.name, "policy_retention", format!("{{\"drop_after\": \"{}\"}}", days(age)))
        }));
    }
    for rollup in &ROLLUPS {
        let RollupLife { refresh, retention } = rollup.life;
        let (window, lag) = (days(refresh.window), refresh.lag.as_secs() / 60);
        expected.insert(job(
            rollup.name,
            "policy_refresh_continuous_aggregate",
            format!("{{\"end_offset\": \"00:{lag:02}:00\", \"start_offset\": \"{window}\"}}"),
        ));
        expected.extend(retention.age().map(|age| {
            job(rollup.name, "policy_retention", format!("{{\"drop_after\": \"{}\"}}", days(age)))
        }));
    }
    let found: BTreeSet<_> =
        jobs(&url).await.into_iter().map(|(of, procedure, config, _)| (of, procedure, config)).collect();
    assert_eq!(found, expected);

    let client = connect_to(&url).await.unwrap();
    for table in &TABLES {
        let row =
            client.query_one(LOOK_AT_TABLE, &[&table.name, &table.time, &Vec::<&str>::new()]).await.unwrap();
        let found = Table::read(&row).unwrap();
        assert_eq!(found.chunk_interval, Some(table.life.chunk_interval), "{}", table.name);
        assert_eq!(found.segment_by.unwrap_or_default(), table.segment_by.join(", "), "{}", table.name);
    }
}

#[tokio::test]
async fn a_second_run_changes_nothing() {
    let server = TestPostgres::shared().unwrap();
    let Some(url) = database(&server).await else { return };
    let defaults = config::Store::default();
    let first = lines(&url, &defaults).await;
    assert!(first.iter().any(|line| matches!(line.change, Change::Set(_))), "{first:?}");
    let before = jobs(&url).await;
    let second = lines(&url, &defaults).await;
    assert!(second.iter().all(|line| matches!(line.change, Change::Unchanged(_))), "{second:?}");
    assert_eq!(jobs(&url).await, before);
}

/// A job that goes by the end of its last run is put off further with each run that counts as failed.
#[tokio::test]
async fn every_job_runs_at_fixed_times_and_so_does_one_of_an_earlier_version_from_the_next_run_on() {
    let server = TestPostgres::shared().unwrap();
    let Some(url) = database(&server).await else { return };
    let defaults = config::Store::default();
    lines(&url, &defaults).await;
    let client = connect_to(&url).await.unwrap();
    let drifting =
        "SELECT count(*) FROM timescaledb_information.jobs WHERE job_id >= 1000 AND NOT fixed_schedule";
    assert_eq!(client.query_one(drifting, &[]).await.unwrap().get::<_, i64>(0), 0);
    client
        .batch_execute(
            "SELECT remove_continuous_aggregate_policy('frame_stats_1m'),
                remove_retention_policy('frame_metadata');
             SELECT add_continuous_aggregate_policy('frame_stats_1m', '2 days', '1 minute', '1 minute'),
                 add_retention_policy('frame_metadata', interval '7 days')",
        )
        .await
        .unwrap();
    assert_eq!(client.query_one(drifting, &[]).await.unwrap().get::<_, i64>(0), 2);
    let lines = lines(&url, &defaults).await;
    let altered: Vec<_> = lines
        .iter()
        .filter(|line| matches!(line.change, Change::Altered { .. }))
        .map(ToString::to_string)
        .collect();
    assert!(altered.iter().any(|line| line.starts_with(
        "frame_stats_1m: policy_refresh_continuous_aggregate \
                                                        runs at fixed"
    )));
    assert!(
        altered.iter().any(|line| line.starts_with("frame_metadata: policy_retention runs at fixed")),
        "{altered:?}"
    );
    assert_eq!(client.query_one(drifting, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn changed_settings_alter_the_jobs_and_never_removes_them() {
    let server = TestPostgres::shared().unwrap();
    let Some(url) = database(&server).await else { return };
    lines(&url, &config::Store::default()).await;
    let changed = store(
        "frame_metadata = { chunk_interval = \"6h\", compress_after = \"36h\", retention = \"10d\" }\n\
         detection_events = { compress_after = \"never\", retention = \"never\" }\n\
         frame_stats_1m = { refresh = { every = \"5m\", window = \"8d\", lag = \"2m\" } }",
    );
    let lines = lines(&url, &changed).await;
    let altered = |to: &str, from: &str| Change::Altered { from: from.into(), to: to.into() };
    assert_eq!(
        about(&lines, "frame_metadata"),
        [
            &altered("chunks of 6h", "1d"),
            &Change::Unchanged("compressed by camera_id".into()),
            &altered("compressed after 36h", "1d"),
            &altered("dropped after 10d", "7d"),
        ]
    );
    assert_eq!(
        about(&lines, "detection_events")[1..],
        [&Change::Removed("compressed after 1d".into()), &Change::Removed("dropped after 7d".into())]
    );
    assert_eq!(
        about(&lines, "frame_stats_1m")[0],
        &altered("refreshed every 5m, from 8d to 2m ago", "refreshed every 1m, from 6d to 1m ago")
    );
    let jobs = jobs(&url).await;
    let of = |relation: &str| -> Vec<(&str, &str, &str)> {
        let jobs = jobs.iter().filter(|job| job.0 == relation);
        jobs.map(|job| (job.1.as_str(), job.2.as_str(), job.3.as_str())).collect()
    };
    assert_eq!(
        of("frame_metadata"),
        [
            ("policy_compression", "{\"compress_after\": \"36:00:00\"}", "12:00:00"),
            ("policy_retention", "{\"drop_after\": \"10 days\"}", "1 day"),
        ]
    );
    assert_eq!(of("detection_events"), []);
    assert_eq!(
        of("frame_stats_1m")[0],
        (
            "policy_refresh_continuous_aggregate",
            "{\"end_offset\": \"00:02:00\", \"start_offset\": \"8 days\"}",
            "00:05:00"
        )
    );
}

#[tokio::test]
async fn another_chunk_interval_holds_for_new_chunks() {
    let server = TestPostgres::shared().unwrap();
    let Some(url) = database(&server).await else { return };
    let client = connect_to(&url).await.unwrap();
    let insert = |time: &str| {
        format!("INSERT INTO frame_metadata (time, camera_id, frame_id) VALUES ('{time}', 'a', 1)")
    };
    client.batch_execute(&insert("2026-01-01 12:00Z")).await.unwrap();
    lines(&url, &store("frame_metadata = { chunk_interval = \"6h\", retention = \"never\" }")).await;
    client.batch_execute(&insert("2026-01-03 12:00Z")).await.unwrap();
    let sql = "SELECT (range_end - range_start)::text FROM timescaledb_information.chunks
               WHERE hypertable_name = 'frame_metadata' ORDER BY range_start";
    let widths: Vec<String> = client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(widths, ["1 day", "06:00:00"]);
}

#[tokio::test]
async fn what_is_not_the_stores_own_is_left_with_a_reason() {
    let Some(server) = TestPostgres::shared_timescaledb().unwrap() else { return };
    let url = server.create_database().await.unwrap();
    let client = connect_to(&url).await.unwrap();
    client
        .batch_execute(
            "CREATE EXTENSION timescaledb;
             CREATE TABLE frame_metadata (time timestamptz NOT NULL, camera_id text);
             CREATE TABLE detection_events (time timestamptz NOT NULL, camera text);
             SELECT create_hypertable('detection_events', 'time')",
        )
        .await
        .unwrap();
    migrate(&settings(&url)).await.unwrap();
    let lines = lines(&url, &config::Store::default()).await;
    let left = |text: &str| Change::Left(text.into());
    for (relation, why) in [
        ("frame_metadata", "it is not a hypertable, so nothing compresses it or drops its rows"),
        ("detection_events", "it was not created by jetcopy: it has no column camera_id"),
        ("frame_stats_1m", "there is no such roll-up"),
        ("detection_stats_1d", "there is no such roll-up"),
    ] {
        assert_eq!(about(&lines, relation), [&left(why)], "{relation}");
    }
    assert!(!jobs(&url).await.iter().any(|job| job.0 == "frame_metadata" || job.0 == "detection_events"));
}

#[tokio::test]
async fn settings_and_policies_that_somebody_chose_are_left() {
    let server = TestPostgres::shared().unwrap();
    let Some(url) = database(&server).await else { return };
    let client = connect_to(&url).await.unwrap();
    client
        .batch_execute(
            "ALTER TABLE frame_metadata SET (timescaledb.compress, timescaledb.compress_segmentby = 'codec');
             SELECT add_retention_policy('frame_metadata', drop_created_before => interval '9 days')",
        )
        .await
        .unwrap();
    let lines = lines(&url, &config::Store::default()).await;
    assert_eq!(
        about(&lines, "frame_metadata")[1..],
        [
            &Change::Left("it is configured to compress by codec, not by camera_id".into()),
            &Change::Set("compressed after 1d".into()),
            &Change::Left("a custom policy, without drop_after".into()),
        ]
    );
}

#[tokio::test]
async fn what_an_earlier_version_chose_is_changed_for_chunks_to_come_and_compressed_ones_stay_readable() {
    let server = TestPostgres::shared().unwrap();
    let Some(url) = database(&server).await else { return };
    let client = connect_to(&url).await.unwrap();
    client
        .batch_execute(
            "ALTER TABLE detection_events SET (timescaledb.compress,
                timescaledb.compress_segmentby = 'camera_id, label',
                timescaledb.compress_orderby = 'time DESC');
             INSERT INTO detection_events (time, camera_id, frame_id, label)
                SELECT now() - n * interval '1 hour', 'a', n, 'car' FROM generate_series(48, 72) n;
             SELECT compress_chunk(c) FROM show_chunks('detection_events') c",
        )
        .await
        .unwrap();
    let defaults = config::Store::default();
    let first = lines(&url, &defaults).await;
    let (from, to) = ("camera_id, label".to_owned(), "compressed by camera_id".to_owned());
    assert!(
        about(&first, "detection_events").contains(&&Change::Altered { from, to: to.clone() }),
        "{first:?}"
    );
    assert!(about(&lines(&url, &defaults).await, "detection_events").contains(&&Change::Unchanged(to)));

    client
        .batch_execute(
            "INSERT INTO detection_events (time, camera_id, frame_id, label)
                SELECT now() - n * interval '1 hour', 'a', n, 'dog' FROM generate_series(240, 250) n;
             SELECT compress_chunk(c, if_not_compressed => true) FROM show_chunks('detection_events') c",
        )
        .await
        .unwrap();
    let sql = "SELECT count(*) FROM jetcopy.detections(labelled => $1, since => '-infinity')";
    for (label, expected) in [("car", 25), ("dog", 11)] {
        assert_eq!(client.query_one(sql, &[&label]).await.unwrap().get::<_, i64>(0), expected, "{label}");
    }
}

#[tokio::test]
async fn the_owner_of_the_tables_needs_no_more_rights_and_others_tables_are_left() {
    let Some(server) = TestPostgres::shared_timescaledb().unwrap() else { return };
    let url = server.create_database().await.unwrap();
    let client = connect_to(&url).await.unwrap();
    client
        .batch_execute(&format!(
            "CREATE EXTENSION timescaledb; CREATE ROLE store_owner LOGIN; CREATE ROLE store_reader LOGIN;
             CREATE SCHEMA metadata AUTHORIZATION store_owner; GRANT CREATE ON DATABASE {} TO store_owner;
             ALTER ROLE store_owner SET search_path = metadata, public; ALTER ROLE store_reader
                 SET search_path = metadata;
             GRANT USAGE ON SCHEMA metadata TO store_reader",
            url.rsplit('/').next().unwrap()
        ))
        .await
        .unwrap();
    let owner = url.replace("postgres@", "store_owner@");
    migrate(&settings(&owner)).await.unwrap();
    let by_owner = lines(&owner, &config::Store::default()).await;
    assert!(!by_owner.iter().any(|line| matches!(line.change, Change::Left(_))), "{by_owner:?}");
    let altered = lines(&owner, &store("frame_metadata.retention = \"9d\"")).await;
    assert_eq!(
        about(&altered, "frame_metadata")[3],
        &Change::Altered { from: "7d".into(), to: "dropped after 9d".into() }
    );

    client.batch_execute("GRANT USAGE ON SCHEMA jetcopy TO store_reader").await.unwrap();
    let by_reader = lines(&url.replace("postgres@", "store_reader@"), &config::Store::default()).await;
    assert!(
        by_reader.iter().all(|line| line.change == Change::Left("it belongs to another role".into())),
        "{by_reader:?}"
    );
}

#[tokio::test]
async fn a_server_under_the_apache_licence_is_told_apart_and_migrates() {
    let settings = vec![("timescaledb.license".to_owned(), "apache".to_owned())];
    let server = TestPostgres::start(&PostgresOptions { settings, ..PostgresOptions::default() }).unwrap();
    let Some(url) = database(&server).await else { return };
    let applied = apply(&super::tests::settings(&url)).await.unwrap();
    assert_eq!(applied, Applied::Unlicensed);
}

#[tokio::test]
async fn without_timescaledb_there_is_nothing_to_apply() {
    let options = PostgresOptions::plain();
    let server = TestPostgres::start(&options).unwrap();
    migrate(&settings(&server.url())).await.unwrap();
    let applied = apply(&settings(&server.url())).await.unwrap();
    assert_eq!(applied, Applied::Absent);
}
