//! Where columns take their values from.

use super::support::{column, int8, jsonb, mapped, msgpack, plain, row, rows_of, table, text, try_decoder};
use super::support::{message, with_headers};
use crate::batch::Rows;
use crate::encode::types::Type;

/// The message in both formats.
fn both(json: &str) -> [Vec<u8>; 2] {
    [json.as_bytes().to_vec(), msgpack(json)]
}

#[test]
fn a_column_takes_the_field_of_its_own_name() {
    let mut decoder = plain(vec![column("a", Type::Int8), column("b", Type::Text), column("c", Type::Int8)]);
    for payload in both(r#"{"b": "x", "other": [1, {"a": 2}], "a": 5}"#) {
        assert_eq!(row(&mut decoder, &payload), [int8(5), text("x"), None]);
    }
}

#[test]
fn the_order_of_keys_does_not_matter_and_may_change() {
    let mut decoder = plain(vec![column("a", Type::Int8), column("b", Type::Int8), column("c", Type::Int8)]);
    for json in [
        r#"{"a":1,"b":2,"c":3}"#,
        r#"{"c":3,"b":2,"a":1}"#,
        r#"{"b":2,"x":0,"c":3,"a":1}"#,
        r#"{"c":3,"a":1,"y":0,"b":2}"#,
    ] {
        for payload in both(json) {
            assert_eq!(row(&mut decoder, &payload), [int8(1), int8(2), int8(3)], "{json}");
        }
    }
}

#[test]
fn paths_reach_into_maps_and_arrays() {
    let mut decoder = mapped(
        "a = 'after.box[1]'\nb = 'after.name'\nc = '\"x.y\"[0].z'\nd = 'after'",
        vec![
            column("a", Type::Int8),
            column("b", Type::Text),
            column("c", Type::Int8),
            column("d", Type::Jsonb),
        ],
    );
    for payload in both(r#"{"after":{"box":[1,2,3],"name":"n"},"x.y":[{"z":9}]}"#) {
        let after = jsonb(r#"{"box":[1,2,3],"name":"n"}"#);
        assert_eq!(row(&mut decoder, &payload), [int8(2), text("n"), int8(9), after]);
    }
    for payload in both(r#"{"after":{"box":[1]},"x.y":[]}"#) {
        assert_eq!(row(&mut decoder, &payload), [None, None, None, jsonb(r#"{"box":[1]}"#)]);
    }
    for payload in both(r#"{"after":null}"#) {
        assert_eq!(row(&mut decoder, &payload), [None, None, None, None]);
    }
}

#[test]
fn a_key_written_with_escapes_is_the_same_key() {
    let mut decoder = mapped("rest = '$rest'", vec![column("ab", Type::Int8), column("rest", Type::Jsonb)]);
    assert_eq!(row(&mut decoder, br#"{"\u0061b": 1, "c\n": 2}"#), [int8(1), jsonb(r#"{"c\n":2}"#)]);
}

#[test]
fn subject_sequence_and_timestamp_come_from_the_broker() {
    let mut decoder = mapped(
        "a = '$subject'\nb = '$subject[1]'\nc = '$subject[3]'\nd = '$sequence'\ntime = '$timestamp'",
        vec![
            column("a", Type::Text),
            column("b", Type::Text),
            column("c", Type::Text),
            column("d", Type::Int8),
            column("time", Type::Timestamptz),
        ],
    );
    assert_eq!(
        row(&mut decoder, b"{}"),
        [text("frames.cam-07.hd"), text("cam-07"), None, int8(42), int8(123_457)]
    );
}

#[test]
fn headers_are_found_whatever_their_case_and_may_be_absent() {
    let mut decoder = mapped(
        "a = '$header.Nats-Msg-Id'\nb = { from = '$header.site', default = 'none' }",
        vec![column("a", Type::Int8), column("b", Type::Text)],
    );
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("nats-msg-id", "17");
    let rows = rows_of(&mut decoder, &with_headers(b"{}", &headers)).unwrap();
    assert_eq!(rows[0][0], [int8(17), text("none")]);
    assert_eq!(row(&mut decoder, b"{}"), [None, text("none")]);
}

#[test]
fn headers_whose_names_differ_in_case_give_the_same_row_and_the_same_format_each_time() {
    let mut decoder =
        mapped("a = '$header.A'\nb = '$header.B'", vec![column("a", Type::Text), column("b", Type::Text)]);
    // Each map has an order of its own.
    for _ in 0..50 {
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in [("a", "lower"), ("A", "exact"), ("A", "second"), ("bb", "0"), ("b", "least?")] {
            headers.append(name, value);
        }
        headers.insert("content-type", "application/msgpack");
        headers.insert("Content-Type", "application/json");
        let rows = rows_of(&mut decoder, &with_headers(b"{}", &headers)).unwrap();
        assert_eq!(rows[0], [[text("exact"), text("least?")]]);
    }
}

#[test]
fn payload_is_the_whole_message() {
    let mut decoder = mapped(
        "a = '$payload'\nb = '$payload'\nc = '$payload'",
        vec![column("a", Type::Jsonb), column("b", Type::Text), column("c", Type::Bytea)],
    );
    for payload in both(r#"{"x":[1,null,"y"]}"#) {
        let json = r#"{"x":[1,null,"y"]}"#;
        assert_eq!(row(&mut decoder, &payload), [jsonb(json), text(json), Some(payload.clone())]);
    }
}

#[test]
fn rest_is_what_no_column_took_also_of_maps_that_a_path_goes_into() {
    let mut decoder = mapped(
        "a = 'in.deep.est'\nrest = '$rest'",
        vec![column("a", Type::Int8), column("b", Type::Int8), column("rest", Type::Jsonb)],
    );
    for (json, rest) in [
        (
            r#"{"b":1,"in":{"deep":{"est":2}},"x":[1,{"y":null}],"z":"\""}"#,
            r#"{"x":[1,{"y":null}],"z":"\""}"#,
        ),
        (
            r#"{"b":1,"in":{"more":3,"deep":{"est":2,"er":{"est":4}}}}"#,
            r#"{"in":{"deep":{"er":{"est":4}},"more":3}}"#,
        ),
        (r#"{"in":{"deep":{"est":2},"more":null},"b":1}"#, r#"{"in":{"more":null}}"#),
    ] {
        for payload in both(json) {
            assert_eq!(row(&mut decoder, &payload), [int8(2), int8(1), jsonb(rest)], "{json}");
        }
    }
    for json in [r#"{"b":1}"#, r#"{"b":1,"in":null}"#, r#"{"b":1,"in":{"deep":{}}}"#] {
        for payload in both(json) {
            assert_eq!(row(&mut decoder, &payload), [None, int8(1), jsonb("{}")], "{json}");
        }
    }
}

#[test]
fn rest_holds_an_array_as_a_whole_unless_each_of_its_elements_is_taken() {
    let columns = || {
        let ints = ["a", "b", "c"].map(|name| column(name, Type::Int8));
        table(ints.into_iter().chain([column("rest", Type::Jsonb)]).collect())
    };
    let toml = "[[table]]\nname = 't'\n[table.columns]\na = 'box[1]'\nb = 'box[0]'\nc = 'deep[0].x'\nrest = \
                '$rest'\n";
    for (json, rest) in [
        (r#"{"box":[7,8]}"#, "{}"),
        (r#"{"box":[7]}"#, "{}"),
        (r#"{"box":[]}"#, "{}"),
        (r#"{"box":null}"#, "{}"),
        (r#"{"box":[7,8,9]}"#, r#"{"box":[7,8,9]}"#),
        (r#"{"box":[7,8,null],"d":1}"#, r#"{"d":1,"box":[7,8,null]}"#),
        (r#"{"deep":[{"x":1}]}"#, r#"{"deep":[{"x":1}]}"#),
    ] {
        for payload in both(json) {
            let mut decoder = try_decoder(toml, &[columns()]).unwrap();
            let rows = rows_of(&mut decoder, &message(&payload)).unwrap();
            assert_eq!(rows[0][0][3], jsonb(rest), "{json}");
            assert!(decoder.tell().fields.is_empty(), "{json}");
        }
    }
    for json in [r#"{"box":5}"#, r#"{"box":{"0":1}}"#] {
        for payload in both(json) {
            let mut decoder = try_decoder(toml, &[columns()]).unwrap();
            let poison = rows_of(&mut decoder, &message(&payload)).unwrap_err();
            assert!(poison.message.contains("the mapping reads inside `box`"), "{}", poison.message);
        }
    }
}

#[test]
fn rest_leaves_out_what_another_table_splits_and_no_more() {
    let columns = || table(vec![column("a", Type::Int8), column("rest", Type::Jsonb)]);
    let toml = "[[table]]\nname = 't'\n[table.columns]\na = 'in.pair[0]'\nrest = '$rest'\n[[table]]\nname = \
                'u'\nfor_each = 'in.parts'\n[table.columns]\na = 'box.left'\nrest = '$rest'\n";
    let json = r#"{"in":{"pair":[7,8],"parts":[{"box":{"left":1,"top":2},"id":3}],"of":{"pair":9}}}"#;
    for payload in both(json) {
        let mut decoder = try_decoder(toml, &[columns(), columns()]).unwrap();
        let rows = rows_of(&mut decoder, &message(&payload)).unwrap();
        assert_eq!(rows[0], [[int8(7), jsonb(r#"{"in":{"of":{"pair":9},"pair":[7,8]}}"#)]]);
        assert_eq!(rows[1], [[int8(1), jsonb(r#"{"id":3,"box":{"top":2}}"#)]]);
    }
}

#[test]
fn constants_and_defaults_fill_in() {
    let mut decoder = mapped(
        "a = { constant = 'north' }\nb = { default = 25.0 }\nc = { constant = { x = [1, 2] } }\nd = { \
         default = [1, 2] }",
        vec![
            column("a", Type::Text),
            column("b", Type::Float8),
            column("c", Type::Jsonb),
            column("d", Type::Array { element: Box::new(Type::Int2), element_oid: 21 }),
        ],
    );
    for payload in both(r#"{"a":"south","b":null}"#) {
        let fields = row(&mut decoder, &payload);
        assert_eq!(
            fields[..3],
            [text("north"), Some(25_f64.to_be_bytes().to_vec()), jsonb(r#"{"x":[1,2]}"#)]
        );
        assert_eq!(fields[3].as_ref().unwrap().len(), 20 + 2 * 6);
    }
    for payload in both(r#"{"b":1}"#) {
        assert_eq!(row(&mut decoder, &payload)[1], Some(1_f64.to_be_bytes().to_vec()));
    }
}

#[test]
fn for_each_makes_a_row_an_element_and_the_caret_reaches_out() {
    let frames = table(vec![column("id", Type::Int8), column("rest", Type::Jsonb)]);
    let detections = table(vec![
        column("time", Type::Timestamptz),
        column("label", Type::Text),
        column("left", Type::Int8),
        column("rest", Type::Jsonb),
    ]);
    let toml = "[[table]]\nname = 't'\n[table.columns]\nrest = '$rest'\n\
        [[table]]\nname = 'd'\nfor_each = 'found.all'\n[table.columns]\n\
        time = { from = '^at', unit = 'us' }\nleft = 'box[0]'\nrest = '$rest'\n";
    let mut decoder = try_decoder(toml, &[frames, detections]).unwrap();
    let json = r#"{"id":1,"at":946684800000005,"k":"v","found":{"all":[
        {"label":"car","box":[10,20],"score":1},{"label":"bus","box":[30],"id":3}]}}"#;
    for payload in both(json) {
        let rows = rows_of(&mut decoder, &message(&payload)).unwrap();
        assert_eq!(rows[0], [[int8(1), jsonb(r#"{"k":"v","at":946684800000005}"#)]]);
        assert_eq!(
            rows[1],
            [
                [int8(5), text("car"), int8(10), jsonb(r#"{"box":[10,20],"score":1}"#)],
                [int8(5), text("bus"), int8(30), jsonb(r#"{"id":3}"#)]
            ]
        );
    }
    for payload in both(r#"{"id":2,"at":946684800000005,"found":{"all":[]}}"#) {
        assert_eq!(rows_of(&mut decoder, &message(&payload)).unwrap()[1].len(), 0);
    }
    for payload in both(r#"{"id":2}"#) {
        assert_eq!(rows_of(&mut decoder, &message(&payload)).unwrap()[1].len(), 0);
    }
    for payload in both(r#"{"found":{"all":{"label":"car"}}}"#) {
        let poison = rows_of(&mut decoder, &message(&payload)).unwrap_err();
        assert_eq!(poison.table.as_deref(), Some("d"));
        assert!(poison.message.contains("found.all"), "{}", poison.message);
    }
}

#[test]
fn elements_may_be_arrays_named_by_index() {
    let toml = "[[table]]\nname = 't'\nfor_each = 'boxes'\n[table.columns]\na = '[0]'\nb = '[1]'\n";
    let columns = vec![column("a", Type::Int8), column("b", Type::Int8)];
    let mut decoder = try_decoder(toml, &[table(columns)]).unwrap();
    for payload in both(r#"{"boxes":[[1,2],[3]]}"#) {
        let rows = rows_of(&mut decoder, &message(&payload)).unwrap();
        assert_eq!(rows[0], [[int8(1), int8(2)], [int8(3), None]]);
    }
}

#[test]
fn the_format_is_found_by_header_or_first_byte() {
    let mut decoder = plain(vec![column("a", Type::Int8)]);
    assert_eq!(row(&mut decoder, b" \n{\"a\":1}\n"), [int8(1)]);
    assert_eq!(row(&mut decoder, &msgpack(r#"{"a":1}"#)), [int8(1)]);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Content-Type", "application/json; charset=utf-8");
    let refused = rows_of(&mut decoder, &with_headers(&msgpack(r#"{"a":1}"#), &headers)).unwrap_err();
    assert!(refused.message.contains("JSON"), "{}", refused.message);
}

#[test]
fn rows_know_their_message_place_and_time() {
    let mut decoder =
        mapped("time = { unit = 's' }", vec![column("a", Type::Int8), column("time", Type::Timestamptz)]);
    let mut rows = Rows::new(1);
    for (index, payload) in [r#"{"a":1,"time":946684801}"#, r#"{"a":2}"#].iter().enumerate() {
        decoder.decode(&message(payload.as_bytes()), u32::try_from(index).unwrap(), &mut rows).unwrap();
    }
    let rows: Vec<_> = rows.tables[0].rows.iter().map(|row| (row.start, row.message, row.time)).collect();
    assert_eq!(rows, [(0, 0, 1_000_000), (2 + 12 + 12, 1, 0)]);
}
