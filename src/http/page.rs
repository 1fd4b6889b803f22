//! The status page: one document with its style and its script inside.
//! Guarantees: it requests nothing from anything but this daemon, and its Content-Security-Policy lets a
//! browser use exactly the style and the script in this directory, nothing else. All that it shows comes from
//! `/status` and `/status/history`; the script inserts it as text, so that a name or a reason is never
//! markup.

use std::sync::LazyLock;

use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{Html, IntoResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const FRAME: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// In the order in which they depend on each other.
const SCRIPT: &str = concat!(
    include_str!("page/format.js"),
    include_str!("page/chart.js"),
    include_str!("page/pipeline.js"),
    include_str!("page/page.js"),
);

/// Where style and script go in the frame.
const STYLE_PLACE: &str = "/* style */";
const SCRIPT_PLACE: &str = "/* script */";

static PAGE: LazyLock<Page> = LazyLock::new(Page::new);

struct Page {
    html: String,
    policy: HeaderValue,
}

impl Page {
    fn new() -> Self {
        let policy = format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT),
        );
        Self {
            html: FRAME.replace(STYLE_PLACE, STYLE).replace(SCRIPT_PLACE, SCRIPT),
            policy: HeaderValue::from_str(&policy).expect("words and base64"),
        }
    }
}

/// A source of a Content-Security-Policy.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

/// Answers with the page.
pub(super) async fn show() -> impl IntoResponse {
    let headers = [
        (CONTENT_SECURITY_POLICY, PAGE.policy.clone()),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
    ];
    (headers, Html(PAGE.html.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_exactly_the_style_and_the_script_that_its_policy_names() {
        let between = |open: &str, close: &str| {
            let (_, rest) = PAGE.html.split_once(open).unwrap();
            rest.split_once(close).unwrap().0.to_owned()
        };
        let policy = PAGE.policy.to_str().unwrap();
        assert!(policy.contains(&hash(&between("<style>", "</style>"))), "{policy}");
        assert!(policy.contains(&hash(&between("<script type=\"module\">", "</script>"))), "{policy}");
        assert_eq!(PAGE.html.matches("<script").count(), 1);
        assert_eq!(PAGE.html.matches("<style").count(), 1);
    }

    #[test]
    fn the_page_refers_to_nothing_outside_itself() {
        for outside in ["http://", "https://", "src=", "@import", "url(", " style=\"", "onclick="] {
            let found = PAGE.html.replace("http://www.w3.org/2000/svg", "").contains(outside);
            assert!(!found, "the page holds {outside}");
        }
    }
}
