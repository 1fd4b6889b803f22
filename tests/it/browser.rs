//! The status page in a real browser, beside a real daemon.
//!
//! Each test leaves pictures in `target/page/`, for people to look at. They want Chromium: `make browser`.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream;
use jetcopy::http::Server;
use jetcopy::metrics::Metrics;
use jetcopy::shard::Shard;
use jetcopy::status::{PipelineStatus, Registry, State};
use jetcopy::testbed::Stop;
use serde_json::{Value, json};

use crate::postgres::own_server;
use crate::support::{Daemon, EVENTS, Load, TABLE, World, event};
use chromium::Chromium;

mod chromium;

/// A list of what is wrong with the page as it stands.
const CHECKS: &str = include_str!("browser/checks.js");

/// Opens the page of a daemon and waits until it shows pipelines.
async fn page_of(address: &str) -> Chromium {
    let mut browser = Chromium::start().await;
    browser.resize(1_280, 900).await;
    browser.open(address).await;
    browser.until("pipelines", "document.querySelector('.pipeline')").await;
    browser
}

/// The text of a figure: the `dd` after the `dt` that says `name`, of the first pipeline shown.
fn figure(name: &str) -> String {
    format!(
        "[...document.querySelectorAll('.pipeline dt')].find(dt => dt.textContent === '{name}')\
         .nextElementSibling.textContent"
    )
}

/// The same as a number.
fn number(name: &str) -> String {
    format!("parseFloat({}.replaceAll(',', ''))", figure(name))
}

/// Looks at the page in all the ways that people do, and keeps pictures.
async fn looks_right(browser: &mut Chromium, name: &str) {
    let ways = [("wide", 1_280, 900), ("narrow", 320, 640)];
    for (way, width, height) in ways {
        browser.resize(width, height).await;
        for scheme in ["light", "dark"] {
            browser.prefer(scheme).await;
            assert_eq!(browser.evaluate(CHECKS).await, json!([]), "{name}, {way}, {scheme}");
            browser.picture(&format!("{name}-{way}-{scheme}")).await;
        }
    }
    browser.resize(1_280, 900).await;
    browser.prefer("light").await;
}

/// Nothing was complained about and nobody but the daemon was asked.
fn is_quiet(browser: &Chromium, address: &str) {
    assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
    let elsewhere: Vec<_> = browser
        .requests
        .iter()
        .filter(|url| !url.starts_with(address) && !url.starts_with("data:") && *url != "about:blank")
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert!(browser.requests.iter().any(|url| url.ends_with("/status")), "{:?}", browser.requests);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: make browser"]
async fn the_numbers_of_a_running_pipeline_move_and_a_dead_letter_shows_its_reason_only() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let address = daemon.address();
    let mut browser = page_of(&address).await;

    browser.until("a rate", &format!("{} > 0", number("Rate"))).await;
    let before = browser.evaluate(&number("Checkpoint")).await;
    browser.until("a checkpoint that moves", &format!("{} > {before}", number("Checkpoint"))).await;
    let drawn = "document.querySelector('.chart .line').getAttribute('d')";
    browser.until("a chart", &format!("{drawn}.split('L').length > 2")).await;
    let before = browser.evaluate(drawn).await;
    browser.until("a chart that grows", &format!("{drawn} !== {before}")).await;

    world.publish("bad", ["a secret that is no message"]).await;
    let reasons = "(document.querySelector('.letters:not([hidden]) tbody')?.innerText ?? '')";
    browser.until("a dead letter", &format!("{reasons}.includes('not a valid message')")).await;
    assert_eq!(browser.evaluate("document.body.innerText.includes('secret')").await, json!(false));
    looks_right(&mut browser, "running").await;
    is_quiet(&browser, &address);

    load.stop().await;
    daemon.kill();
    let link = "document.getElementById('link').textContent";
    browser.until("the daemon's end", &format!("{link}.includes('does not answer')")).await;
    browser.picture("no-answer").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: make browser"]
async fn a_paused_pipeline_comes_first_with_what_mends_it_until_that_is_done() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let other = EVENTS.replace("name = \"events\"\nstream", "name = \"others\"\nstream");
    let other = other.replace("name = \"events\"\n[pipeline", "name = \"missing\"\n[pipeline");
    let daemon = Daemon::start(&world.config(&format!("{EVENTS}{other}")));
    daemon.says("pipeline is paused").await;
    let address = daemon.address();
    let mut browser = page_of(&address).await;

    let states = "[...document.querySelectorAll('.pipeline')].map(one => one.dataset.state).join()";
    browser.until("both states", &format!("{states} === 'paused,running'")).await;
    let first = browser.evaluate("document.querySelector('.pipeline').innerText").await;
    let first = first.as_str().unwrap();
    for text in ["others", "paused", "missing", "To fix it:"] {
        assert!(first.contains(text), "{text} is not in:\n{first}");
    }
    assert_eq!(browser.evaluate("document.title").await, json!("(1) jetcopy"));
    looks_right(&mut browser, "paused").await;

    world.database.batch_execute(&TABLE.replace("events", "missing")).await.unwrap();
    browser.until("both to run", &format!("{states} === 'running,running'")).await;
    let callouts = "[...document.querySelectorAll('.callout')].filter(one => one.checkVisibility()).length";
    assert_eq!(browser.evaluate(callouts).await, json!(0));
    is_quiet(&browser, &address);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: make browser"]
async fn a_database_that_is_away_shows_while_the_lag_grows_and_clears_when_it_is_back() {
    let (mut postgres, mut world) = own_server(&[]).await;
    let an_hour = stream::Config { max_age: Duration::from_hours(1), ..world.stream_config() };
    world.jetstream.update_stream(an_hour).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let address = daemon.address();
    let mut browser = page_of(&address).await;
    let state = "document.querySelector('.pipeline').dataset.state";
    browser.until("running", &format!("{state} === 'running'")).await;

    postgres.stop(Stop::Immediate);
    browser.until("backing off", &format!("{state} === 'backing_off'")).await;
    let callout = "document.querySelector('.pipeline .callout').innerText";
    browser.until("the reason", &format!("{callout}.includes('no database connection')")).await;
    let behind = figure("Behind");
    browser.until("seconds behind", &format!("/^([5-9]|\\d\\d)[.\\d]*\\ss$/.test({behind})")).await;
    let before = browser.evaluate(&number("undelivered")).await;
    browser.until("a lag that grows", &format!("{} > {before}", number("undelivered"))).await;
    let dropped = figure("Unread data dropped in");
    browser.until("the end of what the stream keeps", &format!("/^59\\smin/.test({dropped})")).await;
    let first = "document.querySelector('.pipeline .reason').textContent";
    assert!(browser.evaluate(first).await.as_str().unwrap().starts_with("Not running for "));
    looks_right(&mut browser, "database-down").await;

    postgres.start_again().unwrap();
    world.reconnect().await;
    browser.until("running again", &format!("{state} === 'running'")).await;
    browser.until("no lag", &format!("{} === 'keeps up'", note("Behind"))).await;
    assert_eq!(browser.evaluate(&format!("{callout}.trim()")).await, json!(""));
    is_quiet(&browser, &address);
    world.judge(&daemon, load).await;
}

/// The note under a figure.
fn note(name: &str) -> String {
    figure(name).replace(".nextElementSibling.", ".nextElementSibling.nextElementSibling.")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: make browser"]
async fn a_table_that_somebody_locks_makes_the_database_the_stage_that_limits() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let address = daemon.address();
    let mut browser = page_of(&address).await;
    browser.until("nothing that limits", &format!("{} === 'nothing'", figure("Limited by"))).await;

    world.database.batch_execute("BEGIN; LOCK TABLE events").await.unwrap();
    browser.until("the database as the limit", &format!("{} === 'database'", figure("Limited by"))).await;
    let catches_up = figure("Catches up in");
    browser.until("no hope", &format!("{catches_up} === 'not at this rate'")).await;
    browser.until("a backlog", &format!("{} > 1000", number("undelivered"))).await;
    looks_right(&mut browser, "lagging").await;
    world.database.batch_execute("COMMIT").await.unwrap();
    browser.until("nothing that limits", &format!("{} === 'nothing'", figure("Limited by"))).await;
    is_quiet(&browser, &address);
    world.judge(&daemon, load).await;
}

/// Sixty-four pipelines, most of which run, as a daemon has them in memory.
fn many(metrics: &Metrics, registry: &Registry) -> Vec<Arc<PipelineStatus>> {
    let add = |number: u32| {
        let (name, stream) = (format!("cameras-{number:02}"), format!("CAMERAS{number:02}"));
        let handles = metrics.pipeline(&Shard::new(&name, &name, &stream), &["frame_metadata"]);
        handles.stream_last_sequence.set(40_000 + i64::from(number));
        handles.checkpoint_sequence.set(39_000);
        handles.pending_messages.set(1_000);
        let status = registry.add(&Shard::new(&name, &name, &stream), handles);
        status.set_state(State::Running);
        status
    };
    (0..64).map(add).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: make browser"]
async fn among_sixty_four_pipelines_those_in_trouble_come_first_and_any_can_be_found() {
    let (metrics, registry) = (Metrics::new(), Registry::default());
    let pipelines = many(&metrics, &registry);
    let away = "no database connection: cannot connect to 10.0.0.7:5432: connection refused";
    pipelines[41].set_state(State::BackingOff { reason: away.into(), retry_in: Duration::from_secs(2) });
    let lost = "the stream no longer holds sequences 39001 to 39500";
    let remedy = "see jetcopy.losses; `jetcopy accept-loss` shows what continuing after sequence 39500 would \
        mean; with --yes the pipeline does so";
    pipelines[17].set_state(State::Halted { reason: lost.into(), remedy: remedy.into() });
    let server = Server::bind(&on_a_free_port(), None).await.unwrap();
    let address = format!("http://{}/", server.address());
    let serving = tokio::spawn(server.serve(metrics, registry, std::future::pending()));

    let mut browser = page_of(&address).await;
    let shown = "[...document.querySelectorAll('.pipeline')].filter(one => one.checkVisibility())\
                 .map(one => one.querySelector('h2').textContent)";
    browser.until("all of them", &format!("{shown}.length === 64")).await;
    let first = browser.evaluate(&format!("{shown}.slice(0, 3)")).await;
    assert_eq!(first, json!(["cameras-17", "cameras-41", "cameras-00"]));
    let why = "[...document.querySelectorAll('.why')].filter(one => one.checkVisibility())\
               .map(one => one.textContent)";
    assert_eq!(browser.evaluate(why).await, json!([lost, away]), "a closed row says why");
    looks_right(&mut browser, "many").await;

    let find = "const input = document.getElementById('filter-name'); input.value = 'CAMERAS3';\
                input.dispatchEvent(new Event('input', {bubbles: true}));";
    browser.evaluate(find).await;
    browser.until("what was looked for", &format!("{shown}.length === 10")).await;
    let open = "document.querySelector('.pipeline:not([hidden]) summary').click()";
    browser.evaluate(open).await;
    browser.until("its figures", &format!("{} === '39,000'", figure("Checkpoint"))).await;
    is_quiet(&browser, &address);
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: make browser"]
async fn messages_that_nobody_reads_come_before_all_pipelines_with_what_mends_it() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(EVENTS);
    world.publish("a", (0..3).map(event)).await;
    world.run(&config, &["migrate"]).await.well();
    let removed = format!(
        "INSERT INTO jetcopy.checkpoints (shard, pipeline, stream, last_sequence, epoch) \
         VALUES ('events-1', 'events', '{}', 1, 1)",
        world.stream
    );
    world.database.batch_execute(&removed).await.unwrap();
    let daemon = Daemon::start(&config);
    daemon.says("pipeline is running").await;
    let address = daemon.address();
    let mut browser = page_of(&address).await;
    let told = "document.getElementById('left-behind').innerText";
    browser.until("what is left", &format!("{told}.includes('up to 2 messages after sequence 1')")).await;
    for text in [&world.stream, "shard events-1", "To fix it: raise shards again"] {
        browser.until(text, &format!("{told}.includes('{text}')")).await;
    }
    looks_right(&mut browser, "left-behind").await;

    world.database.batch_execute("DELETE FROM jetcopy.checkpoints WHERE shard = 'events-1'").await.unwrap();
    // With other settings, it looks at once.
    world.config(&EVENTS.replace("batch = {", "poison = { max_per_batch = 3 }\nbatch = {"));
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    browser.until("nothing to be left", &format!("{told} === ''")).await;
    is_quiet(&browser, &address);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: make browser"]
async fn a_flood_of_dead_letters_shows_its_first_messages_without_what_is_in_them_until_it_is_accepted() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let few = EVENTS.replace("batch = {", "poison = { max_per_batch = 3 }\nbatch = {");
    let config = world.config(&few);
    world.publish("bad", (0..12).map(|_| "a secret that is no message")).await;
    let daemon = Daemon::start(&config);
    daemon.says("pipeline is paused").await;
    let address = daemon.address();
    let mut browser = page_of(&address).await;

    let letters = "[...document.querySelectorAll('.letters:not([hidden])')].map(one => one.innerText).join()";
    browser.until("the flood", &format!("{letters}.includes('Stopped by a flood of dead letters')")).await;
    let shown = browser.evaluate("document.querySelector('.pipeline').innerText").await;
    let shown = shown.as_str().unwrap();
    for text in ["paused", "more than 3 messages of one batch", "dead-letters accept", "not a valid message"]
    {
        assert!(shown.contains(text), "{text} is not in:\n{shown}");
    }
    assert!(!shown.contains("secret"), "{shown}");
    looks_right(&mut browser, "flood").await;

    world.run(&config, &["dead-letters", "accept", "12", "--pipeline", "events"]).await.well();
    browser.until("the flood to be over", &format!("!{letters}.includes('flood')")).await;
    is_quiet(&browser, &address);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: make browser"]
async fn whatever_stands_in_a_name_or_a_reason_is_text() {
    let (metrics, registry) = (Metrics::new(), Registry::default());
    let handles = metrics.pipeline(&Shard::new("frames", "frames", "FRAMES"), &["frame_metadata"]);
    let status = registry.add(&Shard::new("frames", "frames", "FRAMES"), handles);
    let markup =
        "<img src=x onerror=\"document.title='taken over'\"><script>document.title='taken over'</script>";
    status.set_state(State::Paused { reason: markup.into(), remedy: markup.into() });
    let server = Server::bind(&on_a_free_port(), None).await.unwrap();
    let address = format!("http://{}/", server.address());
    let serving = tokio::spawn(server.serve(metrics, registry, std::future::pending()));
    let mut browser = page_of(&address).await;
    let reason = browser.evaluate("document.querySelector('.pipeline .reason').textContent").await;
    assert!(reason.as_str().unwrap().ends_with(markup), "{reason}");
    assert_eq!(browser.evaluate("document.images.length").await, json!(0));
    assert_eq!(browser.evaluate("document.title").await, json!("(1) jetcopy"));
    // What is not the page's own does not run, also where somebody gets it in.
    let injected = "new Promise(done => { const script = document.createElement('script');\
                    script.textContent = 'window.injected = true'; document.body.append(script);\
                    setTimeout(() => done(window.injected === undefined)) })";
    assert_eq!(browser.evaluate(injected).await, json!(true));
    let refused = |event: &Value| event.to_string().contains("Content Security Policy");
    assert!(browser.complaints.iter().any(refused), "{:?}", browser.complaints);
    serving.abort();
}

fn on_a_free_port() -> jetcopy::config::Http {
    jetcopy::config::Http { listen: ([127, 0, 0, 1], 0).into(), token_file: None, api: None }
}
