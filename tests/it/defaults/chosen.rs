//! Which tables of the store there are, and where: what was chosen, and nothing by itself.

use jetcopy::store::query::named::QUERIES;

use super::{CHOSEN, unmigrated, worlds};
use crate::support::World;

/// The store's tables, roll-ups and views, and what of TimescaleDB there is, by schema.
const RELATIONS: &str = "SELECT coalesce(string_agg(n.nspname || '.' || c.relname, ' ' ORDER BY c.relname), \
    '') FROM pg_class c
    JOIN pg_namespace n ON n.oid = relnamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
        AND n.nspname !~ '^_timescaledb|^timescaledb'
        AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
        AND (n.nspname <> 'jetcopy' OR c.relname IN ('frame_metadata', 'detection_events', 'measurements', \
            'projects'))";

/// A schema whose name has to be quoted.
const SCHEMA: &str = "My \"telemetry\"";

async fn made(world: &World) -> String {
    world.database.query_one(RELATIONS, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn only_chosen_groups_of_tables_are_created_and_without_a_word_nothing_but_the_schema_jetcopy() {
    for mut world in worlds().await {
        let timescaledb = world.timescaledb().await;
        unmigrated(&mut world).await;
        let (before, extension) = (made(&world).await, world.timescaledb().await);
        let bare = world.config_file("bare.toml", "");
        let said = world.run(&bare, &["migrate"]).await.well();
        assert!(said.contains("no store tables were created: list their groups in [store] tables"), "{said}");
        assert_eq!(made(&world).await, before);
        assert_eq!(world.timescaledb().await, extension, "nobody asked for the extension");
        let none = world.config_file("none.toml", "[store]\ntables = \"none\"\n");
        for config in [&bare, &none, &bare] {
            let said = world.run(config, &["migrate"]).await.well();
            assert!(said.contains("nothing to migrate"), "{said}");
        }
        let said = world.run(&bare, &["maintain"]).await.well();
        assert!(said.contains("nothing to do"), "{said}");
        assert_eq!(made(&world).await, before);
        let refused = world.run(&bare, &["query", "latest_frames"]).await;
        assert!(refused.err.contains("list its groups in [store] tables"), "{refused:?}");

        let some = world.config_file("some.toml", "[store]\ntables = [\"measurements\"]\n");
        world.run(&some, &["migrate"]).await.well();
        assert_eq!(made(&world).await, "public.measurements public.measurements_daily public.websdrs");
        assert_eq!(world.timescaledb().await, timescaledb);
        world.run(&bare, &["maintain"]).await.well();
        // What is there stays where it is chosen no more.
        world.run(&none, &["migrate"]).await.well();
        assert_eq!(made(&world).await, "public.measurements public.measurements_daily public.websdrs");
        let all = world.config_file("all.toml", CHOSEN);
        world.run(&all, &["migrate"]).await.well();
        assert_eq!(made(&world).await.split(' ').count(), 17);
    }
}

/// Of the store's own shape, and named like it, by somebody who has no store.
const OWN: &str = "CREATE TABLE measurements (timestamp_utc timestamptz NOT NULL, task_id text, \
    websdr_id text,
        frequency_mhz float8, snr_db float8, frequency_offset_hz float8);
    CREATE TABLE files (project_id text, path text, name text, staged boolean, status text, \
        expires_at timestamptz,
        updated_at timestamptz);
    INSERT INTO measurements (timestamp_utc) SELECT now() - interval '90 days';
    INSERT INTO files (project_id, path, staged, status, expires_at, updated_at)
        VALUES ('p', 'f', true, 'active', now() - interval '1 day', now() - interval '2 days')";

#[tokio::test]
async fn tables_of_ones_own_that_are_named_like_the_stores_are_left_alone_where_no_group_was_chosen() {
    for mut world in worlds().await {
        let timescaledb = world.timescaledb().await;
        unmigrated(&mut world).await;
        world.database.batch_execute(OWN).await.unwrap();
        if timescaledb {
            let hypertable = "CREATE EXTENSION IF NOT EXISTS timescaledb;
                SELECT create_hypertable('measurements', 'timestamp_utc', migrate_data => true)";
            world.database.batch_execute(hypertable).await.unwrap();
        }
        let bare = world.config_file("bare.toml", "");
        let said = world.run(&bare, &["migrate"]).await.well();
        let of_ours = |line: &str| line.starts_with("measurements") || line.starts_with("files");
        assert!(!said.lines().any(of_ours), "{said}");
        world.run(&bare, &["maintain"]).await.well();
        assert_eq!(world.count("SELECT count(*) FROM files WHERE status = 'active'").await, 1);
        assert_eq!(world.count("SELECT count(*) FROM jetcopy.store_life").await, 0);
        if timescaledb {
            let jobs = "SELECT count(*) FROM timescaledb_information.jobs WHERE job_id >= 1000";
            assert_eq!(world.count(jobs).await, 0);
        }
    }
}

#[tokio::test]
async fn a_database_from_before_there_was_a_choice_keeps_all_groups() {
    for world in worlds().await {
        let older = "DELETE FROM jetcopy.store_choice; DROP VIEW stats; DROP TABLE files CASCADE";
        world.database.batch_execute(older).await.unwrap();
        let bare = world.config_file("bare.toml", "");
        let said = world.run(&bare, &["migrate"]).await.well();
        assert!(said.contains("because they were gone: files, stats"), "{said}");
    }
}

/// Words for the arguments that a query needs.
fn words(needed: &str) -> &'static str {
    match needed {
        "width" => "width=1h",
        "camera" => "camera=a",
        "task" => "task=t",
        "series" => "series=s",
        "project" => "project=p",
        "digest" => "digest=00",
        other => panic!("no word for {other}"),
    }
}

#[tokio::test]
async fn the_store_lies_in_the_schema_that_is_named_whatever_the_search_path_of_a_role() {
    for mut world in worlds().await {
        let timescaledb = world.timescaledb().await;
        unmigrated(&mut world).await;
        // Another system's table, which the search path has.
        world.database.batch_execute("CREATE TABLE measurements (id int)").await.unwrap();
        let named = format!("{CHOSEN}schema = '{SCHEMA}'\n");
        let (named, bare) = (world.config_file("named.toml", &named), world.config_file("bare.toml", ""));
        let said = world.run(&named, &["migrate"]).await.well();
        assert!(said.contains(&format!("the store's tables are in schema {SCHEMA}")), "{said}");
        assert!(!said.contains("was not created by jetcopy"), "{said}");
        if timescaledb {
            world.stop_jobs().await;
        }
        let made = made(&world).await;
        assert_eq!(made.matches(&format!("{SCHEMA}.")).count(), 17, "{made}");
        assert_eq!(made.matches("public.").count(), 1, "{made}");
        assert_eq!(world.timescaledb().await, timescaledb);
        let said = world.run(&bare, &["migrate"]).await.well();
        assert!(said.contains("nothing to migrate"), "{said}");

        let schema = "\"My \"\"telemetry\"\"\"";
        let room = format!(
            "SELECT jetcopy.add_partitions(relation, ARRAY(SELECT (now() AT TIME ZONE 'UTC')::date - n \
             FROM generate_series(0, 1) n))
                FROM jetcopy.partitioned_tables;
            INSERT INTO {schema}.frame_metadata (time, camera_id, frame_id)
                SELECT now() - n * interval '1 min', 'a', n FROM generate_series(6, 605) n;
            INSERT INTO {schema}.projects (id, updated_at) VALUES ('p', now());
            INSERT INTO {schema}.files (project_id, path, name, staged, expires_at, status, updated_at)
                VALUES ('p', 'f', 'f', true, now() - interval '1 hour', 'active', now() - interval '2 hours')"
        );
        world.database.batch_execute(&room).await.unwrap();
        let said = world.run(&bare, &["maintain"]).await.well();
        assert!(said.contains("1 staged files marked as expired"), "{said}");
        if timescaledb {
            let refresh = format!("CALL refresh_continuous_aggregate('{schema}.frame_stats_1m', NULL, NULL)");
            world.database.batch_execute(&refresh).await.unwrap();
        }
        let rolled_up = format!("SELECT count(*) FROM {schema}.frame_stats_1m");
        assert!(world.count(&rolled_up).await > 500);
        let said = world.run(&bare, &["store"]).await.well();
        assert!(said.contains("frame_metadata") && said.contains("frame_stats_1m"), "{said}");

        for query in &QUERIES {
            let needed = query.arguments.iter().filter(|argument| argument.default.is_none());
            let words: Vec<&str> = ["query", query.name]
                .into_iter()
                .chain(needed.map(|argument| words(argument.name)))
                .collect();
            world.run(&bare, &words).await.well();
        }
        assert_eq!(world.count("SELECT count(*) FROM jetcopy.latest_frames()").await, 1);
        for function in [
            "monitor_frames()",
            "monitor_detections()",
            "monitor_tables()",
            "registry_stats()",
            "registry_check()",
        ] {
            world.database.batch_execute(&format!("SELECT * FROM jetcopy.{function}")).await.unwrap();
        }
        assert_eq!(world.count("SELECT total FROM jetcopy.monitor_frames()").await, 600);
        world.database.batch_execute("SELECT jetcopy.fresh_registry('rebuilt')").await.unwrap();

        let other = format!("{CHOSEN}schema = 'public'\n");
        let refused = world.run(&world.config_file("other.toml", &other), &["migrate"]).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains(&format!("store tables are in {SCHEMA}: move them")), "{refused:?}");
    }
}

#[tokio::test]
async fn a_store_in_the_search_path_is_not_made_a_second_time_in_a_schema_that_is_named_later() {
    for world in worlds().await {
        let later = world.config_file("later.toml", "[store]\nschema = 'telemetry'\n");
        let before = made(&world).await;
        let refused = world.run(&later, &["migrate"]).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        let said = "[store] schema is telemetry, but store tables are in public";
        assert!(refused.err.contains(said), "{refused:?}");
        assert_eq!(made(&world).await, before);
        // Where they are is a name, too, and holds for roles with another path.
        let here = world.config_file("here.toml", "[store]\nschema = 'public'\n");
        world.run(&here, &["migrate"]).await.well();
        world.database.batch_execute("SET search_path = pg_catalog").await.unwrap();
        world.database.batch_execute("SELECT * FROM jetcopy.latest_frames()").await.unwrap();
    }
}

#[tokio::test]
async fn with_real_time_the_roll_ups_have_the_running_day_and_without_it_they_have_it_no_more() {
    for world in worlds().await {
        world.old_rows().await;
        // Of the day and the minute of the row, whatever the clock says by now.
        let running = async |width: &str, unit: &str| {
            let sql = format!(
                "SELECT coalesce(sum(s.frames), 0)::bigint FROM (SELECT max(time) AS at FROM frame_metadata) \
                 AS newest
                    JOIN frame_stats_{width} s ON s.bucket = date_trunc('{unit}', newest.at, 'UTC')"
            );
            world.count(&sql).await
        };
        let days = "SELECT count(*) FROM measurements_daily WHERE bucket > now() - interval '30 days'";
        let frames = "INSERT INTO frame_metadata (time, camera_id, frame_id) SELECT now(), 'a', n FROM \
                      generate_series(1, 3) n";
        let rows = format!(
            "{frames}; INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz) VALUES \
             (now(), 't', 'r', 1)"
        );
        world.database.batch_execute(&rows).await.unwrap();
        let [live, bare, over] = [
            world.config_file("live.toml", "[store]\nreal_time = true\n"),
            world.config_file("bare.toml", ""),
            world.config_file("over.toml", "[store]\nreal_time = false\n"),
        ];
        world.run(&bare, &["migrate"]).await.well();
        world.run(&bare, &["maintain"]).await.well();
        assert_eq!((running("1d", "day").await, world.count(days).await), (0, 0));
        world.run(&live, &["migrate"]).await.well();
        // It is the database that keeps it.
        for _ in 0..2 {
            world.run(&bare, &["migrate"]).await.well();
            world.run(&bare, &["maintain"]).await.well();
            for (width, unit) in [("1m", "minute"), ("1h", "hour"), ("1d", "day")] {
                assert_eq!(running(width, unit).await, 3, "{width}");
            }
            assert_eq!(world.count(days).await, 1);
        }
        world.run(&over, &["migrate"]).await.well();
        world.run(&bare, &["maintain"]).await.well();
        assert_eq!((running("1d", "day").await, world.count(days).await), (0, 0));
    }
}
