//! Which daemon is to have which shard, as every daemon works it out for itself.
//!
//! Guarantees: from the same rows, all daemons come to the same result. A shard whose owner has its row stays
//! there, unless that daemon is drained, cannot run it, or has at least two shards more than another.
//!
//! A free shard goes to the daemon that has the fewest; of several, to the one that a hash of its name and
//! the shard's prefers (rendezvous hashing), so that each shard of a few may have another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::checkpoint::{self, Place};
use crate::daemons::Daemon;

/// How long, in seconds, a daemon has been here before it is given shards that others run, and how long a
/// shard has been where it is: what comes and goes is not followed.
const DELAY: f64 = 10.0;

/// How long a shard may be nobody's after it was handed over, before the next one is.
const TAKEN: Duration = Duration::from_secs(5);

/// What a daemon is to do about a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Run it: it is this daemon's, or free and this daemon's to take.
    Run,
    /// Hand it over.
    LetGo,
    /// Wait: another daemon has it, or is to take it.
    Wait {
        /// That daemon.
        owner: String,
    },
    /// Wait: an operator paused it.
    Paused(checkpoint::Paused),
}

/// The shard that is being handed over to spread the load.
#[derive(Debug, Default)]
pub(super) struct Moving(Option<(String, Instant)>);

/// What is known.
struct Known<'a> {
    daemons: &'a [Daemon],
    places: BTreeMap<&'a str, &'a Place>,
    /// How many shards each daemon has.
    held: BTreeMap<&'a str, usize>,
}

/// What the daemon `me` is to do about each of the shards `wanted`.
pub(super) fn turns(
    me: &str,
    wanted: &[String],
    daemons: &[Daemon],
    places: &[Place],
    moving: &mut Moving,
) -> BTreeMap<String, Turn> {
    let places: BTreeMap<&str, &Place> = places.iter().map(|place| (place.shard.as_str(), place)).collect();
    let mut known = Known { daemons, places, held: BTreeMap::new() };
    let shards: BTreeSet<&str> =
        daemons.iter().flat_map(|daemon| daemon.shards.iter().map(String::as_str)).collect();
    for shard in &shards {
        if let Some(owner) = known.owner(shard) {
            *known.held.entry(owner.name.as_str()).or_default() += 1;
        }
    }
    let goes = known.goes(me, &shards, moving);
    let mut turns = BTreeMap::new();
    for shard in shards {
        let turn = if let Some(paused) = known.places.get(shard).and_then(|place| place.paused.clone()) {
            Turn::Paused(paused)
        } else if let Some(owner) = known.owner(shard) {
            match owner.name == me {
                true if goes.contains(shard) => Turn::LetGo,
                true => Turn::Run,
                false => Turn::Wait { owner: owner.name.clone() },
            }
        } else {
            let Some(heir) = known.best(shard, |_| true) else { continue };
            *known.held.entry(heir.name.as_str()).or_default() += 1;
            if heir.name == me { Turn::Run } else { Turn::Wait { owner: heir.name.clone() } }
        };
        turns.insert(shard.to_owned(), turn);
    }
    turns.retain(|shard, _| wanted.contains(shard));
    turns
}

impl<'a> Known<'a> {
    /// The daemon that has a shard.
    fn owner(&self, shard: &str) -> Option<&'a Daemon> {
        let owner = self.places.get(shard)?.owner.as_deref()?;
        self.daemons.iter().find(|daemon| daemon.name == owner)
    }

    fn held(&self, daemon: &Daemon) -> usize {
        self.held.get(daemon.name.as_str()).copied().unwrap_or(0)
    }

    /// Of the daemons that are configured for a shard and are `among` these, the one that is to have it.
    fn best(&self, shard: &str, among: impl Fn(&Daemon) -> bool) -> Option<&'a Daemon> {
        let may = self.daemons.iter().filter(|daemon| daemon.shards.iter().any(|own| own == shard));
        let rank = |daemon: &&Daemon| {
            (burden(daemon, shard), self.held(daemon), Reverse(weight(&daemon.name, shard)))
        };
        may.filter(|daemon| among(daemon)).min_by_key(rank)
    }

    /// The shards of `me` that others are to have: all that it cannot run while others can, and one at a time
    /// of those that are too many.
    fn goes(&self, me: &str, shards: &BTreeSet<&str>, moving: &mut Moving) -> BTreeSet<String> {
        let mut goes = BTreeSet::new();
        let Some(own) = self.daemons.iter().find(|daemon| daemon.name == me) else { return goes };
        let mut too_many = Vec::new();
        for shard in shards.iter().filter(|shard| self.owner(shard).is_some_and(|owner| owner.name == me)) {
            let Some(other) = self.best(shard, |daemon| daemon.name != me) else { continue };
            let (burden, others) = (burden(own, shard), burden(other, shard));
            let stayed = self.places.get(shard).is_some_and(|place| place.owned_for >= DELAY);
            if others < burden {
                goes.insert((*shard).to_owned());
            } else if others == burden
                && self.held(own) >= self.held(other) + 2
                && stayed
                && other.age >= DELAY
            {
                too_many.push((weight(&own.name, shard), *shard));
            }
        }
        if let Some((shard, since)) = &moving.0 {
            let still = too_many.iter().any(|(_, other)| other == shard);
            let untaken = self.owner(shard).is_none() && since.elapsed() < TAKEN;
            if !still && !untaken {
                moving.0 = None;
            }
        }
        if moving.0.is_none()
            && let Some((_, shard)) = too_many.iter().min()
        {
            moving.0 = Some(((*shard).to_owned(), Instant::now()));
        }
        goes.extend(moving.0.as_ref().map(|(shard, _)| shard.clone()));
        goes
    }
}

/// What speaks against a daemon for a shard: that it is drained more than that it cannot run it.
fn burden(daemon: &Daemon, shard: &str) -> u8 {
    let unable = daemon.unable.iter().any(|other| other == shard);
    2 * u8::from(daemon.drained.is_some()) + u8::from(unable)
}

/// How much a daemon is preferred for a shard: FNV-1a of both names, the bits mixed.
fn weight(daemon: &str, shard: &str) -> u64 {
    let bytes = daemon.bytes().chain([0]).chain(shard.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARDS: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn daemon(name: &str, age: f64) -> Daemon {
        Daemon {
            name: name.into(),
            host: "host".into(),
            process: 1,
            version: "1".into(),
            age,
            beat: 1,
            overdue: false,
            silent: 0.0,
            ended: false,
            shards: SHARDS.map(str::to_owned).to_vec(),
            unable: Vec::new(),
            messages_per_second: 0.0,
            drained: None,
        }
    }

    fn place(shard: &str, owner: Option<&str>, owned_for: f64) -> Place {
        Place {
            shard: shard.into(),
            pipeline: shard.into(),
            stream: String::new(),
            owner: owner.map(str::to_owned),
            owned_for,
            paused: None,
            epoch: 1,
            checkpoint: 0,
            verified: None,
        }
    }

    /// Lets the daemons do what they are told until nobody moves; how often a shard was handed over.
    fn settle(daemons: &[Daemon], places: &mut Vec<Place>) -> usize {
        let wanted = SHARDS.map(str::to_owned);
        let mut moving: Vec<Moving> = daemons.iter().map(|_| Moving::default()).collect();
        let mut moves = 0;
        for _ in 0..100 {
            let before = places.clone();
            for (daemon, moving) in daemons.iter().zip(&mut moving) {
                for (shard, turn) in turns(&daemon.name, &wanted, daemons, places, moving) {
                    let place = places.iter_mut().find(|place| place.shard == shard).unwrap();
                    match turn {
                        Turn::Run => place.owner = Some(daemon.name.clone()),
                        Turn::LetGo => {
                            moves += 1;
                            place.owner = None;
                        }
                        Turn::Wait { .. } | Turn::Paused(_) => {}
                    }
                }
            }
            if *places == before {
                return moves;
            }
        }
        panic!("they never settle: {places:?}");
    }

    fn held(places: &[Place], daemon: &str) -> usize {
        places.iter().filter(|place| place.owner.as_deref() == Some(daemon)).count()
    }

    fn free() -> Vec<Place> {
        SHARDS.map(|shard| place(shard, None, 0.0)).to_vec()
    }

    #[test]
    fn free_shards_are_spread_evenly_and_stay_where_they_are() {
        let daemons = [daemon("one", 0.0), daemon("two", 0.0), daemon("three", 0.0)];
        let mut places = free();
        assert_eq!(settle(&daemons, &mut places), 0);
        let mut counts = ["one", "two", "three"].map(|name| held(&places, name));
        counts.sort_unstable();
        assert_eq!(counts, [1, 2, 2]);
    }

    #[test]
    fn a_daemon_that_is_added_gets_its_share_after_a_while_and_no_more_is_moved_than_that() {
        let mut daemons = vec![daemon("one", 60.0), daemon("two", 9.9)];
        let mut places = SHARDS.map(|shard| place(shard, Some("one"), 60.0)).to_vec();
        assert_eq!(settle(&daemons, &mut places), 0);
        daemons[1].age = 10.0;
        assert_eq!(settle(&daemons, &mut places), 2);
        assert_eq!((held(&places, "one"), held(&places, "two")), (3, 2));
    }

    #[test]
    fn what_has_just_been_taken_is_not_handed_over() {
        let daemons = [daemon("one", 60.0), daemon("two", 60.0)];
        let mut places = SHARDS.map(|shard| place(shard, Some("one"), 9.9)).to_vec();
        assert_eq!(settle(&daemons, &mut places), 0);
    }

    #[test]
    fn a_daemon_that_is_drained_or_cannot_run_a_shard_gives_it_away_where_another_can_have_it() {
        let mut daemons = vec![daemon("one", 60.0), daemon("two", 0.0)];
        let mut places = SHARDS.map(|shard| place(shard, Some("one"), 0.0)).to_vec();
        daemons[0].unable.push("c".into());
        settle(&daemons, &mut places);
        assert_eq!(places[2].owner.as_deref(), Some("two"));
        assert_eq!(held(&places, "two"), 1);
        daemons[0].drained = Some(crate::daemons::Drained { by: "me".into(), at: "now".into() });
        settle(&daemons, &mut places);
        assert_eq!(held(&places, "two"), 5);
        daemons.pop();
        settle(&daemons, &mut places);
        assert_eq!(held(&places, "one"), 5);
    }

    #[test]
    fn a_shard_goes_only_to_a_daemon_that_is_configured_for_it() {
        let mut daemons = [daemon("one", 60.0), daemon("two", 60.0)];
        daemons[1].shards = vec!["e".into()];
        let mut places = free();
        settle(&daemons, &mut places);
        assert_eq!(held(&places, "one"), 4);
        assert_eq!(places[4].owner.as_deref(), Some("two"));
    }
}
