//! The connection by which a daemon looks on at streams that it does not read.
//!
//! Guarantees: it is one, however many pipelines look on, and lasts no longer than one of them does.

use std::sync::{Arc, Weak};

use tokio::sync::Mutex;

use crate::config;
use crate::nats::{ConnectError, Connection};

/// Where whoever looks on gets the connection.
#[derive(Debug)]
pub(crate) struct Line {
    settings: config::Nats,
    /// How it is called.
    name: String,
    open: Mutex<Weak<Connection>>,
}

impl Line {
    /// One of the daemon `instance` to these servers.
    #[must_use]
    pub(crate) fn new(settings: &config::Nats, instance: &str) -> Self {
        let name = format!("jetcopy onlook/{instance}");
        Self { settings: settings.clone(), name, open: Mutex::default() }
    }

    /// The connection that somebody looks on by, or a new one.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, ConnectError> {
        let mut open = self.open.lock().await;
        if let Some(connection) = open.upgrade() {
            return Ok(connection);
        }
        let connection = Arc::new(Connection::open(&self.settings, &self.name).await?);
        *open = Arc::downgrade(&connection);
        Ok(connection)
    }

    /// Lets whoever comes next have another one.
    pub(super) async fn leave(&self, connection: &Arc<Connection>) {
        let mut open = self.open.lock().await;
        if open.ptr_eq(&Arc::downgrade(connection)) {
            *open = Weak::new();
        }
    }
}
