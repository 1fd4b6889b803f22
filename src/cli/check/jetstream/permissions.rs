//! What the user may publish and subscribe to, as the server tells it.

use std::time::Duration;

use serde::Deserialize;

use crate::config::Pipeline;
use crate::shard::Shard;
use crate::subject::{covers, overlap};

/// The server's answer about the user who asks; servers before 2.9, and users who may not ask, get none.
const USER_INFO: &str = "$SYS.REQ.USER.INFO";

/// What a user may do.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Permissions {
    #[serde(default)]
    publish: Subjects,
    #[serde(default)]
    subscribe: Subjects,
}

/// Subjects that are allowed, all where there is none, and those that are denied all the same.
#[derive(Debug, Default, Deserialize)]
struct Subjects {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
}

impl Subjects {
    fn permit(&self, subject: &str) -> bool {
        let allowed = self.allow.is_empty() || self.allow.iter().any(|allowed| covers(allowed, subject));
        allowed && !self.deny.iter().any(|denied| overlap(denied, subject))
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    data: Option<Data>,
}

#[derive(Debug, Deserialize)]
struct Data {
    permissions: Option<Permissions>,
}

impl Permissions {
    /// Asks the server; `None` where it does not tell.
    pub(super) async fn ask(client: &async_nats::Client, timeout: Duration) -> Option<Self> {
        let answer = tokio::time::timeout(timeout, client.request(USER_INFO, "".into())).await.ok()?.ok()?;
        Self::read(&answer.payload)
    }

    fn read(answer: &[u8]) -> Option<Self> {
        let answer: Answer = serde_json::from_slice(answer).ok()?;
        answer.data?.permissions
    }

    /// What `shard` of `pipeline` needs and the user may not do; replies come in below `inbox_prefix`.
    pub(super) fn missing(&self, pipeline: &Pipeline, shard: &Shard, inbox_prefix: &str) -> Vec<String> {
        let (stream, durable) = (&shard.stream, &shard.durable);
        let mut create = format!("$JS.API.CONSUMER.CREATE.{stream}.{durable}");
        if let [subject] = pipeline.subjects.as_slice() {
            create = create + "." + subject;
        }
        let publish = [
            format!("$JS.API.STREAM.INFO.{stream}"),
            format!("$JS.API.STREAM.MSG.GET.{stream}"),
            create,
            format!("$JS.API.CONSUMER.INFO.{stream}.{durable}"),
            format!("$JS.API.CONSUMER.RESET.{stream}.{durable}"),
            format!("$JS.API.CONSUMER.DELETE.{stream}.{durable}"),
            format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"),
            format!("$JS.ACK.{stream}.{durable}.>"),
        ];
        let inbox = format!("{inbox_prefix}.>");
        let publish = publish.into_iter().filter(|subject| !self.publish.permit(subject));
        let subscribe = [inbox].into_iter().filter(|subject| !self.subscribe.permit(subject));
        publish
            .map(|subject| format!("publish to {subject}"))
            .chain(subscribe.map(|subject| format!("subscribe to {subject}")))
            .collect()
    }
}
