//! Dead letters as they lie in the table: chosen, read, thrown away, and what is noted of those.
//!
//! Guarantees: letters stream from one snapshot in the order of their ids, newest first where that is asked
//! for; however many there are, memory holds a few. A filter that names nothing matches all.

use futures_util::{Stream, TryStreamExt};
use postgres_protocol::escape::escape_literal;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

/// Which letters are meant; what is `None` says nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Of these ids.
    pub ids: Option<Vec<i64>>,
    pub pipeline: Option<String>,
    /// Of this shard, by its name or what follows the pipeline's in it.
    pub shard: Option<String>,
    pub kind: Option<String>,
    /// About this table.
    pub table: Option<String>,
    /// That failed at this time or later: microseconds since the Unix epoch.
    pub since_us: Option<i64>,
    /// Maximum number of letters.
    pub limit: Option<i64>,
}

/// A letter.
#[derive(Debug, Clone)]
// Each field is the column of its name, documented in the migrations.
pub(crate) struct Kept {
    pub id: i64,
    /// In UTC, as RFC 3339.
    pub failed_at: String,
    pub pipeline: String,
    pub shard: String,
    pub stream: String,
    pub sequence: i64,
    pub subject: String,
    /// A JSON object.
    pub headers: Option<String>,
    /// As published, where `subject` is not that; empty where those bytes are not to be had.
    pub raw_subject: Option<Vec<u8>>,
    /// The header block as published, where `headers` has not all of it.
    pub raw_headers: Option<Vec<u8>>,
    /// `None` where the letter has expired.
    pub payload: Option<Vec<u8>>,
    pub kind: String,
    pub sqlstate: Option<String>,
    pub message: String,
    pub table: Option<String>,
    pub column: Option<String>,
    pub element: Option<i32>,
    pub elements: Option<Vec<i32>>,
    /// When the stream stored it: microseconds since the Unix epoch.
    pub stored_at_us: Option<i64>,
    /// When it lost its payload and its headers by age: in UTC, as RFC 3339.
    pub expired_at: Option<String>,
}

const COLUMNS: &str = "id, to_char(failed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
    pipeline, shard, stream, sequence, subject, headers::text, jetcopy.payload_of(dead_letters), kind, \
    sqlstate, message, table_name, column_name, element, (extract(epoch FROM stored_at) * \
    1000000::numeric)::bigint, elements, to_char(expired_at AT TIME ZONE 'UTC', \
    'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), raw_subject, raw_headers";

const WHERE: &str = "WHERE ($1::bigint[] IS NULL OR id = ANY ($1)) AND ($2::text IS NULL OR pipeline = $2) \
    AND ($3::text IS NULL OR kind = $3) AND ($4::text IS NULL OR table_name = $4) \
    AND ($5::bigint IS NULL OR failed_at >= timestamptz 'epoch' + $5::float8 * interval '1 microsecond') \
    AND ($7::text IS NULL OR shard = $7 OR shard = pipeline || '-'::text || $7)";

/// In which order letters come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// As they were stored.
    OldestFirst,
    /// The other way round.
    NewestFirst,
}

impl Filter {
    fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 7] {
        [
            (&self.ids, Type::INT8_ARRAY),
            (&self.pipeline, Type::TEXT),
            (&self.kind, Type::TEXT),
            (&self.table, Type::TEXT),
            (&self.since_us, Type::INT8),
            (&self.limit, Type::INT8),
            (&self.shard, Type::TEXT),
        ]
    }
}

/// The letters that `filter` means.
pub(crate) async fn select(
    client: &Client,
    filter: &Filter,
    order: Order,
) -> Result<impl Stream<Item = Result<Kept, Error>> + use<>, Error> {
    let order = match order {
        Order::OldestFirst => "ASC",
        Order::NewestFirst => "DESC",
    };
    let sql = format!("SELECT {COLUMNS} FROM jetcopy.dead_letters {WHERE} ORDER BY id {order} LIMIT $6");
    let rows = client.query_typed_raw(&sql, filter.parameters()).await?;
    Ok(rows.and_then(async |row| kept(&row)))
}

/// Their ids, the oldest first.
pub(crate) async fn ids(client: &Client, filter: &Filter) -> Result<Vec<i64>, Error> {
    let sql = format!("SELECT id FROM jetcopy.dead_letters {WHERE} ORDER BY id LIMIT $6");
    let rows = client.query_typed(&sql, &filter.parameters()).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// What a settlement keeps of a letter, and the columns that it keeps it in.
const OF: &str = "pipeline, shard, stream, sequence, id, table_name, element, elements";
const SETTLED: &str = "pipeline, shard, stream, sequence, letter, table_name, element, elements";

/// Throws away the letters that `filter` means, and notes it; how many.
pub(crate) async fn discard(client: &Client, filter: &Filter) -> Result<u64, Error> {
    let sql = format!(
        "WITH gone AS (DELETE FROM jetcopy.dead_letters \
           WHERE id IN (SELECT id FROM jetcopy.dead_letters {WHERE} ORDER BY id LIMIT $6) RETURNING {OF}) \
         INSERT INTO jetcopy.settlements ({SETTLED}, action) SELECT {OF}, 'discarded' FROM gone"
    );
    client.execute_typed(&sql, &filter.parameters()).await
}

/// One letter, locked until the transaction ends; `None` where it is gone.
pub(crate) async fn lock(client: &Client, id: i64) -> Result<Option<Kept>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM jetcopy.dead_letters WHERE id = $1 FOR UPDATE");
    let row = client.query_typed_opt(&sql, &[(&id, Type::INT8)]).await?;
    row.as_ref().map(kept).transpose()
}

fn kept(row: &Row) -> Result<Kept, Error> {
    Ok(Kept {
        id: row.try_get(0)?,
        failed_at: row.try_get(1)?,
        pipeline: row.try_get(2)?,
        shard: row.try_get(3)?,
        stream: row.try_get(4)?,
        sequence: row.try_get(5)?,
        subject: row.try_get(6)?,
        headers: row.try_get(7)?,
        payload: row.try_get(8)?,
        kind: row.try_get(9)?,
        sqlstate: row.try_get(10)?,
        message: row.try_get(11)?,
        table: row.try_get(12)?,
        column: row.try_get(13)?,
        element: row.try_get(14)?,
        stored_at_us: row.try_get(15)?,
        elements: row.try_get(16)?,
        expired_at: row.try_get(17)?,
        raw_subject: row.try_get(18)?,
        raw_headers: row.try_get(19)?,
    })
}

/// Takes the letter away and notes what became of it: so many rows in each of these tables, and so many
/// letters about some of its elements; in the transaction that is open on `client`.
pub(crate) async fn remove(
    client: &Client,
    id: i64,
    stored: &[(String, u64)],
    letters: usize,
) -> Result<(), Error> {
    let tables: Vec<String> = stored.iter().map(|(table, _)| escape_literal(table)).collect();
    let rows: Vec<String> = stored.iter().map(|(_, rows)| rows.to_string()).collect();
    let sql = format!(
        "WITH gone AS (DELETE FROM jetcopy.dead_letters WHERE id = {id} RETURNING {OF}) \
         INSERT INTO jetcopy.settlements ({SETTLED}, action, tables, rows, letters) \
         SELECT {OF}, 'retried', ARRAY[{}]::text[], ARRAY[{}]::bigint[], {letters} FROM gone",
        tables.join(", "),
        rows.join(", "),
    );
    client.batch_execute(&sql).await
}
