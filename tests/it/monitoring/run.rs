//! Every name in every query against what a real run exports.

use std::process::{Command, Stdio};

use jetcopy::testbed::promtool;

use super::dashboards;
use super::promql::{metric, selectors};
use super::stack::{Stack, each_second, gives};

/// What only a server with TimescaleDB tells of; the roll-ups are there without it too, but not filled by
/// SQL.
const OF_TIMESCALEDB: [&str; 3] = ["jetcopydb_job_", "compression_ratio", "detection_count_total"];
/// What only PgBouncer tells of.
const OF_PGBOUNCER: [&str; 1] = ["pgbouncer_"];
/// What Debian's exporters tell by their own names; the rest is jetcopy's to name well.
const OF_OTHERS: [&str; 6] = ["pg_", "postgres_", "go_", "process_", "promhttp_", "node_"];

/// What `promtool check metrics` says about metrics.
fn lint(metrics: &str) -> String {
    use std::io::Write;
    let mut child = Command::new(promtool().unwrap())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { String::new() } else { format!("promtool check metrics:\n{text}") }
}

/// The lines of families that jetcopy names.
fn named_here(metrics: &str) -> String {
    let named = |line: &&str| {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        !OF_OTHERS.iter().any(|prefix| name.starts_with(prefix))
    };
    metrics.lines().filter(named).fold(String::new(), |text, line| text + line + "\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_every_panel_and_rule_finds_what_a_real_run_exports() {
    let stack = Stack::start(each_second).await;
    stack.use_the_daemon().await;
    stack.use_the_store().await;
    gives(&stack, "up{job=\"jetcopy\"} == 1").await;

    let mut queries = dashboards::queries();
    queries.extend(dashboards::variable_queries());
    for group in stack.ask("/api/v1/rules")["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let text = |key: &str| rule[key].as_str().unwrap().to_owned();
            queries.push((format!("rule {}", text("name")), text("query")));
        }
    }
    assert!(queries.len() > 100, "{}", queries.len());
    let has = |name: &str, prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    for (place, query) in &queries {
        // Prometheus takes it as it is.
        stack.query(query);
        for selector in selectors(query) {
            let name = metric(&selector);
            if (has(name, &OF_TIMESCALEDB) && !stack.postgres.has_timescaledb())
                || (has(name, &OF_PGBOUNCER) && stack.bouncer.is_none())
            {
                // The stack has noted it.
                println!("left out: {place}: {selector}");
                continue;
            }
            gives(&stack, &selector).await;
        }
    }

    assert_eq!(lint(&stack.daemon().get("/metrics").1), "");
    let exported = stack.exporter.metrics().unwrap();
    let custom = named_here(&exported);
    assert!(custom.contains("# TYPE frame_count_total counter"), "{custom}");
    assert_eq!(lint(&custom), "");
    // Of the role that docs/monitoring.md tells to create, no query is refused.
    assert!(exported.contains("\npg_exporter_last_scrape_error 0"), "{exported}");
}
