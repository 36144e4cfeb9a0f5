//! What references and manifests say of one scope: those that stand on it and those on patterns that cover it.

use std::{collections::BTreeMap, sync::Arc};

use coffer_proto::name::{DeclarationKind, Scope, VariableName};

use super::environment::{Environment, is_shared_with};
use crate::{
    access::{Target, covering},
    view::{Declaration, Declared, State},
};

/// Names, each with the first declaration that has it, and what that one says of it.
pub(super) type Found<'a> = BTreeMap<&'a VariableName, (&'a Declaration, &'a Declared)>;

/// The references or manifests that apply to a scope.
pub(super) fn applying<'a>(
    state: &'a State,
    kind: DeclarationKind,
    scope: &Scope,
) -> impl Iterator<Item = &'a Arc<Declaration>> + use<'a> {
    let patterns = covering(&Target::Scope(scope));
    patterns.into_iter().flat_map(move |pattern| state.declarations_on(kind, &pattern).collect::<Vec<_>>())
}

/// The names that those of a kind use or require.
pub(super) fn needed<'a>(state: &'a State, kind: DeclarationKind, scope: &Scope) -> Found<'a> {
    let mut needed = BTreeMap::new();
    for declaration in applying(state, kind, scope) {
        let counts = |declared: &&Declared| kind == DeclarationKind::Reference || declared.required;
        for declared in declaration.variables.iter().filter(counts) {
            needed.entry(&declared.variable).or_insert((declaration.as_ref(), declared));
        }
    }
    needed
}

/// Whether the environment of a scope has a name: its own, or one that is shared with it.
pub(super) fn provides(state: &State, scope: &Scope, variable: &VariableName) -> bool {
    let inherited =
        || scope.inherits_from().and_then(|parent| state.secret(&parent, variable)).map(|s| is_shared_with(&s, scope));
    state.secret(scope, variable).is_some() || inherited() == Some(true)
}

/// How many names manifests require of a scope and its environment lacks.
pub(super) fn missing_count(state: &State, scope: &Scope) -> u64 {
    let required = needed(state, DeclarationKind::Manifest, scope);
    required.into_keys().filter(|variable| !provides(state, scope, variable)).count() as u64
}

/// The names that manifests require of a scope and this environment of it lacks, in order.
pub(super) fn missing_required(state: &State, scope: &Scope, environment: &Environment) -> Vec<VariableName> {
    let required = needed(state, DeclarationKind::Manifest, scope).into_keys();
    required.filter(|variable| !environment.effective.contains_key(variable)).cloned().collect()
}
