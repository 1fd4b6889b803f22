//! Rows that are refused in a chunk or a partition that their own transaction makes, which is gone with it.

use jetcopy::testbed::TestPostgres;

use super::in_state;
use crate::support::{Daemon, World, eventually};

/// A table, what its pipeline says of it, and which messages are refused.
struct Case {
    name: &'static str,
    columns: &'static str,
    more: &'static str,
    settings: &'static str,
    bad: &'static [i64],
}

const KEYED: &str = "CREATE UNIQUE INDEX ON NAME (dev, time)";

const CASES: [Case; 9] = [
    Case { name: "checked", columns: "a int CHECK (a > 0)", more: "", settings: "", bad: &[2] },
    Case { name: "unique_rows", columns: "a int", more: KEYED, settings: "", bad: &[4] },
    Case { name: "known", columns: "a int REFERENCES dim", more: "", settings: "", bad: &[2] },
    Case {
        name: "known_later",
        columns: "a int REFERENCES dim DEFERRABLE INITIALLY DEFERRED",
        more: "",
        settings: "",
        bad: &[2],
    },
    Case { name: "of_domain", columns: "a positive", more: "", settings: "", bad: &[2] },
    Case {
        name: "guarded",
        columns: "a int NOT NULL",
        more: "CREATE TRIGGER no BEFORE INSERT ON NAME FOR EACH ROW EXECUTE FUNCTION no()",
        settings: "",
        bad: &[2],
    },
    Case {
        name: "updated",
        columns: "a int CHECK (a > 0)",
        more: KEYED,
        settings: "on_conflict = \"update\"\nkey = [\"dev\", \"time\"]",
        bad: &[2],
    },
    Case {
        name: "ignored",
        columns: "a int CHECK (a > 0)",
        more: KEYED,
        settings: "on_conflict = \"ignore\"\nkey = [\"dev\", \"time\"]",
        bad: &[2],
    },
    Case {
        name: "compressed",
        columns: "a int CHECK (a > 0)",
        more: "ALTER TABLE NAME SET (timescaledb.compress, timescaledb.compress_orderby = 'time', \
               timescaledb.compress_segmentby = 'dev')",
        settings: "direct_compress = true",
        bad: &[2],
    },
];

/// A good one, a bad one, a good one, the first one's key again.
const MESSAGES: [(u32, i32); 4] = [(0, 1), (1, -1), (2, 1), (0, 1)];

fn messages(day: u32) -> impl Iterator<Item = String> {
    MESSAGES.iter().map(move |(second, a)| {
        format!(r#"{{"time": "2024-01-{day:02}T00:00:{second:02}Z", "dev": 1, "a": {a}}}"#)
    })
}

impl Case {
    async fn create(&self, world: &World) {
        let Self { name, columns, more, .. } = self;
        let sql = format!(
            "CREATE TABLE {name} (sequence bigint NOT NULL, time timestamptz NOT NULL, dev int NOT NULL, \
             {columns});
             SELECT create_hypertable('{name}', 'time', chunk_time_interval => interval '1 day');
             {}",
            more.replace("NAME", name)
        );
        world.database.batch_execute(&sql).await.unwrap();
    }

    fn pipeline(&self) -> String {
        let Self { name, settings, .. } = self;
        format!(
            "[[pipeline]]\nname = \"{name}\"\nstream = \"STREAM\"\nsubjects = [\"STREAM.{name}\"]\n\
             format = \"json\"\n\
             batch = {{ max_age = \"300ms\" }}\n[[pipeline.table]]\nname = \"{name}\"\n{settings}\n\
             columns = {{ sequence = \"$sequence\" }}\n"
        )
    }

    /// Places in [`MESSAGES`] of what became dead letters, of each four that were published from `first` on.
    async fn refused(&self, world: &World, first: i64) -> Vec<i64> {
        let sql = "SELECT sequence - $2 + 1 FROM jetcopy.dead_letters WHERE pipeline = $1 AND sequence >= $2
            ORDER BY sequence";
        let rows = world.database.query(sql, &[&self.name, &first]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_in_a_chunk_of_its_own_transaction_is_a_dead_letter_and_the_others_rows() {
    let Some(_offers) = TestPostgres::shared_timescaledb().unwrap() else { return };
    let world = World::new().await;
    let common = "CREATE TABLE dim (d int PRIMARY KEY); INSERT INTO dim VALUES (1);
        CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.a < 0 THEN RAISE 'no'; END IF;
            RETURN NEW;
        END $$";
    world.database.batch_execute(common).await.unwrap();
    for case in &CASES {
        case.create(&world).await;
    }
    let pipelines: String = CASES.iter().map(Case::pipeline).collect();
    // All at once, then on a day of their own with a daemon that runs.
    let daemon = Daemon::start(&world.config(&pipelines));
    for day in [1, 2] {
        for case in &CASES {
            let first = i64::try_from(world.last_sequence().await).unwrap() + 1;
            world.publish(case.name, messages(day)).await;
            let rows = format!("SELECT count(*) FROM {} WHERE sequence >= {first}", case.name);
            let skipped = i64::from(case.settings.contains("key"));
            let bad = i64::try_from(case.bad.len()).unwrap();
            eventually(&format!("the good rows of day {day} in {}", case.name), || async {
                world.count(&rows).await == 4 - bad - skipped
                    && case.refused(&world, first).await.len() == case.bad.len()
            })
            .await;
            assert_eq!(case.refused(&world, first).await, case.bad, "{}: {}", case.name, daemon.log());
        }
    }
    assert!(!daemon.log().contains("another relation"), "{}", daemon.log());
}

/// A table of one compressed chunk, whose batches of a thousand rows are decompressed where a row of them is
/// updated.
async fn compressed(world: &World, limit: u32) -> Daemon {
    let database = world.own_url.rsplit('/').next().unwrap();
    let setting = "timescaledb.max_tuples_decompressed_per_dml_transaction";
    let sql = format!(
        "CREATE TABLE events (sequence bigint, time timestamptz NOT NULL, dev int NOT NULL, a int);
         SELECT create_hypertable('events', 'time', chunk_time_interval => interval '10 days');
         CREATE UNIQUE INDEX ON events (dev, time);
         ALTER TABLE events SET (timescaledb.compress, timescaledb.compress_segmentby = '',
             timescaledb.compress_orderby = 'time');
         INSERT INTO events SELECT 0, timestamptz '2024-01-01 UTC' + n * interval '1 s', 1, 0
             FROM generate_series(0, 19999) AS n;
         SELECT compress_chunk(show_chunks('events'));
         ALTER DATABASE {database} SET {setting} = {limit}"
    );
    world.database.batch_execute(&sql).await.unwrap();
    let messages = (0..8).map(|n| {
        format!(r#"{{"time": "2024-01-01T{:02}:{:02}:00Z", "dev": 1, "a": 7}}"#, n * 40 / 60, n * 40 % 60)
    });
    world.publish("events", messages).await;
    let pipeline = "[[pipeline]]\nname = \"events\"\nstream = \"STREAM\"\nformat = \"json\"\n\
                    batch = { max_age = \"300ms\" }\n[[pipeline.table]]\nname = \"events\"\n\
                    on_conflict = \"update\"\nkey = [\"dev\", \"time\"]\n\
                    columns = { sequence = \"$sequence\" }\n";
    Daemon::start(&world.config(pipeline))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_decompresses_more_than_the_server_allows_is_halved_until_it_passes() {
    let Some(_offers) = TestPostgres::shared_timescaledb().unwrap() else { return };
    let world = World::new().await;
    let daemon = compressed(&world, 2_500).await;
    daemon
        .says("a transaction exceeds what the server accepts at once; continuing with half the messages")
        .await;
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events WHERE sequence > 0 AND a = 7").await, 8);
    assert_eq!(world.count("SELECT count(*) FROM events").await, 20_000);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_alone_decompresses_more_than_the_server_allows_pauses_with_the_setting() {
    let Some(_offers) = TestPostgres::shared_timescaledb().unwrap() else { return };
    let world = World::new().await;
    let daemon = compressed(&world, 500).await;
    let status = in_state(&daemon, "paused", "sequence 1 alone is more than the server accepts").await;
    let remedy = status["remedy"].as_str().unwrap();
    assert!(remedy.contains("max_tuples_decompressed_per_dml_transaction"), "{status}");
    let database = world.own_url.rsplit('/').next().unwrap();
    let raise =
        format!("ALTER DATABASE {database} SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0");
    world.database.batch_execute(&raise).await.unwrap();
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events WHERE sequence > 0 AND a = 7").await, 8);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_for_a_chunk_that_is_frozen_pause_the_pipeline_and_no_message_is_blamed() {
    let Some(_offers) = TestPostgres::shared_timescaledb().unwrap() else { return };
    let world = World::new().await;
    let sql = "CREATE TABLE events (sequence bigint, time timestamptz NOT NULL);
         SELECT create_hypertable('events', 'time', chunk_time_interval => interval '1 day');
         INSERT INTO events VALUES (0, '2024-01-01');
         SELECT _timescaledb_functions.freeze_chunk(chunk) FROM show_chunks('events') AS chunk";
    world.database.batch_execute(sql).await.unwrap();
    world
        .publish("events", ["05", "01", "06"].map(|day| format!(r#"{{"time": "2024-01-{day}T00:00:00Z"}}"#)))
        .await;
    let pipeline = "[[pipeline]]\nname = \"events\"\nstream = \"STREAM\"\nformat = \"json\"\n\
                    batch = { max_age = \"300ms\" }\n[[pipeline.table]]\nname = \"events\"\n\
                    columns = { sequence = \"$sequence\" }\n";
    let daemon = Daemon::start(&world.config(pipeline));
    in_state(&daemon, "paused", "frozen chunk").await;
    let thaw = "SELECT _timescaledb_functions.unfreeze_chunk(chunk) FROM show_chunks('events') AS chunk";
    world.database.batch_execute(thaw).await.unwrap();
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 4);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_a_trigger_makes_of_another_table_is_still_another_relation() {
    let world = World::plain().await;
    let tables = "CREATE TABLE events (sequence bigint NOT NULL, a int);
        CREATE TABLE trail (a int CHECK (a > 0)) PARTITION BY LIST (a);
        CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF trail FOR VALUES IN (%s)', \
                'trail_' || NEW.a, NEW.a);
            INSERT INTO trail VALUES (NEW.a);
            RETURN NEW;
        END $$;
        CREATE TRIGGER audit BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION audit()";
    world.database.batch_execute(tables).await.unwrap();
    world.publish("a", [1, -1, 2].map(|a| format!(r#"{{"a": {a}}}"#))).await;
    let pipeline = "[[pipeline]]\nname = \"events\"\nstream = \"STREAM\"\nformat = \"json\"\n\
        [[pipeline.table]]\n\
                    name = \"events\"\ncolumns = { sequence = \"$sequence\" }\n";
    let daemon = Daemon::start(&world.config(pipeline));
    let status = in_state(&daemon, "backing_off", "another relation, public.trail_-1").await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0, "{status}");
    world.database.batch_execute("ALTER TABLE trail DROP CONSTRAINT trail_a_check").await.unwrap();
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 3);
}
