//! A model of the protocol, searched exhaustively: what `ARCHITECTURE.md` lists as invariants, in all
//! interleavings of claims, commits, acks, lost deliveries, crashes and a failover that loses commits; and
//! what the ledger counts of it.
//!
//! Guarantees: within the bounds below, every reachable state keeps every [`Property`]. Each rule that makes
//! it so is broken on purpose in a test of its own, which expects the search to find the property that the
//! rule is for.
//!
//! Ahead of the code are two writers, each with a lane of the stream's sequences, and the leases of daemons
//! (`membership.rs`).
//!
//! Not guaranteed: that the code does what the model does. The steps are named after what they stand for, and
//! the fault tests in `tests/it` show the same on real servers. A change of the protocol is made here first.

mod lanes;
mod ledger;
mod membership;
mod protocol;
mod rules;
mod search;
mod state;

use membership::Membership;
use protocol::Protocol;
use rules::Kind::{Good, Poison, Removed};
use rules::{Bounds, Mutation};
use search::{Model, search};

/// What holds in every state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Property {
    /// No message is in its table twice, nor among the dead letters twice, nor in both.
    NeverTwice,
    /// No message at or below the checkpoint is in neither.
    NeverNeither,
    /// No message above the checkpoint is in either.
    NothingAbove,
    /// What is acknowledged, also by an ack on its way, was committed. Before any failover that is: at or
    /// below the checkpoint. After one that lost commits, an ack may be ahead of the checkpoint, never of
    /// what had been committed.
    AckedIsCommitted,
    /// Each message that is stored is counted once, in a seal or an open one.
    LedgerCounts,
    /// Nothing is committed under an epoch that another claim has taken.
    ClaimFences,
    /// No shard is taken from a daemon that lives, also after the database has stalled.
    TheLivingKeep,
    /// While every daemon lives and has the shards that it should have, none moves.
    Steady,
    /// Without further faults, all can still be stored, and each shard still come to where it should be.
    Progress,
}

/// A failover that loses commits.
const FAILOVER: Bounds = Bounds {
    stream: &[Good, Poison, Removed, Good],
    window: 2,
    failovers: 1,
    forks: false,
    strays: 0,
    for_good: false,
    prompt: false,
    writers: 1,
    resizes: 0,
    block: 1,
    ledger: false,
};

/// A delivery that is lost, late or doubled.
const STRAY: Bounds = Bounds { failovers: 0, strays: 1, ..FAILOVER };

/// Both, with a message less.
const BOTH: Bounds = Bounds { stream: &[Good, Removed, Poison], failovers: 1, strays: 1, ..FAILOVER };

/// The smallest stream of which something can be lost and something kept.
const TWO: Bounds = Bounds { stream: &[Good, Poison], ..FAILOVER };

/// A failover, and then back to the old primary on its older timeline.
const BACK: Bounds = Bounds { failovers: 2, forks: true, ..TWO };

/// Two writers.
const LANES: Bounds = Bounds { stream: &[Good, Poison, Good], window: 3, writers: 2, ..STRAY };

/// The same over a failover.
const LANES_FAILOVER: Bounds = Bounds { failovers: 1, strays: 0, stream: TWO.stream, ..LANES };

/// The same and back to the old primary.
const LANES_BACK: Bounds = Bounds { failovers: 2, forks: true, ..LANES_FAILOVER };

/// From two writers to one.
const RESIZE: Bounds = Bounds { failovers: 0, strays: 0, resizes: 1, ..LANES };

/// The same over a failover.
const RESIZE_FAILOVER: Bounds = Bounds { resizes: 1, ..LANES_FAILOVER };

/// Commits that are counted and sealed, with a delivery that is lost.
const LEDGER: Bounds = Bounds { ledger: true, stream: &[Good, Poison, Good], ..STRAY };

/// The same over a failover.
const LEDGER_FAILOVER: Bounds = Bounds { ledger: true, ..TWO };

/// The same with two writers, which become one.
const LEDGER_RESIZE: Bounds = Bounds { ledger: true, stream: TWO.stream, ..RESIZE };

/// The same with two writers, of whom the second commits twice.
const LEDGER_SECOND: Bounds =
    Bounds { ledger: true, stream: &[Removed, Good, Removed, Poison], strays: 0, ..LANES };

/// The same with two writers over a failover.
const LEDGER_LANES: Bounds = Bounds { ledger: true, ..LANES_FAILOVER };

/// Six messages, over a failover and with a delivery that is lost.
const SIX: Bounds = Bounds {
    stream: &[Good, Poison, Good, Removed, Good, Good],
    block: 2,
    window: 6,
    failovers: 1,
    for_good: true,
    prompt: true,
    ..LANES
};

/// Searches, and prints what it found: the property that is broken, if any, and how.
fn broken<M: Model>(model: &M, name: impl std::fmt::Debug, only: Option<Property>) -> Option<Property> {
    let started = std::time::Instant::now();
    let found = search(model, only);
    let (states, transitions) = (found.states, found.transitions);
    println!("{name:?}: {states} states, {transitions} transitions in {:.1?}", started.elapsed());
    let (property, path) = found.counterexample?;
    println!("{property:?} is broken by these steps, each with the state after it:");
    for (step, state) in path {
        println!("{step:?}\n    {state:?}");
    }
    Some(property)
}

/// Asserts that nothing is broken.
fn holds(bounds: Bounds) {
    let protocol = Protocol { bounds, mutation: Mutation::None };
    assert_eq!(broken(&protocol, bounds, None), None);
}

/// Asserts that a rule is what keeps a property: without it, the search finds the property broken.
fn keeps(rule: Mutation, property: Property, bounds: Bounds) {
    let protocol = Protocol { bounds, mutation: rule };
    assert_eq!(broken(&protocol, rule, Some(property)), Some(property), "{rule:?}");
}

#[test]
fn every_property_holds_over_a_failover_that_loses_commits() {
    holds(FAILOVER);
}

#[test]
fn every_property_holds_where_the_database_goes_back_to_an_older_timeline() {
    holds(BACK);
    holds(LANES_BACK);
}

#[test]
fn the_sequence_shows_a_session_that_outlived_the_way_back_what_is_lacking_there() {
    keeps(Mutation::NoSequence, Property::NeverNeither, BACK);
}

#[test]
fn every_property_holds_where_a_delivery_is_lost_late_or_doubled() {
    holds(STRAY);
}

#[test]
fn every_property_holds_where_both_come_together() {
    holds(BOTH);
}

#[test]
#[ignore = "minutes: cargo test --release --test model -- --ignored --nocapture"]
fn every_property_holds_within_larger_bounds() {
    holds(Bounds { stream: FAILOVER.stream, ..BOTH });
    holds(Bounds { stream: FAILOVER.stream, ..BACK });
    holds(Bounds { stream: FAILOVER.stream, ..LANES_FAILOVER });
    holds(Bounds { stream: FAILOVER.stream, writers: 1, ..RESIZE });
    holds(Bounds { stream: &[Good, Poison, Good], ..RESIZE_FAILOVER });
    holds(Bounds { stream: SIX.stream, block: 2, window: 4, ..LANES });
    holds(SIX);
    holds(Bounds { ledger: true, ..FAILOVER });
}

#[test]
fn an_ack_waits_for_the_commit() {
    keeps(Mutation::AckBeforeCommit, Property::AckedIsCommitted, STRAY);
}

#[test]
fn the_epoch_fences_the_claim_before() {
    // One writer's rows are right all the same, since the sequence is compared too. With lanes they are not,
    // below.
    keeps(Mutation::NoEpoch, Property::ClaimFences, STRAY);
}

#[test]
fn the_sequence_shows_a_session_that_outlived_a_failover_what_was_lost() {
    keeps(Mutation::NoSequence, Property::NeverNeither, FAILOVER);
}

#[test]
fn rows_and_checkpoint_need_one_transaction() {
    keeps(Mutation::RowsApart, Property::NothingAbove, STRAY);
    keeps(Mutation::RowsApart, Property::NeverTwice, STRAY);
}

#[test]
fn the_checkpoint_is_where_to_resume_and_not_the_ack_floor() {
    // The floor is behind after a lost ack, and ahead after a failover.
    keeps(Mutation::ResumeFromFloor, Property::NeverTwice, STRAY);
    keeps(Mutation::ResumeFromFloor, Property::NeverNeither, FAILOVER);
}

#[test]
fn without_a_reset_of_the_durable_nothing_goes_on() {
    // Nothing is lost or doubled: contiguity and the check of jumps see to that.
    keeps(Mutation::NoReset, Property::Progress, STRAY);
    keeps(Mutation::NoReset, Property::Progress, TWO);
}

#[test]
fn a_commit_in_doubt_is_looked_at_before_anything_is_written_again() {
    keeps(Mutation::RetryInDoubt, Property::NeverTwice, STRAY);
}

#[test]
fn what_cannot_be_stored_needs_a_dead_letter() {
    keeps(Mutation::NoLetter, Property::NeverNeither, STRAY);
}

#[test]
fn deliveries_out_of_order_end_the_generation() {
    keeps(Mutation::NoOrder, Property::NeverTwice, STRAY);
}

#[test]
fn a_jump_in_the_sequences_is_checked() {
    keeps(Mutation::BelieveJumps, Property::NeverNeither, STRAY);
    keeps(Mutation::BelieveJumps, Property::NeverNeither, FAILOVER);
}

#[test]
fn a_probe_finds_that_the_last_delivery_was_lost() {
    keeps(Mutation::NoProbe, Property::Progress, STRAY);
}

#[test]
fn a_probe_finds_that_acks_do_not_count() {
    keeps(Mutation::AcksUnwatched, Property::Progress, STRAY);
}

#[test]
fn the_renewal_compares_the_sequence_or_a_silent_stream_hides_what_a_failover_lost() {
    keeps(Mutation::RenewByEpoch, Property::Progress, TWO);
}

#[test]
fn every_property_holds_with_two_writers() {
    holds(LANES);
    holds(LANES_FAILOVER);
}

#[test]
fn every_property_holds_while_the_number_of_writers_changes() {
    holds(RESIZE);
    holds(RESIZE_FAILOVER);
}

#[test]
fn of_lanes_the_floor_is_acknowledged_and_resumed_from() {
    keeps(Mutation::AckOwnLane, Property::AckedIsCommitted, LANES);
    keeps(Mutation::ResumeFromGreatest, Property::NeverNeither, LANES);
    keeps(Mutation::NoDrop, Property::NeverTwice, LANES);
}

#[test]
fn a_lane_moves_over_what_was_deleted_or_the_floor_is_stuck() {
    keeps(Mutation::NoAdvance, Property::Progress, Bounds { stream: BOTH.stream, ..LANES });
}

#[test]
fn a_lane_looks_at_the_others_or_acknowledges_what_a_failover_cost_them() {
    keeps(Mutation::OneLaneAlone, Property::AckedIsCommitted, LANES_FAILOVER);
}

#[test]
fn lanes_are_settled_before_their_number_changes() {
    keeps(Mutation::NoSettle, Property::NeverNeither, RESIZE);
}

#[test]
fn another_number_of_lanes_begins_only_where_they_are_as_the_daemon_knows_them() {
    keeps(Mutation::BlindResize, Property::NeverNeither, RESIZE_FAILOVER);
}

#[test]
fn the_renewal_looks_at_each_lane_or_a_silent_stream_hides_what_a_failover_cost_one() {
    keeps(Mutation::RenewOneLane, Property::Progress, LANES_FAILOVER);
}

#[test]
fn lanes_need_the_epoch_also_for_their_rows() {
    keeps(Mutation::NoEpoch, Property::NeverNeither, RESIZE);
}

#[test]
fn lanes_need_to_know_whose_an_epoch_is_since_a_failover_may_have_lost_the_claim_of_another() {
    keeps(Mutation::NoOwner, Property::NeverTwice, RESIZE_FAILOVER);
}

#[test]
fn the_ledger_counts_each_message_once_over_claims_failovers_and_answers_that_are_lost() {
    holds(LEDGER);
    holds(LEDGER_FAILOVER);
}

#[test]
fn the_ledger_of_two_writers_counts_each_message_once() {
    holds(LEDGER_SECOND);
    holds(LEDGER_LANES);
    holds(LEDGER_RESIZE);
}

#[test]
fn each_rule_of_the_ledger_keeps_its_counts() {
    for (rule, bounds) in [
        (Mutation::ClaimUnsealed, LEDGER),
        (Mutation::SealFirstLane, LEDGER_SECOND),
        (Mutation::CountApart, LEDGER),
        (Mutation::CountOn, LEDGER),
        (Mutation::SealUnfenced, LEDGER),
        (Mutation::ResizeUnsealed, LEDGER_RESIZE),
    ] {
        keeps(rule, Property::LedgerCounts, bounds);
    }
}

#[test]
fn shards_come_to_their_daemons_and_stay_there() {
    let membership = Membership { mutation: Mutation::None };
    assert_eq!(broken(&membership, "membership", None), None);
}

#[test]
fn each_rule_of_membership_keeps_a_property() {
    for (rule, property) in [
        (Mutation::LeaseByClock, Property::TheLivingKeep),
        (Mutation::FewRenewals, Property::TheLivingKeep),
        (Mutation::NoLetGo, Property::Progress),
        (Mutation::PreferredOnly, Property::Progress),
        (Mutation::Unsettled, Property::TheLivingKeep),
        (Mutation::ExpelBlindly, Property::TheLivingKeep),
        (Mutation::NoDrain, Property::Progress),
    ] {
        let membership = Membership { mutation: rule };
        assert_eq!(broken(&membership, rule, Some(property)), Some(property), "{rule:?}");
    }
}
