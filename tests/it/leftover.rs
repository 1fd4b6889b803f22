//! Durables that pipelines left behind: listed, and removed when nobody uses them.

use async_nats::jetstream::consumer::pull;

use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually, oracle};

/// The durables of the stream, by name.
async fn durables(world: &World) -> Vec<String> {
    use futures_util::TryStreamExt as _;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let mut names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
    names.sort();
    names
}

/// A daemon that has carried a message by a pipeline of that name, and has ended.
async fn carried_by(world: &World, name: &str) {
    let text = EVENTS.replace("name = \"events\"\nstream", &format!("name = \"{name}\"\nstream"));
    let daemon = Daemon::start(&world.config_file(&format!("{name}.toml"), &text));
    world.drained(name, &daemon).await;
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_durable_of_a_renamed_pipeline_is_listed_and_removed_and_no_other_is() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world.publish("a", [event(1)]).await;
    for name in ["before", "paused", "elsewhere"] {
        carried_by(&world, name).await;
    }
    // Somebody else's, of no pipeline.
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let other = pull::Config { durable_name: Some("jetcopy-like".into()), ..Default::default() };
    stream.create_consumer(other).await.unwrap();
    let config = world.config_file("paused.toml", &EVENTS.replacen("\"events\"", "\"paused\"", 1));
    world.run(&config, &["pause", "paused"]).await.well();
    let mut moved =
        stream.get_consumer::<pull::Config>("jetcopy-elsewhere").await.unwrap().cached_info().config.clone();
    moved.metadata.insert("jetcopy.database".into(), "db.example:5432/other".into());
    let moved = pull::Config {
        durable_name: Some("jetcopy-elsewhere".into()),
        ack_policy: moved.ack_policy,
        metadata: moved.metadata,
        ..Default::default()
    };
    stream.delete_consumer("jetcopy-elsewhere").await.unwrap();
    stream.create_consumer(moved).await.unwrap();
    let active = world.config_file("active.toml", &EVENTS.replacen("\"events\"", "\"active\"", 1));
    let active = Daemon::start(&active);
    world.drained("active", &active).await;

    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    let text = world.run(&config, &["status"]).await.well();
    for part in [
        "leftover: durable consumer jetcopy-before on stream",
        "`jetcopy remove-durables` removes it",
        "it is kept: a client pulls from it",
        "it is kept: its pipeline is paused",
        "it is kept: its pipeline writes to db.example:5432/other",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains("jetcopy-like") && !text.contains("durable consumer jetcopy-events"), "{text}");

    let all = durables(&world).await;
    let shown = world.run(&config, &["remove-durables"]).await;
    assert_eq!(shown.code, 1, "{shown:?}");
    assert!(
        shown.out.contains("leftover: durable consumer jetcopy-before") && shown.out.contains("--yes"),
        "{shown:?}"
    );
    assert_eq!(durables(&world).await, all);
    world.run(&config, &["remove-durables", "unknown", "--yes"]).await.well();
    assert_eq!(durables(&world).await, all);
    let said = world.run(&config, &["remove-durables", "--yes"]).await.well();
    assert_eq!(said.matches("removed: ").count(), 1, "{said}");
    let kept: Vec<String> = all.into_iter().filter(|name| name != "jetcopy-before").collect();
    assert_eq!(durables(&world).await, kept);
    eventually("the active pipeline to go on", || async { active.is_running() }).await;
    // A pipeline that is configured again goes on where it was.
    carried_by(&world, "before").await;
    world.database.batch_execute("DELETE FROM events; INSERT INTO events VALUES (1, 1, '')").await.unwrap();
    drop(active);
    oracle(&world, &daemon, "events", "events", event(2)).await;
}
