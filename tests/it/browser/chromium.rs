//! A real Chromium without a window, driven by its debugging protocol: JSON over a web socket.
//!
//! Everything that the page says on the console, every exception and every request is kept, so that a test
//! can ask for none.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use base64::Engine as _;
use futures_util::{SinkExt, StreamExt};
use jetcopy::testbed::spawn_tied;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{PATIENCE, eventually};

/// Where to look for the program, besides `$JETCOPY_CHROMIUM`.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// It runs as root and in containers, asks its maker for nothing, and keeps to its own profile.
const ARGUMENTS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
    "about:blank",
];

/// A browser with one tab. It is killed when the value is dropped.
pub(super) struct Chromium {
    child: Child,
    _profile: TempDir,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    calls: u64,
    /// What the page said on the console, and what the browser said about it.
    pub(super) complaints: Vec<Value>,
    /// The addresses that were asked for.
    pub(super) requests: Vec<String>,
}

impl Chromium {
    pub(super) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let child = spawn_tied(&program(), None, Signal::SIGKILL, |command| {
            command.arg(format!("--user-data-dir={}", profile.path().display())).args(ARGUMENTS);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        });
        let child = child.unwrap();
        let port_file = profile.path().join("DevToolsActivePort");
        let said = || std::fs::read_to_string(&port_file).unwrap_or_default();
        eventually("Chromium to listen", || async { said().lines().count() == 2 }).await;
        let (port, path) =
            said().split_once('\n').map(|(port, path)| (port.to_owned(), path.to_owned())).unwrap();
        let (socket, _) = connect_async(format!("ws://127.0.0.1:{port}{}", path.trim())).await.unwrap();
        let mut browser = Self {
            child,
            _profile: profile,
            socket,
            session: String::new(),
            calls: 0,
            complaints: Vec::new(),
            requests: Vec::new(),
        };
        let tab = browser.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": tab["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await;
        attached["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Calls a method of the protocol and returns its result; events that come meanwhile are kept.
    pub(super) async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut request = json!({"id": self.calls, "method": method, "params": parameters});
        if !self.session.is_empty() {
            request["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(request.to_string())).await.unwrap();
        loop {
            let answer = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            let answer = answer.unwrap_or_else(|_| panic!("Chromium does not answer {method}"));
            let Message::Text(text) = answer.expect("Chromium has ended").unwrap() else { continue };
            let mut answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == json!(self.calls) {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].take();
            }
            self.keep(answer);
        }
    }

    fn keep(&mut self, event: Value) {
        match event["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                self.requests.push(event["params"]["request"]["url"].as_str().unwrap().to_owned());
            }
            Some("Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded") => {
                self.complaints.push(event);
            }
            _ => {}
        }
    }

    pub(super) async fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({"url": address})).await;
    }

    /// As a screen of that size shows it.
    pub(super) async fn resize(&mut self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// As somebody sees it who prefers `scheme`.
    pub(super) async fn prefer(&mut self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// What an expression comes to in the page.
    pub(super) async fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", parameters).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true in the page.
    pub(super) async fn until(&mut self, what: &str, expression: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.evaluate(&format!("Boolean({expression})")).await != json!(true) {
            if tokio::time::Instant::now() > deadline {
                let page = self.evaluate("document.body.innerText").await;
                panic!("waited {PATIENCE:?} in vain for {what}; the page says:\n{}", page.as_str().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Keeps a picture of the whole page below `target/`, for people.
    pub(super) async fn picture(&mut self, name: &str) {
        let parameters = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", parameters).await;
        let png =
            base64::engine::general_purpose::STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name).with_extension("png"), png).unwrap();
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("JETCOPY_CHROMIUM") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = NAMES.iter().find_map(|name| {
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
    });
    found.expect("no Chromium on this machine: run `scripts/setup.sh browser`, or set JETCOPY_CHROMIUM")
}
