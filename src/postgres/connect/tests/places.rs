//! Which server and which login a connection string leads to, as libpq has it.

use super::*;
use crate::exposure;
use crate::testbed::Need;

/// Passwords, services and variables are tried in `config::conninfo`; here they reach a server.
#[tokio::test]
async fn a_password_file_and_a_service_log_in() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = guarded(None, None).await;
    let files = tempfile::tempdir().unwrap();
    let passfile = files.path().join("pgpass");
    std::fs::write(
        &passfile,
        format!("localhost:*:*:*:no\n127.0.0.1:{}:*:guarded:s3cr\\:et@word\n", server.port()),
    )
    .unwrap();
    std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o600)).unwrap();
    let pairs =
        format!("port={} user=guarded dbname=postgres passfile={}", server.port(), passfile.display());
    connect(&settings(&format!("host=127.0.0.1 {pairs}")), "test").await.unwrap();
    refused(&settings(&format!("host=localhost hostaddr=127.0.0.1 {pairs}"))).await;

    let services = files.path().join("services.conf");
    let text =
        format!("[here]\nhostaddr=127.0.0.1\nport={}\nuser=guarded\npassword={SECRET}\n", server.port());
    std::fs::write(&services, text).unwrap();
    let config = settings(&format!("service=here servicefile={} dbname=postgres", services.display()));
    let session = connect(&config, "test").await.unwrap();
    assert_eq!(session.host(), format!("127.0.0.1:{}", server.port()));
}

#[tokio::test]
async fn an_address_alone_is_enough_also_for_tls() {
    let own = certificate();
    let server = guarded(Some((&own.cert.pem(), &own.signing_key.serialize_pem())), None).await;
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), own.cert.pem()).unwrap();
    for mode in ["disable", "prefer", "require", "verify-full"] {
        let url = format!(
            "hostaddr=127.0.0.1 port={} user=guarded password={SECRET} dbname=postgres sslmode={mode} \
             sslrootcert={}",
            server.port(),
            ca.path().display()
        );
        let session = connect(&settings(&url), "test").await.unwrap();
        assert_eq!(session.transport() == Transport::Verified, mode != "disable", "{mode}");
    }
}

#[tokio::test]
async fn writers_go_to_the_primary_and_readers_where_the_string_sends_them() {
    let primary = TestPostgres::start(&PostgresOptions::plain()).unwrap();
    let standby = primary.standby(primary.port()).unwrap();
    let both = |attrs: &str| {
        let (first, second) = (standby.port(), primary.port());
        settings(&format!("postgres://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres?{attrs}"))
    };
    let of = |server: &TestPostgres| format!("127.0.0.1:{}", server.port());
    for attrs in [
        "",
        "target_session_attrs=primary",
        "target_session_attrs=prefer-standby",
        "target_session_attrs=read-write",
    ] {
        let session = connect(&both(attrs), "test").await.unwrap();
        assert_eq!(session.host(), of(&primary), "{attrs}");
    }
    for attrs in ["standby", "read-only", "prefer-standby"] {
        let reversed = settings(&format!(
            "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs={attrs}",
            primary.port(),
            standby.port()
        ));
        assert_eq!(connect_any(&reversed, "test").await.unwrap().host(), of(&standby), "{attrs}");
    }
    for attrs in ["standby", "read-only"] {
        let error = refused(&both(&format!("target_session_attrs={attrs}"))).await;
        assert!(matches!(error, ConnectError::Config { setting: "url", .. }), "{error:?}");
        let alone = format!("{}?target_session_attrs={attrs}", primary.url());
        let error = connect_any(&settings(&alone), "test").await.err().unwrap();
        assert!(told(&error).contains("target_session_attrs"), "{error:?}");
    }
    let alone = format!("{}?target_session_attrs=prefer-standby", primary.url());
    assert_eq!(connect_any(&settings(&alone), "test").await.unwrap().host(), of(&primary));
    let error = refused(&settings(&format!("{}?target_session_attrs=primary", standby.url()))).await;
    assert!(matches!(error, ConnectError::NotWritable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_direct_handshake_comes_first_and_names_the_protocol() {
    use tokio::io::AsyncReadExt as _;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = settings(&format!(
        "postgres://postgres@127.0.0.1:{port}/postgres?sslmode=require&sslnegotiation=direct"
    ));
    let hello = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4096];
        let length = stream.read(&mut bytes).await.unwrap();
        bytes.truncate(length);
        bytes
    };
    let (answer, bytes) = tokio::join!(connect(&config, "test"), hello);
    assert!(answer.is_err());
    // A handshake's record, and PostgreSQL's name in ALPN.
    assert_eq!(bytes[0], 0x16);
    assert!(bytes.windows(11).any(|window| window == b"\x0apostgresql"), "{bytes:?}");
}

/// An address of this machine that is not a loopback one.
fn own_address() -> Option<std::net::IpAddr> {
    // Nothing is sent: the kernel only says from where it would be.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
}

#[tokio::test]
async fn plain_text_beyond_this_machine_is_told_and_what_is_verified_is_not() {
    let Some(address) = own_address() else {
        return testbed::skip(Need::Network);
    };
    let options = PostgresOptions {
        settings: vec![("listen_addresses".into(), "*".into())],
        ..PostgresOptions::plain()
    };
    let own = rcgen::generate_simple_self_signed([address.to_string()]).unwrap();
    let server =
        guarded_with(&options, Some((&own.cert.pem(), &own.signing_key.serialize_pem())), None).await;
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), own.cert.pem()).unwrap();
    let told = async |host: &str, more: &str| {
        let url = format!(
            "host={host} port={} user=guarded password={SECRET} dbname=postgres {more}",
            server.port()
        );
        let exposure = exposure::of_database(&connect(&settings(&url), "test").await.unwrap());
        exposure.map(|exposure| (exposure.plain, exposure.text))
    };
    let host = address.to_string();
    let (plain, text) = told(&host, "sslmode=disable").await.unwrap();
    assert!(plain && text.contains("in plain text"), "{text}");
    let (plain, text) = told(&host, "sslmode=require").await.unwrap();
    assert!(!plain && text.contains("sslmode does not verify who answers"), "{text}");
    assert_eq!(told(&host, &format!("sslmode=verify-full sslrootcert={}", ca.path().display())).await, None);
    assert_eq!(told("127.0.0.1", "sslmode=disable").await, None);
}
