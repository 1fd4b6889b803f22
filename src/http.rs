//! The status page, metrics, health and status over HTTP, and, if configured, the store's queries ([`api`]).
//! Guarantees: `/healthz` answers while the process runs; `/readyz` answers 200 only while every pipeline is
//! running and commits what waits, or another daemon has it, and otherwise says for each what it is doing and
//! why; `/metrics`, `/status` and the page at `/` show the same numbers, and `/status/history` their last
//! quarter of an hour. It only reads, and it shows no payload and no secret. Without the token or, if there
//! is none, under a name other than this machine's, a client learns nothing but the bare health ([`access`]).
//! The resources that a client can use are bounded ([`connections`]).

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use axum::extract::{DefaultBodyLimit, RawQuery, State as Shared};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::config;
use crate::daemons::Fellow;
use crate::left_behind::LeftBehind;
use crate::metrics::Metrics;
use crate::status::{Registry, Snapshot};
use crate::store::query::StoreError;

use access::Access;
use api::Api;
use history::{History, Recent, Since};

mod access;
mod api;
mod connections;
mod history;
mod page;

use connections::Limits;

/// The version of Prometheus's text format that [`Metrics::render`] writes.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bytes that a request's body may have: nothing that is asked here needs one.
const MAX_BODY: usize = 16 * 1024;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is not available.
    #[error("cannot listen on {address}; choose another address with http.listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The token cannot be read.
    #[error("cannot read {}, named by http.token_file", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token can be guessed.
    #[error("the token in {} has fewer than {least} characters: create one with `openssl rand -hex 32`",
            path.display())]
    ShortToken {
        /// The file.
        path: PathBuf,
        /// The least that it must have.
        least: usize,
    },
    /// The API's settings are invalid.
    #[error("cannot serve [http.api]")]
    Api(#[source] StoreError),
}

/// A server that is bound to its address.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    access: Access,
    api: Option<Api>,
}

impl Server {
    /// Binds the address (with port 0, a free port) and reads the token; the API connects with `tls`.
    pub async fn bind(settings: &config::Http, tls: Option<&config::Tls>) -> Result<Self, HttpError> {
        let access = Access::read(settings.token_file.as_deref())?;
        let api = settings.api.as_ref().map(|api| Api::open(api, tls)).transpose()?;
        let address = settings.listen;
        let bind = |source| HttpError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        Ok(Self { listener, address, access, api })
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves, and keeps the history, until `shutdown` resolves and the answers under way are given.
    pub async fn serve(self, metrics: Metrics, registry: Registry, shutdown: impl Future<Output = ()>) {
        let history = History::default();
        let sources = Sources {
            metrics,
            registry: registry.clone(),
            history: history.clone(),
            started: Timestamp::now(),
            access: self.access,
        };
        let serving =
            connections::serve(&self.listener, router(sources, self.api), Limits::default(), shutdown);
        tokio::select! {
            () = serving => {}
            () = history.keep(&registry) => {}
        }
    }
}

fn router(sources: Sources, api: Option<Api>) -> Router {
    Router::new()
        .merge(api.map_or_else(Router::new, |api| api.routes(sources.metrics.api())))
        .route("/", get(page::show))
        .route("/metrics", get(show_metrics))
        .route("/status", get(show_status))
        .route("/status/history", get(show_history))
        .route_layer(from_fn_with_state(sources.access.clone(), access::check))
        // What follows needs no token: probes have none, and a bare "ok" is no secret.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(show_readiness))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(map_response(guard))
        .with_state(sources)
}

/// Headers of every answer: it is current, and it is what its type says.
async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[derive(Debug, Clone)]
struct Sources {
    metrics: Metrics,
    registry: Registry,
    history: History,
    started: Timestamp,
    access: Access,
}

async fn show_metrics(Shared(sources): Shared<Sources>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], sources.metrics.render())
}

async fn show_readiness(Shared(sources): Shared<Sources>, headers: HeaderMap) -> (StatusCode, String) {
    let pipelines = sources.registry.snapshots();
    if pipelines.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, "no pipeline has started yet\n".into());
    }
    let ready = pipelines.iter().all(Snapshot::is_ready);
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !sources.access.allows(&headers) {
        return (code, if ready { "ready\n".into() } else { "not ready\n".into() });
    }
    (code, pipelines.iter().map(readiness).collect())
}

/// One line: `frames (shard frames-0): paused: no such table; run jetcopy migrate`, or `frames: running, but
/// nothing has committed for 5 s: …`.
fn readiness(pipeline: &Snapshot) -> String {
    let mut line = pipeline.pipeline.clone();
    if pipeline.shard != pipeline.pipeline {
        line = line + " (shard " + &pipeline.shard + ")";
    }
    line = line + ": " + pipeline.state.label();
    if let Some(held) = &pipeline.held_up {
        line = line + ", but " + &held.to_string();
    }
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
    now: String,
    daemons: Vec<Fellow>,
    left_behind: Vec<LeftBehind>,
    pipelines: Vec<Shown>,
}

/// A pipeline as `/status` shows it.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    snapshot: Snapshot,
    recent: Recent,
}

async fn show_status(Shared(sources): Shared<Sources>) -> Json<Status> {
    let shown = |snapshot| Shown { recent: sources.history.recent(&snapshot), snapshot };
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        started: sources.started.to_string(),
        now: Timestamp::now().to_string(),
        daemons: sources.registry.daemons(),
        left_behind: sources.registry.left_behind(),
        pipelines: sources.registry.snapshots().into_iter().map(shown).collect(),
    })
}

/// With `?after=N`, only the samples from number N on, which is what `next` of the answer before said.
async fn show_history(
    Shared(sources): Shared<Sources>,
    RawQuery(query): RawQuery,
) -> Result<Json<Since>, (StatusCode, &'static str)> {
    let after = match query.as_deref() {
        None | Some("") => 0,
        Some(query) => query
            .strip_prefix("after=")
            .and_then(|number| number.parse().ok())
            .ok_or((StatusCode::BAD_REQUEST, "the only parameter is after, a whole number\n"))?,
    };
    Ok(Json(sources.history.since(after)))
}

#[cfg(test)]
mod tests;
