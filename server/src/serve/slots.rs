//! Slots of connections: so many in all, and so many of one peer.
//!
//! A connection on which nobody has authenticated holds its slot only until others need it: when slots run short, the
//! oldest of these is closed for the newest, of the peer whose share is used up, or of all. So a stranger's connections
//! lock out nobody who shares its address, and those on which a call has authenticated stay.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use super::admission::{PeerKey, Throttle};

/// Connections that were told to close and have not yet, beyond the limits: one part of so many of the total.
const EVICTED_PART: u32 = 8;
/// The same, at most. Each is closed as soon as its task runs.
pub(crate) const EVICTED_MAX: u32 = 64;

/// How long a new connection waits for one of these to close, before it is refused.
const CLOSING_WAIT_MAX: Duration = Duration::from_secs(1);

/// All connections of a server.
#[derive(Clone, Debug)]
pub(super) struct ConnectionSlots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    /// Told whenever an evicted connection has closed.
    has_closed: Notify,
}

/// The slot of one connection, held until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    slots: ConnectionSlots,
    id: u64,
    peer: Option<PeerKey>,
    is_authenticated: AtomicBool,
    is_evicted: watch::Sender<bool>,
}

#[derive(Debug)]
struct Table {
    total_max: u32,
    per_peer_max: u32,
    /// Without those evicted.
    open: u32,
    evicted: u32,
    peers: HashMap<PeerKey, OfPeer>,
    /// By their age, the oldest first.
    unauthenticated: BTreeMap<u64, (Option<PeerKey>, watch::Sender<bool>)>,
    next: u64,
    refusals: [Throttle; 2],
    evictions: [Throttle; 2],
}

#[derive(Debug, Default)]
struct OfPeer {
    open: u32,
    unauthenticated: BTreeSet<u64>,
}

/// Why there is no slot.
#[derive(Clone, Copy)]
enum Full {
    /// Connections that stay take all.
    Taken(Limit),
    /// Room was made, but those that make it have not closed yet.
    Closing(Limit),
}

/// A limit that has no room for one more.
#[derive(Clone, Copy)]
enum Limit {
    Total,
    OfPeer(PeerKey),
}

impl ConnectionSlots {
    pub(super) fn new(total_max: u32, per_peer_max: u32) -> Self {
        let table = Mutex::new(Table {
            total_max,
            per_peer_max,
            open: 0,
            evicted: 0,
            peers: HashMap::new(),
            unauthenticated: BTreeMap::new(),
            next: 0,
            refusals: Default::default(),
            evictions: Default::default(),
        });
        Self(Arc::new(Shared { table, has_closed: Notify::new() }))
    }

    /// Returns a slot for a connection from `address`, for which an older one may have to close first. None if those on
    /// which somebody has authenticated take all. Unix sockets have no address and only the total limit.
    pub(super) async fn admit(&self, address: Option<IpAddr>) -> Option<Arc<ConnectionSlot>> {
        let peer = address.map(PeerKey::of);
        let began = Instant::now();
        loop {
            // From here on, so that no closing falls between the two.
            let has_closed = self.0.has_closed.notified();
            let full = match self.take(peer) {
                Ok(slot) => return Some(slot),
                Err(full) => full,
            };
            if let Full::Closing(_) = full
                && timeout_at(began + CLOSING_WAIT_MAX, has_closed).await.is_ok()
            {
                continue;
            }
            let (Full::Taken(limit) | Full::Closing(limit)) = full;
            self.table().log_refusal(limit, peer);
            return None;
        }
    }

    fn take(&self, peer: Option<PeerKey>) -> Result<Arc<ConnectionSlot>, Full> {
        let mut table = self.table();
        if let Some(limit) = table.is_full(peer) {
            table.evict(limit)?;
        }
        let id = table.next;
        table.next += 1;
        table.open += 1;
        if let Some(peer) = peer {
            let of_peer = table.peers.entry(peer).or_default();
            of_peer.open += 1;
            of_peer.unauthenticated.insert(id);
        }
        let is_evicted = watch::Sender::new(false);
        table.unauthenticated.insert(id, (peer, is_evicted.clone()));
        let is_authenticated = AtomicBool::new(false);
        Ok(Arc::new(ConnectionSlot { slots: self.clone(), id, peer, is_authenticated, is_evicted }))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// A call on the connection has authenticated: the slot is kept from here on.
    pub(super) fn authenticated(&self) {
        if !self.is_authenticated.swap(true, Ordering::Relaxed) {
            self.slots.table().forget_unauthenticated(self.id, self.peer);
        }
    }

    /// Waits until the connection has to close for another.
    pub(super) async fn evicted(&self) {
        // The sender is this slot's own, so it is not gone.
        let _ = self.is_evicted.subscribe().wait_for(|is_evicted| *is_evicted).await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut table = self.slots.table();
        if *self.is_evicted.borrow() {
            table.evicted -= 1;
            self.slots.0.has_closed.notify_waiters();
        } else {
            table.forget_unauthenticated(self.id, self.peer);
            table.close(self.peer);
        }
    }
}

impl Table {
    fn is_full(&self, peer: Option<PeerKey>) -> Option<Limit> {
        let of_peer = peer.and_then(|peer| Some((peer, self.peers.get(&peer)?.open)));
        match of_peer {
            Some((peer, open)) if open >= self.per_peer_max => Some(Limit::OfPeer(peer)),
            _ => (self.open >= self.total_max).then_some(Limit::Total),
        }
    }

    /// Tells the oldest connection without authentication to close, and counts it no more.
    fn evict(&mut self, limit: Limit) -> Result<(), Full> {
        let oldest = match limit {
            Limit::Total => self.unauthenticated.keys().next(),
            Limit::OfPeer(peer) => self.peers.get(&peer).and_then(|of_peer| of_peer.unauthenticated.first()),
        };
        let id = *oldest.ok_or(Full::Taken(limit))?;
        if self.evicted >= (self.total_max / EVICTED_PART).clamp(1, EVICTED_MAX) {
            return Err(Full::Closing(limit));
        }
        let (peer, is_evicted) = self.unauthenticated.get(&id).cloned().ok_or(Full::Taken(limit))?;
        self.forget_unauthenticated(id, peer);
        self.close(peer);
        self.evicted += 1;
        is_evicted.send_replace(true);
        self.log_eviction(limit, peer);
        Ok(())
    }

    fn forget_unauthenticated(&mut self, id: u64, peer: Option<PeerKey>) {
        self.unauthenticated.remove(&id);
        if let Some(of_peer) = peer.and_then(|peer| self.peers.get_mut(&peer)) {
            of_peer.unauthenticated.remove(&id);
        }
    }

    fn close(&mut self, peer: Option<PeerKey>) {
        self.open -= 1;
        if let Some(peer) = peer
            && let Entry::Occupied(mut of_peer) = self.peers.entry(peer)
        {
            of_peer.get_mut().open -= 1;
            if of_peer.get().open == 0 {
                of_peer.remove();
            }
        }
    }

    /// The name and the value of a limit.
    fn name(&self, limit: Limit) -> (&'static str, u32) {
        match limit {
            Limit::Total => ("limits.connections", self.total_max),
            Limit::OfPeer(_) => ("limits.connections_per_peer", self.per_peer_max),
        }
    }

    fn log_refusal(&mut self, limit: Limit, peer: Option<PeerKey>) {
        let (name, most) = self.name(limit);
        if let Some(refused) = self.refusals[limit.index()].count() {
            let peer = peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string());
            tracing::warn!(
                limit = name,
                most,
                peer,
                refused,
                open = self.open,
                "too many connections; new ones are refused"
            );
        }
    }

    fn log_eviction(&mut self, limit: Limit, peer: Option<PeerKey>) {
        let (name, most) = self.name(limit);
        if let Some(closed) = self.evictions[limit.index()].count() {
            let peer = peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string());
            tracing::warn!(
                limit = name,
                most,
                peer,
                closed,
                "too many connections; the oldest on which nobody has authenticated are closed for new ones"
            );
        }
    }
}

impl Limit {
    fn index(self) -> usize {
        match self {
            Limit::Total => 0,
            Limit::OfPeer(_) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    fn is_evicted(slot: &ConnectionSlot) -> bool {
        *slot.is_evicted.borrow()
    }

    async fn authenticated(slots: &ConnectionSlots, address: &str) -> Arc<ConnectionSlot> {
        let slot = slots.admit(ip(address)).await.expect("room");
        slot.authenticated();
        slot
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_without_authentication_gives_way_to_its_own_peer() {
        let slots = ConnectionSlots::new(100, 3);
        let other = slots.admit(ip("10.0.0.2")).await.expect("the oldest, of another peer");
        let kept = authenticated(&slots, "10.0.0.1").await;
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(slots.admit(ip("::ffff:10.0.0.1")).await.expect("room is made"));
        }
        let evicted: Vec<_> = held.iter().map(|slot| is_evicted(slot)).collect();
        assert_eq!(evicted, [true, true, false, false], "the oldest first");
        assert!(!is_evicted(&kept) && !is_evicted(&other));
        held[3].authenticated();
        assert!(!is_evicted(&slots.admit(ip("10.0.0.1")).await.expect("room is made")));
        assert!(is_evicted(&held[2]) && !is_evicted(&held[3]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_all_gives_way_when_the_total_is_reached() {
        let slots = ConnectionSlots::new(3, 3);
        let kept = authenticated(&slots, "10.0.0.1").await;
        let (old, young) = (slots.admit(ip("10.0.0.2")).await.expect("room"), slots.admit(None).await.expect("room"));
        let _new = slots.admit(ip("10.0.0.3")).await.expect("room is made");
        assert!(is_evicted(&old) && !is_evicted(&young) && !is_evicted(&kept));
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_authenticated_are_never_closed_and_are_limited() {
        let slots = ConnectionSlots::new(3, 2);
        let first = authenticated(&slots, "10.0.0.1").await;
        let _second = authenticated(&slots, "10.0.0.1").await;
        assert!(slots.admit(ip("10.0.0.1")).await.is_none(), "its share is used");
        let _other = authenticated(&slots, "10.0.0.2").await;
        assert!(slots.admit(ip("10.0.0.3")).await.is_none() && slots.admit(None).await.is_none(), "the total is used");
        drop(first);
        assert!(slots.admit(ip("10.0.0.1")).await.is_some(), "it has been given back");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_are_closing_are_few_and_are_waited_for() {
        let slots = ConnectionSlots::new(16, 16);
        let mut held = Vec::new();
        for _ in 0..18 {
            held.push(slots.admit(None).await.expect("room is made"));
        }
        let began = Instant::now();
        assert!(slots.admit(None).await.is_none(), "two are closing and never close");
        assert_eq!(began.elapsed(), CLOSING_WAIT_MAX);
        let later = async {
            sleep(CLOSING_WAIT_MAX / 2).await;
            held.drain(..1);
        };
        let (admitted, ()) = tokio::join!(slots.admit(None), later);
        assert!(admitted.is_some(), "one has closed");
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_network_is_one_peer_and_nothing_is_kept_of_peers_that_are_gone() {
        let slots = ConnectionSlots::new(10, 1);
        let held = authenticated(&slots, "2001:db8::1").await;
        assert!(slots.admit(ip("2001:db8::ffff")).await.is_none());
        let evicted = slots.admit(ip("2001:db8:0:1::1")).await.expect("another network");
        drop(slots.admit(ip("2001:db8:0:1::2")).await.expect("room is made"));
        drop((held, evicted));
        let table = slots.table();
        assert!(table.peers.is_empty() && table.unauthenticated.is_empty());
        assert_eq!((table.open, table.evicted), (0, 0));
    }

    #[tokio::test]
    async fn an_evicted_connection_hears_of_it() {
        let slots = ConnectionSlots::new(1, 1);
        let old = slots.admit(None).await.expect("room");
        let _new = slots.admit(None).await.expect("room is made");
        old.evicted().await;
    }
}
