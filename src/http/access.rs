//! Who may read: everyone with the token or, if none is configured, everyone on this machine.
//!
//! Guarantees: with a token, a request without it gets no answer but those about health; the time that a
//! refusal takes does not reveal how much of a guess was right. Without one, only a request that is addressed
//! to this machine gets an answer, so that no web page reads them through the browser of a user here: a page
//! whose own name points to 127.0.0.1 can connect, but its requests name it. Over plain HTTP the token can be
//! read on the network: an untrusted network needs a TLS proxy in front.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;

use super::HttpError;
use crate::config::read_secret;

/// The shortest token: shorter ones can be guessed over a fast network.
const MIN_TOKEN: usize = 16;

/// Makes a browser ask for a name and a password: the token is the password.
const CHALLENGE: &str = "Basic realm=\"jetcopy\", Bearer";

/// The answer to a request under another name.
const NOT_BY_THIS_NAME: &str =
    "without http.token_file, only requests to localhost or a loopback address are answered\n";

/// The token that requests must carry; without one, they must be addressed to this machine.
#[derive(Clone, Default)]
pub(super) struct Access(Option<Arc<str>>);

impl Access {
    /// With the token in a file, where there is one.
    pub(super) fn read(path: Option<&Path>) -> Result<Self, HttpError> {
        let Some(path) = path else { return Ok(Self(None)) };
        let token = read_secret(path).map_err(|source| HttpError::Token { path: path.to_owned(), source })?;
        if token.len() < MIN_TOKEN {
            return Err(HttpError::ShortToken { path: path.to_owned(), least: MIN_TOKEN });
        }
        Ok(Self(Some(token.into())))
    }

    /// Whether a request with these headers may read: `Bearer TOKEN`, or as browsers send it, `Basic` with
    /// any name and the token as the password; without a token, a `Host` that is this machine.
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.0 else { return names_this_machine(headers) };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, credentials)) = given.and_then(|given| given.split_once(' ')) else { return false };
        let credentials = credentials.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return credentials.as_bytes().ct_eq(token.as_bytes()).into();
        }
        let Ok(pair) = STANDARD.decode(credentials) else { return false };
        let password = pair.iter().position(|&byte| byte == b':').map_or(&[][..], |colon| &pair[colon + 1..]);
        scheme.eq_ignore_ascii_case("basic") && bool::from(password.ct_eq(token.as_bytes()))
    }
}

/// Whether the request was sent to `localhost` or to a loopback address, whatever the port: a tunnel has one
/// of its own.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let Some(Ok(authority)) = host.map(str::parse::<Authority>) else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
}

/// Lets through who may read.
pub(super) async fn check(State(access): State<Access>, request: Request, next: Next) -> Response {
    if access.allows(request.headers()) {
        next.run(request).await
    } else if access.0.is_none() {
        (StatusCode::FORBIDDEN, NOT_BY_THIS_NAME).into_response()
    } else {
        (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, CHALLENGE)], "token required\n").into_response()
    }
}

/// Manual, so that the token is not shown.
impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Access").field(&self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "a-token-of-some-length";

    fn allows(authorization: &str) -> bool {
        let access = Access(Some(TOKEN.into()));
        access.allows(&HeaderMap::from_iter([(AUTHORIZATION, authorization.parse().unwrap())]))
    }

    #[test]
    fn the_token_is_taken_from_scrapers_and_from_browsers() {
        assert!(allows(&format!("Bearer {TOKEN}")));
        assert!(allows(&format!("bearer  {TOKEN}")));
        assert!(allows(&format!("Basic {}", STANDARD.encode(format!("me:{TOKEN}")))));
    }

    #[test]
    fn anything_else_is_not() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for authorization in [
            "",
            "Bearer",
            "Bearer ",
            &format!("Bearer {TOKEN}x"),
            &format!("Bearer {}", &TOKEN[1..]),
            &format!("Digest {TOKEN}"),
            &basic(TOKEN),
            &basic(&format!("{TOKEN}:me")),
            &format!("Basic {TOKEN}"),
            "Basic !",
        ] {
            assert!(!allows(authorization), "{authorization}");
        }
        assert!(!Access(Some(TOKEN.into())).allows(&HeaderMap::new()));
    }

    #[test]
    fn without_a_token_only_what_is_addressed_to_this_machine_may_read() {
        let allows = |host: &str| Access(None).allows(&HeaderMap::from_iter([(HOST, host.parse().unwrap())]));
        for host in [
            "localhost",
            "LOCALHOST:9464",
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.1.2.3:9464",
            "[::1]",
            "[::1]:9464",
            "[::ffff:127.0.0.1]:9464",
        ] {
            assert!(allows(host), "{host}");
        }
        for host in [
            "",
            ":9464",
            "evil.example",
            "evil.example:9464",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9464",
            "127.0.0.1@evil.example",
            "evil.example,localhost",
            "0.0.0.0:9464",
            "10.0.0.7:9464",
            "[::]:9464",
            "[2001:db8::1]:9464",
        ] {
            assert!(!allows(host), "{host}");
        }
        assert!(!Access(None).allows(&HeaderMap::new()));
    }

    #[test]
    fn a_token_that_is_missing_or_short_is_refused_at_start_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let told = |error: HttpError| error.to_string();
        let said = told(Access::read(Some(&path)).unwrap_err());
        assert!(said.ends_with("token, named by http.token_file"), "{said}");
        std::fs::write(&path, "short\n").unwrap();
        let said = told(Access::read(Some(&path)).unwrap_err());
        assert!(said.contains("16 characters") && !said.contains("short\n"), "{said}");
        std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
        let access = Access::read(Some(&path)).unwrap();
        assert_eq!(format!("{access:?}"), "Access(true)");
    }
}
