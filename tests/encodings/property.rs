//! Arbitrary mappings, arbitrary messages: whatever the decoder lets through, the server takes.

#![expect(clippy::unwrap_used, reason = "helpers of tests say what they expect, too")]

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, Instant};

use jetcopy::batch::Rows;
use jetcopy::decode::Decoder;
use jetcopy::postgres::introspect::introspect;
use jetcopy::testbed::{TestPostgres, connect};
use tokio_postgres::Client;

use super::mapping::{Choices, Column, Mapping};
use super::tree::Tree;
use super::{copy, message};

/// How long it goes on: some hundred mappings.
const TIME: Duration = Duration::from_secs(10);

/// Messages of each mapping.
const MESSAGES: usize = 500;

/// Formats that a message can be written in.
const FORMATS: [&str; 5] = ["json", "msgpack", "cbor", "ndjson", "raw"];

#[tokio::test]
async fn whatever_a_mapping_lets_through_is_taken_by_the_server() {
    let server = TestPostgres::shared().unwrap();
    let client = connect(&server.create_database().await.unwrap()).await.unwrap();
    client
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('a', 'fine'); CREATE DOMAIN positive AS integer CHECK (value > 0)",
        )
        .await
        .unwrap();
    let (mut mappings, mut rows) = (0, 0);
    let start = Instant::now();
    while start.elapsed() < TIME {
        let format = FORMATS[mappings % FORMATS.len()];
        let mapping = Mapping::new(&mut Choices(&random(64)), format);
        client.batch_execute(&mapping.sql()).await.unwrap();
        let mut tables = Vec::new();
        for index in 0..mapping.tables.len() {
            tables.push(introspect(&client, &format!("t{index}")).await.unwrap());
        }
        // A mapping that does not fit its tables is refused as a whole.
        let Ok(mut decoder) = Decoder::new(&mapping.pipeline(), &tables) else { continue };
        let messages: Vec<Vec<u8>> = (0..MESSAGES)
            .map(|_| {
                let bytes = random(200);
                let mut choices = Choices(&bytes);
                let tree =
                    if format == "raw" { Tree::value(&mut choices) } else { Tree::message(&mut choices) };
                tree.encoded(format, &mut choices)
            })
            .collect();
        rows += all_taken(&client, &mapping, &mut decoder, &messages).await;
        mappings += 1;
    }
    println!("{mappings} mappings, {rows} rows");
    assert!(mappings > 0 && rows > 0, "{mappings} mappings, {rows} rows");
}

/// How many rows the server took of `messages`: all that the decoder made of them, but for those with a value
/// that only the server can judge.
async fn all_taken(client: &Client, mapping: &Mapping, decoder: &mut Decoder, messages: &[Vec<u8>]) -> usize {
    let mut together = Rows::new(mapping.tables.len());
    for payload in messages {
        // Poison is a fair answer to an arbitrary message.
        let _ = decoder.decode(&message(payload), 0, &mut together);
    }
    if try_copy(client, decoder, &together).await.is_ok() {
        return together.tables.iter().map(|table| table.rows.len()).sum();
    }
    let mut taken = 0;
    for payload in messages {
        let mut rows = Rows::new(mapping.tables.len());
        if decoder.decode(&message(payload), 0, &mut rows).is_err() {
            continue;
        }
        match try_copy(client, decoder, &rows).await {
            Ok(()) => taken += 1,
            Err(error) => {
                let code = error.code().map(tokio_postgres::error::SqlState::code).unwrap_or_default();
                assert!(
                    mapping.refusals().any(|known| known == code),
                    "{error:?}\n{}\n{}\n{}",
                    mapping.toml,
                    mapping.sql(),
                    payload.escape_ascii()
                );
            }
        }
    }
    taken
}

async fn try_copy(client: &Client, decoder: &Decoder, rows: &Rows) -> Result<(), tokio_postgres::Error> {
    for (index, table) in rows.tables.iter().enumerate() {
        copy(client, &format!("t{index}"), decoder.columns(index), &table.data).await?;
    }
    Ok(())
}

fn random(count: usize) -> Vec<u8> {
    // The hasher's keys are random.
    let bytes = std::iter::repeat_with(|| RandomState::new().build_hasher().finish().to_le_bytes());
    bytes.flatten().take(count).collect()
}

impl Mapping {
    /// Makes the tables.
    fn sql(&self) -> String {
        let mut sql = "DROP TABLE IF EXISTS t0, t1;".to_owned();
        for (index, columns) in self.tables.iter().enumerate() {
            let columns: Vec<String> = columns.iter().map(column_sql).collect();
            write!(sql, " CREATE TABLE t{index} ({});", columns.join(", ")).unwrap();
        }
        sql
    }

    /// SQLSTATEs of what only the server can see.
    fn refusals(&self) -> impl Iterator<Item = &'static str> {
        self.tables.iter().flatten().filter_map(|column| column.scalar.2)
    }
}

fn column_sql(column: &Column) -> String {
    let (sql, _, _) = column.scalar;
    let array = if column.array { "[]" } else { "" };
    let not_null = if column.not_null { " NOT NULL" } else { "" };
    format!("{} {sql}{array}{not_null}", column.name)
}
