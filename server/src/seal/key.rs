//! Key bytes: made, used, wiped.

use std::fmt;

use zeroize::Zeroizing;

use super::{NoRandomness, hex, random};

/// Names a key in the envelopes it seals. Random, so that a key is never taken for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

/// 256 bits that seal. No `Debug` of the bytes, wiped when dropped.
pub(super) struct SecretKey(Zeroizing<[u8; 32]>);

/// A key that seals records: a scope's, or the system's.
pub struct DataKey {
    pub(super) id: KeyId,
    pub(super) key: SecretKey,
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

impl DataKey {
    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
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
        write!(f, "DataKey({}, …)", self.id)
    }
}
