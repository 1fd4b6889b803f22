//! The one table that turns database errors into decisions.
//!
//! Guarantees: every error has a decision, every class of SQLSTATE in PostgreSQL's appendix A is named here,
//! and no error of a person's making (missing table, privilege, password) is retried in a tight loop or
//! thrown away.
//!
//! It looks at an error and the step that met it, nothing else: caps, back-off times and the state of a
//! pipeline are the caller's. So is the proof: [`Decision::SuspectRow`] says that a row may be at fault, not
//! that it is, and whether the error is about the target table at all ([`relation`]) only the catalog knows.

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

mod rows;

use rows::Rows;

/// The C function in the server that finds the partition of a row. It tells its error from a check's, which
/// has the same SQLSTATE, and is not translated.
const NO_PARTITION_ROUTINE: &str = "ExecFindPartition";

/// How its message begins.
const NO_PARTITION: &str = "no partition of relation ";

/// Where Citus passes on what a worker said of a `COPY`: in its `multi_copy.c`, from 12.1 to 14.0.
const WORKER_ROUTINE: &str = "ReportCopyError";

/// How PostgreSQL words the violation of a constraint, and its SQLSTATE.
const WORKER_MESSAGES: [(&str, &str); 6] = [
    (NO_PARTITION, "23514"),
    ("violates check constraint", "23514"),
    ("violates not-null constraint", "23502"),
    ("violates foreign key constraint", "23503"),
    ("duplicate key value violates unique constraint", "23505"),
    ("conflicting key value violates exclusion constraint", "23P01"),
];

/// How the C functions begin that read binary values out of a message.
const FIELD_ROUTINES: &str = "pq_";

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Roll back and run the same batch again on the same connection.
    Retry,
    /// Discard the connection and resync: what was committed is unknown, or the server is not what it was.
    Reconnect,
    /// As [`Self::Reconnect`], but the server is short of something: wait longer before the next attempt.
    BackOff,
    /// A row of the batch may be at fault. It is only where it fails alone and others pass: then it becomes a
    /// dead letter.
    SuspectRow,
    /// No partition takes a row: add it where jetcopy partitions the table. It is never the row's fault.
    AddPartition,
    /// A row is there already and the table has `on_conflict`: go through the temporary table.
    Merge,
    /// Fewer rows at once may pass. None is at fault.
    Divide,
    /// As [`Self::Pause`], unless a row is proven to be at fault: something that it needs is missing, as a
    /// rule.
    PauseUnlessRow,
    /// As [`Self::BackOff`], in the same way.
    BackOffUnlessRow,
    /// A person must act, see [`remedy`]: keep everything, tell them, look again slowly.
    Pause,
}

/// What was being done when the error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Connecting and logging in.
    Connect,
    /// `BEGIN`, the checkpoint's compare-and-set, dead letters: statements on jetcopy's own tables.
    Own,
    /// The start of a `COPY` into a target table, before any row. Discard the connection, whatever the
    /// decision.
    CopyStart,
    /// Sending and finishing a `COPY`.
    CopyData {
        /// Whether the table has `on_conflict`, so that a row that is there already is no fault.
        mergeable: bool,
    },
    /// `INSERT … ON CONFLICT` out of the temporary table.
    Merge,
    /// `COMMIT`.
    Commit,
}

impl Step {
    /// Whether rows of the batch were before the server, so that one of them can be at fault. At `COMMIT`
    /// that is a deferred constraint.
    fn judges_rows(self) -> bool {
        match self {
            Self::CopyData { .. } | Self::Merge | Self::Commit => true,
            Self::Connect | Self::Own | Self::CopyStart => false,
        }
    }
}

/// Decides.
#[must_use]
pub fn decide(error: &Error, step: Step) -> Decision {
    match error.as_db_error() {
        Some(error) => decide_db(error, step),
        // Closed, broken, timed out, or out of step with the protocol: in no case can this connection be
        // trusted again, and whether the server heard the last request is open.
        None => Decision::Reconnect,
    }
}

#[expect(clippy::match_same_arms, reason = "the table is read class by class, each with its own reason")]
fn decide_db(error: &DbError, step: Step) -> Decision {
    let code = of_worker(error).unwrap_or(error.code().code());
    let rows = Rows::of(error, step);
    match class(code) {
        // Success and "no data" are no errors; a server that sends one as such is out of step.
        Class::Completion => Decision::Reconnect,
        Class::Connection => match code {
            // Also what a value that is too short raises, where the server reads the field.
            "08P01"
                if rows.of_a_field
                    && error.routine().is_some_and(|name| name.starts_with(FIELD_ROUTINES)) =>
            {
                Decision::SuspectRow
            }
            _ => rows.or_back_off(Decision::Reconnect),
        },
        // A cursor, savepoint, statement or transaction is not where it was thought to be: the session is not
        // ours alone (a pooler) or was left in the middle. 25006 is a primary that became a standby. 42P05 is
        // of class 42.
        Class::SessionState => Decision::Reconnect,
        // Unsupported is what a chunk is, which is frozen: not what the row says.
        Class::Unsupported | Class::Privilege => Decision::Pause,
        Class::Catalog => rows.pause(),
        Class::Configuration => match (code, step) {
            // A trigger changed keys, so that several rows of the statement have the same.
            ("21000", Step::Merge) if rows.judged && met_directly(error) => Decision::Divide,
            _ => rows.pause(),
        },
        Class::Data => match code {
            // The frame of the COPY, not a value in it: no row is at fault.
            "22P04" => Decision::Pause,
            // A sequence has given its last number: no row with a default of its own would pass.
            "2200H" => Decision::Pause,
            _ => rows.or_suspect(Decision::Pause),
        },
        Class::Integrity => of_integrity(error, code, step, rows),
        // A trigger or a routine of the table's owner raised it, for a row as a rule.
        Class::Routine => rows.or_suspect(Decision::Pause),
        Class::Rollback => match code {
            // Whether the statement completed is unknown.
            "40003" => Decision::Reconnect,
            _ => Decision::Retry,
        },
        Class::Syntax => of_syntax(code, rows),
        Class::Resources => match code {
            // A limit for what one statement or transaction takes.
            "53400" if rows.judged => Decision::Divide,
            // Disk, memory, connections.
            _ => Decision::BackOff,
        },
        // Nesting and sizes: of the value, where there is a row.
        Class::Limits => rows.or_suspect(Decision::Pause),
        Class::State => match code {
            // Locked, or in use: it passes.
            "55P03" | "55006" => Decision::Retry,
            _ => Decision::Pause,
        },
        Class::Intervention => match code {
            "57014" => Decision::Retry,
            // Too many cooks at the server rather than a lost connection.
            "57000" => Decision::BackOff,
            // Another server's, passed on; this session's own end is fatal.
            _ => rows.or_back_off(Decision::Reconnect),
        },
        Class::System => match code {
            // A file that a person must put there: an extension's library, as a rule.
            "58P01" | "58P02" | "58P03" => Decision::Pause,
            _ => Decision::BackOff,
        },
        Class::Snapshot => Decision::Retry,
        // The other side of a foreign table: as any server that is not there.
        Class::Foreign => Decision::BackOff,
        Class::Internal => of_internal(error, step, rows),
        // Not PostgreSQL's own: an extension's, or a trigger's `RAISE … USING ERRCODE`.
        Class::Custom => rows.or_suspect(Decision::Pause),
    }
}

/// The SQLSTATE of a constraint that a worker of Citus named when it refused rows of a `COPY`. The
/// coordinator passes the worker's message on without it, as XX000. `None` for any other error, and where the
/// worker's messages are not English: that one stays XX000, which blames a row later.
fn of_worker(error: &DbError) -> Option<&'static str> {
    let passed_on = error.code().code() == "XX000" && error.routine() == Some(WORKER_ROUTINE);
    let says = |words: &str| error.message().contains(words);
    WORKER_MESSAGES.iter().find(|(words, _)| passed_on && says(words)).map(|(_, code)| *code)
}

/// A constraint refuses something.
fn of_integrity(error: &DbError, code: &str, step: Step, rows: Rows) -> Decision {
    match (code, step) {
        ("23505" | "23P01", Step::CopyData { mergeable: true }) => Decision::Merge,
        ("23514", Step::CopyData { .. } | Step::Merge)
            if error.routine() == Some(NO_PARTITION_ROUTINE) || error.message().starts_with(NO_PARTITION) =>
        {
            Decision::AddPartition
        }
        _ => rows.or_suspect(Decision::Pause),
    }
}

/// A statement, or what one is about, is not as it should be.
fn of_syntax(code: &str, rows: Rows) -> Decision {
    match code {
        // Someone else's prepared statement behind a pooler.
        "42P05" => Decision::Reconnect,
        // An array whose elements are of another type than the column's.
        "42804" if rows.of_a_field => Decision::SuspectRow,
        // Of the statement, or of a partition: not what the row says.
        "42501" | "42809" | "42P16" | "42P17" => Decision::Pause,
        _ => rows.pause(),
    }
}

/// The server itself, or an extension of it.
fn of_internal(error: &DbError, step: Step, rows: Rows) -> Decision {
    match error.code().code() {
        // Damaged data or index: nothing may be written until a person looked at it.
        "XX001" | "XX002" => Decision::Pause,
        // What the worker means, it says with its own SQLSTATE once the rows are merged.
        _ if step == (Step::CopyData { mergeable: true }) && error.routine() == Some(WORKER_ROUTINE) => {
            Decision::Merge
        }
        // So do extensions, of a value that they cannot read.
        "XX000"
            if rows.judged && step != Step::Commit && met_directly(error) && !met_by_timescaledb(error) =>
        {
            Decision::BackOffUnlessRow
        }
        // An extension's or a remote session's trouble, or concurrent changes to the catalog.
        _ => rows.or_back_off(Decision::Reconnect),
    }
}

/// Groups of SQLSTATE classes that are treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// 00, 01, 02, 03
    Completion,
    /// 08
    Connection,
    /// 0B, 24, 25, 26, 2D, 34, 3B
    SessionState,
    /// 0A
    Unsupported,
    /// 0L, 0P, 28, 2B
    Privilege,
    /// 3D, 3F
    Catalog,
    /// 21, F0
    Configuration,
    /// 22
    Data,
    /// 23, 44
    Integrity,
    /// 09, 0F, 0Z, 10, 20, 27, 2F, 38, 39, P0
    Routine,
    /// 40
    Rollback,
    /// 42
    Syntax,
    /// 53
    Resources,
    /// 54
    Limits,
    /// 55
    State,
    /// 57
    Intervention,
    /// 58
    System,
    /// 72
    Snapshot,
    /// HV
    Foreign,
    /// XX
    Internal,
    /// Everything that is not in PostgreSQL's appendix A.
    Custom,
}

fn class(code: &str) -> Class {
    match code.get(..2).unwrap_or_default() {
        "00" | "01" | "02" | "03" => Class::Completion,
        "08" => Class::Connection,
        "0A" => Class::Unsupported,
        "0B" | "24" | "25" | "26" | "2D" | "34" | "3B" => Class::SessionState,
        "0L" | "0P" | "28" | "2B" => Class::Privilege,
        "3D" | "3F" => Class::Catalog,
        "21" | "F0" => Class::Configuration,
        "22" => Class::Data,
        "23" | "44" => Class::Integrity,
        "09" | "0F" | "0Z" | "10" | "20" | "27" | "2F" | "38" | "39" | "P0" => Class::Routine,
        "40" => Class::Rollback,
        "42" => Class::Syntax,
        "53" => Class::Resources,
        "54" => Class::Limits,
        "55" => Class::State,
        "57" => Class::Intervention,
        "58" => Class::System,
        "72" => Class::Snapshot,
        "HV" => Class::Foreign,
        "XX" => Class::Internal,
        _ => Class::Custom,
    }
}

/// The line of the error's context that speaks of the `COPY`: the last one, since contexts go from the inside
/// out and a trigger's statement may come before it.
fn copy_context(error: &DbError) -> Option<&str> {
    error.where_()?.lines().rev().find(|line| line.contains("COPY"))
}

/// The row that the server refused, counted from 1 in the order sent, where its context says so.
///
/// The context is `COPY table, line N` or `COPY table, line N, column c`, in the server's language. What is
/// looked for is therefore `, word N`, and it must be there once: in a language with another order, or with a
/// table or column whose name looks like it, this is `None`, and the row is found by bisection.
#[must_use]
pub fn copy_line(error: &Error) -> Option<u64> {
    line_in(copy_context(error.as_db_error()?)?)
}

fn line_in(context: &str) -> Option<u64> {
    let rest = context.strip_prefix("COPY ")?;
    let mut lines = rest.split(", ").skip(1).filter_map(|part| {
        let (word, number) = part.split_once(' ')?;
        (!word.is_empty()).then(|| number.parse::<u64>().ok())?
    });
    match (lines.next(), lines.next()) {
        (Some(line), None) => Some(line),
        _ => None,
    }
}

/// Whether something behind the target table fails for its rows, such as a foreign server, while this server
/// is there.
#[must_use]
pub fn is_behind(error: &Error, step: Step) -> bool {
    let class = error.code().map(|code| class(code.code()));
    let elsewhere =
        matches!(class, Some(Class::Connection | Class::Foreign | Class::Internal | Class::Intervention));
    let waits = [Decision::BackOff, Decision::BackOffUnlessRow].contains(&decide(error, step));
    step.judges_rows() && elsewhere && waits
}

/// What the server said, with its code.
#[must_use]
pub fn said(error: &Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("server: {}, SQLSTATE {}", error.message(), error.code().code()),
        None => error.to_string(),
    }
}

/// Schema and name of the relation that the error is about, where it names one: the table itself, a partition
/// or a chunk of it, or any other that a trigger writes to.
#[must_use]
pub fn relation(error: &Error) -> Option<(&str, &str)> {
    let error = error.as_db_error()?;
    Some((error.schema()?, error.table()?))
}

/// Whether the statement that writes rows met the error itself, and no function that it called nor another
/// statement: these are named in the error's context, where otherwise is the `COPY` alone or nothing.
#[must_use]
pub fn is_direct(error: &Error) -> bool {
    error.as_db_error().is_some_and(met_directly)
}

/// Whether it is a chunk, or the catalog of chunks, that an error is about: TimescaleDB reads no values.
fn met_by_timescaledb(error: &DbError) -> bool {
    error.routine().is_some_and(|name| name.starts_with("ts_") || name.starts_with("tsl_"))
}

fn met_directly(error: &DbError) -> bool {
    let context = error.where_().unwrap_or_default();
    // A function has brackets behind its name, in any language.
    context.is_empty() || (context.lines().count() == 1 && context.contains("COPY") && !context.contains('('))
}

/// Whether the server ended a statement or a session since it took too long: fewer rows at once may fit.
#[must_use]
pub fn ran_out_of_time(error: &Error) -> bool {
    // Cancelled, by `statement_timeout` or somebody; idle in a transaction; `transaction_timeout`.
    error.code().is_some_and(|code| matches!(code.code(), "57014" | "25P03" | "25P04"))
}

/// The partition key of the row that has no partition, with its value, as `(time) = (2027-01-01
/// 00:00:00+00)`. Where the role may not read the key's columns, the server keeps it to itself.
#[must_use]
pub fn partition_key(error: &Error) -> Option<&str> {
    let detail = error.as_db_error()?.detail()?;
    // A sentence in the server's language around it.
    Some(detail[detail.find('(')?..].trim_end_matches('.'))
}

/// What a person can do where rows meet something that is missing or wrong.
#[must_use]
pub fn remedy_for_rows(error: &Error) -> String {
    format!(
        "a trigger, generated column, default or constraint of the table fails: fix it, or provide what it \
         needs ({})",
        said(error)
    )
}

/// What a person can do where one message alone is more than the server takes at once, see
/// [`Decision::Divide`].
#[must_use]
pub fn remedy_for_limit(error: &Error) -> String {
    let hint =
        error.as_db_error().and_then(DbError::hint).map_or_else(String::new, |hint| format!(" {hint}"));
    let text = match error.code().map(SqlState::code) {
        Some("21000") => {
            "a trigger of the table gives several rows of the message the same key, but a statement may \
             update a row only once: let the mapping make the key that the trigger makes, or remove \
             on_conflict = \"update\" from the table"
        }
        _ => "raise the limit for jetcopy's role, with ALTER ROLE … SET … TO …; jetcopy retries by itself",
    };
    format!("{text} ({}{hint})", said(error))
}

/// What a person can do about an error that pauses a pipeline.
#[must_use]
pub fn remedy(error: &Error) -> String {
    let Some(code) = error.code() else {
        return "check that the server runs and can be reached".to_owned();
    };
    let text = match code.code() {
        "42P01" => {
            "create the table (`jetcopy migrate` creates jetcopy's own), or correct its name in the \
             configuration"
        }
        "42883" => "run `jetcopy migrate`: the database lacks a function of this version",
        "42703" => "add the column to the table, or remove it from the mapping",
        "42501" => {
            "grant the role the missing privilege: `jetcopy check` names it and its GRANT; \
             config/postgres/roles.sql has them all"
        }
        "3F000" => "create the schema; `jetcopy migrate` creates schema jetcopy",
        "3D000" => "create the database, or correct its name in [postgres] url",
        "28P01" => "correct the password (password_file) of the role in [postgres] url",
        "28000" => "create the role, allow it to log in, and add a line for it to pg_hba.conf",
        "0A000" => "the target must accept COPY and rows: a view, a foreign table or a frozen chunk may not",
        "2200H" => {
            "a sequence is exhausted: raise its maximum, for example with ALTER SEQUENCE … AS bigint \
             MAXVALUE …"
        }
        "22P04" => "restart the pipeline; if the error persists, report it as a bug in jetcopy's encoding",
        "55000" => "the target accepts no rows in its present state; see the server's message",
        "58P01" => "install what the server lacks, usually an extension's library",
        "XX001" | "XX002" => "the server reports damaged data: have it checked before anything is written",
        code => match class(code) {
            Class::Privilege => "grant the role what the server's message names",
            Class::Routine | Class::Custom => {
                "a trigger or an extension refuses the write; see the server's message"
            }
            Class::Data | Class::Integrity => {
                "jetcopy's own tables were changed manually; compare them with `jetcopy migrate --status`"
            }
            Class::Limits => "the statement is beyond a limit of the server; name fewer columns",
            Class::Syntax | Class::Unsupported | Class::Catalog | Class::Configuration | Class::State => {
                "the table is not what the configuration expects; run `jetcopy check`"
            }
            Class::Completion
            | Class::Connection
            | Class::SessionState
            | Class::Rollback
            | Class::Resources
            | Class::Intervention
            | Class::System
            | Class::Snapshot
            | Class::Foreign
            | Class::Internal => "see the server's message and its log",
        },
    };
    format!("{text} ({})", said(error))
}

#[cfg(test)]
mod tests;
