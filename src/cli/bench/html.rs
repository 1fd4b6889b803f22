//! The figures as a page with charts.
//!
//! Guarantees: one file without scripts that loads nothing; it is readable on light and dark screens and on
//! paper.

use super::chart::{Chart, Series};
use super::table::{latencies, load, number, processes, summary};
use crate::bench::figures::Outcome;
use crate::bench::record::{NAMES, Sample};

/// Its colours can be told apart by colour-blind people.
const STYLE: &str = include_str!("report.css");
/// Shares that the axis of a latency names.
const SHARES: [(f64, &str); 6] =
    [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];

/// The whole page.
pub(super) fn page(outcome: &Outcome) -> String {
    let rows = |rows: Vec<(String, Vec<String>)>| {
        rows.into_iter().fold(String::new(), |text, (name, cells)| {
            let name = format!("<tr><th scope=\"row\">{}</th>", escaped(&name));
            text + &cells.iter().fold(name, |row, cell| row + "<td>" + &escaped(cell) + "</td>") + "</tr>\n"
        })
    };
    let table = |header: &[&str], body: String| {
        if body.is_empty() {
            return String::new();
        }
        let header =
            header.iter().fold(String::new(), |row, name| row + "<th scope=\"col\">" + name + "</th>");
        format!("<table><thead><tr>{header}</tr></thead><tbody>\n{body}</tbody></table>\n")
    };
    let figures = summary(outcome).into_iter().map(|(name, value)| (name.to_owned(), vec![value])).collect();
    let latency = latencies(outcome).into_iter().map(|(name, latency)| {
        let figures = [latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max];
        (name.to_owned(), figures.map(number).to_vec())
    });
    let used = processes(outcome).into_iter().map(|(name, used)| {
        let share = format!("{:.1} %", used.cpu_share * 100.0);
        let cells = vec![
            number(used.cpu_seconds),
            share,
            number(used.cpu_seconds_per_million_rows),
            number(used.peak_memory_mib),
        ];
        (name.to_owned(), cells)
    });
    let left_out = outcome
        .left_out
        .iter()
        .fold(String::new(), |text, why| text + "<p class=\"note\">Left out: " + &escaped(why) + ".</p>\n");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>jetcopy \
         bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>jetcopy bench</h1>\n<p>{}</p>\n<p \
         class=\"note\">jetcopy {}, {}</p>\n{}{}{}{left_out}<div \
         class=\"charts\">\n{}</div>\n</body>\n</html>\n",
        escaped(&load(outcome)),
        outcome.jetcopy,
        escaped(&outcome.machine),
        table(&["Figure", "Value"], rows(figures)),
        table(&["Latency, ms", "p50", "p90", "p99", "p99.9", "max"], rows(latency.collect())),
        table(
            &["Process", "CPU, s", "of all cores", "CPU, s per million rows", "peak memory, MiB"],
            rows(used.collect())
        ),
        charts(outcome).iter().map(Chart::svg).collect::<String>()
    )
}

fn charts(outcome: &Outcome) -> Vec<Chart> {
    let mut charts = Vec::new();
    let samples = &outcome.samples;
    let over_time = |name, figure: &dyn Fn(&Sample) -> Option<f64>| Series {
        name,
        points: samples.iter().map(|sample| (sample.seconds, figure(sample))).collect(),
    };
    let curves: Vec<Series> = latencies(outcome)
        .into_iter()
        .map(|(name, latency)| Series {
            name,
            // A share of 1 is infinitely far along.
            points: latency
                .curve
                .iter()
                .filter(|(share, _)| *share < 1.0)
                .map(|(share, took)| (nines(*share), Some(*took)))
                .collect(),
        })
        .collect();
    if !curves.is_empty() {
        charts.push(Chart {
            title: "Latency by share of messages that were faster",
            unit: "ms",
            along: "share of messages",
            ticks: Some(SHARES.iter().map(|(share, text)| (nines(*share), (*text).to_owned())).collect()),
            series: curves,
        });
        charts.push(Chart {
            title: "Latency from publish to visible over time, p99",
            unit: "ms",
            along: "seconds",
            ticks: None,
            series: vec![over_time("publish → visible", &|sample| sample.visible_p99_ms)],
        });
    }
    charts.push(Chart {
        title: "Messages",
        unit: "messages/s",
        along: "seconds",
        ticks: None,
        series: vec![
            rate(samples, "published", |sample| sample.published),
            rate(samples, "visible", |sample| sample.visible),
        ],
    });
    let per_process = |figure: &dyn Fn(&Sample, usize) -> Option<f64>| -> Vec<Series> {
        let all = NAMES.into_iter().enumerate();
        all.map(|(process, name)| over_time(name, &|sample| figure(sample, process))).collect()
    };
    charts.push(Chart {
        title: "CPU",
        unit: "cores busy",
        along: "seconds",
        ticks: None,
        series: per_process(&|sample, process| sample.cores[process]),
    });
    charts.push(Chart {
        title: "Memory",
        unit: "MiB",
        along: "seconds",
        ticks: None,
        series: per_process(&|sample, process| sample.memory_mib[process]),
    });
    charts
}

/// How fast a count rose between two samples.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn rate(samples: &[Sample], name: &'static str, count: impl Fn(&Sample) -> u64) -> Series {
    let points = samples.windows(2).map(|pair| {
        let (rise, seconds) = (count(&pair[1]) - count(&pair[0]), pair[1].seconds - pair[0].seconds);
        (pair[1].seconds, (seconds > 0.0).then(|| rise as f64 / seconds))
    });
    Series { name, points: points.collect() }
}

/// How many nines a share has: 0.99 has two.
fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
