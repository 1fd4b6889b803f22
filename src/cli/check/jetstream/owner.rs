//! Whose the durable consumer is that stands under a pipeline's name.

use async_nats::jetstream::consumer::Info;

use super::super::report::Findings;
use crate::config::Config;
use crate::leftover::{Mark, Owner};
use crate::shard::Shard;
use crate::subscribe;

/// Warns of one that is somebody else's; whether it is.
pub(super) fn judge(
    place: &str,
    config: &Config,
    shard: &Shard,
    durable: &Info,
    report: &mut Findings,
) -> bool {
    let name = &durable.name;
    match Mark::new(config, &shard.pipeline, None).owner(durable) {
        Owner::Elsewhere { pipeline, database } => {
            let used = if durable.num_waiting > 0 { "is in use by" } else { "belongs to" };
            report.warn(
                place,
                format!("the durable consumer {name} {used} pipeline {pipeline} of database {database}"),
                "give one of the two pipelines another name, or its own `durable`; if this one replaces the \
                 other, stop the other: jetcopy takes over a consumer that nobody pulls from",
            );
            true
        }
        Owner::Unmarked if !subscribe::is_described(durable, shard) => {
            report.warn(
                place,
                format!(
                    "the durable consumer {name} was not created by jetcopy: a pipeline that starts for the \
                     first time refuses it"
                ),
                format!(
                    "set `durable` to another name, or remove this one: `nats consumer rm {} {name}`; a \
                     pipeline that has read the stream before recreates it",
                    durable.stream_name
                ),
            );
            true
        }
        Owner::Own | Owner::Unmarked => false,
    }
}
