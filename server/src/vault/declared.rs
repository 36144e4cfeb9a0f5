//! What references and manifests say of one scope: those that stand on it and those on patterns that cover it.

use std::{collections::BTreeMap, sync::Arc};

use coffer_proto::name::{DeclarationKind, Scope, VariableName};

use super::environment::Environment;
use crate::{
    access::{Target, covering},
    view::{Declaration, Declared, State},
};

/// The references or manifests that apply to a scope.
pub(super) fn applying<'a>(
    state: &'a State,
    kind: DeclarationKind,
    scope: &Scope,
) -> impl Iterator<Item = &'a Arc<Declaration>> + use<'a> {
    let patterns = covering(&Target::Scope(scope));
    patterns.into_iter().flat_map(move |pattern| state.declarations_on(kind, &pattern).collect::<Vec<_>>())
}

/// What manifests require of a scope and its environment lacks, each with one manifest that says so.
pub(super) fn missing<'a>(
    state: &'a State,
    scope: &Scope,
    environment: &Environment,
) -> BTreeMap<&'a VariableName, (&'a Declaration, &'a Declared)> {
    let mut missing = BTreeMap::new();
    for manifest in applying(state, DeclarationKind::Manifest, scope) {
        let lacking = manifest.variables.iter();
        let lacking =
            lacking.filter(|declared| declared.required && !environment.effective.contains_key(&declared.variable));
        for declared in lacking {
            missing.entry(&declared.variable).or_insert((manifest.as_ref(), declared));
        }
    }
    missing
}

/// Their names, in order.
pub(super) fn missing_required(state: &State, scope: &Scope, environment: &Environment) -> Vec<VariableName> {
    missing(state, scope, environment).into_keys().cloned().collect()
}
