//! Findings of a check, and how they are printed.

use serde::Serialize;

use crate::chain::chain;
use crate::terminal::within;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, with a drawback.
    Warn,
    /// It will not work.
    Error,
}

impl Level {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// The label in its colour: green, yellow, red.
    fn coloured(self) -> String {
        let colour = match self {
            Self::Ok => 32,
            Self::Warn => 33,
            Self::Error => 31,
        };
        format!("\x1b[{colour}m{:<5}\x1b[0m", self.label())
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// Section, pipeline, stream or table.
    pub(super) place: String,
    pub(super) text: String,
    /// What would mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
    /// Columns that it is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) columns: Vec<Line>,
}

/// A column of a table, and where its value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub(super) column: String,
    pub(super) r#type: String,
    pub(super) source: String,
}

/// All findings, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn ok(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.add(Level::Ok, place, text, None);
    }

    pub(super) fn warn(
        &mut self,
        place: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Level::Warn, place, text, Some(remedy.into()));
    }

    pub(super) fn error(
        &mut self,
        place: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Level::Error, place, text, Some(remedy.into()));
    }

    /// An error whose text holds its remedy.
    pub(super) fn failure(&mut self, place: impl Into<String>, error: &dyn std::error::Error) {
        self.add(Level::Error, place, chain(error), None);
    }

    /// As it should be, with a line a column.
    pub(super) fn list(&mut self, place: impl Into<String>, text: impl Into<String>, columns: Vec<Line>) {
        let (place, text) = (place.into(), text.into());
        self.0.push(Finding { level: Level::Ok, place, text, remedy: None, columns });
    }

    fn add(
        &mut self,
        level: Level,
        place: impl Into<String>,
        text: impl Into<String>,
        remedy: Option<String>,
    ) {
        self.0.push(Finding { level, place: place.into(), text: text.into(), remedy, columns: Vec::new() });
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    /// How many errors there are.
    pub(super) fn errors(&self) -> usize {
        self.count(Level::Error)
    }

    /// How many errors and warnings there are.
    pub(super) fn troubles(&self) -> usize {
        self.errors() + self.count(Level::Warn)
    }

    /// A line a finding, its remedy below it, and a line that counts them.
    pub(super) fn text(&self, coloured: bool) -> String {
        let mut text = String::new();
        for Finding { level, place, text: found, remedy, columns } in &self.0 {
            let label = if coloured { level.coloured() } else { format!("{:<5}", level.label()) };
            text = text + &label + " " + &within(&format!("{place}: {found}")) + "\n";
            if let Some(remedy) = remedy {
                text = text + "      -> " + &within(remedy) + "\n";
            }
            let width = |of: fn(&Line) -> &str| columns.iter().map(|line| of(line).chars().count()).max();
            let (names, types) = (width(|line| &line.column), width(|line| &line.r#type));
            for Line { column, r#type, source } in columns {
                let (names, types) = (names.unwrap_or(0), types.unwrap_or(0));
                let line = format!("{column:names$}  {type:types$}  {source}");
                text = text + "      " + &within(&line) + "\n";
            }
        }
        let (errors, warnings) = (self.errors(), self.count(Level::Warn));
        text + &format!("{}, {}\n", counted(errors, "error"), counted(warnings, "warning"))
    }

    /// A JSON array.
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(&self.0).expect("findings are strings only") + "\n"
    }
}

fn counted(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Findings {
        let mut report = Findings::default();
        report.ok("config", "valid");
        report.warn("postgres", "a pooler", "connect directly");
        report.error("table a", "missing", "create it");
        report
    }

    #[test]
    fn a_finding_is_a_line_with_its_remedy_below() {
        assert_eq!(
            report().text(false),
            "ok    config: valid\nwarn  postgres: a pooler\n      -> connect directly\n\
             error table a: missing\n      -> create it\n1 error, 1 warning\n"
        );
    }

    #[test]
    fn colour_changes_the_labels_only() {
        let plain = report().text(true).replace("\x1b[0m", "");
        let plain =
            ["\x1b[32m", "\x1b[33m", "\x1b[31m"].iter().fold(plain, |text, code| text.replace(code, ""));
        assert_eq!(plain, report().text(false));
    }

    #[test]
    fn json_holds_every_finding() {
        let json: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(json[2]["level"], "error");
        assert_eq!(json[2]["remedy"], "create it");
        assert_eq!(json[0].get("remedy"), None);
    }
}
