//! Everything that is watched and everything that watches, on servers of the test's own.

use std::path::Path;

use jetcopy::testbed::{
    NatsOptions, Need, PostgresOptions, Stop, TestExporter, TestNats, TestPgBouncer, TestPostgres,
    TestPrometheus, connect, leave_out,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::own;
use crate::support::{Daemon, EVENTS, Load, Proxy, TABLE, World, eventually};

/// The exporter's role: what docs/monitoring.md tells to create, and no more.
const MONITOR: &str = "CREATE ROLE jetcopy_monitor LOGIN; GRANT pg_monitor TO jetcopy_monitor;
    CREATE EXTENSION IF NOT EXISTS pg_stat_statements; CREATE EXTENSION IF NOT EXISTS dblink";

/// Few, so that a test can take most of them.
const MAX_CONNECTIONS: u32 = 60;

/// jetcopy with its servers, a standby, a pooler where there is one, the exporters and Prometheus.
pub(super) struct Stack {
    pub(super) prometheus: TestPrometheus,
    pub(super) exporter: TestExporter,
    pub(super) node: TestExporter,
    pub(super) daemon: Option<Daemon>,
    pub(super) bouncer: Option<TestPgBouncer>,
    pub(super) standby: TestPostgres,
    /// Between the standby and its primary.
    pub(super) between: Proxy,
    pub(super) postgres: TestPostgres,
    pub(super) nats: TestNats,
    pub(super) world: World,
}

/// How the files of `config/` are made quick enough for a test.
pub(super) type Hurry = fn(&str) -> String;

/// Every second instead of every fifteen; nothing else is changed. Of a database that is away, its exporter
/// tells after a second: it tries twice.
pub(super) fn each_second(text: &str) -> String {
    text.replace(": 15s", ": 1s")
        .replace("scrape_timeout: 10s", "scrape_interval: 2s\n    scrape_timeout: 2s")
}

impl Stack {
    /// Starts all of it, with a little data of everything that is counted.
    pub(super) async fn start(hurry: Hurry) -> Self {
        let nats = TestNats::start(&NatsOptions::default()).unwrap();
        let options = PostgresOptions {
            max_connections: MAX_CONNECTIONS,
            settings: vec![("wal_retrieve_retry_interval".to_owned(), "100ms".to_owned())],
            ..Default::default()
        };
        let mut postgres = TestPostgres::start(&options).unwrap();
        let preload = if postgres.has_timescaledb() { "timescaledb, " } else { "" };
        let client = connect(&postgres.url()).await.unwrap();
        let preload = format!("ALTER SYSTEM SET shared_preload_libraries = {preload}pg_stat_statements");
        client.batch_execute(&preload).await.unwrap();
        postgres.stop(Stop::Fast);
        postgres.start_again().unwrap();

        let mut world = World::on(&nats, &postgres).await;
        world.database.batch_execute(&format!("{TABLE}; {MONITOR}")).await.unwrap();
        let between = Proxy::start(postgres.port()).await;
        let standby = postgres.standby(between.port()).unwrap();
        // Each place that asks about the pooler leaves it out where there is none, and says so.
        let bouncer = TestPgBouncer::start_or_leave_out(&postgres, "what PgBouncer tells").unwrap();
        if let Some(bouncer) = &bouncer {
            let server = format!(
                "CREATE SERVER pgbouncer FOREIGN DATA WRAPPER dblink_fdw
                     OPTIONS (host '127.0.0.1', port '{}', dbname 'pgbouncer', connect_timeout '2');
                 CREATE USER MAPPING FOR CURRENT_USER SERVER pgbouncer OPTIONS (user 'postgres')",
                bouncer.port()
            );
            world.database.batch_execute(&server).await.unwrap();
            connect(&bouncer.url(&world.own_url)).await.unwrap().batch_execute("SELECT").await.unwrap();
        }
        // First the primary, then the standby, as the failover at the end wants it.
        let both = format!(":{},127.0.0.1:{}/", postgres.port(), standby.port());
        world.database_url = world.own_url.replace(&format!(":{}/", postgres.port()), &both);
        let daemon = Daemon::start(&world.config(EVENTS));
        daemon.says("pipeline is running").await;
        let (exporter, node, prometheus) = watch(&world, &daemon, hurry);
        let daemon = Some(daemon);
        Self { prometheus, exporter, node, daemon, bouncer, standby, between, postgres, nats, world }
    }

    pub(super) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("only one fault takes it away, and gives it back")
    }

    /// Lets Prometheus scrape a daemon that was started anew, and so at another address.
    pub(super) fn scrape_daemon(&self, daemon: &Daemon) {
        self.scrape_daemons(&[daemon]);
    }

    /// The same for several.
    pub(super) fn scrape_daemons(&self, daemons: &[&Daemon]) {
        let addresses: Vec<String> = daemons.iter().map(|daemon| daemon.http_address()).collect();
        target(&self.world, "jetcopy", &addresses.join("\", \""));
    }

    /// What Prometheus answers to a path of its API, which must be success.
    pub(super) fn ask(&self, path: &str) -> Value {
        let (code, body) = self.prometheus.get(path).unwrap();
        let answer: Value =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{code} {body}: {error}"));
        assert_eq!(answer["status"], "success", "{path}: {body}");
        answer["data"].clone()
    }

    /// The series that a query gives now.
    pub(super) fn query(&self, query: &str) -> Vec<Value> {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        self.ask(&format!("/api/v1/query?query={query}"))["result"].as_array().unwrap().clone()
    }

    /// Compressed chunks, roll-ups and a job's run, where there is TimescaleDB.
    pub(super) async fn use_the_store(&self) {
        // SQL of one's own gets no partitions on demand.
        let insert = "SELECT jetcopy.add_partitions(relation, ARRAY(SELECT (now() AT TIME ZONE 'UTC')::date \
            - n FROM generate_series(2, 4) n))
                FROM jetcopy.partitioned_tables;
            INSERT INTO frame_metadata (time, camera_id, frame_id)
                SELECT now() - interval '3 days' + make_interval(secs => n), 'cam', n \
                    FROM generate_series(1, 2000) n;
            INSERT INTO detection_events (time, camera_id, frame_id, label)
                SELECT now() - interval '3 days' + make_interval(secs => n), 'cam', n, 'person' \
                    FROM generate_series(1, 2000) n";
        self.world.database.batch_execute(insert).await.unwrap();
        if !self.postgres.has_timescaledb() {
            leave_out(Need::TimescaleDb, "what TimescaleDB tells");
            return;
        }
        let compress = "DO $$ BEGIN
                IF NOT (SELECT compression_enabled FROM timescaledb_information.hypertables \
                    WHERE hypertable_name = 'frame_metadata') THEN
                    ALTER TABLE frame_metadata \
                        SET (timescaledb.compress, timescaledb.compress_segmentby = 'camera_id');
                END IF;
            END $$;
            SELECT compress_chunk(chunk, if_not_compressed => true) FROM show_chunks('frame_metadata') chunk;
            CREATE PROCEDURE nothing(job_id int, config jsonb) LANGUAGE plpgsql AS $$ BEGIN END $$;
            SELECT add_job('nothing', '1 hour', initial_start => now())";
        self.world.database.batch_execute(compress).await.unwrap();
        for rollup in ["frame_stats", "detection_stats"] {
            for step in ["1m", "1h", "1d"] {
                let sql = format!("CALL refresh_continuous_aggregate('{rollup}_{step}', NULL, NULL)");
                self.world.database.batch_execute(&sql).await.unwrap();
            }
        }
    }

    /// Some messages, one of them poison, and a resync.
    pub(super) async fn use_the_daemon(&self) {
        let load = Load::start(&self.world);
        self.world.commits(self.daemon()).await;
        self.world.publish("bad", ["not MessagePack"]).await;
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
            WHERE application_name LIKE 'jetcopy/%'";
        self.world.count(end).await;
        self.world.commits(self.daemon()).await;
        load.stop().await;
        self.world.drained("events", self.daemon()).await;
    }
}

/// Starts the exporters, and Prometheus with a copy of its configuration that has their addresses.
fn watch(world: &World, daemon: &Daemon, hurry: Hurry) -> (TestExporter, TestExporter, TestPrometheus) {
    let directory = world.directory.path();
    let queries = directory.join("queries.yaml");
    let text = std::fs::read_to_string(own("config/postgres_exporter/queries.yaml")).unwrap();
    let kept = ["60", "300", "30"];
    let text = kept.iter().fold(text, |text, kept| {
        assert!(text.contains(&format!("cache_seconds: {kept}\n")), "no query is kept for {kept} s");
        text.replace(&format!("cache_seconds: {kept}\n"), "cache_seconds: 1\n")
    });
    std::fs::write(&queries, text).unwrap();
    let url = world.own_url.replace("postgres@", "jetcopy_monitor@");
    let exporter = TestExporter::postgres(&url, Some(&queries)).unwrap();
    let node = TestExporter::node().unwrap();

    let config = directory.join("prometheus");
    let copied = |path: &str| {
        let text = std::fs::read_to_string(own("config/prometheus").join(path)).unwrap();
        let to = config.join(path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, hurry(&text)).unwrap();
    };
    for file in ["prometheus.yml", "rules/recording.yml", "rules/jetcopy.yml", "rules/postgres.yml"] {
        copied(file);
    }
    target(world, "jetcopy", &daemon.http_address());
    target(world, "postgres", &format!("127.0.0.1:{}", exporter.port()));
    target(world, "node", &format!("127.0.0.1:{}", node.port()));
    let prometheus = TestPrometheus::start(&config.join("prometheus.yml")).unwrap();
    (exporter, node, prometheus)
}

/// Writes the address of a job's target, which Prometheus reads anew by itself.
fn target(world: &World, job: &str, address: &str) {
    let path = Path::new("prometheus/targets").join(format!("{job}.yml"));
    // The file in the package must be of the same shape.
    let own = std::fs::read_to_string(own("config").join(&path)).unwrap();
    assert!(own.starts_with("- targets: [\"localhost:"), "{own}");
    let to = world.directory.path().join(&path);
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::write(to, format!("- targets: [\"{address}\"]\n")).unwrap();
}

/// Waits until a query gives something.
pub(super) async fn gives(stack: &Stack, query: &str) {
    eventually(&format!("{query} to give something"), || async { !stack.query(query).is_empty() }).await;
}
