//! Which names an environment revision stood for. A revision tells nothing by itself; without this a change could only be
//! told as a whole.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use coffer_proto::name::VariableName;

use super::super::environment::Environment;
use crate::seal::Uid;

/// Names kept over all environments: about 100 bytes each.
const NAMES_MAX: usize = 200_000;
/// Environments kept: an empty one takes room, too.
const ENVIRONMENTS_MAX: usize = 20_000;

/// Each name of an environment, with what makes its value this one. In order.
type Names = Vec<(VariableName, Uid, u64)>;

/// The environments seen last.
#[derive(Default)]
pub(super) struct Environments {
    by_revision: HashMap<String, Arc<Names>>,
    order: VecDeque<String>,
    names: usize,
}

fn names(environment: &Environment) -> Names {
    let entries = environment.effective.iter();
    entries.map(|(variable, secret)| (variable.clone(), secret.entry.meta.uid, secret.entry.meta.version)).collect()
}

impl Environments {
    pub fn remember(&mut self, revision: &str, environment: &Environment) {
        if self.by_revision.contains_key(revision) {
            return;
        }
        let names = names(environment);
        self.names += names.len();
        self.by_revision.insert(revision.to_owned(), Arc::new(names));
        self.order.push_back(revision.to_owned());
        while self.names > NAMES_MAX || self.order.len() > ENVIRONMENTS_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.names -= self.by_revision.remove(&oldest).map_or(0, |names| names.len());
        }
    }

    /// The names added, removed or changed since then, in order.
    pub fn changed_since(&self, revision: &str, environment: &Environment) -> Option<Vec<VariableName>> {
        let old = self.by_revision.get(revision)?;
        let new = names(environment);
        let differs = |of: &Names, other: &Names| -> Vec<VariableName> {
            let kept = |entry: &&(VariableName, Uid, u64)| other.binary_search(entry).is_err();
            of.iter().filter(kept).map(|(variable, ..)| variable.clone()).collect()
        };
        let mut changed = differs(old, &new);
        changed.extend(differs(&new, old));
        changed.sort();
        changed.dedup();
        Some(changed)
    }
}
