//! Who may put a function in front of the server's own.

use tokio_postgres::Client;

use super::{DATABASE, Findings};
use crate::postgres::path;

/// An error for each function that stands before the server's own, a warning for each schema where one could
/// be made.
pub(super) async fn judge(client: &Client, report: &mut Findings) {
    match path::shadows(client).await {
        Ok(found) => {
            for shadow in found {
                report.error(
                    DATABASE,
                    format!(
                        "{shadow} could be called instead of the server's own, with the caller's privileges"
                    ),
                    "find out what it is for, and drop it",
                );
            }
        }
        Err(error) => return report.failure(DATABASE, &error),
    }
    match path::open(client).await {
        Ok(found) => {
            for (schema, role) in found {
                report.warn(
                    DATABASE,
                    format!(
                        "{role} may create objects in schema {schema} of the search path, and so shadow the \
                         server's own functions"
                    ),
                    format!("REVOKE CREATE ON SCHEMA {schema} FROM {role}"),
                );
            }
        }
        Err(error) => report.failure(DATABASE, &error),
    }
}
