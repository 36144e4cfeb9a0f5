//! Which names an environment revision stood for. A revision tells nothing by itself; without this a change could only be
//! told as a whole.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use coffer_proto::name::VariableName;

use super::super::environment::Environment;
use crate::{seal::Uid, view::OwnedSecret};

/// Names kept over all environments: about 100 bytes each.
const NAMES_MAX: usize = 200_000;
/// Environments kept: an empty one takes room, too.
const ENVIRONMENTS_MAX: usize = 20_000;

/// Each name of an environment, with what makes its value this one. In order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::vault) struct Names(Vec<(VariableName, Uid, u64)>);

/// The environments seen last.
#[derive(Default)]
pub(super) struct Environments {
    by_revision: HashMap<String, Arc<Names>>,
    order: VecDeque<String>,
    names: usize,
}

impl Names {
    pub fn of(environment: &Environment) -> Self {
        let entries = environment.effective.iter();
        let entry = |(variable, secret): (&VariableName, &OwnedSecret)| {
            (variable.clone(), secret.entry.meta.uid, secret.entry.meta.version)
        };
        Self(entries.map(entry).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The names added, removed or changed from these to others, in order.
    pub fn changed(&self, new: &Names) -> Vec<VariableName> {
        let differs = |of: &Names, other: &Names| -> Vec<VariableName> {
            let kept = |entry: &&(VariableName, Uid, u64)| other.0.binary_search(entry).is_err();
            of.0.iter().filter(kept).map(|(variable, ..)| variable.clone()).collect()
        };
        let mut changed = differs(self, new);
        changed.extend(differs(new, self));
        changed.sort();
        changed.dedup();
        changed
    }
}

impl Environments {
    pub fn knows(&self, revision: &str) -> bool {
        self.by_revision.contains_key(revision)
    }

    pub fn remember(&mut self, revision: &str, names: &Arc<Names>) {
        if self.by_revision.contains_key(revision) {
            return;
        }
        self.names += names.len();
        self.by_revision.insert(revision.to_owned(), Arc::clone(names));
        self.order.push_back(revision.to_owned());
        while self.names > NAMES_MAX || self.order.len() > ENVIRONMENTS_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.names -= self.by_revision.remove(&oldest).map_or(0, |names| names.len());
        }
    }

    /// The names added, removed or changed since then, in order.
    pub fn changed_since(&self, revision: &str, new: &Names) -> Option<Vec<VariableName>> {
        Some(self.by_revision.get(revision)?.changed(new))
    }
}
