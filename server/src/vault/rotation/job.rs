//! Does a rotation, one transaction at a time, until nothing is left to do.

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use prost::Message as _;
use tokio::sync::watch;

use super::{
    super::{
        Call, Error, Inner, RotatedKeys, Vault,
        call::{Line, named},
        write::{header, system_key},
    },
    RESUMED, Rotation,
    scopes::{Search, is_old},
    text,
};
use crate::{
    audit::Phase,
    record::{RotationRecord, key, seal_system},
    seal::{self, Keyring, NoRandomness, Uid},
    store::{Change, Epoch, Expect, Key, Position, Transaction},
    view::{At, State},
};

/// Waits after a step that did not succeed: from, and at most.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(50);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// A rotation that goes on. It holds the vault for one step at a time only, and ends with it.
pub(super) struct Job {
    vault: Weak<Inner>,
    call: Call,
    is_resumed: bool,
    progress: watch::Sender<Rotation>,
    pub(super) search: Search,
}

/// What a step did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something; there may be more.
    More,
    /// The last of it, at this position, or somebody else did.
    Done(Option<Position>),
}

/// A transaction, put together.
#[derive(Clone)]
pub(super) struct Draft {
    pub epoch: Epoch,
    pub expectations: Vec<(Key, Expect)>,
    pub changes: Vec<Change>,
}

impl Draft {
    /// An empty one, to be decided on a state.
    pub fn on(state: &State) -> Self {
        Self { epoch: state.position().epoch, expectations: Vec::new(), changes: Vec::new() }
    }

    pub fn expect(&mut self, at: &At) {
        self.expectations.push((at.key.clone(), Expect::At(at.revision)));
    }

    /// The same, which also rests on this.
    pub fn expecting(mut self, at: &At) -> Self {
        self.expect(at);
        self
    }

    pub fn put(&mut self, key: Key, bytes: Vec<u8>) {
        self.changes.push(Change::Put(key, bytes.into()));
    }
}

impl Job {
    pub fn new(
        vault: &Vault,
        rotation: Rotation,
        call: Option<Call>,
    ) -> Result<(Self, watch::Receiver<Rotation>), NoRandomness> {
        let is_resumed = call.is_none();
        let call = call.map_or_else(|| Call::of_server(RESUMED), Ok)?;
        let total = {
            let state = vault.0.view.read();
            match rotation.keys {
                RotatedKeys::Root => state.counts().scopes + 1,
                RotatedKeys::Data => state.counts().scopes + state.system_records() + 3,
            }
        };
        let rotation = Rotation { done: 0, total: total as u64, ..rotation };
        let (progress, receiver) = watch::channel(rotation);
        Ok((Self { vault: Arc::downgrade(&vault.0), call, is_resumed, progress, search: Search::default() }, receiver))
    }

    pub async fn run(mut self) {
        let mut wait = RETRY_WAIT_MIN;
        loop {
            let Some(inner) = self.vault.upgrade() else { return };
            match self.step(Vault(inner)).await {
                Ok(Step::More) => wait = RETRY_WAIT_MIN,
                Ok(Step::Done(position)) => return self.end(position).await,
                Err(error) if is_passing(&error) => {
                    tracing::warn!(%error, "the rotation of keys waits and tries again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_WAIT_MAX);
                }
                Err(error) => return self.fail(error).await,
            }
        }
    }

    async fn step(&mut self, vault: Vault) -> Result<Step, Error> {
        if self.is_resumed {
            let line = self.line(&self.progress.borrow());
            vault.record(&self.call, Phase::Intent, line).await?;
            self.is_resumed = false;
        }
        vault.current().await?;
        let is_over = {
            let state = vault.0.view.read();
            let rotation = self.progress.borrow();
            let same = state.rotation().filter(|entry| entry.start_time == rotation.start);
            same.is_none_or(|entry| entry.end_time.is_some())
        };
        if is_over {
            return Ok(Step::Done(None));
        }
        let keys = self.progress.borrow().keys;
        match keys {
            RotatedKeys::Root => self.root(&vault).await,
            RotatedKeys::Data => self.data(&vault).await,
        }
    }

    async fn root(&self, vault: &Vault) -> Result<Step, Error> {
        if self.rewrap(vault).await? {
            return Ok(Step::More);
        }
        let (known, header, mut draft) = {
            let state = vault.0.view.read();
            (Keyring::clone(state.keyring()), header(&state)?.clone(), Draft::on(&state))
        };
        let made = seal::header::without_old_root(vault.0.view.source(), &known, &header.bytes).await;
        let (keyring, alone) = made.map_err(|error| Error::KeySource(error.to_string()))?;
        let alone: Arc<[u8]> = alone.into();
        vault.0.view.offer(alone.clone(), keyring);
        draft.expect(&header.at);
        draft.changes.push(Change::Put(header.at.key, alone));
        self.put_end(&vault.0.view.read(), vault.now(), known.has_old_root(), &mut draft)?;
        self.end_by(vault, draft).await
    }

    async fn data(&mut self, vault: &Vault) -> Result<Step, Error> {
        if self.rotate_scope(vault).await? || self.reseal(vault).await? {
            return Ok(Step::More);
        }
        let draft = {
            let state = vault.0.view.read();
            let system = &system_key(&state)?.key;
            // Those made from here on are made under the system's last key.
            if state.scopes_from("", None).any(|scope| is_old(scope, system.generation())) {
                return Ok(Step::More);
            }
            let mut draft = put_system_key(&state, &system.without_old())?;
            self.put_end(&state, vault.now(), system.has_old(), &mut draft)?;
            draft
        };
        self.end_by(vault, draft).await
    }

    async fn end_by(&self, vault: &Vault, draft: Draft) -> Result<Step, Error> {
        let position = vault.rotate(draft).await?;
        if position.is_some() {
            self.did(1);
        }
        Ok(position.map_or(Step::More, |position| Step::Done(Some(position))))
    }

    /// Puts down that it is done. What it was all for is the last to go: the root key of before, or the system's.
    fn put_end(&self, state: &State, now: SystemTime, has_old: bool, draft: &mut Draft) -> Result<(), Error> {
        let entry = state.rotation().ok_or_else(|| Error::Internal("no rotation has begun".into()))?;
        let (generation, wanted) = (system_key(state)?.key.generation(), entry.generation);
        if !has_old || (entry.keys == RotatedKeys::Data && generation != wanted) {
            return Err(Error::Damaged(format!("a rotation of {} keys replaced none", text(entry.keys))));
        }
        let record = RotationRecord {
            keys: match entry.keys {
                RotatedKeys::Root => 1,
                RotatedKeys::Data => 2,
            },
            generation: entry.generation,
            principal: entry.principal.clone(),
            start_time: Some(entry.start_time),
            end_time: Some(now.into()),
            done: self.progress.borrow().done + 1,
        };
        let system = system_key(state)?;
        if !draft.expectations.iter().any(|(key, _)| *key == system.at.key) {
            draft.expect(&system.at);
        }
        draft.expect(&entry.at);
        let sealed = seal_system(state.store(), &system.key, &entry.at.key, &record.encode_to_vec())?;
        draft.put(entry.at.key.clone(), sealed);
        Ok(())
    }

    /// So much more is done, of at least so much.
    pub(super) fn did(&self, more: u64) {
        self.progress.send_modify(|rotation| {
            rotation.done += more;
            rotation.total = rotation.total.max(rotation.done);
        });
    }

    async fn end(self, position: Option<Position>) {
        let Some(inner) = self.vault.upgrade() else { return };
        let vault = Vault(inner);
        let recorded = vault.0.view.read().rotation().map(|entry| Rotation::of(entry));
        self.progress.send_modify(|rotation| {
            rotation.total = rotation.done;
            rotation.end = recorded.filter(|entry| entry.start == rotation.start).and_then(|entry| entry.end);
        });
        let line = Line { position: position.map(|at| at.to_string()), ..self.line(&self.progress.borrow()) };
        tracing::info!(keys = text(self.progress.borrow().keys), "keys are rotated");
        if vault.record(&self.call, Phase::Done, line).await.is_err() {
            tracing::error!(method = self.call.method, "the outcome of a rotation could not be written down");
        }
    }

    async fn fail(self, error: Error) {
        tracing::error!(%error, detail = error.detail(), "the rotation of keys cannot go on before the next start");
        self.progress.send_modify(|rotation| rotation.failed = Some(error.to_string()));
        let Some(inner) = self.vault.upgrade() else { return };
        let line = Line { reason: Some(error.reason().as_str()), ..self.line(&self.progress.borrow()) };
        if Vault(inner).record(&self.call, Phase::Failed, line).await.is_err() {
            tracing::error!(method = self.call.method, "the outcome of a rotation could not be written down");
        }
    }

    fn line(&self, rotation: &Rotation) -> Line {
        Line {
            principal: coffer_proto::name::Principal::parse(&rotation.principal).ok(),
            subjects: vec![named("keys")],
            details: vec![
                ("keys", text(rotation.keys).to_owned()),
                ("done", rotation.done.to_string()),
                ("total", rotation.total.to_string()),
            ],
            ..Line::default()
        }
    }
}

/// Puts the system's data key over the one that stands.
fn put_system_key(state: &State, key: &seal::DataKey) -> Result<Draft, Error> {
    let mut draft = Draft::on(state);
    draft.expect(&system_key(state)?.at);
    draft.expect(&header(state)?.at);
    draft.put(Key::new(key::SYSTEM_KEY), state.keyring().wrap_data_key(key::SYSTEM_KEY, Uid::NONE, key)?);
    Ok(draft)
}

/// Whether trying again may help.
fn is_passing(error: &Error) -> bool {
    matches!(
        error,
        Error::StoreUnavailable(_)
            | Error::StorageFull(_)
            | Error::OutcomeUnknown(_)
            | Error::AuditUnavailable
            | Error::KeySource(_)
    )
}

impl Vault {
    /// One transaction of a rotation. `None` if somebody overtook it: the view shows by then what they did.
    pub(super) async fn rotate(&self, draft: Draft) -> Result<Option<Position>, Error> {
        let Draft { epoch, expectations, changes } = draft;
        let transaction = Transaction::decided(epoch, expectations, changes).map_err(|_| NoRandomness)?;
        match self.0.store.commit(transaction).await? {
            Ok(position) => {
                self.0.view.reached(position).await?;
                Ok(Some(position))
            }
            Err(_overtaken) => {
                self.current().await?;
                Ok(None)
            }
        }
    }
}
