//! Every named query, asked with many different arguments.
//!
//! Times are the server's own: planning and execution by `EXPLAIN (ANALYZE, TIMING OFF)`, which runs the
//! query to its last row, in one session that has asked each question before; execution alone, which is what
//! `pg_stat_statements` counts by default, and together with planning. Beside them stands the processor time
//! of the session's process by the kernel's count, which other programs on the machine hardly change; the
//! text of the plan is in it. A span begins and ends anywhere, mostly in what is compressed: the share of
//! runs that read compressed chunks is told.

use jetcopy::store::query::named::QUERIES;
use jiff::Timestamp;
use serde_json::Value;

use super::frames::{ALWAYS, CAMERAS, DAYS, LABELS, camera_name};
use super::random::Random;
use super::report::{Answer, Report, Times};
use super::world::World;

/// Questions that are asked before those that count.
const WARM_UP: usize = 3;

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;

/// Draws arguments.
struct Draw {
    random: Random,
    /// Seconds since the Unix epoch.
    now: f64,
}

impl Draw {
    /// `since => …, until => …` of that many seconds, within the last `days` days, as clients send times.
    fn span(&mut self, days: f64, length: f64) -> String {
        let since = self.now - days * DAY + self.random.share() * (days * DAY - length);
        format!("since => '{}', until => '{}'", time(since), time(since + length))
    }

    fn camera(&mut self) -> String {
        format!("camera => '{}'", camera_name(self.random.index(CAMERAS)))
    }

    /// One that records around the clock.
    fn always(&mut self) -> String {
        format!("camera => '{}'", camera_name(CAMERAS + self.random.index(ALWAYS)))
    }

    fn label(&mut self) -> String {
        format!("labelled => '{}'", self.random.one_of(&LABELS))
    }

    fn receiver(&mut self) -> String {
        format!("receiver => 'rx-{:02}'", 1 + self.random.index(20))
    }

    fn task(&mut self) -> String {
        format!("task => 'task-{}'", self.random.index(90))
    }

    fn series(&mut self) -> String {
        format!("series => 'series-{}'", 1 + self.random.index(40))
    }

    fn project(&mut self) -> String {
        format!("project => 'p{}'", 1 + self.random.index(5_000))
    }

    fn number(&mut self, below: usize) -> usize {
        1 + self.random.index(below - 1)
    }
}

fn time(seconds: f64) -> Timestamp {
    Timestamp::from_microsecond((seconds * 1e6) as i64).unwrap()
}

struct Question {
    query: &'static str,
    text: &'static str,
    look_up: bool,
    arguments: fn(&mut Draw) -> String,
}

const fn ask(query: &'static str, text: &'static str, arguments: fn(&mut Draw) -> String) -> Question {
    Question { query, text, look_up: false, arguments }
}

const fn look_up(query: &'static str, text: &'static str, arguments: fn(&mut Draw) -> String) -> Question {
    Question { query, text, look_up: true, arguments }
}

const WEEK: f64 = DAYS as f64;
const MONTH: f64 = 30.0;
/// As far back as the log goes.
const LOG: f64 = 60.0;

const QUESTIONS: &[Question] = &[
    look_up("find_projects", "a project", Draw::project),
    look_up("find_files", "a file by its path", |draw| {
        // As others.sql names them.
        let n = draw.number(100_000);
        format!("project => 'p{}', path_is => 'dir-{}/' || md5('{n}') || '.csv'", 1 + n % 5_000, n % 17)
    }),
    look_up("files_by_digest", "a file by its digest", |draw| {
        format!("digest => encode(sha256('{}'), 'hex')", draw.number(100_000))
    }),
    look_up("latest_frames", "the latest frame of a camera", Draw::camera),
    look_up("frames", "a frame of a camera at a time", |draw| {
        format!("{}, {}, max_rows => 1", draw.camera(), draw.span(WEEK, 2.0 * HOUR))
    }),
    look_up("series_last", "the last value of a column", |draw| {
        format!("{}, columns => '{{humidity}}', since => now() - interval '1 day'", draw.series())
    }),
    look_up("operations", "an operation by its request, of the last week", |draw| {
        format!("request => md5('{}')", draw.number(120_000))
    }),
    ask("latest_frames", "the latest frame of each of 52 cameras", |_| String::new()),
    ask("frames", "1,000 frames of a camera, from two hours", |draw| {
        format!("{}, {}", draw.camera(), draw.span(WEEK, 2.0 * HOUR))
    }),
    ask("frames", "1,000 frames of a camera, from six days", |draw| {
        format!("{}, {}", draw.camera(), draw.span(WEEK, 6.0 * DAY))
    }),
    ask("frames", "1,000 frames of a camera around the clock, from two hours", |draw| {
        format!("{}, {}", draw.always(), draw.span(WEEK, 2.0 * HOUR))
    }),
    ask("frames", "1,000 frames of a camera around the clock, from six days", |draw| {
        format!("{}, {}", draw.always(), draw.span(WEEK, 6.0 * DAY))
    }),
    ask("recent_frames", "100 frames of all cameras, of the last hour", |_| String::new()),
    ask("recent_frames", "100 frames of all cameras, from two hours", |draw| draw.span(WEEK, 2.0 * HOUR)),
    ask("detections", "100 detections, of the last hour", |_| String::new()),
    ask("detections", "100 detections, from two hours", |draw| draw.span(WEEK, 2.0 * HOUR)),
    ask("detections", "100 detections of a label, from two hours", |draw| {
        format!("{}, {}", draw.label(), draw.span(WEEK, 2.0 * HOUR))
    }),
    ask("detections", "100 detections of a label, from six days", |draw| {
        format!("{}, {}", draw.label(), draw.span(WEEK, 6.0 * DAY))
    }),
    ask("detections", "100 unsure or better detections of a label, from two days", |draw| {
        format!("{}, min_confidence => 0.9, {}", draw.label(), draw.span(WEEK, 2.0 * DAY))
    }),
    ask("detections", "100 detections of a camera, from two days", |draw| {
        format!("{}, {}", draw.camera(), draw.span(WEEK, 2.0 * DAY))
    }),
    ask("detections", "100 detections of a label and camera, from two days", |draw| {
        format!("{}, {}, {}", draw.label(), draw.camera(), draw.span(WEEK, 2.0 * DAY))
    }),
    ask("detections", "100 detections of a camera around the clock, from two days", |draw| {
        format!("{}, {}", draw.always(), draw.span(WEEK, 2.0 * DAY))
    }),
    ask("frame_counts", "a camera's minutes, of the last day", Draw::camera),
    ask("frame_counts", "1,440 minutes around the clock, of the last day", Draw::always),
    ask("frame_counts", "1,440 minutes around the clock, a day", |draw| {
        format!("{}, {}", draw.always(), draw.span(WEEK, DAY))
    }),
    ask("frame_counts", "all cameras' minutes, two hours", |draw| draw.span(WEEK, 2.0 * HOUR)),
    ask("frame_counts", "all cameras' hours, a day", |draw| {
        format!("width => '1h', {}", draw.span(WEEK, DAY))
    }),
    ask("frame_counts", "all cameras' days", |_| {
        "width => '1d', since => now() - interval '1 year'".to_owned()
    }),
    ask("detection_counts", "a camera's minutes, of the last day", Draw::camera),
    ask("detection_counts", "minutes around the clock, of the last day", Draw::always),
    ask("detection_counts", "minutes around the clock, a day", |draw| {
        format!("{}, {}", draw.always(), draw.span(WEEK, DAY))
    }),
    ask("detection_counts", "all minutes of a label, two hours", |draw| {
        format!("{}, {}", draw.label(), draw.span(WEEK, 2.0 * HOUR))
    }),
    ask("detection_counts", "all cameras' hours, a day", |draw| {
        format!("width => '1h', {}", draw.span(WEEK, DAY))
    }),
    ask("detection_counts", "all cameras' days of a label", |draw| {
        format!("width => '1d', {}, since => now() - interval '1 year'", draw.label())
    }),
    ask("recent_measurements", "100 measurements", |_| String::new()),
    ask("recent_measurements", "100 measurements of a receiver, from two days", |draw| {
        format!("{}, {}", draw.receiver(), draw.span(MONTH, 2.0 * DAY))
    }),
    ask("recent_measurements", "100 measurements of a task", Draw::task),
    ask("recent_measurements", "100 measurements at a frequency", |draw| {
        format!("frequency => {}", draw.random.one_of(&["3.5", "7.1", "14.2", "145.5"]))
    }),
    ask("session_measurements", "a session of 3,840", Draw::task),
    ask("measurement_results", "a task", |draw| format!("{}, since => NULL", draw.task())),
    ask("receivers", "all receivers", |_| String::new()),
    ask("snr_statistics", "a task, without a span", |draw| format!("{}, since => NULL", draw.task())),
    ask("frequency_drift", "a task by hour, without a span", |draw| {
        format!("{}, since => NULL", draw.task())
    }),
    ask("snr_statistics", "all receivers, the last day (11,520 rows)", |_| String::new()),
    ask("snr_statistics", "all receivers, a day", |draw| draw.span(MONTH, DAY)),
    ask("snr_statistics", "a receiver, a week", |draw| {
        format!("{}, {}", draw.receiver(), draw.span(MONTH, 7.0 * DAY))
    }),
    ask("frequency_drift", "all receivers by hour, the last day", |_| String::new()),
    ask("frequency_drift", "all receivers by hour, a day", |draw| draw.span(MONTH, DAY)),
    ask("frequency_drift", "a receiver by hour, a week", |draw| {
        format!("{}, {}", draw.receiver(), draw.span(MONTH, 7.0 * DAY))
    }),
    ask("measurement_days", "all receivers, 30 days", |_| String::new()),
    ask("series_columns", "the columns of a series", Draw::series),
    ask("series_rows", "1,000 rows of a series", Draw::series),
    ask("series_rows", "1,000 rows of a column, from a day", |draw| {
        format!("{}, columns => '{{temperature}}', {}", draw.series(), draw.span(WEEK, DAY))
    }),
    ask("series_wide", "300 rows of three columns, from a day", |draw| {
        format!("{}, max_rows => 300, {}", draw.series(), draw.span(WEEK, DAY))
    }),
    ask("series_downsampled", "three columns by hour, a day (4,320 values)", |draw| {
        format!("{}, width => '1 hour', {}", draw.series(), draw.span(WEEK, DAY))
    }),
    ask("series_last", "the last values of three columns", Draw::series),
    ask("series_range", "begin and end of three columns", Draw::series),
    ask("find_projects", "100 projects from an id on", |draw| {
        format!("in_status => 'active', after => 'p{}'", draw.number(5_000))
    }),
    ask("project_stats", "a project", Draw::project),
    ask("registry_check", "5,000 projects, 100,000 files, 1,200,000 operations", |_| String::new()),
    ask("registry_totals", "the same", |_| String::new()),
    ask("find_files", "20 files of a project", Draw::project),
    ask("find_files", "files of a project by tag", |draw| {
        let n = draw.number(5_000);
        format!("project => 'p{}', tag => 'tag-{}'", 1 + n % 5_000, n % 50)
    }),
    ask("expired_files", "expired files", |_| String::new()),
    ask("operations", "100 operations, of the last week", |_| String::new()),
    ask("operations", "100 operations that failed, from a day", |draw| {
        format!("failed => true, {}", draw.span(LOG, DAY))
    }),
    ask("operations", "operations of a project, a week", |draw| {
        format!("{}, {}", draw.project(), draw.span(LOG, 7.0 * DAY))
    }),
    ask("operation_counts", "all projects by hour, the last day (17,280 rows)", |_| String::new()),
    ask("operation_counts", "all projects by hour, a day", |draw| draw.span(LOG, DAY)),
    ask("operation_counts", "a project by hour, a week", |draw| {
        format!("{}, {}", draw.project(), draw.span(LOG, 7.0 * DAY))
    }),
];

pub(crate) async fn measure(world: &World, repeats: usize, report: &mut Report) {
    for query in &QUERIES {
        let asked = QUESTIONS.iter().any(|question| question.query == query.name);
        assert!(asked, "query {} is not among the questions", query.name);
    }
    let now = world.number("SELECT extract(epoch FROM now())").await;
    let mut draw = Draw { random: Random::new(7), now };
    for question in QUESTIONS {
        let (mut execution, mut times, mut processor) = (Vec::new(), Vec::new(), Vec::new());
        let (mut rows, mut compressed) = (0.0, 0.0);
        for turn in 0..WARM_UP + repeats {
            let arguments = (question.arguments)(&mut draw);
            let before = world.processor_ms();
            let explained = explain(world, question.query, &arguments).await;
            if turn >= WARM_UP {
                processor.push(world.processor_ms() - before);
                execution.push(explained.execution);
                times.push(explained.planning + explained.execution);
                rows += explained.rows / repeats as f64;
                compressed += f64::from(u8::from(explained.compressed)) / repeats as f64;
            }
        }
        report.answer(Answer {
            query: question.query,
            question: question.text,
            look_up: question.look_up,
            rows,
            compressed,
            execution: Times::of(execution),
            times: Times::of(times),
            processor: Times::of(processor),
        });
    }
    // What the counts are checked by, at night; measured once.
    let whole = explain(world, "registry_check", "whole => true").await;
    report.set("registry_check from the rows", whole.execution, "ms");
}

/// What the server says of one run of a query.
struct Explained {
    /// Milliseconds.
    planning: f64,
    /// Milliseconds.
    execution: f64,
    rows: f64,
    /// Whether it read compressed chunks.
    compressed: bool,
}

async fn explain(world: &World, query: &str, arguments: &str) -> Explained {
    let sql =
        format!("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT * FROM jetcopy.{query}({arguments})");
    let text = world.texts(&sql).await.concat();
    let plan: Value = serde_json::from_str(&text).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    Explained {
        planning: number(&plan[0]["Planning Time"]),
        execution: number(&plan[0]["Execution Time"]),
        rows: number(&plan[0]["Plan"]["Actual Rows"]),
        compressed: reads_compressed(&plan[0]["Plan"]),
    }
}

/// Whether a node of the plan ran that decompresses, as TimescaleDB 2.28 calls it.
fn reads_compressed(plan: &Value) -> bool {
    plan["Custom Plan Provider"] == "ColumnarScan" && plan["Actual Loops"].as_f64() > Some(0.0)
        || plan["Plans"].as_array().is_some_and(|children| children.iter().any(reads_compressed))
}
