//! Servers with certificates of every kind, and psql beside jetcopy: it connects wherever psql does, in the
//! same way, and nowhere else.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::config::Postgres;
use crate::postgres::connect::{ConnectError, Session, Transport, connect, connect_any};
use crate::testbed::{self, PostgresOptions, TestPostgres};

mod clients;

/// A server whose TLS is changed while it runs.
struct TlsServer {
    server: TestPostgres,
    control: Client,
    psql: PathBuf,
    /// psql's home, where nothing is.
    home: tempfile::TempDir,
}

impl TlsServer {
    /// With an authority in `ca.crt` and another one in `other.crt`.
    async fn start() -> Self {
        let server = TestPostgres::start(&PostgresOptions::plain()).unwrap();
        let control = testbed::connect(&server.url()).await.unwrap();
        control.batch_execute("CREATE ROLE tester LOGIN PASSWORD 'right'").await.unwrap();
        // Some builds of the server come with one that knows no TLS.
        let knows_tls = |psql: &PathBuf| {
            let said = Command::new(psql).args(["-X", "host=/nowhere sslmode=require"]).output().unwrap();
            !String::from_utf8_lossy(&said.stderr).contains("not compiled in")
        };
        let found = [server.programs().join("psql"), "psql".into()].into_iter().find(knows_tls);
        let psql = found.expect("one of the psql here knows TLS");
        let this = Self { server, control, psql, home: tempfile::tempdir().unwrap() };
        for name in ["ca", "other"] {
            this.run(&format!(
                "openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=authority-{name} -keyout \
                 {name}.key -out {name}.crt"
            ))
            .await;
        }
        this
    }

    /// Has the server run a command in its directory, so that the files are its own.
    async fn run(&self, script: &str) {
        let script = format!("umask 077; cat >/dev/null; {{ {script}\n}} 2>>made.log").replace('\'', "''");
        let sql = format!("COPY (SELECT 1) TO PROGRAM '{script}'");
        if let Err(error) = self.control.batch_execute(&sql).await {
            let log = std::fs::read_to_string(self.path("made.log")).unwrap_or_default();
            panic!("{error:?}: {script}\n{log}");
        }
    }

    fn path(&self, name: &str) -> String {
        self.server.directory().join("data").join(name).display().to_string()
    }

    /// Has it sign a certificate, as the manuals show it: `name.key`, and `name.crt` by the authority `ca`.
    async fn sign(&self, name: &str, key: &str, subject: &str, extensions: Option<&str>) {
        let extensions =
            extensions.map_or_else(String::new, |text| format!("-extfile /dev/stdin <<END\n{text}\nEND\n"));
        self.run(&format!(
            "openssl req -new -newkey {key} -nodes -subj /CN={subject} -keyout {name}.key -out {name}.csr && \
             openssl x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 9 -out \
             {name}.crt {extensions}"
        ))
        .await;
    }

    /// Serves with a certificate, settings and rules, from the next connection on.
    async fn serve(&self, certificate: &str, settings: Settings<'_>, rules: &str) {
        let before = std::fs::read_to_string(self.server.log()).unwrap();
        self.control.batch_execute("ALTER SYSTEM RESET ALL").await.unwrap();
        let (cert, key) = (format!("{certificate}.crt"), format!("{certificate}.key"));
        let usual = [("ssl", "on"), ("ssl_cert_file", cert.as_str()), ("ssl_key_file", key.as_str())];
        for (name, value) in usual.iter().chain(settings) {
            self.control.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).await.unwrap();
        }
        self.run(&format!("printf %s \"{rules}\nhost all postgres all trust\n\" >pg_hba.conf")).await;
        let loaded = async || -> std::time::SystemTime {
            let fresh = testbed::connect(&self.server.url()).await.unwrap();
            fresh.query_one("SELECT pg_conf_load_time()", &[]).await.unwrap().get(0)
        };
        let last = loaded().await;
        self.control.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while loaded().await <= last {
            assert!(Instant::now() < deadline, "the new configuration is not taken up");
        }
        let log = std::fs::read_to_string(self.server.log()).unwrap();
        assert!(!log[before.len()..].contains("not reloaded"), "{certificate}: {}", &log[before.len()..]);
    }

    fn conninfo(&self, more: &str) -> String {
        format!("port={} user=tester dbname=postgres password=right {more}", self.server.port())
    }

    async fn ours(&self, more: &str) -> Result<Session, ConnectError> {
        connect(&Postgres { url: self.conninfo(more), ..Postgres::default() }, "test").await
    }

    fn psql(&self, more: &str) -> Result<bool, String> {
        let output = Command::new(&self.psql)
            .args(["-XAtc", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &self.conninfo(more)])
            .env_clear()
            .envs([("PATH", std::env::var("PATH").unwrap_or_default()), ("LC_ALL", "C".to_owned())])
            .env("HOME", self.home.path())
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim() == "t")
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Asserts that both connect, encrypted or not, or neither does; whether they do.
    async fn agree(&self, what: &str, more: &str) -> bool {
        let ours = match self.ours(more).await {
            Ok(session) => {
                let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
                let encrypted = session.client.query_typed_one(sql, &[]).await.unwrap().get::<_, bool>(0);
                // Over the loopback address, nobody reads along.
                let expected = [Transport::Local, Transport::Verified];
                assert!(expected.contains(&session.transport()), "{more}: {:?}", session.transport());
                assert!(encrypted || session.transport() == Transport::Local, "{more}");
                Ok(encrypted)
            }
            Err(error) => Err(format!("{error}: {:?}", std::error::Error::source(&error))),
        };
        let theirs = self.psql(more);
        match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "{what}: {more}: encrypted?"),
            (Err(_), Err(_)) => {}
            _ => panic!("{what}: {more}: jetcopy: {ours:?}, psql: {theirs:?}"),
        }
        ours.is_ok()
    }
}

/// Names and values.
type Settings<'a> = &'a [(&'a str, &'a str)];

const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

const RULES: &str = "host all tester all scram-sha-256";

/// A chain of one: what signs itself is its own authority.
const OWN: &str = "own";

#[tokio::test]
async fn every_kind_of_certificate_is_taken_in_the_modes_in_which_psql_takes_it() {
    let server = TlsServer::start().await;
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    server.sign("usual", "rsa:2048", "localhost", Some(names)).await;
    server.sign("version_1", "rsa:2048", "localhost", None).await;
    server.sign("p521", "ec -pkeyopt ec_paramgen_curve:secp521r1", "localhost", Some(names)).await;
    server.sign("pss", "rsa-pss -pkeyopt rsa_keygen_bits:2048", "localhost", Some(names)).await;
    server.sign("elsewhere", "rsa:2048", "elsewhere", Some("subjectAltName=DNS:elsewhere")).await;
    server.sign("common", "rsa:2048", "127.0.0.1", None).await;
    server.sign("clients", "rsa:2048", "localhost", Some("extendedKeyUsage=clientAuth")).await;
    // PostgreSQL's manual, and Citus.
    server
        .run(
            "openssl req -new -x509 -days 365 -nodes -text -out manual.crt -keyout manual.key -subj \
              /CN=localhost",
        )
        .await;
    server
        .run(
            "openssl req -new -nodes -newkey rsa:2048 -subj /CN=localhost -keyout citus.key -out citus.csr \
             && openssl x509 -req -in citus.csr -signkey citus.key -days 9 -out citus.crt",
        )
        .await;
    let version = "openssl x509 -in citus.crt -noout -text | grep -q 'Version: 1 ' && \
                   openssl x509 -in version_1.crt -noout -text | grep -q 'Version: 1 '";
    server.run(version).await;
    let mut taken = Vec::new();
    for (kind, root) in [
        ("usual", "ca"),
        ("version_1", "ca"),
        ("p521", "ca"),
        ("pss", "ca"),
        ("elsewhere", "ca"),
        ("common", "ca"),
        ("clients", "ca"),
        ("manual", OWN),
        ("citus", OWN),
    ] {
        server.serve(kind, &[], RULES).await;
        let root = if root == OWN { kind } else { root };
        for mode in MODES {
            let near = "host=localhost hostaddr=127.0.0.1";
            let mut ways = vec![(None, near), (Some(root), near)];
            if mode == "verify-full" {
                ways.push((Some(root), "host=127.0.0.1"));
            }
            if kind == "usual" {
                ways.push((Some("other"), near));
            }
            for (root, host) in ways {
                let file = root.map_or_else(String::new, |name| {
                    format!("sslrootcert={}", server.path(&format!("{name}.crt")))
                });
                let well = server.agree(kind, &format!("{host} sslmode={mode} {file}")).await;
                if well && (root == Some("ca") || root == Some(kind)) && mode.starts_with("verify") {
                    taken.push(format!("{kind} {mode} {}", &host[..9]));
                }
            }
        }
    }
    // What is checked is checked: not all is taken, and not all refused.
    assert!(taken.contains(&"version_1 verify-ca host=loca".to_owned()), "{taken:?}");
    assert!(taken.contains(&"manual verify-full host=loca".to_owned()), "{taken:?}");
    assert!(!taken.iter().any(|taken| taken.starts_with("elsewhere verify-full")), "{taken:?}");
    assert!(!taken.iter().any(|taken| taken.starts_with("clients")), "{taken:?}");
}

#[tokio::test]
async fn whatever_the_server_speaks_jetcopy_speaks_as_psql_does_and_falls_back_where_psql_does() {
    let server = TlsServer::start().await;
    server.sign("usual", "rsa:2048", "localhost", Some("subjectAltName=DNS:localhost")).await;
    let root = format!("sslrootcert={}", server.path("ca.crt"));
    let old = [("ssl_min_protocol_version", "TLSv1"), ("ssl_max_protocol_version", "TLSv1.1")];
    let with = |cipher| [("ssl_max_protocol_version", "TLSv1.2"), ("ssl_ciphers", cipher)];
    let tls_only = "hostssl all tester all scram-sha-256";
    let plain_only = "hostnossl all tester all scram-sha-256";
    let rejected = "hostssl all tester all reject\nhostnossl all tester all scram-sha-256";
    let cases: [(&str, Settings<'_>, &str); 9] = [
        ("P-521 alone", &[("ssl_ecdh_curve", "secp521r1")], RULES),
        ("AES256-SHA alone", &with("AES256-SHA"), RULES),
        ("DHE alone", &with("DHE-RSA-AES256-GCM-SHA384"), RULES),
        ("nothing in common", &old, RULES),
        ("nothing in common, TLS required", &old, tls_only),
        ("no TLS", &[("ssl", "off")], RULES),
        ("TLS required", &[], tls_only),
        ("TLS not allowed", &[], plain_only),
        ("TLS rejected", &[], rejected),
    ];
    for (what, settings, rules) in cases {
        server.serve("usual", settings, rules).await;
        for mode in MODES {
            let root = if mode.starts_with("verify") { root.as_str() } else { "" };
            let well =
                server.agree(what, &format!("host=localhost hostaddr=127.0.0.1 sslmode={mode} {root}")).await;
            let refused = match what {
                "nothing in common" | "no TLS" | "TLS not allowed" | "TLS rejected" => {
                    !["disable", "allow", "prefer"].contains(&mode)
                }
                "nothing in common, TLS required" => true,
                "TLS required" => mode == "disable",
                _ => false,
            };
            assert_eq!(well, !refused, "{what}: {mode}");
        }
    }
    // What is wrong is said by the side that knows more.
    server.serve("usual", &[], tls_only).await;
    for mode in ["allow", "prefer"] {
        let error = server.ours(&format!("host=localhost sslmode={mode} password=wrong")).await.unwrap_err();
        let ConnectError::Refused { source, .. } = &error else { panic!("{mode}: {error:?}") };
        assert_eq!(
            source.code().map(tokio_postgres::error::SqlState::code),
            Some("28P01"),
            "{mode}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_handshake_that_comes_first_is_taken_by_the_servers_that_know_it() {
    let server = TlsServer::start().await;
    server.sign("usual", "rsa:2048", "localhost", Some("subjectAltName=DNS:localhost")).await;
    server.serve("usual", &[], RULES).await;
    let root = server.path("ca.crt");
    let version = server.ours("host=localhost").await.unwrap().server_version();
    let direct = format!("host=localhost sslmode=verify-full sslrootcert={root} sslnegotiation=direct");
    match server.ours(&direct).await {
        Ok(session) => assert!(version >= 17 && session.transport() == Transport::Verified),
        Err(error) => assert!(version < 17, "{error:?}"),
    }
}

#[tokio::test]
async fn a_refused_certificate_says_what_to_make_anew() {
    let server = TlsServer::start().await;
    server
        .sign("usual", "rsa:2048", "localhost", Some("subjectAltName=DNS:db.example.org,IP:10.0.0.1"))
        .await;
    server.sign("clients", "rsa:2048", "localhost", Some("extendedKeyUsage=clientAuth")).await;
    server.run("openssl req -x509 -days 9 -nodes -keyout own.key -out own.crt -subj /CN=own").await;
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    // Long past, whatever the day.
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    server
        .run(&format!(
            "cat >old.crt <<END\n{certificate}END\ncat >old.key <<END\n{}END\n",
            key.serialize_pem()
        ))
        .await;
    for (kind, root, host, said) in [
        ("usual", "ca", "localhost", "the certificate is for db.example.org, 10.0.0.1, not for localhost"),
        ("usual", "ca", "localhost", "reissue it with subjectAltName=DNS:localhost"),
        ("usual", "ca", "127.0.0.1", "reissue it with subjectAltName=IP:127.0.0.1"),
        (
            "usual",
            "other",
            "localhost",
            "the CA `authority-ca` of the certificate of `localhost` is not in ca_file",
        ),
        ("clients", "ca", "localhost", "reissue it with extendedKeyUsage=serverAuth"),
        ("own", "ca", "localhost", "the certificate of `own` is self-signed: put it into ca_file"),
        (
            "old",
            "old",
            "localhost",
            "is valid from Jan  1 00:00:00 2001 GMT to Jan  1 00:00:00 2002 GMT: reissue it",
        ),
    ] {
        server.serve(kind, &[], RULES).await;
        let root = server.path(&format!("{root}.crt"));
        let more = format!("host={host} hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={root}");
        let error = server.ours(&more).await.unwrap_err();
        assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains(said), "{kind}: {error}");
    }
    // The settings' own file goes before the string's, and asks for the whole check.
    let config = Postgres {
        url: server.conninfo("host=localhost hostaddr=127.0.0.1"),
        tls: Some(crate::config::Tls {
            ca_file: Some(server.path("old.crt").into()),
            ..crate::config::Tls::default()
        }),
        ..Postgres::default()
    };
    let error = connect_any(&config, "test").await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}
