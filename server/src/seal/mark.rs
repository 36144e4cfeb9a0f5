//! A mark that somebody keeps for the server and that tells them nothing: where a page ended.

use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce, aead::Aead as _};
use zeroize::Zeroizing;

use super::{NoRandomness, digest::DigestKey, random};

/// Names what the digest key is used for here.
const PURPOSE: &str = "mark 1";
const NONCE_BYTES: usize = 24;
const LENGTH_BYTES: usize = 2;
/// Marks are padded to a multiple of so many bytes: more than the name of any secret or workload has, so that those are
/// all equally long.
const BUCKET_BYTES: usize = 512;

/// Seals and opens the marks of one purpose: those of another are nothing to it.
pub struct Marks(XChaCha20Poly1305);

impl Marks {
    /// `about` is all that a mark is bound to.
    pub fn new<'a>(key: &DigestKey, about: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digest = key.begin(PURPOSE);
        about.into_iter().for_each(|part| digest.part(part));
        let key = Zeroizing::new(digest.finish_bytes());
        Self(XChaCha20Poly1305::new((&*key).into()))
    }

    /// `nonce 24 | ciphertext+tag` of the text, its length before it and zeros after it. The same text is another mark
    /// each time.
    pub fn seal(&self, text: &str) -> Result<Vec<u8>, NoRandomness> {
        let nonce: [u8; NONCE_BYTES] = random()?;
        // Longer than that is no key of a store; such a mark opens to nothing.
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        let mut padded = [&length.to_be_bytes()[..], text.as_bytes()].concat();
        padded.resize(padded.len().next_multiple_of(BUCKET_BYTES), 0);
        let sealed = self.0.encrypt(&XNonce::from(nonce), &padded[..]).map_err(|_| NoRandomness)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// The text; none if this is anything but what [`Self::seal`] made.
    pub fn open(&self, mark: &[u8]) -> Option<String> {
        let (nonce, sealed) = mark.split_first_chunk::<NONCE_BYTES>()?;
        let padded = self.0.decrypt(&XNonce::from(*nonce), sealed).ok()?;
        let (length, rest) = padded.split_first_chunk::<LENGTH_BYTES>()?;
        let text = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
        std::str::from_utf8(text).ok().map(str::to_owned)
    }
}

impl std::fmt::Debug for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Marks(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_opened_by_its_own_purpose_and_key_only() {
        let key = DigestKey::generate().expect("randomness");
        let marks = |about: [&'static str; 2]| Marks::new(&key, about.map(str::as_bytes));
        let mark = marks(["a", "bc"]).seal("text").expect("sealed");
        assert_eq!(marks(["a", "bc"]).open(&mark).as_deref(), Some("text"));
        assert_eq!(marks(["ab", "c"]).open(&mark), None);
        let other = DigestKey::generate().expect("randomness");
        assert_eq!(Marks::new(&other, ["a", "bc"].map(str::as_bytes)).open(&mark), None);
        for bit in 0..mark.len() * 8 {
            let mut flipped = mark.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(marks(["a", "bc"]).open(&flipped), None, "bit {bit}");
        }
        assert!((0..mark.len()).all(|length| marks(["a", "bc"]).open(&mark[..length]).is_none()));
    }

    #[test]
    fn a_mark_tells_neither_the_text_nor_its_length() {
        let marks = Marks::new(&DigestKey::generate().expect("randomness"), []);
        let texts = ["", "k", &"k".repeat(BUCKET_BYTES - LENGTH_BYTES)];
        let sealed = texts.map(|text| marks.seal(text).expect("sealed"));
        assert!(sealed.iter().all(|mark| mark.len() == sealed[0].len() && !mark.windows(4).any(|w| w == b"kkkk")));
        assert_ne!(marks.seal("k").expect("sealed"), sealed[1]);
        let long = "k".repeat(BUCKET_BYTES);
        assert_eq!(marks.open(&marks.seal(&long).expect("sealed")), Some(long));
    }
}
