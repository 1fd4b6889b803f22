//! Compressed payloads become the rows of what they expand to.

use async_nats::HeaderMap;

use super::support::*;
use crate::batch::Rows;
use crate::decode::{Decoder, LARGE, Undecoded};
use crate::encode::types::Type;
use crate::message::Message;
use crate::payload::compress::compress;
use crate::payload::compression::Codec;
use crate::poison::PoisonKind;

const JSON: &str = r#"{"a":1,"t":"text"}"#;

/// A decoder that takes fields, `$rest` and the payload as text and as bytes.
fn decoder(settings: &str) -> Decoder {
    let columns = vec![
        column("a", Type::Int8),
        column("rest", Type::Jsonb),
        column("whole", Type::Jsonb),
        column("bytes", Type::Bytea),
    ];
    let mapping = "[table.columns]\nrest = '$rest'\nwhole = '$payload'\nbytes = '$payload'\n";
    let toml = format!("{settings}\n[[table]]\nname = \"t\"\n{mapping}");
    try_decoder(&toml, &[table(columns)]).unwrap()
}

/// `payload` as it is, under a `Content-Encoding`.
fn labelled(payload: &[u8], name: &str, encoding: &str) -> Message {
    let mut headers = HeaderMap::new();
    headers.insert(name, encoding);
    with_headers(payload, &headers)
}

fn compressed(codec: Codec, payload: &[u8]) -> Message {
    labelled(&compress(codec, payload).unwrap(), "Content-Encoding", codec.name())
}

#[test]
fn rows_are_those_of_the_payload_before_it_was_compressed_by_header_and_by_setting() {
    for payload in [JSON.as_bytes().to_vec(), msgpack(JSON)] {
        let expected = rows_of(&mut decoder(""), &message(&payload)).unwrap();
        for codec in Codec::ALL {
            let sent = compressed(codec, &payload);
            assert_eq!(rows_of(&mut decoder(""), &sent).unwrap(), expected, "{codec:?}");
            let setting = format!("compression = \"{}\"", codec.name());
            let bare = message(&sent.payload);
            assert_eq!(rows_of(&mut decoder(&setting), &bare).unwrap(), expected, "{codec:?}");
            // What a setting says goes before what a header does.
            let other = labelled(&sent.payload, "Content-Encoding", "br");
            assert_eq!(rows_of(&mut decoder(&setting), &other).unwrap(), expected, "{codec:?}");
        }
    }
}

#[test]
fn a_header_counts_however_it_is_spelled_and_not_where_it_is_to_be_ignored() {
    let payload = compress(Codec::Gzip, JSON.as_bytes()).unwrap();
    for (name, encoding) in [("content-encoding", "GZIP"), ("CONTENT-Encoding", " x-gzip")] {
        let sent = labelled(&payload, name, encoding);
        assert_eq!(rows_of(&mut decoder(""), &sent).unwrap()[0].len(), 1, "{name}: {encoding}");
    }
    let mut none = decoder("compression = \"none\"\nformat = \"json\"");
    let refused = rows_of(&mut none, &labelled(&payload, "Content-Encoding", "gzip")).unwrap_err();
    assert!(refused.message.starts_with("not a message in JSON"), "{refused:?}");
    let plain = labelled(JSON.as_bytes(), "Content-Encoding", "gzip");
    assert_eq!(rows_of(&mut none, &plain).unwrap()[0].len(), 1);
}

#[test]
fn a_bomb_is_too_large_and_names_the_setting_and_the_next_message_is_a_row() {
    let mut decoder = decoder("max_decompressed_bytes = \"64KiB\"");
    let bomb = format!("{{\"a\":1,\"t\":\"{}\"}}", "0".repeat(64 * 1024));
    for codec in Codec::ALL {
        let poison = rows_of(&mut decoder, &compressed(codec, bomb.as_bytes())).unwrap_err();
        assert_eq!(poison.kind, PoisonKind::TooLarge);
        let expected = format!(
            "it expands by {} to more than 64.0 KiB, which max_decompressed_bytes allows",
            codec.name()
        );
        assert!(poison.message.starts_with(&expected), "{}", poison.message);
        assert_eq!(rows_of(&mut decoder, &compressed(codec, JSON.as_bytes())).unwrap()[0].len(), 1);
    }
}

#[test]
fn what_cannot_be_expanded_says_so_and_who_says_what_it_is() {
    let plain = labelled(JSON.as_bytes(), "Content-Encoding", "gzip");
    let poison = rows_of(&mut decoder(""), &plain).unwrap_err();
    assert_eq!(poison.kind, PoisonKind::Malformed);
    let expected = "not a payload in gzip, which its Content-Encoding says it is: it begins otherwise";
    assert_eq!(poison.message, expected);
    let poison = rows_of(&mut decoder("compression = \"zstd\""), &plain).unwrap_err();
    let expected = "not a payload in zstd, as compression = \"zstd\" has it: it begins otherwise";
    assert_eq!(poison.message, expected);
}

#[test]
fn what_expands_to_no_message_says_where_in_what_it_expands_to() {
    let poison = rows_of(&mut decoder(""), &compressed(Codec::Gzip, b"{\"a\":1,}")).unwrap_err();
    assert_eq!(poison.kind, PoisonKind::Malformed);
    assert!(
        poison.message.ends_with("(at byte 7); the position is in what gzip expanded it to"),
        "{poison:?}"
    );
    let poison = rows_of(&mut decoder("format = \"json\""), &compressed(Codec::Zstd, b"")).unwrap_err();
    assert!(poison.message.contains("the payload is empty"), "{poison:?}");
}

#[test]
fn an_encoding_that_is_not_known_changes_nothing_but_is_named_where_nothing_can_be_read() {
    let plain = labelled(JSON.as_bytes(), "Content-Encoding", "utf-8");
    assert_eq!(rows_of(&mut decoder(""), &plain).unwrap()[0].len(), 1);
    let brotli = labelled(b"\x1b\x0e\xff", "Content-Encoding", "br");
    let poison = rows_of(&mut decoder(""), &brotli).unwrap_err();
    let expected = "; its Content-Encoding is \"br\", which is none of gzip, zstd, snappy, deflate";
    assert!(poison.message.ends_with(expected), "{poison:?}");
}

#[test]
fn what_begins_like_gzip_and_does_not_say_so_is_not_expanded_and_the_reason_says_what_to_set() {
    let payload = compress(Codec::Gzip, JSON.as_bytes()).unwrap();
    let poison = rows_of(&mut decoder(""), &message(&payload)).unwrap_err();
    let expected =
        "; it begins like gzip: let publishers say so in Content-Encoding, or set compression = \"gzip\"";
    assert!(poison.message.ends_with(expected), "{poison:?}");
}

#[test]
fn an_empty_payload_is_empty_whatever_it_is_said_to_be() {
    let empty = labelled(b"", "Content-Encoding", "gzip");
    for mut decoder in [decoder(""), decoder("compression = \"snappy\"")] {
        let poison = rows_of(&mut decoder, &empty).unwrap_err();
        assert!(poison.message.contains("the payload is empty"), "{poison:?}");
    }
}

#[test]
fn what_no_table_takes_by_its_subject_is_not_expanded() {
    let toml = "on_unmatched = \"skip\"\ncompression = \"gzip\"\n[[table]]\nname = \"t\"\nwhen = { subject = \
                \"other\" }\n";
    let mut decoder = try_decoder(toml, &[table(vec![column("a", Type::Int8)])]).unwrap();
    assert_eq!(rows_of(&mut decoder, &message(b"not gzip")).unwrap()[0].len(), 0);
}

#[test]
fn what_has_no_room_is_expanded_again_once_there_is_some() {
    let payload = format!("{{\"a\":1,\"t\":\"{}\"}}", "0".repeat(2 * LARGE));
    let sent = compressed(Codec::Zstd, payload.as_bytes());
    let (mut decoder, mut rows) = (decoder(""), Rows::new(1));
    assert_eq!(decoder.decode_into(&sent, 0, &mut rows, 1_000), Err(Undecoded::NoRoom));
    assert_eq!(rows.tables[0].rows.len(), 0);
    decoder.decode_into(&sent, 0, &mut rows, usize::MAX).unwrap();
    assert_eq!(rows.tables[0].rows.len(), 1);
}

#[test]
fn it_is_shown_expanded() {
    for codec in Codec::ALL {
        let shown = decoder("").show(&compressed(codec, JSON.as_bytes()));
        assert_eq!(shown.as_deref(), Some(JSON), "{codec:?}");
    }
    assert_eq!(decoder("").show(&message(JSON.as_bytes())).as_deref(), Some(JSON));
}
