//! `[store]`.

use std::time::Duration;

use super::{LEAST, load, load_all, said};
use crate::catalog::{After, rollup, table};
use crate::config::Overrides;

#[test]
fn the_store_has_the_defaults_of_the_catalog_where_nothing_else_is_set() {
    let text =
        "[store.frame_metadata]\nretention = \"never\"\n[store.frame_stats_1m]\nrefresh = { lag = \"5m\" }\n";
    let store = load(&format!("{text}{LEAST}")).unwrap().store;
    let (frames, minutes) = (table("frame_metadata").unwrap(), rollup("frame_stats_1m").unwrap());
    assert_eq!(store.table(frames).retention, After::Never);
    assert_eq!(store.table(frames).chunk_interval, frames.life.chunk_interval);
    assert_eq!(store.rollup(minutes).refresh.lag, Duration::from_mins(5));
    assert_eq!(store.rollup(minutes).refresh.window, minutes.life.refresh.window);
}

#[test]
fn the_store_takes_settings_from_the_environment() {
    let environment = [("JETCOPY_STORE__FRAME_METADATA__RETENTION", "10d")];
    let store = load_all(LEAST, &environment, &Overrides::default()).unwrap().store;
    let retention = store.table(table("frame_metadata").unwrap()).retention;
    assert_eq!(retention, After::Age(Duration::from_hours(240)));
}

#[test]
fn an_unknown_name_in_the_store_is_named_with_the_nearest() {
    let store = |lines: &str| said(load(&format!("{lines}\n{LEAST}")));
    assert_eq!(
        store("[store.frame_metdata]"),
        ["file:1: store.frame_metdata: unknown key `frame_metdata`; did you mean `frame_metadata`?"]
    );
    assert_eq!(
        store("[store.frame_metadata]\nretntion = \"7d\""),
        ["file:2: store.frame_metadata.retntion: unknown key `retntion`; did you mean `retention`?"]
    );
    assert_eq!(
        store("[store.frame_stats_1m]\ncompress_after = \"7d\""),
        ["file:2: store.frame_stats_1m.compress_after: unknown key `compress_after`; expected one of \
             retention, refresh"]
    );
    assert_eq!(
        store("[store.frame_stats_1m]\nrefresh = { evry = \"7d\" }"),
        ["file:2: store.frame_stats_1m.refresh.evry: unknown key `evry`; did you mean `every`?"]
    );
    let said = store("[store.frame_metadata]\nretention = \"nevr\"");
    assert!(said[0].starts_with("file:2: store.frame_metadata.retention: "), "{said:?}");
    assert!(said[0].ends_with("expected an age such as \"7d\", or \"never\""), "{said:?}");
}

#[test]
fn a_refresh_never_reaches_past_the_retention_of_its_source() {
    let store = |lines: &str| said(load(&format!("{lines}\n{LEAST}")));
    let both = "store.frame_metadata.retention = \"5days\"\nstore.frame_stats_1m.refresh.window = \"6d\"";
    assert_eq!(
        store(both),
        ["file:2: store.frame_stats_1m.refresh.window: is 6d, and frame_metadata keeps its rows for 5d: \
             the refresh would empty buckets whose rows were dropped; at most 5d"]
    );
    assert_eq!(
        store("[store.frame_stats_1d]\nretention = \"20d\"\nrefresh.window = \"28d\""),
        ["file:2: store.frame_stats_1d.retention: is 20d, less than refresh.window: dropped buckets would \
             come again",]
    );
    assert_eq!(
        store("[store.frame_stats_1d]\nrefresh = { window = \"2d\", lag = \"15m\" }"),
        ["file:2: store.frame_stats_1d.refresh.window: is 2d: must be 2 buckets more than refresh.lag, at \
             least 2895m"]
    );
}

/// The database keeps the rest, and compares.
#[test]
fn a_wide_window_or_a_short_retention_alone_is_not_compared_with_defaults_that_may_not_hold() {
    for lines in [
        "store.frame_stats_1h.refresh.window = \"31d\"",
        "store.frame_metadata.retention = \"5days\"",
        "store.frame_stats_1d.retention = \"20d\"",
    ] {
        load(&format!("{lines}\n{LEAST}")).unwrap();
    }
    let said = said(load(&format!("store.frame_stats_1h.refresh.window = \"90m\"\n{LEAST}")));
    assert!(said[0].contains("is 90m: must be 2 buckets more than refresh.lag, at least 2h"), "{said:?}");
}

#[test]
fn the_schema_of_the_store_is_none_of_jetcopys_or_the_servers_own() {
    let store = |name: &str| load(&format!("store.schema = \"{name}\"\n{LEAST}"));
    assert_eq!(store("telemetry").unwrap().store.schema.as_deref(), Some("telemetry"));
    for (name, expected) in [
        ("jetcopy", "belongs to jetcopy or the server"),
        ("pg_catalog", "belongs to jetcopy or the server"),
        ("", "must be 1 to 63 bytes long"),
        (&*"x".repeat(64), "must be 1 to 63 bytes long"),
    ] {
        let said = said(store(name));
        assert!(said[0].starts_with(&format!("file:1: store.schema: {expected}")), "{said:?}");
    }
}

#[test]
fn spans_of_the_store_are_more_than_nothing() {
    for (line, key) in [
        ("store.maintain_interval = \"0s\"", "store.maintain_interval"),
        ("store.frame_metadata.chunk_interval = \"0s\"", "store.frame_metadata.chunk_interval"),
        ("store.operations_log.retention = \"0s\"", "store.operations_log.retention"),
        ("store.frame_stats_1m.refresh.every = \"0s\"", "store.frame_stats_1m.refresh.every"),
    ] {
        assert_eq!(said(load(&format!("{line}\n{LEAST}"))), [format!("file:1: {key}: must be more than 0")]);
    }
}

#[test]
fn partitions_are_added_for_whole_days_and_for_no_more_than_a_century() {
    for (back, days) in [("1000d", 1_000), ("36525d", 36_525), ("1h", 1), ("0s", 0), ("5y", 1_827)] {
        let config = load(&format!("store.partitions_back = \"{back}\"\n{LEAST}")).unwrap();
        assert_eq!(config.store.partitions.back, Some(days), "{back}");
        assert_eq!(config.store.partitions.ahead, None);
    }
    for (key, value) in [("partitions_back", "36526d"), ("partitions_ahead", "101y")] {
        assert_eq!(
            said(load(&format!("store.{key} = \"{value}\"\n{LEAST}"))),
            [format!("file:1: store.{key}: must be at most 36525d")]
        );
    }
}
