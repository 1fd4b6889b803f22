//! What the daemon shows over HTTP.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::Daemon;

/// Causes of a resync that a busy machine brings about by itself: an answer that did not come in time.
pub(crate) const SLOW: [&str; 3] = ["database", "heartbeat", "jetstream"];

impl Daemon {
    /// Where its page is; it must have started to serve.
    pub(crate) fn address(&self) -> String {
        format!("http://{}/", self.http_address())
    }

    /// Host and port of that.
    pub(crate) fn http_address(&self) -> String {
        let log = self.log();
        log.split("http=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap().to_owned()
    }

    /// The status code and the body that `path` answers; the daemon must have started to serve.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.get_as(path, "")
    }

    /// The same with a token.
    pub(crate) fn get_as(&self, path: &str, token: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http_address()).unwrap();
        let host = self.http_address();
        let head = format!("Host: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close");
        write!(stream, "GET {path} HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// What `/status` says of the only pipeline.
    pub(crate) fn status(&self) -> Value {
        let body: Value = serde_json::from_str(&self.get("/status").1).unwrap();
        body["pipelines"][0].clone()
    }

    /// How often each cause began a generation, over all pipelines, but for their start.
    pub(crate) fn resyncs(&self) -> BTreeMap<String, i64> {
        let mut causes = BTreeMap::new();
        let metrics = self.get("/metrics").1;
        for line in metrics.lines().filter(|line| line.starts_with("jetcopy_resyncs_total{")) {
            let cause = line.split("cause=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            let count: i64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            *causes.entry(cause.to_owned()).or_insert(0) += count;
        }
        causes.retain(|cause, count| cause != "start" && *count > 0);
        causes
    }

    /// That no generation began anew but for what a test cannot keep away: an answer that did not come in
    /// time on a busy machine, or a session of a killed daemon that the database had not noticed yet.
    pub(crate) fn needed_no_resync(&self) {
        let mut causes = self.resyncs();
        causes.retain(|cause, _| cause != "held" && !SLOW.contains(&cause.as_str()));
        assert!(causes.is_empty(), "{causes:?}; its log:\n{}", self.log());
    }

    /// The value of a metric with one pipeline; `label` picks the series (`cause="nats"`), empty for the only
    /// one. A series that has not been counted yet is 0.
    pub(crate) fn metric(&self, name: &str, label: &str) -> i64 {
        let metrics = self.get("/metrics").1;
        let series = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') && rest.contains(label))
        };
        metrics.lines().find(series).map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}
