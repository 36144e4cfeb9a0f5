//! A store that others write to and that may be out of reach.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use coffer_proto::{
    name::Permission,
    reason::Reason,
    token::{Token, TokenKind},
};
use tokio::{sync::Semaphore, time::timeout};

use super::world::{World, new, scope, secret, workload};
use crate::{
    clock::Clock as _,
    store::{
        Condition, Conflict, Error as StoreError, Follow, Load, Position, Store, Transaction,
        faulty::{Fault, Faulty},
        memory::Memory,
    },
    vault::{Call, Error, Fetched, Purpose, Serves, Sharing, Vault, write::line_of},
};

const MAX_STALE: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(30);
const AWAY: &str = "away";

fn fetch_call(world: &World) -> Call {
    let tokens = world.tokens.lock().expect("no panic before");
    let header = format!("Bearer {}", tokens["services/injector"].expose());
    Call::new("coffer.v1.Workloads/FetchEnvironment", None, Some(header.as_bytes())).expect("randomness")
}

async fn fetch(world: &World, vault: &Vault) -> (Call, Result<Fetched, Error>) {
    let call = fetch_call(world);
    let workload = Some(workload("projects/p/servers/s"));
    let fetched = vault.fetch_environment(&call, workload, "", Purpose::Start).await;
    (call, fetched)
}

/// A project with a secret, somebody who may fetch it, and somebody who may manage it.
async fn furnish(world: &World, vault: &Vault) {
    world.grant(vault, "users/owner", Permission::SecretsManage, "projects/p").await;
    world.grant(vault, "services/injector", Permission::SecretsInject, "projects/p").await;
    let call = world.call(vault, "users/owner").await;
    vault.create_secret(&call, scope("projects/p"), Ok(new("A", "v"))).await.map(drop).expect("created");
    world.call(vault, "services/injector").await;
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "gave up waiting for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_store_a_replica_serves_workloads_for_a_while_and_nobody_else() {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let vault = world.replica(MAX_STALE).await;
    furnish(&world, &vault).await;
    let health = vault.watch_health();
    assert_eq!(*health.borrow(), Serves::Everything);
    let (call, fetched) = fetch(&world, &vault).await;
    assert_eq!((fetched.expect("fetched").variables.len(), call.stale_since()), (1, None));

    let before = world.clock.now();
    faults.fail_reads(Some(StoreError::Unavailable(AWAY.into())));
    let (call, fetched) = fetch(&world, &vault).await;
    assert_eq!(fetched.expect("from the view").variables.len(), 1);
    let since = call.stale_since().expect("marked");
    assert!(since <= world.clock.now() && since + PATIENCE > before, "{since:?}");
    let told = world.audit.lines.lock().expect("no panic before").last().expect("a line").details.clone();
    assert!(told.iter().any(|(name, _)| *name == "stale_since"), "the audit log says so: {told:?}");

    let header = format!("Bearer {}", Token::generate(TokenKind::Service).expose());
    let unseen = Call::new("coffer.v1.Workloads/FetchEnvironment", None, Some(header.as_bytes())).expect("randomness");
    let fetched = vault.fetch_environment(&unseen, Some(workload("projects/p/servers/s")), "", Purpose::Start).await;
    assert_eq!(fetched.map(drop).map_err(|error| error.reason()), Err(Reason::StoreUnavailable), "issued since, maybe");

    let owner = world.held("users/owner");
    let read = vault.get_secret(&owner, secret("projects/p/secrets/A")).await.map(drop);
    assert_eq!(read, Err(Error::StoreUnavailable(AWAY.into())));
    let write = vault.create_secret(&owner, scope("projects/p"), Ok(new("B", "v"))).await.map(drop);
    assert_eq!(write, Err(Error::StoreUnavailable(AWAY.into())));
    until("health to say so", || *health.borrow() == Serves::Workloads).await;

    *world.clock.moved.lock().expect("no panic before") += MAX_STALE + Duration::from_secs(1);
    assert_eq!(fetch(&world, &vault).await.1.map(drop), Err(Error::StoreUnavailable(AWAY.into())));
    until("health to say so", || *health.borrow() == Serves::Nothing).await;

    faults.fail_reads(None);
    until("it to be back", || *health.borrow() == Serves::Everything).await;
    let (call, fetched) = fetch(&world, &vault).await;
    assert_eq!((fetched.expect("fetched").variables.len(), call.stale_since()), (1, None));
    vault
        .create_secret(&world.held("users/owner"), scope("projects/p"), Ok(new("B", "v")))
        .await
        .map(drop)
        .expect("again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_nothing_stale_is_told_when_it_would_be_of_and_nothing_comes_of_the_call() {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let vault = world.replica(MAX_STALE).await;
    furnish(&world, &vault).await;
    let ask = async || {
        let call = fetch_call(&world).refusing_stale();
        let fetched = vault.fetch_environment(&call, Some(workload("projects/p/servers/s")), "", Purpose::Start).await;
        (call.stale_since(), fetched.map(|fetched| fetched.variables.len()))
    };
    // On a busy machine the store may seem away for a moment.
    let begun = Instant::now();
    let mut first = ask().await;
    while first.1.is_err() && begun.elapsed() < PATIENCE {
        first = ask().await;
    }
    assert_eq!(first, (None, Ok(1)), "of now");
    faults.fail_reads(Some(StoreError::Unavailable(AWAY.into())));
    let lines = || world.audit.lines.lock().expect("no panic before").len();
    let before = lines();
    let (since, refused) = ask().await;
    assert_eq!((since.is_some(), refused), (true, Err(Error::StoreUnavailable(AWAY.into()))));
    assert_eq!(lines(), before, "nothing was handed out");
    *world.clock.moved.lock().expect("no panic before") += MAX_STALE + Duration::from_secs(1);
    assert_eq!(ask().await, (None, Err(Error::StoreUnavailable(AWAY.into()))), "nobody would be answered");
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_server_that_is_cut_off_ends_so_that_it_goes_on_elsewhere() {
    const LONG: Duration = Duration::from_secs(120);
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let vault = world.replica(MAX_STALE).await;
    furnish(&world, &vault).await;
    let revision = fetch(&world, &vault).await.1.expect("fetched").revision;
    let watch = async || {
        let workload = Some(workload("projects/p/servers/s"));
        vault.watch_environment(&fetch_call(&world), workload, revision.clone()).await.expect("a watch")
    };
    let mut first = watch().await;
    assert!(timeout(LONG, first.next()).await.is_err(), "there is nothing to tell");
    faults.fail_reads(Some(StoreError::Unavailable(AWAY.into())));
    assert!(timeout(LONG, first.next()).await.is_err(), "by the clock it has just begun");
    *world.clock.moved.lock().expect("no panic before") += Duration::from_secs(10);
    let end = Err(Error::StoreUnavailable(AWAY.into()));
    assert_eq!(timeout(LONG, first.next()).await.expect("it ends").map(drop), end);

    // Whoever finds no better server watches here for a while before they look around again.
    let mut second = watch().await;
    let began = tokio::time::Instant::now();
    assert_eq!(timeout(LONG, second.next()).await.expect("it ends").map(drop), end);
    assert!(began.elapsed() > Duration::from_secs(30), "after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_makes_nothing_older() {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let vault = world.replica(MAX_STALE).await;
    furnish(&world, &vault).await;
    let before = world.clock.now();
    faults.fail_reads(Some(StoreError::Unavailable(AWAY.into())));
    *world.clock.set.lock().expect("no panic before") += 2 * MAX_STALE;
    let (call, fetched) = fetch(&world, &vault).await;
    assert_eq!(fetched.expect("from the view").variables.len(), 1);
    let since = call.stale_since().expect("marked");
    assert!(since < before + MAX_STALE, "by the clock of then: {since:?}");
    *world.clock.moved.lock().expect("no panic before") += MAX_STALE + Duration::from_secs(1);
    assert_eq!(fetch(&world, &vault).await.1.map(drop), Err(Error::StoreUnavailable(AWAY.into())), "time passed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_time_nothing_stale_is_answered() {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let vault = world.replica(Duration::ZERO).await;
    furnish(&world, &vault).await;
    faults.fail_reads(Some(StoreError::Unavailable(AWAY.into())));
    assert_eq!(fetch(&world, &vault).await.1.map(drop), Err(Error::StoreUnavailable(AWAY.into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_in_line_hears_at_once_that_the_store_is_out_of_reach() {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let vault = world.replica(MAX_STALE).await;
    furnish(&world, &vault).await;
    let owner = world.held("users/owner");
    let write = |id: &str| {
        let (vault, call, new) = (vault.clone(), owner.clone(), new(id, "v"));
        tokio::spawn(async move { vault.create_secret(&call, scope("projects/p"), Ok(new)).await.map(drop) })
    };
    faults.next(Fault::Hang);
    let first = write("B");
    until("the first to be under way", || faults.planned() == 0).await;
    let waiting: Vec<_> = ["C", "D", "E"].map(write).into();
    let line = vault.line(&line_of(&scope("projects/p")));
    // Each of those who have it or wait for it has a handle, beside the vault and this.
    until("the others to stand in line", || Arc::strong_count(&line) == 2 + 1 + waiting.len()).await;
    // Nobody asks any more; the server's own look finds it out.
    let wait_max = tokio::time::sleep(Duration::from_secs(5));
    faults.fail_reads(Some(StoreError::Unavailable(AWAY.into())));
    *world.clock.moved.lock().expect("no panic before") += Duration::from_secs(1);
    tokio::pin!(wait_max);
    for waiting in waiting {
        tokio::select! {
            refused = waiting => assert_eq!(refused.expect("no panic"), Err(Error::StoreUnavailable(AWAY.into()))),
            () = &mut wait_max => panic!("it waits for the first, which waits for the store"),
        }
    }
    assert!(!first.is_finished(), "it is under way");
    faults.release();
    first.await.expect("no panic").expect("created");
}

/// A store that counts looks, takes its time for them and lets through those only that it was told to.
struct Slow {
    inner: Arc<dyn Store>,
    looks: AtomicUsize,
    passing: Semaphore,
    late: Mutex<Duration>,
}

impl Slow {
    fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { inner, looks: AtomicUsize::new(0), passing: Semaphore::new(0), late: Mutex::default() })
    }
}

#[async_trait]
impl Store for Slow {
    async fn load(&self) -> Result<Box<dyn Load>, StoreError> {
        self.inner.load().await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Result<Position, Conflict>, StoreError> {
        self.inner.commit(transaction).await
    }

    async fn changes(&self, after: Position) -> Result<Box<dyn Follow>, StoreError> {
        self.inner.changes(after).await
    }

    async fn latest(&self) -> Result<Position, StoreError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let latest = self.inner.latest().await;
        let late = *self.late.lock().expect("no panic before");
        tokio::time::sleep(late).await;
        self.passing.acquire().await.expect("never closed").forget();
        latest
    }

    async fn condition(&self) -> Condition {
        self.inner.condition().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_come_together_share_a_look_that_began_after_they_came() {
    let world = World::new().await;
    let slow = Slow::new(world.store.clone());
    // Another server of the same store, which does not wait for anything.
    let other = world.vault().await;
    furnish(&world, &other).await;
    let limits = crate::vault::Limits {
        memory_bytes: 1 << 30,
        sharing: Sharing::Shared { max_stale: Duration::ZERO },
        calls: Default::default(),
    };
    let (audit, clock) = (world.audit.clone(), world.clock.clone());
    let vault = Vault::open(slow.clone(), world.key.clone(), audit, clock, limits).await.expect("opens");
    let read = |vault: Vault, call: Call| async move {
        vault.get_secret(&call, secret("projects/p/secrets/LATE")).await.map(drop)
    };
    let owner = world.held("users/owner");
    // One look is under way and has seen the store as it was.
    let first = tokio::spawn(read(vault.clone(), owner.clone()));
    until("the first look", || slow.looks.load(Ordering::SeqCst) == 1).await;
    other.create_secret(&owner, scope("projects/p"), Ok(new("LATE", "v"))).await.map(drop).expect("created");
    let mut later: Vec<_> = (0..100).map(|_| Box::pin(read(vault.clone(), owner.clone()))).collect();
    // All have come before the look under way ends.
    poll_fn(|context| {
        assert!(later.iter_mut().all(|read| read.as_mut().poll(context).is_pending()), "they wait for a look");
        Poll::Ready(())
    })
    .await;
    slow.passing.add_permits(1_000);
    // The first may or may not see it; whoever came after the write does.
    let _ = first.await.expect("no panic");
    for read in later {
        read.await.expect("what was acknowledged before is seen");
    }
    let looks = slow.looks.load(Ordering::SeqCst);
    assert!((2..20).contains(&looks), "{looks} looks for 101 calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_store_too_slow_for_calls_workloads_are_served_and_others_do_not_wait() {
    let slow = Slow::new(Arc::new(Memory::new()));
    slow.passing.add_permits(1_000);
    let world = World::on(slow.clone()).await;
    let vault = world.replica(MAX_STALE).await;
    furnish(&world, &vault).await;
    let late = |ms| *slow.late.lock().expect("no panic before") = Duration::from_millis(ms);
    late(700);
    let mut since = fetch(&world, &vault).await.0.stale_since().expect("marked");
    *world.clock.moved.lock().expect("no panic before") += MAX_STALE - Duration::from_secs(30);
    // Looks that are too late for a call still tell how old the view is.
    for _ in 0..2 {
        let start = Instant::now();
        let newer = loop {
            assert!(start.elapsed() < PATIENCE, "nobody looks");
            let began = Instant::now();
            let read = vault.get_secret(&world.held("users/owner"), secret("projects/p/secrets/A")).await.map(drop);
            assert!(matches!(read, Err(Error::StoreUnavailable(_))), "{read:?}");
            assert!(began.elapsed() < Duration::from_millis(450), "it waits for what will not come in time");
            let (call, fetched) = fetch(&world, &vault).await;
            assert_eq!(fetched.expect("from the view").variables.len(), 1);
            match call.stale_since().expect("marked") {
                newer if newer > since => break newer,
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        };
        since = newer;
        *world.clock.moved.lock().expect("no panic before") += MAX_STALE - Duration::from_secs(30);
    }
    late(0);
    let start = Instant::now();
    while fetch(&world, &vault).await.0.stale_since().is_some() {
        assert!(start.elapsed() < PATIENCE, "it is back");
    }
}
