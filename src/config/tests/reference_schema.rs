//! `docs/settings.schema.json`, by which editors know the settings, against the reference and the code.
//!
//! It is written by `make docs` from the same two: the code says of what type a setting is, the reference
//! what it does.

use std::path::Path;

use figment::Figment;
use figment::providers::{Format as _, Toml};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::document;
use super::reference::{Section, WRITE, fields, is_required, kind, parts_of_pipeline, sections};
use crate::catalog::{ROLLUPS, TABLES};
use crate::config::*;

/// A value of a type as `docs/settings.md` calls it.
fn of_kind(kind: &str) -> Value {
    let list: Vec<&str> = kind.split(", ").map(|part| part.trim_matches(['`', '"'])).collect();
    match kind {
        "text" | "file" | "address and port" | "duration" | "age" => json!({"type": "string"}),
        "size" | "`\"all\"`, `\"new\"`, sequence or time" => json!({"type": ["string", "integer"]}),
        "list of texts" => json!({"type": "array", "items": {"type": "string"}}),
        "`true`, `false`" => json!({"type": "boolean"}),
        "whole number" => json!({"type": "integer", "minimum": 0}),
        _ => json!({"enum": list}),
    }
}

/// What the reference says of a setting.
fn described(mut value: Value, section: &Section, key: &str) -> Value {
    if let Some(setting) = section.settings.iter().find(|setting| setting.key == key) {
        let mut effect = setting.effect.trim().replace('\n', " ");
        if let Some(default) = &setting.value {
            effect = format!("{effect} Default: {default}");
        }
        value["description"] = effect.into();
    }
    value
}

fn closed(properties: Map<String, Value>) -> Value {
    json!({"type": "object", "properties": Value::Object(properties), "additionalProperties": false})
}

/// The settings of a type; `others` are those that the code does not say the type of.
fn object<T: DeserializeOwned>(section: &Section, least: &str, others: &[(&str, Value)]) -> Value {
    let mut properties = Map::new();
    for &field in fields::<T>() {
        let other = others.iter().find(|(name, _)| *name == field).map(|(_, value)| value.clone());
        let value = other.unwrap_or_else(|| of_kind(&kind::<T>(least, field)));
        properties.insert(field.to_owned(), described(value, section, field));
    }
    let mut object = closed(properties);
    let required: Vec<&str> = fields::<T>().iter().copied().filter(|field| is_required::<T>(field)).collect();
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// The settings of a type that is one setting of another.
fn part<T: DeserializeOwned>(section: &Section, name: &str) -> Value {
    let each = fields::<T>().iter().map(|&field| {
        let value = of_kind(&kind::<T>("", field));
        (field.to_owned(), described(value, section, &format!("{name}.{field}")))
    });
    closed(each.collect())
}

/// Where the value of a column comes from.
fn source() -> Value {
    let each = fields::<DetailedSource>().iter().map(|&field| {
        let value = match field {
            "default" | "constant" => json!({}),
            "round" | "round_bits" => json!({"type": "integer", "minimum": 0, "maximum": 255}),
            "from" => json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
            "substring" => {
                let number = json!({"type": "integer", "minimum": 0});
                json!({"type": "array", "items": number, "minItems": 2, "maxItems": 2})
            }
            "truncate" => json!({"type": "integer", "minimum": 1}),
            "map" => json!({"type": "object"}),
            "scale" => json!({"type": "number"}),
            "offset" => json!({"type": ["string", "number"]}),
            field => of_kind(&kind::<DetailedSource>("", field)),
        };
        (field.to_owned(), value)
    });
    json!({"anyOf": [{"type": "string"}, closed(each.collect())]})
}

fn table(section: &Section) -> Value {
    let header = json!({"anyOf": [{"type": ["string", "boolean"]},
        {"type": "array", "items": {"type": "string"}}]});
    let when = [
        ("subject", json!({"type": "string"})),
        ("headers", json!({"type": "object", "additionalProperties": header})),
        ("field", json!({"type": "string"})),
        ("equals", json!({"type": ["string", "integer", "boolean", "array"]})),
    ];
    assert_eq!(fields::<When>(), when.clone().map(|(name, _)| name));
    let when = closed(when.map(|(name, value)| (name.to_owned(), value)).into_iter().collect());
    let others = [
        ("when", when),
        ("unpivot", part::<Unpivot>(section, "unpivot")),
        ("columns", json!({"type": "object", "additionalProperties": source()})),
    ];
    object::<Table>(section, "name = \"a\"", &others)
}

fn store(section: &Section) -> Value {
    let mut properties = Map::new();
    for setting in &section.settings {
        let value = match setting.key.as_str() {
            "tables" => {
                json!({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"enum": ["none"]}]})
            }
            "real_time" => json!({"type": "boolean"}),
            _ => json!({"type": "string"}),
        };
        properties.insert(setting.key.clone(), described(value, section, &setting.key));
    }
    let texts = |names: &[&str]| {
        let each = names.iter().map(|name| ((*name).to_owned(), json!({"type": "string"})));
        closed(each.collect())
    };
    for table in &TABLES {
        properties.insert(table.name.to_owned(), texts(fields::<store::TableChange>()));
    }
    let mut rollup = texts(&["retention"]);
    rollup["properties"]["refresh"] = texts(fields::<store::RefreshChange>());
    for found in &ROLLUPS {
        properties.insert(found.name.to_owned(), rollup.clone());
    }
    properties.insert("dead_letters".to_owned(), texts(fields::<store::LettersChange>()));
    closed(properties)
}

/// The document.
fn schema() -> Value {
    let sections = sections();
    let of = |name: &str| sections.iter().find(|section| section.name == name).unwrap();
    let tls = |name: &str| object::<Tls>(of(name), "", &[]);
    let [batch, poison, ledger] = parts_of_pipeline().map(|(name, _)| name);
    let pipeline = of("pipeline");
    let others = [
        (batch, part::<BatchLimits>(pipeline, batch)),
        (poison, part::<PoisonLimits>(pipeline, poison)),
        (ledger, part::<Ledger>(pipeline, ledger)),
        ("table", json!({"type": "array", "items": table(of("pipeline.table"))})),
    ];
    let pipeline = object::<Pipeline>(pipeline, "name = \"a\"\nstream = \"A\"", &others);
    let all = [
        ("nats", object::<Nats>(of("nats"), "", &[("tls", tls("nats.tls"))])),
        ("postgres", object::<Postgres>(of("postgres"), "", &[("tls", tls("postgres.tls"))])),
        ("http", object::<Http>(of("http"), "", &[("api", object::<Api>(of("http.api"), "", &[]))])),
        ("log", object::<Log>(of("log"), "", &[])),
        ("store", store(of("store"))),
        ("pipeline", json!({"type": "array", "items": pipeline})),
    ];
    assert_eq!(fields::<Config>(), all.clone().map(|(name, _)| name));
    let mut schema = closed(all.map(|(name, value)| (name.to_owned(), value)).into_iter().collect());
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "jetcopy.toml".into();
    schema["description"] = "The settings of jetcopy; docs/settings.md has them for people.".into();
    schema
}

/// What in `value` is not as `schema` says, by the words that the schema uses.
fn wrong(schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.is_empty() && !types.contains(&is) {
        found.push(format!("{place}: {is} instead of {types:?}"));
    }
    if let Some(known) = schema["enum"].as_array()
        && !known.contains(value)
    {
        found.push(format!("{place}: {value} is none of {known:?}"));
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let fits = |schema: &Value| {
            let mut found = Vec::new();
            wrong(schema, value, place, &mut found);
            found.is_empty()
        };
        if !any.iter().any(fits) {
            found.push(format!("{place}: {value} is none of the forms"));
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            found.push(format!("{place}: {name} is missing"));
        }
    }
    for (index, element) in value.as_array().into_iter().flatten().enumerate() {
        wrong(&schema["items"], element, &format!("{place}[{index}]"), found);
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let place = format!("{place}.{name}");
        match (schema["properties"].get(name), &schema["additionalProperties"]) {
            (None, Value::Bool(false)) => found.push(format!("{place}: unknown")),
            (Some(schema), _) | (None, schema) => wrong(schema, value, &place, found),
        }
    }
}

/// What is wrong with a configuration, by the schema.
fn judged(text: &str) -> Vec<String> {
    let value: figment::value::Dict = Figment::from(Toml::string(text)).extract().unwrap();
    let mut found = Vec::new();
    wrong(&schema(), &serde_json::to_value(value).unwrap(), "", &mut found);
    found
}

#[test]
fn the_schema_for_editors_is_what_reference_and_code_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.schema.json");
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/settings.schema.json is not what the code says: run `make docs`");
}

#[test]
fn the_schema_takes_every_configuration_that_is_shipped() {
    for path in
        ["config/jetcopy.toml", "config/store.toml", "config/demo.toml", "config/compose/jetcopy.toml"]
    {
        assert_eq!(judged(&document(path)), [""; 0], "{path}");
    }
    // All that the reference shows, whether it is set or not; columns have the names that they have.
    let shown: Vec<String> = sections()
        .iter()
        .filter(|section| section.name != "pipeline.table.columns")
        .flat_map(|section| {
            let of = |key: &str| format!("{}.{key}", section.name);
            section.settings.iter().map(move |setting| of(&setting.key)).collect::<Vec<_>>()
        })
        .collect();
    let schema = schema();
    for key in shown {
        let mut at = &schema;
        for step in key.split('.') {
            at = if at["items"].is_object() { &at["items"] } else { at };
            at = at["properties"].get(step).unwrap_or_else(|| panic!("{key}: the schema lacks {step}"));
        }
    }
}

#[test]
fn the_schema_refuses_what_the_program_refuses_for_its_key_or_its_type() {
    let pipeline = "[[pipeline]]\nname = \"a\"\nstream = \"A\"\n";
    for (text, said) in [
        ("[nats]\nurll = \"a\"\n".to_owned(), ".nats.urll: unknown"),
        (format!("{pipeline}format = \"xml\"\n"), ".pipeline[0].format: \"xml\" is none of"),
        (format!("{pipeline}batch = {{ max_rows = \"many\" }}\n"), ".pipeline[0].batch.max_rows: string"),
        ("[[pipeline]]\nname = \"a\"\n".to_owned(), ".pipeline[0]: stream is missing"),
        (
            format!(
                "{pipeline}[[pipeline.table]]\nname = \"t\"\n[pipeline.table.columns]\n\
                 a = {{ form = \"b\" }}\n"
            ),
            ".pipeline[0].table[0].columns.a: {\"form\":\"b\"} is none of the forms",
        ),
    ] {
        let found = judged(&text);
        assert!(found.len() == 1 && found[0].starts_with(said), "{text}\n{found:?}");
        assert!(super::load(&text).is_err(), "{text}");
    }
}
