//! `jetcopy status`: what each pipeline is doing, from the daemon or, if it is down, from NATS and the
//! database.
//!
//! Guarantees: it says whom it asked, and changes nothing. The daemon's own numbers are shown unchanged;
//! fields that this version does not know are passed on in `--json`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Failure, columns};
use crate::chain::chain;
use crate::config::Config;
use crate::leftover;
use crate::shard::Shard;
use crate::terminal;

pub mod fetch;
mod outside;
mod untaken;

/// Clears a terminal and moves the cursor to its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Arguments of `jetcopy status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object: `source` names who answered, `pipelines` holds the rest.
    #[arg(long)]
    pub json: bool,
    /// Refresh every 2s, or at the given interval, until Ctrl-C.
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, require_equals = true,
        default_missing_value = "2s", value_parser = humantime::parse_duration)]
    pub watch: Option<Duration>,
}

/// Runs the command; what it finds goes to standard output.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    config.require_pipelines()?;
    // Once: nobody leaves one while this looks.
    let left = leftover::list(config, &[]).await;
    loop {
        let mut seen = look(config).await;
        match &left {
            Ok(left) => seen["leftover_durables"] = json!(left),
            Err(error) => seen["leftover_durables_unknown"] = chain(error).into(),
        }
        let text = seen.to_string() + "\n";
        let text = if args.json { terminal::json(&text).into_owned() } else { table(&seen) };
        let mut out = io::stdout().lock();
        let clear = if args.watch.is_some() && !args.json && out.is_terminal() { CLEAR } else { "" };
        out.write_all([clear, &text].concat().as_bytes())
            .and_then(|()| out.flush())
            .map_err(Failure::failed)?;
        drop(out);
        let Some(interval) = args.watch else { return Ok(()) };
        tokio::time::sleep(interval).await;
    }
}

/// What the daemon says, with `source` added; or what can be seen without it.
async fn look(config: &Config) -> Value {
    let address = fetch::reachable(config.http.listen);
    match fetch::status(&config.http).await {
        Ok(mut status) => {
            status["source"] = "daemon".into();
            status["address"] = address.to_string().into();
            status
        }
        Err(error) => json!({
            "source": "servers",
            "why": format!("no daemon answers at {address}: {error}"),
            "pipelines": outside::look(config).await,
        }),
    }
}

const HEADER: [&str; 11] = [
    "PIPELINE",
    "STATE",
    "BEHIND",
    "UNDELIVERED",
    "UNACKED",
    "CHECKPOINT",
    "STREAM",
    "HEADROOM",
    "ROWS/S",
    "DEAD LETTERS",
    "SINCE START",
];
const RIGHT: [bool; 11] = [false, false, true, true, true, true, true, true, true, true, true];

fn table(seen: &Value) -> String {
    let pipelines = seen["pipelines"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out = match seen["source"].as_str() {
        Some("daemon") => format!(
            "daemon {} at {}, since {}\n",
            text(&seen["version"]),
            text(&seen["address"]),
            text(&seen["started"])
        ),
        _ => format!("{}; this is what NATS and the database say\n", terminal::within(&text(&seen["why"]))),
    };
    let rows: Vec<[String; 11]> = pipelines.iter().map(row).collect();
    out += &columns::render(HEADER, RIGHT, &rows);
    for pipeline in pipelines {
        out += &trouble(pipeline);
    }
    for left in seen["left_behind"].as_array().into_iter().flatten() {
        let (shard, stream) = (text(&left["shard"]), text(&left["stream"]));
        let _ = writeln!(
            out,
            "left behind: up to {} messages in stream {stream} after sequence {}, which nobody reads: shard \
             {shard} is not configured; {}",
            text(&left["messages"]),
            text(&left["checkpoint"]),
            text(&left["remedy"]),
        );
    }
    for left in seen["leftover_durables"].as_array().into_iter().flatten() {
        let (durable, stream, pipeline) =
            (text(&left["durable"]), text(&left["stream"]), text(&left["pipeline"]));
        let what = left["kept"].as_str().map_or_else(
            || "`jetcopy remove-durables` removes it".to_owned(),
            |kept| format!("it is kept: {kept}"),
        );
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "leftover: durable consumer {durable} on stream {stream}, of pipeline {pipeline}, which is not \
             configured; {what}"
        );
    }
    out
}

fn row(pipeline: &Value) -> [String; 11] {
    let behind = pipeline["behind_seconds"].as_f64();
    let rate = pipeline["recent"]["rows_per_second"].as_f64();
    let stream = |end: &str| text(&pipeline[end]);
    [
        name(pipeline),
        text(&pipeline["state"]),
        behind.map_or_else(dash, |seconds| format!("{seconds:.1} s")),
        text(&pipeline["undelivered_messages"]),
        text(&pipeline["ack_pending_messages"]),
        text(&pipeline["checkpoint_sequence"]),
        format!("{}–{}", stream("stream_first_sequence"), stream("stream_last_sequence")),
        text(&pipeline["headroom_sequences"]),
        rate.map_or_else(dash, |rate| format!("{rate:.0}")),
        text(&pipeline["dead_letters_in_table"]),
        text(&pipeline["dead_letters_since_start"]),
    ]
}

/// Lines that say why a pipeline is in its state, and what would help.
fn trouble(pipeline: &Value) -> String {
    let mut lines = Vec::new();
    if let Some(reason) = pipeline["reason"].as_str() {
        lines.push(reason.to_owned());
    }
    let held = &pipeline["held_up"];
    if let (Some(seconds), Some(what)) = (held["seconds"].as_f64(), held["what"].as_str()) {
        lines.push(format!("nothing has committed for {:.0} s: {what}", seconds.floor()));
    }
    let recent = &pipeline["recent"];
    if let (Some(true), Some(waits)) = (recent["more_writers_help"].as_bool(), recent["waits"].as_f64()) {
        let share = 100.0 * waits;
        lines.push(format!(
            "more `writers` would help: {share:.0} % of their time is the way to the database, and commits"
        ));
    }
    if let Some(remedy) = pipeline["remedy"].as_str() {
        lines.push(format!("remedy: {remedy}"));
    }
    if let Some(losses @ 1..) = pipeline["open_losses"].as_u64() {
        lines.push(format!("{losses} losses are not accepted: see jetcopy.losses"));
    }
    for unknown in pipeline["unknown"].as_array().into_iter().flatten() {
        lines.push(format!("could not ask {}", text(unknown)));
    }
    for letter in pipeline["flood"].as_array().into_iter().flatten() {
        let place = |name: &str| letter[name].as_str().map_or_else(String::new, |name| format!(" {name}"));
        let (sequence, why) = (text(&letter["sequence"]), text(&letter["reason"]));
        lines.push(format!("in the flood: sequence {sequence}{}{}: {why}", place("table"), place("column")));
    }
    lines.extend(untaken::lines(&pipeline["untaken"]));
    let name = name(pipeline);
    lines.iter().fold(String::new(), |text, line| text + &terminal::within(&format!("{name}: {line}")) + "\n")
}

/// The pipeline's name, with its shard where that is another.
fn name(pipeline: &Value) -> String {
    match (pipeline["pipeline"].as_str(), pipeline["shard"].as_str()) {
        (Some(name), Some(shard)) => Shard::new(name, shard, "").to_string(),
        (name, _) => name.unwrap_or("?").to_owned(),
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// A value as a cell: a dash for what is not known.
fn text(value: &Value) -> String {
    match value {
        Value::Null => dash(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_daemon_does_not_say_is_a_dash_and_what_it_says_beyond_is_no_error() {
        let seen = json!({
            "source": "daemon", "version": "9.9", "address": "127.0.0.1:9464", "more": {},
            "pipelines": [{"pipeline": "frames", "state": "paused", "reason": "no such table",
                "remedy": "run `jetcopy migrate`", "checkpoint_sequence": 7, "novel": [1]}],
        });
        let text = table(&seen);
        assert!(text.starts_with("daemon 9.9 at 127.0.0.1:9464, since -\n"), "{text}");
        assert!(text.contains("\nframes    paused       -"), "{text}");
        assert!(text.contains("\nframes: no such table\nframes: remedy: run `jetcopy migrate`\n"), "{text}");
    }
}
