//! Who is told that something was changed. A watch listens to the few names it rests on, and is woken when one of them is
//! touched; what is there then, it looks up itself. So a listener costs next to nothing and never falls behind.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use coffer_proto::name::{Scope, Workload};
use tokio::sync::Notify;

use super::State;
use crate::{
    record::key::{self, Kind},
    store::{Change, Commit, Key},
};

/// Everybody who listens to a view.
#[derive(Default)]
pub(super) struct Listeners(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    next: u64,
    /// By what they listen to: a scope's name or a principal's, which are never the same.
    by_name: BTreeMap<(Arc<str>, u64), Arc<Notify>>,
    /// Those who listen to many scopes and the starts in them.
    below: HashMap<u64, (Place, Arc<Notify>)>,
}

/// Scopes, with all that happens in them: one, or all whose names begin with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    text: String,
    is_one: bool,
}

/// Somebody who listens, until dropped.
pub struct Listening {
    listeners: Arc<Listeners>,
    id: u64,
    names: Vec<Arc<str>>,
    is_below: bool,
    bell: Arc<Notify>,
}

/// What a commit touches.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// Scopes whose own record or secrets changed.
    scopes: Vec<String>,
    /// Principals whose grants changed or whose tokens ended.
    principals: Vec<String>,
    /// Scopes where something was started.
    started: Vec<String>,
}

impl Place {
    /// One scope.
    pub fn one(scope: &Scope) -> Self {
        Self { text: scope.to_string(), is_one: true }
    }

    /// All scopes whose names begin so.
    pub fn prefix(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_one: false }
    }

    fn has(&self, scope: &str) -> bool {
        if self.is_one { scope == self.text } else { scope.starts_with(&self.text) }
    }

    /// Whether workloads in it may receive something of a scope: its own, or inherited.
    fn rests_on(&self, scope: &str) -> bool {
        let is_above = self.text.strip_prefix(scope).is_some_and(|rest| rest.starts_with('/'));
        is_above || self.has(scope)
    }
}

impl Touched {
    /// Of a commit that is about to be applied to this state.
    pub fn by(commit: &Commit, state: &State) -> Self {
        let mut touched = Self::default();
        for change in commit.changes.iter() {
            match change {
                Change::Put(key, _) if key.as_str().starts_with("token/") => {}
                Change::Put(key, _) | Change::Delete(key) => touched.add(key),
                Change::DeletePrefix(prefix) => touched.add_below(prefix, state),
            }
        }
        for names in [&mut touched.scopes, &mut touched.principals, &mut touched.started] {
            names.sort();
            names.dedup();
        }
        touched
    }

    fn add(&mut self, record: &Key) {
        match key::parse(record) {
            Some(Kind::Scope(scope) | Kind::ScopeKey(scope) | Kind::Secret(scope, _)) => {
                self.scopes.push(scope.to_string());
            }
            Some(Kind::Grant | Kind::Token) => self.principals.extend(key::principal(record).map(str::to_owned)),
            Some(Kind::Starts(workload)) => self.started.push(workload.scope().to_string()),
            // Nothing that an environment, a right or a start rests on.
            Some(Kind::Header | Kind::Digest | Kind::SystemKey | Kind::Rotation) => {}
            Some(Kind::Declaration(_) | Kind::Pattern(_) | Kind::Used(_)) | None => {}
        }
    }

    fn add_below(&mut self, prefix: &Key, state: &State) {
        let text = prefix.as_str();
        if let Some(scope) = text.strip_prefix("secret/").and_then(|rest| rest.strip_suffix(':')) {
            self.scopes.push(scope.to_owned());
        } else if text.starts_with("grant/") {
            state.grants_from(text, "").for_each(|(key, _)| self.add(key));
        } else if text.starts_with("token/") {
            state.tokens_from(text, "").for_each(|(key, _)| self.add(key));
        } else if text.starts_with("start/") {
            state.starts_below(text).iter().for_each(|key| self.add(key));
        }
    }
}

impl Listeners {
    /// Listens to these names from here on.
    pub fn names(self: &Arc<Self>, names: Vec<Arc<str>>) -> Listening {
        self.listen(names, None)
    }

    /// Listens to these names, and to a place with all that it rests on and all that is started in it.
    pub fn place(self: &Arc<Self>, names: Vec<Arc<str>>, place: Place) -> Listening {
        self.listen(names, Some(place))
    }

    fn listen(self: &Arc<Self>, names: Vec<Arc<str>>, place: Option<Place>) -> Listening {
        let bell = Arc::new(Notify::new());
        let mut inner = self.inner();
        let id = inner.next;
        inner.next += 1;
        for name in &names {
            inner.by_name.insert((Arc::clone(name), id), Arc::clone(&bell));
        }
        let is_below = place.is_some();
        if let Some(place) = place {
            inner.below.insert(id, (place, Arc::clone(&bell)));
        }
        drop(inner);
        Listening { listeners: Arc::clone(self), id, names, is_below, bell }
    }

    /// Wakes those concerned.
    pub fn tell(&self, touched: &Touched) {
        let inner = self.inner();
        for name in touched.scopes.iter().chain(&touched.principals) {
            inner.wake(name);
        }
        for (place, bell) in inner.below.values() {
            let is_touched = touched.scopes.iter().any(|scope| place.rests_on(scope))
                || touched.started.iter().any(|scope| place.has(scope));
            if is_touched {
                bell.notify_one();
            }
        }
    }

    /// Wakes everybody: what was changed is not known.
    pub fn tell_all(&self) {
        let inner = self.inner();
        inner.by_name.values().for_each(|bell| bell.notify_one());
        inner.below.values().for_each(|(_, bell)| bell.notify_one());
    }

    /// A workload was started, which may not be in the store yet.
    pub fn tell_start(&self, workload: &Workload) {
        let scope = workload.scope().as_str();
        for (_, bell) in self.inner().below.values().filter(|(place, _)| place.has(scope)) {
            bell.notify_one();
        }
    }

    /// How many entries are kept of those who listen.
    pub fn count(&self) -> usize {
        let inner = self.inner();
        inner.by_name.len() + inner.below.len()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn wake(&self, name: &str) {
        let name: Arc<str> = name.into();
        let bells = self.by_name.range((Arc::clone(&name), 0)..=(name, u64::MAX));
        bells.for_each(|(_, bell)| bell.notify_one());
    }
}

impl Listening {
    /// Waits until something was touched since it was last told, or since it began to listen.
    pub async fn heard(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut inner = self.listeners.inner();
        for name in std::mem::take(&mut self.names) {
            inner.by_name.remove(&(name, self.id));
        }
        if self.is_below {
            inner.below.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn touched(scopes: &[&str], started: &[&str]) -> Touched {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Touched { scopes: owned(scopes), principals: Vec::new(), started: owned(started) }
    }

    async fn is_told(listening: &Listening) -> bool {
        timeout(Duration::ZERO, listening.heard()).await.is_ok()
    }

    #[tokio::test]
    async fn only_those_concerned_are_told_and_nothing_is_kept_of_those_who_left() {
        let listeners = Arc::new(Listeners::default());
        let one = listeners.names(vec!["projects/p".into(), "users/a".into()]);
        let other = listeners.names(vec!["projects/pp".into(), "users/a".into()]);
        listeners.tell(&touched(&["projects/p"], &[]));
        listeners.tell(&touched(&["projects/p"], &[]));
        assert_eq!((is_told(&one).await, is_told(&other).await), (true, false));
        assert!(!is_told(&one).await, "told once of both");
        listeners.tell(&Touched { principals: vec!["users/a".to_owned()], ..Touched::default() });
        assert_eq!((is_told(&one).await, is_told(&other).await), (true, true));
        listeners.tell_all();
        drop(one);
        assert!(is_told(&other).await);
        drop(other);
        assert_eq!(listeners.count(), 0);
    }

    #[tokio::test]
    async fn a_place_hears_of_its_scopes_of_what_they_inherit_and_of_starts() {
        let listeners = Arc::new(Listeners::default());
        let below = listeners.place(Vec::new(), Place::prefix("organizations/o/workspaces/"));
        let one = listeners.place(Vec::new(), Place::one(&Scope::parse("projects/p").expect("a scope")));
        for (scopes, started, told) in [
            (&["organizations/o/workspaces/w"][..], &[][..], (true, false)),
            (&["organizations/o"], &[], (true, false)),
            (&["organizations/other"], &[], (false, false)),
            (&["projects/p"], &[], (false, true)),
            (&["projects/p/environments/e"], &[], (false, false)),
            (&[], &["projects/p"], (false, true)),
            (&[], &["organizations/o"], (false, false)),
        ] {
            listeners.tell(&touched(scopes, started));
            assert_eq!((is_told(&below).await, is_told(&one).await), told, "{scopes:?} {started:?}");
        }
        let server = Workload::parse("organizations/o/workspaces/w/servers/s").expect("a workload");
        listeners.tell_start(&server);
        assert_eq!((is_told(&below).await, is_told(&one).await), (true, false));
    }
}
