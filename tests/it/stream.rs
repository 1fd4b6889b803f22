//! `jetcopy stream add`: what it makes on a real server, and what it leaves as it is.

use std::process::Command;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use jetcopy::testbed::{NatsOptions, TestNats};

/// What the command says, on either stream, and its exit code.
async fn add(nats: &TestNats, arguments: &[&str]) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    command.args(["stream", "add"]).args(arguments).args(["--nats-url", &nats.url()]);
    command.env_clear().current_dir(directory.path());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn a_stream_is_made_as_asked_for_once_and_one_that_differs_is_left_and_told() {
    let nats = TestNats::start(&NatsOptions::default()).unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let limits = ["--max-age", "7d", "--max-bytes", "64MiB", "--max-messages", "1000"];
    let more = ["--storage", "memory", "--duplicate-window", "10s", "--replicas", "1"];
    let all = [&["ORDERS", "--subjects", "orders.>,returns.*"][..], &limits, &more].concat();
    let (code, said) = add(&nats, &all).await;
    assert_eq!(
        (code, said.as_str()),
        (0, "stream ORDERS created, for orders.>, returns.*, with memory storage\n")
    );
    let found = jetstream.get_stream("ORDERS").await.unwrap().cached_info().config.clone();
    assert_eq!((found.retention, found.storage), (RetentionPolicy::Limits, StorageType::Memory));
    assert_eq!(found.subjects, ["orders.>", "returns.*"]);
    assert_eq!((found.max_age, found.max_bytes), (Duration::from_hours(168), 64 << 20));
    assert_eq!((found.max_messages, found.duplicate_window), (1_000, Duration::from_secs(10)));
    assert!(found.allow_direct);

    let exists = (0, "stream ORDERS exists already, as asked for\n".to_owned());
    assert_eq!(add(&nats, &all).await, exists);
    let least = ["ORDERS", "--subjects", "returns.*", "--subjects", "orders.>"];
    assert_eq!(add(&nats, &least).await, exists, "what is not asked for may be anything");
    let other = ["ORDERS", "--subjects", "orders.>", "--max-age", "1d", "--storage", "file"];
    let (code, said) = add(&nats, &other).await;
    assert_eq!(code, 1);
    let differs = "stream ORDERS exists and differs: subjects orders.>, returns.*, not orders.>; storage \
                   memory, not file; maximum age 7days, not 1day; ";
    assert!(said.contains(differs), "{said}");
    assert_eq!(jetstream.get_stream("ORDERS").await.unwrap().cached_info().config, found);

    let (code, said) = add(&nats, &["OTHER", "--subjects", "orders.north"]).await;
    assert!(
        code == 1 && said.contains("cannot create stream OTHER: another stream takes some of these"),
        "{said}"
    );
    assert!(jetstream.get_stream("OTHER").await.is_err());

    let queue = Config {
        name: "QUEUE".into(),
        subjects: vec!["queue".into()],
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    jetstream.create_stream(queue).await.unwrap();
    let (code, said) = add(&nats, &["QUEUE", "--subjects", "queue"]).await;
    assert!(code == 1 && said.contains("retention workqueue, not limits"), "{said}");
}
