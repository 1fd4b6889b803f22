//! Nothing on the way from payload to tuple allocates, once the buffers have grown.

#![expect(clippy::unwrap_used, reason = "helpers of tests say what they expect, too")]

#[path = "../benches/decode/frames.rs"]
mod frames;

use std::alloc::System;
use std::io::Write as _;

use async_nats::HeaderMap;
use flate2::Compression;
use flate2::write::GzEncoder;
use jetcopy::batch::Rows;
use jetcopy::decode::Decoder;
use jetcopy::message::Message;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The message of a payload, compressed in each way that asks for nothing.
fn compressed(payload: &[u8]) -> Vec<Message> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(payload).unwrap();
    let zstd = zstd::bulk::compress(payload, 3).unwrap();
    let snappy = snap::raw::Encoder::new().compress_vec(payload).unwrap();
    let ways = [("gzip", gzip.finish().unwrap()), ("zstd", zstd), ("snappy", snappy)];
    let message = |(encoding, payload): (&str, Vec<u8>)| {
        let mut headers = HeaderMap::new();
        headers.insert("Content-Encoding", encoding);
        Message { headers: Some(headers), ..frames::message(payload) }
    };
    ways.into_iter().map(message).collect()
}

// The only test of its file: another's allocations would be counted too.
#[test]
fn decoding_allocates_nothing_in_steady_state() {
    let shapes = [(vec![frames::flat()], false), (frames::varied(), false), (vec![frames::nested()], true)];
    for (frames, detections) in shapes {
        let msgpack = frames.iter().map(|frame| rmp_serde::to_vec(frame).unwrap());
        let json = frames.iter().map(|frame| serde_json::to_vec(frame).unwrap());
        let plain: Vec<_> = msgpack.chain(json).collect();
        let compressed = plain.iter().flat_map(|payload| compressed(payload));
        let messages: Vec<_> = plain.iter().cloned().map(frames::message).chain(compressed).collect();
        let (pipeline, tables) = frames::pipeline(detections);
        let mut decoder = Decoder::new(&pipeline, &tables).unwrap();
        let mut rows = Rows::new(tables.len());
        let mut batch = || {
            for table in &mut rows.tables {
                table.data.clear();
                table.rows.clear();
            }
            for (index, message) in (0..).zip(&messages) {
                decoder.decode(message, index, &mut rows).unwrap();
            }
        };
        // Often enough for the places of remembered values to have had the longest.
        for _ in 0..50 {
            batch();
        }
        let region = Region::new(ALLOCATOR);
        batch();
        let used = region.change();
        assert_eq!((used.allocations, used.reallocations), (0, 0), "{used:?}");
    }
}
