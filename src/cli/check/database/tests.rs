//! `jetcopy check` names each trouble of the database with its remedy, on a real server.

use super::*;
use crate::config;
use crate::testbed::{TestPgBouncer, TestPostgres, connect};

/// A database with a role of its own, `owner`'s migrations applied unless said otherwise.
struct World {
    server: std::sync::Arc<TestPostgres>,
    url: String,
}

impl World {
    async fn new() -> Self {
        let server = TestPostgres::shared().unwrap();
        let url = server.create_database().await.unwrap();
        Self { server, url }
    }

    async fn migrated() -> Self {
        let world = Self::new().await;
        migrate::migrate(&world.config("").postgres).await.unwrap();
        world
    }

    async fn execute(&self, sql: &str) {
        connect(&self.url).await.unwrap().batch_execute(sql).await.unwrap();
    }

    /// Settings with one pipeline whose tables are `tables`.
    fn config(&self, tables: &str) -> Config {
        let text = format!("name = \"frames\"\nstream = \"FRAMES\"\n{tables}");
        let pipeline: Pipeline = figment::Figment::new()
            .merge(<figment::providers::Toml as figment::providers::Format>::string(&text))
            .extract()
            .unwrap();
        let postgres = config::Postgres { url: self.url.clone(), ..config::Postgres::default() };
        Config { postgres, pipelines: vec![pipeline], ..Config::default() }
    }

    /// What a check with these tables says, without the lines that say ok.
    async fn troubles(&self, tables: &str) -> Vec<String> {
        troubles(&self.config(tables)).await
    }
}

/// The same address for another user.
fn as_role(url: &str, role: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{role}@{host}")
}

async fn troubles(config: &Config) -> Vec<String> {
    let mut report = Findings::default();
    look(config, &BTreeMap::new(), &Mappings::default(), &mut report).await;
    report.text(false).lines().filter(|line| !line.starts_with("ok ")).map(str::to_owned).collect()
}

#[test]
fn a_server_older_than_the_queries_need_is_an_error_that_says_which_would_do() {
    let facts = |version: &str, version_number| Facts {
        version: version.to_owned(),
        version_number,
        read_only: false,
        encoding: "UTF8".to_owned(),
        timescaledb: None,
        citus: None,
        backend: 1,
    };
    let said = |facts: Facts| {
        let mut report = Findings::default();
        facts.judge("host", &mut report);
        report.text(false)
    };
    let old = said(facts("13.14", 130_014));
    assert!(
        old.contains("PostgreSQL 13.14 is too old") && old.contains("use PostgreSQL 14 or later"),
        "{old}"
    );
    assert!(!said(facts("14.0", 140_000)).contains("too old"));
}

#[tokio::test]
async fn a_database_as_it_should_be_gives_no_trouble() {
    let world = World::migrated().await;
    let mut report = Findings::default();
    look(
        &world.config("[[table]]\nname = \"frame_metadata\"\n"),
        &BTreeMap::new(),
        &Mappings::default(),
        &mut report,
    )
    .await;
    let text = report.text(false);
    assert!(text.ends_with("no errors, no warnings\n"), "{text}");
    assert!(text.contains("ok    schema jetcopy: all migrations are applied\n"), "{text}");
    let kind = if world.server.has_timescaledb() { "hypertable" } else { "table" };
    assert!(text.contains(&format!("ok    pipeline frames, table frame_metadata: {kind} with ")), "{text}");
}

#[tokio::test]
async fn a_table_that_others_partition_and_whose_next_days_are_missing_is_a_warning() {
    let world = World::migrated().await;
    world
        .execute(
            "CREATE TABLE months (time timestamptz NOT NULL, id int) PARTITION BY RANGE (time);
             DO $$ BEGIN EXECUTE
                 format('CREATE TABLE this_month PARTITION OF months FOR VALUES FROM (%L) TO (%L)',
                 date_trunc('day', now(), 'UTC') - interval '20 days',
                     date_trunc('day', now(), 'UTC') + interval '5 days'); END $$",
        )
        .await;
    let table = "[[table]]\nname = \"months\"\n";
    let troubles = world.troubles(table).await;
    let day = "SELECT ((now() AT TIME ZONE 'UTC')::date + 5)::text";
    let client = connect(&world.url).await.unwrap();
    let day: String = client.query_one(day, &[]).await.unwrap().get(0);
    assert!(troubles[0].contains(&format!("there is no partition for rows of {day}")), "{troubles:?}");
    world.execute("CREATE TABLE others PARTITION OF months DEFAULT").await;
    assert_eq!(world.troubles(table).await, ["no errors, no warnings"]);
}

#[tokio::test]
async fn an_unmigrated_database_and_a_missing_table_are_errors_with_their_remedies() {
    let world = World::new().await;
    let troubles = world.troubles("[[table]]\nname = \"absent\"\n").await;
    assert!(
        troubles[0].starts_with("error schema jetcopy: migrations are pending: V1 jetcopy"),
        "{troubles:?}"
    );
    assert_eq!(troubles[1], "      -> run `jetcopy migrate`");
    assert!(troubles[2].starts_with("error pipeline frames, table absent: "), "{troubles:?}");
    assert_eq!(troubles.last().unwrap(), "2 errors, no warnings");
}

#[tokio::test]
async fn a_database_of_a_version_that_was_never_released_is_one_error() {
    let world = World::migrated().await;
    world.execute("UPDATE jetcopy.schema_history SET name = 'frame_metadata' WHERE version = 2").await;
    let troubles = world.troubles("").await;
    let said = "error schema jetcopy: V1 jetcopy: applied by a development version of jetcopy that was never \
                released";
    assert_eq!(troubles.iter().filter(|line| line.starts_with("error schema jetcopy: ")).count(), 1);
    assert_eq!(troubles[0], said);
    assert!(troubles[1].contains("docs/operations.md"), "{troubles:?}");
}

#[tokio::test]
async fn a_server_that_is_away_is_one_error() {
    let postgres = config::Postgres {
        url: "postgres://jetcopy@127.0.0.1:1/metadata".into(),
        ..config::Postgres::default()
    };
    let troubles = troubles(&Config { postgres, ..Config::default() }).await;
    assert!(troubles[0].starts_with("error database: "), "{troubles:?}");
    assert_eq!(troubles[1], "      -> start the server, or correct postgres.url");
    assert_eq!(troubles[2], "1 error, no warnings");
}

#[tokio::test]
async fn a_key_without_a_unique_index_is_an_error() {
    let world = World::migrated().await;
    world.execute("CREATE TABLE t (a int NOT NULL, b int NOT NULL); CREATE UNIQUE INDEX ON t (b, a)").await;
    let table = |key: &str| format!("[[table]]\nname = \"t\"\non_conflict = \"update\"\nkey = {key}\n");
    assert_eq!(world.troubles(&table("[\"a\", \"b\"]")).await, ["no errors, no warnings"]);
    assert_eq!(
        world.troubles(&table("[\"a\"]")).await,
        [
            "error pipeline frames, table t: no unique index on (a) that on_conflict can use",
            "      -> CREATE UNIQUE INDEX ON public.t (a), or correct key",
            "1 error, no warnings"
        ]
    );
}

#[tokio::test]
async fn on_conflict_without_any_unique_index_is_a_warning() {
    let world = World::migrated().await;
    world.execute("CREATE TABLE t (a int)").await;
    let table = "[[table]]\nname = \"t\"\non_conflict = \"ignore\"\n";
    assert_eq!(
        world.troubles(table).await[0],
        "warn  pipeline frames, table t: on_conflict has no effect: the table has no unique index and no \
         exclusion constraint"
    );
}

#[tokio::test]
async fn whatever_keeps_rows_apart_serves_ignore_without_a_key_unless_it_is_deferrable() {
    let table = "[[table]]\nname = \"t\"\non_conflict = \"ignore\"\n";
    for rule in [
        "ALTER TABLE t ADD EXCLUDE USING gist (int4range(a, a + 1) WITH &&)",
        "CREATE UNIQUE INDEX ON t ((a % 10))",
        "CREATE UNIQUE INDEX ON t (a) WHERE a > 0",
    ] {
        let world = World::migrated().await;
        world.execute(&format!("CREATE TABLE t (a int); {rule}")).await;
        assert_eq!(world.troubles(table).await, ["no errors, no warnings"], "{rule}");
    }
    let world = World::migrated().await;
    world.execute("CREATE TABLE t (a int PRIMARY KEY, b int CONSTRAINT later UNIQUE DEFERRABLE)").await;
    let troubles = world.troubles(table).await;
    assert!(troubles[0].starts_with("error ") && troubles[0].contains("constraint later"), "{troubles:?}");
    assert_eq!(world.troubles(&format!("{table}key = [\"a\"]\n")).await, ["no errors, no warnings"]);
}

#[tokio::test]
async fn missing_privileges_are_errors_that_say_what_to_grant() {
    let world = World::migrated().await;
    let role = format!("guest_{}", world.url.rsplit('/').next().unwrap());
    world
        .execute(&format!(
            "CREATE TABLE t (a int UNIQUE); CREATE ROLE {role} LOGIN; GRANT USAGE \
               ON SCHEMA jetcopy TO {role}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jetcopy TO {role}; \
             REVOKE UPDATE ON jetcopy.checkpoints FROM {role}; \
             DO $$ BEGIN EXECUTE 'REVOKE TEMPORARY ON DATABASE ' || current_database() || ' FROM public'; \
               END $$"
        ))
        .await;
    let mut config = world.config("[[table]]\nname = \"t\"\non_conflict = \"update\"\nkey = [\"a\"]\n");
    config.postgres.url = as_role(&config.postgres.url, &role);
    let errors: Vec<_> =
        troubles(&config).await.into_iter().filter(|line| line.starts_with("error")).collect();
    assert_eq!(
        errors,
        [
            "error jetcopy.checkpoints: no UPDATE privilege",
            "error pipeline frames, table t: no INSERT privilege",
            "error pipeline frames, table t: no SELECT privilege",
            "error pipeline frames, table t: no UPDATE privilege",
            "error pipeline frames, table t: on_conflict needs temporary tables, and the role may not create \
             any",
        ]
    );
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_a_warning() {
    let world = World::migrated().await;
    let Some(pooler) = TestPgBouncer::start_or_skip(&world.server).unwrap() else { return };
    let mut config = world.config("[[table]]\nname = \"frame_metadata\"\n");
    config.postgres.url = pooler.url(&config.postgres.url);
    let troubles = troubles(&config).await;
    assert!(
        troubles[0].starts_with("warn  database: the connection goes through a pooler in transaction mode"),
        "{troubles:?}"
    );
    assert!(troubles[0].contains("wait 4 s for one that was killed"), "{troubles:?}");
    assert!(troubles[1].contains("use session mode"), "{troubles:?}");
    assert_eq!(troubles.last().unwrap(), "no errors, 1 warning");
}

#[tokio::test]
async fn a_pooler_that_answers_with_an_error_is_not_taken_for_a_server_that_is_away() {
    let world = World::migrated().await;
    let Some(pooler) = TestPgBouncer::start_or_skip(&world.server).unwrap() else { return };
    let mut config = world.config("[[table]]\nname = \"frame_metadata\"\n");
    config.postgres.url = as_role(&pooler.url(&config.postgres.url), "nobody_that_it_knows");
    let troubles = troubles(&config).await;
    assert!(troubles[1].contains("if there is a pooler, see its log"), "{troubles:?}");
    assert!(!troubles[1].contains("start the server"), "{troubles:?}");
}

#[tokio::test]
async fn a_column_that_no_field_can_fill_is_an_error_that_names_it() {
    let world = World::migrated().await;
    world.execute("CREATE TABLE t (a int, shape polygon NOT NULL)").await;
    let troubles = world.troubles("[[table]]\nname = \"t\"\n").await;
    assert!(troubles[0].contains("column shape: type polygon is not supported"), "{troubles:?}");
    assert!(troubles[0].contains("\"shape\" = { skip = true }"), "{troubles:?}");
    let skipped = "[[table]]\nname = \"t\"\ncolumns.shape = { skip = true }\n";
    let troubles = world.troubles(skipped).await;
    assert!(troubles[0].contains("NOT NULL and has no default"), "{troubles:?}");
    world.execute("ALTER TABLE t ALTER COLUMN shape DROP NOT NULL").await;
    assert_eq!(world.troubles(skipped).await, ["no errors, no warnings"]);
    let troubles = world.troubles("[[table]]\nname = \"frame_metadata\"\ncolumns.fsp = \"fps\"\n").await;
    assert!(
        troubles[0].starts_with("error pipeline frames: ") && troubles[0].contains("fsp"),
        "{troubles:?}"
    );
    assert_eq!(troubles.last().unwrap(), "1 error, no warnings");
}

#[tokio::test]
async fn row_level_security_that_applies_is_an_error() {
    let world = World::migrated().await;
    let role = format!("row_{}", world.url.rsplit('/').next().unwrap());
    world
        .execute(&format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA jetcopy TO {role}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jetcopy TO {role}; \
             CREATE TABLE t (a int); GRANT INSERT ON t TO {role}; ALTER TABLE t ENABLE ROW LEVEL SECURITY"
        ))
        .await;
    let mut config = world.config("[[table]]\nname = \"t\"\n");
    config.postgres.url = as_role(&config.postgres.url, &role);
    let troubles = troubles(&config).await;
    assert!(troubles[0].contains("row-level security applies"), "{troubles:?}");
    assert_eq!(troubles.last().unwrap(), "1 error, no warnings");
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_an_error() {
    let world = World::migrated().await;
    let name = world.url.rsplit('/').next().unwrap();
    world.execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let troubles = world.troubles("").await;
    assert!(troubles[0].contains("accepts no writes"), "{troubles:?}");
    assert_eq!(troubles.last().unwrap(), "1 error, no warnings");
}

#[tokio::test]
async fn what_an_update_does_to_absent_fields_and_null_keys_is_said_beforehand() {
    let world = World::migrated().await;
    world
        .execute(
            "CREATE TABLE items (id int UNIQUE, a int, b text NOT NULL DEFAULT 'x', c int NOT NULL,
                at timestamptz DEFAULT now(),
             note text); CREATE TABLE keyed (id int PRIMARY KEY, sequence bigint)",
        )
        .await;
    let items = |rest: &str| {
        format!("[[table]]\nname = \"items\"\non_conflict = \"update\"\nkey = [\"id\"]\n{rest}\n")
    };
    let warned = async |tables: &str| {
        let troubles = world.troubles(tables).await;
        troubles.into_iter().filter(|line| line.starts_with("warn ")).collect::<Vec<_>>()
    };
    let troubles = warned(&items("")).await;
    assert_eq!(troubles.len(), 2, "{troubles:?}");
    assert!(
        troubles[0].contains("sets these columns of the existing row to NULL or the default: a, b, note"),
        "{troubles:?}"
    );
    assert!(troubles[1].contains("the key's id may be NULL: NULL equals nothing"), "{troubles:?}");
    for said in ["absent = \"keep\"", "absent = \"null\""] {
        assert_eq!(warned(&items(said)).await.len(), 1, "{said}");
    }
    let keyed = "[[table]]\nname = \"keyed\"\non_conflict = \"update\"\nkey = [\"id\"]\ncolumns.sequence = \
                 \"$sequence\"";
    assert_eq!(world.troubles(keyed).await, ["no errors, no warnings"]);
}

#[tokio::test]
async fn every_column_that_the_mapping_does_not_fit_is_named_at_once() {
    let world = World::migrated().await;
    world
        .execute(
            "CREATE TABLE odd (id int, spot point, card macaddr, two int GENERATED ALWAYS AS (id * 2) \
                   STORED)",
        )
        .await;
    world.execute("CREATE TABLE other (id int, span int4range)").await;
    let tables = "[[table]]\nname = \"odd\"\ncolumns = { two = \"two\", none = \"none\" }\n[[table]]\nname = \
                  \"other\"\n";
    let troubles = world.troubles(tables).await;
    let told = [
        "table odd, column spot: type point is not supported",
        "table odd, column card: type macaddr is not supported",
        "table odd, column two: the server generates this column",
        "table odd, column none: the table has no such column",
        "table other, column span: type int4range is not supported",
    ];
    for part in told {
        assert!(troubles.iter().any(|line| line.contains(part)), "no {part:?} in {troubles:?}");
    }
}
