//! What reaches a socket like that of systemd, and when the watchdog is fed.

use super::*;
use crate::metrics::Metrics;
use crate::shard::Shard;
use crate::status::Patience;

fn registry(names: &[&str]) -> Registry {
    let (metrics, registry) = (Metrics::new(), Registry::default());
    for name in names {
        let handles = metrics.pipeline(&Shard::new(name, name, "FRAMES"), &["frame_metadata"]);
        drop(registry.add(&Shard::new(name, name, "FRAMES"), handles));
    }
    registry
}

fn paused() -> State {
    State::Paused { reason: "no such table\nat all".into(), remedy: "run jetcopy migrate".into() }
}

/// A socket that stands for the service manager's, and a notifier to it.
fn manager(watchdog_usec: Option<u64>, pid: Option<u32>) -> (UnixDatagram, Notifier, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let notifier = Notifier::new(Some(path.as_os_str()), watchdog_usec, pid.map(Into::into)).unwrap();
    (socket, notifier, directory)
}

fn received(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn the_status_line_names_first_what_waits_and_why() {
    let registry = registry(&["frames", "events", "logs"]);
    assert_eq!(status_line(None, &registry.snapshots()), "starting: frames, events, logs");
    let set = |name: &str, state| registry.get(name).unwrap().set_state(state);
    set("frames", State::Running);
    set("events", paused());
    set("logs", State::Running);
    assert_eq!(
        status_line(None, &registry.snapshots()),
        "events paused: no such table at all; running: frames, logs"
    );
}

#[test]
fn a_reload_tells_its_moment_and_abstract_sockets_serve_too() {
    let name = format!("jetcopy-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let notifier = Notifier::new(Some(OsStr::new(&format!("@{name}"))), None, None).unwrap();
    notifier.reloading();
    let said = received(&socket);
    let usec: u64 = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!(usec > 0);
    notifier.reloaded();
    notifier.stopping();
    assert_eq!((received(&socket), received(&socket)), ("READY=1".into(), "STOPPING=1".into()));
}

#[test]
fn without_a_service_manager_nothing_is_sent() {
    Notifier::new(None, Some(1_000_000), None).unwrap().ready();
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let watchdog = |pid| manager(Some(3_000_000), pid).1.0.unwrap().watchdog;
    assert_eq!(watchdog(Some(std::process::id())), Some(Duration::from_secs(3)));
    assert_eq!(watchdog(None), Some(Duration::from_secs(3)));
    assert_eq!(watchdog(Some(1)), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_comes_when_no_pipeline_starts_any_more() {
    let (socket, notifier, _directory) = manager(None, None);
    let registry = registry(&["frames", "events"]);
    let task = tokio::spawn(notifier.run(registry.clone()));
    assert_eq!(received(&socket), "STATUS=starting: frames, events");
    registry.get("events").unwrap().set_state(State::Running);
    assert_eq!(received(&socket), "STATUS=starting: frames; running: events");
    registry.get("frames").unwrap().set_state(paused());
    assert_eq!(received(&socket), "STATUS=frames paused: no such table at all; running: events");
    assert_eq!(received(&socket), "READY=1");
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_reload_ends_with_its_reason_which_stays_until_one_does_well() {
    let (socket, notifier, _directory) = manager(None, None);
    let registry = registry(&["frames"]);
    registry.get("frames").unwrap().set_state(State::Running);
    let task = tokio::spawn(notifier.clone().run(registry.clone()));
    assert_eq!(received(&socket), "STATUS=running: frames");
    assert_eq!(received(&socket), "READY=1");
    notifier.refused("jetcopy.toml:3: unknown key\n`lgo`");
    let why = "the new configuration was rejected: jetcopy.toml:3: unknown key `lgo`";
    assert_eq!(received(&socket), format!("STATUS={why}\nREADY=1"));
    assert_eq!(received(&socket), format!("STATUS={why}; running: frames"));
    notifier.reloaded();
    assert_eq!(received(&socket), "READY=1");
    assert_eq!(received(&socket), "STATUS=running: frames");
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_does_not_move_starves_the_watchdog_until_it_moves_again() {
    let (socket, notifier, _directory) = manager(Some(300_000), None);
    let registry = registry(&["frames"]);
    let status = registry.get("frames").unwrap();
    status.set_patience(Patience::for_test(Duration::from_millis(700)));
    status.set_state(State::Running);
    let task = tokio::spawn(notifier.run(registry.clone()));
    assert_eq!(received(&socket), "STATUS=running: frames");
    assert_eq!(received(&socket), "READY=1");
    // Fed while the last beat is young, then no longer.
    assert_eq!(received(&socket), "WATCHDOG=1");
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    while socket.recv(&mut [0; 64]).is_ok() {}
    assert!(registry.frozen().is_some());
    // It moves, and later it waits for a known reason.
    status.liveness().beat();
    assert_eq!(received(&socket), "WATCHDOG=1");
    status.set_state(paused());
    while received(&socket) != "STATUS=frames paused: no such table at all" {}
    let fed = (0..8).map(|_| received(&socket)).filter(|said| said == "WATCHDOG=1").count();
    assert_eq!(fed, 8, "eight feeds are 800 ms apart, longer than its patience while running");
    task.abort();
}
