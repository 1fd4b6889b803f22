//! What the kernel knows about processes on this machine: CPU time and memory, and which process a server is.
//!
//! Guarantees: what cannot be known here (a server on another machine or in another container, or a process
//! that may not be inspected) is an error that says so, never a wrong figure.

use std::fs;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};

use async_nats::ServerAddr;
use nix::unistd::{SysconfVar, sysconf};
use tokio_postgres::types::Type;

use crate::config;
use crate::postgres::connect::Session;

/// A server's or a daemon's processes.
#[derive(Debug, Clone)]
pub enum Processes {
    /// One.
    One(u32),
    /// PostgreSQL: the postmaster and its children, without the sessions named, which only look.
    Postgres {
        /// The postmaster.
        postmaster: u32,
        /// Backends that do not count.
        except: Vec<u32>,
    },
}

/// What processes have used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// User and system time since they started.
    pub cpu_seconds: f64,
    /// Resident now. Of PostgreSQL: what each process has for itself, and the most that one has of the shared
    /// memory.
    pub memory_mib: f64,
}

impl Processes {
    /// What they have used so far.
    pub fn usage(&self) -> io::Result<Usage> {
        match self {
            Self::One(pid) => {
                let stat = Stat::of(*pid)?;
                Ok(Usage { cpu_seconds: stat.own, memory_mib: memory(*pid, "VmRSS:")? })
            }
            Self::Postgres { postmaster, except } => {
                let stat = Stat::of(*postmaster)?;
                // Sessions that have ended are counted with the postmaster.
                let mut cpu_seconds = stat.own + stat.ended_children;
                let (mut private, mut shared) = (memory(*postmaster, "RssAnon:")?, 0.0_f64);
                for child in children(*postmaster)?.into_iter().filter(|child| !except.contains(child)) {
                    // A child may end at any moment.
                    let Ok(stat) = Stat::of(child) else { continue };
                    cpu_seconds += stat.own + stat.ended_children;
                    private += memory(child, "RssAnon:").unwrap_or(0.0);
                    shared = shared.max(memory(child, "RssShmem:").unwrap_or(0.0));
                }
                Ok(Usage { cpu_seconds, memory_mib: private + shared })
            }
        }
    }
}

/// The most memory that a process has had at a time, in MiB.
pub fn peak_memory_mib(pid: u32) -> io::Result<f64> {
    memory(pid, "VmHWM:")
}

/// Cores and processor of this machine.
#[must_use]
pub fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    format!("{} cores, {}", cores(), model.trim_start_matches([' ', '\t', ':']))
}

/// Cores that this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The NATS server that `client` is connected to.
pub fn nats(config: &config::Nats, client: &async_nats::Client) -> Result<Processes, String> {
    let info = client.server_info();
    // Where the server sees its client come from its own address, both are on one machine.
    let local = info.client_ip.parse::<IpAddr>().is_ok_and(|seen| {
        seen.is_loopback()
            || config.url.split(',').filter_map(|url| url.trim().parse::<ServerAddr>().ok()).any(|address| {
                let found = (address.host(), address.port()).to_socket_addrs();
                found.is_ok_and(|mut found| found.any(|address| address.ip() == seen))
            })
    });
    if !local {
        return Err("NATS is not on this machine".into());
    }
    listener(info.port).map(Processes::One).ok_or_else(|| {
        "NATS is on this machine, but its process was not found: run as its user or as root".into()
    })
}

/// The PostgreSQL server of `session`; the sessions `except` do not count.
pub async fn postgres(session: &Session, except: Vec<u32>) -> Result<Processes, String> {
    let sql = "SELECT pg_backend_pid(), inet_client_port(), inet_client_addr() IS NOT DISTINCT FROM \
               inet_server_addr()";
    let row = session
        .client
        .query_typed_one(sql, &[] as &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)])
        .await
        .map_err(|error| format!("PostgreSQL did not report its process: {error}"))?;
    let (pid, port, local): (i32, Option<i32>, bool) = (row.get(0), row.get(1), row.get(2));
    let elsewhere = || "PostgreSQL is not on this machine".to_owned();
    let pid = u32::try_from(pid).ok().filter(|_| local).ok_or_else(elsewhere)?;
    // The process of that number here is another one where the server is elsewhere: its title names the
    // client's port.
    let title = fs::read(format!("/proc/{pid}/cmdline")).map_err(|_| elsewhere())?;
    let from = port.map_or_else(|| "[local]".to_owned(), |port| format!("({port})"));
    let title = String::from_utf8_lossy(&title);
    if !title.starts_with("postgres") || !title.contains(&from) {
        return Err(elsewhere());
    }
    let postmaster = Stat::of(pid).map_err(|_| elsewhere())?.parent;
    Ok(Processes::Postgres { postmaster, except })
}

/// `/proc/PID/stat`
struct Stat {
    parent: u32,
    /// User and system time, in seconds.
    own: f64,
    /// The same of children that have ended.
    ended_children: f64,
}

impl Stat {
    fn of(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let unreadable = || io::Error::other(format!("/proc/{pid}/stat has an unexpected format"));
        // The second field is the program's name in parentheses, which may hold anything; those after it are
        // plain.
        let (_, rest) = text.rsplit_once(") ").ok_or_else(unreadable)?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |field: usize| fields.get(field).and_then(|text| text.parse::<u32>().ok());
        let hertz = f64::from(u32::try_from(sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100)).unwrap_or(100));
        // utime, stime, cutime and cstime are the 14th to the 17th field of all.
        let seconds =
            |first: usize| Some(f64::from(number(first)?) / hertz + f64::from(number(first + 1)?) / hertz);
        Ok(Self {
            parent: number(1).ok_or_else(unreadable)?,
            own: seconds(11).ok_or_else(unreadable)?,
            ended_children: seconds(13).ok_or_else(unreadable)?,
        })
    }
}

/// A line of `/proc/PID/status`, in MiB.
fn memory(pid: u32, line: &str) -> io::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|text| text.strip_prefix(line))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u32>().ok());
    kib.map(|kib| f64::from(kib) / 1_024.0)
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/status has no {line}")))
}

fn processes() -> io::Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

fn children(parent: u32) -> io::Result<Vec<u32>> {
    Ok(processes()?.filter(|&pid| Stat::of(pid).is_ok_and(|stat| stat.parent == parent)).collect())
}

/// The process that listens on a TCP port.
fn listener(port: u16) -> Option<u32> {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let sockets: Vec<String> = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(|line| {
            // Local address, remote address and state are the second to the fourth field, the inode the
            // tenth; 0A is listening.
            let fields: Vec<&str> = line.split_whitespace().collect();
            let at =
                fields.get(1)?.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok())?;
            (at == port && fields.get(3) == Some(&"0A"))
                .then(|| format!("socket:[{}]", fields.get(9).unwrap_or(&"")))
        })
        .collect();
    processes().ok()?.find(|pid| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files.filter_map(Result::ok).any(|file| {
            fs::read_link(file.path())
                .is_ok_and(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::connect;
    use crate::testbed::{NatsOptions, TestNats, TestPostgres};

    #[tokio::test]
    async fn servers_on_this_machine_are_told_from_all_other_processes() {
        let server = TestNats::start(&NatsOptions::default()).unwrap();
        let settings = config::Nats { url: server.url(), ..Default::default() };
        let client = async_nats::connect(server.url()).await.unwrap();
        let found = nats(&settings, &client).unwrap();
        assert!(matches!(found, Processes::One(pid) if Some(pid) == server.pid()), "{found:?}");
        assert!(found.usage().unwrap().memory_mib > 1.0);

        let server = TestPostgres::shared().unwrap();
        let settings = config::Postgres { url: server.url(), ..Default::default() };
        let session = connect::connect(&settings, "jetcopy test").await.unwrap();
        let found = postgres(&session, Vec::new()).await.unwrap();
        assert!(
            matches!(found, Processes::Postgres { postmaster, .. } if Some(postmaster) == server.pid()),
            "{found:?}"
        );
        let before = found.usage().unwrap();
        session.client.batch_execute("SELECT count(*) FROM generate_series(1, 2000000)").await.unwrap();
        let after = found.usage().unwrap();
        assert!(after.cpu_seconds > before.cpu_seconds, "{before:?} {after:?}");
    }
}
