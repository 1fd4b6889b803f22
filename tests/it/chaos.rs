//! Random faults, drawn from a seed, while messages flow to two daemons; the oracle after each round.
//!
//! `make chaos SEED=… DURATION=… KINDS=…` runs it. The same seed draws the same faults in the same order with
//! the same pauses; what they meet is the machine's doing. `KINDS=table,durable` draws from these kinds only.

mod arena;
pub(crate) mod dice;
mod fault;
mod load;
mod team;

use std::time::{Duration, Instant};

use arena::Arena;
use dice::Dice;
use fault::{DRAWN, Kind, NAMED, Step};

/// Steps of faults between two verdicts: long enough that their consequences meet, short enough to find the
/// guilty.
const STEPS: usize = 8;

/// Without `DURATION`.
const DURATION: Duration = Duration::from_mins(5);

/// A variable that says something.
pub(crate) fn said(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// `SEED`, or one of this process's own.
pub(crate) fn seed() -> u64 {
    said("SEED").map_or(u64::from(std::process::id()), |text| text.parse().expect("SEED is a number"))
}

pub(crate) fn duration() -> Duration {
    said("DURATION")
        .map_or(DURATION, |text| humantime::parse_duration(&text).expect("DURATION is a time like 5m"))
}

fn kinds(text: &str) -> Vec<Kind> {
    text.split(',')
        .map(|name| {
            let named = NAMED.iter().find(|(known, _)| *known == name);
            named
                .unwrap_or_else(|| {
                    panic!(
                        "KINDS names {name}; there are {:?}",
                        NAMED.iter().map(|(known, _)| known).collect::<Vec<_>>()
                    )
                })
                .1
        })
        .collect()
}

/// How to have the same again, printed at the end of a run that failed.
struct Again(String);

impl Drop for Again {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the same faults again: make {}", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes; make chaos runs it"]
async fn random_faults_cost_no_message_and_double_none() {
    let (seed, duration) = (seed(), duration());
    let only = said("KINDS");
    let from = only.as_deref().map_or_else(|| DRAWN.to_vec(), kinds);
    let only = only.map_or_else(String::new, |only| format!(" KINDS={only}"));
    let again = Again(format!("chaos SEED={seed} DURATION={}{only}", humantime::format_duration(duration)));
    println!("{}", again.0);
    let start = Instant::now();
    let at = || format!("{:>7.1} s", start.elapsed().as_secs_f64());
    let mut dice = Dice::new(seed);
    let mut arena = Arena::open().await;
    let (mut round, mut faults, mut messages) = (0, 0, 0);
    while start.elapsed() < duration {
        round += 1;
        let load = arena.load();
        for _ in 0..STEPS {
            let step = Step::draw(&mut dice, &from);
            println!("{}  {step}", at());
            faults += step.faults.len();
            for fault in &step.faults {
                arena.begin(*fault).await;
            }
            // The faults last, and then the daemons have a moment: the pauses are part of what is drawn.
            tokio::time::sleep(step.hold).await;
            for fault in step.ends() {
                arena.end(fault).await;
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
