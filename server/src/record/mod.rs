//! What is stored: the keys of records and their sealed contents. Contents are protobuf, because fields can be added
//! to it for ever; each record begins with a format byte, so that a later layout can be told from this one.

mod declared;
pub mod key;
mod rotation;
mod secret;
mod soft;
mod system;

pub use declared::{DeclarationRecord, DeclaredVariable, PatternRecord};
pub use rotation::RotationRecord;
pub use secret::{Hint, Host, Kind, SecretMeta, SecretRecord, SharedWith, Sharing, Stamp};
pub use soft::{StartRecord, StartsRecord, UsedRecord, UsedSecretRecord};
pub use system::{GrantRecord, ScopeRecord, TokenRecord, TokenSecretHash, open_system, seal_system};

use crate::seal::{NoRandomness, OpenFailed};

/// Why a stored record cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not open with its key in its place.
    #[error(transparent)]
    OpenFailed(#[from] OpenFailed),
    /// It opens, but holds nothing this version can read.
    #[error("a record's content is not understood")]
    NotUnderstood,
    /// There is no key to open it with.
    #[error("a record's key is missing")]
    KeyMissing,
    /// Its key, or the key of that, is not one that may stand beside the others: it was rotated away, or put back.
    #[error("a record's key was rotated away")]
    KeyOfBefore,
    /// It cannot be sealed.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}
