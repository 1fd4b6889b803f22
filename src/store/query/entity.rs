//! Projects, files and series metadata, as they are created, changed and deleted.
//!
//! Guarantees: a row is never replaced by one whose `updated_at` is older, as a pipeline with `newer_by = "updated_at"` does
//! it, so that both can write. A deleted project or file stays as such, and an event from before its deletion does not bring
//! it back; the metadata of a series, which has no status, is removed.

use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};

use super::record::{Field, Record};
use super::registry::{File, Project};
use super::series::SeriesMetadata;
use super::{Store, StoreError, records};

/// A row that has a key and the time of its last change.
pub trait Entity: Record {
    /// Its table.
    const TABLE: &'static str;
    /// Its key.
    const KEY: &'static [&'static str];
    /// Its columns, in the order of [`Self::values`].
    const FIELDS: &'static [&'static str];
    /// Its values with their types.
    fn values(&self) -> Vec<(&(dyn ToSql + Sync), Type)>;
}

fn typed<T: Field>(value: &T) -> (&(dyn ToSql + Sync), Type) {
    (value, T::TYPE)
}

macro_rules! entity {
    ($type:ident, $table:literal, [$($key:literal),*], [$($field:ident),* $(,)?]) => {
        impl Entity for $type {
            const TABLE: &'static str = $table;
            const KEY: &'static [&'static str] = &[$($key),*];
            const FIELDS: &'static [&'static str] = $type::COLUMNS;

            fn values(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
                // Taken apart, so that a field that is added does not compile until it is here.
                let Self { $($field),* } = self;
                vec![$(typed($field)),*]
            }
        }
    };
}

entity!(
    Project,
    "projects",
    ["id"],
    [id, name, path, size_bytes, table_count, bucket_count, status, settings, created_at, updated_at]
);
entity!(
    File,
    "files",
    ["project_id", "path"],
    [
        project_id,
        path,
        name,
        size_bytes,
        content_type,
        md5,
        sha256,
        staged,
        expires_at,
        tags,
        status,
        created_at,
        updated_at
    ]
);
entity!(
    SeriesMetadata,
    "time_series_metadata",
    ["id"],
    [id, name, description, time_column, value_columns, attributes, updated_at]
);

/// The columns of `E`, and those of its key, as a statement lists them.
fn lists<E: Entity>() -> (String, String) {
    (E::FIELDS.join(", "), E::KEY.join(", "))
}

/// `insert` without its conflict, which the caller adds.
fn insert<E: Entity>() -> String {
    let places: Vec<String> = (1..=E::FIELDS.len()).map(|place| format!("${place}")).collect();
    format!("INSERT INTO {} ({}) VALUES ({})", E::TABLE, lists::<E>().0, places.join(", "))
}

/// `column = $n` for each column, or for those of the key.
fn equations<E: Entity>(of_key: bool, separator: &str) -> String {
    let equations: Vec<String> = E::FIELDS
        .iter()
        .zip(1..)
        .filter(|(column, _)| E::KEY.contains(column) == of_key)
        .map(|(column, place)| format!("{column} = ${place}"))
        .collect();
    equations.join(separator)
}

impl Store {
    /// The row with this key, in the order of [`Entity::KEY`].
    pub async fn get<E: Entity>(&self, key: &[&str]) -> Result<Option<E>, StoreError> {
        let conditions: Vec<String> =
            E::KEY.iter().zip(1..).map(|(column, place)| format!("{column} = ${place}")).collect();
        let sql = format!("SELECT {} FROM {} WHERE {}", lists::<E>().0, E::TABLE, conditions.join(" AND "));
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            key.iter().map(|part| (part as &(dyn ToSql + Sync), Type::TEXT)).collect();
        Ok(records(&self.read(&sql, &parameters).await?)?.pop())
    }

    /// Adds a row; `false`: its key is there already, and nothing was changed.
    pub async fn create<E: Entity>(&self, row: &E) -> Result<bool, StoreError> {
        let sql = format!("{} ON CONFLICT DO NOTHING RETURNING 1", insert::<E>());
        Ok(!self.change(&sql, &row.values()).await?.is_empty())
    }

    /// Replaces a row; `false`: it is not there, or is newer, and nothing was changed.
    pub async fn update<E: Entity>(&self, row: &E) -> Result<bool, StoreError> {
        let sql = format!(
            "UPDATE {} SET {} WHERE {} AND updated_at <= ${} RETURNING 1",
            E::TABLE,
            equations::<E>(false, ", "),
            equations::<E>(true, " AND "),
            E::FIELDS.len()
        );
        Ok(!self.change(&sql, &row.values()).await?.is_empty())
    }

    /// Adds or replaces a row; `false`: there is a newer one, and nothing was changed.
    pub async fn put<E: Entity>(&self, row: &E) -> Result<bool, StoreError> {
        let sql = format!(
            "{} ON CONFLICT ({}) DO UPDATE SET {} WHERE {}.updated_at <= EXCLUDED.updated_at RETURNING 1",
            insert::<E>(),
            lists::<E>().1,
            equations::<E>(false, ", "),
            E::TABLE
        );
        Ok(!self.change(&sql, &row.values()).await?.is_empty())
    }

    /// Marks a project as deleted at a time; `false`: it is not there, or was changed after that.
    pub async fn delete_project(&self, id: &str, at: Timestamp) -> Result<bool, StoreError> {
        let sql = "UPDATE projects SET status = 'deleted', updated_at = $2 WHERE id = $1 AND updated_at <= $2 RETURNING 1";
        Ok(!self.change(sql, &[(&id, Type::TEXT), (&at, Type::TIMESTAMPTZ)]).await?.is_empty())
    }

    /// Marks a file as deleted at a time; `false`: it is not there, or was changed after that.
    pub async fn delete_file(&self, project: &str, path: &str, at: Timestamp) -> Result<bool, StoreError> {
        let sql = "UPDATE files SET status = 'deleted', updated_at = $3
            WHERE project_id = $1 AND path = $2 AND updated_at <= $3 RETURNING 1";
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&project, Type::TEXT), (&path, Type::TEXT), (&at, Type::TIMESTAMPTZ)];
        Ok(!self.change(sql, &parameters).await?.is_empty())
    }

    /// Removes the metadata of a series; its points stay. `false`: there was none.
    pub async fn delete_series_metadata(&self, id: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM time_series_metadata WHERE id = $1 RETURNING 1";
        Ok(!self.change(sql, &[(&id, Type::TEXT)]).await?.is_empty())
    }
}
