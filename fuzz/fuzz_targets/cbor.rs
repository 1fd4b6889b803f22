//! CBOR with arbitrary mappings.

#![no_main]

mod decode;

libfuzzer_sys::fuzz_target!(|input: &[u8]| decode::judge("cbor", input));
