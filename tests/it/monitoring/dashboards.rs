//! Grafana's dashboards, as far as they can be judged without Grafana.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::own;
use super::promql::selectors;

/// File, uid and title of each dashboard.
const DASHBOARDS: [(&str, &str, &str); 2] = [
    ("jetcopy.json", "jetcopy", "jetcopy"),
    ("timescaledb.json", "postgres-timescale", "TimescaleDB Performance"),
];

/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;

/// The variables that Grafana itself fills in, and what stands for them here.
const BUILT_IN: [(&str, &str); 1] = [("$__rate_interval", "5m")];

fn dashboard(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(own("config/grafana").join(file)).unwrap()).unwrap()
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is no text in {value}"))
}

/// The names of a dashboard's variables.
fn variables(dashboard: &Value) -> BTreeSet<&str> {
    array(&dashboard["templating"], "list").iter().map(|variable| text(variable, "name")).collect()
}

/// A query as Prometheus gets it: each variable stands for all of its values, and each label must be there.
fn filled_in(query: &str, dashboard: &Value) -> String {
    let mut query = query.to_owned();
    for (variable, value) in BUILT_IN {
        query = query.replace(variable, value);
    }
    for variable in variables(dashboard) {
        query = query.replace(&format!("${variable}"), ".+");
    }
    query
}

/// Title of the panel and query, of all panels of all dashboards.
pub(super) fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (file, ..) in DASHBOARDS {
        let dashboard = dashboard(file);
        for panel in array(&dashboard, "panels") {
            for target in array(panel, "targets") {
                let place = format!("{file}, {}", text(panel, "title"));
                queries.push((place, filled_in(text(target, "expr"), &dashboard)));
            }
        }
    }
    queries
}

/// The queries that fill variables, as selectors.
pub(super) fn variable_queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (file, ..) in DASHBOARDS {
        let dashboard = dashboard(file);
        for variable in array(&dashboard["templating"], "list") {
            let Some(query) = variable["query"]["query"].as_str() else { continue };
            let selector = query.strip_prefix("label_values(").unwrap().rsplit_once(", ").unwrap().0;
            queries.push((
                format!("{file}, variable {}", text(variable, "name")),
                filled_in(selector, &dashboard),
            ));
        }
    }
    queries
}

#[test]
fn each_dashboard_has_the_uid_and_the_title_that_links_go_by() {
    for (file, uid, title) in DASHBOARDS {
        let dashboard = dashboard(file);
        assert_eq!((text(&dashboard, "uid"), text(&dashboard, "title")), (uid, title));
        assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36, "{file}: before Grafana 9");
        assert!(dashboard["id"].is_null(), "{file}: the id is Grafana's to give");
    }
    let files = std::fs::read_dir(own("config/grafana")).unwrap().flatten();
    let files = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "json"));
    assert_eq!(files.count(), DASHBOARDS.len());
}

#[test]
fn panels_have_ids_of_their_own_and_do_not_overlap() {
    for (file, ..) in DASHBOARDS {
        let dashboard = dashboard(file);
        let mut ids = BTreeSet::new();
        let mut taken: BTreeMap<(u64, u64), &str> = BTreeMap::new();
        for panel in array(&dashboard, "panels") {
            let title = text(panel, "title");
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file}: two panels with the id of {title}");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{file}: {title} is wider than the grid");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                if let Some(other) = taken.insert(cell, title) {
                    panic!("{file}: {title} lies over {other}");
                }
            }
        }
    }
}

#[test]
fn every_query_goes_to_the_chosen_data_source_and_uses_declared_variables_only() {
    for (file, ..) in DASHBOARDS {
        let dashboard = dashboard(file);
        let variables = variables(&dashboard);
        assert!(variables.contains("datasource"), "{file}");
        for panel in array(&dashboard, "panels").iter().filter(|panel| panel["type"] != "row") {
            let title = text(panel, "title");
            let mut references = BTreeSet::new();
            assert!(!array(panel, "targets").is_empty(), "{file}: {title} shows nothing");
            for target in array(panel, "targets") {
                assert!(references.insert(text(target, "refId")), "{file}: {title} has two of a refId");
                for value in [panel, target] {
                    assert_eq!(value["datasource"]["uid"], "${datasource}", "{file}: {title}");
                }
                let query = filled_in(text(target, "expr"), &dashboard);
                assert!(!query.contains('$'), "{file}: {title} uses an unknown variable: {query}");
                assert!(!selectors(&query).is_empty(), "{file}: {title}: {query}");
            }
        }
    }
}

#[test]
fn both_dashboards_are_provisioned_with_the_data_source_that_they_default_to() {
    let read = |path: &str| std::fs::read_to_string(own("config/grafana/provisioning").join(path)).unwrap();
    assert!(read("datasources/prometheus.yml").contains("type: prometheus"));
    assert!(read("dashboards/jetcopy.yml").contains("path: /etc/grafana/dashboards/jetcopy"));
}
