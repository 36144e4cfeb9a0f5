//! What a scope's owner should look at: what is missing, what nobody uses, what is old.

use std::{collections::BTreeSet, time::Duration};

use coffer_proto::{
    limits,
    name::{DeclarationKind, DeclarationName, Scope, SecretName, VariableName},
};

use super::{Call, Error, Vault, declared, guard, read::Answer, secrets::permit_read};
use crate::{
    seal::Uid,
    view::{Declared, OwnedSecret, State},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What counts as old and as unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthRequest {
    /// A value set longer ago is stale.
    pub stale_days: u32,
    /// A secret not used for longer is unused.
    pub unused_days: u32,
}

/// What to look at.
#[derive(Debug)]
pub struct Health {
    /// How many secrets the scope owns.
    pub secrets: u64,
    /// What declarations name and the environment lacks, in order; of very many the first.
    pub missing: Vec<Missing>,
    /// How many there are in all.
    pub missing_count: u64,
    /// What no reference names and nothing received for so long, by name, with when that last happened, in seconds; 0 if
    /// never.
    pub unused: Vec<(SecretName, i64)>,
    /// Whose values are so old, by name, with when they were set.
    pub stale: Vec<(SecretName, prost_types::Timestamp)>,
}

/// A variable that is not there.
#[derive(Debug)]
pub struct Missing {
    /// Its name.
    pub variable: VariableName,
    /// What names it; a manifest if there is one.
    pub declared_by: DeclarationName,
    /// What a manifest says of it.
    pub description: String,
}

impl Vault {
    /// Looks a scope over, whether or not it exists.
    pub async fn scope_health(
        &self,
        call: &Call,
        scope: Scope,
        fields: Result<HealthRequest, Error>,
    ) -> Result<Health, Error> {
        let now = self.now();
        let before = |days: u32| {
            // Before 1970 there was nothing.
            let time = now.checked_sub(DAY * days).unwrap_or(std::time::UNIX_EPOCH);
            prost_types::Timestamp::from(time).seconds
        };
        self.read(call, vec![scope.to_string()], |state, caller| {
            let permit = permit_read(state, caller, &scope)?;
            let request = fields?;
            let (stale, unused) = (before(request.stale_days), before(request.unused_days));
            let (missing, missing_count) = missing(state, &scope);
            let mut health = Health { secrets: 0, missing, missing_count, unused: Vec::new(), stale: Vec::new() };
            let used = used(state, &scope);
            for secret in state.scope(&scope).into_iter().flat_map(|scope| scope.owned_secrets()) {
                let meta = &secret.entry.meta;
                let last_used = self.last_used(state, &secret);
                let last_used = last_used.injected.max(last_used.rendered);
                health.secrets += 1;
                if meta.created.time.seconds < unused && last_used < unused && !used.contains(&meta.uid) {
                    health.unused.push((secret.name(), last_used));
                }
                if meta.value_time.seconds < stale {
                    health.stale.push((secret.name(), meta.value_time));
                }
            }
            Ok(Answer::new(&permit, health))
        })
        .await
    }
}

/// What manifests require and references use and the environment lacks; and how much of it there is.
fn missing(state: &State, scope: &Scope) -> (Vec<Missing>, u64) {
    let mut needed = declared::needed(state, DeclarationKind::Reference, scope);
    // Of a name that both have, the manifest says more.
    needed.extend(declared::needed(state, DeclarationKind::Manifest, scope));
    needed.retain(|variable, _| !declared::provides(state, scope, variable));
    let count = needed.len() as u64;
    let named = needed.into_iter().take(limits::MISSING_NAMED).map(|(variable, (by, declared))| Missing {
        variable: variable.clone(),
        declared_by: by.name.clone(),
        description: declared.description.clone(),
    });
    (named.collect(), count)
}

/// The secrets of a scope that references use, there or below.
fn used(state: &State, scope: &Scope) -> BTreeSet<Uid> {
    let own = declared::applying(state, DeclarationKind::Reference, scope).flat_map(|reference| &reference.variables);
    let own = own.filter_map(|used| state.secret(scope, &used.variable));
    let owned = |used: &Declared| state.scope(scope).is_some_and(|scope| scope.secrets.contains_key(&used.variable));
    let below = guard::below(state, scope, |reference| reference.variables.iter().any(owned)).flat_map(|reference| {
        let secrets = reference.variables.iter().filter_map(|used| state.secret(scope, &used.variable));
        secrets.filter(|secret| guard::reaches(state, secret, reference.name.pattern())).collect::<Vec<OwnedSecret>>()
    });
    own.chain(below).map(|secret| secret.entry.meta.uid).collect()
}
