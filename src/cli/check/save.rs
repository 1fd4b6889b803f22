//! The tables of all pipelines into a file, for `jetcopy test`.

use std::path::Path;

use super::CLIENT_NAME;
use super::report::Findings;
use crate::config::Config;
use crate::postgres::connect;
use crate::postgres::introspect::introspect;
use crate::postgres::introspect::saved::Saved;

/// Place of these findings.
const PLACE: &str = "schema";

/// Writes the tables that are there to `path`; one that is not is an error, which is found elsewhere too.
pub(super) async fn save(config: &Config, path: &Path, report: &mut Findings) {
    let session = match connect::connect_any(&config.postgres, CLIENT_NAME).await {
        Ok(session) => session,
        Err(error) => return report.failure(PLACE, &error),
    };
    let mut found = Vec::new();
    for table in config.pipelines.iter().flat_map(|pipeline| &pipeline.tables) {
        if found.iter().any(|(name, _)| *name == table.name.as_str()) {
            continue;
        }
        match introspect(&session.client, &table.name).await {
            Ok(known) => found.push((table.name.as_str(), known)),
            Err(error) => {
                session.close().await;
                let text = format!("not saved: table {} is missing from it", table.name);
                report.failure(PLACE, &error);
                return report.error(PLACE, text, "create the table, or correct its name, and save again");
            }
        }
    }
    session.close().await;
    match Saved::new(found.iter().map(|(name, table)| (*name, table))).write(path) {
        Ok(()) => report.ok(PLACE, format!("{} tables saved to {}", found.len(), path.display())),
        Err(error) => report.failure(PLACE, &error),
    }
}
