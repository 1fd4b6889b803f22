//! The daemon against the server's own `COPY`, and how late a row can be seen. `make bench`.
//!
//! Everything runs on private servers that commit durably. Drain: a stream is filled, then the daemon is started; its
//! rate is that of the rows after the first commit over the time from the first to the last commit, by the server's
//! own commit timestamps. The limit: the same rows by `COPY FROM` a file on the server, from statement to answer.
//! Both go into the same empty table, by turns; figures are medians. CPU is the daemon's user and system time from
//! its start to the last commit, memory its peak. Latency is from before a publish to after a `SELECT` that shows the
//! row, so the time between two looks counts in full.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where and stops")]
#![expect(clippy::cast_precision_loss, reason = "counts and microseconds stay far below 2^53")]

#[path = "drain/daemon.rs"]
mod daemon;
#[path = "drain/latency.rs"]
mod latency;
#[path = "drain/report.rs"]
mod report;
#[path = "drain/throughput.rs"]
mod throughput;
#[path = "drain/world.rs"]
mod world;

use std::time::Duration;

use clap::Parser;

use report::Report;
use throughput::Table;
use world::World;

#[derive(Debug, Parser)]
struct Args {
    /// Messages to drain.
    #[arg(long, default_value_t = 600_000)]
    messages: u64,
    /// Turns of each measurement; odd, so that the median is one of them.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each latency measurement.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// What `cargo bench` says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let world = World::start().await;
    let mut report = Report::default();

    let payload = throughput::fill(&world, args.messages).await;
    report.set("messages", args.messages as f64);
    report.set("message_bytes", payload as f64);
    let mut cpu = Vec::new();
    let mut memory: f64 = 0.0;
    for table in [Table::Indexed, Table::Plain] {
        let measured = throughput::measure(&world, table, args.messages, args.rounds).await;
        let name = table.name();
        report.set(&format!("ratio_copy_limit_{name}"), measured.drained / measured.limit);
        report.set(&format!("rows_per_second_{name}"), measured.drained);
        report.set(&format!("copy_limit_rows_per_second_{name}"), measured.limit);
        cpu.extend(measured.cpu_seconds_per_million_rows);
        memory = memory.max(measured.peak_memory_mib);
    }
    report.set("cpu_seconds_per_million_rows", report::median(cpu));
    report.set("peak_memory_mib", memory);

    for rate in [1_000, 10_000] {
        let measured = latency::measure(&world, rate, Duration::from_secs(args.seconds)).await;
        report.set(&format!("latency_p50_ms_{rate}"), measured.p50);
        report.set(&format!("latency_p99_ms_{rate}"), measured.p99);
        report.set(&format!("latency_max_ms_{rate}"), measured.max);
        report.set(&format!("latency_look_p99_ms_{rate}"), measured.look);
    }
    report.print();
    report.write();
}
