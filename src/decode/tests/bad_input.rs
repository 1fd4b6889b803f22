//! Whatever the bytes, decoding returns rows or poison.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::support::{
    column, int8, jsonb, mapped, message, msgpack, not_null, pipeline, plain, poison, row, rows_of, table,
    text,
};
use crate::batch::Rows;
use crate::decode::Decoder;
use crate::encode::types::Type;
use crate::poison::PoisonKind;

/// A decoder that looks at a little of everything.
fn decoder() -> Decoder {
    mapped(
        "deep = 'x.y[1]'\nrest = '$rest'",
        vec![
            column("a", Type::Int8),
            column("t", Type::Text),
            column("deep", Type::Float8),
            column("rest", Type::Jsonb),
        ],
    )
}

const JSON: &str = r#"{"a":1,"t":"text","x":{"y":[1.5,2.5]},"more":{"k":[null,true,"v",-3,1e9]}}"#;

#[test]
fn a_message_cut_short_anywhere_is_malformed() {
    let mut decoder = decoder();
    for payload in [JSON.as_bytes().to_vec(), msgpack(JSON)] {
        rows_of(&mut decoder, &message(&payload)).unwrap();
        for length in 0..payload.len() {
            let poison = poison(&mut decoder, &payload[..length]);
            assert_eq!(poison.kind, PoisonKind::Malformed, "{length}: {}", poison.message);
        }
    }
}

#[test]
fn an_empty_payload_is_malformed_and_says_so() {
    let poison = poison(&mut decoder(), b"");
    assert_eq!(poison.kind, PoisonKind::Malformed);
    assert!(poison.message.contains("the payload is empty"), "{}", poison.message);
}

#[test]
fn a_message_that_is_no_map_is_malformed() {
    for json in ["[]", "[1,2]", " [{\"a\":1}]"] {
        for payload in [json.as_bytes().to_vec(), msgpack(json)] {
            assert_eq!(poison(&mut decoder(), &payload).kind, PoisonKind::Malformed, "{json}");
        }
    }
    assert_eq!(poison(&mut decoder(), &msgpack("1")).kind, PoisonKind::Malformed);
}

#[test]
fn bytes_after_the_message_are_malformed() {
    for payload in
        [b"{\"a\":1} {}".to_vec(), b"{\"a\":1}\0{}".to_vec(), [msgpack("{}"), msgpack("{}")].concat()]
    {
        let poison = poison(&mut decoder(), &payload);
        assert_eq!(poison.kind, PoisonKind::Malformed);
        assert!(poison.message.contains("trailing"), "{}", poison.message);
    }
}

#[test]
fn a_taken_key_that_stands_twice_is_malformed_and_another_is_not() {
    let mut decoder = plain(vec![column("a", Type::Int8)]);
    let twice = |key: &[u8]| {
        let entry = [&[0xa1], key, &[1]].concat();
        [&[0x82], &entry[..], &entry[..]].concat()
    };
    for payload in [b"{\"a\":1,\"a\":1}".to_vec(), b"{\"a\":null,\"\\u0061\":1}".to_vec(), twice(b"a")] {
        let poison = poison(&mut decoder, &payload);
        assert_eq!(poison.kind, PoisonKind::Malformed);
        assert!(poison.message.contains("duplicate key"), "{}", poison.message);
    }
    assert_eq!(row(&mut decoder, b"{\"b\":1,\"b\":1}"), [None]);
    assert_eq!(row(&mut decoder, &twice(b"b")), [None]);
}

/// `levels` arrays in one another, under the key `more`.
fn nested(levels: usize) -> [Vec<u8>; 2] {
    let json = format!("{{\"more\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let mut packed = vec![0x81, 0xa4];
    packed.extend_from_slice(b"more");
    packed.extend(std::iter::repeat_n(0x91, levels - 1));
    packed.push(0x90);
    [json.into_bytes(), packed]
}

#[test]
fn nesting_is_limited_wherever_it_stands() {
    let mut rest = decoder();
    let mut taken = mapped("more = 'more[0][0]'", vec![column("more", Type::Jsonb)]);
    for decoder in [&mut rest, &mut taken] {
        for payload in nested(127) {
            rows_of(decoder, &message(&payload)).unwrap();
        }
        for levels in [128, 129, 10_000] {
            for payload in nested(levels) {
                let poison = poison(decoder, &payload);
                assert_eq!(poison.kind, PoisonKind::Malformed);
                assert!(poison.message.contains("nested deeper"), "{}", poison.message);
            }
        }
    }
}

#[test]
fn a_long_string_is_a_row() {
    let long = "x".repeat(1 << 20);
    let json = format!("{{\"t\":\"{long}\"}}");
    for payload in [json.as_bytes().to_vec(), msgpack(&json)] {
        assert_eq!(row(&mut decoder(), &payload)[1], text(&long));
    }
}

#[test]
fn text_that_is_no_text_is_poison_that_names_its_column() {
    let mut decoder = plain(vec![column("t", Type::Text), column("j", Type::Jsonb), column("k", Type::Json)]);
    let packed =
        |key: u8, text: &[u8]| [&[0x81, 0xa1, key, 0xa0 | u8::try_from(text.len()).unwrap()], text].concat();
    for (payload, kind, column) in [
        (b"{\"t\":\"a\\u0000b\"}".to_vec(), PoisonKind::Range, "t"),
        (b"{\"j\":\"a\\u0000b\"}".to_vec(), PoisonKind::Range, "j"),
        (b"{\"j\":{\"a\\u0000\":1}}".to_vec(), PoisonKind::Range, "j"),
        (b"{\"t\":\"\\ud800\"}".to_vec(), PoisonKind::Malformed, "t"),
        (b"{\"t\":\"\\udc00\\ud800\"}".to_vec(), PoisonKind::Malformed, "t"),
        (b"{\"j\":[\"\\ud800x\"]}".to_vec(), PoisonKind::Malformed, "j"),
        (packed(b't', b"a\0b"), PoisonKind::Range, "t"),
        (packed(b't', b"\xff"), PoisonKind::Malformed, "t"),
        (packed(b'j', b"a\0b"), PoisonKind::Range, "j"),
        (packed(b'j', b"\xff"), PoisonKind::Malformed, "j"),
        (packed(b'k', b"\xed\xa0\x80"), PoisonKind::Malformed, "k"),
    ] {
        let poison = poison(&mut decoder, &payload);
        assert_eq!((poison.kind, poison.column.as_deref()), (kind, Some(column)), "{}", poison.message);
        assert_eq!(poison.table.as_deref(), Some("t"));
        assert!(!poison.message.contains('\0'), "{:?}", poison.message);
    }
    // The type json keeps what is only valid in form.
    assert_eq!(row(&mut decoder, b"{\"k\":\"\\ud800\\u0000\"}")[2], text("\"\\ud800\\u0000\""));
    assert_eq!(
        row(&mut decoder, b"{\"j\":\"\\\\u0000 \\ud83d\\ude00\"}")[1],
        jsonb("\"\\\\u0000 \\ud83d\\ude00\"")
    );
    assert_eq!(row(&mut decoder, b"{\"t\":\"\\ud83d\\ude00\\n\\/\"}")[0], text("😀\n/"));
    assert_eq!(poison(&mut decoder, b"{\"t\":\"\xff\"}").kind, PoisonKind::Malformed);
}

#[test]
fn numbers_that_numeric_does_not_hold_are_poison_in_a_jsonb_only() {
    let mut decoder = plain(vec![column("j", Type::Jsonb), column("k", Type::Json)]);
    let long = format!("0.{}", "1".repeat(16_384));
    for number in ["1e131072", "-1e-16384", "0e1073741823", "10231E52701489638281", long.as_str()] {
        for value in [number.to_owned(), format!(r#"{{"a":[0.5,{{"e1":{number}}}]}}"#)] {
            let poison = poison(&mut decoder, format!(r#"{{"j":{value}}}"#).as_bytes());
            assert_eq!((poison.kind, poison.column.as_deref()), (PoisonKind::Range, Some("j")), "{number}");
            assert_eq!(row(&mut decoder, format!(r#"{{"k":{value}}}"#).as_bytes())[1], text(&value));
        }
    }
    for number in ["1E+131071", "1e-16383", "0.50", "0e10000", "12345678901234567890123"] {
        for value in [number.to_owned(), format!(r#"{{"a 1e99999":{number}}}"#)] {
            assert_eq!(row(&mut decoder, format!(r#"{{"j":{value}}}"#).as_bytes())[0], jsonb(&value));
        }
    }
}

#[test]
fn a_null_or_absent_field_of_a_required_column_is_missing() {
    let mut decoder = plain(vec![not_null("a", Type::Int8), column("b", Type::Int8)]);
    for json in ["{}", r#"{"a":null}"#] {
        for payload in [json.as_bytes().to_vec(), msgpack(json)] {
            let poison = poison(&mut decoder, &payload);
            assert_eq!((poison.kind, poison.column.as_deref()), (PoisonKind::Missing, Some("a")));
        }
    }
}

#[test]
fn poison_in_the_last_row_takes_the_rows_before_it_along() {
    let pipeline = pipeline("[[table]]\nname = 't'\n[[table]]\nname = 'd'\nfor_each = 'd'\n");
    let tables = [table(vec![column("a", Type::Int8)]), table(vec![column("b", Type::Int8)])];
    let mut decoder = Decoder::new(&pipeline, &tables).unwrap();
    let mut rows = Rows::new(2);
    decoder.decode(&message(br#"{"a":1,"d":[{"b":1}]}"#), 0, &mut rows).unwrap();
    let sizes = |rows: &Rows| {
        rows.tables.iter().map(|table| (table.data.len(), table.rows.len())).collect::<Vec<_>>()
    };
    let before = sizes(&rows);
    decoder.decode(&message(br#"{"a":1,"d":[{"b":1},{"b":"x"}]}"#), 1, &mut rows).unwrap_err();
    assert_eq!(sizes(&rows), before);
    decoder.decode(&message(br#"{"a":2,"d":[]}"#), 2, &mut rows).unwrap();
    assert_eq!(rows.tables[0].rows[1].message, 2);
}

/// `t` takes the message, `d` its elements, refused one by one; three of them may be. `e` takes others, not
/// refused so.
fn by_element() -> Decoder {
    let pipeline = pipeline(
        "poison = { max_per_batch = 3 }\n[[table]]\nname = 't'\n[[table]]\nname = 'd'\nfor_each = 'd'\n\
         bad_element = 'element'\n[table.columns]\nplace = '$element'\nx = 'in.x'\n\
         [[table]]\nname = 'e'\nfor_each = 'e'\n",
    );
    let parts = vec![not_null("b", Type::Int8), column("place", Type::Int4), column("x", Type::Int8)];
    let one = |name| table(vec![column(name, Type::Int8)]);
    Decoder::new(&pipeline, &[one("a"), table(parts), one("b")]).unwrap()
}

#[test]
fn a_bad_element_is_refused_alone_and_the_others_are_rows() {
    let mut decoder = by_element();
    // {"in": {"x": 1, "x": 2}} is spelled out in MessagePack, since a writer of JSON would not repeat keys.
    let json = "{\"a\":1,\"d\":[{\"b\":1},{\"b\":\"x\"},{\"b\":3,\"in\":{\"x\":3}},7,\
        {\"b\":5,\"in\":{\"x\":1,\"x\":2},\"c\":[{}]},{\"b\":6}]}";
    let packed = [
        &b"\x82\xa1a\x01\xa1d\x96\x81\xa1b\x01\x81\xa1b\xa1x\x82\xa1b\x03\xa2in\x81\xa1x\x03\x07"[..],
        b"\x83\xa1b\x05\xa2in\x82\xa1x\x01\xa1x\x02\xa1c\x91\x80\x81\xa1b\x06",
    ]
    .concat();
    for payload in [json.as_bytes(), &packed] {
        let mut rows = Rows::new(3);
        decoder.decode(&message(payload), 7, &mut rows).unwrap();
        let places = |table: usize| rows.tables[table].rows.iter().map(|row| row.element).collect::<Vec<_>>();
        assert_eq!((places(0), places(1)), (vec![0], vec![0, 2, 5]));
        let refused: Vec<_> = rows
            .refused
            .iter()
            .map(|refused| {
                (refused.message, refused.element, refused.poison.kind, refused.poison.table.as_deref())
            })
            .collect();
        let kinds = [(1, PoisonKind::Type), (3, PoisonKind::Type), (4, PoisonKind::Malformed)];
        assert_eq!(refused, kinds.map(|(element, kind)| (7, Some(element), kind, Some("d"))));
    }
}

#[test]
fn a_message_with_too_many_bad_elements_is_poison_as_a_whole() {
    let mut decoder = by_element();
    let mut rows = Rows::new(3);
    let payload = |bad: usize| format!(r#"{{"d":[{{"b":1}}{}]}}"#, ",{}".repeat(bad));
    decoder.decode(&message(payload(1_000).as_bytes()), 0, &mut rows).unwrap();
    assert_eq!((rows.tables[1].rows.len(), rows.refused.len()), (1, 1_000));
    let poison = decoder.decode(&message(payload(1_001).as_bytes()), 1, &mut rows).unwrap_err();
    assert!(
        poison.message.contains("more than 1000 of its elements cannot be stored; element 1001: the column"),
        "{poison:?}"
    );
    assert_eq!((rows.tables[1].rows.len(), rows.refused.len()), (1, 1_000));
}

#[test]
fn a_message_that_is_poison_in_one_table_keeps_no_refused_elements() {
    let mut decoder = by_element();
    let mut rows = Rows::new(3);
    for payload in [r#"{"d":[{}, {"b":1}],"e":[{"b":"x"}]}"#, r#"{"d":[{}],"e":7}"#, r#"{"d":7}"#] {
        decoder.decode(&message(payload.as_bytes()), 0, &mut rows).unwrap_err();
    }
    assert_eq!((rows.tables[1].rows.len(), rows.refused.len()), (0, 0));
}

#[test]
fn a_message_after_poison_is_a_row() {
    let mut decoder = decoder();
    for bad in [&b"{"[..], b"\xc1", b"{\"a\":\"x\"}", b"{\"a\":1,\"a\":2}", b"\x81\xa1a\xc4"] {
        poison(&mut decoder, bad);
        assert_eq!(row(&mut decoder, b"{\"a\":1}")[0], int8(1));
    }
}

#[test]
fn a_poison_message_holds_an_excerpt_only() {
    let poison = poison(&mut decoder(), format!("{{\"a\":\"{}\"}}", "y".repeat(5_000)).as_bytes());
    assert_eq!(poison.kind, PoisonKind::Type);
    assert!(poison.message.len() < 200 && poison.message.contains("yyy…"), "{}", poison.message);
}

#[test]
fn json_that_is_nearly_right_is_malformed() {
    for text in [
        "{a:1}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":+1}",
        "{\"a\":1e}",
        "{\"a\":-}",
        "{\"a\":nan}",
        "{\"a\":Inf}",
        "{\"a\":-NaN}",
        "{\"a\":+Infinity}",
        "{\"a\":-Infinit}",
        "\u{feff}\u{feff}{\"a\":1}",
        "\0{\"a\":1}",
        "{\"a\":1\0}",
        "{\"a\":1,}",
        "{,\"a\":1}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":tru}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\t\"}",
        "{\"a\":[1,]}",
        "{\"a\":[,1]}",
        "{\"a\":[1 2]}",
        "{\"a\":[1}}",
        "{\"a\":{]}",
        "{\"a\":1}}",
        "{\"a\":--1}",
        "{\"a\":00}",
        "{\"a\":1.e5}",
    ] {
        let mut decoder = Decoder::new(
            &pipeline("format = 'json'\n[[table]]\nname = 't'"),
            &[table(vec![column("b", Type::Int8)])],
        )
        .unwrap();
        assert_eq!(poison(&mut decoder, text.as_bytes()).kind, PoisonKind::Malformed, "{text}");
    }
}

/// JSON and near-JSON: pieces that often fit together.
fn jsonish() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("\"a\""),
        Just("\"\\u0041\""),
        Just("1"),
        Just("-0"),
        Just("1.5e-3"),
        Just("01"),
        Just("null"),
        Just("true"),
        Just("\"\\ud800\""),
        Just(" "),
        Just("\"é\""),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| format!("{{\"x\":{}}}", pieces.concat()))
}

fn json_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        // Eighths, since serde_json by default reads other fractions a little off.
        any::<i32>().prop_map(|number| Json::from(f64::from(number) / 8.0)),
        "[^\u{0}]{0,12}".prop_map(Json::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            proptest::collection::btree_map("[^\u{0}]{0,8}", inner, 0..6)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = rows_of(&mut decoder(), &message(&bytes));
        let map = [&[0x84, 0xa1, b'a'], &bytes[..]].concat();
        let _ = rows_of(&mut decoder(), &message(&map));
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0_usize..70, byte in any::<u8>()) {
        for mut payload in [JSON.as_bytes().to_vec(), msgpack(JSON)] {
            if let Some(place) = payload.get_mut(at) {
                *place = byte;
            }
            let _ = rows_of(&mut decoder(), &message(&payload));
        }
    }

    #[test]
    fn json_is_accepted_exactly_where_serde_json_accepts_it(text in jsonish()) {
        // An array of raw values checks the form and nothing else, as the reader does.
        let expected = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
        let mut decoder = plain(vec![column("none", Type::Int8)]);
        prop_assert_eq!(rows_of(&mut decoder, &message(text.as_bytes())).is_ok(), expected);
    }

    #[test]
    fn msgpack_becomes_the_json_that_it_stands_for(value in json_value()) {
        let mut decoder = plain(vec![column("v", Type::Json)]);
        let packed = rmp_serde::to_vec(&serde_json::json!({ "v": value })).unwrap();
        let found = row(&mut decoder, &packed).remove(0);
        if value.is_null() {
            prop_assert_eq!(found, None);
        } else {
            let found: Json = serde_json::from_slice(&found.unwrap()).unwrap();
            prop_assert_eq!(found, value);
        }
    }
}
