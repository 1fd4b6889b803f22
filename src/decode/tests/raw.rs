//! A payload that is one value.

use super::support::*;
use crate::decode::Decoder;
use crate::encode::types::Type;
use crate::payload::compress::compress;
use crate::payload::compression::Codec;
use crate::poison::PoisonKind;

fn try_raw(mapping: &str, ty: Type) -> Result<Decoder, String> {
    let toml = format!("format = \"raw\"\n[[table]]\nname = \"t\"\n[table.columns]\n{mapping}\n");
    try_decoder(&toml, &[table(vec![column("v", ty)])]).map_err(|error| error.problem)
}

fn raw(mapping: &str, ty: Type) -> Decoder {
    try_raw(mapping, ty).unwrap()
}

#[test]
fn a_value_is_the_number_the_boolean_or_the_text_that_the_column_wants() {
    for (payload, ty, expected) in [
        (&b"21.5"[..], Type::Float8, Some(21.5_f64.to_be_bytes().to_vec())),
        (b" 7\r\n", Type::Int8, int8(7)),
        (b"true", Type::Bool, Some(vec![1])),
        (b"0", Type::Bool, Some(vec![0])),
        (b" ON\n", Type::Text, text(" ON\n")),
        (b"", Type::Text, text("")),
        (b"2000-01-01T00:00:01Z", Type::Timestamptz, int8(1_000_000)),
        (b"{\"a\": 1}", Type::Jsonb, jsonb("{\"a\": 1}")),
        (b"21.5", Type::Jsonb, jsonb("\"21.5\"")),
        (b"{\"a\": 1}", Type::Text, text("{\"a\": 1}")),
    ] {
        assert_eq!(row(&mut raw("v = '$value'", ty.clone()), payload), [expected], "{payload:?} as {ty:?}");
    }
    let mut number = raw("v = { from = '$value', parse = 'json' }", Type::Jsonb);
    assert_eq!(row(&mut number, b"21.5"), [jsonb("21.5")]);
}

#[test]
fn a_payload_stays_as_it_is() {
    for (payload, ty, expected) in [
        (&b"21.5\n"[..], Type::Text, text("21.5\n")),
        (b"\xff\x00", Type::Bytea, Some(vec![0xff, 0])),
        (b"QUJD", Type::Bytea, text("QUJD")),
        (b"", Type::Bytea, Some(Vec::new())),
        (b"[1, 2]", Type::Jsonb, jsonb("[1, 2]")),
        (b"21.5", Type::Jsonb, jsonb("21.5")),
        (b"null", Type::Jsonb, jsonb("null")),
        (b"\"ON\"", Type::Json, text("\"ON\"")),
    ] {
        assert_eq!(row(&mut raw("v = '$payload'", ty.clone()), payload), [expected], "{payload:?} as {ty:?}");
    }
}

#[test]
fn what_a_column_does_not_take_is_poison_with_its_column_and_what_is_there() {
    for (payload, from, ty, kind, reason) in [
        (&b"ON"[..], "$value", Type::Float8, PoisonKind::Type, "`$value` is the text \"ON\""),
        (b"", "$value", Type::Int4, PoisonKind::Type, "`$value` is the text \"\""),
        (b"1.5", "$value", Type::Int4, PoisonKind::Type, "whole numbers"),
        (b"a\0", "$value", Type::Text, PoisonKind::Range, "NUL"),
        (b"a\0", "$payload", Type::Text, PoisonKind::Range, "NUL"),
        (b"\xff", "$value", Type::Text, PoisonKind::Malformed, "text that is not UTF-8"),
        (b"\xff", "$payload", Type::Jsonb, PoisonKind::Malformed, "text that is not UTF-8"),
        (b"ON", "$payload", Type::Jsonb, PoisonKind::Type, "text that is JSON as a whole"),
        (b"", "$payload", Type::Json, PoisonKind::Type, "text that is JSON as a whole"),
        (b"{}{}", "$payload", Type::Jsonb, PoisonKind::Type, "text that is JSON as a whole"),
    ] {
        let poison = poison(&mut raw(&format!("v = '{from}'"), ty.clone()), payload);
        assert_eq!((poison.kind, poison.column.as_deref()), (kind, Some("v")), "{payload:?} as {ty:?}");
        assert!(poison.message.contains(reason), "{payload:?} as {ty:?}: {}", poison.message);
    }
}

#[test]
fn fields_are_refused_since_there_are_none_and_a_value_where_it_would_be_a_guess() {
    for mapping in ["", "v = 'a'", "v = '$rest'"] {
        let problem = try_raw(mapping, Type::Jsonb).unwrap_err();
        assert!(problem.contains("\"$value\" or \"$payload\""), "{mapping}: {problem}");
    }
    let list = Type::Array { element: Box::new(Type::Int4), element_oid: 23 };
    for ty in [Type::Bytea, list] {
        let problem = try_raw("v = '$value'", ty).unwrap_err();
        assert!(problem.contains("use $payload for bytes"), "{problem}");
    }
    assert!(try_raw("v = '$payload'", Type::Int4).unwrap_err().contains("$payload needs a column of"));
}

#[test]
fn it_is_expanded_first_and_never_taken_for_another_format() {
    let toml = "format = \"raw\"\ncompression = \"gzip\"\n\
        [[table]]\nname = \"t\"\n[table.columns]\nv = '$value'";
    let mut decoder = try_decoder(toml, &[table(vec![column("v", Type::Float8)])]).unwrap();
    let payload = compress(Codec::Gzip, b"21.5").unwrap();
    assert_eq!(row(&mut decoder, &payload), [Some(21.5_f64.to_be_bytes().to_vec())]);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Content-Type", "application/json");
    let rows = rows_of(&mut raw("v = '$value'", Type::Text), &with_headers(b"[1", &headers)).unwrap();
    assert_eq!(rows, [[[text("[1")]]]);
}
