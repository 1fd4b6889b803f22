//! What a server allows less of than jetcopy would like: it asks for what there is, and says what would help.

use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use jetcopy::testbed::{NatsOptions, TestNats, TestPostgres};
use serde_json::json;

use super::{events_with, resyncs};
use crate::postgres::in_state;
use crate::support::{Daemon, EVENTS, Load, TABLE, World, event, eventually, oracle};

/// A world on a NATS server with these lines in its configuration, with the table of [`EVENTS`].
async fn limited(config: &str) -> (World, TestNats, std::sync::Arc<TestPostgres>) {
    let nats = TestNats::start(&NatsOptions { config: config.to_owned() }).unwrap();
    let postgres = TestPostgres::shared().unwrap();
    let world = World::on(&nats, &postgres).await;
    world.database.batch_execute(TABLE).await.unwrap();
    (world, nats, postgres)
}

/// Events of about so many bytes.
fn large(bytes: usize) -> impl Fn(u64) -> Vec<u8> {
    let note = "x".repeat(bytes);
    move |id| rmp_serde::to_vec_named(&json!({"id": id, "note": note})).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_allows_small_requests_and_few_unacknowledged_messages_is_asked_for_no_more() {
    let limits = "jetstream { store_dir: STORE, limits: { max_request_batch: 250, max_ack_pending: 1000 } }";
    let (world, _nats, _postgres) = limited(limits).await;
    // The usual size of a batch, which is above what may be unacknowledged.
    let config = world.config(&EVENTS.replace("max_rows = 200", "max_rows = 20_000"));
    let checked = world.run(&config, &["check"]).await;
    assert!(checked.out.contains("250 messages per pull request"), "{checked:?}");
    assert!(checked.out.contains("may have at most 1000 unacknowledged messages"), "{checked:?}");

    world.publish("a", (1..=30_000).map(event)).await;
    let daemon = Daemon::start(&config);
    let load = Load::start(&world);
    world.commits(&daemon).await;
    world.commits(&daemon).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let durable: PullConsumer = stream.get_consumer("jetcopy-events").await.unwrap();
    let made = &durable.cached_info().config;
    assert_eq!((made.max_ack_pending, made.max_batch), (1_000, 250));
    // Long enough for the probes to look at the durable, which is other than they would have it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    daemon.needed_no_resync();
    world.judge(&daemon, load).await;

    // The next generation knows what is allowed.
    stream.delete_consumer("jetcopy-events").await.unwrap();
    let noticed = || resyncs(&daemon, "consumer_deleted") + resyncs(&daemon, "no_responders");
    eventually("the daemon to notice", async || noticed() == 1).await;
    oracle(&world, &daemon, "events", "events", event(1_000_000)).await;
    daemon.says_times("the server limits unacknowledged messages", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_allows_few_unacknowledged_messages_is_read_in_smaller_batches() {
    let world = super::shared().await;
    let mut stream = world.stream_config();
    let few = async_nats::jetstream::stream::ConsumerLimits {
        max_ack_pending: 40,
        inactive_threshold: Duration::ZERO,
    };
    stream.consumer_limits = Some(few);
    world.jetstream.update_stream(stream).await.unwrap();
    world.publish("a", (1..=3_000).map(event)).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    oracle(&world, &daemon, "events", "events", event(4_000)).await;
    daemon.needed_no_resync();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_holds_back_less_than_a_pull_brings_is_read_to_the_end() {
    for (max_pending, max_payload) in [("1MB", "1MB"), ("8MB", "8MB"), ("300KB", "100KB")] {
        let config = format!("max_pending: {max_pending}\nmax_payload: {max_payload}");
        let (world, nats, _postgres) = limited(&config).await;
        world.publish("a", (1..=3_000).map(large(20_000))).await;
        let started = std::time::Instant::now();
        let daemon = Daemon::start(&world.config(EVENTS));
        daemon.says("http=").await;
        oracle(&world, &daemon, "events", "events", event(4_000)).await;
        let lost = resyncs(&daemon, "nats");
        println!("max_pending {max_pending}, 60 MB: {:?}, {lost} connections lost", started.elapsed());
        let log = std::fs::read_to_string(nats.log()).unwrap();
        if log.contains("MaxPending") {
            assert!(lost > 0, "{}", daemon.log());
            daemon.says("raise its max_pending").await;
            let checked = world.run(&world.config(EVENTS), &["check"]).await;
            assert!(checked.out.contains("as slow consumers"), "{checked:?}");
        }
        assert!(lost <= 8, "{lost} connections lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_which_the_memory_is_no_bound_are_told_by_check_and_at_the_start() {
    let (world, _nats, _postgres) = limited("max_payload: 16MB").await;
    let mut stream = world.stream_config();
    for (largest, settings, told) in [
        (-1, "", true),
        (8 << 20, "", false),
        (-1, "max_buffered_bytes = \"128MiB\"", false),
        (16 << 20, "max_buffered_bytes = \"127MiB\"", true),
    ] {
        stream.max_message_size = largest;
        world.jetstream.update_stream(stream.clone()).await.unwrap();
        let config = world.config(&events_with(settings));
        let checked = world.run(&config, &["check"]).await;
        let warning = "can take more memory than max_buffered_bytes";
        assert_eq!(checked.out.contains(warning), told, "{largest} {settings} {checked:?}");
        let daemon = Daemon::start(&config);
        daemon.says("pipeline is running").await;
        assert_eq!(daemon.log().contains(warning), told, "{largest} {settings} {}", daemon.log());
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        daemon.ended().await;
    }
}

/// The settings of a user with rights, as lines of a server's configuration; `me` may all that is not denied.
fn with_rights(denied_publish: &str, denied_subscribe: &str) -> String {
    format!(
        "authorization {{ users: [
             {{ user: admin, password: admin }},
             {{ user: me, password: me, permissions: {{
                 publish: {{ deny: [{denied_publish}] }}, subscribe: {{ deny: [{denied_subscribe}] }} }} }}
         ] }}
         no_auth_user: admin"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn each_missing_right_is_named_within_seconds_and_its_grant_is_noticed() {
    for (publish, subscribe, told) in [
        ("$JS.API.STREAM.INFO.>", "", "publish to $JS.API.STREAM.INFO.STREAM"),
        ("$JS.API.CONSUMER.INFO.>", "", "publish to $JS.API.CONSUMER.INFO.STREAM.jetcopy-events"),
        ("$JS.API.CONSUMER.CREATE.>", "", "publish to $JS.API.CONSUMER.CREATE.STREAM.jetcopy-events"),
        ("$JS.API.CONSUMER.RESET.>", "", "publish to $JS.API.CONSUMER.RESET.STREAM.jetcopy-events"),
        ("$JS.API.CONSUMER.DELETE.>", "", "publish to $JS.API.CONSUMER.DELETE.STREAM.jetcopy-events"),
        ("$JS.API.CONSUMER.MSG.NEXT.>", "", "publish to $JS.API.CONSUMER.MSG.NEXT.STREAM.jetcopy-events"),
        ("", "_INBOX_jetcopy.>", "subscribe to _INBOX_jetcopy."),
    ] {
        let quoted =
            |subject: &str| if subject.is_empty() { String::new() } else { format!("\"{subject}\"") };
        let (mut world, mut nats, _postgres) =
            limited(&with_rights(&quoted(publish), &quoted(subscribe))).await;
        world.publish("a", (1..=100).map(event)).await;
        let config = world.config(EVENTS);
        if told.contains("RESET") || told.contains("DELETE") {
            // It is moved where it is there, and deleted where it is not as it has to be.
            let before = Daemon::start(&config);
            world.drained("events", &before).await;
            before.signal(nix::sys::signal::Signal::SIGTERM);
            before.ended().await;
        }
        if told.contains("DELETE") {
            let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
            let mut durable = stream.consumer_info("jetcopy-events").await.unwrap().config;
            durable.max_ack_pending = 7;
            let durable: async_nats::jetstream::consumer::pull::Config =
                async_nats::jetstream::consumer::FromConsumer::try_from_consumer_config(durable).unwrap();
            stream.create_consumer(durable).await.unwrap();
        }
        world.nats_url = world.nats_url.replace("nats://", "nats://me:me@");
        let config = world.config(EVENTS);
        let started = std::time::Instant::now();
        let daemon = Daemon::start(&config);
        daemon.says("http=").await;
        eventually("the pipeline to pause", || async { daemon.status()["state"] == "paused" }).await;
        let noticed = started.elapsed();
        let told = told.replace("STREAM.jet", &format!("{}.jet", world.stream));
        let told = if told.ends_with("INFO.STREAM") {
            told.replace("INFO.STREAM", &format!("INFO.{}", world.stream))
        } else {
            told
        };
        let status = daemon.status();
        let (reason, remedy) = (status["reason"].as_str().unwrap(), status["remedy"].as_str().unwrap());
        assert!(reason.contains("does not let jetcopy's user") && reason.contains(&told), "{status}");
        assert!(remedy.contains(&told), "{status}");
        // The state is there a moment before the line in the log.
        daemon.says(&told).await;
        println!("{told}: {noticed:?}");
        // Before any request without an answer is given up.
        assert!(noticed < Duration::from_secs(10), "{noticed:?}");

        nats.reconfigure(&with_rights("", "")).unwrap();
        oracle(&world, &daemon, "events", "events", event(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_and_an_account_without_jetstream_and_a_stream_without_room_say_what_would_help() {
    let postgres = TestPostgres::shared().unwrap();
    let accounts = "accounts { WITH { jetstream: enabled, users: [{ user: with, password: x }] }
                               WITHOUT { users: [{ user: without, password: x }] } }
                    no_auth_user: with";
    let elsewhere = TestNats::start(&NatsOptions { config: "jetstream: disabled".into() }).unwrap();
    let (mut world, nats, _) = limited(accounts).await;
    let paused = async |world: &World, remedy: &str| {
        let daemon = Daemon::start(&world.config(&events_with("on_loss = \"halt\"")));
        daemon.says("http=").await;
        eventually("the pipeline to pause", || async { daemon.status()["state"] == "paused" }).await;
        let status = daemon.status();
        assert!(status["remedy"].as_str().unwrap().contains(remedy), "{status}");
        let checked = world.run(&world.config(EVENTS), &["check"]).await;
        assert!(checked.code == 1 && checked.out.contains(remedy), "{checked:?}");
        daemon
    };
    let own = nats.url();
    for url in [elsewhere.url(), own.replace("nats://", "nats://without:x@")] {
        world.nats_url = url;
        drop(paused(&world, "enable JetStream").await);
    }
    world.nats_url = own;
    let mut stream = world.stream_config();
    world.jetstream.delete_stream(&world.stream).await.unwrap();
    stream.max_consumers = 1;
    let stream = world.jetstream.create_stream(stream).await.unwrap();
    let other = async_nats::jetstream::consumer::pull::Config {
        durable_name: Some("other".into()),
        ..Default::default()
    };
    stream.create_consumer(other).await.unwrap();
    world.publish("a", (1..=10).map(event)).await;
    let daemon = paused(&world, "max_consumers").await;
    stream.delete_consumer("other").await.unwrap();
    oracle(&world, &daemon, "events", "events", event(11)).await;
    drop(postgres);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_know_how_to_reset_a_consumer_is_asked_to_create_it_anew() {
    // As with an older server behind the one that is connected to: the request gets nowhere, once unheard and
    // once without an answer from whoever hears it.
    for hears in [false, true] {
        let (world, _nats, _postgres) = limited(
            "accounts { A { jetstream: enabled, users: [{ user: a, password: a }, { user: b, password: b }]
                 mappings: { \"$JS.API.CONSUMER.RESET.>\": \"nowhere.>\" } } }
             no_auth_user: a",
        )
        .await;
        let unheard = hears.then_some(world.nats.subscribe("nowhere.>").await.unwrap());
        let daemon = Daemon::start(&world.config(EVENTS));
        let load = Load::start(&world);
        for _ in 1..=3 {
            world.commits(&daemon).await;
            let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
            let created =
                async || stream.consumer_info("jetcopy-events").await.map(|durable| durable.created);
            let before = created().await.unwrap();
            stream.delete_consumer("jetcopy-events").await.unwrap();
            eventually("the durable to be made again", async || {
                created().await.is_ok_and(|created| created > before)
            })
            .await;
            let recovery = world.commits(&daemon).await;
            println!(
                "a reset that nobody {}: first commit after {recovery:?}",
                if hears { "answers" } else { "hears" }
            );
        }
        daemon.says_times("no answer to the request to reset", 1).await;
        world.judge(&daemon, load).await;
        drop(unheard);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_lets_one_answer_through_is_named_as_the_cause() {
    let exported = |more: &str| {
        format!(
            "accounts {{
                 WITH {{ jetstream: enabled, users: [{{ user: with, password: x }}],
                         exports: [{{ service: \"$JS.API.>\"{more} }}, {{ service: \"$JS.ACK.>\" }}] }}
                 APP {{ users: [{{ user: app, password: x }}],
                        imports: [{{ service: {{ account: WITH, subject: \"$JS.API.>\" }} }},
                                  {{ service: {{ account: WITH, subject: \"$JS.ACK.>\" }} }}] }} }}
             no_auth_user: with"
        )
    };
    let (mut world, mut nats, _postgres) = limited(&exported("")).await;
    world.publish("a", (1..=200).map(event)).await;
    world.nats_url = world.nats_url.replace("nats://", "nats://app:x@");
    let daemon = Daemon::start(&world.config(EVENTS));
    in_state(&daemon, "backing_off", "must have `response_type: stream`").await;
    nats.reconfigure(&exported(", response_type: stream")).unwrap();
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(DISTINCT id) FROM events").await, 200);
    assert_eq!(world.count("SELECT count(*) FROM events").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_is_told_in_one_line_and_no_other_remedy_is() {
    let user = |password: &str| {
        format!(
            "authorization {{ users: [{{ user: admin, password: admin }}, \
             {{ user: me, password: \"{password}\" }}] }}
             no_auth_user: admin"
        )
    };
    let (mut world, mut nats, _postgres) = limited(&user("one")).await;
    let file = world.directory.path().join("password");
    let write = |password: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(&file, password).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("one");
    world.nats_url = format!("{}\"\nuser = \"me\"\npassword_file = \"{}", world.nats_url, file.display());
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    nats.reconfigure(&user("two")).unwrap();
    let status = in_state(&daemon, "paused", "authorization violation").await;
    assert!(status["remedy"].as_str().unwrap().contains("correct the credentials in [nats]"), "{status}");
    // Somebody looks on all the while, and is refused too.
    eventually("another attempt", async || resyncs(&daemon, "nats") >= 2).await;
    write("two");
    oracle(&world, &daemon, "events", "events", event(101)).await;
    let log = daemon.log();
    assert!(!log.contains("async_nats") && !log.contains("max_pending"), "{log}");
    assert_eq!(log.matches("correct the credentials").count(), 1, "{log}");
}
