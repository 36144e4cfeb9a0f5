//! Room for what redaction streams look for and hold: so much in all, and of that a part for each tenant, so that nobody
//! takes the room of all others. What two streams look for alike is there once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use coffer_proto::{limits, redaction::Matcher};
use tokio::sync::{OnceCell, Semaphore};
use tonic::Status;

use super::{status, turns::Lanes};
use crate::vault::{Error, Redaction, Sought};

/// What a KiB of values takes at most while it is looked for, in KiB.
const COST: u64 = 200;
/// So much of the memory ceiling is room; the ceiling itself is about half the machine's memory.
const MEMORY_PERCENT: u64 = 25;
/// The least room, in KiB of values, however small the ceiling.
const KIB_MIN: usize = 2 * 1024;
/// One tenant has one part of so many.
const PARTS: usize = 8;
/// But one environment always fits its tenant's part, with a stream: twice 512 KiB, its own and what it inherits.
const PART_KIB_MIN: usize = 1024 + limits::REDACT_STREAM_KIB_MIN;

/// The room of one server.
#[derive(Debug)]
pub(super) struct Room {
    kib: usize,
    part_kib: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    kib: usize,
    tenants: HashMap<String, usize>,
}

/// Room of a tenant; free again when dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<Room>,
    tenant: String,
    kib: usize,
}

impl Room {
    /// As a memory ceiling allows.
    pub(super) fn new(memory_bytes: u64) -> Arc<Self> {
        let kib = usize::try_from(memory_bytes / 1024 / 100 * MEMORY_PERCENT / COST).unwrap_or(usize::MAX);
        let kib = kib.clamp(KIB_MIN, limits::REDACT_STREAMS_KIB);
        Arc::new(Self { kib, part_kib: (kib / PARTS).max(PART_KIB_MIN), taken: Mutex::default() })
    }

    /// Holds so much for a tenant, or says that there is none.
    pub(super) fn hold(self: &Arc<Self>, tenant: &str, kib: usize) -> Result<Held, Status> {
        let mut taken = self.taken();
        let of_tenant = taken.tenants.get(tenant).copied().unwrap_or(0);
        if kib > self.kib - taken.kib {
            return Err(status::of(Error::Overloaded("so many redaction streams")));
        }
        if kib > self.part_kib.saturating_sub(of_tenant) {
            return Err(status::of(Error::Overloaded("so many redaction streams of one tenant")));
        }
        taken.kib += kib;
        taken.tenants.insert(tenant.to_owned(), of_tenant + kib);
        Ok(Held { room: Arc::clone(self), tenant: tenant.to_owned(), kib })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.kib -= self.kib;
        if let Some(of_tenant) = taken.tenants.get_mut(&self.tenant) {
            *of_tenant -= self.kib;
            if *of_tenant == 0 {
                taken.tenants.remove(&self.tenant);
            }
        }
    }
}

/// What streams look for, each once.
pub(super) struct Matchers {
    pub(super) room: Arc<Room>,
    shared: Mutex<HashMap<Sought, Weak<Shared>>>,
    lanes: Lanes,
}

/// What finds the values of one environment, for all streams that look for these; the room it takes is theirs together.
pub(super) struct Shared {
    built: OnceCell<Arc<Matcher>>,
    _held: Held,
}

impl Matchers {
    pub(super) fn new(memory_bytes: u64) -> Self {
        let lanes = Lanes::new(limits::TENANT_REDACTIONS);
        Self { room: Room::new(memory_bytes), shared: Mutex::default(), lanes }
    }

    /// The lane of those of a tenant's redactions that are worked on.
    pub(super) fn lane(&self, tenant: &str) -> Arc<Semaphore> {
        self.lanes.of(tenant.to_owned())
    }

    /// For these values; whoever is first takes the room.
    pub(super) fn share(&self, redaction: &Redaction) -> Result<Arc<Shared>, Status> {
        let kib = usize::try_from(redaction.value_bytes().div_ceil(1024)).unwrap_or(usize::MAX);
        self.share_for(redaction.sought(), redaction.tenant(), kib)
    }

    fn share_for(&self, sought: Sought, tenant: &str, kib: usize) -> Result<Arc<Shared>, Status> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = shared.get(&sought).and_then(Weak::upgrade) {
            return Ok(found);
        }
        shared.retain(|_, weak| weak.strong_count() > 0);
        let made = Arc::new(Shared { built: OnceCell::new(), _held: self.room.hold(tenant, kib.max(1))? });
        shared.insert(sought, Arc::downgrade(&made));
        Ok(made)
    }
}

impl Shared {
    /// What finds the values; the others wait for who builds it.
    pub(super) async fn matcher(
        &self,
        build: impl Future<Output = Result<Matcher, Status>>,
    ) -> Result<Arc<Matcher>, Status> {
        self.built.get_or_try_init(|| async { build.await.map(Arc::new) }).await.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn room_follows_the_memory_ceiling_within_limits() {
        for (memory, kib) in [(0, KIB_MIN), (2 * GIB, 2_621), (64 * GIB, limits::REDACT_STREAMS_KIB)] {
            assert_eq!(Room::new(memory).kib, kib, "{memory}");
        }
    }

    #[test]
    fn a_tenant_has_an_eighth_and_frees_what_it_held() {
        let room = Room::new(64 * GIB);
        let part = limits::REDACT_STREAMS_KIB / PARTS;
        let held = room.hold("projects/a", part).expect("room");
        assert!(room.hold("projects/a", 1).is_err());
        let others: Vec<_> = (1..PARTS).map(|n| room.hold(&n.to_string(), part).expect("room")).collect();
        assert!(room.hold("projects/last", 1).is_err(), "all of it is taken");
        drop(held);
        assert!(room.hold("projects/last", part).is_ok());
        drop(others);
        assert!(room.taken().kib == 0 && room.taken().tenants.is_empty());
    }

    #[tokio::test]
    async fn what_is_looked_for_alike_is_there_once() {
        let matchers = Matchers::new(GIB);
        let share = |sought| matchers.share_for(Sought::of_test(sought), "projects/a", 1024);
        let first = share(1).expect("room");
        let second = share(1).expect("the same room");
        assert!(Arc::ptr_eq(&first, &second) && share(2).is_err(), "of others there is none left for this tenant");
        let built = first.matcher(async { Ok(Matcher::new([])) }).await.expect("built");
        let again = second.matcher(async { Err(Status::internal("built twice")) }).await.expect("built");
        assert!(Arc::ptr_eq(&built, &again));
        drop((first, second));
        assert!(share(2).is_ok(), "room is free with the last");
        assert_eq!(matchers.shared.lock().expect("no panic before").len(), 1);
    }
}
