//! The open root keys, and the data keys they wrap.

use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    DataKey, Field, KeyId, NoRandomness, OpenFailed, Place, Uid,
    envelope::{self, key_id},
    key::{Key, SecretKey},
    source::RootKeyBytes,
};

/// Root keys that there are at a time: the current one, and the one of before while a rotation goes on.
const ROOTS_MAX: usize = 2;
/// A root key as it is wrapped: id, key.
const ENTRY: usize = 8 + 32;

/// The root keys of one store, open. The first wraps; the others, which there are only during a rotation, still unwrap.
#[derive(Clone)]
pub struct Keyring {
    store: Uid,
    roots: Vec<Arc<Key>>,
}

impl Keyring {
    /// The first of the roots is the current one; there must be one.
    pub(super) fn new(store: Uid, roots: Vec<Arc<Key>>) -> Self {
        assert!(!roots.is_empty(), "a keyring has a root key");
        Self { store, roots }
    }

    /// Reads what [`Self::to_bytes`] gave.
    pub(super) fn from_bytes(store: Uid, bytes: &RootKeyBytes) -> Option<Self> {
        let (entries, rest) = bytes.0.as_chunks::<ENTRY>();
        if !(1..=ROOTS_MAX).contains(&entries.len()) || !rest.is_empty() {
            return None;
        }
        let root = |entry: &[u8; ENTRY]| {
            let (id, key) = entry.split_first_chunk::<8>()?;
            Some(Arc::new(Key::new(KeyId(*id), SecretKey::from_slice(key)?, 0)))
        };
        Some(Self::new(store, entries.iter().map(root).collect::<Option<_>>()?))
    }

    /// All roots in their order, to be wrapped as one.
    pub(super) fn to_bytes(&self) -> RootKeyBytes {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.roots.len() * ENTRY));
        for root in &self.roots {
            bytes.extend_from_slice(&root.id.0);
            bytes.extend_from_slice(root.key.bytes());
        }
        RootKeyBytes(bytes)
    }

    /// A new root before the one there is; `None` if there is one of before already.
    pub(super) fn with_new_root(&self, root: Key) -> Option<Self> {
        let roots = [Arc::new(root)].into_iter().chain(self.roots.iter().cloned());
        (self.roots.len() < ROOTS_MAX).then(|| Self { store: self.store, roots: roots.collect() })
    }

    /// The current root alone.
    pub(super) fn without_old_root(&self) -> Self {
        Self { store: self.store, roots: vec![Arc::clone(&self.roots[0])] }
    }

    /// Whether there is a root of before.
    pub fn has_old_root(&self) -> bool {
        self.roots.len() > 1
    }

    /// The store's identity.
    pub fn store(&self) -> Uid {
        self.store
    }

    /// Another key, for one purpose and context: as secret as the root key, and telling nothing of it.
    pub(super) fn derive(&self, purpose: &str, context: &[&[u8]]) -> SecretKey {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.roots[0].key.bytes()).expect("HMAC takes keys of any length");
        for part in [purpose.as_bytes()].iter().chain(context) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        SecretKey::from_slice(&mac.finalize().into_bytes()).expect("a digest has the length of a key")
    }

    /// The name of the root key that wraps.
    pub fn root_id(&self) -> KeyId {
        self.roots[0].id
    }

    fn root(&self, id: KeyId) -> Option<&Arc<Key>> {
        self.roots.iter().find(|root| root.id == id)
    }

    /// Whether it holds the same roots as another, in the same order.
    #[cfg(test)]
    pub fn is_same(&self, other: &Self) -> bool {
        self.roots.iter().map(|root| root.id).eq(other.roots.iter().map(|root| root.id))
    }

    /// Makes a data key and the record that holds it, wrapped. `scope` is the scope it seals for, or none; `generation`
    /// the number of the last rotation of data keys.
    pub fn create_data_key(
        &self,
        record: &str,
        scope: Uid,
        generation: u32,
    ) -> Result<(DataKey, Vec<u8>), NoRandomness> {
        let data = DataKey::generate(generation)?;
        let bytes = self.wrap_data_key(record, scope, &data)?;
        Ok((data, bytes))
    }

    /// Makes the record that holds a data key, wrapped by the current root key.
    pub fn wrap_data_key(&self, record: &str, scope: Uid, data: &DataKey) -> Result<Vec<u8>, NoRandomness> {
        let root = &self.roots[0];
        let envelope = envelope::seal(root.id, &root.key, &self.key_place(record, scope), &data.to_sealable())?;
        let mut bytes = scope.0.to_vec();
        bytes.extend_from_slice(&envelope);
        Ok(bytes)
    }

    /// Opens the record of a data key. Answers the scope it seals for, too.
    pub fn open_data_key(&self, record: &str, bytes: &[u8]) -> Result<(DataKey, Uid), OpenFailed> {
        let (scope, envelope) = bytes.split_first_chunk::<16>().ok_or(OpenFailed)?;
        let scope = Uid(*scope);
        let root = key_id(envelope).and_then(|id| self.root(id)).ok_or(OpenFailed)?;
        let plaintext = envelope::open(root.id, &root.key, &self.key_place(record, scope), envelope)?;
        Ok((DataKey::from_slice(&plaintext).ok_or(OpenFailed)?, scope))
    }

    /// The name of the root key that wraps the record of a data key.
    pub fn root_of(bytes: &[u8]) -> Option<KeyId> {
        bytes.split_first_chunk::<16>().and_then(|(_, envelope)| key_id(envelope))
    }

    /// Whether the record of a data key is wrapped by the current root key.
    pub fn is_current(&self, bytes: &[u8]) -> bool {
        Self::root_of(bytes) == Some(self.root_id())
    }

    fn key_place<'a>(&self, record: &'a str, scope: Uid) -> Place<'a> {
        Place { store: self.store, record, scope, secret: Uid::NONE, field: Field::DataKey, kind: 0, version: 0 }
    }
}

impl DataKey {
    /// Seals for one place.
    pub fn seal(&self, place: &Place<'_>, plaintext: &[u8]) -> Result<Vec<u8>, NoRandomness> {
        envelope::seal(self.id(), &self.primary().key, place, plaintext)
    }

    /// Opens what was sealed for this place, by the key that seals or one of before.
    pub fn open(&self, place: &Place<'_>, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenFailed> {
        let key = key_id(envelope).and_then(|id| self.by_id(id)).ok_or(OpenFailed)?;
        envelope::open(key.id, &key.key, place, envelope)
    }

    /// Whether the key that seals sealed this.
    pub fn is_current(&self, envelope: &[u8]) -> bool {
        key_id(envelope) == Some(self.id())
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

    fn keyring() -> Keyring {
        Keyring::new(Uid([1; 16]), vec![Arc::new(Key::generate(0).expect("randomness"))])
    }

    fn place(record: &str) -> Place<'_> {
        keyring().key_place(record, Uid([2; 16]))
    }

    #[test]
    fn a_data_key_opens_in_its_record_only() {
        let keyring = keyring();
        let scope = Uid([2; 16]);
        let (key, _) = keyring.create_data_key("key/scope/projects/p", scope, 0).expect("randomness");
        let rotated = key.renewed(1).expect("randomness");
        for key in [key, rotated] {
            let record = keyring.wrap_data_key("key/scope/projects/p", scope, &key).expect("randomness");
            let (read, owner) = keyring.open_data_key("key/scope/projects/p", &record).expect("opens");
            assert!(read.is_same(&key) && owner == scope);
            assert_eq!(read.to_sealable(), key.to_sealable());
            assert!(keyring.open_data_key("key/scope/projects/q", &record).is_err(), "moved to another scope");
            let mut moved = record.clone();
            moved[..16].copy_from_slice(&[3; 16]);
            assert!(keyring.open_data_key("key/scope/projects/p", &moved).is_err(), "bound to another incarnation");
            for end in 0..record.len() {
                assert!(keyring.open_data_key("key/scope/projects/p", &record[..end]).is_err());
            }
            for bit in 0..record.len() * 8 {
                let mut damaged = record.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(keyring.open_data_key("key/scope/projects/p", &damaged).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_new_key_seals_and_an_old_one_opens_until_it_is_dropped() {
        let old = DataKey::generate(0).expect("randomness");
        let before = old.seal(&place("secret/projects/p:A"), b"before").expect("randomness");
        let both = old.renewed(1).expect("randomness");
        let after = both.seal(&place("secret/projects/p:A"), b"after").expect("randomness");
        assert_eq!((both.is_current(&before), both.is_current(&after)), (false, true));
        let opens = |key: &DataKey, sealed: &[u8]| key.open(&place("secret/projects/p:A"), sealed).is_ok();
        assert_eq!((opens(&both, &before), opens(&both, &after)), (true, true));
        assert!(!opens(&old, &after));
        let new = both.without_old();
        assert_eq!((opens(&new, &before), opens(&new, &after)), (false, true));
        assert_eq!((old.generation(), both.generation(), new.generation()), (0, 1, 1));
        assert_eq!((old.has_old(), both.has_old(), new.has_old()), (false, true, false));
    }

    #[test]
    fn an_old_root_unwraps_until_it_is_dropped() {
        let old = keyring();
        let new = Keyring::new(old.store, vec![Arc::new(Key::generate(0).expect("randomness")), old.roots[0].clone()]);
        let (_, before) = old.create_data_key("key/system", Uid::NONE, 0).expect("randomness");
        let (_, after) = new.create_data_key("key/system", Uid::NONE, 0).expect("randomness");
        assert_eq!((new.is_current(&before), new.is_current(&after)), (false, true));
        assert!(new.open_data_key("key/system", &before).is_ok() && old.open_data_key("key/system", &after).is_err());
        let alone = Keyring::new(new.store, vec![new.roots[0].clone()]);
        assert!(
            alone.open_data_key("key/system", &before).is_err() && alone.open_data_key("key/system", &after).is_ok()
        );
    }
}
