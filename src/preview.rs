//! What messages would become: rows by table, dead letters, and what of them nobody takes.
//!
//! Guarantees: rows are made by the decoder that the daemon uses, from the plan that it would use; no other
//! code maps a field to a column. Nothing is written: messages are read one by one over JetStream's API
//! ([`read`]), with no consumer, and the server is asked only in transactions that are read-only ([`judge`]).
//!
//! Not guaranteed: what only a write shows: unique keys, `CHECK` constraints of tables, triggers, missing
//! partitions.

use crate::batch::Rows;
use crate::config::{self, BadElement};
use crate::decode::{Decoder, PlanError, Tally};
use crate::encode::copy_frame;
use crate::marker::Marker;
use crate::poison::Poison;
use crate::postgres::introspect;
use crate::unreadable::Single;

mod cure;
pub(crate) mod judge;
pub(crate) mod read;
pub(crate) mod report;

/// A pipeline whose messages are looked at.
pub(crate) struct Preview<'c> {
    pub(crate) pipeline: &'c config::Pipeline,
    /// One an entry of the pipeline.
    pub(crate) tables: Vec<introspect::Table>,
    decoder: Decoder,
    rows: Rows,
}

/// What one message would become.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) letters: Vec<Letter>,
    /// What it is, where it is passed over.
    pub(crate) passed_over: Option<Marker>,
    /// What the decoder counted.
    tally: Tally,
    /// The payload, where it is in one of the formats.
    pub(crate) payload: Option<serde_json::Value>,
}

/// A row, as the fields of a binary `COPY`.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its entry of the pipeline.
    pub(crate) table: usize,
    /// The element that it is made of, in a table with `for_each`.
    pub(crate) element: Option<u32>,
    /// One a column; `None` is NULL.
    pub(crate) fields: Vec<Option<Vec<u8>>>,
}

/// A message, or an element of one, that would become a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) kind: &'static str,
    pub(crate) reason: String,
    pub(crate) table: Option<String>,
    pub(crate) column: Option<String>,
    pub(crate) element: Option<u32>,
    /// What the server said, where it was the server.
    pub(crate) sqlstate: Option<String>,
    /// What would mend it, where the reason does not say.
    pub(crate) cure: Option<String>,
}

/// A column that rows fill.
#[derive(Debug)]
pub(crate) struct Column<'p> {
    pub(crate) name: &'p str,
    pub(crate) ty: &'p crate::encode::types::Type,
    /// As SQL writes its type.
    pub(crate) type_name: &'p str,
    /// Where its value comes from, as configured.
    pub(crate) source: &'p str,
}

impl<'c> Preview<'c> {
    /// Compiles the mapping of `pipeline` against its `tables` (same order).
    pub(crate) fn new(
        pipeline: &'c config::Pipeline,
        tables: Vec<introspect::Table>,
    ) -> Result<Self, PlanError> {
        let decoder = Decoder::new(pipeline, &tables)?;
        let rows = Rows::new(tables.len());
        Ok(Self { pipeline, tables, decoder, rows })
    }

    /// The columns that rows of an entry fill, in the order of their fields.
    pub(crate) fn columns(&self, table: usize) -> Vec<Column<'_>> {
        let found = &self.tables[table].columns;
        let sources = self.decoder.sources(table);
        let each = self.decoder.columns(table).iter().zip(sources).map(|(name, (ty, source))| {
            let type_name = found.iter().find(|column| column.name == *name);
            Column { name, ty, source, type_name: type_name.map_or("", |column| &column.type_name) }
        });
        each.collect()
    }

    /// What a message would become, as far as that shows without the server.
    pub(crate) fn make(&mut self, single: &Single) -> Made {
        let message = &single.message;
        let payload = self.decoder.show(message).and_then(|text| serde_json::from_str(&text).ok());
        let mut made = Made {
            sequence: message.sequence,
            subject: message.subject.to_string(),
            rows: Vec::new(),
            letters: Vec::new(),
            passed_over: None,
            tally: Tally::default(),
            payload,
        };
        if let Some(reason) = single.unreadable {
            made.letters.push(self.letter(Poison::from(reason), None, made.payload.as_ref()));
            return made;
        }
        let headers = message.headers.as_ref();
        let marker = headers.and_then(|headers| Marker::of(headers, &message.payload));
        if marker.is_some() && !self.decoder.asks_for(message) {
            made.passed_over = marker;
            return made;
        }
        if let Err(poison) = self.decoder.decode(message, 0, &mut self.rows) {
            made.letters.push(self.letter(poison, None, made.payload.as_ref()));
        }
        made.tally = self.decoder.tell_of_one();
        let mut rows = std::mem::replace(&mut self.rows, Rows::new(self.tables.len()));
        let refused = std::mem::take(&mut rows.refused);
        for refused in refused.iter() {
            let letter = self.letter(refused.poison.clone(), refused.element, made.payload.as_ref());
            made.letters.push(letter);
        }
        for (table, rows) in rows.tables.iter().enumerate() {
            let width = self.decoder.columns(table).len();
            let of_elements = self.pipeline.tables[table].for_each.is_some();
            for (index, row) in (0..).zip(&rows.rows) {
                let fields = copy_frame::fields(&rows.data[rows.range(index)]).take(width);
                let fields = fields.map(|field| field.map(<[u8]>::to_vec)).collect();
                made.rows.push(Row { table, element: of_elements.then_some(row.element), fields });
            }
        }
        made
    }

    fn letter(&self, poison: Poison, element: Option<u32>, payload: Option<&serde_json::Value>) -> Letter {
        let cure = cure::of(self, &poison, payload);
        let Poison { kind, message, table, column } = poison;
        Letter { kind: kind.as_str(), reason: message, table, column, element, sqlstate: None, cure }
    }

    /// Whether an element of a table that is refused takes its message along.
    fn takes_message_along(&self, table: usize) -> bool {
        let settings = &self.pipeline.tables[table];
        settings.for_each.is_none() || settings.bad_element == BadElement::Message
    }
}

#[cfg(test)]
mod tests;
