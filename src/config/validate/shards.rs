//! The rules of a pipeline that reads several streams.
//!
//! Guarantees: no two shards of a configuration have one name, or read one stream by one durable consumer.

use super::{Problems, is_nats_name};
use crate::config::shards::PLACEHOLDER;
use crate::config::{Pipeline, Start};
use crate::moment::Point;
use crate::shard::Shard;

/// The most shards of a pipeline: each is a session at the database and a connection to NATS.
const MOST: u16 = 1_000;

/// The number of streams, and the stream that they take the place of.
pub(super) fn check(pipeline: &Pipeline, at: &dyn Fn(&str) -> String, found: &mut Problems) {
    let places = pipeline.stream.matches(PLACEHOLDER).count();
    match (pipeline.shards, places) {
        (Some(count), _) if !(1..=MOST).contains(&count) => {
            found.add(at("shards"), format!("must be from 1 to {MOST}"));
        }
        (None, 1..) => found.add(
            at("shards"),
            format!("is missing: the stream has {PLACEHOLDER}, so say how many streams there are"),
        ),
        (Some(2..), 0) => found.add(
            at("stream"),
            format!("must have {PLACEHOLDER} for the number of the shard, such as FRAMES_{PLACEHOLDER}"),
        ),
        (Some(_), 2..) => found.add(at("stream"), format!("must have {PLACEHOLDER} once")),
        (None | Some(_), _) => {}
    }
    if pipeline.repeats_sequences() && matches!(pipeline.start, Start::At(Point::Sequence(_))) {
        found.add(at("start"), "a sequence is one of each of several streams: use a time instead");
    }
    let Some(before) = &pipeline.before else { return };
    if !is_nats_name(before) {
        found
            .add(at("before"), "a stream name must not be empty or contain spaces, `.`, `*`, `>` or slashes");
    } else if places == 0 {
        found.add(
            at("before"),
            format!(
                "is the stream that the shards take the place of: stream needs {PLACEHOLDER}, and shards"
            ),
        );
    } else if pipeline.shards().iter().filter(|shard| shard.stream == *before).count() > 1 {
        found.add(at("before"), "is the stream of a shard, too");
    }
    if let Some(table) = pipeline.tables.iter().find(|table| table.goes_by_order()) {
        found.add(
            at("before"),
            format!(
                "table {} keeps the last message of a key (on_conflict = \"update\"), and the old stream is \
                 read at the same time as the new ones; add newer_by, or let the old stream run empty before \
                 you add the shards, and leave before out",
                table.name
            ),
        );
    }
}

/// What it has in common with one of the pipelines `before` it, which must be its own.
pub(super) fn apart(
    pipeline: &Pipeline,
    before: &[Pipeline],
    at: &dyn Fn(&str) -> String,
    found: &mut Problems,
) {
    if before.iter().any(|other| other.name == pipeline.name) {
        found.add(at("name"), format!("`{}` is already used by an earlier pipeline", pipeline.name));
        return;
    }
    let (own, others) = (pipeline.shards(), || before.iter().flat_map(Pipeline::shards));
    let has = |same: &dyn Fn(&Shard, &Shard) -> bool| {
        others().find_map(|other| own.iter().find(|own| same(own, &other)).map(|own| (own.clone(), other)))
    };
    if let Some((shard, other)) = has(&|own, other| own.name == other.name) {
        found.add(
            at("name"),
            format!(
                "`{}` is the name of a shard of pipeline {} and of {}",
                shard.name, other.pipeline, shard.pipeline
            ),
        );
    } else if has(&|own, other| own.stream == other.stream && own.durable == other.durable).is_some() {
        found.add(at("durable"), "an earlier pipeline reads the same stream with the same durable consumer");
    }
}
