//! Time series: real ones line by line, and the same in messages of many points.

use std::path::Path;

use serde_json::{Value, json};

use super::{carry, digest, jetcopy, publish, publish_file};
use crate::support::{World, days_ago, shared_data};

/// Time, in text, and value, as the file has them.
type Line = (String, f64);

fn lines(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap();
    let line =
        |line: &str| line.split_once(',').map(|(time, value)| (time.to_owned(), value.parse().unwrap()));
    text.lines().skip(1).map(|text| line(text).unwrap()).collect()
}

/// Both in one order.
fn in_order(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    lines
}

/// A world with partitions for the days of the files, which are older than those that are added on demand.
async fn world_of_old_days() -> World {
    let world = World::new().await;
    let sql = "SELECT count(jetcopy.add_partition(relation, day::date))
        FROM jetcopy.partitioned_tables, generate_series(date '2013-12-01', '2015-12-31', '1 day') AS day
        WHERE relation = 'time_series_data_points'::regclass";
    world.database.batch_execute(sql).await.unwrap();
    world
}

async fn stored(world: &World, series: &str) -> Vec<Line> {
    let sql = "SELECT to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), value \
        FROM time_series_data_points
        WHERE series_id = $1 AND column_name = 'value'";
    let rows = world.database.query(sql, &[&series]).await.unwrap();
    in_order(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

#[tokio::test]
async fn real_series_published_from_their_files_are_stored_to_the_digit() {
    let Some(directory) = shared_data("series") else { return };
    let world = world_of_old_days().await;
    let mut expected = Vec::new();
    for entry in directory.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let series = path.file_stem().unwrap().to_str().unwrap().to_owned();
        publish_file(&world, &format!("{series}.row"), &path).await;
        expected.push((series, in_order(lines(&path))));
    }
    let _daemon = carry(&world, "series").await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    let mut points = 0;
    for (series, lines) in expected {
        let stored = stored(&world, &series).await;
        let sum = |lines: &[Line]| lines.iter().map(|(_, value)| value).sum::<f64>();
        assert_eq!(sum(&stored).to_bits(), sum(&lines).to_bits(), "{series}");
        assert_eq!(stored, lines, "{series}");
        points += stored.len();
    }
    assert!(points > 0);
    assert_eq!(
        world.count("SELECT count(*) FROM time_series_data_points").await,
        i64::try_from(points).unwrap(),
        "nothing else is there"
    );
}

/// The same file, in messages of a hundred rows or points.
#[tokio::test]
async fn many_points_a_message_in_long_and_in_wide_form_are_the_same_as_one_a_message() {
    let Some(directory) = shared_data("series") else { return };
    let path = directory.join("speed_7578.csv");
    let lines = lines(&path);
    let long = |(time, value): &Line| json!({"timestamp": time, "column": "value", "value": value});
    let wide = |(time, value): &Line| json!({"timestamp": time, "value": value});
    let world = world_of_old_days().await;
    publish_file(&world, "one.row", &path).await;
    let hundreds = |point: &dyn Fn(&Line) -> Value, name: &str| -> Vec<Value> {
        lines.chunks(100).map(|lines| json!({name: lines.iter().map(point).collect::<Vec<_>>()})).collect()
    };
    publish(&world, "long.points", hundreds(&long, "points")).await;
    publish(&world, "wide.rows", hundreds(&wide, "rows")).await;
    let _daemon = carry(&world, "series").await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    let expected = in_order(lines.clone());
    for series in ["one", "long", "wide"] {
        assert_eq!(stored(&world, series).await, expected, "{series}");
    }
}

#[tokio::test]
async fn columns_of_wide_rows_are_points_and_what_is_no_number_is_null() {
    let world = World::new().await;
    let second = |n: i64| days_ago(5) + n * 1_000_000;
    let text = |n: i64, hours: i8, format: &str| {
        let time = jiff::Timestamp::from_microsecond(second(n)).unwrap();
        time.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(hours))).strftime(format).to_string()
    };
    let rows = json!({"rows": [
        {"timestamp": second(0), "temperature": 21.5, "humidity": "NaN"},
        {"timestamp": text(1, 0, "%Y-%m-%dT%H:%M:%S+00:00"), "humidity": null, "temperature": "warm"},
        {"timestamp": text(2, 2, "%Y-%m-%d %H:%M:%S+02:00"), "temperature": "-Infinity"},
    ]});
    publish(&world, "room.rows", [rows]).await;
    // {"timestamp": …, "temperature": NaN}, which JSON cannot say.
    let mut nan = b"\x82\xa9timestamp\xcf".to_vec();
    nan.extend_from_slice(&second(3).to_be_bytes());
    nan.extend_from_slice(b"\xabtemperature\xcb");
    nan.extend_from_slice(&f64::NAN.to_be_bytes());
    world.publish("room.row", [nan]).await;
    let _daemon = carry(&world, "series").await;
    let sql = format!(
        "SELECT extract(epoch FROM timestamp)::bigint - {}, column_name, value FROM time_series_data_points
        WHERE series_id = 'room' ORDER BY 1, 2",
        second(0) / 1_000_000
    );
    let found = world.database.query(&sql, &[]).await.unwrap();
    let found: Vec<(i64, &str, Option<f64>)> =
        found.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let expected = [
        (0, "humidity", None),
        (0, "temperature", Some(21.5)),
        (2, "temperature", None),
        (3, "temperature", None),
    ];
    assert_eq!(found, expected);
    // A row is stored whole or not at all.
    let sql = "SELECT message FROM jetcopy.dead_letters WHERE element = 1 AND column_name = 'value'";
    let message: String = world.database.query_one(sql, &[]).await.unwrap().get(0);
    assert!(message.ends_with("the field is the text \"temperature\""), "{message}");
}

#[tokio::test]
async fn the_last_document_of_a_series_counts() {
    let world = World::new().await;
    let document = |version: i64| {
        json!({"name": format!("Room {version}"), "description": "by the window", "time_column": "timestamp",
            "value_columns": ["temperature", "humidity"], "unit": {"temperature": "C"}, "version": version})
    };
    publish(&world, "room.metadata", (1..=5).map(document)).await;
    publish(&world, "hall.metadata", [json!({"name": "Hall"})]).await;
    let _daemon = carry(&world, "series").await;
    let sql = "SELECT name, description, value_columns, attributes::text FROM time_series_metadata WHERE id \
               = 'room'";
    let row = world.database.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("Room 5", "by the window"));
    assert_eq!(row.get::<_, Vec<String>>(2), ["temperature", "humidity"]);
    assert_eq!(row.get::<_, &str>(3), r#"{"unit": {"temperature": "C"}, "version": 5}"#);
    assert_eq!(digest(&world, "time_series_metadata").await.0, 2);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

#[tokio::test]
async fn when_a_series_was_first_told_of_outlives_its_newer_documents() {
    let world = World::new().await;
    let daemon = carry(&world, "series").await;
    let created =
        "SELECT count(*) FROM time_series_metadata WHERE created_at = updated_at AND name = 'first'";
    publish(&world, "room.metadata", [json!({"name": "first"})]).await;
    world.drained("series", &daemon).await;
    assert_eq!(world.count(created).await, 1);
    publish(&world, "room.metadata", [json!({"name": "second"})]).await;
    world.drained("series", &daemon).await;
    let kept = "SELECT count(*) FROM time_series_metadata WHERE created_at < updated_at AND name = 'second'";
    assert_eq!(world.count(kept).await, 1);
    publish(&world, "room.metadata", [json!({"name": "third", "created_at": "2020-01-02T03:04:05Z"})]).await;
    world.drained("series", &daemon).await;
    let said = "SELECT count(*) FROM time_series_metadata WHERE created_at = '2020-01-02 03:04:05Z' AND name \
                = 'third'";
    assert_eq!(world.count(said).await, 1);
}

#[tokio::test]
async fn a_series_is_deleted_with_its_points_and_no_other() {
    let world = World::new().await;
    let at = days_ago(1);
    for series in ["room", "hall"] {
        publish(&world, &format!("{series}.metadata"), [json!({"name": series})]).await;
        publish(&world, &format!("{series}.row"), [json!({"timestamp": at, "a": 1, "b": 2})]).await;
    }
    let _daemon = carry(&world, "series").await;
    let config = world.config_file("store.toml", "");
    let run = async |arguments: &[&str]| {
        world.run(&config, &[&["store", "delete-series"], arguments].concat()).await
    };
    let shown = run(&["room"]).await;
    assert_eq!(
        (shown.code, shown.out.as_str()),
        (1, "2 points of series room would be deleted; nothing was changed; use --yes to do it\n")
    );
    assert_eq!(run(&["room", "--yes"]).await.well(), "deleted 2 points of series room\n");
    let left = "SELECT (SELECT count(*) FROM time_series_data_points WHERE series_id = 'hall')
        + (SELECT count(*) FROM time_series_metadata WHERE id = 'hall') * 10
        + (SELECT count(*) FROM time_series_data_points) * 100 + (SELECT count(*) FROM time_series_metadata) \
            * 1000";
    assert_eq!(world.count(left).await, 1212);
    assert_eq!(
        world
            .count("SELECT count(*) FROM jetcopy.deletions WHERE what = 'series room' AND deleted = 2")
            .await,
        1
    );
    let again = run(&["room", "--yes"]).await;
    assert!(again.code == 1 && again.err.contains("there is no series room"), "{}", again.err);
    assert!(jetcopy(&["query", "series_columns", "series=room"], &config).await.contains("no rows"));
}
