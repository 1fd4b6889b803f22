//! Compression is compared with how far back a stream can reach.

use async_nats::jetstream::{self, stream::Config as StreamConfig};

use super::*;
use crate::testbed::{TestNats, TestPostgres, connect};

#[tokio::test]
async fn a_streams_horizon_is_its_limit_or_else_the_age_of_its_oldest_message() {
    let server = TestNats::shared().unwrap();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let horizon = async |name: &str, max_age: Duration| {
        let config = StreamConfig { name: name.into(), max_age, ..StreamConfig::default() };
        context.create_stream(config).await.unwrap();
        of_stream(context.get_stream(name).await.unwrap().cached_info())
    };
    assert_eq!(horizon("HORIZON_LIMIT", Duration::from_hours(3)).await, Duration::from_hours(3));
    assert_eq!(horizon("HORIZON_EMPTY", Duration::ZERO).await, Duration::ZERO);
    context.publish("HORIZON_EMPTY", "x".into()).await.unwrap().await.unwrap();
    let mut info = context.get_stream("HORIZON_EMPTY").await.unwrap().cached_info().clone();
    info.state.first_timestamp -= Duration::from_hours(2);
    let found = of_stream(&info);
    assert!((Duration::from_hours(2)..Duration::from_hours(3)).contains(&found), "{found:?}");
}

#[tokio::test]
async fn compression_before_the_horizon_is_a_warning_that_knows_the_cost() {
    let Some(server) = TestPostgres::shared_timescaledb().unwrap() else { return };
    let client = connect(&server.create_database().await.unwrap()).await.unwrap();
    client
        .batch_execute(
            "CREATE EXTENSION timescaledb;
             CREATE TABLE t (time timestamptz NOT NULL, id int);
             SELECT create_hypertable('t', 'time');
             ALTER TABLE t SET (timescaledb.compress);
             SELECT add_compression_policy('t', compress_after => interval '1 day')",
        )
        .await
        .unwrap();
    let mut table = Table { qualified: "public.t".into(), ..Table::default() };
    let said = async |table: &Table, hours: u64| {
        let mut report = Findings::default();
        judge(&client, "table t", table, Duration::from_hours(hours), &mut report).await;
        report.text(false)
    };
    assert_eq!(said(&table, 24).await, "no errors, no warnings\n");
    let text = said(&table, 25).await;
    assert!(text.starts_with("warn  table t: chunks are compressed after 1d"), "{text}");
    assert!(text.contains("up to 25h old") && text.contains("stay uncompressed until"), "{text}");
    table.unique_keys = vec![vec!["id".into(), "time".into()]];
    let text = said(&table, 25).await;
    assert!(text.contains("compressed rows, which is many times slower"), "{text}");
}
