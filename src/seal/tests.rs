//! What a commit says of the ledger, without a database.

use bytes::Bytes;

use super::*;
use crate::batch;
use crate::message::Message;

fn batch(messages: &[(u64, &'static [u8])]) -> Batch {
    let mut batch = Batch::new(2);
    for &(sequence, payload) in messages {
        let row = |start| batch::Row { start, message: batch.next_index(), element: 0, time: 0 };
        let start = u32::try_from(batch.rows.tables[0].data.len()).unwrap();
        let row = row(start);
        batch.rows.tables[0].data.extend_from_slice(b"tuple");
        batch.rows.tables[0].rows.push(row);
        let payload = Bytes::from_static(payload);
        let timestamp_ns = i64::try_from(sequence).unwrap() * 1_000;
        let subject = "a".into();
        batch.keep(&Message { sequence, timestamp_ns, subject, payload, headers: None });
    }
    batch
}

fn open() -> Open {
    Open::new(config::Ledger::default(), ["public.one", "public.o'ther"].into_iter())
}

#[test]
fn the_digest_is_the_same_whatever_the_batches_and_another_for_any_other_message() {
    let whole = batch(&[(1, b"one"), (2, b""), (3, b"three")]);
    let (mut at_once, mut in_parts) = (open(), open());
    at_once.add(&whole, &(0..3), &Excluded::default(), 0);
    in_parts.add(&whole, &(0..1), &Excluded::default(), 0);
    in_parts.add(&batch(&[(2, b""), (3, b"three")]), &(0..2), &Excluded::default(), 0);
    assert_eq!(at_once.set(3), in_parts.set(3));

    let digest = |messages: &[(u64, &'static [u8])]| {
        let mut digest = Digest::default();
        for (sequence, payload) in messages {
            digest.add(*sequence, payload);
        }
        digest.hex()
    };
    let known = digest(&[(1, b"one"), (2, b""), (3, b"three")]);
    assert!(at_once.set(3).contains(&known));
    for others in [
        &[(1, &b"one"[..]), (2, b""), (4, b"three")][..],
        &[(1, b"on"), (2, b"e"), (3, b"three")],
        &[(1, b"one"), (3, b"three")],
        &[(1, b"one"), (2, b""), (3, b"Three")],
    ] {
        assert_ne!(digest(others), known);
    }
}

#[test]
fn the_digest_of_any_lengths_is_that_of_all_bytes_in_a_row() {
    let mut digest = Digest::default();
    let mut all = blake3::Hasher::new();
    for (sequence, length) in [(1_u64, 0_usize), (2, 16 << 10), (3, 100_000), (4, 16_352), (5, 7)] {
        let payload = vec![u8::try_from(sequence).unwrap(); length];
        digest.add(sequence, &payload);
        all.update(&sequence.to_le_bytes()).update(&(length as u64).to_le_bytes()).update(&payload);
        assert_eq!(digest.hex(), all.finalize().to_hex().as_str());
    }
}

#[test]
fn a_commit_says_all_that_was_committed_since_the_last_seal() {
    let mut open = open();
    let excluded = Excluded { messages: [1].into(), ..Excluded::default() };
    open.add(&batch(&[(5, b"a"), (6, b"b"), (7, b"c")]), &(0..3), &excluded, 1);
    open.add(&batch(&[(9, b"d")]), &(0..1), &Excluded::default(), 0);
    open.add_unstored(1, 2);
    let set = open.set(10);
    let begin = ", seal_to = 10, seal_messages = 4, seal_letters = 1, seal_superseded = 0, \
        seal_tables = ARRAY['public.one', 'public.o''ther']::text[], seal_rows = '{3,0}', \
        seal_unstored = '{0,2}', seal_first_at = timestamptz 'epoch' + 5::float8";
    assert!(set.starts_with(begin), "{set}");
}

#[test]
fn without_a_digest_none_is_kept() {
    let ledger = config::Ledger { digest: config::Digest::None };
    let mut open = Open::new(ledger, ["one"].into_iter());
    open.add(&batch(&[(1, b"a")]), &(0..1), &Excluded::default(), 0);
    assert!(open.set(1).ends_with("seal_digest = NULL"));
}

#[test]
fn a_seal_is_closed_after_its_time_or_its_messages() {
    let mut open = open();
    assert_eq!(open.next("a", 0).1, "");
    open.add(&batch(&[(1, b"a")]), &(0..1), &Excluded::default(), 0);
    let (next, close) = open.next("a", 0);
    assert_eq!((next.messages, &*close), (1, ""));
    open.messages = MESSAGES;
    let (next, close) = open.next("it's", 3);
    assert_eq!(close, "SELECT jetcopy.close_seal('it''s', 3) AS jetcopy_sealed; ");
    assert_eq!((next.messages, next.since, &next.rows[..]), (0, None, &[0, 0][..]));
    open.messages = 1;
    open.since = Instant::now().checked_sub(AGE);
    assert!(open.since.is_none() || !open.next("a", 0).1.is_empty());
}
