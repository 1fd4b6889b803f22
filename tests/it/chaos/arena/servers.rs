//! What happens to PostgreSQL and NATS, and on the ways to them.

use jetcopy::testbed::{Stop, TestPostgres};

use super::super::fault::{NatsFault, PostgresFault};
use super::{Arena, spoil};
use crate::support::Proxy;

/// The request that ends a batch's transaction, as the driver sends it.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// Ends all sessions of the daemons.
pub(super) const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE application_name LIKE 'jetcopy/%'";

/// An asynchronous standby, and the proxy by way of which it streams.
pub(super) struct Standby {
    server: TestPostgres,
    between: Proxy,
}

impl Standby {
    pub(super) async fn of(primary: &TestPostgres) -> Self {
        let between = Proxy::start(primary.port()).await;
        Self { server: primary.standby(between.port()).unwrap(), between }
    }
}

impl Arena {
    pub(super) fn begin_nats(&mut self, fault: NatsFault) {
        match fault {
            NatsFault::Down => self.nats.stop(Stop::Fast),
            NatsFault::Way(fault) => spoil(&self.nats_proxy, fault),
        }
    }

    pub(super) async fn begin_postgres(&mut self, fault: PostgresFault) {
        match fault {
            PostgresFault::Down(stop) => self.postgres.stop(stop),
            PostgresFault::Failover => {
                self.standby.between.refuse(true);
                self.standby.between.reset();
            }
            PostgresFault::TerminateBackends => self.execute(TERMINATE).await,
            PostgresFault::LockTable => self.hold("LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await,
            PostgresFault::LockCheckpoint => self.hold("SELECT FROM jetcopy.checkpoints FOR UPDATE").await,
            PostgresFault::LoseCommit(lose) => self.postgres_proxy.trap(COMMIT, lose),
            PostgresFault::Way(fault) => spoil(&self.postgres_proxy, fault),
        }
    }

    /// Holds what `sql` locks.
    async fn hold(&mut self, sql: &str) {
        let holder = self.session().await;
        holder.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
        self.holder = Some(holder);
    }

    pub(super) async fn end_postgres(&mut self, fault: PostgresFault) {
        match fault {
            PostgresFault::Down(_) => {
                self.postgres.start_again().unwrap();
                self.world.reconnect().await;
            }
            PostgresFault::Failover => self.fail_over().await,
            PostgresFault::LockTable | PostgresFault::LockCheckpoint => {
                self.holder.take().unwrap().batch_execute("ROLLBACK").await.unwrap();
            }
            PostgresFault::LoseCommit(_) | PostgresFault::Way(_) => self.postgres_proxy.heal(),
            PostgresFault::TerminateBackends => {}
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
}
