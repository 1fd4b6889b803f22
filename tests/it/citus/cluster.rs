//! A coordinator and two workers.

use jetcopy::testbed::{Need, PostgresOptions, TestPostgres, connect, skip};

use tokio_postgres::error::SqlState;

use crate::support::{TABLE, World};

/// A running cluster, with a world in a database of the coordinator.
pub(super) struct Cluster {
    pub(super) world: World,
    /// The coordinator first.
    pub(super) nodes: [TestPostgres; 3],
}

impl Cluster {
    /// Starts it; `None`, noted as a skip, where the server does not offer Citus.
    pub(super) async fn start() -> Option<Self> {
        if !TestPostgres::offers("citus").unwrap() {
            skip(Need::Citus);
            return None;
        }
        let settings = [
            ("shared_preload_libraries", "citus"),
            ("citus.shard_count", "8"),
            // The user of the servers may not read the certificates of the one who runs the tests.
            ("citus.node_conninfo", "sslmode=disable"),
            ("wal_level", "logical"),
            ("max_prepared_transactions", "100"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options = PostgresOptions { settings, ..PostgresOptions::plain() };
        let nodes = [(); 3].map(|()| TestPostgres::start(&options).unwrap());
        let world = World::with_postgres(&nodes[0]).await;
        let name = world.own_url.rsplit_once('/').unwrap().1;
        for worker in &nodes[1..] {
            let url = worker.create_database_named(name).await.unwrap();
            connect(&url).await.unwrap().batch_execute("CREATE EXTENSION citus").await.unwrap();
        }
        let [first, workers @ ..] = nodes.each_ref().map(TestPostgres::port);
        let cluster = Self { world, nodes };
        cluster.execute(&format!("{TABLE}; CREATE EXTENSION citus")).await;
        cluster.execute(&format!("SELECT citus_set_coordinator_host('127.0.0.1', {first})")).await;
        for port in workers {
            cluster.execute(&format!("SELECT citus_add_node('127.0.0.1', {port})")).await;
        }
        Some(cluster)
    }

    /// Runs each statement in a transaction of its own; again where it was the one that was cancelled of two
    /// that waited for each other on several nodes.
    pub(super) async fn execute(&self, sql: &str) {
        for statement in sql.split(';') {
            while let Err(error) = self.world.database.batch_execute(statement).await {
                assert_eq!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED), "{statement}: {error}");
            }
        }
    }
}
