//! The parts of messages that end up in no column, as text.

use serde_json::Value;

/// Number of fields that are listed, newest first; the daemon lists more.
const NAMED: usize = 8;

/// A line for each table without rows, each column that is never filled and each field that no column takes.
pub(super) fn lines(untaken: &Value) -> Vec<String> {
    let each = |list: &str| untaken[list].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut lines = Vec::new();
    for table in each("tables") {
        lines.push(format!("table {} gets no rows: {}", text(&table["table"]), text(&table["reason"])));
    }
    for column in each("columns") {
        let (table, name, source) = (&column["table"], text(&column["column"]), text(&column["source"]));
        let from = if name == source { String::new() } else { format!(" (from `{source}`)") };
        lines.push(format!("no message had a value for column {name} of table {}{from}", text(table)));
    }
    let fields = each("fields");
    for field in fields.iter().take(NAMED) {
        let meant = field["meant"].as_str().map_or_else(String::new, |meant| format!("; is it {meant}?"));
        let (name, times) = (text(&field["field"]), &field["times"]);
        lines.push(format!("no column takes field `{name}`, {times} times{meant}"));
    }
    if let Some(more @ 1..) = fields.len().checked_sub(NAMED) {
        lines.push(format!("and {more} more fields that no column takes: see --json"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_goes_nowhere_is_said_in_a_line_each_and_the_newest_fields_are_named() {
        let field = |name: String, meant: Option<&str>| json!({"field": name, "times": 3, "meant": meant});
        let mut fields = vec![field("readings".into(), Some("`reading`, `for_each` of table parts"))];
        fields.extend((1..10).map(|number| field(format!("f{number}"), None)));
        let untaken = json!({
            "tables": [{"table": "parts", "reason": "its `when` matched none of 7 messages"}],
            "columns": [
                {"table": "t", "column": "a", "source": "a"},
                {"table": "t", "column": "b", "source": "x.b"},
            ],
            "fields": fields,
        });
        let lines = lines(&untaken);
        assert_eq!(
            lines[..5],
            [
                "table parts gets no rows: its `when` matched none of 7 messages",
                "no message had a value for column a of table t",
                "no message had a value for column b of table t (from `x.b`)",
                "no column takes field `readings`, 3 times; is it `reading`, `for_each` of table parts?",
                "no column takes field `f1`, 3 times",
            ]
        );
        assert_eq!(
            (lines.len(), lines[11].as_str()),
            (12, "and 2 more fields that no column takes: see --json")
        );
        assert!(super::lines(&Value::Null).is_empty());
    }
}
