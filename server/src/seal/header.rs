//! The store's first record: its identity and its wrapped root key. The only record that is not sealed as a whole,
//! because it is what opens all others.

use prost::Message as _;

use super::{
    NoRandomness, Uid,
    key::SecretKey,
    keyring::Keyring,
    source::{self, KeySource, RootKeyBytes, WrappedKey, wrap_surely},
};
use zeroize::Zeroizing;

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
    fn new(store: Uid, wrapped: WrappedKey) -> Self {
        let annotations = wrapped.annotations.into_iter().map(|(name, value)| Annotation { name, value });
        Self {
            format: FORMAT,
            store: store.0.to_vec(),
            source: wrapped.source,
            key_id: wrapped.key_id,
            wrapped: wrapped.bytes,
            annotations: annotations.collect(),
        }
    }

    fn read(header: &[u8]) -> Result<(Uid, WrappedKey), Error> {
        let stored = Stored::decode(header).map_err(|_| Error::Damaged)?;
        if stored.format > FORMAT {
            return Err(Error::Newer { found: stored.format });
        }
        let store = Uid(stored.store.as_slice().try_into().map_err(|_| Error::Damaged)?);
        let annotations = stored.annotations.into_iter().map(|annotation| (annotation.name, annotation.value));
        let wrapped = WrappedKey {
            source: stored.source,
            key_id: stored.key_id,
            bytes: stored.wrapped,
            annotations: annotations.collect(),
        };
        Ok((store, wrapped))
    }
}

/// Makes a new store's identity and root key, and the header that holds them. The caller must never put it over an
/// existing one.
pub async fn create(source: &dyn KeySource) -> Result<(Keyring, Vec<u8>), Error> {
    let no_randomness = |error: NoRandomness| Error::Source(error.into());
    let store = Uid::random().map_err(no_randomness)?;
    let root = SecretKey::generate().map_err(no_randomness)?;
    let bytes = RootKeyBytes(Zeroizing::new(root.bytes().to_vec()));
    let wrapped = wrap_surely(source, store, &bytes).await?;
    Ok((Keyring::new(store, root), Stored::new(store, wrapped).encode_to_vec()))
}

/// Opens a store's header.
pub async fn open(source: &dyn KeySource, header: &[u8]) -> Result<Keyring, Error> {
    let (store, wrapped) = Stored::read(header)?;
    let root = source.unwrap(store, &wrapped).await?;
    let root = SecretKey::from_slice(&root.0).ok_or(Error::Damaged)?;
    Ok(Keyring::new(store, root))
}

/// The kind of source and the key id that a header names.
pub fn wrapped_by(header: &[u8]) -> Result<(String, String), Error> {
    let (_, wrapped) = Stored::read(header)?;
    Ok((wrapped.source, wrapped.key_id))
}

/// The same root key, wrapped anew by the same source, which unwraps it for that: a new header. Answers the id of the
/// key that wraps it now, too.
pub async fn rewrap(source: &dyn KeySource, header: &[u8]) -> Result<(Vec<u8>, String), Error> {
    let (store, wrapped) = Stored::read(header)?;
    let root = source.unwrap(store, &wrapped).await?;
    let wrapped = wrap_surely(source, store, &root).await?;
    let key_id = wrapped.key_id.clone();
    Ok((Stored::new(store, wrapped).encode_to_vec(), key_id))
}
