//! What wraps the root key. The store's header says which source wrapped it; without the source nothing opens.
//!
//! - [`file`](mod@file): a key in a file, or in a credential that systemd hands over.
//! - [`kms`]: a key that stays in a key management service, behind a KMS v2 plugin of Kubernetes.
//! - [`health`]: how the source of a running server is.

pub mod file;
pub mod health;
pub mod kms;

use std::{io, path::PathBuf};

use async_trait::async_trait;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{NoRandomness, Uid};

pub use file::KeyFile;
pub use health::{Health, KeyHealth};
pub use kms::Kms;

/// The root keys, wrapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which kind of source wrapped it: [`KeySource::kind`].
    pub source: String,
    /// Which of the source's keys wrapped it. Not secret.
    pub key_id: String,
    /// The wrapped bytes.
    pub bytes: Vec<u8>,
    /// What the source wants back with them, by name. Not secret.
    pub annotations: Vec<(String, Vec<u8>)>,
}

/// The root keys, on their way between a source and the keyring. Wiped when dropped.
pub struct RootKeyBytes(pub(super) Zeroizing<Vec<u8>>);

/// Something that can wrap and unwrap the root key.
#[async_trait]
pub trait KeySource: Send + Sync {
    /// What it is: `file`, `credential` or `kms`.
    fn kind(&self) -> &'static str;

    /// What it is and where, for people: `key file /etc/coffer/root.key`.
    fn name(&self) -> &str;

    /// Which key opens a store, in words that are not secret. As long as the right source stays the right one, so do they:
    /// a plugin may change its key ids, so its words name none.
    fn mark(&self) -> String;

    /// Whether it can be used now; the id of the key that wraps now.
    async fn status(&self) -> Result<String, Error>;

    /// Wraps the root keys of a store.
    async fn wrap(&self, store: Uid, root: &RootKeyBytes) -> Result<WrappedKey, Error>;

    /// Unwraps it, or says why not.
    async fn unwrap(&self, store: Uid, wrapped: &WrappedKey) -> Result<RootKeyBytes, Error>;
}

/// Why a key source cannot be used. Never says anything of a key, and quotes nothing that could.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{what} {}: {error}", path.display())]
    Io {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// The file is not one that may hold a key.
    #[error("{what} {}: {reason}", path.display())]
    Unfit {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another key wrapped this store's root key.
    #[error("{name}: wrong key: this store was sealed with {wanted}, the key given is {given}")]
    WrongKey {
        /// The source given.
        name: String,
        /// The source and key id in the store's header.
        wanted: String,
        /// The key of the source given.
        given: String,
    },
    /// The source unwraps something, but not this store's root key.
    #[error("{name}: wrong key: what it unwraps is the root key of another store")]
    WrongContext {
        /// The source given.
        name: String,
    },
    /// The source answers with something that no such source may answer, or refuses for good.
    #[error("{name}: {reason}")]
    Refused {
        /// The source.
        name: String,
        /// What it did. Never in its own words.
        reason: String,
    },
    /// The source does not answer. Trying again may help.
    #[error("{name} does not answer: {reason}")]
    Unreachable {
        /// The source.
        name: String,
        /// What happened.
        reason: String,
    },
    /// The source answers that it cannot be used now. Trying again may help.
    #[error("{name} is not well: {reason}")]
    Unhealthy {
        /// The source.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The key is the right one, but the wrapped root key does not open: the store's header is damaged.
    #[error("the store's header is damaged: its root key does not open with the right key")]
    Damaged,
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Why a server is sealed though its configuration and its store may be right: what only time can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The key source does not answer.
    Unreachable,
    /// The key source says that it cannot be used now.
    Unhealthy,
}

impl Cause {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Unreachable => "KEY_SOURCE_UNREACHABLE",
            Cause::Unhealthy => "KEY_SOURCE_UNHEALTHY",
        }
    }
}

impl Error {
    /// What to say while trying again; `None` if trying again is in vain.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Error::Unreachable { .. } => Some(Cause::Unreachable),
            Error::Unhealthy { .. } => Some(Cause::Unhealthy),
            _ => None,
        }
    }
}

/// Wraps, and unwraps again: what cannot be opened must never become the only copy.
pub(super) async fn wrap_surely(source: &dyn KeySource, store: Uid, root: &RootKeyBytes) -> Result<WrappedKey, Error> {
    let wrapped = source.wrap(store, root).await?;
    let unwrapped = source.unwrap(store, &wrapped).await?;
    if bool::from(unwrapped.0.ct_eq(&root.0)) {
        Ok(wrapped)
    } else {
        let reason = "it does not unwrap what it has just wrapped".to_owned();
        Err(Error::Refused { name: source.name().to_owned(), reason })
    }
}

/// Others' words must not reach a terminal as they are: the store and the plugin are untrusted.
fn printable(text: &str) -> String {
    const SHOWN_CHARS: usize = 64;
    text.chars().take(SHOWN_CHARS).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// What the header says of its source, in words for people.
fn wanted(wrapped: &WrappedKey) -> String {
    format!("{} key {}", printable(&wrapped.source), printable(&wrapped.key_id))
}
