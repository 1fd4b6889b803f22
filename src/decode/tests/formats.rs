//! NDJSON, CBOR and line protocol, beside what they share with JSON and MessagePack.

use super::support::*;
use crate::decode::Decoder;
use crate::encode::types::Type;
use crate::poison::{Poison, PoisonKind};

/// A decoder for payloads in `format`, of one table with further settings of it.
fn decoder(format: &str, settings: &str, columns: Vec<crate::postgres::introspect::Column>) -> Decoder {
    let toml = format!("format = '{format}'\n[[table]]\nname = 't'\n{settings}");
    try_decoder(&toml, &[table(columns)]).unwrap()
}

fn texts(settings: &str) -> Decoder {
    let columns = vec![
        not_null("a", Type::Int8),
        column("place", Type::Int8),
        column("rest", Type::Jsonb),
        column("whole", Type::Jsonb),
        column("payload", Type::Bytea),
    ];
    let sources =
        "[table.columns]\nplace = '$element'\nrest = '$rest'\nwhole = '$payload'\npayload = '$payload'\n";
    decoder("ndjson", &format!("for_each = '$'\n{settings}\n{sources}"), columns)
}

#[test]
fn each_text_of_ndjson_is_a_row_however_the_texts_are_separated() {
    for payload in [
        "{\"a\":1,\"x\":[1, 2]}\n{\"a\":2}\n",
        "{\"a\":1,\"x\":[1, 2]}\r\n\r\n{\"a\":2}",
        "{\"a\":1,\"x\":[1, 2]}{\"a\":2}",
        " {\"a\":1,\n\"x\":[1, 2]}\n{\"a\":2}\0",
        "\u{feff}{\"a\":1,\"x\":[1, 2]} {\"a\":2}",
    ] {
        let rows = rows_of(&mut texts(""), &message(payload.as_bytes())).unwrap();
        let row =
            |a, place, rest| vec![int8(a), int8(place), jsonb(rest), rows[0][0][3].clone(), text(payload)];
        assert_eq!(rows, [[row(1, 0, r#"{"x":[1, 2]}"#), row(2, 1, "{}")]], "{payload:?}");
        let whole: serde_json::Value = serde_json::from_slice(&rows[0][0][3].as_ref().unwrap()[1..]).unwrap();
        assert_eq!(whole, serde_json::json!([{"a": 1, "x": [1, 2]}, {"a": 2}]), "{payload:?}");
    }
    assert_eq!(rows_of(&mut texts(""), &message(b" \n")).unwrap(), [Vec::<Fields>::new()]);
}

#[test]
fn a_text_of_ndjson_that_is_broken_takes_the_message_along_and_says_where() {
    for (payload, reason) in [
        ("{\"a\":1}\n{\"a\":", "NDJSON: cut short (at byte 13)"),
        ("{\"a\":1}\n{\"a\":1}}", "NDJSON: not a JSON value (at byte 15)"),
        ("{\"a\":1}\n\0{\"a\":2}", "NDJSON: not a JSON value (at byte 8)"),
        ("", "the payload is empty"),
    ] {
        let poison = poison(&mut texts("bad_element = 'element'"), payload.as_bytes());
        assert_eq!(poison.kind, PoisonKind::Malformed);
        assert!(poison.message.contains(reason), "{payload:?}: {}", poison.message);
    }
    let mut alone = texts("bad_element = 'element'");
    let rows = rows_of(&mut alone, &message(b"{\"a\":1}\n{\"a\":\"x\"}\n3\n{\"a\":4}")).unwrap();
    assert_eq!(rows[0].iter().map(|row| row[0].clone()).collect::<Vec<_>>(), [int8(1), int8(4)]);
}

#[test]
fn several_texts_where_one_is_expected_name_the_setting() {
    let mut json = plain(vec![column("a", Type::Int8)]);
    let poison = poison(&mut json, b"{\"a\":1}\n{\"a\":2}");
    assert!(poison.message.contains("set format = \"ndjson\""), "{}", poison.message);
    for bare in ["21.5", "ON", "offline"] {
        let poison = super::support::poison(&mut json, bare.as_bytes());
        assert!(poison.message.contains("set format = \"raw\""), "{bare}: {}", poison.message);
    }
}

/// What the column `v` of a type becomes from CBOR in hexadecimal.
fn cbor(ty: Type, hexadecimal: &str) -> Result<Option<Vec<u8>>, Poison> {
    let digits: Vec<u8> = hexadecimal.bytes().filter(u8::is_ascii_hexdigit).collect();
    let value = digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap());
    // { "v": value }
    let payload: Vec<u8> = [0xa1, 0x61, b'v'].into_iter().chain(value).collect();
    let mut decoder = decoder("cbor", "", vec![column("v", ty)]);
    Ok(rows_of(&mut decoder, &message(&payload))?.remove(0).remove(0).remove(0))
}

#[test]
fn cbor_values_are_those_of_the_specifications_examples() {
    // RFC 8949, appendix A.
    for (hexadecimal, json) in [
        ("00", "0"),
        ("17", "23"),
        ("1818", "24"),
        ("1903e8", "1000"),
        ("1a000f4240", "1000000"),
        ("1bffffffffffffffff", "18446744073709551615"),
        ("20", "-1"),
        ("3903e7", "-1000"),
        ("3b7fffffffffffffff", "-9223372036854775808"),
        ("c249 00ffffffffffffffff", "18446744073709551615"),
        ("f90000", "0.0"),
        ("f93e00", "1.5"),
        ("f97bff", "65504.0"),
        ("f90001", "5.960464477539063e-8"),
        ("f9c400", "-4.0"),
        ("fa47c35000", "100000.0"),
        ("fa4e932c06", "1234567936.0"),
        ("fb3ff199999999999a", "1.1"),
        ("f4", "false"),
        ("f5", "true"),
        ("c074323031332d30332d32315432303a30343a30305a", "\"2013-03-21T20:04:00Z\""),
        ("c11a514b67b0", "\"2013-03-21T20:04:00Z\""),
        ("c1fb41d452d9ec200000", "\"2013-03-21T20:04:00.5Z\""),
        ("d82076687474703a2f2f7777772e6578616d706c652e636f6d", "\"http://www.example.com\""),
        ("4401020304", "\"AQIDBA==\""),
        ("6449455446", "\"IETF\""),
        ("62c3bc", "\"ü\""),
        ("8301820203820405", "[1,[2,3],[4,5]]"),
        ("a26161016162820203", "{\"a\":1,\"b\":[2,3]}"),
        ("a201020304", "{\"1\":2,\"3\":4}"),
        ("9fff", "[]"),
        ("9f018202039f0405ffff", "[1,[2,3],[4,5]]"),
        ("bf61610161629f0203ffff", "{\"a\":1,\"b\":[2,3]}"),
        ("826161bf61626163ff", "[\"a\",{\"b\":\"c\"}]"),
    ] {
        assert_eq!(cbor(Type::Jsonb, hexadecimal).unwrap(), jsonb(json), "{hexadecimal}");
    }
    for null in ["f6", "f7"] {
        assert_eq!(cbor(Type::Jsonb, null).unwrap(), None);
    }
    assert_eq!(cbor(Type::Bytea, "4401020304").unwrap(), Some(vec![1, 2, 3, 4]));
    assert_eq!(cbor(Type::Int8, "3903e7").unwrap(), int8(-1_000));
    // 2000-01-01T00:00:01Z, and half a second before it.
    assert_eq!(cbor(Type::Timestamptz, "c11a386d4381").unwrap(), int8(1_000_000));
    assert_eq!(cbor(Type::Timestamptz, "c1fb41cc36a1c0400000").unwrap(), int8(500_000));
}

#[test]
fn cbor_that_is_broken_says_why() {
    for (hexadecimal, reason) in [
        ("", "cut short"),
        ("18", "cut short"),
        ("1c", "a head that CBOR does not use"),
        ("3bffffffffffffffff", "a whole number beyond 64 bits"),
        ("c249010000000000000000", "a whole number beyond 64 bits"),
        ("c348ffffffffffffffff", "a whole number beyond 64 bits"),
        ("5f42010243030405ff", "text or bytes in pieces"),
        ("7f657374726561646d696e67ff", "text or bytes in pieces"),
        ("62", "cut short"),
        ("9b00000000ffffffff", "cut short"),
        ("bbffffffffffffffff", "cut short"),
        ("9f01", "cut short"),
        ("ff", "a misplaced break"),
        ("bf6161ff", "a misplaced break"),
        ("f0", "a simple value that CBOR does not define"),
        ("c1fb7ff8000000000000", "an invalid time since the epoch"),
        ("00 00", "trailing bytes"),
    ] {
        let poison = cbor(Type::Jsonb, hexadecimal).expect_err(hexadecimal);
        assert_eq!(poison.kind, PoisonKind::Malformed, "{hexadecimal}");
        assert!(poison.message.contains(reason), "{hexadecimal}: {}", poison.message);
    }
    let deep = format!("{}00", "81".repeat(200));
    assert!(cbor(Type::Jsonb, &deep).unwrap_err().message.contains("nested deeper"));
    let endless = "9f".repeat(100_000);
    assert!(cbor(Type::Jsonb, &endless).unwrap_err().message.contains("nested deeper"));
}

#[test]
fn cbor_is_read_so_where_its_content_type_or_its_first_bytes_say_it() {
    let mut auto = plain(vec![column("v", Type::Int8)]);
    let bare = [0xa1, 0x61, b'v', 0x07];
    let described = [&[0xd9, 0xd9, 0xf7][..], &bare].concat();
    assert_eq!(row(&mut auto, &described), [int8(7)]);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Content-Type", "application/cbor");
    assert_eq!(rows_of(&mut auto, &with_headers(&bare, &headers)).unwrap(), [[[int8(7)]]]);
    assert!(rows_of(&mut auto, &message(&bare)).is_err(), "MessagePack begins so, too");
}

/// Two tables, by the name of the measurement.
fn lines(on_unmatched: &str, settings: &str) -> Decoder {
    let toml = format!(
        "format = 'influx'\n{on_unmatched}
        [[table]]\nname = 't'\nfor_each = '$'\n{settings}
        when = {{ field = 'name', equals = 'cpu' }}
        [table.columns]\nhost = 'tags.host'\nidle = 'fields.idle'
        at = {{ from = 'timestamp', unit = 'ns' }}\nplace = '$element'
        [[table]]\nname = 'u'\nfor_each = '$'\n{settings}
        when = {{ field = 'name', equals = ['mem', 'swap'] }}
        [table.columns]\nrest = '$rest'\npayload = '$payload'"
    );
    let cpu = vec![
        not_null("host", Type::Text),
        column("idle", Type::Float8),
        column("at", Type::Timestamptz),
        column("place", Type::Int8),
    ];
    let mem = vec![column("rest", Type::Jsonb), column("payload", Type::Bytea)];
    try_decoder(&toml, &[table(cpu), table(mem)]).unwrap()
}

const LINES: &str =
    "cpu,host=a idle=98.5 946684801000000000\nmem free=1i\ncpu,host=b idle=7 946684802000000000\n";

#[test]
fn each_line_goes_to_the_table_that_takes_its_measurement() {
    let rows = rows_of(&mut lines("", ""), &message(LINES.as_bytes())).unwrap();
    let cpu = |host: &str, idle: f64, second: i64, place| {
        vec![text(host), Some(idle.to_be_bytes().to_vec()), int8(second * 1_000_000), int8(place)]
    };
    let rest = jsonb(r#"{"name":"mem","tags":{},"fields":{"free":1}}"#);
    assert_eq!(
        rows,
        [vec![cpu("a", 98.5, 1, 0), cpu("b", 7.0, 2, 2)], vec![vec![rest, text(LINES)]]],
        "a line's place is that in the message"
    );
}

#[test]
fn a_line_that_no_table_takes_is_as_a_message_that_none_takes() {
    let payload = "cpu,host=a idle=1\ndisk free=1i\nswap used=2i\n".as_bytes();
    let poison = poison(&mut lines("", ""), payload);
    assert_eq!(poison.kind, PoisonKind::Unmatched);
    assert!(poison.message.starts_with("element 1: `when` holds for no table"), "{}", poison.message);

    let counts = |decoder: &mut Decoder| {
        rows_of(decoder, &message(payload)).unwrap().iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(counts(&mut lines("on_unmatched = 'skip'", "")), [1, 1]);
    assert_eq!(counts(&mut lines("", "bad_element = 'element'")), [1, 1], "it is refused alone");
    let mut rows = crate::batch::Rows::new(2);
    lines("", "bad_element = 'element'").decode(&message(payload), 0, &mut rows).unwrap();
    let refused: Vec<_> = rows.refused.iter().map(|refused| (refused.element, refused.poison.kind)).collect();
    assert_eq!(refused, [(Some(1), PoisonKind::Unmatched)]);
}

#[test]
fn a_line_of_another_measurement_need_not_have_what_a_table_wants_of_its_own() {
    let payload = b"mem,host=x idle=\"text\"\nmem host=1i\n";
    assert_eq!(rows_of(&mut lines("", ""), &message(payload)).unwrap()[1].len(), 2);
    let missing = poison(&mut lines("", ""), b"cpu idle=1");
    assert_eq!((missing.kind, missing.column.as_deref()), (PoisonKind::Missing, Some("host")));
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_measurement() {
    let rows = rows_of(&mut lines("", ""), &message("\u{feff}cpu,host=a idle=1\n".as_bytes())).unwrap();
    assert_eq!((rows[0].len(), rows[1].len()), (1, 0));
}

#[test]
fn what_is_no_line_protocol_says_why_and_where() {
    let poison = poison(&mut lines("", ""), b"cpu,host=a idle=1\ncpu idle=high");
    assert_eq!(poison.kind, PoisonKind::Malformed);
    let reason =
        "not a message in line protocol: a value that is no number, boolean or quoted text (at byte 27)";
    assert_eq!(poison.message, reason);
}
