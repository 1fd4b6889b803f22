//! Why a primary takes no writes.
//!
//! A standby is meant to take none, and a primary may have been told so for everyone, for a role or for a
//! database.

use std::time::Duration;

use super::{ConnectError, Session};

/// Where the setting that the session began with comes from.
const ASK: &str = "SELECT pg_is_in_recovery(), s.setting = 'on', s.source, quote_ident(current_user::text), \
     quote_ident(current_database()::text) FROM pg_settings s WHERE s.name = 'default_transaction_read_only'";

/// Why the server takes no writes; `None` where it is a standby, or does not say.
pub(super) async fn reason(session: &Session, timeout: Duration) -> Option<ConnectError> {
    let asked = tokio::time::timeout(timeout, session.client.query_typed_one(ASK, &[])).await;
    let row = asked.ok()?.ok()?;
    let (standby, read_only): (bool, bool) = (row.try_get(0).ok()?, row.try_get(1).ok()?);
    if standby || !read_only {
        return None;
    }
    let (source, role, database): (&str, String, String) =
        (row.try_get(2).ok()?, row.try_get(3).ok()?, row.try_get(4).ok()?);
    let host = session.host().to_owned();
    let (whom, at) = match source {
        "database" => (format!("database {database}"), format!("ALTER DATABASE {database}")),
        "user" => (format!("role {role}"), format!("ALTER ROLE {role}")),
        "database user" => (
            format!("role {role} in database {database}"),
            format!("ALTER ROLE {role} IN DATABASE {database}"),
        ),
        "global" => ("every role".to_owned(), "ALTER ROLE ALL".to_owned()),
        "client" => {
            let remedy = "remove default_transaction_read_only from the options in postgres.url".to_owned();
            return Some(ConnectError::ReadOnly { host, whom: "jetcopy itself".to_owned(), remedy });
        }
        _ => {
            let because = " (default_transaction_read_only is on in its configuration)";
            return Some(ConnectError::NotWritable { host, because, history: None });
        }
    };
    Some(ConnectError::ReadOnly { host, whom, remedy: format!("{at} RESET default_transaction_read_only") })
}
