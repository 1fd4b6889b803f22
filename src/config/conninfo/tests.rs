//! Connection strings are read as libpq reads them, and what has no effect is refused.

use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

fn nothing(_: &str) -> Option<String> {
    None
}

fn alone(text: &str) -> Result<ConnInfo, ConnInfoError> {
    ConnInfo::resolve_within(text, &Surroundings { variable: &nothing, home: None })
}

fn within(text: &str, variables: &[(&str, &str)], home: &Path) -> Result<ConnInfo, ConnInfoError> {
    let variable =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    ConnInfo::resolve_within(text, &Surroundings { variable: &variable, home: Some(home.to_owned()) })
}

fn labels(info: &ConnInfo) -> Vec<String> {
    info.hosts.iter().map(HostInfo::label).collect()
}

fn refusal(text: &str) -> String {
    alone(text).unwrap_err().to_string()
}

#[test]
fn both_ways_to_write_a_connection_string_say_the_same() {
    for (url, pairs) in [
        ("postgres://me:p%40ss@a:1,b:2/db", "host=a,b port=1,2 user=me password='p@ss' dbname=db"),
        (
            "postgresql://me@[::1]:5433/db?sslmode=require",
            "host=::1 port=5433 user = me dbname=db sslmode=require",
        ),
        ("postgres://me@%2Frun%2Fpg/db", "host=/run/pg user=me dbname='db'"),
        ("postgres://a/db?user=me&password=x%20y", r"host=a dbname=db user=me password='x y'"),
        ("postgres://me:it%27s@a", r"host=a user=me password=it\'s"),
        (
            "postgres://me@/db?host=a&port=7&hostaddr=10.0.0.1",
            "host=a port=7 hostaddr=10.0.0.1 user=me dbname=db",
        ),
        ("postgres://me:a?b@h/db", "host=h user=me password=a?b dbname=db"),
    ] {
        let (one, other) = (alone(url).unwrap(), alone(pairs).unwrap());
        assert_eq!(labels(&one), labels(&other), "{url}");
        assert_eq!((&one.user, &one.dbname), (&other.user, &other.dbname), "{url}");
        let passwords =
            |info: &ConnInfo| info.hosts.iter().map(|host| host.password.clone()).collect::<Vec<_>>();
        assert_eq!(passwords(&one), passwords(&other), "{url}");
        assert_eq!(one.tls.mode, other.tls.mode, "{url}");
        assert_eq!(one.hosts[0].address, other.hosts[0].address, "{url}");
    }
}

#[test]
fn what_is_left_open_is_as_libpq_has_it() {
    let info = alone("postgres://me@").unwrap();
    assert_eq!(info.dbname, "me");
    assert!(["/var/run/postgresql:5432", "localhost:5432"].contains(&labels(&info)[0].as_str()));
    let info = alone("hostaddr=10.0.0.1,10.0.0.2 port=5433 user=me dbname=db").unwrap();
    assert_eq!(labels(&info), ["10.0.0.1:5433", "10.0.0.2:5433"]);
    assert!(info.hosts.iter().all(|host| host.name.is_none() && !host.is_socket()));
}

#[test]
fn every_parameter_of_libpq_is_taken_or_refused_by_its_name() {
    for (given, effect) in [
        ("target_session_attrs=primary", "Some(Primary)"),
        ("target_session_attrs=prefer-standby", "Some(PreferStandby)"),
        ("target_session_attrs=read-only", "Some(ReadOnly)"),
    ] {
        let info = alone(&format!("host=a user=me {given}")).unwrap();
        assert_eq!(format!("{:?}", info.session), effect, "{given}");
    }
    let info = alone(
        "host=a user=me sslmode=allow sslrootcert=r sslcert=c sslkey=k sslpassword=p sslcrl=x sslsni=0 \
         keepalives_count=7 keepalives_idle=3 tcp_user_timeout=1500 connect_timeout=2 \
         ssl_max_protocol_version=TLSv1.2 sslcertmode=allow client_encoding=LATIN1 \
         fallback_application_name=x application_name=y load_balance_hosts=random gssencmode=prefer",
    )
    .unwrap();
    assert_eq!((info.tls.mode, info.tls.root), (Some(SslMode::Allow), Some(Root::File("r".into()))));
    assert_eq!((info.tls.cert, info.tls.key), (Some("c".into()), Some("k".into())));
    assert_eq!((info.tls.key_password.as_deref(), info.tls.sni), (Some("p"), false));
    assert_eq!((info.keepalives.count, info.keepalives.idle), (Some(7), Some(Duration::from_secs(3))));
    assert_eq!(info.tcp_user_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(
        (info.connect_timeout, info.tls.newest),
        (Some(Duration::from_secs(2)), Some(TlsVersion::V1_2))
    );
    let info = alone("postgres://me@a/db?ssl=true").unwrap();
    assert_eq!(info.tls.mode, Some(SslMode::Require));
    let info = alone("host=a user=me sslrootcert=system").unwrap();
    assert_eq!((info.tls.mode, info.tls.root), (Some(SslMode::VerifyFull), Some(Root::System)));
    assert!(alone("host=a user=me sslmode=require sslnegotiation=direct").unwrap().tls.direct);

    for (given, said) in [
        ("require_auth=scram-sha-256", "require_auth is not supported"),
        ("requirepeer=postgres", "requirepeer is not supported"),
        ("gssencmode=require", "gssencmode is supported only as disable or prefer"),
        ("replication=database", "replication is supported only as"),
        ("oauth_client_id=x", "oauth_issuer is not supported"),
        ("sslmode=verify", "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("sslnegotiation=direct", "sslnegotiation=direct requires sslmode=require"),
        ("sslmode=require sslrootcert=system", "sslrootcert=system requires sslmode=verify-full"),
        ("target_session_attrs=leader", "target_session_attrs must be one of any, read-write"),
        ("hostaddr=b", "hostaddr must be a numeric address"),
        ("port=0", "port must be a number"),
        ("connect_timeout=soon", "connect_timeout must be a whole number"),
        ("hostaddr=1.1.1.1,2.2.2.2", "host and hostaddr must list"),
        ("port=1,2", "port must list one port"),
        ("sslmod=require", "did you mean sslmode?"),
        ("frobnicate=1", "an option that libpq does not know"),
    ] {
        let problem = refusal(&format!("host=a user=me {given}"));
        assert!(problem.contains(said), "{given}: {problem}");
    }
    // Each name that libpq has is known: none is taken for a slip of the pen.
    for name in parameters::names() {
        let problem = alone(&format!("host=a user=me {name}=")).err();
        assert_eq!(problem, None, "{name}");
    }
}

#[test]
fn a_service_a_variable_and_a_password_file_fill_what_the_string_leaves_open() {
    let home = tempfile::tempdir().unwrap();
    let services =
        "# ours\n[other]\nhost=x\n[prod]\nhost = db.example.org\nport=5433\nuser=service\n\n[last]\nhost=y\n";
    std::fs::write(home.path().join(".pg_service.conf"), services).unwrap();
    let passfile = home.path().join(".pgpass");
    let lines = "# ours\nelsewhere:*:*:*:no\ndb.example.org:5433:me\\:trics:*:s:3\\\\cr\n*:*:*:me:mine\n";
    std::fs::write(&passfile, lines).unwrap();
    let mode = |mode| std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o600);

    let info =
        within("service=prod dbname='me:trics'", &[("PGPORT", "1"), ("PGUSER", "variable")], home.path());
    let info = info.unwrap();
    assert_eq!((labels(&info), info.user.as_str()), (vec!["db.example.org:5433".to_owned()], "service"));
    assert_eq!(info.hosts[0].password.as_deref(), Some(r"s:3\cr"));
    let variables =
        [("PGUSER", "me"), ("PGPASSWORD", ""), ("PGSSLMODE", "verify-full"), ("PGTARGETSESSIONATTRS", "any")];
    let info = within("postgres://a/db", &variables, home.path()).unwrap();
    assert_eq!((info.user.as_str(), info.hosts[0].password.as_deref()), ("me", Some("mine")));
    assert_eq!((info.tls.mode, info.session), (Some(SslMode::VerifyFull), Some(SessionAttrs::Any)));
    let info = within("postgres://a/db", &[("PGUSER", "me"), ("PGPASSWORD", "x")], home.path()).unwrap();
    assert_eq!(info.hosts[0].password.as_deref(), Some("x"));
    let info = within("postgres://me:own@a/db", &[("PGPASSWORD", "x")], home.path()).unwrap();
    assert_eq!(info.hosts[0].password.as_deref(), Some("own"));
    let service = [("PGSERVICE", "last")];
    assert_eq!(labels(&within("", &service, home.path()).unwrap()), ["y:5432"]);

    let problem = within("service=absent", &[], home.path()).unwrap_err().to_string();
    assert!(problem.contains("service absent is not in any of"), "{problem}");
    let problem = within("host=a", &[("PGREQUIREAUTH", "none")], home.path()).unwrap_err().to_string();
    assert!(problem.starts_with("PGREQUIREAUTH: require_auth is not supported"), "{problem}");
    // As libpq, which does not go by a file that others may read.
    mode(0o644);
    assert_eq!(within("postgres://me@a/db", &[], home.path()).unwrap().hosts[0].password, None);
}

#[test]
fn the_files_of_the_home_directory_are_the_usual_ones() {
    let home = tempfile::tempdir().unwrap();
    let info = within("host=a user=me", &[], home.path()).unwrap();
    assert_eq!((info.tls.root, info.tls.cert, info.tls.key), (None, None, None));
    let directory = home.path().join(".postgresql");
    std::fs::create_dir(&directory).unwrap();
    for name in ["root.crt", "postgresql.crt"] {
        std::fs::write(directory.join(name), "").unwrap();
    }
    let info = within("host=a user=me", &[], home.path()).unwrap();
    assert_eq!(info.tls.root, Some(Root::File(directory.join("root.crt"))));
    assert_eq!(info.tls.key, Some(directory.join("postgresql.key")));
}

proptest! {
    #[test]
    fn no_problem_shows_a_piece_of_the_string(secret in "[A-Z0-9:/?#,=&@' %]{4,12}") {
        for text in [
            format!("postgres://me:{secret}@host:port/db"),
            format!("postgres://me:{secret}@host/db?x{secret}=1"),
            format!("host=h password={secret} {secret}"),
            format!("host=h port={secret}"),
            format!("host=h sslmode='{secret}'"),
        ] {
            if let Err(error) = alone(&text) {
                prop_assert!(!error.to_string().contains(&secret), "{}", error);
            }
        }
    }

    #[test]
    fn whatever_the_string_it_is_read_or_refused(text in ".{0,60}") {
        drop(alone(&text));
        drop(alone(&format!("postgres://{text}")));
    }
}
