//! Rows and letters of messages as publishers send them.

use bytes::Bytes;

use super::report::Counts;
use super::*;
use crate::encode::printed;
use crate::encode::types::Type;
use crate::message::Message;
use crate::postgres::introspect::{self, ServerDefault, Table};
use crate::unreadable::Single;

fn pipeline(toml: &str) -> config::Pipeline {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};
    Figment::from(Toml::string(&format!("name = \"p\"\nstream = \"S\"\n{toml}"))).extract().unwrap()
}

fn table(name: &str, columns: &[(&str, Type, bool)]) -> Table {
    let column = |(name, ty, not_null): &(&str, Type, bool)| introspect::Column {
        name: (*name).to_owned(),
        ty: ty.clone(),
        type_name: format!("{ty:?}").to_lowercase(),
        not_null: *not_null,
        default: ServerDefault::None,
    };
    let columns = columns.iter().map(column).collect();
    Table { qualified: format!("public.{name}"), columns, ..Table::default() }
}

fn single(sequence: u64, payload: &[u8]) -> Single {
    let (subject, payload) = ("sensors.north".into(), Bytes::copy_from_slice(payload));
    Single {
        message: Message { sequence, timestamp_ns: 0, subject, payload, headers: None },
        unreadable: None,
    }
}

const MAPPING: &str = "[[table]]\nname = 'readings'\n[table.columns]\nsite = '$subject[1]'\n\
    temp = 'env.temperatur'\n[[table]]\nname = 'parts'\nfor_each = 'part'\nbad_element = 'element'\n\
    [table.columns]\nid = '^id'\n[[table]]\nname = 'alarms'\nwhen = { field = 'alarm' }\n";

fn tables() -> Vec<Table> {
    vec![
        table(
            "readings",
            &[("id", Type::Int8, true), ("site", Type::Text, true), ("temp", Type::Float8, false)],
        ),
        table("parts", &[("id", Type::Int8, true), ("n", Type::Int2, true)]),
        table("alarms", &[("alarm", Type::Text, false)]),
    ]
}

#[test]
fn rows_letters_and_what_nobody_takes_are_told_of_nested_json_and_messagepack() {
    let pipeline = pipeline(MAPPING);
    let mut preview = Preview::new(&pipeline, tables()).unwrap();
    let json = br#"{"id": 1, "env": {"temperature": 21.5}, "parts": [{"n": 1}]}"#;
    let packed = rmp_serde::to_vec_named(&serde_json::json!({"id": 2, "env": {"temperature": 20}})).unwrap();
    let mut counts = Counts::new(&pipeline);
    let mut made = Vec::new();
    for (sequence, payload) in (1..).zip([&json[..], &packed, br#"{"ids": 3}"#, b"{\"id\":"]) {
        let found = preview.make(&single(sequence, payload));
        counts.add(&found);
        made.push(found);
    }
    let columns = preview.columns(0);
    let text = |field: usize| {
        printed::text(columns[field].ty, made[0].rows[0].fields[field].as_deref().unwrap_or_default())
    };
    assert_eq!((text(0), text(1)), ("1".to_owned(), "north".to_owned()));
    assert_eq!((columns[2].source, made[0].rows[0].fields[2].as_deref()), ("env.temperatur", None));
    let letters: Vec<_> = made.iter().flat_map(|made| &made.letters).map(|letter| letter.kind).collect();
    assert_eq!(letters, ["missing", "malformed"]);
    let cure = made[2].letters[0].cure.as_deref();
    assert_eq!(cure, Some("did you mean `ids`, which the message has? id = \"ids\""));

    let report = counts.report(&preview);
    let counted = report.counted;
    assert_eq!((counted.messages, counted.rows, counted.dead_letters), (4, 2, 2));
    let absent = &report.absent[0];
    assert_eq!((absent.column.as_str(), absent.messages, absent.of), ("temp", 2, 2));
    assert_eq!(absent.meant.as_deref(), Some("env.temperature"));
    let field = &report.untaken[0];
    assert_eq!(
        (field.field.as_str(), field.messages, field.example.as_deref()),
        ("env.temperature", 2, Some("21.5"))
    );
    let never: Vec<_> =
        report.never_matched.iter().map(|never| (never.table.as_str(), never.meant.as_deref())).collect();
    assert_eq!(never, [("parts", Some("parts")), ("alarms", None)]);
}

#[test]
fn an_element_that_is_refused_has_a_letter_and_the_others_have_rows() {
    let pipeline = pipeline(&MAPPING.replace("'part'", "'parts'"));
    let mut preview = Preview::new(&pipeline, tables()).unwrap();
    let made = preview.make(&single(1, br#"{"id": 1, "parts": [{"n": 1}, {"n": "x"}, {"n": 70000}]}"#));
    let rows: Vec<_> = made.rows.iter().map(|row| (row.table, row.element)).collect();
    assert_eq!(rows, [(0, None), (1, Some(0))]);
    let letters: Vec<_> = made.letters.iter().map(|letter| (letter.kind, letter.element)).collect();
    assert_eq!(letters, [("type", Some(1)), ("range", Some(2))]);
}

#[test]
fn a_column_that_only_some_messages_lack_is_counted_in_those() {
    let pipeline = pipeline(&MAPPING.replace("temperatur'", "temperature'"));
    let mut preview = Preview::new(&pipeline, tables()).unwrap();
    let mut counts = Counts::new(&pipeline);
    for payload in
        [&br#"{"id": 1, "env": {"temperature": 1}}"#[..], br#"{"id": 2}"#, br#"{"id": 3, "env": null}"#]
    {
        counts.add(&preview.make(&single(1, payload)));
    }
    let report = counts.report(&preview);
    assert_eq!((report.absent[0].messages, report.absent[0].of), (2, 3));
    assert!(report.untaken.is_empty(), "{:?}", report.untaken);
}
