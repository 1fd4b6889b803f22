//! Three servers with a replicated stream: the leader ends, and so does the server that the daemon talks to.

use std::cell::Cell;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, Stream};
use jetcopy::testbed::{Stop, TestNats, TestPostgres};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::quiet;
use crate::support::{Daemon, EVENTS, Load, TABLE, World, eventually};

/// How long a daemon may be without NATS before another one is to try.
const WITHOUT_NATS: Duration = Duration::from_secs(10);

/// A world on a cluster of three, its stream on all of them; the daemon is given all addresses.
async fn cluster() -> (World, Vec<TestNats>, std::sync::Arc<TestPostgres>) {
    let servers = TestNats::start_cluster(3).unwrap();
    let postgres = TestPostgres::shared().unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers[0].url()).await.unwrap());
    eventually("the cluster to have a leader", || async { jetstream.query_account().await.is_ok() }).await;
    let mut world = World::on(&servers[0], &postgres).await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = Config { num_replicas: 3, ..world.stream_config() };
    world.jetstream.update_stream(config).await.unwrap();
    eventually("all replicas to be current", || async {
        let stream = world.jetstream.get_stream(&world.stream).await;
        stream.is_ok_and(|stream| replicated(&stream))
    })
    .await;
    let urls: Vec<String> = servers.iter().map(TestNats::url).collect();
    world.nats_url = urls.join(",");
    (world, servers, postgres)
}

fn replicated(stream: &Stream) -> bool {
    let cluster = stream.cached_info().cluster.as_ref();
    cluster.is_some_and(|cluster| {
        cluster.leader.is_some() && cluster.replicas.iter().filter(|replica| replica.current).count() == 2
    })
}

/// Index of the server that leads the stream.
async fn leader(world: &World) -> usize {
    let leader = Cell::new(None);
    eventually("a leader", || async {
        let Ok(stream) = world.jetstream.get_stream(&world.stream).await else { return false };
        let name = stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone());
        leader.set(name.map(|name| name.trim_start_matches('n').parse().unwrap()));
        leader.get().is_some()
    })
    .await;
    leader.get().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_loses_its_leader_goes_on_with_the_next() {
    let (world, mut servers, _postgres) = cluster().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    for stop in [Stop::Kill, Stop::Kill, Stop::Fast] {
        world.commits(&daemon).await;
        let leader = leader(&world).await;
        servers[leader].stop(stop);
        let start = Instant::now();
        load.publishes().await;
        let elected = start.elapsed();
        world.commits(&daemon).await;
        println!(
            "the R3 stream's leader stopped ({stop:?}): publishing goes on after {elected:?}, commits after \
             {:?}: {}",
            start.elapsed(),
            daemon.status()["last_error"]
        );
        servers[leader].start_again().unwrap();
        eventually("all replicas to be current", || async {
            world.jetstream.get_stream(&world.stream).await.is_ok_and(|stream| replicated(&stream))
        })
        .await;
    }
    quiet(&daemon, 60);
    world.judge(&daemon, load).await;
    assert_eq!(daemon.metric("jetcopy_losses_total", ""), 0);
}

/// Index of the server that leads the durable.
async fn durables_leader(world: &World) -> Option<usize> {
    let stream = world.jetstream.get_stream(&world.stream).await.ok()?;
    let info = stream.consumer_info("jetcopy-events").await.ok()?;
    info.cluster?.leader?.trim_start_matches('n').parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_loses_its_leader_alone_is_replaced_before_another_is_elected() {
    let (world, mut servers, _postgres) = cluster().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let (of_stream, apart) = (leader(&world).await, Cell::new(None));
    eventually("a leader of the durable that is not the stream's", || async {
        apart.set(durables_leader(&world).await.filter(|&leads| leads != of_stream));
        if apart.get().is_none() {
            let step_down = format!("$JS.API.CONSUMER.LEADER.STEPDOWN.{}.jetcopy-events", world.stream);
            let _ = world.nats.request(step_down, "".into()).await;
        }
        apart.get().is_some()
    })
    .await;
    world.commits(&daemon).await;
    let (leads, resyncs) = (apart.get().unwrap(), || daemon.status()["resyncs"].as_i64().unwrap());
    let before = resyncs();
    servers[leads].stop(Stop::Kill);
    let start = Instant::now();
    eventually("the daemon to notice", || async { resyncs() > before }).await;
    world.commits(&daemon).await;
    println!("the durable's leader killed: commits after {:?}", start.elapsed());
    servers[leads].start_again().unwrap();
    world.judge(&daemon, load).await;
    assert_eq!(daemon.metric("jetcopy_losses_total", ""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_servers_that_come_back_are_read_at_once_and_by_the_same_daemon() {
    let (world, mut servers, _postgres) = cluster().await;
    let daemons = [Daemon::start(&world.config(EVENTS)), Daemon::start(&world.config(EVENTS))];
    let load = Load::start(&world);
    world.commits(&daemons[0]).await;
    let owner = async || {
        let owner = world.database.query_one("SELECT owner FROM jetcopy.checkpoints", &[]).await;
        owner.unwrap().get::<_, Option<String>>(0)
    };
    let before = owner().await;
    let outage = Instant::now();
    // The load talks to the first.
    servers[1].stop(Stop::Kill);
    servers[2].stop(Stop::Kill);
    let noticed = |daemon: &Daemon| daemon.status()["state"] == "backing_off";
    eventually("the one that runs to notice", || async { daemons.iter().any(noticed) }).await;
    servers[1].start_again().unwrap();
    servers[2].start_again().unwrap();
    let start = Instant::now();
    world.commits(&daemons[0]).await;
    println!("two of three servers back: commits after {:?}", start.elapsed());
    // After a long one it is for whichever daemon NATS answers first.
    if outage.elapsed() < WITHOUT_NATS {
        assert_eq!(owner().await, before, "the daemons take the shard from each other");
    }
    let writes = daemons.iter().position(|daemon| daemon.status()["state"] == "running").unwrap();
    world.judge(&daemons[writes], load).await;
    assert_eq!(daemons[writes].metric("jetcopy_losses_total", ""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_step_down_cost_nothing() {
    let (world, _servers, _postgres) = cluster().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    for _ in 0..3 {
        for subject in [
            format!("$JS.API.STREAM.LEADER.STEPDOWN.{}", world.stream),
            format!("$JS.API.CONSUMER.LEADER.STEPDOWN.{}.jetcopy-events", world.stream),
        ] {
            world.commits(&daemon).await;
            world.nats.request(subject, "".into()).await.unwrap();
            let recovery = world.commits(&daemon).await;
            println!("a leader stepped down: first commit after {recovery:?}");
        }
    }
    world.judge(&daemon, load).await;
    assert_eq!(daemon.metric("jetcopy_losses_total", ""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_lame_duck_mode_is_left_for_another() {
    let (world, mut servers, _postgres) = cluster().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    // One after the other, so that the daemon's own is among them.
    for server in &mut servers {
        world.commits(&daemon).await;
        let pid = Pid::from_raw(i32::try_from(server.pid().unwrap()).unwrap());
        kill(pid, Signal::SIGUSR2).unwrap();
        let start = Instant::now();
        let exited = || std::fs::read_to_string(server.log()).unwrap().contains("Server Exiting");
        let mut longest = Duration::ZERO;
        while !exited() {
            longest = longest.max(world.commits(&daemon).await);
        }
        println!(
            "lame duck: server gone after {:?}, longest time without a commit {longest:?}, last trouble {}",
            start.elapsed(),
            daemon.status()["last_error"]
        );
        server.stop(Stop::Fast);
        server.start_again().unwrap();
        eventually("all replicas to be current", || async {
            world.jetstream.get_stream(&world.stream).await.is_ok_and(|stream| replicated(&stream))
        })
        .await;
    }
    // Wherever it was connected, it had to leave one of them.
    assert!(daemon.status()["resyncs"].as_i64().unwrap() >= 2);
    quiet(&daemon, 60);
    world.judge(&daemon, load).await;
    assert_eq!(daemon.metric("jetcopy_losses_total", ""), 0);
}
