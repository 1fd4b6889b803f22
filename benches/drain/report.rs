//! The figures as a table and as `target/bench.json`.

use std::path::Path;

use serde_json::{Map, Value};

/// The figures in the order in which they were found.
#[derive(Default)]
pub(crate) struct Report(Vec<(String, f64)>);

impl Report {
    pub(crate) fn set(&mut self, name: &str, figure: f64) {
        self.0.push((name.to_owned(), figure));
    }

    pub(crate) fn print(&self) {
        println!("\n{}", machine());
        for (name, figure) in &self.0 {
            let decimals = if *figure < 10.0 { 3 } else { 0 };
            println!("  {name:<38} {figure:>12.decimals$}");
        }
    }

    pub(crate) fn write(&self) {
        let mut object: Map<String, Value> = self
            .0
            .iter()
            .map(|(name, figure)| (name.clone(), Value::from((figure * 1e4).round() / 1e4)))
            .collect();
        object.insert("machine".into(), machine().into());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench.json");
        std::fs::write(&path, serde_json::to_string_pretty(&object).unwrap()).unwrap();
        println!("written to target/bench.json");
    }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    format!("{cores} cores, {}", model.trim_start_matches([' ', '\t', ':']))
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len().is_multiple_of(2) {
        f64::midpoint(figures[middle - 1], figures[middle])
    } else {
        figures[middle]
    }
}
