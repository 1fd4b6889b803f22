//! Chains of seals, without a database.

use super::*;

/// Seals of these lanes, kinds and sequences, under these claims.
fn chains(seals: &[(Share, &str, u64, u64, i64)]) -> Chains {
    let mut chains = Chains::default();
    let mut lanes: Vec<u64> = seals.iter().map(|seal| seal.0.lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    // As the database does it, the first chain last.
    let mut ends: BTreeMap<i64, Vec<Vec<u8>>> = BTreeMap::new();
    let mut made: Vec<Seal> = Vec::new();
    for &lane in lanes.iter().rev() {
        let mut before: Option<Vec<u8>> = None;
        let mut chain = Vec::new();
        for (number, &(share, kind, from, to, epoch)) in
            (1..).zip(seals.iter().filter(|seal| seal.0.lane == lane))
        {
            let text = format!("{lane} {number} {kind} {from} {to}");
            let hash = hash_of(&text, before.as_deref());
            let digest = (kind == "lanes" && lane == 0)
                .then(|| Sha256::digest(ends.remove(&epoch).unwrap_or_default().concat()).to_vec());
            if kind == "lanes" {
                ends.entry(epoch).or_default().insert(0, hash.clone());
            }
            before = Some(hash.clone());
            let messages = if kind == "committed" { to - from + 1 } else { 0 };
            let stretch = Stretch { number, share, from, to, messages, digest, ..Stretch::default() };
            chain.push(Seal { kind: kind.to_owned(), stretch, epoch, text, hash });
        }
        made.splice(0..0, chain);
    }
    for seal in made {
        chains.follow(seal);
    }
    chains
}

const ONE: Share = Share { lane: 0, of: None };

fn of_two(lane: u64) -> Share {
    Share { lane, of: Some((2, 10)) }
}

/// The row that goes on from the last seal of a lane, with nothing since.
fn point(chains: &Chains, share: Share, last_sequence: u64) -> Point {
    let end = chains.ends.iter().find(|end| end.lane == share.lane).unwrap();
    let open = Stretch { number: end.number + 1, share, from: end.at + 1, to: end.at, ..Stretch::default() };
    Point { last_sequence, number: end.number, hash: end.hash.clone(), after: end.at, open }
}

fn stretches(story: &Story) -> Vec<(u64, u64, u64)> {
    story.stretches.iter().map(|stretch| (stretch.share.lane, stretch.from, stretch.to)).collect()
}

#[test]
fn what_was_written_again_after_a_rewind_counts_once() {
    let mut chains = chains(&[
        (ONE, "begun", 0, 10, 1),
        (ONE, "committed", 11, 20, 1),
        (ONE, "committed", 21, 40, 1),
        (ONE, "rewound", 40, 25, 2),
        (ONE, "committed", 26, 50, 3),
    ]);
    let mut point = point(&chains, ONE, 60);
    (point.open.to, point.open.messages) = (60, 10);
    let story = chains.end(&[point]);
    assert_eq!(chains.faults, []);
    assert_eq!((story.begins_after, stretches(&story)), (10, vec![(0, 11, 20), (0, 26, 50), (0, 51, 60)]));
}

#[test]
fn a_rebuilt_table_begins_the_ledger_anew() {
    let mut chains =
        chains(&[(ONE, "committed", 1, 20, 1), (ONE, "rebuilt", 20, 20, 2), (ONE, "committed", 21, 30, 3)]);
    let point = point(&chains, ONE, 30);
    let story = chains.end(&[point]);
    assert_eq!((story.begins_after, story.stretches.len(), chains.faults.len()), (20, 1, 0));
}

#[test]
fn a_checkpoint_that_goes_on_from_another_seal_is_a_fault() {
    let mut chains = chains(&[(ONE, "committed", 1, 20, 1)]);
    let mut point = point(&chains, ONE, 20);
    point.number = 2;
    chains.end(&[point]);
    assert_eq!(chains.faults, [(0, 2, Fault::Last)]);
}

#[test]
fn a_seal_that_is_missing_or_begins_elsewhere_is_a_fault() {
    let apart = chains(&[(ONE, "committed", 1, 20, 1), (ONE, "committed", 22, 30, 1)]);
    assert_eq!(apart.faults, [(0, 2, Fault::Apart)]);
    let mut chains = Chains::default();
    let hash = hash_of("2", None);
    let stretch = Stretch { number: 2, from: 1, to: 3, ..Stretch::default() };
    chains.follow(Seal { kind: "committed".to_owned(), stretch, epoch: 1, text: "2".to_owned(), hash });
    assert_eq!(chains.faults, [(0, 2, Fault::Missing)]);
}

/// One writer, then two, one of them ahead, then one.
const CHANGES: [(Share, &str, u64, u64, i64); 9] = [
    (ONE, "committed", 1, 20, 1),
    (Share { lane: 0, of: Some((2, 10)) }, "lanes", 20, 20, 2),
    (Share { lane: 1, of: Some((2, 10)) }, "lanes", 0, 20, 2),
    (Share { lane: 0, of: Some((2, 10)) }, "committed", 21, 50, 2),
    (Share { lane: 1, of: Some((2, 10)) }, "committed", 21, 40, 2),
    (ONE, "lanes", 50, 50, 3),
    (Share { lane: 1, of: None }, "lanes", 40, 50, 3),
    (ONE, "committed", 51, 60, 3),
    (ONE, "committed", 61, 70, 4),
];

#[test]
fn what_several_writers_committed_stands_beside_what_one_did_before_and_after() {
    let mut chains = chains(&CHANGES);
    let point = point(&chains, ONE, 70);
    let story = chains.end(&[point]);
    assert_eq!(chains.faults, []);
    let expected = [(0, 1, 20), (0, 21, 50), (1, 21, 40), (0, 51, 60), (0, 61, 70)];
    assert_eq!((stretches(&story), story.moves), (expected.to_vec(), vec![]));
}

#[test]
fn a_chain_that_lost_its_end_is_missed_by_the_first_also_where_no_lane_goes_on_with_it() {
    for gone in [2, 4, 6] {
        let others = CHANGES.iter().enumerate();
        let cut = others.filter(|&(index, seal)| seal.0.lane == 0 || index < gone);
        let mut whole = chains(&CHANGES);
        let mut spoilt = chains(&cut.map(|(_, seal)| *seal).collect::<Vec<_>>());
        // The first chain is as it was.
        spoilt.changes.values_mut().zip(whole.changes.values_mut()).for_each(|(spoilt, whole)| {
            spoilt[0].digest = whole[0].digest.take();
        });
        let point = point(&spoilt, ONE, 70);
        spoilt.end(&[point]);
        assert!(spoilt.faults.iter().any(|fault| fault.2 == Fault::Ends), "{gone}: {:?}", spoilt.faults);
    }
}

#[test]
fn a_seal_that_claims_what_is_another_lanes_is_a_fault() {
    let mut seals = CHANGES;
    seals[4].0 = Share { lane: 1, of: Some((2, 20)) };
    assert_eq!(chains(&seals).faults, [(1, 2, Fault::Shared)]);
    // One that ends before its lane has all up to the change: 31 to 40 are the second lane's.
    seals = CHANGES;
    seals[4].3 = 30;
    seals[6].2 = 30;
    assert_eq!(chains(&seals).faults, [(1, 3, Fault::Left)]);
}

#[test]
fn a_lane_that_goes_back_leaves_behind_what_it_wrote_and_a_rewind_what_all_did() {
    let lane = [(of_two(1), "rewound", 40, 25, 3), (of_two(1), "committed", 26, 60, 3)];
    let mut chains_of_two = chains(&[&CHANGES[..5], &lane].concat());
    let points = [point(&chains_of_two, of_two(0), 50), point(&chains_of_two, of_two(1), 60)];
    let story = chains_of_two.end(&points);
    assert_eq!(chains_of_two.faults, []);
    assert_eq!(stretches(&story), [(0, 1, 20), (0, 21, 50), (1, 26, 60)]);

    // Back to before there were several.
    let all = [(ONE, "rewound", 70, 30, 5), (ONE, "committed", 31, 90, 6)];
    let mut chains = chains(&[&CHANGES[..], &all].concat());
    let point = point(&chains, ONE, 90);
    let story = chains.end(&[point]);
    assert_eq!((stretches(&story), chains.faults), (vec![(0, 1, 20), (0, 31, 90)], vec![]));
}

#[test]
fn a_share_has_the_blocks_of_its_lane() {
    for lane in 0..3 {
        let share = Share { lane, of: Some((3, 4)) };
        for from in 0..40 {
            for to in from..40 {
                let any = (from + 1..=to).any(|sequence| share.holds(sequence));
                assert_eq!(share.has_between(from, to), any, "{lane} {from} {to}");
            }
        }
    }
}
