//! A checkpoint that is moved back, and what is carried again.

use std::path::PathBuf;

use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually, oracle};

/// 100 messages carried by a daemon that still runs.
async fn carried() -> (World, PathBuf, Daemon) {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(EVENTS);
    world.publish("a", (1..=100).map(event)).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    (world, config, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_pipeline_is_rewound_its_rows_removed_and_each_message_is_there_once_again() {
    let (world, config, daemon) = carried().await;
    let live = world.run(&config, &["rewind", "events", "--to", "40", "--yes"]).await;
    assert_eq!(live.code, 1);
    assert!(
        live.err.contains("is running this pipeline: stop it, or run `jetcopy pause events` first"),
        "{live:?}"
    );

    world.run(&config, &["pause", "events"]).await.well();
    let shown = world.run(&config, &["rewind", "events", "--to", "40"]).await;
    assert_eq!(shown.code, 1);
    assert!(shown.out.contains("checkpoint from 100 back to 40; 60 messages are written again"), "{shown:?}");
    let delete = "DELETE FROM public.events WHERE \"sequence\" > 40;";
    assert!(shown.out.contains("60 rows would be duplicated") && shown.out.contains(delete), "{shown:?}");
    assert_eq!(world.checkpoint("events").await, 100);

    let done = world.run(&config, &["rewind", "events", "--to", "40", "--yes"]).await.well();
    assert!(done.contains("the checkpoint of events is now 40"), "{done}");
    assert_eq!(world.checkpoint("events").await, 40);
    world.database.batch_execute(delete).await.unwrap();
    world.run(&config, &["resume", "events"]).await.well();
    oracle(&world, &daemon, "events", "events", event(101)).await;
    assert_eq!(daemon.metric("jetcopy_replayed_messages_total", ""), 0, "the database has lost nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_nobody_removed_are_there_twice_as_the_plan_said() {
    let (world, config, daemon) = carried().await;
    world.run(&config, &["pause", "events"]).await.well();
    world.run(&config, &["rewind", "events", "--to", "90", "--yes"]).await.well();
    world.run(&config, &["resume", "events"]).await.well();
    world.drained("events", &daemon).await;
    eventually("the rows to be there twice", || async {
        world.count("SELECT count(*) FROM events").await == 110
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_goes_back_to_the_last_message_before_it() {
    let (world, config, daemon) = carried().await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    world.publish("a", (101..=120).map(event)).await;
    world.drained("events", &daemon).await;
    let time = stream.get_raw_message(101).await.unwrap().time;
    let time = jiff::Timestamp::from_nanosecond(time.unix_timestamp_nanos()).unwrap();
    world.run(&config, &["pause", "events"]).await.well();
    let shown = world.run(&config, &["rewind", "events", "--to", &time.to_string()]).await;
    assert!(shown.out.contains("checkpoint from 120 back to 100; 20 messages"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_goes_neither_forward_nor_before_what_the_stream_holds() {
    let (world, config, daemon) = carried().await;
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.ended().await.0.code(), Some(0));
    let forward = world.run(&config, &["rewind", "events", "--to", "100", "--yes"]).await;
    assert!(forward.err.contains("the checkpoint is at 100: 100 is not before it"), "{forward:?}");
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    stream.purge().sequence(31).await.unwrap();
    let gone = world.run(&config, &["rewind", "events", "--to", "29", "--yes"]).await;
    assert!(
        gone.err.contains("the stream starts at sequence 31: the checkpoint cannot go back further than 30"),
        "{gone:?}"
    );
    assert_eq!(world.checkpoint("events").await, 100);

    world.run(&config, &["rewind", "events", "--to", "30", "--yes"]).await.well();
    world.database.batch_execute("DELETE FROM events WHERE sequence > 30").await.unwrap();
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "events", event(101)).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.losses").await, 0);
}
