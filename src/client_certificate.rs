//! The client's certificate and key, and the files that certificates come from.
//!
//! Guarantees: an error names the setting and the file at fault and what would mend it. A key is used with
//! the certificate that it belongs to, or not at all.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use openssl::pkey::{PKey, Private};
use openssl::ssl::SslConnectorBuilder;
use openssl::x509::X509;

/// A certificate or key that does not serve.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.problem())]
pub struct TlsError {
    /// Setting at fault.
    pub setting: &'static str,
    path: Option<PathBuf>,
    text: String,
    /// What the system or the library said.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

impl TlsError {
    pub(crate) fn bare(setting: &'static str, path: Option<&Path>, text: impl Into<String>) -> Self {
        Self { setting, path: path.map(Path::to_owned), text: text.into(), source: None }
    }

    pub(crate) fn new(
        setting: &'static str,
        path: Option<&Path>,
        text: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { source: Some(source.into()), ..Self::bare(setting, path, text) }
    }

    /// What is wrong, with the file at fault.
    #[must_use]
    pub fn problem(&self) -> String {
        match &self.path {
            Some(path) => format!("{} {}", path.display(), self.text),
            None => self.text.clone(),
        }
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::new(setting, Some(path), "cannot be read", error))
}

/// The certificates of a file; at least one.
pub(crate) fn certificates(setting: &'static str, path: &Path) -> Result<Vec<X509>, TlsError> {
    const NONE: &str = "contains no PEM certificate";
    let found = X509::stack_from_pem(&read(setting, path)?)
        .map_err(|error| TlsError::new(setting, Some(path), NONE, error))?;
    if found.is_empty() { Err(TlsError::bare(setting, Some(path), NONE)) } else { Ok(found) }
}

/// The client's files, each by the setting that names it.
pub(crate) struct Files<'a> {
    /// The certificate, and those between it and its authority.
    pub cert: Option<(&'static str, &'a Path)>,
    /// Its key.
    pub key: Option<(&'static str, &'a Path)>,
    /// What the key is encrypted with.
    pub password: KeyPassword<'a>,
}

/// The password of an encrypted key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeyPassword<'a> {
    /// There is no way to use an encrypted key.
    Unsupported,
    /// None is given.
    Absent,
    /// This one.
    Given(&'a str),
}

/// Who the client is.
pub(crate) struct Identity<'a> {
    chain: Vec<X509>,
    key: PKey<Private>,
    files: [(&'static str, &'a Path); 2],
}

impl<'a> Files<'a> {
    /// Reads them, where there are any.
    pub(crate) fn read(&self) -> Result<Option<Identity<'a>>, TlsError> {
        let (cert, key) = match (self.cert, self.key) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            (Some((setting, path)), None) => {
                return Err(TlsError::bare(setting, Some(path), "needs the file with its key"));
            }
            (None, Some((setting, path))) => {
                return Err(TlsError::bare(setting, Some(path), "needs the file with its certificate"));
            }
        };
        let chain = certificates(cert.0, cert.1)?;
        let key_read = self.read_key(key.0, key.1)?;
        let belongs = chain[0].public_key().is_ok_and(|public| public.public_eq(&key_read));
        if !belongs {
            let text = format!("is not the key of the certificate in {}", cert.1.display());
            return Err(TlsError::bare(key.0, Some(key.1), text));
        }
        Ok(Some(Identity { chain, key: key_read, files: [cert, key] }))
    }

    fn read_key(&self, setting: &'static str, path: &Path) -> Result<PKey<Private>, TlsError> {
        let bytes = read(setting, path)?;
        let mut asked = false;
        let found = if bytes.windows(11).any(|window| window == b"-----BEGIN ") {
            PKey::private_key_from_pem_callback(&bytes, |buffer| {
                asked = true;
                let KeyPassword::Given(password) = self.password else { return Ok(0) };
                let password = password.as_bytes();
                let length = password.len().min(buffer.len());
                buffer[..length].copy_from_slice(&password[..length]);
                Ok(length)
            })
        } else {
            PKey::private_key_from_der(&bytes)
        };
        found.map_err(|error| {
            let decrypt = format!("decrypt it with `openssl pkey -in {} -out FILE`", path.display());
            let text = match (asked, self.password) {
                (true, KeyPassword::Given(_)) => {
                    "is encrypted with a password other than sslpassword".to_owned()
                }
                (true, KeyPassword::Absent) => {
                    format!("is encrypted: set its password as sslpassword in postgres.url, or {decrypt}")
                }
                (true, KeyPassword::Unsupported) => format!("is encrypted: {decrypt}"),
                (false, _) => "contains no PEM private key".to_owned(),
            };
            TlsError::new(setting, Some(path), text, error)
        })
    }
}

impl Identity<'_> {
    /// Lets the client identify itself by it.
    pub(crate) fn give(self, builder: &mut SslConnectorBuilder) -> Result<(), TlsError> {
        let [(cert_setting, cert), (key_setting, key)] = self.files;
        let refused = |setting, path, error| {
            TlsError::new(
                setting,
                Some(path),
                "is rejected by OpenSSL: recreate the key and the certificate",
                error,
            )
        };
        let mut chain = self.chain.into_iter();
        if let Some(own) = chain.next() {
            builder.set_certificate(&own).map_err(|error| refused(cert_setting, cert, error))?;
        }
        for between in chain {
            builder.add_extra_chain_cert(between).map_err(|error| refused(cert_setting, cert, error))?;
        }
        builder.set_private_key(&self.key).map_err(|error| refused(key_setting, key, error))
    }

    /// Whether the certificate is of version 1, which rustls does not take.
    #[must_use]
    pub(crate) fn is_version_1(&self) -> bool {
        // Counted from 0.
        self.chain.first().is_some_and(|own| own.version() == 0)
    }
}
