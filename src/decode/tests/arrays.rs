//! A message that is an array by itself (`for_each = "$"`).

use async_nats::HeaderMap;

use super::support::*;
use crate::decode::Decoder;
use crate::encode::types::Type;
use crate::poison::PoisonKind;

fn both(json: &str) -> [Vec<u8>; 2] {
    [json.as_bytes().to_vec(), msgpack(json)]
}

/// A table of elements, with further settings of it.
fn elements(settings: &str) -> Decoder {
    let columns = vec![
        not_null("a", Type::Int8),
        column("place", Type::Int8),
        column("rest", Type::Jsonb),
        column("whole", Type::Jsonb),
    ];
    let toml = format!(
        "[[table]]\nname = 't'\nfor_each = '$'\n{settings}\n[table.columns]\nplace = '$element'\nrest = \
         '$rest'\nwhole = '$payload'\n"
    );
    try_decoder(&toml, &[table(columns)]).unwrap()
}

#[test]
fn each_element_is_a_row_with_its_place_its_rest_and_the_message() {
    let json = r#"[{"a":1,"x":true},{"a":2}]"#;
    for payload in both(json) {
        let rows = rows_of(&mut elements(""), &message(&payload)).unwrap();
        let row = |a, place, rest| vec![int8(a), int8(place), jsonb(rest), jsonb(json)];
        assert_eq!(rows, [[row(1, 0, r#"{"x":true}"#), row(2, 1, "{}")]]);
    }
    for payload in both("[]") {
        assert_eq!(rows_of(&mut elements(""), &message(&payload)).unwrap()[0].len(), 0);
    }
}

#[test]
fn an_element_that_cannot_be_stored_takes_the_message_along_or_goes_alone() {
    for payload in both(r#"[{"a":1},{"a":"x"},{"a":3}]"#) {
        let poison = poison(&mut elements(""), &payload);
        assert_eq!((poison.kind, poison.column.as_deref()), (PoisonKind::Type, Some("a")));
        let rows = rows_of(&mut elements("bad_element = 'element'"), &message(&payload)).unwrap();
        assert_eq!(rows[0].len(), 2);
    }
}

#[test]
fn a_message_that_is_no_array_and_an_element_that_is_no_map_are_poison_and_say_what_there_is() {
    for (json, found) in [(r#"{"a":1}"#, "in `$` there is a map"), ("[1]", "in `$` there is 1")] {
        for payload in both(json) {
            let poison = poison(&mut elements(""), &payload);
            assert_eq!(poison.kind, PoisonKind::Type);
            assert!(poison.message.contains(found), "{poison:?}");
        }
    }
    for payload in [&b"7"[..], b"[{\"a\":1}", b"[{\"a\":1}] []"] {
        assert_eq!(poison(&mut elements(""), payload).kind, PoisonKind::Malformed);
    }
}

#[test]
fn arrays_and_maps_of_one_stream_are_told_apart_by_subject_or_header() {
    let toml = "[[table]]\nname = 't'\nfor_each = '$'\nwhen = { headers = { many = true } }\n[[table]]\n\
                name = 'u'\nwhen = { headers = { many = false } }\n";
    let one = || table(vec![column("a", Type::Int8)]);
    let mut other = one();
    other.qualified = "public.u".into();
    let mut decoder = try_decoder(toml, &[one(), other]).unwrap();
    let mut many = HeaderMap::new();
    many.insert("many", "yes");
    for payload in both(r#"[{"a":1},{"a":2}]"#) {
        let rows = rows_of(&mut decoder, &with_headers(&payload, &many)).unwrap();
        assert_eq!([rows[0].len(), rows[1].len()], [2, 0]);
        let poison = poison(&mut decoder, &payload);
        assert_eq!((poison.kind, poison.table.as_deref()), (PoisonKind::Type, Some("u")));
        assert!(poison.message.starts_with("the message is an array"), "{poison:?}");
    }
    for payload in both(r#"{"a":1}"#) {
        let rows = rows_of(&mut decoder, &message(&payload)).unwrap();
        assert_eq!([rows[0].len(), rows[1].len()], [0, 1]);
    }
}

#[test]
fn fields_of_elements_that_no_column_takes_are_counted_by_their_paths() {
    let toml = "[[table]]\nname = 't'\nfor_each = '$'\n";
    let mut decoder = try_decoder(toml, &[table(vec![column("a", Type::Int8)])]).unwrap();
    for payload in both(r#"[{"a":1,"x":1},{"x":{"y":1},"a":2}]"#) {
        rows_of(&mut decoder, &message(&payload)).unwrap();
        assert_eq!(decoder.tell().fields, [("$[].x".to_owned(), 2)]);
    }
}
