//! What functions make of a value before its column takes it.

use super::support::*;
use crate::decode::Decoder;
use crate::encode::types::Type;
use crate::poison::PoisonKind;

fn try_made(functions: &str, ty: Type) -> Result<Decoder, String> {
    let toml = format!("[[table]]\nname = \"t\"\n[table.columns]\nv = {{ {functions} }}\n");
    try_decoder(&toml, &[table(vec![column("v", ty)])]).map_err(|error| error.problem)
}

/// The field that a value in JSON becomes, from both formats.
fn made(functions: &str, ty: &Type, json: &str) -> Option<Vec<u8>> {
    let mut decoder = try_made(functions, ty.clone()).unwrap();
    let payload = format!("{{\"v\":{json}}}");
    let fields = row(&mut decoder, payload.as_bytes());
    if !json.contains(['.', 'e']) || json.starts_with('"') {
        assert_eq!(row(&mut decoder, &msgpack(&payload)), fields, "MessagePack, {functions}: {json}");
    }
    let [field] = fields.try_into().unwrap();
    field
}

fn float8(number: f64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

#[test]
fn a_text_is_trimmed_cut_and_put_into_one_case_in_that_order() {
    for (functions, json, expected) in [
        ("trim = true", r#"" a b\n""#, text("a b")),
        ("truncate = 2", r#""größe""#, text("gr")),
        ("truncate = 9", r#""größe""#, text("größe")),
        ("substring = [2, 2]", r#""größe""#, text("öß")),
        ("substring = [3, 9]", r#""größe""#, text("ße")),
        ("substring = [9, 1]", r#""größe""#, text("")),
        ("lower = true", r#""GRÖSSE""#, text("grösse")),
        ("upper = true", r#""gr\u00f6ße""#, text("GRÖSSE")),
        ("upper = true, truncate = 2, substring = [1, 5], trim = true", r#""  abcdef ""#, text("BC")),
        ("empty = 'null'", r#""""#, None),
        ("empty = 'null'", r#"" ""#, text(" ")),
        ("trim = true, empty = 'null'", r#"" ""#, None),
        ("trim = true, lower = true, empty = 'null'", "17", text("17")),
        ("trim = true, default = 'none', empty = 'null'", r#"" ""#, text("none")),
    ] {
        assert_eq!(made(functions, &Type::Text, json), expected, "{functions}: {json}");
    }
    assert_eq!(made("substring = [1, 3]", &Type::Int8, r#""T042X""#), int8(42));
    assert_eq!(made("trim = true, empty = 'null'", &Type::Float8, r#""""#), None);
}

#[test]
fn a_number_is_multiplied_added_to_and_then_rounded_without_a_digit_too_much() {
    for (functions, ty, json, expected) in [
        ("scale = 0.1", Type::Float8, "3", Some(float8(0.3))),
        ("scale = 0.1, offset = -273.15", Type::Float8, "2950", Some(float8(21.85))),
        ("offset = 1", Type::Float8, "\" 1.5 \"", Some(float8(2.5))),
        ("scale = 1000", Type::Int8, "\"21.5\"", int8(21_500)),
        ("scale = 1000", Type::Int8, "21.5", int8(21_500)),
        ("scale = 0.01, round = 1", Type::Float8, "1234", Some(float8(12.3))),
        ("scale = -1", Type::Float8, "\"Infinity\"", Some(float8(f64::NEG_INFINITY))),
        ("trim = true, scale = 2, empty = 'null'", Type::Int8, "\"\"", None),
    ] {
        assert_eq!(made(functions, &ty, json), expected, "{functions}: {json}");
    }
}

#[test]
fn a_map_has_a_field_for_each_value_that_it_knows() {
    let states = "trim = true, upper = true, map = { ON = true, OFF = false, 1 = true, true = false }";
    for (json, expected) in [("\" on\"", 1), ("\"Off\"", 0), ("1", 1), ("\"1\"", 1), ("\"true\"", 0)] {
        // Upper case comes before the map.
        let states = states.replace("true = false", "TRUE = false");
        assert_eq!(made(&states, &Type::Bool, json), Some(vec![expected]), "{json}");
    }
    assert_eq!(made("map = { true = 1, false = 0 }", &Type::Int8, "true"), int8(1));
    for written in ["1", "1.0", "1e0", "10e-1"] {
        assert_eq!(made("map = { 1 = 7 }", &Type::Int8, written), int8(7), "{written}");
    }
    assert_eq!(made("map = { 0 = 7 }", &Type::Int8, "-0.0"), int8(7));
    assert_eq!(made("upper = true, truncate = 3", &Type::Text, "\"aßb\""), text("ASS"));
    assert_eq!(made("map = { a = 'α' }", &Type::Text, "\"a\""), text("α"));
    assert_eq!(made("map = { a = { b = [1] } }", &Type::Jsonb, "\"a\""), jsonb("{\"b\":[1]}"));
    assert_eq!(made("map = { a = 1 }, default = 7", &Type::Int8, "null"), int8(7));
}

#[test]
fn the_first_source_that_is_there_counts_and_null_is_as_good_as_absent() {
    let mut decoder = try_made("from = ['a', 'b.c', '$subject[1]']", Type::Text).unwrap();
    for (json, expected) in [
        (r#"{"a":"x","b":{"c":"y"}}"#, "x"),
        (r#"{"a":null,"b":{"c":"y"}}"#, "y"),
        (r#"{"b":{"c":"y"}}"#, "y"),
        (r#"{"b":{}}"#, "cam-07"),
        (r#"{"a":""}"#, ""),
    ] {
        assert_eq!(row(&mut decoder, json.as_bytes()), [text(expected)], "{json}");
    }
    let mut with_rest = mapped(
        "v = { from = ['a', 'b'] }\nrest = '$rest'",
        vec![column("v", Type::Int8), column("rest", Type::Jsonb)],
    );
    assert_eq!(row(&mut with_rest, br#"{"a":1,"b":2,"c":3}"#), [int8(1), jsonb("{\"c\":3}")]);
}

#[test]
fn what_a_function_does_not_take_is_poison_that_names_column_and_function() {
    for (functions, ty, json, kind, reason) in [
        ("substring = [0, 1]", Type::Text, "5", PoisonKind::Type, "`substring` takes text; `v` is 5"),
        ("truncate = 1", Type::Text, "[1]", PoisonKind::Type, "`truncate` takes text; `v` is an array"),
        ("map = { a = 1 }", Type::Int8, "\"b\"", PoisonKind::Type, "`map` has no entry for it"),
        ("map = { a = 1 }", Type::Int8, "{}", PoisonKind::Type, "`map` has no entry for it"),
        ("map = { 1 = 1 }", Type::Int8, "1.5", PoisonKind::Type, "`map` has no entry for it"),
        ("scale = 2", Type::Int8, "\"ON\"", PoisonKind::Type, "`scale` and a numeric `offset` take a number"),
        ("scale = 2", Type::Int8, "true", PoisonKind::Type, "`scale` and a numeric `offset` take a number"),
        ("scale = 0.5", Type::Int8, "3", PoisonKind::Type, "whole numbers"),
        ("scale = 2", Type::Numeric, "1e40", PoisonKind::Range, "more than 38 digits"),
        ("trim = true", Type::Text, r#""\ud800""#, PoisonKind::Malformed, "surrogate"),
        ("trim = true", Type::Int8, "\"a\"", PoisonKind::Type, "whole numbers"),
    ] {
        let payload = format!("{{\"v\":{json}}}");
        let poison = poison(&mut try_made(functions, ty).unwrap(), payload.as_bytes());
        assert_eq!((poison.kind, poison.column.as_deref()), (kind, Some("v")), "{functions}: {json}");
        assert!(poison.message.contains(reason), "{functions}: {json}: {}", poison.message);
    }
    let toml = "[[table]]\nname = \"t\"\n[table.columns]\nv = { from = ['a', 'b'], empty = 'null' }";
    let mut strict = try_decoder(toml, &[table(vec![not_null("v", Type::Text)])]).unwrap();
    let missing = poison(&mut strict, b"{}").message;
    assert!(missing.contains("`a or b` is absent"), "{missing}");
    let missing = poison(&mut strict, br#"{"b":""}"#).message;
    assert!(missing.contains("`a or b` is null"), "{missing}");
}

#[test]
fn a_boolean_is_on_or_off_in_any_case_and_never_another_word() {
    for (json, expected) in [("\"on\"", 1), ("\"ON\"", 1), ("\" Off\\n\"", 0), ("\"1\"", 1), ("0", 0)] {
        let mut decoder = plain(vec![column("v", Type::Bool)]);
        assert_eq!(row(&mut decoder, format!("{{\"v\":{json}}}").as_bytes()), [Some(vec![expected])]);
    }
    for json in ["\"open\"", "\"o\"", "\"\"", "\"yes\"", "2"] {
        poison(&mut plain(vec![column("v", Type::Bool)]), format!("{{\"v\":{json}}}").as_bytes());
    }
}

#[test]
fn functions_that_do_not_go_with_the_column_are_refused() {
    let list = || Type::Array { element: Box::new(Type::Text), element_oid: 25 };
    for (functions, ty, reason) in [
        ("trim = true", Type::Jsonb, "not for columns of json"),
        ("empty = 'null'", Type::Bytea, "not for columns of json"),
        ("lower = true", list(), "not for columns of json"),
        ("scale = 2", Type::Text, "for columns of numbers"),
        ("offset = 2", Type::Timestamptz, "for columns of numbers"),
        ("offset = '+02:00'", Type::Float8, "for columns of type timestamptz"),
        ("map = { a = 'x' }", Type::Int8, "what `map` makes of `a` does not fit the column"),
        ("from = '$rest', trim = true", Type::Text, "$rest is an object"),
        ("from = ['a', '$rest']", Type::Jsonb, "$rest is an object"),
        ("from = ['a', '$element']", Type::Int8, "`$element` is the index"),
    ] {
        let problem = try_made(functions, ty).unwrap_err();
        assert!(problem.contains(reason), "{functions}: {problem}");
    }
}
