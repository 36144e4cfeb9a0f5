//! Records that are found by reading the store: data keys under an old root key, and records of the system under an old
//! key of its own.

use super::{
    super::{
        Error, Vault,
        write::{header, system_key},
    },
    job::{Draft, Job},
};
use crate::{
    record::{key, open_system, seal_system},
    seal::Keyring,
    store::Record,
    view::At,
};

/// Records in one transaction: each is compared, and a transaction has at most 100 expectations.
const RECORDS: usize = 90;
/// Bytes in one transaction.
const BYTES: usize = 1024 * 1024;
/// Bytes of records taken at a time; the rest is found by reading again.
const TAKEN_BYTES: usize = 16 * 1024 * 1024;

impl Job {
    /// Wraps data keys that are under an old root key. Answers whether there were any.
    pub(super) async fn rewrap(&self, vault: &Vault) -> Result<bool, Error> {
        let (keyring, base) = {
            let state = vault.0.view.read();
            (Keyring::clone(state.keyring()), Draft::on(&state).expecting(&header(&state)?.at))
        };
        let is_key = |record: &Record| record.key.as_str().starts_with(key::DATA_KEYS);
        let is_old = |record: &Record| is_key(record) && !keyring.is_current(&record.value);
        let found = vault.find_records(&base, key::DATA_KEYS, is_old).await?;
        self.each(vault, &base, &found, |record| {
            let (data, scope) = keyring.open_data_key(record.key.as_str(), &record.value).map_err(into_damaged)?;
            Ok(keyring.wrap_data_key(record.key.as_str(), scope, &data)?)
        })
        .await?;
        Ok(!found.is_empty())
    }

    /// Seals records of the system anew that are under an old key. Answers whether there were any.
    pub(super) async fn reseal(&self, vault: &Vault) -> Result<bool, Error> {
        let (system, base) = {
            let state = vault.0.view.read();
            let system = system_key(&state)?;
            (system.clone(), Draft::on(&state).expecting(&system.at))
        };
        if !system.key.has_old() {
            return Ok(false);
        }
        let is_old = |record: &Record| key::is_of_system(&record.key) && !system.key.is_current(&record.value);
        let found = vault.find_records(&base, "", is_old).await?;
        let store = vault.0.view.store();
        self.each(vault, &base, &found, |record| {
            let plaintext = open_system(store, &system.key, &record.key, &record.value)?;
            Ok(seal_system(store, &system.key, &record.key, &plaintext)?)
        })
        .await?;
        Ok(!found.is_empty())
    }

    /// Puts each record anew as it was read, as long as what `base` rests on stands. Those that somebody changed meanwhile are
    /// found again.
    async fn each(
        &self,
        vault: &Vault,
        base: &Draft,
        records: &[Record],
        anew: impl Fn(&Record) -> Result<Vec<u8>, Error>,
    ) -> Result<(), Error> {
        let mut rest = records;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take(RECORDS).take_while(|record| {
                bytes += record.key.as_str().len() + record.value.len();
                bytes <= BYTES
            });
            let (batch, later) = rest.split_at(fitting.count().max(1));
            rest = later;
            let mut draft = base.clone();
            for record in batch {
                draft.expect(&At { key: record.key.clone(), revision: record.revision });
                draft.put(record.key.clone(), anew(record)?);
            }
            if vault.rotate(draft).await?.is_some() {
                self.did(batch.len() as u64);
            }
        }
        Ok(())
    }
}

impl Vault {
    /// Reads the store for records, those of a prefix if there is one, and takes as many as fit. They are of the epoch of
    /// what is decided on them.
    async fn find_records(
        &self,
        base: &Draft,
        prefix: &str,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Record>, Error> {
        let mut load = self.0.store.load().await?;
        base.epoch.check(load.position().epoch)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(page) = load.page().await? {
            // Pages come in the order of keys.
            let is_past = page
                .first()
                .is_some_and(|first| first.key.as_str() > prefix && !first.key.as_str().starts_with(prefix));
            for record in page.into_iter().filter(&wanted) {
                bytes += record.value.len();
                found.push(record);
            }
            if is_past || bytes >= TAKEN_BYTES {
                break;
            }
        }
        Ok(found)
    }
}

fn into_damaged(error: crate::seal::OpenFailed) -> Error {
    Error::from(crate::record::Error::from(error))
}
