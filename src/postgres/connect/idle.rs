//! Sessions that the server would end while they are idle.
//!
//! A role's or a server's `idle_session_timeout` is meant for sessions that people forget. A pipeline's
//! session idles as long as its stream is quiet, so it starts with the timeout off where there is one. That
//! is said at the start of the session and not by a later `SET`: behind a transaction pooler, a `SET` would
//! reach whoever gets that backend next. A pooler that does not take the option ends no session of ours for
//! the server's reasons, so it is left as it is.

use super::settings::Route;
use super::{HostInfo, Session, connect_host};
use crate::postgres::simple::{ask, within};

/// The setting came with PostgreSQL 14; on older servers it is NULL.
const ASK: &str = "SELECT current_setting('idle_session_timeout', true)";

const OPTION: &str = "-c idle_session_timeout=0";

/// The session, or another one in its place that may idle without end.
pub(super) async fn patient(session: Session, host: &HostInfo, route: &Route) -> Session {
    let answer = within(route.timeout, "asking for its limits", ask(&session.client, ASK)).await;
    // A session that does not answer shows it at its first use.
    let Ok(Ok(answer)) = answer else { return session };
    if answer.text(0).is_none_or(|limit| limit == "0") {
        return session;
    }
    let given = route.info.options.as_deref().map_or_else(String::new, |given| format!("{given} "));
    match connect_host(route, host, Some(&format!("{given}{OPTION}"))).await {
        Ok(patient) => {
            session.close().await;
            patient
        }
        Err(error) => {
            tracing::debug!(%error, "cannot switch idle_session_timeout off");
            session
        }
    }
}
