//! What the database holds of a shard's messages, in one snapshot.

use std::collections::BTreeMap;
use std::pin::Pin;

use futures_util::{Stream, TryStreamExt};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::{Client, Row, SimpleQueryRow};

use super::Error;
use crate::checkpoint::{self, Claim};
use crate::config::{OnConflict, SEQUENCE, Table};
use crate::dead_letter::of_shard::known_sql;
use crate::loss::{self, Recorded};
use crate::milestones::{self, Milestone};
use crate::postgres::simple::{self, Answers, ask};
use crate::seal::{Chains, Point};
use crate::shard::Shard;

/// The source of a column that keeps an element's place in its array.
const ELEMENT: &str = "$element";

/// The source of a column that keeps when the stream stored a message.
const TIMESTAMP: &str = "$timestamp";

/// A table that a pipeline fills.
#[derive(Debug)]
pub(super) struct Filled {
    /// Its name, as configured.
    pub(super) name: String,
    /// The entries of the configuration that fill it.
    pub(super) entries: Vec<usize>,
    /// How many rows a message has in it.
    pub(super) rule: Rule,
    /// The column that keeps the sequence, quoted.
    pub(super) column: Option<String>,
    /// The column that keeps an element's place, quoted, where each element has one row, or is a dead letter.
    pub(super) element: Option<String>,
    /// The column that keeps when the stream stored the message, quoted.
    pub(super) time: Option<String>,
    /// Its schema and name, quoted for SQL.
    pub(super) qualified: String,
}

/// How many rows a message has in a table, unless it is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Once,
    /// A row may be skipped, or replaced by that of a later message, or the message is of no kind that the
    /// table takes.
    AtMostOnce,
    /// One for each element of an array, or for each field, or by several entries.
    Any,
}

/// A sequence that is not right after the one before, or not in its place once, or the last one.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) sequence: u64,
    /// The sequence before it that is somewhere.
    pub(super) before: u64,
    /// Dead letters of the message as a whole.
    pub(super) dead: u64,
    /// Dead letters of its elements.
    pub(super) dead_elements: u64,
    /// Rows in each place with a column for the sequence.
    pub(super) rows: Vec<u64>,
    /// Sequences with rows so far, up to the checkpoint.
    pub(super) committed: u64,
    /// Sequences in the dead letters only, so far.
    pub(super) dead_letters: u64,
}

/// A sequence whose elements are not each once in a table or in the dead letters.
#[derive(Debug)]
pub(super) struct Uneven {
    pub(super) sequence: u64,
    /// How many there are at least.
    pub(super) elements: u64,
    /// How many of them are somewhere.
    pub(super) there: u64,
    /// Rows and dead letters of them.
    pub(super) times: u64,
}

/// The dead letters of one message.
#[derive(Debug, Default)]
pub(super) struct Letters {
    /// Of all of it.
    pub(super) whole: u64,
    /// How many of each table's element.
    pub(super) elements: BTreeMap<(String, u32), u64>,
}

/// The snapshot.
pub(super) struct Snapshot<'a> {
    client: &'a Client,
    shard: &'a Shard,
    pub(super) places: Vec<Filled>,
}

impl Filled {
    /// The table that the `entry`th of a pipeline fills.
    pub(super) fn new(entry: usize, table: &Table, qualified: String) -> Self {
        let keeps = |source| table.column_of(source).map(escape_identifier);
        let column = keeps(SEQUENCE);
        let once = column.is_some() && table.on_conflict == OnConflict::Error && table.unpivot.is_none();
        let element = if once && !table.takes_some_elements() { keeps(ELEMENT) } else { None };
        let rule = match table.on_conflict {
            _ if table.for_each.is_some() || table.unpivot.is_some() => Rule::Any,
            OnConflict::Error if table.when.is_none() => Rule::Once,
            OnConflict::Error | OnConflict::Ignore | OnConflict::Update => Rule::AtMostOnce,
        };
        let (name, entries, time) = (table.name.clone(), vec![entry], keeps(TIMESTAMP));
        Self { name, entries, rule, column, element, time, qualified }
    }

    /// The same table filled by another entry: how many rows a message has is open then.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let same = self.qualified == other.qualified;
        if same {
            self.entries.extend(&other.entries);
            self.rule = Rule::Any;
            self.element = None;
            self.column = self.column.take().filter(|column| other.column.as_ref() == Some(column));
        }
        same
    }
}

impl<'a> Snapshot<'a> {
    /// Begins the transaction of the snapshot. It holds the tables from before the snapshot on: TRUNCATE, by
    /// which TimescaleDB compresses, and DROP, by which rows age, do not heed snapshots.
    pub(super) async fn open(
        client: &'a Client,
        shard: &'a Shard,
        places: Vec<Filled>,
    ) -> Result<Self, Error> {
        let snapshot = Self { client, shard, places };
        let action = "take a snapshot of the database";
        let names: Vec<&str> = snapshot.places.iter().map(|place| place.qualified.as_str()).collect();
        let literals: Vec<String> = names.iter().map(|name| escape_literal(name)).collect();
        let sql = format!(
            "SELECT c.relkind IN ('r', 'p') FROM pg_catalog.unnest(ARRAY[{}]::text[]) WITH ORDINALITY AS t \
               (name, place) \
             JOIN pg_class c ON c.oid = to_regclass(t.name)::oid ORDER BY t.place",
            literals.join(", ")
        );
        let kinds = snapshot.query(action, &sql).await?;
        let held: Vec<&str> = names
            .iter()
            .zip(kinds.rows())
            .filter(|(_, row)| simple::is_true(row, 0))
            .map(|(&name, _)| name)
            .collect();
        let lock = if held.is_empty() {
            String::new()
        } else {
            format!("; LOCK TABLE {} IN ACCESS SHARE MODE", held.join(", "))
        };
        snapshot.execute(action, &format!("BEGIN ISOLATION LEVEL REPEATABLE READ{lock}")).await?;
        Ok(snapshot)
    }

    /// From here on only temporary tables can be written to.
    pub(super) async fn change_nothing(&self) -> Result<(), Error> {
        self.execute("take a snapshot of the database", "SET TRANSACTION READ ONLY").await
    }

    pub(super) async fn on_standby(&self) -> Result<bool, Error> {
        let found = self.query("ask for the server's role", "SELECT pg_is_in_recovery()").await?;
        Ok(found.text(0) == Some("t"))
    }

    pub(super) async fn execute(&self, action: &'static str, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(sql).await.map_err(|source| Error::Database { action, source })
    }

    pub(super) fn client(&self) -> &Client {
        self.client
    }

    /// The dead letters of the sequences from `first` to `last`.
    pub(super) async fn letters(&self, first: u64, last: u64) -> Result<BTreeMap<u64, Letters>, Error> {
        let sql = format!(
            "SELECT sequence, table_name, pg_catalog.unnest(CASE WHEN element IS NULL \
               THEN ARRAY[NULL::bigint] \
               ELSE coalesce(elements, ARRAY[element])::bigint[] END) \
             FROM {} WHERE sequence BETWEEN {first} AND {last}",
            known_sql(self.shard)
        );
        let mut letters: BTreeMap<u64, Letters> = BTreeMap::new();
        for row in self.query("read the dead letters", &sql).await?.rows() {
            let found = letters.entry(number(row, 0)).or_default();
            match simple::number(row, 2) {
                Some(element) => {
                    let table = row.get(1).unwrap_or_default().to_owned();
                    *found.elements.entry((table, element)).or_default() += 1;
                }
                None => found.whole += 1,
            }
        }
        Ok(letters)
    }

    /// Where the shard stands.
    pub(super) async fn claim(&self) -> Result<Option<Claim>, Error> {
        checkpoint::read(self.client, self.shard).await.map_err(failed("read the checkpoint"))
    }

    /// Up to where sequences belong to two streams of the same name; 0 for none.
    pub(super) async fn ambiguous_to(&self) -> Result<u64, Error> {
        loss::ambiguous_to(self.client, self.shard).await.map_err(failed("read jetcopy.losses"))
    }

    /// Losses that reach to `from` or beyond, in order.
    pub(super) async fn losses(&self, from: u64) -> Result<Vec<Recorded>, Error> {
        loss::recorded(self.client, self.shard, from).await.map_err(failed("read jetcopy.losses"))
    }

    /// The seals, and where the ledger stands.
    pub(super) async fn seals(&self) -> Result<(Chains, Vec<Point>), Error> {
        const ACTION: &str = "read jetcopy.seals; is the schema migrated?";
        let chains = Chains::read(self.client, &self.shard.name).await.map_err(failed(ACTION))?;
        let points = checkpoint::seal_points(self.client, self.shard).await.map_err(failed(ACTION))?;
        Ok((chains, points))
    }

    pub(super) fn shard(&self) -> &Shard {
        self.shard
    }

    pub(super) async fn milestones(&self) -> Result<Vec<Milestone>, Error> {
        milestones::read(self.client, &self.shard.name).await.map_err(failed("read jetcopy.milestones"))
    }

    /// Sequences from `from` to `last` that several rows of `place` have, and how many; of the same time,
    /// where `place` keeps one.
    pub(super) async fn several(
        &self,
        place: &Filled,
        from: u64,
        last: u64,
    ) -> Result<Vec<(u64, u64)>, Error> {
        let Some(column) = &place.column else { return Ok(Vec::new()) };
        let time = place.time.as_ref().map(|time| format!(", {time}")).unwrap_or_default();
        let sql = format!(
            "SELECT {column}::bigint, count(*) FROM {} WHERE {column}::bigint BETWEEN {from} AND {last} \
             GROUP BY {column}{time} HAVING count(*) > 1 ORDER BY 1",
            place.qualified
        );
        let found = self.query("look for duplicate rows", &sql).await?;
        Ok(found.rows().map(|row| (number(row, 0), number(row, 1))).collect())
    }

    /// Walks over all sequences from `from` on and stops at the remarkable ones.
    pub(super) async fn walk(
        &self,
        from: u64,
        checkpoint: u64,
    ) -> Result<impl Stream<Item = Result<Finding, tokio_postgres::Error>> + use<>, Error> {
        let sql = self.walk_sql(from, checkpoint);
        let none: [(bool, tokio_postgres::types::Type); 0] = [];
        let rows = self.client.query_typed_raw(&sql, none).await.map_err(walking)?;
        Ok(rows.and_then(async |row| finding(&row)))
    }

    /// The sequences whose elements are not each once in `place`, whose column for them is `element`, or in
    /// the dead letters.
    pub(super) async fn elements(
        &self,
        place: &Filled,
        element: &str,
        from: u64,
        checkpoint: u64,
    ) -> Result<impl Stream<Item = Result<Uneven, tokio_postgres::Error>> + use<>, Error> {
        let column = place.column.as_deref().unwrap_or_default();
        let sql = format!(
            "WITH places (sequence, element) AS (\
               SELECT {column}::bigint, {element}::bigint FROM {} \
               UNION ALL SELECT sequence, pg_catalog.unnest(coalesce(elements, ARRAY[element])) FROM {} \
                 WHERE table_name = {} AND element IS NOT NULL), \
             found AS (SELECT sequence, max(element) + 1 AS elements, \
               pg_catalog.count(DISTINCT element) AS found, count(*) AS times FROM places \
               WHERE sequence BETWEEN {from} AND {checkpoint} GROUP BY sequence) \
             SELECT sequence, elements, found, times FROM found \
             WHERE elements <> found OR elements <> times ORDER BY sequence",
            place.qualified,
            known_sql(self.shard),
            escape_literal(&place.name),
        );
        let none: [(bool, tokio_postgres::types::Type); 0] = [];
        let rows = self.client.query_typed_raw(&sql, none).await.map_err(walking)?;
        Ok(rows.and_then(async |row| elements(&row)))
    }

    fn walk_sql(&self, from: u64, checkpoint: u64) -> String {
        let kept: Vec<&Filled> = self.places.iter().filter(|place| place.column.is_some()).collect();
        let one = |at: usize| {
            let flags: Vec<&str> =
                (1..=kept.len()).map(|index| if index == at { "1" } else { "0" }).collect();
            flags.join(", ")
        };
        let dead = format!(
            "SELECT sequence, (element IS NULL)::int, (element IS NOT NULL)::int, {} \
             FROM {} WHERE sequence >= {from}",
            one(0),
            known_sql(self.shard)
        );
        let tables = (1..).zip(&kept).map(|(index, place)| {
            let column = place.column.as_deref().unwrap_or_default();
            format!(
                " UNION ALL SELECT {column}::bigint, 0, 0, {} FROM {} WHERE {column}::bigint >= {from}",
                one(index),
                place.qualified
            )
        });
        let places: String = std::iter::once(dead).chain(tables).collect();
        let names: Vec<String> = ["dead".to_owned(), "dead_elements".to_owned()]
            .into_iter()
            .chain((1..=kept.len()).map(|index| format!("t{index}")))
            .collect();
        let sums: Vec<String> = names.iter().map(|name| format!("sum({name}) AS {name}")).collect();
        let rows: Vec<String> = (1..)
            .zip(&kept)
            .map(|(index, place)| match place.rule {
                Rule::Once => format!("t{index} = 1"),
                Rule::AtMostOnce => format!("t{index} <= 1"),
                Rule::Any => "true".to_owned(),
            })
            .collect();
        let no_rows: Vec<String> = (1..=kept.len()).map(|index| format!("t{index} = 0")).collect();
        let (names, no_rows) = (names.join(", "), no_rows.join(" AND "));
        format!(
            "WITH places (sequence, {names}) AS ({places}), \
             found AS (SELECT sequence, {} FROM places GROUP BY sequence), \
             walked AS (SELECT sequence, {names}, \
               pg_catalog.lag(sequence, 1::int, {from} - 1) OVER walk AS before, \
                 pg_catalog.lead(sequence) OVER walk AS after, \
               count(*) FILTER (WHERE NOT ({no_rows}) AND sequence <= {checkpoint}) OVER walk AS committed, \
               count(*) FILTER (WHERE {no_rows} AND sequence <= {checkpoint}) OVER walk AS dead_letters \
               FROM found WINDOW walk AS (ORDER BY sequence)) \
             SELECT sequence, before, committed, dead_letters, ARRAY[{names}]::bigint[] FROM walked \
             WHERE before < sequence - 1 OR after IS NULL OR sequence > {checkpoint} \
               OR NOT (dead = 0 AND {} OR dead = 1 AND dead_elements = 0 AND {no_rows}) \
             ORDER BY sequence",
            sums.join(", "),
            rows.join(" AND "),
        )
    }

    pub(super) async fn query(&self, action: &'static str, sql: &str) -> Result<Answers, Error> {
        ask(self.client, sql).await.map_err(failed(action))
    }
}

/// The next stop of a walk.
pub(super) async fn next<T>(
    walk: &mut Pin<&mut impl Stream<Item = Result<T, tokio_postgres::Error>>>,
) -> Result<Option<T>, Error> {
    walk.try_next().await.map_err(walking)
}

pub(super) fn failed(action: &'static str) -> impl Fn(tokio_postgres::Error) -> Error {
    move |source| Error::Database { action, source }
}

fn walking(source: tokio_postgres::Error) -> Error {
    failed("scan the sequences in the tables")(source)
}

fn elements(row: &Row) -> Result<Uneven, tokio_postgres::Error> {
    let number = |column| row.try_get(column).map(|value: i64| u64::try_from(value).unwrap_or(0));
    Ok(Uneven { sequence: number(0)?, elements: number(1)?, there: number(2)?, times: number(3)? })
}

fn finding(row: &Row) -> Result<Finding, tokio_postgres::Error> {
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let places: Vec<i64> = row.try_get(4)?;
    let mut places = places.into_iter().map(number);
    Ok(Finding {
        sequence: number(row.try_get(0)?),
        before: number(row.try_get(1)?),
        committed: number(row.try_get(2)?),
        dead_letters: number(row.try_get(3)?),
        dead: places.next().unwrap_or(0),
        dead_elements: places.next().unwrap_or(0),
        rows: places.collect(),
    })
}

/// A column that holds a number which is not negative; NULL counts as 0.
fn number(row: &SimpleQueryRow, column: usize) -> u64 {
    simple::number(row, column).unwrap_or(0)
}
