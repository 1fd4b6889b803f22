//! The named queries over HTTP: `GET /api/v1/PATH?NAME=VALUE` answers JSON, and `/api/v1/openapi.json` lists
//! them.
//! Guarantees: it exists only if `[http.api]` is configured, and then behind the token. It only reads, with
//! its own role and sessions, so that it takes none from a pipeline. An answer is bounded in rows, bytes and
//! time; the number of concurrent queries is bounded, and a request that waits too long for a connection is
//! told to retry. An error is `{"error": "…"}`, with what would be right.

mod openapi;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, RawQuery, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::HttpError;
use crate::config;
use crate::metrics::ApiMetrics;
use crate::store::query::call::Call;
use crate::store::query::named::QUERIES;
use crate::store::query::{Bounds, Options, Store, StoreError};

/// How long a query waits for a connection: a dashboard asks for several panels at once, and each takes
/// milliseconds.
const TURN: Duration = Duration::from_secs(2);

/// When a client may retry after it got no connection, or the database was unreachable, in seconds.
const COME_AGAIN: HeaderValue = HeaderValue::from_static("1");

/// What answers.
#[derive(Debug, Clone)]
pub(super) struct Api {
    store: Store,
    bounds: Bounds,
}

impl Api {
    /// What the settings ask for; it connects when it is first asked.
    pub(super) fn open(settings: &config::Api, tls: Option<&config::Tls>) -> Result<Self, HttpError> {
        let postgres = settings.postgres(tls);
        let options = Options { connections: settings.concurrency, wait: TURN, patience: settings.timeout };
        let store = Store::open(&postgres, &options).map_err(HttpError::Api)?;
        let bytes = usize::try_from(settings.max_bytes.as_u64()).unwrap_or(usize::MAX);
        Ok(Self { store, bounds: Bounds { rows: Some(settings.max_rows), bytes: Some(bytes) } })
    }

    /// Its routes, for a router of any state.
    pub(super) fn routes<S: Clone + Send + Sync + 'static>(self, metrics: ApiMetrics) -> Router<S> {
        let answering = get(answer_counted).with_state((Arc::new(self), metrics));
        Router::new()
            .route("/api/v1/openapi.json", get(|| async { Json(openapi::document()) }))
            .route("/api/v1/{*path}", answering)
    }
}

async fn answer_counted(
    State((api, metrics)): State<(Arc<Api>, ApiMetrics)>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let asked = Instant::now();
    let response = answer(&api, &path, query).await;
    metrics.answered(response.status(), asked.elapsed());
    response
}

async fn answer(api: &Api, path: &str, query: Option<String>) -> Response {
    let Some(named) = QUERIES.iter().find(|named| named.path == path) else {
        let text = format!("there is no /api/v1/{path}; /api/v1/openapi.json lists what there is");
        return refuse(StatusCode::NOT_FOUND, &text);
    };
    let words: Vec<String> = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let call = match Call::parse(named.name, words.iter().map(String::as_str)) {
        Ok(call) => call,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match api.store.ask(&call, &api.bounds).await {
        Ok(answer) => {
            // The rows are written as `jetcopy query` writes them, their columns in order.
            let (name, truncated, rows) = (named.name, answer.truncated(), answer.json());
            let body = format!(
                "{{\"query\": \"{name}\", \"truncated\": {truncated}, \"rows\": {}}}\n",
                rows.trim_end()
            );
            ([(CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(error) => fail(named.name, &error),
    }
}

/// What the store did not answer, by whose turn it is.
fn fail(query: &str, error: &StoreError) -> Response {
    let code = match error {
        StoreError::Connect(_) | StoreError::Lost(_) | StoreError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
        StoreError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        StoreError::TooLarge(_) | StoreError::Refused(_) => StatusCode::BAD_REQUEST,
        StoreError::Outdated(_) | StoreError::Forbidden(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut text = error.to_string();
    // What the server says of the arguments; of anything else, the log tells the operator.
    if let StoreError::Refused(cause) = error
        && let Some(cause) = cause.as_db_error()
    {
        text = format!("{text}: {}", cause.message());
    }
    if code.is_server_error() {
        let cause = crate::chain::chain(error);
        tracing::warn!(query, cause, "API query failed");
    }
    let mut response = refuse(code, &text);
    if code == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, COME_AGAIN);
    }
    response
}

fn refuse(code: StatusCode, text: &str) -> Response {
    (code, Json(json!({"error": text}))).into_response()
}
