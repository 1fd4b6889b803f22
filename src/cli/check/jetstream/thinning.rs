//! What a stream that removes messages from its middle by itself means for a pipeline's tables.

use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy};

use super::super::report::Findings;
use crate::config::{OnSuperseded, Pipeline};
use crate::superseded::{reads_all, thins};

/// Tells what becomes of messages that the stream removes by itself before they are read.
pub(super) fn judge(place: &str, pipeline: &Pipeline, config: &StreamConfig, report: &mut Findings) {
    if !thins(config) {
        return;
    }
    let by = by(config).join(", ");
    let bucket =
        config.name.starts_with("KV_") && config.subjects.iter().any(|subject| subject.starts_with("$KV."));
    let it = if bucket { "it is a KV bucket, which" } else { "it" };
    let removes = format!("{it} removes messages on its own, whether they were read or not ({by})");
    let own = "a separate stream with the same subjects and without these settings";
    match pipeline.superseded() {
        OnSuperseded::Ignore => {
            let all = pipeline.tables.iter().all(crate::config::Table::keeps_the_last_only);
            if all {
                report.ok(
                    place,
                    format!(
                        "{removes}; the tables keep only the last value, so removed messages are just counted"
                    ),
                );
            } else {
                report.warn(
                    place,
                    format!(
                        "{removes}; unread messages that it removes are just counted, and missing from the \
                         tables"
                    ),
                    format!("use {own}, or set on_superseded = \"record\""),
                );
            }
        }
        OnSuperseded::Record => report.warn(
            place,
            format!(
                "{removes}; unread messages that it removes are recorded in jetcopy.losses, and missing from \
                 the tables"
            ),
            format!("use {own}"),
        ),
        OnSuperseded::Halt => report.warn(
            place,
            format!("{removes}; the pipeline halts at unread messages that it removes"),
            format!(
                "use {own}; or set on_conflict = \"update\" if the last value is enough, else on_superseded"
            ),
        ),
    }
    if !reads_all(&pipeline.subjects, config) && pipeline.superseded() != OnSuperseded::Ignore {
        report.warn(
            place,
            "with only some of its subjects, removals cannot be told from messages on the other subjects: \
             both leave gaps in the sequence",
            "if every message counts, remove subjects and filter with `when`",
        );
    }
}

/// The settings that make it do so.
fn by(config: &StreamConfig) -> Vec<String> {
    let refuses = config.discard == DiscardPolicy::New && config.discard_new_per_subject;
    let limit = (config.max_messages_per_subject > 0 && !refuses).then(|| {
        format!("max_msgs_per_subject: it keeps {} messages per subject", config.max_messages_per_subject)
    });
    let ttl = config.allow_message_ttl.then(|| "allow_msg_ttl".to_owned());
    let rollup = config.allow_rollup.then(|| "allow_rollup_hdrs".to_owned());
    [limit, ttl, rollup].into_iter().flatten().collect()
}
