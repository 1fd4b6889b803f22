//! How many rows a second one core decodes and encodes, in its CPU time: what else the machine does is not in
//! it.

#[path = "decode/frames.rs"]
mod frames;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jetcopy::batch::Rows;
use jetcopy::decode::Decoder;

/// Messages between two clearings of the rows, as in a batch.
const BATCH: u32 = 1_000;

/// Time that this thread was running.
struct CpuTime;

impl CpuTime {
    fn now() -> Duration {
        nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("every kernel has this clock").into()
    }
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Self::now()
    }

    fn end(&self, start: Duration) -> Duration {
        Self::now().saturating_sub(start)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        WallTime.add(a, b)
    }

    fn zero(&self) -> Duration {
        WallTime.zero()
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn decode(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("decode");
    let shapes = [
        ("flat", vec![frames::flat()], false),
        ("varied", frames::varied(), false),
        ("nested", vec![frames::nested()], true),
    ];
    for (shape, frames, detections) in shapes {
        let msgpack = frames.iter().map(|frame| rmp_serde::to_vec(frame).expect("a frame is MessagePack"));
        let json = frames.iter().map(|frame| serde_json::to_vec(frame).expect("a frame is JSON"));
        let formats: [(&str, Vec<_>); 2] = [("msgpack", msgpack.collect()), ("json", json.collect())];
        for (format, payloads) in formats {
            let (pipeline, tables) = frames::pipeline(detections);
            let mut decoder = Decoder::new(&pipeline, &tables).expect("the benchmark's own mapping is valid");
            let mut rows = Rows::new(tables.len());
            let per_message = if detections { 6 } else { 1 };
            group.throughput(Throughput::Elements(u64::from(BATCH) * per_message));
            let bytes = payloads[0].len();
            let messages: Vec<_> = payloads.into_iter().map(frames::message).collect();
            group.bench_function(format!("{shape}/{format}/{bytes} bytes"), |bencher| {
                bencher.iter(|| {
                    for table in &mut rows.tables {
                        table.data.clear();
                        table.rows.clear();
                    }
                    for (index, message) in (0..BATCH).zip(messages.iter().cycle()) {
                        decoder.decode(black_box(message), index, &mut rows).expect("a frame is no poison");
                    }
                    black_box(&rows);
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = decode
}
criterion_main!(benches);
