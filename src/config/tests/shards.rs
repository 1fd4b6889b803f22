//! Pipelines that read several streams.

use super::*;

/// The shards of the first pipeline, by name and stream, and what they are refused for.
fn shards(lines: &str) -> Result<Vec<(String, String)>, String> {
    let text = LEAST.replace("stream = \"FRAMES\"", lines);
    let config = load(&text).map_err(|error| error.to_string())?;
    Ok(config.pipelines[0].shards().into_iter().map(|shard| (shard.name, shard.stream)).collect())
}

fn pair(name: &str, stream: &str) -> (String, String) {
    (name.to_owned(), stream.to_owned())
}

#[test]
fn a_number_of_streams_is_as_many_shards_with_names_durables_and_streams_of_their_own() {
    let text = LEAST.replace("\"FRAMES\"", "\"FRAMES_{shard}\"\nshards = 16");
    let shards = load(&text).unwrap().pipelines[0].shards();
    assert_eq!(shards.len(), 16);
    let last = &shards[15];
    assert_eq!((last.pipeline.as_str(), last.name.as_str()), ("frames", "frames-15"));
    assert_eq!((last.stream.as_str(), last.durable.as_str()), ("FRAMES_15", "jetcopy-frames-15"));
    assert_eq!(last.argument(), "frames --shard 15");
    assert_eq!(last.to_string(), "frames-15");
}

#[test]
fn one_stream_without_a_number_stays_the_pipelines_own_shard() {
    let single = Ok(vec![pair("frames", "FRAMES")]);
    assert_eq!(shards("stream = \"FRAMES\""), single);
    assert_eq!(shards("stream = \"FRAMES\"\nshards = 1"), single);
    assert_eq!(shards("stream = \"F_{shard}\"\nshards = 1"), Ok(vec![pair("frames-0", "F_0")]));
}

#[test]
fn the_stream_before_the_shards_keeps_the_pipelines_checkpoint() {
    let found = shards("stream = \"F_{shard}\"\nshards = 2\nbefore = \"FRAMES\"");
    assert_eq!(found, Ok(vec![pair("frames", "FRAMES"), pair("frames-0", "F_0"), pair("frames-1", "F_1")]));
}

#[test]
fn what_does_not_go_together_is_refused_with_what_would_be_right() {
    for (lines, said) in [
        ("stream = \"F_{shard}\"", "shards: is missing: the stream has {shard}"),
        ("stream = \"F\"\nshards = 2", "stream: must have {shard} for the number of the shard"),
        ("stream = \"{shard}_{shard}\"\nshards = 2", "stream: must have {shard} once"),
        ("stream = \"F_{shard}\"\nshards = 0", "shards: must be from 1 to 1000"),
        ("stream = \"F_{shard}\"\nshards = 1001", "shards: must be from 1 to 1000"),
        ("stream = \"F\"\nbefore = \"G\"", "before: is the stream that the shards take the place of"),
        ("stream = \"F_{shard}\"\nshards = 2\nbefore = \"F_1\"", "before: is the stream of a shard, too"),
        ("stream = \"F_{shard}\"\nshards = 2\nbefore = \"F.1\"", "before: a stream name must not"),
    ] {
        let error = shards(lines).unwrap_err();
        assert!(error.contains(said), "{lines}: {error}");
    }
}

#[test]
fn an_upsert_by_arrival_does_not_read_the_old_stream_beside_the_new_ones() {
    let text = |more: &str| {
        let lines = "\"F_{shard}\"\nshards = 2\nbefore = \"FRAMES\"";
        LEAST.replace("\"FRAMES\"", lines) + "on_conflict = \"update\"\nkey = [\"id\"]\n" + more
    };
    let error = load(&text("")).unwrap_err().to_string();
    assert!(error.contains("table frame_metadata keeps the last message of a key"), "{error}");
    assert!(load(&text("newer_by = \"time\"\n")).is_ok());
}

#[test]
fn shards_of_two_pipelines_have_names_and_durables_of_their_own() {
    let sharded = LEAST.replace("\"FRAMES\"", "\"F_{shard}\"\nshards = 2");
    let other = |name: &str, rest: &str| {
        sharded.clone() + &LEAST.replace("\"frames\"", name).replace("\"FRAMES\"", rest)
    };
    let error = load(&other("\"frames-1\"", "\"G\"")).unwrap_err().to_string();
    assert!(
        error.contains("`frames-1` is the name of a shard of pipeline frames and of frames-1"),
        "{error}"
    );
    let same = other("\"b\"", "\"F_1\"\ndurable = \"jetcopy-frames-1\"");
    let error = load(&same).unwrap_err().to_string();
    assert!(error.contains("reads the same stream with the same durable consumer"), "{error}");
    assert!(load(&other("\"b\"", "\"F_1\"")).is_ok());
}
