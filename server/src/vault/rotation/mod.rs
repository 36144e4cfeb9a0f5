//! Rotates keys while calls go on.
//!
//! - The root key: a new one is put into the header before the old one, and the system's key under it at once; every other
//!   data key is wrapped by it, and the old one leaves the header.
//! - Data keys: a new one is put before the old one of the system at once, then of every scope, their records are sealed
//!   anew, and the old one leaves.
//!
//! No record is ever left under a key that leaves, whoever writes meanwhile: what seals under the system's key compares
//! that key's record, what makes a data key compares the header and the rotation, and what writes in a scope compares the
//! scope's record. So whoever decided by an old key is overtaken, and decides again by the new one.
//!
//! What is left to do is seen from keys and records alone. A rotation that is cut off at any point is taken up again from
//! there, by the next server that opens the store.

mod job;
mod records;
mod scopes;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use self::job::Job;
use super::{
    Call, Error, RotatedKeys, Vault,
    call::named,
    write::{Context, Plan, header, system_key},
};
use crate::{
    access,
    record::{RotationRecord, key},
    seal::{self, Keyring, Uid},
    store::{Expect, Key},
    view::RotationEntry,
};

/// The rotation of this process.
#[derive(Default)]
pub(super) struct Rotations {
    /// One begins at a time.
    beginning: tokio::sync::Mutex<()>,
    progress: Mutex<Option<watch::Receiver<Rotation>>>,
}

/// A rotation of keys, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// Which keys.
    pub keys: RotatedKeys,
    /// Who began it.
    pub principal: String,
    /// When.
    pub start: prost_types::Timestamp,
    /// When it was done; none while it goes on.
    pub end: Option<prost_types::Timestamp>,
    /// Data keys wrapped anew; or scopes, and records of the system, that are sealed anew.
    pub done: u64,
    /// How many there are to do, as far as it is known.
    pub total: u64,
    /// Why it does not go on before the next start of the server; nothing is lost.
    pub failed: Option<String>,
}

impl Rotations {
    fn progress(&self) -> MutexGuard<'_, Option<watch::Receiver<Rotation>>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rotation {
    fn of(entry: &RotationEntry) -> Self {
        Self {
            keys: entry.keys,
            principal: entry.principal.clone(),
            start: entry.start_time,
            end: entry.end_time,
            done: entry.done,
            total: entry.done,
            failed: None,
        }
    }
}

/// What the audit log calls a rotation that goes on after a start.
const RESUMED: &str = "coffer-server/rotation";
/// Where those who begin stand in line.
const LINE: &str = "rotation";

impl Vault {
    /// Rotates keys, or joins the rotation of the same keys that is under way. It belongs to the vault: whoever stops
    /// looking leaves it as it is. The receiver ends after the last state.
    pub async fn rotate_keys(&self, call: &Call, keys: RotatedKeys) -> Result<watch::Receiver<Rotation>, Error> {
        let (vault, call) = (self.clone(), call.clone());
        // A task of its own, so that a caller who hangs up now leaves no rotation that nobody goes on with.
        let begun = tokio::spawn(async move { vault.begin_rotation(&call, keys).await });
        begun.await.unwrap_or_else(|_| Err(Error::Internal("a rotation ended in a panic".into())))
    }

    async fn begin_rotation(&self, call: &Call, keys: RotatedKeys) -> Result<watch::Receiver<Rotation>, Error> {
        // Before the key source is asked for anything.
        self.as_operator(call, |_| ()).await?;
        let _beginning = self.0.rotations.beginning.lock().await;
        let root = match keys {
            RotatedKeys::Root if !self.is_rotating() => Some(Arc::new(self.new_root().await?)),
            RotatedKeys::Root | RotatedKeys::Data => None,
        };
        let is_new = self.write(call, LINE, Vec::new(), move |context| plan(context, keys, root.as_deref())).await?;
        self.go_on(if is_new { Some(call.clone()) } else { None })
    }

    /// The rotation under way, or the last one.
    pub fn rotation(&self) -> Option<Rotation> {
        let recorded = Rotation::of(self.0.view.read().rotation()?);
        let own = self.0.rotations.progress().as_ref().map(|progress| progress.borrow().clone());
        Some(own.filter(|own| own.start == recorded.start && recorded.end.is_none()).unwrap_or(recorded))
    }

    /// Goes on with a rotation that was cut off.
    pub(super) fn resume_rotation(&self) {
        if self.is_rotating()
            && let Err(error) = self.go_on(None)
        {
            tracing::error!(%error, "the rotation of keys cannot go on before the next start");
        }
    }

    fn is_rotating(&self) -> bool {
        self.0.view.read().rotation().is_some_and(|rotation| rotation.end_time.is_none())
    }

    /// The job of the rotation under way: the one that runs, or a new one. `call` began it; without one it is resumed.
    fn go_on(&self, call: Option<Call>) -> Result<watch::Receiver<Rotation>, Error> {
        let mut running = self.0.rotations.progress();
        let rotation = self.0.view.read().rotation().map(|entry| Rotation::of(entry));
        let rotation = rotation.ok_or_else(|| Error::Internal("no rotation has begun".into()))?;
        if let Some(progress) = running.as_ref()
            && progress.borrow().start == rotation.start
            && progress.has_changed().is_ok()
        {
            return Ok(progress.clone());
        }
        let (job, progress) = Job::new(self, rotation, call)?;
        *running = Some(progress.clone());
        tokio::spawn(job.run());
        Ok(progress)
    }

    /// A new root key, which the view knows already.
    async fn new_root(&self) -> Result<NewRoot, Error> {
        self.current().await?;
        let (known, header) = {
            let state = self.0.view.read();
            (Keyring::clone(state.keyring()), header(&state)?.clone())
        };
        let made = seal::header::with_new_root(self.0.view.source(), &known, &header.bytes).await;
        let (keyring, bytes) = made.map_err(|error| Error::KeySource(error.to_string()))?;
        let bytes: Arc<[u8]> = bytes.into();
        self.0.view.offer(bytes.clone(), keyring.clone());
        Ok(NewRoot { over: header.bytes, bytes, keyring })
    }
}

/// A header with a new root key, and the one it takes the place of.
struct NewRoot {
    over: Arc<[u8]>,
    bytes: Arc<[u8]>,
    keyring: Keyring,
}

/// Begins a rotation; `false` where one of the same keys is under way.
fn plan(context: &Context<'_>, keys: RotatedKeys, root: Option<&NewRoot>) -> Result<Plan<bool>, Error> {
    let state = context.state;
    let permit = access::permit_operator(state, context.caller).ok_or(Error::Denied)?;
    let last = state.rotation();
    let mut plan = Plan::new(&permit, ());
    plan.subjects = vec![named("keys")];
    plan.details = vec![("keys", text(keys).to_owned())];
    if let Some(running) = last.filter(|last| last.end_time.is_none()) {
        return if running.keys == keys { Ok(plan.with_answer(false)) } else { Err(Error::RotationRunning) };
    }
    let (header, system) = (header(state)?, system_key(state)?);
    plan.expect_as(&header.at);
    let system_record = Key::new(key::SYSTEM_KEY);
    let generation = match keys {
        RotatedKeys::Root => {
            let root = root.filter(|root| root.over == header.bytes).ok_or(Error::Contention)?;
            plan.put(header.at.key.clone(), root.bytes.clone());
            plan.put(system_record, root.keyring.wrap_data_key(key::SYSTEM_KEY, Uid::NONE, &system.key)?);
            state.last_generation()
        }
        RotatedKeys::Data => {
            let generation = state.last_generation() + 1;
            let renewed = system.key.renewed(generation)?;
            plan.put(system_record, state.keyring().wrap_data_key(key::SYSTEM_KEY, Uid::NONE, &renewed)?);
            generation
        }
    };
    let record = RotationRecord {
        keys: match keys {
            RotatedKeys::Root => 1,
            RotatedKeys::Data => 2,
        },
        generation,
        principal: context.caller.principal().to_string(),
        start_time: Some(context.timestamp()),
        end_time: None,
        done: 0,
    };
    let record_key = Key::new(key::ROTATION);
    plan.expect(record_key.clone(), last.map_or(Expect::Absent, |last| Expect::At(last.at.revision)));
    plan.put_system(state, record_key, &record)?;
    Ok(plan.with_answer(true))
}

fn text(keys: RotatedKeys) -> &'static str {
    match keys {
        RotatedKeys::Root => "root",
        RotatedKeys::Data => "data",
    }
}
