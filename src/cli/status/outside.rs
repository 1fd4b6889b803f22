//! A pipeline as NATS and the database see it, without its daemon.
//!
//! Guarantees: what one server cannot say is left out and named, and does not keep the other from being
//! asked. It changes nothing.

use async_nats::jetstream;
use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream;
use serde::Serialize;

use crate::chain::chain;
use crate::checkpoint::{self, Paused};
use crate::clock::{self, Clock};
use crate::config::{Config, Pipeline};
use crate::dead_letter::of_shard;
use crate::lag;
use crate::loss;
use crate::nats;
use crate::postgres::connect::{self, Session};
use crate::postgres::simple::ask;
use crate::recovery::flood_remedy;
use crate::shard::Shard;
use crate::status::reason;
use crate::subscribe;

/// How the servers know the sessions.
const CLIENT_NAME: &str = "jetcopy status";

/// What is known of a pipeline; named as in the daemon's `/status` (`metrics::names` documents the fields),
/// `None` where nobody could say.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Outside {
    pub pipeline: String,
    pub shard: String,
    pub stream: String,
    /// `down`, `paused` where an operator paused it, or `elsewhere` where a daemon that was not asked holds
    /// the lease.
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    pub checkpoint_sequence: Option<u64>,
    /// When the checkpoint moved last, in RFC 3339.
    pub committed_at: Option<String>,
    pub stream_first_sequence: Option<u64>,
    pub stream_last_sequence: Option<u64>,
    /// All that is not committed.
    pub undelivered_messages: Option<u64>,
    pub pending_messages: Option<u64>,
    pub ack_pending_messages: Option<u64>,
    pub headroom_sequences: Option<u64>,
    /// Age of the oldest message that is not committed.
    pub behind_seconds: Option<f64>,
    /// In the table now.
    pub dead_letters_in_table: Option<u64>,
    /// Losses that nobody accepted.
    pub open_losses: Option<u64>,
    /// A few of the messages of the flood that stopped it, without a value of any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flood: Vec<serde_json::Value>,
    /// What could not be found out, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// The checkpoint, 0 where there is none yet, and when the stream was created that it counts in, in
    /// microseconds since the Unix epoch; `None` where the database did not say.
    #[serde(skip)]
    counted: Option<(u64, Option<i64>)>,
}

/// Asks both servers about every pipeline.
pub(crate) async fn look(config: &Config) -> Vec<Outside> {
    let session = connect::connect_any(&config.postgres, CLIENT_NAME).await;
    let connection = nats::Connection::open(&config.nats, CLIENT_NAME).await;
    let mut seen = Vec::with_capacity(config.pipelines.len());
    for (pipeline, shard) in config.shards() {
        let mut outside = Outside {
            pipeline: shard.pipeline.clone(),
            shard: shard.name.clone(),
            stream: shard.stream.clone(),
            state: "down",
            ..Outside::default()
        };
        match &session {
            Ok(session) => {
                if let Err(error) = outside.ask_database(session, &shard).await {
                    outside.unknown.push(format!("the database: {}", chain(&error)));
                }
            }
            Err(error) => outside.unknown.push(format!("the database: {}", chain(error))),
        }
        match &connection {
            Ok(connection) => {
                if let Err(error) = outside.ask_nats(&connection.client, pipeline, &shard).await {
                    outside.unknown.push(format!("NATS: {}", chain(error.as_ref())));
                }
            }
            Err(error) => outside.unknown.push(format!("NATS: {}", chain(error))),
        }
        seen.push(outside);
    }
    if let Ok(session) = session {
        session.close().await;
    }
    seen
}

impl Outside {
    async fn ask_database(&mut self, session: &Session, shard: &Shard) -> Result<(), tokio_postgres::Error> {
        self.counted = Some((0, None));
        if let Some(seen) = checkpoint::look(&session.client, shard).await? {
            self.checkpoint_sequence = seen.last_sequence;
            self.counted = seen.last_sequence.map(|at| (at, seen.stream_created_us));
            self.committed_at = seen.committed_at;
            if let Some(Paused { by, since }) = seen.paused {
                self.state = "paused";
                self.reason = Some(format!("paused by operator {by} since {since} UTC"));
                self.remedy = Some(format!("run `jetcopy resume {}`", shard.argument()));
            } else if let Some(flood) = seen.flood {
                self.reason = Some(format!("stopped by a flood of dead letters: {}", flood.reason));
                self.remedy = Some(flood_remedy(&shard.argument()));
                self.flood = shown(&flood.samples);
            } else if let Some(owner) = seen.owner {
                self.state = "elsewhere";
                self.reason = Some(format!("{owner} holds its lease"));
            }
        }
        let (letters, losses) = (of_shard::count_sql(shard, 0, None), loss::count_open_sql(shard));
        let counts = ask(&session.client, &format!("SELECT ({letters}), ({losses})")).await?;
        (self.dead_letters_in_table, self.open_losses) = (counts.number(0), counts.number(1));
        Ok(())
    }

    async fn ask_nats(
        &mut self,
        client: &async_nats::Client,
        pipeline: &Pipeline,
        shard: &Shard,
    ) -> Result<(), async_nats::Error> {
        let clock = Clock::default();
        let info = clock::stream_info(client, &shard.stream, &clock).await?;
        let stream = jetstream::new(client.clone()).get_stream_no_info(&shard.stream).await?;
        let state = &info.state;
        self.stream_first_sequence = Some(state.first_sequence);
        self.stream_last_sequence = Some(state.last_sequence);
        let durable = subscribe::find(&stream, shard).await?;
        if let Some(Info { num_pending, num_ack_pending, .. }) = &durable {
            self.pending_messages = Some(*num_pending);
            self.ack_pending_messages = Some(*num_ack_pending as u64);
        }
        let read = match self.counted {
            Some((checkpoint, created_us)) if counts_in(checkpoint, created_us, &info) => Some(checkpoint),
            Some(_) => {
                let why = "the checkpoint belongs to another stream: this one was recreated, rolled back, \
                           restored or moved";
                self.reason.get_or_insert_with(|| why.to_owned());
                None
            }
            // What was acknowledged was committed.
            None => durable.as_ref().map(|durable| durable.ack_floor.stream_sequence),
        };
        let Some(read) = read else { return Ok(()) };
        let oldest = lag::oldest(client, &info, pipeline, read).await?;
        self.undelivered_messages = match oldest {
            None => Some(0),
            Some(_) => lag::backlog(state, pipeline, read, durable.as_ref()),
        };
        let first = oldest.map_or(state.last_sequence + 1, |oldest| oldest.sequence);
        let known = oldest.is_some() || state.messages > 0;
        self.headroom_sequences = known.then(|| first.saturating_sub(state.first_sequence));
        self.behind_seconds = Some(oldest.map_or(0.0, |oldest| clock.read().age(oldest.timestamp_ns)));
        Ok(())
    }
}

/// Samples of a flood as the daemon shows them.
fn shown(samples: &str) -> Vec<serde_json::Value> {
    let samples: Vec<serde_json::Value> = serde_json::from_str(samples).unwrap_or_default();
    let one = |sample: serde_json::Value| {
        let text = |name: &str| sample[name].as_str();
        serde_json::json!({
            "sequence": sample["sequence"],
            "kind": text("kind"),
            "sqlstate": text("sqlstate"),
            "reason": reason(text("kind").unwrap_or_default(), text("sqlstate")),
            "table": text("table_name"),
            "column": text("column_name"),
        })
    };
    samples.into_iter().map(one).collect()
}

/// Whether a checkpoint is one in this stream as it is now.
fn counts_in(checkpoint: u64, created_us: Option<i64>, stream: &stream::Info) -> bool {
    let created = stream.created.unix_timestamp_nanos().div_euclid(1_000);
    created_us.is_none_or(|counted| i128::from(counted) == created)
        && checkpoint <= stream.state.last_sequence
}
