//! A secret as stored: a header in the clear, and two envelopes, so that metadata is opened without the value.
//!
//! `format 1 | kind 1 | version 8 | secret uid 16 | metadata length 4 | metadata envelope | value envelope`.
//! Every field in the clear is authenticated by both envelopes.

use std::sync::Arc;

use prost::Message as _;
use zeroize::Zeroizing;

use coffer_proto::value::SecretValue;

use super::Error;
use crate::{
    seal::{DataKey, Field, NoRandomness, Place, Uid},
    store::Key,
};

const FORMAT: u8 = 1;
const HEADER: usize = 1 + 1 + 8 + 16 + 4;

/// Whether the value may ever be shown again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Never shown again.
    Encrypted = 1,
    /// Shown to readers.
    Plain = 2,
}

/// With which workspaces an organization's secret is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedWith {
    /// Every workspace of the organization.
    All,
    /// These, by id, sorted.
    Only(Vec<String>),
}

/// Sharing of a secret; `None` where its scope is no organization.
pub type Sharing = Option<SharedWith>;

/// A host, or `*.domain`.
pub type Host = String;

/// What is known of a secret but its value.
#[derive(Clone, Debug)]
pub struct SecretMeta {
    /// Unique for ever.
    pub uid: Uid,
    /// Encrypted or plain.
    pub kind: Kind,
    /// Counts values, from 1.
    pub version: u64,
    /// Counts changes, from 1; with the uid it makes the etag.
    pub generation: u64,
    /// What it is for.
    pub description: String,
    /// First and last characters of the value.
    pub hint: Hint,
    /// Length of the value, in bytes.
    pub value_bytes: u64,
    /// With whom it is shared.
    pub sharing: Sharing,
    /// It wins over a child's.
    pub locked: bool,
    /// It may be cloned.
    pub clonable: bool,
    /// Where headers rendered with it may go.
    pub allowed_hosts: Vec<Host>,
    /// It may be rendered for a model.
    pub allow_in_instructions: bool,
    /// When and by whom it was made.
    pub created: Stamp,
    /// When and by whom it was changed last.
    pub updated: Stamp,
    /// The secret it was cloned from.
    pub cloned_from: String,
    /// When its value was set last.
    pub value_time: prost_types::Timestamp,
}

/// Part of a value: it has no text in `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hint(pub String);

/// When and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When.
    pub time: prost_types::Timestamp,
    /// By whom.
    pub principal: String,
}

/// A sealed secret. Cheap to clone.
#[derive(Clone)]
pub struct SecretRecord(Arc<[u8]>);

/// As sealed. Field numbers are for ever.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct Stored {
    #[prost(uint64, tag = "1")]
    generation: u64,
    #[prost(string, tag = "2")]
    description: String,
    #[prost(string, tag = "3")]
    hint: String,
    #[prost(uint64, tag = "4")]
    value_bytes: u64,
    #[prost(bool, tag = "5")]
    shared_with_all: bool,
    #[prost(bool, tag = "6")]
    shared_with_only: bool,
    #[prost(string, repeated, tag = "7")]
    workspaces: Vec<String>,
    #[prost(bool, tag = "8")]
    locked: bool,
    #[prost(bool, tag = "9")]
    clonable: bool,
    #[prost(string, repeated, tag = "10")]
    allowed_hosts: Vec<String>,
    #[prost(bool, tag = "11")]
    allow_in_instructions: bool,
    #[prost(message, tag = "12")]
    create_time: Option<prost_types::Timestamp>,
    #[prost(string, tag = "13")]
    creator: String,
    #[prost(message, tag = "14")]
    update_time: Option<prost_types::Timestamp>,
    #[prost(string, tag = "15")]
    updater: String,
    #[prost(string, tag = "16")]
    cloned_from: String,
    /// Absent in records of before it was kept.
    #[prost(message, tag = "17")]
    value_time: Option<prost_types::Timestamp>,
}

impl SecretRecord {
    /// Seals a secret for its place.
    pub fn seal(
        store: Uid,
        scope: Uid,
        key: &DataKey,
        record: &Key,
        meta: &SecretMeta,
        value: &SecretValue,
    ) -> Result<Self, NoRandomness> {
        let place = place(store, scope, record, meta.uid, meta.kind, meta.version);
        let value = key.seal(&Place { field: Field::Value, ..place }, value.expose().as_bytes())?;
        Self::put_together(key, &place, meta, &value)
    }

    /// Seals changed metadata over the same value, which stays sealed. Uid, kind and version must be as they were.
    pub fn reseal_metadata(
        &self,
        store: Uid,
        scope: Uid,
        key: &DataKey,
        record: &Key,
        meta: &SecretMeta,
    ) -> Result<Self, Error> {
        let parts = self.parts().ok_or(Error::NotUnderstood)?;
        if (parts.kind, parts.version, parts.uid) != (meta.kind, meta.version, meta.uid) {
            return Err(Error::NotUnderstood);
        }
        let place = place(store, scope, record, meta.uid, meta.kind, meta.version);
        Ok(Self::put_together(key, &place, meta, parts.value)?)
    }

    fn put_together(key: &DataKey, place: &Place<'_>, meta: &SecretMeta, value: &[u8]) -> Result<Self, NoRandomness> {
        let plaintext = Zeroizing::new(Stored::from(meta).encode_to_vec());
        let metadata = key.seal(&Place { field: Field::Metadata, ..*place }, &plaintext)?;
        let mut bytes = Vec::with_capacity(HEADER + metadata.len() + value.len());
        bytes.push(FORMAT);
        bytes.push(meta.kind as u8);
        bytes.extend_from_slice(&meta.version.to_be_bytes());
        bytes.extend_from_slice(&meta.uid.0);
        bytes.extend_from_slice(&(metadata.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&metadata);
        bytes.extend_from_slice(value);
        Ok(Self(bytes.into()))
    }

    /// Takes a stored record as it is.
    pub fn from_stored(bytes: Arc<[u8]>) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.0
    }

    /// Opens the metadata.
    pub fn open_metadata(&self, store: Uid, scope: Uid, key: &DataKey, record: &Key) -> Result<SecretMeta, Error> {
        let parts = self.parts().ok_or(Error::NotUnderstood)?;
        let place = place(store, scope, record, parts.uid, parts.kind, parts.version);
        let plaintext = key.open(&Place { field: Field::Metadata, ..place }, parts.metadata)?;
        let stored = Stored::decode(plaintext.as_slice()).map_err(|_| Error::NotUnderstood)?;
        stored.into_meta(parts.uid, parts.kind, parts.version).ok_or(Error::NotUnderstood)
    }

    /// Opens the value.
    pub fn open_value(&self, store: Uid, scope: Uid, key: &DataKey, record: &Key) -> Result<SecretValue, Error> {
        let parts = self.parts().ok_or(Error::NotUnderstood)?;
        let place = place(store, scope, record, parts.uid, parts.kind, parts.version);
        let mut plaintext = key.open(&Place { field: Field::Value, ..place }, parts.value)?;
        SecretValue::new(std::mem::take(&mut *plaintext)).map_err(|_| Error::NotUnderstood)
    }

    /// Seals the same under the key's newest; nothing that anybody sees changes.
    pub fn reseal(&self, store: Uid, scope: Uid, key: &DataKey, record: &Key) -> Result<Self, Error> {
        let meta = self.open_metadata(store, scope, key, record)?;
        let value = self.open_value(store, scope, key, record)?;
        Ok(Self::seal(store, scope, key, record, &meta, &value)?)
    }

    /// Whether metadata and value are sealed by the key that seals now.
    pub fn is_current(&self, key: &DataKey) -> bool {
        self.parts().is_some_and(|parts| key.is_current(parts.metadata) && key.is_current(parts.value))
    }

    fn parts(&self) -> Option<Parts<'_>> {
        let (head, rest) = self.0.split_at_checked(HEADER)?;
        if head[0] != FORMAT {
            return None;
        }
        let kind = Kind::from_stored(head[1])?;
        let version = u64::from_be_bytes(head[2..10].try_into().ok()?);
        let uid = Uid(head[10..26].try_into().ok()?);
        let metadata = u32::from_be_bytes(head[26..30].try_into().ok()?);
        let (metadata, value) = rest.split_at_checked(metadata as usize)?;
        Some(Parts { kind, version, uid, metadata, value })
    }
}

struct Parts<'a> {
    kind: Kind,
    version: u64,
    uid: Uid,
    metadata: &'a [u8],
    value: &'a [u8],
}

fn place<'a>(store: Uid, scope: Uid, record: &'a Key, secret: Uid, kind: Kind, version: u64) -> Place<'a> {
    Place { store, record: record.as_str(), scope, secret, field: Field::Metadata, kind: kind as u8, version }
}

impl Kind {
    fn from_stored(byte: u8) -> Option<Self> {
        [Kind::Encrypted, Kind::Plain].into_iter().find(|kind| *kind as u8 == byte)
    }
}

impl SecretMeta {
    /// Changes with every change.
    pub fn etag(&self) -> String {
        format!("{}.{}", self.uid, self.generation)
    }
}

impl From<&SecretMeta> for Stored {
    fn from(meta: &SecretMeta) -> Self {
        Self {
            generation: meta.generation,
            description: meta.description.clone(),
            hint: meta.hint.0.clone(),
            value_bytes: meta.value_bytes,
            shared_with_all: meta.sharing == Some(SharedWith::All),
            shared_with_only: matches!(meta.sharing, Some(SharedWith::Only(_))),
            workspaces: match &meta.sharing {
                Some(SharedWith::Only(workspaces)) => workspaces.clone(),
                Some(SharedWith::All) | None => Vec::new(),
            },
            locked: meta.locked,
            clonable: meta.clonable,
            allowed_hosts: meta.allowed_hosts.clone(),
            allow_in_instructions: meta.allow_in_instructions,
            create_time: Some(meta.created.time),
            creator: meta.created.principal.clone(),
            update_time: Some(meta.updated.time),
            updater: meta.updated.principal.clone(),
            cloned_from: meta.cloned_from.clone(),
            value_time: Some(meta.value_time),
        }
    }
}

impl Stored {
    fn into_meta(self, uid: Uid, kind: Kind, version: u64) -> Option<SecretMeta> {
        Some(SecretMeta {
            uid,
            kind,
            version,
            generation: self.generation,
            description: self.description,
            hint: Hint(self.hint),
            value_bytes: self.value_bytes,
            sharing: match (self.shared_with_all, self.shared_with_only) {
                (true, false) => Some(SharedWith::All),
                (false, true) => Some(SharedWith::Only(self.workspaces)),
                (false, false) => None,
                (true, true) => return None,
            },
            locked: self.locked,
            clonable: self.clonable,
            allowed_hosts: self.allowed_hosts,
            allow_in_instructions: self.allow_in_instructions,
            created: Stamp { time: self.create_time?, principal: self.creator },
            updated: Stamp { time: self.update_time?, principal: self.updater },
            cloned_from: self.cloned_from,
            value_time: self.value_time.or(self.create_time)?,
        })
    }
}

impl std::fmt::Debug for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hint(…)")
    }
}

impl std::fmt::Debug for SecretRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretRecord({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{header, source::KeyFile};

    async fn sealed() -> (Uid, Uid, DataKey, Key, SecretMeta, SecretRecord) {
        let dir = tempfile::tempdir().expect("a directory");
        let source = KeyFile::generate(&dir.path().join("key")).expect("a key");
        let (keyring, _) = header::create(&source).await.expect("a keyring");
        let scope = Uid([4; 16]);
        let (key, _) = keyring.create_data_key("key/scope/projects/p", scope, 0).expect("randomness");
        let record = Key::new("secret/projects/p:A");
        let stamp = Stamp { time: prost_types::Timestamp { seconds: 1, nanos: 0 }, principal: "users/a".into() };
        let meta = SecretMeta {
            uid: Uid([5; 16]),
            kind: Kind::Encrypted,
            version: 3,
            generation: 9,
            description: "what".into(),
            hint: Hint("abcd…wxyz".into()),
            value_bytes: 5,
            sharing: Some(SharedWith::Only(vec!["w".into()])),
            locked: true,
            clonable: false,
            allowed_hosts: vec!["example.com".into()],
            allow_in_instructions: true,
            created: stamp.clone(),
            updated: stamp,
            cloned_from: "projects/q/secrets/A".into(),
            value_time: prost_types::Timestamp { seconds: 2, nanos: 0 },
        };
        let value = SecretValue::new(b"value".to_vec()).expect("a value");
        let sealed = SecretRecord::seal(keyring.store(), scope, &key, &record, &meta, &value).expect("sealed");
        (keyring.store(), scope, key, record, meta, sealed)
    }

    #[tokio::test]
    async fn opens_to_what_was_sealed() {
        let (store, scope, key, record, meta, sealed) = sealed().await;
        let read = sealed.open_metadata(store, scope, &key, &record).expect("opens");
        assert_eq!(format!("{read:?}"), format!("{meta:?}"));
        assert_eq!(read.hint, meta.hint);
        assert_eq!(sealed.open_value(store, scope, &key, &record).expect("opens").expose(), "value");

        let changed = SecretMeta { description: "other".into(), generation: 10, ..meta };
        let resealed = sealed.reseal_metadata(store, scope, &key, &record, &changed).expect("resealed");
        assert_eq!(resealed.open_metadata(store, scope, &key, &record).expect("opens").description, "other");
        assert_eq!(resealed.open_value(store, scope, &key, &record).expect("opens").expose(), "value");
    }

    #[tokio::test]
    async fn every_flipped_bit_every_cut_and_every_other_place_is_refused() {
        let (store, scope, key, record, _, sealed) = sealed().await;
        let opens = |bytes: &[u8], record: &Key, scope: Uid| {
            let sealed = SecretRecord::from_stored(bytes.into());
            let metadata = sealed.open_metadata(store, scope, &key, record).is_ok();
            (metadata, sealed.open_value(store, scope, &key, record).is_ok())
        };
        assert_eq!(opens(sealed.bytes(), &record, scope), (true, true));
        for bit in 0..sealed.bytes().len() * 8 {
            let mut damaged = sealed.bytes().to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(opens(&damaged, &record, scope), (true, true), "bit {bit}");
        }
        for end in 0..sealed.bytes().len() {
            assert_ne!(opens(&sealed.bytes()[..end], &record, scope), (true, true), "cut at {end}");
        }
        assert_eq!(opens(sealed.bytes(), &Key::new("secret/projects/p:B"), scope), (false, false));
        assert_eq!(opens(sealed.bytes(), &record, Uid([6; 16])), (false, false));
    }
}
