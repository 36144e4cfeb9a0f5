//! What changes: decide, write the intent down, commit, wait until the view shows it, write the outcome down, answer.
//!
//! A decision rests on one state of the view and names what of it must still hold. If the store finds that something
//! does not, the decision is made again on a newer state.

use std::{hash::BuildHasher as _, sync::Arc};

use prost::Message;
use tokio::sync::Mutex;

use crate::{
    access::Permit,
    audit::{Phase, Subject},
    identity::Caller,
    record::{self, ScopeRecord, seal_system},
    seal::{DataKey, Uid},
    store::{self, Change, Epoch, Expect, Key, Position, Transaction},
    view::{At, ENTRY_BYTES, Header, ScopeState, State, SystemKey},
};
use coffer_proto::{
    limits,
    name::{Scope, ScopeKind},
};

use super::{
    Call, Error, LOCKS, Vault,
    answered::Answered,
    call::{Line, named},
};

/// Decisions that others overtook, before the caller is told to try again. Writers of this process wait in line, so
/// only other replicas and crossing writes count.
const ATTEMPTS: usize = 16;

/// The share of the memory ceiling that secrets may fill, in percent.
const SECRETS_PERCENT: u64 = 90;

/// What a call decided to change, and to answer once it stands.
pub(super) struct Plan<T> {
    expectations: Vec<(Key, Expect)>,
    changes: Vec<Change>,
    pub subjects: Vec<Subject>,
    pub details: Vec<(&'static str, String)>,
    pub leads_to_values: bool,
    answer: T,
}

/// What decisions need beside the state.
pub(super) struct Context<'a> {
    pub vault: &'a Vault,
    pub state: &'a State,
    pub caller: &'a Caller,
    pub now: std::time::SystemTime,
}

/// Where writers of a scope stand in line: those of one account in one, because an account has limits of its own.
pub(super) fn line_of(scope: &Scope) -> String {
    match scope.account_id() {
        Some(account) => format!("accounts/{account}"),
        None => scope.to_string(),
    }
}

/// A scope to be written: as it stands, or about to be made.
pub(super) struct ScopeForWrite {
    pub uid: Uid,
    pub key: Arc<DataKey>,
    pub state: Option<Arc<ScopeState>>,
}

impl<T> Plan<T> {
    /// A plan that a permit allows. What the permit rests on must still hold when it is committed.
    pub fn new(permit: &Permit, answer: T) -> Self {
        let expectations = permit.basis().iter().map(|at| (at.key.clone(), Expect::At(at.revision))).collect();
        Self {
            expectations,
            changes: Vec::new(),
            subjects: Vec::new(),
            details: Vec::new(),
            leads_to_values: false,
            answer,
        }
    }

    /// The same plan with another answer.
    pub fn with_answer<U>(self, answer: U) -> Plan<U> {
        Plan {
            expectations: self.expectations,
            changes: self.changes,
            subjects: self.subjects,
            details: self.details,
            leads_to_values: self.leads_to_values,
            answer,
        }
    }

    /// Another permit that the plan rests on.
    pub fn also(&mut self, permit: &Permit) {
        for at in permit.basis() {
            self.expect(at.key.clone(), Expect::At(at.revision));
        }
    }

    pub fn expect(&mut self, key: Key, expect: Expect) {
        if !self.expectations.contains(&(key.clone(), expect)) {
            self.expectations.push((key, expect));
        }
    }

    /// Compares a record as it stands.
    pub fn expect_as(&mut self, at: &At) {
        self.expect(at.key.clone(), Expect::At(at.revision));
    }

    pub fn put(&mut self, key: Key, bytes: impl Into<Arc<[u8]>>) {
        self.changes.push(Change::Put(key, bytes.into()));
    }

    pub fn delete(&mut self, key: Key) {
        self.changes.push(Change::Delete(key));
    }

    /// What the caller will be told.
    pub fn answer(&self) -> &T {
        &self.answer
    }

    pub fn delete_prefix(&mut self, prefix: Key) {
        self.changes.push(Change::DeletePrefix(prefix));
    }

    /// Puts a record sealed under the system key.
    pub fn put_system(&mut self, state: &State, key: Key, message: &impl Message) -> Result<(), Error> {
        let plaintext = zeroize::Zeroizing::new(message.encode_to_vec());
        let system = system_key(state)?;
        self.expect_as(&system.at);
        let sealed = seal_system(state.store(), &system.key, &key, &plaintext)?;
        self.put(key, sealed);
        Ok(())
    }

    /// What the audit log says of it.
    fn line(&self, caller: Option<&Caller>, names: &[String]) -> Line {
        Line {
            principal: caller.map(|caller| caller.principal().clone()),
            subjects: if self.subjects.is_empty() { names.iter().map(named).collect() } else { self.subjects.clone() },
            details: self.details.clone(),
            leads_to_values: self.leads_to_values,
            ..Line::default()
        }
    }

    /// Writes the scope's record, which every write of a scope compares and puts, so that no two writers decide on the
    /// same state of it. Makes the scope and its key if there is none.
    pub fn write_scope(&mut self, context: &Context<'_>, name: &Scope) -> Result<ScopeForWrite, Error> {
        let (scope, create_time) = match context.state.scope(name) {
            Some(state) => {
                self.expect(state.at.key.clone(), Expect::At(state.at.revision));
                let scope = ScopeForWrite { uid: state.uid, key: state.key.clone(), state: Some(state.clone()) };
                (scope, state.create_time)
            }
            None => {
                // A scope is deleted only while there is none below it; this one must not come below a deleted one.
                if let Some(parent) = name.parent().and_then(|parent| context.state.scope(&parent)) {
                    self.expect(parent.at.key.clone(), Expect::Present);
                }
                check_account(context, name)?;
                let uid = Uid::random()?;
                let key = record::key::scope_key(name);
                // Made while a rotation begins, it would be left under keys of before.
                let state = context.state;
                self.expect_as(&header(state)?.at);
                let rotation = state.rotation().map_or(Expect::Absent, |rotation| Expect::At(rotation.at.revision));
                self.expect(Key::new(record::key::ROTATION), rotation);
                let generation = system_key(state)?.key.generation();
                let (data, sealed) = state.keyring().create_data_key(key.as_str(), uid, generation)?;
                self.expect(record::key::scope(name), Expect::Absent);
                self.expect(key.clone(), Expect::Absent);
                self.put(key, sealed);
                (ScopeForWrite { uid, key: Arc::new(data), state: None }, context.timestamp())
            }
        };
        let stored = ScopeRecord { uid: scope.uid.0.to_vec(), create_time: Some(create_time) };
        self.put_system(context.state, record::key::scope(name), &stored)?;
        Ok(scope)
    }

    /// Refuses secrets that would not fit the server's memory. The last part of it is left for grants and tokens, so
    /// that people can still sign in and tidy up.
    pub fn check_memory(&self, context: &Context<'_>) -> Result<(), Error> {
        self.check_ceiling(context, context.vault.0.limits.memory_bytes / 100 * SECRETS_PERCENT)
    }

    /// Refuses grants and tokens that would not fit the server's memory.
    pub fn check_last_memory(&self, context: &Context<'_>) -> Result<(), Error> {
        self.check_ceiling(context, context.vault.0.limits.memory_bytes)
    }

    fn check_ceiling(&self, context: &Context<'_>, ceiling: u64) -> Result<(), Error> {
        let more: u64 = self.changes.iter().map(|change| ENTRY_BYTES + change.bytes() as u64).sum();
        if context.state.memory_bytes() + more > ceiling {
            return Err(Error::StorageFull("the server's memory ceiling is reached; deletes still work".into()));
        }
        Ok(())
    }
}

impl Context<'_> {
    pub fn timestamp(&self) -> prost_types::Timestamp {
        self.now.into()
    }

    pub fn stamp(&self) -> record::Stamp {
        record::Stamp { time: self.timestamp(), principal: self.caller.principal().to_string() }
    }
}

/// The key of the system's records. Whoever seals by it compares its record.
pub(super) fn system_key(state: &State) -> Result<&SystemKey, Error> {
    state.system_key().ok_or_else(|| Error::Internal("no system key is loaded".into()))
}

pub(super) fn header(state: &State) -> Result<&Header, Error> {
    state.header().ok_or_else(|| Error::Internal("no header is loaded".into()))
}

impl Vault {
    /// Makes a change. `line` is what writers of the same things have in common: they wait for each other, once it is
    /// known that they may write at all. A caller who hangs up while waiting leaves the line.
    pub(super) async fn write<T, F>(&self, call: &Call, line: &str, names: Vec<String>, decide: F) -> Result<T, Error>
    where
        T: Answered + Send + 'static,
        F: Fn(&Context<'_>) -> Result<Plan<T>, Error> + Send + Sync + 'static,
    {
        let turn = match self.line(line).try_lock_owned() {
            Ok(turn) => turn,
            Err(_taken) => {
                self.fresh(call).await?;
                let (caller, _, plan) = self.decide(call, &decide);
                if let Err(error) = plan {
                    return Err(self.refused(call, caller.as_ref(), &names, error).await);
                }
                // Who is before may wait for an outcome for long, when the store is out of reach.
                tokio::select! {
                    turn = self.line(line).lock_owned() => turn,
                    error = self.out_of_reach() => return Err(self.refused(call, caller.as_ref(), &names, error).await),
                }
            }
        };
        let (vault, call) = (self.clone(), call.clone());
        // A task of its own, so that a caller who hangs up now leaves no change without its outcome in the log.
        let task = tokio::spawn(async move {
            let result = vault.write_in_turn(&call, &names, decide).await;
            drop(turn);
            result
        });
        task.await.unwrap_or_else(|_| Err(Error::Internal("a write ended in a panic".into())))
    }

    async fn write_in_turn<T: Answered>(
        &self,
        call: &Call,
        names: &[String],
        decide: impl Fn(&Context<'_>) -> Result<Plan<T>, Error>,
    ) -> Result<T, Error> {
        let mut overtaken: Option<Option<Caller>> = None;
        for _ in 0..ATTEMPTS {
            if let Err(error) = self.fresh(call).await {
                return Err(match overtaken {
                    // Its intent stands.
                    Some(caller) => self.failed(call, caller.as_ref(), names, error).await,
                    None => self.refused(call, None, names, error).await,
                });
            }
            let (caller, epoch, plan) = self.decide(call, &decide);
            let plan = match plan {
                Ok(plan) => plan,
                Err(error) if overtaken.is_some() => {
                    return Err(self.failed(call, caller.as_ref(), names, error).await);
                }
                Err(error) => return Err(self.refused(call, caller.as_ref(), names, error).await),
            };
            let about = plan.line(caller.as_ref(), names);
            if plan.changes.is_empty() {
                self.record(call, Phase::Read, about).await?;
                return Ok(plan.answer);
            }
            // Its intent stands, whichever attempt succeeds.
            if overtaken.is_none() {
                self.record(call, Phase::Intent, about.clone()).await?;
            }
            let transaction = Transaction::decided(epoch, plan.expectations, plan.changes);
            let transaction = transaction.map_err(|_| crate::seal::NoRandomness)?;
            match self.0.store.commit(transaction).await {
                Ok(Ok(position)) => {
                    self.done(call, about, position).await?;
                    return Ok(plan.answer);
                }
                Ok(Err(_conflict)) => overtaken = Some(caller),
                Err(error) => return Err(self.failed(call, caller.as_ref(), names, refusal(error)).await),
            }
        }
        let caller = overtaken.flatten();
        Err(self.failed(call, caller.as_ref(), names, Error::Contention).await)
    }

    /// A change stands: it is written down, and the caller is answered once every later call sees it.
    async fn done(&self, call: &Call, line: Line, position: Position) -> Result<(), Error> {
        let line = Line { position: Some(position.to_string()), ..line };
        if self.record(call, Phase::Done, line).await.is_err() {
            // Its intent is written: saying that the change failed would be wrong.
            tracing::error!(method = call.method, "the outcome of a change could not be written down");
        }
        self.0.view.reached(position).await.map_err(|error| Error::OutcomeUnknown(error.to_string()))
    }

    fn decide<T: Answered>(
        &self,
        call: &Call,
        decide: &impl Fn(&Context<'_>) -> Result<Plan<T>, Error>,
    ) -> (Option<Caller>, Epoch, Result<Plan<T>, Error>) {
        let now = self.now();
        let state = self.0.view.read();
        let epoch = state.position().epoch;
        match call.caller(&state, now) {
            Ok(caller) => {
                let plan = decide(&Context { vault: self, state: &state, caller: &caller, now });
                let plan = plan.and_then(Plan::check_answer);
                (Some(caller), epoch, plan)
            }
            Err(error) => (None, epoch, Err(error)),
        }
    }

    pub(super) fn line(&self, line: &str) -> Arc<Mutex<()>> {
        let hash = self.0.line_hasher.hash_one(line);
        self.0.locks[(hash % LOCKS as u64) as usize].clone()
    }
}

/// Refuses one plugin too many of an account: its owner needs no grant to make them, so nobody else sees to it.
fn check_account(context: &Context<'_>, new: &Scope) -> Result<(), Error> {
    let Some(account) = new.account_id().filter(|_| new.kind() == ScopeKind::Plugin) else { return Ok(()) };
    let plugins = format!("accounts/{account}/plugins/");
    if context.state.scopes_from(&plugins, None).count() >= limits::ACCOUNT_PLUGINS {
        return Err(Error::TooMany("at most 1,000 plugins of one account have secrets"));
    }
    Ok(())
}

/// A transaction that is too large was asked for by the caller.
fn refusal(error: store::Error) -> Error {
    match error {
        store::Error::Invalid(_) => Error::ScopeFull("one call may change 1.25 MiB of stored bytes; use several"),
        error => error.into(),
    }
}
