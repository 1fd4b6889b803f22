//! Nothing on the way from payload to tuple allocates, once the buffers have grown.

#[path = "../benches/decode/frames.rs"]
mod frames;

use std::alloc::System;

use jetcopy::batch::Rows;
use jetcopy::decode::Decoder;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

// The only test of its file: another's allocations would be counted too.
#[test]
fn decoding_allocates_nothing_in_steady_state() {
    let shapes = [(vec![frames::flat()], false), (frames::varied(), false), (vec![frames::nested()], true)];
    for (frames, detections) in shapes {
        let msgpack = frames.iter().map(|frame| rmp_serde::to_vec(frame).unwrap());
        let json = frames.iter().map(|frame| serde_json::to_vec(frame).unwrap());
        let messages: Vec<_> = msgpack.chain(json).map(frames::message).collect();
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
