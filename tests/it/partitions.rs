//! Tables with one native partition a day, where TimescaleDB is not installed.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Daemon, World, eventually, oracle};

fn pipeline(name: &str, on_conflict: &str) -> String {
    let key = if on_conflict == "error" { "" } else { "key = [\"id\", \"time\"]" };
    format!(
        r#"
[[pipeline]]
name = "{name}"
stream = "STREAM"
format = "json"
batch = {{ max_rows = 100, max_age = "20ms" }}

[[pipeline.table]]
name = "days"
on_conflict = "{on_conflict}"
{key}
[pipeline.table.columns]
sequence = "$sequence"
"#
    )
}

/// `id` is there as a first column of another type, which nothing is sorted by.
const TABLE: &str =
    "CREATE TABLE days (made timestamptz, id bigint NOT NULL, time timestamptz NOT NULL, sequence bigint,
        PRIMARY KEY (id, time));
    SELECT jetcopy.time_table('days', 'time', '1 day')";

/// A message of so many days from now.
fn message(id: i64, days: i64) -> Vec<u8> {
    let time = jiff::Timestamp::now().as_second() + days * 86_400;
    let time = jiff::Timestamp::from_second(time).unwrap();
    json!({"id": id, "time": time.to_string(), "made": "2001-02-03T04:05:06Z"}).to_string().into_bytes()
}

async fn world() -> World {
    let world = World::plain().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world
}

/// Days of the partitions, from today.
async fn partitions(world: &World) -> Vec<i32> {
    let sql = "SELECT (starts AT TIME ZONE 'UTC')::date - (now() AT TIME ZONE 'UTC')::date \
        FROM jetcopy.partitions('days')";
    world.database.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn rows_of_days_without_a_partition_get_one_and_those_beyond_all_bounds_are_dead_letters() {
    for on_conflict in ["error", "ignore", "update"] {
        let world = world().await;
        let far = [
            json!({"id": 7, "time": "9998-12-31T23:59:59Z"}),
            json!({"id": 8, "time": "1970-01-01T00:00:00Z"}),
            json!({"id": 9, "time": "infinity"}),
            json!({"id": 10, "time": "-infinity"}),
        ];
        let near = [(1, 0), (2, -3), (3, -1_000), (4, 6), (5, -3)].map(|(id, days)| message(id, days));
        let far = far.map(|message| message.to_string().into_bytes());
        world.publish("a", near.into_iter().chain(far).chain([message(6, 30), message(11, -2)])).await;
        let daemon = Daemon::start(&world.config(&pipeline("events", on_conflict)));
        oracle(&world, &daemon, "events", "days", message(12, -4)).await;

        assert_eq!(partitions(&world).await, [-1_000, -4, -3, -2, 0, 1, 2, 3, 6]);
        let sql = "SELECT string_agg(concat_ws(' ', sequence, kind, sqlstate, column_name), ', ' \
            ORDER BY sequence) FROM jetcopy.dead_letters";
        let dead: String = world.database.query_one(sql, &[]).await.unwrap().get(0);
        let expected = [6, 7, 8, 9, 10].map(|sequence| format!("{sequence} range 23514 time")).join(", ");
        assert_eq!(dead, expected, "{on_conflict}");
        let sql = "SELECT message FROM jetcopy.dead_letters WHERE sequence = 7";
        let message: String = world.database.query_one(sql, &[]).await.unwrap().get(0);
        assert_eq!(
            message,
            "no partition of days covers 1970-01-01, and jetcopy adds partitions only within 1000 days back \
             and 7 ahead \
             (store.partitions_back, store.partitions_ahead)"
        );
    }
}

#[tokio::test]
async fn a_row_whose_time_the_server_writes_gets_the_partition_of_today() {
    let world = world().await;
    world
        .database
        .batch_execute(
            "DROP TABLE days; CREATE TABLE days (id bigint NOT NULL, sequence bigint, time timestamptz \
             NOT NULL DEFAULT now());
             SELECT jetcopy.time_table('days', 'time', '1 day')",
        )
        .await
        .unwrap();
    drop_partition(&world, 0).await;
    world.publish("a", [json!({"id": 1}).to_string()]).await;
    let daemon = Daemon::start(&world.config(&pipeline("events", "error")));
    oracle(&world, &daemon, "events", "days", json!({"id": 2}).to_string().into_bytes()).await;
    assert_eq!(world.count("SELECT count(*) FROM days").await, 2);
}

/// Drops the partition of a day, counted from today.
async fn drop_partition(world: &World, day: i32) {
    let sql = "SELECT partition::text FROM jetcopy.partitions('days')
        WHERE (starts AT TIME ZONE 'UTC')::date = (now() AT TIME ZONE 'UTC')::date + $1::int";
    let partition: String = world.database.query_one(sql, &[&day]).await.unwrap().get(0);
    world.database.batch_execute(&format!("DROP TABLE {partition}")).await.unwrap();
}

#[tokio::test]
async fn a_role_that_may_only_insert_gets_partitions_too() {
    let mut world = world().await;
    world
        .database
        .batch_execute(
            "CREATE ROLE inserter LOGIN; GRANT INSERT ON days TO inserter; \
             GRANT USAGE ON SCHEMA jetcopy TO inserter;
             GRANT ALL ON ALL TABLES IN SCHEMA jetcopy TO inserter; \
                 GRANT ALL ON ALL SEQUENCES IN SCHEMA jetcopy TO inserter",
        )
        .await
        .unwrap();
    world.database_url = world.database_url.replace("postgres@", "inserter@");
    world.publish("a", [message(1, -5)]).await;
    let daemon = Daemon::start(&world.config(&pipeline("events", "error")));
    oracle(&world, &daemon, "events", "days", message(2, -6)).await;
}

#[tokio::test]
async fn partitions_that_somebody_else_makes_are_left_to_them() {
    let world = world().await;
    world
        .database
        .batch_execute(
            "DROP TABLE days; CREATE TABLE days (id bigint NOT NULL, sequence bigint, time timestamptz \
             NOT NULL)
                 PARTITION BY RANGE (time);
             CREATE TABLE century PARTITION OF days FOR VALUES FROM ('2000-01-01Z') TO ('2100-01-01Z')",
        )
        .await
        .unwrap();
    let old = json!({"id": 2, "time": "1999-12-31T00:00:00Z"}).to_string().into_bytes();
    world.publish("a", [message(1, 0), old, message(3, 1)]).await;
    let daemon = Daemon::start(&world.config(&pipeline("events", "error")));
    oracle(&world, &daemon, "events", "days", message(4, 0)).await;
    assert_eq!(world.count("SELECT sequence FROM jetcopy.dead_letters WHERE sqlstate = '23514'").await, 2);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.partitions('days')").await, 1);
}

/// Waits until the pipeline is paused for this reason; what it says would mend it.
pub(crate) async fn paused(daemon: &Daemon, reason: &str) -> String {
    daemon.says(reason).await;
    eventually(&format!("a pause for {reason}"), async || {
        let status = daemon.status();
        status["state"] == "paused" && status["reason"].as_str().unwrap().contains(reason)
    })
    .await;
    daemon.status()["remedy"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_partition_of_another_span_in_the_way_of_a_day_pauses_the_pipeline_until_it_is_gone() {
    let world = world().await;
    drop_partition(&world, 3).await;
    world
        .database
        .batch_execute(
            "DO $$ DECLARE day timestamptz := date_trunc('day', now(), 'UTC') + interval '3 days'; BEGIN
                 EXECUTE format('CREATE TABLE hour PARTITION OF days FOR VALUES FROM (%L) TO (%L)', day, \
                     day + interval '1 s');
             END $$",
        )
        .await
        .unwrap();
    world.publish("a", [message(1, 0), message(2, 3), message(3, 1)]).await;
    let daemon = Daemon::start(&world.config(&pipeline("events", "error")));
    assert!(paused(&daemon, "no partition for (").await.contains("drop what is in its place"));
    world.database.batch_execute("DROP TABLE hour").await.unwrap();
    oracle(&world, &daemon, "events", "days", message(4, 0)).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

#[tokio::test]
async fn a_missing_partition_of_ones_own_pauses_the_pipeline_until_it_is_there_and_costs_no_row() {
    for on_conflict in ["error", "ignore"] {
        let world = world().await;
        // By the month, as it were, and the next one is missing.
        world
            .database
            .batch_execute(
                "DROP TABLE days; CREATE TABLE days (id bigint NOT NULL, sequence bigint, time timestamptz \
                 NOT NULL,
                     PRIMARY KEY (id, time)) PARTITION BY RANGE (time);
                 CREATE FUNCTION month(name text, first int, last int) RETURNS void LANGUAGE plpgsql AS $$ \
                     BEGIN
                     EXECUTE format('CREATE TABLE %I PARTITION OF days FOR VALUES FROM (%L) TO (%L)', name,
                         date_trunc('day', now(), 'UTC') + make_interval(days => first),
                         date_trunc('day', now(), 'UTC') + make_interval(days => last));
                 END $$;
                 SELECT month('this', -27, 2)",
            )
            .await
            .unwrap();
        let daemon = Daemon::start(&world.config(&pipeline("events", on_conflict)));
        world.publish("a", (1..=50).map(|id| message(id, 0))).await;
        world.drained("events", &daemon).await;
        // A wrong clock is the message's own fault, here as everywhere.
        world.publish("a", [message(51, 1), message(52, -20_000), message(53, 3), message(54, 0)]).await;
        world.publish("a", (55..=90).map(|id| message(id, 4))).await;
        assert!(paused(&daemon, "no partition for (").await.contains("create the partition"));
        assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
        world.database.batch_execute("SELECT month('next', 2, 30)").await.unwrap();
        oracle(&world, &daemon, "events", "days", message(91, 5)).await;
        let sql =
            "SELECT string_agg(concat_ws(' ', sequence, kind, sqlstate), ', ') FROM jetcopy.dead_letters";
        let dead: String = world.database.query_one(sql, &[]).await.unwrap().get(0);
        assert_eq!(dead, "52 range 23514", "{on_conflict}");
    }
}

#[tokio::test]
async fn a_key_without_a_partition_pauses_the_pipeline_until_there_is_one() {
    let world = world().await;
    world
        .database
        .batch_execute(
            "DROP TABLE days; CREATE TABLE days (id bigint, sequence bigint, site text) \
             PARTITION BY LIST (site);
             CREATE TABLE north PARTITION OF days FOR VALUES IN ('north')",
        )
        .await
        .unwrap();
    let message = |id: u32, site: &str| json!({"id": id, "site": site}).to_string().into_bytes();
    world.publish("a", [message(1, "north"), message(2, "south"), message(3, "north")]).await;
    let daemon = Daemon::start(&world.config(&pipeline("events", "error")));
    paused(&daemon, "no partition for (site) = (south) in table days").await;
    world.database.batch_execute("CREATE TABLE others PARTITION OF days DEFAULT").await.unwrap();
    oracle(&world, &daemon, "events", "days", message(4, "west")).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

#[tokio::test]
async fn a_row_for_a_partition_that_is_being_detached_waits_until_it_is_gone() {
    let world = world().await;
    world
        .database
        .batch_execute("SELECT jetcopy.add_partition('days', (now() - interval '9 days')::date)")
        .await
        .unwrap();
    let sql = "SELECT partition::text FROM jetcopy.partitions('days') LIMIT 1";
    let partition: String = world.database.query_one(sql, &[]).await.unwrap().get(0);
    world.database.batch_execute(&format!("ALTER TABLE {partition} RENAME TO on_its_way")).await.unwrap();
    // Somebody reads from the table, so that it cannot end.
    let reader = jetcopy::testbed::connect(&world.own_url).await.unwrap();
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM days").await.unwrap();
    let detacher = jetcopy::testbed::connect(&world.own_url).await.unwrap();
    let detach = "ALTER TABLE days DETACH PARTITION on_its_way CONCURRENTLY";
    let detaching = tokio::spawn(async move { detacher.batch_execute(detach).await });
    eventually("the partition to be on its way out", async || {
        world.count("SELECT count(*) FROM jetcopy.partitions('days') WHERE detaching").await == 1
    })
    .await;

    world.publish("a", [message(1, -9)]).await;
    let daemon = Daemon::start(&world.config(&pipeline("events", "error")));
    daemon.says("is being dropped").await;
    reader.batch_execute("COMMIT").await.unwrap();
    detaching.await.unwrap().unwrap();
    oracle(&world, &daemon, "events", "days", message(2, -8)).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

#[tokio::test]
async fn two_daemons_that_meet_the_same_missing_days_both_go_on() {
    let world = world().await;
    world.publish("a", (0..2_000).map(|n| message(n, -n % 40))).await;
    let mut pipelines = pipeline("one", "ignore");
    pipelines += &pipeline("other", "ignore");
    let daemon = Daemon::start(&world.config(&pipelines));
    world.drained("one", &daemon).await;
    world.drained("other", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM days").await, 2_000);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    assert_eq!(partitions(&world).await.len(), 43);
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.0.success());
}

#[tokio::test]
async fn late_rows_that_only_lack_a_partition_are_never_blamed_for_a_third_message() {
    let world = world().await;
    world
        .database
        .batch_execute(
            "CREATE TABLE sites (name text PRIMARY KEY); INSERT INTO sites VALUES ('north');
             CREATE TABLE visits (id bigint, sequence bigint, site text REFERENCES sites)",
        )
        .await
        .unwrap();
    // The first table refuses one message without naming its row, so that it is looked for; the second lacks
    // partitions.
    let tables = pipeline("events", "error").replace(
        "[[pipeline.table]]\nname = \"days\"",
        "[[pipeline.table]]\nname = \"visits\"\n[pipeline.table.columns]\nsequence = \"$sequence\"\n\n\
         [[pipeline.table]]\nname = \"days\"",
    );
    let message = |id: i64, days: i64, site: &str| {
        let mut body: serde_json::Value = serde_json::from_slice(&message(id, days)).unwrap();
        body["site"] = json!(site);
        body.to_string().into_bytes()
    };
    world
        .publish(
            "a",
            [
                message(1, -40, "north"),
                message(2, 0, "north"),
                message(3, 0, "nowhere"),
                message(4, -41, "north"),
            ],
        )
        .await;
    let daemon = Daemon::start(&world.config(&tables));
    oracle(&world, &daemon, "events", "days", message(5, -42, "north")).await;
    let sql =
        "SELECT string_agg(sequence || ' ' || sqlstate, ', ' ORDER BY sequence) FROM jetcopy.dead_letters";
    let dead: String = world.database.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(dead, "3 23503");
    assert_eq!(world.count("SELECT count(*) FROM days").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_day_too_far_away_has_one_dead_letter_in_a_batch_that_is_written_in_parts() {
    let mut world = world().await;
    world
        .database
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.03); \
             RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE INSERT ON days FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await
        .unwrap();
    world.postgres_settings = "step_timeout = \"1s\"".to_owned();
    // One in each tenth of the batch, so that several parts have one.
    world.publish("a", (1..=100).map(|id| message(id, if id % 10 == 5 { -20_000 } else { 0 }))).await;
    let daemon = Daemon::start(&world.config(&pipeline("events", "error")));
    daemon.says("did not fit into one transaction").await;
    oracle(&world, &daemon, "events", "days", message(101, 0)).await;
    let dead =
        "SELECT count(*) * 100 + count(DISTINCT sequence) FROM jetcopy.dead_letters WHERE kind = 'range'";
    assert_eq!(world.count(dead).await, 1_010);
}

const STORE: &str = r#"
[store]
maintain_interval = "100ms"
[store.frame_stats_1m]
refresh = { every = "100ms" }
[store.frame_stats_1h]
refresh = { every = "100ms" }
[[pipeline]]
name = "frames"
stream = "STREAM"
format = "json"
[[pipeline.table]]
name = "frame_metadata"
[pipeline.table.columns]
camera_id = { constant = "cam-1" }
"#;

fn frame(id: i64, hours_ago: i64) -> String {
    let time = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() - hours_ago * 3_600).unwrap();
    json!({"time": time.to_string(), "frame_id": id}).to_string()
}

#[tokio::test]
async fn the_daemon_fills_the_roll_ups_takes_late_rows_in_and_drops_old_days() {
    let world = World::plain().await;
    world.publish("a", (0..50).map(|n| frame(n, 2 + n % 40))).await;
    let config = world.config(STORE);
    world.run(&config, &["migrate"]).await.well();
    let daemon = Daemon::start(&config);
    let frames = |rollup: &str| format!("SELECT coalesce(sum(frames), 0)::int8 FROM {rollup}");
    let filled = async |expected: i64| {
        for rollup in ["frame_stats_1m", "frame_stats_1h"] {
            eventually(&format!("{expected} frames in {rollup}"), async || {
                world.count(&frames(rollup)).await == expected
            })
            .await;
        }
    };
    filled(50).await;
    // Its minute, its hour and its day are filled already; the other is of a day that goes at once.
    world.publish("a", [frame(50, 30), frame(51, 24 * 30)]).await;
    world.drained("frames", &daemon).await;
    filled(51).await;
    eventually("the old day to be dropped", async || {
        world.count("SELECT count(*) FROM frame_metadata").await == 51
            && world
                .count(
                    "SELECT count(*) FROM jetcopy.partitions('frame_metadata') \
                WHERE ends < now() - interval '7 days'",
                )
                .await
                == 0
    })
    .await;
    let daemon_lives = daemon.log();
    assert!(!daemon_lives.contains("cannot maintain the store"), "{daemon_lives}");
}

#[tokio::test]
async fn a_store_that_cannot_be_maintained_stops_no_pipeline_and_is_told_once() {
    let world = World::plain().await;
    world.database.batch_execute("ALTER TABLE frame_stats_1m RENAME frames TO other").await.unwrap();
    let config = world.config(STORE);
    world.run(&config, &["migrate"]).await.well();
    let daemon = Daemon::start(&config);
    daemon.says("cannot maintain the store").await;
    world.publish("a", [frame(1, 0)]).await;
    world.drained("frames", &daemon).await;
    let runs = "SELECT refreshed_at::text FROM jetcopy.rollups WHERE name = 'frame_stats_1d' \
        AND refreshed_at IS NOT NULL";
    assert!(world.database.query_opt(runs, &[]).await.unwrap().is_some(), "the other steps are done");
    daemon.says_times("cannot maintain the store", 1).await;
}
