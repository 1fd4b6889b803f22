//! A table whose rows would lie uncompressed is refused with the reason.

use super::*;
use crate::testbed::{Need, PostgresOptions, TestPostgres, connect, leave_out};

async fn refusal(client: &Client, table: &str) -> Option<String> {
    match require(client, table).await {
        Ok(()) => None,
        Err(DirectCompressError::Refused { reason, .. }) => Some(reason),
        Err(error @ DirectCompressError::Query { .. }) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_table_that_would_be_stored_uncompressed_is_refused_with_the_reason() {
    let Some(server) = TestPostgres::shared_timescaledb().unwrap() else { return };
    let client = connect(&server.create_database().await.unwrap()).await.unwrap();
    let create = "CREATE EXTENSION timescaledb; CREATE TABLE t (time timestamptz NOT NULL, id int)";
    client.batch_execute(create).await.unwrap();
    let expect = async |change: &str, reason: Option<&str>| {
        client.batch_execute(change).await.unwrap();
        let found = refusal(&client, "t").await;
        match reason {
            None => assert_eq!(found, None, "{change}"),
            Some(reason) => {
                assert!(found.as_ref().is_some_and(|found| found.contains(reason)), "{change}: {found:?}");
            }
        }
    };
    expect("", Some("not a hypertable")).await;
    expect("SELECT create_hypertable('t', 'time')", Some("compression is not enabled")).await;
    expect("ALTER TABLE t SET (timescaledb.compress, timescaledb.compress_segmentby = 'id')", None).await;
    expect("CREATE UNIQUE INDEX one ON t (id, time)", Some("unique index")).await;
    expect("DROP INDEX one", None).await;
    expect(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
        Some("triggers"),
    )
    .await;
    expect("DROP TRIGGER f ON t", None).await;
    // A continuous aggregate stands against it in older versions only.
    expect(
        "CREATE MATERIALIZED VIEW sums WITH (timescaledb.continuous) AS
         SELECT time_bucket('1 day', time), count(*) FROM t GROUP BY 1 WITH NO DATA",
        None,
    )
    .await;
}

#[tokio::test]
async fn plain_postgresql_and_the_apache_licence_are_refused() {
    let options = PostgresOptions::plain();
    let server = TestPostgres::start(&options).unwrap();
    let client = connect(&server.url()).await.unwrap();
    client.batch_execute("CREATE TABLE t (time timestamptz NOT NULL)").await.unwrap();
    assert_eq!(refusal(&client, "t").await.unwrap(), "TimescaleDB is not installed");

    let settings = vec![("timescaledb.license".to_owned(), "apache".to_owned())];
    let server = TestPostgres::start(&PostgresOptions { settings, ..PostgresOptions::default() }).unwrap();
    if !server.has_timescaledb() {
        leave_out(Need::TimescaleDb, "the Apache licence");
        return;
    }
    let client = connect(&server.create_database().await.unwrap()).await.unwrap();
    client
        .batch_execute("CREATE EXTENSION timescaledb; CREATE TABLE t (time timestamptz NOT NULL)")
        .await
        .unwrap();
    let reason = refusal(&client, "t").await.unwrap();
    assert!(reason.contains("Apache"), "{reason}");
}
