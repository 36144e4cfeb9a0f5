//! A store that fails on demand: a decorator for tests. Without a fault it changes nothing.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Condition, Conflict, Error, Follow, Load, Next, Position, Store, Transaction};

/// What becomes of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not happen: [`Error::Unavailable`].
    Unavailable,
    /// It does not happen: [`Error::Full`], unless it only deletes.
    Full,
    /// It does not happen, and the caller cannot know: [`Error::Unknown`].
    UnknownLost,
    /// It happens, and the caller cannot know: [`Error::Unknown`].
    UnknownLanded,
    /// It happens at [`Faulty::land`], long after the caller was told [`Error::Unknown`].
    UnknownLate,
    /// It happens later, by tokio's clock.
    Delay(Duration),
    /// It neither happens nor answers before [`Faults::release`].
    Hang,
}

/// A store with faults in front.
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

/// Says which faults there are. Clones say it of the same store.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    plan: Mutex<Plan>,
    /// How often hanging commits were released.
    released: watch::Sender<u64>,
    delivery: watch::Sender<Delivery>,
}

#[derive(Debug, Default)]
struct Plan {
    next: VecDeque<Fault>,
    /// The generator's state, and the faults in a thousand commits.
    seeded: Option<(u64, u64)>,
    late: VecDeque<Transaction>,
    reads: Option<Error>,
    failed_reads: usize,
    hung: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Delivery {
    held: bool,
    gaps: u64,
    panics: bool,
}

impl<S: Store> Faulty<S> {
    /// A store that works, and the handle that changes this.
    pub fn new(inner: S) -> (Self, Faults) {
        let shared =
            Shared { plan: Mutex::default(), released: watch::Sender::default(), delivery: watch::Sender::default() };
        let faults = Faults(Arc::new(shared));
        (Self { inner, faults: faults.clone() }, faults)
    }

    /// Lands the commits of [`Fault::UnknownLate`], in order, and tells what became of each.
    pub async fn land(&self) -> Vec<Result<Result<Position, Conflict>, Error>> {
        let late = std::mem::take(&mut self.faults.plan().late);
        let mut outcomes = Vec::new();
        for transaction in late {
            outcomes.push(self.inner.commit(transaction).await);
        }
        outcomes
    }
}

impl Faults {
    /// The next commit that has no fault yet meets this one.
    pub fn next(&self, fault: Fault) {
        self.plan().next.push_back(fault);
    }

    /// How many commits are still to meet a fault that was planned.
    pub fn planned(&self) -> usize {
        self.plan().next.len()
    }

    /// No commit meets a fault that was planned before.
    pub fn clear(&self) {
        self.plan().next.clear();
    }

    /// How many commits hung and were answered since.
    pub fn hung(&self) -> usize {
        self.plan().hung
    }

    /// From now on, so many in a thousand commits meet a fault that this seed chooses, other than a delay or a hang.
    pub fn seed(&self, seed: u64, per_mille: u64) {
        self.plan().seeded = Some((seed, per_mille));
    }

    /// Commits that hang go on.
    pub fn release(&self) {
        self.0.released.send_modify(|times| *times += 1);
    }

    /// Loads, new followers and `latest` answer with this error, or work again.
    pub fn fail_reads(&self, error: Option<Error>) {
        self.plan().reads = error;
    }

    /// How many loads, followers and `latest` were answered with an error.
    pub fn failed_reads(&self) -> usize {
        self.plan().failed_reads
    }

    /// Followers see nothing new until [`Faults::release_changes`].
    pub fn hold_changes(&self) {
        self.0.delivery.send_modify(|delivery| delivery.held = true);
    }

    /// Followers see what was held back.
    pub fn release_changes(&self) {
        self.0.delivery.send_modify(|delivery| delivery.held = false);
    }

    /// Every follower there is sees a gap next, and nothing after it.
    pub fn gap(&self) {
        self.0.delivery.send_modify(|delivery| delivery.gaps += 1);
    }

    /// Every follower panics next.
    pub fn panic(&self) {
        self.0.delivery.send_modify(|delivery| delivery.panics = true);
    }

    fn draw(&self) -> Option<Fault> {
        let mut plan = self.plan();
        if let Some(fault) = plan.next.pop_front() {
            return Some(fault);
        }
        let (state, per_mille) = plan.seeded.as_mut()?;
        let mut random = super::conformance::Random(*state);
        let (hit, which) = (random.below(1_000) < *per_mille, random.below(5));
        *state = random.0;
        const CHOICE: [Fault; 5] =
            [Fault::Unavailable, Fault::Full, Fault::UnknownLost, Fault::UnknownLanded, Fault::UnknownLate];
        hit.then(|| CHOICE[which as usize].clone())
    }

    fn read(&self) -> Result<(), Error> {
        let mut plan = self.plan();
        let Some(error) = plan.reads.clone() else { return Ok(()) };
        plan.failed_reads += 1;
        Err(error)
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<S: Store> Store for Faulty<S> {
    async fn load(&self) -> Result<Box<dyn Load>, Error> {
        self.faults.read()?;
        self.inner.load().await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Result<Position, Conflict>, Error> {
        // A mistake of the caller is found before anything can go wrong.
        transaction.check()?;
        let unknown = || Err(Error::Unknown("injected".into()));
        match self.faults.draw() {
            None => self.inner.commit(transaction).await,
            Some(Fault::Unavailable) => Err(Error::Unavailable("injected".into())),
            Some(Fault::Full) if transaction.only_deletes() => self.inner.commit(transaction).await,
            Some(Fault::Full) => Err(Error::Full("injected".into())),
            Some(Fault::UnknownLost) => unknown(),
            Some(Fault::UnknownLanded) => self.inner.commit(transaction).await.and_then(|_| unknown()),
            Some(Fault::UnknownLate) => {
                self.faults.plan().late.push_back(transaction);
                unknown()
            }
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                self.inner.commit(transaction).await
            }
            Some(Fault::Hang) => {
                // The sender lives in this store: there will be news or nothing.
                let _ = self.faults.0.released.subscribe().changed().await;
                let outcome = self.inner.commit(transaction).await;
                self.faults.plan().hung += 1;
                outcome
            }
        }
    }

    async fn changes(&self, after: Position) -> Result<Box<dyn Follow>, Error> {
        self.faults.read()?;
        let delivery = self.faults.0.delivery.subscribe();
        let gaps = delivery.borrow().gaps;
        let inner = self.inner.changes(after).await?;
        Ok(Box::new(Follower { inner, delivery, gaps, is_over: false, _faults: self.faults.clone() }))
    }

    async fn latest(&self) -> Result<Position, Error> {
        self.faults.read()?;
        self.inner.latest().await
    }

    async fn condition(&self) -> Condition {
        self.inner.condition().await
    }
}

struct Follower {
    inner: Box<dyn Follow>,
    delivery: watch::Receiver<Delivery>,
    gaps: u64,
    is_over: bool,
    /// Keeps the sender of `delivery` alive.
    _faults: Faults,
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self) -> Result<Next, Error> {
        loop {
            let delivery = *self.delivery.borrow_and_update();
            assert!(!delivery.panics, "injected");
            if self.is_over {
                std::future::pending::<()>().await;
            }
            if delivery.gaps != self.gaps {
                self.is_over = true;
                return Ok(Next::Gap);
            }
            tokio::select! {
                biased;
                _ = self.delivery.changed() => {}
                next = self.inner.next(), if !delivery.held => return next,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        conformance::{self, Backend, put, records, transaction},
        memory::Memory,
    };

    crate::store_conformance!(Transparent);

    /// A decorator without faults is the store itself.
    struct Transparent;

    #[async_trait]
    impl Backend for Transparent {
        async fn create(&self) -> [Arc<dyn Store>; 2] {
            let memory = Memory::with_history(conformance::HISTORY_COMMITS);
            [Arc::new(Faulty::new(memory.clone()).0), Arc::new(Faulty::new(memory).0)]
        }

        async fn reopen(&self, _: [Arc<dyn Store>; 2]) -> Option<[Arc<dyn Store>; 2]> {
            None
        }
    }

    async fn has(store: &dyn Store, key: &str) -> bool {
        records(store).await.1.iter().any(|record| record.key.as_str() == key)
    }

    #[tokio::test]
    async fn each_fault_does_what_it_says_once() {
        let (store, faults) = Faulty::new(Memory::new());
        let cases = [
            (Fault::Unavailable, Error::Unavailable("injected".into()), false),
            (Fault::Full, Error::Full("injected".into()), false),
            (Fault::UnknownLost, Error::Unknown("injected".into()), false),
            (Fault::UnknownLanded, Error::Unknown("injected".into()), true),
            (Fault::UnknownLate, Error::Unknown("injected".into()), false),
        ];
        for (at, (fault, error, landed)) in cases.into_iter().enumerate() {
            let key = format!("key-{at}");
            faults.next(fault.clone());
            assert_eq!(store.commit(transaction([put(&key, "value")])).await, Err(error), "{fault:?}");
            assert_eq!(has(&store, &key).await, landed, "{fault:?}");
            assert!(store.commit(transaction([put("other", "value")])).await.is_ok(), "{fault:?} lasts");
        }
        assert!(store.land().await[0].is_ok());
        assert!(has(&store, "key-4").await);
    }

    #[tokio::test]
    async fn deletes_pass_when_full() {
        let (store, faults) = Faulty::new(Memory::new());
        faults.next(Fault::Full);
        let delete = super::super::Change::Delete(super::super::Key::new("key"));
        assert!(store.commit(transaction([delete])).await.is_ok());
    }

    #[tokio::test]
    async fn a_hanging_commit_happens_when_released() {
        let (store, faults) = Faulty::new(Memory::new());
        faults.next(Fault::Hang);
        let mut commit = Box::pin(store.commit(transaction([put("key", "value")])));
        conformance::pending(&mut commit).await;
        assert!(!has(&store, "key").await);
        faults.release();
        assert!(commit.await.is_ok());
        assert!(has(&store, "key").await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_commit_happens_later() {
        let (store, faults) = Faulty::new(Memory::new());
        faults.next(Fault::Delay(Duration::from_secs(3)));
        let begun = tokio::time::Instant::now();
        assert!(store.commit(transaction([put("key", "value")])).await.is_ok());
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test]
    async fn held_changes_arrive_when_released_and_gaps_are_seen() {
        let (store, faults) = Faulty::new(Memory::new());
        let mut follower = store.changes(store.latest().await.expect("latest")).await.expect("follower");
        faults.hold_changes();
        let position = store.commit(transaction([put("key", "value")])).await.expect("commit").expect("no conflict");
        conformance::pending(&mut follower.next()).await;
        faults.release_changes();
        assert!(matches!(follower.next().await, Ok(Next::Commit(commit)) if commit.position == position));
        faults.gap();
        assert_eq!(follower.next().await, Ok(Next::Gap));
        conformance::pending(&mut follower.next()).await;
    }

    #[tokio::test]
    async fn reads_fail_until_they_are_mended() {
        let (store, faults) = Faulty::new(Memory::new());
        let error = Error::Unavailable("down".into());
        faults.fail_reads(Some(error.clone()));
        assert_eq!(store.latest().await, Err(error.clone()));
        assert_eq!(store.load().await.err(), Some(error.clone()));
        assert_eq!(store.changes(Position::default()).await.err(), Some(error));
        faults.fail_reads(None);
        assert!(store.latest().await.is_ok());
    }

    #[tokio::test]
    async fn a_seed_chooses_the_same_faults_again() {
        let outcomes = |seed| async move {
            let (store, faults) = Faulty::new(Memory::new());
            faults.seed(seed, 300);
            let mut outcomes = Vec::new();
            for _ in 0..50 {
                outcomes.push(store.commit(transaction([put("key", "value")])).await);
            }
            outcomes
        };
        assert_eq!(outcomes(7).await, outcomes(7).await);
        assert_ne!(outcomes(7).await, outcomes(8).await);
    }
}
