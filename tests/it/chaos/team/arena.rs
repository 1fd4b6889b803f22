//! The daemons, the servers between which they stand, and what must be true after a round.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream;
use futures_util::future::join_all;
use jetcopy::testbed::{PostgresOptions, Stop, TestNats, TestPgBouncer, TestPostgres};
use nix::sys::signal::Signal;

use super::super::fault::Blow;
use super::fault::{DAEMONS, Fault, SERVERS};
use crate::support::{Daemon, Fault as Spoil, Load, Proxy, Way, World, event, eventually};

/// Shards, each of a stream of its own.
const SHARDS: usize = 8;

/// Messages that are published to each stream every 20 ms: 1,600 a second in all, beside ten servers and
/// daemons on two cores.
const MESSAGES: u64 = 4;

/// Writers of each shard.
const WRITERS: usize = 2;

/// Small batches, so that blocks are small and a second holds many transactions.
const PIPELINE: &str = r#"
[[pipeline]]
name = "events"
stream = "STREAM_{shard}"
shards = SHARDS
writers = WRITERS
format = "msgpack"
batch = { max_rows = 50, max_age = "5ms" }

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"
subject = "$subject"
"#;

const TABLE: &str =
    "CREATE TABLE events (sequence bigint NOT NULL, subject text NOT NULL, id bigint NOT NULL, note text)";

/// Short deadlines: faults are short, and an answer that does not come within seconds never does.
const DEADLINES: &str = "step_timeout = \"3s\"\nconnect_timeout = \"1s\"";

/// How long an ack is waited for before it is shown what there is instead.
const SHOWN_AFTER: Duration = Duration::from_secs(50);

pub(super) struct Arena {
    // In the order in which they end: the daemons first.
    daemons: Vec<Option<Daemon>>,
    added: Option<Daemon>,
    /// For each of the daemons: the last one goes without the pooler.
    configs: [PathBuf; DAEMONS],
    /// Between the primary and who goes without the pooler.
    way: Proxy,
    pooler: TestPgBouncer,
    world: World,
    nats: Vec<TestNats>,
    primary: TestPostgres,
    standby: TestPostgres,
    /// By way of which the standby streams.
    between: Proxy,
    /// The stream's name without its shard.
    base: String,
    /// Messages that were published to each stream when it was last judged.
    fresh: u64,
}

impl Arena {
    /// `None` where there is no pooler.
    pub(super) async fn open() -> Option<Self> {
        let nats = TestNats::start_cluster(SERVERS).unwrap();
        let primary = TestPostgres::start(&PostgresOptions::default()).unwrap();
        let pooler = TestPgBouncer::start_or_skip(&primary).unwrap()?;
        let jetstream = jetstream::new(async_nats::connect(nats[0].url()).await.unwrap());
        eventually("the cluster to have a leader", || async { jetstream.query_account().await.is_ok() })
            .await;
        let mut world = World::on(&nats[0], &primary).await;
        world.nats_url = nats.iter().map(TestNats::url).collect::<Vec<_>>().join(",");
        let servers: Vec<String> = nats.iter().map(TestNats::url).collect();
        world.nats = async_nats::connect(servers).await.unwrap();
        world.jetstream = jetstream::new(world.nats.clone());
        world.postgres_settings = DEADLINES.into();
        let (way, between) = (Proxy::start(primary.port()).await, Proxy::start(primary.port()).await);
        let base = world.stream.clone();
        world.database.batch_execute(TABLE).await.unwrap();
        for shard in 0..SHARDS {
            let config = jetstream::stream::Config {
                name: format!("{base}_{shard}"),
                subjects: vec![format!("{base}_{shard}.>")],
                num_replicas: SERVERS,
                ..Default::default()
            };
            world.jetstream.create_stream(config).await.unwrap();
        }
        let pipeline =
            PIPELINE.replace("SHARDS", &SHARDS.to_string()).replace("WRITERS", &WRITERS.to_string());
        world.database_url = pooler.url(&world.own_url);
        let behind = world.config_file("pooled.toml", &pipeline);
        world.database_url = way.through(&world.own_url);
        let direct = world.config_file("direct.toml", &pipeline);
        let configs = [behind.clone(), behind, direct];
        let standby = primary.standby(between.port()).unwrap();
        Some(Self {
            daemons: configs.iter().map(|config| Some(Daemon::start(config))).collect(),
            added: None,
            configs,
            way,
            pooler,
            world,
            nats,
            primary,
            standby,
            between,
            base,
            fresh: 0,
        })
    }

    /// Publishes to each stream until it is stopped.
    pub(super) fn load(&mut self) -> Vec<Load> {
        let streams = (0..SHARDS).map(|shard| self.stream(shard)).collect::<Vec<_>>();
        let load = |stream| {
            self.world.stream = stream;
            Load::at(&self.world, MESSAGES, self.fresh + 1)
        };
        streams.into_iter().map(load).collect()
    }

    fn stream(&self, shard: usize) -> String {
        format!("{}_{shard}", self.base)
    }

    pub(super) async fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::Daemon(which, blow) => self.signal(which, blow),
            Fault::Added(_) => self.added = Some(Daemon::start(&self.configs[0])),
            Fault::Drained(which) => self.drain(which, &[]).await,
            Fault::Server(server, stop) => self.nats[server].stop(stop),
            Fault::AllBut(left, stop) => {
                for server in (0..SERVERS).filter(|&server| server != left) {
                    self.nats[server].stop(stop);
                }
            }
            Fault::Pooler(stop) => self.pooler.stop(stop),
            Fault::Primary(stop) => self.primary.stop(stop),
            Fault::Failover => {
                self.between.refuse(true);
                self.between.reset();
            }
            Fault::CutOff => {
                self.way.set(Way::ToServer, Spoil::Swallow);
                self.way.set(Way::ToClient, Spoil::Swallow);
            }
            Fault::Sessions => {
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE pid <> pg_backend_pid() AND application_name LIKE 'jetcopy%'";
                self.world.database.batch_execute(end).await.unwrap();
            }
        }
    }

    pub(super) async fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Daemon(which, Blow::Freeze) => {
                self.daemons[which].as_ref().unwrap().signal(Signal::SIGCONT);
            }
            Fault::Daemon(which, Blow::Kill | Blow::Terminate) => {
                self.daemons[which].take().unwrap().ended().await;
                self.daemons[which] = Some(Daemon::start(&self.configs[which]));
            }
            Fault::Added(blow) => {
                let added = self.added.take().unwrap();
                if blow == Blow::Terminate {
                    added.signal(Signal::SIGTERM);
                    added.ended().await;
                }
            }
            Fault::Drained(which) => self.drain(which, &["--undo"]).await,
            Fault::Server(server, _) => {
                self.nats[server].start_again().unwrap();
                self.replicated().await;
            }
            Fault::AllBut(left, _) => {
                for server in (0..SERVERS).filter(|&server| server != left) {
                    self.nats[server].start_again().unwrap();
                }
                self.replicated().await;
            }
            Fault::Pooler(_) => self.pooler.start_again().unwrap(),
            Fault::Primary(_) => {
                self.primary.start_again().unwrap();
                self.world.reconnect().await;
            }
            Fault::Failover => self.fail_over().await,
            Fault::CutOff => self.way.heal(),
            Fault::Sessions => {}
        }
    }

    fn signal(&self, which: usize, blow: Blow) {
        self.daemons[which].as_ref().unwrap().signal(match blow {
            Blow::Kill => Signal::SIGKILL,
            Blow::Terminate => Signal::SIGTERM,
            Blow::Freeze => Signal::SIGSTOP,
        });
    }

    /// Asks a daemon to give its shards away, or takes that back. One that has no row at the moment cannot be
    /// asked.
    async fn drain(&self, which: usize, undo: &[&str]) {
        let log = self.daemons[which].as_ref().unwrap().log();
        let named = log.split("instance=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let Some(name) = named.map(|name| name.trim_matches('"')) else { return };
        let arguments = [&["drain", name, "--wait", "1s"], undo].concat();
        self.world.run(&self.configs[DAEMONS - 1], &arguments).await;
    }

    /// Waits until each stream is on all servers again: what one of two servers alone has stored is nobody's
    /// fault to lose but the next kill's.
    async fn replicated(&self) {
        for shard in 0..SHARDS {
            eventually("all replicas to be current", || async {
                let Ok(stream) = self.world.jetstream.get_stream(self.stream(shard)).await else {
                    return false;
                };
                let cluster = stream.cached_info().cluster.as_ref();
                cluster.is_some_and(|cluster| {
                    let current = cluster.replicas.iter().filter(|replica| replica.current).count();
                    cluster.leader.is_some() && current == SERVERS - 1
                })
            })
            .await;
        }
    }

    /// Loses the primary; the standby takes its place, and gets a standby of its own.
    async fn fail_over(&mut self) {
        self.primary.stop(Stop::Kill);
        self.standby.promote().await.unwrap();
        let (before, after) = (self.primary.port(), self.standby.port());
        self.way.turn_to(after);
        self.pooler.point_to(&self.standby).unwrap();
        self.world.own_url = self.world.own_url.replace(&format!(":{before}/"), &format!(":{after}/"));
        self.world.reconnect().await;
        self.between = Proxy::start(after).await;
        let next = self.standby.standby(self.between.port()).unwrap();
        self.primary = std::mem::replace(&mut self.standby, next);
    }

    /// What the oracle asks, of each shard; how many messages came into the streams since it was asked last.
    pub(super) async fn judge(&mut self, load: Vec<Load>) -> u64 {
        let published: Vec<u64> = join_all(load.into_iter().map(Load::stop)).await;
        for daemon in &self.daemons {
            assert!(daemon.as_ref().unwrap().is_running(), "a daemon has ended");
        }
        let before = self.fresh;
        self.fresh = published.iter().copied().max().unwrap() + 1;
        let mut messages = 0;
        for (shard, published) in published.iter().enumerate() {
            self.world.stream = self.stream(shard);
            self.each_once(shard).await;
            self.world.publish("fresh", [event(self.fresh)]).await;
            self.each_once(shard).await;
            let sql = "SELECT count(DISTINCT id) FROM events WHERE subject = $1 AND id BETWEEN $2 AND $3";
            let (first, last) = (i64::try_from(before + 1).unwrap(), i64::try_from(*published).unwrap());
            let subject = format!("{}.load", self.world.stream);
            let found = self.world.database.query_one(sql, &[&subject, &first, &last]).await.unwrap();
            assert_eq!(found.get::<_, i64>(0), last - first + 1, "ids of {subject} from {first} to {last}");
            messages += published - before + 1;
        }
        for daemon in self.daemons.iter().flatten() {
            assert!(!daemon.log().contains("panicked"), "a daemon panicked");
        }
        messages
    }

    /// That each message of the world's stream is a row once and nothing else is, and that all are
    /// acknowledged.
    async fn each_once(&self, shard: usize) {
        let name = format!("events-{shard}");
        self.world.drained(&name, self.daemons[0].as_ref().unwrap()).await;
        let last = self.world.last_sequence().await;
        let sql = "SELECT count(*), count(DISTINCT sequence), min(sequence), max(sequence) FROM events
            WHERE starts_with(subject, $1)";
        let row = self.world.database.query_one(sql, &[&format!("{}.", self.world.stream)]).await.unwrap();
        let found: [i64; 4] = [0, 1, 2, 3].map(|column| row.get(column));
        let all = i64::try_from(last).unwrap();
        assert_eq!(found, [all, all, 1, all], "rows, sequences, first and last of {name}");
        let letters = "SELECT count(*) FROM jetcopy.dead_letters";
        assert_eq!(self.world.count(letters).await, 0, "dead letters");
        let stream = self.world.jetstream.get_stream(&self.world.stream).await.unwrap();
        let what = format!("ack floor {last} of {name}");
        let acknowledged = eventually(&what, || async {
            let durable = stream.consumer_info(format!("jetcopy-{name}")).await;
            durable.is_ok_and(|durable| durable.ack_floor.stream_sequence == last)
        });
        tokio::select! {
            () = acknowledged => {}
            () = tokio::time::sleep(SHOWN_AFTER) => {
                println!("{:?}", stream.consumer_info(format!("jetcopy-{name}")).await);
                for daemon in self.daemons.iter().flatten() {
                    println!("{:#}", daemon.status());
                }
                panic!("waited {SHOWN_AFTER:?} in vain for {what}");
            }
        }
    }
}
