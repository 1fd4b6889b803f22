//! The `OpenAPI` document of the API, made from the list of queries.
//!
//! Guarantees: each query is a path with its arguments as parameters and its columns as the row of its
//! answer; tests compare it with real answers.

use serde_json::{Map, Value, json};

use crate::store::query::named::{Argument, Kind, QUERIES, Query};

/// What holds for every path.
const ABOUT: &str = "Named queries over jetcopy's store: each returns the rows of the SQL function of the \
                     same name. Times are RFC 3339 in UTC; a column without a value is null, and so are NaN \
                     and infinities. `truncated` says that there are more rows than the server returns at a \
                     time ([http.api] max_rows): narrow the query, by time first.";

/// The name of the schema of a refusal; no query has it.
const ERROR: &str = "error";

pub(super) fn document() -> Value {
    let paths: Map<String, Value> =
        QUERIES.iter().map(|query| (format!("/{}", query.path), json!({"get": operation(query)}))).collect();
    let mut schemas: Map<String, Value> =
        QUERIES.iter().map(|query| (query.name.to_owned(), row(query))).collect();
    schemas.insert(ERROR.to_owned(), error());
    json!({
        "openapi": "3.0.3",
        "info": {"title": "jetcopy store", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT},
        "servers": [{"url": "/api/v1"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "http.token_file"},
            },
            "schemas": schemas,
            "responses": {
                "refused": refusal("The arguments are invalid, or ask for too much: the text says what would \
                                    be right."),
                "unauthorized": {"description": "The token is missing or wrong."},
                "failed": refusal("The daemon's role or database lacks something: the text says what."),
                "away": refusal("The database is unreachable, or too many queries are running: retry after \
                                 Retry-After seconds."),
                "late": refusal("The query took too long: narrow it, by time first."),
            },
        },
    })
}

fn operation(query: &Query) -> Value {
    let parameters: Vec<Value> = query.arguments.iter().map(parameter).collect();
    let of = |name: &str| json!({"$ref": format!("#/components/responses/{name}")});
    json!({
        "operationId": query.name,
        "summary": query.help,
        "parameters": parameters,
        "responses": {
            "200": {"description": "The rows.", "content": {"application/json": {"schema": answer(query)}}},
            "400": of("refused"), "401": of("unauthorized"), "500": of("failed"), "503": of("away"),
            "504": of("late"),
        },
    })
}

fn parameter(argument: &Argument) -> Value {
    let schema = match argument.kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Time => {
            json!({"type": "string", "description": "2026-07-01T12:00:00Z, or a duration before now: 2h"})
        }
        Kind::Span => json!({"type": "string", "description": "30s, 5m, 1h or 1d"}),
        Kind::Integer => json!({"type": "integer", "format": "int64", "minimum": 0}),
        Kind::Number => json!({"type": "number", "format": "double"}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Width => json!({"type": "string", "enum": ["1m", "1h", "1d"]}),
    };
    let default = argument.default.map(|default| format!("; by default: {default}")).unwrap_or_default();
    json!({
        "name": argument.name,
        "in": "query",
        "required": argument.default.is_none(),
        "description": format!("{}{default}", argument.help),
        "style": "form",
        // Lists are comma-separated.
        "explode": false,
        "schema": schema,
    })
}

fn answer(query: &Query) -> Value {
    json!({
        "type": "object",
        "required": ["query", "truncated", "rows"],
        "additionalProperties": false,
        "properties": {
            "query": {"type": "string", "enum": [query.name]},
            "truncated": {"type": "boolean"},
            "rows": {"type": "array", "items": {"$ref": format!("#/components/schemas/{}", query.name)}},
        },
    })
}

/// A row: each column is there, and may be null.
fn row(query: &Query) -> Value {
    let names: Vec<&str> = query.columns().map(|(name, _)| name).collect();
    let properties: Map<String, Value> =
        query.columns().map(|(name, sql_type)| (name.to_owned(), column(sql_type))).collect();
    json!({"type": "object", "required": names, "additionalProperties": false, "properties": properties})
}

fn column(sql_type: &str) -> Value {
    match sql_type {
        "timestamptz" => json!({"type": "string", "format": "date-time", "nullable": true}),
        "bigint" => json!({"type": "integer", "format": "int64", "nullable": true}),
        "integer" => json!({"type": "integer", "format": "int32", "nullable": true}),
        "float8" => json!({"type": "number", "format": "double", "nullable": true}),
        "boolean" => json!({"type": "boolean", "nullable": true}),
        // Without a type, any value is meant.
        "jsonb" => json!({"description": "any JSON", "nullable": true}),
        _ => json!({"type": "string", "nullable": true}),
    }
}

fn refusal(text: &str) -> Value {
    let schema = json!({"$ref": format!("#/components/schemas/{ERROR}")});
    json!({"description": text, "content": {"application/json": {"schema": schema}}})
}

fn error() -> Value {
    json!({"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}})
}
