//! The files of libpq: `pg_service.conf` and `.pgpass`.
//! Guarantees: a service that is named but not found is an error. A password file that others can read, or
//! that does not exist, is ignored, as in libpq.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::parameters::Settings;
use super::{ConnInfoError, HostInfo, SOCKETS, Surroundings};

/// Where the packages of Debian and of Red Hat have the services of all users, unless `PGSYSCONFDIR` says it.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql"];

/// The bits of a file's mode that let others than its owner do anything with it.
const FOR_OTHERS: u32 = 0o077;

/// What a service says.
pub(super) fn service(
    name: &str,
    file: Option<&Path>,
    around: &Surroundings<'_>,
) -> Result<Settings, ConnInfoError> {
    let mut files: Vec<PathBuf> = match file {
        Some(file) => vec![file.to_owned()],
        None => around.home.iter().map(|home| home.join(".pg_service.conf")).collect(),
    };
    let system = (around.variable)("PGSYSCONFDIR").filter(|directory| !directory.is_empty());
    match system {
        Some(directory) => files.push(Path::new(&directory).join("pg_service.conf")),
        None => {
            files.extend(SYSTEM_DIRECTORIES.map(|directory| Path::new(directory).join("pg_service.conf")));
        }
    }
    for path in &files {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        if let Some(pairs) = section(name, &text) {
            return Settings::of_pairs(pairs).map_err(|ConnInfoError(problem)| {
                ConnInfoError(format!("{}: service {name}: {problem}", path.display()))
            });
        }
    }
    let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    Err(ConnInfoError::new(format!("service {name} is not in any of {}", files.join(", "))))
}

fn section(name: &str, text: &str) -> Option<Vec<(String, String)>> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let head = format!("[{name}]");
    lines.find(|line| *line == head)?;
    let pairs = lines.take_while(|line| !line.starts_with('['));
    Some(
        pairs
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            .collect(),
    )
}

/// Gives each host the password that the file has for it.
pub(super) fn passwords(
    file: Option<&str>,
    hosts: &mut [HostInfo],
    dbname: &str,
    user: &str,
    around: &Surroundings<'_>,
) {
    let by_default = around.home.as_ref().map(|home| home.join(".pgpass"));
    let Some(path) = file.map(PathBuf::from).or(by_default) else { return };
    let Ok(metadata) = path.metadata() else { return };
    if !metadata.is_file() || metadata.mode() & FOR_OTHERS != 0 {
        tracing::warn!(
            path = %path.display(),
            "ignoring the password file: others can read it; its mode must be 0600"
        );
        return;
    }
    let Ok(text) = std::fs::read_to_string(&path) else { return };
    for host in hosts {
        let address = host.address.map(|address| address.to_string());
        let name = match host.name.as_deref().or(address.as_deref()) {
            Some(SOCKETS) | None => "localhost",
            Some(name) => name,
        };
        host.password = password(&text, [name, &host.port.to_string(), dbname, user]);
    }
}

/// Of the first line that fits: `host:port:database:user:password`, in which `*` fits everything.
fn password(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = fields(line).into_iter();
        let fits = wanted.iter().all(|wanted| {
            fields.next().is_some_and(|field| field.trim_end_matches('\r') == "*" || field == *wanted)
        });
        // What follows the fourth colon is the password, with its own colons.
        if fits { fields.next().filter(|password| !password.is_empty()) } else { None }
    })
}

/// A backslash stands before a colon or a backslash that is meant.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.trim_end_matches('\r').chars();
    while let Some(character) = characters.next() {
        let last = fields.len() - 1;
        match character {
            '\\' => fields[last].extend(characters.next()),
            ':' if last < 4 => fields.push(String::new()),
            character => fields[last].push(character),
        }
    }
    fields
}
