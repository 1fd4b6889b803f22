//! Whether the tables still are what the batch was encoded for.
//!
//! Guarantees: rows are written only under a lock that no `ALTER TABLE` is compatible with, taken before the
//! shape was compared and before the `COPY` was parsed, and a batch is judged (rows and dead letters alike)
//! only by the tables that it was encoded for. Where a shape differs, the transaction is rolled back and the
//! generation ends: what was encoded is dropped, and the next one reads tables and stream again from the
//! checkpoint.
//!
//! What it cannot see: a foreign table that becomes a partition between the lock and the `COPY`, since
//! `ATTACH PARTITION` takes a lock that lets rows in; the next batch does.

use std::fmt::Write as _;

use postgres_protocol::escape::escape_literal;

use super::attempt::Stop;
use super::{Error, Writer};
use crate::batch::TableRows;
use crate::checkpoint::{self, begin_sql};
use crate::copy::Target;
use crate::metrics;
use crate::postgres::simple::{self, Answers, within};

/// The column that the shapes come in.
const SHAPES: &str = "jetcopy_shapes";

/// SQL that locks the tables with rows and asks for the shape of all: also a table without rows may have made
/// dead letters.
pub(crate) fn lock_and_ask(targets: &[Target], rows: &[TableRows]) -> String {
    let mut sql = String::new();
    for (target, rows) in targets.iter().zip(rows) {
        if !rows.rows.is_empty() {
            sql += &target.lock;
        }
    }
    sql + &ask(targets)
}

fn ask(targets: &[Target]) -> String {
    let mut sql = String::from("SELECT ARRAY[");
    for (index, target) in targets.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(sql, "{comma}jetcopy.shape(to_regclass({}))", escape_literal(&target.name));
    }
    let _ = write!(sql, "]::text AS {SHAPES}; ");
    sql
}

/// The first table that is not what it was when it was read, by what the server answered.
pub(crate) fn changed<'t>(targets: &'t [Target], answers: &Answers) -> Option<&'t Target> {
    let mut shapes = answers.named(SHAPES).unwrap_or_default().trim_matches(['{', '}']).split(',');
    // One that is gone is NULL, which is no number either.
    targets.iter().find(|target| {
        let shape = shapes.next().and_then(|shape| shape.parse().ok());
        shape.is_none() || shape != target.shape
    })
}

impl Writer {
    /// The tables, as configured.
    pub(super) fn tables(&self) -> String {
        self.targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// An error if what the server answered says that a table has changed.
    pub(super) fn unchanged(&self, answers: &Answers) -> Result<(), Error> {
        match changed(&self.targets, answers) {
            Some(target) => Err(Error::Changed { table: target.name.clone() }),
            None => Ok(()),
        }
    }

    /// Opens a transaction that moves no checkpoint, with the same locks and the same look at the tables.
    pub(super) async fn begin_trial(&self, rows: &[TableRows]) -> Result<Result<(), Stop>, Error> {
        self.at(metrics::Step::Search);
        let sql = begin_sql(&self.session) + &lock_and_ask(&self.targets, rows);
        let asked = simple::ask(&self.session.client, &sql);
        let answers = match within(self.step_timeout, "looking for the refused row", asked).await? {
            Ok(answers) => answers,
            Err(source) => {
                let error = checkpoint::Error::Database { action: "try rows that may not move", source };
                return self.try_again(error.into()).await.map(Err);
            }
        };
        let unchanged = self.unchanged(&answers);
        if unchanged.is_err() {
            within(self.step_timeout, "during rollback", checkpoint::rollback(&self.session)).await??;
        }
        unchanged.map(Ok)
    }

    /// An error if a table has changed: asked before that much poison is believed that the pipeline would
    /// stop.
    pub(super) async fn look_at_tables(&self) -> Result<(), Error> {
        let sql = ask(&self.targets);
        let asked =
            within(self.step_timeout, "looking at the tables", simple::ask(&self.session.client, &sql));
        self.unchanged(&asked.await?.map_err(Error::Trial)?)
    }
}
