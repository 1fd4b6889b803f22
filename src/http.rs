//! Metrics, health and status over HTTP.
//!
//! Guarantees: `/healthz` answers while the process turns; `/readyz` answers 200 only while every pipeline is running,
//! and else says of each what it is doing and why; `/metrics` and `/status` show the same numbers. It only reads, it
//! shows no payload and no secret, and it asks nobody who they are: by default it listens on the loopback address.

use std::io;
use std::net::SocketAddr;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::metrics::Metrics;
use crate::status::{Registry, Snapshot, State};

/// The version of Prometheus's text format that [`Metrics::render`] writes.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be had.
    #[error("cannot listen on {address}; choose another address with http.listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Accepting connections failed.
    #[error("the HTTP server failed")]
    Serve(#[source] io::Error),
}

/// A server that has its address.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the address; with port 0, a free one.
    pub async fn bind(address: SocketAddr) -> Result<Self, HttpError> {
        let bind = |source| HttpError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        Ok(Self { listener, address })
    }

    /// The address that it has.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves and the answers under way are given.
    pub async fn serve(
        self,
        metrics: Metrics,
        registry: Registry,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), HttpError> {
        let sources = Sources { metrics, registry, started: Timestamp::now() };
        let router = Router::new()
            .route("/metrics", get(show_metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(show_readiness))
            .route("/status", get(show_status))
            .with_state(sources);
        axum::serve(self.listener, router).with_graceful_shutdown(shutdown).await.map_err(HttpError::Serve)
    }
}

#[derive(Debug, Clone)]
struct Sources {
    metrics: Metrics,
    registry: Registry,
    started: Timestamp,
}

async fn show_metrics(Shared(sources): Shared<Sources>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], sources.metrics.render())
}

async fn show_readiness(Shared(sources): Shared<Sources>) -> (StatusCode, String) {
    let pipelines = sources.registry.snapshots();
    if pipelines.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, "no pipeline has started yet\n".into());
    }
    let ready = pipelines.iter().all(|pipeline| pipeline.state == State::Running);
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, pipelines.iter().map(readiness).collect())
}

/// One line: `frames (shard frames-0): paused: no such table; run jetcopy migrate`.
fn readiness(pipeline: &Snapshot) -> String {
    let mut line = pipeline.pipeline.clone();
    if pipeline.shard != pipeline.pipeline {
        line = line + " (shard " + &pipeline.shard + ")";
    }
    line = line + ": " + pipeline.state.label();
    if let Some(reason) = pipeline.state.reason() {
        line = line + ": " + reason;
    }
    if let Some(remedy) = pipeline.state.remedy() {
        line = line + "; " + remedy;
    }
    line + "\n"
}

/// What `/status` shows.
#[derive(Debug, Serialize)]
struct Status {
    version: &'static str,
    started: String,
    pipelines: Vec<Snapshot>,
}

async fn show_status(Shared(sources): Shared<Sources>) -> Json<Status> {
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        started: sources.started.to_string(),
        pipelines: sources.registry.snapshots(),
    })
}

#[cfg(test)]
mod tests;
