//! The store's first record: its identity and its wrapped root keys, of which there is one but for the time of a
//! rotation. The only record that is not sealed as a whole, because it is what opens all others.

use std::sync::Arc;

use prost::Message as _;
use zeroize::Zeroizing;

use super::{
    KeyId, NoRandomness, Uid,
    key::{Key, SecretKey},
    keyring::Keyring,
    source::{self, KeySource, RootKeyBytes, WrappedKey, wrap_surely},
};

/// The format of sealed records that this version writes and reads.
pub const FORMAT: u32 = 1;

/// Root keys that a header may hold: the current one first, and those of before while a rotation goes on.
const ROOTS_MAX: usize = 4;

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
    /// The current one first.
    #[prost(message, repeated, tag = "3")]
    roots: Vec<StoredRoot>,
}

/// A wrapped root key, and the name that the records of data keys call it by.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredRoot {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    source: String,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(bytes = "vec", tag = "4")]
    wrapped: Vec<u8>,
    #[prost(message, repeated, tag = "5")]
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
        if !(1..=ROOTS_MAX).contains(&stored.roots.len()) {
            return Err(Error::Damaged);
        }
        Ok((store, stored))
    }
}

impl StoredRoot {
    async fn wrap(source: &dyn KeySource, store: Uid, root: &Key) -> Result<Self, Error> {
        let bytes = RootKeyBytes(Zeroizing::new(root.key.bytes().to_vec()));
        Self::wrap_bytes(source, store, root.id.0.to_vec(), &bytes).await
    }

    async fn wrap_bytes(source: &dyn KeySource, store: Uid, id: Vec<u8>, bytes: &RootKeyBytes) -> Result<Self, Error> {
        let wrapped = wrap_surely(source, store, bytes).await?;
        let annotations = wrapped.annotations.into_iter().map(|(name, value)| Annotation { name, value });
        Ok(Self {
            id,
            source: wrapped.source,
            key_id: wrapped.key_id,
            wrapped: wrapped.bytes,
            annotations: annotations.collect(),
        })
    }

    async fn unwrap_bytes(self, source: &dyn KeySource, store: Uid) -> Result<RootKeyBytes, Error> {
        let annotations = self.annotations.into_iter().map(|annotation| (annotation.name, annotation.value));
        let wrapped = WrappedKey {
            source: self.source,
            key_id: self.key_id,
            bytes: self.wrapped,
            annotations: annotations.collect(),
        };
        Ok(source.unwrap(store, &wrapped).await?)
    }

    async fn unwrap(self, source: &dyn KeySource, store: Uid) -> Result<Key, Error> {
        let id = self.id()?;
        let root = self.unwrap_bytes(source, store).await?;
        Ok(Key::new(id, SecretKey::from_slice(&root.0).ok_or(Error::Damaged)?, 0))
    }

    fn id(&self) -> Result<KeyId, Error> {
        self.id.as_slice().try_into().map(KeyId).map_err(|_| Error::Damaged)
    }
}

/// Makes a new store's identity and root key, and the header that holds them. The caller must never put it over an
/// existing one.
pub async fn create(source: &dyn KeySource) -> Result<(Keyring, Vec<u8>), Error> {
    let store = Uid::random()?;
    let root = Key::generate(0)?;
    let stored =
        Stored { format: FORMAT, store: store.0.to_vec(), roots: vec![StoredRoot::wrap(source, store, &root).await?] };
    Ok((Keyring::new(store, vec![Arc::new(root)]), stored.encode_to_vec()))
}

/// Opens a store's header.
pub async fn open(source: &dyn KeySource, header: &[u8]) -> Result<Keyring, Error> {
    open_known(source, None, header).await
}

/// Opens a store's header as it is after a change. The source is asked for those root keys only that are not `known`.
pub async fn open_known(source: &dyn KeySource, known: Option<&Keyring>, header: &[u8]) -> Result<Keyring, Error> {
    let (store, stored) = Stored::read(header)?;
    let mut roots = Vec::with_capacity(stored.roots.len());
    for root in stored.roots {
        let id = root.id()?;
        roots.push(match known.filter(|known| known.store() == store).and_then(|known| known.root(id)) {
            Some(known) => Arc::clone(known),
            None => Arc::new(root.unwrap(source, store).await?),
        });
    }
    Ok(Keyring::new(store, roots))
}

/// A new root key before those that a header holds: the new header, and what opens under it.
pub async fn with_new_root(
    source: &dyn KeySource,
    known: &Keyring,
    header: &[u8],
) -> Result<(Keyring, Vec<u8>), Error> {
    let (store, mut stored) = Stored::read(header)?;
    let root = Key::generate(0)?;
    stored.roots.insert(0, StoredRoot::wrap(source, store, &root).await?);
    stored.roots.truncate(ROOTS_MAX);
    Ok((Keyring::new(store, vec![Arc::new(root)]).with(known), stored.encode_to_vec()))
}

/// The header without the root keys of before.
pub fn without_old_roots(header: &[u8]) -> Result<Vec<u8>, Error> {
    let (_, mut stored) = Stored::read(header)?;
    stored.roots.truncate(1);
    Ok(stored.encode_to_vec())
}

/// The store whose header it is, as it says.
pub fn store(header: &[u8]) -> Result<Uid, Error> {
    Stored::read(header).map(|(store, _)| store)
}

/// The kind of source and the key id that a header names for the current root key.
pub fn wrapped_by(header: &[u8]) -> Result<(String, String), Error> {
    let (_, mut stored) = Stored::read(header)?;
    let root = stored.roots.swap_remove(0);
    Ok((root.source, root.key_id))
}

/// The same root keys, each wrapped anew by the same source, which unwraps them for that: a new header. Answers the id of
/// the key that wraps the current one now, too.
pub async fn rewrap(source: &dyn KeySource, header: &[u8]) -> Result<(Vec<u8>, String), Error> {
    let (store, mut stored) = Stored::read(header)?;
    for root in &mut stored.roots {
        let (id, wrapped) = (root.id.clone(), root.clone());
        let bytes = wrapped.unwrap_bytes(source, store).await?;
        *root = StoredRoot::wrap_bytes(source, store, id, &bytes).await?;
    }
    let key_id = stored.roots[0].key_id.clone();
    Ok((stored.encode_to_vec(), key_id))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::seal::source::KeyFile;

    /// A source that must not be asked.
    struct Silent;

    #[async_trait]
    impl KeySource for Silent {
        fn kind(&self) -> &'static str {
            "silent"
        }

        fn name(&self) -> &str {
            "silent"
        }

        fn mark(&self) -> String {
            "silent".to_owned()
        }

        async fn status(&self) -> Result<String, source::Error> {
            panic!("asked how it is")
        }

        async fn wrap(&self, _: Uid, _: &RootKeyBytes) -> Result<WrappedKey, source::Error> {
            panic!("asked to wrap")
        }

        async fn unwrap(&self, _: Uid, _: &WrappedKey) -> Result<RootKeyBytes, source::Error> {
            panic!("asked to unwrap")
        }
    }

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
        assert!(open_known(&Silent, Some(&offered), &both).await.expect("all are known").is_same(&opened));

        let (_, under_new) = opened.create_data_key("key/system", Uid::NONE, 0).expect("randomness");
        let alone = without_old_roots(&both).expect("a header");
        for last in [
            open(&source, &alone).await.expect("opens"),
            open_known(&Silent, Some(&opened), &alone).await.expect("known"),
        ] {
            assert_eq!(last.root_id(), offered.root_id());
            assert!(last.open_data_key("key/system", &under_new).is_ok());
            assert!(last.open_data_key("key/system", &under_first).is_err(), "the old root is gone");
        }
    }

    #[tokio::test]
    async fn headers_that_are_none_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let source = KeyFile::generate(&dir.path().join("key")).expect("a key");
        let (_, header) = create(&source).await.expect("made");
        let read = Stored::decode(header.as_slice()).expect("a header");
        let none = Stored { roots: Vec::new(), ..read.clone() };
        assert!(matches!(open(&source, &none.encode_to_vec()).await, Err(Error::Damaged)));
        let many = Stored { roots: vec![read.roots[0].clone(); ROOTS_MAX + 1], ..read.clone() };
        assert!(matches!(open(&source, &many.encode_to_vec()).await, Err(Error::Damaged)));
        let newer = Stored { format: FORMAT + 1, ..read };
        assert!(matches!(open(&source, &newer.encode_to_vec()).await, Err(Error::Newer { .. })));
        assert!(matches!(open(&source, &header[1..]).await, Err(Error::Damaged)));
    }
}
