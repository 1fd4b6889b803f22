//! `jetcopy run`: moves messages until a signal asks it to stop.
//!
//! Guarantees: it starts without NATS and without the database, and waits for them; the first signal stops it
//! cleanly, the second at once; HTTP answers until the last batch is settled. SIGHUP makes it read its
//! configuration again: an invalid one changes nothing. A service manager that asked for it is notified when
//! the daemon is ready, what it is doing, and that it is alive.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::notify::Notifier;
use super::signals::{Reload, Shutdown};
use super::{Failure, Settings};
use crate::config::{Config, redact_url};
use crate::http;
use crate::logging;
use crate::metrics::Metrics;
use crate::status::Registry;
use crate::supervise::{self, Ended};

/// How long open HTTP requests may delay the exit: a scrape takes milliseconds.
const HTTP_GRACE: Duration = Duration::from_secs(1);

/// Runs the command.
pub async fn run(settings: &Settings) -> Result<(), Failure> {
    // A file that appears later is not the one to be read again.
    let settings = &Settings { config: settings.file(), ..settings.clone() };
    let config = settings.load()?;
    config.require_pipelines()?;
    let log = logging::init_daemon(&config.log).map_err(Failure::failed)?;
    let notifier = Notifier::from_environment().map_err(Failure::failed)?;
    let shutdown = Shutdown::on_signals().map_err(Failure::failed)?;
    let reload = Reload::on_signals().map_err(Failure::failed)?;
    let server =
        http::Server::bind(&config.http, config.postgres.tls.as_ref()).await.map_err(Failure::failed)?;
    greet(settings, &config, &server);

    let (metrics, registry) = (Metrics::new(), Registry::default());
    metrics.tell_dropped_lines(log.dropped());
    let (stop_http, http_stopped) = oneshot::channel::<()>();
    // The other end is dropped when this function ends, at the latest: either way it is time to stop.
    let serve = server.serve(metrics.clone(), registry.clone(), async { drop(http_stopped.await) });
    let mut serving = tokio::spawn(serve);
    let notifying = tokio::spawn(notifier.clone().run(registry.clone()));
    let asked = async {
        shutdown.asked().await;
        notifier.stopping();
    };
    let (reloaded, reloads) = mpsc::channel(1);
    let ended = {
        let supervised = supervise::run(config, metrics, registry, reloads, asked);
        tokio::select! {
            ended = supervised => ended,
            never = reload_on(reload, settings, &reloaded, &notifier) => match never {},
        }
    };
    notifying.abort();
    drop(stop_http);
    match tokio::time::timeout(HTTP_GRACE, &mut serving).await {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => return Err(Failure::failed(panic)),
        Err(_) => serving.abort(),
    }
    match ended {
        Ended::Drained => Ok(()),
        Ended::Undrained => Err(Failure::Undrained),
    }
}

/// Reads the configuration again on each request, hands it on if it is valid, and waits until it is in
/// force. A stop in the meantime ends the wait: then nothing is ready any more.
async fn reload_on(
    mut reload: Reload,
    settings: &Settings,
    reloaded: &mpsc::Sender<supervise::Reload>,
    notifier: &Notifier,
) -> Infallible {
    loop {
        reload.asked().await;
        notifier.reloading();
        match settings.load().and_then(|config| config.require_pipelines().map(|()| config)) {
            Ok(config) => {
                let (applied, in_force) = oneshot::channel();
                if reloaded.send(supervise::Reload { config, applied }).await.is_err()
                    || in_force.await.is_err()
                {
                    std::future::pending::<()>().await;
                }
                notifier.reloaded();
            }
            Err(error) => {
                let error = error.one_line();
                tracing::error!(error, "invalid configuration rejected; keeping the current one");
                notifier.refused(&error);
            }
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
        "starting jetcopy"
    );
}
