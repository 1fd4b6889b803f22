//! The rules that a type cannot express.
//!
//! Guarantees: all problems are found at once, each with its key and what would be right. It looks at no
//! server and at no file.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use super::origin::PLACES;
use super::{
    Absent, BadElement, ColumnSource, Config, ConfigError, ConnInfo, DetailedSource, Format, HeaderIs, Http,
    Nats, OnConflict, OnUnmatched, Pipeline, Postgres, Problem, Table, Tls, Unpivot, When,
};

mod paths;
mod shards;
mod values;

/// Longest name of a pipeline: it is part of `application_name`, of which PostgreSQL keeps 63 bytes, beside a
/// prefix and a shard.
const MAX_NAME: usize = 40;

/// Largest batch: offsets into a table's rows are 32 bits wide, and a batch may pass its limit by one
/// message.
const MAX_BATCH_BYTES: u64 = 1 << 30;

/// Most that one payload may expand to: sixteen times the largest message of a server.
const MAX_DECOMPRESSED_BYTES: u64 = 1 << 30;

/// How many times `batch.max_bytes` the buffer must hold. Half of it is for pull requests on the way; in the
/// other half, one batch fills, one waits and one is written, each with its rows and with the messages that
/// they came from.
const MIN_BUFFERED_BATCHES: u64 = 12;

/// Most writers of a pipeline: each is a session of the server, and a core of it where it has work.
const MAX_WRITERS: usize = 32;

impl Config {
    /// All problems of these settings.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Problems::default();
        nats(&self.nats, &mut found);
        postgres(&self.postgres, &mut found);
        http(&self.http, &mut found);
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log.level) {
            found.add("log.level", format!("{error}; try `info` or `jetcopy=debug`"));
        }
        for (key, text) in self.store.problems() {
            found.add(key, text);
        }
        for (index, pipeline) in self.pipelines.iter().enumerate() {
            let at = |key: &str| format!("pipeline[{index}].{key}");
            check_pipeline(pipeline, &at, &mut found);
            shards::apart(pipeline, &self.pipelines[..index], &at, &mut found);
        }
        found.0
    }

    /// The tables of all pipelines, as configured.
    pub(crate) fn tables(&self) -> Vec<&str> {
        self.pipelines.iter().flat_map(|pipeline| &pipeline.tables).map(|table| table.name.as_str()).collect()
    }

    /// Refuses settings without a pipeline, for the commands that need one.
    pub fn require_pipelines(&self) -> Result<(), ConfigError> {
        if !self.pipelines.is_empty() {
            return Ok(());
        }
        let place = self.origin.file.as_ref().map(|path| path.display().to_string());
        let text = match place {
            Some(_) => "there is no [[pipeline]]; see config/jetcopy.toml for an example".to_owned(),
            None => format!(
                "there is no configuration: neither --config nor JETCOPY_CONFIG names a file, and there is \
                 no {}; name or write one (docs/getting-started.md)",
                PLACES.join(" and no ")
            ),
        };
        Err(ConfigError::Invalid(vec![Problem { place, key: String::new(), text }]))
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.0.push(Problem { place: None, key: key.into(), text: text.into() });
    }
}

fn nats(nats: &Nats, found: &mut Problems) {
    for server in nats.url.split(',') {
        if server.trim().is_empty() {
            found.add("nats.url", "a server address is empty");
        } else if async_nats::ServerAddr::from_str(server.trim()).is_err() {
            // The parser's own message may quote the address, and with it a password.
            found.add("nats.url", "not a server address, such as nats://host:4222");
        } else if ["ws://", "wss://"].iter().any(|scheme| is_of_scheme(server.trim(), scheme)) {
            found.add(
                "nats.url",
                "jetcopy does not support NATS over WebSocket; use the server's client port, as in \
                 nats://host:4222",
            );
        }
    }
    let ways = [
        ("credentials_file", nats.credentials_file.is_some()),
        ("nkey_file", nats.nkey_file.is_some()),
        ("token_file", nats.token_file.is_some()),
        ("user", nats.user.is_some()),
    ];
    let given: Vec<_> = ways.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    if given.len() > 1 {
        found.add("nats", format!("{} are mutually exclusive; keep one", given.join(" and ")));
    }
    if nats.user.is_some() != nats.password_file.is_some() {
        found.add("nats", "user and password_file go together");
    }
    if !is_subject(&nats.inbox_prefix) || nats.inbox_prefix.contains(['*', '>']) {
        found.add("nats.inbox_prefix", "must be a subject without wildcards, such as `_INBOX_jetcopy`");
    }
    tls("nats.tls", nats.tls.as_ref(), found);
}

fn is_of_scheme(address: &str, scheme: &str) -> bool {
    address.get(..scheme.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(scheme))
}

fn postgres(postgres: &Postgres, found: &mut Problems) {
    postgres_url("postgres.url", &postgres.url, found);
    for (key, value) in
        [("connect_timeout", postgres.connect_timeout), ("step_timeout", postgres.step_timeout)]
    {
        if value.is_zero() {
            found.add(format!("postgres.{key}"), "must be more than 0");
        }
    }
    tls("postgres.tls", postgres.tls.as_ref(), found);
}

fn postgres_url(key: &str, url: &str, found: &mut Problems) {
    // Its text holds nothing of the string.
    if let Err(error) = ConnInfo::check(url) {
        found.add(key, error.to_string());
    }
}

fn http(http: &Http, found: &mut Problems) {
    if !http.listen.ip().is_loopback() && http.token_file.is_none() {
        found.add(
            "http.listen",
            "anyone who can reach this address could read /status: set a token_file that requests must \
             present, or listen on 127.0.0.1",
        );
    }
    let Some(api) = &http.api else { return };
    if http.token_file.is_none() {
        found.add("http.api", "is served only with a token: set token_file in [http]");
    }
    postgres_url("http.api.url", &api.url, found);
    let zeros = [
        ("max_rows", api.max_rows == 0),
        ("max_bytes", api.max_bytes.as_u64() == 0),
        ("timeout", api.timeout.is_zero()),
        ("concurrency", api.concurrency == 0),
    ];
    for (key, _) in zeros.iter().filter(|(_, is_zero)| *is_zero) {
        found.add(format!("http.api.{key}"), "must be more than 0");
    }
}

fn tls(key: &str, tls: Option<&Tls>, found: &mut Problems) {
    if tls.is_some_and(|tls| tls.cert_file.is_some() != tls.key_file.is_some()) {
        found.add(key, "cert_file and key_file go together");
    }
}

fn check_pipeline(pipeline: &Pipeline, at: &dyn Fn(&str) -> String, found: &mut Problems) {
    if let Some(why) = unsafe_name(&pipeline.name) {
        found.add(at("name"), why);
    } else if pipeline.name.len() > MAX_NAME {
        found.add(at("name"), format!("longer than {MAX_NAME} characters"));
    }
    if !is_nats_name(&pipeline.stream) {
        found
            .add(at("stream"), "a stream name must not be empty or contain spaces, `.`, `*`, `>` or slashes");
    }
    if pipeline.durable.as_deref().is_some_and(|durable| !is_nats_name(durable)) {
        found.add(
            at("durable"),
            "a consumer name must not be empty or contain spaces, `.`, `*`, `>` or slashes",
        );
    }
    let mut subjects = BTreeSet::new();
    for subject in &pipeline.subjects {
        if !is_subject(subject) {
            found.add(at("subjects"), format!("`{subject}` is not a subject, such as `frames.*.meta`"));
        }
        if !subjects.insert(subject) {
            found.add(at("subjects"), format!("`{subject}` is listed twice"));
        }
    }
    shards::check(pipeline, at, found);
    batch(pipeline, at, found);
    if !(1..=MAX_DECOMPRESSED_BYTES).contains(&pipeline.max_decompressed_bytes.as_u64()) {
        found.add(at("max_decompressed_bytes"), "must be from 1 B to 1 GiB");
    }
    writers(pipeline, at, found);
    if pipeline.tables.is_empty() {
        found.add(at("table"), "a pipeline needs at least one [[pipeline.table]]");
    }
    for (index, table) in pipeline.tables.iter().enumerate() {
        check_table(table, &|key| at(&format!("table[{index}].{key}")), found);
    }
    for (index, table) in pipeline.tables.iter().enumerate() {
        let at = |key: &str| at(&format!("table[{index}].{key}"));
        match pipeline.format {
            Format::Raw => check_bare(table, &at, found),
            Format::Ndjson | Format::Influx if !table.splits_root() => {
                found.add(at("for_each"), LINES);
            }
            _ => {}
        }
    }
    paths::contradictions(&pipeline.tables, at, found);
    if pipeline.on_unmatched == OnUnmatched::Skip
        && let Some(table) = pipeline.tables.iter().find(|table| table.when.is_none())
    {
        found.add(
            at("on_unmatched"),
            format!("has no effect: table {} has no `when` and accepts every message", table.name),
        );
    }
}

fn batch(pipeline: &Pipeline, at: &dyn Fn(&str) -> String, found: &mut Problems) {
    let batch = &pipeline.batch;
    if batch.max_rows == 0 || u32::try_from(batch.max_rows).is_err() {
        found.add(at("batch.max_rows"), format!("must be from 1 to {}", u32::MAX));
    }
    if batch.max_age.is_some_and(|age| age.is_zero()) {
        found.add(at("batch.max_age"), "must be more than 0");
    }
    let max_bytes = batch.max_bytes.as_u64();
    if max_bytes == 0 || max_bytes > MAX_BATCH_BYTES {
        found.add(at("batch.max_bytes"), "must be from 1 B to 1 GiB");
    } else if pipeline.buffered_bytes().as_u64() < MIN_BUFFERED_BATCHES * max_bytes {
        let least = bytesize::ByteSize(MIN_BUFFERED_BATCHES * max_bytes);
        found.add(
            at("max_buffered_bytes"),
            format!("must be {MIN_BUFFERED_BATCHES} times batch.max_bytes: at least {least}"),
        );
    }
}

/// Several writers commit in no order among them.
fn writers(pipeline: &Pipeline, at: &dyn Fn(&str) -> String, found: &mut Problems) {
    if !(1..=MAX_WRITERS).contains(&pipeline.writers) {
        found.add(at("writers"), format!("must be from 1 to {MAX_WRITERS}"));
    }
    if pipeline.writers > 1
        && let Some(table) = pipeline.tables.iter().find(|table| table.goes_by_order())
    {
        found.add(
            at("writers"),
            format!(
                "must be 1: table {} has on_conflict = \"update\" without newer_by, so its rows depend on \
                 the order of messages, which several writers do not keep",
                table.name
            ),
        );
    }
}

fn check_table(table: &Table, at: &dyn Fn(&str) -> String, found: &mut Problems) {
    if table.name.trim().is_empty() {
        found.add(at("name"), "a table needs a name");
    }
    if table.direct_compress && table.on_conflict != OnConflict::Error {
        found.add(at("direct_compress"), "works only with on_conflict = \"error\": a unique key disables it");
    }
    if table.bad_element == BadElement::Element && table.for_each.is_none() {
        found.add(at("bad_element"), "has no effect without for_each: each message is one row here");
    }
    if let Some(when) = &table.when {
        check_when(when, at, found);
    }
    if let Some(Unpivot { fields, map, rest }) = &table.unpivot
        && [!fields.is_empty(), map.is_some(), *rest].iter().filter(|given| **given).count() != 1
    {
        found.add(at("unpivot"), "must be one of `fields = [\"a\"]`, `map = \"a\"` and `rest = true`");
    }
    let unpivoted = table.unpivot.iter().flat_map(|unpivot| &unpivot.fields);
    if unpivoted.clone().collect::<BTreeSet<_>>().len() < unpivoted.count() {
        found.add(at("unpivot.fields"), "names a field twice");
    }
    let keys: BTreeSet<_> = table.key.iter().collect();
    if keys.len() < table.key.len() {
        found.add(at("key"), "names a column twice");
    }
    match table.on_conflict {
        OnConflict::Update if table.key.is_empty() => {
            found.add(at("key"), "on_conflict = \"update\" needs the columns of the unique key");
        }
        OnConflict::Error if !table.key.is_empty() => {
            found.add(at("key"), "has no effect without on_conflict = \"ignore\" or \"update\"");
        }
        OnConflict::Error | OnConflict::Ignore | OnConflict::Update => {}
    }
    match &table.newer_by {
        Some(_) if table.on_conflict != OnConflict::Update => {
            found.add(at("newer_by"), "has no effect without on_conflict = \"update\"");
        }
        Some(column) if table.key.contains(column) => {
            found.add(at("newer_by"), "is part of the key, which is equal in the rows to compare");
        }
        Some(_) | None => {}
    }
    match table.absent {
        Some(_) if table.on_conflict != OnConflict::Update => {
            found.add(at("absent"), "has no effect without on_conflict = \"update\"");
        }
        Some(Absent::Keep) if table.newer_by.is_some() => found.add(
            at("absent"),
            "cannot be combined with newer_by, which skips whole rows and with them fields that the newer \
             row may lack; use one of the two",
        ),
        Some(Absent::Keep | Absent::Null) | None => {}
    }
    paths::check(table, at, found);
    for (column, source) in &table.columns {
        let key = at(&format!("columns.{column}"));
        match source {
            ColumnSource::Detailed(source) if source.skip => {
                if *source != (DetailedSource { skip: true, ..DetailedSource::default() }) {
                    found.add(key, "a skipped column cannot have other settings");
                } else if table.key.contains(column) {
                    found.add(key, "is part of the key and cannot be skipped");
                }
            }
            ColumnSource::Detailed(source) if source.constant.is_some() => {
                if *source
                    != (DetailedSource { constant: source.constant.clone(), ..DetailedSource::default() })
                {
                    found.add(key, "a constant cannot have other settings");
                }
            }
            ColumnSource::Detailed(source) => values::check(source, &key, found),
            ColumnSource::From(_) => {}
        }
    }
}

/// What NDJSON and line protocol ask of each table.
const LINES: &str = "in this format a message is a list, of which each line is a row: set this to \"$\"";

/// A bare value has no fields to go into.
fn check_bare(table: &Table, at: &dyn Fn(&str) -> String, found: &mut Problems) {
    let by_field = table.when.as_ref().is_some_and(|when| when.field.is_some());
    let given = [
        ("for_each", table.for_each.is_some()),
        ("unpivot", table.unpivot.is_some()),
        ("when.field", by_field),
    ];
    for (key, _) in given.iter().filter(|(_, given)| *given) {
        found.add(
            at(key),
            "with format = \"raw\" a message is one value without fields: remove this, or use another format",
        );
    }
}

fn check_when(when: &When, at: &dyn Fn(&str) -> String, found: &mut Problems) {
    let When { subject, headers, field, equals } = when;
    if subject.is_none() && headers.is_empty() && field.is_none() {
        found.add(at("when"), "needs a `subject`, `headers` or a `field`");
    }
    for (name, is) in headers {
        let key = at(&format!("when.headers.{name}"));
        if name.is_empty()
            || name.contains(|character: char| !character.is_ascii_graphic() || character == ':')
        {
            found.add(key, "is not a header name, such as `Nats-Marker-Reason`");
        } else if *is == HeaderIs::OneOf(Vec::new()) {
            found.add(key, "must be a string, an array of strings, true (present) or false (absent)");
        }
    }
    if let Some(subject) = subject
        && !is_subject(subject)
    {
        found.add(at("when.subject"), format!("`{subject}` is not a subject, such as `series.*.points`"));
    }
    if equals.is_some() && field.is_none() {
        found.add(at("when.equals"), "is the value of `field`, which is missing");
    }
}

/// Why a name cannot stand in a shard, a consumer's name, a metric's label and `application_name` alike.
fn unsafe_name(name: &str) -> Option<&'static str> {
    let safe = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    if name.is_empty() {
        Some("a pipeline needs a name")
    } else if name.chars().all(safe) {
        None
    } else {
        Some("only letters, digits, `-` and `_` are allowed")
    }
}

/// Whether the server takes `name` for a stream or a consumer.
fn is_nats_name(name: &str) -> bool {
    let bad = |character: char| {
        character.is_whitespace()
            || character.is_control()
            || matches!(character, '.' | '*' | '>' | '/' | '\\')
    };
    !name.is_empty() && !name.chars().any(bad)
}

/// Whether `subject` is a subject, with or without wildcards.
fn is_subject(subject: &str) -> bool {
    let tokens: Vec<_> = subject.split('.').collect();
    let last = tokens.len() - 1;
    tokens.iter().enumerate().all(|(index, token)| {
        !token.is_empty()
            && !token.chars().any(|character| character.is_whitespace() || character.is_control())
            && (*token != ">" || index == last)
    })
}
