//! `jetcopy check` names each trouble of JetStream with its remedy, on a real server.

use async_nats::jetstream::consumer::{AckPolicy, pull};

use super::*;
use crate::config;
use crate::testbed::{NatsOptions, TestNats};

/// A private server with the stream FRAMES, and settings with one pipeline that reads it.
struct World {
    server: TestNats,
    context: jetstream::Context,
    config: Config,
}

impl World {
    /// The durable as jetcopy makes it.
    fn wanted(&self) -> pull::Config {
        let pipeline = &self.config.pipelines[0];
        let shard = pipeline.shards().remove(0);
        subscribe::consumer_config(pipeline, &shard, consumer::DeliverPolicy::All)
    }

    async fn new(stream: StreamConfig, options: &NatsOptions) -> Self {
        let server = TestNats::start(options).unwrap();
        let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
        context.create_stream(stream).await.unwrap();
        let config = settings(&server.url(), "");
        Self { server, context, config }
    }

    async fn with(stream: StreamConfig) -> Self {
        Self::new(stream, &NatsOptions::default()).await
    }

    /// What a check says, without the lines that say ok.
    async fn troubles(&self) -> Vec<String> {
        troubles(&self.config).await
    }
}

fn settings(url: &str, lines: &str) -> Config {
    let text = format!("name = \"frames\"\nstream = \"FRAMES\"\n{lines}");
    let pipeline: Pipeline = figment::Figment::new()
        .merge(<figment::providers::Toml as figment::providers::Format>::string(&text))
        .extract()
        .unwrap();
    let nats = config::Nats { url: url.to_owned(), ..config::Nats::default() };
    Config { nats, pipelines: vec![pipeline], ..Config::default() }
}

async fn text(config: &Config) -> String {
    let mut report = Findings::default();
    look(config, &mut report).await;
    report.text(false)
}

async fn troubles(config: &Config) -> Vec<String> {
    text(config).await.lines().filter(|line| !line.starts_with("ok ")).map(str::to_owned).collect()
}

fn frames() -> StreamConfig {
    StreamConfig { name: "FRAMES".into(), subjects: vec!["frames.>".into()], ..StreamConfig::default() }
}

#[tokio::test]
async fn a_stream_that_removes_messages_by_itself_is_judged_by_what_the_tables_keep() {
    let stream =
        StreamConfig { max_messages_per_subject: 1, allow_rollup: true, allow_message_ttl: true, ..frames() };
    let world = World::with(stream).await;
    let url = world.server.url();
    let table = "[[table]]\nname = \"t\"\n";
    let last = "[[table]]\nname = \"t\"\non_conflict = \"update\"\nkey = [\"k\"]\n";
    for (lines, said) in [
        (table.to_owned(), "the pipeline halts at unread messages that it removes"),
        (format!("on_loss = \"continue\"\n{table}"), "recorded in jetcopy.losses"),
        (format!("on_superseded = \"ignore\"\n{table}"), "just counted, and missing from the tables"),
        (format!("{last}absent = \"keep\"\n"), "the pipeline halts at unread messages that it removes"),
        (
            format!("subjects = [\"frames.a\"]\n{table}"),
            "with only some of its subjects, removals cannot be told",
        ),
    ] {
        let said_all = troubles(&settings(&url, &lines)).await.join("\n");
        assert!(said_all.contains(said), "{lines}: {said_all}");
        for part in ["keeps 1 messages per subject", "allow_msg_ttl", "allow_rollup_hdrs"] {
            assert!(said_all.contains(part), "{lines}: {said_all}");
        }
    }
    let fine = settings(&url, last);
    let said = text(&fine).await;
    assert!(said.contains("the tables keep only the last value"), "{said}");
    assert!(said.ends_with("no errors, no warnings\n"), "{said}");
}

#[tokio::test]
async fn a_stream_as_it_should_be_gives_no_trouble() {
    let world = World::with(frames()).await;
    let text = text(&world.config).await;
    assert!(text.ends_with("no errors, no warnings\n"), "{text}");
    assert!(text.contains("the durable consumer jetcopy-frames will be created"), "{text}");
}

#[tokio::test]
async fn a_server_that_is_away_is_one_error_without_the_password() {
    let troubles = troubles(&settings("nats://me:hush@127.0.0.1:1", "")).await;
    assert!(troubles[0].starts_with("error nats: cannot connect to NATS at nats://me:***@"), "{troubles:?}");
    assert_eq!(troubles.last().unwrap(), "1 error, no warnings");
}

#[tokio::test]
async fn a_missing_stream_is_an_error_that_says_how_to_make_it() {
    let world = World::with(StreamConfig { name: "OTHER".into(), ..frames() }).await;
    assert_eq!(
        world.troubles().await,
        [
            "error pipeline frames, stream FRAMES: the stream does not exist",
            "      -> nats stream add FRAMES --retention limits --subjects …, or correct the name",
            "1 error, no warnings"
        ]
    );
}

#[tokio::test]
async fn retention_that_removes_what_was_acknowledged_is_an_error() {
    for retention in [RetentionPolicy::WorkQueue, RetentionPolicy::Interest] {
        let world = World::with(StreamConfig { retention, ..frames() }).await;
        let troubles = world.troubles().await;
        assert!(troubles[0].contains("its retention removes acknowledged messages"), "{troubles:?}");
        assert_eq!(troubles.last().unwrap(), "1 error, no warnings");
    }
}

#[tokio::test]
async fn subjects_that_are_not_the_streams_are_errors() {
    let mut world = World::with(frames()).await;
    world.config.pipelines[0].subjects = vec!["frames.*".into(), "other.*".into(), "frames.a".into()];
    let troubles = world.troubles().await;
    assert_eq!(
        troubles[0],
        "error pipeline frames, stream FRAMES: it stores no messages for other.*; its subjects are frames.>"
    );
    assert!(troubles[2].contains("the subjects frames.* and frames.a overlap"), "{troubles:?}");
    // The server takes these: neither is within the other.
    world.config.pipelines[0].subjects = vec!["frames.a.*".into(), "frames.*.b".into()];
    assert_eq!(world.troubles().await, ["no errors, no warnings"]);
}

#[tokio::test]
async fn messages_larger_than_a_batch_and_than_the_buffer_are_warnings() {
    let mut world = World::with(frames()).await;
    world.config.pipelines[0].batch.max_bytes = bytesize::ByteSize::kib(64);
    world.config.pipelines[0].max_buffered_bytes = Some(bytesize::ByteSize::kib(256));
    let troubles = world.troubles().await;
    assert!(
        troubles[0].contains("messages may be up to 1.0 MiB, and batch.max_bytes is 64.0 KiB"),
        "{troubles:?}"
    );
    assert!(troubles[2].contains("more memory than max_buffered_bytes (256.0 KiB)"), "{troubles:?}");
    let limited = StreamConfig { max_message_size: 1024, ..frames() };
    world.context.update_stream(limited).await.unwrap();
    assert_eq!(world.troubles().await, ["no errors, no warnings"]);
}

#[tokio::test]
async fn limits_that_drop_unread_messages_are_warnings() {
    let world = World::with(StreamConfig {
        max_age: Duration::from_mins(10),
        duplicate_window: Duration::from_mins(1),
        max_messages_per_subject: 1,
        storage: StorageType::Memory,
        ..frames()
    })
    .await;
    let troubles = world.troubles().await.join("\n");
    for part in ["drops messages after 10m", "keeps 1 messages per subject", "kept in memory"] {
        assert!(troubles.contains(part), "{troubles}");
    }
}

#[tokio::test]
async fn a_stream_that_answers_before_it_stores_is_pointed_out() {
    let world = World::with(StreamConfig { persist_mode: Some(PersistenceMode::Async), ..frames() }).await;
    let troubles = world.troubles().await;
    assert!(troubles[0].contains("before a message is stored"), "{troubles:?}");
}

#[tokio::test]
async fn too_few_unacknowledged_messages_are_pointed_out() {
    let limits =
        jetstream::stream::ConsumerLimits { max_ack_pending: 100, inactive_threshold: Duration::ZERO };
    let world = World::with(StreamConfig { consumer_limits: Some(limits), ..frames() }).await;
    let troubles = world.troubles().await;
    assert!(troubles[0].contains("may have at most 100 unacknowledged messages"), "{troubles:?}");
    assert!(troubles[0].starts_with("warn"), "{troubles:?}");
    let told = troubles.iter().filter(|line| line.contains("may have at most")).count();
    assert_eq!(told, 1, "{troubles:?}");

    let world = World::with(frames()).await;
    let stream = world.context.get_stream("FRAMES").await.unwrap();
    let mut durable = pull::Config {
        durable_name: Some("jetcopy-frames".into()),
        description: Some("cursor of jetcopy pipeline frames".into()),
        ack_policy: AckPolicy::All,
        max_ack_pending: 100,
        ..pull::Config::default()
    };
    stream.create_consumer(durable.clone()).await.unwrap();
    let troubles = world.troubles().await;
    assert!(
        troubles[0].contains("100 unacknowledged messages, fewer than batch.max_rows (20000)"),
        "{troubles:?}"
    );
    durable.max_ack_pending = 40_000;
    stream.create_consumer(durable).await.unwrap();
    let troubles = world.troubles().await;
    assert!(troubles[0].contains("has unexpected settings"), "{troubles:?}");
}

#[tokio::test]
async fn a_full_stream_with_unread_messages_is_a_warning() {
    let world = World::with(StreamConfig { max_messages: 50, ..frames() }).await;
    let stream = world.context.get_stream("FRAMES").await.unwrap();
    let wanted = world.wanted();
    stream.create_consumer(wanted).await.unwrap();
    for _ in 0..50 {
        world.context.publish("frames.a", "{}".into()).await.unwrap().await.unwrap();
    }
    let troubles = world.troubles().await;
    assert!(troubles[0].contains("after 0 more messages, it drops the first unread one"), "{troubles:?}");
}

#[tokio::test]
async fn each_missing_permission_is_an_error_that_names_its_subject() {
    let options = NatsOptions {
        config: r#"
            authorization { users = [
                { user: admin, password: admin },
                { user: guest, password: guest, permissions: {
                    publish: { allow: ["$JS.API.STREAM.INFO.FRAMES", "$JS.API.CONSUMER.>",
                                       "$SYS.REQ.USER.INFO"],
                               deny: ["$JS.API.CONSUMER.DELETE.>"] }
                    subscribe: ["_INBOX_jetcopy.>"] } }
            ] }
            no_auth_user: admin
        "#
        .into(),
    };
    let mut world = World::new(frames(), &options).await;
    world.config.nats.url = world.config.nats.url.replace("nats://", "nats://guest:guest@");
    let errors: Vec<_> =
        world.troubles().await.into_iter().filter(|line| line.starts_with("error")).collect();
    let place = "error pipeline frames, stream FRAMES: no permission to publish to";
    assert_eq!(
        errors,
        [
            format!("{place} $JS.API.STREAM.MSG.GET.FRAMES"),
            format!("{place} $JS.API.CONSUMER.DELETE.FRAMES.jetcopy-frames"),
            format!("{place} $JS.ACK.FRAMES.jetcopy-frames.>"),
        ]
    );
}

#[tokio::test]
async fn a_user_who_may_not_ask_is_told_what_to_allow() {
    let options = NatsOptions {
        config: r#"
            authorization { users = [
                { user: admin, password: admin },
                { user: guest, password: guest, permissions: { subscribe: ["_INBOX.>"] } }
            ] }
            no_auth_user: admin
        "#
        .into(),
    };
    let mut world = World::new(frames(), &options).await;
    world.config.nats.url = world.config.nats.url.replace("nats://", "nats://guest:guest@");
    let troubles = world.troubles().await;
    assert!(
        troubles[0].contains("the request for the stream's information was not answered"),
        "{troubles:?}"
    );
    assert!(troubles[1].contains("publish to $JS.API.STREAM.INFO.FRAMES"), "{troubles:?}");
    assert!(troubles[1].ends_with("subscribe to _INBOX_jetcopy.>"), "{troubles:?}");
    world.config.nats.inbox_prefix = "_INBOX".into();
    let troubles = self::troubles(&world.config).await;
    assert!(troubles.iter().all(|line| !line.contains("not answered")), "{troubles:?}");
}

#[tokio::test]
async fn what_the_server_allows_a_consumer_is_found_before_and_after_it_is_made() {
    let config = "jetstream { store_dir: STORE, limits: { max_request_batch: 250, max_ack_pending: 1000 } }";
    let world = World::new(frames(), &NatsOptions { config: config.into() }).await;
    let before = world.troubles().await.join("\n");
    assert!(before.contains("allows 250 messages per pull request"), "{before}");
    assert!(before.contains("may have at most 1000 unacknowledged messages"), "{before}");
    assert!(before.ends_with("no errors, 2 warnings"), "{before}");
    let stream = world.context.get_stream("FRAMES").await.unwrap();
    assert_eq!(stream.cached_info().state.consumer_count, 0, "a check makes none");
    let durable = world.wanted();
    stream.create_consumer(pull::Config { max_ack_pending: 1000, ..durable }).await.unwrap();
    let after = world.troubles().await.join("\n");
    assert!(after.contains("allows 250 messages per pull request"), "{after}");
    assert!(after.contains("allows 1000 unacknowledged messages"), "{after}");
}

#[tokio::test]
async fn a_stream_without_room_for_another_consumer_is_an_error() {
    let world = World::with(StreamConfig { max_consumers: 1, ..frames() }).await;
    let stream = world.context.get_stream("FRAMES").await.unwrap();
    let other = pull::Config { durable_name: Some("other".into()), ..pull::Config::default() };
    stream.create_consumer(other).await.unwrap();
    let troubles = world.troubles().await;
    assert!(troubles[0].contains("it has 1 consumers, the maximum"), "{troubles:?}");
}

#[tokio::test]
async fn subjects_that_a_transform_makes_are_the_streams() {
    let transform = |source: &str, destination: &str| {
        Some(jetstream::stream::SubjectTransform { source: source.into(), destination: destination.into() })
    };
    for (destination, good, bad) in [
        ("by.{{partition(2,1)}}.{{wildcard(1)}}", "by.1.*", "by.*"),
        ("by.$1.end", "by.*.end", "by.*.start"),
        ("by.{{split(1,-)}}", "by.a.b.c", "of.a"),
    ] {
        let subject_transform = transform("frames.*", destination);
        let mut world = World::with(StreamConfig { subject_transform, ..frames() }).await;
        world.config.pipelines[0].subjects = vec![good.into()];
        assert_eq!(world.troubles().await, ["no errors, no warnings"], "{destination}");
        // What the transform does not take is held as it came.
        world.config.pipelines[0].subjects = vec!["frames.a.b".into()];
        assert_eq!(world.troubles().await, ["no errors, no warnings"], "{destination}");
        world.config.pipelines[0].subjects = vec![bad.into()];
        let troubles = world.troubles().await;
        assert!(troubles[0].contains(&format!("it stores no messages for {bad}")), "{troubles:?}");
    }
}

#[tokio::test]
async fn a_server_without_jetstream_and_one_that_counts_slow_consumers_are_told() {
    let server = TestNats::start(&NatsOptions { config: "jetstream: disabled".into() }).unwrap();
    let told = troubles(&settings(&server.url(), "")).await;
    assert!(
        told[0].ends_with("the server has no JetStream") && told[1].contains("enable JetStream"),
        "{told:?}"
    );

    let world = World::new(frames(), &NatsOptions { config: "max_pending: 1MB".into() }).await;
    let mut slow = std::net::TcpStream::connect(("127.0.0.1", world.server.port())).unwrap();
    std::io::Write::write_all(&mut slow, b"CONNECT {}\r\nSUB frames.> 1\r\n").unwrap();
    let client = async_nats::connect(world.server.url()).await.unwrap();
    while crate::approach::slow_consumers(&client).await != Some(1) {
        client.publish("frames.a", vec![b'x'; 500_000].into()).await.unwrap();
        client.flush().await.unwrap();
    }
    let told = world.troubles().await.join("\n");
    assert!(told.contains("has closed 1 connections of this account as slow consumers"), "{told}");
    assert!(told.contains("raise max_pending"), "{told}");
}
