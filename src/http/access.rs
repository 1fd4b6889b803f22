//! Who may read: whoever carries the token, where there is one.
//!
//! Guarantees: with a token, every answer but those about health says nothing to a request without it; how long a refusal
//! takes does not tell how much of a guess was right. Over plain HTTP the token can be read on the way: a network that is
//! not trusted needs a proxy with TLS before it.

use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
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

/// What a browser is told, which then asks for a name and a password: the token is the password.
const CHALLENGE: &str = "Basic realm=\"jetcopy\", Bearer";

/// The token that requests must carry; without one, all may read.
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

    /// Whether a request with these headers may read: `Bearer TOKEN`, or as browsers send it, `Basic` with any name and
    /// the token as the password.
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.0 else { return true };
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

/// Lets through who may read.
pub(super) async fn check(State(access): State<Access>, request: Request, next: Next) -> Response {
    if access.allows(request.headers()) {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, CHALLENGE)], "a token is needed\n").into_response()
    }
}

/// By hand, so that the token is not shown.
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
