//! The server is there and cannot or will not take rows.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jetcopy::testbed::{Need, TestPostgres, connect, skip};

use super::{database_resyncs, in_state, own_server};
use crate::support::{Daemon, EVENTS, Load, TABLE, World, eventually};

/// Lines that a fault may add to the log, however long it lasts: how it began, what the attempts after it
/// met, the return.
const QUIET: usize = 5;

/// Waits for a commit and checks that the fault was told of in a few lines.
async fn over(world: &World, daemon: &Daemon, fault: &str, lines: usize) {
    let recovery = world.commits(daemon).await;
    println!("{fault}: first commit after {recovery:?}");
    let log = daemon.log();
    assert!(log.lines().count() <= lines + QUIET, "the log floods:\n{log}");
}

/// Repeats until the daemon has tried in vain so many times.
async fn attempts(daemon: &Daemon, more: i64) {
    let before = database_resyncs(daemon);
    eventually("further attempts", || async { database_resyncs(daemon) >= before + more }).await;
}

/// A small file system of its own in `directory`, unmounted at the end; `None` where this process may not
/// have one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(directory: &Path) -> Option<Self> {
        std::fs::create_dir(directory).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m,mode=0777", "jetcopy-test"])
            .arg(directory)
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(directory.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, since the server may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for_until_there_is_room() {
    let (postgres, world) = own_server(&[]).await;
    let disk = postgres.directory().join("small");
    let Some(_disk) = SmallDisk::mount(&disk) else {
        skip(Need::Mount);
        return;
    };
    world.database.batch_execute("DROP TABLE events").await.unwrap();
    let own = disk.join("data");
    std::fs::create_dir(&own).unwrap();
    let server = std::fs::metadata(postgres.directory()).unwrap();
    std::os::unix::fs::chown(&own, Some(server.uid()), Some(server.gid())).unwrap();
    let tablespace = format!("CREATE TABLESPACE small LOCATION '{}'", own.display());
    world.database.batch_execute(&tablespace).await.unwrap();
    world.database.batch_execute(&format!("{TABLE} TABLESPACE small")).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let lines = daemon.log().lines().count();

    let ballast = disk.join("ballast");
    // Whatever fits.
    let _ = std::fs::write(&ballast, vec![0; 8 << 20]);
    in_state(&daemon, "backing_off", "No space left on device").await;
    attempts(&daemon, 3).await;
    std::fs::remove_file(ballast).unwrap();
    over(&world, &daemon, "disk full and freed", lines).await;
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_made_read_only_is_waited_for_until_it_takes_writes() {
    let (_postgres, world) = own_server(&[]).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let lines = daemon.log().lines().count();

    // The test's own session stays able to write: it has set this itself.
    world.database.batch_execute("SET default_transaction_read_only = off").await.unwrap();
    let set = |value: &str| format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
    world.database.batch_execute(&set("on")).await.unwrap();
    world.database.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    in_state(&daemon, "backing_off", "accepts no writes").await;
    attempts(&daemon, 3).await;
    world.database.batch_execute(&set("off")).await.unwrap();
    world.database.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    over(&world, &daemon, "read-only and back", lines).await;
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_free_connection_is_asked_again_until_it_has_one() {
    let (_postgres, world) = own_server(&[("max_connections", "10")]).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let mut taken = Vec::new();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE application_name LIKE 'jetcopy/%'";
    let mut turned_away_at = None;
    // A place that comes free is taken by whoever is quicker: go on until the daemon was turned away several
    // times in a row.
    let fill = async {
        loop {
            match connect(&world.own_url).await {
                Ok(client) => taken.push(client),
                Err(_) => drop(world.count(end).await),
            }
            let (status, attempts) = (daemon.status(), database_resyncs(&daemon));
            let turned_away = status["state"] == "backing_off"
                && status["reason"].as_str().is_some_and(|reason| reason.contains("too many clients"));
            // Between two attempts it is starting.
            if status["state"] == "running" {
                turned_away_at = None;
            } else if turned_away && attempts >= *turned_away_at.get_or_insert(attempts) + 3 {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), fill)
        .await
        .expect("the daemon still finds a free connection");
    let lines = daemon.log().lines().count();
    drop(taken);
    over(&world, &daemon, "no connection free", lines).await;
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_the_table_holds_rows_up_and_loses_none() {
    let (_postgres, world) = own_server(&[]).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let lines = daemon.log().lines().count();

    let locker = connect(&world.own_url).await.unwrap();
    locker.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    in_state(&daemon, "backing_off", "lock timeout").await;
    locker.batch_execute("ROLLBACK").await.unwrap();
    over(&world, &daemon, "table locked for longer than lock_timeout", lines).await;
    world.judge(&daemon, load).await;
}

/// Lets nobody in by TCP without the password.
async fn require_password(postgres: &TestPostgres, world: &World) {
    let rules = postgres.directory().join("data/pg_hba.conf");
    std::fs::write(rules, "host all all 127.0.0.1/32 scram-sha-256\n").unwrap();
    world.database.batch_execute("ALTER ROLE postgres PASSWORD 'first'").await.unwrap();
    world.database.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_pauses_until_the_file_holds_the_new_one() {
    let (postgres, mut world) = own_server(&[]).await;
    require_password(&postgres, &world).await;
    let file = world.directory.path().join("password");
    std::fs::write(&file, "first\n").unwrap();
    world.postgres_settings = format!("password_file = \"{}\"", file.display());
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let lines = daemon.log().lines().count();

    world.database.batch_execute("ALTER ROLE postgres PASSWORD 'second'").await.unwrap();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE application_name LIKE 'jetcopy/%'";
    assert!(world.count(end).await > 0);
    let status = in_state(&daemon, "paused", "refuses the login").await;
    assert!(status["remedy"].as_str().unwrap().contains("password"), "{status}");
    std::fs::write(&file, "second\n").unwrap();
    over(&world, &daemon, "password changed, then the file", lines).await;
    let log = daemon.log();
    assert!(!log.contains("first") && !log.contains("second"), "{log}");
    world.judge(&daemon, load).await;
}
