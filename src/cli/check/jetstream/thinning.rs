//! What a stream that removes messages from its middle by itself means for a pipeline's tables.

use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy};

use super::super::report::Report;
use crate::config::{OnSuperseded, Pipeline};
use crate::superseded::{reads_all, thins};

/// Tells what becomes of messages that the stream removes by itself before they are read.
pub(super) fn judge(place: &str, pipeline: &Pipeline, config: &StreamConfig, report: &mut Report) {
    if !thins(config) {
        return;
    }
    let by = by(config).join(", ");
    let bucket =
        config.name.starts_with("KV_") && config.subjects.iter().any(|subject| subject.starts_with("$KV."));
    let it = if bucket { "it is a KV bucket, which" } else { "it" };
    let removes = format!("{it} removes messages by itself, whether they were read or not ({by})");
    let own = "a stream of your own with the same subjects and without these settings";
    match pipeline.superseded() {
        OnSuperseded::Ignore => {
            let all = pipeline.tables.iter().all(crate::config::Table::keeps_the_last_only);
            if all {
                report.ok(
                    place,
                    format!(
                        "{removes}; the tables keep the last value, so what was not read is only counted"
                    ),
                );
            } else {
                report.warn(
                    place,
                    format!("{removes}; what was not read is only counted, and missing in the tables"),
                    format!("use {own}, or set on_superseded = \"record\""),
                );
            }
        }
        OnSuperseded::Record => report.warn(
            place,
            format!("{removes}; what was not read is recorded in jetcopy.losses, and missing in the tables"),
            format!("use {own}"),
        ),
        OnSuperseded::Halt => report.warn(
            place,
            format!("{removes}; the pipeline halts at what was not read"),
            format!(
                "use {own}; where the last value is enough, on_conflict = \"update\", else on_superseded"
            ),
        ),
    }
    if !reads_all(&pipeline.subjects, config) && pipeline.superseded() != OnSuperseded::Ignore {
        report.warn(
            place,
            "with some of its subjects it cannot be seen what it removes behind its front: the others' messages \
             leave jumps, too",
            "leave subjects out, and choose by `when`, if each message counts",
        );
    }
}

/// The settings that make it do so.
fn by(config: &StreamConfig) -> Vec<String> {
    let refuses = config.discard == DiscardPolicy::New && config.discard_new_per_subject;
    let limit = (config.max_messages_per_subject > 0 && !refuses).then(|| {
        format!("max_msgs_per_subject: it keeps {} messages a subject", config.max_messages_per_subject)
    });
    let ttl = config.allow_message_ttl.then(|| "allow_msg_ttl".to_owned());
    let rollup = config.allow_rollup.then(|| "allow_rollup_hdrs".to_owned());
    [limit, ttl, rollup].into_iter().flatten().collect()
}
