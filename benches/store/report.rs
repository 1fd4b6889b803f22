//! The figures as tables for the documentation, and as `target/bench-store.json`.

use std::path::Path;

use serde_json::{Value, json};

/// The figures in the order in which they were found.
#[derive(Default)]
pub(crate) struct Report {
    figures: Vec<(String, f64, &'static str)>,
    answers: Vec<Answer>,
}

/// How long a question took.
pub(crate) struct Answer {
    pub(crate) query: &'static str,
    pub(crate) question: &'static str,
    /// Whether it is a look-up.
    pub(crate) look_up: bool,
    pub(crate) rows: f64,
    pub(crate) times: Times,
    pub(crate) processor: Times,
}

/// In milliseconds.
pub(crate) struct Times {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Times {
    pub(crate) fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl Report {
    pub(crate) fn set(&mut self, name: impl Into<String>, figure: f64, unit: &'static str) {
        self.figures.push((name.into(), figure, unit));
    }

    pub(crate) fn answer(&mut self, answer: Answer) {
        self.answers.push(answer);
    }

    pub(crate) fn print(&self, title: &str) {
        println!("\n{title}; {}\n\n| | |\n|---|---|", machine());
        for (name, figure, unit) in &self.figures {
            let decimals = usize::from(*figure < 100.0);
            println!("| {name} | {figure:.decimals$} {unit} |");
        }
        println!(
            "\n| Query | | rows | p50, ms | p99 | max | processor p50, ms | p99 |\n|---|---|---|---|---|---|---|---|"
        );
        for Answer { query, question, rows, times, processor, .. } in &self.answers {
            let Times { p50, p99, max } = times;
            let (run50, run99) = (processor.p50, processor.p99);
            println!(
                "| `{query}` | {question} | {rows:.0} | {p50:.2} | {p99:.2} | {max:.2} | {run50:.2} | {run99:.2} |"
            );
        }
        for (limit, look_up, what) in [(1.0, true, "look-ups"), (10.0, false, "queries")] {
            let asked: Vec<&Answer> =
                self.answers.iter().filter(|answer| answer.look_up == look_up).collect();
            let over: Vec<&str> = asked
                .iter()
                .filter(|answer| answer.times.p99 >= limit)
                .map(|answer| answer.question)
                .collect();
            println!(
                "\np99 below {limit} ms: {} of {} {what}; over it: {}",
                asked.len() - over.len(),
                asked.len(),
                if over.is_empty() { "none".to_owned() } else { over.join("; ") }
            );
        }
    }

    pub(crate) fn write(&self, title: &str) {
        let figures: serde_json::Map<String, Value> = self
            .figures
            .iter()
            .map(|(name, figure, _)| (name.clone(), json!((figure * 1e3).round() / 1e3)))
            .collect();
        let answers: Vec<Value> = self
            .answers
            .iter()
            .map(|answer| {
                let Answer { query, question, look_up, rows, times, processor } = answer;
                json!({"query": query, "question": question, "look_up": look_up, "rows": rows, "p50_ms": times.p50,
                    "p99_ms": times.p99, "max_ms": times.max, "processor_p50_ms": processor.p50,
                    "processor_p99_ms": processor.p99})
            })
            .collect();
        let object = json!({"title": title, "machine": machine(), "figures": figures, "answers": answers});
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-store.json");
        std::fs::write(&path, serde_json::to_string_pretty(&object).unwrap()).unwrap();
        println!("\nwritten to target/bench-store.json");
    }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    format!("{cores} cores, {}", model.trim_start_matches([' ', '\t', ':']))
}
