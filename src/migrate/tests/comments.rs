//! Every table, column, roll-up and function says what it is.

use super::versions::servers;
use super::*;

/// What has no comment. Partitions and what an extension made are left out.
const SILENT: &str = "WITH ours AS (
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('jetcopy', 'public') AND c.relkind IN ('r', 'p', 'v', 'm', 'c') \
            AND NOT c.relispartition
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass \
                AND d.objid = c.oid AND d.deptype = 'e')
    )
    SELECT 'relation ' || o.oid::regclass FROM ours o WHERE obj_description(o.oid, 'pg_class') IS NULL
    UNION ALL SELECT format('column %s of %s', a.attname, a.attrelid::regclass)
        FROM pg_attribute a JOIN ours o ON o.oid = a.attrelid
        WHERE a.attnum > 0 AND NOT a.attisdropped AND col_description(a.attrelid, a.attnum) IS NULL
    UNION ALL SELECT 'function ' || p.oid::regprocedure
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname IN ('jetcopy', 'public') AND obj_description(p.oid, 'pg_proc') IS NULL
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass \
                AND d.objid = p.oid AND d.deptype = 'e')
    ORDER BY 1";

async fn silent(client: &tokio_postgres::Client) -> Vec<String> {
    client.query(SILENT, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn no_table_column_roll_up_or_function_lacks_a_comment_also_where_it_came_back() {
    for server in servers() {
        let url = server.create_database().await.unwrap();
        migrate(&settings(&url)).await.unwrap();
        let client = connect(&url).await.unwrap();
        assert_eq!(silent(&client).await, [""; 0], "give them a COMMENT in the migration that makes them");
        // A hypertable whose roll-ups TimescaleDB keeps cannot be dropped along with them.
        let plain = "SELECT to_regclass('timescaledb_information.hypertables') IS NULL";
        if client.query_one(plain, &[]).await.unwrap().get(0) {
            client.batch_execute("DROP TABLE frame_metadata CASCADE").await.unwrap();
        }
        client.batch_execute("DROP TABLE websdrs").await.unwrap();
        migrate(&settings(&url)).await.unwrap();
        assert_eq!(silent(&client).await, [""; 0]);
    }
}
