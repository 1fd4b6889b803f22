//! Each family is rendered once with its help, and what is not known is absent.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::loss::{Cause, Loss};
use crate::marker::Marker;

fn filled() -> (Metrics, PipelineMetrics) {
    let metrics = Metrics::new();
    let pipeline = metrics
        .pipeline(&Shard::new("frames", "frames-0", "FRAMES"), &["frame_metadata", "detection_events"]);
    pipeline.tables.each()[1].rows.inc_by(7);
    pipeline.recorded(&[]);
    pipeline.resyncs("start").inc();
    for kind in ["malformed", "malformed", "range"] {
        pipeline.dead_letter(kind);
    }
    pipeline.passed_over(Marker::Removed).inc();
    pipeline.known().into_iter().for_each(|gauge| gauge.set(0));
    pipeline.set_state("running", &["starting", "running"]);
    (metrics, pipeline)
}

#[test]
fn every_family_is_rendered_once_with_its_help() {
    let (metrics, _) = filled();
    let text = metrics.render();
    for family in names::ALL {
        let help = format!("# HELP {} {}\n", family.name, family.help);
        assert_eq!(text.matches(&help).count(), 1, "{}", family.name);
    }
    let helps = text.lines().filter(|line| line.starts_with("# HELP")).count();
    assert_eq!(helps, names::ALL.len());
}

#[test]
fn a_pipeline_that_counted_nothing_renders() {
    let metrics = Metrics::new();
    let _handles = metrics.pipeline(&Shard::new("frames", "frames", "FRAMES"), &["frame_metadata"]);
    assert!(metrics.render().contains("jetcopy_messages_total"));
}

#[test]
fn what_is_not_known_is_absent_and_never_nought() {
    let metrics = Metrics::new();
    let handles = metrics.pipeline(&Shard::new("frames", "frames", "FRAMES"), &["frame_metadata"]);
    let shown = |name: &str| metrics.render().contains(&format!("\n{name}{{"));
    assert!(!shown("jetcopy_behind_seconds") && !shown("jetcopy_checkpoint_sequence"));
    handles.behind_seconds.set_seconds(1.5);
    handles.checkpoint_sequence.set(0);
    assert!(shown("jetcopy_behind_seconds") && shown("jetcopy_checkpoint_sequence"));
    handles.behind_seconds.forget();
    assert!(!shown("jetcopy_behind_seconds"));
    assert_eq!(metrics.render().matches("NaN").count(), 0);
}

#[test]
fn a_checkpoint_lies_beyond_the_end_only_of_a_stream_that_it_does_not_count_in() {
    let metrics = Metrics::new();
    let handles = metrics.pipeline(&Shard::new("frames", "frames", "FRAMES"), &["frame_metadata"]);
    handles.stream_holds(1, 100);
    handles.committed_to(120);
    assert_eq!(handles.stream_last_sequence.get(), Some(120), "what is committed was there");
    handles.stream_holds(1, 110);
    assert_eq!(handles.stream_last_sequence.get(), Some(120), "an answer may be older than the commit");
    let loss = Loss {
        cause: Cause::Recreated,
        first_sequence: 121,
        last_sequence: None,
        resume_after: 0,
        possible: false,
        messages: None,
    };
    handles.resumes(Some(Resumes::past(&loss)));
    handles.stream_holds(1, 50);
    let ends = (handles.stream_last_sequence.get(), handles.checkpoint_sequence.get());
    assert_eq!((ends, handles.position.reads_after()), ((Some(50), Some(120)), Some(0)));
}

#[test]
fn names_follow_the_conventions_of_promtool() {
    let (metrics, _) = filled();
    let text = metrics.render();
    let mut seen = BTreeSet::new();
    for family in names::ALL {
        assert!(seen.insert(family.name), "{} is declared twice", family.name);
        let is_counter = text.contains(&format!("# TYPE {} counter", family.name));
        assert_eq!(family.name.ends_with("_total"), is_counter, "{}", family.name);
        for unit in ["_ms", "_millis", "_kib", "_minutes", "_percent", "_count", "_sum", "_bucket"] {
            assert!(!family.name.contains(unit), "{} does not use a base unit", family.name);
        }
    }
}

#[test]
fn a_series_carries_pipeline_shard_and_stream() {
    let (metrics, _) = filled();
    assert!(metrics.render().contains(
        r#"jetcopy_rows_total{pipeline="frames",shard="frames-0",stream="FRAMES",table="detection_events"} 7"#
    ));
}

#[test]
fn asking_twice_for_a_shard_gives_the_same_counters() {
    let (metrics, first) = filled();
    let second = metrics
        .pipeline(&Shard::new("frames", "frames-0", "FRAMES"), &["frame_metadata", "detection_events"]);
    first.messages.inc();
    second.messages.inc();
    assert_eq!(first.messages.get(), 2);
}

#[test]
fn two_shards_of_a_pipeline_count_apart() {
    let (metrics, first) = filled();
    let second = metrics.pipeline(&Shard::new("frames", "frames-1", "FRAMES-1"), &["frame_metadata"]);
    second.messages.inc_by(5);
    assert_eq!(first.messages.get(), 0);
    assert!(
        metrics
            .render()
            .contains(r#"jetcopy_messages_total{pipeline="frames",shard="frames-1",stream="FRAMES-1"} 5"#)
    );
}

#[test]
fn counts_are_told_by_kind_and_by_cause() {
    let (_, pipeline) = filled();
    let by = |label: &str, count| (label.to_owned(), count);
    assert_eq!(pipeline.dead_letters_by_kind(), BTreeMap::from([by("malformed", 2), by("range", 1)]));
    assert_eq!(pipeline.resyncs_by_cause(), BTreeMap::from([by("start", 1)]));
}

#[test]
fn exactly_one_state_is_set() {
    let (metrics, pipeline) = filled();
    pipeline.set_state("starting", &["starting", "running"]);
    let text = metrics.render();
    let set: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("jetcopy_pipeline_state{") && line.ends_with(" 1"))
        .collect();
    assert_eq!(set.len(), 1);
    assert!(set[0].contains(r#"state="starting""#));
}

#[test]
fn a_batch_of_latencies_arrives_with_its_flush() {
    let (_, pipeline) = filled();
    let batch = pipeline.publish_to_commit_seconds.local();
    for _ in 0..1_000 {
        batch.observe(0.02);
    }
    assert_eq!(pipeline.publish_to_commit_seconds.get_sample_count(), 0);
    batch.flush();
    assert_eq!(pipeline.publish_to_commit_seconds.get_sample_count(), 1_000);
}
