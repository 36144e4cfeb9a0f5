//! Whether every record opens: what a verification asks of a store that nobody serves. Values are opened, and dropped.

use std::collections::HashMap;

use coffer_proto::name::Scope;

use prost::Message as _;

use super::{
    Error,
    keys::{Ground, Recorded, Standing},
};
use crate::{
    record::{self, RotationRecord, SecretRecord, key::Kind},
    seal::{DataKey, KeyId, Keyring, Uid},
    store::{Key, Record},
};

/// Opens records, once it knows their keys.
pub struct Examiner {
    keyring: Keyring,
    system: Option<(DataKey, KeyId)>,
    scopes: HashMap<Scope, (DataKey, Uid, KeyId)>,
    recorded: Recorded,
}

impl Examiner {
    /// Knows the root key, and no other.
    pub fn new(keyring: Keyring) -> Self {
        Self { keyring, system: None, scopes: HashMap::new(), recorded: Recorded::default() }
    }

    /// Whether the record holds a key, or says which keys may be there: those are to be learnt, in the order of the store,
    /// before any record is checked.
    pub fn is_key(record: &Record) -> bool {
        record::key::comes_first(&record.key) || record.key.as_str() == record::key::ROTATION
    }

    /// Learns a key, or of the last rotation.
    pub fn learn(&mut self, record: &Record) -> Result<(), Error> {
        self.try_learn(record).map_err(|error| damaged(&record.key, error))
    }

    fn try_learn(&mut self, record: &Record) -> Result<(), record::Error> {
        let open = || {
            let root = Keyring::root_of(&record.value).ok_or(record::Error::NotUnderstood)?;
            let (key, uid) = self.keyring.open_data_key(record.key.as_str(), &record.value)?;
            Ok::<_, record::Error>((key, uid, root))
        };
        match record::key::parse(&record.key).ok_or(record::Error::NotUnderstood)? {
            Kind::SystemKey => self.system = open().map(|(key, _, root)| Some((key, root)))?,
            Kind::ScopeKey(scope) => {
                let opened = open()?;
                self.scopes.insert(scope, opened);
            }
            Kind::Rotation => {
                let plaintext = self.open_system(record)?;
                let last = RotationRecord::decode(plaintext.as_slice()).map_err(|_| record::Error::NotUnderstood)?;
                let is_under_way = last.end_time.is_none();
                self.recorded = Recorded {
                    is_root_under_way: last.is_of_root() && is_under_way,
                    is_data_under_way: !last.is_of_root() && is_under_way,
                    generation: last.generation,
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether all keys, once they are learnt, may stand beside each other.
    pub fn check_keys(&self) -> Result<(), Error> {
        let missing = || damaged(&Key::new(record::key::SYSTEM_KEY), record::Error::KeyMissing);
        let (key, root) = self.system.as_ref().ok_or_else(missing)?;
        let system = Standing { key, root: *root };
        let ground = Ground { keyring: &self.keyring, system, recorded: self.recorded };
        ground.check()?;
        let mut scopes = self.scopes.iter();
        scopes.try_for_each(|(scope, (key, _, root))| ground.check_scope(scope, Standing { key, root: *root }))
    }

    fn open_system(&self, record: &Record) -> Result<zeroize::Zeroizing<Vec<u8>>, record::Error> {
        let (system, _) = self.system.as_ref().ok_or(record::Error::KeyMissing)?;
        record::open_system(self.keyring.store(), system, &record.key, &record.value)
    }

    /// Opens a record, all of it.
    pub fn check(&self, record: &Record) -> Result<(), Error> {
        self.try_check(record).map_err(|error| damaged(&record.key, error))
    }

    fn try_check(&self, record: &Record) -> Result<(), record::Error> {
        let store = self.keyring.store();
        match record::key::parse(&record.key).ok_or(record::Error::NotUnderstood)? {
            Kind::Header | Kind::SystemKey | Kind::ScopeKey(_) => Ok(()),
            Kind::Secret(scope, _) => {
                let (key, uid, _) = self.scopes.get(&scope).ok_or(record::Error::KeyMissing)?;
                let secret = SecretRecord::from_stored(record.value.clone());
                secret.open_metadata(store, *uid, key, &record.key)?;
                secret.open_value(store, *uid, key, &record.key).map(drop)
            }
            _ => self.open_system(record).map(drop),
        }
    }
}

fn damaged(key: &Key, error: record::Error) -> Error {
    Error::Damaged { key: key.clone(), error }
}
