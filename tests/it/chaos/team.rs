//! Random faults for a team of daemons that share eight shards, most of them behind a pooler, between a
//! cluster of three NATS servers and a primary with its standby; the oracle after each round.
//!
//! `make chaos-team SEED=… DURATION=…` runs it. What one daemon meets alone is what [`super`] draws.

mod arena;
mod fault;

use std::time::Instant;

use super::dice::Dice;
use super::{Again, duration, seed};
use arena::Arena;
use fault::Step;

/// Steps between two verdicts.
const STEPS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes; make chaos-team runs it"]
async fn random_faults_of_a_team_cost_no_message_and_double_none() {
    let (seed, duration) = (seed(), duration());
    let again = Again(format!("chaos-team SEED={seed} DURATION={}", humantime::format_duration(duration)));
    println!("make {}", again.0);
    let start = Instant::now();
    let mut dice = Dice::new(seed);
    let Some(mut arena) = Arena::open().await else { return };
    let (mut round, mut faults, mut messages) = (0, 0, 0);
    while start.elapsed() < duration {
        round += 1;
        let load = arena.load();
        for _ in 0..STEPS {
            let step = Step::draw(&mut dice);
            println!("{:>7.1} s  {step}", start.elapsed().as_secs_f64());
            faults += step.faults.len();
            for fault in &step.faults {
                arena.begin(*fault).await;
            }
            // As in the other chaos: the pauses are part of what is drawn.
            tokio::time::sleep(step.hold).await;
            for fault in step.faults.iter().rev() {
                arena.end(*fault).await;
            }
            tokio::time::sleep(step.rest).await;
        }
        messages += arena.judge(load).await;
        println!(
            "{:>7.1} s  round {round}: each of {messages} messages is in one place once; {faults} faults",
            start.elapsed().as_secs_f64()
        );
    }
    println!(
        "SEED={seed}: {round} rounds, {faults} faults, {messages} messages, nothing lost, nothing twice"
    );
}
