//! The parameters of libpq: the variable of each, and what jetcopy does with it.
//!
//! Guarantees: every parameter of libpq is here: it is used, has no effect, or is rejected with what to do
//! instead.

use super::{ConnInfoError, syntax};

/// How alike a known name must be to be suggested (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.8;

/// What becomes of a parameter.
enum Use {
    /// As libpq has it.
    Taken,
    /// It changes nothing here: jetcopy has its own, or the matter does not arise.
    Idle,
    /// Only these values, which ask for nothing, are let be.
    Only(&'static [&'static str]),
}
use Use::{Idle, Only, Taken};

/// Name, variable, use; where it is refused, what to do instead.
const PARAMETERS: [(&str, &str, Use, &str); 51] = [
    ("service", "", Taken, ""),
    ("servicefile", "", Taken, ""),
    ("user", "PGUSER", Taken, ""),
    ("password", "PGPASSWORD", Taken, ""),
    ("passfile", "PGPASSFILE", Taken, ""),
    ("dbname", "PGDATABASE", Taken, ""),
    ("host", "PGHOST", Taken, ""),
    ("hostaddr", "PGHOSTADDR", Taken, ""),
    ("port", "PGPORT", Taken, ""),
    ("options", "PGOPTIONS", Taken, ""),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Taken, ""),
    ("tcp_user_timeout", "", Taken, ""),
    ("keepalives", "", Taken, ""),
    ("keepalives_idle", "", Taken, ""),
    ("keepalives_interval", "", Taken, ""),
    ("keepalives_count", "", Taken, ""),
    ("channel_binding", "PGCHANNELBINDING", Taken, ""),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Taken, ""),
    ("sslmode", "PGSSLMODE", Taken, ""),
    ("sslnegotiation", "PGSSLNEGOTIATION", Taken, ""),
    ("sslrootcert", "PGSSLROOTCERT", Taken, ""),
    ("sslcert", "PGSSLCERT", Taken, ""),
    ("sslkey", "PGSSLKEY", Taken, ""),
    ("sslpassword", "", Taken, ""),
    ("sslcertmode", "PGSSLCERTMODE", Only(&["disable", "allow"]), "make pg_hba.conf require the certificate"),
    ("sslcrl", "PGSSLCRL", Taken, ""),
    ("sslcrldir", "PGSSLCRLDIR", Taken, ""),
    ("sslsni", "PGSSLSNI", Taken, ""),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Taken, ""),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Taken, ""),
    // Sessions are named by jetcopy, which knows its own by that.
    ("application_name", "PGAPPNAME", Idle, ""),
    ("fallback_application_name", "", Idle, ""),
    // It is always UTF8.
    ("client_encoding", "PGCLIENTENCODING", Idle, ""),
    // Hosts are tried in their order, since only one of them takes writes.
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Idle, ""),
    // Nothing is compressed, no keys are written down, and there is no GSSAPI.
    ("sslcompression", "PGSSLCOMPRESSION", Idle, ""),
    ("sslkeylogfile", "", Only(&[]), "remove it"),
    ("krbsrvname", "PGKRBSRVNAME", Idle, ""),
    ("gsslib", "PGGSSLIB", Idle, ""),
    ("gssdelegation", "PGGSSDELEGATION", Idle, ""),
    ("authtype", "", Idle, ""),
    ("tty", "", Idle, ""),
    ("gssencmode", "PGGSSENCMODE", Only(&["disable", "prefer"]), "use TLS: sslmode=verify-full"),
    ("requiressl", "PGREQUIRESSL", Only(&["0"]), "use sslmode=require"),
    ("require_auth", "PGREQUIREAUTH", Only(&[]), "use sslmode=verify-full and channel_binding=require"),
    (
        "requirepeer",
        "PGREQUIREPEER",
        Only(&[]),
        "put the socket into a directory that only the server can write to",
    ),
    ("replication", "", Only(&["false", "off", "no", "0"]), "remove it: jetcopy does not replicate"),
    ("min_protocol_version", "PGMINPROTOCOLVERSION", Only(&["3.0"]), "remove it: jetcopy uses 3.0"),
    ("max_protocol_version", "PGMAXPROTOCOLVERSION", Idle, ""),
    ("scram_client_key", "", Only(&[]), "use password_file"),
    ("scram_server_key", "", Only(&[]), "use password_file"),
    ("oauth_issuer", "", Only(&[]), "use a password or a certificate"),
];

/// What is said, by libpq's names.
#[derive(Default)]
pub(super) struct Settings(Vec<(&'static str, String)>);

impl Settings {
    /// Of a connection string; the last one wins where a name is there twice.
    pub(super) fn of_text(text: &str) -> Result<Self, ConnInfoError> {
        Self::of_pairs(syntax::pairs(text)?)
    }

    pub(super) fn of_pairs(pairs: Vec<(String, String)>) -> Result<Self, ConnInfoError> {
        let mut settings = Self::default();
        for (key, value) in pairs {
            let (name, value) = match key.as_str() {
                // As JDBC has it.
                "ssl" if value == "true" => ("sslmode", "require".to_owned()),
                "ssl" => {
                    return Err(ConnInfoError::new("ssl must be true; use sslmode=disable to turn TLS off"));
                }
                // As earlier versions of jetcopy had it.
                "keepalives_retries" => ("keepalives_count", value),
                key => (known(key, &value)?, value),
            };
            settings.0.retain(|(known, _)| *known != name);
            settings.0.push((name, value));
        }
        Ok(settings)
    }

    /// Adds what `others` say and these do not.
    pub(super) fn complete(&mut self, others: Self) {
        for (name, value) in others.0 {
            if self.0.iter().all(|(known, _)| *known != name) {
                self.0.push((name, value));
            }
        }
    }

    /// Adds what variables say and these do not.
    pub(super) fn complete_by_variables(
        &mut self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), ConnInfoError> {
        for (name, by, ..) in &PARAMETERS {
            if by.is_empty() || self.0.iter().any(|(known, _)| known == name) {
                continue;
            }
            if let Some(value) = variable(by).filter(|value| !value.is_empty()) {
                known(name, &value)
                    .map_err(|ConnInfoError(problem)| ConnInfoError(format!("{by}: {problem}")))?;
                self.0.push((name, value));
            }
        }
        Ok(())
    }

    /// The variables that say what these do not.
    pub(super) fn completed_by(&self, variable: &dyn Fn(&str) -> Option<String>) -> Vec<&'static str> {
        let open = |name: &str| !self.0.iter().any(|(known, _)| *known == name);
        let says = |by: &str| !by.is_empty() && variable(by).is_some_and(|value| !value.is_empty());
        PARAMETERS.iter().filter(|(name, by, ..)| open(name) && says(by)).map(|(_, by, ..)| *by).collect()
    }

    /// What is not empty: libpq takes an empty value for none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(PARAMETERS.iter().any(|(known, ..)| *known == name), "{name}");
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A whole number; a negative one counts as 0.
    pub(super) fn whole(&self, name: &'static str) -> Result<Option<u64>, ConnInfoError> {
        let number = self.get(name).map(|value| value.trim().parse::<i64>()).transpose();
        let number = number.map_err(|_| ConnInfoError::new(format!("{name} must be a whole number")))?;
        Ok(number.map(|number| u64::try_from(number).unwrap_or(0)))
    }

    /// One of the values that are known.
    pub(super) fn one_of<T: Copy>(
        &self,
        name: &'static str,
        values: &[(&str, T)],
    ) -> Result<Option<T>, ConnInfoError> {
        let Some(given) = self.get(name) else { return Ok(None) };
        if let Some((_, value)) = values.iter().find(|(value, _)| value.eq_ignore_ascii_case(given)) {
            return Ok(Some(*value));
        }
        let values: Vec<_> = values.iter().map(|(value, _)| *value).collect();
        Err(ConnInfoError::new(format!("{name} must be one of {}", values.join(", "))))
    }
}

/// The name as it is known, where it may have that value.
fn known(key: &str, value: &str) -> Result<&'static str, ConnInfoError> {
    let found = PARAMETERS.iter().find(|(name, ..)| *name == key);
    match found {
        Some((name, _, Taken | Idle, _)) => Ok(name),
        Some((name, _, Only(values), _)) if value.is_empty() || values.contains(&value) => Ok(name),
        Some((name, _, Only([]), instead)) => {
            Err(ConnInfoError::new(format!("{name} is not supported; {instead}")))
        }
        Some((name, _, Only(values), instead)) => {
            Err(ConnInfoError::new(format!("{name} is supported only as {}; {instead}", values.join(" or "))))
        }
        None if key.starts_with("oauth_") => known("oauth_issuer", value),
        None => {
            let likeness = |name| strsim::jaro_winkler(name, key);
            let nearest = PARAMETERS
                .iter()
                .map(|(name, ..)| *name)
                .filter(|name| likeness(name) >= ALIKE)
                .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            // The unknown name itself may be a piece of a password.
            Err(ConnInfoError::new(match nearest {
                Some(name) => format!("contains an unknown option; did you mean {name}?"),
                None => {
                    "contains an option that libpq does not know, or a password with a character that is not \
                     percent-encoded"
                        .to_owned()
                }
            }))
        }
    }
}

#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PARAMETERS.iter().map(|(name, ..)| *name)
}
