//! Strong random values.

use coffer_proto::value::SecretValue;
use zeroize::Zeroizing;

use crate::failure::Failure;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Letters and digits, each equally likely: 5.95 bits a character.
pub(crate) fn alphanumeric(chars: usize) -> Result<SecretValue, Failure> {
    // The largest multiple of 62 in a byte: what is above would favour the first letters.
    const FAIR: u8 = 248;
    let mut value = Zeroizing::new(Vec::with_capacity(chars));
    let mut drawn = Zeroizing::new([0; 256]);
    while value.len() < chars {
        getrandom::fill(drawn.as_mut())
            .map_err(|error| Failure::failed(format!("the system gives no randomness: {error}")))?;
        let fair = drawn.iter().filter(|byte| **byte < FAIR).map(|byte| ALPHABET[usize::from(byte % 62)]);
        let missing = chars - value.len();
        value.extend(fair.take(missing));
    }
    SecretValue::new(std::mem::take(&mut *value)).map_err(|error| Failure::usage(format!("--generate: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_letters() {
        for chars in [1, 32, 255, 1000] {
            let value = alphanumeric(chars).expect("a value");
            assert_eq!(value.bytes(), chars);
            assert!(value.expose().bytes().all(|b| b.is_ascii_alphanumeric()));
        }
        assert_ne!(alphanumeric(32).expect("one").expose(), alphanumeric(32).expect("another").expose());
    }

    #[test]
    fn every_letter_is_as_likely() {
        // 62,000 draws: 1,000 a letter, standard deviation 32. Six of them are one chance in a hundred million.
        let value = alphanumeric(62_000).expect("a value");
        for letter in ALPHABET {
            let count = value.expose().bytes().filter(|b| b == letter).count();
            assert!((800..1200).contains(&count), "{}: {count}", char::from(*letter));
        }
    }
}
