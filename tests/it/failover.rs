//! The primary is lost and a standby takes its place: what it lacks is replayed, and the old primary is left
//! alone.

use std::time::Instant;

use jetcopy::testbed::{PostgresOptions, Stop, TestPgBouncer, TestPostgres, connect};

use crate::lanes::events;
use crate::support::{Daemon, EVENTS, Load, Proxy, TABLE, World, event, eventually, oracle};

mod frozen;
mod many;
mod timeline;

/// How far the standby falls behind before the primary is lost.
const BEHIND: u64 = 2_000;

/// A primary, and a standby that streams from it by way of a proxy.
struct Pair {
    primary: TestPostgres,
    standby: TestPostgres,
    between: Proxy,
    world: World,
}

impl Pair {
    async fn start() -> Self {
        // A standby that lost its primary looks for it again soon.
        let settings = vec![("wal_retrieve_retry_interval".to_owned(), "100ms".to_owned())];
        let options = PostgresOptions { settings, ..PostgresOptions::plain() };
        let primary = TestPostgres::start(&options).unwrap();
        let world = World::with_postgres(&primary).await;
        world.database.batch_execute(TABLE).await.unwrap();
        let between = Proxy::start(primary.port()).await;
        let standby = primary.standby(between.port()).unwrap();
        let pair = Self { primary, standby, between, world };
        pair.streams().await;
        pair
    }

    async fn streams(&self) {
        let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        eventually("the standby to stream", || async { self.world.count(streaming).await == 1 }).await;
    }

    /// The address of the world's database at the standby.
    fn standby_url(&self) -> String {
        self.world.own_url.replace(&self.primary.port().to_string(), &self.standby.port().to_string())
    }

    /// The world's database at both, the primary first.
    fn url_of_both(&self) -> String {
        let (primary, standby) = (self.primary.port(), self.standby.port());
        self.world.own_url.replace(&format!(":{primary}/"), &format!(":{primary},127.0.0.1:{standby}/"))
    }

    /// Cuts the standby off, lets the daemon go on, and returns the standby's checkpoint and the ack floor.
    /// The primary may hold more, of which the daemon has no answer.
    async fn cut_off(&self, daemon: &Daemon) -> (u64, u64) {
        self.between.refuse(true);
        self.between.reset();
        let at_cut = self.world.checkpoint("events").await;
        eventually("commits that the standby lacks", || async {
            assert!(daemon.is_running());
            self.world.checkpoint("events").await >= at_cut + BEHIND
        })
        .await;
        let standby = checkpoint_at(&self.standby_url()).await;
        // They were acknowledged, so redelivery alone would not bring them back.
        let stream = self.world.jetstream.get_stream(&self.world.stream).await.unwrap();
        let acked = async || stream.consumer_info("jetcopy-events").await.unwrap().ack_floor.stream_sequence;
        eventually("acks beyond the standby", || async { acked().await > standby + BEHIND / 2 }).await;
        (standby, acked().await)
    }

    /// Loses the primary and makes the standby the next; when that was asked for.
    async fn fail_over(&mut self) -> Instant {
        self.primary.stop(Stop::Kill);
        self.promote().await
    }

    /// The same where something else has become of the primary.
    async fn promote(&mut self) -> Instant {
        let promoted = Instant::now();
        self.standby.promote().await.unwrap();
        println!("failover: the standby took {:?} to take writes", promoted.elapsed());
        self.world.own_url = self.standby_url();
        self.world.reconnect().await;
        promoted
    }
}

async fn checkpoint_at(url: &str) -> u64 {
    let client = connect(url).await.unwrap();
    let sql = "SELECT jetcopy.floor('events')";
    u64::try_from(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0)).unwrap()
}

/// Everything of the checkpoint that a writer would change.
async fn marks_at(url: &str) -> String {
    let client = connect(url).await.unwrap();
    client.query_one("SELECT checkpoints::text FROM jetcopy.checkpoints", &[]).await.unwrap().get(0)
}

/// Ends the daemon's sessions, so that it looks for a server anew.
async fn end_sessions(world: &World) {
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE pid <> pg_backend_pid() AND datname = current_database() \
                 AND backend_type = 'client backend'";
    assert!(world.count(end).await > 0);
}

/// A daemon that commits under load through a pooler in front of the primary; `None` where no pooler is
/// installed.
async fn behind_a_pooler() -> Option<(Pair, TestPgBouncer, Daemon, Load)> {
    let mut pair = Pair::start().await;
    let bouncer = TestPgBouncer::start_or_skip(&pair.primary).unwrap()?;
    pair.world.database_url = bouncer.url(&pair.world.own_url);
    let daemon = Daemon::start(&pair.world.config(EVENTS));
    let load = Load::start(&pair.world);
    pair.world.commits(&daemon).await;
    Some((pair, bouncer, daemon, load))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_asynchronous_standby_lacks_is_replayed_and_the_old_primary_left_alone() {
    let mut pair = Pair::start().await;
    pair.world.database_url = pair.url_of_both();
    let daemon = Daemon::start(&pair.world.config(EVENTS));
    let load = Load::start(&pair.world);
    pair.world.commits(&daemon).await;
    let (standby, acked) = pair.cut_off(&daemon).await;
    let promoted = pair.fail_over().await;
    pair.world.commits(&daemon).await;
    println!("failover: first commit {:?} after the promotion was asked for", promoted.elapsed());
    let replayed = daemon.metric("jetcopy_replayed_messages_total", "");
    println!("failover: {replayed} messages replayed, the standby lacked {} of them", acked - standby);
    assert!(replayed >= i64::try_from(acked - standby).unwrap(), "{replayed}");
    daemon.says("the database lacks transactions that it had committed").await;

    // The trap: the old primary comes back, takes writes, and is the first in the URL.
    let old = pair.primary.database_url(pair.world.own_url.rsplit('/').next().unwrap());
    pair.primary.start_again().unwrap();
    let before = marks_at(&old).await;
    for _ in 0..3 {
        end_sessions(&pair.world).await;
        pair.world.commits(&daemon).await;
    }
    // Even while it is the only one that answers.
    pair.standby.stop(Stop::Fast);
    eventually("the daemon to see the old primary only", || async {
        daemon.status()["last_error"]["message"].as_str().is_some_and(|text| text.contains("older timeline"))
    })
    .await;
    assert_eq!(daemon.get("/readyz").0, 503);
    daemon.says("a primary from before a failover").await;
    pair.standby.start_again().unwrap();
    pair.world.reconnect().await;
    pair.world.commits(&daemon).await;
    assert_eq!(marks_at(&old).await, before, "the old primary was written to");
    pair.world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_asynchronous_standby_lacks_of_any_lane_is_replayed_and_nothing_else() {
    let mut pair = Pair::start().await;
    pair.world.database_url = pair.url_of_both();
    let daemon = Daemon::start(&pair.world.config(&events(4, 50)));
    let load = Load::start(&pair.world);
    pair.world.commits(&daemon).await;
    let (standby, acked) = pair.cut_off(&daemon).await;
    pair.fail_over().await;
    pair.world.commits(&daemon).await;
    let replayed = daemon.metric("jetcopy_replayed_messages_total", "");
    assert!(replayed >= i64::try_from(acked - standby).unwrap(), "{replayed}");
    pair.world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_standby_lacks_of_any_lane_is_replayed_behind_a_pooler_under_open_sessions() {
    let mut pair = Pair::start().await;
    let Some(mut bouncer) = TestPgBouncer::start_or_skip(&pair.primary).unwrap() else { return };
    pair.world.database_url = bouncer.url(&pair.world.own_url);
    let daemon = Daemon::start(&pair.world.config(&events(3, 50)));
    let load = Load::start(&pair.world);
    pair.world.commits(&daemon).await;
    pair.cut_off(&daemon).await;
    pair.fail_over().await;
    bouncer.point_to(&pair.standby).unwrap();
    pair.world.commits(&daemon).await;
    pair.world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_behind_a_pooler_that_is_turned_to_the_new_primary_and_to_the_old_one() {
    let Some((mut pair, mut bouncer, daemon, load)) = behind_a_pooler().await else { return };
    let (standby, acked) = pair.cut_off(&daemon).await;
    let promoted = pair.fail_over().await;
    bouncer.point_to(&pair.standby).unwrap();
    pair.world.commits(&daemon).await;
    println!(
        "failover behind PgBouncer: first commit {:?} after the promotion was asked for",
        promoted.elapsed()
    );
    let replayed = daemon.metric("jetcopy_replayed_messages_total", "");
    assert!(replayed >= i64::try_from(acked - standby).unwrap(), "{replayed}");

    let old = pair.primary.database_url(pair.world.own_url.rsplit('/').next().unwrap());
    pair.primary.start_again().unwrap();
    let before = marks_at(&old).await;
    // The pooler exchanges the server under an open session: there it is the compare-and-set that holds.
    bouncer.point_to(&pair.primary).unwrap();
    eventually("the daemon to refuse the old primary", || async {
        daemon.status()["last_error"]["message"].as_str().is_some_and(|text| text.contains("older timeline"))
    })
    .await;
    bouncer.point_to(&pair.standby).unwrap();
    pair.world.commits(&daemon).await;
    assert_eq!(marks_at(&old).await, before, "the old primary was written to");
    pair.world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_standby_lacks_is_replayed_behind_a_pooler_without_another_message() {
    let Some((mut pair, mut bouncer, daemon, load)) = behind_a_pooler().await else { return };
    let (standby, _) = pair.cut_off(&daemon).await;
    let published = load.stop().await;
    pair.world.drained("events", &daemon).await;

    // Between two transactions, the session outlives that: only renewing the lease can show it.
    pair.standby.promote().await.unwrap();
    pair.world.own_url = pair.standby_url();
    pair.world.reconnect().await;
    assert!(pair.world.checkpoint("events").await < standby + BEHIND / 2);
    let turned = Instant::now();
    bouncer.point_to(&pair.standby).unwrap();
    pair.world.drained("events", &daemon).await;
    println!("a silent stream: all is replayed {:?} after the pooler was turned", turned.elapsed());
    oracle(&pair.world, &daemon, "events", "events", event(published + 1)).await;
}

/// Waits until the daemon's COMMIT waits for the standby.
async fn waits_for_standby(world: &World) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = 'COMMIT'";
    eventually("a COMMIT that waits for the standby", || async { world.count(waiting).await > 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_doubt_and_a_cancelled_wait_for_a_synchronous_standby_are_settled() {
    let mut pair = Pair::start().await;
    let way = Proxy::start(pair.primary.port()).await;
    pair.world.database_url = way.through(&pair.world.own_url);
    let database = &pair.world.database;
    // This session's own statements wait for nobody.
    database.batch_execute("SET synchronous_commit = local").await.unwrap();
    database.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    database.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let daemon = Daemon::start(&pair.world.config(EVENTS));
    let load = Load::start(&pair.world);
    pair.world.commits(&daemon).await;

    // The client is gone while its COMMIT waits.
    pair.between.refuse(true);
    pair.between.reset();
    waits_for_standby(&pair.world).await;
    way.reset();
    eventually("the daemon to notice", || async { daemon.status()["state"] != "running" }).await;
    pair.between.heal();
    let recovery = pair.world.commits(&daemon).await;
    println!("client lost while COMMIT waited for the standby: first commit after {recovery:?}");
    assert!(daemon.metric("jetcopy_commits_total", "outcome=\"in_doubt\"") >= 1);

    // An operator cancels the wait: COMMIT answers as if all were well.
    pair.streams().await;
    pair.world.commits(&daemon).await;
    pair.between.refuse(true);
    pair.between.reset();
    waits_for_standby(&pair.world).await;
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    assert!(pair.world.count(cancel).await > 0);
    eventually("the cancelled wait to count as no commit", || async {
        daemon.metric("jetcopy_resyncs_total", "cause=\"sync_wait_cancelled\"") >= 1
    })
    .await;
    pair.between.heal();
    let recovery = pair.world.commits(&daemon).await;
    println!("cancelled wait for the standby: first commit after {recovery:?}");
    pair.world.judge(&daemon, load).await;
}
