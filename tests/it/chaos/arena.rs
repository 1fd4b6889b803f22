//! Two daemons between servers of their own, each behind a proxy, and everything that can be done to them.

mod durable;
mod messages;
mod servers;
mod table;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use async_nats::jetstream;
use jetcopy::testbed::{NatsOptions, PostgresOptions, TestNats, TestPostgres, connect};
use nix::sys::signal::Signal;
use tokio_postgres::Client;

use super::fault::{Blow, Fault, Limit, NatsFault, WayFault, Whose};
use super::load::Load;
use crate::support::{Daemon, Proxy, World};
use servers::Standby;

/// Short batches, and as much poison as there may be. The second table is what a message can be amplified
/// into.
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
subject = "$subject"

[[pipeline.table]]
name = "parts"
for_each = "parts"
[pipeline.table.columns]
sequence = "$sequence"
blob = "^blob"
"#;

/// What the arena's own sessions are spared of what the role of the daemons is given, from their first
/// moment on: a limit of a millisecond would end them before they could set it aside.
const UNLIMITED: &str = "?options=-c%20statement_timeout%3D0%20-c%20lock_timeout%3D0\
    %20-c%20idle_in_transaction_session_timeout%3D0%20-c%20idle_session_timeout%3D0";

pub(super) struct Arena {
    // In the order in which they end: the daemons first.
    daemons: [Option<Daemon>; 2],
    config: PathBuf,
    nats_proxy: Proxy,
    postgres_proxy: Proxy,
    /// Holds a lock while one is held.
    holder: Option<Client>,
    world: World,
    nats: TestNats,
    /// The primary.
    postgres: TestPostgres,
    standby: Standby,
    next_id: Arc<AtomicI64>,
    /// The default that the table's column has.
    default: u32,
    /// What a second client took from the durable and has not acknowledged.
    taken: Vec<jetstream::Message>,
    /// Sequence and id of each huge message that becomes a row, since the last verdict.
    huge: Vec<(i64, i64)>,
    /// The stream's end at the last verdict.
    judged: u64,
}

impl Arena {
    pub(super) async fn open() -> Self {
        let nats = TestNats::start(&NatsOptions::default()).unwrap();
        let postgres = TestPostgres::start(&PostgresOptions::default()).unwrap();
        let mut world = World::on(&nats, &postgres).await;
        world.database.batch_execute(table::TABLES).await.unwrap();
        let (nats_proxy, postgres_proxy) =
            (Proxy::start(nats.port()).await, Proxy::start(postgres.port()).await);
        world.database_url = postgres_proxy.through(&world.database_url);
        world.nats_url = nats_proxy.through(&world.nats_url);
        world.own_url += UNLIMITED;
        world.reconnect().await;
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
            default: 0,
            taken: Vec::new(),
            huge: Vec::new(),
            judged: 0,
        }
    }

    /// Publishes until it is stopped.
    pub(super) fn load(&self) -> Load {
        let (jetstream, stream) = (self.world.jetstream.clone(), self.world.stream.clone());
        Load::start(jetstream, stream, Arc::clone(&self.next_id))
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
            Fault::Nats(fault) => self.begin_nats(fault),
            Fault::Poison(count) => self.publish_poison(count).await,
            Fault::Durable(fault) => self.begin_durable(fault).await,
            Fault::Table(fault) => self.begin_table(fault).await,
            Fault::Unreadable(what, count) => self.publish_unreadable(what, count).await,
            Fault::Huge(huge) => self.publish_huge(huge).await,
            Fault::Limits(limit) => self.begin_limit(limit).await,
        }
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
            Fault::Postgres(fault) => self.end_postgres(fault).await,
            Fault::Nats(NatsFault::Way(_)) => self.nats_proxy.heal(),
            Fault::Nats(NatsFault::Down) => self.nats.start_again().unwrap(),
            Fault::Durable(fault) => self.end_durable(fault).await,
            Fault::Table(fault) => self.end_table(fault).await,
            Fault::Limits(limit) => self.end_limit(limit).await,
            Fault::Poison(_) | Fault::Unreadable(..) | Fault::Huge(_) => {}
        }
    }

    /// A session of the arena's own, which waits as long as it takes.
    async fn session(&self) -> Client {
        connect(&self.world.own_url).await.unwrap()
    }

    /// Gives the role of the daemons a limit; what they are connected by has none yet, so it is ended.
    async fn begin_limit(&self, Limit(setting, milliseconds): Limit) {
        self.execute(&format!("ALTER ROLE CURRENT_USER SET {setting} = {milliseconds}")).await;
        self.execute(servers::TERMINATE).await;
    }

    async fn end_limit(&self, Limit(setting, _): Limit) {
        self.execute(&format!("ALTER ROLE CURRENT_USER RESET {setting}")).await;
    }

    async fn execute(&self, sql: &str) {
        self.world.database.batch_execute(sql).await.unwrap();
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
