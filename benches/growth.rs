//! What a row costs as everything around it grows. `make bench-growth`.
//!
//! Each line is a run of `jetcopy bench` on private servers that commit durably: a backlog is drained, and
//! one thing differs from line to line: rows stored beforehand, pipelines in one process, bytes of a message,
//! rows of a message, length of the backlog, and how many writers there are before a database that is near or
//! far. For the pipelines there is a second run, with one message a
//! second for each: what they cost while nearly idle; and a third, in which two daemons share them and
//! nothing happens. All of it goes to `target/bench-growth.json`.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where and stops")]

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use jetcopy::bench::figures::Outcome;
use jetcopy::bench::idle::idle;
use jetcopy::bench::process::machine;
use jetcopy::bench::{Load, Plan, Servers, run};
use jetcopy::testbed::Distance;
use serde_json::{Value, json};

/// Bytes of all messages of a run whose messages are large: enough for some seconds, little enough for any
/// disk.
const BYTES: u64 = 256 << 20;
/// Bytes of a message where the size does not matter.
const PAYLOAD: usize = 233;
/// Bytes that a row adds to a message where its rows are counted.
const ROW: usize = 40;
/// How long nearly idle pipelines are watched.
const IDLE: Duration = Duration::from_secs(5);
/// How long two daemons are watched in whose pipelines nothing happens at all.
const NOTHING: Duration = Duration::from_secs(30);
/// How far away the database is, there and back, in milliseconds: here, in the next town, and in another
/// region.
const FAR: [u64; 3] = [0, 5, 20];

#[derive(Debug, Parser)]
struct Args {
    /// Messages of an ordinary run.
    #[arg(long, default_value = "500k", value_parser = count)]
    messages: u64,
    /// Rows that a table holds at most: 1k, and ten times more each time.
    #[arg(long, default_value = "10M", value_parser = count)]
    stored: u64,
    /// The longest backlog; it is compared with a tenth of it.
    #[arg(long, default_value = "10M", value_parser = count)]
    backlog: u64,
    /// The most pipelines in a process: 1, and four times more each time.
    #[arg(long, default_value_t = 64)]
    pipelines: usize,
    /// The most writers of a pipeline: 1, and two times more each time.
    #[arg(long, default_value_t = 8)]
    writers: u64,
    /// Only what writers bring.
    #[arg(long)]
    only_writers: bool,
    /// What `cargo bench` says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// 300, 500k, 10M.
fn count(text: &str) -> Result<u64, String> {
    let (digits, times) = match text.strip_suffix(['k', 'M']) {
        Some(digits) => (digits, if text.ends_with('k') { 1_000 } else { 1_000_000 }),
        None => (text, 1),
    };
    let count: Option<u64> = digits.parse().ok().and_then(|count: u64| count.checked_mul(times));
    count.filter(|count| *count > 0).ok_or_else(|| format!("{text:?} is no count: write 300, 500k or 10M"))
}

/// 1k, 10k, … as far as `most`.
fn steps(first: u64, times: u64, most: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(first), move |step| step.checked_mul(times))
        .take_while(move |step| *step <= most)
}

struct Growth {
    servers: Servers,
    lines: Vec<Value>,
}

impl Growth {
    async fn measure(&mut self, what: &str, value: u64, plan: &Plan) -> Outcome {
        let program = Path::new(env!("CARGO_BIN_EXE_jetcopy"));
        let found = run(&self.servers, program, plan, std::future::pending(), &|_| {}).await.unwrap();
        let (daemon, nats, postgres) =
            (found.daemon.as_ref().unwrap(), found.nats.as_ref().unwrap(), found.postgres.as_ref().unwrap());
        println!(
            "{what:<24} {value:>10} {:>10} rows/s {:>8.2} s CPU a million rows {:>8.2} % of all cores \
             {:>7.0} MiB {:>8.0} B WAL a row",
            // A run of one commit has no rate.
            found.rows_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}")),
            daemon.cpu_seconds_per_million_rows,
            daemon.cpu_share * 100.0,
            daemon.peak_memory_mib,
            found.wal_bytes_per_row.unwrap_or(0.0)
        );
        self.lines.push(json!({
            "grows": what,
            "value": value,
            "messages": found.published,
            "message_bytes": found.message_bytes,
            "rows": found.rows,
            "rows_per_second": found.rows_per_second,
            "cpu_seconds_per_million_rows": daemon.cpu_seconds_per_million_rows,
            "cpu_share": daemon.cpu_share,
            "peak_memory_mib": daemon.peak_memory_mib,
            "nats_peak_memory_mib": nats.peak_memory_mib,
            "postgres_peak_memory_mib": postgres.peak_memory_mib,
            "wal_bytes_per_row": found.wal_bytes_per_row,
        }));
        found
    }
}

impl Growth {
    async fn measure_idle(&mut self, plan: &Plan) {
        let program = Path::new(env!("CARGO_BIN_EXE_jetcopy"));
        let found = idle(&self.servers, program, plan, NOTHING).await.unwrap();
        let (what, percent) = ("pipelines, two daemons", |share: f64| share * 100.0);
        println!(
            "{what:<24} {:>10} idle, in % of a core: PostgreSQL {:.1}, NATS {:.1}, a daemon {:.1}",
            plan.pipelines,
            percent(found.postgres),
            percent(found.nats),
            percent(found.daemon)
        );
        self.lines.push(json!({
            "grows": what,
            "value": plan.pipelines,
            "postgres_cpu_of_a_core": found.postgres,
            "nats_cpu_of_a_core": found.nats,
            "daemon_cpu_of_a_core": found.daemon,
        }));
    }
}

impl Growth {
    /// Writers of one pipeline, and a database that is here, or so many milliseconds away.
    async fn measure_writers(&mut self, plan: &Plan, most: u64) {
        let near = self.servers.postgres.url.clone();
        let port = self.servers.private.as_ref().unwrap().1.port();
        for away in FAR {
            let distance = Distance::start(port, Duration::from_millis(away)).await.unwrap();
            if away > 0 {
                let there = format!(":{}", distance.port());
                self.servers.postgres.url = near.replace(&format!(":{port}"), &there);
            }
            for writers in steps(1, 2, most) {
                let at = usize::try_from(writers).unwrap();
                let what = format!("writers, {away} ms away");
                self.measure(&what, writers, &Plan { writers: at, ..plan.clone() }).await;
            }
            self.servers.postgres.url.clone_from(&near);
        }
    }

    fn write(&self) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-growth.json");
        let text = json!({"machine": machine(), "lines": self.lines});
        std::fs::write(file, serde_json::to_string_pretty(&text).unwrap()).unwrap();
        println!("{}\nwritten to target/bench-growth.json", machine());
    }
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let mut growth = Growth { servers: Servers::private(false).await.unwrap(), lines: Vec::new() };
    let plan = Plan {
        pipelines: 1,
        load: Load::Backlog { messages: args.messages },
        payload: PAYLOAD,
        rows_per_message: 1,
        index: true,
        stored: 0,
        writers: 1,
    };
    if args.only_writers {
        growth.measure_writers(&plan, args.writers).await;
        growth.write();
        return;
    }
    for stored in steps(1_000, 10, args.stored) {
        growth.measure("rows stored", stored, &Plan { stored, ..plan.clone() }).await;
    }
    for pipelines in steps(1, 4, args.pipelines as u64) {
        let at = usize::try_from(pipelines).unwrap();
        growth.measure("pipelines, busy", pipelines, &Plan { pipelines: at, ..plan.clone() }).await;
        let per_second = f64::from(u32::try_from(pipelines).unwrap());
        let load = Load::Rate { per_second, duration: IDLE };
        growth
            .measure("pipelines, nearly idle", pipelines, &Plan { pipelines: at, load, ..plan.clone() })
            .await;
        if at > 1 {
            growth.measure_idle(&Plan { pipelines: at, ..plan.clone() }).await;
        }
    }
    for payload in [100_usize, 1 << 10, 4 << 10, 16 << 10, 64 << 10] {
        let messages = args.messages.min(BYTES / payload as u64);
        let load = Load::Backlog { messages };
        growth.measure("bytes of a message", payload as u64, &Plan { payload, load, ..plan.clone() }).await;
    }
    for rows in [1_usize, 10, 100, 1_000] {
        let load = Load::Backlog { messages: (args.messages * 2).div_ceil(rows as u64) };
        let payload = 100 + rows * ROW;
        let plan = Plan { rows_per_message: rows, payload, load, ..plan.clone() };
        growth.measure("rows of a message", rows as u64, &plan).await;
    }
    growth.measure_writers(&plan, args.writers).await;
    for messages in [args.backlog.div_ceil(10), args.backlog] {
        let load = Load::Backlog { messages };
        growth.measure("backlog", messages, &Plan { payload: 100, load, ..plan.clone() }).await;
    }
    growth.write();
}
