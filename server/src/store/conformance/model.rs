//! The model that concurrent transactions are compared with.

use super::*;

/// What records and commits come to, computed in the plainest way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model(pub(super) BTreeMap<Key, (Revision, Arc<[u8]>)>);

impl Model {
    pub(super) fn of(records: Vec<Record>) -> Self {
        Self(records.into_iter().map(|record| (record.key, (record.revision, record.value))).collect())
    }

    pub(super) fn apply(&mut self, commit: &crate::store::Commit) {
        for change in commit.changes.iter() {
            match change {
                Change::Put(key, value) => {
                    drop(self.0.insert(key.clone(), (commit.position.revision, Arc::clone(value))))
                }
                Change::Delete(key) => drop(self.0.remove(key)),
                Change::DeletePrefix(prefix) => self.0.retain(|key, _| !key.as_str().starts_with(prefix.as_str())),
            }
        }
    }

    /// Applies what a follower saw, which is what was given, or comes to the same.
    pub(super) fn follow(&mut self, backend: &dyn Backend, seen: &crate::store::Commit, given: &[Change]) {
        let mut as_given = self.clone();
        as_given.apply(&crate::store::Commit { changes: given.into(), ..seen.clone() });
        self.apply(seen);
        assert_eq!(*self, as_given, "{}", seen.position);
        assert!(backend.tells_effects() || *seen.changes == *given, "{}: {:?}", seen.position, seen.changes);
    }

    pub(super) fn first_conflict(&self, expectations: &[(Key, Expect)]) -> Option<Conflict> {
        let found = |key: &Key, expect: Expect| {
            let mut keys = self.0.iter().filter(|(other, _)| match expect {
                Expect::NoneBelow => other.as_str().starts_with(key.as_str()),
                _ => *other == key,
            });
            keys.next().map(|(_, (revision, _))| *revision)
        };
        let (key, expect) = expectations.iter().find(|(key, expect)| !expect.holds(found(key, *expect)))?;
        Some(Conflict { key: key.clone(), found: found(key, *expect) })
    }
}
