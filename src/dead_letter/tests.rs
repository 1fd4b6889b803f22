//! A dead letter is stored whatever its message holds, and read back as it was.

use bytes::Bytes;
use tokio_postgres::Client;

use super::*;
use crate::config;
use crate::migrate::migrate;
use crate::shard::Shard;
use crate::testbed::{TestPostgres, connect};

fn shard() -> Shard {
    Shard::new("frames", "frames", "FRAMES")
}

fn letter(sequence: u64) -> DeadLetter {
    DeadLetter {
        sequence,
        stored_at_ns: 1_700_000_000_123_456_000,
        subject: "frames.cam1".into(),
        headers: None,
        raw: crate::dead_letter::Raw::default(),
        payload: Bytes::from_static(&[0xC1]),
        kind: "malformed",
        sqlstate: None,
        message: "marker 0xc1 is reserved".into(),
        table: None,
        column: None,
        element: None,
        elements: Vec::new(),
    }
}

async fn migrated() -> (std::sync::Arc<TestPostgres>, Client) {
    let server = TestPostgres::shared().unwrap();
    let url = server.create_database().await.unwrap();
    migrate(&config::Postgres { url: url.clone(), ..config::Postgres::default() }).await.unwrap();
    (server, connect(&url).await.unwrap())
}

#[tokio::test]
async fn a_dead_letter_is_read_back_as_it_was() {
    let (_server, client) = migrated().await;
    let mut headers = HeaderMap::new();
    headers.append("Content-Type", "application/msgpack");
    headers.append("Trace", "one");
    headers.append("Trace", "two");
    let full = DeadLetter {
        headers: Some(Headers::from(&headers)),
        payload: (0..=255).collect(),
        sqlstate: Some("22P02".into()),
        table: Some("public.t".into()),
        column: Some("Größe".into()),
        element: Some(3),
        ..letter(7)
    };
    client.batch_execute("BEGIN").await.unwrap();
    store(&client, &shard(), &[full.clone(), letter(8)]).await.unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    let rows = client
        .query(
            "SELECT pipeline, shard, stream, sequence, subject, headers::text, payload, kind, sqlstate,
                    message,
                    table_name, column_name, element FROM jetcopy.dead_letters ORDER BY sequence",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(rows.len(), 2);
    let text = |column| rows[0].get::<_, Option<String>>(column).unwrap();
    assert_eq!([text(0), text(1), text(2)], ["frames", "frames", "FRAMES"]);
    assert_eq!(rows[0].get::<_, i64>(3), 7);
    assert_eq!(text(5), r#"{"Trace": ["one", "two"], "Content-Type": ["application/msgpack"]}"#);
    assert_eq!(rows[0].get::<_, Vec<u8>>(6), full.payload);
    assert_eq!(
        [text(4), text(7), text(8), text(9), text(10), text(11)],
        ["frames.cam1", "malformed", "22P02", "marker 0xc1 is reserved", "public.t", "Größe"]
    );
    assert_eq!(rows[1].get::<_, Option<String>>(5), None);
    assert_eq!([0, 1].map(|row| rows[row].get::<_, Option<i32>>(12)), [Some(3), None]);
}

#[tokio::test]
async fn nothing_in_a_message_can_make_its_dead_letter_poison() {
    let (_server, client) = migrated().await;
    let mut headers = HeaderMap::new();
    headers.insert("Quote\"\\", "a\\u0000 \u{1} \u{FFFF} \u{2028} 🦀 \"");
    let odd = DeadLetter {
        subject: "frames.\0.\u{202E}".into(),
        headers: Some(Headers::from(&headers)),
        payload: Bytes::new(),
        sqlstate: Some("XX000".into()),
        message: "é\0".repeat(1 << 20),
        table: Some("t\0".into()),
        column: Some("\0".into()),
        ..letter(u64::MAX)
    };
    client.batch_execute("BEGIN").await.unwrap();
    store(&client, &shard(), &[odd]).await.unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    let row = client
        .query_one(
            "SELECT subject, octet_length(replace(message, chr(65533), ' ')), headers->'Quote\"\\'->>0,
             column_name
             FROM jetcopy.dead_letters",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "frames.\u{FFFD}.\u{202E}");
    // Cut between characters: 1365 pairs of three bytes fit.
    assert_eq!(row.get::<_, i32>(1), 4095);
    assert_eq!(row.get::<_, &str>(2), "a\\u0000 \u{1} \u{FFFF} \u{2028} 🦀 \"");
    assert_eq!(row.get::<_, &str>(3), "\u{FFFD}");
}

#[test]
fn a_nul_in_headers_is_replaced_since_jsonb_has_none() {
    let mut headers = HeaderMap::new();
    headers.insert("a", "x\0y");
    assert_eq!(Headers::from(&headers), Headers("{\"a\":[\"x\u{FFFD}y\"]}".into()));
}
