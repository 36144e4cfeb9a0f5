//! Sealing: everything stored is encrypted and bound to its place. The only module that sees keys.
//!
//! ```text
//!   key source ─► root key ─► one data key per scope, and the system key ─► each record's envelopes
//! ```
//!
//! - [`source`]: what wraps the root key: a key file.
//! - [`header`]: the wrapped root key as it stands in the store, and how it is opened or refused.
//! - [`keyring`]: the open root keys; makes and opens data keys.
//! - [`envelope`]: one sealed value: XChaCha20-Poly1305, associated data that names its place.
//! - [`digest`]: the keyed digest behind environment revisions.
//! - [`chain`]: the keyed chain of an audit log.
//! - [`Marks`]: what callers keep for the server without learning what it is: where a page ended.

pub mod chain;
pub mod digest;
mod envelope;
pub mod header;
mod key;
pub mod keyring;
mod mark;
pub mod source;

pub use envelope::{Field, OpenFailed, Place};
pub use key::{DataKey, KeyId};
pub use keyring::Keyring;
pub use mark::Marks;

#[cfg(test)]
pub(crate) use key::living;

/// Random bytes that name something for ever: a store, a scope, a secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub [u8; 16]);

/// The operating system gave no randomness. Nothing safe can be made without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no randomness")]
pub struct NoRandomness;

impl Uid {
    /// What belongs to no scope, or is no secret.
    pub const NONE: Uid = Uid([0; 16]);

    /// A new one.
    pub fn random() -> Result<Self, NoRandomness> {
        random().map(Self)
    }
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Takes exactly the text that [`hex`] gives for `N` bytes.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.as_bytes().iter().all(is_digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl std::fmt::Display for Uid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl std::fmt::Debug for Uid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
