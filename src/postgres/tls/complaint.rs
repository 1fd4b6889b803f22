//! What is wrong with a server's certificate, for people: what to change, and what to reissue.

use openssl::nid::Nid;
use openssl::x509::{X509NameRef, X509Ref, X509StoreContextRef};

// OpenSSL's numbers (`X509_V_ERR_…`), which the binding has no names for.
const NOT_YET_VALID: i32 = 9;
const HAS_EXPIRED: i32 = 10;
const SELF_SIGNED: i32 = 18;
const SELF_SIGNED_IN_CHAIN: i32 = 19;
const NO_ISSUER: i32 = 20;
const NO_ISSUER_OF_LEAF: i32 = 21;
const INVALID_AUTHORITY: i32 = 24;
const INVALID_PURPOSE: i32 = 26;
const NOT_FOR_NAME: i32 = 62;
// What the check of addresses says: the application's own.
const NOT_FOR_ADDRESS: i32 = 50;
const KEY_TOO_SMALL: i32 = 66;
const AUTHORITY_KEY_TOO_SMALL: i32 = 67;
const DIGEST_TOO_WEAK: i32 = 68;

/// What is wrong with the certificate that the context is at.
pub(super) fn text(context: &X509StoreContextRef, host: &str) -> String {
    let error = context.error();
    let Some(certificate) = context.current_cert() else { return error.to_string() };
    let subject = name_of(certificate.subject_name());
    match error.as_raw() {
        NOT_YET_VALID | HAS_EXPIRED => format!(
            "the certificate of {subject} is valid from {} to {}: reissue it, or correct this machine's \
             clock",
            certificate.not_before(),
            certificate.not_after()
        ),
        SELF_SIGNED => format!(
            "the certificate of {subject} is self-signed: put it into ca_file, or use sslmode=require, which \
             checks no certificate"
        ),
        SELF_SIGNED_IN_CHAIN => format!("the CA {subject} is not in ca_file: add its certificate"),
        NO_ISSUER | NO_ISSUER_OF_LEAF => format!(
            "the CA {} of the certificate of {subject} is not in ca_file: add its certificate",
            name_of(certificate.issuer_name())
        ),
        INVALID_AUTHORITY => format!(
            "{subject} signs certificates without being a CA: reissue its certificate with \
             basicConstraints=critical,CA:TRUE, and sign the server's with it"
        ),
        INVALID_PURPOSE => format!(
            "the certificate of {subject} is not for servers: reissue it with extendedKeyUsage=serverAuth, \
             or without extendedKeyUsage"
        ),
        NOT_FOR_NAME | NOT_FOR_ADDRESS => {
            let kind = if error.as_raw() == NOT_FOR_NAME { "DNS" } else { "IP" };
            format!(
                "the certificate is for {}, not for {host}: connect by one of those names (hostaddr can give \
                 its address), or reissue it with subjectAltName={kind}:{host}",
                names(certificate)
            )
        }
        KEY_TOO_SMALL | AUTHORITY_KEY_TOO_SMALL => {
            format!(
                "the key of {subject} is too small: create a new key and certificate, RSA with 2048 bits or \
                 more"
            )
        }
        DIGEST_TOO_WEAK => {
            format!("the certificate of {subject} is signed with a weak digest: reissue it with SHA-256")
        }
        _ => format!("the certificate of {subject} is refused: {error}"),
    }
}

/// What a certificate is for, as far as it says.
fn names(certificate: &X509Ref) -> String {
    let listed = certificate.subject_alt_names();
    let mut names: Vec<String> = listed
        .iter()
        .flatten()
        .filter_map(|name| match (name.dnsname(), name.ipaddress()) {
            (Some(name), _) => Some(name.to_owned()),
            (None, Some(bytes)) => match *bytes {
                [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
                _ => {
                    <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string())
                }
            },
            (None, None) => None,
        })
        .collect();
    if names.is_empty() {
        names.push(name_of(certificate.subject_name()));
    }
    names.join(", ")
}

/// The common name, or else all of it.
fn name_of(name: &X509NameRef) -> String {
    let common = name.entries_by_nid(Nid::COMMONNAME).next();
    let text = common.or_else(|| name.entries().next()).and_then(|entry| entry.data().to_string().ok());
    text.map_or_else(|| "an unnamed subject".to_owned(), |text| format!("`{}`", text.escape_debug()))
}
