//! What the mapping misses: fields that no column takes, tables and columns that nothing ever fills.
//!
//! Guarantees: bounded in number and length, whatever publishers send; names of fields are shown, never
//! values. Counts are since the start of the daemon, or since the mapping changed. Messages that are read
//! again after a failure count again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::config::Table;
use crate::decode::{ColumnTally, Tally};
use crate::metrics::gauge_value;

use super::PipelineStatus;

/// Fields that are kept, those that were there last: more than a mapping has slips, few enough for a page.
const KEPT: usize = 64;

/// Characters that are shown of a field's path.
const SHOWN: usize = 96;

/// How alike the names of a field and of what was never found must be for one to be meant by the other
/// (Jaro-Winkler).
const ALIKE: f64 = 0.9;

impl PipelineStatus {
    /// Says by which mapping messages are decoded from now on.
    pub fn set_mapping(&self, tables: &[Table]) {
        super::lock(&self.current).untaken.begin(tables);
    }

    /// Notes what became of messages.
    pub fn note_tally(&self, tally: &Tally) {
        let metrics = &self.metrics;
        let times = tally.others + tally.fields.iter().map(|(_, times)| times).sum::<u64>();
        metrics.untaken_fields.inc_by(times);
        let mut current = super::lock(&self.current);
        let first = current.untaken.add(tally, Timestamp::now());
        let tables = metrics.tables.each();
        for (handles, table) in tables.iter().zip(&tally.tables) {
            handles.messages.inc_by(table.found);
        }
        if tally.tables.iter().any(|table| table.columns.is_some()) {
            for (handles, unfilled) in tables.iter().zip(current.untaken.unfilled()) {
                handles.unfilled.set(gauge_value(unfilled as u64));
            }
        }
        drop((tables, current));
        if first {
            let fields: Vec<_> = tally.fields.iter().map(|(name, _)| shown(name)).collect();
            let (pipeline, shard, fields) = (self.name(), &self.shard.name, fields.join(", "));
            tracing::info!(
                pipeline,
                shard,
                fields,
                "some fields are not stored in any column; /status \
                                                     counts them"
            );
        }
    }
}

/// What is known of a pipeline.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    mapping: Vec<Table>,
    messages: u64,
    times: u64,
    fields: BTreeMap<String, Seen>,
    tables: Vec<KeptTable>,
}

#[derive(Debug)]
struct Seen {
    times: u64,
    last: Timestamp,
}

#[derive(Debug, Default)]
struct KeptTable {
    taken: u64,
    found: u64,
    columns: Vec<ColumnTally>,
}

/// What of a pipeline's messages went nowhere, as `/status` shows it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Untaken {
    /// Messages that were looked at.
    pub messages: u64,
    /// How often a field was there that no column takes, over all fields.
    pub field_times: u64,
    /// Those fields, the one seen last first.
    pub fields: Vec<UntakenField>,
    /// Tables that got nothing.
    pub tables: Vec<EmptyTable>,
    /// Columns of the other tables for which no message had a value.
    pub columns: Vec<EmptyColumn>,
}

/// A field that no column takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UntakenField {
    /// Its path.
    pub field: String,
    /// How often it was there.
    pub times: u64,
    /// When it was there last, in RFC 3339.
    #[serde(serialize_with = "super::as_text")]
    pub last_at: Timestamp,
    /// What of the mapping was never found and is called alike.
    pub meant: Option<String>,
}

/// A table that got nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EmptyTable {
    /// Its name.
    pub table: String,
    /// Its place among the entries of the pipeline, from 0.
    pub entry: usize,
    /// Why.
    pub reason: String,
}

/// A column for which no message had a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EmptyColumn {
    /// Its table.
    pub table: String,
    /// Its name.
    pub column: String,
    /// Where its value comes from, as configured.
    pub source: String,
}

impl Kept {
    /// Starts over if `mapping` has changed.
    pub(crate) fn begin(&mut self, mapping: &[Table]) {
        if self.mapping != mapping {
            *self = Self { mapping: mapping.to_vec(), ..Self::default() };
        }
    }

    /// Adds what was told at `now`; whether these are the first fields that nobody takes.
    pub(crate) fn add(&mut self, tally: &Tally, now: Timestamp) -> bool {
        let first = self.times == 0;
        self.messages += tally.messages;
        self.times += tally.others;
        for (name, times) in &tally.fields {
            self.times += times;
            let seen = self.fields.entry(shown(name)).or_insert(Seen { times: 0, last: now });
            seen.times += times;
            seen.last = now;
        }
        while self.fields.len() > KEPT {
            let oldest = self.fields.iter().min_by_key(|(_, seen)| seen.last).map(|(name, _)| name.clone());
            oldest.map(|oldest| self.fields.remove(&oldest));
        }
        self.tables.resize_with(tally.tables.len(), KeptTable::default);
        for (kept, tally) in self.tables.iter_mut().zip(&tally.tables) {
            kept.taken += tally.taken;
            kept.found += tally.found;
            if let Some(columns) = &tally.columns {
                // What an earlier decoder found filled stays so.
                let before = std::mem::replace(&mut kept.columns, columns.clone());
                for column in &mut kept.columns {
                    let same = before.iter().find(|before| before.column == column.column);
                    column.filled |= same.is_some_and(|same| same.filled);
                }
            }
        }
        first && self.times > 0
    }

    /// Columns of each table for which no message had a value.
    pub(super) fn unfilled(&self) -> impl Iterator<Item = usize> {
        self.tables.iter().map(|table| table.columns.iter().filter(|column| !column.filled).count())
    }

    /// What there is to show.
    pub(crate) fn show(&self) -> Untaken {
        let mut untaken = Untaken { messages: self.messages, field_times: self.times, ..Untaken::default() };
        let mut sought = Vec::new();
        if self.messages > 0 {
            for (entry, (table, kept)) in self.mapping.iter().zip(&self.tables).enumerate() {
                show_table(entry, table, kept, self.messages, &mut untaken, &mut sought);
            }
        }
        let mut fields: Vec<_> = self.fields.iter().collect();
        fields.sort_by(|(one, seen), (other, seen_too)| {
            (seen_too.last, seen_too.times).cmp(&(seen.last, seen.times)).then_with(|| one.cmp(other))
        });
        let field = |(name, seen): (&String, &Seen)| UntakenField {
            field: name.clone(),
            times: seen.times,
            last_at: seen.last,
            meant: meant(name, &sought),
        };
        untaken.fields = fields.into_iter().map(field).collect();
        untaken
    }
}

fn show_table(
    entry: usize,
    table: &Table,
    kept: &KeptTable,
    messages: u64,
    untaken: &mut Untaken,
    sought: &mut Vec<(String, String)>,
) {
    let name = &table.name;
    let reason = if kept.taken == 0 {
        if let Some(field) = table.when.as_ref().and_then(|when| when.field.as_deref()) {
            sought.push((field.to_owned(), format!("`when` of table {name}")));
        }
        format!("its `when` matched none of {messages} messages")
    } else if kept.found == 0 {
        let path = table.for_each.as_deref().unwrap_or_default();
        sought.push((path.to_owned(), format!("`for_each` of table {name}")));
        format!("`for_each` found no array `{path}` in any of its {} messages", kept.taken)
    } else {
        for column in kept.columns.iter().filter(|column| !column.filled) {
            sought.push((column.source.clone(), format!("column {} of table {name}", column.column)));
            let ColumnTally { column, source, .. } = column.clone();
            untaken.columns.push(EmptyColumn { table: name.clone(), column, source });
        }
        return;
    };
    untaken.tables.push(EmptyTable { table: name.clone(), entry, reason });
}

/// What `field` may be meant for, of what is `sought`: paths, each with what seeks it.
fn meant(field: &str, sought: &[(String, String)]) -> Option<String> {
    let (path, who) = nearest(field, sought.iter(), |(path, _)| path)?;
    Some(format!("`{path}`, {who}"))
}

/// The one of `known` whose path is called like `field`, if any is alike enough to be meant.
pub(crate) fn nearest<T>(
    field: &str,
    known: impl Iterator<Item = T>,
    path: impl Fn(&T) -> &str,
) -> Option<T> {
    let (last, plain) = (last(field), plain(field));
    let likeness = |path: &str| {
        if plain == self::plain(path) { 1.0 } else { strsim::jaro_winkler(last, self::last(path)) }
    };
    let known = known.map(|known| (likeness(path(&known)), known));
    let alike = known.filter(|(likeness, _)| *likeness >= ALIKE);
    alike.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}

/// The last step of a path.
fn last(path: &str) -> &str {
    path.rsplit(['.', '^']).next().unwrap_or(path)
}

/// Its letters and digits: what is left where only case and hyphens differ.
fn plain(path: &str) -> String {
    last(path).chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// A field's path without what a terminal would act on, cut short.
fn shown(path: &str) -> String {
    let dots = if path.chars().nth(SHOWN).is_some() { "…" } else { "" };
    path.chars().take(SHOWN).flat_map(char::escape_debug).chain(dots.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::TableTally;

    fn tables(toml: &str) -> Vec<Table> {
        use figment::Figment;
        use figment::providers::{Format as _, Toml};
        let text = format!("name = \"p\"\nstream = \"S\"\n{toml}");
        Figment::from(Toml::string(&text)).extract::<crate::config::Pipeline>().unwrap().tables
    }

    fn column(column: &str, source: &str, filled: bool) -> ColumnTally {
        ColumnTally { column: column.into(), source: source.into(), filled }
    }

    fn table(taken: u64, found: u64, columns: &[ColumnTally]) -> TableTally {
        TableTally { taken, found, columns: Some(columns.to_vec()) }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn fields_are_kept_the_newest_first_and_no_more_than_so_many() {
        let mut kept = Kept::default();
        for second in 0..200 {
            let fields = vec![(format!("f{second}"), 2), ("always".to_owned(), 1)];
            let tally = Tally { messages: 2, fields, others: 1, ..Tally::default() };
            assert_eq!(kept.add(&tally, at(second)), second == 0);
        }
        let shown = kept.show();
        assert_eq!((shown.messages, shown.field_times, shown.fields.len()), (400, 800, KEPT));
        let first: Vec<_> =
            shown.fields.iter().take(3).map(|seen| (seen.field.as_str(), seen.times)).collect();
        assert_eq!(first, [("always", 200), ("f199", 2), ("f198", 2)]);
        kept.begin(&tables("[[table]]\nname = 't'"));
        assert!(kept.show().fields.is_empty(), "another mapping takes other fields");
    }

    #[test]
    fn a_path_is_cut_and_has_no_control_characters() {
        let mut kept = Kept::default();
        let fields = vec![("a\u{1b}[31m".to_owned(), 1), ("x".repeat(5_000), 1)];
        kept.add(&Tally { fields, ..Tally::default() }, at(0));
        for UntakenField { field, .. } in kept.show().fields {
            assert!(field.len() <= SHOWN + "…".len() && !field.contains('\u{1b}'), "{field}");
        }
    }

    #[test]
    fn what_is_called_alike_is_named_as_what_may_be_meant() {
        let mut kept = Kept::default();
        kept.begin(&tables(
            "[[table]]\nname = 't'\n[[table]]\nname = 'u'\nfor_each = 'reading'\n[[table]]\nname = \
             'v'\nwhen.field = 'kinds'",
        ));
        let columns = [column("camera_id", "camera_id", false), column("fps", "video.fps", true)];
        let names = ["cameraId", "readings", "kind", "video.FPS", "other"];
        let fields = names.map(|name| (name.to_owned(), 1)).to_vec();
        let tables = vec![table(9, 9, &columns), table(9, 0, &[]), table(0, 0, &[])];
        kept.add(&Tally { messages: 9, tables, fields, others: 0 }, at(0));
        let shown = kept.show();
        let meant =
            |name: &str| shown.fields.iter().find(|seen| seen.field == name).unwrap().meant.as_deref();
        assert_eq!(meant("cameraId"), Some("`camera_id`, column camera_id of table t"));
        assert_eq!(meant("readings"), Some("`reading`, `for_each` of table u"));
        assert_eq!(meant("kind"), Some("`kinds`, `when` of table v"));
        assert_eq!((meant("video.FPS"), meant("other")), (None, None));
        let reasons: Vec<_> = shown.tables.iter().map(|table| (table.entry, table.reason.as_str())).collect();
        assert_eq!(
            reasons,
            [
                (1, "`for_each` found no array `reading` in any of its 9 messages"),
                (2, "its `when` matched none of 9 messages"),
            ]
        );
        let unfilled =
            EmptyColumn { table: "t".into(), column: "camera_id".into(), source: "camera_id".into() };
        assert_eq!(shown.columns, [unfilled]);
    }

    #[test]
    fn a_column_that_was_filled_once_stays_so_when_the_pipeline_starts_again() {
        let mut kept = Kept::default();
        kept.begin(&tables("[[table]]\nname = 't'"));
        let tally = |filled| Tally {
            messages: 1,
            tables: vec![table(1, 1, &[column("a", "a", filled), column("b", "b", false)])],
            ..Tally::default()
        };
        kept.add(&tally(true), at(0));
        kept.add(&tally(false), at(1));
        assert_eq!(kept.unfilled().collect::<Vec<_>>(), [1]);
    }
}
