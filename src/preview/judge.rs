//! What the server makes of values, without writing them.
//!
//! Guarantees: values are what the table would hold (rounded to the scale of a `numeric`, padded to the
//! length of a `char`, `jsonb` in its own order), and what its types refuse (labels of enumerations, lengths,
//! domains) is a dead letter, with its column. The server reads them by `json_populate_recordset`, which goes
//! by the input functions of the table's row type and needs no right on the table. All of it is one
//! transaction that is read-only and rolled back.

use std::error::Error as StdError;
use std::fmt::Write as _;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;
use tokio_postgres::types::{FromSql, Type as WireType};

use super::{Column, Letter, Made, Preview, Row};
use crate::encode::printed;
use crate::encode::types::Type;

/// A value of any type, in binary.
struct Field(Vec<u8>);

impl FromSql<'_> for Field {
    fn from_sql(_: &WireType, raw: &[u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &WireType) -> bool {
        true
    }
}

/// The fields of rows.
type Fields = Vec<Vec<Option<Vec<u8>>>>;

/// Puts what the server makes of them in the place of the values of `made`, and a dead letter in the place of
/// rows that it refuses.
pub(crate) async fn judge(
    client: &Client,
    preview: &Preview<'_>,
    made: &mut [Made],
) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("BEGIN READ ONLY").await?;
    let judged = judge_all(client, preview, made).await;
    client.batch_execute("ROLLBACK").await?;
    judged
}

async fn judge_all(
    client: &Client,
    preview: &Preview<'_>,
    made: &mut [Made],
) -> Result<(), tokio_postgres::Error> {
    for table in 0..preview.tables.len() {
        let columns = preview.columns(table);
        let sql = statement(&preview.tables[table].qualified, &columns);
        let rows = made.iter().flat_map(|made| &made.rows).filter(|row| row.table == table);
        let rows: Vec<&Row> = rows.collect();
        if rows.is_empty() {
            continue;
        }
        if let Ok(stored) = ask(client, &sql, &columns, &rows).await? {
            let rows = made.iter_mut().flat_map(|made| &mut made.rows).filter(|row| row.table == table);
            rows.zip(stored).for_each(|(row, stored)| row.fields = stored);
            continue;
        }
        for made in made.iter_mut() {
            judge_each(client, preview, table, (&sql, &columns), made).await?;
        }
    }
    Ok(())
}

/// The same row by row, where one of them is refused.
async fn judge_each(
    client: &Client,
    preview: &Preview<'_>,
    table: usize,
    (sql, columns): (&str, &[Column<'_>]),
    made: &mut Made,
) -> Result<(), tokio_postgres::Error> {
    let mut kept = Vec::with_capacity(made.rows.len());
    let mut whole = None;
    for mut row in std::mem::take(&mut made.rows) {
        if row.table != table || whole.is_some() {
            kept.push(row);
            continue;
        }
        match ask(client, sql, columns, &[&row]).await? {
            Ok(stored) => {
                row.fields = stored.into_iter().next().unwrap_or(row.fields);
                kept.push(row);
            }
            Err(refusal) => {
                let column = which(client, preview, table, columns, &row).await?;
                let letter = refused(preview, table, row.element, column, &refusal);
                if preview.takes_message_along(table) {
                    whole = Some(letter);
                } else {
                    made.letters.push(letter);
                }
            }
        }
    }
    match whole {
        // As a whole: it has one letter and no row.
        Some(letter) => made.letters = vec![letter],
        None => made.rows = kept,
    }
    Ok(())
}

/// The column whose value is refused, by trying each by itself.
async fn which<'c>(
    client: &Client,
    preview: &Preview<'_>,
    table: usize,
    columns: &'c [Column<'c>],
    row: &Row,
) -> Result<Option<&'c Column<'c>>, tokio_postgres::Error> {
    for (index, column) in columns.iter().enumerate() {
        let Some(field) = &row.fields[index] else { continue };
        let one = std::slice::from_ref(column);
        let alone = Row { table, element: None, fields: vec![Some(field.clone())] };
        let sql = statement(&preview.tables[table].qualified, one);
        if ask(client, &sql, one, &[&alone]).await?.is_err() {
            return Ok(Some(column));
        }
    }
    Ok(None)
}

fn refused(
    preview: &Preview<'_>,
    table: usize,
    element: Option<u32>,
    column: Option<&Column<'_>>,
    refusal: &tokio_postgres::error::DbError,
) -> Letter {
    let cure = column.map(|column| {
        let Column { name, type_name, source, .. } = column;
        format!("column {name} is {type_name}: change its type, or what publishers send in `{source}`")
    });
    Letter {
        kind: "refused",
        reason: refusal.message().to_owned(),
        table: Some(preview.pipeline.tables[table].name.clone()),
        column: column.map(|column| column.name.to_owned()),
        element: element.filter(|_| !preview.takes_message_along(table)),
        sqlstate: Some(refusal.code().code().to_owned()),
        cure,
    }
}

/// How a column comes back: as a type that the driver knows. Of another one it would ask the server, which
/// answers nothing once it has refused a value.
fn cast(column: &Column<'_>) -> String {
    // A cast to text would take the spaces away that fill a `char(n)`.
    if matches!(column.ty, Type::Text) && column.type_name.starts_with("character(") {
        return String::new();
    }
    match column.ty {
        Type::Array { element, .. } => format!("::pg_catalog.{}[]", element.name()),
        ty => format!("::pg_catalog.{}", ty.name()),
    }
}

fn statement(table: &str, columns: &[Column<'_>]) -> String {
    let column = |column: &Column<'_>| format!("r.{}{}", escape_identifier(column.name), cast(column));
    let columns: Vec<_> = columns.iter().map(column).collect();
    format!(
        "SELECT {} FROM pg_catalog.json_populate_recordset(NULL::{table}, $1::json) AS r",
        columns.join(", ")
    )
}

/// What the server makes of rows, or why it refuses one of them.
async fn ask(
    client: &Client,
    sql: &str,
    columns: &[Column<'_>],
    rows: &[&Row],
) -> Result<Result<Fields, Box<tokio_postgres::error::DbError>>, tokio_postgres::Error> {
    let text = json(columns, rows);
    client.batch_execute("SAVEPOINT rows").await?;
    let answer = client.query_typed(sql, &[(&text, WireType::TEXT)]).await;
    let error = match answer {
        Ok(answer) => {
            client.batch_execute("RELEASE rows").await?;
            let mut stored = Vec::with_capacity(answer.len());
            for row in &answer {
                let field = |index| Ok(row.try_get::<_, Option<Field>>(index)?.map(|Field(field)| field));
                let fields: Result<Vec<_>, tokio_postgres::Error> = (0..columns.len()).map(field).collect();
                stored.push(fields?);
            }
            return Ok(Ok(stored));
        }
        Err(error) => error,
    };
    match error.as_db_error() {
        // A value that its type or domain does not take; anything else is no value's fault.
        Some(refusal) if refusal.code().code().starts_with("22") || refusal.code().code() == "23514" => {
            client.batch_execute("ROLLBACK TO rows").await?;
            Ok(Err(Box::new(refusal.clone())))
        }
        Some(_) | None => Err(error),
    }
}

/// Rows as the server reads them: JSON as what it is, all else as its text.
fn json(columns: &[Column<'_>], rows: &[&Row]) -> String {
    let mut text = "[".to_owned();
    for (number, row) in rows.iter().enumerate() {
        text += if number == 0 { "{" } else { ",{" };
        for (index, (column, field)) in columns.iter().zip(&row.fields).enumerate() {
            let value = match field {
                None => "null".to_owned(),
                Some(field) if matches!(column.ty, Type::Json | Type::Jsonb) => {
                    printed::json(column.ty, field).get().to_owned()
                }
                Some(field) => serde_json::Value::from(printed::text(column.ty, field)).to_string(),
            };
            let comma = if index == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(text, "{comma}{}:{value}", serde_json::Value::from(column.name));
        }
        text += "}";
    }
    text + "]"
}
