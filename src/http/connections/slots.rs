//! Who has a connection, and whose is closed if there is no room.
//!
//! Guarantees: a peer holds no more than its share, and some slots are reserved for this machine. If there
//! is no room, the connection that has waited longest for the head of a request is closed; one whose request
//! is being answered never is. So clients that open connections and send nothing keep nobody out who sends a
//! request at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Limits;

/// Whoever may be one client: an address, of IPv6 the network that a client gets as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Peer(IpAddr);

impl Peer {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(six) if !six.is_loopback() => {
                let [a, b, c, d, ..] = six.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            other => other,
        })
    }

    /// Whether it is this machine itself, as a probe is that `jetcopy healthcheck` makes.
    fn is_here(self) -> bool {
        self.0.is_loopback()
    }
}

#[derive(Debug)]
struct Held {
    peer: Peer,
    /// Since when the head of a request is waited for; `None` while one is answered.
    waits_since: Option<Instant>,
    gives_way: Arc<Notify>,
}

/// The slots that are taken, by the order in which they were.
#[derive(Debug, Default)]
struct Table {
    next: u64,
    held: BTreeMap<u64, Held>,
}

impl Table {
    /// Lets the one go that has waited longest among those; whether there was one.
    fn give_way(&mut self, among: impl Fn(Peer) -> bool) -> bool {
        let waiting = self.held.iter().filter(|(_, held)| among(held.peer));
        let oldest = waiting
            .filter_map(|(&id, held)| held.waits_since.map(|since| (since, id)))
            .min()
            .and_then(|(_, id)| self.held.remove(&id));
        oldest.is_some_and(|held| {
            held.gives_way.notify_one();
            true
        })
    }

    fn count(&self, which: impl Fn(Peer) -> bool) -> usize {
        self.held.values().filter(|held| which(held.peer)).count()
    }
}

/// All slots.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots(Arc<Mutex<Table>>);

impl Slots {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing that holds it can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for a connection from this address; `None` where there is no room, and all who could make some
    /// are being answered.
    pub(super) fn take(&self, address: IpAddr, limits: &Limits) -> Option<Slot> {
        let peer = Peer::of(address);
        let mut table = self.table();
        let outside = |peer: Peer| !peer.is_here();
        let has_room = if table.count(|held| held == peer) >= limits.of_peer {
            table.give_way(|held| held == peer)
        } else if outside(peer) && table.count(outside) >= limits.connections - limits.kept_for_loopback {
            table.give_way(outside)
        } else if table.held.len() >= limits.connections {
            table.give_way(outside) || table.give_way(|_| true)
        } else {
            true
        };
        if !has_room {
            return None;
        }
        let (id, gives_way) = (table.next, Arc::new(Notify::new()));
        table.next += 1;
        let held = Held { peer, waits_since: Some(Instant::now()), gives_way: Arc::clone(&gives_way) };
        table.held.insert(id, held);
        Some(Slot { id, gives_way, slots: self.clone() })
    }
}

/// The slot of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    id: u64,
    gives_way: Arc<Notify>,
    slots: Slots,
}

impl Slot {
    /// The head of a request is there, and is being answered; or the answer is made, and the next head is
    /// waited for.
    pub(super) fn is_answering(&self, answering: bool) {
        if let Some(held) = self.slots.table().held.get_mut(&self.id) {
            held.waits_since = (!answering).then(Instant::now);
        }
    }

    /// Resolves when another connection needs the slot.
    pub(super) async fn given_up(&self) {
        self.gives_way.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.table().held.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { connections: 6, of_peer: 3, kept_for_loopback: 2, ..Limits::DEFAULT };

    fn take(slots: &Slots, address: &str) -> Option<Slot> {
        slots.take(address.parse().unwrap(), &LIMITS)
    }

    fn is_there(slots: &Slots, slot: &Slot) -> bool {
        slots.table().held.contains_key(&slot.id)
    }

    #[test]
    fn a_peer_beyond_its_share_loses_the_head_that_it_has_not_sent_for_longest_and_others_lose_none() {
        let slots = Slots::default();
        let other = take(&slots, "192.0.2.9").unwrap();
        let [first, second, third] = [1, 2, 3].map(|_| take(&slots, "192.0.2.1").unwrap());
        first.is_answering(true);
        let _fourth = take(&slots, "::ffff:192.0.2.1").unwrap();
        assert!(!is_there(&slots, &second), "the oldest that waits for a head");
        assert!([&other, &first, &third].iter().all(|slot| is_there(&slots, slot)));
    }

    #[test]
    fn some_slots_are_for_this_machine_whoever_else_is_there() {
        let slots = Slots::default();
        let outside: Vec<_> = (1..=4).map(|n| take(&slots, &format!("2001:db8:0:{n}::1")).unwrap()).collect();
        for slot in &outside {
            slot.is_answering(true);
        }
        assert!(take(&slots, "2001:db8:0:5::1").is_none(), "nobody gives way");
        let (here, six) = (take(&slots, "127.0.0.1"), take(&slots, "::1"));
        assert!(here.is_some() && six.is_some());
        outside[2].is_answering(false);
        assert!(take(&slots, "127.0.0.2").is_some(), "one from outside gives way to this machine");
        assert!(!is_there(&slots, &outside[2]));
    }

    #[test]
    fn a_network_of_version_6_is_one_peer() {
        assert_eq!(Peer::of("2001:db8::1".parse().unwrap()), Peer::of("2001:db8::2".parse().unwrap()));
        assert_ne!(Peer::of("2001:db8::1".parse().unwrap()), Peer::of("2001:db8:0:1::1".parse().unwrap()));
    }
}
