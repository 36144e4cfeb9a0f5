//! How many of something may be, in total and from one peer: connections, calls.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Refusals are logged at most this often; the line says how many there were.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Counts one kind of thing.
#[derive(Clone, Debug)]
pub(super) struct Admission(Arc<Mutex<Counts>>);

#[derive(Debug)]
struct Counts {
    what: &'static str,
    total_max: u32,
    per_peer_max: u32,
    total: u32,
    peers: HashMap<PeerKey, u32>,
    refused: u64,
    refusals_logged: Option<Instant>,
}

/// Who counts as one peer: an IPv4 address, or a /64 network of IPv6, which is what one host is usually given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PeerKey([u8; 8]);

/// A place, held until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    admission: Admission,
    peer: Option<PeerKey>,
}

impl Admission {
    /// `what` is counted, in the plural.
    pub(super) fn new(what: &'static str, total_max: u32, per_peer_max: u32) -> Self {
        Self(Arc::new(Mutex::new(Counts {
            what,
            total_max,
            per_peer_max,
            total: 0,
            peers: HashMap::new(),
            refused: 0,
            refusals_logged: None,
        })))
    }

    /// A place for one from `peer`; unix sockets have no address and only the total limit.
    pub(super) fn admit(&self, peer: Option<IpAddr>) -> Option<Slot> {
        let peer = peer.map(PeerKey::of);
        let mut counts = self.counts();
        let of_peer = peer.and_then(|peer| counts.peers.get(&peer)).copied().unwrap_or(0);
        if counts.total >= counts.total_max || of_peer >= counts.per_peer_max {
            counts.refuse();
            return None;
        }
        counts.total += 1;
        if let Some(peer) = peer {
            *counts.peers.entry(peer).or_insert(0) += 1;
        }
        Some(Slot { admission: self.clone(), peer })
    }

    /// How many there are.
    pub(super) fn total(&self) -> u32 {
        self.counts().total
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn refuse(&mut self) {
        self.refused += 1;
        let now = Instant::now();
        if self.refusals_logged.is_none_or(|logged| now.duration_since(logged) >= REFUSAL_LOG_INTERVAL) {
            tracing::warn!(refused = self.refused, open = self.total, "too many {}; new ones are refused", self.what);
            self.refusals_logged = Some(now);
            self.refused = 0;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.total -= 1;
        if let Some(peer) = self.peer
            && let Entry::Occupied(mut count) = counts.peers.entry(peer)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl PeerKey {
    fn of(address: IpAddr) -> Self {
        let octets = match address.to_canonical() {
            // As IPv4-mapped IPv6 has it, so that no IPv6 network is the same key.
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                [0, 0, 0xff, 0xff, a, b, c, d]
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                [a, b, c, d, e, f, g, h]
            }
        };
        Self(octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_peer_has_its_share_and_gets_it_back() {
        let admission = Admission::new("connections", 3, 2);
        let first = admission.admit(ip("10.0.0.1")).expect("room");
        let _second = admission.admit(ip("::ffff:10.0.0.1")).expect("room");
        assert!(admission.admit(ip("10.0.0.1")).is_none(), "its share is used");
        let _other = admission.admit(ip("10.0.0.2")).expect("another peer");
        assert!(admission.admit(ip("10.0.0.3")).is_none(), "the total is used");
        assert!(admission.admit(None).is_none(), "by unix sockets too");
        drop(first);
        assert!(admission.admit(ip("10.0.0.1")).is_some());
    }

    #[test]
    fn an_ipv6_network_is_one_peer() {
        let admission = Admission::new("connections", 10, 1);
        let held = admission.admit(ip("2001:db8::1"));
        assert!(admission.admit(ip("2001:db8::ffff")).is_none());
        assert!(admission.admit(ip("2001:db8:0:1::1")).is_some());
        drop(held);
        assert!(admission.counts().peers.is_empty(), "nothing is kept of peers that are gone");
    }
}
