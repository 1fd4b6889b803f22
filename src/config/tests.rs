//! What a configuration may say, and what it is refused for.

use std::ffi::OsString;
use std::path::Path;

use super::*;

mod others;
mod reference;
mod reference_schema;
mod shards;
mod store;
mod table;

/// The least that a pipeline needs.
const LEAST: &str = r#"
[[pipeline]]
name = "frames"
stream = "FRAMES"
[[pipeline.table]]
name = "frame_metadata"
"#;

fn load_all(text: &str, environment: &[(&str, &str)], flags: &Overrides) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jetcopy.toml");
    std::fs::write(&path, text).unwrap();
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Config::load_with(Some(&path), environment, flags)
}

fn load(text: &str) -> Result<Config, ConfigError> {
    load_all(text, &[], &Overrides::default())
}

/// What is said of `text`, without the directory of the file.
fn said(result: Result<Config, ConfigError>) -> Vec<String> {
    match result {
        Ok(_) => panic!("the configuration was taken"),
        Err(ConfigError::Read { path, .. }) => panic!("{} was not read", path.display()),
        Err(ConfigError::Invalid(problems)) => problems
            .iter()
            .map(|problem| {
                let text = problem.to_string();
                text.rsplit_once("jetcopy.toml").map_or(text.clone(), |(_, rest)| format!("file{rest}"))
            })
            .collect(),
    }
}

/// Asserts that the pipeline `LEAST` with `lines` before its table is refused with exactly `expected`.
fn refuses(lines: &str, expected: &str) {
    let text = LEAST.replace("[[pipeline.table]]", &format!("{lines}\n[[pipeline.table]]"));
    assert_eq!(said(load(&text)), [expected], "{lines}");
}

#[test]
fn the_least_configuration_takes_all_defaults() {
    let config = load(LEAST).unwrap();
    assert_eq!(config.nats.url, "nats://127.0.0.1:4222");
    assert_eq!(config.pipelines[0].shards()[0].durable, "jetcopy-frames");
    assert_eq!(config.pipelines[0].batch.max_rows, 20_000);
    assert_eq!(config.pipelines[0].tables[0].on_conflict, OnConflict::Error);
}

#[test]
fn the_example_of_the_design_is_taken() {
    let config = load(
        r#"
        [[pipeline]]
        name = "frames"
        stream = "FRAMES"
        format = "msgpack"
        batch = { max_rows = 10_000, max_bytes = "4MiB", max_age = "20ms" }
        on_loss = "halt"
        [[pipeline.table]]
        name = "frame_metadata"
        on_conflict = "update"
        key = ["camera_id", "time"]
        [pipeline.table.columns]
        time = { from = "timestamp", unit = "us" }
        camera_id = "$subject[1]"
        fps = { from = "video.fps", default = 25.0 }
        site = { constant = "north" }
        "#,
    )
    .unwrap();
    let columns = &config.pipelines[0].tables[0].columns;
    assert!(matches!(&columns["camera_id"], ColumnSource::From(path) if path == "$subject[1]"));
    let ColumnSource::Detailed(time) = &columns["time"] else { panic!("time is detailed") };
    assert_eq!(time.unit, Some(TimeUnit::Us));
    let ColumnSource::Detailed(fps) = &columns["fps"] else { panic!("fps is detailed") };
    assert_eq!(fps.default.as_ref().and_then(figment::value::Value::to_f64), Some(25.0));
}

#[test]
fn each_layer_wins_over_the_one_before_it() {
    let text = format!("[nats]\nurl = \"nats://file:1\"\n[log]\nlevel = \"warn\"\n{LEAST}");
    let environment =
        [("JETCOPY_NATS__URL", "nats://environment:1"), ("JETCOPY_POSTGRES__CONNECT_TIMEOUT", "7s")];
    let flags = Overrides::default().with("--nats-url", "nats.url", Some("nats://flag:1".into())).with(
        "--postgres-url",
        "postgres.url",
        None,
    );
    let config = load_all(&text, &environment, &flags).unwrap();
    assert_eq!(config.nats.url, "nats://flag:1");
    assert_eq!(config.postgres.connect_timeout, Duration::from_secs(7));
    assert_eq!(config.log.level, "warn");
    assert_eq!(config.postgres.url, Postgres::default().url);
    let config = load_all(&text, &environment, &Overrides::default()).unwrap();
    assert_eq!(config.nats.url, "nats://environment:1");
}

#[test]
fn variables_that_are_not_settings_are_let_be() {
    let environment = [("JETCOPY_CONFIG", "x"), ("JETCOPY_NATS_SERVER", "x"), ("JETCOPYIST__X", "x")];
    assert!(load_all(LEAST, &environment, &Overrides::default()).is_ok());
}

#[test]
fn a_setting_with_a_single_underscore_is_pointed_out() {
    let result = load_all(LEAST, &[("JETCOPY_POSTGRES_URL", "x")], &Overrides::default());
    assert_eq!(
        said(result),
        ["JETCOPY_POSTGRES_URL: keys nest with two underscores; did you mean JETCOPY_POSTGRES__URL?"]
    );
}

#[test]
fn a_pipeline_in_the_environment_is_refused() {
    let result = load_all(LEAST, &[("JETCOPY_PIPELINE__NAME", "x")], &Overrides::default());
    assert_eq!(
        said(result),
        ["JETCOPY_PIPELINE__NAME: pipelines can be set in a file only, not in the environment"]
    );
}

#[test]
fn a_rule_that_is_broken_is_named_with_the_place_that_won() {
    let text = format!("log.level = \"info\"\npostgres.step_timeout = \"1s\"\n{LEAST}");
    let flags = Overrides::default().with("--log-level", "log.level", Some("jetcopy=loud".into()));
    let said = said(load_all(&text, &[("JETCOPY_POSTGRES__STEP_TIMEOUT", "0s")], &flags));
    assert_eq!(said[0], "JETCOPY_POSTGRES__STEP_TIMEOUT: postgres.step_timeout: must be more than 0");
    assert!(said[1].starts_with("--log-level: log.level: "), "{said:?}");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
    refuses(
        "max_buffered_byte = 1",
        "file:5: pipeline[0].max_buffered_byte: unknown key `max_buffered_byte`; did you mean \
         `max_buffered_bytes`?",
    );
    refuses(
        "batch = { max_row = 1 }",
        "file:5: pipeline[0].batch.max_row: unknown key `max_row`; did you mean `max_rows`?",
    );
    let text =
        format!("{LEAST}[pipeline.table.columns]\na = \"b\"\ntime = {{ from = \"t\", units = \"us\" }}");
    assert_eq!(
        said(load(&text)),
        ["file:9: pipeline[0].table[0].columns.time.units: unknown key `units`; did you mean `unit`?"]
    );
    let text = format!("[natz]\n{LEAST}");
    assert_eq!(said(load(&text)), ["file:1: natz: unknown key `natz`; did you mean `nats`?"]);
}

#[test]
fn an_unknown_key_is_named_with_its_variable() {
    let result = load_all(LEAST, &[("JETCOPY_HTTP__LISTN", "x")], &Overrides::default());
    assert_eq!(
        said(result),
        ["JETCOPY_HTTP__LISTN: http.listn: unknown key `listn`; did you mean `listen`?"]
    );
}

#[test]
fn a_value_that_is_not_of_its_type_is_named_with_its_place() {
    refuses(
        "format = \"msgpak\"",
        "file:5: pipeline[0].format: unknown value `msgpak`; did you mean `msgpack`?",
    );
    refuses("subjects = 1", "file:5: pipeline[0].subjects: expected a sequence, found signed int `1`");
    assert_eq!(
        said(load(&LEAST.replace("[[pipeline.table]]", "[pipeline.table]"))),
        ["file:5: pipeline[0].table: there may be several: write [[pipeline.table]], with two brackets"]
    );
    let flags = Overrides::default().with("--listen", "http.listen", Some("here".into()));
    assert_eq!(said(load_all(LEAST, &[], &flags)), ["--listen: http.listen: invalid socket address syntax"]);
}

#[test]
fn a_key_that_is_missing_is_named_with_its_table() {
    assert_eq!(said(load("[[pipeline]]\nname = \"a\"\n")), ["file:1: pipeline[0]: `stream` is missing"]);
}

#[test]
fn a_line_that_is_not_toml_is_named() {
    let said = said(load("[nats]\nurl = nats://me:hush@a\n"));
    assert!(said[0].starts_with("file:2: "), "{said:?}");
    assert!(!said[0].contains("hush"), "{said:?}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error =
        Config::load(Some(Path::new("/nonexistent/jetcopy.toml")), &Overrides::default()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration file /nonexistent/jetcopy.toml");
}

#[test]
fn no_message_shows_a_password() {
    for text in [
        "postgres = \"postgres://me:hush@a/b\"",
        "nats.url = \"nats://me:hush@[/\"",
        "postgres.url = \"postgres://me:hush@a:hush/b\"",
        "postgres.url = \"host=a passwort=hush\"",
    ] {
        let said = said(load(&format!("{text}\n{LEAST}")));
        assert!(!said.join(" ").contains("hush"), "{said:?}");
    }
}

#[test]
fn debug_output_shows_no_password() {
    let text =
        format!("nats.url = \"nats://me:hush@a\"\npostgres.url = \"host=a user=me password=hush\"\n{LEAST}");
    let shown = format!("{:?}", load(&text).unwrap());
    assert!(shown.contains("nats://me:***@a") && !shown.contains("hush"), "{shown}");
}

#[test]
fn names_are_safe_and_unique() {
    let name = |name: &str| said(load(&LEAST.replace("\"frames\"", &format!("{name:?}"))));
    assert_eq!(name("a b"), ["file:3: pipeline[0].name: only letters, digits, `-` and `_` are allowed"]);
    assert_eq!(name(""), ["file:3: pipeline[0].name: a pipeline needs a name"]);
    assert_eq!(name(&"a".repeat(41)), ["file:3: pipeline[0].name: longer than 40 characters"]);
    assert_eq!(
        said(load(&LEAST.repeat(2))),
        ["file:9: pipeline[1].name: `frames` is already used by an earlier pipeline"]
    );
    let second = LEAST.replace("\"frames\"", "\"again\"\ndurable = \"jetcopy-frames\"");
    assert_eq!(
        said(load(&format!("{LEAST}{second}"))),
        ["file:10: pipeline[1].durable: an earlier pipeline reads the same stream with the same durable \
          consumer"]
    );
}

#[test]
fn a_pipeline_needs_a_table() {
    let text = LEAST.split("[[pipeline.table]]").next().unwrap();
    assert_eq!(
        said(load(text)),
        ["file:2: pipeline[0].table: a pipeline needs at least one [[pipeline.table]]"]
    );
}

#[test]
fn names_of_streams_consumers_and_subjects_are_ones_that_nats_takes() {
    let rule = "name must not be empty or contain spaces, `.`, `*`, `>` or slashes";
    assert_eq!(
        said(load(&LEAST.replace("FRAMES", "A.B"))),
        [format!("file:4: pipeline[0].stream: a stream {rule}")]
    );
    refuses("durable = \"a*\"", &format!("file:5: pipeline[0].durable: a consumer {rule}"));
    for subject in ["", "a..b", "a.>.b", "a b"] {
        refuses(
            &format!("subjects = [\"{subject}\"]"),
            &format!("file:5: pipeline[0].subjects: `{subject}` is not a subject, such as `frames.*.meta`"),
        );
    }
    refuses("subjects = [\"a\", \"a\"]", "file:5: pipeline[0].subjects: `a` is listed twice");
}

#[test]
fn limits_are_more_than_nothing_and_fit_their_types() {
    let rows = "pipeline[0].batch.max_rows: must be from 1 to 4294967295";
    refuses("batch = { max_rows = 0 }", &format!("file:5: {rows}"));
    refuses("batch = { max_rows = 4_294_967_296 }", &format!("file:5: {rows}"));
    refuses("batch = { max_age = \"0s\" }", "file:5: pipeline[0].batch.max_age: must be more than 0");
    for size in ["0", "2GiB"] {
        refuses(
            &format!("batch = {{ max_bytes = \"{size}\" }}"),
            "file:5: pipeline[0].batch.max_bytes: must be from 1 B to 1 GiB",
        );
    }
    refuses(
        "max_buffered_bytes = \"47MiB\"",
        "file:5: pipeline[0].max_buffered_bytes: must be 12 times batch.max_bytes: at least 48.0 MiB",
    );
    for size in ["0", "1025MiB"] {
        refuses(
            &format!("max_decompressed_bytes = \"{size}\""),
            "file:5: pipeline[0].max_decompressed_bytes: must be from 1 B to 1 GiB",
        );
    }
    let text = format!("postgres.step_timeout = \"0s\"\n{LEAST}");
    assert_eq!(said(load(&text)), ["file:1: postgres.step_timeout: must be more than 0"]);
}

#[test]
fn a_key_goes_with_on_conflict() {
    let table = |lines: &str| said(load(&format!("{LEAST}{lines}")));
    assert_eq!(
        table("on_conflict = \"update\""),
        ["file:5: pipeline[0].table[0].key: on_conflict = \"update\" needs the columns of the unique key"]
    );
    assert_eq!(
        table("key = [\"a\"]"),
        ["file:7: pipeline[0].table[0].key: has no effect without on_conflict = \"ignore\" or \"update\""]
    );
    assert_eq!(
        table("on_conflict = \"ignore\"\nkey = [\"a\", \"a\"]"),
        ["file:8: pipeline[0].table[0].key: names a column twice"]
    );
    assert!(load(&format!("{LEAST}on_conflict = \"ignore\"")).is_ok());
}

#[test]
fn ways_to_identify_exclude_each_other_and_are_whole() {
    let nats = |lines: &str| said(load(&format!("[nats]\n{lines}\n{LEAST}")));
    assert_eq!(
        nats("nkey_file = \"a\"\ntoken_file = \"b\""),
        ["file:1: nats: nkey_file and token_file are mutually exclusive; keep one"]
    );
    assert_eq!(nats("user = \"a\""), ["file:1: nats: user and password_file go together"]);
    assert_eq!(nats("tls.cert_file = \"a\""), ["file:2: nats.tls: cert_file and key_file go together"]);
}

#[test]
fn addresses_and_filters_are_parsed() {
    let first = |line: &str| said(load(&format!("{line}\n{LEAST}"))).remove(0);
    assert_eq!(first("nats.url = \"nats://a, \""), "file:1: nats.url: a server address is empty");
    assert_eq!(
        first("nats.url = \"nats://[\""),
        "file:1: nats.url: not a server address, such as nats://host:4222"
    );
    for scheme in ["ws", "WSS"] {
        let refused = first(&format!("nats.url = \"nats://a, {scheme}://b:443\""));
        assert!(refused.contains("does not support NATS over WebSocket"), "{refused}");
    }
    assert!(first("postgres.url = \"postgres://a:b:c\"").starts_with("file:1: postgres.url: "));
    assert_eq!(
        first("postgres.url = \"host=a requirepeer=postgres\""),
        "file:1: postgres.url: requirepeer is not supported; put the socket into a directory that only the \
         server can write to"
    );
    assert!(first("log.level = \"jetcopy=loud\"").starts_with("file:1: log.level: "));
}

#[test]
fn all_problems_are_told_at_once() {
    let text = LEAST.replace("\"frames\"", "\"a b\"").replace("FRAMES", "A B");
    assert_eq!(said(load(&text)).len(), 2);
}

fn document(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_pipelines_of_the_store_are_taken() {
    let config = load(&document("config/store.toml")).unwrap();
    let names: Vec<&str> = config.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
    assert_eq!(names, ["frames", "measurements", "series", "registry"]);
    let (nats, postgres) = (config.nats, config.postgres);
    assert_eq!((nats.url, postgres.url), (Nats::default().url, Postgres::default().url));
}

#[test]
fn the_example_in_the_readme_is_taken() {
    let readme = document("README.md");
    let example = readme.split("```toml").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(load(example).unwrap().pipelines[0].tables.len(), 2);
}

#[test]
fn an_inbox_has_no_wildcards() {
    for prefix in ["", "a..b", "_INBOX.>", "*", "a b"] {
        assert_eq!(
            said(load(&format!("nats.inbox_prefix = \"{prefix}\"\n{LEAST}"))),
            ["file:1: nats.inbox_prefix: must be a subject without wildcards, such as `_INBOX_jetcopy`"]
        );
    }
}
