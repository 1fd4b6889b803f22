//! What one message may become, and what that may cost.

use std::time::Instant;

use serde_json::json;

use super::support::*;
use crate::batch::Rows;
use crate::decode::Decoder;
use crate::decode::Undecoded;
use crate::encode::types::Type;
use crate::poison::PoisonKind;

/// Elements of `parts`, each beside the text of `blob`, within `buffered`.
fn repeating(buffered: &str, blob: Type) -> Decoder {
    let toml = format!(
        "max_buffered_bytes = \"{buffered}\"\n[[table]]\nname = \"t\"\nfor_each = \"parts\"\nbad_element = \
         \"element\"\n[table.columns]\nblob = \"^blob\"\n"
    );
    try_decoder(&toml, &[table(vec![column("blob", blob)])]).unwrap()
}

fn parts(count: usize, blob: usize) -> Vec<u8> {
    json!({"parts": vec![json!({}); count], "blob": "x".repeat(blob)}).to_string().into_bytes()
}

#[test]
fn a_message_that_would_become_more_than_its_share_is_poison_and_says_how_much_that_is() {
    let mut decoder = repeating("8MiB", Type::Text);
    assert_eq!(rows_of(&mut decoder, &message(&parts(199, 10_000))).unwrap()[0].len(), 199);
    let poison = poison(&mut decoder, &parts(1_000, 10_000));
    assert_eq!(poison.kind, PoisonKind::TooLarge);
    let expected = "its rows would take about 9.6 MiB, but the rows of one message may take 2.0 MiB, a \
                    quarter of max_buffered_bytes";
    assert!(poison.message.starts_with(expected), "{poison:?}");
    assert_eq!(rows_of(&mut decoder, &message(&parts(2, 3))).unwrap()[0].len(), 2);
}

#[test]
fn a_message_may_become_twice_its_own_size_however_little_may_be_buffered() {
    let mut decoder = repeating("1KiB", Type::Text);
    assert_eq!(rows_of(&mut decoder, &message(&parts(2, 1_000_000))).unwrap()[0].len(), 2);
    assert_eq!(poison(&mut decoder, &parts(3, 1_000_000)).kind, PoisonKind::TooLarge);
}

#[test]
fn a_message_without_room_leaves_nothing_and_is_decoded_once_there_is_some() {
    let mut decoder = repeating("8MiB", Type::Text);
    let (payload, mut rows) = (parts(100, 10_000), Rows::new(1));
    decoder.decode(&message(&parts(1, 1)), 0, &mut rows).unwrap();
    let refused = decoder.decode_into(&message(&payload), 1, &mut rows, 500_000);
    assert_eq!(refused, Err(Undecoded::NoRoom));
    assert_eq!((rows.tables[0].rows.len(), rows.refused.len()), (1, 0));
    decoder.decode_into(&message(&payload), 1, &mut rows, 1_100_000).unwrap();
    assert_eq!(rows.tables[0].rows.len(), 101);
}

#[test]
fn what_is_read_again_for_each_of_many_elements_costs_a_bounded_time() {
    // 100,000 elements beside half a megabyte of digits: 50 GB to go through, for rows of a few bytes.
    let parts = vec!["{}"; 100_000].join(",");
    let payload = format!(r#"{{"parts":[{parts}],"blob":"0.{}"}}"#, "1".repeat(500_000));
    let mut decoder = repeating("8MiB", Type::Float8);
    let started = Instant::now();
    let poison = poison(&mut decoder, payload.as_bytes());
    assert_eq!(poison.kind, PoisonKind::TooLarge);
    assert!(poison.message.contains("would read more than 4 times the 2.0 MiB"), "{poison:?}");
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn an_array_and_a_document_end_where_they_are_too_large() {
    let nils = |count: u32| {
        let mut payload = vec![0x81, 0xa1, b'a', 0xdd];
        payload.extend(count.to_be_bytes());
        payload.extend(vec![0x01; count as usize]);
        payload
    };
    let array = Type::Array { element: Box::new(Type::Int8), element_oid: 20 };
    for (ty, fits) in [(array, 80_000), (Type::Jsonb, 500_000), (Type::Text, 500_000)] {
        let toml = "max_buffered_bytes = \"4MiB\"\n[[table]]\nname = \"t\"\n";
        let mut decoder = try_decoder(toml, &[table(vec![column("a", ty.clone())])]).unwrap();
        assert_eq!(rows_of(&mut decoder, &message(&nils(fits))).unwrap()[0].len(), 1, "{ty:?}");
        let mut rows = Rows::new(1);
        let refused = decoder.decode_into(&message(&nils(fits)), 0, &mut rows, 100_000);
        assert_eq!(refused, Err(Undecoded::NoRoom), "{ty:?}");
        assert!(rows.tables[0].data.capacity() < 300_000, "{ty:?}: {}", rows.tables[0].data.capacity());
    }
}
