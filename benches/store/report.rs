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
    /// The share of its runs that read compressed chunks.
    pub(crate) compressed: f64,
    pub(crate) execution: Times,
    /// Planning and execution.
    pub(crate) times: Times,
    pub(crate) processor: Times,
}

/// In milliseconds.
pub(crate) struct Times {
    p50: f64,
    p99: f64,
}

impl Times {
    pub(crate) fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
        Self { p50: at(0.5), p99: at(0.99) }
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
            "\n| Query | | rows | of compressed, % | execution p50, ms | p99 | with planning p50, ms \
             | p99 | processor p99, ms |\n\
             |---|---|---|---|---|---|---|---|---|"
        );
        for Answer { query, question, rows, compressed, execution, times, processor, .. } in &self.answers {
            println!(
                "| `{query}` | {question} | {rows:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
                compressed * 100.0,
                execution.p50,
                execution.p99,
                times.p50,
                times.p99,
                processor.p99
            );
        }
        for (limit, look_up, what) in [(1.0, true, "look-ups"), (10.0, false, "queries")] {
            self.print_over("execution", limit, look_up, what, |answer| &answer.execution);
            self.print_over("with planning", limit, look_up, what, |answer| &answer.times);
            // What holds on a busy machine too, where a query waits for its turn.
            self.print_over("processor", limit, look_up, what, |answer| &answer.processor);
        }
    }

    /// How many keep to `limit` milliseconds at p99, and which do not.
    fn print_over(&self, of: &str, limit: f64, look_up: bool, what: &str, times: impl Fn(&Answer) -> &Times) {
        let asked: Vec<&Answer> = self.answers.iter().filter(|answer| answer.look_up == look_up).collect();
        let over: Vec<String> = asked
            .iter()
            .filter(|answer| times(answer).p99 >= limit)
            .map(|answer| format!("{} ({:.1} ms)", answer.question, times(answer).p99))
            .collect();
        println!(
            "\n{of}, p99 below {limit} ms: {} of {} {what}; over it: {}",
            asked.len() - over.len(),
            asked.len(),
            if over.is_empty() { "none".to_owned() } else { over.join("; ") }
        );
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
                let Answer { query, question, look_up, rows, compressed, execution, times, processor } =
                    answer;
                json!({"query": query, "question": question, "look_up": look_up, "rows": rows,
                    "compressed": compressed, "execution_p50_ms": execution.p50,
                    "execution_p99_ms": execution.p99, "p50_ms": times.p50, "p99_ms": times.p99,
                    "processor_p50_ms": processor.p50, "processor_p99_ms": processor.p99})
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
