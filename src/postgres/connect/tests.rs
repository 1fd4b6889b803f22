//! Which host a session is opened on, what it waits for, and what it is refused for.

use std::path::Path;
use std::time::Instant;

use tokio::net::TcpListener;

use super::*;
use crate::config::{Postgres, Tls};
use crate::dead_letter::{self, DeadLetter};
use crate::migrate;
use crate::postgres::introspect::introspect;
use crate::shard::Shard;
use crate::testbed::{self, PostgresOptions, TestPgBouncer, TestPostgres};

mod places;

const SECRET: &str = "s3cr:et@word";
const SECRET_IN_URL: &str = "s3cr%3Aet%40word";

fn settings(url: &str) -> Postgres {
    Postgres { url: url.to_owned(), ..Postgres::default() }
}

/// Everything that an error tells, in logs or on a terminal.
fn told(error: &ConnectError) -> String {
    let mut text = format!("{error:?} / {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text} / {cause}");
        source = cause.source();
    }
    text
}

async fn refused(config: &Postgres) -> ConnectError {
    let error = connect(config, "test").await.err().unwrap();
    assert!(!told(&error).contains("s3cr"), "a password shows: {}", told(&error));
    error
}

/// A listener that takes connections and never says a word.
async fn mute() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A server that wants a SCRAM password of role `guarded`, and offers TLS when `tls` holds a certificate and
/// key.
///
/// `client_ca` goes one further: over TLS, `guarded` then needs a certificate in place of the password.
async fn guarded(tls: Option<(&str, &str)>, client_ca: Option<&str>) -> TestPostgres {
    guarded_with(&PostgresOptions::plain(), tls, client_ca).await
}

async fn guarded_with(
    options: &PostgresOptions,
    tls: Option<(&str, &str)>,
    client_ca: Option<&str>,
) -> TestPostgres {
    let server = TestPostgres::start(options).unwrap();
    let client = testbed::connect(&server.url()).await.unwrap();
    client.batch_execute(&format!("CREATE ROLE guarded LOGIN PASSWORD '{SECRET}'")).await.unwrap();
    let write = async |file: &str, text: &str| {
        // The server writes its own files, so that they are its own.
        let text = text.replace('\n', "\\n");
        client
            .batch_execute(&format!(
                "COPY (SELECT 1) TO PROGRAM 'umask 077; cat > /dev/null; printf %b \"{text}\" > {file}'"
            ))
            .await
            .unwrap();
    };
    if let Some((certificate, key)) = tls {
        write("server.crt", certificate).await;
        write("server.key", key).await;
        client.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    }
    let mut hba = "host all guarded all scram-sha-256\nhost all all all trust\n".to_owned();
    if let Some(certificate) = client_ca {
        write("client.crt", certificate).await;
        client.batch_execute("ALTER SYSTEM SET ssl_ca_file = 'client.crt'").await.unwrap();
        hba.insert_str(0, "hostssl all guarded all cert\n");
    }
    write("pg_hba.conf", &hba).await;
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    // The postmaster reads the files in its own time.
    let deadline = Instant::now() + Duration::from_secs(30);
    while testbed::connect(&server.url().replace("postgres@", "guarded@")).await.is_ok()
        || (tls.is_some() && client.query_one("SHOW ssl", &[]).await.unwrap().get::<_, &str>(0) != "on")
    {
        assert!(Instant::now() < deadline, "the new configuration is not taken up");
    }
    server
}

/// A self-signed certificate that the role `guarded` can log in with.
fn client_certificate() -> (String, String) {
    let mut params = rcgen::CertificateParams::new([]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "guarded");
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn certificate() -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap()
}

#[tokio::test]
async fn the_application_name_reaches_the_server_and_no_other_setting_does() {
    let server = TestPostgres::shared().unwrap();
    let session = connect(&settings(&server.url()), "jetcopy frames").await.unwrap();
    let sql = "SELECT name, setting FROM pg_settings WHERE source = 'client' ORDER BY 1";
    let rows = session.client.query_typed(sql, &[]).await.unwrap();
    let set: Vec<(&str, &str)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(set, [("application_name", "jetcopy frames"), ("client_encoding", "UTF8")]);
    assert_eq!(session.host(), format!("127.0.0.1:{}", server.port()));
}

#[tokio::test]
async fn a_host_that_never_answers_costs_one_timeout_and_the_next_one_serves() {
    let server = TestPostgres::shared().unwrap();
    let (_listener, port) = mute().await;
    let mut config = settings(&format!("postgres://postgres@127.0.0.1:{port}/postgres"));
    config.connect_timeout = Duration::from_millis(300);
    let error = refused(&config).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    assert!(told(&error).contains("300ms"), "{}", told(&error));

    config.url = format!(
        "postgres://postgres@127.0.0.1:{port},127.0.0.1:{}/postgres?connect_timeout=1",
        server.port()
    );
    let session = connect(&config, "test").await.unwrap();
    assert_eq!(session.host(), format!("127.0.0.1:{}", server.port()));
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let (listener, port) = mute().await;
    drop(listener);
    let error =
        refused(&settings(&format!("postgres://postgres:{SECRET_IN_URL}@127.0.0.1:{port}/postgres"))).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    let error = refused(&settings("postgres://postgres@no-such-host.invalid/postgres")).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_passed_over_unless_the_url_asks_for_it() {
    let server = TestPostgres::shared().unwrap();
    let url = server.create_database().await.unwrap();
    let name = url.rsplit('/').next().unwrap();
    let client = testbed::connect(&server.url()).await.unwrap();
    client
        .batch_execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on"))
        .await
        .unwrap();

    let error = refused(&settings(&url)).await;
    let ConnectError::ReadOnly { remedy, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*remedy, format!("ALTER DATABASE {name} RESET default_transaction_read_only"));
    assert!(error.to_string().ends_with(&format!("is on for database {name}")), "{error}");
    connect_any(&settings(&url), "test").await.unwrap();
    connect(&settings(&format!("{url}?target_session_attrs=any")), "test").await.unwrap();

    // A failover goes before the host that is merely gone.
    let (listener, port) = mute().await;
    drop(listener);
    let both = url.replace("127.0.0.1", &format!("127.0.0.1:{port},127.0.0.1"));
    let error = refused(&settings(&both)).await;
    assert!(matches!(error, ConnectError::ReadOnly { .. }), "{error:?}");

    let role = format!("reader_{name}");
    let for_role = format!(
        "ALTER DATABASE {name} RESET default_transaction_read_only; CREATE ROLE {role} LOGIN;
                            ALTER ROLE {role} IN DATABASE {name} SET default_transaction_read_only = on"
    );
    client.batch_execute(&for_role).await.unwrap();
    let error = refused(&settings(&url.replace("postgres@", &format!("{role}@")))).await;
    let ConnectError::ReadOnly { remedy, .. } = &error else { panic!("{error:?}") };
    assert!(remedy.starts_with(&format!("ALTER ROLE {role} IN DATABASE {name} RESET")), "{remedy}");
}

#[tokio::test]
async fn a_wrong_login_names_its_remedy_and_never_the_password() {
    let server = guarded(None, None).await;
    let url =
        |user: &str, database: &str| format!("postgres://{user}@127.0.0.1:{}/{database}", server.port());
    let right = format!("guarded:{SECRET_IN_URL}");
    connect(&settings(&url(&right, "postgres")), "test").await.unwrap();
    for (url, remedy) in [
        (url("guarded:s3cr", "postgres"), "password_file"),
        (url("guarded", "postgres"), "password_file"),
        (url(&right, "postgres?channel_binding=require"), "pg_hba.conf"),
        (url(&right, "absent"), "database"),
        (url("stranger:s3cr", "postgres"), "role"),
    ] {
        let error = refused(&settings(&url)).await;
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains(remedy), "{error}");
    }
}

#[tokio::test]
async fn the_password_file_wins_over_the_url() {
    let server = guarded(None, None).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{SECRET}\n")).unwrap();
    let mut config = settings(&format!("postgres://guarded:s3cr@127.0.0.1:{}/postgres", server.port()));
    config.password_file = Some(file.path().to_owned());
    connect(&config, "test").await.unwrap();
    config.password_file = Some("/absent/password".into());
    let error = refused(&config).await;
    assert!(matches!(error, ConnectError::Config { setting: "password_file", .. }), "{error:?}");
}

#[tokio::test]
async fn a_url_that_cannot_be_read_shows_nothing_of_itself() {
    for url in [
        "postgres://jetcopy:s3cr@127.0.0.1/db?s3cret=1",
        "postgres://jetcopy:s3cr@127.0.0.1/db?sslmode=verify-fully",
        "host=127.0.0.1 password=s3cr s3cret=1",
        "postgres://jetcopy:s3cr@127.0.0.1:port/db",
        "host=a,b port=1,2,3 user=u password=s3cr",
        "postgres://jetcopy:s3cr@ss@127.0.0.1/db",
    ] {
        let error = refused(&settings(url)).await;
        assert!(matches!(error, ConnectError::Config { setting: "url", .. }), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn tls_is_verified_where_required_and_binds_the_password_to_the_certificate() {
    let own = certificate();
    let server = guarded(Some((&own.cert.pem(), &own.signing_key.serialize_pem())), None).await;
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), own.cert.pem()).unwrap();
    let url = |host: &str, options: &str| {
        format!("postgres://guarded:{SECRET_IN_URL}@{host}:{}/postgres?{options}", server.port())
    };
    let with_ca = |url: String, path: &Path| Postgres {
        tls: Some(Tls { ca_file: Some(path.to_owned()), ..Tls::default() }),
        ..settings(&url)
    };
    let encrypted = async |config: &Postgres| -> bool {
        let session = connect(config, "test").await.unwrap();
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        session.client.query_typed_one(sql, &[]).await.unwrap().get(0)
    };
    assert!(!encrypted(&settings(&url("127.0.0.1", "sslmode=disable"))).await);
    assert!(encrypted(&settings(&url("127.0.0.1", "sslmode=prefer"))).await);
    for host in ["127.0.0.1", "localhost"] {
        let options = "sslmode=require&channel_binding=require";
        assert!(encrypted(&with_ca(url(host, options), ca.path())).await, "{host}");
    }

    // Another authority, and another name. Who names an authority and no mode wants all of it checked.
    let other = certificate();
    let other_ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other_ca.path(), other.cert.pem()).unwrap();
    for mode in ["", "sslmode=require"] {
        let error = refused(&with_ca(url("127.0.0.1", mode), other_ca.path())).await;
        assert!(matches!(error, ConnectError::Tls { .. }), "{mode}: {error:?}");
    }
    let elsewhere = |mode: &str| {
        let port = server.port();
        format!(
            "host=elsewhere hostaddr=127.0.0.1 port={port} user=guarded password={SECRET} dbname=postgres \
             {mode}"
        )
    };
    for mode in ["", "sslmode=verify-full"] {
        let error = refused(&with_ca(elsewhere(mode), ca.path())).await;
        assert!(matches!(error, ConnectError::Tls { .. }), "{mode}: {error:?}");
        assert!(error.to_string().contains("not for elsewhere"), "{mode}: {error}");
    }
    // As libpq has it: with an authority, require is verify-ca.
    assert!(encrypted(&with_ca(elsewhere("sslmode=require"), ca.path())).await);
    assert!(encrypted(&with_ca(url("localhost", "sslmode=verify-full"), ca.path())).await);
    // An authority is enough for verify-ca, but it has to be the right one.
    assert!(encrypted(&with_ca(elsewhere("sslmode=verify-ca"), ca.path())).await);
    let error = refused(&with_ca(elsewhere("sslmode=verify-ca"), other_ca.path())).await;
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");

    let missing = with_ca(url("127.0.0.1", "sslmode=require"), Path::new("/absent/ca.pem"));
    let error = refused(&missing).await;
    assert!(matches!(error, ConnectError::Config { setting: "tls.ca_file", .. }), "{error:?}");
    let empty = tempfile::NamedTempFile::new().unwrap();
    let error = refused(&with_ca(url("127.0.0.1", "sslmode=require"), empty.path())).await;
    assert!(matches!(error, ConnectError::Config { setting: "tls.ca_file", .. }), "{error:?}");
}

#[tokio::test]
async fn a_client_certificate_logs_in() {
    let own = certificate();
    let (certificate, key) = client_certificate();
    let server = guarded(Some((&own.cert.pem(), &own.signing_key.serialize_pem())), Some(&certificate)).await;
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let mut config = settings(&format!("postgres://guarded@127.0.0.1:{}/postgres", server.port()));
    let error = refused(&config).await;
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    config.tls = Some(Tls {
        ca_file: None,
        cert_file: file("client.crt", &certificate),
        key_file: file("client.key", &key),
    });
    connect(&config, "test").await.unwrap();
    config.tls = Some(Tls { cert_file: None, ..config.tls.unwrap() });
    let error = refused(&config).await;
    assert!(matches!(error, ConnectError::Config { setting: "tls.key_file", .. }), "{error:?}");
}

#[tokio::test]
async fn a_unix_socket_serves_too() {
    // The server runs as another user where this is run as root.
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let path = directory.path().to_str().unwrap();
    let options = PostgresOptions {
        settings: vec![("unix_socket_directories".into(), path.into())],
        ..PostgresOptions::plain()
    };
    let server = TestPostgres::start(&options).unwrap();
    let config = settings(&format!("host={path} port={} user=postgres dbname=postgres", server.port()));
    connect(&config, "test").await.unwrap();
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_required() {
    let server = TestPostgres::shared().unwrap();
    let own = certificate();
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), own.cert.pem()).unwrap();
    let config = Postgres {
        tls: Some(Tls { ca_file: Some(ca.path().to_owned()), ..Tls::default() }),
        ..settings(&format!("{}?sslmode=require", server.url()))
    };
    let error = refused(&config).await;
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_lost_connection_is_noticed_while_idle() {
    let server = TestPostgres::shared().unwrap();
    let session = connect(&settings(&server.url()), "test").await.unwrap();
    let row = session.client.query_typed_one("SELECT pg_backend_pid()", &[]).await.unwrap();
    let closed = session.closed();
    let other = testbed::connect(&server.url()).await.unwrap();
    other.query_one("SELECT pg_terminate_backend($1)", &[&row.get::<_, i32>(0)]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), closed).await.unwrap();
    assert!(session.is_closed());
    session.closed().await;
}

#[tokio::test]
async fn dropping_a_session_ends_its_backend_also_in_the_middle_of_a_query() {
    let server = TestPostgres::shared().unwrap();
    let session = connect(&settings(&server.url()), "test").await.unwrap();
    let pid: i32 = session.client.query_typed_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    session.client.batch_execute("SET client_connection_check_interval = '10ms'; BEGIN").await.unwrap();
    let waiting =
        tokio::time::timeout(Duration::from_millis(50), session.client.batch_execute("SELECT pg_sleep(600)"));
    assert!(waiting.await.is_err());
    drop(session);
    let other = testbed::connect(&server.url()).await.unwrap();
    let gone = async {
        let sql = "SELECT FROM pg_stat_activity WHERE pid = $1";
        while other.query_opt(sql, &[&pid]).await.unwrap().is_some() {}
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_wait_for_a_standby_is_seen_with_the_commit() {
    let options = PostgresOptions {
        settings: vec![
            ("synchronous_standby_names".into(), "absent".into()),
            ("synchronous_commit".into(), "local".into()),
        ],
        ..PostgresOptions::plain()
    };
    let server = TestPostgres::start(&options).unwrap();
    let session = connect(&settings(&server.url()), "test").await.unwrap();
    let pid: i32 = session.client.query_typed_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    session.client.batch_execute("CREATE TABLE t (v int)").await.unwrap();
    assert!(!session.take_sync_wait_cancelled());

    session
        .client
        .batch_execute("BEGIN; SET LOCAL synchronous_commit = on; INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let other = testbed::connect(&server.url()).await.unwrap();
    let cancel = async {
        let waiting = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";
        while other.query_opt(waiting, &[&pid]).await.unwrap().is_none() {}
        other.query_one("SELECT pg_cancel_backend($1)", &[&pid]).await.unwrap();
    };
    let both = async { tokio::join!(session.client.batch_execute("COMMIT"), cancel).0 };
    tokio::time::timeout(Duration::from_secs(30), both).await.unwrap().unwrap();
    assert!(session.take_sync_wait_cancelled());
    assert!(!session.take_sync_wait_cancelled());
}

#[tokio::test]
async fn everything_here_works_through_a_transaction_pooler() {
    let server = TestPostgres::shared().unwrap();
    let Some(pooler) = TestPgBouncer::start_or_skip(&server).unwrap() else { return };
    let config = settings(&pooler.url(&server.create_database().await.unwrap()));
    let all = migrate::status(&config).await.unwrap().len();
    let (one, other) = tokio::join!(migrate::migrate(&config), migrate::migrate(&config));
    assert_eq!(one.unwrap().applied.len() + other.unwrap().applied.len(), all);
    assert_eq!(migrate::status(&config).await.unwrap().len(), all);

    // More clients than server connections, so that they are handed around.
    let clients = (0..6).map(|client| {
        let config = config.clone();
        async move {
            let session = connect(&config, "test").await.unwrap();
            for sequence in 0..20 {
                let table = introspect(&session.client, "frame_metadata").await.unwrap();
                assert_eq!(table.time_column.as_deref(), Some("time"));
                session.client.batch_execute("BEGIN").await.unwrap();
                let letter = DeadLetter {
                    sequence: client * 100 + sequence,
                    stored_at_ns: 0,
                    subject: "frames".into(),
                    headers: None,
                    raw: crate::dead_letter::Raw::default(),
                    payload: bytes::Bytes::new(),
                    kind: "malformed",
                    sqlstate: None,
                    message: String::new(),
                    table: None,
                    column: None,
                    element: None,
                    elements: Vec::new(),
                };
                let shard = Shard::new("p", "p", "S");
                dead_letter::store(&session.client, &shard, &[letter]).await.unwrap();
                session.client.batch_execute("COMMIT").await.unwrap();
            }
            session.close().await;
        }
    });
    futures_util::future::join_all(clients).await;
    let session = connect(&config, "test").await.unwrap();
    let sql = "SELECT count(DISTINCT sequence), count(*) FROM jetcopy.dead_letters";
    let row = session.client.query_typed_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (120, 120));

    // The pooler's own errors say 08P01, whatever they are: they are retried, and the log has the message.
    let error = refused(&settings(&pooler.url(&server.database_url("absent")))).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    assert!(told(&error).contains("absent"), "{}", told(&error));
}
