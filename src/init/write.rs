//! A proposal as SQL, as a configuration and as a case for `jetcopy test`.
//!
//! Guarantees: no password is written: an address that holds one stays where it came from, and the
//! configuration says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use super::names::{toml_key, toml_text};
use super::propose::{Column, Table};
use crate::config::{self, Config, redact_url};
use crate::encode::printed;
use crate::preview::{Made, Preview};
use crate::unreadable::Single;

/// After this age a hypertable's chunks are compressed.
const COMPRESS_AFTER: &str = "7 days";

/// What the server knows of names and extensions.
#[derive(Debug, Default)]
pub(crate) struct Server {
    /// Names that need quotes, with them.
    pub(crate) quoted: BTreeMap<String, String>,
    /// The schema, with quotes where it needs them, that tables are to be named with: the search path would
    /// find jetcopy's own first.
    pub(crate) schema: Option<String>,
    /// The schema of TimescaleDB, where it is installed, and whether it compresses.
    pub(crate) timescaledb: Option<(String, bool)>,
}

impl Server {
    /// A name as SQL has it.
    pub(crate) fn name<'n>(&'n self, name: &'n str) -> &'n str {
        self.quoted.get(name).map_or(name, String::as_str)
    }

    /// A table's name as SQL and the configuration have it.
    pub(crate) fn table(&self, name: &str) -> String {
        let name = self.name(name);
        self.schema.as_ref().map_or_else(|| name.to_owned(), |schema| format!("{schema}.{name}"))
    }
}

/// The statements that make the tables.
pub(crate) fn sql(tables: &[Table], server: &Server) -> String {
    let mut sql = String::new();
    for table in tables {
        let name = server.table(&table.name);
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|column| {
                let null = if column.not_null { " NOT NULL" } else { "" };
                format!("    {} {}{null}", server.name(&column.name), column.ty)
            })
            .collect();
        let _ = writeln!(sql, "CREATE TABLE {name} (\n{}\n);", columns.join(",\n"));
        let Some((schema, compresses)) = &server.timescaledb else { continue };
        let text = name.replace('\'', "''");
        let _ = writeln!(sql, "SELECT {schema}.create_hypertable('{text}', '{}');", table.time);
        if *compresses {
            let segment = table.segment.as_ref().map_or_else(String::new, |column| {
                format!("timescaledb.compress_segmentby = '{}', ", server.name(column))
            });
            let _ = writeln!(
                sql,
                "ALTER TABLE {name} SET (timescaledb.compress, {segment}timescaledb.compress_orderby = '{} \
                 DESC');\nSELECT {schema}.add_compression_policy('{text}', INTERVAL '{COMPRESS_AFTER}');",
                server.name(&table.time)
            );
        }
    }
    sql
}

/// The pipeline of a configuration.
pub(crate) fn pipeline(
    name: &str,
    stream: &str,
    compression: Option<&str>,
    tables: &[Table],
    server: &Server,
) -> String {
    let mut text = format!("[[pipeline]]\nname = {}\nstream = {}\n", toml_text(name), toml_text(stream));
    if let Some(compression) = compression {
        let _ = writeln!(text, "compression = {}", toml_text(compression));
    }
    for table in tables {
        let _ = writeln!(text, "\n[[pipeline.table]]\nname = {}", toml_text(&server.table(&table.name)));
        if let Some(path) = &table.for_each {
            let _ = writeln!(text, "for_each = {}", toml_text(path));
        }
        let mapped: String = table.columns.iter().filter_map(mapped).collect();
        if !mapped.is_empty() {
            let _ = write!(text, "[pipeline.table.columns]\n{mapped}");
        }
    }
    text
}

/// The line of a column, unless it takes the field of its own name.
fn mapped(column: &Column) -> Option<String> {
    let Column { name, source, unit, skip, .. } = column;
    let key = toml_key(name);
    match unit {
        _ if *skip => Some(format!("{key} = {{ skip = true }}\n")),
        Some(unit) => Some(format!("{key} = {{ from = {}, unit = \"{unit}\" }}\n", toml_text(source))),
        None if name == source => None,
        None => Some(format!("{key} = {}\n", toml_text(source))),
    }
}

/// The sections that say where the servers are.
pub(crate) fn servers(config: &Config) -> String {
    let mut text = "[nats]\n".to_owned();
    let nats = &config.nats;
    let unset = config::Nats::default();
    if let Some(context) = &nats.context {
        line(&mut text, "context", context);
    } else {
        address(&mut text, &nats.url, &config.origin.nats);
        files(
            &mut text,
            &[
                ("credentials_file", &nats.credentials_file),
                ("nkey_file", &nats.nkey_file),
                ("token_file", &nats.token_file),
                ("password_file", &nats.password_file),
            ],
        );
        if let Some(user) = &nats.user {
            line(&mut text, "user", user);
        }
        if nats.inbox_prefix != unset.inbox_prefix {
            line(&mut text, "inbox_prefix", &nats.inbox_prefix);
        }
        if nats.handshake_first {
            text += "handshake_first = true\n";
        }
        tls(&mut text, "nats", nats.tls.as_ref());
    }
    text += "\n[postgres]\n";
    address(&mut text, &config.postgres.url, &config.origin.postgres);
    files(&mut text, &[("password_file", &config.postgres.password_file)]);
    tls(&mut text, "postgres", config.postgres.tls.as_ref());
    text
}

fn line(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "{key} = {}", toml_text(value));
}

fn address(text: &mut String, url: &str, origin: &str) {
    if redact_url(url) == url {
        line(text, "url", url);
    } else {
        let _ = writeln!(text, "# url holds a password, so it is not written here; it came from {origin}");
    }
}

fn files(text: &mut String, files: &[(&str, &Option<std::path::PathBuf>)]) {
    for (key, path) in files {
        if let Some(path) = path {
            line(text, key, &path.display().to_string());
        }
    }
}

fn tls(text: &mut String, section: &str, tls: Option<&config::Tls>) {
    let Some(tls) = tls else { return };
    let _ = writeln!(text, "\n[{section}.tls]");
    let config::Tls { ca_file, cert_file, key_file } = tls;
    files(text, &[("ca_file", ca_file), ("cert_file", cert_file), ("key_file", key_file)]);
}

/// A case for `jetcopy test`: the shortest of the messages that fill most tables, and its rows.
pub(crate) fn case(preview: &mut Preview<'_>, singles: &[Single], made: &[Made]) -> Option<String> {
    let tables = |made: &Made| {
        let mut tables: Vec<usize> = made.rows.iter().map(|row| row.table).collect();
        tables.dedup();
        tables.len()
    };
    let good = singles.iter().zip(made).filter(|(_, made)| made.letters.is_empty() && !made.rows.is_empty());
    let (single, made) =
        good.max_by_key(|(single, made)| (tables(made), std::cmp::Reverse(single.message.payload.len())))?;
    let message = &single.message;
    let mut text = format!(
        "# Written by `jetcopy init`; run by `jetcopy test`, against the tables of the schema.\n[[case]]\n\
         name = \"message {} of the stream\"\nsubject = {}\nsequence = {}\ntimestamp = \"{}\"\n",
        message.sequence,
        toml_text(&message.subject),
        message.sequence,
        Timestamp::from_nanosecond(i128::from(message.timestamp_ns)).ok()?
    );
    text += &payload(preview, single, made);
    for row in &made.rows {
        let name = &preview.pipeline.tables[row.table].name;
        let _ = writeln!(text, "\n[[case.rows.{}]]", toml_key(name));
        for (column, field) in preview.columns(row.table).iter().zip(&row.fields) {
            let value = field.as_ref().map(|field| toml_text(&printed::text(column.ty, field)));
            let value = value.unwrap_or_else(|| "{ null = true }".to_owned());
            let _ = writeln!(text, "{} = {value}", toml_key(column.name));
        }
    }
    Some(text)
}

/// The message as JSON, where that makes the same rows, else as it is.
fn payload(preview: &mut Preview<'_>, single: &Single, made: &Made) -> String {
    use base64::Engine as _;
    let fields = |made: &Made| made.rows.iter().map(|row| row.fields.clone()).collect::<Vec<_>>();
    let as_json = made.payload.as_ref().map(ToString::to_string).filter(|json| {
        let mut message = single.message.clone();
        message.payload = json.clone().into();
        message.headers = None;
        let again = preview.make(&Single { message, unreadable: None });
        preview.pipeline.compression == config::Compression::Auto && fields(&again) == fields(made)
    });
    if let Some(json) = as_json {
        return format!("json = {}\n", toml_text(&json));
    }
    format!("base64 = \"{}\"\n", base64::engine::general_purpose::STANDARD.encode(&single.message.payload))
}
