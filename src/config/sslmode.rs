//! `sslmode` as libpq has it, of which the driver knows the first three.
//!
//! Guarantees: `verify-ca` and `verify-full` are taken wherever libpq takes them, in a URL's query or among `key=value`
//! pairs, and reach the driver as `require`; what else there is in the address reaches it untouched.

use super::redact::value_end;

/// How far the server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// As the rest of `sslmode` and the `ca_file` have it: where TLS is required, in full.
    Usual,
    /// That an authority has signed it, whatever name it is for.
    Authority,
    /// That, and that it is for the host's name.
    Full,
}

/// Reads the address of a database.
pub fn parse_postgres_url(url: &str) -> Result<(tokio_postgres::Config, Verify), tokio_postgres::Error> {
    let Some((at, mode)) = find(url) else { return Ok((url.parse()?, Verify::Usual)) };
    let verify = match mode {
        "verify-ca" => Verify::Authority,
        "verify-full" => Verify::Full,
        _ => return Ok((url.parse()?, Verify::Usual)),
    };
    let plain = [&url[..at], "require", &url[at + mode.len()..]].concat();
    Ok((plain.parse()?, verify))
}

/// The value of `sslmode` and where it stands.
fn find(url: &str) -> Option<(usize, &str)> {
    const KEY: &str = "sslmode=";
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        // A question mark before the last `@` belongs to a password that was not escaped.
        let query = url.rfind('@').unwrap_or(0) + url[url.rfind('@').unwrap_or(0)..].find('?')?;
        let mut start = query + 1;
        for pair in url[start..].split('&') {
            if let Some(mode) = pair.strip_prefix(KEY) {
                return Some((start + KEY.len(), mode));
            }
            start += pair.len() + 1;
        }
        return None;
    }
    let mut rest = url;
    while let Some((key, value)) = rest.split_once('=') {
        let value = value.trim_start();
        let end = value_end(value);
        if key.trim() == "sslmode" {
            let mode = &value[..end];
            let mode = mode.strip_prefix('\'').and_then(|mode| mode.strip_suffix('\'')).unwrap_or(mode);
            let at = url.len() - value.len() + usize::from(value.starts_with('\''));
            return Some((at, mode));
        }
        rest = &value[end..];
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::SslMode;

    use super::*;

    #[test]
    fn every_mode_of_libpq_that_is_safe_is_known() {
        for (url, verify, mode) in [
            ("postgres://me@a/db", Verify::Usual, SslMode::Prefer),
            ("postgres://me@a/db?sslmode=disable", Verify::Usual, SslMode::Disable),
            ("postgres://me@a/db?sslmode=require", Verify::Usual, SslMode::Require),
            ("postgres://me@a,b/db?sslmode=verify-full&connect_timeout=3", Verify::Full, SslMode::Require),
            ("postgresql://me@a/db?connect_timeout=3&sslmode=verify-ca", Verify::Authority, SslMode::Require),
            ("host=a sslmode = verify-full user=me", Verify::Full, SslMode::Require),
            ("host=a password='sslmode=disable' sslmode='verify-ca'", Verify::Authority, SslMode::Require),
        ] {
            let (config, found) = parse_postgres_url(url).unwrap();
            assert_eq!((found, config.get_ssl_mode()), (verify, mode), "{url}");
        }
    }

    #[test]
    fn a_password_that_looks_like_a_mode_stays_as_it_is() {
        let (config, verify) = parse_postgres_url("postgres://me:x%3Fsslmode=verify-ca@a/db").unwrap();
        assert_eq!(config.get_password(), Some(&b"x?sslmode=verify-ca"[..]));
        assert_eq!(verify, Verify::Usual);
        let (config, _) =
            parse_postgres_url("host=a password='sslmode=verify-ca' sslmode=verify-full").unwrap();
        assert_eq!(config.get_password(), Some(&b"sslmode=verify-ca"[..]));
    }

    #[test]
    fn an_unknown_mode_is_refused() {
        assert!(parse_postgres_url("postgres://me@a/db?sslmode=verify").is_err());
    }
}
