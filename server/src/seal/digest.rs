//! The keyed digest behind environment revisions: changes exactly when its input does, and tells nothing about it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{NoRandomness, hex, key::SecretKey};

/// A key made once for the store and kept through every rotation, so that revisions change only with environments.
pub struct DigestKey(SecretKey);

/// A digest being fed. Each part is length-prefixed, so that no two lists of parts are the same bytes.
pub struct Digest(Hmac<Sha256>);

impl DigestKey {
    /// A new random key.
    pub fn generate() -> Result<Self, NoRandomness> {
        SecretKey::generate().map(Self)
    }

    /// Takes the 32 bytes that [`Self::to_sealable`] gave.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        SecretKey::from_slice(bytes).map(Self)
    }

    /// The bytes, to be sealed.
    pub fn to_sealable(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Begins a digest for one purpose.
    pub fn begin(&self, purpose: &str) -> Digest {
        let mac = Hmac::<Sha256>::new_from_slice(self.0.bytes()).expect("HMAC takes keys of any length");
        let mut digest = Digest(mac);
        digest.part(purpose.as_bytes());
        digest
    }
}

impl Digest {
    /// Adds a part.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// All 256 bits of it.
    pub fn finish_bytes(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }

    /// 128 bits of it, as text.
    pub fn finish(self) -> String {
        hex(&self.0.finalize().into_bytes()[..16])
    }
}

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let key = DigestKey::generate().expect("randomness");
        let of = |parts: &[&str]| {
            let mut digest = key.begin("test");
            parts.iter().for_each(|part| digest.part(part.as_bytes()));
            digest.finish()
        };
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab"]), DigestKey::generate().expect("randomness").begin("test").finish());
    }
}
