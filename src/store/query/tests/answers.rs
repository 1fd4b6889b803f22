//! What the queries answer.

use serde_json::json;

use super::*;

/// A day, as words.
const DAY: [&str; 2] = ["since=2026-07-01", "until=2026-07-02"];

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
                    (now() - interval '3 s', 'a', 1), (now() - interval '2 s', 'b', 2),
                    (now() - interval '1 s', 'a', 3)",
            )
            .await;
        let latest = world.pick(["camera_id", "frame_id"], "latest_frames", &[]).await;
        assert_eq!(latest, [[json!("a"), json!(3)], [json!("b"), json!(2)]], "{}", world.name);
        assert_eq!(world.pick(["frame_id"], "latest_frames", &["camera=b"]).await, [[2]]);
        assert!(world.ask("latest_frames", &["camera=c"]).await.is_empty());
        assert_eq!(world.pick(["frame_id"], "frames", &["camera=a", "max_rows=1"]).await, [[3]]);
        assert_eq!(world.pick(["frame_id"], "recent_frames", &["max_rows=2"]).await, [[3], [2]]);
    }
}

/// Frames of two days up to `moment`, of cameras that record around the clock, now and then, and once.
fn some_frames(moment: &str) -> String {
    format!(
        "INSERT INTO frame_metadata (time, camera_id, frame_id, brightness)
            SELECT timestamptz '{moment}' - n * interval '70 s', CASE WHEN n % 500 = 0 THEN 'few' WHEN n = 777
                THEN 'once'
                ELSE 'cam-' || n % 7 END, n, n % 11
            FROM generate_series(1, 2500) n"
    )
}

#[tokio::test]
async fn the_newest_frames_of_all_cameras_are_those_of_a_plain_select_whatever_is_compressed() {
    for world in World::both().await {
        world.past_days(4).await;
        world.execute("SET jit = off").await;
        let moment: String =
            world.database.query_one("SELECT date_trunc('second', now())::text", &[]).await.unwrap().get(0);
        world.execute(&some_frames(&moment)).await;
        if world.name == "TimescaleDB" {
            world.apply_life_cycle().await;
            world.compress().await;
        }
        let time = |age: &str| format!("timestamptz '{moment}' - interval '{age}'");
        for (since, until) in [
            ("NULL".to_owned(), "NULL".to_owned()),
            (time("1 hour"), "NULL".to_owned()),
            (time("40 hours"), time("20 hours")),
            (time("1 hour"), time("2 hours")),
        ] {
            for max_rows in ["1", "100", "NULL"] {
                let sql = format!(
                    "WITH plain AS (
                        SELECT * FROM frame_metadata
                        WHERE ({since} IS NULL OR time >= {since}) AND ({until} IS NULL OR time < {until})
                    ), found AS (SELECT * FROM jetcopy.recent_frames({since}, {until}, {max_rows}))
                    SELECT ARRAY(SELECT frame_id FROM found)
                        = ARRAY(SELECT frame_id FROM plain ORDER BY time DESC LIMIT {max_rows})"
                );
                let same: bool = world.database.query_one(&sql, &[]).await.unwrap().get(0);
                assert!(same, "{}: {sql}", world.name);
            }
        }
    }
}

#[tokio::test]
async fn detections_are_found_by_camera_label_and_confidence_and_without_any() {
    for world in World::both().await {
        world.past_days(3).await;
        world
            .execute(
                "INSERT INTO detection_events (time, camera_id, frame_id, label, confidence) VALUES
                    (now() - interval '5 s', 'a', 1, 'car', 0.9),
                    (now() - interval '4 s', 'b', 2, 'dog', 0.4),
                    (now() - interval '3 s', 'a', 3, NULL, 0.5), (now() - interval '2 s', 'b', 4, 'car', 0.2),
                    (now() - interval '2 days', 'b', 5, 'car', 0.9)",
            )
            .await;
        for (words, expected) in [
            (&[][..], &[4, 3, 2, 1][..]),
            (&["max_rows=2"], &[4, 3]),
            (&["min_confidence=0.5"], &[3, 1]),
            (&["labelled=car"], &[4, 1]),
            (&["camera=a"], &[3, 1]),
            (&["camera=b", "labelled=dog"], &[2]),
        ] {
            let found = world.pick(["frame_id"], "detections", words).await;
            let found: Vec<i64> = found.iter().map(|[id]| id.as_i64().unwrap()).collect();
            assert_eq!(found, expected, "{}: {words:?}", world.name);
        }
    }
}

/// Detections of four days up to `moment`, three at each time: most of seven busy cameras, some of one that
/// sees little, some without a label or a confidence.
fn some_detections(moment: &str) -> String {
    format!(
        "INSERT INTO detection_events (time, camera_id, frame_id, label, confidence)
            SELECT timestamptz '{moment}' - n / 3 * interval '200 s', CASE WHEN n % 401 = 0 THEN 'few'
                ELSE 'cam-' || n % 7 END, n,
                CASE WHEN n % 601 = 0 THEN 'rare' WHEN n % 5 > 0 THEN 'label-' || n % 5 END,
                    nullif(n % 11, 0) / 11.0
            FROM generate_series(1, 5000) n"
    )
}

/// Rows that come after their days were compressed, among them a camera and a label that those did not have.
fn late_detections(moment: &str) -> String {
    format!(
        "INSERT INTO detection_events (time, camera_id, frame_id, label, confidence)
            SELECT timestamptz '{moment}' - n * interval '999 s', CASE WHEN n % 3 = 0 THEN 'late'
                ELSE 'cam-' || n % 7 END, n,
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
                            SELECT time, camera_id, frame_id, track_id, label, confidence, bbox_left,
                                bbox_top, bbox_width,
                                bbox_height, attributes
                            FROM detection_events
                            WHERE ({camera} IS NULL OR camera_id = {camera})
                                AND ({label} IS NULL OR label = {label})
                                AND ({confidence} IS NULL OR confidence >= {confidence})
                                AND ({since} IS NULL OR time >= {since})
                                AND ({until} IS NULL OR time < {until})
                        ), found AS (
                            SELECT * FROM jetcopy.detections({camera}, {label}, {confidence}, {since},
                                {until}, {max_rows})
                        )
                        SELECT ARRAY(SELECT time FROM found) =
                            ARRAY(SELECT time FROM plain ORDER BY time DESC LIMIT {max_rows})
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
                "INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz, snr_db,
                    frequency_offset_hz) VALUES
                    ('2026-07-01 10:00Z', 't1', 'r2', 145.5, 10, 1),
                    ('2026-07-01 10:30Z', 't1', 'r1', 145.5, 20, 2),
                    ('2026-07-01 11:00Z', 't1', 'r1', 145.5, NULL, 5),
                    ('2026-07-01 11:30Z', 't2', 'r1', 433, 40, 7)",
            )
            .await;
        let ask = async |query: &str, words: &[&str]| world.ask(query, &[&DAY[..], words].concat()).await;

        let recent = ask("recent_measurements", &["max_rows=3"]).await;
        assert_eq!(recent.iter().map(|row| &row["task_id"]).collect::<Vec<_>>(), ["t2", "t1", "t1"]);
        assert_eq!(ask("recent_measurements", &["task=t1", "receiver=r1"]).await.len(), 2);
        let at = ask("recent_measurements", &["frequency=433"]).await;
        assert_eq!((at.len(), &at[0]["task_id"]), (1, &json!("t2")), "{}", world.name);

        let session =
            world.pick(["websdr_id", "frequency_offset_hz"], "session_measurements", &["task=t1"]).await;
        assert_eq!(
            session,
            [[json!("r1"), json!(2.0)], [json!("r1"), json!(5.0)], [json!("r2"), json!(1.0)]]
        );

        let snr = ask("snr_statistics", &[]).await;
        let columns = ["measurements", "snr_db_mean", "snr_db_min", "snr_db_max"];
        let snr: Vec<_> = snr.iter().map(|row| columns.map(|column| row[column].as_f64().unwrap())).collect();
        assert_eq!(snr, [[2.0, 30.0, 20.0, 40.0], [1.0, 10.0, 10.0, 10.0]]);

        let drift = async |words: &[&str]| {
            let rows = ask("frequency_drift", words).await;
            rows.iter()
                .map(|row| (row["offset_hz_mean"].clone(), row["drift_hz"].clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(drift(&["receiver=r1"]).await, [(json!(2.0), Json::Null), (json!(6.0), json!(4.0))]);
        assert_eq!(drift(&["frequency=433", "width=1day"]).await, [(json!(7.0), Json::Null)]);
        assert_eq!(
            drift(&["task=t1", "receiver=r1"]).await,
            [(json!(2.0), Json::Null), (json!(5.0), json!(3.0))]
        );
    }
}

#[tokio::test]
async fn queries_of_measurements_name_the_receiver_where_it_is_known() {
    for world in World::both().await {
        room(&world, "2026-07-01").await;
        world
            .execute(
                "INSERT INTO websdrs (id, name, location, url, active, updated_at) VALUES
                    ('r1', 'First', 'A hill', 'http://r1', true, now()),
                    ('r3', 'Third', NULL, NULL, false, now());
                 INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz) VALUES
                    ('2026-07-01 10:00Z', 't', 'r1', 7.1), ('2026-07-01 10:01Z', 't', 'r2', 7.1)",
            )
            .await;
        for (query, words) in [
            ("recent_measurements", &["task=t"][..]),
            ("session_measurements", &["task=t"]),
            ("snr_statistics", &["since=2026-07-01"]),
            ("frequency_drift", &["since=2026-07-01"]),
        ] {
            let mut found = world.pick(["websdr_id", "receiver_name"], query, words).await;
            found.sort_by_key(|[id, _]| id.to_string());
            assert_eq!(
                found,
                [[json!("r1"), json!("First")], [json!("r2"), Json::Null]],
                "{} {query}",
                world.name
            );
        }
        assert_eq!(world.pick(["id"], "receivers", &[]).await, [["r1"], ["r3"]]);
        assert_eq!(
            world.pick(["id", "location"], "receivers", &["is_active=true"]).await,
            [["r1", "A hill"]]
        );
        assert_eq!(world.pick(["id"], "receivers", &["receiver=r3"]).await, [["r3"]]);
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
        let columns = async || world.pick(["column_name"], "series_columns", &["series=s"]).await;
        assert_eq!(columns().await, [["a"], ["b"]], "{}", world.name);

        let rows = world.pick(["column_name", "value"], "series_rows", &["series=s", "max_rows=3"]).await;
        assert_eq!(rows, [[json!("a"), Json::Null], [json!("b"), json!(8.0)], [json!("a"), json!(3.0)]]);
        let some = ["series=s", "columns=a", "since=2026-07-01T10:00:00Z", "until=2026-07-01T10:10:00Z"];
        assert_eq!(world.ask("series_rows", &some).await.len(), 1);

        let wide = world.pick(["values"], "series_wide", &["series=s"]).await;
        assert_eq!(wide, [[json!({"a": null, "b": 8})], [json!({"a": 3})], [json!({"a": 1, "b": "NaN"})]]);

        let buckets = world.ask("series_downsampled", &["series=s", "width=1h", "columns=a"]).await;
        let bucket = |hour: u8, points: u8, mean: Json, least: Json, most: Json| {
            json!({"bucket": format!("2026-07-01T{hour}:00:00Z"), "column_name": "a", "points": points,
                "mean": mean, "min": least, "max": most})
        };
        let none = Json::Null;
        let expected = [
            bucket(10, 2, json!(2.0), json!(1.0), json!(3.0)),
            bucket(11, 0, none.clone(), none.clone(), none),
        ];
        assert_eq!(buckets, expected);

        let last = world.pick(["value"], "series_last", &["series=s"]).await;
        assert_eq!(last, [[Json::Null], [json!(8.0)]]);
        let range = world.pick(["first_at", "last_at"], "series_range", &["series=s", "columns=b"]).await;
        assert_eq!(range, [["2026-07-01T10:00:00Z", "2026-07-01T11:00:00Z"]]);

        world
            .execute(
                "INSERT INTO time_series_metadata (id, value_columns, updated_at) VALUES ('s', '{b}', now())",
            )
            .await;
        assert_eq!(columns().await, [["b"]]);
    }
}

#[tokio::test]
async fn counts_over_time_come_from_the_roll_ups() {
    let world = World::shared().await;
    if TestPostgres::shared().unwrap().lacks_timescaledb() {
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

    for (width, expected) in
        [("1m", &[[2, 1, 150], [1, 0, 7]][..]), ("1h", &[[3, 1, 157]]), ("1d", &[[3, 1, 157]])]
    {
        let width = format!("width={width}");
        let words = [&DAY[..], &[&width, "camera=a"]].concat();
        assert_eq!(world.pick(["frames", "key_frames", "bytes"], "frame_counts", &words).await, expected);
        let words = [&DAY[..], &[&width, "labelled=car"]].concat();
        let counts = world.pick(["detections", "confidence_mean"], "detection_counts", &words).await;
        assert_eq!(counts, [[json!(2), json!(0.5)]]);
    }
    let days = world.ask("measurement_days", &[&DAY[..], &["receiver=r"]].concat()).await;
    assert_eq!((days.len(), &days[0]["measurements"], &days[0]["snr_db_mean"]), (1, &json!(2), &json!(15.0)));
}
