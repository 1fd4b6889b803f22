//! One stream into several: what is to be made and mapped, and whether the mapping is in force.
//!
//! Guarantees: streams are made, and nothing is ever changed or removed, neither of the old stream nor of one
//! that is there already. What is stored has the subject that it was published on. Looking at the mapping
//! stores nothing: its messages expect a stream that cannot exist, so that every stream refuses them and says
//! its name.
//!
//! Not done: the mapping itself. It is part of the account, which belongs to the operator of NATS.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamError, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, SubjectTransform};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, HeaderMap, Request};
use serde::Deserialize;

/// The header by which a publisher says which stream it means.
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";

/// A name that no stream can have.
const NO_STREAM: &str = "jetcopy.split.check";

/// How long a stream may take to refuse a message.
const ANSWER: Duration = Duration::from_secs(5);

/// Test messages for each shard: with so many subjects, one look in a million would find no message for one
/// of sixteen shards.
const LOOKS: u32 = 16;

/// How a stream is to be split.
#[derive(Debug, Clone)]
pub(crate) struct Split {
    /// The stream.
    pub stream: String,
    /// What it takes, with a wildcard for each token that differs.
    pub subjects: String,
    /// The wildcards that decide, from 1.
    pub by: Vec<usize>,
    /// How many streams it is split into.
    pub into: u16,
}

/// What is wrong about how it is to be split.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// No subject.
    #[error("`{0}` is not a subject, such as frames.*")]
    Subject(String),
    /// A wildcard that is not there.
    #[error("--by {0}: `{1}` has {2} wildcards `*`, which are counted from 1")]
    Wildcard(usize, String, usize),
    /// No wildcard.
    #[error("--by needs a wildcard `*` of the subject")]
    Nothing,
}

/// Why it cannot be split, or looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The stream cannot be looked at.
    #[error("cannot look at stream {stream}")]
    Look { stream: String, source: GetStreamError },
    /// What the stream holds is not what is published to it.
    #[error("stream {0} is a mirror, has sources, or changes subjects by itself: split what it is made of")]
    Derived(String),
    /// The stream has been sealed.
    #[error("stream {0} is sealed: nothing is published to it any more")]
    Sealed(String),
    /// There is another stream of that name.
    #[error("stream {name} exists and takes {found}, not {wanted}: remove it, or split under another name")]
    Other { name: String, found: String, wanted: String },
    /// The server refuses.
    #[error("cannot create stream {name}")]
    Create { name: String, source: CreateStreamError },
    /// Nothing is known of the mapping.
    #[error("cannot look where messages on {subject} go")]
    Ask { subject: String, source: async_nats::RequestError },
}

/// A stream of one shard.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub config: Config,
    /// Whether it is there already.
    pub exists: bool,
}

/// Where messages go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// Test messages by the stream that took them.
    pub streams: BTreeMap<String, u32>,
    /// How many no stream took.
    pub nowhere: u32,
}

impl Split {
    /// Refuses what cannot be mapped.
    pub(crate) fn check(&self) -> Result<(), Wrong> {
        let tokens: Vec<&str> = self.subjects.split('.').collect();
        let whole = |(index, token): (usize, &&str)| match *token {
            "" => false,
            "*" => true,
            ">" => index + 1 == tokens.len(),
            _ => !token.contains(['*', '>', ' ', '{', '}', '$']),
        };
        if !tokens.iter().enumerate().all(whole) {
            return Err(Wrong::Subject(self.subjects.clone()));
        }
        let wildcards = tokens.iter().filter(|token| **token == "*").count();
        if let Some(by) = self.by.iter().find(|by| !(1..=wildcards).contains(*by)) {
            return Err(Wrong::Wildcard(*by, self.subjects.clone(), wildcards));
        }
        if self.by.is_empty() { Err(Wrong::Nothing) } else { Ok(()) }
    }

    /// The names of the streams.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.into).map(|number| format!("{}_{number}", self.stream))
    }

    /// What a message's subject becomes on its way; each stream gets it back as it was.
    pub(crate) fn mapped(&self) -> String {
        let by: Vec<String> = self.by.iter().map(usize::to_string).collect();
        format!("{}.{{{{partition({},{})}}}}.{}", self.stream, self.into, by.join(","), self.restored())
    }

    /// The subjects, with each wildcard by its number.
    fn restored(&self) -> String {
        let mut number = 0;
        let token = |token: &str| {
            if token != "*" {
                return token.to_owned();
            }
            number += 1;
            format!("{{{{wildcard({number})}}}}")
        };
        self.subjects.split('.').map(token).collect::<Vec<_>>().join(".")
    }

    /// The stream of a shard, like `old` in all but name and subjects. Limits of the stream as a whole are
    /// divided.
    fn part(&self, old: &Config, number: u16) -> Config {
        let taken = format!("{}.{number}.{}", self.stream, self.subjects);
        let share = |limit: i64| if limit > 0 { (limit - 1) / i64::from(self.into) + 1 } else { limit };
        Config {
            name: format!("{}_{number}", self.stream),
            subjects: vec![taken.clone()],
            subject_transform: Some(SubjectTransform { source: taken, destination: self.restored() }),
            max_bytes: share(old.max_bytes),
            max_messages: share(old.max_messages),
            first_sequence: None,
            ..old.clone()
        }
    }

    /// The account's mapping, for a server's configuration file.
    pub(crate) fn server_file(&self) -> String {
        format!("mappings: {{\n  \"{}\": \"{}\"\n}}", self.subjects, self.mapped())
    }

    /// The same for an account with a JWT.
    pub(crate) fn nsc(&self) -> String {
        format!("nsc add mapping --from '{}' --to '{}'", self.subjects, self.mapped())
    }

    /// What that becomes in the account's claims.
    pub(crate) fn claims(&self) -> String {
        serde_json::json!({
            "nats": {"mappings": {self.subjects.clone(): [{"subject": self.mapped(), "weight": 100}]}}
        })
        .to_string()
    }

    /// A subject that the mapping is for.
    fn sample(&self, number: u32) -> String {
        let token = |token: &str| match token {
            "*" | ">" => format!("jetcopy-split-{number}"),
            token => token.to_owned(),
        };
        self.subjects.split('.').map(token).collect::<Vec<_>>().join(".")
    }
}

/// The streams that there are to be. Without the old one, they are as the server makes them, on file storage.
pub(crate) async fn plan(client: &Client, split: &Split) -> Result<(Option<Config>, Vec<Part>), Error> {
    let context = jetstream::new(client.clone());
    let old = found(&context, &split.stream).await?;
    if let Some(old) = &old {
        let sources = old.sources.as_ref().is_some_and(|sources| !sources.is_empty());
        if old.mirror.is_some() || sources || old.subject_transform.is_some() {
            return Err(Error::Derived(split.stream.clone()));
        }
        if old.sealed {
            return Err(Error::Sealed(split.stream.clone()));
        }
    }
    let like = old.clone().unwrap_or_default();
    let mut parts = Vec::new();
    for number in 0..split.into {
        let config = split.part(&like, number);
        let there = found(&context, &config.name).await?;
        if let Some(there) = &there
            && (there.subjects != config.subjects || there.subject_transform != config.subject_transform)
        {
            let (name, wanted) = (config.name.clone(), config.subjects.join(", "));
            return Err(Error::Other { name, found: there.subjects.join(", "), wanted });
        }
        parts.push(Part { exists: there.is_some(), config });
    }
    Ok((old, parts))
}

async fn found(context: &jetstream::Context, name: &str) -> Result<Option<Config>, Error> {
    match context.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().config.clone())),
        Err(error)
            if matches!(error.kind(), GetStreamErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::STREAM_NOT_FOUND) =>
        {
            Ok(None)
        }
        Err(source) => Err(Error::Look { stream: name.to_owned(), source }),
    }
}

/// Makes the stream of a shard.
pub(crate) async fn create(client: &Client, part: &Part) -> Result<(), Error> {
    let context = jetstream::new(client.clone());
    let created = context.create_stream(part.config.clone()).await;
    created.map(drop).map_err(|source| Error::Create { name: part.config.name.clone(), source })
}

/// What a stream answers to a message that it refuses.
#[derive(Debug, Deserialize)]
struct Refusal {
    #[serde(default)]
    stream: String,
}

/// Finds out which streams take what is published to the subjects now.
pub(crate) async fn routes(client: &Client, split: &Split) -> Result<Routes, Error> {
    let mut routes = Routes::default();
    for number in 0..u32::from(split.into) * LOOKS {
        let subject = split.sample(number);
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED_STREAM, NO_STREAM);
        let request = Request::new().headers(headers).timeout(Some(ANSWER));
        match client.send_request(subject.clone(), request).await {
            Ok(answer) => {
                let refusal: Option<Refusal> = serde_json::from_slice(&answer.payload).ok();
                match refusal.filter(|refusal| !refusal.stream.is_empty()) {
                    Some(Refusal { stream }) => *routes.streams.entry(stream).or_insert(0) += 1,
                    None => routes.nowhere += 1,
                }
            }
            Err(error) if error.kind() == async_nats::RequestErrorKind::NoResponders => routes.nowhere += 1,
            Err(source) => return Err(Error::Ask { subject, source }),
        }
    }
    Ok(routes)
}

impl Routes {
    /// What keeps the shards from getting everything; `None` where each gets its part.
    pub(crate) fn trouble(&self, split: &Split) -> Option<String> {
        let names: Vec<String> = split.names().collect();
        let total = self.nowhere + self.streams.values().sum::<u32>();
        let mut wrong = String::new();
        for (stream, count) in self.streams.iter().filter(|(stream, _)| !names.contains(stream)) {
            // Writing to a string cannot fail.
            let _ = write!(wrong, "{count} of {total} test messages would go to stream {stream}; ");
        }
        if self.nowhere > 0 {
            let _ = write!(wrong, "no stream takes {} of {total} test messages; ", self.nowhere);
        }
        let idle: Vec<&String> = names.iter().filter(|name| !self.streams.contains_key(*name)).collect();
        if wrong.is_empty() && !idle.is_empty() {
            let _ = write!(wrong, "no test message goes to {idle:?}; ");
        }
        (!wrong.is_empty()).then(|| wrong.trim_end_matches("; ").to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(subjects: &str, by: &[usize]) -> Split {
        Split { stream: "FRAMES".into(), subjects: subjects.into(), by: by.to_vec(), into: 16 }
    }

    #[test]
    fn the_mapping_has_the_partition_and_each_stream_gives_the_subject_back() {
        let one = split("frames.*", &[1]);
        assert_eq!(one.mapped(), "FRAMES.{{partition(16,1)}}.frames.{{wildcard(1)}}");
        let part = one.part(&Config { max_bytes: 100, max_messages: -1, ..Config::default() }, 3);
        assert_eq!(
            (part.name.as_str(), part.subjects.as_slice()),
            ("FRAMES_3", &["FRAMES.3.frames.*".into()][..])
        );
        let transform = part.subject_transform.unwrap();
        assert_eq!(
            (transform.source.as_str(), transform.destination.as_str()),
            ("FRAMES.3.frames.*", "frames.{{wildcard(1)}}")
        );
        assert_eq!((part.max_bytes, part.max_messages), (7, -1));
        let more = split("a.*.b.*.>", &[2, 1]);
        assert_eq!(more.mapped(), "FRAMES.{{partition(16,2,1)}}.a.{{wildcard(1)}}.b.{{wildcard(2)}}.>");
    }

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        assert_eq!(split("frames.*", &[1]).check(), Ok(()));
        assert_eq!(split("a.*.>", &[1]).check(), Ok(()));
        assert_eq!(split("frames.*", &[]).check(), Err(Wrong::Nothing));
        assert_eq!(split("frames.*", &[2]).check(), Err(Wrong::Wildcard(2, "frames.*".into(), 1)));
        for subject in ["", "a..*", "a.>.*", "a*.*", "a.* b", "{{x}}.*"] {
            assert_eq!(split(subject, &[1]).check(), Err(Wrong::Subject(subject.into())), "{subject}");
        }
    }
}
