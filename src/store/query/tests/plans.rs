//! Each query is a function of the database, is taken into the statement that calls it, and reads a small
//! part of its table.

use super::super::named::QUERIES;
use super::*;

#[tokio::test]
async fn each_query_of_the_list_is_a_function_with_these_arguments() {
    let world = World::shared().await;
    let sql = "SELECT proargnames[1:pronargs], array(SELECT format_type(t, NULL) FROM unnest(proargtypes) t),
            (pronargs - pronargdefaults)::int8, provolatile = 's' AND proparallel = 's',
            array(SELECT n || ' ' || format_type(t, NULL)
                FROM unnest(proargnames[pronargs + 1:], proallargtypes[pronargs + 1:]) c (n, t))
        FROM pg_proc WHERE pronamespace = 'jetcopy'::regnamespace AND proname = $1";
    for query in &QUERIES {
        let row = world.database.query_one(sql, &[&query.name]).await.unwrap();
        let (names, types, required): (Vec<String>, Vec<String>, i64) = (row.get(0), row.get(1), row.get(2));
        let expected: Vec<&str> = query.arguments.iter().map(|argument| argument.name).collect();
        assert_eq!(names, expected, "{}", query.name);
        let expected: Vec<&str> = query.arguments.iter().map(|argument| argument.kind.sql_type()).collect();
        assert_eq!(types, expected, "{}", query.name);
        let expected = query.arguments.iter().filter(|argument| argument.default.is_none()).count();
        assert_eq!(usize::try_from(required).unwrap(), expected, "{}", query.name);
        assert!(row.get::<_, bool>(3), "{} is not stable and parallel safe", query.name);
        let columns = query.columns().map(|(name, kind)| {
            let kind = match kind {
                "timestamptz" => "timestamp with time zone",
                "float8" => "double precision",
                kind => kind,
            };
            format!("{name} {kind}")
        });
        assert_eq!(row.get::<_, Vec<String>>(4), columns.collect::<Vec<_>>(), "{}", query.name);
    }
}

/// Some 100,000 rows a table: 30 days of measurements, points and operations, 7 of frames and detections.
const ROWS: &str = "
    INSERT INTO frame_metadata (time, camera_id, frame_id)
        SELECT now() - n * interval '6 s', 'cam-' || n % 50, n FROM generate_series(1, 100000) n ORDER BY 1;
    INSERT INTO detection_events (time, camera_id, frame_id, label, confidence)
        SELECT now() - n * interval '6 s', 'cam-' || n % 50, n,
            (ARRAY['person', 'car', 'dog', NULL])[1 + n % 4], n % 100 / 100.0
        FROM generate_series(1, 100000) n ORDER BY 1;
    INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz, snr_db, frequency_offset_hz)
        SELECT now() - n * interval '25 s', 'task-' || n / 500, 'rx-' || n % 20, CASE WHEN n % 1000 = 0
            THEN 433.25 ELSE 145.5 END,
            n % 17, n % 5
        FROM generate_series(1, 100000) n ORDER BY 1;
    INSERT INTO websdrs (id, name, updated_at) SELECT 'rx-' || n, 'Receiver ' || n, now()
        FROM generate_series(0, 18) n;
    INSERT INTO time_series_data_points (timestamp, series_id, column_name, value)
        SELECT now() - n / 20 * interval '500 s', 's-' || n % 20, c, n
        FROM generate_series(1, 100000) n, unnest('{temperature,humidity}'::text[]) c ORDER BY 1;
    INSERT INTO projects (id, table_count, status, updated_at)
        SELECT 'p' || n, 0, CASE WHEN n % 50 = 0 THEN 'locked' ELSE 'active' END, now()
            FROM generate_series(1, 100000) n;
    INSERT INTO files (project_id, path, name, sha256, staged, expires_at, tags, updated_at)
        SELECT 'p' || n % 5000, 'dir/' || n, 'file' || n, md5(n::text), n % 1000 = 0, now() - interval '1 h',
            to_jsonb(ARRAY['t' || n % 1000]), now()
        FROM generate_series(1, 100000) n;
    INSERT INTO operations_log (timestamp, request_id, project_id, operation, error)
        SELECT now() - n * interval '25 s', 'req-' || n, 'p' || n % 5000, 'query', CASE WHEN n % 20 = 0
            THEN 'boom' END
        FROM generate_series(1, 100000) n ORDER BY 1";

/// Rows that a query of a table of 100,000 may touch: a day of 30, and a bit.
const FEW: f64 = 5_000.0;

/// What is asked, beside the queries without arguments that must be given.
const CALLS: &[(&str, &[&str])] = &[
    ("latest_frames", &[]),
    ("latest_frames", &["camera=cam-7"]),
    ("frames", &["camera=cam-7", "since=2h"]),
    ("recent_frames", &[]),
    ("recent_frames", &["since=3days", "until=2days", "max_rows=50"]),
    ("detections", &[]),
    ("detections", &["labelled=dog", "since=6days"]),
    ("detections", &["labelled=dog", "min_confidence=0.5", "since=2days"]),
    ("detections", &["camera=cam-7", "min_confidence=0.5", "since=1day"]),
    ("recent_measurements", &[]),
    ("recent_measurements", &["task=task-100"]),
    ("recent_measurements", &["receiver=rx-3"]),
    ("recent_measurements", &["frequency=433.25"]),
    ("session_measurements", &["task=task-100"]),
    ("snr_statistics", &[]),
    ("snr_statistics", &["receiver=rx-3", "since=7days"]),
    ("frequency_drift", &[]),
    ("frequency_drift", &["receiver=rx-3", "since=7days"]),
    ("frequency_drift", &["task=task-100", "since=30days"]),
    ("measurement_results", &["task=task-100", "since=30days"]),
    ("receivers", &["receiver=rx-3"]),
    ("series_columns", &["series=s-3"]),
    ("series_rows", &["series=s-3"]),
    ("series_rows", &["series=s-3", "columns=humidity", "since=3days", "until=2days"]),
    ("series_wide", &["series=s-3", "max_rows=100"]),
    ("series_downsampled", &["series=s-3", "width=1h", "since=2days"]),
    ("series_last", &["series=s-3"]),
    ("series_range", &["series=s-3"]),
    ("find_projects", &["project=p77"]),
    ("find_projects", &["in_status=locked", "after=p5"]),
    ("project_stats", &["project=p77"]),
    ("find_files", &["project=p77"]),
    ("find_files", &["project=p77", "path_is=dir/77"]),
    ("find_files", &["project=p77", "tag=t77"]),
    ("files_by_digest", &["digest=28dd2c7955ce926456240b2ff0100bde"]),
    ("expired_files", &[]),
    ("operations", &["project=p77"]),
    ("operations", &["request=req-77"]),
    ("operations", &["failed=true"]),
    ("operation_counts", &[]),
    ("operation_counts", &["project=p77", "since=30days"]),
];

/// Rows that the scans of a plan touched, and the functions that it calls as such.
fn touched(plan: &Json, functions: &mut Vec<String>) -> f64 {
    let number = |name: &str| plan.get(name).and_then(Json::as_f64).unwrap_or(0.0);
    let children = plan.get("Plans").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let of_children: f64 = children.iter().map(|child| touched(child, functions)).sum();
    if plan.get("Schema").and_then(Json::as_str) == Some("jetcopy") {
        functions.push(plan["Function Name"].to_string());
    }
    let is_scan = plan.get("Relation Name").is_some() && children.is_empty();
    let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    of_children + if is_scan { (number("Actual Rows") + removed) * number("Actual Loops") } else { 0.0 }
}

#[tokio::test]
async fn no_query_reads_more_than_a_small_part_of_its_table() {
    for world in World::both().await {
        world.past_days(30).await;
        world.execute(ROWS).await;
        world.execute("VACUUM ANALYZE").await;
        for (name, words) in CALLS {
            let call = Call::parse(name, words.iter().copied()).unwrap();
            let sql = format!("EXPLAIN (ANALYZE, VERBOSE, TIMING OFF, FORMAT JSON) {}", call.statement());
            let rows = world.database.query_typed(&sql, &call.parameters()).await.unwrap();
            let plan: Json = rows[0].get(0);
            let mut functions = Vec::new();
            let rows = touched(&plan[0]["Plan"], &mut functions);
            // It runs with its owner's rights, which keeps the planner out.
            functions.retain(|function| !function.contains("refused_measurements"));
            assert!(rows <= FEW, "{}: {name} {words:?} touches {rows} rows: {plan:#}", world.name);
            assert!(functions.is_empty(), "{}: {name} {words:?} is not taken in: {plan:#}", world.name);
            assert!(
                !world.ask(name, words).await.is_empty(),
                "{}: {name} {words:?} finds nothing",
                world.name
            );
        }
    }
}

/// What each call answers, row by row, with the call's name.
async fn answers(world: &World, calls: &[(String, Call)]) -> Vec<(String, Vec<String>)> {
    let mut answers = Vec::new();
    for (name, call) in calls {
        let sql = format!("SELECT answer::text FROM ({}) AS answer", call.statement());
        let rows = world.database.query_typed(&sql, &call.parameters()).await.unwrap();
        answers.push((name.clone(), rows.iter().map(|row| row.get(0)).collect()));
    }
    answers
}

#[tokio::test]
async fn queries_answer_the_same_once_their_rows_are_compressed() {
    let world = World::shared().await;
    if TestPostgres::shared().unwrap().lacks_timescaledb() {
        return;
    }
    world.past_days(30).await;
    world.execute(ROWS).await;
    world.execute("VACUUM ANALYZE").await;
    world.apply_life_cycle().await;
    // The last digits of a spread depend on the order in which rows are read: ten are compared.
    world.execute("SET extra_float_digits = -5").await;
    // As of one moment: what is asked for the last hour must not pass by meanwhile. A span that is named
    // from now on back is named once.
    world.execute("BEGIN").await;
    let calls: Vec<(String, Call)> = CALLS
        .iter()
        .map(|(name, words)| (format!("{name} {words:?}"), Call::parse(name, words.iter().copied()).unwrap()))
        .collect();
    let before = answers(&world, &calls).await;
    world.compress().await;
    let after = answers(&world, &calls).await;
    world.execute("COMMIT").await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
}

#[tokio::test]
async fn no_query_over_compressed_rows_is_estimated_to_be_worth_workers_or_compiling() {
    let world = World::shared().await;
    if TestPostgres::shared().unwrap().lacks_timescaledb() {
        return;
    }
    world.execute(ROWS).await;
    world.apply_life_cycle().await;
    world.compress().await;
    world.execute("VACUUM ANALYZE").await;
    for (name, words) in CALLS {
        let call = Call::parse(name, words.iter().copied()).unwrap();
        let sql = format!("EXPLAIN (FORMAT JSON) {}", call.statement());
        let plan: Json = world.database.query_typed(&sql, &call.parameters()).await.unwrap()[0].get(0);
        let text = plan.to_string();
        assert!(!text.contains("Workers Planned") && !text.contains("\"JIT\""), "{name} {words:?}: {plan:#}");
    }
}
