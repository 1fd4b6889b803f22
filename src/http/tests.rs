//! What the endpoints answer, asked over a real socket.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::shard::Shard;
use crate::status::PipelineStatus;
use crate::status::State;

/// A server on a free port with one pipeline, unless `empty`.
struct Running {
    address: SocketAddr,
    metrics: Metrics,
    registry: Registry,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        Self::start_with(None).await
    }

    async fn start_with(token: Option<PathBuf>) -> Self {
        let metrics = Metrics::new();
        let registry = Registry::default();
        let server = Server::bind(&settings(([127, 0, 0, 1], 0).into(), token), None).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.serve(metrics.clone(), registry.clone(), async {
            stopped.await.unwrap();
        }));
        Self { address, metrics, registry, stop, task }
    }

    fn add(&self, name: &str, shard: &str) -> Arc<PipelineStatus> {
        let handles = self.metrics.pipeline(&Shard::new(name, shard, "FRAMES"), &["frame_metadata"]);
        self.registry.add(&Shard::new(name, shard, "FRAMES"), handles)
    }

    /// Status code, headers and body of the answer to a GET.
    async fn get(&self, path: &str) -> (u16, String, String) {
        self.get_with(path, "").await
    }

    /// The same with that `Authorization`.
    async fn get_with(&self, path: &str, authorization: &str) -> (u16, String, String) {
        let host = self.address;
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n")).await
    }

    /// The same by that name.
    async fn get_by(&self, host: &str, path: &str) -> (u16, String, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n")).await
    }

    /// The answer to a request with that head.
    async fn send(&self, head: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{head}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, head.to_owned(), body.to_owned())
    }
}

fn settings(listen: SocketAddr, token_file: Option<PathBuf>) -> config::Http {
    config::Http { listen, token_file, api: None }
}

#[tokio::test]
async fn without_the_token_only_the_bare_health_is_told() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "a-token-of-some-length").unwrap();
    let server = Running::start_with(Some(token.path().to_owned())).await;
    let frames = server.add("frames", "frames");
    for path in ["/", "/metrics", "/status", "/status/history"] {
        let (code, head, body) = server.get(path).await;
        assert_eq!((code, body.as_str()), (401, "token required\n"), "{path}");
        assert!(head.to_lowercase().contains("www-authenticate: basic"), "{head}");
        assert_eq!(server.get_with(path, "Bearer a-token-of-some-length").await.0, 200, "{path}");
        assert_eq!(server.get_with(path, "Bearer another-token-of-such").await.0, 401, "{path}");
    }
    assert_eq!(server.get("/healthz").await.0, 200);
    frames.set_state(State::Paused { reason: "no such table".into(), remedy: "run jetcopy migrate".into() });
    let (code, _, body) = server.get("/readyz").await;
    assert_eq!((code, body.as_str()), (503, "not ready\n"));
    let (_, _, body) = server.get_with("/readyz", "Bearer a-token-of-some-length").await;
    assert_eq!(body, "frames: paused: no such table; run jetcopy migrate\n");
    frames.set_state(State::Running);
    assert_eq!(server.get("/readyz").await.2, "ready\n");
}

#[tokio::test]
async fn a_page_that_points_its_own_name_at_the_daemon_reads_no_more_than_the_bare_health() {
    let server = Running::start().await;
    let frames = server.add("frames", "frames");
    frames.set_state(State::Paused { reason: "no such table".into(), remedy: "run jetcopy migrate".into() });
    for path in ["/", "/metrics", "/status", "/status/history"] {
        let (code, _, body) = server.get_by("evil.example:9464", path).await;
        assert_eq!(code, 403, "{path}");
        assert!(body.contains("http.token_file") && !body.contains("frames"), "{path}: {body}");
        assert_eq!(server.get_by("localhost:9464", path).await.0, 200, "{path}");
    }
    assert_eq!(server.get_by("evil.example:9464", "/healthz").await.0, 200);
    let (code, _, body) = server.get_by("evil.example:9464", "/readyz").await;
    assert_eq!((code, body.as_str()), (503, "not ready\n"));
}

#[tokio::test]
async fn with_a_token_any_name_will_do() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "a-token-of-some-length").unwrap();
    let server = Running::start_with(Some(token.path().to_owned())).await;
    let head =
        "GET /status HTTP/1.1\r\nHost: jetcopy:9464\r\nAuthorization: Bearer a-token-of-some-length\r\n";
    assert_eq!(server.send(head).await.0, 200);
}

#[tokio::test]
async fn readiness_needs_every_pipeline_running_and_says_what_is_not() {
    let server = Running::start().await;
    assert_eq!(server.get("/readyz").await.0, 503);
    let frames = server.add("frames", "frames");
    frames.set_state(State::Running);
    let (code, _, body) = server.get("/readyz").await;
    assert_eq!((code, body.as_str()), (200, "frames: running\n"));
    let events = server.add("events", "events-1");
    events.set_state(State::Paused { reason: "no such table".into(), remedy: "run jetcopy migrate".into() });
    let (code, _, body) = server.get("/readyz").await;
    assert_eq!(code, 503);
    assert_eq!(
        body,
        "frames: running\nevents (shard events-1): paused: no such table; run jetcopy migrate\n"
    );
    assert_eq!(server.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn metrics_and_status_show_the_same_numbers() {
    let server = Running::start().await;
    let handles = server.metrics.pipeline(&Shard::new("frames", "frames", "FRAMES"), &["frame_metadata"]);
    server.add("frames", "frames");
    handles.messages.inc_by(41);
    let (code, head, body) = server.get("/metrics").await;
    assert_eq!(code, 200);
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(body.contains(r#"jetcopy_messages_total{pipeline="frames",shard="frames",stream="FRAMES"} 41"#));
    let (code, _, body) = server.get("/status").await;
    assert_eq!(code, 200);
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pipelines"][0]["messages"], 41);
    assert_eq!(status["pipelines"][0]["state"], "starting");
}

#[tokio::test]
async fn the_page_runs_nothing_but_its_own_and_nobody_keeps_or_frames_it() {
    let server = Running::start().await;
    let (code, head, body) = server.get("/").await;
    assert_eq!(code, 200);
    assert!(body.starts_with("<!doctype html>"), "{body}");
    for header in [
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "frame-ancestors 'none'",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
    ] {
        assert!(head.contains(header), "{header} is not in {head}");
    }
}

#[tokio::test]
async fn the_history_begins_with_the_server_and_is_told_from_any_sample_on() {
    let server = Running::start().await;
    server.add("frames", "frames");
    let history = async |path: &str| -> serde_json::Value {
        let (code, _, body) = server.get(path).await;
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    assert_eq!(history("/status/history").await["every_seconds"], 5.0);
    let next = history("/status/history?after=0").await["next"].as_u64().unwrap();
    // A sample may be taken at any moment: it is told, and none before it.
    let later = history(&format!("/status/history?after={next}")).await;
    let taken = later["next"].as_u64().unwrap() - next;
    let told = later["pipelines"].as_array().unwrap();
    assert!(told.iter().all(|series| series["running"].as_array().unwrap().len() as u64 == taken), "{later}");
    for wrong in ["?after=soon", "?before=3", "?after=-1"] {
        assert_eq!(server.get(&format!("/status/history{wrong}")).await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn status_tells_what_a_pipeline_did_lately() {
    let server = Running::start().await;
    server.add("frames", "frames").set_state(State::Running);
    let status: serde_json::Value = serde_json::from_str(&server.get("/status").await.2).unwrap();
    let pipeline = &status["pipelines"][0];
    assert_eq!(pipeline["recent"]["limited_by"], serde_json::Value::Null);
    assert_eq!(pipeline["headroom_seconds"], serde_json::Value::Null, "nothing is foreseen");
    assert_eq!(pipeline["newest_dead_letters"], serde_json::json!([]));
    assert!(status["now"].as_str() >= status["started"].as_str());
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_its_setting() {
    let server = Running::start().await;
    let error = Server::bind(&settings(server.address, None), None).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot listen on {}; choose another address with http.listen", server.address)
    );
}

#[tokio::test]
async fn shutdown_ends_the_server_and_frees_its_address() {
    let server = Running::start().await;
    assert_eq!(server.get("/healthz").await.0, 200);
    server.stop.send(()).unwrap();
    server.task.await.unwrap();
    assert!(Server::bind(&settings(server.address, None), None).await.is_ok());
}
