//! What is wrong with the entry of a table.

use super::{LEAST, load, refuses, said};

#[test]
fn settings_of_a_table_without_effect_are_refused() {
    let table = |lines: &str| said(load(&format!("{LEAST}{lines}"))).remove(0);
    let at = |key: &str, text: &str| format!("file:7: pipeline[0].table[0].{key}: {text}");
    assert_eq!(
        table("bad_element = \"element\""),
        at("bad_element", "has no effect without for_each: each message is one row here")
    );
    assert_eq!(table("when = {}"), at("when", "needs a `subject`, `headers` or a `field`"));
    assert_eq!(
        table("when.subject = \"a..b\""),
        at("when.subject", "`a..b` is not a subject, such as `series.*.points`")
    );
    assert_eq!(
        table("when = { subject = \"a\", equals = 1 }"),
        at("when.equals", "is the value of `field`, which is missing")
    );
    assert_eq!(
        table("when.headers = { \"a b\" = true }"),
        at("when.headers.a b", "is not a header name, such as `Nats-Marker-Reason`")
    );
    for headers in ["{ X = [] }", "{ X = 1 }"] {
        let said = table(&format!("when.headers = {headers}"));
        assert!(said.contains("true (present) or false (absent)"), "{said}");
    }
    for unpivot in ["{}", "{ rest = true, map = \"a\" }", "{ rest = false }"] {
        assert_eq!(
            table(&format!("unpivot = {unpivot}")),
            at("unpivot", "must be one of `fields = [\"a\"]`, `map = \"a\"` and `rest = true`")
        );
    }
    assert_eq!(table("newer_by = \"a\""), at("newer_by", "has no effect without on_conflict = \"update\""));
    let key = "newer_by = \"a\"\non_conflict = \"update\"\nkey = [\"a\"]";
    assert_eq!(table(key), at("newer_by", "is part of the key, which is equal in the rows to compare"));
    assert_eq!(table("absent = \"keep\""), at("absent", "has no effect without on_conflict = \"update\""));
    let newer = "newer_by = \"b\"\non_conflict = \"update\"\nkey = [\"a\"]\nabsent = \"keep\"";
    assert!(said(load(&format!("{LEAST}{newer}")))[0].contains("absent: cannot be combined with newer_by"));
    refuses(
        "on_unmatched = \"skip\"",
        "file:5: pipeline[0].on_unmatched: has no effect: table frame_metadata has no `when` and accepts \
         every message",
    );
}

#[test]
fn contradictory_sources_are_refused() {
    let column = |source: &str| said(load(&format!("{LEAST}columns.a = {source}")));
    assert_eq!(
        column("{ constant = 1, from = \"b\" }"),
        ["file:7: pipeline[0].table[0].columns.a: a constant cannot have other settings"]
    );
    assert_eq!(
        column("{ round = 2, round_bits = 7 }"),
        ["file:7: pipeline[0].table[0].columns.a: a number is rounded once: use `round` or `round_bits`"]
    );
    for (setting, most) in [("round", 15), ("round_bits", 52)] {
        let at = format!("file:7: pipeline[0].table[0].columns.a.{setting}");
        let said = format!("{at}: must be at most {most}: a float has no more digits");
        assert_eq!(column(&format!("{{ {setting} = {} }}", most + 1)), [said]);
    }
    assert_eq!(
        column("{ skip = true, default = 1 }"),
        ["file:7: pipeline[0].table[0].columns.a: a skipped column cannot have other settings"]
    );
    let key = "on_conflict = \"update\"\nkey = [\"a\"]\ncolumns.a = { skip = true }";
    assert!(said(load(&format!("{LEAST}{key}")))[0].contains("is part of the key"));
    assert_eq!(column("\"\""), ["file:7: pipeline[0].table[0].columns.a: the path is empty"]);
}

/// What is said of a table with these lines, of which the file's first is its seventh.
fn wrong(lines: &str) -> Vec<String> {
    said(load(&format!("{LEAST}{lines}")))
}

#[test]
fn a_path_that_leads_nowhere_whatever_the_message_is_refused_where_it_stands() {
    for (lines, key) in [
        ("for_each = \"$rest\"", "for_each"),
        ("for_each = \"$payload\"", "for_each"),
        ("for_each = \"^a\"", "for_each"),
        ("when.field = \"$subject\"", "when.field"),
        ("unpivot.map = \"$rest\"", "unpivot.map"),
        ("unpivot.fields = [\"$sequence\"]", "unpivot.fields"),
    ] {
        let said = wrong(lines).remove(0);
        assert!(said.starts_with(&format!("file:7: pipeline[0].table[0].{key}: `")), "{said}");
        assert!(said.contains("is not a field of the message: name one"), "{said}");
    }
    for (lines, key) in [
        ("for_each = \"[0]\"", "for_each"),
        ("when.field = \"[1].a\"", "when.field"),
        ("columns.a = \"[0]\"", "columns.a"),
        ("for_each = \"a\"\ncolumns.b = \"^[0]\"", "columns.b"),
    ] {
        let said = wrong(lines).remove(0);
        assert!(said.contains(&format!("table[0].{key}: `")), "{said}");
        assert!(said.ends_with("starts with an index, but a message is a map: name a field first"), "{said}");
    }
    assert!(wrong("for_each = \"a..b\"").remove(0).contains("is not a path"));
    assert!(wrong("columns.a = \"$sequense\"").remove(0).contains("$sequence"));
    load(&format!("{LEAST}for_each = '\"$rest\"'\ncolumns.a = \"[0]\"")).unwrap();
}

#[test]
fn a_path_into_an_array_that_rows_are_made_of_is_refused() {
    let second = "\n[[pipeline.table]]\nname = \"b\"\n";
    for lines in
        ["for_each = \"frames.detections\"", "columns.a = \"frames.detections\"", "when.field = \"frames.x\""]
    {
        let said = wrong(&format!("for_each = \"frames\"{second}{lines}"));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("file:10: pipeline[0].table[1]."), "{said:?}");
        assert!(said[0].contains("makes rows from it, with for_each = \"frames\""), "{said:?}");
    }
    // An index leads into it, and messages of another kind may hold a map there.
    for (first, lines) in [
        ("", "columns.a = \"frames[0].x\""),
        ("", "for_each = \"frames\"\ncolumns.a = \"frames.x\""),
        ("\nwhen.subject = \"a\"", "columns.a = \"frames.x\""),
    ] {
        load(&format!("{LEAST}for_each = \"frames\"{first}{second}{lines}")).unwrap();
    }
}

#[test]
fn a_message_that_is_an_array_has_no_fields_of_its_own() {
    let array = format!("{LEAST}for_each = \"$\"\n");
    load(&array).unwrap();
    for lines in ["columns.a = \"^b\"\n", "[[pipeline.table]]\nname = \"u\"\ncolumns.a = \"b\"\n"] {
        let said = said(load(&format!("{array}{lines}")));
        assert!(
            said[0].contains("`b` is a field of the message") || said[0].ends_with("remove a ^"),
            "{said:?}"
        );
    }
    let apart = "when.subject = \"many\"\n[[pipeline.table]]\nname = \"u\"\nwhen.subject = \"one\"\n\
                 columns.a = \"b\"\n";
    load(&format!("{array}{apart}")).unwrap();
    // Of each element, which may be an array.
    load(&format!("{array}when = {{ field = \"[0].b\" }}\n")).unwrap();
    for format in ["ndjson", "influx"] {
        let file =
            |table: &str| LEAST.replace("[[pipeline.table]]", &format!("format = \"{format}\"\n{table}"));
        load(&file("[[pipeline.table]]\nfor_each = \"$\"")).unwrap();
        let said = said(load(&file("[[pipeline.table]]")));
        assert!(said[0].contains("for_each: in this format a message is a list"), "{said:?}");
    }
}

#[test]
fn what_goes_into_a_message_is_refused_where_a_message_is_one_value() {
    let file = LEAST.replace("[[pipeline.table]]", "format = \"raw\"\n[[pipeline.table]]");
    for (line, key) in [
        ("for_each = \"a\"", "for_each"),
        ("unpivot = { rest = true }", "unpivot"),
        ("when = { field = \"a\" }", "when.field"),
    ] {
        let problems = said(load(&format!("{file}{line}")));
        let at = format!("file:8: pipeline[0].table[0].{key}: with format = \"raw\" a message is one value");
        assert!(problems.len() == 1 && problems[0].starts_with(&at), "{problems:?}");
    }
}

#[test]
fn functions_that_contradict_each_other_are_refused() {
    for (functions, key, text) in [
        ("lower = true, upper = true", "", "a text is in one case: use `lower` or `upper`"),
        ("truncate = 0", "", "a text of no characters says nothing: keep one at least"),
        ("substring = [1, 0]", "", "a text of no characters says nothing: keep one at least"),
        ("scale = 0", ".scale", "must be a number other than 0"),
        ("offset = inf", ".offset", "must be a number"),
        ("from = []", ".from", "names no source: name one, or remove it"),
        ("from = [\"b\", \"c\", \"b\"]", ".from", "names `b` twice"),
        ("map = {}", ".map", "has no entry, so it refuses all values: add some, or remove it"),
        (
            "map = { a = 1 }, scale = 2",
            "",
            "`map` says what the column holds, so `scale` has no effect: remove one",
        ),
    ] {
        let expected = format!("file:7: pipeline[0].table[0].columns.a{key}: {text}");
        assert_eq!(wrong(&format!("columns.a = {{ {functions} }}")), [expected], "{functions}");
    }
    for (functions, text) in [
        ("offset = true", "expected a number, or for times an offset such as \"+02:00\""),
        ("from = 1", "expected a path such as \"a.b[0]\", or an array of them"),
        ("empty = \"nul\"", "did you mean `null`?"),
    ] {
        let said = wrong(&format!("columns.a = {{ {functions} }}"));
        assert!(said.len() == 1 && said[0].contains(text), "{functions}: {said:?}");
    }
    assert_eq!(
        wrong("columns.a = { from = [\"b\", \"\"] }"),
        ["file:7: pipeline[0].table[0].columns.a: the path is empty"]
    );
}
