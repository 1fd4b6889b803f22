//! Tables in a file, for those who have no server at hand.
//!
//! Guarantees: what a decoder's plan is made from is read back as it was found: columns, types, nullability,
//! defaults, keys. The file is JSON that people can read and compare.
//!
//! Not kept: what only a writer needs (locks, shape, rules, roll-ups), the labels of enumerations and the
//! checks of domains.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use super::{Column, ServerDefault, Table, Unsupported, scalar};
use crate::encode::types::Type;
use crate::encode::{BASE64, printed};

/// The form of the file; another one is not read.
const VERSION: u32 = 1;

/// Tables by their names as the configuration has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The form of the file.
    jetcopy_schema: u32,
    tables: BTreeMap<String, SavedTable>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedTable {
    qualified: String,
    columns: Vec<SavedColumn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_column: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unique_keys: Vec<Vec<String>>,
    /// Those of them in which NULL equals NULL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    null_keys: Vec<Vec<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    generated: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unsupported: Vec<SavedUnsupported>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedColumn {
    name: String,
    /// As SQL writes it.
    r#type: String,
    /// As jetcopy writes it: `int4`, `text[]`.
    encoded_as: String,
    /// OID of the elements' type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    element_oid: Option<u32>,
    #[serde(default, skip_serializing_if = "is_false")]
    not_null: bool,
    /// Whether the server computes it for each row that does not name it.
    #[serde(default, skip_serializing_if = "is_false")]
    computed: bool,
    /// A default that is always the same, as the server sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_base64: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedUnsupported {
    name: String,
    r#type: String,
    #[serde(default, skip_serializing_if = "is_false")]
    required: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Why there are no tables to go by.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The file cannot be read.
    #[error("cannot read the schema {path}; `jetcopy check --save-schema {path}` writes it",
        path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the schema {path}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is of another form.
    #[error("{path} is no schema that `jetcopy check --save-schema` of this version writes",
        path = .path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It lacks a table, or knows a type that this version does not.
    #[error("the schema {problem}: write it anew with `jetcopy check --save-schema`")]
    Lacks {
        /// What.
        problem: String,
    },
}

impl Saved {
    /// The file's contents for tables and their names in the configuration.
    pub fn new<'t>(tables: impl IntoIterator<Item = (&'t str, &'t Table)>) -> Self {
        let tables = tables.into_iter().map(|(name, table)| (name.to_owned(), SavedTable::of(table)));
        Self { jetcopy_schema: VERSION, tables: tables.collect() }
    }

    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, SavedError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SavedError::Read { path: path.to_owned(), source })?;
        let saved: Self = serde_json::from_str(&text)
            .map_err(|source| SavedError::Form { path: path.to_owned(), source })?;
        if saved.jetcopy_schema != VERSION {
            let problem = format!("{} is of form {}", path.display(), saved.jetcopy_schema);
            return Err(SavedError::Lacks { problem });
        }
        Ok(saved)
    }

    /// Writes it to the file at `path`.
    pub fn write(&self, path: &Path) -> Result<(), SavedError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        std::fs::write(path, text).map_err(|source| SavedError::Write { path: path.to_owned(), source })
    }

    /// The names of its tables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// The table that the configuration calls `name`.
    pub fn table(&self, name: &str) -> Result<Table, SavedError> {
        let Some(found) = self.tables.get(name) else {
            return Err(SavedError::Lacks { problem: format!("has no table {name}") });
        };
        found.table().ok_or_else(|| SavedError::Lacks {
            problem: format!("of table {name} has a type that this version does not know"),
        })
    }
}

impl SavedTable {
    fn of(table: &Table) -> Self {
        let unsupported = |column: &Unsupported| SavedUnsupported {
            name: column.name.clone(),
            r#type: column.type_name.clone(),
            required: column.required,
        };
        Self {
            qualified: table.qualified.clone(),
            columns: table.columns.iter().map(SavedColumn::of).collect(),
            time_column: table.time_column.clone(),
            unique_keys: table.unique_keys.clone(),
            null_keys: table.null_keys.clone(),
            generated: table.generated.clone(),
            unsupported: table.unsupported.iter().map(unsupported).collect(),
        }
    }

    fn table(&self) -> Option<Table> {
        let unsupported = |column: &SavedUnsupported| Unsupported {
            name: column.name.clone(),
            type_name: column.r#type.clone(),
            required: column.required,
        };
        Some(Table {
            qualified: self.qualified.clone(),
            columns: self.columns.iter().map(SavedColumn::column).collect::<Option<_>>()?,
            time_column: self.time_column.clone(),
            unique_keys: self.unique_keys.clone(),
            null_keys: self.null_keys.clone(),
            generated: self.generated.clone(),
            unsupported: self.unsupported.iter().map(unsupported).collect(),
            ..Table::default()
        })
    }
}

impl SavedColumn {
    fn of(column: &Column) -> Self {
        let (encoded_as, element_oid) = match &column.ty {
            Type::Array { element, element_oid } => (format!("{}[]", element.name()), Some(*element_oid)),
            ty => (ty.name().to_owned(), None),
        };
        let constant = match &column.default {
            ServerDefault::Constant(field) => field.get(4..),
            ServerDefault::None | ServerDefault::Computed => None,
        };
        Self {
            name: column.name.clone(),
            r#type: column.type_name.clone(),
            encoded_as,
            element_oid,
            not_null: column.not_null,
            computed: column.default == ServerDefault::Computed,
            default_base64: constant.map(|field| BASE64.encode(field)),
            default: constant.map(|field| printed::text(&column.ty, field)),
        }
    }

    fn column(&self) -> Option<Column> {
        let ty = match self.encoded_as.strip_suffix("[]") {
            Some(element) => {
                Type::Array { element: Box::new(scalar(element)?), element_oid: self.element_oid? }
            }
            None => scalar(&self.encoded_as)?,
        };
        let default = match &self.default_base64 {
            Some(text) => {
                let field = BASE64.decode(text).ok()?;
                let length = u32::try_from(field.len()).ok()?.to_be_bytes();
                ServerDefault::Constant([&length[..], &field].concat().into())
            }
            None if self.computed => ServerDefault::Computed,
            None => ServerDefault::None,
        };
        let (name, type_name) = (self.name.clone(), self.r#type.clone());
        Some(Column { name, ty, type_name, not_null: self.not_null, default })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_back_as_it_was_found() {
        let column = |name: &str, ty: Type, default| Column {
            name: name.into(),
            type_name: format!("{ty:?}"),
            ty,
            not_null: true,
            default,
        };
        let array = Type::Array { element: Box::new(Type::Numeric), element_oid: 1_700 };
        let seven = ServerDefault::Constant([0, 0, 0, 2, 0, 7].into());
        let table = Table {
            qualified: "public.\"T\"".into(),
            columns: vec![
                column("a", Type::Int2, seven),
                column("b", array, ServerDefault::Computed),
                column("c", Type::Inet { cidr: true }, ServerDefault::None),
            ],
            unique_keys: vec![vec!["a".into()]],
            generated: vec!["g".into()],
            unsupported: vec![Unsupported { name: "p".into(), type_name: "point".into(), required: true }],
            time_column: Some("a".into()),
            ..Table::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("schema.json");
        Saved::new([("t", &table)]).write(&path).unwrap();
        let saved = Saved::read(&path).unwrap();
        assert_eq!(format!("{:?}", saved.table("t").unwrap()), format!("{table:?}"));
        let error = saved.table("u").unwrap_err().to_string();
        assert!(error.contains("has no table u"), "{error}");
        std::fs::write(&path, "{\"jetcopy_schema\": 2, \"tables\": {}}").unwrap();
        assert!(Saved::read(&path).unwrap_err().to_string().contains("is of form 2"));
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(Saved::read(&path), Err(SavedError::Form { .. })));
    }
}
