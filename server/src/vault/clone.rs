//! Copies secrets into another scope: same names and values, resealed there, never shown. All or none.

use std::collections::{BTreeMap, BTreeSet};

use coffer_proto::{
    limits,
    name::{DeclarationKind, Scope, ScopeKind, SecretName, VariableName},
};

use super::{
    Call, Error, Vault,
    declared::{applying, provides},
    fields::Fields,
    secrets::{ShownSecret, check_room, find, permit_manage, secret_key, subject},
    write::{Context, Plan, line_of},
};
use crate::{
    record::{Kind, SecretMeta, SharedWith},
    seal::Uid,
    store::Expect,
    view::OwnedSecret,
};

/// Source scopes of one call: each is compared in the transaction.
const SOURCE_SCOPES_MAX: usize = 30;

/// Which secrets to copy where.
#[derive(Clone)]
pub struct Clone {
    /// One by one.
    pub names: Vec<SecretName>,
    /// All of these scopes.
    pub scopes: Vec<Scope>,
    /// Into this scope.
    pub destination: Scope,
    /// Over what is there.
    pub replace: bool,
    /// Into an organization: with whom the copies are shared, if that was said rightly.
    pub sharing: Result<Option<SharedWith>, Error>,
}

/// What now stands in the destination, and what does not.
pub struct Cloned {
    /// The copies, by name.
    pub secrets: Vec<ShownSecret>,
    /// What references of the sources' scopes use and the destination's environment lacks, in order.
    pub missing: Vec<VariableName>,
}

impl Vault {
    /// Copies secrets.
    pub async fn clone_secrets(&self, call: &Call, request: Clone) -> Result<Cloned, Error> {
        let line = line_of(&request.destination);
        let names = asked_for(&request);
        self.write(call, &line, names, move |context| plan(context, &request)).await
    }
}

fn asked_for(request: &Clone) -> Vec<String> {
    let names = request.names.iter().map(ToString::to_string);
    names.chain(request.scopes.iter().map(|scope| format!("{scope}/secrets/-"))).collect()
}

fn plan(context: &Context<'_>, request: &Clone) -> Result<Plan<Cloned>, Error> {
    let destination = &request.destination;
    let mut plan = Plan::new(&permit_manage(context, destination)?, ());
    let scopes: BTreeSet<&Scope> = request.names.iter().map(SecretName::scope).chain(&request.scopes).collect();
    // Each would be decided on its own, so the limit comes first; it tells nothing of any scope.
    if scopes.len() > SOURCE_SCOPES_MAX {
        return Err(Error::field("names", "must be of at most 30 scopes"));
    }
    for scope in &scopes {
        plan.also(&permit_manage(context, scope)?);
    }
    check_request(request, &scopes)?;
    let sharing = request.sharing.clone()?;
    let sources = sources(context, request)?;
    check_sources(request, sharing.as_ref(), &sources)?;
    for scope in &scopes {
        if let Some(state) = context.state.scope(scope) {
            plan.expect(state.at.key.clone(), Expect::At(state.at.revision));
        }
    }
    let target = plan.write_scope(context, destination)?;
    let old = |name: &SecretName| context.state.secret(destination, name.variable());
    let (mut more, mut bytes, mut freed) = (0, 0, 0);
    let mut shown = Vec::with_capacity(sources.len());
    for source in &sources {
        let name = SecretName::new(destination.clone(), source.variable.clone());
        let old = old(&name);
        let meta = copied_meta(context, source, old.as_ref(), destination, sharing.as_ref())?;
        let value = source.open(context.state.store())?;
        bytes += meta.value_bytes;
        match &old {
            Some(old) => {
                freed += old.entry.meta.value_bytes;
                plan.expect_if_few(sources.len(), old);
            }
            None => more += 1,
        }
        plan.put_secret(context, &target, &name, &meta, &value)?;
        plan.subjects.push(subject(&name, &meta));
        let value = (meta.kind == Kind::Plain).then_some(value);
        let last_used = old.map(|old| context.vault.last_used(context.state, &old)).unwrap_or_default();
        shown.push(ShownSecret { name, meta, value, last_used });
    }
    check_room(context, destination, &target, more, bytes, freed)?;
    plan.check_memory(context)?;
    plan.details.extend(asked_for(request).into_iter().map(|name| ("sources", name)));
    let missing = missing(context, &scopes, destination, &sources);
    Ok(plan.with_answer(Cloned { secrets: shown, missing }))
}

/// What references of the sources' scopes use and the destination will lack. A destination that is new and inherits will
/// have its parent's secrets.
fn missing(
    context: &Context<'_>,
    scopes: &BTreeSet<&Scope>,
    destination: &Scope,
    copied: &[OwnedSecret],
) -> Vec<VariableName> {
    let copied: BTreeSet<_> = copied.iter().map(|secret| &secret.variable).collect();
    let references = scopes.iter().flat_map(|scope| applying(context.state, DeclarationKind::Reference, scope));
    let used: BTreeSet<_> = references.flat_map(|reference| &reference.variables).map(|used| &used.variable).collect();
    let lacking = used.into_iter().filter(|name| !copied.contains(name) && !provides(context.state, destination, name));
    lacking.take(limits::MISSING_NAMED).cloned().collect()
}

fn check_request(request: &Clone, scopes: &BTreeSet<&Scope>) -> Result<(), Error> {
    let mut fields = Fields::new();
    if scopes.is_empty() {
        fields.wrong("names", "must name at least one secret");
    }
    if scopes.contains(&request.destination) {
        fields.wrong("destination", "must not be a source's own scope");
    }
    fields.finish()
}

/// The secrets asked for, by name. Each name once: two of them would fight for one place.
fn sources(context: &Context<'_>, request: &Clone) -> Result<Vec<OwnedSecret>, Error> {
    let mut found: BTreeMap<_, OwnedSecret> = BTreeMap::new();
    let mut add = |secret: OwnedSecret| {
        let before = found.insert(secret.variable.clone(), secret.clone());
        if before.is_some_and(|before| before.name() != secret.name()) {
            let twice = format!("{} is named twice; it can be cloned from one scope only", secret.variable);
            return Err(Error::field("names", twice));
        }
        Ok(())
    };
    for scope in &request.scopes {
        let state = context.state.scope(scope).ok_or_else(|| Error::ScopeNotFound(scope.clone()))?;
        state.owned_secrets().try_for_each(&mut add)?;
    }
    for name in &request.names {
        add(find(context.state, name)?)?;
    }
    if found.is_empty() {
        return Err(Error::field("names", "the scope has no secrets to clone"));
    }
    if found.len() as u64 > limits::SCOPE_SECRETS {
        return Err(Error::field("names", "must be at most 1,000 secrets"));
    }
    let mut refused = found.values().filter(|secret| !secret.entry.meta.clonable).map(OwnedSecret::name).peekable();
    if refused.peek().is_some() {
        return Err(Error::NotClonable(refused.collect()));
    }
    if !request.replace {
        let names = found.keys().filter(|variable| context.state.secret(&request.destination, variable).is_some());
        let taken: Vec<_> =
            names.map(|variable| SecretName::new(request.destination.clone(), variable.clone())).collect();
        if !taken.is_empty() {
            return Err(Error::SecretExists(taken));
        }
    }
    Ok(found.into_values().collect())
}

/// What was shared with a few must not be shared with all by being copied.
fn check_sources(request: &Clone, sharing: Option<&SharedWith>, sources: &[OwnedSecret]) -> Result<(), Error> {
    let restricted = |secret: &OwnedSecret| matches!(secret.entry.meta.sharing, Some(SharedWith::Only(_)));
    let into_organization = request.destination.kind() == ScopeKind::Organization;
    match sources.iter().find(|secret| into_organization && sharing.is_none() && restricted(secret)) {
        Some(secret) => Err(Error::field(
            "sharing",
            format!("must be given: {} is shared with some workspaces only", secret.name()),
        )),
        None => Ok(()),
    }
}

fn copied_meta(
    context: &Context<'_>,
    source: &OwnedSecret,
    old: Option<&OwnedSecret>,
    destination: &Scope,
    sharing: Option<&SharedWith>,
) -> Result<SecretMeta, Error> {
    let mut meta = source.entry.meta.clone();
    meta.cloned_from = source.name().to_string();
    meta.updated = context.stamp();
    meta.value_time = meta.updated.time;
    meta.locked = meta.locked && destination.kind().has_locks();
    meta.sharing = (destination.kind() == ScopeKind::Organization).then(|| sharing.cloned().unwrap_or(SharedWith::All));
    match old {
        Some(old) => {
            meta.uid = old.entry.meta.uid;
            meta.version = old.entry.meta.version + 1;
            meta.generation = old.entry.meta.generation + 1;
            meta.created = old.entry.meta.created.clone();
        }
        None => {
            meta.uid = Uid::random()?;
            meta.version = 1;
            meta.generation = 1;
            meta.created = context.stamp();
        }
    }
    Ok(meta)
}

impl<T> Plan<T> {
    /// Compares a secret that is replaced. The scope's record already stands for all of them, so where there are
    /// many this is left to it; a delete between is then undone by the replacement, as if it had come first.
    pub(super) fn expect_if_few(&mut self, replaced: usize, old: &OwnedSecret) {
        const FEW: usize = 20;
        if replaced <= FEW {
            self.expect(secret_key(&old.name()), Expect::At(old.entry.at.revision));
        }
    }
}
