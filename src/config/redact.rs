//! Keeps secrets out of logs and reads them from files.
//! Guarantees: no password, token or other secret of a connection address survives [`redact_url`]. If an
//! address is malformed, it hides too much rather than too little.

use std::fmt;
use std::io;
use std::path::Path;

use super::{Api, Nats, Postgres};

/// What stands in a secret's place.
const HIDDEN: &str = "***";

/// The schemes that `nats.url` and `postgres.url` take; only they begin another address after a comma, since
/// a password may hold commas too.
const SCHEMES: [&str; 6] = ["nats://", "tls://", "ws://", "wss://", "postgres://", "postgresql://"];

/// A connection address without its secrets, for people.
///
/// Takes what `nats.url` and `postgres.url` take: one or several URLs separated by commas, or `key=value`
/// pairs.
#[must_use]
pub fn redact_url(address: &str) -> String {
    if address.contains("://") {
        urls(address).iter().map(|url| redact_one_url(url)).collect::<Vec<_>>().join(",")
    } else if address.contains('=') {
        redact_pairs(address)
    } else {
        address.split(',').map(|host| redact_user(host, true)).collect::<Vec<_>>().join(",")
    }
}

/// Splits at the commas that begin another URL; a comma between the hosts of one URL stays.
fn urls(address: &str) -> Vec<&str> {
    let mut urls = Vec::new();
    let mut start = 0;
    for (at, _) in address.match_indices(',') {
        if SCHEMES.iter().any(|scheme| address[at + 1..].trim_start().starts_with(scheme)) {
            urls.push(&address[start..at]);
            start = at + 1;
        }
    }
    urls.push(&address[start..]);
    urls
}

fn redact_one_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, query) = match rest.split_once('?') {
        // A question mark before the last `@` belongs to a password that was not escaped.
        Some((rest, query)) if !query.contains('@') => (rest, Some(query)),
        _ => (rest, None),
    };
    // In a NATS address, a user without a password is a token.
    let user_is_secret = !scheme.starts_with("postgres");
    let mut text = format!("{scheme}://{}", redact_user(rest, user_is_secret));
    if let Some(query) = query {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((key, _)) if is_secret(key) => format!("{key}={HIDDEN}"),
            _ => pair.to_owned(),
        });
        text.push('?');
        text.push_str(&pairs.collect::<Vec<_>>().join("&"));
    }
    text
}

/// Hides the password in `user:password@host`, and a lone user where that is a secret itself.
fn redact_user(text: &str, user_is_secret: bool) -> String {
    let Some((user, host)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    match user.split_once(':') {
        Some((user, _)) => format!("{user}:{HIDDEN}@{host}"),
        None if user_is_secret => format!("{HIDDEN}@{host}"),
        None => format!("{user}@{host}"),
    }
}

/// Whether a parameter is one of `password`, `sslpassword` and their like.
fn is_secret(key: &str) -> bool {
    key.to_ascii_lowercase().contains("pass")
}

/// Hides the passwords in `key = value` pairs, whose values may be quoted.
fn redact_pairs(pairs: &str) -> String {
    let mut shown = Vec::new();
    let mut rest = pairs;
    while let Some((key, value)) = rest.split_once('=') {
        let (key, value) = (key.trim(), value.trim_start());
        let end = value_end(value);
        shown.push(format!("{key}={}", if is_secret(key) { HIDDEN } else { &value[..end] }));
        rest = &value[end..];
    }
    shown.join(" ")
}

/// Where the value at the start of `text` ends: at its closing quote, or at the next space.
fn value_end(text: &str) -> usize {
    let quoted = text.starts_with('\'');
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(usize::from(quoted)) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted => return at + 1,
            _ if !quoted && character.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

/// Reads a secret from a file, without the line break that editors leave at its end.
pub fn read_secret(path: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
    }
    Ok(secret.to_owned())
}

/// Manual, so that a password in the URL is not shown.
impl fmt::Debug for Nats {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            url,
            context,
            credentials_file,
            nkey_file,
            token_file,
            user,
            password_file,
            inbox_prefix,
            handshake_first,
            tls,
        } = self;
        formatter
            .debug_struct("Nats")
            .field("url", &redact_url(url))
            .field("context", context)
            .field("credentials_file", credentials_file)
            .field("nkey_file", nkey_file)
            .field("token_file", token_file)
            .field("user", user)
            .field("password_file", password_file)
            .field("inbox_prefix", inbox_prefix)
            .field("handshake_first", handshake_first)
            .field("tls", tls)
            .finish()
    }
}

/// Manual, so that a password in the URL is not shown.
impl fmt::Debug for Api {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, password_file, max_rows, max_bytes, timeout, concurrency } = self;
        formatter
            .debug_struct("Api")
            .field("url", &redact_url(url))
            .field("password_file", password_file)
            .field("max_rows", max_rows)
            .field("max_bytes", max_bytes)
            .field("timeout", timeout)
            .field("concurrency", concurrency)
            .finish()
    }
}

/// Manual, so that a password in the URL is not shown.
impl fmt::Debug for Postgres {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, password_file, connect_timeout, step_timeout, tls } = self;
        formatter
            .debug_struct("Postgres")
            .field("url", &redact_url(url))
            .field("password_file", password_file)
            .field("connect_timeout", connect_timeout)
            .field("step_timeout", step_timeout)
            .field("tls", tls)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_keep_all_but_their_secrets() {
        for (address, shown) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("nats://me:hush@a:4222,tls://me:hush@b:4222", "nats://me:***@a:4222,tls://me:***@b:4222"),
            ("nats://token@a:4222,b:4222", "nats://***@a:4222,b:4222"),
            ("me:hush@a:4222,b", "me:***@a:4222,b"),
            ("postgres://jetcopy@a:5432,b:5433/metadata", "postgres://jetcopy@a:5432,b:5433/metadata"),
            (
                "postgresql://jetcopy:hush@a,b/metadata?sslmode=require&password=hush",
                "postgresql://jetcopy:***@a,b/metadata?sslmode=require&password=***",
            ),
            ("host=a user=jetcopy password=hush dbname=m", "host=a user=jetcopy password=*** dbname=m"),
            (r"host=a password = 'hu \' sh' dbname='m n'", "host=a password=*** dbname='m n'"),
        ] {
            assert_eq!(redact_url(address), shown);
        }
    }

    proptest! {
        #[test]
        fn no_password_survives(password in "[A-Z0-9:/?#,=&']{4,12}@?[A-Z]{2}", list in any::<bool>()) {
            let more = if list { ",nats://other:4222" } else { "" };
            for scheme in ["nats", "postgres"] {
                let shown = redact_url(&format!("{scheme}://me:{password}@host/db{more}"));
                prop_assert_eq!(shown, format!("{scheme}://me:***@host/db{more}"));
            }
        }

        #[test]
        fn no_quoted_password_survives(password in "[A-Z0-9 =@:]{4,12}") {
            let shown = redact_url(&format!("host=h password='{password}' user=me"));
            prop_assert_eq!(shown, "host=h password=*** user=me");
        }
    }

    #[test]
    fn a_secret_ends_before_its_line_break() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "hu sh \r\n").unwrap();
        assert_eq!(read_secret(&path).unwrap(), "hu sh ");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(read_secret(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
