//! Clients' certificates and keys: what the server takes is taken, and of what does not serve the file is
//! named.

use super::*;

/// Files of the test's own user: psql takes no key of somebody else's.
fn own(server: &TlsServer, directory: &tempfile::TempDir, name: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.path().join(name);
    std::fs::write(&path, std::fs::read(server.path(name)).unwrap()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_clients_certificate_of_any_kind_logs_in_where_psqls_does() {
    let server = TlsServer::start().await;
    server.sign("usual", "rsa:2048", "localhost", Some("subjectAltName=DNS:localhost")).await;
    server.sign("version_1", "rsa:2048", "tester", None).await;
    server
        .sign(
            "p521",
            "ec -pkeyopt ec_paramgen_curve:secp521r1",
            "tester",
            Some("extendedKeyUsage=clientAuth"),
        )
        .await;
    server.sign("stranger", "rsa:2048", "stranger", None).await;
    server.run("openssl pkey -in version_1.key -aes256 -passout pass:hush -out locked.key").await;
    server.serve("usual", &[("ssl_ca_file", "ca.crt")], "hostssl all tester all cert").await;
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str| own(&server, &files, name);
    for (certificate, key, more, well) in [
        ("version_1.crt", "version_1.key", "", true),
        ("p521.crt", "p521.key", "", true),
        ("version_1.crt", "locked.key", "sslpassword=hush", true),
        ("version_1.crt", "locked.key", "sslpassword=wrong", false),
        ("version_1.crt", "p521.key", "", false),
        ("stranger.crt", "stranger.key", "", false),
    ] {
        let (cert, key) = (file(certificate), file(key));
        let more = format!("host=localhost sslmode=require sslcert={cert} sslkey={key} {more}");
        assert_eq!(server.agree(certificate, &more).await, well, "{more}");
    }
    assert!(!server.agree("none", "host=localhost sslmode=require").await);
}

#[tokio::test]
async fn a_file_that_does_not_serve_is_named_with_the_remedy() {
    let server = TlsServer::start().await;
    server.sign("one", "rsa:2048", "tester", None).await;
    server.sign("two", "rsa:2048", "tester", None).await;
    server
        .run("openssl pkey -in one.key -aes256 -passout pass:hush -out locked.key; echo >empty; echo x >text")
        .await;
    for (given, setting, said) in [
        (
            "sslcert=one.crt sslkey=locked.key",
            "sslkey",
            "locked.key is encrypted: set its password as sslpassword",
        ),
        ("sslcert=one.crt sslkey=locked.key", "sslkey", "or decrypt it with `openssl pkey -in"),
        (
            "sslcert=one.crt sslkey=locked.key sslpassword=x",
            "sslkey",
            "is encrypted with a password other \
             than",
        ),
        ("sslcert=one.crt sslkey=two.key", "sslkey", "two.key is not the key of the certificate in"),
        ("sslcert=one.crt sslkey=absent.key", "sslkey", "absent.key cannot be read"),
        ("sslcert=absent.crt sslkey=one.key", "sslcert", "absent.crt cannot be read"),
        ("sslcert=text sslkey=one.key", "sslcert", "text contains no PEM certificate"),
        ("sslcert=one.crt sslkey=one.crt", "sslkey", "one.crt contains no PEM private key"),
        ("sslrootcert=empty", "sslrootcert", "empty contains no PEM certificate"),
        ("sslcrl=absent", "sslcrl", "absent holds no revocation list in PEM"),
    ] {
        let full: Vec<_> = given
            .split(' ')
            .map(|pair| match pair.split_once('=') {
                Some((key, name)) if key != "sslpassword" => format!("{key}={}", server.path(name)),
                _ => pair.to_owned(),
            })
            .collect();
        let error = server.ours(&format!("host=localhost {}", full.join(" "))).await.unwrap_err();
        let ConnectError::Config { setting: at, problem, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*at, setting, "{given}: {error}");
        assert!(problem.contains(said), "{given}: {error}");
    }
}

#[tokio::test]
async fn a_certificate_that_was_revoked_is_refused_as_psql_refuses_it() {
    let server = TlsServer::start().await;
    server.sign("usual", "rsa:2048", "localhost", Some("subjectAltName=DNS:localhost")).await;
    server
        .run(
            "touch index.txt; echo 01 >crlnumber; printf \
             \"[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_md=sha256\n\
             default_crl_days=9\n\" \
             >ca.cnf; openssl ca -config ca.cnf -cert ca.crt -keyfile ca.key -gencrl -out before.crl && \
             openssl ca -config ca.cnf -cert ca.crt -keyfile ca.key -revoke usual.crt && openssl ca -config \
             ca.cnf -cert ca.crt -keyfile ca.key -gencrl -out after.crl",
        )
        .await;
    server.serve("usual", &[], RULES).await;
    let root = server.path("ca.crt");
    for (list, well) in [("before.crl", true), ("after.crl", false)] {
        let more =
            format!("host=localhost sslmode=verify-full sslrootcert={root} sslcrl={}", server.path(list));
        assert_eq!(server.agree(list, &more).await, well, "{list}");
    }
}
