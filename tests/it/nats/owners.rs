//! Somebody else's durable stands under the pipeline's name.

use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, DeliverPolicy, FromConsumer as _, pull};
use futures_util::{FutureExt as _, StreamExt as _};
use nix::sys::signal::Signal;

use super::consumer::DURABLE;
use super::shared;
use crate::postgres::in_state;
use crate::support::{Daemon, EVENTS, World, event, eventually, oracle};

async fn durable(world: &World) -> Consumer<pull::Config> {
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    stream.get_consumer(DURABLE).await.unwrap()
}

/// Makes the durable anew, with other settings.
async fn made_anew(world: &World, edit: impl FnOnce(&mut pull::Config)) -> Consumer<pull::Config> {
    let found = durable(world).await.cached_info().config.clone();
    let mut config = pull::Config::try_from_consumer_config(found).unwrap();
    edit(&mut config);
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    stream.delete_consumer(DURABLE).await.unwrap();
    stream.create_consumer(config).await.unwrap()
}

async fn stopped(daemon: Daemon) {
    daemon.signal(Signal::SIGTERM);
    daemon.ended().await;
}

fn named(world: &World) -> String {
    format!("in use by pipeline events of database 127.0.0.1:{}", world.own_url.rsplit_once(':').unwrap().1)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_daemons_of_one_name_on_different_databases_the_second_says_whose_the_durable_is_and_waits() {
    let (world, mut other) = (shared().await, shared().await);
    other.stream.clone_from(&world.stream);
    let (config, others) = (world.config(EVENTS), other.config(EVENTS));
    let daemon = Daemon::start(&config);
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    let made = durable(&world).await.cached_info().created;

    let second = Daemon::start(&others);
    let status = in_state(&second, "paused", &named(&world)).await;
    assert!(status["remedy"].as_str().unwrap().contains("another name, or its own `durable`"), "{status}");
    let checked = other.run(&others, &["check"]).await;
    assert!(checked.out.contains("pipeline events of database") && checked.code == 0, "{checked:?}");
    world.publish("a", (101..=200).map(event)).await;
    world.drained("events", &daemon).await;
    daemon.needed_no_resync();
    assert_eq!(durable(&world).await.cached_info().created, made);

    // What nobody uses any more is taken over, as after a move of the database; and then the first one waits.
    stopped(daemon).await;
    other.drained("events", &second).await;
    assert_eq!(other.count("SELECT count(*) FROM events").await, 200);
    let daemon = Daemon::start(&config);
    in_state(&daemon, "paused", &named(&other)).await;
    stopped(second).await;
    oracle(&world, &daemon, "events", "events", event(201)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_cluster_at_the_same_address_is_another_one_while_its_daemon_pulls() {
    let world = shared().await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    stopped(daemon).await;
    let others = made_anew(&world, |config| {
        config.metadata.insert("jetcopy.system".into(), "1".into()).unwrap();
        config.deliver_policy = DeliverPolicy::New;
    })
    .await;
    let mut pulls = others.stream().expires(Duration::from_mins(1)).messages().await.unwrap();
    assert!(pulls.next().now_or_never().is_none());
    eventually("the other to pull", || async { durable(&world).await.cached_info().num_waiting > 0 }).await;
    let daemon = Daemon::start(&config);
    in_state(&daemon, "paused", "of another cluster (system identifier 1)").await;
    drop(pulls);
    eventually("the daemon to take it over", async || daemon.status()["state"] == "running").await;
    oracle(&world, &daemon, "events", "events", event(101)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_jetcopy_did_not_make_is_refused_at_the_first_start_and_later_taken_for_an_edited_one()
{
    let world = shared().await;
    let config = world.config(EVENTS);
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let foreign = pull::Config { durable_name: Some(DURABLE.into()), ..Default::default() };
    stream.create_consumer(foreign).await.unwrap();
    let made = durable(&world).await.cached_info().created;
    world.publish("a", (1..=100).map(event)).await;
    let daemon = Daemon::start(&config);
    let status = in_state(&daemon, "paused", "was not created by jetcopy").await;
    let remedy = format!("`nats consumer rm {} {DURABLE}`", world.stream);
    assert!(status["remedy"].as_str().unwrap().contains(&remedy), "{status}");
    let checked = world.run(&config, &["check"]).await;
    assert!(checked.out.contains("was not created by jetcopy"), "{checked:?}");
    assert_eq!(durable(&world).await.cached_info().created, made);
    stream.delete_consumer(DURABLE).await.unwrap();
    world.drained("events", &daemon).await;

    stopped(daemon).await;
    made_anew(&world, |config| {
        config.metadata.clear();
        config.description = None;
    })
    .await;
    let daemon = Daemon::start(&config);
    daemon.says("pipeline is running").await;
    oracle(&world, &daemon, "events", "events", event(101)).await;
}
