//! The keyed chain of an audit log: each line's code depends on every line before it.
//!
//! A chain's key comes from the root key, so that whoever writes the log's files without it can forge nothing. The first
//! line of a chain holds what a later reader needs to make the same key: the chain's id, a nonce, and a copy of the
//! store's header, whose root key is wrapped there as it is in the store.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Keyring, NoRandomness, Uid, hex, key::SecretKey, random, unhex};

/// The code of a line: 128 bits of an HMAC-SHA256. Not secret: it stands in the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac([u8; 16]);

/// One chain and its keys. Wiped when dropped.
pub struct Chain {
    id: Uid,
    store: Uid,
    nonce: [u8; 16],
    header: Vec<u8>,
    lines: SecretKey,
    heads: SecretKey,
}

impl Chain {
    /// A new chain under the root key that is in use. `header` is the store's header, which opened to this keyring.
    pub fn begin(keyring: &Keyring, header: &[u8]) -> Result<Self, NoRandomness> {
        Ok(Self::open(keyring, header, Uid::random()?, random()?))
    }

    /// A chain that was begun before, from what its first line says.
    pub fn open(keyring: &Keyring, header: &[u8], id: Uid, nonce: [u8; 16]) -> Self {
        let derive = |purpose: &str| keyring.derive(purpose, &[&id.0, &nonce]);
        let (lines, heads) = (derive("coffer audit lines 1"), derive("coffer audit heads 1"));
        Self { id, store: keyring.store(), nonce, header: header.to_vec(), lines, heads }
    }

    /// Random, unique for ever.
    pub fn id(&self) -> Uid {
        self.id
    }

    /// Whose log it is.
    pub fn store(&self) -> Uid {
        self.store
    }

    /// What makes the chain's key one of its own.
    pub fn nonce(&self) -> &[u8; 16] {
        &self.nonce
    }

    /// The store's header as it was when the chain began.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The code of a line after the line whose code is `previous`.
    pub fn link(&self, previous: Mac, line: &[u8]) -> Mac {
        Mac::of(&self.lines, &[&previous.0, line])
    }

    /// The code of a note that says how far the chain has come; never one of a line.
    pub fn seal_head(&self, note: &[u8]) -> Mac {
        Mac::of(&self.heads, &[note])
    }
}

impl Mac {
    /// What stands before the first line of a chain.
    pub const NONE: Mac = Mac([0; 16]);

    /// Takes 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }

    fn of(key: &SecretKey, parts: &[&[u8]]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.bytes()).expect("HMAC takes keys of any length");
        parts.iter().for_each(|part| mac.update(part));
        let (mut short, long) = ([0; 16], mac.finalize().into_bytes());
        short.copy_from_slice(&long[..16]);
        Self(short)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({}, …)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::key::Key;

    fn keyring(store: u8) -> Keyring {
        Keyring::new(Uid([store; 16]), vec![std::sync::Arc::new(Key::generate(0).expect("randomness"))])
    }

    #[test]
    fn a_chain_opened_again_gives_the_same_codes_and_no_other_chain_does() {
        let keyring = keyring(1);
        let chain = Chain::begin(&keyring, b"header").expect("randomness");
        let again = Chain::open(&keyring, b"header", chain.id(), *chain.nonce());
        let first = chain.link(Mac::NONE, b"line");
        assert_eq!(again.link(Mac::NONE, b"line"), first);
        assert_eq!(again.seal_head(b"line"), chain.seal_head(b"line"));

        let (id, nonce) = (chain.id(), *chain.nonce());
        for other in [
            Chain::begin(&keyring, b"header").expect("randomness"),
            Chain::open(&keyring, b"header", Uid([0; 16]), nonce),
            Chain::open(&keyring, b"header", id, [0; 16]),
            Chain::open(&self::keyring(1), b"header", id, nonce),
        ] {
            assert_ne!(other.link(Mac::NONE, b"line"), first, "{other:?}");
        }
    }

    #[test]
    fn a_code_depends_on_the_line_its_predecessor_and_its_purpose() {
        let chain = Chain::begin(&keyring(1), b"header").expect("randomness");
        let first = chain.link(Mac::NONE, b"line");
        assert_ne!(chain.link(Mac::NONE, b"lime"), first);
        assert_ne!(chain.link(first, b"line"), first);
        let note = [&[0; 16][..], b"line"].concat();
        assert_ne!(chain.seal_head(&note), first, "a note never passes for a line");
        assert_eq!(Mac::parse(&first.to_string()), Some(first));
        for bad in ["", &"0".repeat(31), &"0".repeat(33), &"A".repeat(32), &"é".repeat(16)] {
            assert_eq!(Mac::parse(bad), None, "{bad}");
        }
    }
}
