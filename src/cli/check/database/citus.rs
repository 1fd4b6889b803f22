//! What Citus makes of a table.
//!
//! Guarantees: nothing is asked of workers unless the table has its rows there.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::super::report::Findings;
use crate::postgres::introspect;

/// How the rows of $1 are spread: the column that they are distributed by, NULL for a reference table, and
/// the number of nodes.
const SPREAD: &str = "SELECT column_to_column_name(d.logicalrelid, d.partkey), count(DISTINCT p.groupid)
    FROM pg_dist_partition d JOIN pg_dist_shard s USING (logicalrelid)
        JOIN pg_dist_placement p USING (shardid)
    WHERE d.logicalrelid = to_regclass($1) GROUP BY 1";

/// The nodes whose standby may lack commits when it takes over.
const ASYNCHRONOUS: &str = "SELECT string_agg(coalesce(nodename || ':' || nodeport, 'the coordinator'), ', ')
    FROM run_command_on_all_nodes($$SELECT current_setting('synchronous_standby_names') = ''
        AND EXISTS (SELECT FROM pg_stat_replication WHERE application_name NOT LIKE 'citus%')$$)
        LEFT JOIN pg_dist_node USING (nodeid)
    WHERE success AND result = 't'";

/// How the rows of a table are spread, if Citus knows it.
pub(super) async fn spread(
    client: &Client,
    place: &str,
    found: &introspect::Table,
    report: &mut Findings,
) -> Option<String> {
    let asked = client.query_typed_opt(SPREAD, &[(&found.qualified, Type::TEXT)]).await;
    let row = match asked {
        Ok(row) => row?,
        Err(error) => {
            report.failure(place, &error);
            return None;
        }
    };
    judge_standbys(client, place, report).await;
    let (column, nodes): (Option<String>, i64) = (row.get(0), row.get(1));
    Some(match column {
        Some(column) => format!("distributed by {column} over {nodes} nodes"),
        None => format!("the same on {nodes} nodes"),
    })
}

/// Warns of nodes that may lose commits alone: the checkpoint and the rows are then of different moments.
async fn judge_standbys(client: &Client, place: &str, report: &mut Findings) {
    let asynchronous = match client.query_typed_one(ASYNCHRONOUS, &[]).await {
        Ok(row) => row.get::<_, Option<String>>(0),
        Err(error) => return report.failure(place, &error),
    };
    if let Some(nodes) = asynchronous {
        report.warn(
            place,
            format!(
                "its rows are on several nodes, and the standby of {nodes} is asynchronous: if it takes over \
                 and lacks commits that the other nodes have, rows are lost or duplicated"
            ),
            "set synchronous_standby_names on each node that has a standby",
        );
    }
}
