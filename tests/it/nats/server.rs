//! The server ends and comes back.

use jetcopy::testbed::Stop;

use super::{own_nats, quiet, resyncs};
use crate::support::{Daemon, EVENTS, Load, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_restarted_or_killed_is_waited_for_and_costs_nothing() {
    let (world, mut nats, _postgres) = own_nats().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    for stop in [Stop::Fast, Stop::Kill, Stop::Kill] {
        world.commits(&daemon).await;
        nats.stop(stop);
        eventually("the daemon to notice", || async { daemon.status()["state"] == "backing_off" }).await;
        let (code, ready) = daemon.get("/readyz");
        assert!(code == 503 && ready.contains("NATS"), "{code} {ready}");
        assert_eq!(daemon.metric("jetcopy_nats_up", ""), 0);
        assert_eq!(daemon.metric("jetcopy_database_up", ""), 1);
        nats.start_again().unwrap();
        let recovery = world.commits(&daemon).await;
        println!("NATS, {stop:?} stop and start: first commit after {recovery:?}");
    }
    assert!(resyncs(&daemon, "nats") >= 3);
    quiet(&daemon, 40);
    world.judge(&daemon, load).await;
    assert_eq!(daemon.metric("jetcopy_losses_total", ""), 0);
}
