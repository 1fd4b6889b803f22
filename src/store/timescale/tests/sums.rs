//! Roll-ups as TimescaleDB makes them, compared with the rows.

use super::*;

#[tokio::test]
async fn the_roll_ups_have_the_columns_of_the_catalog() {
    let server = TestPostgres::shared().unwrap();
    let Some(url) = database(&server).await else { return };
    let client = connect_to(&url).await.unwrap();
    for rollup in &ROLLUPS {
        let sql = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
                   WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum";
        let found: Vec<(String, String)> = client
            .query(sql, &[&rollup.name])
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let expected: Vec<(String, String)> = [(catalog::BUCKET, "timestamp with time zone")]
            .into_iter()
            .chain(rollup.keys.iter().map(|key| (*key, "text")))
            .chain(rollup.aggregates.iter().map(|aggregate| (aggregate.column, aggregate.sql_type)))
            .map(|(name, sql_type)| (name.to_owned(), sql_type.to_owned()))
            .collect();
        assert_eq!(found, expected, "{}", rollup.name);
    }
}

/// Rows of the last ten days, of everything that the store sums up. Values are multiples of a quarter, whose
/// sums are exact in whatever order they are added.
const FILL: &str = "
    INSERT INTO frame_metadata (time, camera_id, frame_id, key_frame, size_bytes, processing_ms, brightness,
        motion)
    SELECT now() - n * interval '199 seconds', 'cam-' || n % 7, n, n % 25 = 0, 1000 + n % 997, n % 40 / 4.0,
        CASE WHEN n % 5 > 0 THEN n % 11 / 4.0 END, n % 3 / 4.0
    FROM generate_series(1, 4343) n;
    INSERT INTO detection_events (time, camera_id, frame_id, label, confidence)
    SELECT now() - n * interval '199 seconds', 'cam-' || n % 7, n, CASE WHEN n % 13 > 0 THEN 'label-' || n % 3
        END,
        n % 5 / 4.0
    FROM generate_series(1, 4343) n;
    INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz, snr_db, frequency_offset_hz)
    SELECT now() - n * interval '199 seconds', 'task', 'sdr-' || n % 3, 145, n % 30 / 4.0, n % 7 / 4.0 - 1
    FROM generate_series(1, 4343) n";

/// The buckets of a roll-up that differ from the same sums over the rows of its table, of whole days within
/// the refresh of every roll-up.
async fn differences(client: &Client, rollup: &Rollup) -> (i64, i64) {
    let table = rollup.table();
    // Over rows, whatever the roll-up is made from.
    let sums: Vec<String> =
        rollup.aggregates.iter().map(|sum| format!("{} AS {}", sum.of_rows, sum.column)).collect();
    let sql = format!(
        "WITH raw AS (SELECT time_bucket('{interval}', {time}) AS bucket, {keys}, {sums} FROM {table}
                WHERE {time} >= date_trunc('day', now(), 'UTC') - interval '5 days'
                    AND {time} < date_trunc('day', now(), 'UTC')
                GROUP BY 1, {keys}),
            rolled AS (SELECT * FROM {name}
                WHERE bucket >= date_trunc('day', now(), 'UTC') - interval '5 days'
                    AND bucket < date_trunc('day', now(), 'UTC'))
         SELECT (SELECT count(*) FROM raw), count(*)
         FROM ((SELECT * FROM raw EXCEPT SELECT * FROM rolled)
             UNION ALL (SELECT * FROM rolled EXCEPT SELECT * FROM raw)) x",
        interval = rollup.bucket.interval(),
        time = table.time,
        keys = rollup.keys.join(", "),
        sums = sums.join(", "),
        table = table.name,
        name = rollup.name,
    );
    let row = client.query_one(&sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn the_jobs_sum_up_compress_and_drop_and_the_sums_equal_those_over_the_rows() {
    let server = TestPostgres::shared().unwrap();
    let Some(url) = database(&server).await else { return };
    let client = connect_to(&url).await.unwrap();
    stop_jobs(&client).await.unwrap();
    client.batch_execute(FILL).await.unwrap();
    lines(&url, &config::Store::default()).await;

    for rollup in &ROLLUPS {
        run_job(&client, rollup.name, "policy_refresh_continuous_aggregate").await;
    }
    for rollup in &ROLLUPS {
        let (buckets, different) = differences(&client, rollup).await;
        assert!(buckets > 0, "{}", rollup.name);
        assert_eq!(different, 0, "{}", rollup.name);
    }

    for table in &TABLES[..2] {
        let count =
            format!("SELECT count(*), min({}) > now() - interval '8 days' FROM {}", table.time, table.name);
        let compressed =
            "SELECT count(*) FILTER (WHERE is_compressed), count(*) FILTER (WHERE NOT is_compressed),
                bool_and(is_compressed = (range_end < now() - interval '1 day'))
            FROM timescaledb_information.chunks WHERE hypertable_name = $1";
        run_job(&client, table.name, "policy_retention").await;
        let row = client.query_one(&count, &[]).await.unwrap();
        let (kept, young): (i64, bool) = (row.get(0), row.get(1));
        assert!(kept < 4343 && young, "{kept}");
        run_job(&client, table.name, "policy_compression").await;
        let row = client.query_one(compressed, &[&table.name]).await.unwrap();
        assert!(row.get::<_, i64>(0) > 0 && row.get::<_, i64>(1) > 0 && row.get(2), "{row:?}");
        assert_eq!(client.query_one(&count, &[]).await.unwrap().get::<_, i64>(0), kept);
    }

    // What was summed up stays when its rows are dropped, and refreshing again does not empty it.
    let old = "SELECT count(*) FROM frame_stats_1d WHERE bucket < now() - interval '9 days'";
    let old_minutes = "SELECT coalesce(sum(frames), 0)::bigint FROM frame_stats_1m";
    let before: i64 = client.query_one(old_minutes, &[]).await.unwrap().get(0);
    run_job(&client, "frame_stats_1m", "policy_refresh_continuous_aggregate").await;
    assert_eq!(client.query_one(old_minutes, &[]).await.unwrap().get::<_, i64>(0), before);
    assert_eq!(client.query_one(old, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn late_rows_reach_a_compressed_chunk_and_the_roll_ups() {
    let server = TestPostgres::shared().unwrap();
    let Some(url) = database(&server).await else { return };
    let client = connect_to(&url).await.unwrap();
    stop_jobs(&client).await.unwrap();
    client.batch_execute(FILL).await.unwrap();
    lines(&url, &config::Store::default()).await;
    run_job(&client, "frame_metadata", "policy_compression").await;
    run_job(&client, "frame_stats_1m", "policy_refresh_continuous_aggregate").await;
    client
        .batch_execute(
            "INSERT INTO frame_metadata (time, camera_id, frame_id)
             SELECT now() - interval '4 days', 'late', n FROM generate_series(1, 100) n",
        )
        .await
        .unwrap();
    for rollup in ["frame_stats_1m", "frame_stats_1h", "frame_stats_1d"] {
        run_job(&client, rollup, "policy_refresh_continuous_aggregate").await;
        let sql = format!("SELECT sum(frames)::bigint FROM {rollup} WHERE camera_id = 'late'");
        assert_eq!(
            client.query_one(&sql, &[]).await.unwrap().get::<_, Option<i64>>(0),
            Some(100),
            "{rollup}"
        );
    }
}
