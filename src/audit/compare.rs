//! What a table holds beside what the messages make, compared by the server.
//!
//! Guarantees: rows are equal where the server's own order of their types says so, `json` where its text is
//! the same. Without `on_conflict` each row is there as often as the messages make it. With it each key has
//! one row, and that is one that the messages may leave, in whatever order dead letters were retried. What
//! the server changes by itself is known or left out, and said.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, Stream, TryStreamExt as _};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::Row;

use super::Error;
use super::retention;
use super::snapshot::{Filled, Rule, Snapshot};
use crate::batch::TableRows;
use crate::config::{self, Absent, OnConflict};
use crate::decode::Decoder;
use crate::encode::copy_frame::{HEADER, TRAILER};
use crate::encode::types::Type;
use crate::postgres::introspect::{Column, ServerDefault, Table};
use crate::postgres::sqlstate::copy_line;

/// The column of the temporary table that has the sequence of the message.
const SEQUENCE: &str = "jetcopy_sequence";

/// The column of it that takes what `absent = "keep"` adds to a row.
const PRESENT: &str = "jetcopy_present";

/// Characters of a row that a report shows.
const SHOWN: usize = 200;

/// The trigger of the store by which a series keeps the time it was created at; it fills that column and no
/// other.
const KEEPS_CREATED_AT: &str = "jetcopy.keep_created_at";

/// One table, and the temporary one that takes what the messages make.
pub(super) struct Comparison<'a> {
    pub(super) place: &'a Filled,
    /// The temporary table.
    made: String,
    /// For each entry of the place: the columns that its rows have, as a list in SQL.
    copies: Vec<String>,
    /// Columns that are compared, quoted.
    names: Vec<String>,
    /// The same as they are compared.
    compared: Vec<String>,
    /// Places of the key among them; empty where every row counts.
    key: Vec<usize>,
    /// Which of the rows of a key may be there.
    choice: Choice,
    /// Whether rows say at their end what the message had.
    keeps: bool,
    /// Whether staged files of this table expire by themselves.
    expires: bool,
    /// The column of times by which rows are dropped, and whether it is an instant.
    time: Option<(String, bool)>,
    /// What is not compared, and why.
    pub(super) left_out: Vec<String>,
}

/// Which of the rows of one key may be the one that is there.
enum Choice {
    /// Any that the messages make.
    Any,
    Last,
    /// The ones with the greatest value of this column.
    Newest(String),
}

impl Choice {
    /// By the settings of a table, of which those columns are compared that it `has`.
    fn of(settings: &config::Table, has: impl Fn(&str) -> bool) -> Self {
        match &settings.newer_by {
            _ if settings.on_conflict == OnConflict::Ignore || settings.absent == Some(Absent::Keep) => {
                Self::Any
            }
            Some(newer) if has(newer) => Self::Newest(escape_identifier(newer)),
            Some(_) => Self::Any,
            None => Self::Last,
        }
    }
}

/// The columns that all of the place's messages fill alike, and what is left out beside them.
fn comparable<'t>(
    place: &Filled,
    table: &'t Table,
    decoder: &Decoder,
    keeps_created: bool,
) -> (Vec<&'t Column>, Vec<String>) {
    let (mut names, mut left_out) = (Vec::new(), Vec::new());
    for column in &table.columns {
        let written = |entry: &&usize| decoder.columns(**entry).contains(&column.name);
        let by = place.entries.iter().filter(written).count();
        if keeps_created && column.name == "created_at" {
            left_out.push(format!("table {}: created_at, which a trigger sets", place.name));
        } else if by == place.entries.len() || by > 0 && column.default == ServerDefault::None {
            names.push(column);
        } else if by > 0 {
            left_out.push(format!(
                "table {}: column {}, which the server fills for some of its messages",
                place.name, column.name
            ));
        }
    }
    (names, left_out)
}

/// Rows that are not there as often as they should be.
pub(super) struct Unlike {
    pub(super) sequence: Option<u64>,
    pub(super) made: u64,
    pub(super) there: u64,
    /// The row, or its key.
    pub(super) row: String,
}

impl<'a> Comparison<'a> {
    /// Makes the temporary tables.
    pub(super) async fn all(
        snapshot: &Snapshot<'_>,
        places: impl Iterator<Item = &'a Filled>,
        pipeline: &config::Pipeline,
        tables: &[Table],
        decoder: &Decoder,
    ) -> Result<Vec<Self>, Error> {
        const ACTION: &str = "create a temporary table, which needs the TEMPORARY privilege on the database";
        let mut all = Vec::new();
        for (index, place) in places.enumerate() {
            let triggers = triggers(snapshot, place).await?;
            let made = Self::new(index, place, pipeline, tables, decoder, &triggers);
            let comparison = made.expiring(snapshot).await?;
            snapshot.execute(ACTION, &comparison.create()).await?;
            all.push(comparison);
        }
        Ok(all)
    }

    fn new(
        index: usize,
        place: &'a Filled,
        pipeline: &config::Pipeline,
        tables: &[Table],
        decoder: &Decoder,
        triggers: &[String],
    ) -> Self {
        // An entry with a key is the only one of its table.
        let (first, settings) = (place.entries[0], &pipeline.tables[place.entries[0]]);
        let table = &tables[first];
        let mut triggers = triggers.to_vec();
        let keeps_created = triggers.iter().any(|trigger| trigger == KEEPS_CREATED_AT);
        triggers.retain(|trigger| trigger != KEEPS_CREATED_AT);
        let (mut names, mut left_out) = comparable(place, table, decoder, keeps_created);
        let keyed = settings.on_conflict != OnConflict::Error;
        let key_of = |names: &[&Column]| -> Vec<usize> {
            let found = settings.key.iter().map(|key| names.iter().position(|column| column.name == *key));
            found.collect::<Option<_>>().unwrap_or_default()
        };
        let mut key = if keyed { key_of(&names) } else { Vec::new() };
        let nullable = key.iter().any(|&at| !names[at].not_null);
        if keyed && settings.absent == Some(Absent::Keep) {
            left_out.push(format!(
                "table {}: all but the key, since absent = \"keep\" leaves what other messages wrote",
                place.name
            ));
            names = key.iter().map(|&at| names[at]).collect();
            key = (0..names.len()).collect();
        }
        let time = names.iter().find(|column| Some(&column.name) == table.time_column.as_ref());
        let time = time.map(|column| (escape_identifier(&column.name), column.ty == Type::Timestamptz));
        let by_number = !triggers.is_empty() && !keyed;
        if !triggers.is_empty() {
            let what = if by_number { "all but the number of its rows" } else { "its rows" };
            left_out.push(format!(
                "table {}: {what}, which a trigger may change before they are stored ({})",
                place.name,
                triggers.join(", ")
            ));
            names.clear();
        } else if keyed && (key.is_empty() || nullable) {
            left_out.push(format!(
                "table {}: its rows, because on_conflict without a key of NOT NULL columns does not say \
                 which of them conflict",
                place.name
            ));
            names.clear();
        }
        let has = |name: &str| names.iter().any(|column| column.name == name);
        let choice = Choice::of(settings, has);
        let copies = place.entries.iter().map(|&entry| {
            let columns = decoder.columns(entry).iter().map(|name| escape_identifier(name));
            let present = (pipeline.tables[entry].absent == Some(Absent::Keep)).then(|| PRESENT.to_owned());
            [SEQUENCE.to_owned()].into_iter().chain(columns).chain(present).collect::<Vec<_>>().join(", ")
        });
        Self {
            place,
            made: format!("jetcopy_made_{index}"),
            copies: copies.collect(),
            names: names.iter().map(|column| escape_identifier(&column.name)).collect(),
            // Where only their number counts, all rows are alike.
            compared: if by_number {
                vec!["0".to_owned()]
            } else {
                names.iter().map(|column| as_compared(column)).collect()
            },
            key,
            choice,
            keeps: settings.absent == Some(Absent::Keep),
            expires: settings.newer_by.as_deref() == Some("updated_at")
                && ["staged", "status", "expires_at", "updated_at"].iter().all(|&name| has(name)),
            time,
            left_out,
        }
    }

    /// Whether `jetcopy.expire_staged_files()` is about this table.
    async fn expiring(mut self, snapshot: &Snapshot<'_>) -> Result<Self, Error> {
        let sql = format!(
            "SELECT to_regprocedure('jetcopy.expire_staged_files(timestamptz)') IS NOT NULL \
             AND (SELECT relname = 'files'::name FROM pg_class WHERE oid = to_regclass({})::oid)",
            escape_literal(&self.place.qualified)
        );
        self.expires &= snapshot.query("ask what expires", &sql).await?.text(0) == Some("t");
        Ok(self)
    }

    /// Whether rows are compared at all.
    pub(super) fn compares(&self) -> bool {
        !self.compared.is_empty()
    }

    pub(super) fn by_key(&self) -> bool {
        !self.key.is_empty()
    }

    /// The most rows that this many messages can have, where that is known.
    pub(super) fn most(&self, messages: u64) -> Option<u64> {
        (messages == 0 || self.place.rule != Rule::Any).then_some(messages)
    }

    fn create(&self) -> String {
        let present = if self.keeps { format!(", ''::bytea AS {PRESENT}") } else { String::new() };
        format!(
            "CREATE TEMPORARY TABLE {} USING heap ON COMMIT DROP AS SELECT 0::bigint AS {SEQUENCE}{present}, \
               t.* FROM {} AS t \
             WITH NO DATA",
            self.made, self.place.qualified
        )
    }

    /// Puts rows into the temporary table that an entry makes, but for those that `excluded` says;
    /// `sequences` are those of the messages. Returns how many went.
    pub(super) async fn put(
        &self,
        snapshot: &Snapshot<'_>,
        entry: usize,
        rows: &TableRows,
        sequences: &[u64],
        excluded: impl Fn(&crate::batch::Row) -> bool,
    ) -> Result<u64, Error> {
        let kept: Vec<u32> =
            (0..).zip(&rows.rows).filter(|(_, row)| !excluded(row)).map(|(index, _)| index).collect();
        if kept.is_empty() {
            return Ok(0);
        }
        let sequence_of = |index: u32| sequences[rows.rows[index as usize].message as usize];
        let refused = |source: tokio_postgres::Error| {
            let line = copy_line(&source).and_then(|line| usize::try_from(line.checked_sub(1)?).ok());
            match line.and_then(|line| kept.get(line)) {
                Some(&index) => {
                    Error::Refused { table: self.place.name.clone(), sequence: sequence_of(index), source }
                }
                None => Error::Database { action: "fill a temporary table", source },
            }
        };
        let which = self.place.entries.iter().position(|&known| known == entry).unwrap_or(0);
        let sql = format!("COPY pg_temp.{} ({}) FROM STDIN (FORMAT binary)", self.made, self.copies[which]);
        let mut sink = pin!(snapshot.client().copy_in::<_, Bytes>(&sql).await.map_err(refused)?);
        let mut chunk = BytesMut::from(HEADER);
        for &index in &kept {
            let tuple = &rows.data[rows.range(index)];
            let (fields, values) = tuple.split_at(2);
            let fields = i16::from_be_bytes([fields[0], fields[1]]) + 1;
            chunk.extend_from_slice(&fields.to_be_bytes());
            chunk.extend_from_slice(&8_i32.to_be_bytes());
            chunk.extend_from_slice(&sequence_of(index).to_be_bytes());
            chunk.extend_from_slice(values);
            if chunk.len() > 64 * 1024 {
                sink.feed(chunk.split().freeze()).await.map_err(refused)?;
            }
        }
        chunk.extend_from_slice(&TRAILER);
        sink.feed(chunk.freeze()).await.map_err(refused)?;
        sink.finish().await.map_err(refused)
    }

    /// What is not alike.
    pub(super) async fn unlike(
        &mut self,
        snapshot: &Snapshot<'_>,
    ) -> Result<impl Stream<Item = Result<Unlike, tokio_postgres::Error>> + use<>, Error> {
        let filter = self.filter(snapshot).await?;
        let sql = self.sql(&filter);
        let none: [(bool, tokio_postgres::types::Type); 0] = [];
        let rows = snapshot.client().query_typed_raw(&sql, none).await;
        let rows = rows.map_err(|source| Error::Database { action: "compare the rows", source })?;
        Ok(rows.and_then(async |row| unlike(&row)))
    }

    /// Which rows of both sides are compared: not those that went by age, or that a person has deleted.
    async fn filter(&mut self, snapshot: &Snapshot<'_>) -> Result<String, Error> {
        let mut filter = Vec::new();
        if let Some((time, instant)) = &self.time
            && let Some(before_us) = retention::dropped_before(snapshot, self.place).await?
        {
            // A time without a zone is one in whatever zone: a day later is safe.
            let before_us = if *instant { before_us } else { before_us.saturating_add(86_400_000_000) };
            filter.push(format!(
                "{time}::timestamptz >= '1970-01-01 00:00:00Z'::timestamptz + {before_us}::float8 * interval \
                 '1 microsecond'"
            ));
            self.left_out.push(format!("table {}: rows that it may have dropped by age", self.place.name));
        }
        filter.extend(self.deleted(snapshot).await?);
        Ok(if filter.is_empty() { "true".to_owned() } else { filter.join(" AND ") })
    }

    /// What people have deleted from the store stands in `jetcopy.deletions`.
    async fn deleted(&mut self, snapshot: &Snapshot<'_>) -> Result<Vec<String>, Error> {
        let Some((column, values)) = retention::deletions(snapshot, self.place).await? else {
            return Ok(Vec::new());
        };
        let quoted = escape_identifier(column);
        if !self.names.contains(&quoted) {
            return Ok(Vec::new());
        }
        let values: Vec<String> = values.iter().map(|value| escape_literal(value)).collect();
        let Some(first) = values.first() else { return Ok(Vec::new()) };
        self.left_out.push(format!(
            "table {}: rows that were deleted, according to jetcopy.deletions",
            self.place.name
        ));
        Ok(vec![match column {
            "timestamp_utc" => format!("{quoted}::timestamptz >= {first}::timestamptz"),
            _ => format!("{quoted}::text <> ALL (ARRAY[{}]::text[])", values.join(", ")),
        }])
    }

    fn sql(&self, filter: &str) -> String {
        let expressions: Vec<String> =
            (0..).zip(&self.compared).map(|(at, column): (usize, _)| format!("{column} AS c{at}")).collect();
        let names: Vec<String> = (0..self.compared.len()).map(|at| format!("c{at}")).collect();
        let (expressions, names) = (expressions.join(", "), names.join(", "));
        let sides = format!(
            "grouped AS (SELECT {names}, min(sequence) AS sequence, sum(made) AS made, sum(there) AS there \
               FROM (\
               SELECT {expressions}, {SEQUENCE} AS sequence, 1 AS made, 0 AS there FROM {} AS made \
                 WHERE {filter} \
               UNION ALL SELECT {expressions}, NULL::bigint, 0, 1 FROM {} AS there WHERE {filter}) AS sides \
             GROUP BY {names})",
            self.chosen(),
            self.place.qualified
        );
        let shown = |columns: &str| {
            if self.names.is_empty() {
                "''::text".to_owned()
            } else {
                format!("pg_catalog.left(ROW({columns})::text, {SHOWN})")
            }
        };
        if self.key.is_empty() {
            return format!(
                "WITH {sides} SELECT sequence, made, there, {} FROM grouped WHERE made <> there \
                   ORDER BY sequence",
                shown(&names)
            );
        }
        let key: Vec<String> = self.key.iter().map(|at| format!("c{at}")).collect();
        let key = key.join(", ");
        format!(
            "WITH {sides}, keyed AS (SELECT {key}, min(sequence) AS sequence, \
               max(CASE WHEN made > 0 THEN 1 ELSE 0 END) AS made, \
               sum(there)::bigint AS there, bool_or(made > 0 AND there > 0) AS alike FROM grouped \
                 GROUP BY {key}) \
             SELECT sequence, made::bigint, there, {} FROM keyed \
               WHERE NOT (made = 1 AND there = 1 AND alike) ORDER BY sequence",
            shown(&key)
        )
    }

    /// The rows that may be there, of those that the messages make.
    fn chosen(&self) -> String {
        let made = format!("pg_temp.{}", self.made);
        let key: Vec<&str> = self.key.iter().map(|&at| self.compared[at].as_str()).collect();
        let key = key.join(", ");
        match &self.choice {
            _ if self.key.is_empty() => made,
            Choice::Any => made,
            Choice::Last => format!(
                "(SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY {SEQUENCE} DESC, \
                   ctid DESC) \
                 AS jetcopy_place FROM {made}) AS ranked WHERE jetcopy_place = 1)"
            ),
            Choice::Newest(newer) if self.expires => self.or_expired(&made, &key, newer),
            Choice::Newest(newer) => format!(
                "(SELECT * FROM (SELECT *, rank() OVER (PARTITION BY {key} ORDER BY {newer} DESC NULLS LAST) \
                 AS jetcopy_place FROM {made}) AS ranked WHERE jetcopy_place = 1)"
            ),
        }
    }

    /// The newest rows, and what a staged one that has expired may have become: marked so with the time of
    /// that, it stays where later events are older.
    fn or_expired(&self, made: &str, key: &str, newer: &str) -> String {
        let list = |change: bool| {
            let columns = self.names.iter().map(|name| match name.as_str() {
                "\"status\"" if change => "'expired'::text AS status".to_owned(),
                "\"updated_at\"" if change => "greatest(updated_at, expires_at) AS updated_at".to_owned(),
                name => name.to_owned(),
            });
            columns.collect::<Vec<_>>().join(", ")
        };
        format!(
            "(SELECT * FROM (SELECT *, rank() OVER (PARTITION BY {key} ORDER BY jetcopy_real DESC, \
               {newer} DESC NULLS LAST) \
               AS jetcopy_place, max(updated_at) FILTER (WHERE jetcopy_real) OVER (PARTITION BY {key}) AS \
                 jetcopy_newest \
             FROM (SELECT {SEQUENCE}, {}, true AS jetcopy_real FROM {made} \
               UNION ALL SELECT {SEQUENCE}, {}, false FROM {made} WHERE staged AND status = 'active' \
                 AND expires_at <= now()) \
               AS either) AS ranked \
             WHERE jetcopy_real AND jetcopy_place = 1 OR NOT jetcopy_real AND updated_at >= jetcopy_newest)",
            list(false),
            list(true),
        )
    }
}

/// Triggers of a table, or of its partitions, that may change a row or leave it out: their functions.
/// TimescaleDB's own do not.
async fn triggers(snapshot: &Snapshot<'_>, place: &Filled) -> Result<Vec<String>, Error> {
    let table = escape_literal(&place.qualified);
    let sql = format!(
        "SELECT DISTINCT n.nspname::text || '.' || p.proname::text FROM pg_trigger t JOIN pg_proc p \
           ON p.oid = t.tgfoid \
         JOIN pg_namespace n ON n.oid = p.pronamespace \
         WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgtype::int4 & 3 = 3 \
           AND t.tgtype::int4 & 20 <> 0 \
         AND n.nspname::text NOT LIKE '\\_timescaledb%' \
         AND (t.tgrelid = to_regclass({table})::oid \
           OR t.tgrelid IN (SELECT relid::oid FROM pg_partition_tree(to_regclass({table})))) ORDER BY 1"
    );
    let found = snapshot.query("look for triggers", &sql).await?;
    Ok(found.rows().filter_map(|row| row.get(0)).map(str::to_owned).collect())
}

/// A column as it is compared: types without an order of their own as text.
fn as_compared(column: &Column) -> String {
    fn ordered(ty: &Type) -> bool {
        match ty {
            Type::Json => false,
            Type::Array { element, .. } => ordered(element),
            _ => true,
        }
    }
    let cast = if ordered(&column.ty) && !column.type_name.starts_with("xml") { "" } else { "::text" };
    format!("{}{cast}", escape_identifier(&column.name))
}

fn unlike(row: &Row) -> Result<Unlike, tokio_postgres::Error> {
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let sequence: Option<i64> = row.try_get(0)?;
    let (made, there) = (number(row.try_get(1)?), number(row.try_get(2)?));
    Ok(Unlike { sequence: sequence.map(number), made, there, row: row.try_get(3)? })
}
