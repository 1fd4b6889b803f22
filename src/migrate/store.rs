//! The store's tables beside the migrations: what was dropped comes back, what jetcopy no longer knows is
//! known again, and what is another system's is reported.
//!
//! Guarantees: a table that is there is never changed, but for the triggers that keep the operations log
//! append-only, the registry's tallies, and `created_at` of time series; where nothing is missing, nothing is
//! written. What is created again is made by the text of the migrations that made it first.

use std::borrow::Cow;
use std::collections::BTreeMap;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{MIGRATIONS, MigrateError, Migration};
use crate::catalog::groups::{Group, Groups};
use crate::catalog::{BUCKET, ROLLUPS, Rollup, TABLES};

/// The tag of blocks that make what any group needs. Those of one group are tagged with its name.
const ANY_GROUP: &str = "store";

/// The columns of the store's tables, with their types. A table that has them is the store's own, or as good.
const COLUMNS: [(&str, &str); 9] = [
    (
        "frame_metadata",
        "time timestamptz, camera_id text, frame_id bigint, width integer, height integer, codec text, \
         fps float8, key_frame boolean, size_bytes bigint, processing_ms float8, brightness float8, \
         motion float8, attributes jsonb",
    ),
    (
        "detection_events",
        "time timestamptz, camera_id text, frame_id bigint, track_id bigint, label text, \
         confidence float8, bbox_left float8, bbox_top float8, bbox_width float8, bbox_height float8, \
         attributes jsonb",
    ),
    (
        "measurements",
        "timestamp_utc timestamptz, task_id text, websdr_id text, frequency_mhz float8, \
         sample_rate_khz float8, samples_count bigint, snr_db float8, frequency_offset_hz float8, \
         power_dbm float8, s3_path text, attributes jsonb",
    ),
    (
        "websdrs",
        "id text, name text, location text, url text, active boolean, attributes jsonb, \
         created_at timestamptz, updated_at timestamptz",
    ),
    (
        "time_series_metadata",
        "id text, name text, description text, time_column text, value_columns text[], attributes jsonb, \
         created_at timestamptz, updated_at timestamptz",
    ),
    ("time_series_data_points", "timestamp timestamptz, series_id text, column_name text, value float8"),
    (
        "projects",
        "id text, name text, path text, size_bytes bigint, table_count bigint, bucket_count bigint, \
         status text, settings jsonb, created_at timestamptz, updated_at timestamptz",
    ),
    (
        "files",
        "project_id text, path text, name text, size_bytes bigint, content_type text, md5 text, \
         sha256 text, staged boolean, expires_at timestamptz, tags jsonb, status text, \
         created_at timestamptz, updated_at timestamptz",
    ),
    (
        "operations_log",
        "timestamp timestamptz, request_id text, project_id text, operation text, resource text, \
         details jsonb, duration_ms float8, status text, error text",
    ),
];

/// The registry's view.
const STATS: &str = "stats";

const MISSING: &str =
    "SELECT name FROM pg_catalog.unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL";

/// Forgets what is no longer there, under whose name it may come back.
const FORGET: &str = "DO $$ BEGIN
    IF EXISTS (SELECT FROM jetcopy.partitioned_tables t
            WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = t.relation::oid))
    THEN
        DELETE FROM jetcopy.partitioned_tables t
        WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = t.relation::oid);
    END IF;
    IF EXISTS (SELECT FROM jetcopy.rollups WHERE to_regclass(name) IS NULL) THEN
        DELETE FROM jetcopy.touched_buckets WHERE to_regclass(rollup) IS NULL;
        DELETE FROM jetcopy.rollups WHERE to_regclass(name) IS NULL;
    END IF;
END $$";

/// Columns that a table lacks or has with another type, by its type.
const DIFFERENCES: &str = "SELECT w.relation, w.name, w.type, format_type(a.atttypid, NULL::int)
    FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w (relation, name, type, place)
    LEFT JOIN pg_attribute a ON a.attrelid = to_regclass(w.relation)::oid AND a.attname = w.name
        AND a.attnum > 0 AND NOT a.attisdropped
    WHERE to_regclass(w.relation) IS NOT NULL AND a.atttypid IS DISTINCT FROM w.type::regtype::oid
    ORDER BY w.place";

/// Tables that are not known and are partitioned by the day of this column, whose parts are named as jetcopy
/// names them.
const UNKNOWN_TABLE: &str = "SELECT c.oid, a.attname FROM pg_class c
    JOIN pg_partitioned_table p ON p.partrelid = c.oid AND p.partstrat = 'r' AND p.partnatts = 1
        AND p.partdefid = 0::oid
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
    WHERE c.oid = to_regclass($1)::oid AND a.attname = $2
        AND NOT EXISTS (SELECT FROM jetcopy.partitioned_tables t WHERE t.relation::oid = c.oid)
        AND NOT EXISTS (
            SELECT FROM pg_inherits i JOIN pg_class part ON part.oid = i.inhrelid
            WHERE i.inhparent = c.oid
                AND part.relname::text !~ ('^' || left(c.relname::text, 45) || '_p\\d{8}$'))";

/// A roll-up that is not known, or whose source was recreated.
const UNKNOWN_ROLLUP: &str = "SELECT $1, to_regclass($2), $3::text::interval
    WHERE EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($1)::oid AND relkind = 'r')
        AND EXISTS (
            SELECT FROM jetcopy.partitioned_tables WHERE relation::oid = to_regclass($2)::oid
            UNION ALL SELECT FROM jetcopy.rollups WHERE to_regclass(name)::oid = to_regclass($2)::oid)
        AND NOT EXISTS (SELECT FROM jetcopy.rollups WHERE name = $1 AND source::oid = to_regclass($2)::oid)";

const KNOW_TABLE: &str = "INSERT INTO jetcopy.partitioned_tables (relation, time_column)";

const KNOW_ROLLUP: [&str; 2] = [
    "INSERT INTO jetcopy.rollups (name, source, width)",
    "ON CONFLICT (name) DO UPDATE SET source = excluded.source",
];

const APPEND_ONLY: &str = "DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('operations_log')::oid AND relkind IN ('r', 'p'))
        AND NOT EXISTS (SELECT FROM pg_trigger
            WHERE tgrelid = to_regclass('operations_log')::oid AND tgname = 'append_only')
    THEN
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON operations_log
            FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.refuse_change();
    END IF;
END $$";

/// The trigger goes with its function where schema `jetcopy` is dropped, and the column stays.
const KEEP_CREATED_AT: &str = "DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('time_series_metadata')::oid AND relkind = 'r'
            AND pg_has_role(relowner, 'USAGE'))
        AND NOT EXISTS (SELECT FROM pg_trigger
            WHERE tgrelid = to_regclass('time_series_metadata')::oid AND tgname = 'keep_created_at')
    THEN
        CREATE TRIGGER keep_created_at BEFORE INSERT OR UPDATE ON time_series_metadata
            FOR EACH ROW EXECUTE FUNCTION jetcopy.keep_created_at();
    END IF;
END $$";

/// A table of the store's name that is another system's, and what of it differs.
pub(super) type Foreign = BTreeMap<String, Vec<String>>;

/// Where tables go: into the first schema of the caller's path, and never into `jetcopy`, which a role of
/// that name finds first. Where an earlier version put them there, they are found as before. For the rest of
/// the transaction the path is that schema, and those where the store's tables lie already: nothing that
/// stands in another one can be called.
const PLACE: &str = "WITH there AS (
        SELECT p.schema, p.place, EXISTS (SELECT FROM pg_catalog.pg_class c
                JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                WHERE n.nspname OPERATOR(pg_catalog.=) p.schema
                    AND c.relname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[])) AS has
        FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS p (schema, place)
    ), open AS (
        SELECT schema, place, has, pg_catalog.row_number() OVER (ORDER BY place) AS nth
        FROM there WHERE has OR schema OPERATOR(pg_catalog.<>) 'jetcopy'
    )
    SELECT pg_catalog.set_config('search_path', coalesce((SELECT pg_catalog.string_agg(
        pg_catalog.quote_ident(schema::pg_catalog.text), ', '::pg_catalog.text ORDER BY place)
        FROM open WHERE has OR nth OPERATOR(pg_catalog.=) 1::pg_catalog.int8), 'public'), true)";

/// Creates the extension, where tables are made and the server offers it. To create it where the server did
/// not preload it ends the session, so the loader's setting is looked for.
pub(super) const EXTENSION: &str = "DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
        AND current_setting('timescaledb.disable_load', true) IS NOT NULL
        AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
    THEN
        BEGIN
            CREATE EXTENSION timescaledb;
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE NOTICE 'TimescaleDB is available, but this role may not create it: %', SQLERRM;
        END;
    END IF;
END $$";

/// The text of a migration without the blocks that make tables of groups that are not chosen.
pub(super) fn without<'s>(sql: &'s str, groups: &Groups) -> Cow<'s, str> {
    let left_out = blocks(sql).filter(|(group, _)| !chosen(*group, groups));
    left_out.fold(Cow::Borrowed(sql), |text, (_, block)| Cow::Owned(text.replace(block, "")))
}

/// A block of no group makes what any of them needs.
fn chosen(group: Option<Group>, groups: &Groups) -> bool {
    group.map_or(!groups.is_empty(), |group| groups.contains(&group))
}

/// Sets the path as [`PLACE`] has it.
pub(super) async fn pin_path(client: &Client) -> Result<(), tokio_postgres::Error> {
    client.query_typed(PLACE, &[(&names(), Type::TEXT_ARRAY)]).await.map(drop)
}

/// What of the store a database has that schema `jetcopy` was dropped from.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The groups whose tables are all there, and are the store's own.
    pub(super) groups: Groups,
    /// Tables of other groups, which are the store's own too.
    pub(super) strays: Vec<String>,
    /// Schemas beside the path that have all tables of a group, by name.
    pub(super) schemas: Vec<String>,
}

/// Schemas outside of the path that have all of these tables.
const SCHEMAS_WITH: &str =
    "SELECT n.nspname::text FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
    WHERE c.relname::text = ANY ($1::text[]) AND c.relkind IN ('r', 'p')
        AND n.nspname <> ALL (current_schemas(false))
        AND n.nspname::text !~ '^(pg_|_?timescaledb|information_schema|jetcopy$)'
    GROUP BY 1 HAVING count(*) = $2 ORDER BY 1";

/// Finds it.
pub(super) async fn left(client: &Client) -> Result<Left, tokio_postgres::Error> {
    let mut left = Left::default();
    let tables: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let rows = client.query_typed(MISSING, &[(&tables, Type::TEXT_ARRAY)]).await?;
    let gone: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let foreign = foreign(client).await?;
    for group in Group::ALL {
        let of_group: Vec<&str> = tables.iter().copied().filter(|name| Group::of(name) == group).collect();
        let ours: Vec<&str> = of_group
            .iter()
            .copied()
            .filter(|name| !foreign.contains_key(*name) && !gone.iter().any(|gone| gone == name))
            .collect();
        if ours.len() == of_group.len() {
            left.groups.insert(group);
            continue;
        }
        left.strays.extend(ours.iter().map(|name| (*name).to_owned()));
        let many = i64::try_from(of_group.len()).unwrap_or(i64::MAX);
        let rows =
            client.query_typed(SCHEMAS_WITH, &[(&of_group, Type::TEXT_ARRAY), (&many, Type::INT8)]).await?;
        for row in &rows {
            let schema: String = row.try_get(0)?;
            if !left.schemas.contains(&schema) {
                left.schemas.push(schema);
            }
        }
    }
    Ok(left)
}

fn names() -> Vec<&'static str> {
    let tables = COLUMNS.iter().map(|(name, _)| *name);
    tables.chain([STATS]).chain(ROLLUPS.iter().map(|rollup| rollup.name)).collect()
}

/// The tables, views and roll-ups of the store that are not there.
pub(super) async fn missing(client: &Client, groups: &Groups) -> Result<Vec<String>, tokio_postgres::Error> {
    let names: Vec<&str> = names().into_iter().filter(|name| groups.contains(&Group::of(name))).collect();
    let rows = client.query_typed(MISSING, &[(&names, Type::TEXT_ARRAY)]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Creates what is missing, as the migrations did.
pub(super) async fn create(client: &Client, groups: &Groups, missing: &[String]) -> Result<(), MigrateError> {
    client.batch_execute(FORGET).await.map_err(MigrateError::History)?;
    if missing.is_empty() {
        return Ok(());
    }
    client.batch_execute(EXTENSION).await.map_err(MigrateError::History)?;
    for &Migration { version, name, sql } in MIGRATIONS {
        for (_, block) in blocks(sql).filter(|(group, _)| chosen(*group, groups)) {
            let outcome = client.batch_execute(block).await;
            outcome.map_err(|source| MigrateError::Migration { version, name, source })?;
        }
    }
    Ok(())
}

/// The blocks of a migration that make what lies outside of schema `jetcopy`, where there is none of the
/// name; with the group that they are of. They begin and end with lines of their own: `DO $GROUP$`,
/// `$GROUP$;`.
fn blocks(sql: &str) -> impl Iterator<Item = (Option<Group>, &str)> {
    let tags = Group::ALL.map(|group| (Some(group), group.name()));
    sql.match_indices("DO $").filter_map(move |(from, begin)| {
        let tagged = &sql[from + begin.len()..];
        let any = (None, ANY_GROUP);
        let (group, tag) = tags
            .into_iter()
            .chain([any])
            .find(|(_, tag)| tagged.strip_prefix(tag).is_some_and(|rest| rest.starts_with("$\n")))?;
        let end = format!("\n${tag}$;\n");
        sql[from..].find(&end).map(|length| (group, &sql[from..from + length + end.len()]))
    })
}

/// Knows tables and roll-ups again that schema `jetcopy` was dropped beside, and says which tables are
/// another system's.
pub(super) async fn recognize(client: &Client) -> Result<Foreign, tokio_postgres::Error> {
    let foreign = foreign(client).await?;
    let ours = |name: &str| !foreign.contains_key(name);
    for table in TABLES.iter().filter(|table| ours(table.name)) {
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&table.name, Type::TEXT), (&table.time, Type::TEXT)];
        if !client.query_typed(UNKNOWN_TABLE, &parameters).await?.is_empty() {
            client.execute_typed(&format!("{KNOW_TABLE} {UNKNOWN_TABLE}"), &parameters).await?;
        }
    }
    for rollup in ROLLUPS.iter().filter(|rollup| ours(rollup.name) && ours(rollup.source)) {
        let width = rollup.bucket.interval();
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&rollup.name, Type::TEXT), (&rollup.source, Type::TEXT), (&width, Type::TEXT)];
        if !client.query_typed(UNKNOWN_ROLLUP, &parameters).await?.is_empty() {
            let [insert, conflict] = KNOW_ROLLUP;
            client.execute_typed(&format!("{insert} {UNKNOWN_ROLLUP} {conflict}"), &parameters).await?;
        }
    }
    if ours("operations_log") {
        client.batch_execute(APPEND_ONLY).await?;
    }
    if ours("time_series_metadata") {
        client.batch_execute(KEEP_CREATED_AT).await?;
    }
    Ok(foreign)
}

async fn foreign(client: &Client) -> Result<Foreign, tokio_postgres::Error> {
    let (mut relations, mut columns, mut types) = (Vec::new(), Vec::new(), Vec::new());
    let mut want = |relation: &'static str, column: &'static str, sql_type: &'static str| {
        relations.push(relation);
        columns.push(column);
        types.push(sql_type);
    };
    for (table, list) in &COLUMNS {
        for (column, sql_type) in list.split(", ").filter_map(|column| column.split_once(' ')) {
            want(table, column, sql_type);
        }
    }
    for Rollup { name, keys, aggregates, .. } in &ROLLUPS {
        want(name, BUCKET, "timestamptz");
        keys.iter().for_each(|key| want(name, key, "text"));
        aggregates.iter().for_each(|aggregate| want(name, aggregate.column, aggregate.sql_type));
    }
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
        [(&relations, Type::TEXT_ARRAY), (&columns, Type::TEXT_ARRAY), (&types, Type::TEXT_ARRAY)];
    let mut foreign = Foreign::new();
    for row in client.query_typed(DIFFERENCES, &parameters).await? {
        let (relation, column, wanted): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let text = match row.try_get::<_, Option<String>>(3)? {
            Some(found) => format!("{column} is {found}, not {wanted}"),
            None => format!("there is no {column} ({wanted})"),
        };
        foreign.entry(relation).or_default().push(text);
    }
    Ok(foreign)
}
