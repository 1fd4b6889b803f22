//! What `config/` holds for Prometheus, its exporters and Grafana, checked with the programs themselves.
//!
//! Needs what `make setup` installs: Prometheus with promtool, Debian's `postgres_exporter` and
//! `node_exporter`. PgBouncer and TimescaleDB are looked at where they are.

mod dashboards;
mod db_monitor;
mod documents;
mod faults;
mod ordinary;
mod promql;
mod run;
mod stack;

use std::path::{Path, PathBuf};
use std::process::Command;

use jetcopy::testbed::promtool;

/// A file or directory of the package.
fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Names and expressions of the rules in `config/prometheus/rules`, the recording rules among them.
fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for file in ["recording", "jetcopy", "postgres"] {
        let text = std::fs::read_to_string(own(&format!("config/prometheus/rules/{file}.yml"))).unwrap();
        // One rule after the other, each key on a line of its own: promtool has read them as YAML before.
        for line in text.lines() {
            let line = line.trim();
            if let Some(name) = line.strip_prefix("- alert: ") {
                rules.push(Rule { alert: true, name: name.to_owned(), ..Rule::default() });
            } else if let Some(name) = line.strip_prefix("- record: ") {
                rules.push(Rule { alert: false, name: name.to_owned(), ..Rule::default() });
            } else if let Some(runbook) = line.strip_prefix("runbook_url: ") {
                runbook.clone_into(&mut rules.last_mut().unwrap().runbook);
            }
        }
    }
    rules
}

#[derive(Debug, Default)]
struct Rule {
    alert: bool,
    name: String,
    runbook: String,
}

/// What promtool says; it must agree.
fn promtool_agrees(arguments: &[&str]) -> String {
    let output = Command::new(promtool().unwrap()).args(arguments).current_dir(own("")).output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}:\n{text}");
    text
}

#[test]
fn promtool_accepts_the_configuration_and_its_rules() {
    let text = promtool_agrees(&["check", "config", "config/prometheus/prometheus.yml"]);
    let found = text.lines().filter_map(|line| line.trim().strip_prefix("SUCCESS: "));
    let rules: usize =
        found.filter_map(|line| line.strip_suffix(" rules found")?.parse::<usize>().ok()).sum();
    assert_eq!(rules, self::rules().len(), "{text}");
}

#[test]
fn every_alert_fires_and_clears_in_the_rules_own_tests() {
    promtool_agrees(&["test", "rules", "config/prometheus/tests/alerts.yml"]);
    let tests = std::fs::read_to_string(own("config/prometheus/tests/alerts.yml")).unwrap();
    for rule in rules().iter().filter(|rule| rule.alert) {
        let asked = format!("ALERTS{{alertname=\"{}\", alertstate=\"firing\"}}", rule.name);
        let answers: Vec<bool> = tests
            .split(&asked)
            .skip(1)
            .map(|rest| !rest.split_once("exp_samples:").unwrap().1.trim_start().starts_with("[]"))
            .collect();
        assert!(
            answers.windows(2).any(|two| two == [false, true])
                && answers.windows(2).any(|two| two == [true, false]),
            "{} is not tested to fire and to clear",
            rule.name
        );
    }
}
