//! The real Prometheus over real servers: every alert fires when its fault is made, and clears when it is mended.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use jetcopy::private::{Stop, connect};
use tokio_postgres::Client;

use super::rules;
use super::stack::{Stack, each_second, gives};
use crate::support::{Daemon, EVENTS, Load, PATIENCE, event, eventually};

/// What is scaled so that minutes become seconds: waits, ranges, and thresholds that are times.
const SCALED: [(&str, &str); 10] = [
    ("[5m]", "[10s]"),
    ("[15m]", "[30s]"),
    ("for: 1m", "for: 1s"),
    ("for: 2m", "for: 1s"),
    ("for: 5m", "for: 2s"),
    ("jetcopy_behind_seconds > 60", "jetcopy_behind_seconds > 3"),
    ("jetcopydb_losses_newest_age_seconds < 900", "jetcopydb_losses_newest_age_seconds < 20"),
    ("state!=\"disabled\"}) > 900", "state!=\"disabled\"}) > 3"),
    ("jetcopydb_replica_lag_seconds > 60", "jetcopydb_replica_lag_seconds > 5"),
    ("evaluation_interval: 15s", "evaluation_interval: 1s"),
];

/// Messages that the stream keeps: an hour and a half of the load is more.
const STREAM_LIMIT: i64 = 10_000_000;

/// WAL that a standby must lack for its alert is 64 MiB; this makes 100.
const MUCH_WAL: &str = "CREATE TABLE filler AS SELECT repeat(md5(n::text), 10) AS text FROM generate_series(1, 300000) n; DROP TABLE filler";

fn hurried(text: &str) -> String {
    let scaled = SCALED.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    each_second(&scaled)
}

/// Which alerts were seen.
struct Watch {
    stack: Stack,
    fired: BTreeSet<String>,
    skipped: BTreeSet<&'static str>,
}

impl Watch {
    async fn fires(&mut self, alert: &str) {
        let start = Instant::now();
        gives(&self.stack, &format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}")).await;
        println!("{alert} fires after {:.1?}", start.elapsed());
        for alert in self.stack.ask("/api/v1/alerts")["alerts"].as_array().unwrap() {
            let text = alert["annotations"].to_string();
            assert!(!text.contains("no value") && !text.contains("error"), "{text}");
        }
        self.fired.insert(alert.to_owned());
    }

    async fn clears(&self, alert: &str) {
        let start = Instant::now();
        let query = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}");
        eventually(&format!("{alert} to clear"), || async { self.stack.query(&query).is_empty() }).await;
        println!("{alert} clears after {:.1?}", start.elapsed());
    }

    async fn all_clear(&self) {
        // Other file systems of the machine are not this test's.
        let query = "ALERTS{alertname!=\"DiskNearlyFull\", alertstate=\"firing\"}";
        let mut firing = Vec::new();
        eventually("no alert", || {
            let now = self.stack.query(query);
            let names: Vec<String> = now.iter().map(|alert| alert["metric"].to_string()).collect();
            if names != firing {
                println!("still firing: {names:?}");
            }
            firing = names;
            std::future::ready(firing.is_empty())
        })
        .await;
    }

    fn skip(&mut self, alert: &'static str, why: &str) {
        eprintln!("SKIPPED: {alert}: {why}");
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
    watch.sql("ALTER TABLE events RENAME TO away").await;
    for alert in ["JetcopyPipelinePaused", "JetcopyLagGrowing", "JetcopyHeadroomLow"] {
        watch.fires(alert).await;
    }
    watch.sql("ALTER TABLE away RENAME TO events").await;
    for alert in ["JetcopyPipelinePaused", "JetcopyLagGrowing", "JetcopyHeadroomLow"] {
        watch.clears(alert).await;
    }
}

async fn purged_stream(watch: &mut Watch, config: &Path) {
    watch.sql("ALTER TABLE events RENAME TO away").await;
    gives(&watch.stack, "jetcopy_pipeline_state{state=\"paused\"} == 1").await;
    let world = &watch.stack.world;
    world.jetstream.get_stream(&world.stream).await.unwrap().purge().await.unwrap();
    watch.sql("ALTER TABLE away RENAME TO events").await;
    for alert in ["JetcopyPipelineHalted", "JetcopyLossRecorded"] {
        watch.fires(alert).await;
    }
    let mut accept = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    let output = accept.args(["accept-loss", "events", "--config"]).arg(config).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for alert in ["JetcopyPipelineHalted", "JetcopyLossRecorded"] {
        watch.clears(alert).await;
    }
}

async fn servers_away(watch: &mut Watch) {
    watch.stack.nats.stop(Stop::Kill);
    for alert in ["JetcopyNatsUnreachable", "JetcopyPipelineNotRunning"] {
        watch.fires(alert).await;
    }
    watch.stack.nats.start_again().unwrap();
    watch.stack.world.nats_answers().await;
    for alert in ["JetcopyNatsUnreachable", "JetcopyPipelineNotRunning"] {
        watch.clears(alert).await;
    }
    watch.stack.postgres.stop(Stop::Fast);
    for alert in ["PostgresDown", "JetcopyDatabaseUnreachable"] {
        watch.fires(alert).await;
    }
    assert!(watch.stack.query("jetcopy_nats_up == 0").is_empty(), "NATS is there while the database is away");
    watch.stack.postgres.start_again().unwrap();
    watch.stack.world.reconnect().await;
    for alert in ["PostgresDown", "JetcopyDatabaseUnreachable"] {
        watch.clears(alert).await;
    }
}

async fn poison(watch: &mut Watch) {
    watch.stack.world.publish("bad", ["not MessagePack"]).await;
    watch.fires("JetcopyDeadLettersRising").await;
    watch.clears("JetcopyDeadLettersRising").await;
}

async fn ended_sessions(watch: &mut Watch) {
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'jetcopy/%'";
    let firing = "ALERTS{alertname=\"JetcopyResyncsFrequent\", alertstate=\"firing\"}";
    let start = Instant::now();
    while watch.stack.query(firing).is_empty() && start.elapsed() < PATIENCE {
        watch.stack.world.count(end).await;
        watch.stack.world.commits(watch.stack.daemon()).await;
    }
    watch.fires("JetcopyResyncsFrequent").await;
    watch.clears("JetcopyResyncsFrequent").await;
}

async fn slow_trigger(watch: &mut Watch) {
    let trigger = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.7); RETURN NULL; END $$;
        CREATE TRIGGER slow AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION slow()";
    watch.sql(trigger).await;
    watch.fires("JetcopyCommitsSlow").await;
    watch.sql("DROP TRIGGER slow ON events").await;
    watch.clears("JetcopyCommitsSlow").await;
}

async fn daemon_away(watch: &mut Watch, config: &Path) {
    watch.stack.daemon = None;
    watch.fires("JetcopyDown").await;
    let daemon = Daemon::start(config);
    daemon.says("pipeline is running").await;
    watch.stack.scrape_daemon(&daemon);
    watch.stack.daemon = Some(daemon);
    watch.clears("JetcopyDown").await;
}

async fn exporters(watch: &mut Watch) {
    watch.stack.node.stop(Stop::Kill);
    watch.fires("ExporterDown").await;
    watch.stack.node.start_again().unwrap();
    watch.clears("ExporterDown").await;
    watch.sql("ALTER FUNCTION jetcopy.monitor_losses() RENAME TO away").await;
    watch.fires("MonitoringQueriesFailing").await;
    watch.sql("ALTER FUNCTION jetcopy.away() RENAME TO monitor_losses").await;
    watch.clears("MonitoringQueriesFailing").await;
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
    let path = watch.stack.world.directory.path().join("full");
    let Some(disk) = SmallDisk::mount(path) else {
        watch.skip("DiskNearlyFull", "only root may mount a small file system to fill");
        return;
    };
    let file = disk.0.join("file");
    std::fs::write(&file, vec![1; 14 << 20]).unwrap();
    let firing = format!(
        "ALERTS{{alertname=\"DiskNearlyFull\", alertstate=\"firing\", mountpoint=\"{}\"}}",
        disk.0.display()
    );
    gives(&watch.stack, &firing).await;
    watch.fires("DiskNearlyFull").await;
    std::fs::remove_file(&file).unwrap();
    eventually("DiskNearlyFull to clear", || async { watch.stack.query(&firing).is_empty() }).await;
}

async fn slow_queries(watch: &mut Watch) {
    let client = watch.another_client().await;
    let queries = tokio::spawn(async move {
        loop {
            client.batch_execute("SELECT pg_sleep(0.3)").await.unwrap();
        }
    });
    watch.fires("PostgresQueriesSlow").await;
    queries.abort();
    watch.clears("PostgresQueriesSlow").await;
}

async fn failing_job(watch: &mut Watch) {
    if !watch.stack.postgres.has_timescaledb() {
        watch.skip("StoreJobFailing", "the server does not offer TimescaleDB");
        return;
    }
    watch
        .sql(
            "CREATE PROCEDURE fails(job_id int, config jsonb) LANGUAGE plpgsql AS $$ BEGIN RAISE 'as told'; END $$;
             SELECT add_job('fails', '1 hour', initial_start => now())",
        )
        .await;
    watch.fires("StoreJobFailing").await;
    let mended =
        "CREATE OR REPLACE PROCEDURE fails(job_id int, config jsonb) LANGUAGE plpgsql AS $$ BEGIN END $$";
    watch.sql(mended).await;
    watch
        .sql("SELECT alter_job(job_id, next_start => now()) FROM timescaledb_information.jobs WHERE proc_name = 'fails'")
        .await;
    watch.clears("StoreJobFailing").await;
    watch.sql("SELECT delete_job(job_id) FROM timescaledb_information.jobs WHERE proc_name = 'fails'").await;
}

async fn paused_standby(watch: &mut Watch) {
    let standby = connect(&watch.stack.standby.url()).await.unwrap();
    standby.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
    watch.sql(MUCH_WAL).await;
    watch.fires("ReplicationLag").await;
    standby.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    watch.clears("ReplicationLag").await;
}

async fn clients(watch: &mut Watch) {
    let mut idle = Vec::new();
    for _ in 0..45 {
        idle.push(watch.another_client().await);
    }
    watch.fires("PostgresConnectionsHigh").await;
    drop(idle);
    watch.clears("PostgresConnectionsHigh").await;

    let open = watch.another_client().await;
    open.batch_execute("BEGIN; SELECT 1").await.unwrap();
    watch.fires("PostgresLongTransaction").await;
    open.batch_execute("ROLLBACK").await.unwrap();
    watch.clears("PostgresLongTransaction").await;
}

async fn crowded_pool(watch: &mut Watch) {
    let Some(bouncer) = &watch.stack.bouncer else {
        watch.skip("PgBouncerClientsWaiting", "PgBouncer is not there");
        return;
    };
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
    watch.fires("PgBouncerClientsWaiting").await;
    for client in open {
        client.abort();
    }
    watch.clears("PgBouncerClientsWaiting").await;
}

/// The standby is cut off and takes over: what it lacks is written again.
async fn failover(watch: &mut Watch) {
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
    watch.fires("JetcopyMessagesReplayed").await;
    watch.clears("JetcopyMessagesReplayed").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes: run `make alerts`"]
async fn every_alert_fires_when_its_fault_is_made_and_clears_afterwards() {
    let stack = Stack::start(hurried).await;
    let config = stack.world.config(EVENTS);
    let mut limited = stack.world.stream_config();
    limited.max_messages = STREAM_LIMIT;
    stack.world.jetstream.update_stream(limited).await.unwrap();
    stack.world.publish("first", [event(0)]).await;
    let load = Load::start(&stack.world);
    let mut watch = Watch { stack, fired: BTreeSet::new(), skipped: BTreeSet::new() };
    gives(&watch.stack, "jetcopy_behind_seconds").await;
    watch.all_clear().await;

    missing_table(&mut watch).await;
    watch.all_clear().await;
    purged_stream(&mut watch, &config).await;
    watch.all_clear().await;
    servers_away(&mut watch).await;
    watch.all_clear().await;
    poison(&mut watch).await;
    ended_sessions(&mut watch).await;
    slow_trigger(&mut watch).await;
    daemon_away(&mut watch, &config).await;
    watch.all_clear().await;
    exporters(&mut watch).await;
    full_disk(&mut watch).await;
    watch.all_clear().await;
    slow_queries(&mut watch).await;
    failing_job(&mut watch).await;
    paused_standby(&mut watch).await;
    watch.all_clear().await;
    clients(&mut watch).await;
    crowded_pool(&mut watch).await;
    watch.all_clear().await;
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
