//! What keeps a secret from being deleted: references that use it.
//!
//! A reference uses a secret of its own scope by its name, whatever overrules it now: what overrules can go without asking
//! this one. It uses a secret of the parent where that is what the name stands for in its scope. Of a pattern's scopes
//! nobody asks which have a secret of their own: it uses whatever of a parent reaches one of them.

use std::collections::BTreeSet;

use coffer_proto::name::{
    DeclarationKind, DeclarationName, Permission, Scope, ScopeKind, ScopePattern, VariableName, WILDCARD,
};

use super::{
    Error,
    declared::applying,
    write::{Context, Plan},
};
use crate::{
    access::{self, Target, covering},
    record::SharedWith,
    view::{Declaration, OwnedSecret, State},
};

/// Refuses the deletion of a secret that references use, and compares what must stand as it does for none to have come
/// between.
pub(super) fn check<T>(context: &Context<'_>, plan: &mut Plan<T>, secret: &OwnedSecret) -> Result<(), Error> {
    let state = context.state;
    let scope = &secret.scope.name;
    let mut users: Vec<(&DeclarationName, bool)> = Vec::new();
    // Whoever may delete the secret may list what applies to its scope.
    let own = applying(state, DeclarationKind::Reference, scope).filter(|reference| names(reference, &secret.variable));
    users.extend(own.map(|reference| (&reference.name, true)));
    for reference in below(state, scope, |reference| names(reference, &secret.variable)) {
        let pattern = reference.name.pattern();
        if reaches(state, secret, pattern) {
            let target = Target::Scopes(pattern);
            let is_shown = access::permit(state, context.caller, Permission::SecretsRead, &target).is_some();
            users.push((&reference.name, is_shown));
        }
    }
    if !users.is_empty() {
        let hidden = users.iter().filter(|(_, is_shown)| !is_shown).count();
        let mut by: Vec<_> =
            users.into_iter().filter(|(_, is_shown)| *is_shown).map(|(name, _)| name.clone()).collect();
        by.sort();
        return Err(Error::SecretReferenced { by, hidden });
    }
    compared(scope).iter().for_each(|pattern| plan.expect_pattern(state, pattern));
    Ok(())
}

/// The patterns of which every reference that may use a secret of this scope puts one's record, but for those on the scope
/// itself, which put its own. At most four.
fn compared(scope: &Scope) -> BTreeSet<ScopePattern> {
    let covering = covering(&Target::Scope(scope));
    let heirs = heirs(scope.kind());
    let below = covering.iter().filter_map(|pattern| Some(format!("{pattern}/{}/{WILDCARD}", heirs?)));
    let patterns = covering.iter().cloned().chain(below).filter_map(|text| ScopePattern::parse(&text).ok());
    patterns.filter(ScopePattern::is_wildcard).collect()
}

/// The collection of the scopes that inherit from one of this kind.
fn heirs(kind: ScopeKind) -> Option<&'static str> {
    match kind {
        ScopeKind::Organization => Some("workspaces"),
        ScopeKind::Project => Some("environments"),
        ScopeKind::Workspace | ScopeKind::Environment | ScopeKind::Account | ScopeKind::Plugin => None,
    }
}

/// The references on scopes that inherit from this one, and on patterns of which one may, that are `wanted`.
pub(super) fn below<'a>(
    state: &'a State,
    scope: &Scope,
    wanted: impl Fn(&Declaration) -> bool + Copy + 'a,
) -> impl Iterator<Item = &'a Declaration> {
    let is_parent = heirs(scope.kind()).is_some();
    let parents = covering(&Target::Scope(scope)).into_iter().filter(move |_| is_parent);
    let kind = DeclarationKind::Reference;
    parents
        .flat_map(move |parent| state.declarations_below(kind, &parent, wanted).map(AsRef::as_ref).collect::<Vec<_>>())
}

fn names(reference: &Declaration, variable: &VariableName) -> bool {
    reference.variables.binary_search_by(|declared| declared.variable.cmp(variable)).is_ok()
}

/// Whether the name of a parent's secret stands for it in a scope below, or may in one of a pattern's.
pub(super) fn reaches(state: &State, secret: &OwnedSecret, below: &ScopePattern) -> bool {
    let id = below.as_str().rsplit_once('/').map_or("", |(_, id)| id);
    let is_shared = match &secret.entry.meta.sharing {
        None | Some(SharedWith::All) => true,
        Some(SharedWith::Only(ids)) if id == WILDCARD => !ids.is_empty(),
        Some(SharedWith::Only(ids)) => ids.binary_search_by(|only| only.as_str().cmp(id)).is_ok(),
    };
    let is_shadowed = || below.as_scope().is_some_and(|child| state.secret(&child, &secret.variable).is_some());
    is_shared && (secret.entry.meta.locked || !is_shadowed())
}
