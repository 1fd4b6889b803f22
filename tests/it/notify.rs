//! What systemd is told by the daemon, on a socket that stands for systemd's.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually};

/// A watchdog that expects to be fed every so often.
const WATCHDOG: Duration = Duration::from_millis(600);

/// The longest that a pipeline with a step timeout of 1 s may be without a beat, and some: see
/// `src/liveness.rs`.
const PATIENCE: Duration = Duration::from_secs(14);

/// A socket that stands for systemd's.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn new(world: &World) -> Self {
        let path = world.directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, path: path.to_str().unwrap().to_owned() }
    }

    fn start(&self, world: &World, variables: &[(&str, &str)]) -> Daemon {
        let usec = WATCHDOG.as_micros().to_string();
        let ours = [("NOTIFY_SOCKET", self.path.as_str()), ("WATCHDOG_USEC", usec.as_str())];
        Daemon::start_with(&world.config(EVENTS), &[&ours, variables].concat())
    }

    /// What has come since the last call.
    fn received(&self) -> Vec<String> {
        let mut buffer = [0; 1024];
        std::iter::from_fn(|| {
            let length = self.socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
        })
        .collect()
    }

    /// Waits for a message and returns it with all before it.
    async fn until(&self, message: &str) -> Vec<String> {
        let mut all = Vec::new();
        eventually(&format!("the message {message:?}"), || {
            all.extend(self.received());
            let came = all.iter().any(|one| one == message);
            async move { came }
        })
        .await;
        all
    }

    /// Whether the watchdog would let the process live for `time`.
    async fn is_fed_for(&self, time: Duration) -> bool {
        let (start, mut fed) = (Instant::now(), Instant::now());
        while start.elapsed() < time {
            tokio::time::sleep(WATCHDOG / 6).await;
            if self.received().iter().any(|message| message == "WATCHDOG=1") {
                fed = Instant::now();
            }
            // Three times the interval: other tests load the machine.
            if fed.elapsed() > 3 * WATCHDOG {
                return false;
            }
        }
        true
    }
}

async fn world() -> World {
    let mut world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world.postgres_settings = "step_timeout = \"1s\"".into();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_learns_that_the_daemon_is_ready_what_it_does_and_that_it_stops() {
    let world = world().await;
    let manager = Manager::new(&world);
    let daemon = manager.start(&world, &[]);
    let first = manager.until("READY=1").await;
    assert!(first.contains(&"STATUS=running: events".to_owned()), "{first:?}");
    assert!(first.iter().all(|message| message != "STOPPING=1"), "{first:?}");
    manager.until("WATCHDOG=1").await;
    daemon.signal(Signal::SIGTERM);
    manager.until("STOPPING=1").await;
    assert_eq!(daemon.ended().await.0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_ends_when_the_new_settings_are_in_force_or_were_refused() {
    let mut world = world().await;
    // Longer than the lock below is held: the transaction outlives it.
    world.postgres_settings = String::new();
    let manager = Manager::new(&world);
    let daemon = manager.start(&world, &[]);
    manager.until("READY=1").await;

    // The pipeline is held in a transaction while it drains: until that ends, the former settings are in
    // force.
    let start = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = \
                 current_database()";
    world.database.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    world.publish("a", (1..=3).map(event)).await;
    eventually("the daemon to wait for the table", || async { world.count(start).await > 0 }).await;
    world.config(&EVENTS.replace("200", "300"));
    daemon.signal(Signal::SIGHUP);
    daemon.says("added=0 restarted=1 removed=0 unchanged=0").await;
    let before = manager.received();
    let reloading = |message: &String| message.starts_with("RELOADING=1\nMONOTONIC_USEC=");
    assert!(before.iter().any(reloading), "{before:?}");
    assert!(before.iter().all(|message| message != "READY=1"), "{before:?}");
    world.database.batch_execute("ROLLBACK").await.unwrap();
    manager.until("READY=1").await;
    daemon.says("pipeline has stopped").await;
    world.drained("events", &daemon).await;

    world.config(&format!("{EVENTS}\n[lgo]\n"));
    daemon.signal(Signal::SIGHUP);
    let mut said = Vec::new();
    eventually("the reload to be refused", || {
        said.extend(manager.received());
        let ended = said.iter().any(|message| message.ends_with("\nREADY=1"));
        async move { ended }
    })
    .await;
    let end = said.iter().find(|message| message.ends_with("\nREADY=1")).unwrap();
    assert!(end.starts_with("STATUS=the new configuration was rejected: "), "{end}");
    assert!(end.contains("unknown key `lgo`"), "{end}");
    assert!(said.iter().position(reloading) < said.iter().position(|message| message == end), "{said:?}");

    world.config(EVENTS);
    daemon.signal(Signal::SIGHUP);
    manager.until("READY=1").await;
    manager.until("STATUS=running: events").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_its_table_is_ready_says_what_is_wrong_and_is_fed() {
    let world = world().await;
    world.database.batch_execute("DROP TABLE events").await.unwrap();
    let manager = Manager::new(&world);
    let _daemon = manager.start(&world, &[]);
    let first = manager.until("READY=1").await;
    assert!(first.iter().any(|message| message.starts_with("STATUS=events paused: ")), "{first:?}");
    assert!(manager.is_fed_for(2 * WATCHDOG).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_pipeline_and_one_that_waits_for_a_lock_are_fed() {
    let world = world().await;
    let manager = Manager::new(&world);
    let daemon = manager.start(&world, &[]);
    world.publish("a", (1..=3).map(event)).await;
    world.drained("events", &daemon).await;
    assert!(manager.is_fed_for(PATIENCE).await, "idle");
    // Steps that end at their deadline, again and again: the pipeline backs off.
    world.database.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    world.publish("a", (4..=6).map(event)).await;
    assert!(manager.is_fed_for(PATIENCE).await, "waiting for a lock");
    world.database.batch_execute("ROLLBACK").await.unwrap();
    world.drained("events", &daemon).await;
}

#[cfg(feature = "kill-points")]
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_pipeline_is_no_longer_fed() {
    let world = world().await;
    let manager = Manager::new(&world);
    let armed = format!("{}:2:hang", jetcopy::kill_point::AFTER_COMMIT);
    let daemon = manager.start(&world, &[("JETCOPY_KILL_POINT", &armed)]);
    manager.until("READY=1").await;
    world.publish("a", (1..=3).map(event)).await;
    world.drained("events", &daemon).await;
    assert!(manager.is_fed_for(2 * WATCHDOG).await);
    // More than fills all buffers: the reader comes to a halt behind the writer that hangs.
    world.publish("a", (4..=9_000).map(event)).await;
    assert!(!manager.is_fed_for(3 * PATIENCE).await, "{}", daemon.log());
    assert!(daemon.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_gets_priorities_and_no_times() {
    let world = world().await;
    let log = world.directory.path().join("journal");
    std::fs::write(&log, "").unwrap();
    let file = std::fs::metadata(&log).unwrap();
    let stream = format!("{}:{}", file.dev(), file.ino());
    let daemon = Daemon::start_logging_to(log, &world.config(EVENTS), &[("JOURNAL_STREAM", &stream)]);
    daemon.says("pipeline is running").await;
    for line in daemon.log().lines() {
        assert!(line.starts_with("<6> INFO jetcopy"), "{line}");
    }
}
