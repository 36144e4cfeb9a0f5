//! Which keys may stand beside each other. Whoever writes the store can put any record of before back as it was; it must
//! not make a key that was rotated away count again beside one that came after.
//!
//! - The system's key, which makes grants and tokens, is under the current root key: it is wrapped anew with the header.
//! - There is a root key of before, and data keys of scopes under it, only while a rotation of the root key goes on.
//! - The system's key is of the last rotation of data keys, and all others are, too, but while that goes on.

use coffer_proto::name::Scope;

use super::{Error, State};
use crate::{
    record::{self, key},
    seal::{DataKey, KeyId, Keyring},
    store::{Commit, Key},
};

/// A data key, and the root key that wraps it.
#[derive(Clone, Copy)]
pub(super) struct Standing<'a> {
    pub key: &'a DataKey,
    pub root: KeyId,
}

/// What the record of the last rotation says of keys.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recorded {
    pub is_root_under_way: bool,
    pub is_data_under_way: bool,
    pub generation: u32,
}

/// What the keys of scopes are held against.
pub(super) struct Ground<'a> {
    pub keyring: &'a Keyring,
    pub system: Standing<'a>,
    pub recorded: Recorded,
}

impl Ground<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let Self { keyring, system, recorded } = self;
        if system.root != keyring.root_id() {
            return Err(of_before(Key::new(key::SYSTEM_KEY)));
        }
        // These are put with the record of the rotation, at its beginning and at its end.
        let is_recorded = keyring.has_old_root() == recorded.is_root_under_way
            && system.key.has_old() == recorded.is_data_under_way
            && system.key.generation() == recorded.generation;
        if is_recorded { Ok(()) } else { Err(of_before(Key::new(key::ROTATION))) }
    }

    pub(super) fn check_scope(&self, scope: &Scope, standing: Standing<'_>) -> Result<(), Error> {
        let Self { keyring, system, recorded } = self;
        let is_rooted = standing.root == keyring.root_id() || recorded.is_root_under_way;
        let (own, newest) = (standing.key.generation(), system.key.generation());
        let is_of_now = own == newest && !standing.key.has_old() || recorded.is_data_under_way && own <= newest;
        if is_rooted && is_of_now { Ok(()) } else { Err(of_before(key::scope_key(scope))) }
    }
}

fn of_before(key: Key) -> Error {
    Error::Damaged { key, error: record::Error::KeyOfBefore }
}

impl State {
    /// Whether all keys may stand beside each other.
    pub(super) fn check_keys(&self) -> Result<(), Error> {
        let Some(ground) = self.ground() else { return Ok(()) };
        ground.check()?;
        self.keys.iter().try_for_each(|(scope, key)| ground.check_scope(scope, key.standing()))
    }

    /// The same, after a commit: of what it can have changed.
    pub(super) fn check_keys_of(&self, commit: &Commit) -> Result<(), Error> {
        let touched = || commit.changes.iter().filter_map(|change| key::parse(change.key()));
        let is_ground =
            |kind: &key::Kind| matches!(kind, key::Kind::Header | key::Kind::SystemKey | key::Kind::Rotation);
        if touched().any(|kind| is_ground(&kind)) {
            return self.check_keys();
        }
        let Some(ground) = self.ground() else { return Ok(()) };
        let scopes = touched().filter_map(|kind| match kind {
            key::Kind::ScopeKey(scope) => Some(scope),
            _ => None,
        });
        let known = scopes.filter_map(|scope| self.keys.get(&scope).map(|key| (scope, key)));
        known.into_iter().try_for_each(|(scope, key)| ground.check_scope(&scope, key.standing()))
    }

    fn ground(&self) -> Option<Ground<'_>> {
        let system = self.system.as_ref()?;
        Some(Ground {
            keyring: &self.keyring,
            system: Standing { key: &system.key, root: system.root },
            recorded: self.rotation.as_ref().map(|last| last.recorded()).unwrap_or_default(),
        })
    }
}
