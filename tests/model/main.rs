//! A model of the protocol, searched exhaustively: what `ARCHITECTURE.md` lists as invariants, in all
//! interleavings of claims, commits, acks, lost deliveries, crashes and a failover that loses commits.
//!
//! Guarantees: within the bounds below, every reachable state keeps every [`Property`]. Each rule that makes
//! it so is broken on purpose in a test of its own, which expects the search to find the property that the
//! rule is for.
//!
//! Not guaranteed: that the code does what the model does. The steps are named after what they stand for, and
//! the fault tests in `tests/it` show the same on real servers. A change of the protocol is made here first.

mod protocol;
mod search;
mod state;

use protocol::Kind::{Good, Poison, Removed};
use protocol::{Bounds, Mutation, Protocol};
use search::search;

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
    /// below the checkpoint. After one that lost commits, acks may be ahead of the checkpoint, but of none
    /// that was committed.
    AckedIsCommitted,
    /// Nothing is committed under an epoch that another claim has taken.
    ClaimFences,
    /// Without further faults, all can still be stored.
    Progress,
}

/// A failover that loses commits.
const FAILOVER: Bounds =
    Bounds { stream: &[Good, Poison, Removed, Good], window: 2, failovers: 1, strays: 0 };

/// A delivery that is lost, late or doubled.
const STRAY: Bounds = Bounds { failovers: 0, strays: 1, ..FAILOVER };

/// Both, with a message less. With all four sequences it is 2.4 million states, which also hold.
const BOTH: Bounds = Bounds { stream: &[Good, Removed, Poison], failovers: 1, strays: 1, ..FAILOVER };

/// Searches, and tells what it found: the property that is broken, if any, and how.
fn broken(bounds: Bounds, rule: Mutation, only: Option<Property>) -> Option<Property> {
    let started = std::time::Instant::now();
    let found = search(&Protocol { bounds, mutation: rule }, only);
    let (states, transitions) = (found.states, found.transitions);
    println!("{rule:?}: {states} states, {transitions} transitions in {:.1?}", started.elapsed());
    let (property, path) = found.counterexample?;
    println!("{property:?} is broken by these steps, each with the state after it:");
    for (step, state) in path {
        println!("{step:?}\n    {state:?}");
    }
    Some(property)
}

/// Asserts that a rule is what keeps a property: broken, it is found.
fn keeps(rule: Mutation, property: Property, bounds: Bounds) {
    assert_eq!(broken(bounds, rule, Some(property)), Some(property), "{rule:?}");
}

#[test]
fn every_property_holds_over_a_failover_that_loses_commits() {
    assert_eq!(broken(FAILOVER, Mutation::None, None), None);
}

#[test]
fn every_property_holds_where_a_delivery_is_lost_late_or_doubled() {
    assert_eq!(broken(STRAY, Mutation::None, None), None);
}

#[test]
fn every_property_holds_where_both_come_together() {
    assert_eq!(broken(BOTH, Mutation::None, None), None);
}

#[test]
fn an_ack_waits_for_the_commit() {
    keeps(Mutation::AckBeforeCommit, Property::AckedIsCommitted, STRAY);
}

#[test]
fn the_epoch_fences_the_claim_before() {
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
fn the_durable_is_reset_or_nothing_goes_on() {
    // Contiguity and the check of jumps keep everything else.
    keeps(Mutation::NoReset, Property::Progress, STRAY);
    keeps(Mutation::NoReset, Property::Progress, BOTH);
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
    keeps(Mutation::RenewByEpoch, Property::Progress, FAILOVER);
}
