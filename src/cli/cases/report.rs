//! Results of cases: for people, as JSON, and as XML for CI systems.

use std::fmt::Write as _;

use serde::Serialize;

use crate::terminal::within;

/// Characters of a value that are shown in a line.
const SHOWN: usize = 200;

/// The results of a file.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    pub(super) file: String,
    pub(super) cases: Vec<Result>,
}

/// The result of a case.
#[derive(Debug, Serialize)]
pub(super) struct Result {
    pub(super) name: String,
    pub(super) pipeline: String,
    pub(super) passed: bool,
    pub(super) differences: Vec<Difference>,
}

/// Something that is not as expected.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    /// Where, or what is wrong with the case itself.
    pub(super) place: String,
    pub(super) expected: String,
    pub(super) found: String,
    /// Where the column takes its value from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<String>,
}

impl Results {
    pub(super) fn passed(&self) -> bool {
        self.cases.iter().all(|case| case.passed)
    }
}

impl Difference {
    /// Something that is wrong with the case itself.
    pub(super) fn of(problem: String) -> Self {
        Self { place: problem, expected: String::new(), found: String::new(), source: None }
    }

    /// One line, and where there are two sides, both below.
    fn lines(&self) -> Vec<String> {
        let cut = |text: &str| {
            let dots = if text.chars().nth(SHOWN).is_some() { "…" } else { "" };
            text.chars().take(SHOWN).collect::<String>() + dots
        };
        if self.expected.is_empty() && self.found.is_empty() {
            return vec![self.place.clone()];
        }
        let from = self.source.as_ref().map_or_else(String::new, |source| format!("   <- {source}"));
        vec![
            self.place.clone(),
            format!("  expected  {}", cut(&self.expected)),
            format!("  found     {}{from}", cut(&self.found)),
        ]
    }
}

/// How many passed and failed.
fn counts(results: &[Results]) -> (usize, usize) {
    let cases = || results.iter().flat_map(|results| &results.cases);
    let passed = cases().filter(|case| case.passed).count();
    (passed, cases().count() - passed)
}

/// A line a case, what differs below it, and a line that counts.
pub(super) fn text(results: &[Results], in_colour: bool) -> String {
    let mut text = String::new();
    for Results { file, cases } in results {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "{}", within(file));
        for case in cases {
            let (label, colour) = if case.passed { ("ok  ", 32) } else { ("FAIL", 31) };
            let label = if in_colour { format!("\x1b[{colour}m{label}\x1b[0m") } else { label.to_owned() };
            let _ = writeln!(text, "  {label}  {}: {}", within(&case.pipeline), within(&case.name));
            for line in case.differences.iter().flat_map(Difference::lines) {
                let _ = writeln!(text, "        {}", within(&line));
            }
        }
    }
    let (passed, failed) = counts(results);
    text + &format!("{passed} passed, {failed} failed\n")
}

#[derive(Serialize)]
struct Object<'r> {
    passed: usize,
    failed: usize,
    files: &'r [Results],
}

pub(super) fn json(results: &[Results]) -> String {
    let (passed, failed) = counts(results);
    serde_json::to_string_pretty(&Object { passed, failed, files: results }).unwrap_or_default() + "\n"
}

/// As CI systems read it: a suite a file.
pub(super) fn junit(results: &[Results]) -> String {
    let (passed, failed) = counts(results);
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let _ = writeln!(xml, "<testsuites tests=\"{}\" failures=\"{failed}\">", passed + failed);
    for results in results {
        let (passed, failed) = counts(std::slice::from_ref(results));
        let (file, tests) = (escaped(&results.file), passed + failed);
        let _ = writeln!(xml, "  <testsuite name=\"{file}\" tests=\"{tests}\" failures=\"{failed}\">");
        for case in &results.cases {
            let (name, class) = (escaped(&case.name), escaped(&case.pipeline));
            let _ = write!(xml, "    <testcase name=\"{name}\" classname=\"{class}\"");
            if case.passed {
                xml += "/>\n";
                continue;
            }
            let lines: Vec<String> = case.differences.iter().flat_map(Difference::lines).collect();
            let first = lines.first().map_or("", String::as_str);
            let (first, all) = (escaped(first), escaped(&lines.join("\n")));
            let _ = writeln!(xml, ">\n      <failure message=\"{first}\">{all}</failure>\n    </testcase>");
        }
        xml += "  </testsuite>\n";
    }
    xml + "</testsuites>\n"
}

/// Text within XML 1.0, which has no place for most control characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\n' | '\t' => escaped.push(character),
            character if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Vec<Results> {
        let difference = Difference {
            place: "table t, row 1, column a".into(),
            expected: "<1>".into(),
            found: "NULL\u{1b}".into(),
            source: Some("x.y".into()),
        };
        let case = |name: &str, differences: Vec<Difference>| Result {
            name: name.into(),
            pipeline: "p".into(),
            passed: differences.is_empty(),
            differences,
        };
        let cases = vec![case("good", vec![]), case("bad & ugly", vec![difference])];
        vec![Results { file: "a.test.toml".into(), cases }]
    }

    #[test]
    fn a_case_is_a_line_and_what_differs_is_below_it() {
        assert_eq!(
            text(&results(), false),
            "a.test.toml\n  ok    p: good\n  FAIL  p: bad & ugly\n        table t, row 1, column a\n\
             \x20         expected  <1>\n          found     NULL\u{fffd}   <- x.y\n1 passed, 1 failed\n"
        );
    }

    #[test]
    fn junit_has_a_suite_a_file_and_nothing_that_xml_cannot_hold() {
        let xml = junit(&results());
        assert!(xml.contains("<testsuites tests=\"2\" failures=\"1\">"), "{xml}");
        assert!(xml.contains("<testcase name=\"good\" classname=\"p\"/>"), "{xml}");
        assert!(xml.contains("name=\"bad &amp; ugly\""), "{xml}");
        assert!(xml.contains("expected  &lt;1&gt;\n  found     NULL\u{fffd}   &lt;- x.y</failure>"), "{xml}");
    }
}
