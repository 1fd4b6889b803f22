//! Which messages a table takes, and fields that become rows.

use super::support::{
    Fields, column, int8, jsonb, mapped, message, msgpack, not_null, row, rows_of, table, text, try_decoder,
    with_headers,
};
use crate::batch::Rows;
use crate::decode::Decoder;
use crate::encode::types::Type;
use crate::poison::PoisonKind;

/// The message in both formats.
fn both(json: &str) -> [Vec<u8>; 2] {
    [json.as_bytes().to_vec(), msgpack(json)]
}

/// A decoder for two tables with a column `a`, of which each takes messages by its `when`.
fn two(first: &str, second: &str, pipeline: &str) -> Decoder {
    let toml = format!(
        "{pipeline}\n[[table]]\nname = 't'\nwhen = {first}\n[[table]]\nname = 'u'\nwhen = {second}\n"
    );
    let one = || table(vec![column("a", Type::Int8)]);
    let mut other = one();
    other.qualified = "public.u".into();
    try_decoder(&toml, &[one(), other]).unwrap()
}

/// How many rows each table gets.
fn counts(decoder: &mut Decoder, payload: &[u8]) -> Vec<usize> {
    rows_of(decoder, &message(payload)).unwrap().iter().map(Vec::len).collect()
}

#[test]
fn a_table_takes_the_messages_for_which_its_when_holds() {
    let mut decoder = two(
        "{ field = 'in.kind', equals = ['x', 7, true] }",
        "{ field = 'b', subject = 'frames.*.hd' }",
        "on_unmatched = 'skip'",
    );
    for (json, expected) in [
        (r#"{"a":1,"in":{"kind":"x"}}"#, [1, 0]),
        (r#"{"a":1,"in":{"kind":7},"b":false}"#, [1, 1]),
        (r#"{"a":1,"in":{"kind":true},"b":null}"#, [1, 0]),
        (r#"{"a":1,"in":{"kind":"7"},"b":[]}"#, [0, 1]),
        (r#"{"a":1,"in":{"kind":null}}"#, [0, 0]),
        (r#"{"a":1,"in":"x"}"#, [0, 0]),
    ] {
        for payload in both(json) {
            assert_eq!(counts(&mut decoder, &payload), expected, "{json}");
        }
    }
    assert_eq!(counts(&mut decoder, br#"{"in":{"kind":"\u0078"}}"#), [1, 0]);
    let mut other = message(br#"{"b":1}"#);
    other.subject = "frames.cam-07.sd".into();
    assert_eq!(rows_of(&mut decoder, &other).unwrap(), [Vec::<Fields>::new(), vec![]]);
}

#[test]
fn a_message_that_no_table_takes_is_poison_unless_it_is_to_be_skipped() {
    let kinds = ("{ field = 'k', equals = 1 }", "{ field = 'k', equals = 2 }");
    let mut decoder = two(kinds.0, kinds.1, "");
    for payload in both(r#"{"k":3,"a":"not looked at"}"#) {
        let poison = rows_of(&mut decoder, &message(&payload)).unwrap_err();
        assert_eq!((poison.kind, poison.table), (PoisonKind::Unmatched, None));
    }
    let mut decoder = two(kinds.0, kinds.1, "on_unmatched = 'skip'");
    assert_eq!(counts(&mut decoder, br#"{"k":3}"#), [0, 0]);
    let poison = rows_of(&mut decoder, &message(b"{")).unwrap_err();
    assert_eq!(poison.kind, PoisonKind::Malformed, "what cannot be read cannot be told to be of no table");
}

/// Points in long form: time, name, value, and the place of their element.
fn points(unpivot: &str, more: &str) -> Decoder {
    let toml = format!(
        "{more}\n[[table]]\nname = 't'\nfor_each = 'rows'\nbad_element = 'element'\nunpivot = {unpivot}\n\
         [table.columns]\n\
         time = {{ from = 't', unit = 'us' }}\nname = '$name'\nvalue = '$value'\nsite = '^site'\n\
         place = '$element'\n"
    );
    let columns = vec![
        column("time", Type::Timestamptz),
        not_null("name", Type::Text),
        column("value", Type::Int8),
        column("site", Type::Text),
        column("place", Type::Int8),
    ];
    try_decoder(&toml, &[table(columns)]).unwrap()
}

/// A point of time `time` in microseconds since 2000.
fn point(time: i64, name: &str, value: Option<i64>, place: i64) -> Fields {
    vec![int8(time), text(name), value.and_then(int8), text("n"), int8(place)]
}

const WIDE: &str = r#"{"site":"n","rows":[
    {"t":946684800000001,"a":1,"b":2},{"a":3,"c":null,"t":946684800000002},{"t":946684800000003}]}"#;

#[test]
fn the_rest_of_an_element_becomes_a_row_a_field() {
    let mut decoder = points("{ rest = true }", "");
    for payload in both(WIDE) {
        let rows = rows_of(&mut decoder, &message(&payload)).unwrap();
        let expected = [
            point(1, "a", Some(1), 0),
            point(1, "b", Some(2), 0),
            point(2, "a", Some(3), 1),
            point(2, "c", None, 1),
        ];
        assert_eq!(rows[0], expected);
    }
    // A key with an escape, and one that a column takes, written with one.
    let escaped = br#"{"site":"n","rows":[{"\u0074":946684800000001,"a\"":1}]}"#;
    assert_eq!(rows_of(&mut decoder, &message(escaped)).unwrap()[0], [point(1, "a\"", Some(1), 0)]);
}

#[test]
fn named_fields_become_a_row_each_and_absent_ones_none() {
    let mut decoder = points("{ fields = ['b', 'in.a', 'a'] }", "");
    for payload in both(WIDE) {
        let rows = rows_of(&mut decoder, &message(&payload)).unwrap();
        assert_eq!(
            rows[0],
            [point(1, "b", Some(2), 0), point(1, "a", Some(1), 0), point(2, "a", Some(3), 1)]
        );
    }
    for payload in both(r#"{"site":"n","rows":[{"t":946684800000001,"in":{"a":5},"a":null,"z":"x"}]}"#) {
        let rows = rows_of(&mut decoder, &message(&payload)).unwrap();
        assert_eq!(rows[0], [point(1, "in.a", Some(5), 0), point(1, "a", None, 0)]);
    }
}

#[test]
fn the_entries_of_a_map_become_a_row_each() {
    let mut decoder = points("{ map = 'v' }", "");
    let json =
        r#"{"site":"n","rows":[{"t":946684800000001,"v":{"a":1,"b":2}},{"v":{}},{"v":null},{},{"v":[1]}]}"#;
    for payload in both(json) {
        let mut rows = Rows::new(1);
        decoder.decode(&message(&payload), 0, &mut rows).unwrap();
        assert_eq!(rows.tables[0].rows.len(), 2);
        let refused: Vec<_> = rows.refused.iter().map(|refused| refused.element).collect();
        assert_eq!(refused, [Some(4)], "{:?}", rows.refused);
        assert!(rows.refused[0].poison.message.contains("needs a map; in `v` there is an array"));
    }
}

#[test]
fn an_element_of_which_one_field_is_bad_has_no_row() {
    let mut decoder = points("{ rest = true }", "");
    for payload in
        both(r#"{"site":"n","rows":[{"t":946684800000001,"a":1,"bad":"x"},[1],{"t":946684800000002,"a":2}]}"#)
    {
        let mut rows = Rows::new(1);
        decoder.decode(&message(&payload), 0, &mut rows).unwrap();
        assert_eq!(rows.tables[0].rows.iter().map(|row| row.element).collect::<Vec<_>>(), [2]);
        let refused: Vec<_> =
            rows.refused.iter().map(|refused| (refused.element, refused.poison.message.as_str())).collect();
        assert_eq!(refused[0].0, Some(0));
        assert!(
            refused[0].1.ends_with("`$value` is the text \"x\"; the field is the text \"bad\""),
            "{refused:?}"
        );
        assert_eq!(refused[1].0, Some(1));
    }
}

#[test]
fn a_nil_key_is_unpivoted_by_the_name_that_it_has_in_json() {
    let toml = "[[table]]\nname = 't'\nunpivot = { rest = true }\n[table.columns]\nname = '$name'\n\
        value = '$value'\n";
    let columns = vec![column("name", Type::Text), column("value", Type::Int8)];
    let mut decoder = try_decoder(toml, &[table(columns)]).unwrap();
    // {nil: 1, true: 2}
    let rows = rows_of(&mut decoder, &message(&[0x82, 0xc0, 1, 0xc3, 2])).unwrap();
    assert_eq!(rows[0], [[text("null"), int8(1)], [text("true"), int8(2)]]);
}

#[test]
fn a_message_without_for_each_is_unpivoted_itself_without_the_field_that_tells_its_kind() {
    let toml = "[[table]]\nname = 't'\nwhen = { field = 'kind', equals = 'row' }\nunpivot = { rest = true }\n\
        [table.columns]\nname = '$name'\nvalue = '$value'\n\
        [[table]]\nname = 'u'\nwhen = { field = 'parts' }\nfor_each = 'parts'\n";
    let long = table(vec![column("name", Type::Text), column("value", Type::Int8), column("id", Type::Int8)]);
    let mut other = table(vec![column("x", Type::Int8)]);
    other.qualified = "public.u".into();
    let mut decoder = try_decoder(toml, &[long, other]).unwrap();
    for payload in both(r#"{"kind":"row","id":9,"a":1,"b":2,"parts":[]}"#) {
        let rows = rows_of(&mut decoder, &message(&payload)).unwrap();
        assert_eq!(rows[0], [[text("a"), int8(1), int8(9)], [text("b"), int8(2), int8(9)]]);
    }
}

#[test]
fn a_text_without_an_offset_takes_that_of_its_column() {
    let columns = || vec![column("time", Type::Timestamptz)];
    for (offset, micros) in [("Z", 3_600_000_000), ("+02:00", -3_600_000_000), ("-00:30", 5_400_000_000)] {
        let mut decoder = mapped(&format!("time = {{ offset = '{offset}' }}"), columns());
        assert_eq!(row(&mut decoder, br#"{"time":"2000-01-01 01:00:00"}"#), [int8(micros)], "{offset}");
        // One that carries its own is taken at its word.
        assert_eq!(row(&mut decoder, br#"{"time":"2000-01-01T01:00:00+01:00"}"#), [int8(0)]);
    }
    let mut decoder = mapped("", columns());
    let poison = rows_of(&mut decoder, &message(br#"{"time":"2000-01-01 01:00:00"}"#)).unwrap_err();
    assert!(poison.message.contains("set `offset`"), "{}", poison.message);
}

#[test]
fn rest_keeps_the_field_that_tells_the_kind() {
    let toml = "[[table]]\nname = 't'\nwhen = { field = 'kind' }\n[table.columns]\nrest = '$rest'\n";
    let mut decoder = try_decoder(toml, &[table(vec![column("rest", Type::Jsonb)])]).unwrap();
    assert_eq!(row(&mut decoder, br#"{"kind":"a"}"#), [jsonb(r#"{"kind":"a"}"#)]);
}

fn header(name: &str, value: &str) -> async_nats::HeaderMap {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(name, value);
    headers
}

#[test]
fn what_no_table_takes_by_its_subject_is_not_decoded() {
    let whens = ("{ subject = 'events.>' }", "{ subject = 'frames.*.meta', field = 'a' }");
    let jpeg = b"\xff\xd8\xff\xe0\x00\x10JFIF";
    for payload in [&jpeg[..], b"", b"{"] {
        let mut decoder = two(whens.0, whens.1, "on_unmatched = 'skip'");
        assert_eq!(counts(&mut decoder, payload), [0, 0]);
        let poison = rows_of(&mut two(whens.0, whens.1, ""), &message(payload)).unwrap_err();
        assert_eq!(poison.kind, PoisonKind::Unmatched);
        let mut taken = message(payload);
        taken.subject = "frames.cam-07.meta".into();
        assert_eq!(rows_of(&mut decoder, &taken).unwrap_err().kind, PoisonKind::Malformed);
    }
}

#[test]
fn a_table_takes_the_messages_whose_headers_are_so() {
    let mut decoder = two(
        "{ headers = { KV-Operation = ['DEL', 'PURGE'] } }",
        "{ headers = { KV-Operation = false, X-Kind = true } }",
        "on_unmatched = 'skip'",
    );
    for (name, value, expected) in [
        ("KV-Operation", "DEL", [1, 0]),
        ("kv-operation", "PURGE", [1, 0]),
        ("KV-Operation", "PUT", [0, 0]),
        ("X-Kind", "", [0, 1]),
        ("X-Other", "DEL", [0, 0]),
    ] {
        let headers = header(name, value);
        let rows = rows_of(&mut decoder, &with_headers(br#"{"a":1}"#, &headers)).unwrap();
        assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{name}: {value}");
        assert_eq!(decoder.asks_for(&with_headers(b"", &headers)), expected != [0, 0]);
    }
    assert_eq!(counts(&mut decoder, b"no payload that can be read"), [0, 0]);
    let mut two_values = header("KV-Operation", "PUT");
    two_values.append("KV-Operation", "DEL");
    assert_eq!(rows_of(&mut decoder, &with_headers(b"{}", &two_values)).unwrap()[0].len(), 1);
    // Of names that differ in case, one is meant.
    let mut two_names = header("KV-Operation", "PUT");
    two_names.append("kv-operation", "DEL");
    assert_eq!(rows_of(&mut decoder, &with_headers(b"{}", &two_names)).unwrap()[0].len(), 0);
}

#[test]
fn a_message_without_a_payload_is_a_row_of_a_table_that_goes_by_its_headers() {
    let toml = |more: &str| {
        format!(
            "[[table]]\nname = 't'\nwhen = {{ headers = {{ KV-Operation = 'DEL' }} }}\n[table.columns]\n\
             a = '$sequence'\n\
             k = '$subject[1]'\nv = '$payload'\n{more}"
        )
    };
    let columns = || vec![column("a", Type::Int8), column("k", Type::Text), column("v", Type::Bytea)];
    let headers = header("KV-Operation", "DEL");
    let mut decoder = try_decoder(&toml(""), &[table(columns())]).unwrap();
    let rows = rows_of(&mut decoder, &with_headers(b"", &headers)).unwrap();
    assert_eq!(rows[0], [vec![int8(42), text("cam-07"), Some(vec![])]]);
    // Another table, which takes every message, needs one.
    let second = "[[table]]\nname = 'u'\n";
    let mut decoder =
        try_decoder(&toml(second), &[table(columns()), table(vec![column("a", Type::Int8)])]).unwrap();
    let poison = rows_of(&mut decoder, &with_headers(b"", &headers)).unwrap_err();
    assert!(poison.message.contains("the payload is empty"), "{poison:?}");
}
