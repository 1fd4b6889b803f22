//! What each type of column accepts, and what is poison.

use super::support::{
    column, int8, jsonb, message, pipeline, plain, poison, row, rows_of, table, text, try_decoder,
};
use crate::decode::Decoder;
use crate::encode::types::Type;
use crate::poison::PoisonKind;

/// A decoder for one column `v`, with options of its source and of the pipeline.
fn decoder(ty: Type, source: &str, pipeline: &str) -> Decoder {
    let toml = format!("{pipeline}\n[[table]]\nname = \"t\"\n[table.columns]\nv = {{ {source} }}\n");
    try_decoder(&toml, &[table(vec![column("v", ty)])]).unwrap()
}

fn json(value: &str) -> Vec<u8> {
    format!("{{\"v\":{value}}}").into_bytes()
}

/// `{"v": …}` around a value in MessagePack.
fn packed(value: &[u8]) -> Vec<u8> {
    [&[0x81, 0xa1, b'v'], value].concat()
}

#[test]
fn what_does_not_fit_its_type_is_poison_of_the_right_kind() {
    use PoisonKind::{Range, Type as Kind};
    let array = || Type::Array { element: Box::new(Type::Int2), element_oid: 21 };
    for (ty, source, value, kind, says) in [
        (Type::Bool, "", "2", Kind, "boolean"),
        (Type::Bool, "", "\"yes\"", Kind, "boolean"),
        (Type::Int2, "", "32768", Range, "smallint"),
        (Type::Int2, "", "-32769", Range, "smallint"),
        (Type::Int4, "", "2147483648", Range, "integer"),
        (Type::Int8, "", "9223372036854775808", Range, "bigint"),
        (Type::Int8, "", "-9223372036854775809", Range, "bigint"),
        (Type::Int8, "", "1e30", Range, "bigint"),
        (Type::Int8, "", "1e999999999999", Range, "bigint"),
        (Type::Int8, "", "1.5", Kind, "whole"),
        (Type::Int8, "", "9007199254740993.5", Kind, "whole"),
        (Type::Int8, "", "true", Kind, "whole"),
        (Type::Int8, "", "\"\"", Kind, "whole"),
        (Type::Int8, "", "\"1x\"", Kind, "whole"),
        (Type::Int8, "", "[1]", Kind, "an array"),
        (Type::Float4, "", "1e39", Range, "real"),
        (Type::Float8, "", "1e400", Range, "double"),
        (Type::Float8, "", "\"1,5\"", Kind, "numeric"),
        (Type::Numeric, "", "1e200000", Range, "numeric"),
        (Type::Numeric, "", "1e-20000", Range, "numeric"),
        (Type::Numeric, "", "\"x\"", Kind, "numeric"),
        (Type::Bytea, "", "\"*\"", Kind, "base64"),
        (Type::Uuid, "", "\"a0eebc99\"", Kind, "uuid"),
        (Type::Timestamptz, "", "1735689600", Kind, "`unit`"),
        (Type::Timestamptz, "unit = 's'", "1e300", Range, "4714 BC"),
        (Type::Timestamptz, "unit = 's'", "9223372036854775807", Range, "4714 BC"),
        (Type::Timestamptz, "unit = 's'", "true", Kind, "RFC 3339"),
        (Type::Timestamptz, "", "\"2025-01-01T00:00:00\"", Kind, "offset"),
        (Type::Timestamptz, "", "\"2025-02-30T00:00:00Z\"", Kind, "RFC 3339"),
        (Type::Timestamptz, "", "\"today\"", Kind, "RFC 3339"),
        (Type::Date, "", "\"2025-13-01\"", Kind, "RFC 3339"),
        (Type::Time, "", "\"25:00:00\"", Kind, "12:34"),
        (Type::Time, "unit = 's'", "86401", Range, "24:00"),
        (Type::Time, "unit = 's'", "-1", Range, "24:00"),
        (Type::Interval, "", "\"soon\"", Kind, "ISO 8601"),
        (Type::Interval, "", "5", Kind, "`unit`"),
        (Type::Inet { cidr: false }, "", "\"10.0.0.1/33\"", Kind, "10.0.0.0/8"),
        (Type::Inet { cidr: false }, "", "\"10.0.0.1/+8\"", Kind, "10.0.0.0/8"),
        (Type::Inet { cidr: false }, "", "\"10.0.0\"", Kind, "10.0.0.0/8"),
        (Type::Inet { cidr: true }, "", "\"10.0.0.1/8\"", Range, "prefix"),
        (array(), "", "1", Kind, "array"),
        (array(), "", "[[1]]", Kind, "dimension"),
        (array(), "", "[1,70000]", Range, "smallint"),
    ] {
        let name = format!("{ty:?} from {value}");
        let poison = poison(&mut decoder(ty, source, ""), &json(value));
        assert_eq!(poison.kind, kind, "{name}: {}", poison.message);
        assert!(poison.message.contains(says), "{name}: {}", poison.message);
        assert_eq!((poison.table.as_deref(), poison.column.as_deref()), (Some("t"), Some("v")));
    }
}

#[test]
fn nan_and_infinities_follow_the_setting() {
    let nan = packed(&[&[0xcb], &f64::NAN.to_be_bytes()[..]].concat());
    let infinite = packed(&[&[0xca], &f32::INFINITY.to_be_bytes()[..]].concat());
    let listed = packed(&[&[0x92, 0x01, 0xcb], &f64::NEG_INFINITY.to_be_bytes()[..]].concat());
    for ty in [Type::Float4, Type::Float8, Type::Numeric, Type::Json] {
        for payload in [&nan, &infinite] {
            let field = |setting| rows_of(&mut decoder(ty.clone(), "", setting), &message(payload));
            assert!(field("").unwrap()[0][0][0].is_some(), "{ty:?}");
            assert_eq!(field("non_finite = 'null'").unwrap()[0][0], [None], "{ty:?}");
            assert_eq!(field("non_finite = 'refuse'").unwrap_err().kind, PoisonKind::Range, "{ty:?}");
        }
    }
    assert_eq!(row(&mut decoder(Type::Jsonb, "", ""), &nan), [jsonb("\"NaN\"")]);
    assert_eq!(row(&mut decoder(Type::Jsonb, "", ""), &listed), [jsonb("[1,\"-Infinity\"]")]);
    assert_eq!(row(&mut decoder(Type::Jsonb, "", "non_finite = 'null'"), &listed), [jsonb("[1,null]")]);
    assert_eq!(
        row(&mut decoder(Type::Float8, "default = 1", "non_finite = 'null'"), &nan),
        [Some(1_f64.to_be_bytes().to_vec())]
    );
    let refused = poison(&mut decoder(Type::Int8, "", ""), &nan);
    assert_eq!(refused.kind, PoisonKind::Type);
    let refused = poison(&mut decoder(Type::Timestamptz, "unit = 's'", ""), &nan);
    assert_eq!(refused.kind, PoisonKind::Range);
}

#[test]
fn numbers_keep_as_many_digits_as_their_column_asks_for() {
    let float8 = |value: f64| Some(value.to_be_bytes().to_vec());
    let float4 = |value: f32| Some(value.to_be_bytes().to_vec());
    let double = packed(&[&[0xcb], &0.873_046_2_f64.to_be_bytes()[..]].concat());
    let short = packed(&[&[0xca], &0.873_046_2_f32.to_be_bytes()[..]].concat());
    for payload in [&double, &short, &json("0.8730462"), &json("\" 8730462e-7 \"")] {
        let round = |ty, source| row(&mut decoder(ty, source, ""), payload);
        assert_eq!(round(Type::Float8, "round = 2"), [float8(0.87)]);
        assert_eq!(round(Type::Float8, "round_bits = 4"), [float8(0.875)]);
        assert_eq!(round(Type::Float4, "round = 2"), [float4(0.87)]);
        assert_eq!(round(Type::Float4, "round_bits = 4"), [float4(0.875)]);
        let two = row(&mut decoder(Type::Numeric, "", ""), &json("0.87"));
        assert_eq!(round(Type::Numeric, "round = 2"), two);
    }
    let list = |element| Type::Array { element: Box::new(element), element_oid: 701 };
    let rounded = row(&mut decoder(list(Type::Float8), "round = 1", ""), &json("[0.44, null, 7, \"1.26\"]"));
    assert_eq!(rounded, row(&mut decoder(list(Type::Float8), "", ""), &json("[0.4, null, 7.0, 1.3]")));
    // What is no number, or not a finite one, is as without.
    let nan = packed(&[&[0xcb], &f64::NAN.to_be_bytes()[..]].concat());
    for ty in [Type::Float4, Type::Float8, Type::Numeric] {
        let with = |setting| rows_of(&mut decoder(ty.clone(), "round = 1", setting), &message(&nan));
        assert_eq!(with("").unwrap()[0][0], row(&mut decoder(ty.clone(), "", ""), &nan), "{ty:?}");
        assert_eq!(with("non_finite = 'null'").unwrap()[0][0], [None], "{ty:?}");
        assert_eq!(poison(&mut decoder(ty.clone(), "round = 1", ""), &json("true")).kind, PoisonKind::Type);
    }
    assert_eq!(poison(&mut decoder(Type::Float4, "round = 1", ""), &json("1e300")).kind, PoisonKind::Range);
    assert_eq!(
        row(&mut decoder(Type::Float8, "round = 1, default = 0.25", ""), &json("null")),
        [float8(0.25)]
    );
}

#[test]
fn a_float_far_from_all_times_is_out_of_range() {
    for value in [-1e300_f64, 1e300] {
        let payload = packed(&[&[0xcb], &value.to_be_bytes()[..]].concat());
        for ty in [Type::Timestamptz, Type::Timestamp, Type::Date, Type::Time, Type::Interval] {
            let poison = poison(&mut decoder(ty.clone(), "unit = 's'", ""), &payload);
            assert_eq!(poison.kind, PoisonKind::Range, "{ty:?} from {value}");
        }
    }
}

#[test]
fn a_null_by_setting_in_a_required_column_says_why() {
    let pipeline = pipeline("non_finite = 'null'\n[[table]]\nname = 't'");
    let required = super::support::not_null("v", Type::Float8);
    let mut decoder = Decoder::new(&pipeline, &[table(vec![required])]).unwrap();
    let poison = poison(&mut decoder, &packed(&[&[0xcb], &f64::NAN.to_be_bytes()[..]].concat()));
    assert_eq!(poison.kind, PoisonKind::Missing);
    assert!(poison.message.contains("non_finite"), "{}", poison.message);
}

#[test]
fn msgpack_values_without_a_json_twin_become_json_and_text() {
    for (value, json) in [
        (&[0xc4, 2, 0, 0xff][..], "\"AP8=\""),
        (&[0xd6, 0xff, 0, 0, 0, 1], "\"1970-01-01T00:00:01Z\""),
        (&[0x81, 0x05, 0xc3], "{\"5\":true}"),
        (&[0x81, 0xc4, 1, 0xff, 0xc2], "{\"/w==\":false}"),
        (&[0xca, 0x3d, 0xcc, 0xcc, 0xcd], "0.1"),
        (&[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "18446744073709551615"),
    ] {
        let mut decoder = plain(vec![column("v", Type::Jsonb)]);
        assert_eq!(row(&mut decoder, &packed(value)), [jsonb(json)]);
        let mut decoder = plain(vec![column("v", Type::Text)]);
        assert_eq!(row(&mut decoder, &packed(value)), [text(json.trim_matches('"'))]);
    }
    let array_key = packed(&[0x81, 0x90, 0x01]);
    assert_eq!(poison(&mut plain(vec![column("v", Type::Jsonb)]), &array_key).kind, PoisonKind::Type);
}

#[test]
fn a_malformed_timestamp_extension_is_malformed() {
    for value in [&[0xd5, 0xff, 0, 0][..], &[0xd7, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]] {
        let poison = poison(&mut plain(vec![column("v", Type::Timestamptz)]), &packed(value));
        assert_eq!(poison.kind, PoisonKind::Malformed);
    }
}

#[test]
fn fractions_of_a_unit_are_rounded_to_the_nearest_microsecond() {
    const UNIX: i64 = 946_684_800;
    let float = |value: f64| packed(&[&[0xcb], &value.to_be_bytes()[..]].concat());
    for (unit, payload, micros) in [
        ("s", float(946_684_800.000_002_4), 2),
        ("ms", float(946_684_800_000.001_6), 2),
        ("ns", json(&(UNIX * 1_000_000_000 + 1_499).to_string()), 1),
        ("ns", json(&(UNIX * 1_000_000_000 + 1_500).to_string()), 2),
        ("s", json("946684799.9999996"), 0),
        ("s", json("9466848e2"), 0),
        ("us", packed(&[0xd7, 0xff, 0, 0, 0x17, 0x70, 0x38, 0x6d, 0x43, 0x80]), 2),
    ] {
        let mut decoder = decoder(Type::Timestamptz, &format!("unit = '{unit}'"), "");
        assert_eq!(row(&mut decoder, &payload), [int8(micros)], "{unit}");
    }
}

/// Microseconds from 2000 of a moment that is written as RFC 3339.
fn micros(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_microsecond() - 946_684_800_000_000
}

#[test]
fn second_60_is_the_next_minutes_0_and_takes_no_fraction_as_in_postgresql() {
    for (ty, source, value, expected) in [
        (Type::Timestamptz, "", "2024-06-30T12:34:60Z", Some(micros("2024-06-30T12:35:00Z"))),
        (Type::Timestamptz, "", "2016-12-31t23:59:60.000z", Some(micros("2017-01-01T00:00:00Z"))),
        (Type::Timestamptz, "", "2016-12-31 23:59:60.0000004+02:00", Some(micros("2016-12-31T22:00:00Z"))),
        (Type::Timestamptz, "offset = '+02:00'", "2024-06-30T12:34:60", Some(micros("2024-06-30T10:35:00Z"))),
        (Type::Timestamptz, "", "2024-06-30T12:34:60.9Z", None),
        (Type::Timestamptz, "", "2024-06-30T12:34:60.0000005Z", None),
        (Type::Timestamptz, "", "1969-12-31T12:34:60.9Z", None),
        (Type::Timestamptz, "", "1960-06-30T12:34:60.0000001Z", Some(micros("1960-06-30T12:35:00Z"))),
        (Type::Timestamptz, "", "2024-06-30T12:34:59.6Z", Some(micros("2024-06-30T12:34:59.6Z"))),
        (Type::Timestamptz, "", "2024-06-30T12:34:00.60Z", Some(micros("2024-06-30T12:34:00.6Z"))),
        (Type::Timestamp, "", "20240630T123460", Some(micros("2024-06-30T12:35:00Z"))),
        (Type::Timestamp, "", "2024-06-30T12:34:60.5", None),
        (Type::Time, "", "12:34:60", Some(45_300_000_000)),
        (Type::Time, "", "23:59:60", Some(86_400_000_000)),
        (Type::Time, "", "12:34:60.9", None),
    ] {
        let mut decoder = decoder(ty.clone(), source, "");
        let payload = json(&format!("{value:?}"));
        match expected {
            Some(expected) => assert_eq!(row(&mut decoder, &payload), [int8(expected)], "{ty:?} {value}"),
            None => assert_eq!(poison(&mut decoder, &payload).kind, PoisonKind::Range, "{ty:?} {value}"),
        }
    }
    for (value, days) in [("2016-12-31T23:59:60Z", 6_210), ("2016-12-31T23:58:60Z", 6_209)] {
        let days = i32::to_be_bytes(days).to_vec();
        let mut decoder = decoder(Type::Date, "", "");
        assert_eq!(row(&mut decoder, &json(&format!("{value:?}"))), [Some(days)], "{value}");
    }
}

#[test]
fn a_date_is_the_day_that_the_moment_lies_in_however_close_the_next_one_is() {
    let float = |value: f64| packed(&[&[0xcb], &value.to_be_bytes()[..]].concat());
    // {"v": 1999-12-31T23:59:59.999999900Z}
    let extension = packed(&[0xd7, 0xff, 0xee, 0x6b, 0x26, 0x70, 0x38, 0x6d, 0x43, 0x7f]);
    for (source, payload, days) in [
        ("", json("\"1999-12-31T23:59:59.9999996Z\""), -1_i32),
        ("", json("\"1999-12-31T23:59:59.9999996\""), -1),
        ("", json("\"2000-01-01T00:00:00Z\""), 0),
        ("", extension, -1),
        ("unit = 'ns'", json("946684799999999999"), -1),
        ("unit = 'ns'", json("946684800000000000"), 0),
        ("unit = 's'", json("946684799.9999999"), -1),
        ("unit = 's'", json("\"946684799.99999999999\""), -1),
        ("unit = 's'", json("-0.0000000001"), -10_958),
        ("unit = 's'", json("946684800"), 0),
        ("unit = 'ms'", float(946_684_799_999.999_9), -1),
        ("unit = 'ms'", float(946_684_800_000.0), 0),
    ] {
        let expected = Some(days.to_be_bytes().to_vec());
        assert_eq!(row(&mut decoder(Type::Date, source, ""), &payload), [expected], "{source} {payload:?}");
    }
    for (source, value) in
        [("", "\"-005000-01-01\""), ("unit = 's'", "-999999999999"), ("unit = 's'", "1e15")]
    {
        assert_eq!(
            poison(&mut decoder(Type::Date, source, ""), &json(value)).kind,
            PoisonKind::Range,
            "{value}"
        );
    }
}

#[test]
fn an_infinite_time_is_named_in_any_case() {
    for (value, expected) in
        [("Infinity", true), ("INFINITY", true), ("-Infinity", false), ("infinity", true)]
    {
        let payload = json(&format!("{value:?}"));
        let time = [int8(if expected { i64::MAX } else { i64::MIN })];
        for ty in [Type::Timestamptz, Type::Timestamp] {
            assert_eq!(row(&mut decoder(ty, "", ""), &payload), time, "{value}");
        }
        let date = if expected { i32::MAX } else { i32::MIN }.to_be_bytes().to_vec();
        assert_eq!(row(&mut decoder(Type::Date, "", ""), &payload), [Some(date)], "{value}");
    }
}
