//! The TLS side of a PostgreSQL connection.
//!
//! Guarantees: with `sslmode=require` or `verify-full`, or with a `ca_file`, the server's certificate and name are verified;
//! with `verify-ca` the certificate, whatever name it is for. With
//! `sslmode=prefer` (the default) and no `ca_file` the connection is encrypted where the server offers it, and nothing
//! is verified, as libpq does it: whoever can forge a certificate there could as well answer that there is no TLS.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;

use crate::config::{self, Verify};

/// A certificate or key that does not serve.
#[derive(Debug, thiserror::Error)]
#[error("{setting} does not serve")]
pub struct TlsError {
    /// Setting at fault.
    pub setting: &'static str,
    /// File at fault, where it is one.
    pub path: Option<PathBuf>,
    /// What the library said.
    #[source]
    pub source: Box<dyn StdError + Send + Sync>,
}

/// Builds what the handshake needs from `[postgres.tls]` and the URL's `sslmode`.
pub fn client_config(
    settings: Option<&config::Tls>,
    mode: SslMode,
    verify: Verify,
) -> Result<ClientConfig, TlsError> {
    let ca_file = settings.and_then(|tls| tls.ca_file.as_deref());
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError { setting: "tls", path: None, source: error.into() })?;
    let roots = match (ca_file, mode) {
        (Some(path), _) => Some(roots_of(path)?),
        (None, SslMode::Disable | SslMode::Prefer) => None,
        (None, _) => Some(system_roots()?),
    };
    let builder = match (roots, verify) {
        (None, _) => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider))),
        (Some(roots), Verify::Usual | Verify::Full) => builder.with_root_certificates(roots),
        (Some(roots), Verify::Authority) => {
            let full = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| TlsError { setting: "tls.ca_file", path: None, source: error.into() })?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(full)))
        }
    };
    let files = settings.map(|tls| (tls.cert_file.as_deref(), tls.key_file.as_deref()));
    match files {
        Some((Some(cert), Some(key))) => {
            let chain = certificates("tls.cert_file", cert)?;
            let private =
                PrivateKeyDer::from_pem_file(key).map_err(|error| at("tls.key_file", key, error))?;
            builder.with_client_auth_cert(chain, private).map_err(|error| TlsError {
                setting: "tls.key_file",
                path: Some(key.into()),
                source: error.into(),
            })
        }
        Some((Some(cert), None)) => Err(at("tls.key_file", cert, "a cert_file needs its key_file")),
        Some((None, Some(key))) => Err(at("tls.cert_file", key, "a key_file needs its cert_file")),
        Some((None, None)) | None => Ok(builder.with_no_client_auth()),
    }
}

fn at(setting: &'static str, path: &Path, source: impl Into<Box<dyn StdError + Send + Sync>>) -> TlsError {
    TlsError { setting, path: Some(path.into()), source: source.into() }
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| at(setting, path, error))?;
    if found.is_empty() {
        return Err(at(setting, path, "it holds no certificate in PEM"));
    }
    Ok(found)
}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls.ca_file", path)? {
        roots.add(certificate).map_err(|error| at("tls.ca_file", path, error))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems ship certificates that a strict parser refuses; the others serve.
    let (added, _ignored) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let source: Box<dyn StdError + Send + Sync> = match loaded.errors.pop() {
            Some(error) => error.into(),
            None => "the system has no certificate authorities".into(),
        };
        return Err(TlsError { setting: "tls.ca_file", path: None, source });
    }
    Ok(roots)
}

/// Takes a certificate that an authority has signed, whatever name it is for.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: all else is well.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Takes any certificate, and still checks that the peer holds its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
