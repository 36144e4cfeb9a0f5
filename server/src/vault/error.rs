//! Why the vault did not do what was asked, in two texts: one for the caller, which never holds a value and never tells
//! more than the caller may know, and one for the log.

use std::{fmt, time::Duration};

use coffer_proto::{
    name::{DeclarationKind, DeclarationName, InvalidName, Scope, SecretName, VariableName},
    reason::Reason,
};

use super::template::Unrenderable;
use crate::{audit, identity, record, seal, store, view};

/// A field that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name in the request, for example `entries[3].value`.
    pub field: String,
    /// What is wrong. Never holds what was given.
    pub message: String,
    /// Which rule.
    pub reason: Reason,
}

/// Why not.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// Nobody is known to call.
    Unauthenticated(identity::Error),
    /// The start token was exchanged before, with another nonce.
    StartTokenUsed,
    /// Forbidden, or absent where the caller may not know it.
    Denied,
    /// Fields break their rules.
    Invalid {
        /// At least one, and not more than a response's headers can hold.
        violations: Vec<Violation>,
        /// How many more there are.
        more: usize,
    },
    /// An update that gives nothing.
    NoChanges,
    /// A page token of another call.
    PageToken,
    /// No such secret.
    SecretNotFound(SecretName),
    /// No such scope.
    ScopeNotFound(Scope),
    /// No such grant.
    GrantNotFound,
    /// No such token.
    TokenNotFound,
    /// No such reference or manifest.
    DeclarationNotFound(DeclarationName),
    /// References use the secret.
    SecretReferenced {
        /// Those the caller may see, in order.
        by: Vec<DeclarationName>,
        /// How many others there are.
        hidden: usize,
    },
    /// These names are taken.
    SecretExists(Vec<SecretName>),
    /// The grant stands.
    GrantExists,
    /// The etag or uid is of before.
    EtagMismatch,
    /// Others were faster too often.
    Contention,
    /// These may not be cloned.
    NotClonable(Vec<SecretName>),
    /// A template that must not, or cannot, be rendered.
    Unrenderable(Box<Unrenderable>),
    /// There are scopes below the one to be deleted.
    ScopeNotEmpty,
    /// The scope would hold too much.
    ScopeFull(&'static str),
    /// Too many of something.
    TooMany(&'static str),
    /// Too many calls at once.
    Overloaded(&'static str),
    /// The principal spent its budget of audited calls; when it may try again.
    BudgetSpent(Duration),
    /// No room in memory or on disk; what still works.
    StorageFull(String),
    /// The store does not answer; nothing was written.
    StoreUnavailable(String),
    /// No audit line can be written, so nothing is done.
    AuditUnavailable,
    /// It may have happened or not.
    OutcomeUnknown(String),
    /// Other keys are being rotated.
    RotationRunning,
    /// What is of the store's past is not kept here, or not now; why.
    HistoryNotKept(String),
    /// The key source gives or takes no root key.
    KeySource(String),
    /// What is stored does not open.
    Damaged(String),
    /// A mistake of ours.
    Internal(String),
}

impl Error {
    /// One field that breaks its rule.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        let violation = Violation { field: field.into(), message: message.into(), reason: Reason::FieldInvalid };
        Error::Invalid { violations: vec![violation], more: 0 }
    }

    /// A name that breaks its rule.
    pub fn name(field: impl Into<String>, error: InvalidName) -> Self {
        Error::field(field, error.message())
    }

    /// The reason on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Unauthenticated(identity::Error::Missing) => Reason::CredentialMissing,
            Error::Unauthenticated(identity::Error::Invalid) => Reason::CredentialInvalid,
            Error::Unauthenticated(identity::Error::Expired) => Reason::CredentialExpired,
            Error::StartTokenUsed => Reason::StartTokenUsed,
            Error::Denied => Reason::PermissionDenied,
            Error::Invalid { violations, .. } => violations.first().map_or(Reason::FieldInvalid, |first| first.reason),
            Error::NoChanges => Reason::NoChanges,
            Error::PageToken => Reason::PageTokenInvalid,
            Error::SecretNotFound(_) => Reason::SecretNotFound,
            Error::ScopeNotFound(_) => Reason::ScopeNotFound,
            Error::GrantNotFound => Reason::GrantNotFound,
            Error::TokenNotFound => Reason::TokenNotFound,
            Error::DeclarationNotFound(name) => match name.kind() {
                DeclarationKind::Reference => Reason::ReferenceNotFound,
                DeclarationKind::Manifest => Reason::ManifestNotFound,
            },
            Error::SecretReferenced { .. } => Reason::SecretReferenced,
            Error::SecretExists(_) => Reason::SecretExists,
            Error::GrantExists => Reason::GrantExists,
            Error::EtagMismatch => Reason::EtagMismatch,
            Error::Contention => Reason::Contention,
            Error::NotClonable(_) => Reason::SecretNotClonable,
            Error::Unrenderable(wrong) => match wrong.as_ref() {
                wrong if !wrong.unknown.is_empty() => Reason::SecretNotFound,
                wrong if !wrong.unsafe_in_header.is_empty() => Reason::ValueUnsafeInHeader,
                wrong if !wrong.for_other_hosts.is_empty() => Reason::DestinationNotAllowed,
                _ => Reason::NotForInstructions,
            },
            Error::ScopeNotEmpty => Reason::ScopeNotEmpty,
            Error::ScopeFull(_) => Reason::ScopeFull,
            Error::TooMany(_) => Reason::TooMany,
            Error::Overloaded(_) => Reason::Overloaded,
            Error::BudgetSpent(_) => Reason::CallBudgetSpent,
            Error::StorageFull(_) => Reason::StorageFull,
            Error::StoreUnavailable(_) => Reason::StoreUnavailable,
            Error::AuditUnavailable => Reason::AuditUnavailable,
            Error::OutcomeUnknown(_) => Reason::OutcomeUnknown,
            Error::RotationRunning => Reason::RotationRunning,
            Error::HistoryNotKept(_) => Reason::HistoryNotKept,
            Error::KeySource(_) => Reason::Sealed,
            Error::Damaged(_) => Reason::StoreDamaged,
            Error::Internal(_) => Reason::Internal,
        }
    }

    /// Whether the caller was turned away before anything was looked at.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Error::Unauthenticated(_) | Error::StartTokenUsed | Error::Denied | Error::BudgetSpent(_))
    }

    /// What the log should say beyond the caller's text.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Error::StoreUnavailable(detail)
            | Error::OutcomeUnknown(detail)
            | Error::KeySource(detail)
            | Error::Damaged(detail)
            | Error::Internal(detail) => Some(detail),
            _ => None,
        }
    }
}

/// At most this many names in one text; the rest is counted.
const NAMES_MAX: usize = 10;

fn names(f: &mut fmt::Formatter<'_>, names: &[impl fmt::Display]) -> fmt::Result {
    for (at, name) in names.iter().take(NAMES_MAX).enumerate() {
        write!(f, "{}{name}", if at > 0 { ", " } else { "" })?;
    }
    match names.len().saturating_sub(NAMES_MAX) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

/// So many bytes of names in the text of one error; the rest is counted. A status travels in headers, encoded.
const UNRENDERABLE_NAMES_BYTES: usize = 4 * 1024;

impl fmt::Display for Unrenderable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = UNRENDERABLE_NAMES_BYTES;
        let mut is_first = true;
        for (what, names) in [
            ("the environment does not have ", &self.unknown),
            ("the value has control characters, which a header must not have: ", &self.unsafe_in_header),
            ("not allowed for this destination_host: ", &self.for_other_hosts),
            ("encrypted and not allowed in instructions: ", &self.not_for_instructions),
        ] {
            if names.is_empty() {
                continue;
            }
            let fits = |name: &&VariableName| {
                let left = room.checked_sub(name.as_str().len() + 2);
                room = left.unwrap_or(0);
                left.is_some()
            };
            let told: Vec<_> = names.iter().take_while(fits).map(VariableName::as_str).collect();
            write!(f, "{}{what}{}", if is_first { "" } else { "; " }, told.join(", "))?;
            is_first = false;
            match (names.len() - told.len(), told.is_empty()) {
                (0, _) => {}
                (more, true) => write!(f, "{more} names")?,
                (more, false) => write!(f, " and {more} more")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unauthenticated(identity::Error::Missing) => f.write_str("no token was sent"),
            Error::Unauthenticated(identity::Error::Invalid) => f.write_str("the token is not valid"),
            Error::Unauthenticated(identity::Error::Expired) => f.write_str("the token has expired"),
            Error::StartTokenUsed => f.write_str("the start token was used before, by this or another start"),
            Error::Denied => f.write_str("permission denied, or there is no such thing"),
            Error::Invalid { violations, more } => {
                for (at, violation) in violations.iter().enumerate() {
                    f.write_str(if at > 0 { "; " } else { "" })?;
                    // Sentences of the products' documents stand as they are.
                    if violation.message.starts_with("Secret ") {
                        f.write_str(&violation.message)?;
                    } else {
                        write!(f, "{}: {}", violation.field, violation.message)?;
                    }
                }
                if *more > 0 {
                    write!(f, "; and {more} more")?;
                }
                Ok(())
            }
            Error::NoChanges => f.write_str("No changes to save"),
            Error::PageToken => f.write_str("page_token: not from a page of this call with these fields"),
            Error::SecretNotFound(name) => write!(f, "there is no secret {name}"),
            Error::ScopeNotFound(name) => write!(f, "there is no scope {name}"),
            Error::GrantNotFound => f.write_str("there is no such grant"),
            Error::TokenNotFound => f.write_str("there is no such token"),
            Error::DeclarationNotFound(name) => write!(f, "there is no {name}"),
            Error::SecretReferenced { by, hidden } => {
                f.write_str("still used by ")?;
                names(f, by)?;
                let also = if by.is_empty() { "" } else { ", and by " };
                match hidden {
                    0 => {}
                    1 => write!(f, "{also}a reference that you may not see")?,
                    hidden => write!(f, "{also}{hidden} references that you may not see")?,
                }
                f.write_str("; with force it is deleted nevertheless")
            }
            Error::SecretExists(taken) => {
                f.write_str("already there: ")?;
                names(f, taken)
            }
            Error::GrantExists => f.write_str("this grant stands already"),
            Error::EtagMismatch => f.write_str("it was changed meanwhile: the etag or uid given is no longer its own"),
            Error::Contention => f.write_str("too many others changed the same at the same time; try again"),
            Error::NotClonable(refused) => {
                f.write_str("may not be cloned: ")?;
                names(f, refused)
            }
            Error::Unrenderable(wrong) => wrong.fmt(f),
            Error::ScopeNotEmpty => f.write_str("there are scopes below it; delete them first"),
            Error::ScopeFull(limit) => write!(f, "the scope is full: {limit}"),
            Error::Overloaded(limit) => write!(f, "too many calls at once: {limit}"),
            Error::TooMany(limit) => write!(f, "too many: {limit}"),
            Error::BudgetSpent(wait) => write!(
                f,
                "this principal makes more calls than may be written to the audit log; try again in {} ms",
                wait.as_millis()
            ),
            Error::StorageFull(what) => write!(f, "no room: {what}"),
            Error::StoreUnavailable(_) => f.write_str("the store does not answer; nothing was changed"),
            Error::AuditUnavailable => f.write_str("the audit log cannot be written, so nothing was done"),
            Error::OutcomeUnknown(_) => {
                f.write_str("the store's answer was lost: the change may or may not have happened")
            }
            Error::RotationRunning => f.write_str("other keys are being rotated; try again when that is done"),
            Error::HistoryNotKept(why) => f.write_str(why),
            Error::KeySource(_) => f.write_str("the key source cannot be used; nothing was changed"),
            Error::Damaged(_) => f.write_str("stored data is damaged; the server's log says where"),
            Error::Internal(_) => f.write_str("internal error; the server's log says more"),
        }
    }
}

impl std::error::Error for Error {}

impl From<identity::Error> for Error {
    fn from(error: identity::Error) -> Self {
        Error::Unauthenticated(error)
    }
}

impl From<audit::Unavailable> for Error {
    fn from(audit::Unavailable: audit::Unavailable) -> Self {
        Error::AuditUnavailable
    }
}

impl From<seal::NoRandomness> for Error {
    fn from(error: seal::NoRandomness) -> Self {
        Error::Internal(error.to_string())
    }
}

impl From<record::Error> for Error {
    fn from(error: record::Error) -> Self {
        Error::Damaged(error.to_string())
    }
}

impl From<view::Error> for Error {
    fn from(error: view::Error) -> Self {
        match error {
            view::Error::Damaged { .. } => Error::Damaged(error.to_string()),
            view::Error::Store(error) => error.into(),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(detail) | store::Error::Failed(detail) => Error::StoreUnavailable(detail),
            store::Error::Full(_) => Error::StorageFull("the store is nearly full; deletes still work".into()),
            store::Error::Exhausted(_) => {
                Error::StorageFull("the server's disk is full, and takes no deletes either; reads go on".into())
            }
            store::Error::NoRoom(why) => Error::StorageFull(why),
            store::Error::NoHistory(why) => Error::HistoryNotKept(why),
            store::Error::Unknown(detail) => Error::OutcomeUnknown(detail),
            store::Error::Invalid(detail) => Error::Internal(detail),
        }
    }
}
