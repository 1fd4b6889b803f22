//! Slow and idle clients cannot keep others out.

use std::net::SocketAddr;

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

/// Soon for a client that keeps silent, and long beside an answer.
const SOON: Duration = Duration::from_millis(300);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: jetcopy\r\n\r\n";

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let router = Router::new().route("/", get(|| async { "well" }));
        let task = tokio::spawn(async move {
            serve(&listener, router, limits, async { drop(stopped.await) }).await;
        });
        Self { address, stop, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// What comes until the server ends the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A server that closes what it did not read to the end resets the connection; what came before counts.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

/// One answer on a connection that is kept.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"well") {
        assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0, "the connection has ended");
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_head_that_does_not_arrive_ends_the_connection() {
    let server = Running::start(Limits { head_timeout: SOON, ..Limits::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(&REQUEST[..20]).await.unwrap();
    assert!(!rest(&mut stream).await.contains("200 OK"));
}

#[tokio::test]
async fn a_kept_connection_that_asks_no_more_is_ended() {
    let server = Running::start(Limits { head_timeout: SOON, ..Limits::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(REQUEST).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
    assert!(!rest(&mut stream).await.contains("200 OK"));
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Running::start(Limits::default()).await;
    let mut stream = server.connect().await;
    let cookie = "x".repeat(Limits::default().head_bytes);
    let request = format!("GET / HTTP/1.1\r\nHost: jetcopy\r\nCookie: {cookie}\r\n\r\n");
    // It may be refused before all of it is sent, and the reset for the rest may outrun the answer.
    let _ = stream.write_all(request.as_bytes()).await;
    let refusal = rest(&mut stream).await;
    assert!(refusal.is_empty() || refusal.starts_with("HTTP/1.1 431"), "{refusal}");

    let mut stream = server.connect().await;
    let lines = "X: y\r\n".repeat(Limits::default().head_lines);
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: jetcopy\r\n{lines}\r\n").as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn a_connection_ends_after_its_life_also_when_it_keeps_asking() {
    let server = Running::start(Limits { life: SOON, ..Limits::default() }).await;
    let mut stream = server.connect().await;
    let asking = async {
        loop {
            stream.write_all(REQUEST).await?;
            let mut answer = [0; 1_024];
            if stream.read(&mut answer).await? == 0 {
                return Ok::<_, io::Error>(());
            }
        }
    };
    let _ = timeout(100 * SOON, asking).await.expect("it lives on");
}

#[tokio::test]
async fn hundreds_of_connections_that_send_half_a_head_keep_nobody_out() {
    let server = Running::start(Limits::default()).await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        let mut stream = server.connect().await;
        stream.write_all(&REQUEST[..20]).await.unwrap();
        silent.push(stream);
    }
    let mut asking = server.connect().await;
    asking.write_all(REQUEST).await.unwrap();
    let answered = timeout(Limits::default().head_timeout / 2, answer(&mut asking)).await;
    assert!(answered.expect("it is kept out").starts_with("HTTP/1.1 200 OK"));
    // The oldest went first, and the latest are there.
    assert_eq!(rest(&mut silent[0]).await, "");
    let latest = silent.last_mut().unwrap();
    latest.write_all(&REQUEST[20..]).await.unwrap();
    assert!(answer(latest).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_stop_ends_kept_connections_and_then_the_server() {
    let server = Running::start(Limits::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(REQUEST).await.unwrap();
    answer(&mut stream).await;
    server.stop.send(()).unwrap();
    timeout(100 * SOON, server.task).await.expect("it goes on").unwrap();
    assert_eq!(rest(&mut stream).await, "");
}
