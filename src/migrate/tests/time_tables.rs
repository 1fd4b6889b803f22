//! `jetcopy.time_table()`, and the partitions of the store's tables.

use tokio_postgres::Client;

use super::{connect, migrate, settings};
use crate::testbed::TestPostgres;

/// A database without TimescaleDB that was migrated.
async fn plain_database(server: &TestPostgres) -> Client {
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    connect(&url).await.unwrap()
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

async fn kind(client: &Client, table: &str) -> String {
    text(client, &format!("SELECT relkind::text FROM pg_class WHERE oid = '{table}'::regclass")).await
}

/// The days of a table's partitions, in days from today.
async fn days(client: &Client, table: &str) -> Vec<i32> {
    let sql = format!(
        "SELECT (starts AT TIME ZONE 'UTC')::date - (now() AT TIME ZONE 'UTC')::date \
         FROM jetcopy.partitions('{table}')
         WHERE ends = starts + interval '1 day'"
    );
    client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn the_empty_store_tables_take_rows_of_today_and_of_the_days_ahead() {
    let server = TestPostgres::shared_plain().unwrap();
    let client = plain_database(&server).await;
    for table in ["frame_metadata", "detection_events"] {
        assert_eq!(kind(&client, table).await, "p");
        assert_eq!(days(&client, table).await, [0, 1, 2, 3]);
        let sql = format!(
            "INSERT INTO {table} (time, camera_id, frame_id) SELECT now() + d * interval '1 day', 'c', d \
             FROM generate_series(0, 3) d"
        );
        assert_eq!(client.execute(&sql, &[]).await.unwrap(), 4);
        for index in ["camera_id_time", "time"] {
            let sql = format!(
                "SELECT count(*)::text FROM pg_indexes WHERE tablename = '{table}' \
                 AND indexname = '{table}_{index}'"
            );
            assert_eq!(text(&client, &sql).await, "1");
        }
    }
}

#[tokio::test]
async fn a_filled_table_keeps_its_rows_privileges_and_comment() {
    let server = TestPostgres::shared_plain().unwrap();
    let client = plain_database(&server).await;
    client
        .batch_execute(
            "CREATE TABLE mine (LIKE frame_metadata);
             CREATE ROLE frames_reader;
             GRANT SELECT ON mine TO frames_reader;
             GRANT UPDATE (width) ON mine TO frames_reader;
             COMMENT ON TABLE mine IS 'frames';
             INSERT INTO mine (time, camera_id, frame_id, attributes)
             SELECT date_trunc('day', now(), 'UTC') - n * interval '25 hours', 'c' || n, n, '{\"a\": 1}' \
                 FROM generate_series(1, 3) n",
        )
        .await
        .unwrap();
    let contents = "SELECT md5(string_agg(f::text, ' ' ORDER BY frame_id)) FROM mine f";
    let before = text(&client, contents).await;
    client.batch_execute("SELECT jetcopy.time_table('mine', 'time', '1 day')").await.unwrap();
    assert_eq!(text(&client, contents).await, before);
    assert_eq!(kind(&client, "mine").await, "p");
    assert_eq!(days(&client, "mine").await, [-4, -3, -2, 0, 1, 2, 3]);
    let privileges = "SELECT concat(has_table_privilege('frames_reader', 'mine', 'SELECT'),
        has_table_privilege('frames_reader', 'mine', 'INSERT'),
        has_column_privilege('frames_reader', 'mine', 'width', 'UPDATE'),
        obj_description('mine'::regclass, 'pg_class'))";
    assert_eq!(text(&client, privileges).await, "tftframes");
    let left = "SELECT count(*)::text FROM pg_class WHERE relname LIKE '%unpartitioned%'";
    assert_eq!(text(&client, left).await, "0");
}

#[tokio::test]
async fn a_table_with_a_key_an_identity_and_a_generated_column_keeps_them_all() {
    let server = TestPostgres::shared_plain().unwrap();
    let client = plain_database(&server).await;
    client
        .batch_execute(
            "CREATE SCHEMA \"My schema\";
             CREATE TABLE \"My schema\".\"Log of it\" (
                 id bigint GENERATED ALWAYS AS IDENTITY,
                 \"At\" timestamptz NOT NULL DEFAULT now(),
                 n int CHECK (n > 0),
                 doubled int GENERATED ALWAYS AS (n * 2) STORED,
                 CONSTRAINT log_key PRIMARY KEY (id, \"At\"));
             CREATE INDEX log_n ON \"My schema\".\"Log of it\" (n) WHERE n > 1;
             INSERT INTO \"My schema\".\"Log of it\" (n) VALUES (1), (2);
             SELECT jetcopy.time_table('\"My schema\".\"Log of it\"', 'At', '1 day');
             INSERT INTO \"My schema\".\"Log of it\" (n) VALUES (3)",
        )
        .await
        .unwrap();
    let contents = "SELECT string_agg(concat_ws(' ', id, n, doubled), ', ' ORDER BY id) \
        FROM \"My schema\".\"Log of it\"";
    assert_eq!(text(&client, contents).await, "1 1 2, 2 2 4, 3 3 6");
    let again = "INSERT INTO \"My schema\".\"Log of it\" (id, \"At\", n) OVERRIDING SYSTEM VALUE
        SELECT id, \"At\", n FROM \"My schema\".\"Log of it\" LIMIT 1";
    let error = client.batch_execute(again).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23505");
    assert!(client.batch_execute("INSERT INTO \"My schema\".\"Log of it\" (n) VALUES (0)").await.is_err());
    let names =
        "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'Log of it'";
    assert_eq!(text(&client, names).await, "log_key log_n");
    // A second call finds nothing to do.
    client
        .batch_execute("SELECT jetcopy.time_table('\"My schema\".\"Log of it\"', 'At', '1 day')")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_table_that_would_lose_something_stays_as_it_is() {
    let server = TestPostgres::shared_plain().unwrap();
    let client = plain_database(&server).await;
    let obstacles = [
        "ALTER TABLE mine ADD PRIMARY KEY (id); CREATE TABLE other (mine int REFERENCES mine)",
        "CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1); ALTER TABLE mine \
         ADD FOREIGN KEY (id) REFERENCES other",
        "CREATE VIEW other AS SELECT * FROM mine",
        "CREATE MATERIALIZED VIEW other AS SELECT * FROM mine",
        "ALTER TABLE mine ADD UNIQUE (id)",
        "CREATE FUNCTION other(mine) RETURNS int LANGUAGE sql RETURN 1",
        "CREATE TRIGGER other BEFORE UPDATE ON mine FOR EACH ROW \
         EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE TABLE other () INHERITS (mine)",
        "ALTER TABLE mine ENABLE ROW LEVEL SECURITY",
        "CREATE PUBLICATION other FOR TABLE mine",
        "ALTER TABLE mine ALTER time DROP NOT NULL",
        "ALTER TABLE mine ALTER time TYPE timestamp",
        "ALTER TABLE mine RENAME time TO at",
        "ALTER TABLE mine SET UNLOGGED",
        "INSERT INTO mine VALUES (7, 'infinity')",
        "INSERT INTO mine SELECT -n, now() - n * interval '1 day' FROM generate_series(1, 1001) n",
        "CREATE SEQUENCE other OWNED BY mine.id; ALTER TABLE mine ALTER id SET DEFAULT nextval('other')",
    ];
    for obstacle in obstacles {
        client.batch_execute("BEGIN; CREATE TABLE mine (id int, time timestamptz NOT NULL)").await.unwrap();
        client.batch_execute("INSERT INTO mine VALUES (1, now())").await.unwrap();
        client.batch_execute(obstacle).await.unwrap();
        client.batch_execute("SELECT jetcopy.time_table('mine', 'time', '1 day')").await.unwrap();
        assert_eq!(kind(&client, "mine").await, "r", "{obstacle}");
        assert_eq!(text(&client, "SELECT count(*)::text FROM mine WHERE id = 1").await, "1", "{obstacle}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    // Without an obstacle it would have been converted.
    client.batch_execute("CREATE TABLE mine (id int, time timestamptz NOT NULL)").await.unwrap();
    client.batch_execute("SELECT jetcopy.time_table('mine', 'time', '1 day')").await.unwrap();
    assert_eq!(kind(&client, "mine").await, "p");
}

#[tokio::test]
async fn a_store_table_that_somebody_else_made_or_partitioned_stays_as_it_is() {
    let server = TestPostgres::shared_plain().unwrap();
    let url = server.create_database().await.unwrap();
    let client = connect(&url).await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE frame_metadata (time timestamptz NOT NULL, mine int);
             CREATE TABLE detection_events (time timestamptz NOT NULL) PARTITION BY RANGE (time)",
        )
        .await
        .unwrap();
    migrate(&settings(&url)).await.unwrap();
    assert_eq!(kind(&client, "frame_metadata").await, "r");
    assert!(days(&client, "detection_events").await.is_empty());
    let not_ours = "SELECT (jetcopy.add_partitions('detection_events', ARRAY[current_date]) IS NULL)::text";
    assert_eq!(text(&client, not_ours).await, "true");
}

#[tokio::test]
async fn partitions_are_added_on_demand_within_bounds_and_once() {
    let server = TestPostgres::shared_plain().unwrap();
    let client = plain_database(&server).await;
    client.batch_execute("SET timezone = 'Pacific/Kiritimati'; SET datestyle = 'German'").await.unwrap();
    let today = "(now() AT TIME ZONE 'UTC')::date";
    let add = format!(
        "SELECT array_to_string(jetcopy.add_partitions('frame_metadata', ARRAY[{today} - 1001, \
         {today} - 1000, {today} - 1,
            {today} - 1, {today}, {today} + 7, {today} + 8, '9999-12-31']), ' ')"
    );
    let left_out = format!("SELECT concat_ws(' ', {today} - 1001, {today} + 8, date '9999-12-31')");
    for _ in 0..2 {
        assert_eq!(text(&client, &add).await, text(&client, &left_out).await);
        assert_eq!(days(&client, "frame_metadata").await, [-1000, -1, 0, 1, 2, 3, 7]);
    }
    // An owner who needs another day has it.
    client.batch_execute("SELECT jetcopy.add_partition('frame_metadata', '1999-12-31')").await.unwrap();
    client
        .batch_execute(
            "INSERT INTO frame_metadata (time, camera_id, frame_id) \
            VALUES ('1999-12-31 23:59:59.999999Z', 'c', 1)",
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn who_may_insert_adds_partitions_without_owning_the_table_and_others_may_not() {
    let server = TestPostgres::shared_plain().unwrap();
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    let owner = connect(&url).await.unwrap();
    owner
        .batch_execute(
            "CREATE ROLE frames_writer LOGIN; CREATE ROLE frames_stranger LOGIN;
             GRANT USAGE ON SCHEMA jetcopy TO frames_writer, frames_stranger;
             GRANT INSERT ON frame_metadata TO frames_writer",
        )
        .await
        .unwrap();
    let add = "SELECT jetcopy.add_partitions('frame_metadata', ARRAY[current_date - 9])";
    let stranger = connect(&url.replace("postgres@", "frames_stranger@")).await.unwrap();
    assert_eq!(stranger.batch_execute(add).await.unwrap_err().code().unwrap().code(), "42501");
    let writer = connect(&url.replace("postgres@", "frames_writer@")).await.unwrap();
    writer.batch_execute(add).await.unwrap();
    let insert =
        "INSERT INTO frame_metadata (time, camera_id, frame_id) VALUES (now() - interval '9 days', 'c', 1)";
    writer.batch_execute(insert).await.unwrap();
}

#[tokio::test]
async fn a_role_that_owns_the_tables_and_is_no_superuser_can_migrate() {
    let server = TestPostgres::shared_plain().unwrap();
    let url = server.create_database().await.unwrap();
    let client = connect(&url).await.unwrap();
    client
        .batch_execute("CREATE ROLE frames_owner LOGIN; GRANT ALL ON SCHEMA public TO frames_owner")
        .await
        .unwrap();
    let database = text(&client, "SELECT current_database()::text").await;
    client.batch_execute(&format!("GRANT CREATE ON DATABASE {database} TO frames_owner")).await.unwrap();
    migrate(&settings(&url.replace("postgres@", "frames_owner@"))).await.unwrap();
    assert_eq!(kind(&client, "frame_metadata").await, "p");
    assert_eq!(days(&client, "frame_metadata").await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn two_who_add_the_same_partitions_at_once_both_succeed() {
    let server = TestPostgres::shared_plain().unwrap();
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    let (one, other) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
    let add = "SELECT jetcopy.add_partitions('frame_metadata', ARRAY(SELECT current_date - n \
        FROM generate_series(1, 20) n))";
    let (first, second) = tokio::join!(one.batch_execute(add), other.batch_execute(add));
    first.unwrap();
    second.unwrap();
    assert_eq!(days(&one, "frame_metadata").await.len(), 24);
}

#[tokio::test]
async fn a_time_table_is_a_hypertable_where_timescaledb_is_installed() {
    let Some(server) = TestPostgres::shared_timescaledb().unwrap() else { return };
    let url = server.create_database().await.unwrap();
    migrate(&settings(&url)).await.unwrap();
    let client = connect(&url).await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE mine (time timestamptz NOT NULL);
             INSERT INTO mine VALUES (now()), (now() - interval '3 days');
             SELECT jetcopy.time_table('mine', 'time', '12 hours');
             SELECT jetcopy.time_table('mine', 'time', '12 hours')",
        )
        .await
        .unwrap();
    let chunks =
        "SELECT count(*)::text || (max(range_end - range_start))::text FROM timescaledb_information.chunks
        WHERE hypertable_name = 'mine'";
    assert_eq!(text(&client, chunks).await, "212:00:00");
    assert_eq!(text(&client, "SELECT count(*)::text FROM jetcopy.partitioned_tables").await, "0");
}
