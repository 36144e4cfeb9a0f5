//! Whether the peer has taken what a stream sent it, so that no more than one message of a stream is ever under way.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::activity::OpenCall;

/// What the peer has not taken yet of one stream. In the extensions of every request whose answer is a stream of coffer's
/// own; whoever sends tells it, and waits for it before sending again.
#[derive(Clone, Debug)]
pub struct Taken(Arc<Inner>);

/// The peer left a message of a stream untaken for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderTooSlow;

#[derive(Debug)]
struct Inner {
    under_way: Mutex<UnderWay>,
    is_taken: Notify,
    patience: Duration,
    call: Option<Weak<OpenCall>>,
}

#[derive(Debug, Default)]
struct UnderWay {
    /// A message was handed over whose bytes are not seen yet.
    is_announced: bool,
    /// Parts of the answer that are not with the operating system.
    parts: usize,
}

/// One part of an answer, until it is dropped.
#[derive(Debug)]
pub(super) struct Untaken(Taken);

impl Taken {
    /// Of an answer to this call, whose messages may each be under way for so long.
    pub(super) fn new(patience: Duration, call: Option<&Arc<OpenCall>>) -> Self {
        Self(Arc::new(Inner {
            under_way: Mutex::default(),
            is_taken: Notify::new(),
            patience,
            call: call.map(Arc::downgrade),
        }))
    }

    /// Of an answer that nobody sends.
    #[cfg(test)]
    pub(crate) fn alone(patience: Duration) -> Self {
        Self::new(patience, None)
    }

    /// A message is given away to be sent.
    pub fn announce(&self) {
        self.under_way().is_announced = true;
    }

    /// Waits until the peer has taken everything, for as long as it may take.
    pub async fn all(&self) -> Result<(), ReaderTooSlow> {
        let all = async {
            loop {
                let taken = self.0.is_taken.notified();
                if self.under_way().is_nothing() {
                    return;
                }
                taken.await;
            }
        };
        timeout(self.0.patience, all).await.map_err(|_| ReaderTooSlow)
    }

    /// The stream ends: what is left of it must be taken in time, as a single answer must.
    pub fn ends(&self) {
        if let Some(call) = self.0.call.as_ref().and_then(Weak::upgrade) {
            call.answers();
        }
    }

    pub(super) fn part(&self) -> Untaken {
        let mut under_way = self.under_way();
        under_way.is_announced = false;
        under_way.parts += 1;
        Untaken(self.clone())
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    fn is_nothing(&self) -> bool {
        !self.is_announced && self.parts == 0
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        let mut under_way = self.0.under_way();
        under_way.parts -= 1;
        if under_way.is_nothing() {
            self.0.0.is_taken.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_message_is_taken_when_its_last_part_is_and_not_before_it_has_one() {
        let taken = Taken::new(30 * SECOND, None);
        taken.all().await.expect("nothing was sent");
        taken.announce();
        let began = Instant::now();
        let peer = async {
            tokio::time::sleep(10 * SECOND).await;
            let parts = [taken.part(), taken.part()];
            for part in parts {
                tokio::time::sleep(5 * SECOND).await;
                drop(part);
            }
        };
        let (all, ()) = tokio::join!(taken.all(), peer);
        assert_eq!((all, began.elapsed()), (Ok(()), 20 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let taken = Taken::new(30 * SECOND, None);
        let began = Instant::now();
        let _part = taken.part();
        assert_eq!((taken.all().await, began.elapsed()), (Err(ReaderTooSlow), 30 * SECOND));
    }
}
