//! A mapping that cannot work is refused before anything is decoded.

use super::support::{column, mapped, msgpack, not_null, plain, row, table, try_decoder};
use crate::encode::types::Type;
use crate::postgres::introspect::{Column, ServerDefault};

/// The problem of a mapping that must be refused, and the column it names.
fn refused(mapping: &str, columns: Vec<Column>) -> (String, String) {
    let toml = format!("[[table]]\nname = \"t\"\n[table.columns]\n{mapping}\n");
    let error = try_decoder(&toml, &[table(columns)]).expect_err("this mapping must be refused");
    (error.column, error.problem)
}

#[test]
fn a_mapping_that_cannot_work_is_refused_with_its_column_and_a_remedy() {
    for (mapping, ty, column_name, says) in [
        ("camera = 'x'", Type::Text, "camera", "did you mean `camera_id`"),
        ("zzz = 'x'", Type::Text, "zzz", "remove it from the mapping"),
        ("camera_id = 'a..b'", Type::Text, "camera_id", "not a path"),
        ("camera_id = '$sequense'", Type::Text, "camera_id", "$sequence"),
        ("camera_id = '^a'", Type::Text, "camera_id", "for_each"),
        ("camera_id = '$sequence'", Type::Uuid, "camera_id", "uuid"),
        ("camera_id = '$timestamp'", Type::Int8, "camera_id", "whole numbers"),
        ("camera_id = '$payload'", Type::Int8, "camera_id", "jsonb"),
        ("camera_id = '$rest'", Type::Bytea, "camera_id", "jsonb"),
        ("camera_id = { unit = 'us' }", Type::Int8, "camera_id", "remove it"),
        ("camera_id = { constant = 'x' }", Type::Int8, "camera_id", "constant"),
        ("camera_id = { default = 40000 }", Type::Int2, "camera_id", "smallint holds"),
        ("camera_id = { constant = 1, from = 'x' }", Type::Int2, "camera_id", "cannot be combined"),
        ("camera_id = { default = 5 }", Type::Timestamptz, "camera_id", "unit"),
        ("camera_id = { round = 2 }", Type::Int8, "camera_id", "`round` is for columns of real"),
        ("camera_id = { round = 2 }", Type::Text, "camera_id", "remove it"),
        ("camera_id = { round_bits = 2 }", Type::Numeric, "camera_id", "`round_bits` is for columns of real"),
        ("camera_id = { offset = 'Z' }", Type::Timestamp, "camera_id", "timestamptz"),
        ("camera_id = { offset = '2h' }", Type::Timestamptz, "camera_id", "+02:00"),
        ("camera_id = '$element'", Type::Int8, "camera_id", "for_each"),
        ("camera_id = '$value'", Type::Int8, "camera_id", "unpivot"),
    ] {
        let (column, problem) = refused(mapping, vec![column("camera_id", ty)]);
        assert_eq!(column, column_name, "{mapping}");
        assert!(problem.contains(says), "{mapping}: {problem}");
    }
}

#[test]
fn a_column_that_the_server_computes_is_left_to_it_unless_it_is_named() {
    let columns = || {
        vec![
            Column { default: ServerDefault::Computed, ..not_null("id", Type::Int8) },
            column("a", Type::Int8),
            Column { default: ServerDefault::Computed, ..column("inserted_at", Type::Timestamptz) },
        ]
    };
    assert_eq!(plain(columns()).columns(0), ["a"]);
    assert_eq!(mapped("id = 'id'", columns()).columns(0), ["id", "a"]);
}

#[test]
fn a_constant_default_of_the_server_stands_in_for_an_absent_field() {
    let default = ServerDefault::Constant([&4_i32.to_be_bytes()[..], &7_i32.to_be_bytes()].concat().into());
    let columns = || vec![Column { default: default.clone(), ..not_null("a", Type::Int4) }];
    assert_eq!(plain(columns()).columns(0), ["a"]);
    for (payload, value) in [("{}", 7), (r#"{"a": 1}"#, 1), (r#"{"a": null}"#, 7)] {
        let fields = row(&mut plain(columns()), &msgpack(payload));
        assert_eq!(fields, [Some(i32::to_be_bytes(value).to_vec())], "{payload}");
    }
}

#[test]
fn a_table_without_a_column_to_fill_is_refused() {
    let columns = vec![Column { default: ServerDefault::Computed, ..column("id", Type::Int8) }];
    let error = try_decoder("[[table]]\nname = \"t\"\n", &[table(columns)]).unwrap_err();
    assert!(error.problem.contains("no column"), "{error}");
}

#[test]
fn a_table_that_cannot_be_filled_so_is_refused_with_a_remedy() {
    for (lines, says) in [
        ("when = { field = 'a..b' }", "when: `a..b` is not a path"),
        ("when = { field = 'a', equals = 1.5 }", "fractions cannot be compared"),
        ("when = { field = 'a', equals = [] }", "must be text, a whole number"),
        ("unpivot = { rest = true }", "no column takes its `$value`"),
        ("unpivot = { map = 'a..' }", "unpivot: `a..` is not a path"),
        ("on_conflict = 'update'\nkey = ['a']\nnewer_by = 'bb'", "newer_by: bb is not a column"),
    ] {
        let toml = format!("[[table]]\nname = 't'\n{lines}\n");
        let tables = [table(vec![column("a", Type::Int8), column("b", Type::Text)])];
        let error = try_decoder(&toml, &tables).expect_err(lines);
        assert_eq!(error.column, "*");
        assert!(error.problem.contains(says), "{lines}: {}", error.problem);
    }
}

#[test]
fn a_table_with_on_conflict_has_one_entry() {
    let table = || table(vec![column("a", Type::Int8)]);
    let two = |lines: &str| format!("[[table]]\nname = 't'\n{lines}\n[[table]]\nname = 'public.t'\n");
    let error = try_decoder(&two("on_conflict = 'ignore'"), &[table(), table()]).unwrap_err();
    assert!(error.problem.contains("merge them"), "{}", error.problem);
    assert!(try_decoder(&two(""), &[table(), table()]).is_ok());
}
