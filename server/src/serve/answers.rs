//! Room for answers that their peers have not taken: how many bytes of them lie in memory.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// How many bytes of answers there may be before the next one has to wait.
#[derive(Debug)]
pub struct AnswerCeiling {
    bytes_max: u64,
    bytes: Mutex<u64>,
    freed: Notify,
}

/// The room that one answer takes below a few ceilings. It is held before the answer is made, because nothing can be taken back then;
/// once the answer is there it is what the answer has, also if that is more. Free again when dropped.
#[derive(Debug)]
pub struct AnswerRoom {
    ceilings: Vec<Arc<AnswerCeiling>>,
    bytes: AtomicU64,
}

impl AnswerCeiling {
    /// For so many bytes.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max, bytes: Mutex::default(), freed: Notify::new() })
    }

    async fn take(&self, bytes: u64) {
        loop {
            let freed = self.freed.notified();
            if self.try_take(bytes) {
                return;
            }
            freed.await;
        }
    }

    fn try_take(&self, bytes: u64) -> bool {
        let mut taken = self.bytes();
        let fits = *taken + bytes <= self.bytes_max;
        if fits {
            *taken += bytes;
        }
        fits
    }

    fn change(&self, before: u64, now: u64) {
        let mut taken = self.bytes();
        *taken = *taken + now - before;
        if now < before {
            self.freed.notify_waiters();
        }
    }

    fn bytes(&self) -> MutexGuard<'_, u64> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AnswerRoom {
    /// Waits for so many bytes below each of the ceilings, one after the other.
    pub async fn take(ceilings: &[&Arc<AnswerCeiling>], bytes: u64) -> Self {
        let mut room = Self { ceilings: Vec::with_capacity(ceilings.len()), bytes: AtomicU64::new(bytes) };
        for ceiling in ceilings {
            ceiling.take(bytes).await;
            room.ceilings.push(Arc::clone(ceiling));
        }
        room
    }

    /// The answer has so many bytes.
    pub(super) fn is(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        self.ceilings.iter().for_each(|ceiling| ceiling.change(before, bytes));
    }
}

impl Drop for AnswerRoom {
    fn drop(&mut self) {
        self.is(0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn room_is_what_the_answer_has_and_free_when_it_is_gone() {
        let (own, all) = (AnswerCeiling::new(10), AnswerCeiling::new(100));
        let room = AnswerRoom::take(&[&own, &all], 8).await;
        assert_eq!((*own.bytes(), *all.bytes()), (8, 8));
        assert!(timeout(Duration::ZERO, AnswerRoom::take(&[&own, &all], 3)).await.is_err(), "no room");
        room.is(7);
        let other = AnswerRoom::take(&[&own, &all], 3).await;
        room.is(50);
        assert_eq!((*own.bytes(), *all.bytes()), (53, 53), "it is there");
        let both = [&own, &all];
        let mut waits = Box::pin(AnswerRoom::take(&both, 10));
        assert!(timeout(Duration::ZERO, &mut waits).await.is_err());
        drop((room, other));
        drop(timeout(Duration::from_secs(20), waits).await.expect("woken"));
        assert_eq!((*own.bytes(), *all.bytes()), (0, 0));
    }

    #[tokio::test]
    async fn who_gives_up_waiting_holds_nothing() {
        let (own, all) = (AnswerCeiling::new(10), AnswerCeiling::new(1));
        assert!(timeout(Duration::ZERO, AnswerRoom::take(&[&own, &all], 5)).await.is_err());
        assert_eq!((*own.bytes(), *all.bytes()), (0, 0));
    }
}
