//! Random faults, drawn from a seed, while messages flow to two daemons; the oracle after each round.
//!
//! `make chaos SEED=… DURATION=…` runs it. The same seed draws the same faults in the same order with the same pauses;
//! what they meet is the machine's doing.

mod arena;
mod fault;
mod load;

use std::time::{Duration, Instant};

use arena::Arena;
use fault::{Dice, Step};

/// Steps of faults between two verdicts: long enough that their consequences meet, short enough to find the guilty.
const STEPS: usize = 8;

/// Without `DURATION`.
const DURATION: Duration = Duration::from_mins(5);

fn seed() -> u64 {
    match std::env::var("SEED") {
        Ok(text) if !text.is_empty() => text.parse().expect("SEED is a number"),
        _ => u64::from(std::process::id()),
    }
}

fn duration() -> Duration {
    match std::env::var("DURATION") {
        Ok(text) if !text.is_empty() => humantime::parse_duration(&text).expect("DURATION is a time like 5m"),
        _ => DURATION,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes; make chaos runs it"]
async fn random_faults_cost_no_message_and_double_none() {
    let (seed, duration) = (seed(), duration());
    println!("SEED={seed} DURATION={}", humantime::format_duration(duration));
    let start = Instant::now();
    let at = || format!("{:>7.1} s", start.elapsed().as_secs_f64());
    let mut dice = Dice::new(seed);
    let mut arena = Arena::open().await;
    let (mut round, mut faults, mut messages) = (0, 0, 0);
    while start.elapsed() < duration {
        round += 1;
        let load = arena.load();
        for _ in 0..STEPS {
            let step = Step::draw(&mut dice);
            println!("{}  {step}", at());
            faults += step.faults.len();
            for fault in &step.faults {
                arena.begin(*fault).await;
            }
            // The faults last, and then the daemons have a moment: the pauses are part of what is drawn.
            tokio::time::sleep(step.hold).await;
            for fault in &step.faults {
                arena.end(*fault).await;
            }
            tokio::time::sleep(step.rest).await;
        }
        let carried = load.stop().await;
        println!(
            "{}  round {round} ends: {} published with an ack, {} without",
            at(),
            carried.acked.len(),
            carried.unknown
        );
        messages += arena.judge(&carried).await;
        println!(
            "{}  verdict: each of {messages} messages is in one place once; faults so far: {faults}",
            at()
        );
    }
    assert_eq!(arena.audit(), messages);
    println!(
        "SEED={seed}: {round} rounds, {faults} faults, {messages} messages, nothing lost, nothing twice"
    );
}
