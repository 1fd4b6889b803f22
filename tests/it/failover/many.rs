//! A daemon with many pipelines loses its primary.

use std::time::{Duration, Instant};

use super::Pair;
use crate::support::{Daemon, EVENTS, Load, eventually};

/// Pipelines beside the one of [`EVENTS`], on the same stream, each with a table of its own.
const OTHERS: usize = 15;

/// More lines than a daemon with one pipeline writes, and fewer than its pipelines would write each for
/// itself.
const LINES: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn many_pipelines_go_on_soon_after_a_failover_and_say_so_in_a_few_lines() {
    let mut pair = Pair::start().await;
    pair.world.database_url = pair.url_of_both();
    let mut settings = EVENTS.to_owned();
    for other in 1..=OTHERS {
        let table = format!("CREATE TABLE events_{other} (LIKE events)");
        pair.world.database.batch_execute(&table).await.unwrap();
        settings += &EVENTS.replace("name = \"events\"", &format!("name = \"events_{other}\""));
    }
    let daemon = Daemon::start(&pair.world.config(&settings));
    eventually("all pipelines to run", || async {
        daemon.log().contains("http=") && daemon.get("/readyz").0 == 200
    })
    .await;
    let load = Load::start(&pair.world);
    pair.world.commits(&daemon).await;
    pair.streams().await;

    let before = daemon.log().lines().count();
    let promoted = pair.fail_over().await;
    pair.world.commits(&daemon).await;
    let first = promoted.elapsed();
    let start = Instant::now();
    eventually("all pipelines to run again", || async { daemon.get("/readyz").0 == 200 }).await;
    let lines = daemon.log().lines().count() - before;
    println!("{} pipelines: the first commits {first:?} after the promotion was asked for", OTHERS + 1);
    println!("all run {:?} after that, {lines} lines in the log", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(lines <= LINES, "{}", daemon.log());
    pair.world.judge(&daemon, load).await;
    for other in 1..=OTHERS {
        let differ = format!(
            "SELECT count(*) FROM events e FULL JOIN events_{other} o USING (sequence) \
             WHERE e.sequence IS NULL OR o.sequence IS NULL"
        );
        eventually("each message once in every table", || async { pair.world.count(&differ).await == 0 })
            .await;
        let twice = format!("SELECT count(*) - count(DISTINCT sequence) FROM events_{other}");
        assert_eq!(pair.world.count(&twice).await, 0, "events_{other}");
    }
}
