//! The file's format: `format 1 | nonce 24 | ciphertext and tag`. Inside: the time in seconds since 1970, 8 bytes, big
//! end first, and a `FetchEnvironmentResponse`.
//!
//! XChaCha20-Poly1305 under the key of the key file; the associated data names the format and whose environment it is.

use std::time::{Duration, SystemTime};

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{AeadInOut as _, Buffer},
};
use coffer_proto::v1::FetchEnvironmentResponse;
use prost::Message as _;
use zeroize::Zeroizing;

use super::key::Key;

const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 24;
const HEAD_BYTES: usize = 1 + NONCE_BYTES;
const TAG_BYTES: usize = 16;
const TIME_BYTES: usize = 8;

/// Seals an answer of this moment for this workload and address.
pub(super) fn seal(
    key: &Key,
    context: &[&str],
    answer: &FetchEnvironmentResponse,
    now: SystemTime,
) -> Result<Vec<u8>, String> {
    let secs = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| "the clock is before 1970")?.as_secs();
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| format!("no randomness: {error}"))?;
    // The exact capacity, so that nothing is copied while it grows and no copy is left behind.
    let mut inside = Zeroizing::new(Vec::with_capacity(TIME_BYTES + answer.encoded_len() + TAG_BYTES));
    inside.extend_from_slice(&secs.to_be_bytes());
    answer.encode(&mut *inside).map_err(|error| error.to_string())?;
    cipher(key)
        .encrypt_in_place(&XNonce::from(nonce), &associated_data(context), &mut *inside as &mut dyn Buffer)
        .map_err(|_| "it cannot be sealed")?;
    Ok([&[FORMAT][..], &nonce, &inside].concat())
}

/// When it was sealed and what; none if it is anything but what [`seal`] made with the same key and context.
pub(super) fn open(key: &Key, context: &[&str], bytes: Vec<u8>) -> Option<(SystemTime, FetchEnvironmentResponse)> {
    let mut bytes = Zeroizing::new(bytes);
    if bytes.len() < HEAD_BYTES + TIME_BYTES + TAG_BYTES || bytes[0] != FORMAT {
        return None;
    }
    let nonce: [u8; NONCE_BYTES] = bytes[1..HEAD_BYTES].try_into().ok()?;
    let mut inside = Zeroizing::new(bytes.split_off(HEAD_BYTES));
    cipher(key)
        .decrypt_in_place(&XNonce::from(nonce), &associated_data(context), &mut *inside as &mut dyn Buffer)
        .ok()?;
    let (secs, message) = inside.split_first_chunk::<TIME_BYTES>()?;
    let stored = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::from_be_bytes(*secs)))?;
    Some((stored, FetchEnvironmentResponse::decode(message).ok()?))
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&**key).into())
}

/// Each part with its length before it, so that no two contexts are the same bytes.
fn associated_data(context: &[&str]) -> Vec<u8> {
    let mut data = b"coffer-inject cache ".to_vec();
    data.push(FORMAT);
    for part in context {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part.as_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_proto::v1::Variable;
    use proptest::prelude::*;

    const CONTEXT: [&str; 2] = ["projects/p/servers/s", "https://coffer.example:443"];

    fn key(byte: u8) -> Key {
        Zeroizing::new([byte; 32])
    }

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn answer(values: Vec<(String, Vec<u8>)>) -> FetchEnvironmentResponse {
        let variables = values.into_iter().map(|(name, value)| Variable {
            name,
            value: Some(value),
            source: "projects/p/secrets/X".to_owned(),
            kind: 1,
            value_version: 7,
            secret_uid: "u".to_owned(),
        });
        FetchEnvironmentResponse {
            workload: CONTEXT[0].to_owned(),
            variables: variables.collect(),
            environment_revision: "r1".to_owned(),
            ..Default::default()
        }
    }

    proptest! {
        #[test]
        fn any_environment_comes_back_as_it_was(
            values in prop::collection::vec(("[A-Z_]{1,9}", prop::collection::vec(any::<u8>(), 0..200)), 0..20),
            secs in 0..=u64::from(u32::MAX),
        ) {
            let answer = answer(values);
            let sealed = seal(&key(1), &CONTEXT, &answer, at(secs)).expect("sealed");
            let (stored, opened) = open(&key(1), &CONTEXT, sealed).expect("opened");
            prop_assert_eq!(stored, at(secs));
            prop_assert!(opened == answer);
        }

        #[test]
        fn any_other_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), format in any::<bool>()) {
            let mut bytes = bytes;
            if format && !bytes.is_empty() {
                bytes[0] = FORMAT;
            }
            prop_assert!(open(&key(1), &CONTEXT, bytes).is_none());
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let sealed = seal(&key(1), &CONTEXT, &answer(vec![("A".into(), b"hunter2".to_vec())]), at(1)).expect("sealed");
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key(1), &CONTEXT, flipped).is_none(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(open(&key(1), &CONTEXT, sealed[..length].to_vec()).is_none(), "{length} bytes");
        }
        assert!(open(&key(1), &CONTEXT, [&sealed[..], b"x"].concat()).is_none());
        assert!(open(&key(1), &CONTEXT, sealed).is_some());
    }

    #[test]
    fn another_key_workload_or_address_opens_nothing() {
        let sealed = || seal(&key(1), &["ab", "c"], &answer(Vec::new()), at(1)).expect("sealed");
        assert!(open(&key(1), &["ab", "c"], sealed()).is_some());
        assert!(open(&key(2), &["ab", "c"], sealed()).is_none());
        for context in [&["ab", "d"][..], &["ax", "c"], &["a", "bc"], &["abc", ""], &["ab"], &["ab", "c", ""]] {
            assert!(open(&key(1), context, sealed()).is_none(), "{context:?}");
        }
    }

    #[test]
    fn nothing_of_it_can_be_read_and_no_two_are_alike() {
        let answer = answer(vec![("NAME_OF_IT".into(), b"hunter2-value".to_vec())]);
        let [first, second] = [1, 1].map(|secs| seal(&key(1), &CONTEXT, &answer, at(secs)).expect("sealed"));
        for word in [&b"hunter2"[..], b"NAME_OF_IT", b"projects"] {
            assert!(!first.windows(word.len()).any(|window| window == word));
        }
        assert!(first[1..25] != second[1..25], "a nonce twice");
    }
}
