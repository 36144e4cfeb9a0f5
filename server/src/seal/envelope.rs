//! One sealed value: `format 1 | key id 8 | nonce 24 | ciphertext and tag`.
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) is the AEAD of RFC 8439 behind a 192-bit nonce, so that random nonces never
//! run out. The associated data names the place; an envelope moved anywhere else does not open.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use zeroize::Zeroizing;

use super::{KeyId, NoRandomness, Uid, key::SecretKey, random};

const FORMAT: u8 = 1;
const KEY_ID: usize = 8;
const NONCE: usize = 24;
const TAG: usize = 16;
const OVERHEAD: usize = 1 + KEY_ID + NONCE + TAG;

/// What an envelope holds, so that one kind is never taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// The root key, wrapped by a key source.
    RootKey = 1,
    /// A data key, wrapped by the root key.
    DataKey = 2,
    /// A record of the system: a scope, grant or token.
    Record = 3,
    /// A secret's metadata.
    Metadata = 4,
    /// A secret's value.
    Value = 5,
}

/// Where an envelope belongs. All of it is authenticated, none of it stored.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The store.
    pub store: Uid,
    /// The record's key.
    pub record: &'a str,
    /// The scope that owns it, or none.
    pub scope: Uid,
    /// The secret, or none.
    pub secret: Uid,
    /// What it holds.
    pub field: Field,
    /// The secret's kind as stored, or 0.
    pub kind: u8,
    /// The value's version, or 0.
    pub version: u64,
}

/// The envelope is not what its place says: damaged, moved, of another key, or forged. Which, nobody can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed record does not open in its place")]
pub struct OpenFailed;

pub(super) fn seal(id: KeyId, key: &SecretKey, place: &Place<'_>, plaintext: &[u8]) -> Result<Vec<u8>, NoRandomness> {
    let nonce: [u8; NONCE] = random()?;
    let aad = place.associated_data(id);
    let sealed = XChaCha20Poly1305::new(key.bytes().into())
        .encrypt(&XNonce::from(nonce), Payload { msg: plaintext, aad: &aad })
        .expect("the AEAD takes up to 256 GiB; records have at most 96 KiB");
    let mut envelope = Vec::with_capacity(OVERHEAD + plaintext.len());
    envelope.push(FORMAT);
    envelope.extend_from_slice(&id.0);
    envelope.extend_from_slice(&nonce);
    envelope.extend_from_slice(&sealed);
    Ok(envelope)
}

/// The key that an envelope says it was sealed by.
pub(super) fn key_id(envelope: &[u8]) -> Option<KeyId> {
    let id = envelope.get(1..=KEY_ID)?;
    id.try_into().ok().map(KeyId)
}

pub(super) fn open(
    id: KeyId,
    key: &SecretKey,
    place: &Place<'_>,
    envelope: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenFailed> {
    if envelope.len() < OVERHEAD || envelope[0] != FORMAT || envelope[1..=KEY_ID] != id.0 {
        return Err(OpenFailed);
    }
    let (nonce, sealed) = envelope[1 + KEY_ID..].split_at(NONCE);
    let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| OpenFailed)?;
    let aad = place.associated_data(id);
    XChaCha20Poly1305::new(key.bytes().into())
        .decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: &aad })
        .map(Zeroizing::new)
        .map_err(|_| OpenFailed)
}

impl Place<'_> {
    /// Fixed-size fields first and the one of variable size last, so that no two places have the same bytes.
    fn associated_data(&self, id: KeyId) -> Vec<u8> {
        let mut aad = Vec::with_capacity(1 + KEY_ID + 3 * 16 + 10 + self.record.len());
        aad.push(FORMAT);
        aad.extend_from_slice(&id.0);
        aad.extend_from_slice(&self.store.0);
        aad.extend_from_slice(&self.scope.0);
        aad.extend_from_slice(&self.secret.0);
        aad.push(self.field as u8);
        aad.push(self.kind);
        aad.extend_from_slice(&self.version.to_be_bytes());
        aad.extend_from_slice(self.record.as_bytes());
        aad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(record: &str) -> Place<'_> {
        Place {
            store: Uid([1; 16]),
            record,
            scope: Uid([2; 16]),
            secret: Uid([3; 16]),
            field: Field::Value,
            kind: 1,
            version: 7,
        }
    }

    fn key() -> (KeyId, SecretKey) {
        (KeyId([9; 8]), SecretKey::generate().expect("randomness"))
    }

    #[test]
    fn opens_in_its_place_only() {
        let (id, key) = key();
        let home = place("secret/projects/p:A");
        let envelope = seal(id, &key, &home, b"value").expect("randomness");
        assert_eq!(open(id, &key, &home, &envelope).expect("opens").as_slice(), b"value");

        let elsewhere = [
            Place { store: Uid([0; 16]), ..home },
            Place { record: "secret/projects/p:B", ..home },
            Place { scope: Uid([0; 16]), ..home },
            Place { secret: Uid([0; 16]), ..home },
            Place { field: Field::Metadata, ..home },
            Place { kind: 2, ..home },
            Place { version: 8, ..home },
        ];
        for place in elsewhere {
            assert_eq!(open(id, &key, &place, &envelope).expect_err("moved"), OpenFailed, "{place:?}");
        }
        assert!(open(KeyId([8; 8]), &key, &home, &envelope).is_err(), "another key id");
        let other = SecretKey::generate().expect("randomness");
        assert!(open(id, &other, &home, &envelope).is_err(), "another key");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (id, key) = key();
        let home = place("secret/projects/p:A");
        let envelope = seal(id, &key, &home, b"value").expect("randomness");
        for bit in 0..envelope.len() * 8 {
            let mut damaged = envelope.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(id, &key, &home, &damaged).is_err(), "bit {bit}");
        }
        for end in 0..envelope.len() {
            assert!(open(id, &key, &home, &envelope[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn the_same_value_never_looks_the_same() {
        let (id, key) = key();
        let home = place("secret/projects/p:A");
        let seal = || seal(id, &key, &home, b"value").expect("randomness");
        assert_ne!(seal(), seal());
    }
}
