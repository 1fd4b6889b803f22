//! What other programs' variables and files fill in, and where settings are said to be from.

use super::*;

#[test]
fn the_database_of_other_programs_is_taken_where_nothing_else_is_set() {
    let url = |environment: &[(&str, &str)]| {
        load_all(LEAST, environment, &Overrides::default()).unwrap().postgres.url
    };
    let (place, general) = (("PGHOST", "it's"), ("DATABASE_URL", "postgres://me@general/db"));
    assert_eq!(url(&[place, general]), "postgres://me@general/db");
    assert_eq!(url(&[place, ("PGUSER", "me")]), r"host='it\'s' port='5432' user='me' dbname='metadata'");
    assert_eq!(
        url(&[("PGHOSTADDR", "10.0.0.1")]),
        "hostaddr='10.0.0.1' port='5432' user='jetcopy' dbname='metadata'"
    );
    assert_eq!(url(&[("PGSERVICE", "prod"), place]), "service='prod'");
    // A password alone names no database, and an empty variable says nothing.
    assert_eq!(url(&[("PGPASSWORD", "x"), ("DATABASE_URL", "")]), Postgres::default().url);
    assert_eq!(url(&[general, ("JETCOPY_POSTGRES__URL", "postgres://me@own/db")]), "postgres://me@own/db");
    let file = format!("postgres.url = \"postgres://me@file/db\"\n{LEAST}");
    assert_eq!(
        load_all(&file, &[general], &Overrides::default()).unwrap().postgres.url,
        "postgres://me@file/db"
    );
    let wrong = load_all(LEAST, &[("DATABASE_URL", "postgres://me:hush@a/db?frob=1")], &Overrides::default());
    let said = said(wrong).remove(0);
    assert!(
        said.starts_with("DATABASE_URL: postgres.url: contains an option") && !said.contains("hush"),
        "{said}"
    );
}

/// What is loaded where `name` is a context, and is selected if `selected`.
fn with_context(
    json: &str,
    selected: bool,
    settings: &str,
    environment: &[(&str, &str)],
) -> Result<Config, ConfigError> {
    let home = tempfile::tempdir().unwrap();
    let contexts = home.path().join("nats/context");
    std::fs::create_dir_all(&contexts).unwrap();
    std::fs::write(contexts.join("name.json"), json).unwrap();
    if selected {
        std::fs::write(home.path().join("nats/context.txt"), "name\n").unwrap();
    }
    let xdg = home.path().display().to_string();
    let more = [("XDG_CONFIG_HOME", xdg.as_str()), ("HOME", "/home/me")];
    load_all(&format!("{settings}{LEAST}"), &[environment, &more].concat(), &Overrides::default())
}

const CONTEXT: &str = r#"{"description": "x", "url": "nats://there:1,other:2", "user": "me@x", "password": "h/ush",
    "ca": "~/ca.pem", "tls_first": true, "inbox_prefix": "_MINE", "color_scheme": "x"}"#;

#[test]
fn a_context_of_nats_fills_what_is_not_set() {
    let config = with_context(CONTEXT, false, "nats.context = \"name\"\n", &[]).unwrap();
    assert_eq!(config.nats.url, "nats://me%40x:h%2Fush@there:1,other:2");
    assert_eq!(config.nats.tls.as_ref().unwrap().ca_file.as_deref(), Some(Path::new("/home/me/ca.pem")));
    assert!(config.nats.handshake_first);
    assert_eq!(config.nats.inbox_prefix, "_MINE");
    assert_eq!(config.origin.nats, "NATS context name");
    let shown = format!("{config:?}");
    assert!(!shown.contains("h%2Fush") && !shown.contains("h/ush"), "{shown}");

    let url = "nats.context = \"name\"\nnats.url = \"nats://mine:3\"\nnats.inbox_prefix = \"_OWN\"\n";
    let config = with_context(CONTEXT, false, url, &[("NATS_URL", "nats://variable")]).unwrap();
    assert_eq!(
        (config.nats.url.as_str(), config.nats.inbox_prefix.as_str()),
        ("nats://me%40x:h%2Fush@mine:3", "_OWN")
    );

    // Who is identified by a setting is not by the context.
    let creds = r#"{"creds": "~/a.creds", "token": "hush"}"#;
    let config =
        with_context(creds, false, "nats.context = \"name\"\nnats.nkey_file = \"k\"\n", &[]).unwrap();
    assert_eq!((config.nats.credentials_file, config.nats.url.as_str()), (None, "nats://127.0.0.1:4222"));
    let config = with_context(creds, false, "nats.context = \"name\"\n", &[]).unwrap();
    assert_eq!(config.nats.credentials_file.as_deref(), Some(Path::new("/home/me/a.creds")));
    assert_eq!(config.nats.url, "nats://127.0.0.1:4222");
}

#[test]
fn without_an_address_variables_say_where_nats_is_or_else_the_selected_context() {
    let json = r#"{"url": "nats://there", "token": "t"}"#;
    let said = |settings: &str, selected: bool, environment: &[(&str, &str)]| {
        let config = with_context(json, selected, settings, environment).unwrap();
        (config.nats.url, config.origin.nats.rsplit('/').next().unwrap().to_owned())
    };
    let pair = |url: &str, from: &str| (url.to_owned(), from.to_owned());
    assert_eq!(said("", false, &[]), pair("nats://127.0.0.1:4222", "the default"));
    assert_eq!(said("", true, &[]), pair("nats://t@there", "NATS context name"));
    let variable = ("NATS_URL", "nats://variable");
    assert_eq!(said("", true, &[variable]), pair("nats://variable", "NATS_URL"));
    let named = ("NATS_CONTEXT", "name");
    assert_eq!(said("", false, &[named]), pair("nats://t@there", "NATS context name"));
    let both = [named, variable];
    assert_eq!(said("", false, &both), pair("nats://t@variable", "NATS context name"));
    let set = "nats.url = \"nats://set\"\n";
    assert_eq!(said(set, true, &both), pair("nats://set", "jetcopy.toml:1"));
}

#[test]
fn a_context_that_does_not_serve_is_named_with_what_is_wrong() {
    let setting = "nats.context = \"name\"\n";
    for (json, settings, environment, expected) in [
        ("{}", "nats.context = \"other\"\n", vec![], "nats.context: cannot read "),
        ("{\n\"url\": \"hush", setting, vec![], "name.json:2: is not a NATS context"),
        (r#"{"nsc": "nsc://hush"}"#, setting, vec![], "name.json: jetcopy does not support `nsc`"),
        ("{}", "nats.context = \"../name\"\n", vec![], "`../name` is not the name of a context"),
        ("{}", "", vec![("NATS_CONTEXT", "other")], "NATS_CONTEXT: nats.context: cannot read "),
        (
            r#"{"url": "nats://me:hush@[/"}"#,
            setting,
            vec![],
            "NATS context name: nats.url: not a server address",
        ),
    ] {
        let Err(ConfigError::Invalid(problems)) = with_context(json, false, settings, &environment) else {
            panic!("{json} was taken")
        };
        let text = problems[0].to_string();
        assert!(text.contains(expected) && !text.contains("hush"), "{text}");
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
}

#[test]
fn where_servers_are_is_said_with_its_place_and_no_value() {
    let text = format!("[postgres]\nurl = \"host=a\"\npassword_file = \"p\"\n{LEAST}");
    let variables = [("PGUSER", "me"), ("PGPASSWORD", "hush"), ("PGSSLMODE", "require")];
    let origin = load_all(&text, &variables, &Overrides::default()).unwrap().origin;
    assert!(origin.postgres.ends_with("jetcopy.toml:2 and PGUSER, PGSSLMODE"), "{origin:?}");
    let flags = Overrides::default().with("--nats-url", "nats.url", Some("nats://a".into()));
    let origin = load_all(LEAST, &[("PGHOST", "a"), ("PGPASSWORD", "hush")], &flags).unwrap().origin;
    assert_eq!((origin.nats.as_str(), origin.postgres.as_str()), ("--nats-url", "PGHOST and PGPASSWORD"));
}

#[test]
fn without_a_file_the_places_are_named_where_one_is_needed() {
    let Err(ConfigError::Invalid(problems)) = Config::default().require_pipelines() else { panic!("taken") };
    let said = problems[0].to_string();
    for part in ["--config", "JETCOPY_CONFIG", "./jetcopy.toml", "/etc/jetcopy/jetcopy.toml"] {
        assert!(said.contains(part), "{said}");
    }
    let empty = load("").unwrap().require_pipelines().unwrap_err().one_line();
    assert!(empty.contains("jetcopy.toml: there is no [[pipeline]]; see config/jetcopy.toml"), "{empty}");
}
