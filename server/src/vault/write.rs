//! What changes: decide, write the intent down, commit, wait until the view shows it, write the outcome down, answer.
//!
//! A decision rests on one state of the view and names what of it must still hold. If the store finds that something
//! does not, the decision is made again on a newer state.

use std::{hash::BuildHasher as _, sync::Arc};

use prost::Message;
use tokio::sync::MutexGuard;

use crate::{
    access::Permit,
    audit::{Phase, Subject},
    identity::Caller,
    record::{self, ScopeRecord, seal_system},
    seal::{DataKey, Uid},
    store::{self, Change, Expect, Key, Transaction, TransactionId},
    view::{ScopeState, State},
};
use coffer_proto::name::Scope;

use super::{
    Call, Error, LOCKS, Vault,
    call::{Line, named},
};

/// Decisions that others overtook, before the caller is told to try again. Writers of this process wait in line, so
/// only other replicas and crossing writes count.
const ATTEMPTS: usize = 16;

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

    pub fn put(&mut self, key: Key, bytes: impl Into<Arc<[u8]>>) {
        self.changes.push(Change::Put(key, bytes.into()));
    }

    pub fn delete(&mut self, key: Key) {
        self.changes.push(Change::Delete(key));
    }

    pub fn delete_prefix(&mut self, prefix: Key) {
        self.changes.push(Change::DeletePrefix(prefix));
    }

    /// Puts a record sealed under the system key.
    pub fn put_system(&mut self, state: &State, key: Key, message: &impl Message) -> Result<(), Error> {
        let plaintext = zeroize::Zeroizing::new(message.encode_to_vec());
        let sealed = seal_system(state.store(), system_key(state)?, &key, &plaintext)?;
        self.put(key, sealed);
        Ok(())
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
                let uid = Uid::random()?;
                let key = record::key::scope_key(name);
                let (data, sealed) = context.vault.0.view.keyring().create_data_key(key.as_str(), uid)?;
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

    /// Refuses what would not fit the server's memory.
    pub fn check_memory(&self, context: &Context<'_>) -> Result<(), Error> {
        let more: u64 = self.changes.iter().map(|change| change.bytes() as u64).sum();
        if context.state.memory_bytes() + more > context.vault.0.limits.memory_bytes {
            return Err(Error::StorageFull("the server's memory ceiling is reached; deletes still work"));
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

fn system_key(state: &State) -> Result<&DataKey, Error> {
    state.system_key().map(AsRef::as_ref).ok_or_else(|| Error::Internal("no system key is loaded".into()))
}

impl Vault {
    /// Makes a change. `line` is what writers of the same things have in common: they wait for each other.
    ///
    /// Runs in a task of its own, so that a caller who hangs up leaves no change without its outcome in the log.
    pub(super) async fn write<T, F>(&self, call: &Call, line: &str, names: Vec<String>, decide: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&Context<'_>) -> Result<Plan<T>, Error> + Send + Sync + 'static,
    {
        let (vault, call, line) = (self.clone(), call.clone(), line.to_owned());
        let task = tokio::spawn(async move { vault.write_in_line(&call, &line, &names, decide).await });
        task.await.unwrap_or_else(|_| Err(Error::Internal("a write ended in a panic".into())))
    }

    async fn write_in_line<T>(
        &self,
        call: &Call,
        line: &str,
        names: &[String],
        decide: impl Fn(&Context<'_>) -> Result<Plan<T>, Error>,
    ) -> Result<T, Error> {
        let _turn = self.turn(line).await;
        let mut intent_written = false;
        for _ in 0..ATTEMPTS {
            self.fresh().await?;
            let (caller, plan) = self.decide(call, &decide);
            let plan = match plan {
                Ok(plan) => plan,
                Err(error) => return Err(self.refused(call, caller.as_ref(), names, error).await),
            };
            let about = |position| Line {
                principal: caller.as_ref().map(|caller| caller.principal().clone()),
                subjects: if plan.subjects.is_empty() {
                    names.iter().map(named).collect()
                } else {
                    plan.subjects.clone()
                },
                details: plan.details.clone(),
                leads_to_values: plan.leads_to_values,
                position,
                ..Line::default()
            };
            if plan.changes.is_empty() {
                self.record(call, Phase::Read, about(None)).await?;
                return Ok(plan.answer);
            }
            if !intent_written {
                self.record(call, Phase::Intent, about(None)).await?;
                intent_written = true;
            }
            let done = about(None);
            let transaction = Transaction {
                id: TransactionId::random().map_err(|_| crate::seal::NoRandomness)?,
                expectations: plan.expectations,
                changes: plan.changes,
            };
            match self.0.store.commit(transaction).await {
                Ok(Ok(position)) => {
                    self.0.view.reached(position).await?;
                    let line = Line { position: Some(position.to_string()), ..done };
                    if self.record(call, Phase::Done, line).await.is_err() {
                        // It stands, and its intent is written: saying that it failed would be wrong.
                        tracing::error!(method = call.method, "the outcome of a change could not be written down");
                    }
                    return Ok(plan.answer);
                }
                Ok(Err(_overtaken)) => {}
                Err(error) => return Err(self.refused(call, caller.as_ref(), names, refusal(error)).await),
            }
        }
        Err(self.refused(call, None, names, Error::Contention).await)
    }

    fn decide<T>(
        &self,
        call: &Call,
        decide: &impl Fn(&Context<'_>) -> Result<Plan<T>, Error>,
    ) -> (Option<Caller>, Result<Plan<T>, Error>) {
        let now = self.now();
        let state = self.0.view.read();
        match call.caller(&state, now) {
            Ok(caller) => {
                let plan = decide(&Context { vault: self, state: &state, caller: &caller, now });
                (Some(caller), plan)
            }
            Err(error) => (None, Err(error)),
        }
    }

    async fn turn(&self, line: &str) -> MutexGuard<'_, ()> {
        let hash = self.0.line_hasher.hash_one(line);
        self.0.locks[(hash % LOCKS as u64) as usize].lock().await
    }
}

/// A transaction that is too large was asked for by the caller.
fn refusal(error: store::Error) -> Error {
    match error {
        store::Error::Invalid(_) => Error::ScopeFull("one call may change 1.25 MiB of stored bytes; use several"),
        error => error.into(),
    }
}
