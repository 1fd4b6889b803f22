//! Metrics of the API's requests.
//!
//! Guarantees: a request is counted once, when its answer is ready, by the answer's code. One whose client
//! has gone before that is not counted.

use std::time::Duration;

use axum::http::StatusCode;
use prometheus::{Histogram, IntCounter, Registry};

use super::labelled::Labelled;
use super::{COMMIT_BUCKETS, names};

/// The handles of the API; clones share them.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    answered: IntCounter,
    refused: IntCounter,
    unavailable: IntCounter,
    timeout: IntCounter,
    failed: IntCounter,
    seconds: Histogram,
}

impl ApiMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let labelled = Labelled::new(registry, &[]);
        let requests = labelled.counters(names::API_REQUESTS, names::OUTCOME);
        Self {
            answered: requests.with_label_values(&["answered"]),
            refused: requests.with_label_values(&["refused"]),
            unavailable: requests.with_label_values(&["unavailable"]),
            timeout: requests.with_label_values(&["timeout"]),
            failed: requests.with_label_values(&["failed"]),
            seconds: labelled.histogram(names::API_SECONDS, COMMIT_BUCKETS),
        }
    }

    /// Notes an answer.
    pub fn answered(&self, code: StatusCode, took: Duration) {
        let outcome = match code {
            StatusCode::SERVICE_UNAVAILABLE => &self.unavailable,
            StatusCode::GATEWAY_TIMEOUT => &self.timeout,
            code if code.is_success() => &self.answered,
            code if code.is_client_error() => &self.refused,
            _ => &self.failed,
        };
        outcome.inc();
        self.seconds.observe(took.as_secs_f64());
    }
}
