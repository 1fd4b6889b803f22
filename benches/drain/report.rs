//! The figures as a table and as a file.

use std::path::Path;

use jetcopy::bench::figures::rounded;
use jetcopy::bench::process::machine;
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

    /// `path` is that below the package.
    pub(crate) fn write(&self, path: &str) {
        let mut object: Map<String, Value> =
            self.0.iter().map(|(name, figure)| (name.clone(), Value::from(rounded(*figure)))).collect();
        object.insert("machine".into(), machine().into());
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::write(file, serde_json::to_string_pretty(&object).unwrap()).unwrap();
        println!("written to {path}");
    }
}
