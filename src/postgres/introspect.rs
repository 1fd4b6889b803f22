//! What a target table looks like, read from `pg_catalog`.
//!
//! Guarantees: the name is resolved as the server would resolve it in a statement (search path, case folding,
//! quotes), and everything in [`Table`] is what a `COPY` that names columns meets. Each question is one
//! unnamed, typed statement, so that it works through a transaction pooler, inside a transaction or outside.
//!
//! It takes no lock. [`Table::shape`] is read before all else and stands for it: while `jetcopy.shape()` says
//! the same under the lock that rows are written under, the table is still what was read here.

use std::error::Error;

use tokio_postgres::types::{FromSql, Type as WireType};
use tokio_postgres::{Client, Row};

use crate::encode::types::Type;

pub use changes::Changes;
pub use fit::Rule;

/// A target table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Schema and name, quoted for SQL: `public.frame_metadata`.
    pub qualified: String,
    /// What `jetcopy.shape()` says of the table; `None` where the function is missing, so that no row can be
    /// written.
    pub shape: Option<i64>,
    /// Whether `LOCK TABLE` may name it: that takes the right to fill all of its columns.
    pub lockable: bool,
    /// The foreign table that its rows go to, or may go to: itself, or a partition.
    pub foreign: Option<String>,
    /// The unlogged table that its rows go to, or may go to: itself, or a partition.
    pub unlogged: Option<String>,
    /// Its rules on INSERT and UPDATE, which `INSERT` goes by and `COPY` does not.
    pub rules: Vec<Rule>,
    /// The role that policies of row-level security apply to, where they do.
    pub row_security: Option<String>,
    /// Columns in table order, without dropped and generated ones and those in `unsupported`.
    pub columns: Vec<Column>,
    /// Columns that the server generates, which nobody may fill.
    pub generated: Vec<String>,
    /// Columns of a type that jetcopy does not write: a mapping has to say that each is left to the server.
    pub unsupported: Vec<Unsupported>,
    /// The column that rows are sorted by: a hypertable's time dimension, else the first column of a
    /// partition key if that is one of time, else the first timestamp or date column.
    pub time_column: Option<String>,
    /// Columns of each unique key that `ON CONFLICT` can name: neither partial, nor deferrable, nor of
    /// expressions.
    pub unique_keys: Vec<Vec<String>>,
    /// Those of them in which NULL equals NULL (`NULLS NOT DISTINCT`, from PostgreSQL 15 on).
    pub null_keys: Vec<Vec<String>>,
    /// The roll-ups that jetcopy itself fills from this table, and has to be told what changes.
    pub rollups: Vec<RolledUp>,
}

impl Table {
    /// Whether NULL equals NULL in the unique index on exactly these columns.
    #[must_use]
    pub fn nulls_are_equal(&self, key: &[String]) -> bool {
        let is_it =
            |known: &Vec<String>| known.len() == key.len() && key.iter().all(|column| known.contains(column));
        self.null_keys.iter().any(is_it)
    }
}

/// A roll-up of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledUp {
    /// Its name.
    pub name: String,
    /// The span of a bucket, in microseconds.
    pub width: i64,
}

/// A column of a target table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, with domains resolved to their base.
    pub ty: Type,
    /// Its type as SQL writes it.
    pub type_name: String,
    /// Whether the column, or its domain, refuses NULL.
    pub not_null: bool,
    /// What the server writes when a `COPY` does not name the column.
    pub default: ServerDefault,
}

/// The default of a column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ServerDefault {
    /// NULL.
    #[default]
    None,
    /// Always this: a field of a binary `COPY`, length included.
    Constant(Box<[u8]>),
    /// What the server computes for each row: an identity, a sequence, the time.
    Computed,
}

/// A column that takes no field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Its name.
    pub name: String,
    /// Its type as SQL writes it.
    pub type_name: String,
    /// Whether it refuses NULL and has no default.
    pub required: bool,
}

/// Why a table cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum IntrospectError {
    /// There is no such table.
    #[error("table {name} does not exist: {remedy}")]
    Missing {
        /// Name as configured.
        name: String,
        /// What would fix it, with the name that was meant as far as that can be guessed.
        remedy: String,
    },
    /// It takes no rows as it is, or not in the way that is configured.
    #[error("table {table}: {problem}: {remedy}")]
    Unusable {
        /// Name as configured, or as the server knows it.
        table: String,
        /// What is in the way.
        problem: String,
        /// What would fix it.
        remedy: String,
    },
    /// The server did not answer the question.
    #[error("cannot query the catalog about table {name}")]
    Query {
        /// Name as configured.
        name: String,
        /// What the server or the driver said.
        #[source]
        source: tokio_postgres::Error,
    },
}

// Who may not look into the schema asks for nothing in it: `jetcopy preview` needs no right there.
const HAS_SHAPE: &str = "SELECT CASE WHEN EXISTS (SELECT FROM pg_namespace
        WHERE nspname = 'jetcopy' AND has_schema_privilege(oid, 'USAGE'::text))
    THEN to_regprocedure('jetcopy.shape(regclass)') IS NOT NULL ELSE false END";

const SHAPE: &str = "SELECT jetcopy.shape(to_regclass($1))";

const RESOLVE: &str =
    "SELECT c.oid, quote_ident(n.nspname::text) || '.' || quote_ident(c.relname::text), c.relkind::text,
        c.relkind IN ('r', 'p') AND has_table_privilege(c.oid, 'INSERT'),
        CASE WHEN row_security_active(c.oid) THEN current_user::text END,
        pg_relation_is_updatable(c.oid::regclass, true) & 8 <> 0
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass($1)::oid";

/// Each column's type is followed down: out of a domain to its base, out of an array to its elements. What is
/// neither is the leaf that decides, with the number of arrays passed and the type of the last array's
/// elements, which is the one in the binary form. Only domains around the column itself, not around
/// elements, speak for the column.
///
/// Last comes the default's expression where it is always the same value: its tree has nothing but constants
/// and calls of immutable functions (casts, mostly).
const COLUMNS: &str = "WITH RECURSIVE
    parts (attnum, oid, arrays, element, not_null, filled) AS (
        SELECT attnum, atttypid, 0, 0::oid, attnotnull, atthasdef OR attidentity <> ''
        FROM pg_attribute
        WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    UNION ALL
        SELECT p.attnum,
            CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE e.oid END,
            CASE WHEN t.typtype = 'd' THEN p.arrays ELSE p.arrays + 1 END,
            CASE WHEN t.typtype = 'd' THEN p.element ELSE e.oid END,
            p.not_null OR (p.arrays = 0 AND t.typtype = 'd' AND t.typnotnull),
            p.filled OR (p.arrays = 0 AND t.typtype = 'd' AND t.typdefault IS NOT NULL)
        FROM parts p
        JOIN pg_type t ON t.oid = p.oid
        LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
        WHERE t.typtype = 'd' OR e.oid IS NOT NULL
    )
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), p.not_null, p.filled, p.arrays, p.element,
        CASE WHEN t.typtype = 'e' THEN 'enum'
             WHEN t.typnamespace = 'pg_catalog'::regnamespace::oid OR t.typname = 'citext'
                 THEN t.typname::text
             ELSE '' END,
        CASE WHEN NOT EXISTS (
                 SELECT FROM regexp_matches(d.adbin::text, '[{]([A-Z]+)', 'g') AS node (names)
                 WHERE names[1] NOT IN ('ARRAY', 'ARRAYEXPR', 'CONST', 'FUNCEXPR', 'RELABELTYPE'))
             AND NOT EXISTS (
                 SELECT FROM regexp_matches(d.adbin::text, ':funcid ([0-9]+)', 'g') AS called (oids)
                 JOIN pg_proc f ON f.oid = oids[1]::oid
                 WHERE f.provolatile <> 'i')
             THEN 'CAST((' || pg_get_expr(d.adbin, d.adrelid) || ') AS ' || format_type(a.atttypid,
                 a.atttypmod) || ')' END
    FROM parts p
    JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = p.attnum
    LEFT JOIN pg_attrdef d ON d.adrelid = $1 AND d.adnum = p.attnum
    JOIN pg_type t ON t.oid = p.oid
    WHERE t.typtype <> 'd' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem
        AND e.typarray = t.oid)
    ORDER BY p.attnum";

const UNIQUE_KEYS: &str = "SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.place),
        bool_or(coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct'::text)::bool, false))
    FROM pg_index i
    CROSS JOIN pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate
        AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
    GROUP BY i.indexrelid, i.indisprimary
    ORDER BY i.indisprimary DESC, i.indexrelid";

const PARTITION_KEY: &str = "SELECT a.attname::text
    FROM pg_partitioned_table p
    JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
    WHERE p.partrelid = $1 AND p.partstrat = 'r'
        AND a.atttypid IN ('timestamptz'::regtype::oid, 'timestamp'::regtype::oid, 'date'::regtype::oid)";

const HAS_ROLLUPS: &str = "SELECT CASE WHEN EXISTS (SELECT FROM pg_namespace
        WHERE nspname = 'jetcopy' AND has_schema_privilege(oid, 'USAGE'::text))
    THEN to_regprocedure('jetcopy.rollups_of(regclass)') IS NOT NULL ELSE false END";

const ROLLUPS: &str = "SELECT name, (extract(epoch FROM width) * 1000000::numeric)::int8
    FROM jetcopy.rollups_of($1::oid::regclass)";

const HAS_DIMENSIONS: &str = "SELECT to_regclass('timescaledb_information.dimensions') IS NOT NULL";

const TIME_DIMENSION: &str = "SELECT d.column_name::text
    FROM timescaledb_information.dimensions d
    JOIN pg_class c ON c.relname = d.hypertable_name
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = d.hypertable_schema
    WHERE c.oid = $1 AND d.dimension_type = 'Time'
    ORDER BY d.dimension_number
    LIMIT 1";

/// Looks at table `name`, schema-qualified and quoted where needed.
pub async fn introspect(client: &Client, name: &str) -> Result<Table, IntrospectError> {
    introspect_beside(client, name, &[]).await
}

/// The same; where there is no such table, none of those in `used` was meant.
pub async fn introspect_beside(client: &Client, name: &str, used: &[&str]) -> Result<Table, IntrospectError> {
    let failed = |source| IntrospectError::Query { name: name.to_owned(), source };
    let shape = shape(client, name).await.map_err(failed)?;
    let resolved = client.query_typed_opt(RESOLVE, &[(&name, WireType::TEXT)]).await.map_err(failed)?;
    let Some(row) = resolved else {
        let remedy = nearest::remedy(client, name, used).await.map_err(failed)?;
        return Err(IntrospectError::Missing { name: name.to_owned(), remedy });
    };
    let relation = relation(&row).map_err(failed)?;
    if let Some((problem, remedy)) = fit::takes_no_rows(&relation.kind, relation.insertable) {
        let (problem, remedy) = (problem.to_owned(), remedy.to_owned());
        return Err(IntrospectError::Unusable { table: name.to_owned(), problem, remedy });
    }
    fit::not_restoring(client, name).await?;
    let Relation { oid, qualified, lockable, row_security, .. } = relation;
    let foreign = fit::foreign_part(client, oid).await.map_err(failed)?;
    let unlogged = fit::unlogged_part(client, oid).await.map_err(failed)?;
    let rules = fit::rules(client, oid).await.map_err(failed)?;
    let generated = fit::generated(client, oid).await.map_err(failed)?;
    let mut table = Table {
        qualified,
        shape,
        lockable,
        foreign,
        unlogged,
        rules,
        row_security,
        generated,
        ..Table::default()
    };
    let mut constants = Vec::new();
    for row in client.query_typed(COLUMNS, &[(&oid, WireType::OID)]).await.map_err(failed)? {
        match column(&row).map_err(failed)? {
            Found::Column(column) => {
                if let Some(expression) = row.try_get::<_, Option<String>>(7).map_err(failed)? {
                    constants.push((table.columns.len(), expression));
                }
                table.columns.push(column);
            }
            Found::Unsupported(column) => table.unsupported.push(column),
        }
    }
    evaluate(client, &constants, &mut table.columns).await.map_err(failed)?;
    for row in client.query_typed(UNIQUE_KEYS, &[(&oid, WireType::OID)]).await.map_err(failed)? {
        let key: Vec<String> = row.try_get(0).map_err(failed)?;
        if row.try_get(1).map_err(failed)? {
            table.null_keys.push(key.clone());
        }
        table.unique_keys.push(key);
    }
    table.time_column = match time_dimension(client, oid).await.map_err(failed)? {
        Some(column) => Some(column),
        None => first_time_column(&table.columns),
    };
    let kept: bool =
        client.query_typed_one(HAS_ROLLUPS, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    if kept {
        for row in client.query_typed(ROLLUPS, &[(&oid, WireType::OID)]).await.map_err(failed)? {
            let name = row.try_get(0).map_err(failed)?;
            table.rollups.push(RolledUp { name, width: row.try_get(1).map_err(failed)? });
        }
    }
    Ok(table)
}

/// What [`Table::shape`] is now.
async fn shape(client: &Client, name: &str) -> Result<Option<i64>, tokio_postgres::Error> {
    let known: bool = client.query_typed_one(HAS_SHAPE, &[]).await?.try_get(0)?;
    if !known {
        return Ok(None);
    }
    client.query_typed_one(SHAPE, &[(&name, WireType::TEXT)]).await?.try_get(0)
}

/// What a name stands for.
struct Relation {
    oid: u32,
    qualified: String,
    /// As `pg_class.relkind` has it.
    kind: String,
    lockable: bool,
    row_security: Option<String>,
    insertable: bool,
}

fn relation(row: &Row) -> Result<Relation, tokio_postgres::Error> {
    Ok(Relation {
        oid: row.try_get(0)?,
        qualified: row.try_get(1)?,
        kind: row.try_get(2)?,
        lockable: row.try_get(3)?,
        row_security: row.try_get(4)?,
        insertable: row.try_get(5)?,
    })
}

enum Found {
    Column(Column),
    Unsupported(Unsupported),
}

fn column(row: &Row) -> Result<Found, tokio_postgres::Error> {
    let name: String = row.try_get(0)?;
    let (not_null, filled): (bool, bool) = (row.try_get(2)?, row.try_get(3)?);
    let (arrays, element_oid): (i32, u32) = (row.try_get(4)?, row.try_get(5)?);
    let (type_name, leaf): (String, &str) = (row.try_get(1)?, row.try_get(6)?);
    let ty = match (scalar(leaf), arrays) {
        (Some(ty), 0) => Some(ty),
        (Some(ty), 1) => Some(Type::Array { element: Box::new(ty), element_oid }),
        // An array of a domain over an array nests in a way that no message does.
        (Some(_) | None, _) => None,
    };
    let Some(ty) = ty else {
        return Ok(Found::Unsupported(Unsupported { name, type_name, required: not_null && !filled }));
    };
    let default = if filled { ServerDefault::Computed } else { ServerDefault::None };
    Ok(Found::Column(Column { name, ty, type_name, not_null, default }))
}

/// Puts the values of constant defaults into their columns.
async fn evaluate(
    client: &Client,
    constants: &[(usize, String)],
    columns: &mut [Column],
) -> Result<(), tokio_postgres::Error> {
    if constants.is_empty() {
        return Ok(());
    }
    let expressions: Vec<&str> = constants.iter().map(|(_, expression)| expression.as_str()).collect();
    let row = client.query_typed_one(&format!("SELECT {}", expressions.join(", ")), &[]).await?;
    for (index, (column, _)) in constants.iter().enumerate() {
        columns[*column].default = match row.try_get(index)? {
            Some(Field(field)) => ServerDefault::Constant(field),
            None => ServerDefault::None,
        };
    }
    Ok(())
}

/// A value of any type as a field of a binary `COPY`, which is its binary form on the wire.
struct Field(Box<[u8]>);

impl FromSql<'_> for Field {
    fn from_sql(_: &WireType, raw: &[u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let length = i32::try_from(raw.len())?.to_be_bytes();
        Ok(Self([&length, raw].concat().into()))
    }

    fn accepts(_: &WireType) -> bool {
        true
    }
}

/// The type that a name in `pg_catalog` stands for; `enum` and `citext` are the two from elsewhere.
fn scalar(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int2" => Type::Int2,
        "int4" => Type::Int4,
        "int8" => Type::Int8,
        "float4" => Type::Float4,
        "float8" => Type::Float8,
        "numeric" => Type::Numeric,
        "text" | "varchar" | "bpchar" | "name" | "enum" | "citext" => Type::Text,
        "bytea" => Type::Bytea,
        "uuid" => Type::Uuid,
        "timestamptz" => Type::Timestamptz,
        "timestamp" => Type::Timestamp,
        "date" => Type::Date,
        "time" => Type::Time,
        "interval" => Type::Interval,
        "json" => Type::Json,
        "jsonb" => Type::Jsonb,
        "inet" => Type::Inet { cidr: false },
        "cidr" => Type::Inet { cidr: true },
        _ => return None,
    })
}

async fn time_dimension(client: &Client, oid: u32) -> Result<Option<String>, tokio_postgres::Error> {
    let offered: bool = client.query_typed_one(HAS_DIMENSIONS, &[]).await?.try_get(0)?;
    if offered {
        let row = client.query_typed_opt(TIME_DIMENSION, &[(&oid, WireType::OID)]).await?;
        if let Some(row) = row {
            return row.try_get(0).map(Some);
        }
    }
    let row = client.query_typed_opt(PARTITION_KEY, &[(&oid, WireType::OID)]).await?;
    row.map(|row| row.try_get(0)).transpose()
}

fn first_time_column(columns: &[Column]) -> Option<String> {
    let is_time = |column: &&Column| matches!(column.ty, Type::Timestamptz | Type::Timestamp | Type::Date);
    columns.iter().find(is_time).map(|column| column.name.clone())
}

mod changes;
mod fit;
mod nearest;
pub mod saved;

#[cfg(test)]
mod tests;
