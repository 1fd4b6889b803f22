//! How many instructions a message costs from its payload to its place in a batch, counted by callgrind.
//!
//! Guarantees: the counts are of decode, encode and batch alone, and do not depend on what else the machine
//! does; more than [`TOLERANCE`] above the figures recorded in `benches/instructions.json` is a failure. It
//! says nothing about time: an instruction that waits for memory counts as one. Dependencies are as in the
//! tests, since a release takes twice as long to build: its own counts are lower. `make instructions`; after
//! a change that is meant, `make instructions ARGS=--record`.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where and stops")]

#[path = "decode/frames.rs"]
mod frames;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use async_nats::Subject;
use clap::Parser;
use jetcopy::batch::Batch;
use jetcopy::decode::Decoder;
use jetcopy::message::Message;

/// Messages that are in a batch.
const MESSAGES: u64 = 1_000;

/// How much more than recorded is a failure, in per cent. A compiler's update moves the counts by one or two.
const TOLERANCE: u64 = 5;

/// The function whose instructions count, as callgrind names it.
const MEASURED: &str = "instructions::measured";

/// Shapes and formats of the message, each in a process of its own.
const CASES: [&str; 6] =
    ["flat_msgpack", "flat_json", "varied_msgpack", "varied_json", "nested_msgpack", "nested_json"];

#[derive(Debug, Parser)]
struct Args {
    /// Records the counts in place of comparing them.
    #[arg(long)]
    record: bool,
    /// Runs one case and counts nothing: what callgrind starts.
    #[arg(long, hide = true)]
    case: Option<String>,
    /// How many batches the case fills.
    #[arg(long, hide = true, default_value_t = 1)]
    batches: u32,
    /// What `cargo bench` says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(case) = args.case {
        run(&case, args.batches);
        return ExitCode::SUCCESS;
    }
    let counted: BTreeMap<&str, u64> = CASES.into_iter().map(|case| (case, count(case))).collect();
    if args.record {
        std::fs::write(recorded_file(), serde_json::to_string_pretty(&counted).unwrap() + "\n").unwrap();
        println!("recorded in benches/instructions.json");
    }
    let recorded: BTreeMap<String, u64> =
        serde_json::from_str(&std::fs::read_to_string(recorded_file()).unwrap()).unwrap();
    let mut failed = 0;
    for (case, count) in counted {
        let before = recorded[case];
        let verdict = if count * 100 > before * (100 + TOLERANCE) {
            failed += 1;
            "FAILED: too many"
        } else if count * (100 + TOLERANCE) < before * 100 {
            "ok, and far fewer: record them with ARGS=--record"
        } else {
            "ok"
        };
        println!("{case:<16} {count:>7} instructions a message, recorded {before:>7}: {verdict}");
    }
    if failed > 0 {
        println!(
            "find what made them grow, or record the new counts with `make instructions ARGS=--record` and \
             say why"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn recorded_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json")
}

/// Instructions a message of `case`: what the second batch adds, when all buffers have grown.
fn count(case: &str) -> u64 {
    (collect(case, 2) - collect(case, 1)) / MESSAGES
}

/// Instructions of `batches` batches.
fn collect(case: &str, batches: u32) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--case", case, "--batches", &batches.to_string()])
        .output()
        .expect("valgrind is missing: `scripts/setup.sh instructions` installs it");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).expect(&said).1;
    let collected = collected.trim().parse().unwrap();
    assert!(collected > 0, "callgrind has not met {MEASURED}");
    collected
}

fn run(case: &str, batches: u32) {
    let (shape, format) = case.split_once('_').unwrap();
    let nested = shape == "nested";
    let frames = match shape {
        "varied" => frames::varied(),
        "nested" => vec![frames::nested()],
        _ => vec![frames::flat()],
    };
    let payload = |frame| match format {
        "json" => serde_json::to_vec(frame).unwrap(),
        _ => rmp_serde::to_vec(frame).unwrap(),
    };
    let mut messages: Vec<Message> = frames.iter().map(payload).map(frames::message).collect();
    let (pipeline, tables) = frames::pipeline(nested);
    let mut decoder = Decoder::new(&pipeline, &tables).unwrap();
    let mut batch = Batch::new(tables.len());
    for _ in 0..batches {
        batch.clear(ROOM);
        measured(&mut decoder, &mut batch, &mut messages);
        assert_eq!(batch.messages.len() as u64, MESSAGES);
        assert!(batch.rows.refused.is_empty());
    }
}

/// Bytes that batches may take.
const ROOM: usize = 1 << 30;

/// What the reading stage does with each delivery.
#[inline(never)]
fn measured(decoder: &mut Decoder, batch: &mut Batch, messages: &mut [Message]) {
    let count = messages.len();
    for (sequence, at) in (1..=MESSAGES).zip((0..count).cycle()) {
        messages[at].sequence = sequence;
        let message = black_box(&messages[at]);
        let room = ROOM.saturating_sub(batch.bytes());
        decoder.decode_into(message, batch.next_index(), &mut batch.rows, room).unwrap();
        batch.keep(message);
        batch.reply = Some(Subject::from_static("$JS.ACK."));
    }
}
