//! `config/jetcopy.toml`, the reference of all settings, against the code, and `docs/settings.md` against
//! both.
//!
//! The file says what a setting does and shows its default, the code says of what type it is and whether it
//! may be missing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Format as _, Toml};
use serde::de::DeserializeOwned;

use super::{LEAST, document, load};
use crate::catalog::lives::Lives;
use crate::catalog::{After, ROLLUPS, TABLES, written};
use crate::config::*;

/// Set by `make docs`: write what is compared here instead.
pub(super) const WRITE: &str = "JETCOPY_WRITE_DOCS";

/// How the document begins.
const HEAD: &str = "\
# Settings

Every setting with its type, default and effect. `make docs` writes this page from `config/jetcopy.toml`,
which has the same as a file to copy from; a test compares both with the code.

The file is the one that `--config` or `JETCOPY_CONFIG` names, else `./jetcopy.toml`, else
`/etc/jetcopy/jetcopy.toml`. Each of these layers overrides the one before it: the defaults, what other
programs say of the servers (`nats.context`, `postgres.url`), the file, the environment, flags. In the
environment, a setting is `JETCOPY_`, its section and its key, with two underscores between them:
`postgres.url` is `JETCOPY_POSTGRES__URL`, `nats.tls.ca_file` is `JETCOPY_NATS__TLS__CA_FILE`. Pipelines can
only be set in a file. The flags are `--nats-url`, `--postgres-url`, `--log-level` and `--log-format`. An
unknown key is an error that names the nearest one. `jetcopy check` checks all settings against the servers,
and says where the addresses came from.

Editors know the settings by [settings.schema.json](settings.schema.json), a JSON Schema: with taplo or
\"Even Better TOML\", begin the file with `#:schema ./settings.schema.json`.

A *duration* is written as `\"20ms\"`, `\"5s\"`, `\"2m\"` or `\"7d\"`, a *size* as `\"64KiB\"` or `\"4MiB\"`,
an *age* as a duration or `\"never\"`.
";

/// A section of the reference: what stands before its header, and its settings in order.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) name: String,
    intro: String,
    pub(super) settings: Vec<Setting>,
}

#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: String,
    /// `None` where it is unset by default.
    pub(super) value: Option<String>,
    pub(super) effect: String,
}

/// The reference by sections. One that comes again is an example.
pub(super) fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let (mut comment, mut example) = (String::new(), false);
    for line in document("config/jetcopy.toml").lines() {
        let text = line.strip_prefix("# ").unwrap_or(line);
        if let Some(header) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let name = header.trim_matches(['[', ']']).to_owned();
            example = sections.iter().any(|section| section.name == name);
            if !example {
                sections.push(Section { name, intro: comment.clone(), ..Section::default() });
            }
            comment.clear();
        } else if let Some((key, value)) = text.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.'))
        {
            let section = sections.last_mut().unwrap();
            if !example && section.settings.iter().all(|setting| setting.key != key) {
                let value = (text == line).then(|| value.to_owned());
                let effect = comment.clone();
                section.settings.push(Setting { key: key.to_owned(), value, effect });
            }
            comment.clear();
        } else if let Some(text) = line.strip_prefix('#') {
            comment = comment + text.strip_prefix(' ').unwrap_or(text) + "\n";
        } else {
            comment.clear();
        }
    }
    sections
}

/// The settings of a type.
pub(super) fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    match Figment::new().merge(("no such key", 1)).extract::<T>().err().unwrap().kind {
        Kind::UnknownField(_, fields) => fields,
        other => panic!("{other}"),
    }
}

/// What is said of a value that a setting does not take.
fn refusal<T: DeserializeOwned>(least: &str, key: &str, value: &str) -> Option<Kind> {
    let settings = Figment::new().merge(Toml::string(least)).merge(Toml::string(&format!("{key} = {value}")));
    settings.extract::<T>().err().map(|error| error.kind)
}

/// Of what type a setting is, as the code has it.
pub(super) fn kind<T: DeserializeOwned>(least: &str, key: &str) -> String {
    let expected = match refusal::<T>(least, key, "\"no such value\"") {
        Some(Kind::UnknownVariant(_, known)) => {
            return known.iter().map(|value| format!("`\"{value}\"`")).collect::<Vec<_>>().join(", ");
        }
        Some(Kind::Message(said)) if said.contains("\"never\"") => return "age".to_owned(),
        Some(Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected)) => expected.clone(),
        Some(Kind::Message(_)) | None => match refusal::<T>(least, key, "[]") {
            Some(Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected)) => expected.clone(),
            other => panic!("{key}: {other:?}"),
        },
        Some(other) => panic!("{key}: {other:?}"),
    };
    match expected.as_str() {
        "a string" => "text",
        "path string" => "file",
        "a sequence" => "list of texts",
        "a boolean" => "`true`, `false`",
        "usize" | "u16" => "whole number",
        "a duration" => "duration",
        "parsable string" => "size",
        "socket address" => "address and port",
        start if start.starts_with("\"all\", \"new\", a sequence") => {
            "`\"all\"`, `\"new\"`, sequence or time"
        }
        other => panic!("{key} expects {other}: name its type here"),
    }
    .to_owned()
}

/// Whether a type cannot do without a setting.
pub(super) fn is_required<T: DeserializeOwned>(key: &str) -> bool {
    let others =
        ["name", "stream"].into_iter().filter(|&other| other != key && fields::<T>().contains(&other));
    let settings = others.fold(Figment::new(), |settings, other| settings.merge((other, "a")));
    let said = settings.extract::<T>().err().map(|error| error.kind);
    matches!(said, Some(Kind::MissingField(name)) if name == key)
}

/// A section's table, after a look at whether the reference has each setting that the type has.
fn table<T: DeserializeOwned>(
    section: &Section,
    least: &str,
    of_part: &[(&str, &[&str])],
    others: &[&str],
) -> String {
    for field in fields::<T>() {
        let parts = of_part.iter().find(|(name, _)| name == field).map(|(_, parts)| *parts);
        let has = |key: &str| section.settings.iter().any(|setting| setting.key == key);
        let there = match parts {
            Some(parts) => has(field) || parts.iter().all(|part| has(&format!("{field}.{part}"))),
            None => has(field) || others.contains(field),
        };
        assert!(there, "[{}] of the reference lacks {field}", section.name);
    }
    let mut out = String::from("| Setting | Type | Default | Effect |\n|---|---|---|---|\n");
    for Setting { key, value, effect } in &section.settings {
        let parts = of_part.iter().find(|(name, _)| name == key);
        let kind = match parts {
            Some((_, parts)) => format!("table: `{}`", parts.join("`, `")),
            None => kind::<T>(least, key),
        };
        let default = match value {
            _ if is_required::<T>(key) => "required".to_owned(),
            Some(value) => format!("`{value}`"),
            None => String::new(),
        };
        assert!(!effect.is_empty(), "[{}] {key} has no comment", section.name);
        writeln!(out, "| `{key}` | {kind} | {default} | {} |", cell(effect)).unwrap();
    }
    out
}

/// Lines as one, which may stand in a table.
fn cell(text: &str) -> String {
    text.trim().replace('\n', " ").replace('|', "\\|")
}

/// What the store keeps, by the catalog, with what the reference says of the settings.
fn store(sections: &BTreeMap<&str, &Section>) -> String {
    let effect = |section: &str, key: &str| {
        let setting = sections[section].settings.iter().find(|setting| setting.key == key);
        cell(&setting.unwrap_or_else(|| panic!("[{section}] of the reference lacks {key}")).effect)
    };
    let of = ("store.frame_metadata", "store.frame_stats_1m");
    let age = |after: After| after.age().map_or("never".to_owned(), written);
    let mut out = format!(
        "\n### `[store.TABLE]`\n\n| Setting | Type | Effect |\n|---|---|---|\n| `chunk_interval` | duration \
         | {} |\n| `compress_after` | age | {} |\n| `retention` | age | {} |\n\n| Defaults of | \
         `chunk_interval` | `compress_after` | `retention` |\n|---|---|---|---|\n",
        effect(of.0, "chunk_interval"),
        effect(of.0, "compress_after"),
        effect(of.0, "retention"),
    );
    for table in &TABLES {
        let life = table.life;
        let (compress, retention) = (age(life.compress_after), age(life.retention));
        writeln!(out, "| `{}` | {} | {compress} | {retention} |", table.name, written(life.chunk_interval))
            .unwrap();
    }
    write!(
        out,
        "\n### `[store.ROLL_UP]`\n\n| Setting | Type | Effect |\n|---|---|---|\n| `refresh` | table: `{}`, \
         each a duration | {} |\n| `retention` | age | {} |\n\n| Defaults of | `refresh.every` | \
         `refresh.window` | `refresh.lag` | `retention` |\n|---|---|---|---|---|\n",
        fields::<store::RefreshChange>().join("`, `"),
        effect(of.1, "refresh"),
        effect(of.1, "retention"),
    )
    .unwrap();
    for rollup in &ROLLUPS {
        let (life, refresh) = (rollup.life, rollup.life.refresh);
        let spans = [refresh.every, refresh.window, refresh.lag].map(written).join(" | ");
        writeln!(out, "| `{}` | {spans} | {} |", rollup.name, age(life.retention)).unwrap();
    }
    assert_eq!(fields::<store::LettersChange>(), ["retention"]);
    write!(
        out,
        "\n### `[store.dead_letters]`\n\n\
         | Setting | Type | Default | Effect |\n|---|---|---|---|\n| `retention` | age | never | {} |\n",
        effect("store.dead_letters", "retention"),
    )
    .unwrap();
    assert_eq!(fields::<store::TableChange>(), ["chunk_interval", "compress_after", "retention"]);
    assert_eq!(fields::<store::RollupChange>(), ["retention", "refresh"]);
    out
}

/// The settings of a pipeline that are several in one.
pub(super) fn parts_of_pipeline() -> [(&'static str, &'static [&'static str]); 3] {
    [("batch", fields::<BatchLimits>()), ("poison", fields::<PoisonLimits>()), ("ledger", fields::<Ledger>())]
}

/// The document, from the reference and the code.
fn settings() -> String {
    let sections = sections();
    let by_name: BTreeMap<&str, &Section> =
        sections.iter().map(|section| (section.name.as_str(), section)).collect();
    let mut out = HEAD.to_owned();
    for section in &sections {
        let table = match section.name.as_str() {
            "nats" => table::<Nats>(section, "", &[], &["tls"]),
            "postgres" => table::<Postgres>(section, "", &[], &["tls"]),
            "nats.tls" | "postgres.tls" => table::<Tls>(section, "", &[], &[]),
            "http" => table::<Http>(section, "", &[], &["api"]),
            "http.api" => table::<Api>(section, "", &[], &[]),
            "log" => table::<Log>(section, "", &[], &[]),
            "store" => {
                let keys: Vec<&str> = section.settings.iter().map(|setting| setting.key.as_str()).collect();
                assert_eq!(
                    keys,
                    [
                        "tables",
                        "schema",
                        "real_time",
                        "maintain_interval",
                        "partitions_back",
                        "partitions_ahead"
                    ]
                );
                let mut text = "| Setting | Type | Default | Effect |\n|---|---|---|---|\n".to_owned();
                for Setting { key, value, effect } in &section.settings {
                    let value = value.as_deref().map(|value| format!("`{value}`")).unwrap_or_default();
                    let kind = match key.as_str() {
                        "tables" => "list of texts, or `\"none\"`",
                        "schema" => "text",
                        "real_time" => "`true`, `false`",
                        _ => "duration",
                    };
                    writeln!(text, "| `{key}` | {kind} | {value} | {} |", cell(effect)).unwrap();
                }
                text + &store(&by_name)
            }
            name if name.starts_with("store.") => continue,
            "pipeline" => {
                table::<Pipeline>(section, "name = \"a\"\nstream = \"A\"", &parts_of_pipeline(), &["table"])
            }
            "pipeline.table" => {
                let parts: [(&str, &[&str]); 2] =
                    [("when", fields::<When>()), ("unpivot", fields::<Unpivot>())];
                table::<Table>(section, "name = \"a\"", &parts, &["columns"])
            }
            "pipeline.table.columns" => {
                for field in fields::<DetailedSource>() {
                    assert!(section.intro.contains(&format!("{field} = ")), "no source shows {field}");
                }
                String::new()
            }
            other => panic!("[{other}] is not known here"),
        };
        let (prose, sources): (Vec<&str>, Vec<&str>) =
            section.intro.lines().partition(|line| !line.starts_with("  "));
        let header =
            if table.is_empty() || section.name.contains("tls") || !section.name.starts_with("pipeline") {
                format!("[{}]", section.name)
            } else {
                format!("[[{}]]", section.name)
            };
        write!(out, "\n## `{header}`\n\n{}\n", prose.join("\n")).unwrap();
        if !sources.is_empty() {
            let sources = sources.iter().fold(String::new(), |text, line| text + &line[2..] + "\n");
            write!(out, "\n```text\n{sources}```\n").unwrap();
        }
        if !table.is_empty() {
            write!(out, "\n{table}").unwrap();
        }
    }
    let known: Vec<&str> = fields::<Config>().to_vec();
    assert!(known.iter().all(|name| by_name.contains_key(name)), "{known:?}");
    out
}

#[test]
fn the_reference_names_every_setting_and_the_document_says_what_reference_and_code_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let settings = settings();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &settings).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == settings,
        "docs/settings.md is not what config/jetcopy.toml and the code say: run `make docs`"
    );
}

#[test]
fn the_reference_shows_the_defaults() {
    let mut config = load(&document("config/jetcopy.toml")).unwrap();
    let pipeline = config.pipelines.remove(0);
    // It names all that a table which jetcopy creates gets by default.
    let named = std::mem::take(&mut config.store.named);
    assert_eq!(named, Lives::defaults());
    let bounds = std::mem::take(&mut config.store.partitions);
    assert_eq!((bounds.back, bounds.ahead), (Some(1_000), Some(7)), "as `jetcopy migrate` writes it");
    config.origin = Origin::default();
    assert_eq!(format!("{config:#?}"), format!("{:#?}", Config::default()));
    let mut least = load(LEAST).unwrap().pipelines.remove(0);
    least.tables.clone_from(&pipeline.tables);
    assert_eq!(format!("{pipeline:#?}"), format!("{least:#?}"));
    let table = &pipeline.tables[0];
    assert_eq!(table.on_conflict, OnConflict::default());
    assert!(table.key.is_empty() && table.for_each.is_none());
}

#[test]
fn what_is_unset_in_the_reference_may_be_set_as_it_shows() {
    let text: String = document("config/jetcopy.toml")
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            // The four ways to identify exclude each other: the last is kept.
            Some(text) if text.starts_with('[') => format!("{text}\n"),
            Some(text)
                if text
                    .split_once(" = ")
                    .is_some_and(|(key, _)| key.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_')))
                    && ![
                        "context",
                        "credentials_file",
                        "nkey_file",
                        "when",
                        "unpivot",
                        "for_each",
                        "newer_by",
                        "absent",
                    ]
                    .iter()
                    .any(|key| text.starts_with(key)) =>
            {
                format!("{text}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    // The token of NATS excludes its user; that of HTTP stays. Shards need streams with numbers.
    let text = text.replacen("token_file = ", "# token_file = ", 1);
    let config = load(&text.replacen("\nstream = \"FRAMES\"", "\nstream = \"FRAMES_{shard}\"", 1)).unwrap();
    assert_eq!(config.nats.user.as_deref(), Some("jetcopy"));
    assert!(config.nats.tls.is_some() && config.postgres.tls.is_some() && config.http.token_file.is_some());
    assert_eq!(config.http.api.map(|api| format!("{api:#?}")), {
        let password_file = Some("/etc/jetcopy/api.password".into());
        Some(format!("{:#?}", Api { password_file, ..Api::default() }))
    });
    assert_eq!(config.pipelines[0].durable.as_deref(), Some("jetcopy-frames"));
    assert_eq!(config.pipelines[0].shards().len(), 17);
}
