//! What comes out is what went in, within its bound, or it is refused.

use std::io::Write as _;

use flate2::write::DeflateEncoder;
use proptest::prelude::*;

use super::*;
use crate::payload::compress::compress;

/// A bound that no test reaches by accident.
const MOST: usize = 1 << 20;

fn expand(codec: Codec, payload: &[u8]) -> Result<Vec<u8>, Unexpanded> {
    expand_within(MOST, codec, payload)
}

fn expand_within(most: usize, codec: Codec, payload: &[u8]) -> Result<Vec<u8>, Unexpanded> {
    let mut expander = Expander::new(most);
    let outcome = expander.expand(codec, payload).map(<[u8]>::to_vec);
    assert!(expander.out.bytes.capacity() <= most + 1, "{} of {most}", expander.out.bytes.capacity());
    outcome
}

/// Text that compresses, but not to nothing.
fn text(length: usize) -> Vec<u8> {
    (0_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_string().into_bytes()).take(length).collect()
}

/// Snappy's framed form.
fn frames(payload: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(payload).unwrap();
    encoder.into_inner().unwrap()
}

/// A zstd frame that does not say how long its content is, but what window it needs, in powers of two.
fn stream(payload: &[u8], window: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(window).unwrap();
    encoder.include_checksum(true).unwrap();
    // In pieces, so that the encoder cannot know.
    for piece in payload.chunks(1_000) {
        encoder.write_all(piece).unwrap();
        encoder.flush().unwrap();
    }
    encoder.finish().unwrap()
}

/// Deflate without zlib's header.
fn bare(payload: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(payload).unwrap();
    encoder.finish().unwrap()
}

/// `payload` in every form that is read.
fn forms(payload: &[u8]) -> Vec<(Codec, Vec<u8>)> {
    let usual = Codec::ALL.map(|codec| (codec, compress(codec, payload).unwrap()));
    let others = [
        (Codec::Deflate, bare(payload)),
        (Codec::Zstd, stream(payload, 20)),
        (Codec::Snappy, frames(payload)),
    ];
    // Nothing has no frames at all.
    usual.into_iter().chain(others).filter(|(_, compressed)| !compressed.is_empty()).collect()
}

#[test]
fn what_was_compressed_comes_out_as_it_was_whatever_came_before_it() {
    let mut expander = Expander::new(MOST);
    for length in [0, 1, 100, LEAST, LEAST + 1, 300_000, 65_536, 7, MOST] {
        let payload = text(length);
        for (codec, compressed) in forms(&payload) {
            assert_eq!(expander.expand(codec, &compressed), Ok(&*payload), "{codec:?}, {length} bytes");
            assert!(expander.expand(codec, b"\xff").is_err(), "what was refused leaves nothing behind");
        }
    }
}

#[test]
fn as_much_as_the_bound_comes_out_and_a_byte_more_is_too_large() {
    for length in [1, LEAST - 1, LEAST, 100_000] {
        for (codec, compressed) in forms(&text(length)) {
            assert_eq!(expand_within(length, codec, &compressed), Ok(text(length)), "{codec:?} of {length}");
            let less = expand_within(length - 1, codec, &compressed);
            assert_eq!(less, Err(Unexpanded::TooLarge), "{codec:?} of {length}");
        }
    }
}

#[test]
fn a_bomb_is_too_large_and_takes_no_more_memory_than_the_bound() {
    for (codec, bomb) in forms(&vec![0; 64 << 20]) {
        let mut expander = Expander::new(MOST);
        assert_eq!(expander.expand(codec, &bomb), Err(Unexpanded::TooLarge), "{codec:?}");
        assert!(expander.out.bytes.capacity() <= MOST + 1);
    }
    // Many small members make a bomb, too.
    let members = compress(Codec::Gzip, &vec![0; MOST / 8]).unwrap().repeat(9);
    assert_eq!(expand(Codec::Gzip, &members), Err(Unexpanded::TooLarge));
    let claims = [&b"\xff\xff\xff\xff\x0f"[..], &[0; 20]].concat();
    assert_eq!(expand(Codec::Snappy, &claims), Err(Unexpanded::TooLarge));
}

#[test]
fn much_room_is_given_back() {
    let mut expander = Expander::new(8 << 20);
    let kept = |expander: &Expander| expander.out.bytes.capacity();
    expander.expand(Codec::Gzip, &compress(Codec::Gzip, &vec![0; KEPT / 4]).unwrap()).unwrap();
    expander.shrink();
    assert!(kept(&expander) >= KEPT / 4);
    expander.expand(Codec::Gzip, &compress(Codec::Gzip, &vec![0; 4 * KEPT]).unwrap()).unwrap();
    expander.shrink();
    assert_eq!(kept(&expander), 0);
}

#[test]
fn a_window_that_is_larger_than_the_bound_is_refused_and_one_of_8_mib_never() {
    assert_eq!(expand(Codec::Zstd, &stream(&text(5_000), 23)), Ok(text(5_000)));
    let refused = expand(Codec::Zstd, &stream(&text(5_000), 27));
    assert_eq!(refused, Err(Unexpanded::Broken("Frame requires too much memory for decoding")));
}

#[test]
fn what_is_cut_short_anywhere_is_refused() {
    for (codec, compressed) in forms(&text(3_000)) {
        for length in 0..compressed.len() {
            let refused = expand(codec, &compressed[..length]);
            // A frame that is left off, no one misses; here there is but one.
            let none = codec == Codec::Snappy && length == SNAPPY_FRAMES.len();
            let refused_well = matches!(refused, Err(Unexpanded::Broken(_)));
            assert!(refused_well || none && refused == Ok(Vec::new()), "{codec:?}, {length}: {refused:?}");
        }
    }
}

#[test]
fn what_goes_on_after_its_end_is_refused() {
    for (codec, compressed) in forms(&text(3_000)) {
        for rest in [&b"\0"[..], b"\n", b"{\"id\": 7}", &[0x1f], &[0; 100]] {
            let refused = expand(codec, &[&compressed, rest].concat());
            assert!(matches!(refused, Err(Unexpanded::Broken(_))), "{codec:?} and {rest:?}: {refused:?}");
        }
    }
}

#[test]
fn what_has_a_good_checksum_comes_out_as_it_was_or_not_at_all_when_a_bit_is_flipped() {
    // Not deflate: zlib's sum is the same for some other digits, also in Python.
    let payload = text(300);
    for (codec, compressed) in
        [(Codec::Gzip, compress(Codec::Gzip, &payload).unwrap()), (Codec::Zstd, stream(&payload, 20))]
    {
        for bit in 0..8 * compressed.len() {
            let mut flipped = compressed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(expanded) = expand(codec, &flipped) {
                assert_eq!(expanded, payload, "{codec:?}, bit {bit} of {compressed:x?}");
            }
        }
    }
    for (codec, from_end) in [(Codec::Gzip, 8), (Codec::Gzip, 1), (Codec::Deflate, 1)] {
        let mut wrong = compress(codec, &payload).unwrap();
        let at = wrong.len() - from_end;
        wrong[at] ^= 1;
        assert!(matches!(expand(codec, &wrong), Err(Unexpanded::Broken(_))), "{codec:?}");
    }
}

#[test]
fn what_is_said_to_be_another_is_refused() {
    let payload = text(300);
    for (codec, compressed) in forms(&payload).into_iter().chain([(Codec::Gzip, payload.clone())]) {
        for other in Codec::ALL.into_iter().filter(|other| *other != codec || compressed == payload) {
            let refused = expand(other, &compressed);
            assert!(
                matches!(refused, Err(Unexpanded::Broken(_) | Unexpanded::TooLarge)),
                "{codec:?} as {other:?}: {refused:?}"
            );
        }
    }
    assert_eq!(expand(Codec::Gzip, b"{\"id\": 7, \"note\": \"plain\"}"), Err(OTHER));
    assert_eq!(expand(Codec::Gzip, b"{}"), Err(OTHER));
    assert_eq!(expand(Codec::Zstd, b"{\"id\": 7, \"note\": \"plain\"}"), Err(OTHER));
}

#[test]
fn members_and_frames_that_follow_one_another_are_one_payload() {
    let (first, second) = (text(10_000), b"and more".to_vec());
    let whole = [&*first, &second].concat();
    let usual = |codec| [compress(codec, &first).unwrap(), compress(codec, &second).unwrap()].concat();
    assert_eq!(expand(Codec::Gzip, &usual(Codec::Gzip)).as_ref(), Ok(&whole));
    assert_eq!(expand(Codec::Zstd, &usual(Codec::Zstd)).as_ref(), Ok(&whole));
    assert_eq!(expand(Codec::Snappy, &[frames(&first), frames(&second)].concat()).as_ref(), Ok(&whole));
}

#[test]
fn what_other_programs_write_is_read() {
    let bytes = |hex: &str| -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    };
    let deflated = "ab56ca4c51b25230d75150cacb2f4905329532527372f2153048a55a00";
    for (codec, program, hex) in [
        (Codec::Gzip, "Python's gzip", &*format!("1f8b080000f1536502ff{deflated}53b814ed2c000000")),
        (
            Codec::Gzip,
            "gzip, with a file's name",
            &*format!("1f8b0808c1360d6b00036e6f74652e6a736f6e00{deflated}53b814ed2c000000"),
        ),
        (
            Codec::Gzip,
            "a header with all there is",
            &*format!("1f8b081e00000000000303004142436e6f746500776879008172{deflated}53b814ed2c000000"),
        ),
        (Codec::Deflate, "Python's zlib", &*format!("78da{deflated}27430e2f")),
        (Codec::Deflate, "Python's zlib, without header", deflated),
        (
            Codec::Zstd,
            "zstd, from a pipe",
            "28b52ffd04580d0100d87b226964223a20372c20226e6f7465223a202268656c6c6f20227d0100652e63cf708d70",
        ),
    ] {
        let expanded = expand(codec, &bytes(hex));
        let expected = br#"{"id": 7, "note": "hello hello hello hello"}"#;
        assert_eq!(expanded.as_deref(), Ok(&expected[..]), "{program}");
    }
}

proptest! {
    #[test]
    fn whatever_the_bytes_nothing_panics_and_the_bound_holds(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        start in prop::sample::select(vec![
            &b""[..], b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", SNAPPY_FRAMES, b"\x78\x9c",
        ]),
    ) {
        for codec in Codec::ALL {
            if let Ok(expanded) = expand_within(1_000, codec, &[start, &bytes].concat()) {
                prop_assert!(expanded.len() <= 1_000);
            }
        }
    }

    #[test]
    fn whatever_the_payload_it_comes_out_as_it_was(
        payload in proptest::collection::vec(prop_oneof![any::<u8>(), Just(7)], 0..20_000),
    ) {
        for (codec, compressed) in forms(&payload) {
            prop_assert_eq!(expand(codec, &compressed), Ok(payload.clone()));
        }
    }
}
