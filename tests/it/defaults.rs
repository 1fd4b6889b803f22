//! Nothing of the store is deleted by a default: what was set once stays when `jetcopy migrate` and `jetcopy
//! maintain` run without the configuration that said it.

mod chosen;

use std::path::Path;

use jetcopy::testbed::{PostgresOptions, TestPostgres};

use crate::support::World;

/// Rows of forty days ago in two tables, each with its partition.
const OLD_ROWS: &str = "
    INSERT INTO detection_events (time, camera_id, frame_id) SELECT now() - interval '40 days', 'a', n \
        FROM generate_series(1, 100) n;
    INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz)
        SELECT now() - interval '40 days', 't', 'r', n FROM generate_series(1, 50) n";

const PARTITIONS: &str =
    "SELECT jetcopy.add_partition(t::regclass, ((now() - interval '40 days') AT TIME ZONE 'UTC')::date)
    FROM unnest('{detection_events,measurements}'::text[]) t";

const KEPT: &str =
    "[store.detection_events]\nretention = \"never\"\n[store.measurements]\nretention = \"90d\"\n";

/// All groups of tables.
const CHOSEN: &str = "[store]\ntables = [\"frames\", \"measurements\", \"series\", \"registry\"]\n";

const PIPELINE: &str =
    "[[pipeline]]\nname = \"frames\"\nstream = \"STREAM\"\n[[pipeline.table]]\nname = \"frame_metadata\"\n";

impl World {
    async fn old_rows(&self) {
        if !self.timescaledb().await {
            self.database.batch_execute(PARTITIONS).await.unwrap();
        }
        self.database.batch_execute(OLD_ROWS).await.unwrap();
    }

    async fn timescaledb(&self) -> bool {
        self.count("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'").await == 1
    }

    /// Does what drops rows: TimescaleDB's jobs, or `jetcopy maintain`.
    async fn drops(&self, config: &Path) {
        if self.timescaledb().await {
            let sql = "SELECT job_id FROM timescaledb_information.jobs
                WHERE proc_name = 'policy_retention' AND hypertable_name IN ('detection_events', \
                    'measurements')";
            for row in self.database.query(sql, &[]).await.unwrap() {
                let job: i32 = row.get(0);
                self.database.batch_execute(&format!("CALL run_job({job})")).await.unwrap();
            }
        }
        self.run(config, &["maintain"]).await.well();
    }

    async fn rows(&self) -> (i64, i64) {
        let count = async |table| self.count(&format!("SELECT count(*) FROM {table}")).await;
        (count("detection_events").await, count("measurements").await)
    }
}

/// On plain PostgreSQL, and on what the switch says.
async fn worlds() -> Vec<World> {
    let mut worlds = vec![World::plain().await];
    if TestPostgres::shared().unwrap().has_timescaledb() {
        worlds.push(World::new().await);
        worlds[1].stop_jobs().await;
    }
    worlds
}

/// Gives the world another database, on the same kind of server, that nothing was done to yet.
async fn unmigrated(world: &mut World) {
    let postgres = if world.timescaledb().await {
        TestPostgres::shared().unwrap()
    } else {
        TestPostgres::shared_plain().unwrap()
    };
    world.database_url = postgres.create_database().await.unwrap();
    world.database = jetcopy::testbed::connect(&world.database_url).await.unwrap();
}

#[tokio::test]
async fn a_retention_that_was_set_once_stays_when_migrate_and_maintain_run_without_the_file() {
    for world in worlds().await {
        let (named, bare) = (world.config_file("named.toml", KEPT), world.config_file("bare.toml", ""));
        world.old_rows().await;
        world.run(&named, &["migrate"]).await.well();
        world.drops(&named).await;
        assert_eq!(world.rows().await, (100, 50));
        let said = world.run(&bare, &["migrate"]).await.well();
        assert!(!said.contains("dropped after 7d") && !said.contains("retention"), "{said}");
        world.drops(&bare).await;
        assert_eq!(world.rows().await, (100, 50));
    }
}

#[tokio::test]
async fn a_shorter_retention_says_what_it_drops_and_is_only_set_with_yes() {
    for world in worlds().await {
        world.run(&world.config_file("named.toml", KEPT), &["migrate"]).await.well();
        world.old_rows().await;
        let names = "[store.detection_events]\nretention = \"39d\"\n[store.measurements]\nretention = \
                     \"50d\"\n[store.frame_metadata]\nretention = \"8d\"\n";
        let short = world.config_file("short.toml", names);
        let refused = world.run(&short, &["migrate"]).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        for line in [
            "store.detection_events.retention: 39d, now never: 100 rows would be dropped",
            "store.measurements.retention: 50d, now 90d: no rows would be dropped now",
            "`jetcopy migrate --yes`",
        ] {
            assert!(refused.err.contains(line), "{refused:?}");
        }
        assert!(!refused.err.contains("frame_metadata"), "{refused:?}");
        let checking = world.config_file("checking.toml", &format!("{names}{PIPELINE}"));
        let checked = world.run(&checking, &["check"]).await;
        assert!(checked.out.contains("retention is never, but the configuration says 39d"), "{checked:?}");
        let maintained = world.run(&short, &["maintain"]).await.well();
        assert!(maintained.contains("retention is never, but the configuration says 39d"), "{maintained}");
        world.drops(&short).await;
        assert_eq!(world.rows().await, (100, 50));

        let said = world.run(&short, &["migrate", "--yes"]).await.well();
        assert!(said.contains("100 rows would be dropped"), "{said}");
        assert!(said.contains("store.frame_metadata.retention: 8d, was 7d"), "{said}");
        world.drops(&short).await;
        assert_eq!(world.rows().await, (0, 50));
        let said = world.run(&short, &["migrate"]).await.well();
        assert!(!said.contains("retention"), "{said}");
    }
}

#[tokio::test]
async fn a_first_migration_says_which_rows_it_will_drop_and_follows_the_file_at_once() {
    for mut world in worlds().await {
        unmigrated(&mut world).await;
        let named = world.config_file("named.toml", &format!("{CHOSEN}{KEPT}"));
        let said = world.run(&named, &["migrate"]).await.well();
        for line in [
            "frame_metadata: rows are dropped after 7d (default)",
            "detection_events: rows are never dropped (from [store])",
            "measurements: rows are dropped after 90d (from [store])",
            "frame_stats_1m: rows are dropped after 30d (default)",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
    }
}

#[tokio::test]
async fn rows_of_tables_that_were_there_before_jetcopy_are_dropped_by_no_default() {
    for mut world in worlds().await {
        let timescaledb = world.timescaledb().await;
        unmigrated(&mut world).await;
        // Of the store's own shape, as far as its life goes.
        let table =
            "CREATE TABLE measurements (timestamp_utc timestamptz NOT NULL, task_id text, websdr_id text,
            frequency_mhz float8, snr_db float8, frequency_offset_hz float8)";
        world.database.batch_execute(table).await.unwrap();
        if timescaledb {
            let hypertable = "CREATE EXTENSION IF NOT EXISTS timescaledb;
                SELECT create_hypertable('measurements', 'timestamp_utc')";
            world.database.batch_execute(hypertable).await.unwrap();
            world.stop_jobs().await;
        }
        let bare = world.config_file("bare.toml", CHOSEN);
        let said = world.run(&bare, &["migrate"]).await.well();
        assert!(said.contains("measurements: it existed before, so its rows are kept"), "{said}");
        if !timescaledb {
            let partitioned = "SELECT jetcopy.time_table('measurements', 'timestamp_utc', '1 day')";
            world.database.batch_execute(partitioned).await.unwrap();
        }
        world.old_rows().await;
        world.run(&bare, &["migrate"]).await.well();
        world.drops(&bare).await;
        assert_eq!(world.rows().await.1, 50);
        // Somebody who copies the reference with its 30 days is asked.
        let named = world.config_file("named.toml", "[store.measurements]\nretention = \"30d\"\n");
        let refused = world.run(&named, &["migrate"]).await;
        assert!(refused.err.contains("30d, now never: 50 rows would be dropped"), "{refused:?}");
    }
}

#[tokio::test]
async fn a_policy_that_somebody_took_away_or_changed_by_hand_stays_so() {
    if TestPostgres::shared().unwrap().lacks_timescaledb() {
        return;
    }
    let world = worlds().await.pop().unwrap();
    let bare = world.config_file("bare.toml", "");
    world.run(&bare, &["migrate"]).await.well();
    let by_hand = "SELECT remove_retention_policy('detection_events');
        SELECT alter_job(job_id, config => jsonb_set(config, '{drop_after}', '\"100 days\"'))
        FROM timescaledb_information.jobs WHERE hypertable_name = 'measurements' \
            AND proc_name = 'policy_retention'";
    world.database.batch_execute(by_hand).await.unwrap();
    world.old_rows().await;
    world.run(&bare, &["migrate"]).await.well();
    world.drops(&bare).await;
    assert_eq!(world.rows().await, (100, 50));
    // A file that names it shortens what is in force.
    let named = world.config_file("named.toml", "[store.detection_events]\nretention = \"7d\"\n");
    let refused = world.run(&named, &["migrate"]).await;
    assert!(refused.err.contains("7d, now never: 100 rows would be dropped"), "{refused:?}");
}

#[tokio::test]
async fn the_other_settings_of_the_store_stay_without_the_file_too() {
    for world in worlds().await {
        let settings = "[store]\npartitions_back = \"1500d\"\n[store.frame_metadata]\nchunk_interval = \
                        \"6h\"\ncompress_after = \"3d\"\nretention = \
                        \"20d\"\n[store.frame_stats_1m]\nrefresh = { every = \"2m\", window = \"15d\" }\n";
        let (named, bare) = (world.config_file("named.toml", settings), world.config_file("bare.toml", ""));
        world.run(&named, &["migrate"]).await.well();
        let state = "SELECT count(*) FROM jetcopy.partition_bounds, jetcopy.store_life l
            WHERE days_back = 1500 AND days_ahead = 7 AND (relation, setting, age) IN (
                ('frame_metadata', 'chunk_interval', '6 hours'), ('frame_metadata', 'compress_after', \
                    '3 days'),
                ('frame_stats_1m', 'refresh.every', '2 minutes'), ('frame_stats_1m', 'refresh.window', \
                    '15 days'),
                ('frame_stats_1m', 'refresh.lag', '1 minute'))";
        assert_eq!(world.count(state).await, 5);
        let said = world.run(&bare, &["migrate"]).await.well();
        assert!(!said.contains("altered") && !said.contains("partitions are added"), "{said}");
        assert_eq!(world.count(state).await, 5);
        if world.timescaledb().await {
            let jobs = "SELECT count(*) FROM timescaledb_information.jobs \
                WHERE config ->> 'compress_after' = '3 days'
                OR config ->> 'start_offset' = '15 days' AND schedule_interval = '2 minutes'";
            assert_eq!(world.count(jobs).await, 2);
        }
        // It goes with the window by default, and not with the one that is in force.
        let unfit = world.config_file("unfit.toml", "[store.frame_metadata]\nretention = \"10d\"\n");
        let refused = world.run(&unfit, &["migrate", "--yes"]).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        let said = "store.frame_stats_1m.refresh.window is 15d, and frame_metadata keeps its rows for 10d";
        assert!(refused.err.contains(said), "{refused:?}");
        assert_eq!(world.count(state).await, 5);
    }
}

/// What a person sees of the store: tables, what keeps them, and what they hold up to now.
const STORE: &str = "SELECT count(*) FROM (
        SELECT relation::text FROM jetcopy.partitioned_tables JOIN pg_class ON oid = relation
        UNION ALL SELECT name FROM jetcopy.rollups WHERE to_regclass(name) IS NOT NULL \
            AND EXISTS (SELECT FROM pg_class WHERE oid = source)
    ) AS known";

#[tokio::test]
async fn a_store_table_that_was_dropped_comes_back_with_migrate_and_is_maintained() {
    for world in worlds().await {
        let config = world.config("[store.detection_events]\nretention = \"never\"\n");
        world.run(&config, &["migrate"]).await.well();
        let known = world.count(STORE).await;
        if world.timescaledb().await {
            for rollup in ["detection_stats_1d", "detection_stats_1h", "detection_stats_1m"] {
                let drop = format!("DROP MATERIALIZED VIEW {rollup}");
                world.database.batch_execute(&drop).await.unwrap();
            }
        }
        let drop =
            "DROP TABLE detection_events CASCADE; DROP TABLE files, operations_log CASCADE; DROP VIEW stats";
        world.database.batch_execute(drop).await.unwrap();
        if !world.timescaledb().await {
            world.database.batch_execute("DROP TABLE frame_metadata, frame_stats_1h").await.unwrap();
        }
        let bare = world.config_file("bare.toml", "");
        let said = world.run(&bare, &["migrate"]).await.well();
        let made = said.lines().find(|line| line.contains("recreated because they were gone: ")).unwrap();
        for name in ["detection_events", "files", "operations_log", "stats"] {
            assert!(made.contains(name), "{said}");
        }
        assert!(said.contains("detection_events: rows are never dropped (as before)"), "{said}");
        assert_eq!(world.count(STORE).await, known);
        world.run(&bare, &["maintain"]).await.well();
        let insert =
            "INSERT INTO detection_events (time, camera_id, frame_id, label) VALUES (now(), 'a', 1, 'car');
            INSERT INTO operations_log (timestamp, operation) VALUES (now(), 'create_file')";
        world.database.batch_execute(insert).await.unwrap();
        assert!(world.run(&bare, &["query", "detections", "camera=a"]).await.well().contains("car"));
        assert!(world.database.batch_execute("DELETE FROM operations_log").await.is_err());
        let said = world.run(&bare, &["migrate"]).await.well();
        assert!(said.contains("nothing to migrate"), "{said}");
    }
}

#[tokio::test]
async fn after_schema_jetcopy_was_dropped_the_store_is_kept_as_before_and_its_log_append_only() {
    for world in worlds().await {
        let bare = world.config_file("bare.toml", "");
        world.run(&bare, &["migrate"]).await.well();
        world.old_rows().await;
        let insert = "INSERT INTO operations_log (timestamp, operation) VALUES (now(), 'create_file')";
        world.database.batch_execute(insert).await.unwrap();
        let known = world.count(STORE).await;
        world.database.batch_execute("DROP SCHEMA jetcopy CASCADE").await.unwrap();
        let said = world.run(&bare, &["migrate"]).await.well();
        assert_eq!(world.count(STORE).await, known);
        // The tables say which groups there are; how long rows live they do not, and nobody is left to think
        // so.
        let found = "their groups are now selected: frames, measurements, series, registry. Their settings, \
                     such as the retention, were lost";
        assert!(said.contains(found), "{said}");
        let stays = "detection_events: it existed before, so its rows are kept; \
            set [store.detection_events] retention";
        assert!(said.contains(stays) || world.timescaledb().await, "{said}");
        let said = world.run(&bare, &["migrate"]).await.well();
        assert!(said.contains("nothing to migrate") && !said.contains("selected"), "{said}");
        let created = "SELECT count(*) FROM pg_trigger WHERE tgname = 'keep_created_at'";
        assert_eq!(world.count(created).await, 1);
        for change in ["UPDATE operations_log SET operation = 'other'", "DELETE FROM operations_log"] {
            let error = world.database.batch_execute(change).await.unwrap_err();
            assert!(error.as_db_error().unwrap().message().contains("only ever added"), "{error:?}");
        }
        assert_eq!(world.count("SELECT count(*) FROM operations_log").await, 1);
        world.run(&bare, &["maintain"]).await.well();
        if !world.timescaledb().await {
            // Nobody has said how long they live.
            assert_eq!(world.rows().await, (100, 50));
        }
    }
}

#[tokio::test]
async fn what_of_the_store_is_left_without_schema_jetcopy_is_said_with_what_to_name() {
    let world = World::plain().await;
    let bare = world.config_file("bare.toml", "");
    let some = "DROP SCHEMA jetcopy CASCADE; DROP TABLE websdrs; DROP VIEW IF EXISTS stats;
        DROP TABLE files, projects, operations_log CASCADE; CREATE SCHEMA telemetry;
        ALTER TABLE time_series_metadata SET SCHEMA telemetry; ALTER TABLE time_series_data_points \
            SET SCHEMA telemetry";
    world.database.batch_execute(some).await.unwrap();
    let said = world.run(&bare, &["migrate"]).await.well();
    for text in [
        "their groups are now selected: frames. Their settings",
        "store tables measurements existed, but others of their groups did not: add measurements to [store] \
         tables",
        "telemetry has tables named like the store's and is not in the search path",
    ] {
        assert!(said.contains(text), "{text} in {said}");
    }
    let none = "SELECT count(*) FROM pg_class WHERE relname IN ('websdrs', 'files', 'stats')";
    assert_eq!(world.count(none).await, 0, "nobody named them");
}

/// The blocks of SQL in a section of docs/store-operations.md.
fn documented(section: &str) -> Vec<String> {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/store-operations.md")).unwrap();
    let section =
        text.split(&format!("\n## {section}\n")).nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    section.split("```sql").skip(1).map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_table_of_another_systems_shape_is_told_and_both_ways_over_lead_to_answers() {
    let other = "CREATE TABLE measurements (timestamp_utc timestamptz NOT NULL, task_id text, \
        websdr_id integer,
            frequency_mhz float8, snr_db float8, frequency_offset_hz float8);
        INSERT INTO measurements SELECT now() - n * interval '1 day', 't', 7, 145.5, n, 1 \
            FROM generate_series(0, 40) n";
    let queries = ["recent_measurements", "snr_statistics", "frequency_drift"];
    let [rename, carry, beside] = <[String; 3]>::try_from(documented("A table of the same name")).unwrap();
    for view in [false, true] {
        for mut world in worlds().await {
            unmigrated(&mut world).await;
            world.database.batch_execute(other).await.unwrap();
            let config = world.config(&format!("{CHOSEN}[store.measurements]\nretention = \"never\"\n"));
            let said = world.run(&config, &["migrate"]).await.well();
            let differs = "measurements was not created by jetcopy and stays as it is";
            let line = said.lines().find(|line| line.starts_with(differs)).unwrap();
            assert!(
                line.contains("websdr_id is integer, not text, there is no sample_rate_khz (float8)"),
                "{said}"
            );
            for query in queries {
                assert_ne!(world.run(&config, &["query", query, "since=60d"]).await.code, 0, "{query}");
            }
            world.database.batch_execute(if view { &beside } else { &rename }).await.unwrap();
            let said = world.run(&config, &["migrate"]).await.well();
            assert!(!said.contains(differs), "{said}");
            if !view {
                world.database.batch_execute(&carry).await.unwrap();
                world.run(&config, &["maintain"]).await.well();
            }
            assert_eq!(world.count("SELECT count(*) FROM measurements WHERE websdr_id = '7'").await, 41);
            for query in queries {
                let answer = world.run(&config, &["query", query, "since=60d"]).await.well();
                assert!(answer.contains('7'), "{query}: {answer}");
            }
        }
    }
}

/// The schemas in which tables, roll-ups and views of the store lie.
const MADE: &str = "SELECT coalesce(string_agg(DISTINCT relnamespace::regnamespace::text, ' '), '') \
    FROM pg_class
    WHERE relname = ANY ('{frame_metadata,measurements,time_series_metadata,operations_log,stats,\
        frame_stats_1h}')";

#[tokio::test]
async fn the_stores_tables_never_lie_in_schema_jetcopy_since_a_role_of_that_name_finds_it_first() {
    // A server of its own, for a role of that name.
    let server = TestPostgres::start(&PostgresOptions::default()).unwrap();
    let mut world = World::plain().await;
    world.database_url = server.create_database().await.unwrap();
    world.database = jetcopy::testbed::connect(&world.database_url).await.unwrap();
    world.database.batch_execute("CREATE ROLE jetcopy LOGIN SUPERUSER").await.unwrap();
    world.database_url = world.database_url.replace("postgres@", "jetcopy@");
    let bare = world.config_file("bare.toml", CHOSEN);
    for _ in 0..2 {
        world.run(&bare, &["migrate"]).await.well();
        let made: String = world.database.query_one(MADE, &[]).await.unwrap().get(0);
        assert_eq!(made, "public");
    }
    world.run(&bare, &["maintain"]).await.well();
}
