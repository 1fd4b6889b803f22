//! What the queries answer.

use std::time::Duration;

use super::super::frames::{Detection, DetectionFilter, Width};
use super::super::measurements::MeasurementFilter;
use super::super::series::{SeriesFilter, SeriesMetadata};
use super::*;

fn day(since: &str, until: &str) -> Span {
    Span { since: Some(time(since)), until: Some(time(until)) }
}

/// Room for rows of a day long ago.
async fn room(world: &World, day: &str) {
    let sql = format!(
        "SELECT jetcopy.add_partition(c.oid::regclass, '{day}')
         FROM pg_class c WHERE relkind = 'p' AND relnamespace = 'public'::regnamespace"
    );
    world.execute(&sql).await;
}

#[tokio::test]
async fn the_latest_frame_of_each_camera_is_found_and_no_other() {
    for world in World::both().await {
        world.past_days(3).await;
        world
            .execute(
                "INSERT INTO frame_metadata (time, camera_id, frame_id) VALUES
                    (now() - interval '3 s', 'a', 1), (now() - interval '2 s', 'b', 2), (now() - interval '1 s', 'a', 3)",
            )
            .await;
        let latest = |camera| world.store.latest_frames(camera, None);
        let found: Vec<_> =
            latest(None).await.unwrap().into_iter().map(|frame| (frame.camera_id, frame.frame_id)).collect();
        assert_eq!(found, [("a".to_owned(), 3), ("b".to_owned(), 2)], "{}", world.name);
        assert_eq!(latest(Some("b")).await.unwrap()[0].frame_id, 2);
        assert!(latest(Some("c")).await.unwrap().is_empty());
        let frames = world.store.frames("a", Span::default(), Some(1)).await.unwrap();
        assert_eq!(frames.iter().map(|frame| frame.frame_id).collect::<Vec<_>>(), [3]);
    }
}

#[tokio::test]
async fn detections_are_found_by_camera_label_and_confidence_and_without_any() {
    for world in World::both().await {
        world.past_days(3).await;
        world
            .execute(
                "INSERT INTO detection_events (time, camera_id, frame_id, label, confidence) VALUES
                    (now() - interval '5 s', 'a', 1, 'car', 0.9), (now() - interval '4 s', 'b', 2, 'dog', 0.4),
                    (now() - interval '3 s', 'a', 3, NULL, 0.5), (now() - interval '2 s', 'b', 4, 'car', 0.2),
                    (now() - interval '2 days', 'b', 5, 'car', 0.9)",
            )
            .await;
        let all = DetectionFilter::default;
        let ids = |found: Vec<Detection>| -> Vec<i64> { found.iter().map(|row| row.frame_id).collect() };
        for (filter, expected) in [
            (all(), &[4, 3, 2, 1][..]),
            (DetectionFilter { max_rows: Some(2), ..all() }, &[4, 3]),
            (DetectionFilter { min_confidence: Some(0.5), ..all() }, &[3, 1]),
            (DetectionFilter { label: Some("car".into()), ..all() }, &[4, 1]),
            (DetectionFilter { camera: Some("a".into()), ..all() }, &[3, 1]),
            (DetectionFilter { camera: Some("b".into()), label: Some("dog".into()), ..all() }, &[2]),
        ] {
            let found = ids(world.store.detections(&filter).await.unwrap());
            assert_eq!(found, expected, "{}: {filter:?}", world.name);
        }
    }
}

/// Detections of four days up to `moment`, three at each time: most of seven busy cameras, some of one that sees little, some
/// without a label or a confidence.
fn some_detections(moment: &str) -> String {
    format!(
        "INSERT INTO detection_events (time, camera_id, frame_id, label, confidence)
            SELECT timestamptz '{moment}' - n / 3 * interval '200 s', CASE WHEN n % 401 = 0 THEN 'few' ELSE 'cam-' || n % 7 END, n,
                CASE WHEN n % 601 = 0 THEN 'rare' WHEN n % 5 > 0 THEN 'label-' || n % 5 END, nullif(n % 11, 0) / 11.0
            FROM generate_series(1, 5000) n"
    )
}

/// Rows that come after their days were compressed, among them a camera and a label that those did not have.
fn late_detections(moment: &str) -> String {
    format!(
        "INSERT INTO detection_events (time, camera_id, frame_id, label, confidence)
            SELECT timestamptz '{moment}' - n * interval '999 s', CASE WHEN n % 3 = 0 THEN 'late' ELSE 'cam-' || n % 7 END, n,
                CASE WHEN n % 4 = 0 THEN 'later' ELSE 'label-2' END, 0.75
            FROM generate_series(1, 300) n"
    )
}

/// Asks in many ways, each of which a plain SELECT answers too.
async fn detections_are_those_of_a_plain_select(world: &World, moment: &str, state: &str) {
    let time = |age: &str| format!("timestamptz '{moment}' - interval '{age}'");
    let spans = [
        ("NULL".to_owned(), "NULL".to_owned()),
        (time("1 hour"), "NULL".to_owned()),
        (time("61 hours"), time("30 hours")),
        (time("1 hour"), time("2 hours")),
    ];
    for (since, until) in &spans {
        for camera in ["NULL", "'few'"] {
            for label in ["NULL", "'label-2'", "'rare'", "'later'"] {
                for (confidence, max_rows) in
                    [("NULL", "1"), ("NULL", "100"), ("0.5", "100"), ("0.5", "NULL")]
                {
                    let sql = format!(
                        "WITH plain AS (
                            SELECT time, camera_id, frame_id, track_id, label, confidence, bbox_left, bbox_top, bbox_width,
                                bbox_height, attributes
                            FROM detection_events
                            WHERE ({camera} IS NULL OR camera_id = {camera}) AND ({label} IS NULL OR label = {label})
                                AND ({confidence} IS NULL OR confidence >= {confidence})
                                AND ({since} IS NULL OR time >= {since}) AND ({until} IS NULL OR time < {until})
                        ), found AS (
                            SELECT * FROM jetcopy.detections({camera}, {label}, {confidence}, {since}, {until}, {max_rows})
                        )
                        SELECT ARRAY(SELECT time FROM found) = ARRAY(SELECT time FROM plain ORDER BY time DESC LIMIT {max_rows})
                            AND NOT EXISTS (TABLE found EXCEPT ALL TABLE plain)"
                    );
                    let same: bool = world.database.query_one(&sql, &[]).await.unwrap().get(0);
                    assert!(same, "{}, {state}: {sql}", world.name);
                }
            }
        }
    }
}

#[tokio::test]
async fn detections_are_the_newest_whatever_is_compressed_and_came_late() {
    for world in World::both().await {
        world.past_days(5).await;
        // What is asked once is not worth compiling.
        world.execute("SET jit = off").await;
        let moment: String =
            world.database.query_one("SELECT date_trunc('second', now())::text", &[]).await.unwrap().get(0);
        world.execute(&some_detections(&moment)).await;
        if world.name == "TimescaleDB" {
            detections_are_those_of_a_plain_select(&world, &moment, "uncompressed").await;
            world.apply_life_cycle().await;
            world.compress().await;
            detections_are_those_of_a_plain_select(&world, &moment, "compressed").await;
        }
        world.execute(&late_detections(&moment)).await;
        detections_are_those_of_a_plain_select(&world, &moment, "with late rows").await;
    }
}

#[tokio::test]
async fn measurements_are_summed_up_by_receiver_and_over_time() {
    for world in World::both().await {
        room(&world, "2026-07-01").await;
        world
            .execute(
                "INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz, snr_db, frequency_offset_hz) VALUES
                    ('2026-07-01 10:00Z', 't1', 'r2', 145.5, 10, 1), ('2026-07-01 10:30Z', 't1', 'r1', 145.5, 20, 2),
                    ('2026-07-01 11:00Z', 't1', 'r1', 145.5, NULL, 5), ('2026-07-01 11:30Z', 't2', 'r1', 433, 40, 7)",
            )
            .await;
        let span = day("2026-07-01T00:00:00Z", "2026-07-02T00:00:00Z");
        let all = MeasurementFilter { span, ..MeasurementFilter::default() };
        let store = &world.store;

        let recent = store.recent_measurements(&all, Some(3)).await.unwrap();
        assert_eq!(recent.iter().map(|row| row.task_id.as_str()).collect::<Vec<_>>(), ["t2", "t1", "t1"]);
        let of_task = MeasurementFilter { task: Some("t1".into()), receiver: Some("r1".into()), span };
        assert_eq!(store.recent_measurements(&of_task, None).await.unwrap().len(), 2);

        let session = store.session_measurements("t1", Span::default()).await.unwrap();
        let session: Vec<_> =
            session.iter().map(|row| (row.websdr_id.as_str(), row.frequency_offset_hz.unwrap())).collect();
        assert_eq!(session, [("r1", 2.0), ("r1", 5.0), ("r2", 1.0)], "{}", world.name);

        let snr = store.snr_statistics(&all).await.unwrap();
        let snr: Vec<_> = snr
            .iter()
            .map(|row| (row.measurements, row.snr_db_mean, row.snr_db_min, row.snr_db_max))
            .collect();
        assert_eq!(snr, [(2, Some(30.0), Some(20.0), Some(40.0)), (1, Some(10.0), Some(10.0), Some(10.0))]);

        let drift = store.frequency_drift(Some("r1"), None, None, span).await.unwrap();
        let drift: Vec<_> = drift.iter().map(|row| (row.offset_hz_mean.unwrap(), row.drift_hz)).collect();
        assert_eq!(drift, [(2.0, None), (6.0, Some(4.0))]);
        let one =
            store.frequency_drift(None, Some(433.0), Some(Duration::from_hours(24)), span).await.unwrap();
        assert_eq!((one.len(), one[0].offset_hz_mean), (1, Some(7.0)));
    }
}

#[tokio::test]
async fn a_series_is_had_as_rows_as_columns_downsampled_its_last_values_and_its_range() {
    for world in World::both().await {
        room(&world, "2026-07-01").await;
        world
            .execute(
                "INSERT INTO time_series_data_points (timestamp, series_id, column_name, value) VALUES
                    ('2026-07-01 10:00Z', 's', 'a', 1), ('2026-07-01 10:00Z', 's', 'b', 'NaN'),
                    ('2026-07-01 10:10Z', 's', 'a', 3), ('2026-07-01 11:00Z', 's', 'a', NULL),
                    ('2026-07-01 11:00Z', 's', 'b', 8), ('2026-07-01 11:00Z', 'other', 'c', 9)",
            )
            .await;
        let (store, all) = (&world.store, SeriesFilter::default());
        let names = |found: Vec<super::super::series::SeriesColumn>| -> Vec<String> {
            found.into_iter().map(|column| column.column_name).collect()
        };
        assert_eq!(names(store.series_columns("s", &all).await.unwrap()), ["a", "b"], "{}", world.name);

        let rows = store.series_rows("s", &all, Some(3)).await.unwrap();
        let rows: Vec<_> = rows.iter().map(|point| (point.column_name.as_str(), point.value)).collect();
        assert_eq!(rows, [("a", None), ("b", Some(8.0)), ("a", Some(3.0))]);
        let some = SeriesFilter {
            columns: Some(vec!["a".into()]),
            span: day("2026-07-01T10:00:00Z", "2026-07-01T10:10:00Z"),
        };
        assert_eq!(store.series_rows("s", &some, None).await.unwrap().len(), 1);

        let wide = store.series_wide("s", &all, None).await.unwrap();
        let wide: Vec<_> = wide.iter().map(|point| point.values.to_string()).collect();
        assert_eq!(wide, [r#"{"a":null,"b":8}"#, r#"{"a":3}"#, r#"{"a":1,"b":"NaN"}"#]);

        let buckets = store.series_downsampled("s", Duration::from_hours(1), &all).await.unwrap();
        let of_a: Vec<_> = buckets
            .iter()
            .filter(|bucket| bucket.column_name == "a")
            .map(|bucket| (bucket.bucket.to_string(), bucket.points, bucket.mean, bucket.max))
            .collect();
        assert_eq!(
            of_a,
            [
                ("2026-07-01T10:00:00Z".to_owned(), 2, Some(2.0), Some(3.0)),
                ("2026-07-01T11:00:00Z".to_owned(), 0, None, None)
            ]
        );

        let last = store.series_last("s", &all).await.unwrap();
        assert_eq!(last.iter().map(|point| point.value).collect::<Vec<_>>(), [None, Some(8.0)]);
        let range = store.series_range("s", &all).await.unwrap();
        assert_eq!(range[1].first_at, time("2026-07-01T10:00:00Z"));
        assert_eq!(range[1].last_at, time("2026-07-01T11:00:00Z"));

        let document = SeriesMetadata {
            id: "s".into(),
            name: Some("A series".into()),
            description: None,
            time_column: None,
            value_columns: Some(vec!["b".into()]),
            attributes: None,
            updated_at: time("2026-07-01T00:00:00Z"),
        };
        assert!(store.put(&document).await.unwrap());
        assert_eq!(store.get::<SeriesMetadata>(&["s"]).await.unwrap(), Some(document));
        assert_eq!(names(store.series_columns("s", &all).await.unwrap()), ["b"]);
        assert!(store.delete_series_metadata("s").await.unwrap());
        assert!(!store.delete_series_metadata("s").await.unwrap());
    }
}

#[tokio::test]
async fn counts_over_time_come_from_the_roll_ups() {
    let world = World::shared().await;
    if PrivatePostgres::shared().unwrap().lacks_timescaledb() {
        return;
    }
    world
        .execute(
            "INSERT INTO frame_metadata (time, camera_id, frame_id, key_frame, size_bytes) VALUES
                ('2026-07-01 10:00:01Z', 'a', 1, true, 100), ('2026-07-01 10:00:59Z', 'a', 2, false, 50),
                ('2026-07-01 10:01:00Z', 'a', 3, false, 7);
             INSERT INTO detection_events (time, camera_id, frame_id, label, confidence) VALUES
                ('2026-07-01 10:00:01Z', 'a', 1, 'car', 0.25), ('2026-07-01 10:00:59Z', 'a', 2, 'car', 0.75);
             INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz, snr_db) VALUES
                ('2026-07-01 10:00Z', 't', 'r', 145.5, 10), ('2026-07-01 11:00Z', 't', 'r', 145.5, 20)",
        )
        .await;
    for stats in ["frame_stats", "detection_stats"] {
        for width in ["1m", "1h", "1d"] {
            world.execute(&format!("CALL refresh_continuous_aggregate('{stats}_{width}', NULL, NULL)")).await;
        }
    }
    world.execute("CALL refresh_continuous_aggregate('measurements_daily', NULL, NULL)").await;

    let (store, span) = (&world.store, day("2026-07-01T00:00:00Z", "2026-07-02T00:00:00Z"));
    for (width, expected) in [
        (Width::Minute, &[(2, 1, Some(150)), (1, 0, Some(7))][..]),
        (Width::Hour, &[(3, 1, Some(157))]),
        (Width::Day, &[(3, 1, Some(157))]),
    ] {
        let counts = store.frame_counts(width, Some("a"), span).await.unwrap();
        let counts: Vec<_> =
            counts.iter().map(|count| (count.frames, count.key_frames, count.bytes)).collect();
        assert_eq!(counts, expected);
        let counts = store.detection_counts(width, None, Some("car"), span).await.unwrap();
        let counts: Vec<_> = counts.iter().map(|count| (count.detections, count.confidence_mean)).collect();
        assert_eq!(counts, [(2, Some(0.5))]);
    }
    let days = store.measurement_days(Some("r"), span).await.unwrap();
    assert_eq!((days.len(), days[0].measurements, days[0].snr_db_mean), (1, 2, Some(15.0)));
}
