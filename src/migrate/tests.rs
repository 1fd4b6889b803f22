//! `jetcopy migrate` on real servers: it applies each migration once, as a whole or not at all. That upgrades
//! keep rows and end at the same schema is tested in `versions`.

use super::*;
use crate::catalog;
use crate::testbed::{PostgresOptions, TestPostgres, connect};

mod comments;
mod time_tables;
mod versions;

fn settings(url: &str) -> config::Postgres {
    config::Postgres { url: url.to_owned(), ..config::Postgres::default() }
}

/// What of the catalog a migration can change.
async fn relations(url: &str) -> Vec<(String, u32)> {
    let client = connect(url).await.unwrap();
    let sql = "SELECT c.oid::regclass::text, c.relfilenode FROM pg_class c \
               WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('jetcopy', 'public')) \
               ORDER BY 1";
    client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn count(entries: &[Entry], wanted: impl Fn(&State) -> bool) -> usize {
    entries.iter().filter(|entry| wanted(&entry.state)).count()
}

#[tokio::test]
async fn an_empty_database_gets_every_table_and_a_second_run_changes_nothing() {
    let server = TestPostgres::shared().unwrap();
    let url = server.create_database().await.unwrap();

    let before = status(&settings(&url)).await.unwrap();
    assert_eq!(count(&before, |state| *state == State::Pending), MIGRATIONS.len());

    let report = migrate(&settings(&url)).await.unwrap();
    assert_eq!(report.applied.len(), MIGRATIONS.len());
    assert_eq!(report.timescaledb.is_some(), server.has_timescaledb());
    let made = relations(&url).await;
    for table in [
        "jetcopy.checkpoints",
        "jetcopy.dead_letters",
        "jetcopy.losses",
        "jetcopy.milestones",
        "frame_metadata",
        "detection_events",
        "measurements",
        "time_series_metadata",
        "time_series_data_points",
        "projects",
        "files",
        "operations_log",
        "stats",
    ] {
        assert!(made.iter().any(|(name, _)| name == table), "{table} is missing of {made:?}");
    }

    let again = migrate(&settings(&url)).await.unwrap();
    assert_eq!(again.applied, []);
    assert_eq!(relations(&url).await, made);
    let after = status(&settings(&url)).await.unwrap();
    assert_eq!(count(&after, |state| matches!(state, State::Applied(_))), MIGRATIONS.len());
}

#[tokio::test]
async fn the_store_tables_are_hypertables_where_timescaledb_is_offered() {
    let Some(server) = TestPostgres::shared_timescaledb().unwrap() else { return };
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    let client = connect(&url).await.unwrap();
    let sql = "SELECT hypertable_name::text, column_name::text FROM timescaledb_information.dimensions \
               WHERE hypertable_schema = 'public' ORDER BY 1";
    let rows = client.query(sql, &[]).await.unwrap();
    let found: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut expected = catalog::TABLES.map(|table| (table.name.to_owned(), table.time.to_owned()));
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn two_migrators_at_a_time_apply_each_migration_once() {
    let server = TestPostgres::shared().unwrap();
    let settings = settings(&server.create_database().await.unwrap());
    let (one, other) = tokio::join!(migrate(&settings), migrate(&settings));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.applied.len() + other.applied.len(), MIGRATIONS.len());
    assert_eq!(one.applied.len() * other.applied.len(), 0);
}

#[tokio::test]
async fn a_failed_run_leaves_nothing_behind_and_the_next_one_succeeds() {
    let server = TestPostgres::shared().unwrap();
    let url = server.create_database().await.unwrap();
    let client = connect(&url).await.unwrap();
    // The migration of the store fails at an index, whose name is taken.
    client.batch_execute("CREATE TABLE detection_events_camera_id_time ()").await.unwrap();
    let before = relations(&url).await;
    let error = migrate(&settings(&url)).await.unwrap_err();
    assert!(matches!(error, MigrateError::Migration { version: 3, .. }), "{error:?}");
    assert_eq!(relations(&url).await, before);

    client.batch_execute("DROP TABLE detection_events_camera_id_time").await.unwrap();
    assert_eq!(migrate(&settings(&url)).await.unwrap().applied.len(), MIGRATIONS.len());
}

#[tokio::test]
async fn functions_with_rights_of_their_owner_or_a_path_of_their_own_look_in_pg_catalog_alone() {
    let server = TestPostgres::shared().unwrap();
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    let client = connect(&url).await.unwrap();
    let sql = "SELECT p.oid::regprocedure::text FROM pg_proc p \
               WHERE p.pronamespace = 'jetcopy'::regnamespace \
                   AND (p.prosecdef OR EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c ~ '^search_path=')) \
                   AND NOT 'search_path=pg_catalog, pg_temp' = ANY (p.proconfig)";
    let found: Vec<String> = client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(found, [""; 0], "SET search_path = pg_catalog, pg_temp");
}

#[tokio::test]
async fn rows_of_the_operations_log_are_added_and_never_changed() {
    let server = TestPostgres::shared().unwrap();
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    let client = connect(&url).await.unwrap();
    client
        .batch_execute("INSERT INTO operations_log (timestamp, operation) VALUES (now(), 'create_table')")
        .await
        .unwrap();
    for change in ["UPDATE operations_log SET operation = 'other'", "DELETE FROM operations_log"] {
        let error = client.batch_execute(change).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert!(error.message().contains("rows of operations_log are only ever added"), "{error:?}");
    }
    let rows: i64 = client.query_one("SELECT count(*) FROM operations_log", &[]).await.unwrap().get(0);
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn a_target_table_that_is_there_already_stays_as_it_is() {
    let server = TestPostgres::shared().unwrap();
    let url = server.create_database().await.unwrap();
    let client = connect(&url).await.unwrap();
    let names = catalog::TABLES.map(|table| table.name);
    let names = names.iter().chain(&["time_series_metadata", "projects", "files", "stats"]);
    for name in names.clone() {
        client.batch_execute(&format!("CREATE TABLE {name} (mine int)")).await.unwrap();
    }
    migrate(&settings(&url)).await.unwrap();
    for name in names {
        client.batch_execute(&format!("INSERT INTO {name} (mine) VALUES (1)")).await.unwrap();
    }
}

#[tokio::test]
async fn an_edited_or_unknown_migration_is_an_error_and_shown() {
    let server = TestPostgres::shared().unwrap();
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    let client = connect(&url).await.unwrap();
    client
        .batch_execute(
            "UPDATE jetcopy.schema_history SET checksum = 'other' WHERE version = 2;
             INSERT INTO jetcopy.schema_history (version, name, checksum) VALUES (999, 'future', 'x')",
        )
        .await
        .unwrap();
    assert!(matches!(migrate(&settings(&url)).await.unwrap_err(), MigrateError::Diverged(_)));
    let states: Vec<(i32, State)> = status(&settings(&url))
        .await
        .unwrap()
        .into_iter()
        .filter(|entry| !matches!(entry.state, State::Applied(_)))
        .map(|entry| (entry.version, entry.state))
        .collect();
    assert_eq!(states, [(2, State::Changed), (999, State::Unknown)]);
}

#[tokio::test]
async fn a_role_that_may_only_read_can_list_and_a_migrated_database_needs_no_privilege_to_stay() {
    let server = TestPostgres::shared().unwrap();
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    let client = connect(&url).await.unwrap();
    client
        .batch_execute(
            "CREATE ROLE migrate_reader LOGIN;
             GRANT USAGE ON SCHEMA jetcopy TO migrate_reader;
             GRANT SELECT ON ALL TABLES IN SCHEMA jetcopy TO migrate_reader",
        )
        .await
        .unwrap();
    let reader = settings(&url.replace("postgres@", "migrate_reader@"));
    assert_eq!(status(&reader).await.unwrap().len(), MIGRATIONS.len());
    assert_eq!(migrate(&reader).await.unwrap().applied, []);
}

#[tokio::test]
async fn checkpoint_updates_stay_heap_only_on_one_page() {
    // A server of its own, without workers: a transaction that somebody else holds open, in whatever
    // database, holds back what an update may prune.
    let settings = vec![("autovacuum".to_owned(), "off".to_owned())];
    let options = PostgresOptions { settings, ..PostgresOptions::plain() };
    let server = TestPostgres::start(&options).unwrap();
    let url = server.create_database().await.unwrap();
    migrate(&self::settings(&url)).await.unwrap();
    let client = connect(&url).await.unwrap();
    client
        .batch_execute(
            "INSERT INTO jetcopy.checkpoints (shard, pipeline, stream) SELECT 's' || n, 'p', 't' \
             FROM generate_series(1, 4) n",
        )
        .await
        .unwrap();
    let update = "UPDATE jetcopy.checkpoints SET last_sequence = last_sequence + 1, last_timestamp = now(), \
                  updated_at = now() WHERE shard = 's1'";
    for _ in 0..500 {
        client.batch_execute(update).await.unwrap();
    }
    let bytes: i64 =
        client.query_one("SELECT pg_relation_size('jetcopy.checkpoints')", &[]).await.unwrap().get(0);
    assert_eq!(bytes, 8192);
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_text_is_refused() {
    let server = TestPostgres::shared().unwrap();
    let client = connect(&server.url()).await.unwrap();
    client
        .batch_execute("CREATE DATABASE narrow TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        .await
        .unwrap();
    let error = migrate(&settings(&server.database_url("narrow"))).await.unwrap_err();
    let MigrateError::History(error) = error else { panic!("{error:?}") };
    assert!(error.as_db_error().unwrap().message().contains("LATIN1"), "{error:?}");
}
