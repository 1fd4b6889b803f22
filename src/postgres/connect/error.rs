//! Why there is no session.

use std::error::Error as StdError;

use crate::client_certificate::TlsError;
use crate::postgres::timeline::History;

/// A cause of any kind, kept as it came.
pub(super) type Cause = Box<dyn StdError + Send + Sync>;

/// Why there is no session: one variant a reaction.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings cannot work as they are, whatever the server does: correct them.
    #[error("[postgres] {setting}: {problem}")]
    Config {
        /// Setting at fault.
        setting: &'static str,
        /// What is wrong with it and what would fix it.
        problem: String,
        /// What the system said, where it said anything that holds no secret.
        #[source]
        source: Option<Cause>,
    },
    /// The certificates do not fit: correct `[postgres.tls]`, `sslmode` or the server's certificate.
    #[error("[postgres] no trusted TLS connection to {host}: {remedy}")]
    Tls {
        /// Host and port.
        host: String,
        /// What would fix it.
        remedy: String,
        /// What the TLS library said.
        #[source]
        source: Cause,
    },
    /// The server answered and will not let this user into this database: correct user, password, database,
    /// privilege.
    #[error("[postgres] {host} refuses the login: {remedy}")]
    Refused {
        /// Host and port.
        host: String,
        /// What would fix it.
        remedy: String,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A server takes writes in a history that a failover has ended: end it, or take it out of the URL.
    #[error(
        "[postgres] {host} accepts writes on an older timeline than jetcopy has written on: it is a primary \
         from before a failover"
    )]
    Superseded {
        /// Host and port.
        host: String,
        /// What it writes on.
        history: History,
        /// What would end the wait.
        remedy: String,
    },
    /// Servers answer, none takes writes; a failover is under way: try again.
    #[error("[postgres] {host} accepts no writes{because}, nor does any other host in the URL")]
    NotWritable {
        /// Host and port of the last one that answered so.
        host: String,
        /// In parentheses, where it is known.
        because: &'static str,
        /// What it follows, where it was asked and tells.
        history: Option<History>,
    },
    /// A primary answers, and the role or the database may not write by a setting of its own: take the
    /// setting back.
    #[error("[postgres] {host} accepts no writes: default_transaction_read_only is on for {whom}")]
    ReadOnly {
        /// Host and port.
        host: String,
        /// The role, the database or both.
        whom: String,
        /// What would fix it.
        remedy: String,
    },
    /// No server answers, or none is ready yet: try again.
    #[error("[postgres] {host} cannot be reached")]
    Unreachable {
        /// Host and port.
        host: String,
        /// What the system, the server or the pooler said.
        #[source]
        source: Cause,
    },
}

impl ConnectError {
    /// Whether another moment may answer otherwise.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Config { .. } | Self::Tls { .. } | Self::Refused { .. } | Self::ReadOnly { .. } => false,
            Self::Superseded { .. } | Self::NotWritable { .. } | Self::Unreachable { .. } => true,
        }
    }

    /// How much the error says where several hosts gave different ones: the highest is reported. What another
    /// attempt may fix goes before what a person must fix, so that one misconfigured standby does not stop
    /// a failover.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Config { .. } => 0,
            Self::Tls { .. } => 1,
            Self::Refused { .. } => 2,
            Self::Unreachable { .. } => 3,
            Self::NotWritable { .. } => 4,
            Self::ReadOnly { .. } => 5,
            Self::Superseded { .. } => 6,
        }
    }
}

impl From<TlsError> for ConnectError {
    fn from(error: TlsError) -> Self {
        Self::Config { setting: error.setting, problem: error.problem(), source: error.source }
    }
}
