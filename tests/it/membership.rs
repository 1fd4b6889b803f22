//! Several daemons share several shards: who is gone, who is not, and how the load is spread.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jetcopy::testbed::{PostgresOptions, TestPgBouncer, TestPostgres};
use nix::sys::signal::Signal;

use crate::support::{Daemon, EVENTS, Fault, Load, Proxy, TABLE, Way, World, event, eventually, oracle};

/// Beats of a daemon that are more than a lease.
const LEASES: i64 = 16;

/// The pipelines that read the world's stream, each into a table of its name.
const PIPELINES: [&str; 4] = ["events", "second", "third", "fourth"];

/// Configuration and tables for `pipelines`.
async fn share(world: &World, pipelines: &[&str]) -> PathBuf {
    world.database.batch_execute(TABLE).await.unwrap();
    let mut text = String::new();
    for pipeline in pipelines {
        let table = format!("CREATE TABLE IF NOT EXISTS {pipeline} (LIKE events INCLUDING ALL)");
        world.database.batch_execute(&table).await.unwrap();
        text += &EVENTS.replace("\"events\"", &format!("\"{pipeline}\""));
    }
    world.config(&text)
}

/// The same configuration for a daemon that reaches the server at `url` by way of a proxy.
async fn aside(world: &World, config: &Path, url: &str) -> (Proxy, PathBuf) {
    let server = url.rsplit(':').next().unwrap().split('/').next().unwrap();
    let proxy = Proxy::start(server.parse().unwrap()).await;
    let text = std::fs::read_to_string(config).unwrap();
    let away = world.directory.path().join("away.toml");
    std::fs::write(&away, text.replace(url, &proxy.through(url))).unwrap();
    (proxy, away)
}

/// A server of its own with a pooler before it, by which the daemons reach it; `None` where there is none.
async fn pooled() -> Option<(TestPostgres, TestPgBouncer, World)> {
    let postgres = TestPostgres::start(&PostgresOptions::plain()).unwrap();
    let bouncer = TestPgBouncer::start_or_skip(&postgres).unwrap()?;
    let mut world = World::with_postgres(&postgres).await;
    world.database_url = bouncer.url(&world.own_url);
    Some((postgres, bouncer, world))
}

/// Which daemon has which shards.
async fn held(world: &World) -> BTreeMap<String, Vec<String>> {
    let sql = "SELECT owner, array_agg(shard ORDER BY shard) FROM jetcopy.checkpoints \
               WHERE owner IS NOT NULL GROUP BY owner";
    let rows = world.database.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// How many shards each daemon has, in order.
async fn counts(world: &World) -> Vec<usize> {
    let mut counts: Vec<usize> = held(world).await.values().map(Vec::len).collect();
    counts.sort_unstable();
    counts
}

/// Every claim there ever was, in one text.
async fn claims(world: &World) -> String {
    let sql = "SELECT string_agg(format('%s %s %s', shard, owner, epoch), ', ' ORDER BY shard) \
               FROM jetcopy.checkpoints";
    world.database.query_one(sql, &[]).await.unwrap().get(0)
}

async fn waits_for(world: &World, what: &str, sql: &str, least: i64) {
    eventually(what, || async { world.count(sql).await >= least }).await;
}

async fn daemons(world: &World, count: i64) {
    let sql = "SELECT count(*) FROM jetcopy.daemons";
    eventually("all daemons to be there", || async { world.count(sql).await == count }).await;
}

/// Waits until each daemon has renewed its lease so often.
async fn beats(world: &World, count: i64) {
    let least = world.count("SELECT min(beat) FROM jetcopy.daemons").await + count;
    waits_for(world, "beats", "SELECT min(beat) FROM jetcopy.daemons", least).await;
}

/// Asks the oracle about each pipeline, of whichever daemon runs.
async fn judge(world: &World, daemon: &Daemon, load: Load, pipelines: &[&str]) {
    let mut published = load.stop().await;
    for pipeline in pipelines {
        published += 1;
        oracle(world, daemon, pipeline, pipeline, event(published)).await;
    }
}

/// Two daemons behind a pooler: no shard moves while both renew their leases so often idle, and so often
/// under load.
async fn stay(times: i64) {
    let Some((_postgres, _bouncer, world)) = pooled().await else { return };
    let config = share(&world, &PIPELINES).await;
    let first = Daemon::start(&config);
    eventually("all shards to run", || async { counts(&world).await == [4] }).await;
    let second = Daemon::start(&config);
    eventually("the load to be spread", || async { counts(&world).await == [2, 2] }).await;
    let before = claims(&world).await;
    for _ in 0..times {
        beats(&world, 1).await;
    }
    assert_eq!(claims(&world).await, before);
    let load = Load::start(&world);
    for _ in 0..times {
        beats(&world, 1).await;
    }
    assert_eq!(claims(&world).await, before);
    assert!(second.is_running() && !second.log().contains("is gone"), "{}", second.log());
    judge(&world, &first, load, &PIPELINES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_two_daemons_leave_each_others_shards_alone_idle_and_under_load() {
    stay(LEASES).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "ten minutes"]
async fn behind_a_pooler_no_shard_moves_for_ten_minutes() {
    stay(400).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_the_other_takes_over_when_a_lease_has_run_out() {
    let Some((_postgres, _bouncer, world)) = pooled().await else { return };
    let config = share(&world, &["events"]).await;
    let load = Load::start(&world);
    for freeze in [false, true] {
        let first = Daemon::start(&config);
        world.commits(&first).await;
        let owner = held(&world).await;
        let second = Daemon::start(&config);
        daemons(&world, 2).await;
        let gone = Instant::now();
        let frozen = if freeze {
            first.signal(Signal::SIGSTOP);
            Some(first)
        } else {
            first.kill();
            None
        };
        let taken = || async { !held(&world).await.is_empty() && held(&world).await != owner };
        eventually("the shard to be taken over", taken).await;
        world.commits(&second).await;
        println!("behind a pooler, frozen: {freeze}: first commit of the other after {:?}", gone.elapsed());
        assert!(gone.elapsed() >= Duration::from_secs(3), "a lease lasts: {:?}", gone.elapsed());
        if let Some(frozen) = frozen {
            frozen.signal(Signal::SIGCONT);
            frozen.says("taken for dead").await;
            frozen.says("pipeline is waiting").await;
            world.judge(&second, load).await;
            return;
        }
        second.signal(Signal::SIGTERM);
        second.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_added_gets_its_share_and_all_comes_back_when_it_is_killed() {
    let world = World::plain().await;
    let config = share(&world, &PIPELINES).await;
    let load = Load::start(&world);
    let first = Daemon::start(&config);
    eventually("all shards to run", || async { counts(&world).await == [4] }).await;
    let second = Daemon::start(&config);
    eventually("the load to be spread", || async { counts(&world).await == [2, 2] }).await;
    let before = claims(&world).await;
    beats(&world, LEASES).await;
    assert_eq!(claims(&world).await, before, "what is spread stays");
    let killed = Instant::now();
    second.kill();
    eventually("all shards to come back", || async { counts(&world).await == [4] }).await;
    println!("of four shards, two were taken over after {:?}", killed.elapsed());
    judge(&world, &first, load, &PIPELINES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_takes_longer_than_a_lease_is_nobody_elses_to_take() {
    let world = World::plain().await;
    let config = share(&world, &["events"]).await;
    // Whoever inserts waits for the test.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    PERFORM pg_advisory_xact_lock_shared(14); RETURN NULL;
                END $$;
                CREATE TRIGGER slow AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION slow()";
    world.database.batch_execute(slow).await.unwrap();
    let first = Daemon::start(&config);
    eventually("the shard to run", || async { counts(&world).await == [1] }).await;
    let second = Daemon::start(&config);
    daemons(&world, 2).await;
    let before = claims(&world).await;
    world.database.batch_execute("SELECT pg_advisory_lock(14)").await.unwrap();
    world.publish("a", (1..=1_000).map(event)).await;
    beats(&world, LEASES).await;
    assert_eq!(claims(&world).await, before);
    world.database.batch_execute("SELECT pg_advisory_unlock(14)").await.unwrap();
    oracle(&world, &first, "events", "events", event(1_001)).await;
    assert_eq!(claims(&world).await, before);
    assert!(!second.log().contains("is gone"), "{}", second.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stalls_for_all_takes_no_shard_from_anybody() {
    let world = World::plain().await;
    let config = share(&world, &["events"]).await;
    let first = Daemon::start(&config);
    eventually("the shard to run", || async { counts(&world).await == [1] }).await;
    let second = Daemon::start(&config);
    daemons(&world, 2).await;
    let before = claims(&world).await;
    let lock = "BEGIN; LOCK TABLE jetcopy.daemons IN EXCLUSIVE MODE";
    world.database.batch_execute(lock).await.unwrap();
    let overdue =
        "SELECT count(*) FROM jetcopy.daemons WHERE lease_until < clock_timestamp() - interval '2 s'";
    waits_for(&world, "all leases to run out", overdue, 2).await;
    world.database.batch_execute("COMMIT").await.unwrap();
    beats(&world, LEASES).await;
    assert_eq!(claims(&world).await, before);
    assert!(!second.log().contains("is gone"), "{}", second.log());
    oracle(&world, &first, "events", "events", event(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_only_the_session_of_its_lease_keeps_its_shards() {
    let world = World::plain().await;
    let config = share(&world, &["events"]).await;
    let first = Daemon::start(&config);
    world.publish("a", [event(1)]).await;
    world.drained("events", &first).await;
    let second = Daemon::start(&config);
    daemons(&world, 2).await;
    beats(&world, LEASES).await;
    let before = claims(&world).await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = current_database() AND application_name LIKE 'jetcopy daemon/%'";
    for _ in 0..3 {
        assert_eq!(world.count(end).await, 2);
        let back = "SELECT count(*) FROM pg_stat_activity \
                    WHERE datname = current_database() AND application_name LIKE 'jetcopy daemon/%'";
        waits_for(&world, "both to be back", back, 2).await;
        beats(&world, 2).await;
    }
    assert_eq!(claims(&world).await, before);
    assert!(!second.log().contains("is gone"), "{}", second.log());
    oracle(&world, &first, "events", "events", event(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_drained_gives_all_away_and_gets_its_share_when_that_is_taken_back() {
    let world = World::plain().await;
    let config = share(&world, &PIPELINES).await;
    let load = Load::start(&world);
    let first = Daemon::start(&config);
    eventually("all shards to run", || async { counts(&world).await == [4] }).await;
    let name = held(&world).await.into_keys().next().unwrap();
    let alone = world.run(&config, &["drain", &name[..6], "--wait", "1s"]).await;
    assert_eq!(alone.code, 1, "{}", alone.out);
    assert!(alone.err.contains("still has events, fourth, second, third"), "{}", alone.err);
    world.commits(&first).await;

    let second = Daemon::start(&config);
    eventually("all to be given away", || async {
        let held = held(&world).await;
        held.len() == 1 && !held.contains_key(&name) && counts(&world).await == [4]
    })
    .await;
    assert_eq!(first.get("/readyz").0, 200);
    let shown = world.run(&config, &["daemons", "--json"]).await.objects().remove(0);
    let daemons = shown["daemons"].as_array().unwrap();
    let of = |name: &str| daemons.iter().find(|daemon| daemon["daemon"] == name).unwrap();
    assert!(of(&name)["drained_by"].is_string() && of(&name)["shards"] == serde_json::json!([]), "{shown}");
    assert_eq!(shown["free"], serde_json::json!([]));
    let text = world.run(&config, &["daemons"]).await.well();
    assert!(text.contains(&format!("\n{name}: drained by ")) && text.contains(": has events for "), "{text}");
    let status: serde_json::Value = serde_json::from_str(&second.get("/status").1).unwrap();
    assert_eq!(status["daemons"].as_array().unwrap().len(), 2, "{status}");

    let said = world.run(&config, &["drain", &name, "--undo"]).await.well();
    assert!(said.contains("no longer drained"), "{said}");
    eventually("its share to come back", || async { counts(&world).await == [2, 2] }).await;
    let nobody = world.run(&config, &["drain", "nobody"]).await;
    assert!(nobody.code == 1 && nobody.err.contains("0 daemons are named nobody"), "{}", nobody.err);
    judge(&world, &second, load, &PIPELINES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_has_one_connection_to_each_server_however_many_pipelines_it_waits_for() {
    let postgres = TestPostgres::start(&PostgresOptions::plain()).unwrap();
    let world = World::with_postgres(&postgres).await;
    let names: Vec<String> = (1..=16).map(|number| format!("p{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let config = share(&world, &names).await;
    let first = Daemon::start(&config);
    eventually("all shards to run", || async { counts(&world).await == [16] }).await;
    let (proxy, counted) = aside(&world, &config, &world.nats_url).await;
    let second = Daemon::start(&counted);
    daemons(&world, 2).await;
    let standby = "SELECT daemon FROM jetcopy.daemons ORDER BY since DESC LIMIT 1";
    let name: String = world.database.query_one(standby, &[]).await.unwrap().get(0);
    // Drained, it gets nothing.
    world.run(&config, &["drain", &name]).await.well();
    let opened = "SELECT count(*) FROM pg_stat_activity WHERE right(application_name, 16) = ";
    let of_standby = format!("{opened}'{name}'");
    let newest = format!(
        "SELECT (extract(epoch FROM max(backend_start)) * 1000000)::bigint FROM pg_stat_activity \
         WHERE right(application_name, 16) = '{name}'"
    );
    assert_eq!(world.count(&of_standby).await, 1);
    let since = world.count(&newest).await;
    let claims = claims(&world).await;
    // It has looked on.
    eventually("NATS to be asked", || async { second.metric("jetcopy_nats_up", "p16") == 1 }).await;
    let asked = proxy.accepted();
    for _ in 0..LEASES {
        beats(&world, 1).await;
        assert_eq!((world.count(&of_standby).await, world.count(&newest).await), (1, since));
    }
    assert_eq!(self::claims(&world).await, claims);
    assert_eq!((asked, proxy.accepted()), (1, 1), "connections to NATS");
    assert_eq!(second.get("/readyz").0, 200);
    oracle(&world, &first, "p1", "p1", event(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_cut_off_from_the_database_loses_its_shard_after_its_lease() {
    let world = World::plain().await;
    let direct = share(&world, &["events"]).await;
    let (proxy, away) = aside(&world, &direct, &world.database_url).await;
    let load = Load::start(&world);
    let first = Daemon::start(&away);
    world.commits(&first).await;
    let owner = held(&world).await;
    let second = Daemon::start(&direct);
    daemons(&world, 2).await;
    // Under load it is in the middle of a transaction, whose locks the server keeps.
    proxy.set(Way::ToServer, Fault::Swallow);
    proxy.set(Way::ToClient, Fault::Swallow);
    let cut = Instant::now();
    let taken = || async { !held(&world).await.is_empty() && held(&world).await != owner };
    eventually("the shard to be taken over", taken).await;
    world.commits(&second).await;
    println!("cut off from the database: first commit of the other after {:?}", cut.elapsed());
    proxy.heal();
    proxy.reset();
    daemons(&world, 2).await;
    let after = held(&world).await;
    beats(&world, LEASES).await;
    assert_eq!(held(&world).await, after, "it stays where it is");
    assert!(first.is_running());
    world.judge(&second, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_nats_does_not_answer_gives_its_shard_to_one_that_it_does_answer() {
    let world = World::plain().await;
    let direct = share(&world, &["events"]).await;
    let (proxy, away) = aside(&world, &direct, &world.nats_url).await;
    let load = Load::start(&world);
    let first = Daemon::start(&away);
    world.commits(&first).await;
    let owner = held(&world).await;
    let second = Daemon::start(&direct);
    daemons(&world, 2).await;
    proxy.refuse(true);
    proxy.reset();
    let cut = Instant::now();
    let taken = || async { !held(&world).await.is_empty() && held(&world).await != owner };
    eventually("the shard to be given to the other", taken).await;
    world.commits(&second).await;
    println!("cut off from NATS: first commit of the other after {:?}", cut.elapsed());
    proxy.heal();
    let after = held(&world).await;
    beats(&world, LEASES).await;
    assert_eq!(held(&world).await, after, "it stays where it is");
    world.judge(&second, load).await;
}
