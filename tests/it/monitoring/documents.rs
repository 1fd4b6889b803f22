//! The documents beside the metrics and alerts: whole, and true to the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jetcopy::metrics::{Metrics, names};
use jetcopy::shard::Shard;

use super::{own, rules};

/// Set by `make docs`: write what is compared here instead.
const WRITE: &str = "JETCOPY_WRITE_DOCS";

/// The parts of a runbook section, each the beginning of a paragraph.
const PARTS: [&str; 3] = ["**Meaning.**", "**Check.**", "**Fix.**"];

/// The reference of all metrics, from the names in the code and from what a pipeline shows.
fn reference() -> String {
    let metrics = Metrics::new();
    let pipeline = metrics.pipeline(&Shard::new("p", "s", "S"), &["t"]);
    pipeline.resyncs("start").inc();
    pipeline.recorded(&[]);
    pipeline.known().into_iter().for_each(|gauge| gauge.set(0));
    let _status = jetcopy::status::Registry::default().add(&Shard::new("p", "s", "S"), pipeline);
    let text = metrics.render();
    let kinds: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let labels = |name: &str| -> String {
        let series = text.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.trim_start_matches("_bucket").strip_prefix('{')?.split_once('}').map(|(labels, _)| labels)
        });
        let names = series.unwrap_or_default().split(',').filter_map(|label| label.split_once('='));
        let names = names.map(|(name, _)| name).filter(|&name| name != "le" && !name.is_empty());
        names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    let mut out = String::from(
        "# Metrics\n\n\
         The metrics of `/metrics`, in the order of the data. A gauge whose value is unknown is absent,\n\
         such as before a pipeline has reached its servers. `make docs` writes this page from\n\
         `src/metrics/names.rs` and `config/postgres_exporter/queries.yaml`; a test compares.\n\n\
         | Metric | Type | Labels | Meaning |\n|---|---|---|---|\n",
    );
    for family in names::ALL {
        let kind = kinds.get(family.name).unwrap_or_else(|| panic!("{} is never shown", family.name));
        writeln!(out, "| `{}` | {kind} | {} | {} |", family.name, labels(family.name), family.help).unwrap();
    }
    out.push_str("\n## Labels\n\n");
    for (label, meaning) in [
        (names::PIPELINE, "The pipeline's name."),
        (names::SHARD, "The key of its checkpoint; the pipeline's name if there is only one shard."),
        (names::STREAM, "The JetStream stream."),
        (names::TABLE, "A target table as configured."),
    ] {
        writeln!(out, "- `{label}`: {meaning}").unwrap();
    }
    for (label, family) in [
        (names::STATE, names::PIPELINE_STATE),
        (names::REASON, names::BATCHES),
        (names::OUTCOME, names::COMMITS),
        (names::OUTCOME, names::API_REQUESTS),
        (names::STAGE, names::STAGE_SECONDS),
        (names::STEP, names::WRITE_SECONDS),
    ] {
        let values: BTreeSet<&str> = text
            .lines()
            .filter(|line| line.starts_with(family.name))
            .filter_map(|line| line.split_once(&format!("{label}=\""))?.1.split_once('"'))
            .map(|(value, _)| value)
            .collect();
        let values = values.into_iter().collect::<Vec<_>>().join("`, `");
        writeln!(out, "- `{label}` of `{}`: `{values}`.", family.name).unwrap();
    }
    out.push_str(
        "\n## From postgres_exporter\n\n\
         What `config/postgres_exporter/queries.yaml` adds to the exporter's own metrics;\n\
         [monitoring.md](monitoring.md#what-the-numbers-are-worth) says what the numbers are worth.\n\n\
         | Metric | Type | Labels | Meaning |\n|---|---|---|---|\n",
    );
    for (query, columns) in custom_queries() {
        let (labels, values): (Vec<_>, Vec<_>) = columns.iter().partition(|column| column.usage == "LABEL");
        let labels = labels.iter().map(|label| format!("`{}`", label.name)).collect::<Vec<_>>().join(", ");
        for value in values {
            let kind = value.usage.to_lowercase();
            writeln!(out, "| `{query}_{}` | {kind} | {labels} | {} |", value.name, value.description)
                .unwrap();
        }
    }
    out
}

/// A column of a custom query.
#[derive(Debug, Default)]
struct Column {
    name: String,
    usage: String,
    description: String,
}

/// Each custom query with its columns, each key on a line of its own.
fn custom_queries() -> Vec<(String, Vec<Column>)> {
    let text = std::fs::read_to_string(own("config/postgres_exporter/queries.yaml")).unwrap();
    let mut queries: Vec<(String, Vec<Column>)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with([' ', '#'])) {
            queries.push((name.to_owned(), Vec::new()));
        } else if let Some(name) = line.strip_prefix("    - ") {
            let name = name.trim_end_matches(':').to_owned();
            queries.last_mut().unwrap().1.push(Column { name, ..Column::default() });
        } else if let Some(usage) = line.strip_prefix("        usage: ") {
            usage.clone_into(&mut queries.last_mut().unwrap().1.last_mut().unwrap().usage);
        } else if let Some(text) = line.strip_prefix("        description: ") {
            text.trim_matches('"')
                .clone_into(&mut queries.last_mut().unwrap().1.last_mut().unwrap().description);
        }
    }
    queries
}

#[test]
fn the_reference_of_metrics_is_what_the_code_says() {
    let path = own("docs/metrics.md");
    let reference = reference();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == reference, "docs/metrics.md is not what the code says: run `make docs`");
}

#[test]
fn every_alert_has_a_section_in_the_runbooks_and_no_section_is_left_over() {
    let runbooks = std::fs::read_to_string(own("docs/runbooks.md")).unwrap();
    let mut sections: BTreeMap<&str, &str> = BTreeMap::new();
    for section in runbooks.split("\n## ").skip(1) {
        let (title, body) = section.split_once('\n').unwrap();
        assert!(sections.insert(title, body).is_none(), "two sections {title}");
    }
    for alert in rules().into_iter().filter(|rule| rule.alert) {
        assert_eq!(alert.runbook, format!("docs/runbooks.md#{}", alert.name.to_lowercase()));
        let Some(body) = sections.remove(alert.name.as_str()) else {
            panic!("docs/runbooks.md has no section {}", alert.name)
        };
        for part in PARTS {
            assert!(body.contains(part), "the section {} has no {part}", alert.name);
        }
    }
    assert!(sections.is_empty(), "sections without an alert: {:?}", sections.keys());
}
