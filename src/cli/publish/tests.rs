//! Records become messages, and the first bad one stops the run.

use std::io::Write;

use async_nats::jetstream;
use clap::Parser;
use tempfile::NamedTempFile;

use super::*;
use crate::payload::expand::Expander;
use crate::testbed::TestNats;

async fn stream_of(nats: &TestNats, name: &str) -> jetstream::stream::Stream {
    let config = jetstream::stream::Config {
        name: name.into(),
        subjects: vec![format!("{name}.>")],
        ..Default::default()
    };
    jetstream::new(async_nats::connect(nats.url()).await.unwrap()).create_stream(config).await.unwrap()
}

async fn publish(nats: &TestNats, subject: &str, input: &str, flags: &[&str]) -> Result<Summary, Error> {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    let words = ["publish", subject, file.path().to_str().unwrap()];
    let settings = config::Nats { url: nats.url(), ..Default::default() };
    run(&settings, &Cli::parse_from(words.iter().chain(flags)).args).await
}

#[tokio::test]
async fn records_become_messages_with_subject_headers_and_id() {
    let nats = TestNats::shared().unwrap();
    let stream = stream_of(&nats, "CLI").await;
    let flags = ["--input", "csv", "--format", "json", "--header", "X-Site=north", "--msg-id-field", "n"];
    let summary =
        publish(&nats, "CLI.{camera}.frames", "camera,n,note\ngate,1,\nyard,2,wet\n", &flags).await.unwrap();
    assert_eq!(summary, Summary { published: Published { messages: 2, duplicates: 0 }, skipped: 0 });
    let message = stream.get_raw_message(2).await.unwrap();
    assert_eq!(message.subject.as_str(), "CLI.yard.frames");
    let header = |name: &str| message.headers.get(name).map(|value| value.as_str().to_owned());
    assert_eq!(header("Content-Type").as_deref(), Some("application/json"));
    assert_eq!(header("X-Site").as_deref(), Some("north"));
    assert_eq!(header("Nats-Msg-Id").as_deref(), Some("2"));
    let value: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(value, serde_json::json!({"camera": "yard", "n": 2, "note": "wet"}));
}

#[tokio::test]
async fn a_content_type_that_is_given_takes_the_place_of_ours_however_it_is_spelled() {
    let nats = TestNats::shared().unwrap();
    let stream = stream_of(&nats, "TYPED").await;
    publish(&nats, "TYPED.a", "{\"n\":1}\n", &["--header", "content-type=text/x-json"]).await.unwrap();
    let headers = stream.get_raw_message(1).await.unwrap().headers;
    assert!(headers.get("Content-Type").is_none());
    assert_eq!(headers.get("content-type").map(HeaderValue::as_str), Some("text/x-json"));
}

#[tokio::test]
async fn a_bad_record_stops_the_run_by_its_line_after_what_came_before_it() {
    let nats = TestNats::shared().unwrap();
    let mut stream = stream_of(&nats, "STOP").await;
    let input = "{\"n\":1}\n{\"n\":2}\nnot json\n{\"n\":4}\n";
    let error = publish(&nats, "STOP.a", input, &[]).await.unwrap_err();
    assert!(matches!(&error, Error::Record { bad, published: 2, .. } if bad.line == 3), "{error:?}");
    assert_eq!(stream.info().await.unwrap().state.messages, 2);
}

#[tokio::test]
async fn skip_bad_publishes_the_rest_and_counts_what_it_skipped() {
    let nats = TestNats::shared().unwrap();
    let stream = stream_of(&nats, "SKIP").await;
    let input = "{\"n\":1}\nnot json\n{\"m\":3}\n{\"n\":4}\n";
    let summary = publish(&nats, "SKIP.{n}", input, &["--skip-bad"]).await.unwrap();
    assert_eq!((summary.published.messages, summary.skipped), (2, 2));
    let payload = stream.get_raw_message(2).await.unwrap().payload;
    let value: serde_json::Value = rmp_serde::from_slice(&payload).unwrap();
    assert_eq!(value, serde_json::json!({"n": 4}));
}

#[tokio::test]
async fn a_compressed_message_says_how_and_expands_to_the_record() {
    let nats = TestNats::shared().unwrap();
    let stream = stream_of(&nats, "SMALL").await;
    let record = format!("{{\"n\":\"{}\"}}", "a".repeat(1_000));
    for (sequence, codec) in (1..).zip(Codec::ALL) {
        let flags = ["--format", "json", "--compress", codec.name()];
        publish(&nats, "SMALL.a", &record, &flags).await.unwrap();
        let message = stream.get_raw_message(sequence).await.unwrap();
        let encoding = message.headers.get(Compression::HEADER).map(HeaderValue::as_str);
        assert_eq!(encoding, Some(codec.name()));
        assert!(message.payload.len() < 100, "{codec:?}: {} bytes", message.payload.len());
        let expanded = Expander::new(2_000).expand(codec, &message.payload).map(<[u8]>::to_vec);
        assert_eq!(expanded.as_deref(), Ok(record.as_bytes()));
    }
}
