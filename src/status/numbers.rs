//! The numbers of a pipeline at one moment.
//!
//! Guarantees: they are those of the metrics, read at that moment; an unknown number is `None`, never 0.

use std::collections::BTreeMap;

use prometheus::IntCounter;
use serde::Serialize;

use super::State;
use crate::metrics::{PipelineMetrics, StageSeconds, WriteSeconds, gauge_value};

/// The numbers of a pipeline, read from its metrics; named as in [`crate::metrics::names`]. What is not known
/// is `None`.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "each field is the family of its name in `metrics::names`, documented there")]
pub struct Numbers {
    pub messages: u64,
    /// Over all tables.
    pub rows: u64,
    pub bytes: u64,
    /// Transactions that committed, with or without dead letters.
    pub commits: u64,
    /// Time of those transactions in all.
    pub commit_seconds: f64,
    /// Rows of their batches in all.
    pub batch_rows: f64,
    /// Since the daemon's start.
    pub dead_letters_since_start: u64,
    /// Ever, as the database counts them, by kind.
    pub dead_letters_by_kind: BTreeMap<String, u64>,
    /// In the table now.
    pub dead_letters_in_table: Option<i64>,
    pub passed_over_by_kind: BTreeMap<String, u64>,
    pub resyncs: u64,
    pub resyncs_by_cause: BTreeMap<String, u64>,
    pub outages: u64,
    /// Here and below, as the database counts.
    pub replayed_messages: Option<u64>,
    pub losses: Option<u64>,
    pub lost_messages: Option<u64>,
    pub superseded_messages: Option<u64>,
    pub pending_messages: Option<i64>,
    pub ack_pending_messages: Option<i64>,
    /// What the server has yet to deliver; in a pipeline that does not run, all that is not committed.
    pub undelivered_messages: Option<i64>,
    pub in_flight_messages: Option<i64>,
    pub uncommitted_messages: Option<i64>,
    pub stream_first_sequence: Option<i64>,
    pub stream_last_sequence: Option<i64>,
    pub checkpoint_sequence: Option<i64>,
    /// `None` where no audit was recorded.
    pub verified_through_sequence: Option<i64>,
    pub behind_seconds: Option<f64>,
    pub headroom_sequences: Option<i64>,
    /// `None` where the stream will not drop anything that is not committed, as far as anybody knows.
    pub headroom_seconds: Option<f64>,
    /// `None` where the lag does not shrink, or is not known.
    pub catch_up_seconds: Option<f64>,
    pub stage_seconds: StageSeconds,
    pub write_seconds: WriteSeconds,
    pub buffered_bytes: i64,
    pub database_up: Option<bool>,
    pub nats_up: Option<bool>,
}

impl Numbers {
    pub(super) fn read(metrics: &PipelineMetrics, state: &State) -> Self {
        let recorded = |count: &IntCounter| metrics.is_recorded().then(|| count.get());
        let resyncs_by_cause = metrics.resyncs_by_cause();
        let pending = metrics.pending_messages.get();
        let delivers = matches!(state, State::Running | State::Stopping);
        let here = |count: Option<i64>| if delivers { count } else { count.map(|_| 0) };
        let finite = |seconds: Option<f64>| seconds.filter(|seconds| seconds.is_finite());
        Self {
            messages: metrics.messages.get(),
            rows: metrics.tables.all_rows(),
            bytes: metrics.bytes.get(),
            commits: metrics.commits.committed.get() + metrics.commits.poison.get(),
            commit_seconds: metrics.commit_seconds.get_sample_sum(),
            batch_rows: metrics.batch_rows.get_sample_sum(),
            dead_letters_since_start: metrics.dead_letters_since_start(),
            dead_letters_by_kind: metrics.dead_letters_by_kind(),
            dead_letters_in_table: metrics.dead_letters_in_table.get(),
            passed_over_by_kind: metrics.passed_over_by_kind(),
            resyncs: resyncs_by_cause.values().sum(),
            resyncs_by_cause,
            outages: metrics.outages.get(),
            replayed_messages: recorded(&metrics.replayed_messages),
            losses: recorded(&metrics.losses),
            lost_messages: recorded(&metrics.lost_messages),
            superseded_messages: recorded(&metrics.superseded_messages),
            pending_messages: pending,
            ack_pending_messages: metrics.ack_pending_messages.get(),
            undelivered_messages: if delivers {
                pending
            } else {
                metrics.position.backlog().map(gauge_value)
            },
            in_flight_messages: here(metrics.in_flight_messages.get()),
            uncommitted_messages: here(metrics.uncommitted_messages.get()),
            stream_first_sequence: metrics.stream_first_sequence.get(),
            stream_last_sequence: metrics.stream_last_sequence.get(),
            checkpoint_sequence: metrics.checkpoint_sequence.get(),
            verified_through_sequence: metrics.verified_through_sequence.get(),
            behind_seconds: metrics.behind_seconds.seconds(),
            headroom_sequences: metrics.headroom_sequences.get(),
            headroom_seconds: finite(metrics.headroom_seconds.seconds()),
            catch_up_seconds: finite(metrics.catch_up_seconds.seconds()),
            stage_seconds: metrics.stages.seconds(),
            write_seconds: metrics.motion.write_seconds(),
            buffered_bytes: metrics.buffered.get(),
            database_up: metrics.database_up.get().map(|up| up == 1),
            nats_up: metrics.nats_up.get().map(|up| up == 1),
        }
    }
}
