//! Looks from time to time whether messages are left that nobody reads ([`crate::left_behind`]).
//!
//! Guarantees: it costs nothing where every checkpoint's shard is configured. What is found twice is logged
//! once, and so is the end of it; `/status` and the metrics show it meanwhile.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::chain::chain;
use crate::config::Config;
use crate::left_behind::{self, LeftBehind};
use crate::membership::Membership;
use crate::metrics::Metrics;
use crate::nats;
use crate::status::Registry;

/// How often it is looked: who has just removed a line from the configuration is still there.
const LOOK: Duration = Duration::from_secs(30);

/// How soon what is seen for the first time is looked at again: a checkpoint moves on until a moment after
/// its shard went from the configuration, and is known here a moment later.
const AGAIN: Duration = Duration::from_secs(2);

/// How long a look may take.
const ANSWER: Duration = Duration::from_secs(10);

/// How the server knows the connection.
const NAME: &str = "jetcopy left behind";

/// Looks for as long as the daemon runs, and at once when the settings change.
pub(crate) async fn run(
    mut settings: watch::Receiver<Arc<Config>>,
    membership: Membership,
    registry: Registry,
    metrics: Metrics,
) -> Infallible {
    membership.known().await;
    let (mut told, mut seen) = (BTreeSet::new(), Vec::new());
    loop {
        let config = Arc::clone(&settings.borrow_and_update());
        let mut pause = LOOK;
        match timeout(ANSWER, look(&config, &membership)).await {
            Ok(Ok(looked)) => {
                let stands = |left: &LeftBehind| (left.shard.clone(), left.checkpoint);
                let (found, fresh): (Vec<_>, Vec<_>) =
                    looked.iter().cloned().partition(|left| seen.contains(&stands(left)));
                seen = looked.iter().map(stands).collect();
                if !fresh.is_empty() {
                    pause = AGAIN;
                }
                tell(&found, &mut told);
                metrics.left_behind(found.iter().map(|left| left.messages).sum());
                registry.set_left_behind(found);
            }
            Ok(Err(error)) => tracing::debug!(error = chain(&*error), "cannot look for what is left behind"),
            Err(_) => tracing::debug!("looking for what is left behind takes too long"),
        }
        // Its sender goes with the runtime.
        let _ = timeout(pause, settings.changed()).await;
    }
}

async fn look(
    config: &Config,
    membership: &Membership,
) -> Result<Vec<LeftBehind>, Box<dyn std::error::Error + Send + Sync>> {
    let places = membership.places();
    if !left_behind::may_be(config, &places) {
        return Ok(Vec::new());
    }
    let connection = nats::Connection::open(&config.nats, NAME).await?;
    Ok(left_behind::find(config, &connection.client, &places).await?)
}

fn tell(found: &[LeftBehind], told: &mut BTreeSet<String>) {
    for left in found.iter().filter(|left| !told.contains(&left.shard)) {
        let LeftBehind { pipeline, shard, stream, checkpoint, messages, remedy } = left;
        tracing::error!(
            pipeline,
            shard,
            stream,
            checkpoint,
            messages,
            remedy,
            "messages are left that nobody reads: the shard is no longer configured"
        );
    }
    for shard in told.iter().filter(|shard| !found.iter().any(|left| left.shard == **shard)) {
        tracing::info!(shard, "nothing is left behind there any more");
    }
    *told = found.iter().map(|left| left.shard.clone()).collect();
}
