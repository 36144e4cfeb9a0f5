//! Scopes under a key of before: each gets its new key, and its secrets are sealed anew, as many at a time as one
//! transaction takes.

use std::{collections::VecDeque, sync::Arc};

use coffer_proto::name::Scope;
use prost::Message as _;

use super::{
    super::{
        Error, Vault,
        write::{header, line_of, system_key},
    },
    job::{Draft, Job},
};
use crate::{
    record::{ScopeRecord, key, seal_system},
    store::Change,
    view::{ScopeState, State},
};

/// Secrets in one transaction: each is compared, because a delete must not be undone, and a transaction has at most 100
/// expectations.
const SECRETS: usize = 90;
/// Bytes in one transaction.
const BYTES: usize = 1024 * 1024;
/// Scopes looked at under one guard.
const LOOKED_AT: usize = 10_000;

impl Job {
    /// Rotates the next scope that is under a key of before. `false` once a search through all of them found none.
    pub(super) async fn rotate_scope(&mut self, vault: &Vault) -> Result<bool, Error> {
        let Some(scope) = self.search.next(vault) else { return Ok(self.search.begin_again()) };
        // Writers of the scope wait in line with it, so that neither overtakes the other again and again.
        let _turn = vault.line(&line_of(&scope)).lock_owned().await;
        while let Some((draft, is_last)) = vault.plan_scope(&scope)? {
            if vault.rotate(draft).await?.is_some() && is_last {
                self.did(1);
            }
        }
        Ok(true)
    }
}

/// A search for scopes under keys of before, in order.
#[derive(Default)]
pub(super) struct Search {
    after: Option<Scope>,
    found: VecDeque<Scope>,
    found_any: bool,
}

impl Search {
    fn next(&mut self, vault: &Vault) -> Option<Scope> {
        while self.found.is_empty() {
            let state = vault.0.view.read();
            let generation = state.system_key()?.key.generation();
            let looked: Vec<&Arc<ScopeState>> = state.scopes_from("", self.after.as_ref()).take(LOOKED_AT).collect();
            self.after = Some(looked.last()?.name.clone());
            self.found =
                looked.iter().filter(|scope| is_old(scope, generation)).map(|scope| scope.name.clone()).collect();
            self.found_any |= !self.found.is_empty();
        }
        self.found.pop_front()
    }

    /// From the first scope on. Answers whether the search before found any.
    fn begin_again(&mut self) -> bool {
        std::mem::take(self).found_any
    }
}

impl Vault {
    fn plan_scope(&self, scope: &Scope) -> Result<Option<(Draft, bool)>, Error> {
        plan(&self.0.view.read(), scope)
    }
}

/// `generation` is that of the system's key, which is replaced first.
pub(super) fn is_old(scope: &ScopeState, generation: u32) -> bool {
    scope.key.has_old() || scope.key.generation() < generation
}

/// The next transaction of a scope and whether it is the last; `None` if nothing is left to do. Etags, versions, times and
/// environment revisions stay: only envelopes change.
fn plan(state: &State, name: &Scope) -> Result<Option<(Draft, bool)>, Error> {
    let (store, system) = (state.store(), system_key(state)?);
    let generation = system.key.generation();
    let Some(scope) = state.scope(name).filter(|scope| is_old(scope, generation)) else { return Ok(None) };
    let is_renewed = scope.key.generation() < generation;
    let renewed = if is_renewed { scope.key.renewed(generation)? } else { scope.key.without_old() };
    // What opens the old records has to seal the new ones: both keys, until the last step.
    let sealing = if is_renewed { &renewed } else { scope.key.as_ref() };
    let mut draft = Draft::on(state);
    draft.expect(&scope.at);
    draft.expect(&system.at);
    draft.expect(&header(state)?.at);
    let mut bytes = 0;
    let mut is_last = true;
    let mut resealed = Vec::new();
    for secret in scope.secrets.values().filter(|secret| !secret.record.is_current(sealing)) {
        bytes += secret.at.key.as_str().len() + secret.record.bytes().len();
        if resealed.len() == SECRETS || bytes > BYTES {
            is_last = false;
            break;
        }
        let record = secret.record.reseal(store, scope.uid, sealing, &secret.at.key)?;
        draft.expect(&secret.at);
        resealed.push(Change::Put(secret.at.key.clone(), record.bytes().clone()));
    }
    if is_renewed || is_last {
        let key = if is_last { &renewed.without_old() } else { &renewed };
        let record = key::scope_key(name);
        let wrapped = state.keyring().wrap_data_key(record.as_str(), scope.uid, key)?;
        draft.put(record, wrapped);
    }
    let record = ScopeRecord { uid: scope.uid.0.to_vec(), create_time: Some(scope.create_time) };
    draft.put(scope.at.key.clone(), seal_system(store, &system.key, &scope.at.key, &record.encode_to_vec())?);
    draft.changes.extend(resealed);
    Ok(Some((draft, is_last)))
}
