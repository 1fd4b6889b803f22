//! `jetcopy run`: carries messages until a signal asks it to stop.
//!
//! Guarantees: it starts without NATS and without the database, and waits for them; the first signal stops it in
//! order, the second at once; HTTP answers until the last batch is settled.

use std::time::Duration;

use tokio::sync::oneshot;

use super::signals::Shutdown;
use super::{Failure, Settings};
use crate::config::{Config, redact_url};
use crate::http;
use crate::logging;
use crate::metrics::Metrics;
use crate::status::Registry;
use crate::supervise;

/// How long open HTTP requests may hold up the end: a scrape takes milliseconds.
const HTTP_GRACE: Duration = Duration::from_secs(1);

/// Runs the command.
pub async fn run(settings: &Settings) -> Result<(), Failure> {
    let config = settings.load()?;
    config.require_pipelines()?;
    logging::init(&config.log).map_err(Failure::failed)?;
    let shutdown = Shutdown::on_signals().map_err(Failure::failed)?;
    let server = http::Server::bind(config.http.listen).await.map_err(Failure::failed)?;
    greet(settings, &config, &server);

    let (metrics, registry) = (Metrics::new(), Registry::default());
    let (stop_http, http_stopped) = oneshot::channel::<()>();
    // The other end is dropped, at the latest, when this function ends: either way it is time to stop.
    let serve = server.serve(metrics.clone(), registry.clone(), async { drop(http_stopped.await) });
    let mut serving = tokio::spawn(serve);
    supervise::run(config, metrics, registry, shutdown.asked()).await;
    drop(stop_http);
    match tokio::time::timeout(HTTP_GRACE, &mut serving).await {
        Ok(Ok(outcome)) => outcome.map_err(Failure::failed),
        Ok(Err(panic)) => Err(Failure::failed(panic)),
        Err(_) => {
            serving.abort();
            Ok(())
        }
    }
}

fn greet(settings: &Settings, config: &Config, server: &http::Server) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = settings.config.as_ref().map(|path| tracing::field::display(path.display())),
        nats = redact_url(&config.nats.url),
        postgres = redact_url(&config.postgres.url),
        http = %server.address(),
        "jetcopy starts"
    );
}
