//! State, metric and log change together, and a trouble is reported once.

use super::*;
use crate::metrics::Metrics;

fn status() -> (Metrics, Registry, Arc<PipelineStatus>) {
    let metrics = Metrics::new();
    let registry = Registry::default();
    let handles = metrics.pipeline(&Shard::new("frames", "frames", "FRAMES"), &["frame_metadata"]);
    let status = registry.add(&Shard::new("frames", "frames", "FRAMES"), handles);
    (metrics, registry, status)
}

fn backing_off(seconds: u64) -> State {
    State::BackingOff { reason: "database is away".into(), retry_in: Duration::from_secs(seconds) }
}

#[test]
fn the_metric_follows_the_state() {
    let (metrics, _, status) = status();
    let is_set = |state: &str| {
        let series = format!(
            r#"jetcopy_pipeline_state{{pipeline="frames",shard="frames",state="{state}",stream="FRAMES"}} 1"#
        );
        metrics.render().contains(&series)
    };
    assert!(is_set("starting"));
    status.set_state(State::Running);
    assert!(is_set("running") && !is_set("starting"));
    status.set_state(backing_off(1));
    assert!(is_set("backing_off") && !is_set("running"));
}

#[test]
fn the_last_error_outlives_its_state() {
    let (_, registry, status) = status();
    status.set_state(backing_off(1));
    status.set_state(State::Running);
    let snapshot = registry.snapshots().remove(0);
    assert_eq!(snapshot.state, State::Running);
    assert_eq!(snapshot.last_error.unwrap().message, "database is away");
}

/// What `work` logs.
fn logged(work: impl FnOnce()) -> Vec<String> {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_writer(Mutex::new(writer))
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_trouble_that_repeats_itself_is_logged_once_until_the_pipeline_runs_again() {
    let (_, _, status) = status();
    let lines = logged(|| {
        for _ in 0..3 {
            status.set_state(backing_off(1));
            status.set_state(State::Starting);
        }
        status.set_state(State::Running);
        status.set_state(State::Running);
        status.set_state(backing_off(1));
    });
    let failed = "WARN pipeline failed; backing off pipeline=\"frames\" shard=\"frames\" reason=\"database \
                  is away\" retry_in=1s";
    let runs = "INFO pipeline is running pipeline=\"frames\" shard=\"frames\"";
    assert_eq!(lines, [failed, runs, failed]);
}

#[test]
fn what_a_person_must_mend_is_logged_as_an_error_with_its_remedy() {
    let (_, _, status) = status();
    let lines = logged(|| {
        status.set_state(State::Paused { reason: "no table".into(), remedy: "jetcopy migrate".into() });
    });
    assert_eq!(
        lines,
        ["ERROR pipeline is paused pipeline=\"frames\" shard=\"frames\" reason=\"no table\" \
          remedy=\"jetcopy migrate\""]
    );
}

#[test]
fn since_is_when_the_state_was_entered_and_not_its_last_retry() {
    let (_, _, status) = status();
    status.set_state(backing_off(1));
    let entered = status.snapshot().since;
    status.set_state(backing_off(2));
    assert_eq!(status.snapshot().since, entered);
    status.set_state(State::Running);
    assert!(status.snapshot().since >= entered);
}

#[test]
fn down_since_is_when_it_ran_last_through_all_attempts() {
    let (_, _, status) = status();
    assert!(status.snapshot().down_since.is_some(), "it has not run yet");
    status.set_state(State::Running);
    assert_eq!(status.snapshot().down_since, None);
    status.set_state(backing_off(1));
    let down = status.snapshot().down_since;
    assert!(down.is_some());
    status.set_state(State::Starting);
    status.set_state(backing_off(1));
    assert_eq!(status.snapshot().down_since, down);
}

#[test]
fn a_snapshot_shows_the_numbers_of_the_metrics() {
    let (_, registry, status) = status();
    status.metrics.tables.each()[0].rows.inc_by(12);
    status.metrics.checkpoint_sequence.set(34);
    status.set_state(State::Paused { reason: "no table".into(), remedy: "jetcopy migrate".into() });
    let json = serde_json::to_value(registry.snapshots()).unwrap();
    assert_eq!(json[0]["rows"], 12);
    assert_eq!(json[0]["checkpoint_sequence"], 34);
    assert_eq!(json[0]["state"], "paused");
    assert_eq!(json[0]["remedy"], "jetcopy migrate");
}

#[test]
fn the_label_of_a_state_is_its_name_in_json() {
    let states = [
        State::Starting,
        State::Running,
        State::Waiting { reason: String::new() },
        backing_off(1),
        State::Paused { reason: String::new(), remedy: String::new() },
        State::Halted { reason: String::new(), remedy: String::new() },
        State::Stopping,
        State::Stopped,
    ];
    assert_eq!(states.each_ref().map(State::label), State::LABELS);
    for state in states {
        assert_eq!(serde_json::to_value(&state).unwrap()["state"], state.label());
    }
}

#[test]
fn adding_a_pipeline_again_keeps_its_status() {
    let (metrics, registry, status) = status();
    status.set_state(State::Running);
    let handles = metrics.pipeline(&Shard::new("frames", "frames", "FRAMES"), &["frame_metadata"]);
    let again = registry.add(&Shard::new("frames", "frames", "FRAMES"), handles);
    assert_eq!(again.state(), State::Running);
    assert_eq!(registry.snapshots().len(), 1);
}
