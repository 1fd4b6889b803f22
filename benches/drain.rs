//! The daemon against the server's own `COPY`, JetStream alone and a Python consumer, and how late a row can
//! be seen. `make bench`.
//!
//! Everything runs on private servers that commit durably. Drain: a stream is filled, then the daemon is
//! started; its rate is that of the rows after the first commit over the time from the first to the last
//! commit, by the server's own commit timestamps. The limit: the same rows by `COPY FROM` files on the
//! server, from statement to answer. All go into the same empty tables, by turns; a ratio is taken within
//! each round, and figures are medians of the rounds. The Python consumer drains fewer messages, for its rate
//! does not depend on them. CPU is the daemon's user and system time from its start to the last commit,
//! memory its peak. Latency is from before a publish to after a `SELECT` that shows the row, so the time
//! between two looks counts in full.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where and stops")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "counts and microseconds stay far below 2^53"
)]

#[path = "drain/contenders.rs"]
mod contenders;
#[path = "drain/frames.rs"]
mod frames;
#[path = "drain/report.rs"]
mod report;
#[path = "drain/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use jetcopy::bench::figures::median;
use jetcopy::bench::{Load, Plan, run};

use frames::{DETECTIONS, Target};
use report::Report;
use world::World;

/// Messages a second at which latency is measured.
const RATES: [u32; 3] = [1_000, 10_000, 50_000];
/// Bytes of a message whose latency is measured: about those of a frame.
const PAYLOAD: usize = 233;

#[derive(Debug, Parser)]
struct Args {
    /// Messages to drain.
    #[arg(long, default_value_t = 600_000)]
    messages: u64,
    /// Messages that the Python consumer drains.
    #[arg(long, default_value_t = 150_000)]
    python_messages: u64,
    /// Rounds in which all take their turns; odd, so that the median is one of them.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each latency measurement.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Ordinary tables, also where the server offers TimescaleDB.
    #[arg(long)]
    plain: bool,
    /// What `cargo bench` says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The figures of each round, by their names.
#[derive(Default)]
struct Rounds(BTreeMap<String, Vec<f64>>);

impl Rounds {
    fn add(&mut self, name: impl Into<String>, figure: f64) -> f64 {
        let name = name.into();
        println!("  {name}: {figure:.2}");
        self.0.entry(name).or_default().push(figure);
        figure
    }

    fn medians(self, report: &mut Report) {
        for (name, figures) in self.0 {
            report.set(&name, median(figures));
        }
    }
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let world = World::start(!args.plain).await;
    let mut report = Report::default();
    report.set("hypertables", f64::from(u8::from(world.timescale())));
    report.set("messages", args.messages as f64);
    report.set("message_bytes", frames::message(Target::Plain, args.messages / 2).len() as f64);
    // As many rows as the other targets have, to within one message.
    let nested = args.messages.div_ceil(1 + DETECTIONS);
    let targets =
        [(Target::Indexed, args.messages), (Target::Plain, args.messages), (Target::Tables, nested)];
    contenders::fill(&world, Target::Plain, args.messages).await;
    contenders::fill(&world, Target::Tables, nested).await;
    for (target, _) in targets {
        world.execute(&target.definition(world.timescale())).await;
    }

    let mut rounds = Rounds::default();
    let mut memory: f64 = 0.0;
    for round in 1..=args.rounds {
        println!("round {round}");
        let mut jetcopy_plain = 0.0;
        for (target, messages) in targets {
            let name = target.name();
            let drained = contenders::jetcopy(&world, target, messages).await;
            if round == 1 {
                contenders::keep(&world, target).await;
            }
            let ours = rounds.add(format!("rows_per_second_{name}"), drained.rows_per_second);
            rounds.add(format!("wal_bytes_per_row_{name}"), drained.wal_bytes_per_row);
            memory = memory.max(drained.peak_memory_mib);
            let limit = contenders::copy(&world, target, messages).await;
            rounds.add(format!("copy_limit_rows_per_second_{name}"), limit);
            rounds.add(format!("ratio_copy_limit_{name}"), ours / limit);
            let python = args.python_messages.min(messages);
            match target {
                Target::Indexed => {
                    rounds.add("cpu_seconds_per_million_rows", drained.cpu_seconds_per_million_rows);
                    let theirs = contenders::python(&world, target, python, false).await;
                    rounds.add("python_rows_per_second_indexed", theirs);
                    rounds.add("ratio_python", ours / theirs);
                }
                Target::Plain => {
                    rounds.add("cpu_seconds_per_million_rows", drained.cpu_seconds_per_million_rows);
                    jetcopy_plain = ours;
                    let theirs = contenders::python(&world, target, python, false).await;
                    rounds.add("python_rows_per_second_plain", theirs);
                    rounds.add("ratio_python_plain", ours / theirs);
                }
                Target::Tables => {}
            }
        }
        // What each needs to be exactly once: the one a unique index, the other nothing.
        let python = args.python_messages.min(args.messages);
        let theirs = contenders::python(&world, Target::Indexed, python, true).await;
        rounds.add("python_rows_per_second_idempotent", theirs);
        rounds.add("ratio_python_idempotent", jetcopy_plain / theirs);
        let alone = contenders::jetstream_alone(&world, Target::Plain, args.messages).await;
        rounds.add("jetstream_alone_per_second", alone);
    }
    rounds.medians(&mut report);
    report.set("peak_memory_mib", memory);
    for (target, _) in targets {
        for table in target.tables() {
            world.execute(&format!("DROP TABLE {table}")).await;
        }
    }
    for rate in RATES {
        latency(&world, &mut report, rate, Duration::from_secs(args.seconds)).await;
    }
    report.print();
    report.write("target/bench.json");
}

/// What `jetcopy bench` finds at a rate.
async fn latency(world: &World, report: &mut Report, rate: u32, duration: Duration) {
    let load = Load::Rate { per_second: f64::from(rate), duration };
    let plan = Plan {
        pipelines: 1,
        load,
        payload: PAYLOAD,
        rows_per_message: 1,
        index: true,
        stored: 0,
        writers: 1,
    };
    let program = Path::new(env!("CARGO_BIN_EXE_jetcopy"));
    println!("{rate} messages a second for {duration:?}");
    let found = run(&world.servers, program, &plan, std::future::pending(), &|_| {}).await.unwrap();
    let visible = found.publish_to_visible_ms.unwrap();
    report.set(&format!("latency_p50_ms_{rate}"), visible.p50);
    report.set(&format!("latency_p99_ms_{rate}"), visible.p99);
    report.set(&format!("latency_max_ms_{rate}"), visible.max);
    report.set(&format!("latency_look_p99_ms_{rate}"), found.look_p99_ms.unwrap());
    let carriers = [found.daemon, found.nats, found.postgres].map(|used| used.unwrap().cpu_share);
    report.set(&format!("cpu_share_{rate}"), carriers.iter().sum());
    // Whether the publisher was the limit: what it reached, and what it took from the others.
    report.set(&format!("published_per_second_{rate}"), found.published_per_second);
    report.set(&format!("cpu_share_bench_{rate}"), found.bench.unwrap().cpu_share);
}
