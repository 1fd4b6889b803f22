//! Whether mapping and tables go together: all that is wrong at once, and which column takes what.

use std::path::{Path, PathBuf};

use super::report::{Findings, Line};
use crate::config::{self, Config, OnConflict, Pipeline};
use crate::decode::{self, Decoder, PlanError};
use crate::postgres::introspect::saved::{Saved, SavedError};
use crate::postgres::introspect::{IntrospectError, ServerDefault, Table};

/// Names less alike than this are no slip of the pen.
const ALIKE: f64 = 0.8;

/// What is told of mappings.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    /// The configuration, in which a line is named.
    pub(super) file: Option<PathBuf>,
    /// Whether the columns of each table are listed.
    pub(super) columns: bool,
}

impl Mappings {
    /// The decoder of a pipeline; where it has none, every reason is told.
    pub(super) fn judge(
        &self,
        pipeline: &Pipeline,
        found: &[Table],
        report: &mut Findings,
    ) -> Option<Decoder> {
        let misfits = decode::misfits(pipeline, found);
        for misfit in &misfits {
            let line = self.line(pipeline, misfit);
            let at = line.map_or_else(String::new, |line| format!(", {line}"));
            report.failure(format!("pipeline {}{at}", pipeline.name), misfit);
        }
        if !misfits.is_empty() {
            return None;
        }
        match Decoder::new(pipeline, found) {
            Ok(decoder) => {
                self.list(pipeline, found, &decoder, report);
                Some(decoder)
            }
            Err(error) => {
                report.failure(format!("pipeline {}", pipeline.name), &error);
                None
            }
        }
    }

    /// File and line of a column, or of its table.
    fn line(&self, pipeline: &Pipeline, misfit: &PlanError) -> Option<String> {
        let entry = pipeline.tables.iter().position(|table| table.name == misfit.table)?;
        let column = (misfit.column != "*").then_some(misfit.column.as_str());
        config::line_of_table(self.file.as_deref()?, &pipeline.name, entry, column)
    }

    /// Each column and what it takes.
    fn list(&self, pipeline: &Pipeline, found: &[Table], decoder: &Decoder, report: &mut Findings) {
        if !self.columns {
            return;
        }
        for (index, (table, found)) in pipeline.tables.iter().zip(found).enumerate() {
            let filled = decoder.columns(index).iter().zip(decoder.sources(index));
            let filled: Vec<_> = filled.map(|(name, (_, source))| (name, source)).collect();
            let lines = found.columns.iter().map(|column| {
                let taken = filled.iter().find(|(name, _)| **name == column.name).map(|(_, source)| *source);
                let source =
                    taken.map_or_else(|| "left to the server".to_owned(), |source| format!("<- {source}"));
                let or = match &column.default {
                    _ if taken.is_none() => "",
                    ServerDefault::Constant(_) => ", or its default",
                    ServerDefault::None | ServerDefault::Computed if column.not_null => ", NOT NULL",
                    ServerDefault::None | ServerDefault::Computed => "",
                };
                let (column, r#type) = (column.name.clone(), column.type_name.clone());
                Line { column, r#type, source: source + or }
            });
            let way = match table.on_conflict {
                OnConflict::Error => "rows go straight into it by COPY",
                OnConflict::Ignore => {
                    "rows go straight into it by COPY, and through a temporary table while some are there \
                     already"
                }
                OnConflict::Update => "rows go through a temporary table and INSERT … ON CONFLICT",
            };
            let place = format!("pipeline {}, table {}", pipeline.name, table.name);
            report.list(place, way, lines.collect());
        }
    }
}

/// A check without servers, by tables that were saved.
pub(super) fn offline(config: &Config, schema: &Path, mappings: &Mappings, report: &mut Findings) {
    let saved = match Saved::read(schema) {
        Ok(saved) => saved,
        Err(error) => return report.failure("schema", &error),
    };
    for pipeline in &config.pipelines {
        let mut found = Vec::new();
        for table in &pipeline.tables {
            let place = format!("pipeline {}, table {}", pipeline.name, table.name);
            match saved.table(&table.name) {
                Ok(known) => {
                    match known.fits(table) {
                        Err(IntrospectError::Unusable { problem, remedy, .. }) => {
                            report.error(&place, problem, remedy);
                        }
                        Err(error) => report.failure(&place, &error),
                        Ok(()) => {}
                    }
                    found.push(known);
                }
                Err(error @ SavedError::Lacks { .. }) => match nearest(&table.name, saved.names()) {
                    Some(meant) => report.error(&place, error.to_string(), format!("did you mean {meant}?")),
                    None => report.failure(&place, &error),
                },
                Err(error) => report.failure(&place, &error),
            }
        }
        if found.len() < pipeline.tables.len() {
            continue;
        }
        if let Some(decoder) = mappings.judge(pipeline, &found, report) {
            for (index, (table, found)) in pipeline.tables.iter().zip(&found).enumerate() {
                let place = format!("pipeline {}, table {}", pipeline.name, table.name);
                super::database::update::judge(&place, table, found, (&decoder, index), report);
                let (filled, all) = (decoder.columns(index).len(), found.columns.len());
                report.ok(place, format!("the mapping fits; it fills {filled} of {all} columns"));
            }
        }
    }
}

/// The known name that a wrong one is most like.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let name = name.to_lowercase();
    let alike = known.map(|known| (strsim::jaro_winkler(&name, &known.to_lowercase()), known));
    let alike = alike.filter(|(likeness, _)| *likeness >= ALIKE);
    alike.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, known)| known)
}
