//! The open root key, and the data keys it wraps.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{DataKey, Field, KeyId, NoRandomness, OpenFailed, Place, Uid, envelope, key::SecretKey};

/// Names the root key in the envelopes of data keys. There is one root key until rotation makes others.
const ROOT: KeyId = KeyId(*b"root\0\0\0\x01");

/// The keys of one store, open.
pub struct Keyring {
    store: Uid,
    root: SecretKey,
}

impl Keyring {
    pub(super) fn new(store: Uid, root: SecretKey) -> Self {
        Self { store, root }
    }

    /// The store's identity.
    pub fn store(&self) -> Uid {
        self.store
    }

    /// Another key, for one purpose and context: as secret as the root key, and telling nothing of it.
    pub(super) fn derive(&self, purpose: &str, context: &[&[u8]]) -> SecretKey {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.root.bytes()).expect("HMAC takes keys of any length");
        for part in [purpose.as_bytes()].iter().chain(context) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        SecretKey::from_slice(&mac.finalize().into_bytes()).expect("a digest has the length of a key")
    }

    /// Makes a data key and the record that holds it, wrapped. `scope` is the scope it seals for, or none.
    pub fn create_data_key(&self, record: &str, scope: Uid) -> Result<(DataKey, Vec<u8>), NoRandomness> {
        let data = DataKey { id: KeyId::random()?, key: SecretKey::generate()? };
        let mut plaintext = Zeroizing::new(Vec::with_capacity(40));
        plaintext.extend_from_slice(&data.id.0);
        plaintext.extend_from_slice(data.key.bytes());
        let envelope = envelope::seal(ROOT, &self.root, &self.key_place(record, scope), &plaintext)?;
        let mut bytes = scope.0.to_vec();
        bytes.extend_from_slice(&envelope);
        Ok((data, bytes))
    }

    /// Opens the record of a data key. Answers the scope it seals for, too.
    pub fn open_data_key(&self, record: &str, bytes: &[u8]) -> Result<(DataKey, Uid), OpenFailed> {
        let (scope, envelope) = bytes.split_first_chunk::<16>().ok_or(OpenFailed)?;
        let scope = Uid(*scope);
        let plaintext = envelope::open(ROOT, &self.root, &self.key_place(record, scope), envelope)?;
        let (id, key) = plaintext.split_first_chunk::<8>().ok_or(OpenFailed)?;
        let key = SecretKey::from_slice(key).ok_or(OpenFailed)?;
        Ok((DataKey { id: KeyId(*id), key }, scope))
    }

    fn key_place<'a>(&self, record: &'a str, scope: Uid) -> Place<'a> {
        Place { store: self.store, record, scope, secret: Uid::NONE, field: Field::DataKey, kind: 0, version: 0 }
    }
}

impl DataKey {
    /// Seals for one place.
    pub fn seal(&self, place: &Place<'_>, plaintext: &[u8]) -> Result<Vec<u8>, NoRandomness> {
        envelope::seal(self.id, &self.key, place, plaintext)
    }

    /// Opens what was sealed for this place.
    pub fn open(&self, place: &Place<'_>, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenFailed> {
        envelope::open(self.id, &self.key, place, envelope)
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({}, …)", self.store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_key_opens_in_its_record_only() {
        let keyring = Keyring::new(Uid([1; 16]), SecretKey::generate().expect("randomness"));
        let scope = Uid([2; 16]);
        let (key, record) = keyring.create_data_key("key/scope/projects/p", scope).expect("randomness");
        let (read, owner) = keyring.open_data_key("key/scope/projects/p", &record).expect("opens");
        assert_eq!((read.id, read.key.bytes(), owner), (key.id, key.key.bytes(), scope));
        assert!(keyring.open_data_key("key/scope/projects/q", &record).is_err(), "moved to another scope");
        let mut moved = record.clone();
        moved[..16].copy_from_slice(&[3; 16]);
        assert!(keyring.open_data_key("key/scope/projects/p", &moved).is_err(), "bound to another incarnation");
        for end in 0..record.len() {
            assert!(keyring.open_data_key("key/scope/projects/p", &record[..end]).is_err());
        }
    }
}
