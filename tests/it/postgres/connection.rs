//! What a proxy does to the connection.

use std::process::Command;
use std::time::Duration;

use jetcopy::testbed::{Need, skip};

use super::{COMMIT, database_resyncs, own_server, settled};
use crate::support::{Daemon, EVENTS, Fault, Load, Lose, Proxy, TABLE, Way, World, eventually};

/// A world whose daemon reaches its database through a proxy.
async fn proxied() -> (World, Proxy) {
    let mut world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let proxy = Proxy::start(world.postgres_port()).await;
    world.database_url = proxy.through(&world.database_url);
    // An answer that does not come within a second never does.
    world.postgres_settings += "step_timeout = \"1s\"\nconnect_timeout = \"1s\"";
    (world, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_is_lost_is_found_committed_and_not_written_again() {
    let (world, proxy) = proxied().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    for _ in 0..3 {
        proxy.trap(COMMIT, Lose::Reply);
        proxy.sprung().await;
        let settled = world.checkpoint("events").await;
        proxy.heal();
        proxy.reset();
        let recovery = world.commits(&daemon).await;
        println!("reply to COMMIT lost: first commit after {recovery:?}");
        assert!(world.checkpoint("events").await > settled);
    }
    assert!(daemon.metric("jetcopy_commits_total", "outcome=\"in_doubt\"") >= 3);
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_reached_the_server_is_found_missing_and_written() {
    let (world, proxy) = proxied().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    for _ in 0..3 {
        proxy.trap(COMMIT, Lose::Request);
        proxy.sprung().await;
        proxy.heal();
        proxy.reset();
        let recovery = world.commits(&daemon).await;
        println!("COMMIT lost on its way: first commit after {recovery:?}");
    }
    assert!(daemon.metric("jetcopy_commits_total", "outcome=\"in_doubt\"") >= 3);
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_after_any_number_of_bytes_costs_no_row() {
    let (world, proxy) = proxied().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    // From within the first message to somewhere in the rows of a later batch; the answers are much shorter.
    let to_server = [1, 50, 1_500, 20_000, 90_000].map(|bytes| (Way::ToServer, bytes));
    let to_client = [1, 50, 300, 1_500].map(|bytes| (Way::ToClient, bytes));
    for (way, bytes) in to_server.into_iter().chain(to_client) {
        settled(&daemon).await;
        let before = database_resyncs(&daemon);
        proxy.cut_until(way, bytes, || database_resyncs(&daemon) > before).await;
    }
    let recovery = world.commits(&daemon).await;
    println!("connection reset: first commit after {recovery:?}");
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_connection_is_borne_and_a_half_open_one_is_given_up() {
    let (world, proxy) = proxied().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;

    proxy.set(Way::ToClient, Fault::Delay(Duration::from_millis(30)));
    proxy.set(Way::ToServer, Fault::Throttle(200_000));
    for _ in 0..3 {
        world.commits(&daemon).await;
    }
    proxy.heal();
    assert_eq!(database_resyncs(&daemon), 0);

    for way in [Way::ToServer, Way::ToClient] {
        proxy.set(way, Fault::Swallow);
        eventually("the daemon to notice", || async { daemon.status()["state"] != "running" }).await;
        let (code, ready) = daemon.get("/readyz");
        assert_eq!(code, 503, "{ready}");
        proxy.heal();
        let recovery = world.commits(&daemon).await;
        println!("half-open, {way:?} swallowed: first commit after {recovery:?} from its healing");
    }
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_refuses_connections_is_waited_for_quietly() {
    let (world, proxy) = proxied().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let lines = daemon.log().lines().count();
    let before = proxy.accepted();
    proxy.refuse(true);
    proxy.reset();
    eventually("ten attempts", || async { proxy.accepted() >= before + 10 }).await;
    let status = daemon.status();
    assert!(status["state"] == "backing_off" || status["state"] == "starting", "{status}");
    assert_eq!(daemon.metric("jetcopy_database_up", ""), 0);
    proxy.heal();
    let recovery = world.commits(&daemon).await;
    println!("connections refused: first commit after {recovery:?}");
    let log = daemon.log();
    // What was lost, a refusal in up to three words, and that it runs again.
    assert!(log.lines().count() <= lines + 5, "the log floods:\n{log}");
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_leave_the_machine_in_plain_text_are_warned_of_by_the_log_and_by_check() {
    // Nothing is sent: the kernel only says from where it would be.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()).ok().map(|own| own.ip());
    let Some(own) = own.filter(|own| !own.is_loopback()) else { return skip(Need::Network) };
    let (_postgres, mut world) = own_server(&[("listen_addresses", "*")]).await;
    let rules = "COPY (SELECT 'host all all all trust') TO PROGRAM 'cat >pg_hba.conf'";
    world.database.batch_execute(&format!("{rules}; SELECT pg_reload_conf()")).await.unwrap();
    let near = world.database_url.clone();
    world.database_url = near.replace("127.0.0.1", &own.to_string());
    let daemon = Daemon::start(&world.config(EVENTS));
    daemon.says("in plain text: anyone on the network path can read them").await;
    let check = |world: &World| {
        let config = world.config(EVENTS);
        let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
        let output = command.args(["check", "--config"]).arg(config).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let said = check(&world);
    assert!(said.contains("in plain text") && said.contains("set sslmode=verify-full"), "{said}");
    drop(daemon);
    world.database_url = near;
    let said = check(&world);
    assert!(!said.contains("in plain text"), "{said}");
}
