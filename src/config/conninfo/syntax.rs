//! The two ways to write a connection string: a URL, or `key=value` pairs.
//!
//! Guarantees: names and values come out decoded, in their order. Names are not judged here, and no error
//! holds a piece of the text.

use percent_encoding::percent_decode_str;

use super::ConnInfoError;

type Pairs = Vec<(String, String)>;

/// What the text says, in its order.
pub(super) fn pairs(text: &str) -> Result<Pairs, ConnInfoError> {
    let url = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
    match url {
        Some(rest) => of_url(rest),
        None => of_pairs(text),
    }
}

fn decoded(text: &str) -> Result<String, ConnInfoError> {
    let text = percent_decode_str(text).decode_utf8();
    match text {
        Ok(text) if !text.contains('\0') => Ok(text.into_owned()),
        _ => Err(ConnInfoError::new("contains a percent-encoded byte that is not text")),
    }
}

/// `user:password@host:port,host:port/dbname?key=value&key=value`
fn of_url(rest: &str) -> Result<Pairs, ConnInfoError> {
    let mut pairs = Pairs::new();
    let mut add = |key: &str, value: &str| -> Result<(), ConnInfoError> {
        if !value.is_empty() {
            pairs.push((key.to_owned(), decoded(value)?));
        }
        Ok(())
    };
    let login = rest.find(['@', '/']).filter(|at| rest[*at..].starts_with('@'));
    let place = match login {
        Some(at) => {
            let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
            add("user", user)?;
            add("password", password)?;
            &rest[at + 1..]
        }
        None => rest,
    };
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    let (servers, dbname) = place.split_once('/').unwrap_or((place, ""));
    if servers.contains('@') || query.contains('@') && !query.contains('=') {
        return Err(ConnInfoError::new("contains more than one @: percent-encode user and password"));
    }
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for server in servers.split(',') {
        let (host, port) = match server.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) if port.is_empty() || port.starts_with(':') => {
                (host, port.trim_start_matches(':'))
            }
            Some(_) => {
                return Err(ConnInfoError::new("an address in [ ] must be followed by a port or nothing"));
            }
            None => server.split_once(':').unwrap_or((server, "")),
        };
        hosts.push(decoded(host)?);
        ports.push(port);
    }
    if hosts.iter().any(|host| !host.is_empty()) {
        pairs.push(("host".into(), hosts.join(",")));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        pairs.push(("port".into(), ports.join(",")));
    }
    if !dbname.is_empty() {
        pairs.push(("dbname".into(), decoded(dbname)?));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| ConnInfoError::new("an option after ? has no value"))?;
        pairs.push((decoded(key)?, decoded(value)?));
    }
    Ok(pairs)
}

/// `key = value key='a value'`, with a backslash before a quote or a backslash that is meant.
fn of_pairs(text: &str) -> Result<Pairs, ConnInfoError> {
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, value) = rest.split_once('=').ok_or_else(|| {
            ConnInfoError::new("is not a connection string, such as postgres://user@host:5432/database")
        })?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(ConnInfoError::new("contains a name without = and a value"));
        }
        let (value, end) = value_of(value.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = end.trim_start();
    }
    Ok(pairs)
}

/// The value at the start of `text`, and what follows it.
fn value_of(text: &str) -> Result<(String, &str), ConnInfoError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, character)| character)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            character if !quoted && character.is_whitespace() => return Ok((value, &text[at..])),
            character => value.push(character),
        }
    }
    if quoted { Err(ConnInfoError::new("a quote is not closed")) } else { Ok((value, "")) }
}
