//! The pool: nothing leaks, waits end, reads are tried again.

use std::time::Duration;

use super::super::registry::ProjectFilter;
use super::*;
use crate::private::{PrivatePgBouncer, Stop};

const SLOW: &str = "SELECT pg_sleep(60)::text";

async fn statements(world: &World) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'jetcopy store' AND state = 'active'";
    world.database.query_one(sql, &[]).await.unwrap().get(0)
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn with(world: &World, connections: usize, step_timeout: Duration) -> Store {
    let settings = config::Postgres { step_timeout, ..settings(&world.url) };
    Store::open(&settings, &Options { connections, ..Options::default() }).unwrap()
}

#[tokio::test]
async fn a_connection_is_back_after_an_answer_and_after_an_error() {
    let world = World::shared().await;
    let store = with(&world, 1, Duration::from_mins(1));
    store.find_projects(&ProjectFilter::default()).await.unwrap();
    for (sql, expected) in [
        ("SELECT 1 / 0", "Refused"),
        ("SELECT * FROM absent", "Outdated"),
        ("SELECT jetcopy.absent()", "Outdated"),
    ] {
        let error = store.read(sql, &[]).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        let status = store.status();
        assert_eq!((status.size, status.available, status.waiting), (1, 1, 0), "{sql}");
    }
    store.find_projects(&ProjectFilter::default()).await.unwrap();
}

#[tokio::test]
async fn a_dropped_read_frees_its_place_and_ends_its_statement() {
    let world = World::shared().await;
    let store = with(&world, 1, Duration::from_mins(1));
    let running = tokio::spawn({
        let store = store.clone();
        async move { store.read(SLOW, &[]).await.map(|rows| rows.len()) }
    });
    until("the statement to run", async || statements(&world).await == 1).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    until("the statement to end", async || statements(&world).await == 0).await;
    let status = store.status();
    assert_eq!((status.size, status.waiting), (0, 0));
    store.find_projects(&ProjectFilter::default()).await.unwrap();
    assert_eq!(store.status().available, 1);
}

#[tokio::test]
async fn a_read_that_takes_too_long_is_cancelled_and_says_so() {
    let world = World::shared().await;
    let store = with(&world, 1, Duration::from_millis(300));
    let error = store.read(SLOW, &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Timeout(_)), "{error:?}");
    until("the statement to end", async || statements(&world).await == 0).await;
    assert_eq!(store.status().size, 0);
}

#[tokio::test]
async fn who_waits_too_long_for_a_connection_is_told() {
    let world = World::shared().await;
    let store = with(&world, 1, Duration::from_millis(300));
    let held = store.pool.get().await.unwrap();
    let error = store.find_projects(&ProjectFilter::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
    drop(held);
    store.find_projects(&ProjectFilter::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_goes_on_after_a_restart_and_a_change_is_never_made_twice() {
    let options = PostgresOptions::plain();
    let mut server = PrivatePostgres::start(&options).unwrap();
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    let patience = Duration::from_mins(1);
    let options = Options { patience, ..Options::default() };
    let store = Store::open(&settings(&url), &options).unwrap();
    store.find_projects(&ProjectFilter::default()).await.unwrap();

    server.stop(Stop::Kill);
    // The session's process outlives the server for a moment, and answers.
    let error = loop {
        if let Err(error) = store.delete_project("p", time("2026-07-01T00:00:00Z")).await {
            break error;
        }
    };
    assert!(error.may_pass(), "{error:?}");
    let reading = tokio::spawn({
        let store = store.clone();
        async move { store.find_projects(&ProjectFilter::default()).await }
    });
    server.start_again().unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), []);
    assert!(store.status().size <= 1, "{:?}", store.status());
}

#[tokio::test]
async fn reads_and_changes_work_through_a_transaction_pooler() {
    let options = PostgresOptions::plain();
    let server = PrivatePostgres::start(&options).unwrap();
    let Some(bouncer) = PrivatePgBouncer::start_or_skip(&server).unwrap() else { return };
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    // More sessions than the pooler has at the server.
    let options = Options { connections: 6, ..Options::default() };
    let store = Store::open(&settings(&bouncer.url(&url)), &options).unwrap();
    let readers = (0..6).map(|reader| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..50 {
                let id = format!("p{reader}-{n}");
                let sql = "INSERT INTO projects (id, updated_at) VALUES ($1, now()) RETURNING 1";
                store.change(sql, &[(&id, Type::TEXT)]).await.unwrap();
                assert_eq!(
                    store.get::<super::super::registry::Project>(&[&id]).await.unwrap().unwrap().id,
                    id
                );
                let error = store.read("SELECT 1 / 0", &[]).await.unwrap_err();
                assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    let filter = ProjectFilter { max_rows: Some(1_000), ..ProjectFilter::default() };
    assert_eq!(store.find_projects(&filter).await.unwrap().len(), 300);
}

#[tokio::test]
async fn wrong_settings_are_told_at_once() {
    let error = Store::open(&settings("postgres://a:b:c"), &Options::default());
    assert!(matches!(error, Err(StoreError::Connect(connect::ConnectError::Config { .. }))), "{error:?}");
    let world = World::shared().await;
    let absent = world.url.rsplit_once('/').unwrap().0.to_owned() + "/absent";
    let store = Store::open(&settings(&absent), &Options::default()).unwrap();
    let error = store.find_projects(&ProjectFilter::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Connect(connect::ConnectError::Refused { .. })), "{error:?}");
}
