//! `jetcopy split`: streams like the old one, a mapping that a real server takes, and a move of a running
//! pipeline.

use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy, StorageType};
use jetcopy::testbed::{NatsOptions, TestNats, TestPostgres};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually};

/// A world whose stream takes `NAME.*`, on a NATS server of its own.
async fn world() -> (TestNats, Arc<TestPostgres>, World, PathBuf) {
    let nats = TestNats::start(&NatsOptions::default()).unwrap();
    let postgres = TestPostgres::shared().unwrap();
    let world = World::on(&nats, &postgres).await;
    world.jetstream.delete_stream(&world.stream).await.unwrap();
    let config = StreamConfig {
        name: world.stream.clone(),
        subjects: vec!["frames.*".to_owned()],
        max_age: Duration::from_hours(24),
        max_bytes: 64 << 20,
        storage: StorageType::Memory,
        discard: DiscardPolicy::New,
        ..Default::default()
    };
    world.jetstream.create_stream(config).await.unwrap();
    world.database.batch_execute(TABLE).await.unwrap();
    world.database.batch_execute("ALTER TABLE events ADD subject text, ADD token text").await.unwrap();
    let config = world.config(&pipeline("stream = \"STREAM\""));
    (nats, postgres, world, config)
}

/// [`EVENTS`] with the subject and its second token.
fn pipeline(stream: &str) -> String {
    let subject = "sequence = \"$sequence\"\nsubject = \"$subject\"\ntoken = \"$subject[1]\"";
    EVENTS.replace("stream = \"STREAM\"", stream).replace("sequence = \"$sequence\"", subject)
}

async fn publish(world: &World, ids: std::ops::RangeInclusive<u64>) {
    for id in ids {
        let subject = format!("frames.cam{}", id % 50);
        world.jetstream.publish(subject, event(id).into()).await.unwrap().await.unwrap();
    }
}

fn split<'a>(world: &'a World, more: &[&'a str]) -> Vec<&'a str> {
    let arguments = ["split", world.stream.as_str(), "--subjects", "frames.*", "--by", "1", "--into", "4"];
    [&arguments[..], more].concat()
}

/// The printed mapping for a server's file.
fn mapping(said: &str) -> String {
    let from = said.find("mappings: {").unwrap();
    said[from..]
        .split_inclusive('}')
        .take_while(|part| !part.starts_with("\n\n"))
        .collect::<String>()
        .split("\n\n")
        .next()
        .unwrap()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_stream_is_split_with_what_is_printed_and_keeps_its_subjects() {
    let (mut nats, _postgres, world, config) = world().await;
    let daemon = Daemon::start(&config);
    daemon.says("pipeline is running").await;
    publish(&world, 1..=100).await;
    let tried = world.run(&config, &split(&world, &["--dry-run"])).await.well();
    assert!(
        tried.contains(&format!("stream {}_3 would be created, for {0}.3.frames.*", world.stream)),
        "{tried}"
    );
    assert!(world.jetstream.get_stream(format!("{}_0", world.stream)).await.is_err());
    let checked = world.run(&config, &split(&world, &["--check"])).await;
    assert!(checked.code == 1 && checked.out.contains("streams are missing"), "{checked:?}");

    let said = world.run(&config, &split(&world, &[])).await.well();
    assert!(said.contains(&format!("stream {}_0 created", world.stream)), "{said}");
    assert!(said.contains("The mapping is not in force yet"), "{said}");
    assert!(said.contains("nsc add mapping --from 'frames.*'"), "{said}");
    assert!(said.contains(&format!("before = \"{}\"", world.stream)), "{said}");
    let mut part = world.jetstream.get_stream(format!("{}_1", world.stream)).await.unwrap();
    let made = part.info().await.unwrap().config.clone();
    assert_eq!((made.max_age, made.max_bytes), (Duration::from_hours(24), 16 << 20));
    assert_eq!((made.storage, made.discard), (StorageType::Memory, DiscardPolicy::New));

    let sharded = "stream = \"STREAM_{shard}\"\nshards = 4\nbefore = \"STREAM\"";
    world.config(&pipeline(sharded));
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.says("configuration reloaded").await;
    nats.reconfigure(&mapping(&said)).unwrap();
    eventually("the mapping to be in force", || async {
        world.run(&config, &split(&world, &["--check"])).await.code == 0
    })
    .await;
    let stored = world.last_sequence().await;
    assert_eq!(stored, 100, "no test message was stored");
    publish(&world, 101..=300).await;
    assert_eq!(world.last_sequence().await, 100, "the new streams take what is published");
    eventually("all to be there", || async { world.count("SELECT count(*) FROM events").await == 300 }).await;
    let rows = "SELECT count(DISTINCT id) FROM events WHERE subject = 'frames.cam' || id % 50 \
                AND token = 'cam' || id % 50";
    assert_eq!(world.count(rows).await, 300, "the subject is the one that it was published on");
    for number in 0..4 {
        assert!(world.checkpoint(&format!("events-{number}")).await > 0);
    }
    let again = world.run(&config, &split(&world, &[])).await.well();
    assert!(again.contains("exists, and takes") && again.contains("The mapping is in force"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_split_is_refused_before_anything_is_made() {
    let (_nats, _postgres, world, config) = world().await;
    let stream = world.stream.as_str();
    let by = ["split", stream, "--subjects", "frames.*", "--by", "2", "--into", "4"];
    let refused = world.run(&config, &by).await;
    assert!(refused.code == 2 && refused.err.contains("has 1 wildcards"), "{refused:?}");
    let other = StreamConfig {
        name: format!("{stream}_2"),
        subjects: vec!["other.*".to_owned()],
        ..Default::default()
    };
    world.jetstream.create_stream(other).await.unwrap();
    let refused = world.run(&config, &split(&world, &[])).await;
    assert!(refused.code == 1 && refused.err.contains("exists and takes other.*"), "{refused:?}");
    assert!(world.jetstream.get_stream(format!("{stream}_0")).await.is_err());
}
