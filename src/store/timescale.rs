//! TimescaleDB's side of the life cycle: chunk intervals, compression, and the policies that compress, drop
//! and refresh.
//!
//! Guarantees: either all of it is as the database keeps it (`store/life.rs`) or nothing was changed; running
//! it again changes nothing; what it cannot or must not touch (a table that is no hypertable or another
//! role's, somebody's own compression settings or policies) it leaves, and says so.
//!
//! It asks for no more than the owner of the tables may do, and the names it uses are those of TimescaleDB
//! 2.13 to 2.28: since 2.18 they are aliases of the columnstore's. When a job runs is TimescaleDB's decision.
//! Roll-ups that the migrations did not create are not created here.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::catalog::groups::Group;
use crate::catalog::{
    After, ROLLUPS, Refresh, Rollup, RollupLife, StoreTable, TABLES, TableLife, lives, written,
};
use crate::config;
use crate::postgres::connect::{self, ConnectError};
use crate::postgres::interval;
use crate::store::groups;
use crate::store::{life, place};
use policies::{COMPRESSION, RETENTION};

mod policies;

/// How the server knows the session.
const APPLICATION_NAME: &str = "jetcopy migrate";

/// The value of `timescaledb.license` that has all that this module needs.
const LICENCE: &str = "timescale";

/// What there is: the schema of the extension's functions, as SQL writes it, and its licence.
const LOOK: &str = "SELECT extnamespace::regnamespace::text, current_setting('timescaledb.license', true)
    FROM pg_extension WHERE extname = 'timescaledb'";

/// What a table is, with the columns of `$3` that it lacks. Its chunk interval is that of the dimension `$2`,
/// in microseconds.
const LOOK_AT_TABLE: &str = "SELECT pg_has_role(c.relowner, 'USAGE'),
        h.hypertable_name IS NOT NULL,
        coalesce(h.compression_enabled, false),
        (SELECT (extract(epoch FROM d.time_interval) * 1000000::numeric)::bigint
            FROM timescaledb_information.dimensions d
            WHERE d.hypertable_schema = n.nspname AND d.hypertable_name = c.relname AND d.column_name = $2),
        (SELECT string_agg(w.name, ', ') FROM pg_catalog.unnest($3::text[]) AS w (name) WHERE NOT EXISTS (
            SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = w.name
                AND NOT a.attisdropped)),
        (SELECT string_agg(s.attname::text, ', ' ORDER BY s.segmentby_column_index)
            FROM timescaledb_information.compression_settings s
            WHERE s.hypertable_schema = n.nspname AND s.hypertable_name = c.relname
                AND s.segmentby_column_index IS NOT NULL)
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN timescaledb_information.hypertables h ON h.hypertable_schema = n.nspname
        AND h.hypertable_name = c.relname
    WHERE c.oid = to_regclass($1)::oid";

/// What a roll-up is.
const LOOK_AT_ROLLUP: &str = "SELECT pg_has_role(c.relowner, 'USAGE'), EXISTS (
        SELECT FROM timescaledb_information.continuous_aggregates a
        WHERE a.view_schema = n.nspname AND a.view_name = c.relname),
        (SELECT NOT a.materialized_only FROM timescaledb_information.continuous_aggregates a
        WHERE a.view_schema = n.nspname AND a.view_name = c.relname)
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass($1)::oid";

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// Nothing: TimescaleDB is not installed in the database.
    Absent,
    /// Nothing: its licence allows none of it.
    Unlicensed,
    /// A line for each setting of each table and roll-up.
    Done(Vec<Line>),
}

/// One setting of one table or roll-up, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Name of the table or roll-up.
    pub relation: &'static str,
    /// What became of it.
    pub change: Change,
}

/// What became of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// There was none before.
    Set(String),
    /// It was another before.
    Altered {
        /// What it was.
        from: String,
        /// What it is.
        to: String,
    },
    /// It is gone, since the setting is `never`.
    Removed(String),
    /// It was so before.
    Unchanged(String),
    /// It is not touched, for this reason.
    Left(String),
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ", self.relation)?;
        match &self.change {
            Change::Set(to) => write!(formatter, "{to}: set"),
            Change::Altered { from, to } => write!(formatter, "{to}: altered, was {from}"),
            Change::Removed(was) => write!(formatter, "{was}: removed"),
            Change::Unchanged(is) => write!(formatter, "{is}: unchanged"),
            Change::Left(why) => write!(formatter, "left as it is: {why}"),
        }
    }
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused a statement.
    #[error("cannot {action} of {relation}; nothing of [store] was applied")]
    Server {
        /// What was tried.
        action: &'static str,
        /// The table or roll-up.
        relation: &'static str,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The transaction could not be opened or committed.
    #[error("cannot look at TimescaleDB or commit; nothing of [store] was applied")]
    Transaction(#[source] tokio_postgres::Error),
}

/// Makes TimescaleDB follow what the database keeps of `[store]`.
pub async fn apply(postgres: &config::Postgres) -> Result<Applied, Error> {
    let session = connect::connect(postgres, APPLICATION_NAME).await?;
    let applied = apply_on(&session.client).await;
    // Closing the connection rolls back what was not committed.
    session.close().await;
    applied
}

async fn apply_on(client: &Client) -> Result<Applied, Error> {
    client.batch_execute(super::BEGIN).await.map_err(Error::Transaction)?;
    client.batch_execute(place::ENTER).await.map_err(Error::Transaction)?;
    let schema = match look(client).await? {
        Offered::Nothing => return Ok(Applied::Absent),
        Offered::Unlicensed => return Ok(Applied::Unlicensed),
        Offered::Functions(schema) => schema,
    };
    let lives = life::kept(client).await.map_err(Error::Transaction)?;
    let real_time = groups::real_time(client).await.map_err(Error::Transaction)?;
    let mut run = Run { client, schema, real_time, lines: Vec::new() };
    // Tables of one's own may be named like the store's.
    let groups = groups::before(client, false).await.map_err(Error::Transaction)?;
    let known = |relation: &str| {
        groups.contains(&Group::of(relation)) || lives.iter().any(|(key, _)| key.0 == relation)
    };
    for table in TABLES.iter().filter(|table| known(table.name)) {
        run.table(table, &lives.table(table)).await?;
    }
    for rollup in ROLLUPS.iter().filter(|rollup| known(rollup.name)) {
        run.rollup(rollup, &lives.rollup(rollup)).await?;
    }
    life::applied(client).await.map_err(Error::Transaction)?;
    client.batch_execute("COMMIT").await.map_err(Error::Transaction)?;
    Ok(Applied::Done(run.lines))
}

/// What of TimescaleDB there is.
enum Offered {
    /// It is not installed.
    Nothing,
    /// Its licence allows nothing that is needed here.
    Unlicensed,
    /// All of it; its functions lie in this schema, as SQL writes it.
    Functions(String),
}

async fn look(client: &Client) -> Result<Offered, Error> {
    let Some(row) = client.query_typed_opt(LOOK, &[]).await.map_err(Error::Transaction)? else {
        return Ok(Offered::Nothing);
    };
    let (schema, licence): (String, Option<String>) =
        row.try_get(0).and_then(|schema| Ok((schema, row.try_get(1)?))).map_err(Error::Transaction)?;
    Ok(if licence.as_deref() == Some(LICENCE) { Offered::Functions(schema) } else { Offered::Unlicensed })
}

/// The life of hypertables and continuous aggregates as TimescaleDB's jobs have it. A job that goes by
/// something else than age says nothing.
pub(super) async fn in_force(client: &Client) -> Result<BTreeMap<lives::Key, After>, Error> {
    let mut found = BTreeMap::new();
    if !matches!(look(client).await?, Offered::Functions(_)) {
        return Ok(found);
    }
    for table in &TABLES {
        let relation = table.name;
        let Some(is) = look_at(client, table).await?.filter(|is| is.hypertable) else { continue };
        let Some(interval) = is.chunk_interval else { continue };
        found.insert((relation, lives::CHUNK_INTERVAL), After::Age(interval));
        for (setting, policy) in [(lives::COMPRESS_AFTER, &COMPRESSION), (lives::RETENTION, &RETENTION)] {
            let after = policies::age(client, relation, policy).await?;
            found.extend(after.map(|after| ((relation, setting), after)));
        }
    }
    for rollup in &ROLLUPS {
        let relation = rollup.name;
        let failed = |source| Error::Server { action: "read the state", relation, source };
        let row = client.query_typed_opt(LOOK_AT_ROLLUP, &[(&relation, Type::TEXT)]).await.map_err(failed)?;
        let aggregate = row.map(|row| row.try_get::<_, bool>(1)).transpose().map_err(failed)?;
        if aggregate != Some(true) {
            continue;
        }
        let retention = policies::age(client, relation, &RETENTION).await?;
        found.extend(retention.map(|after| ((relation, lives::RETENTION), after)));
        if let Some(Refresh { every, window, lag }) = policies::refreshed(client, relation).await? {
            for (setting, span) in [(lives::EVERY, every), (lives::WINDOW, window), (lives::LAG, lag)] {
                found.insert((relation, setting), After::Age(span));
            }
        }
    }
    Ok(found)
}

async fn look_at(client: &Client, table: &'static StoreTable) -> Result<Option<Table>, Error> {
    let relation = table.name;
    let columns: Vec<&str> = [table.time].iter().chain(table.segment_by).copied().collect();
    let failed = |source| Error::Server { action: "read the state", relation, source };
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
        [(&relation, Type::TEXT), (&table.time, Type::TEXT), (&columns, Type::TEXT_ARRAY)];
    let row = client.query_typed_opt(LOOK_AT_TABLE, &parameters).await.map_err(failed)?;
    row.map(|row| Table::read(&row)).transpose().map_err(failed)
}

/// One run, in its transaction.
struct Run<'c> {
    client: &'c Client,
    /// Where TimescaleDB's functions lie, as SQL writes it.
    schema: String,
    /// Whether roll-ups show the running bucket, where that was said.
    real_time: Option<bool>,
    lines: Vec<Line>,
}

/// Enables compression the way the catalog says.
fn compress(table: &StoreTable) -> String {
    format!(
        "ALTER TABLE {} SET (timescaledb.compress, timescaledb.compress_segmentby = '{}', \
         timescaledb.compress_orderby = '{}')",
        table.name,
        table.segment_by.join(", "),
        table.order_by
    )
}

/// What a table is.
struct Table {
    owned: bool,
    hypertable: bool,
    compressed: bool,
    chunk_interval: Option<Duration>,
    missing: Option<String>,
    segment_by: Option<String>,
}

impl Table {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            owned: row.try_get(0)?,
            hypertable: row.try_get(1)?,
            compressed: row.try_get(2)?,
            chunk_interval: row.try_get::<_, Option<i64>>(3)?.and_then(policies::micros),
            missing: row.try_get(4)?,
            segment_by: row.try_get(5)?,
        })
    }
}

impl Run<'_> {
    fn say(&mut self, relation: &'static str, change: Change) {
        self.lines.push(Line { relation, change });
    }

    async fn table(&mut self, table: &'static StoreTable, life: &TableLife) -> Result<(), Error> {
        let name = table.name;
        let Some(found) = look_at(self.client, table).await? else {
            self.say(name, Change::Left("there is no such table".into()));
            return Ok(());
        };
        let obstacle = match (&found, found.chunk_interval) {
            (Table { hypertable: false, .. }, _) => {
                "it is not a hypertable, so nothing compresses it or drops its rows".to_owned()
            }
            (Table { missing: Some(missing), .. }, _) => {
                format!("it was not created by jetcopy: it has no column {missing}")
            }
            (_, None) => format!("its time dimension is not {}", table.time),
            (Table { owned: false, .. }, _) => "it belongs to another role".into(),
            (_, Some(interval)) => {
                self.chunk_interval(name, interval, life.chunk_interval).await?;
                if life.compress_after != After::Never {
                    self.compression(table, &found).await?;
                }
                self.policy(name, &COMPRESSION, life.compress_after).await?;
                self.policy(name, &RETENTION, life.retention).await?;
                return self.fix_times(name).await;
            }
        };
        self.say(name, Change::Left(obstacle));
        Ok(())
    }

    /// Holds for the chunks to come.
    async fn chunk_interval(
        &mut self,
        relation: &'static str,
        found: Duration,
        wanted: Duration,
    ) -> Result<(), Error> {
        let text = |span| format!("chunks of {}", written(span));
        if found == wanted {
            self.say(relation, Change::Unchanged(text(wanted)));
            return Ok(());
        }
        let sql =
            format!("SELECT {}.set_chunk_time_interval($1::text::regclass, $2::text::interval)", self.schema);
        self.client
            .query_typed(&sql, &[(&relation, Type::TEXT), (&interval::of(wanted), Type::TEXT)])
            .await
            .map_err(|source| Error::Server { action: "set the chunk interval", relation, source })?;
        self.say(relation, Change::Altered { from: written(found), to: text(wanted) });
        Ok(())
    }

    /// Lets a table be compressed, the way the catalog says.
    async fn compression(&mut self, table: &'static StoreTable, found: &Table) -> Result<(), Error> {
        let (relation, wanted) = (table.name, table.segment_by.join(", "));
        let is = found.segment_by.as_deref().unwrap_or_default();
        let by = |columns: &str| if columns.is_empty() { "no column".to_owned() } else { columns.to_owned() };
        let text = format!("compressed by {}", by(&wanted));
        let change = if !found.compressed {
            let failed = |source| Error::Server { action: "enable the compression", relation, source };
            self.client.batch_execute(&compress(table)).await.map_err(failed)?;
            Change::Set(text)
        } else if is == wanted {
            Change::Unchanged(text)
        } else if table.once_segment_by.is_some_and(|once| once.join(", ") == is) {
            self.regroup(table, by(is), text).await?
        } else {
            Change::Left(format!("it is configured to compress by {}, not by {}", by(is), by(&wanted)))
        };
        self.say(relation, change);
        Ok(())
    }

    /// Has chunks to come compressed in another way than by an earlier version. Where chunks are compressed
    /// already, TimescaleDB before 2.14 refuses that.
    async fn regroup(
        &mut self,
        table: &'static StoreTable,
        from: String,
        to: String,
    ) -> Result<Change, Error> {
        let relation = table.name;
        let failed = |source| Error::Server { action: "change the compression", relation, source };
        self.client.batch_execute("SAVEPOINT regroup").await.map_err(failed)?;
        match self.client.batch_execute(&compress(table)).await {
            Ok(()) => {
                self.client.batch_execute("RELEASE SAVEPOINT regroup").await.map_err(failed)?;
                Ok(Change::Altered { from, to })
            }
            Err(refused) if refused.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) => {
                self.client.batch_execute("ROLLBACK TO SAVEPOINT regroup").await.map_err(failed)?;
                Ok(Change::Left(format!(
                    "it is compressed by {from}, which this version of TimescaleDB cannot change"
                )))
            }
            Err(source) => Err(failed(source)),
        }
    }

    /// Has a roll-up show the bucket that is not over yet, or not, where that was said.
    async fn real_time(&mut self, relation: &'static str, is: Option<bool>) -> Result<(), Error> {
        let Some(wanted) = self.real_time.filter(|_| is != self.real_time) else { return Ok(()) };
        let sql =
            format!("ALTER MATERIALIZED VIEW {relation} SET (timescaledb.materialized_only = {})", !wanted);
        let failed = |source| Error::Server { action: "change what is shown", relation, source };
        self.client.batch_execute(&sql).await.map_err(failed)?;
        let text = |real_time| {
            if real_time { "the running bucket is shown" } else { "only completed buckets are shown" }
        };
        self.say(relation, Change::Altered { from: text(!wanted).into(), to: text(wanted).into() });
        Ok(())
    }

    async fn rollup(&mut self, rollup: &'static Rollup, life: &RollupLife) -> Result<(), Error> {
        let relation = rollup.name;
        let failed = |source| Error::Server { action: "read the state", relation, source };
        let row = self.client.query_typed_opt(LOOK_AT_ROLLUP, &[(&relation, Type::TEXT)]).await;
        let found = row
            .and_then(|row| {
                row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).transpose()
            })
            .map_err(failed)?;
        let obstacle = match found {
            None => "there is no such roll-up",
            Some((_, false, _)) => "it is not a continuous aggregate",
            Some((false, true, _)) => "it belongs to another role",
            Some((true, true, is)) => {
                self.real_time(relation, is).await?;
                self.refresh(relation, life.refresh).await?;
                self.policy(relation, &RETENTION, life.retention).await?;
                return self.fix_times(relation).await;
            }
        };
        self.say(relation, Change::Left(obstacle.into()));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
