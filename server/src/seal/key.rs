//! Key bytes: made, used, wiped.

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

use super::{NoRandomness, hex, random};

/// Keys that one record may hold: the one that seals, and those of before that a rotation has not done away with yet.
const KEYS_MAX: usize = 8;
/// A key in its record: id, key, generation.
const ENTRY: usize = 8 + 32 + 4;

/// Names a key in the envelopes it seals. Random, so that a key is never taken for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

/// 256 bits that seal. No `Debug` of the bytes, wiped when dropped.
pub(super) struct SecretKey(Zeroizing<[u8; 32]>);

/// What seals records: of a scope, or of the system. The first of its keys seals; the others, which there are only
/// during a rotation, still open.
pub struct DataKey {
    keys: Vec<Arc<Key>>,
}

/// One key, with its name and the rotation that made it.
pub(super) struct Key {
    pub id: KeyId,
    pub key: SecretKey,
    pub generation: u32,
    #[cfg(test)]
    _living: living::Living,
}

impl SecretKey {
    pub(super) fn generate() -> Result<Self, NoRandomness> {
        Ok(Self(Zeroizing::new(random()?)))
    }

    /// Takes exactly 32 bytes.
    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(Zeroizing::new(bytes)))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Key {
    pub fn new(id: KeyId, key: SecretKey, generation: u32) -> Self {
        Self {
            #[cfg(test)]
            _living: living::Living::new(id),
            id,
            key,
            generation,
        }
    }

    pub fn generate(generation: u32) -> Result<Self, NoRandomness> {
        Ok(Self::new(KeyId::random()?, SecretKey::generate()?, generation))
    }
}

impl DataKey {
    pub(super) fn generate(generation: u32) -> Result<Self, NoRandomness> {
        Ok(Self { keys: vec![Arc::new(Key::generate(generation)?)] })
    }

    /// Reads what [`Self::to_sealable`] gave.
    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<ENTRY>();
        if !(1..=KEYS_MAX).contains(&entries.len()) || !rest.is_empty() {
            return None;
        }
        let key = |entry: &[u8; ENTRY]| {
            let (id, rest) = entry.split_first_chunk::<8>()?;
            let (key, generation) = rest.split_first_chunk::<32>()?;
            let generation = u32::from_be_bytes(generation.try_into().ok()?);
            Some(Arc::new(Key::new(KeyId(*id), SecretKey::from_slice(key)?, generation)))
        };
        Some(Self { keys: entries.iter().map(key).collect::<Option<_>>()? })
    }

    /// The keys, to be sealed.
    pub(super) fn to_sealable(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.keys.len() * ENTRY));
        for key in &self.keys {
            bytes.extend_from_slice(&key.id.0);
            bytes.extend_from_slice(key.key.bytes());
            bytes.extend_from_slice(&key.generation.to_be_bytes());
        }
        bytes
    }

    /// The key that seals.
    pub(super) fn primary(&self) -> &Key {
        &self.keys[0]
    }

    pub(super) fn by_id(&self, id: KeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id).map(AsRef::as_ref)
    }

    /// The name of the key that seals.
    pub fn id(&self) -> KeyId {
        self.primary().id
    }

    /// Which rotation made the key that seals; 0 for none.
    pub fn generation(&self) -> u32 {
        self.primary().generation
    }

    /// Whether there are keys of before, which only open.
    pub fn has_old(&self) -> bool {
        self.keys.len() > 1
    }

    /// Whether both hold the same keys.
    pub fn is_same(&self, other: &Self) -> bool {
        self.keys.iter().map(|key| key.id).eq(other.keys.iter().map(|key| key.id))
    }

    /// A new key that seals, before those there are, which open from now on.
    pub fn renewed(&self, generation: u32) -> Result<Self, NoRandomness> {
        let new = Arc::new(Key::generate(generation)?);
        Ok(Self { keys: [new].into_iter().chain(self.keys.iter().cloned()).take(KEYS_MAX).collect() })
    }

    /// The key that seals, alone.
    pub fn without_old(&self) -> Self {
        Self { keys: vec![Arc::clone(&self.keys[0])] }
    }
}

impl KeyId {
    pub(super) fn random() -> Result<Self, NoRandomness> {
        random().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({}, …)", self.id())
    }
}

/// Counts the keys in memory, so that tests see them go.
#[cfg(test)]
pub(crate) mod living {
    use std::{
        collections::HashMap,
        sync::{LazyLock, Mutex, PoisonError},
    };

    use super::KeyId;

    static COUNTS: LazyLock<Mutex<HashMap<KeyId, usize>>> = LazyLock::new(Mutex::default);

    pub(in crate::seal) struct Living(KeyId);

    impl Living {
        pub(super) fn new(id: KeyId) -> Self {
            *COUNTS.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default() += 1;
            Self(id)
        }
    }

    impl Drop for Living {
        fn drop(&mut self) {
            let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
            *counts.get_mut(&self.0).expect("counted when made") -= 1;
        }
    }

    /// How many objects hold this key.
    pub(crate) fn count(id: KeyId) -> usize {
        COUNTS.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied().unwrap_or_default()
    }
}
