//! What writers of messages are known to send beside what the formats say, and what is taken for what it
//! says.

use super::support::{
    column, int8, jsonb, message, msgpack, plain, poison, row, rows_of, table, text, try_decoder,
};
use crate::decode::Decoder;
use crate::encode::types::Type;
use crate::poison::PoisonKind;

fn decoder(settings: &str, mapping: &str, columns: &[(&str, Type)]) -> Decoder {
    let toml = format!("{settings}\n[[table]]\nname = 't'\n[table.columns]\n{mapping}\n");
    let columns = columns.iter().map(|(name, ty)| column(name, ty.clone())).collect();
    try_decoder(&toml, &[table(columns)]).unwrap()
}

#[test]
fn nan_and_infinity_by_their_names_are_taken_as_the_setting_says() {
    let columns =
        [("a", Type::Float8), ("j", Type::Jsonb), ("k", Type::Json), ("t", Type::Text), ("r", Type::Jsonb)];
    let json = "{\"a\":-Infinity,\"j\":{\"NaN\":[NaN,\"\\\"NaN\",-Infinity,1],\"I\":{\"x\":Infinity}},\
        \"k\":[NaN],\"t\":[NaN],\"I\":NaN}";
    let expect = |nan: &str, minus: &str, plus: &str| {
        let j = format!(r#"{{"NaN":[{nan},"\"NaN",{minus},1],"I":{{"x":{plus}}}}}"#);
        let one = format!("[{nan}]");
        [jsonb(&j), text(&one), text(&one), jsonb(&format!(r#"{{"I":{nan}}}"#))]
    };
    let kept = row(&mut decoder("", "r = '$rest'", &columns), json.as_bytes());
    assert_eq!(kept[0], Some(f64::NEG_INFINITY.to_be_bytes().to_vec()));
    assert_eq!(kept[1..], expect("\"NaN\"", "\"-Infinity\"", "\"Infinity\""));
    let nulled = row(&mut decoder("non_finite = 'null'", "r = '$rest'", &columns), json.as_bytes());
    assert_eq!(nulled[0], None);
    assert_eq!(nulled[1..], expect("null", "null", "null"));
    let mut refusing = decoder("non_finite = 'refuse'", "r = '$rest'", &columns);
    for (json, column) in [
        (r#"{"a":NaN}"#, "a"),
        (r#"{"j":NaN}"#, "j"),
        (r#"{"j":[[NaN]]}"#, "j"),
        (r#"{"k":{"x":-Infinity}}"#, "k"),
        (r#"{"x":[Infinity]}"#, "r"),
    ] {
        let poison = poison(&mut refusing, json.as_bytes());
        assert_eq!((poison.kind, poison.column.as_deref()), (PoisonKind::Range, Some(column)), "{json}");
    }
    // A value of its own is what it is in MessagePack: NULL, or its name.
    let mut keeping = decoder("", "", &columns[1..2]);
    assert_eq!(row(&mut keeping, br#"{"j":NaN}"#), [jsonb("\"NaN\"")]);
    assert_eq!(row(&mut decoder("non_finite = 'null'", "", &columns[1..2]), br#"{"j":NaN}"#), [None]);
    // Where nobody takes it, it is no fault; where whole numbers or times are wanted, it is one.
    assert_eq!(row(&mut plain(vec![column("b", Type::Int8)]), br#"{"a":NaN,"b":1}"#), [int8(1)]);
    for ty in [Type::Int8, Type::Timestamptz, Type::Bool, Type::Uuid] {
        let poison = poison(&mut plain(vec![column("a", ty)]), br#"{"a":NaN}"#);
        assert_eq!(poison.kind, PoisonKind::Type, "{poison:?}");
    }
}

#[test]
fn nan_in_an_element_is_that_of_its_element() {
    let toml = "non_finite = 'refuse'\n[[table]]\nname = 't'\nfor_each = 'p'\nbad_element = 'element'\n";
    let mut decoder =
        try_decoder(toml, &[table(vec![column("a", Type::Float8), column("j", Type::Jsonb)])]).unwrap();
    let mut rows = crate::batch::Rows::new(1);
    let json = br#"{"p":[{"a":1},{"a":NaN},{"j":[-Infinity]},{"x":NaN},{"j":{"y":[2]}}]}"#;
    decoder.decode(&message(json), 0, &mut rows).unwrap();
    let places: Vec<_> = rows.tables[0].rows.iter().map(|row| row.element).collect();
    let refused: Vec<_> = rows.refused.iter().map(|refused| refused.element).collect();
    assert_eq!((places, refused), (vec![0, 3, 4], vec![Some(1), Some(2)]));
}

#[test]
fn a_byte_order_mark_before_json_and_nuls_after_it_are_passed_over() {
    for settings in ["", "format = 'json'"] {
        let mut decoder = decoder(settings, "p = '$payload'", &[("a", Type::Int8), ("p", Type::Jsonb)]);
        for payload in ["\u{feff}{\"a\":1}", "{\"a\":1}\0", "\u{feff} {\"a\":1} \0\0\n\0 "] {
            assert_eq!(row(&mut decoder, payload.as_bytes()), [int8(1), jsonb("{\"a\":1}")], "{payload:?}");
        }
        for (mark, swap) in [(&b"\xff\xfe"[..], false), (b"\xfe\xff", true)] {
            let units = "{\"a\":1}".bytes().flat_map(|byte| if swap { [0, byte] } else { [byte, 0] });
            let payload: Vec<u8> = mark.iter().copied().chain(units).collect();
            let poison = poison(&mut decoder, &payload);
            assert!(poison.message.contains("it is in UTF-16"), "{}", poison.message);
        }
    }
    // MessagePack has no text around it: what follows a message there is something else.
    let packed = [msgpack("{\"a\":1}"), vec![0]].concat();
    assert_eq!(poison(&mut plain(vec![column("a", Type::Int8)]), &packed).kind, PoisonKind::Malformed);
}

#[test]
fn digits_in_text_are_a_time_where_the_column_has_a_unit() {
    let mut decoder = decoder(
        "",
        "a = { unit = 'ms' }\nb = { unit = 's' }\nc = { unit = 's' }\nd = { unit = 'ms' }\n\
         e = { unit = 'us' }",
        &[
            ("a", Type::Timestamptz),
            ("b", Type::Date),
            ("c", Type::Time),
            ("d", Type::Interval),
            ("e", Type::Timestamp),
        ],
    );
    let as_text = r#"{"a":"1700000000123","b":" 1700000000 ","c":"61.5","d":"1.5e3","e":"-1"}"#;
    let as_numbers = r#"{"a":1700000000123,"b":1700000000,"c":61.5,"d":1.5e3,"e":-1}"#;
    let written_out = r#"{"a":"2023-11-14T22:13:20.123Z","b":"2023-11-14","c":"00:01:01.5","d":"PT1.5S",
        "e":"1969-12-31T23:59:59.999999"}"#;
    let rows = [as_text, as_numbers, written_out].map(|json| row(&mut decoder, json.as_bytes()));
    assert_eq!((&rows[0], &rows[0]), (&rows[1], &rows[2]));
    assert_eq!(row(&mut decoder, &msgpack(as_text)), rows[0]);
    assert_eq!(row(&mut decoder, br#"{"a":"\u0031700000000123"}"#)[0], rows[0][0]);
    for (json, kind) in [
        (r#"{"a":"17000 00000"}"#, PoisonKind::Type),
        (r#"{"a":""}"#, PoisonKind::Type),
        (r#"{"a":"1e30"}"#, PoisonKind::Range),
    ] {
        assert_eq!(poison(&mut decoder, json.as_bytes()).kind, kind, "{json}");
    }
    // Without a unit it is a guess.
    let mut without = plain(vec![column("a", Type::Timestamptz)]);
    assert_eq!(poison(&mut without, br#"{"a":"1700000000123"}"#).kind, PoisonKind::Type);
}

#[test]
fn json_in_text_is_what_it_says_in_a_column_of_json() {
    let columns = [("j", Type::Jsonb), ("k", Type::Json)];
    let array = Type::Array { element: Box::new(Type::Jsonb), element_oid: 3802 };
    let mut documents = decoder("", "", &columns);
    for (written, stored) in [
        (r#""{\"a\": [1, null]}""#, r#"{"a": [1, null]}"#),
        (r#""[]""#, "[]"),
        (r#""\n {\"a\":\"\\u00e9\\\"\"} ""#, r#"{"a":"\u00e9\""}"#),
        (r#""\u007b\u007d""#, "{}"),
        (r#""{\"a\":NaN}""#, r#"{"a":"NaN"}"#),
        // Words and numbers are text as often as not, and so is what only begins like JSON.
        (r#""abc""#, r#""abc""#),
        (r#""12""#, r#""12""#),
        (r#""null""#, r#""null""#),
        (r#""""#, r#""""#),
        (r#""[see above]""#, r#""[see above]""#),
        (r#""{\"a\":1} and more""#, r#""{\"a\":1} and more""#),
        // What is inside a document stays as it is.
        (r#"{"a":"{}"}"#, r#"{"a":"{}"}"#),
    ] {
        let json = format!(r#"{{"j":{written},"k":{written}}}"#);
        assert_eq!(row(&mut documents, json.as_bytes()), [jsonb(stored), text(stored)], "{written}");
    }
    let packed = msgpack(r#"{"j":"{\"a\": 1}","k":"[1"}"#);
    assert_eq!(row(&mut documents, &packed), [jsonb(r#"{"a": 1}"#), text(r#""[1""#)]);
    let elements = row(&mut decoder("", "", &[("j", array)]), br#"{"j":["{}","x"]}"#);
    assert!(elements[0].as_ref().unwrap().ends_with(b"\x01{}\0\0\0\x04\x01\"x\""), "{elements:?}");

    let mut never = decoder("", "j = { parse = 'never' }", &columns);
    assert_eq!(row(&mut never, br#"{"j":"{}","k":"{}"}"#), [jsonb(r#""{}""#), text("{}")]);
    let mut all = decoder("", "j = { parse = 'json' }", &columns[..1]);
    for (written, stored) in
        [(r#""12""#, "12"), (r#""\"x\"""#, r#""x""#), (r#""null""#, "null"), (r#""{}""#, "{}"), ("7", "7")]
    {
        assert_eq!(row(&mut all, format!(r#"{{"j":{written}}}"#).as_bytes()), [jsonb(stored)], "{written}");
    }
    assert_eq!(row(&mut all, br#"{"j":null}"#), [None]);
    for bad in [r#"{"j":"abc"}"#, r#"{"j":""}"#, r#"{"j":"\ud800"}"#] {
        let poison = poison(&mut all, bad.as_bytes());
        assert_eq!((poison.kind, poison.column.as_deref()), (PoisonKind::Type, Some("j")), "{bad}");
    }
    let error = try_decoder(
        "[[table]]\nname = 't'\ncolumns.t = { parse = 'json' }\n",
        &[table(vec![column("t", Type::Text)])],
    );
    assert!(error.unwrap_err().problem.contains("`parse` is for columns of json and jsonb"));
}

#[test]
fn numbers_and_truths_in_text_may_have_white_space_around_them() {
    let mut decoder = plain(vec![
        column("i", Type::Int8),
        column("f", Type::Float8),
        column("n", Type::Numeric),
        column("b", Type::Bool),
    ]);
    let plain = row(&mut decoder, br#"{"i":"12","f":"1.5","n":"2.50","b":"true"}"#);
    for json in [
        r#"{"i":" 12\n","f":"\t1.5 ","n":" 2.50 ","b":" True "}"#,
        r#"{"i":"12 ","f":" 1.5","n":"2.50 ","b":"1"}"#,
    ] {
        assert_eq!(row(&mut decoder, json.as_bytes()), plain, "{json}");
    }
    for json in [r#"{"i":"1 2"}"#, r#"{"f":""}"#, r#"{"n":" "}"#, r#"{"b":"yes"}"#, r#"{"b":"2"}"#] {
        assert_eq!(poison(&mut decoder, json.as_bytes()).kind, PoisonKind::Type, "{json}");
    }
}

#[test]
fn a_row_whose_numbers_would_print_too_long_is_poison_of_its_range() {
    let numbers = Type::Array { element: Box::new(Type::Numeric), element_oid: 1700 };
    let columns = [("j", Type::Jsonb), ("n", numbers), ("k", Type::Json), ("r", Type::Jsonb)];
    let json = |key: &str, number: &str, times: usize| {
        format!("{{\"{key}\":[{}]}}", vec![number; times].join(",")).into_bytes()
    };
    let mut decoder = decoder("", "r = '$rest'", &columns);
    for (payload, column) in [
        (json("j", "1e7999", 140_000), "j"),
        (json("j", "1e99", 3_000_000), "j"),
        (json("j", "1e-16000", 17_000), "j"),
        (json("n", "1e131071", 2_100), "n"),
        (json("other", "1e7999", 40_000), "r"),
        // Of two columns together: each by itself would do.
        (
            [&json("j", "1e7999", 20_000)[..20_000 * 7 + 6], &json("n", "1e7999", 20_000)[1..]].join(&b','),
            "n",
        ),
    ] {
        let poison = poison(&mut decoder, &payload);
        assert_eq!((poison.kind, poison.column.as_deref()), (PoisonKind::Range, Some(column)), "{poison:?}");
        assert!(poison.message.contains("would print to more than 256 MiB"), "{}", poison.message);
    }
    for payload in [json("j", "1e7999", 30_000), json("k", "1e7999", 140_000), json("j", "1e15", 200_000)] {
        for _ in 0..2 {
            rows_of(&mut decoder, &message(&payload)).unwrap();
        }
    }
    // {"j": [1e308, …]}, of nine bytes each.
    let packed = |times: u32| {
        let numbers = [&b"\xcb"[..], &1e308_f64.to_be_bytes()].concat().repeat(times as usize);
        [&b"\x81\xa1j\xdd"[..], &times.to_be_bytes(), &numbers].concat()
    };
    assert_eq!(poison(&mut decoder, &packed(900_000)).kind, PoisonKind::Range);
    rows_of(&mut decoder, &message(&packed(700_000))).unwrap();
}
