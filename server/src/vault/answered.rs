//! How large the answer to a change will be. That it can be sent is a condition of acting: an answer that turns out too large
//! after the commit would tell the caller that nothing was done.

use std::sync::Arc;

use coffer_proto::limits;

use super::{
    Error, ImportOutcome, IssuedToken, ShownDeclaration, ShownSecret, clone::Cloned, declarations, write::Plan,
};
use crate::{
    record::{SecretMeta, SharedWith},
    view::{Grant, TokenEntry},
};

/// What a change answers with.
pub(crate) trait Answered {
    /// Upper bound of its size on the wire, in bytes.
    fn bytes_max(&self) -> usize;
}

/// What a message takes beside its texts: its numbers, times and ids, and what stands before each text.
const FIXED_BYTES: usize = 400;
/// What stands before a text or a message in a list.
const ENTRY_BYTES: usize = 6;

impl<T: Answered> Plan<T> {
    /// Refuses a change whose answer could not be sent.
    pub(super) fn check_answer(self) -> Result<Self, Error> {
        match self.answer().bytes_max() <= limits::RESPONSE_BYTES {
            true => Ok(self),
            false => Err(Error::TooMany("the answer would be larger than 4 MiB; name fewer secrets in one call")),
        }
    }
}

impl Answered for () {
    fn bytes_max(&self) -> usize {
        0
    }
}

impl Answered for bool {
    fn bytes_max(&self) -> usize {
        FIXED_BYTES
    }
}

impl Answered for u64 {
    fn bytes_max(&self) -> usize {
        FIXED_BYTES
    }
}

impl<T: Answered> Answered for Arc<T> {
    fn bytes_max(&self) -> usize {
        self.as_ref().bytes_max()
    }
}

impl Answered for ShownSecret {
    fn bytes_max(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |_| self.meta.value_bytes as usize);
        secret_bytes(self.name.scope().as_str(), &self.meta, value)
    }
}

impl Answered for Cloned {
    fn bytes_max(&self) -> usize {
        let missing = self.missing.iter().map(|name| name.as_str().len() + ENTRY_BYTES);
        self.secrets.iter().map(|secret| secret.bytes_max() + ENTRY_BYTES).chain(missing).sum()
    }
}

impl Answered for Vec<ImportOutcome> {
    fn bytes_max(&self) -> usize {
        self.iter().map(|outcome| outcome.name.to_string().len() + 3 * ENTRY_BYTES).sum()
    }
}

impl Answered for Grant {
    fn bytes_max(&self) -> usize {
        FIXED_BYTES + self.pattern.len() + self.principal.to_string().len() + self.creator.len()
    }
}

impl Answered for IssuedToken {
    fn bytes_max(&self) -> usize {
        FIXED_BYTES + self.entry.bytes_max()
    }
}

impl Answered for TokenEntry {
    fn bytes_max(&self) -> usize {
        FIXED_BYTES + self.principal.to_string().len() + self.issuer.len() + self.description.len()
    }
}

impl Answered for ShownDeclaration {
    fn bytes_max(&self) -> usize {
        let texts = self.name.as_str().len() + self.description.len() + self.updater.len();
        FIXED_BYTES + texts + declarations::variables_bytes(&self.variables)
    }
}

/// Upper bound of a secret's size on the wire, in bytes, with a shown value of so many.
pub(super) fn secret_bytes(scope: &str, meta: &SecretMeta, value: usize) -> usize {
    // The name is the scope's, `/secrets/`, and at most 128 bytes; a workspace's is the organization's and its own.
    let name = scope.len() + 140;
    let texts = [&meta.description, &meta.hint.0, &meta.created.principal, &meta.updated.principal, &meta.cloned_from];
    let hosts = meta.allowed_hosts.iter().map(|host| host.len() + ENTRY_BYTES).sum::<usize>();
    let sharing = match &meta.sharing {
        Some(SharedWith::Only(ids)) => ids.iter().map(|id| scope.len() + 12 + id.len() + ENTRY_BYTES).sum(),
        _ => 0,
    };
    FIXED_BYTES + name + value + texts.iter().map(|text| text.len()).sum::<usize>() + hosts + sharing
}
