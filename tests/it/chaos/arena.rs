//! Two daemons between servers of their own, each behind a proxy, and everything that can be done to them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_nats::Subject;
use jetcopy::private::{NatsOptions, PostgresOptions, PrivateNats, PrivatePostgres, Stop, connect};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::fault::{Blow, Fault, NatsFault, PostgresFault, WayFault, Whose};
use super::load::{Carried, Load};
use crate::support::{Daemon, Proxy, TABLE, World, oracle};

/// Short batches, and as much poison as there may be.
const PIPELINE: &str = r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "msgpack"
batch = { max_rows = 200, max_age = "5ms" }
poison = { max_per_batch = 1_000_000, max_per_minute = 1_000_000_000 }

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"
"#;

/// The request that ends a batch's transaction, as the driver sends it.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// Every so many messages one is cut short.
const POISON_EVERY: i64 = 97;

/// A message that becomes a row, or now and then one that becomes a dead letter.
pub(super) fn message(id: i64) -> Vec<u8> {
    let mut payload = rmp_serde::to_vec_named(&json!({"id": id, "note": "a line of text"})).unwrap();
    if id % POISON_EVERY == 0 {
        payload.pop();
    }
    payload
}

pub(super) struct Arena {
    // In the order in which they end: the daemons first.
    daemons: [Option<Daemon>; 2],
    config: PathBuf,
    nats_proxy: Proxy,
    postgres_proxy: Proxy,
    /// Holds a lock while one is held.
    holder: Option<Client>,
    world: World,
    nats: PrivateNats,
    /// The primary.
    postgres: PrivatePostgres,
    standby: Standby,
    next_id: Arc<AtomicI64>,
    /// The stream's end at the last verdict.
    judged: u64,
}

/// An asynchronous standby, and the proxy by way of which it streams.
struct Standby {
    server: PrivatePostgres,
    between: Proxy,
}

impl Standby {
    async fn of(primary: &PrivatePostgres) -> Self {
        let between = Proxy::start(primary.port()).await;
        Self { server: primary.standby(between.port()).unwrap(), between }
    }
}

impl Arena {
    pub(super) async fn open() -> Self {
        let nats = PrivateNats::start(&NatsOptions::default()).unwrap();
        let postgres = PrivatePostgres::start(&PostgresOptions::default()).unwrap();
        let mut world = World::on(&nats, &postgres).await;
        world.database.batch_execute(TABLE).await.unwrap();
        let (nats_proxy, postgres_proxy) =
            (Proxy::start(nats.port()).await, Proxy::start(postgres.port()).await);
        world.database_url = postgres_proxy.through(&world.database_url);
        world.nats_url = nats_proxy.through(&world.nats_url);
        // Faults are short, and an answer that does not come within seconds never does.
        world.postgres_settings = "step_timeout = \"3s\"\nconnect_timeout = \"1s\"".into();
        let config = world.config(PIPELINE);
        Self {
            daemons: [Some(Daemon::start(&config)), Some(Daemon::start(&config))],
            config,
            nats_proxy,
            postgres_proxy,
            holder: None,
            world,
            standby: Standby::of(&postgres).await,
            nats,
            postgres,
            next_id: Arc::new(AtomicI64::new(1)),
            judged: 0,
        }
    }

    /// Publishes until it is stopped.
    pub(super) fn load(&self) -> Load {
        let subject = Subject::from(format!("{}.load", self.world.stream));
        Load::start(self.world.jetstream.clone(), subject, Arc::clone(&self.next_id))
    }

    pub(super) async fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::Daemons(whose, blow) => {
                for index in indices(whose) {
                    let daemon = self.daemons[index].as_ref().unwrap();
                    daemon.signal(match blow {
                        Blow::Kill => Signal::SIGKILL,
                        Blow::Terminate => Signal::SIGTERM,
                        Blow::Freeze => Signal::SIGSTOP,
                    });
                }
            }
            Fault::Postgres(fault) => self.begin_postgres(fault).await,
            Fault::Nats(NatsFault::Down) => self.nats.stop(Stop::Fast),
            Fault::Nats(NatsFault::DeleteConsumer) => {
                let stream = self.world.jetstream.get_stream(&self.world.stream).await.unwrap();
                // It may be gone: the daemon creates it anew now and then.
                let _ = stream.delete_consumer("jetcopy-events").await;
            }
            Fault::Nats(NatsFault::Way(fault)) => spoil(&self.nats_proxy, fault),
            Fault::Poison(count) => {
                let subject = format!("{}.poison", self.world.stream);
                for _ in 0..count {
                    // Whether it comes into the stream is the stream's to know, and the oracle asks it.
                    let _ = self.world.jetstream.publish(subject.clone(), "\u{1}{cut".into()).await;
                }
            }
        }
    }

    async fn begin_postgres(&mut self, fault: PostgresFault) {
        match fault {
            PostgresFault::Down(stop) => self.postgres.stop(stop),
            PostgresFault::Failover => {
                self.standby.between.refuse(true);
                self.standby.between.reset();
            }
            PostgresFault::TerminateBackends => {
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE application_name LIKE 'jetcopy/%'";
                self.world.database.batch_execute(sql).await.unwrap();
            }
            PostgresFault::LockTable => self.hold("LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await,
            PostgresFault::LockCheckpoint => self.hold("SELECT FROM jetcopy.checkpoints FOR UPDATE").await,
            PostgresFault::LoseCommit(lose) => self.postgres_proxy.trap(COMMIT, lose),
            PostgresFault::Way(fault) => spoil(&self.postgres_proxy, fault),
        }
    }

    /// Holds what `sql` locks.
    async fn hold(&mut self, sql: &str) {
        let holder = connect(&self.world.own_url).await.unwrap();
        holder.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
        self.holder = Some(holder);
    }

    pub(super) async fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Daemons(whose, Blow::Freeze) => {
                for index in indices(whose) {
                    self.daemons[index].as_ref().unwrap().signal(Signal::SIGCONT);
                }
            }
            Fault::Daemons(whose, Blow::Kill | Blow::Terminate) => {
                for index in indices(whose) {
                    self.daemons[index].take().unwrap().ended().await;
                    self.daemons[index] = Some(Daemon::start(&self.config));
                }
            }
            Fault::Postgres(PostgresFault::Down(_)) => {
                self.postgres.start_again().unwrap();
                self.world.reconnect().await;
            }
            Fault::Postgres(PostgresFault::Failover) => self.fail_over().await,
            Fault::Postgres(PostgresFault::LockTable | PostgresFault::LockCheckpoint) => {
                self.holder.take().unwrap().batch_execute("ROLLBACK").await.unwrap();
            }
            Fault::Postgres(PostgresFault::LoseCommit(_) | PostgresFault::Way(_)) => {
                self.postgres_proxy.heal();
            }
            Fault::Nats(NatsFault::Way(_)) => self.nats_proxy.heal(),
            Fault::Nats(NatsFault::Down) => self.nats.start_again().unwrap(),
            Fault::Postgres(PostgresFault::TerminateBackends)
            | Fault::Nats(NatsFault::DeleteConsumer)
            | Fault::Poison(_) => {}
        }
    }

    /// Loses the primary; the standby takes its place, and gets a standby of its own.
    async fn fail_over(&mut self) {
        let committed = self.world.checkpoint("events").await;
        self.postgres.stop(Stop::Kill);
        self.standby.server.promote().await.unwrap();
        let (before, after) = (self.postgres.port(), self.standby.server.port());
        self.postgres_proxy.turn_to(after);
        self.world.own_url = self.world.own_url.replace(&format!(":{before}/"), &format!(":{after}/"));
        self.world.reconnect().await;
        // A daemon may have committed to the new primary already, so it is at least as many.
        let lacked = committed.saturating_sub(self.world.checkpoint("events").await);
        println!("             the standby lacked the last {lacked} sequences");
        let next = Standby::of(&self.standby.server).await;
        self.postgres = std::mem::replace(&mut self.standby, next).server;
    }

    /// Asks the oracle; how many messages came into the stream since it was asked last.
    pub(super) async fn judge(&mut self, carried: &Carried) -> u64 {
        let world = &self.world;
        // What the client kept while the server was away comes into the stream now.
        world.nats.flush().await.unwrap();
        let [Some(first), Some(second)] = &self.daemons else { panic!("a daemon is missing") };
        assert!(first.is_running() && second.is_running(), "a daemon has ended");
        let id = self.next_id.fetch_add(POISON_EVERY, Ordering::Relaxed);
        let fresh = if id % POISON_EVERY == 0 { id + 1 } else { id };
        oracle(world, first, "events", "events", message(fresh)).await;
        self.acked_are_there(carried).await;
        let last = world.last_sequence().await;
        let before = std::mem::replace(&mut self.judged, last);
        last - before
    }

    /// That what users have in place of the oracle comes to the same verdict; the number of sequences it found.
    pub(super) fn audit(&self) -> u64 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
        let output =
            command.args(["audit", "events", "--json", "--config"]).arg(&self.config).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "{report:#}");
        let count = |name: &str| report["counts"][name].as_u64().unwrap();
        count("committed") + count("dead_letters")
    }

    /// That each message with an ack is where its ack says, with the id it had.
    async fn acked_are_there(&self, carried: &Carried) {
        let (sequences, ids): (Vec<i64>, Vec<i64>) = carried.acked.iter().copied().unzip();
        let sql = "SELECT acked.sequence, acked.id FROM unnest($1::int8[], $2::int8[]) AS acked (sequence, id)
                   LEFT JOIN events USING (sequence, id)
                   LEFT JOIN jetcopy.dead_letters AS dead ON dead.sequence = acked.sequence AND acked.id % $3 = 0
                   WHERE events.sequence IS NULL AND dead.sequence IS NULL LIMIT 10";
        let missing = self.world.database.query(sql, &[&sequences, &ids, &POISON_EVERY]).await.unwrap();
        let missing: Vec<(i64, i64)> = missing.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert!(missing.is_empty(), "acknowledged by the stream and not stored (sequence, id): {missing:?}");
    }
}

fn indices(whose: Whose) -> impl Iterator<Item = usize> {
    match whose {
        Whose::First => 0..1,
        Whose::Second => 1..2,
        Whose::Both => 0..2,
    }
}

fn spoil(proxy: &Proxy, fault: WayFault) {
    match fault {
        WayFault::Reset => proxy.reset(),
        WayFault::Refuse => {
            proxy.refuse(true);
            proxy.reset();
        }
        WayFault::Spoil(way, fault) => proxy.set(way, fault),
    }
}
