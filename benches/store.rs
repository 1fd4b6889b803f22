//! The store with ten million frames: bytes a row, compression, every query, backup and restore. `make
//! bench-store`.
//!
//! A private server that commits durably is filled with a week of frames and their detections
//! (`store/frames.rs` says how they vary), a month of measurements, two of operations, a week of time series
//! and a registry (`store/others.sql`), by the binary `COPY` and by the server itself. Roll-ups are
//! refreshed, and what the life cycle has compressed by now, by default, is compressed. Every named query is
//! asked with many different arguments. Then all chunks but the newest of each table are compressed, for the
//! ratio of each, and the database is backed up and restored.
//!
//! With `--plain`, or where the server has no TimescaleDB, the same goes into native partitions, and nothing
//! is compressed.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where and stops")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "made-up numbers, counts and microseconds stay far below 2^53"
)]

#[path = "store/backup.rs"]
mod backup;
#[path = "store/frames.rs"]
mod frames;
#[path = "store/life.rs"]
mod life;
#[path = "store/load.rs"]
mod load;
#[path = "store/questions.rs"]
mod questions;
#[path = "store/random.rs"]
mod random;
#[path = "store/report.rs"]
mod report;
#[path = "store/world.rs"]
mod world;

use std::time::Instant;

use clap::Parser;

use report::Report;
use world::World;

#[derive(Debug, Parser)]
struct Args {
    /// Frames, about; each eighth has detections.
    #[arg(long, default_value_t = 10_000_000)]
    frames: u64,
    /// Without TimescaleDB also where the server has it.
    #[arg(long)]
    plain: bool,
    /// How often each query is asked, each time with other arguments.
    #[arg(long, default_value_t = 200)]
    repeats: usize,
    /// Leaves out backup and restore.
    #[arg(long)]
    no_backup: bool,
    /// What `cargo bench` says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let begun = Instant::now();
    let step = |what: &str| println!("{:>5.0} s: {what}", begun.elapsed().as_secs_f64());
    let world = World::start(args.plain).await;
    let mut report = Report::default();

    step("loading frames and detections");
    let now = world.number("SELECT extract(epoch FROM now()) * 1000000").await as i64;
    load::load(&world, args.frames, now - frames::DAYS as i64 * 86_400_000_000, &mut report).await;
    step("loading the other tables");
    world.execute(include_str!("store/others.sql")).await;
    step("summing up");
    life::roll_up(&world, &mut report).await;
    life::sizes(&world, &mut report).await;
    let mut compression = life::Compression::default();
    if world.timescale() {
        step("compressing what is due");
        compression.due(&world).await;
    }
    world.execute("CHECKPOINT").await;
    step("asking");
    questions::measure(&world, args.repeats.max(1), &mut report).await;
    if world.timescale() {
        step("compressing the rest");
        compression.rest(&world, &mut report).await;
    }
    if !args.no_backup {
        step("backing up and restoring");
        backup::measure(&world, &mut report);
    }
    step("done");
    let kind = if world.timescale() { "TimescaleDB" } else { "plain PostgreSQL" };
    let title = format!("{} frames asked for, {kind}", args.frames);
    report.print(&title);
    report.write(&title);
}
