//! Why a call failed: the `reason` of google.rpc.ErrorInfo in every error coffer returns (AIP-193).

use std::{fmt, str::FromStr};

/// The `domain` of every ErrorInfo that coffer returns.
pub const DOMAIN: &str = "coffer";

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// A reason, stable across versions: new ones may be added, none changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Reason] = &[$(Reason::$name,)+];

            /// The text on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => $text,)+
                }
            }
        }

        impl FromStr for Reason {
            type Err = UnknownReason;

            fn from_str(text: &str) -> Result<Self, UnknownReason> {
                match text {
                    $($text => Ok(Reason::$name),)+
                    _ => Err(UnknownReason),
                }
            }
        }
    };
}

reasons! {
    /// UNAUTHENTICATED: the call carries no credential.
    CredentialMissing = "CREDENTIAL_MISSING",
    /// UNAUTHENTICATED: the credential is malformed, unknown or revoked.
    CredentialInvalid = "CREDENTIAL_INVALID",
    /// UNAUTHENTICATED: the credential was right but has ended.
    CredentialExpired = "CREDENTIAL_EXPIRED",
    /// UNAUTHENTICATED: the start token was exchanged before, by somebody with another nonce.
    StartTokenUsed = "START_TOKEN_USED",
    /// PERMISSION_DENIED: forbidden, or absent where the caller may not know it.
    PermissionDenied = "PERMISSION_DENIED",
    /// INVALID_ARGUMENT: a field breaks its rule; BadRequest names it.
    FieldInvalid = "FIELD_INVALID",
    /// INVALID_ARGUMENT: the secret's name is one that would run code or redirect the loader.
    SecretNameReserved = "SECRET_NAME_RESERVED",
    /// INVALID_ARGUMENT: an update that gives nothing.
    NoChanges = "NO_CHANGES",
    /// INVALID_ARGUMENT: a page token of another call, or none of ours.
    PageTokenInvalid = "PAGE_TOKEN_INVALID",
    /// NOT_FOUND: no such secret.
    SecretNotFound = "SECRET_NOT_FOUND",
    /// NOT_FOUND: no such scope.
    ScopeNotFound = "SCOPE_NOT_FOUND",
    /// NOT_FOUND: no such grant.
    GrantNotFound = "GRANT_NOT_FOUND",
    /// NOT_FOUND: no such token.
    TokenNotFound = "TOKEN_NOT_FOUND",
    /// NOT_FOUND: no such reference.
    ReferenceNotFound = "REFERENCE_NOT_FOUND",
    /// NOT_FOUND: no such manifest.
    ManifestNotFound = "MANIFEST_NOT_FOUND",
    /// ALREADY_EXISTS: the secret's name is taken in its scope.
    SecretExists = "SECRET_EXISTS",
    /// ALREADY_EXISTS: the grant stands already.
    GrantExists = "GRANT_EXISTS",
    /// ABORTED: the etag or uid given is no longer the resource's.
    EtagMismatch = "ETAG_MISMATCH",
    /// ABORTED: too many others changed the same things at the same time; try again.
    Contention = "CONTENTION",
    /// FAILED_PRECONDITION: the secret may not be cloned.
    SecretNotClonable = "SECRET_NOT_CLONABLE",
    /// FAILED_PRECONDITION: a registered reference uses the secret.
    SecretReferenced = "SECRET_REFERENCED",
    /// FAILED_PRECONDITION: there are scopes below the scope that is to be deleted.
    ScopeNotEmpty = "SCOPE_NOT_EMPTY",
    /// FAILED_PRECONDITION: the scope would own too many secrets or bytes.
    ScopeFull = "SCOPE_FULL",
    /// FAILED_PRECONDITION: the pattern has too many grants or the principal too many tokens.
    TooMany = "TOO_MANY",
    /// FAILED_PRECONDITION: a value has control characters, which a header must not have.
    ValueUnsafeInHeader = "VALUE_UNSAFE_IN_HEADER",
    /// FAILED_PRECONDITION: a secret may not be sent to this host.
    DestinationNotAllowed = "DESTINATION_NOT_ALLOWED",
    /// FAILED_PRECONDITION: an encrypted secret may not be read by a model.
    NotForInstructions = "NOT_FOR_INSTRUCTIONS",
    /// FAILED_PRECONDITION: a rotation of other keys is under way.
    RotationRunning = "ROTATION_RUNNING",
    /// FAILED_PRECONDITION: this server keeps no history, or not now.
    HistoryNotKept = "HISTORY_NOT_KEPT",
    /// RESOURCE_EXHAUSTED: the server's memory ceiling or its disk leaves no room for more.
    StorageFull = "STORAGE_FULL",
    /// RESOURCE_EXHAUSTED: too many calls at once; try again later.
    Overloaded = "OVERLOADED",
    /// RESOURCE_EXHAUSTED: the principal makes more calls than may be written to the audit log; RetryInfo says when to try
    /// again.
    CallBudgetSpent = "CALL_BUDGET_SPENT",
    /// RESOURCE_EXHAUSTED: a message of a stream was not taken in time; watch again from the last one received.
    ReaderTooSlow = "READER_TOO_SLOW",
    /// UNAVAILABLE: the root key is not available.
    Sealed = "SEALED",
    /// UNAVAILABLE: the store does not answer; nothing was written.
    StoreUnavailable = "STORE_UNAVAILABLE",
    /// UNAVAILABLE: no audit sink can take a line, so nothing is done.
    AuditUnavailable = "AUDIT_UNAVAILABLE",
    /// UNAVAILABLE: the server ends, and with it its streams; begin again elsewhere or soon.
    ShuttingDown = "SHUTTING_DOWN",
    /// UNKNOWN: the store's answer was lost; the change may or may not have happened.
    OutcomeUnknown = "OUTCOME_UNKNOWN",
    /// DATA_LOSS: what is stored does not open with its key.
    StoreDamaged = "STORE_DAMAGED",
    /// INTERNAL: a mistake in the server.
    Internal = "INTERNAL",
}

/// A reason of a newer server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownReason;

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_reads_back_as_its_reason() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
        assert_eq!("SOMETHING_NEW".parse::<Reason>(), Err(UnknownReason));
    }

    #[test]
    fn the_contract_lists_every_reason() {
        let contract = include_str!("../coffer/v1/resources.proto");
        let listed = |reason: &Reason| contract.split([' ', ',', '\n', ':']).any(|word| word == reason.as_str());
        let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !listed(reason)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
