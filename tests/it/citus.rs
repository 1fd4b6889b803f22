//! Tables that Citus spreads over two workers, written through the coordinator.

mod cluster;

use serde_json::json;

use crate::support::{Daemon, EVENTS, Load, eventually};
use cluster::Cluster;
use jetcopy::testbed::Stop;

/// The checkpoint lies with the coordinator and the rows with the workers: each message is once in tables of
/// every kind, whichever of them is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_or_the_coordinator_that_is_killed_costs_no_row_of_any_kind_of_table() {
    let Some(mut cluster) = Cluster::start().await else { return };
    cluster.execute("SELECT create_distributed_table('events', 'id')").await;
    cluster
        .execute(
            "CREATE TABLE copies (id bigint NOT NULL); SELECT create_reference_table('copies');
             CREATE TABLE stripes (id bigint NOT NULL) USING columnar;
             SELECT create_distributed_table('stripes', 'id');
             CREATE TABLE latest (id bigint PRIMARY KEY, note text);
             SELECT create_distributed_table('latest', 'id');
             CREATE TABLE here (id bigint NOT NULL)",
        )
        .await;
    let tables = "[[pipeline.table]]\nname = \"copies\"\n[[pipeline.table]]\nname = \"stripes\"\n\
                  [[pipeline.table]]\nname = \"latest\"\non_conflict = \"update\"\nkey = [\"id\"]\n\
                  [[pipeline.table]]\nname = \"here\"\n";
    let daemon = Daemon::start(&cluster.world.config(&format!("{EVENTS}{tables}")));
    let load = Load::start(&cluster.world);
    for node in [1, 0, 2, 0] {
        cluster.world.commits(&daemon).await;
        cluster.nodes[node].stop(Stop::Kill);
        eventually("the daemon to notice", || async { daemon.status()["state"] == "backing_off" }).await;
        cluster.nodes[node].start_again().unwrap();
        cluster.world.reconnect().await;
    }
    cluster.world.commits(&daemon).await;
    // What a worker has prepared and a killed coordinator decided is committed by a look of its own.
    cluster.execute("SELECT recover_prepared_transactions()").await;
    cluster.world.judge(&daemon, load).await;
    let rows = cluster.world.count("SELECT count(*) FROM events").await;
    for table in ["copies", "stripes", "latest", "here"] {
        let sql = format!("SELECT count(*) FROM {table}");
        assert_eq!(cluster.world.count(&sql).await, rows, "rows of {table}");
        let sql = format!("SELECT count(DISTINCT id) FROM {table}");
        assert_eq!(cluster.world.count(&sql).await, rows, "messages in {table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_move_to_other_nodes_and_a_table_that_is_distributed_anew_under_load_lose_no_row() {
    let Some(cluster) = Cluster::start().await else { return };
    let daemon = Daemon::start(&cluster.world.config(EVENTS));
    let load = Load::start(&cluster.world);
    cluster.world.commits(&daemon).await;
    // `SELECT` waits for the writer, and the writer for it.
    cluster.execute("SELECT create_distributed_table('events', 'id')").await;
    cluster.world.commits(&daemon).await;
    for (has_shards, mode) in [(true, "block_writes"), (false, "force_logical")] {
        let sql = format!(
            "SELECT citus_set_node_property(nodename, nodeport, 'shouldhaveshards', {has_shards})
                FROM pg_dist_node WHERE groupid = 0;
             SELECT citus_rebalance_start(shard_transfer_mode => '{mode}')"
        );
        cluster.execute(&sql).await;
        cluster.execute("SELECT citus_rebalance_wait()").await;
        cluster.world.commits(&daemon).await;
    }
    cluster.execute("SELECT alter_distributed_table('events', shard_count => 3)").await;
    cluster.world.commits(&daemon).await;
    cluster.execute("SELECT undistribute_table('events')").await;
    cluster.world.commits(&daemon).await;
    cluster.world.judge(&daemon, load).await;
}

/// The coordinator passes on what a worker says of a `COPY` without its SQLSTATE.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_refuses_is_a_dead_letter_at_once_and_a_duplicate_is_ignored() {
    let Some(cluster) = Cluster::start().await else { return };
    cluster
        .execute(
            "CREATE TABLE checked (id bigint NOT NULL, size int CHECK (size < 100));
             SELECT create_distributed_table('checked', 'id');
             CREATE TABLE ones (id bigint PRIMARY KEY, size int);
             SELECT create_distributed_table('ones', 'id');
             CREATE TABLE parts (id bigint NOT NULL, size int) PARTITION BY RANGE (id);
             SELECT create_distributed_table('parts', 'id');
             CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (1000)",
        )
        .await;
    let pipeline = "[[pipeline]]\nname = \"sizes\"\nstream = \"STREAM\"\nformat = \"json\"\n\
                    batch = { max_age = \"300ms\" }\n\
                    [[pipeline.table]]\nname = \"checked\"\n\
                    [[pipeline.table]]\nname = \"parts\"\n\
                    [[pipeline.table]]\nname = \"ones\"\non_conflict = \"ignore\"\n";
    let world = &cluster.world;
    let sized = |id: u64, size: u64| json!({"id": id % 150, "size": size}).to_string();
    world.publish("a", (1..=200).map(|id| sized(id, if id % 50 == 7 { 1000 } else { id % 50 }))).await;
    let daemon = Daemon::start(&world.config(pipeline));
    world.drained("sizes", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM checked").await, 196);
    assert_eq!(world.count("SELECT count(*) FROM ones").await, 147);
    assert_eq!(world.count("SELECT count(*) FROM parts").await, 196);
    let letters = "SELECT count(*) FROM jetcopy.dead_letters WHERE (sequence - 7) % 50 = 0";
    assert_eq!(world.count(letters).await, 4);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 4);
    assert!(!daemon.log().contains("backing off"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_how_rows_are_spread_and_warns_of_a_standby_that_may_lack_commits() {
    let Some(cluster) = Cluster::start().await else { return };
    let config = cluster.world.config(EVENTS);
    let checked = cluster.world.run(&config, &["check"]).await;
    assert!(!checked.out.contains("distributed"), "{checked:?}");
    cluster.execute("SELECT create_distributed_table('events', 'id')").await;
    let checked = cluster.world.run(&config, &["check"]).await;
    assert!(checked.out.contains("table with 3 columns, distributed by id over 2 nodes"), "{checked:?}");
    assert!(!checked.out.contains("asynchronous"), "{checked:?}");
    let standby = cluster.nodes[1].standby(cluster.nodes[1].port()).unwrap();
    let checked = cluster.world.run(&config, &["check"]).await;
    let warning = format!("the standby of 127.0.0.1:{} is asynchronous", cluster.nodes[1].port());
    assert!(checked.out.contains(&warning), "{checked:?}");
    drop(standby);
}
