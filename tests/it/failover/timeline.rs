//! The database goes back to an older timeline: for a moment, or for good.

use jetcopy::testbed::Stop;

use super::frozen::Frozen;
use super::{Pair, marks_at};
use crate::postgres::in_state;
use crate::support::{Daemon, EVENTS, Load, Proxy};

#[tokio::test(flavor = "multi_thread")]
async fn an_older_timeline_is_refused_until_no_host_has_the_newer_one_and_then_taken_up() {
    let mut pair = Pair::start().await;
    // What answers at the second address may become another server.
    let second = Proxy::start(pair.standby.port()).await;
    let (first, own) = (pair.primary.port(), pair.world.own_url.clone());
    pair.world.database_url =
        own.replace(&format!(":{first}/"), &format!(":{first},127.0.0.1:{}/", second.port()));
    let daemon = Daemon::start(&pair.world.config(EVENTS));
    let load = Load::start(&pair.world);
    pair.world.commits(&daemon).await;
    let frozen = Frozen::new(&pair.primary);
    pair.promote().await;
    pair.world.commits(&daemon).await;
    pair.world.commits(&daemon).await;

    // The new primary is lost, and the old one goes on as if nothing had been.
    pair.standby.stop(Stop::Kill);
    drop(frozen);
    let status = in_state(&daemon, "paused", "older timeline").await;
    assert!(status["remedy"].as_str().unwrap().contains("postgres.url"), "{status}");
    let before = marks_at(&own).await;
    in_state(&daemon, "paused", "older timeline").await;
    assert_eq!(marks_at(&own).await, before, "the old primary was written to");

    // In the place of the lost one there is a standby of the old one: nobody has the newer timeline.
    let replica = pair.primary.standby(pair.primary.port()).unwrap();
    second.turn_to(replica.port());
    pair.world.own_url = own;
    pair.world.reconnect().await;
    let recovery = pair.world.commits(&daemon).await;
    println!("an older timeline: first commit {recovery:?} after no host had the newer one");
    daemon.says("no host of the URL has the newer one").await;
    pair.world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_timeline_at_a_single_address_is_taken_up_once_a_person_removed_the_durable() {
    let mut pair = Pair::start().await;
    let (own, address) = (pair.world.own_url.clone(), Proxy::start(pair.primary.port()).await);
    pair.world.database_url = address.through(&own);
    let daemon = Daemon::start(&pair.world.config(EVENTS));
    let load = Load::start(&pair.world);
    pair.world.commits(&daemon).await;
    pair.promote().await;
    address.turn_to(pair.standby.port());
    address.reset();
    pair.world.commits(&daemon).await;

    address.turn_to(pair.primary.port());
    address.reset();
    let before = marks_at(&own).await;
    in_state(&daemon, "paused", "older timeline").await;
    assert_eq!(marks_at(&own).await, before, "the old primary was written to");
    drop(daemon);
    let stream = pair.world.jetstream.get_stream(&pair.world.stream).await.unwrap();
    stream.delete_consumer("jetcopy-events").await.unwrap();
    pair.world.own_url = own;
    pair.world.reconnect().await;
    let daemon = Daemon::start(&pair.world.config(EVENTS));
    pair.world.commits(&daemon).await;
    pair.world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_over_leaves_a_primary_from_before_the_failover_alone() {
    let mut pair = Pair::start().await;
    pair.world.database_url = pair.url_of_both();
    let daemon = Daemon::start(&pair.world.config(EVENTS));
    let load = Load::start(&pair.world);
    pair.world.commits(&daemon).await;
    pair.cut_off(&daemon).await;
    pair.fail_over().await;
    pair.world.commits(&daemon).await;
    drop(daemon);

    pair.standby.stop(Stop::Fast);
    pair.primary.start_again().unwrap();
    let old = pair.primary.database_url(pair.world.own_url.rsplit('/').next().unwrap());
    let before = marks_at(&old).await;
    let daemon = Daemon::start(&pair.world.config(EVENTS));
    in_state(&daemon, "paused", "older timeline").await;
    assert_eq!(marks_at(&old).await, before, "the old primary was written to");

    pair.standby.start_again().unwrap();
    pair.world.reconnect().await;
    pair.world.commits(&daemon).await;
    assert_eq!(marks_at(&old).await, before, "the old primary was written to");
    pair.world.judge(&daemon, load).await;
}
