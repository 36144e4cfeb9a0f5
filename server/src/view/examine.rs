//! Whether every record opens: what a verification asks of a store that nobody serves. Values are opened, and dropped.

use std::collections::HashMap;

use coffer_proto::name::Scope;

use super::Error;
use crate::{
    record::{self, SecretRecord, key::Kind},
    seal::{DataKey, Keyring, Uid},
    store::{Key, Record},
};

/// Opens records, once it knows their keys.
pub struct Examiner {
    keyring: Keyring,
    system: Option<DataKey>,
    scopes: HashMap<Scope, (DataKey, Uid)>,
}

impl Examiner {
    /// Knows the root key, and no other.
    pub fn new(keyring: Keyring) -> Self {
        Self { keyring, system: None, scopes: HashMap::new() }
    }

    /// Whether the record holds a key: those are to be learnt before any record is checked.
    pub fn is_key(record: &Record) -> bool {
        record::key::comes_first(&record.key)
    }

    /// Learns a key.
    pub fn learn(&mut self, record: &Record) -> Result<(), Error> {
        self.try_learn(record).map_err(|error| damaged(&record.key, error))
    }

    fn try_learn(&mut self, record: &Record) -> Result<(), record::Error> {
        let open = || self.keyring.open_data_key(record.key.as_str(), &record.value);
        match record::key::parse(&record.key).ok_or(record::Error::NotUnderstood)? {
            Kind::SystemKey => self.system = Some(open()?.0),
            Kind::ScopeKey(scope) => {
                let opened = open()?;
                self.scopes.insert(scope, opened);
            }
            _ => {}
        }
        Ok(())
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
                let (key, uid) = self.scopes.get(&scope).ok_or(record::Error::KeyMissing)?;
                let secret = SecretRecord::from_stored(record.value.clone());
                secret.open_metadata(store, *uid, key, &record.key)?;
                secret.open_value(store, *uid, key, &record.key).map(drop)
            }
            _ => {
                let system = self.system.as_ref().ok_or(record::Error::KeyMissing)?;
                record::open_system(store, system, &record.key, &record.value).map(drop)
            }
        }
    }
}

fn damaged(key: &Key, error: record::Error) -> Error {
    Error::Damaged { key: key.clone(), error }
}
