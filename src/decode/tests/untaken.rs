//! What of a message goes nowhere is counted, or the message is poison.

use super::support::{column, message, msgpack, not_null, row, rows_of, table, text, try_decoder};
use crate::decode::Decoder;
use crate::encode::types::Type;
use crate::poison::PoisonKind;
use crate::postgres::introspect::Table;

fn both(json: &str) -> [Vec<u8>; 2] {
    [json.as_bytes().to_vec(), msgpack(json)]
}

fn decoder(toml: &str, columns: &[&[(&str, Type)]]) -> Decoder {
    let table = |columns: &&[(&str, Type)]| -> Table {
        table(columns.iter().map(|(name, ty)| column(name, ty.clone())).collect())
    };
    try_decoder(toml, &columns.iter().map(table).collect::<Vec<_>>()).unwrap()
}

/// The fields that nobody took so far, in alphabetical order, and how many had no name.
fn told(decoder: &mut Decoder) -> (Vec<(String, u64)>, u64) {
    let mut tally = decoder.tell();
    tally.fields.sort();
    (tally.fields, tally.others)
}

fn fields(expected: &[(&str, u64)]) -> (Vec<(String, u64)>, u64) {
    (expected.iter().map(|(name, times)| ((*name).to_owned(), *times)).collect(), 0)
}

const A: (&str, Type) = ("a", Type::Int8);

#[test]
fn fields_that_no_column_takes_are_counted_by_their_paths() {
    let toml = "[[table]]\nname = 't'\ncolumns.b = 'in.b'\ncolumns.c = 'list[0].k'\n\
                [[table]]\nname = 'u'\nfor_each = 'parts'\ncolumns.b = 'in.b'\n";
    let json = r#"{"a":1,"x":2,"in":{"c":1,"b":1,"d":{"e":1}},"list":[{"k":1,"z":2},{"y":3}],
        "parts":[{"a":1,"z":2},{"z":3,"in":{"b":1,"q":1}},{"a":1}],"y":null}"#;
    for payload in both(json) {
        let mut decoder =
            decoder(toml, &[&[A, ("b", Type::Int8), ("c", Type::Int8)], &[A, ("b", Type::Int8)]]);
        for times in 1..=3 {
            rows_of(&mut decoder, &message(&payload)).unwrap();
            if times == 2 {
                decoder.tell();
            }
        }
        let expected = [
            ("in.c", 1),
            ("in.d", 1),
            ("list[0].z", 1),
            ("parts[].in.q", 1),
            ("parts[].z", 2),
            ("x", 1),
            ("y", 1),
        ];
        assert_eq!(told(&mut decoder), fields(&expected));
        assert_eq!(told(&mut decoder), fields(&[]), "each is told once");
    }
}

#[test]
fn rest_and_whole_copies_leave_nothing_untaken() {
    let json = r#"{"a":1,"x":2,"in":{"c":1},"parts":[{"a":1,"z":2,"in":{"q":1}}]}"#;
    for (t, u) in [
        ("columns.j = '$rest'", "columns.j = '$rest'"),
        ("columns.j = '$payload'", ""),
        ("columns.j = '$rest'\ncolumns.k = 'parts'", ""),
        ("", "columns.j = '$payload'"),
        ("columns.j = '$rest'", "columns.j = '^parts'"),
        ("columns.j = '$name'\ncolumns.k = '$value'\nunpivot = { rest = true }", "columns.j = '$rest'"),
    ] {
        let toml = format!("[[table]]\nname = 't'\n{t}\n[[table]]\nname = 'u'\nfor_each = 'parts'\n{u}\n");
        for payload in both(json) {
            let columns = [A, ("j", Type::Json), ("k", Type::Json)];
            let mut decoder = decoder(&toml, &[&columns, &columns[..2]]);
            rows_of(&mut decoder, &message(&payload)).unwrap();
            assert_eq!(told(&mut decoder), fields(&[]), "{t} {u}");
        }
    }
    // What is left of a map that a column goes into is part of the rest, and not of one that is unpivoted.
    let json = br#"{"in":{"a":1,"b":2},"c":3}"#;
    let rest = "[[table]]\nname = 't'\ncolumns.a = 'in.a'\ncolumns.j = '$rest'\n";
    let mut whole = decoder(rest, &[&[A, ("j", Type::Json)]]);
    assert_eq!(row(&mut whole, json)[1], text(r#"{"in":{"b":2},"c":3}"#));
    assert_eq!(told(&mut whole), fields(&[]));
    let unpivoted =
        "[[table]]\nname = 't'\ncolumns.a = 'in.a'\ncolumns.j = '$value'\nunpivot = { rest = true }\n";
    let mut unpivoted = decoder(unpivoted, &[&[A, ("j", Type::Json)]]);
    assert_eq!(row(&mut unpivoted, json)[1], text("3"));
    assert_eq!(told(&mut unpivoted), fields(&[("in.b", 1)]));
}

#[test]
fn tables_of_one_array_take_its_fields_together() {
    let toml = "[[table]]\nname = 't'\nfor_each = 'parts'\n[[table]]\nname = 'u'\nfor_each = 'parts'\n\
                columns.b = 'in.b'\ncolumns.c = 'in.c.d'\n";
    let mut decoder = decoder(toml, &[&[A, ("in", Type::Json)], &[("b", Type::Int8), ("c", Type::Int8)]]);
    for payload in both(r#"{"parts":[{"a":1,"b":1,"in":{"b":1,"e":1,"c":{"f":1}}},{"b":2}]}"#) {
        rows_of(&mut decoder, &message(&payload)).unwrap();
        assert_eq!(told(&mut decoder), fields(&[("parts[].b", 2)]), "`in` is taken whole");
    }
}

/// One table for each kind of message, of which the first takes the rest too if `rest`.
fn kinds(rest: &str) -> Decoder {
    let toml = format!(
        "on_unmatched = 'skip'\n[[table]]\nname = 't'\nwhen = {{ field = 'kind', equals = 't' }}\n{rest}\n\
         [[table]]\nname = 'u'\nwhen = {{ field = 'kind', equals = 'u' }}\ncolumns.b = 'in.b'\n\
         [[table]]\nname = 'v'\nwhen = {{ field = 'kind', equals = 'v' }}\nfor_each = 'parts'\n"
    );
    let columns: [&[(&str, Type)]; 3] =
        [&[A, ("j", Type::Jsonb)], &[("b", Type::Int8)], &[("a", Type::Int8)]];
    decoder(&toml, &columns)
}

#[test]
fn a_field_is_untaken_where_the_tables_that_take_the_message_do_not_take_it() {
    for kind in ["t", "u", "v", "w"] {
        let json =
            format!(r#"{{"kind":"{kind}","a":1,"in":{{"b":1,"c":1}},"x":1,"parts":[{{"a":1}},{{"z":1}}]}}"#);
        for payload in both(&json) {
            let mut decoder = kinds("");
            rows_of(&mut decoder, &message(&payload)).unwrap();
            let expected: &[(&str, u64)] = match kind {
                "t" => &[("in", 1), ("parts", 1), ("x", 1)],
                "u" => &[("a", 1), ("in.c", 1), ("parts", 1), ("x", 1)],
                "v" => &[("a", 1), ("in", 1), ("parts[].z", 1), ("x", 1)],
                _ => &[],
            };
            assert_eq!(told(&mut decoder), fields(expected), "{kind}");
        }
    }
}

#[test]
fn the_rest_holds_an_array_that_no_table_that_takes_the_message_makes_rows_of() {
    let parts = r#"{"kind":"t","a":1,"in":{"b":1},"parts":[1]}"#;
    for payload in both(parts) {
        let mut decoder = kinds("columns.j = '$rest'");
        let rows = rows_of(&mut decoder, &message(&payload)).unwrap();
        let rest = String::from_utf8(rows[0][0][1].clone().unwrap()).unwrap();
        assert!(rest.contains(r#""parts":[1]"#) && rest.contains(r#""in":{"b":1}"#), "{rest}");
        assert_eq!(told(&mut decoder), fields(&[]));
    }
    let mut decoder = kinds("columns.j = '$rest'");
    rows_of(&mut decoder, &message(br#"{"kind":"u","in":{"b":1},"y":1}"#)).unwrap();
    assert_eq!(told(&mut decoder), fields(&[("y", 1)]), "the other table's rest does not take it");
}

#[test]
fn a_dead_letter_counts_nothing_and_the_next_message_does() {
    let toml = "[[table]]\nname = 't'\n[[table]]\nname = 'u'\nfor_each = 'parts'\n";
    let tables = [table(vec![not_null("a", Type::Int8)]), table(vec![not_null("b", Type::Int8)])];
    let mut decoder = try_decoder(toml, &tables).unwrap();
    for bad in [r#"{"x":1}"#, r#"{"x":1,"a":1,"parts":[{"b":1,"y":1},{"y":1}]}"#] {
        rows_of(&mut decoder, &message(bad.as_bytes())).unwrap_err();
    }
    rows_of(&mut decoder, &message(b"{\"x\":1,")).unwrap_err();
    assert_eq!(told(&mut decoder), fields(&[]));
    rows_of(&mut decoder, &message(br#"{"x":1,"a":1,"parts":[{"b":1,"y":1}]}"#)).unwrap();
    assert_eq!(told(&mut decoder), fields(&[("parts[].y", 1), ("x", 1)]));
}

#[test]
fn names_are_bounded_and_what_has_none_is_counted_all_the_same() {
    let mut decoder = decoder("[[table]]\nname = 't'\n", &[&[A]]);
    let many = |from: usize, to: usize| {
        let fields: Vec<_> = (from..to).map(|number| format!("\"f{number}\":1")).collect();
        format!("{{\"a\":1,{}}}", fields.join(","))
    };
    rows_of(&mut decoder, &message(many(0, 100).as_bytes())).unwrap();
    let (names, others) = told(&mut decoder);
    assert_eq!((names.len(), others), (64, 36));
    // Those that come no more make room for others.
    for _ in 0..2 {
        rows_of(&mut decoder, &message(many(90, 110).as_bytes())).unwrap();
        let (names, others) = told(&mut decoder);
        assert_eq!(names.len() as u64 + others, 20);
    }
    rows_of(&mut decoder, &message(many(90, 110).as_bytes())).unwrap();
    assert_eq!(told(&mut decoder).0.len(), 20);
    let long = format!("{{\"{}\":1,\"\\u0078\":1,\"\\ud800\":1}}", "k".repeat(1_000));
    rows_of(&mut decoder, &message(long.as_bytes())).unwrap();
    assert_eq!(told(&mut decoder), (vec![("x".to_owned(), 1)], 2));
    // {7: 1, nil: 1, "a": 1, 0xff as text: 1}
    rows_of(&mut decoder, &message(b"\x84\x07\x01\xc0\x01\xa1a\x01\xa1\xff\x01")).unwrap();
    assert_eq!(told(&mut decoder), (vec![], 3));
}

#[test]
fn every_order_of_keys_counts_the_same() {
    let mut decoder = decoder("[[table]]\nname = 't'\n", &[&[A, ("b", Type::Int8)]]);
    for json in [
        r#"{"a":1,"x":1,"b":1,"y":1}"#,
        r#"{"y":1,"b":1,"x":1,"a":1}"#,
        r#"{"x":1,"a":1,"b":1,"y":1,"x":2}"#,
        r#"{"b":1,"y":1}"#,
    ] {
        rows_of(&mut decoder, &message(json.as_bytes())).unwrap();
    }
    assert_eq!(told(&mut decoder), fields(&[("x", 4), ("y", 4)]));
}

#[test]
fn tables_and_columns_that_get_nothing_are_told() {
    let toml = "[[table]]\nname = 't'\ncolumns.b = { from = 'in.b', default = 7 }\ncolumns.c = { constant = \
                1 }\ncolumns.d = '$header.X'\n[[table]]\nname = 'u'\nfor_each = 'reading'\n[[table]]\nname = \
                'v'\nwhen.field = 'v'\n";
    let int = |name| (name, Type::Int8);
    let mut decoder = decoder(toml, &[&[A, int("b"), int("c"), ("d", Type::Text)], &[A], &[A]]);
    for json in [r#"{"readings":[{"a":1}]}"#, r#"{"a":null,"v":null}"#] {
        rows_of(&mut decoder, &message(json.as_bytes())).unwrap();
    }
    let tally = decoder.tell();
    let counts: Vec<_> = tally.tables.iter().map(|table| (table.taken, table.found)).collect();
    assert_eq!((tally.messages, counts), (2, vec![(2, 2), (2, 0), (0, 0)]));
    let unfilled = |tally: &crate::decode::TableTally| -> Option<Vec<String>> {
        let columns = tally.columns.as_ref()?;
        Some(columns.iter().filter(|column| !column.filled).map(|column| column.source.clone()).collect())
    };
    assert_eq!(unfilled(&tally.tables[0]).unwrap(), ["a", "in.b", "$header.X"]);
    rows_of(&mut decoder, &message(br#"{"a":1,"v":1}"#)).unwrap();
    let tally = decoder.tell();
    assert_eq!(
        (tally.tables[2].taken, unfilled(&tally.tables[0]).unwrap()),
        (1, vec!["in.b".into(), "$header.X".into()])
    );
    rows_of(&mut decoder, &message(br#"{"a":1}"#)).unwrap();
    assert_eq!(unfilled(&decoder.tell().tables[0]), None, "what has not changed is not told again");
}

#[test]
fn a_value_that_a_path_goes_into_and_cannot_is_poison() {
    let columns = [A, ("j", Type::Jsonb)];
    for (toml, bad, good) in [
        ("for_each = 'frames.parts'", r#"{"frames":[{"parts":[{"a":1}]}]}"#, r#"{"frames":{"parts":[]}}"#),
        ("columns.a = 'in.a'", r#"{"in":"text"}"#, r#"{"in":null}"#),
        ("columns.a = 'in.a'", r#"{"in":[{"a":1}]}"#, r#"{"in":{}}"#),
        ("columns.a = 'box[0]'", r#"{"box":{"x":1}}"#, r#"{"box":[]}"#),
        ("columns.a = 'box[0]'", r#"{"box":7}"#, r#"{"box":[1,2]}"#),
        ("columns.a = 'box[0][1]'", r#"{"box":[7]}"#, r#"{"box":[null]}"#),
        ("for_each = 'p'\ncolumns.a = '^in.a'", r#"{"p":[],"in":true}"#, r#"{"p":[{}],"in":{"a":1}}"#),
        ("for_each = 'p'\ncolumns.a = 'in.a'", r#"{"p":[{"in":true}]}"#, r#"{"p":[{"in":{"a":1}}]}"#),
        ("for_each = 'p'", r#"{"p":[[1]]}"#, r#"{"p":[{}]}"#),
        ("unpivot.fields = ['in.a']\ncolumns.j = '$value'", r#"{"in":1}"#, "{}"),
    ] {
        let mut decoder = decoder(&format!("[[table]]\nname = 't'\n{toml}"), &[&columns]);
        for (bad, good) in both(bad).iter().zip(both(good)) {
            let poison = rows_of(&mut decoder, &message(bad)).expect_err(toml);
            assert_eq!((poison.kind, poison.table.as_deref()), (PoisonKind::Type, Some("t")), "{poison:?}");
            assert!(poison.message.contains("the mapping reads inside `"), "{}", poison.message);
            rows_of(&mut decoder, &message(&good)).expect(toml);
        }
    }
    // Who takes it whole as well expects it to be anything.
    for (toml, json) in [
        ("columns.a = 'in.a'\ncolumns.j = 'in'", r#"{"in":"text"}"#),
        ("columns.a = 'in[0]'\ncolumns.j = 'in.x'", r#"{"in":{"x":1}}"#),
        ("when.field = 'in.a'", r#"{"in":"text"}"#),
    ] {
        let mut decoder =
            decoder(&format!("on_unmatched = 'skip'\n[[table]]\nname = 't'\n{toml}"), &[&columns]);
        rows_of(&mut decoder, &message(json.as_bytes())).expect(toml);
    }
    // It is nothing to a table that does not take the message.
    let mut decoder = kinds("");
    rows_of(&mut decoder, &message(br#"{"kind":"t","in":7}"#)).unwrap();
    rows_of(&mut decoder, &message(br#"{"kind":"u","in":7}"#)).unwrap_err();
    assert_eq!(told(&mut decoder), fields(&[("in", 1)]));
}
