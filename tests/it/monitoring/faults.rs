//! The real Prometheus over real servers: every alert fires when its fault is made, and clears when it is
//! mended.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use jetcopy::testbed::{Need, Stop, connect, leave_out};
use tokio_postgres::Client;

use super::rules;
use super::stack::{Stack, each_second, gives};
use crate::support::{Daemon, EVENTS, Load, event, eventually};

/// What is scaled so that minutes become seconds: waits, ranges, and thresholds that are times. Ranges stay
/// long beside the time between two scrapes, of which a loaded machine misses some.
const SCALED: [(&str, &str); 14] = [
    ("[5m]", "[20s]"),
    ("[15m]", "[40s]"),
    ("for: 1m", "for: 1s"),
    ("for: 2m", "for: 1s"),
    ("for: 5m", "for: 2s"),
    ("jetcopy_behind_seconds > 60", "jetcopy_behind_seconds > 3"),
    ("{event=\"dead_letter\"} < 300", "{event=\"dead_letter\"} < 20"),
    ("\"} < 900", "\"} < 20"),
    ("jetcopydb_losses_newest_age_seconds < 900", "jetcopydb_losses_newest_age_seconds < 20"),
    ("state!=\"disabled\"}) > 900", "state!=\"disabled\"}) > 3"),
    ("jetcopydb_replica_lag_seconds > 60", "jetcopydb_replica_lag_seconds > 5"),
    ("evaluation_interval: 15s", "evaluation_interval: 1s"),
    ("scrape_interval: 15s", "scrape_interval: 2s"),
    ("scrape_timeout: 10s", "scrape_interval: 4s\n    scrape_timeout: 4s"),
];

/// How long an alert may take to fire or to clear. Most take seconds; what this bounds is a run on a machine
/// that has little time for it.
const ALERT_PATIENCE: Duration = Duration::from_mins(5);

/// How often Prometheus is asked: it evaluates once a second, and has its own work to do.
const ASK: Duration = Duration::from_millis(200);

/// Messages that the stream keeps: the load fills it within an hour, which is what the alert is for, also
/// where a loaded machine publishes 600 a second instead of 4,000; and no fault lasts as long as it takes at
/// full speed.
const STREAM_LIMIT: i64 = 2_000_000;

/// WAL that a standby must lack for its alert is 64 MiB; this makes 100.
const MUCH_WAL: &str = "CREATE TABLE filler AS SELECT repeat(md5(n::text), 10) AS text \
    FROM generate_series(1, 300000) n; DROP TABLE filler";

/// The name of the file system that is filled.
const FULL: &str = "jetcopy-full";

fn hurried(text: &str) -> String {
    let scaled = SCALED.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    each_second(&scaled)
}

/// The series of an alert that fires.
fn firing(alert: &str) -> String {
    // Other file systems of the machine are not this test's.
    let more = if alert == "DiskNearlyFull" { format!(", mountpoint=~\".*/{FULL}\"") } else { String::new() };
    format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"{more}}}")
}

/// What is seen of the alerts.
struct Watch {
    stack: Stack,
    fired: BTreeSet<String>,
    skipped: BTreeSet<&'static str>,
}

/// Alerts that one fault is for, since when they were silent.
struct Expected<const N: usize> {
    alerts: [&'static str; N],
    since: Instant,
}

impl Watch {
    /// Waits until none of these fires, so that those that fire from now on do so for the fault that is made
    /// next.
    async fn before<const N: usize>(&self, alerts: [&'static str; N]) -> Expected<N> {
        for alert in alerts {
            self.until(&format!("{alert} to be silent"), || self.stack.query(&firing(alert)).is_empty())
                .await;
        }
        Expected { alerts, since: Instant::now() }
    }

    /// Waits until each has fired. Prometheus remembers: one that fires for a moment only is not missed.
    async fn fire<const N: usize>(&mut self, expected: &Expected<N>) {
        for alert in expected.alerts {
            let seen = || {
                let seconds = expected.since.elapsed().as_secs().max(1);
                !self.stack.query(&format!("count_over_time({}[{seconds}s])", firing(alert))).is_empty()
            };
            self.until(&format!("{alert} to fire"), seen).await;
            println!("{alert} fires within {:.1?}", expected.since.elapsed());
            for alert in self.stack.ask("/api/v1/alerts")["alerts"].as_array().unwrap() {
                let text = alert["annotations"].to_string();
                assert!(!text.contains("no value") && !text.contains("error"), "{text}");
            }
            self.fired.insert(alert.to_owned());
        }
    }

    /// Waits until none of them fires any more, now that the fault is mended.
    async fn clear<const N: usize>(&self, expected: Expected<N>) {
        let start = Instant::now();
        for alert in expected.alerts {
            self.until(&format!("{alert} to clear"), || self.stack.query(&firing(alert)).is_empty()).await;
            println!("{alert} clears within {:.1?}", start.elapsed());
        }
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + ALERT_PATIENCE;
        while !condition() {
            if Instant::now() > deadline {
                let now = self.stack.ask("/api/v1/alerts");
                let targets = self.stack.ask("/api/v1/targets?state=active");
                panic!("waited {ALERT_PATIENCE:?} in vain for {what}; alerts: {now:#}; targets: {targets:#}");
            }
            tokio::time::sleep(ASK).await;
        }
    }

    fn skip(&mut self, alert: &'static str, need: Need) {
        leave_out(need, alert);
        self.skipped.insert(alert);
    }

    async fn sql(&self, sql: &str) {
        self.stack.world.database.batch_execute(sql).await.unwrap();
    }

    async fn another_client(&self) -> Client {
        connect(&self.stack.world.own_url).await.unwrap()
    }
}

/// The pipeline's table is missing: it pauses, falls behind, and the stream nears its limit.
async fn missing_table(watch: &mut Watch) {
    let expected = watch.before(["JetcopyPipelinePaused", "JetcopyLagGrowing", "JetcopyHeadroomLow"]).await;
    watch.sql("ALTER TABLE events RENAME TO away").await;
    watch.fire(&expected).await;
    watch.sql("ALTER TABLE away RENAME TO events").await;
    watch.clear(expected).await;
}

async fn purged_stream(watch: &mut Watch, config: &Path) {
    let expected = watch.before(["JetcopyPipelineHalted", "JetcopyLossRecorded"]).await;
    watch.sql("ALTER TABLE events RENAME TO away").await;
    gives(&watch.stack, "jetcopy_pipeline_state{state=\"paused\"} == 1").await;
    let world = &watch.stack.world;
    world.jetstream.get_stream(&world.stream).await.unwrap().purge().await.unwrap();
    watch.sql("ALTER TABLE away RENAME TO events").await;
    watch.fire(&expected).await;
    let mut accept = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    let output = accept.args(["accept-loss", "events", "--yes", "--config"]).arg(config).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    watch.clear(expected).await;
}

async fn servers_away(watch: &mut Watch) {
    let expected = watch.before(["JetcopyNatsUnreachable", "JetcopyPipelineNotRunning"]).await;
    watch.stack.nats.stop(Stop::Kill);
    watch.fire(&expected).await;
    watch.stack.nats.start_again().unwrap();
    watch.stack.world.nats_answers().await;
    watch.clear(expected).await;

    let expected = watch.before(["PostgresDown", "JetcopyDatabaseUnreachable"]).await;
    watch.stack.postgres.stop(Stop::Fast);
    watch.fire(&expected).await;
    assert!(watch.stack.query("jetcopy_nats_up == 0").is_empty(), "NATS is there while the database is away");
    watch.stack.postgres.start_again().unwrap();
    watch.stack.world.reconnect().await;
    watch.clear(expected).await;
}

/// A shard has a checkpoint and messages, and the configuration no longer names it.
async fn removed_shard(watch: &mut Watch) {
    let expected = watch.before(["JetcopyMessagesLeftBehind"]).await;
    let stream = watch.stack.world.stream.clone();
    let gone = format!(
        "INSERT INTO jetcopy.checkpoints (shard, pipeline, stream, last_sequence, epoch) \
         VALUES ('events/1', 'events', '{stream}', 0, 1)"
    );
    watch.sql(&gone).await;
    watch.fire(&expected).await;
    watch.sql("DELETE FROM jetcopy.checkpoints WHERE shard = 'events/1'").await;
    watch.clear(expected).await;
}

async fn poison(watch: &mut Watch) {
    let expected = watch.before(["JetcopyDeadLettersRising"]).await;
    watch.stack.world.publish("bad", ["not MessagePack"]).await;
    watch.fire(&expected).await;
    watch.clear(expected).await;
}

async fn ended_sessions(watch: &mut Watch) {
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE application_name LIKE 'jetcopy/%'";
    let expected = watch.before(["JetcopyResyncsFrequent"]).await;
    while watch.stack.query(&firing("JetcopyResyncsFrequent")).is_empty()
        && expected.since.elapsed() < ALERT_PATIENCE
    {
        watch.stack.world.count(end).await;
        watch.stack.world.commits(watch.stack.daemon()).await;
    }
    watch.fire(&expected).await;
    watch.clear(expected).await;
}

async fn slow_trigger(watch: &mut Watch) {
    let trigger = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ \
        BEGIN PERFORM pg_sleep(0.7); RETURN NULL; END $$;
        CREATE TRIGGER slow AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION slow()";
    let expected = watch.before(["JetcopyCommitsSlow"]).await;
    watch.sql(trigger).await;
    watch.fire(&expected).await;
    watch.sql("DROP TRIGGER slow ON events").await;
    watch.clear(expected).await;
}

async fn daemon_away(watch: &mut Watch, config: &Path) {
    let expected = watch.before(["JetcopyDown"]).await;
    let first = watch.before(["JetcopyDeadLettersRising"]).await;
    watch.stack.daemon = None;
    watch.fire(&expected).await;
    // Of its first second, before anybody asks.
    let letters =
        async |watch: &Watch| watch.stack.world.count("SELECT count(*) FROM jetcopy.dead_letters").await;
    let before = letters(watch).await;
    watch.stack.world.publish("bad", ["not MessagePack"]).await;
    let daemon = Daemon::start(config);
    daemon.says("pipeline is running").await;
    eventually("the letter", || async { letters(watch).await > before }).await;
    watch.stack.scrape_daemon(&daemon);
    watch.stack.daemon = Some(daemon);
    watch.fire(&first).await;
    watch.clear(expected).await;
    watch.clear(first).await;
}

async fn exporters(watch: &mut Watch) {
    let expected = watch.before(["ExporterDown"]).await;
    watch.stack.node.stop(Stop::Kill);
    watch.fire(&expected).await;
    watch.stack.node.start_again().unwrap();
    watch.clear(expected).await;

    let expected = watch.before(["MonitoringQueriesFailing"]).await;
    watch.sql("ALTER FUNCTION jetcopy.monitor_losses() RENAME TO away").await;
    watch.fire(&expected).await;
    watch.sql("ALTER FUNCTION jetcopy.away() RENAME TO monitor_losses").await;
    watch.clear(expected).await;
}

/// A file system of 16 MiB; unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(&path).status();
        mount.is_ok_and(|status| status.success()).then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

async fn full_disk(watch: &mut Watch) {
    let path = watch.stack.world.directory.path().join(FULL);
    let Some(disk) = SmallDisk::mount(path) else {
        watch.skip("DiskNearlyFull", Need::Mount);
        return;
    };
    let expected = watch.before(["DiskNearlyFull"]).await;
    let file = disk.0.join("file");
    std::fs::write(&file, vec![1; 14 << 20]).unwrap();
    watch.fire(&expected).await;
    std::fs::remove_file(&file).unwrap();
    watch.clear(expected).await;
}

async fn slow_queries(watch: &mut Watch) {
    let client = watch.another_client().await;
    let expected = watch.before(["PostgresQueriesSlow"]).await;
    let queries = tokio::spawn(async move {
        loop {
            client.batch_execute("SELECT pg_sleep(0.3)").await.unwrap();
        }
    });
    watch.fire(&expected).await;
    queries.abort();
    watch.clear(expected).await;
}

async fn failing_job(watch: &mut Watch) {
    if !watch.stack.postgres.has_timescaledb() {
        watch.skip("StoreJobFailing", Need::TimescaleDb);
        return;
    }
    let expected = watch.before(["StoreJobFailing"]).await;
    watch
        .sql(
            "CREATE PROCEDURE fails(job_id int, config jsonb) LANGUAGE plpgsql AS $$ BEGIN RAISE 'as told'; \
             END $$;
             SELECT add_job('fails', '1 hour', initial_start => now())",
        )
        .await;
    watch.fire(&expected).await;
    let mended =
        "CREATE OR REPLACE PROCEDURE fails(job_id int, config jsonb) LANGUAGE plpgsql AS $$ BEGIN END $$";
    watch.sql(mended).await;
    // Again and again: the end of a run that began before would set the time of the next one to minutes from
    // now.
    let soon = "WITH failed AS MATERIALIZED (
            SELECT jobs.job_id AS job FROM timescaledb_information.jobs \
                JOIN timescaledb_information.job_stats USING (job_id)
            WHERE proc_name = 'fails' AND last_run_status = 'Failed'
        ) SELECT count(*) FROM failed, LATERAL alter_job(failed.job, next_start => now())";
    eventually("the job to do well", || async {
        let failed = watch.stack.world.count(soon).await;
        tokio::time::sleep(ASK).await;
        failed == 0
    })
    .await;
    watch.clear(expected).await;
    watch.sql("SELECT delete_job(job_id) FROM timescaledb_information.jobs WHERE proc_name = 'fails'").await;
}

async fn paused_standby(watch: &mut Watch) {
    let standby = connect(&watch.stack.standby.url()).await.unwrap();
    let expected = watch.before(["ReplicationLag"]).await;
    standby.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
    watch.sql(MUCH_WAL).await;
    watch.fire(&expected).await;
    standby.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    watch.clear(expected).await;
}

async fn clients(watch: &mut Watch) {
    let expected = watch.before(["PostgresConnectionsHigh"]).await;
    let mut idle = Vec::new();
    for _ in 0..45 {
        idle.push(watch.another_client().await);
    }
    watch.fire(&expected).await;
    drop(idle);
    watch.clear(expected).await;

    let expected = watch.before(["PostgresLongTransaction"]).await;
    let open = watch.another_client().await;
    open.batch_execute("BEGIN; SELECT 1").await.unwrap();
    watch.fire(&expected).await;
    open.batch_execute("ROLLBACK").await.unwrap();
    watch.clear(expected).await;
}

async fn crowded_pool(watch: &mut Watch) {
    if watch.stack.bouncer.is_none() {
        watch.skip("PgBouncerClientsWaiting", Need::PgBouncer);
        return;
    }
    let expected = watch.before(["PgBouncerClientsWaiting"]).await;
    let bouncer = watch.stack.bouncer.as_ref().unwrap();
    let url = bouncer.url(&watch.stack.world.own_url);
    let mut open = Vec::new();
    for _ in 0..3 {
        let client = connect(&url).await.unwrap();
        // The pool has two connections: the third waits until one is free.
        open.push(tokio::spawn(async move {
            client.batch_execute("BEGIN; SELECT 1").await.unwrap();
            std::future::pending::<()>().await;
            drop(client);
        }));
    }
    watch.fire(&expected).await;
    for client in open {
        client.abort();
    }
    watch.clear(expected).await;
}

/// The standby is cut off and takes over: what it lacks is written again.
async fn failover(watch: &mut Watch) {
    let expected = watch.before(["JetcopyMessagesReplayed"]).await;
    watch.stack.between.refuse(true);
    watch.stack.between.reset();
    let behind = watch.stack.world.checkpoint("events").await + 1_000;
    eventually("commits that the standby lacks", || async {
        watch.stack.world.checkpoint("events").await > behind
    })
    .await;
    gives(&watch.stack, &format!("jetcopy_checkpoint_sequence > {behind}")).await;
    watch.stack.postgres.stop(Stop::Kill);
    watch.stack.standby.promote().await.unwrap();
    watch.fire(&expected).await;
    watch.clear(expected).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes six minutes: run `make alerts`"]
async fn every_alert_fires_when_its_fault_is_made_and_clears_afterwards() {
    let stack = Stack::start(hurried).await;
    let config = stack.world.config(EVENTS);
    let mut limited = stack.world.stream_config();
    limited.max_messages = STREAM_LIMIT;
    stack.world.jetstream.update_stream(limited).await.unwrap();
    stack.world.publish("first", [event(0)]).await;
    let load = Load::start(&stack.world);
    let mut watch = Watch { stack, fired: BTreeSet::new(), skipped: BTreeSet::new() };
    for job in ["jetcopy", "postgres", "node"] {
        gives(&watch.stack, &format!("up{{job=\"{job}\"}} == 1")).await;
    }
    gives(&watch.stack, "jetcopy_behind_seconds").await;

    missing_table(&mut watch).await;
    purged_stream(&mut watch, &config).await;
    servers_away(&mut watch).await;
    removed_shard(&mut watch).await;
    poison(&mut watch).await;
    ended_sessions(&mut watch).await;
    slow_trigger(&mut watch).await;
    daemon_away(&mut watch, &config).await;
    exporters(&mut watch).await;
    full_disk(&mut watch).await;
    slow_queries(&mut watch).await;
    failing_job(&mut watch).await;
    paused_standby(&mut watch).await;
    clients(&mut watch).await;
    crowded_pool(&mut watch).await;
    failover(&mut watch).await;
    load.stop().await;

    let unseen: Vec<String> = rules()
        .into_iter()
        .filter(|rule| {
            rule.alert && !watch.fired.contains(&rule.name) && !watch.skipped.contains(rule.name.as_str())
        })
        .map(|rule| rule.name)
        .collect();
    assert!(unseen.is_empty(), "never seen: {unseen:?}");
}

#[test]
fn what_is_scaled_for_the_run_of_faults_is_there() {
    let files = ["prometheus.yml", "rules/recording.yml", "rules/jetcopy.yml", "rules/postgres.yml"];
    let all: String = files
        .map(|file| std::fs::read_to_string(super::own("config/prometheus").join(file)).unwrap())
        .concat();
    for (from, _) in SCALED {
        assert!(all.contains(from), "{from}");
    }
}
