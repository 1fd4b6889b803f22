//! `jetcopy init`: tables and a mapping for the messages of a stream, proposed from a sample and tried on
//! it.
//!
//! Guarantees: what is proposed was tried: the tables were made in a transaction that was rolled back, and
//! the messages that were looked at became rows of them by the decoder that the daemon uses. What does not
//! fit is told.
//!
//! Not guaranteed: that messages which were not looked at are like those that were. What differs is a dead
//! letter, or in the column that takes the rest.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use tokio_postgres::types::Type as WireType;

use crate::config::{ConfigError, Pipeline};
use crate::decode::{PlanError, as_json};
use crate::postgres::introspect::saved::Saved;
use crate::postgres::introspect::{self, IntrospectError};
use crate::preview::report::{Counts, Report};
use crate::preview::{Made, Preview};
use crate::unreadable::Single;
use propose::Table;
use sample::Sample;
use write::Server;

mod fields;
mod names;
pub(crate) mod onto;
pub(crate) mod propose;
pub(crate) mod sample;
pub(crate) mod write;

/// What is proposed.
pub(crate) struct Proposal {
    pub(crate) name: String,
    pub(crate) stream: String,
    pub(crate) tables: Vec<Table>,
    /// Whether the tables are to be made.
    pub(crate) is_new: bool,
    pub(crate) server: Server,
}

/// What came of it in the trial.
pub(crate) struct Tried {
    pub(crate) sql: String,
    pub(crate) pipeline: String,
    pub(crate) case: Option<String>,
    pub(crate) schema: Saved,
    pub(crate) report: Report,
    /// Dead letters: what they are about and why, the first of each kind.
    pub(crate) letters: Vec<String>,
}

/// Why nothing can be proposed, or tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the database does not make the proposed tables")]
    Refused(#[source] tokio_postgres::Error),
    #[error("cannot ask the database")]
    Ask(#[source] tokio_postgres::Error),
    #[error(transparent)]
    Introspect(#[from] IntrospectError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The schema that tables have to be named with: where the search path of the session would put them into
/// jetcopy's own, once that is there, they go to the next, or to `public`.
const PLACE: &str = "SELECT CASE WHEN 'jetcopy' = ANY (pg_catalog.current_schemas(false)) \
     OR current_user = 'jetcopy' AND pg_catalog.current_setting('search_path') LIKE '%$user%' \
   THEN coalesce((SELECT pg_catalog.quote_ident(name) \
     FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS path (name, place) \
     WHERE name <> 'jetcopy' ORDER BY place LIMIT 1), 'public') END";

/// What the server says of names and extensions.
pub(crate) async fn server(client: &Client, tables: &[Table], hypertables: bool) -> Result<Server, Error> {
    let mut names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    names.extend(tables.iter().flat_map(|table| &table.columns).map(|column| column.name.as_str()));
    let sql = "SELECT name, pg_catalog.quote_ident(name) FROM pg_catalog.unnest($1::text[]) AS name";
    let rows = client.query_typed(sql, &[(&names, WireType::TEXT_ARRAY)]).await.map_err(Error::Ask)?;
    let quoted = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let sql = "SELECT pg_catalog.quote_ident(n.nspname), \
               pg_catalog.current_setting('timescaledb.license', true) = 'timescale' \
               FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace \
               WHERE e.extname = 'timescaledb'";
    let found = client.query_typed_opt(sql, &[]).await.map_err(Error::Ask)?;
    let timescaledb = found.filter(|_| hypertables);
    let timescaledb = timescaledb.map(|row| (row.get(0), row.get::<_, Option<bool>>(1).unwrap_or(false)));
    let row = client.query_typed_one(PLACE, &[]).await.map_err(Error::Ask)?;
    Ok(Server { quoted, schema: row.get(0), timescaledb })
}

impl Proposal {
    fn sql(&self) -> String {
        if self.is_new { write::sql(&self.tables, &self.server) } else { String::new() }
    }

    /// Tries it on the messages.
    pub(crate) async fn tried(&self, client: &Client, sample: &Sample) -> Result<Tried, Error> {
        let sql = self.sql();
        let text = write::pipeline(&self.name, &self.stream, sample.compression, &self.tables, &self.server);
        let pipeline = Pipeline::from_text(&text)?;
        let tables = rolled_back(client, &sql, &pipeline).await?;
        let schema = Saved::new(pipeline.tables.iter().map(|table| table.name.as_str()).zip(&tables));
        let mut preview = Preview::new(&pipeline, tables)?;
        let made: Vec<Made> = sample.singles.iter().map(|single| preview.make(single)).collect();
        let mut counts = Counts::new(&pipeline);
        for made in &made {
            counts.add(made);
        }
        let report = counts.report(&preview);
        let case = write::case(&mut preview, &sample.singles, &made);
        Ok(Tried { sql, pipeline: text, case, schema, report, letters: letters(&made) })
    }
}

/// The tables of a pipeline, as they are once `sql` has run; nothing of it stays.
async fn rolled_back(
    client: &Client,
    sql: &str,
    pipeline: &Pipeline,
) -> Result<Vec<introspect::Table>, Error> {
    client.batch_execute("BEGIN").await.map_err(Error::Ask)?;
    let made = async {
        client.batch_execute(sql).await.map_err(Error::Refused)?;
        let mut tables = Vec::new();
        for table in &pipeline.tables {
            tables.push(introspect::introspect(client, &table.name).await?);
        }
        Ok::<_, Error>(tables)
    };
    let made = made.await;
    client.batch_execute("ROLLBACK").await.map_err(Error::Ask)?;
    made
}

/// Dead letters in words, each once.
fn letters(made: &[Made]) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    for letter in made.iter().flat_map(|made| &made.letters) {
        let column = letter.column.as_ref().map_or_else(String::new, |column| format!("column {column}: "));
        let text = format!("{column}{}", letter.reason);
        if !said.contains(&text) {
            said.push(text);
        }
    }
    said
}

/// What the messages are written in, in words.
pub(crate) fn format(singles: &[Single]) -> String {
    let word = |single: &Single| match &single.message.payload {
        payload if as_json(payload).is_none() => "compressed or unreadable",
        payload if payload.trim_ascii_start().starts_with(b"{") => "JSON",
        payload if payload.trim_ascii_start().starts_with(b"[") => "JSON",
        _ => "MessagePack",
    };
    let words: BTreeSet<&str> = singles.iter().map(word).collect();
    words.into_iter().collect::<Vec<_>>().join(" and ")
}
