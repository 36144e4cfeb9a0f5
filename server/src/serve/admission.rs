//! How many calls may be under way, in total and from one peer.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// What a peer can cause is logged at most this often; the line says how often it happened.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

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
    refusals: Throttle,
    refusals_of_peer: Throttle,
}

/// Who counts as one peer: an IPv4 address, or a /64 network of IPv6, which is what one host is usually given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PeerKey([u8; 8]);

/// A place, held until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    admission: Admission,
    peer: Option<PeerKey>,
}

/// Counts what happens too often to log each time.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    count: u64,
    logged: Option<Instant>,
}

impl Throttle {
    /// Counts once more. If it is time for a line, returns how often it has happened since the last one.
    pub(super) fn count(&mut self) -> Option<u64> {
        self.count += 1;
        let now = Instant::now();
        if self.logged.is_some_and(|logged| now.duration_since(logged) < LOG_INTERVAL) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.count))
    }
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
            refusals: Throttle::default(),
            refusals_of_peer: Throttle::default(),
        })))
    }

    /// A place for one from `peer`; unix sockets have no address and only the total limit.
    pub(super) fn admit(&self, peer: Option<IpAddr>) -> Option<Slot> {
        let peer = peer.map(PeerKey::of);
        let mut counts = self.counts();
        let of_peer = peer.and_then(|peer| counts.peers.get(&peer)).copied().unwrap_or(0);
        if counts.total >= counts.total_max || of_peer >= counts.per_peer_max {
            let is_of_peer = of_peer >= counts.per_peer_max;
            counts.refuse(peer.filter(|_| is_of_peer));
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
    /// `peer` is the one whose share is used up, if it is not the total.
    fn refuse(&mut self, peer: Option<PeerKey>) {
        let (what, open) = (self.what, self.total);
        match peer {
            Some(peer) => {
                if let Some(refused) = self.refusals_of_peer.count() {
                    let most = self.per_peer_max;
                    tracing::warn!(%peer, most, refused, open, "too many {what} of one peer; new ones are refused");
                }
            }
            None => {
                if let Some(refused) = self.refusals.count() {
                    tracing::warn!(most = self.total_max, refused, open, "too many {what}; new ones are refused");
                }
            }
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
    pub(super) fn of(address: IpAddr) -> Self {
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

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [0, 0, 0xff, 0xff, a, b, c, d] => Ipv4Addr::new(a, b, c, d).fmt(f),
            network => {
                let bits = u128::from(u64::from_be_bytes(network)) << 64;
                write!(f, "{}/64", Ipv6Addr::from_bits(bits))
            }
        }
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
        let admission = Admission::new("calls", 3, 2);
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
        let admission = Admission::new("calls", 10, 1);
        let held = admission.admit(ip("2001:db8::1"));
        assert!(admission.admit(ip("2001:db8::ffff")).is_none());
        assert!(admission.admit(ip("2001:db8:0:1::1")).is_some());
        drop(held);
        assert!(admission.counts().peers.is_empty(), "nothing is kept of peers that are gone");
    }

    #[test]
    fn a_peer_is_shown_as_it_counts() {
        for (address, shown) in
            [("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("2001:db8:0:1::7", "2001:db8:0:1::/64")]
        {
            assert_eq!(PeerKey::of(address.parse().expect("an address")).to_string(), shown);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_often_is_logged_once_with_its_count() {
        let mut throttle = Throttle::default();
        let counted: Vec<_> = (0..3).map(|_| throttle.count()).collect();
        assert_eq!(counted, [Some(1), None, None]);
        tokio::time::advance(LOG_INTERVAL).await;
        assert_eq!(throttle.count(), Some(3));
    }
}
