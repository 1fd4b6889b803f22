//! The TLS side of a PostgreSQL connection: OpenSSL, as libpq has it.
//!
//! Guarantees:
//! - What libpq takes of a server in a mode is taken in that mode: without authorities, `allow`, `prefer` and
//!   `require` take any certificate, since whoever can forge one could as well answer that there is no TLS;
//!   with authorities, they take what `verify-ca` takes.
//! - `verify-ca` takes a certificate that one of the authorities has signed, `verify-full` one that is for
//!   the host's name too.
//! - Where a certificate is refused, [`Connector::complaint`] says what to reissue; where a file does not
//!   serve, the error says which.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslFiletype, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::store::{X509Lookup, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509Ref, X509VerifyResult};
use postgres_openssl::{TlsConnector, TlsStream};
use tokio_postgres::Socket;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use crate::client_certificate::{self, Files, KeyPassword, TlsError};
use crate::config::{self, Root, SslMode, TlsParameters, TlsVersion};

mod complaint;

/// How far a server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verify {
    Nothing,
    Authority,
    Full,
}

/// Makes connections, one for each attempt ([`Connector::attempt`]).
#[derive(Clone)]
pub struct Connector {
    ssl: SslConnector,
    mode: SslMode,
    verify: Verify,
    sni: bool,
    used: Arc<AtomicBool>,
    complaint: Arc<Mutex<Option<String>>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connector").field("verify", &self.verify).finish_non_exhaustive()
    }
}

impl Connector {
    /// Made of what the connection string says and of `[postgres.tls]`, which goes before it.
    pub fn new(said: &TlsParameters, settings: Option<&config::Tls>) -> Result<Self, TlsError> {
        let none = config::Tls::default();
        let settings = settings.unwrap_or(&none);
        // Who names an authority wants it to be asked.
        let usual = if settings.ca_file.is_some() { SslMode::VerifyFull } else { SslMode::Prefer };
        let mode = said.mode.unwrap_or(usual);
        let root = match (&settings.ca_file, &said.root) {
            (Some(file), _) => Some(("tls.ca_file", Root::File(file.clone()))),
            (None, Some(root)) => Some(("sslrootcert", root.clone())),
            (None, None) => (mode >= SslMode::VerifyCa).then_some(("tls.ca_file", Root::System)),
        };
        let verify = match (mode, &root) {
            (SslMode::VerifyFull, _) => Verify::Full,
            (_, None) => Verify::Nothing,
            (_, Some(_)) => Verify::Authority,
        };
        let ssl = builder(said, settings, root).map(SslConnectorBuilder::build)?;
        Ok(Self { ssl, mode, verify, sni: said.sni, used: Arc::default(), complaint: Arc::default() })
    }

    /// What `sslmode` is.
    #[must_use]
    pub fn mode(&self) -> SslMode {
        self.mode
    }

    /// The same for one attempt, which remembers what it met.
    #[must_use]
    pub fn attempt(&self) -> Self {
        Self { used: Arc::default(), complaint: Arc::default(), ..self.clone() }
    }

    /// Whether the server offered TLS.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// Whether the server must show that it is the one that is meant, or at least somebody whom an authority
    /// vouches for.
    #[must_use]
    pub fn verifies(&self) -> bool {
        self.verify != Verify::Nothing
    }

    /// What is wrong with the server's certificate, and what to reissue.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn builder(
    said: &TlsParameters,
    settings: &config::Tls,
    root: Option<(&'static str, Root)>,
) -> Result<SslConnectorBuilder, TlsError> {
    let library = |error: ErrorStack| TlsError::new("tls", None, "OpenSSL rejects the settings", error);
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(library)?;
    let mut store = X509StoreBuilder::new().map_err(library)?;
    match root {
        None => {}
        Some((setting, Root::File(path))) => {
            for certificate in client_certificate::certificates(setting, &path)? {
                store.add_cert(certificate).map_err(library)?;
            }
        }
        Some((setting, Root::System)) => {
            for certificate in system_roots(setting)? {
                store.add_cert(certificate).map_err(library)?;
            }
        }
    }
    if let Some(path) = &said.revoked {
        let lookup = store.add_lookup(X509Lookup::file()).map_err(library)?;
        lookup
            .load_crl_file(path, SslFiletype::PEM)
            .map_err(|error| TlsError::new("sslcrl", Some(path), "holds no revocation list in PEM", error))?;
    }
    if let Some(path) = &said.revoked_in {
        let lookup = store.add_lookup(X509Lookup::hash_dir()).map_err(library)?;
        let directory = path.to_string_lossy();
        lookup
            .add_dir(&directory, SslFiletype::PEM)
            .map_err(|error| TlsError::new("sslcrldir", Some(path), "cannot be used", error))?;
    }
    if said.revoked.is_some() || said.revoked_in.is_some() {
        store.set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL).map_err(library)?;
    }
    builder.set_cert_store(store.build());
    builder.set_min_proto_version(Some(version(said.oldest))).map_err(library)?;
    builder.set_max_proto_version(said.newest.map(version)).map_err(library)?;
    if said.direct {
        postgres_openssl::set_postgresql_alpn(&mut builder).map_err(library)?;
    }
    let own = Files {
        cert: named("tls.cert_file", settings.cert_file.as_ref(), "sslcert", said.cert.as_ref()),
        key: named("tls.key_file", settings.key_file.as_ref(), "sslkey", said.key.as_ref()),
        password: said.key_password.as_deref().map_or(KeyPassword::Absent, KeyPassword::Given),
    };
    if let Some(own) = own.read()? {
        own.give(&mut builder)?;
    }
    Ok(builder)
}

/// A file by the setting that names it; jetcopy's own goes first.
fn named<'a>(
    own: &'static str,
    file: Option<&'a PathBuf>,
    url: &'static str,
    in_url: Option<&'a PathBuf>,
) -> Option<(&'static str, &'a Path)> {
    file.map(|path| (own, path.as_path())).or(in_url.map(|path| (url, path.as_path())))
}

fn version(version: TlsVersion) -> SslVersion {
    match version {
        TlsVersion::V1 => SslVersion::TLS1,
        TlsVersion::V1_1 => SslVersion::TLS1_1,
        TlsVersion::V1_2 => SslVersion::TLS1_2,
        TlsVersion::V1_3 => SslVersion::TLS1_3,
    }
}

fn system_roots(setting: &'static str) -> Result<Vec<X509>, TlsError> {
    let mut loaded = rustls_native_certs::load_native_certs();
    // Systems ship certificates that a strict parser refuses; the others serve.
    let roots: Vec<_> = loaded.certs.iter().filter_map(|der| X509::from_der(der).ok()).collect();
    if roots.is_empty() {
        const NONE: &str = "the system has no CA certificates: set a ca_file";
        return Err(match loaded.errors.pop() {
            Some(error) => TlsError::new(setting, None, NONE, error),
            None => TlsError::bare(setting, None, NONE),
        });
    }
    Ok(roots)
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = TlsStream<Socket>;
    type TlsConnect = Noted;
    type Error = ErrorStack;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Noted, ErrorStack> {
        let mut ssl = self.ssl.configure()?;
        ssl.set_use_server_name_indication(self.sni);
        let address = domain.parse::<IpAddr>().ok();
        // OpenSSL compares names; addresses, which it compares with less than libpq does, are compared here.
        ssl.set_verify_hostname(self.verify == Verify::Full && address.is_none());
        if self.verify == Verify::Nothing {
            ssl.set_verify(SslVerifyMode::NONE);
        } else {
            let address = address.filter(|_| self.verify == Verify::Full);
            let (host, complaint) = (domain.to_owned(), Arc::clone(&self.complaint));
            ssl.set_verify_callback(SslVerifyMode::PEER, move |well, context| {
                let elsewhere = |address| !context.current_cert().is_some_and(|own| is_for(own, address));
                let elsewhere = well && context.error_depth() == 0 && address.is_some_and(elsewhere);
                if elsewhere {
                    context.set_error(X509VerifyResult::APPLICATION_VERIFICATION);
                }
                if !well || elsewhere {
                    let text = complaint::text(context, &host);
                    complaint.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
                }
                well && !elsewhere
            });
        }
        Ok(Noted { inner: TlsConnector::new(ssl, domain), used: Arc::clone(&self.used) })
    }
}

/// Whether a certificate is for an address: as an address or as a name, or as the common name where it lists
/// no addresses.
fn is_for(certificate: &X509Ref, address: IpAddr) -> bool {
    let text = address.to_string();
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut listed = false;
    for name in certificate.subject_alt_names().iter().flatten() {
        listed |= name.ipaddress().is_some();
        if name.ipaddress() == Some(&bytes) || name.dnsname() == Some(&text) {
            return true;
        }
    }
    let common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next();
    !listed && common.is_some_and(|name| name.data().as_slice() == text.as_bytes())
}

/// A connection attempt that tells when it comes to the handshake.
pub struct Noted {
    inner: TlsConnector,
    used: Arc<AtomicBool>,
}

impl TlsConnect<Socket> for Noted {
    type Stream = TlsStream<Socket>;
    type Error = <TlsConnector as TlsConnect<Socket>>::Error;
    type Future = <TlsConnector as TlsConnect<Socket>>::Future;

    fn connect(self, stream: Socket) -> Self::Future {
        self.used.store(true, Ordering::Release);
        self.inner.connect(stream)
    }
}

#[cfg(test)]
mod tests;
