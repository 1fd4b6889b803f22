//! What is wrong with the entry of a table.

use super::{LEAST, load, refuses, said};

#[test]
fn settings_of_a_table_without_effect_are_refused() {
    let table = |lines: &str| said(load(&format!("{LEAST}{lines}"))).remove(0);
    let at = |key: &str, text: &str| format!("file:7: pipeline[0].table[0].{key}: {text}");
    assert_eq!(
        table("bad_element = \"element\""),
        at("bad_element", "has no effect without for_each: a message has one row here")
    );
    assert_eq!(table("when = {}"), at("when", "needs a `subject`, a `field`, or both"));
    assert_eq!(
        table("when.subject = \"a..b\""),
        at("when.subject", "`a..b` is not a subject; it looks like `series.*.points`")
    );
    assert_eq!(
        table("when = { subject = \"a\", equals = 1 }"),
        at("when.equals", "says what the `field` must be: name one")
    );
    for unpivot in ["{}", "{ rest = true, map = \"a\" }", "{ rest = false }"] {
        assert_eq!(
            table(&format!("unpivot = {unpivot}")),
            at("unpivot", "takes one of `fields = [\"a\"]`, `map = \"a\"` and `rest = true`")
        );
    }
    assert_eq!(table("newer_by = \"a\""), at("newer_by", "has no effect without on_conflict = \"update\""));
    let key = "newer_by = \"a\"\non_conflict = \"update\"\nkey = [\"a\"]";
    assert_eq!(table(key), at("newer_by", "is part of the key, in which the rows it compares are equal"));
    refuses(
        "on_unmatched = \"skip\"",
        "file:5: pipeline[0].on_unmatched: has no effect: table frame_metadata has no `when` and takes every message",
    );
}

#[test]
fn contradictory_sources_are_refused() {
    let column = |source: &str| said(load(&format!("{LEAST}columns.a = {source}")));
    assert_eq!(
        column("{ constant = 1, from = \"b\" }"),
        ["file:7: pipeline[0].table[0].columns.a: a constant takes no from, unit, offset or default"]
    );
    assert_eq!(column("\"\""), ["file:7: pipeline[0].table[0].columns.a: the path is empty"]);
}
