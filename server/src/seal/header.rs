//! The store's first record: its identity and its root keys, of which there is one but for the time of a rotation. The
//! only record that is not sealed as a whole, because it is what opens all others.
//!
//! All root keys of a header are wrapped as one, in their order: whoever writes the store can put a header of before back
//! as it was, but cannot let a root key that was rotated away stand beside one that came after.

use std::sync::Arc;

use prost::Message as _;
use subtle::ConstantTimeEq as _;

use super::{
    NoRandomness, Uid,
    key::Key,
    keyring::Keyring,
    source::{self, KeySource, WrappedKey, wrap_surely},
};

/// The format of sealed records that this version writes and reads.
pub const FORMAT: u32 = 1;

/// Why a store's header does not open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A newer coffer wrote it.
    #[error("the store's records have format {found}; this version reads up to {FORMAT}, so use a newer one")]
    Newer {
        /// The format found.
        found: u32,
    },
    /// It is no header.
    #[error("the store's header is damaged")]
    Damaged,
    /// The key source does not open it.
    #[error(transparent)]
    Source(#[from] source::Error),
}

impl From<NoRandomness> for Error {
    fn from(error: NoRandomness) -> Self {
        Error::Source(error.into())
    }
}

/// As stored. Field numbers are for ever.
#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(bytes = "vec", tag = "2")]
    store: Vec<u8>,
    #[prost(string, tag = "3")]
    source: String,
    #[prost(string, tag = "4")]
    key_id: String,
    #[prost(bytes = "vec", tag = "5")]
    wrapped: Vec<u8>,
    #[prost(message, repeated, tag = "6")]
    annotations: Vec<Annotation>,
}

/// What the source wants back beside the wrapped bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct Annotation {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl Stored {
    fn read(header: &[u8]) -> Result<(Uid, Self), Error> {
        let stored = Self::decode(header).map_err(|_| Error::Damaged)?;
        if stored.format > FORMAT {
            return Err(Error::Newer { found: stored.format });
        }
        let store = Uid(stored.store.as_slice().try_into().map_err(|_| Error::Damaged)?);
        if stored.wrapped.is_empty() {
            return Err(Error::Damaged);
        }
        Ok((store, stored))
    }
}

/// Makes a new store's identity and root key, and the header that holds them. The caller must never put it over an
/// existing one.
pub async fn create(source: &dyn KeySource) -> Result<(Keyring, Vec<u8>), Error> {
    let keyring = Keyring::new(Uid::random()?, vec![Arc::new(Key::generate(0)?)]);
    let header = wrap(source, &keyring).await?;
    Ok((keyring, header))
}

/// Opens a store's header.
pub async fn open(source: &dyn KeySource, header: &[u8]) -> Result<Keyring, Error> {
    let (store, stored) = Stored::read(header)?;
    let annotations = stored.annotations.into_iter().map(|annotation| (annotation.name, annotation.value));
    let wrapped = WrappedKey {
        source: stored.source,
        key_id: stored.key_id,
        bytes: stored.wrapped,
        annotations: annotations.collect(),
    };
    Keyring::from_bytes(store, &source.unwrap(store, &wrapped).await?).ok_or(Error::Damaged)
}

/// A new root key before the one that a header holds: what opens then, and the new header. The source must open the header
/// as it stands, to the keys in memory: another source that happens to answer is not handed the new key.
pub async fn with_new_root(
    source: &dyn KeySource,
    known: &Keyring,
    header: &[u8],
) -> Result<(Keyring, Vec<u8>), Error> {
    check_source(source, known, header).await?;
    let keyring = known.with_new_root(Key::generate(0)?).ok_or(Error::Damaged)?;
    let header = wrap(source, &keyring).await?;
    Ok((keyring, header))
}

/// The header without the root key of before, by a source that opens it as it stands, too.
pub async fn without_old_root(
    source: &dyn KeySource,
    known: &Keyring,
    header: &[u8],
) -> Result<(Keyring, Vec<u8>), Error> {
    check_source(source, known, header).await?;
    let keyring = known.without_old_root();
    let header = wrap(source, &keyring).await?;
    Ok((keyring, header))
}

/// The kind of source and the key id that a header names.
pub fn wrapped_by(header: &[u8]) -> Result<(String, String), Error> {
    let (_, stored) = Stored::read(header)?;
    Ok((stored.source, stored.key_id))
}

/// The same root keys, wrapped anew by the same source, which unwraps them for that: what opens, and the new header.
pub async fn rewrap(source: &dyn KeySource, header: &[u8]) -> Result<(Keyring, Vec<u8>), Error> {
    let keyring = open(source, header).await?;
    let header = wrap(source, &keyring).await?;
    Ok((keyring, header))
}

async fn wrap(source: &dyn KeySource, keyring: &Keyring) -> Result<Vec<u8>, Error> {
    let wrapped = wrap_surely(source, keyring.store(), &keyring.to_bytes()).await?;
    let annotations = wrapped.annotations.into_iter().map(|(name, value)| Annotation { name, value });
    let stored = Stored {
        format: FORMAT,
        store: keyring.store().0.to_vec(),
        source: wrapped.source,
        key_id: wrapped.key_id,
        wrapped: wrapped.bytes,
        annotations: annotations.collect(),
    };
    Ok(stored.encode_to_vec())
}

/// The store whose header it is, as it says.
pub fn store(header: &[u8]) -> Result<Uid, Error> {
    Stored::read(header).map(|(store, _)| store)
}

async fn check_source(source: &dyn KeySource, known: &Keyring, header: &[u8]) -> Result<(), Error> {
    let present = open(source, header).await?;
    if present.store() == known.store() && bool::from(present.to_bytes().0.ct_eq(&known.to_bytes().0)) {
        return Ok(());
    }
    let reason = "what it unwraps is not the root key in use".to_owned();
    Err(source::Error::Refused { name: source.name().to_owned(), reason }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::source::KeyFile;

    #[tokio::test]
    async fn a_root_key_takes_the_place_of_another_in_two_steps() {
        let dir = tempfile::tempdir().expect("a directory");
        let source = KeyFile::generate(&dir.path().join("key")).expect("a key");
        let (first, header) = create(&source).await.expect("made");
        let (_, under_first) = first.create_data_key("key/system", Uid::NONE, 0).expect("randomness");

        let (offered, both) = with_new_root(&source, &first, &header).await.expect("made");
        let opened = open(&source, &both).await.expect("opens");
        assert!(opened.is_same(&offered) && opened.root_id() != first.root_id());
        assert!(opened.open_data_key("key/system", &under_first).is_ok());

        let (_, under_new) = opened.create_data_key("key/system", Uid::NONE, 0).expect("randomness");
        let (left, alone) = without_old_root(&source, &opened, &both).await.expect("a header");
        let last = open(&source, &alone).await.expect("opens");
        assert!(last.is_same(&left) && last.root_id() == offered.root_id());
        assert!(last.open_data_key("key/system", &under_new).is_ok());
        assert!(last.open_data_key("key/system", &under_first).is_err(), "the old root is gone");
    }

    #[tokio::test]
    async fn a_source_that_does_not_open_the_header_is_handed_no_new_root() {
        let dir = tempfile::tempdir().expect("a directory");
        let [right, wrong] = ["a", "b"].map(|name| KeyFile::generate(&dir.path().join(name)).expect("a key"));
        let (keyring, header) = create(&right).await.expect("made");
        assert!(matches!(with_new_root(&wrong, &keyring, &header).await, Err(Error::Source(_))));
        assert!(matches!(without_old_root(&wrong, &keyring, &header).await, Err(Error::Source(_))));
        // It opens a header of this store, but not to the keys in memory.
        let other = Keyring::new(keyring.store(), vec![Arc::new(Key::generate(0).expect("randomness"))]);
        let forged = wrap(&wrong, &other).await.expect("wrapped");
        assert!(matches!(with_new_root(&wrong, &keyring, &forged).await, Err(Error::Source(_))));
        assert!(with_new_root(&right, &keyring, &header).await.is_ok());
    }

    #[tokio::test]
    async fn headers_that_are_none_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let source = KeyFile::generate(&dir.path().join("key")).expect("a key");
        let (keyring, header) = create(&source).await.expect("made");
        let read = Stored::decode(header.as_slice()).expect("a header");
        let none = Stored { wrapped: Vec::new(), ..read.clone() };
        assert!(matches!(open(&source, &none.encode_to_vec()).await, Err(Error::Damaged)));
        let newer = Stored { format: FORMAT + 1, ..read };
        assert!(matches!(open(&source, &newer.encode_to_vec()).await, Err(Error::Newer { .. })));
        assert!(matches!(open(&source, &header[1..]).await, Err(Error::Damaged)));
        let (both, header) = with_new_root(&source, &keyring, &header).await.expect("made");
        assert!(matches!(with_new_root(&source, &both, &header).await, Err(Error::Damaged)), "no third one");
    }
}
