//! Backups of a database that takes rows, by the programs under `scripts/db-maintenance`, and what a daemon
//! makes of a restored one.

mod place;
mod planted;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jetcopy::config;
use jetcopy::store::timescale::{self, Applied, Change};
use jetcopy::testbed::{PostgresOptions, TestPostgres, connect};
use serde_json::json;

use crate::support::{Daemon, eventually, oracle};

use place::{PIPELINE, Place, frame, program, run};

/// Back up while rows come, go on, lose the database, restore, go on: nothing is lost and nothing is there
/// twice. The daemon that was there is killed with the database, or `survives` all of it.
async fn lose_and_restore(place: &mut Place, jobs: &str, survives: bool) {
    let world = &place.world;
    let config = world.config(PIPELINE);
    let daemon = Daemon::start(&config);
    let stop = AtomicBool::new(false);
    let load = async {
        let mut next = 10_000;
        while !stop.load(Ordering::Relaxed) {
            world
                .publish("load", (next..next + 100).map(|id| frame(id, i64::try_from(id % 60).unwrap())))
                .await;
            next += 100;
        }
    };
    let backup = place.path("backup");
    let disaster = async {
        let commits = async |what: &str| {
            let before = world.checkpoint("frames").await;
            eventually(what, || async { world.checkpoint("frames").await > before }).await;
        };
        commits("a commit before the backup").await;
        let said = place.run("db-backup", &["--output", &backup, "--jobs", jobs]).await.well();
        assert!(said.contains("rows in"), "{said}");
        commits("a commit after the backup").await;
        place.destroy().await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, disaster);
    let daemon = survives.then_some(daemon);

    // Rows and checkpoint are of one moment.
    let manifest = Place::manifest(&backup);
    let checkpoint = manifest["jetcopy"]["checkpoints"][0]["last_sequence"].as_i64().unwrap();
    assert_eq!(manifest["rows"]["public.frame_metadata"].as_i64().unwrap(), checkpoint);
    assert!(u64::try_from(checkpoint).unwrap() < world.last_sequence().await);

    place.run("db-verify", &["--input", &backup, "--restore", "--jobs", jobs]).await.well();
    let said = place.run("db-restore", &["--input", &backup, "--jobs", jobs]).await.well();
    let next = format!("from {} on", checkpoint + 1);
    assert!(said.contains("rows, compared") && said.contains(&next), "{said}");
    assert_eq!(place.left_over().await, 0);
    place.world.reconnect().await;
    let world = &place.world;
    if daemon.is_none() {
        assert_eq!(world.count("SELECT count(*) FROM frame_metadata").await, checkpoint);
    }
    let daemon = daemon.unwrap_or_else(|| Daemon::start(&config));
    oracle(world, &daemon, "frames", "frame_metadata", frame(1, 0)).await;
    // Also one that is new knows it, by what the durable has acknowledged.
    assert!(daemon.metric("jetcopy_replayed_messages_total", "") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_catches_up_from_the_stream_by_a_daemon_that_was_there_all_the_time() {
    let mut place = Place::plain().await;
    let settings = config::Postgres { url: place.world.own_url.clone(), ..config::Postgres::default() };
    lose_and_restore(&mut place, "1", true).await;

    // Partitions and roll-ups are still jetcopy's own.
    let report =
        jetcopy::store::maintain::maintain(&settings, &config::Store::default(), true).await.unwrap();
    assert_eq!(report.outcome, jetcopy::store::maintain::Outcome::Done, "{report:#?}");
    let summed = "SELECT sum(frames)::bigint FROM frame_stats_1m";
    let old = "SELECT count(*) FROM frame_metadata WHERE time < (SELECT filled_to FROM jetcopy.rollups \
        WHERE name = 'frame_stats_1m')";
    assert_eq!(place.world.count(summed).await, place.world.count(old).await);
    assert!(place.world.count(summed).await > 0);
}

/// Chunks of frames that are compressed.
const COMPRESSED: &str = "SELECT count(*) FROM timescaledb_information.chunks
    WHERE hypertable_name = 'frame_metadata' AND is_compressed";

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_has_its_compressed_chunks_roll_ups_and_jobs_and_catches_up_from_the_stream() {
    let Some(server) = TestPostgres::shared_timescaledb().unwrap() else { return };
    let mut place = Place::on(server).await;
    let world = &place.world;
    let settings = config::Postgres { url: world.own_url.clone(), ..config::Postgres::default() };
    // Jobs run in the restored database only: here they would compress the chunks that this test compresses.
    world.stop_jobs().await;
    timescale::apply(&settings).await.unwrap();
    // Frames of two to five days ago, compressed and summed up; late ones will come after them.
    world.publish("load", (1..=2_000).map(|id| frame(id, 48 + i64::try_from(id % 72).unwrap()))).await;
    let daemon = Daemon::start(&world.config(PIPELINE));
    world.drained("frames", &daemon).await;
    daemon.kill();
    let compress = "SELECT count(compress_chunk(chunk, true)) FROM show_chunks('frame_metadata', \
        older_than => interval '1 day') chunk";
    assert!(world.count(compress).await >= 3);
    let compressed = world.count(COMPRESSED).await;
    let refresh = "CALL refresh_continuous_aggregate('frame_stats_1m', now() - interval '6 days', \
        now() - interval '1 day')";
    world.database.batch_execute(refresh).await.unwrap();
    let jobs = "SELECT count(*) FROM timescaledb_information.jobs WHERE hypertable_name IS NOT NULL";
    let made = world.count(jobs).await;

    lose_and_restore(&mut place, "3", false).await;

    let world = &place.world;
    let scheduler = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND backend_type ILIKE '%scheduler%'";
    eventually("the scheduler of jobs", || async { world.count(scheduler).await == 1 }).await;
    world.stop_jobs().await;
    assert_eq!(world.count(COMPRESSED).await, compressed);
    assert_eq!(world.count(jobs).await, made);
    let Applied::Done(lines) = timescale::apply(&settings).await.unwrap() else { panic!("there is a store") };
    assert!(lines.iter().all(|line| matches!(line.change, Change::Unchanged(_))), "{lines:#?}");
    world.database.batch_execute(refresh).await.unwrap();
    let summed = "SELECT sum(frames)::bigint FROM frame_stats_1m WHERE bucket < now() - interval '26 hours' \
        AND bucket > now() - interval '5 days'";
    let raw = "SELECT count(*) FROM frame_metadata WHERE time < date_trunc('minute', \
        now() - interval '26 hours') + interval '1 minute'
        AND time >= date_trunc('minute', now() - interval '5 days') + interval '1 minute'";
    assert_eq!(world.count(summed).await, world.count(raw).await);
    let rerun = "SELECT count(decompress_chunk(chunk)) FROM show_chunks('frame_metadata', \
        older_than => interval '1 day') chunk
        WHERE (SELECT is_compressed FROM timescaledb_information.chunks WHERE format('%I.%I', chunk_schema, \
            chunk_name)::regclass = chunk)";
    assert_eq!(world.count(rerun).await, compressed, "what was compressed can be changed");
}

/// What is damaged, how, and what db-verify and db-restore say to it.
type Damage = (&'static str, fn(&Path), &'static str);

const DAMAGES: [Damage; 5] = [
    ("a byte differs", |backup| change(&backup.join("dump"), |dump| dump[1_000] ^= 1), "its SHA-256 differs"),
    ("the end is missing", |backup| change(&backup.join("dump"), |dump| dump.truncate(2_000)), "should have"),
    ("the dump is missing", |backup| std::fs::remove_file(backup.join("dump")).unwrap(), "dump is missing"),
    (
        "the manifest is missing",
        |backup| std::fs::remove_file(backup.join("manifest.json")).unwrap(),
        "no manifest.json",
    ),
    (
        "the manifest is cut off",
        |backup| change(&backup.join("manifest.json"), |text| text.truncate(200)),
        "cannot be read",
    ),
];

fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    how(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// A copy of a backup.
fn copy(backup: &str, to: &str) -> PathBuf {
    let to = PathBuf::from(to);
    std::fs::create_dir(&to).unwrap();
    for name in ["dump", "manifest.json"] {
        std::fs::copy(Path::new(backup).join(name), to.join(name)).unwrap();
    }
    to
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_damaged_is_refused_by_verify_and_by_restore() {
    let place = Place::plain().await;
    let backup = place.backed_up().await;
    place.run("db-verify", &["--input", &backup]).await.well();
    for (number, (what, damage, refusal)) in DAMAGES.into_iter().enumerate() {
        let damaged = copy(&backup, &place.path(&format!("damaged-{number}")));
        damage(&damaged);
        let damaged = damaged.to_str().unwrap();
        println!("{what}");
        place.run("db-verify", &["--input", damaged]).await.refused(1, refusal);
        let elsewhere = place.server.database_url(&format!("never_{number}"));
        run(program("db-restore", &elsewhere, place.server.programs(), &["--input", damaged]))
            .await
            .refused(1, refusal);
        assert!(connect(&elsewhere).await.is_err(), "{what}: nothing was made");
    }

    // A backup that is what was written, but lacks rows that the manifest knows of: only the trial finds
    // that.
    let lying = copy(&backup, &place.path("lying"));
    change(&lying.join("manifest.json"), |text| {
        let said = String::from_utf8(text.clone()).unwrap();
        *text = said.replace("\"public.frame_metadata\": 500", "\"public.frame_metadata\": 501").into_bytes();
    });
    let trial = ["--input", lying.to_str().unwrap(), "--restore"];
    place
        .run("db-verify", &trial)
        .await
        .refused(1, "public.frame_metadata: 500 rows, in the backup 501 rows");
    assert_eq!(place.left_over().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_empty_is_refused_and_kept_when_it_is_replaced() {
    let mut place = Place::plain().await;
    let backup = place.backed_up().await;
    let restore = ["--input", backup.as_str()];
    place.run("db-restore", &restore).await.refused(1, "is not empty. Nothing was changed");

    place.world.database.batch_execute("DELETE FROM frame_metadata WHERE sequence > 10").await.unwrap();
    let replace = ["--input", backup.as_str(), "--replace"];
    // The test itself is connected.
    place.run("db-restore", &replace).await.refused(1, "is in use by");
    let name = place.world.own_url.rsplit('/').next().unwrap().to_owned();
    place.world.database = connect(&place.server.url()).await.unwrap();
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
    eventually("the sessions to end", || async { place.world.count(&sessions).await == 0 }).await;
    let said = place.run("db-restore", &replace).await.well();
    let kept = said.split("is kept as ").nth(1).unwrap().split(':').next().unwrap().to_owned();
    place.world.reconnect().await;
    assert_eq!(place.world.count("SELECT count(*) FROM frame_metadata").await, 500);
    let kept = connect(&place.server.database_url(&kept)).await.unwrap();
    let rows: i64 = kept.query_one("SELECT count(*) FROM frame_metadata", &[]).await.unwrap().get(0);
    assert_eq!(rows, 10);
    assert_eq!(place.left_over().await, 0);
    let daemon = Daemon::start(&place.world.config(PIPELINE));
    oracle(&place.world, &daemon, "frames", "frame_metadata", frame(1, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_keeps_its_settings_rights_and_owner_and_an_empty_one_is_filled_in_place() {
    let place = Place::plain().await;
    let name = place.world.own_url.rsplit('/').next().unwrap();
    let sql = format!(
        "CREATE ROLE backup_owner LOGIN; CREATE ROLE backup_guest LOGIN; \
         ALTER DATABASE {name} OWNER TO backup_owner;
         ALTER DATABASE {name} SET search_path TO public, jetcopy; ALTER DATABASE {name} \
             SET application_name TO 'it''s';
         REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO backup_guest"
    );
    place.world.database.batch_execute(&sql).await.unwrap();
    let backup = place.backed_up().await;
    let (made, empty) =
        (place.server.database_url("restored_new"), place.server.database_url("restored_empty"));
    let admin = connect(&place.server.url()).await.unwrap();
    admin.batch_execute("CREATE DATABASE restored_empty").await.unwrap();
    let bin = place.server.programs();
    run(program("db-restore", &made, bin, &["--input", &backup])).await.well();
    run(program("db-restore", &empty, bin, &["--input", &backup, "--in-place", "--jobs", "2"])).await.well();
    let properties = "SELECT concat_ws(' ', pg_get_userbyid(datdba), datacl, (SELECT setconfig \
        FROM pg_db_role_setting WHERE setdatabase = d.oid))
        FROM pg_database d WHERE datname = current_database()";
    let (before, after) = (&place.world.database, connect(&made).await.unwrap());
    let before: String = before.query_one(properties, &[]).await.unwrap().get(0);
    let after: String = after.query_one(properties, &[]).await.unwrap().get(0);
    assert!(before.contains("backup_guest=c"), "{before}");
    assert_eq!(after, before);
    let filled = connect(&empty).await.unwrap();
    let rows: i64 = filled.query_one("SELECT count(*) FROM frame_metadata", &[]).await.unwrap().get(0);
    assert_eq!(rows, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_backups_go_when_newer_ones_are_there_and_nothing_else_does() {
    let place = Place::plain().await;
    let directory = place.path("backups");
    let path = Path::new(&directory);
    std::fs::create_dir(path).unwrap();
    let name = place.world.own_url.rsplit('/').next().unwrap().to_owned();
    // Another database's, something else, and what a killed backup and a killed removal have left.
    let other = path.join("other-20200101T000000Z");
    std::fs::create_dir(&other).unwrap();
    let manifest = json!({"format": 1, "created": "2020-01-01T00:00:00Z", "database": {"name": "other"}});
    std::fs::write(other.join("manifest.json"), manifest.to_string()).unwrap();
    std::fs::create_dir(path.join(format!("{name}-notes"))).unwrap();
    for left in ["removed", "partial"] {
        std::fs::create_dir(path.join(format!(".{name}-20200101T000000Z.{left}"))).unwrap();
    }
    let under_way = path.join(format!(".{name}-20200102T000000Z.partial"));
    std::fs::create_dir(&under_way).unwrap();
    let under_way = std::fs::File::open(under_way).unwrap();
    under_way.lock().unwrap();
    for year in ["2021", "2022", "2023"] {
        let old = path.join(format!("{name}-{year}0101T000000Z"));
        std::fs::create_dir(&old).unwrap();
        let manifest =
            json!({"format": 1, "created": format!("{year}-01-01T00:00:00Z"), "database": {"name": name}});
        std::fs::write(old.join("manifest.json"), manifest.to_string()).unwrap();
    }
    let said = place.run("db-backup", &["--directory", &directory, "--keep", "2"]).await.well();
    assert_eq!(said.matches("removed ").count(), 2, "{said}");
    let mut left: Vec<String> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let made = left.iter().position(|found| said.contains(&format!("/{found}:"))).unwrap();
    left.remove(made);
    let mut expected = vec![
        format!(".{name}-20200102T000000Z.partial"),
        format!("{name}-20230101T000000Z"),
        format!("{name}-notes"),
        "other-20200101T000000Z".to_owned(),
    ];
    expected.sort();
    assert_eq!(left, expected);
    place
        .run("db-backup", &["--output", &place.path("x"), "--keep", "2"])
        .await
        .refused(2, "--keep needs --directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_fails_or_is_stopped_leaves_nothing() {
    let place = Place::plain().await;
    let backup = place.path("backup");
    let missing = place.server.database_url("not_there");
    let refused = run(program("db-backup", &missing, place.server.programs(), &["--output", &backup])).await;
    refused.refused(1, "does not exist");

    // Somebody holds a table, so that it waits; then it is told to stop.
    place.world.database.batch_execute("BEGIN; LOCK TABLE frame_metadata").await.unwrap();
    let mut command =
        program("db-backup", &place.world.own_url, place.server.programs(), &["--output", &backup]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND wait_event_type = 'Lock' AND application_name = 'db-backup'";
    // Within a transaction, the list of sessions does not change.
    let watch = connect(&place.world.own_url).await.unwrap();
    let waiting = async || watch.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 1;
    eventually("the backup to wait", waiting).await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(128 + 15));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("stopped by a signal"), "{said}");
    place.world.database.batch_execute("COMMIT").await.unwrap();
    let left: Vec<_> = std::fs::read_dir(place.world.directory.path()).unwrap().collect();
    assert_eq!(left.len(), 0, "{left:?}");
    place.run("db-backup", &["--output", &backup]).await.well();
    place.run("db-backup", &["--output", &backup]).await.refused(2, "already exists");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_role_may_back_up_everything_and_change_nothing() {
    for server in [TestPostgres::shared_plain().unwrap(), TestPostgres::shared().unwrap()] {
        let place = Place::on(server).await;
        let roles = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/postgres/roles.sql");
        place.world.database.batch_execute(&std::fs::read_to_string(roles).unwrap()).await.unwrap();
        let role = "CREATE ROLE backup LOGIN IN ROLE jetcopy_backup";
        place.world.database.batch_execute(role).await.unwrap();
        let url = place.world.own_url.replace("postgres@", "backup@");
        let backup = place.path("backup");
        run(program("db-backup", &url, place.server.programs(), &["--output", &backup])).await.well();
        place.run("db-verify", &["--input", &backup, "--restore"]).await.well();
        let client = connect(&url).await.unwrap();
        let error = client.batch_execute("DELETE FROM frame_metadata").await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501");
    }
}

/// Stands before `pg_restore`: never comes to an end.
const STUCK: &str = r#"#!/bin/sh
for argument in "$@"; do
    case "$argument" in
        --dbname=*) exec BIN/psql -qX -c "SELECT pg_sleep(600)" -d "${argument#--dbname=}" ;;
    esac
done
exec BIN/pg_restore "$@"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_restore_has_left_is_removed_by_the_next_one_and_what_another_makes_is_not() {
    // A server of its own: on a shared one, other tests' restores would remove it.
    let options = PostgresOptions::plain();
    let place = Place::on(Arc::new(TestPostgres::start(&options).unwrap())).await;
    let backup = place.backed_up().await;
    let stuck = place.programs_with(&[("pg_restore", STUCK.to_owned())]);
    let sleeping =
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'";
    let first_database = place.server.database_url("one");
    let mut first = program("db-restore", &first_database, &stuck, &["--input", &backup]);
    let mut first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let restore = || {
        run(program(
            "db-restore",
            &place.server.database_url("two"),
            place.server.programs(),
            &["--input", &backup],
        ))
    };

    eventually("the first to be stuck", || async { place.world.count(sleeping).await == 1 }).await;
    let said = restore().await.well();
    assert!(!said.contains("removed database"), "{said}");
    assert_eq!(place.world.count(sleeping).await, 1, "one that runs is let alone");

    first.kill().unwrap();
    first.wait().unwrap();
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    eventually("its session to end", || async { place.world.count(locks).await == 0 }).await;
    let admin = connect(&place.server.url()).await.unwrap();
    admin.batch_execute("DROP DATABASE two").await.unwrap();
    let said = restore().await.well();
    assert!(said.contains("removed database one_restoring_"), "{said}");
    assert_eq!(place.world.count(sleeping).await, 0);
    let left = "SELECT count(*) FROM pg_database
        WHERE datname ~ '_restoring_[0-9]+$' OR shobj_description(oid, 'pg_database') LIKE 'unfinished%'";
    assert_eq!(place.world.count(left).await, 0);
}

/// Stands before `pg_dump`: the first time, somebody waits for a table that is locked for the backup, before
/// `pg_dump` has it.
const WAITER: &str = r#"#!/bin/sh
case "$* " in *--version*) exec BIN/pg_dump "$@" ;; esac
if mkdir MARK; then
    PGAPPNAME=waiter BIN/psql -qX -c "LOCK TABLE frame_metadata;
        INSERT INTO frame_metadata (time, camera_id, frame_id) VALUES (now(), 'waiter', 1)" \
        -d URL -1 >/dev/null 2>&1 &
    until [ "$(BIN/psql -qXAt -d URL -c "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'waiter' AND wait_event_type = 'Lock' AND datname = current_database()
        ")" = 1 ]; do :; done
fi
exec BIN/pg_dump "$@"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_table_between_the_locks_and_the_dump_goes_first_and_the_backup_begins_again() {
    let place = Place::plain().await;
    place.backed_up().await;
    let waiter = WAITER.replace("MARK", &place.path("mark")).replace("URL", &place.world.own_url);
    let programs = place.programs_with(&[("pg_dump", waiter)]);
    let backup = place.path("again");
    let arguments = ["--output", backup.as_str()];
    let said = run(program("db-backup", &place.world.own_url, &programs, &arguments)).await.well();
    assert!(said.contains("starting again"), "{said}");
    assert_eq!(Place::manifest(&backup)["rows"]["public.frame_metadata"], 501);
    place.run("db-verify", &["--input", &backup, "--restore"]).await.well();
}

/// Stands before a program and writes down what it was called with, as everybody on the machine can see it.
const WATCHER: &str = "#!/bin/sh\nprintf '%s\\n' \"NAME $*\" >>\"$WATCHED\"\nexec BIN/NAME \"$@\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_in_the_arguments_of_no_process_and_refused_in_ones_own() {
    let place = Place::plain().await;
    let secret = "backup-pass-6Tz3";
    let with_password = place.world.own_url.replace("postgres@", &format!("postgres:{secret}@"));
    let backup = place.path("backup");
    let said =
        run(program("db-backup", &with_password, place.server.programs(), &["--output", &backup])).await;
    assert!(!said.text.contains(secret), "{}", said.text);
    said.refused(2, "--url holds a password");

    let watchers = place
        .programs_with(&["psql", "pg_dump", "pg_restore"].map(|name| (name, WATCHER.replace("NAME", name))));
    let watched = place.path("watched");
    let restored = with_password.rsplit_once('/').unwrap().0.to_owned() + "/restored_secretly";
    for (name, url, arguments) in [
        ("db-backup", &with_password, ["--output", &backup]),
        ("db-verify", &with_password, ["--input", &backup]),
        ("db-restore", &restored, ["--input", &backup]),
    ] {
        let mut command = program(name, "", &watchers, &arguments);
        command.env("DATABASE_URL", url).env("WATCHED", &watched);
        run(command).await.well();
    }
    let calls = std::fs::read_to_string(&watched).unwrap();
    for name in ["psql", "pg_dump", "pg_restore"] {
        assert!(calls.contains(name), "{calls}");
    }
    assert!(!calls.contains(secret), "{calls}");
}
