//! The pool: nothing leaks, waits end, reads are tried again.

use std::time::Duration;

use super::*;
use crate::testbed::{Stop, TestPgBouncer};

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
    Store::open(&settings, &Options { connections, wait: step_timeout, ..Options::default() }).unwrap()
}

/// How many projects there are.
async fn projects(store: &Store) -> Result<usize, StoreError> {
    let call = Call::parse("find_projects", ["max_rows=1000"]).unwrap();
    let answer = store.ask(&call, &Bounds::default()).await?;
    Ok(answer.texts(false).rows.len())
}

#[tokio::test]
async fn a_connection_is_back_after_an_answer_and_after_an_error() {
    let world = World::shared().await;
    let store = with(&world, 1, Duration::from_mins(1));
    projects(&store).await.unwrap();
    for (sql, expected) in [
        ("SELECT 1 / 0", "Refused"),
        ("SELECT * FROM absent", "Outdated"),
        ("SELECT jetcopy.absent()", "Outdated"),
    ] {
        let error = store.read(sql, &[], None).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        let status = store.status();
        assert_eq!((status.size, status.available, status.waiting), (1, 1, 0), "{sql}");
    }
    projects(&store).await.unwrap();
}

#[tokio::test]
async fn a_dropped_read_frees_its_place_and_ends_its_statement() {
    let world = World::shared().await;
    let store = with(&world, 1, Duration::from_mins(1));
    let running = tokio::spawn({
        let store = store.clone();
        async move { store.read(SLOW, &[], None).await.map(|rows| rows.len()) }
    });
    until("the statement to run", async || statements(&world).await == 1).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    until("the statement to end", async || statements(&world).await == 0).await;
    let status = store.status();
    assert_eq!((status.size, status.waiting), (0, 0));
    projects(&store).await.unwrap();
    assert_eq!(store.status().available, 1);
}

#[tokio::test]
async fn a_read_that_takes_too_long_is_cancelled_and_says_so() {
    let world = World::shared().await;
    let store = with(&world, 1, Duration::from_millis(300));
    let error = store.read(SLOW, &[], None).await.unwrap_err();
    assert!(matches!(error, StoreError::Timeout(_)), "{error:?}");
    until("the statement to end", async || statements(&world).await == 0).await;
    assert_eq!(store.status().size, 0);
}

#[tokio::test]
async fn who_waits_too_long_for_a_connection_is_told() {
    let world = World::shared().await;
    let store = with(&world, 1, Duration::from_millis(300));
    let held = store.pool.get().await.unwrap();
    let error = projects(&store).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
    drop(held);
    projects(&store).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_goes_on_after_a_restart() {
    let options = PostgresOptions::plain();
    let mut server = TestPostgres::start(&options).unwrap();
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    let patience = Duration::from_mins(1);
    let options = Options { patience, ..Options::default() };
    let store = Store::open(&settings(&url), &options).unwrap();
    projects(&store).await.unwrap();

    server.stop(Stop::Kill);
    let reading = tokio::spawn({
        let store = store.clone();
        async move { projects(&store).await }
    });
    server.start_again().unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), 0);
    assert!(store.status().size <= 1, "{:?}", store.status());
}

#[tokio::test]
async fn a_query_that_would_change_something_is_refused() {
    let world = World::shared().await;
    let error = world.store.read("SELECT jetcopy.expire_staged_files()", &[], None).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    let limit = "SELECT current_setting('statement_timeout')";
    let rows = world.store.read(limit, &[], None).await.unwrap();
    assert_eq!(rows[0].get::<_, &str>(0), "61s", "the server ends what the client has given up");
    let own = world.store.once(async |client| Ok(client.query_typed(limit, &[]).await?)).await.unwrap();
    assert_eq!(own[0].get::<_, &str>(0), "0", "nothing of a query stays in the session");
}

#[tokio::test]
async fn an_answer_has_no_more_rows_and_bytes_than_its_bounds_and_says_so() {
    let world = World::shared().await;
    world
        .execute(
            "INSERT INTO projects (id, name, updated_at) SELECT n, repeat('x', 1000), now() \
                     FROM generate_series(1, 50) n",
        )
        .await;
    let call = Call::parse("find_projects", []).unwrap();
    let ask = async |rows, bytes| world.store.ask(&call, &Bounds { rows, bytes }).await;
    for (rows, found, truncated) in
        [(Some(49), 49, true), (Some(50), 50, false), (Some(0), 0, true), (None, 50, false)]
    {
        let answer = ask(rows, Some(100_000)).await.unwrap();
        assert_eq!((answer.truncated(), answer.texts(false).rows.len()), (truncated, found));
    }
    let error = ask(None, Some(40_000)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge(40_000)), "{error:?}");
    assert_eq!(ask(Some(30), Some(40_000)).await.unwrap().texts(false).rows.len(), 30);
}

#[tokio::test]
async fn reads_work_through_a_transaction_pooler() {
    let options = PostgresOptions::plain();
    let server = TestPostgres::start(&options).unwrap();
    let Some(bouncer) = TestPgBouncer::start_or_skip(&server).unwrap() else { return };
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    // More sessions than the pooler has at the server.
    let options = Options { connections: 6, ..Options::default() };
    let store = Store::open(&settings(&bouncer.url(&url)), &options).unwrap();
    let readers = (0..6_i64).map(|reader| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..50_i64 {
                let sql = format!("SELECT {} + $1", reader * 1_000);
                let rows = store.read(&sql, &[(&n, Type::INT8)], None).await.unwrap();
                assert_eq!(rows[0].get::<_, i64>(0), reader * 1_000 + n);
                let error = store.read("SELECT 1 / 0", &[], None).await.unwrap_err();
                assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    assert_eq!(projects(&store).await.unwrap(), 0);
}

#[tokio::test]
async fn wrong_settings_are_told_at_once() {
    let error = Store::open(&settings("postgres://a:b:c"), &Options::default());
    assert!(matches!(error, Err(StoreError::Connect(connect::ConnectError::Config { .. }))), "{error:?}");
    let world = World::shared().await;
    let absent = world.url.rsplit_once('/').unwrap().0.to_owned() + "/absent";
    let store = Store::open(&settings(&absent), &Options::default()).unwrap();
    let error = projects(&store).await.unwrap_err();
    assert!(matches!(error, StoreError::Connect(connect::ConnectError::Refused { .. })), "{error:?}");
}
