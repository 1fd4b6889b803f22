//! Random values of each type: as JSON, as MessagePack, and as PostgreSQL would read them from text.

#![expect(clippy::unwrap_used, reason = "samples are made for tests, which say what they expect")]

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value as Json;

/// One value in three spellings.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) json: String,
    pub(crate) msgpack: Vec<u8>,
    pub(crate) text: String,
}

/// Where values come from; the same on every run, so that a failure repeats.
pub(crate) struct Random(TestRunner);

impl Random {
    pub(crate) fn new() -> Self {
        Self(TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha)))
    }

    fn any<S: Strategy>(&mut self, strategy: S) -> S::Value {
        strategy.new_tree(&mut self.0).unwrap().current()
    }
}

/// A type by its name in SQL, with what makes its values.
type Of = (&'static str, fn(&mut Random) -> Sample);

/// Every type.
pub(crate) const TYPES: &[Of] = &[
    ("boolean", |random| {
        let value = random.any(any::<bool>());
        scalar(&value.into(), value.to_string())
    }),
    ("smallint", |random| integer(random.any(any::<i16>()).into())),
    ("integer", |random| integer(random.any(any::<i32>()).into())),
    ("bigint", |random| integer(random.any(prop_oneof![any::<i64>(), -200_i64..200]))),
    ("real", |random| {
        let value = random.any(proptest::num::f32::ANY.prop_filter("finite", |value| value.is_finite()));
        let mut msgpack = Vec::new();
        rmp::encode::write_f32(&mut msgpack, value).unwrap();
        Sample { json: format!("{value:?}"), msgpack, text: format!("{value:?}") }
    }),
    ("double precision", |random| {
        let value = random.any(proptest::num::f64::ANY.prop_filter("finite", |value| value.is_finite()));
        let mut msgpack = Vec::new();
        rmp::encode::write_f64(&mut msgpack, value).unwrap();
        Sample { json: format!("{value:?}"), msgpack, text: format!("{value:?}") }
    }),
    ("numeric", |random| {
        let text = random.any("-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?(e-?[0-9]{1,2})?");
        Sample { msgpack: packed_str(&text), json: text.clone(), text }
    }),
    ("text", |random| string(random.any("[^\u{0}]{0,30}"))),
    ("varchar(20)", |random| string(random.any("[^\u{0}]{0,20}"))),
    ("char(5)", |random| string(random.any("[a-zé]{5}"))),
    ("mood", |random| string(random.any("fine|sad"))),
    ("positive", |random| integer(random.any(1_i64..1_000_000))),
    ("bytea", |random| {
        let bytes = random.any(proptest::collection::vec(any::<u8>(), 0..40));
        let mut msgpack = Vec::new();
        rmp::encode::write_bin(&mut msgpack, &bytes).unwrap();
        Sample {
            json: format!("\"{}\"", STANDARD.encode(&bytes)),
            msgpack,
            text: format!("\\x{}", hex(&bytes)),
        }
    }),
    ("uuid", |random| {
        let uuid = uuid::Uuid::from_bytes(random.any(any::<[u8; 16]>()));
        let mut msgpack = Vec::new();
        rmp::encode::write_bin(&mut msgpack, uuid.as_bytes()).unwrap();
        Sample { json: format!("\"{uuid}\""), msgpack, text: uuid.to_string() }
    }),
    ("timestamptz", |random| {
        let (seconds, micros) = moment(random);
        let instant = jiff::Timestamp::new(seconds, micros * 1_000).unwrap();
        let offset = jiff::tz::Offset::from_seconds(random.any(-14_i32..14) * 3_600).unwrap();
        let text = instant.display_with_offset(offset).to_string();
        Sample { json: format!("\"{text}\""), msgpack: packed_time(seconds, micros), text }
    }),
    ("timestamp", |random| {
        let (seconds, micros) = moment(random);
        let text = jiff::Timestamp::new(seconds, micros * 1_000).unwrap().to_string();
        Sample { json: format!("\"{text}\""), msgpack: packed_time(seconds, micros), text }
    }),
    ("date", |random| {
        let (seconds, micros) = moment(random);
        let text = jiff::Timestamp::new(seconds, 0).unwrap().to_string()[..10].to_owned();
        Sample { json: format!("\"{text}\""), msgpack: packed_time(seconds, micros), text }
    }),
    ("time", |random| {
        let (hour, minute) = (random.any(0..24), random.any(0..60));
        let (second, micros) = (random.any(0..60), random.any(0..1_000_000));
        string(format!("{hour:02}:{minute:02}:{second:02}.{micros:06}"))
    }),
    ("interval", |random| {
        let months = random.any("P([0-9]{1,3}Y)?([0-9]{1,2}M)?([0-9]{1,4}D)?");
        string(format!("{months}{}", random.any("T[0-9]{1,3}H[0-9]{1,3}M[0-9]{1,2}\\.[0-9]{1,6}S")))
    }),
    ("json", json),
    ("jsonb", json),
    ("inet", |random| {
        let (address, width) = address(random);
        let bits = random.any(0..=width);
        string(format!("{address}/{bits}"))
    }),
    ("cidr", |random| {
        let (address, width) = address(random);
        let bits = random.any(0..=width);
        string(match address {
            std::net::IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                format!("{}/{bits}", std::net::Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            std::net::IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                format!("{}/{bits}", std::net::Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        })
    }),
];

fn scalar(value: &Json, text: String) -> Sample {
    Sample { json: value.to_string(), msgpack: rmp_serde::to_vec(value).unwrap(), text }
}

fn integer(value: i64) -> Sample {
    scalar(&value.into(), value.to_string())
}

fn string(text: String) -> Sample {
    scalar(&Json::from(text.as_str()), text)
}

fn json(random: &mut Random) -> Sample {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<i32>().prop_map(|number| Json::from(f64::from(number) / 8.0)),
        "[^\u{0}]{0,9}".prop_map(Json::from),
    ];
    let value = random.any(leaf.prop_recursive(4, 20, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            proptest::collection::btree_map("[^\u{0}]{0,5}", inner, 0..5)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    }));
    scalar(&value, value.to_string())
}

/// Seconds and microseconds between the years 1 and 9998.
fn moment(random: &mut Random) -> (i64, i32) {
    let seconds = prop_oneof![-62_000_000_000_i64..253_000_000_000, 0_i64..5_000_000_000];
    (random.any(seconds), random.any(prop_oneof![Just(0), 0_i32..1_000_000]))
}

fn address(random: &mut Random) -> (std::net::IpAddr, u32) {
    if random.any(any::<bool>()) {
        (std::net::Ipv4Addr::from_bits(random.any(any::<u32>())).into(), 32)
    } else {
        (std::net::Ipv6Addr::from_bits(random.any(any::<u128>())).into(), 128)
    }
}

fn packed_str(text: &str) -> Vec<u8> {
    let mut msgpack = Vec::new();
    rmp::encode::write_str(&mut msgpack, text).unwrap();
    msgpack
}

/// A timestamp extension in the shortest of its three forms.
fn packed_time(seconds: i64, micros: i32) -> Vec<u8> {
    let nanos = u32::try_from(micros).unwrap() * 1_000;
    let data = match u64::try_from(seconds) {
        Ok(seconds) if nanos == 0 && seconds < 1 << 32 => {
            u32::try_from(seconds).unwrap().to_be_bytes().to_vec()
        }
        Ok(seconds) if seconds < 1 << 34 => (u64::from(nanos) << 34 | seconds).to_be_bytes().to_vec(),
        _ => [&nanos.to_be_bytes()[..], &seconds.to_be_bytes()].concat(),
    };
    let mut msgpack = Vec::new();
    rmp::encode::write_ext_meta(&mut msgpack, u32::try_from(data.len()).unwrap(), -1).unwrap();
    msgpack.extend_from_slice(&data);
    msgpack
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
