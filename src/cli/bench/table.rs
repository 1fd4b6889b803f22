//! The figures as text.
//!
//! Guarantees: all figures that the JSON has; what could not be measured is left out and named.

use crate::bench::figures::{Latency, Outcome, Used};
use crate::cli::columns;

/// All figures, as tables for people.
pub(super) fn of(outcome: &Outcome) -> String {
    let mut text = format!("{}\n{}\n\n", outcome.machine, load(outcome));
    let figures: Vec<[String; 2]> =
        summary(outcome).into_iter().map(|(name, value)| [name.to_owned(), value]).collect();
    text += &columns::render(["FIGURE", "VALUE"], [false, true], &figures);
    let latencies: Vec<[String; 6]> = latencies(outcome)
        .into_iter()
        .map(|(name, latency)| {
            let Latency { p50, p90, p99, p99_9, max, .. } = latency;
            let [p50, p90, p99, p99_9, max] = [p50, p90, p99, p99_9, max].map(|figure| number(*figure));
            [name.to_owned(), p50, p90, p99, p99_9, max]
        })
        .collect();
    if !latencies.is_empty() {
        let header = ["LATENCY, MS", "P50", "P90", "P99", "P99.9", "MAX"];
        text += "\n";
        text += &columns::render(header, [false, true, true, true, true, true], &latencies);
    }
    let used: Vec<[String; 5]> = processes(outcome)
        .into_iter()
        .map(|(name, used)| {
            [
                name.to_owned(),
                number(used.cpu_seconds),
                format!("{:.1} %", used.cpu_share * 100.0),
                number(used.cpu_seconds_per_million_rows),
                number(used.peak_memory_mib),
            ]
        })
        .collect();
    let header = ["PROCESS", "CPU, S", "OF ALL CORES", "CPU, S PER MILLION ROWS", "PEAK, MIB"];
    text += "\n";
    text += &columns::render(header, [false, true, true, true, true], &used);
    for why in &outcome.left_out {
        text += "left out: ";
        text += why;
        text += "\n";
    }
    text
}

/// What was asked for.
pub(super) fn load(outcome: &Outcome) -> String {
    let how = match (outcome.rate, outcome.duration_seconds) {
        (Some(rate), Some(duration)) => format!("{rate:.0} messages/s for {duration:.0} s"),
        _ => format!("a backlog of {} messages", outcome.published),
    };
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    format!(
        "{how}, {} bytes and {} row{} each, {} pipeline{}, {}, {} rows at the start",
        outcome.message_bytes,
        outcome.rows_per_message,
        plural(outcome.rows_per_message),
        outcome.pipelines,
        plural(outcome.pipelines),
        if outcome.index { "an index on a bigint" } else { "no index" },
        outcome.stored
    )
}

/// The figures that stand alone.
pub(super) fn summary(outcome: &Outcome) -> Vec<(&'static str, String)> {
    let mut figures = vec![
        ("messages published", outcome.published.to_string()),
        ("messages/s published", number(outcome.published_per_second)),
        ("rows", outcome.rows.to_string()),
    ];
    if let Some(rate) = outcome.rows_per_second {
        figures.push(("rows/s committed", number(rate)));
    }
    if let Some(bytes) = outcome.wal_bytes_per_row {
        figures.push(("write-ahead log, bytes/row", number(bytes)));
    }
    if let Some(look) = outcome.look_p99_ms {
        figures.push(("time between two samples, p99, ms", number(look)));
    }
    figures.push(("commits timed by", outcome.timed_by.to_owned()));
    figures
}

/// Those that were measured, with their names.
pub(super) fn latencies(outcome: &Outcome) -> Vec<(&'static str, &Latency)> {
    let all = [
        ("publish → commit", &outcome.publish_to_commit_ms),
        ("publish → visible", &outcome.publish_to_visible_ms),
    ];
    all.into_iter().filter_map(|(name, latency)| Some((name, latency.as_ref()?))).collect()
}

/// Those that could be looked at, with their names.
pub(super) fn processes(outcome: &Outcome) -> Vec<(&'static str, &Used)> {
    let all = [
        ("daemon", &outcome.daemon),
        ("NATS", &outcome.nats),
        ("PostgreSQL", &outcome.postgres),
        ("bench (publishers)", &outcome.bench),
    ];
    all.into_iter().filter_map(|(name, used)| Some((name, used.as_ref()?))).collect()
}

/// With as many decimals as say something.
pub(super) fn number(figure: f64) -> String {
    let decimals = match figure.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{figure:.decimals$}")
}
