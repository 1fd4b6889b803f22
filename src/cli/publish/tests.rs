use std::io::Write;

use async_nats::jetstream;
use clap::{FromArgMatches, Parser};
use tempfile::NamedTempFile;

use super::*;
use crate::private::PrivateNats;

async fn stream_of(nats: &PrivateNats, name: &str) -> jetstream::stream::Stream {
    let config = jetstream::stream::Config {
        name: name.into(),
        subjects: vec![format!("{name}.>")],
        ..Default::default()
    };
    jetstream::new(async_nats::connect(nats.url()).await.unwrap()).create_stream(config).await.unwrap()
}

fn args(nats: &PrivateNats, file: &NamedTempFile, subject: &str, more: &[&str]) -> PublishArgs {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: PublishArgs,
    }
    let url = nats.url();
    let path = file.path().to_str().unwrap();
    let words = ["publish", "--nats", &url, subject, path];
    let matches = <Cli as clap::CommandFactory>::command().get_matches_from(words.iter().chain(more));
    Cli::from_arg_matches(&matches).unwrap().args
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn records_become_messages_with_subject_headers_and_id() {
    let nats = PrivateNats::shared().unwrap();
    let stream = stream_of(&nats, "CLI").await;
    let input = file("camera,n,note\ngate,1,\nyard,2,wet\n");
    let more = ["--input", "csv", "--format", "json", "--header", "X-Site=north", "--msg-id-field", "n"];
    let summary = run(args(&nats, &input, "CLI.{camera}.frames", &more)).await.unwrap();
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
async fn a_bad_record_stops_the_run_by_its_line_after_what_came_before_it() {
    let nats = PrivateNats::shared().unwrap();
    let mut stream = stream_of(&nats, "STOP").await;
    let input = file("{\"n\":1}\n{\"n\":2}\nnot json\n{\"n\":4}\n");
    let error = run(args(&nats, &input, "STOP.a", &[])).await.unwrap_err();
    assert!(matches!(&error, Error::Record { bad, published: 2, .. } if bad.line == 3), "{error:?}");
    assert_eq!(stream.info().await.unwrap().state.messages, 2);
}

#[tokio::test]
async fn skip_bad_publishes_the_rest_and_counts_what_it_skipped() {
    let nats = PrivateNats::shared().unwrap();
    let stream = stream_of(&nats, "SKIP").await;
    let input = file("{\"n\":1}\nnot json\n{\"m\":3}\n{\"n\":4}\n");
    let summary = run(args(&nats, &input, "SKIP.{n}", &["--skip-bad"])).await.unwrap();
    assert_eq!((summary.published.messages, summary.skipped), (2, 2));
    let payload = stream.get_raw_message(2).await.unwrap().payload;
    let value: serde_json::Value = rmp_serde::from_slice(&payload).unwrap();
    assert_eq!(value, serde_json::json!({"n": 4}));
}
