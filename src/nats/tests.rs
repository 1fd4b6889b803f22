//! Addresses, certificates and credentials, against real servers.

use async_nats::ConnectErrorKind;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::testbed::{NatsOptions, TestNats};

#[test]
fn an_address_may_hold_a_user_or_a_token() {
    let pair = |user: &str, password: Option<&str>| Some((user.to_owned(), password.map(str::to_owned)));
    assert_eq!(in_address("nats://a:4222,b:4222"), None);
    assert_eq!(in_address("nats://me:h%40sh@a:4222,nats://b"), pair("me", Some("h@sh")));
    assert_eq!(in_address("nats://a, nats://token@b"), pair("token", None));
}

#[test]
fn the_client_gets_addresses_without_what_logs_in() {
    for (address, bare) in [
        ("nats://me:h%40sh@a:4222", "nats://a:4222"),
        ("tls://token@a", "tls://a"),
        ("nats://a:4222", "nats://a:4222"),
        ("me:hush@a:4222", "a:4222"),
        ("a", "a"),
    ] {
        assert_eq!(without_user(address), bare);
    }
}

/// A server with more lines of configuration, and a directory for the client's files.
fn server(config: &str) -> (TestNats, TempDir) {
    let server = TestNats::start(&NatsOptions { config: config.into() }).unwrap();
    (server, tempfile::tempdir().unwrap())
}

fn file(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn to(server: &TestNats) -> config::Nats {
    config::Nats { url: server.url(), ..config::Nats::default() }
}

/// What the client said to a connection that was refused, with all its causes; no kind where it is about a
/// certificate.
async fn refused(settings: &config::Nats) -> (Option<ConnectErrorKind>, String) {
    let error = Connection::open(settings, "test").await.unwrap_err();
    let kind = match &error {
        ConnectError::File { .. } => panic!("not refused by the server"),
        ConnectError::Certificate { .. } => None,
        ConnectError::Connect { source, .. } => Some(source.kind()),
    };
    (kind, crate::chain::chain(&error))
}

/// That these settings log in, and `wrong` ones do not.
async fn logs_in(right: &config::Nats, wrong: &config::Nats) {
    Connection::open(right, "test").await.unwrap();
    let (kind, text) = refused(wrong).await;
    let denied =
        matches!(kind, Some(ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation));
    assert!(denied, "{kind:?}: {text}");
    assert!(!text.contains("s3cr"), "{text}");
}

#[tokio::test]
async fn a_user_and_a_token_log_in_by_their_files() {
    let (by_user, files) = server("authorization { user: me, password: s3cret }");
    let user = |password: &str| config::Nats {
        user: Some("me".into()),
        password_file: Some(file(&files, password, &format!("{password}\n"))),
        ..to(&by_user)
    };
    logs_in(&user("s3cret"), &user("s3crat")).await;
    let (by_token, files) = server("authorization { token: s3cret }");
    let token = |token: &str| config::Nats {
        token_file: Some(file(&files, token, &format!("{token}\n"))),
        ..to(&by_token)
    };
    logs_in(&token("s3cret"), &token("s3crat")).await;
}

#[tokio::test]
async fn an_nkey_logs_in() {
    let (right, wrong) = (KeyPair::new_user(), KeyPair::new_user());
    let (server, files) = server(&format!("authorization {{ users: [{{ nkey: {} }}] }}", right.public_key()));
    let nkey = |name: &str, key: &KeyPair| config::Nats {
        nkey_file: Some(file(&files, name, &key.seed().unwrap())),
        ..to(&server)
    };
    logs_in(&nkey("right", &right), &nkey("wrong", &wrong)).await;
}

/// A JWT of `issuer` about `subject`, as `nsc` makes them.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: &serde_json::Value) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "jti": "test", "iat": 1, "name": "test", "iss": issuer.public_key(), "sub": subject.public_key(),
        "nats": nats,
    });
    let signed = part(json!({"typ": "JWT", "alg": "ed25519-nkey"})) + "." + &part(claims);
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    signed + "." + &signature
}

#[tokio::test]
async fn a_credentials_file_logs_in() {
    let (operator, account, system) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1,
    });
    let of_account = json!({"type": "account", "version": 2, "limits": limits});
    let (server, files) = server(&format!(
        "operator: {}\nresolver: MEMORY\nsystem_account: {}\nresolver_preload {{ {}: {}\n {}: {} }}",
        jwt(&operator, &operator, &json!({"type": "operator", "version": 2})),
        system.public_key(),
        account.public_key(),
        jwt(&operator, &account, &of_account),
        system.public_key(),
        jwt(&operator, &system, &of_account),
    ));
    let credentials = |name: &str, account: &KeyPair| {
        let user = KeyPair::new_user();
        let claims = json!({
            "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
        });
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            jwt(account, &user, &claims),
            user.seed().unwrap()
        );
        config::Nats { credentials_file: Some(file(&files, name, &text)), ..to(&server) }
    };
    logs_in(&credentials("right", &account), &credentials("wrong", &KeyPair::new_account())).await;
}

/// An authority, and what it has signed for the names.
struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// Certificate and key.
    fn signs(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn tls_is_verified_both_ways_and_a_wrong_certificate_is_named_as_the_reason() {
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| file(&files, name, text).display().to_string();
    let tls = |name: &str, host: &str, verify: bool| {
        let (certificate, key) = authority.signs(host);
        format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: {verify} }}",
            path(&format!("{name}.crt"), &certificate),
            path(&format!("{name}.key"), &key),
            path("server-ca.crt", &authority.pem),
        )
    };
    let with = |server: &TestNats, ca: &Authority, client: Option<&Authority>| {
        let signed = client.map(|client| client.signs("jetcopy"));
        let own = signed.as_ref();
        config::Nats {
            tls: Some(config::Tls {
                ca_file: Some(file(&files, "ca.crt", &ca.pem)),
                cert_file: own.map(|(certificate, _)| file(&files, "client.crt", certificate)),
                key_file: own.map(|(_, key)| file(&files, "client.key", key)),
            }),
            ..to(server)
        }
    };
    let certain = async |settings: &config::Nats, reason: &str| {
        let (kind, text) = refused(settings).await;
        assert!(kind.is_none() && text.contains(reason), "{kind:?}: {text}");
    };

    let (plain, _) = server(&tls("plain", "127.0.0.1", false));
    Connection::open(&with(&plain, &authority, None), "test").await.unwrap();
    certain(&with(&plain, &other, None), "UnknownIssuer").await;
    let (elsewhere, _) = server(&tls("elsewhere", "elsewhere", false));
    certain(&with(&elsewhere, &authority, None), "not valid for").await;

    // A server that waits for the handshake, and one that speaks first, each with its own setting.
    let (first, _) = server(&tls("first", "127.0.0.1", false).replace(" }", ", handshake_first: true }"));
    let waiting = with(&first, &authority, None);
    Connection::open(&config::Nats { handshake_first: true, ..waiting.clone() }, "test").await.unwrap();
    let spoken = Connection::open(&waiting, "test");
    assert!(
        tokio::time::timeout(std::time::Duration::from_secs(30), spoken)
            .await
            .is_ok_and(|open| open.is_err())
    );

    let (mutual, _) = server(&tls("mutual", "127.0.0.1", true));
    Connection::open(&with(&mutual, &authority, Some(&authority)), "test").await.unwrap();
    for client in [None, Some(&other)] {
        assert!(Connection::open(&with(&mutual, &authority, client), "test").await.is_err());
    }
}

#[tokio::test]
async fn a_file_of_the_client_that_does_not_serve_is_named_with_the_remedy() {
    let (server, files) = server("");
    let openssl = |arguments: &str| {
        let mut command = std::process::Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(files.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    openssl("req -new -newkey rsa:2048 -nodes -subj /CN=me -keyout me.key -out me.csr");
    openssl("x509 -req -in me.csr -signkey me.key -days 9 -out me.crt");
    openssl("pkey -in me.key -aes256 -passout pass:hush -out locked.key");
    openssl("req -x509 -newkey rsa:2048 -nodes -subj /CN=me -keyout other.key -out other.crt");
    for (cert, key, setting, said) in [
        ("me.crt", "me.key", "tls.cert_file", "its certificate is X.509 version 1"),
        (
            "other.crt",
            "locked.key",
            "tls.key_file",
            "locked.key is encrypted: decrypt it with `openssl pkey -in",
        ),
        ("other.crt", "me.key", "tls.key_file", "me.key is not the key of the certificate in"),
        ("other.crt", "absent.key", "tls.key_file", "absent.key cannot be read"),
    ] {
        let tls = config::Tls {
            ca_file: None,
            cert_file: Some(files.path().join(cert)),
            key_file: Some(files.path().join(key)),
        };
        let error =
            Connection::open(&config::Nats { tls: Some(tls), ..to(&server) }, "test").await.err().unwrap();
        let ConnectError::File { setting: at, source, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*at, setting, "{cert} {key}: {error}");
        assert!(source.to_string().contains(said), "{cert} {key}: {source}");
    }
}

#[test]
fn a_denial_is_read_out_of_the_servers_words() {
    let read = |text: &str| Denial::read(text).map(|denial| denial.to_string());
    let publish = r#"Permissions Violation for Publish to "$JS.API.STREAM.INFO.FRAMES""#;
    assert_eq!(read(publish).as_deref(), Some("publish to $JS.API.STREAM.INFO.FRAMES"));
    let subscribe = r#"Permissions Violation for Subscription to "_INBOX_jetcopy.x.*" using queue "q""#;
    assert_eq!(read(subscribe).as_deref(), Some("subscribe to _INBOX_jetcopy.x.*"));
    assert_eq!(read("Stale Connection"), None);
}

#[tokio::test]
async fn what_is_not_allowed_is_known_at_once_and_what_ended_a_connection_is_told() {
    let (server, _) =
        server(r#"authorization { users: [{ user: me, password: me, permissions: { publish: "a" } }] }"#);
    let url = server.url().replace("nats://", "nats://me:me@");
    let connection =
        Connection::open(&config::Nats { url, ..config::Nats::default() }, "test").await.unwrap();
    connection.client.publish("b", "".into()).await.unwrap();
    let denial = connection.denied(|denial| denial.subject != "c").await;
    assert_eq!((denial.action, denial.subject.as_str()), (Access::Publish, "b"));
    assert!(!connection.is_broken());
    drop(server);
    let lost = connection.broken().await;
    assert!(connection.is_broken());
    assert!(
        lost.to_string().contains("the last error that the server sent: Permissions Violation"),
        "{lost}"
    );
}
