//! The environments of scopes as watches see them: revisions and names, worked out once for as long as nothing that
//! they rest on changes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use coffer_proto::name::Scope;

use super::super::{Environment, Error, Vault, soft::Names};
use crate::{
    seal::{Uid, digest::DigestKey},
    store::{Epoch, Revision},
    view::State,
};

/// Names kept over all scopes: about 100 bytes each.
const NAMES_MAX: usize = 200_000;
/// Scopes kept.
const SCOPES_MAX: usize = 20_000;

/// An environment's revision and names.
#[derive(Debug)]
pub(in crate::vault) struct Resolved {
    pub revision: String,
    pub names: Arc<Names>,
}

/// Changes with every write of a scope or of what it inherits from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vault) struct Stamp {
    epoch: Epoch,
    own: Option<(Uid, Revision)>,
    inherited: Option<(Uid, Revision)>,
}

/// The environments worked out last.
#[derive(Default)]
pub(in crate::vault) struct Resolutions(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    by_scope: HashMap<Scope, (Stamp, Arc<Resolved>)>,
    names: usize,
}

/// What was found under the view's guard; the rest is worked out without it.
pub(in crate::vault) struct Found {
    stamp: Stamp,
    scope: Scope,
    what: What,
}

enum What {
    Known(Arc<Resolved>),
    New(Environment, Arc<DigestKey>),
}

impl Stamp {
    pub fn of(state: &State, scope: &Scope) -> Self {
        let stand = |scope: &Scope| state.scope(scope).map(|scope| (scope.uid, scope.changed));
        let inherited = scope.inherits_from().and_then(|parent| stand(&parent));
        Self { epoch: state.position().epoch, own: stand(scope), inherited }
    }
}

impl Resolutions {
    fn known(&self, scope: &Scope, stamp: Stamp) -> Option<Arc<Resolved>> {
        let inner = self.inner();
        let (known, resolved) = inner.by_scope.get(scope)?;
        (*known == stamp).then(|| Arc::clone(resolved))
    }

    fn keep(&self, scope: Scope, stamp: Stamp, resolved: &Arc<Resolved>) {
        let mut inner = self.inner();
        if inner.names + resolved.names.len() > NAMES_MAX || inner.by_scope.len() >= SCOPES_MAX {
            // What is still needed is worked out again.
            *inner = Inner::default();
        }
        inner.names += resolved.names.len();
        if let Some((_, old)) = inner.by_scope.insert(scope, (stamp, Arc::clone(resolved))) {
            inner.names -= old.names.len();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vault {
    /// Looks a scope's environment up, under the guard that `state` is from.
    pub(in crate::vault) fn find(&self, state: &State, scope: &Scope) -> Result<Found, Error> {
        let stamp = Stamp::of(state, scope);
        let what = match self.0.resolutions.known(scope, stamp) {
            Some(known) => What::Known(known),
            None => {
                let key = state.digest_key().ok_or_else(|| Error::Internal("no digest key is loaded".into()))?;
                What::New(Environment::of(state, scope), Arc::clone(key))
            }
        };
        Ok(Found { stamp, scope: scope.clone(), what })
    }

    /// Works out what was found. Takes the longer, the more names there are: call it without a guard.
    pub(in crate::vault) fn resolve(&self, found: Found) -> Arc<Resolved> {
        match found.what {
            What::Known(known) => known,
            What::New(environment, key) => {
                let names = Arc::new(Names::of(&environment));
                let resolved = Arc::new(Resolved { revision: environment.revision_by(&key), names });
                self.0.resolutions.keep(found.scope, found.stamp, &resolved);
                // Whoever comes back with this revision is told what changed since.
                self.remember(&resolved.revision, &resolved.names);
                resolved
            }
        }
    }
}
