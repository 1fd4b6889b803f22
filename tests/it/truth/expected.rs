//! What each metric and each field of `/status` is to show, one by one. One that is not here fails the test.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use super::servers::Truth;

/// How exactly ages are told: a probe every two seconds, or a look every four.
const AGE: f64 = 4.5;

/// A pipeline as the test has put it, and what is true of it.
pub(super) struct Case<'a> {
    pub(super) truth: &'a Truth,
    pub(super) state: &'static str,
    /// When the daemon was started.
    pub(super) started: Instant,
    /// Whether a generation has begun that nobody disturbed.
    pub(super) ran: bool,
    /// Whether one was disturbed, so that it read some messages again.
    pub(super) disturbed: bool,
    /// Whether a batch is stuck.
    pub(super) blocked: bool,
    pub(super) outages: f64,
    /// How often the pipeline was started, as by a reload.
    pub(super) starts: f64,
}

/// What something must be.
#[derive(Debug, PartialEq)]
pub(super) enum Is {
    Between(f64, f64),
    Text(String),
    /// Known by nobody.
    Unknown,
    /// Looked at elsewhere.
    Any,
}

fn exactly(value: f64) -> Is {
    Is::Between(value, value)
}

fn between((low, high): (f64, f64)) -> Is {
    Is::Between(low, high)
}

impl Case<'_> {
    /// Whether it is the one that carries messages.
    fn owns(&self) -> bool {
        self.state != "waiting"
    }

    fn up(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn true_now(&self, name: &'static str) -> Is {
        between(self.truth.now(name))
    }

    /// As it was at some time since the last probe or look.
    fn probed(&self, name: &'static str) -> Is {
        between(self.truth.range(name, AGE))
    }

    /// What was taken: at least what is committed, at most what there is; more where some was read again.
    fn taken(&self, committed: &'static str, stored: &'static str) -> Is {
        if !self.ran {
            return exactly(0.0);
        }
        let most = self.truth.now(stored).1;
        let most = if self.disturbed { f64::INFINITY } else { most };
        Is::Between(self.truth.now(committed).0, most)
    }

    /// What the database counts, once somebody has claimed the shard.
    fn recorded(&self, name: &'static str) -> Is {
        if self.owns() && self.ran { self.true_now(name) } else { Is::Unknown }
    }

    fn counted(&self, name: &'static str) -> Is {
        if self.ran { self.true_now(name) } else { exactly(0.0) }
    }

    /// What a metric shows, or [`Is::Unknown`] where it must be absent.
    pub(super) fn metric(&self, name: &str, label: &BTreeMap<String, String>) -> Is {
        let label = |key: &str| label.get(key).map(String::as_str).unwrap_or_default();
        match name {
            // Its when never holds.
            "jetcopy_rows_total" | "jetcopy_table_messages_total" if label("table") == "never" => {
                exactly(0.0)
            }
            "jetcopy_unfilled_columns" if label("table") == "never" => exactly(4.0),
            "jetcopy_stage_seconds_total" | "jetcopy_write_seconds_total" => Is::Between(0.0, self.up()),
            "jetcopy_held_up_seconds" => {
                let stage = if self.blocked { "database" } else { "" };
                if label("stage") == stage { Is::Between(3.0, self.up()) } else { exactly(0.0) }
            }
            "jetcopy_batches_total" => match label("reason") {
                "age" | "rows" | "bytes" | "block" | "shutdown" => {
                    Is::Between(0.0, self.truth.now("stored").1)
                }
                _ => Is::Unknown,
            },
            "jetcopy_commits_total" => match label("outcome") {
                "committed" | "poison" => Is::Between(0.0, self.truth.now("stored").1),
                _ if self.disturbed => Is::Any,
                // An operator takes the shard from it.
                "lost_epoch" => Is::Between(0.0, if self.state == "paused" { 1.0 } else { 0.0 }),
                "failed" | "in_doubt" => exactly(0.0),
                _ => Is::Unknown,
            },
            "jetcopy_batch_rows_bucket" | "jetcopy_commit_seconds_bucket" => {
                Is::Between(0.0, self.truth.now("stored").1)
            }
            "jetcopy_publish_to_commit_seconds_bucket" => Is::Between(0.0, self.truth.now("committed").1),
            "jetcopy_publish_to_commit_seconds_count" => self.counted("committed"),
            // Nothing is older than the test, and nothing was committed before it was stored.
            "jetcopy_publish_to_commit_seconds_sum" => {
                Is::Between(0.0, self.truth.now("committed").1 * (self.up() + 60.0))
            }
            "jetcopy_dead_letters_total" => match label("kind") {
                "" | "malformed" => self.recorded("letters"),
                _ if self.ran => exactly(0.0),
                _ => Is::Unknown,
            },
            "jetcopy_passed_over_messages_total" => match label("kind") {
                "deleted" => self.taken("committed_markers", "markers"),
                _ => exactly(0.0),
            },
            "jetcopy_resyncs_total" => match label("cause") {
                "start" => exactly(self.starts),
                "held" if self.owns() && !self.disturbed => exactly(0.0),
                "held" => exactly(1.0),
                _ => Is::Any,
            },
            "jetcopy_newest_event_age_seconds" => match label("event") {
                "dead_letter" if self.ran => {
                    let (low, high) = self.truth.now("letter_age");
                    Is::Between(low - 1.0, high + 1.0)
                }
                _ if self.ran => exactly(f64::INFINITY),
                _ => Is::Unknown,
            },
            "jetcopy_pipeline_state" => exactly(f64::from(u8::from(label("state") == self.state))),
            "jetcopy_maintain_runs_total" => Is::Between(0.0, 2.0),
            "jetcopy_maintain_last_run_timestamp_seconds" | "jetcopy_maintain_last_run_seconds" => Is::Any,
            "jetcopy_build_info" => exactly(1.0),
            "jetcopy_log_lines_dropped_total"
            | "jetcopy_ack_failures_total"
            | "jetcopy_left_behind_messages" => exactly(0.0),
            // There is no API here; tests/it/api.rs compares what it tells with what its clients saw.
            name if name.starts_with("jetcopy_api_request") => exactly(0.0),
            "process_start_time_seconds" => {
                let started = jiff::Timestamp::now().as_duration().as_secs_f64() - self.up();
                Is::Between(started - 2.0, started + 2.0)
            }
            _ => self.field(&name.trim_start_matches("jetcopy_").replace("_total", "")),
        }
    }

    /// What a field that is called like a metric shows.
    fn field(&self, name: &str) -> Is {
        match name {
            "messages" | "untaken_fields" | "table_messages" => {
                // One that is no row is looked at by no table.
                let Is::Between(low, high) = self.taken("committed", "stored") else { unreachable!() };
                if name == "messages" { Is::Between(low, high) } else { Is::Between(0.0, high) }
            }
            "bytes" => self.taken("committed_bytes", "stored_bytes"),
            "unfilled_columns" => Is::Between(f64::from(u8::from(self.ran)), 1.0),
            "buffered_bytes" if self.state == "running" => {
                // At least its payload, at most some notes on each message besides.
                let least = if self.blocked { self.truth.now("waiting_bytes").0 } else { 0.0 };
                Is::Between(least, self.truth.range("waiting", 1.0).1 * 2_000.0)
            }
            "commits" | "batch_rows_count" | "commit_seconds_count" if self.ran => {
                // With the transactions that had but a marker or a dead letter.
                let (low, high) = self.truth.now("transactions");
                Is::Between(low, high + self.truth.now("letters_here").1 + self.truth.now("markers").1)
            }
            "rows" | "batch_rows" | "batch_rows_sum" => self.counted("rows"),
            "commit_seconds" | "commit_seconds_sum" => Is::Between(0.0, self.up()),
            "dead_letters_in_table" => self.true_now("letters"),
            "dead_letters_since_start" => self.counted("letters_here"),
            "checkpoint_sequence" => self.probed("checkpoint"),
            "stream_first_sequence" => self.probed("first"),
            "stream_last_sequence" => self.probed("last"),
            "pending_messages" => self.probed("pending"),
            "ack_pending_messages" => self.probed("ack_pending"),
            "undelivered_messages" | "in_flight_messages" | "uncommitted_messages"
                if self.state == "running" =>
            {
                Is::Between(0.0, self.truth.range("waiting", AGE).1)
            }
            "undelivered_messages" => self.probed("waiting"),
            "behind_seconds" => {
                let (low, high) = self.truth.range("age", AGE);
                Is::Between(low - AGE, high + 0.5)
            }
            "headroom_sequences" => self.probed("headroom"),
            // Nothing limits the streams of these tests within the next hours.
            "headroom_seconds" => exactly(f64::INFINITY),
            "catch_up_seconds" if self.truth.range("age", AGE).1 < 1.0 => exactly(0.0),
            "catch_up_seconds" if self.blocked || self.state != "running" => Is::Unknown,
            "catch_up_seconds" => Is::Between(0.0, 600.0),
            "resyncs" => Is::Between(1.0, if self.disturbed { f64::INFINITY } else { 3.0 }),
            "outages" => exactly(self.outages),
            "losses" => self.recorded("losses"),
            "lost_messages" => self.recorded("lost"),
            "replayed_messages" | "superseded_messages" if self.owns() && self.ran => exactly(0.0),
            // No audit was recorded.
            "replayed_messages" | "superseded_messages" | "verified_through_sequence" => Is::Unknown,
            "database_up" | "nats_up" => exactly(1.0),
            "duplicates_skipped"
            | "rows_left_out"
            | "buffered_bytes"
            | "commits"
            | "batch_rows_count"
            | "commit_seconds_count"
            | "in_flight_messages"
            | "uncommitted_messages" => exactly(0.0),
            other => panic!("what {other} is to show, no test knows"),
        }
    }

    /// What a field of `/status` shows.
    pub(super) fn status(&self, name: &str) -> Is {
        let text = |text: &str| Is::Text(text.to_owned());
        match name {
            "state" => text(self.state),
            // Compared in the whole.
            "pipeline"
            | "shard"
            | "stream"
            | "since"
            | "down_since"
            | "reason"
            | "remedy"
            | "held_up"
            | "last_error"
            | "newest_dead_letters"
            | "flood"
            | "untaken"
            | "dead_letters_by_kind"
            | "passed_over_by_kind"
            | "resyncs_by_cause"
            | "stage_seconds"
            | "write_seconds"
            | "recent" => Is::Any,
            // Never infinite: what nobody foresees is no number there.
            "headroom_seconds" => Is::Unknown,
            _ => self.field(name),
        }
    }
}

impl Is {
    /// Whether `shown` is that; `None` is what is not shown at all.
    pub(super) fn holds(&self, shown: Option<f64>) -> bool {
        match (self, shown) {
            (Self::Any, _) | (Self::Unknown, None) => true,
            (Self::Between(low, high), Some(shown)) => *low <= shown && shown <= *high,
            (Self::Unknown, Some(shown)) => shown.is_infinite(),
            (Self::Between(..) | Self::Text(_), _) => false,
        }
    }

    /// The same of a value in JSON.
    pub(super) fn holds_in_json(&self, shown: &Value) -> bool {
        match (self, shown) {
            (Self::Any, _) => true,
            (Self::Text(text), shown) => shown == text,
            (_, Value::Bool(shown)) => self.holds(Some(f64::from(u8::from(*shown)))),
            (_, shown) => self.holds(shown.as_f64()),
        }
    }
}
