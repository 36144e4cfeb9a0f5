//! Every error of the vault as a status (AIP-193): a code, one text, ErrorInfo with the reason, BadRequest with the fields.

use std::collections::HashMap;

use coffer_proto::reason::{DOMAIN, Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::vault::Error;

/// The status of an error. No error text ever holds a value.
pub(super) fn of(error: Error) -> Status {
    let reason = error.reason();
    let mut details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, HashMap::new());
    match &error {
        Error::Invalid { violations, .. } => {
            let fields = violations.iter().map(|violation| FieldViolation::new(&violation.field, &violation.message));
            details.set_bad_request(fields.collect::<Vec<_>>());
        }
        Error::PageToken => {
            details.set_bad_request(vec![FieldViolation::new("page_token", "not from a page of this call")]);
        }
        Error::BudgetSpent(wait) => {
            details.set_retry_info(Some(*wait));
        }
        _ => {}
    }
    Status::with_error_details(code(reason), error.to_string(), details)
}

/// The status of a reason that no call but only a stream ends with.
pub(super) fn with(reason: Reason, text: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, HashMap::new());
    Status::with_error_details(code(reason), text, details)
}

/// The code of a reason; total, so that a new reason must say its own.
fn code(reason: Reason) -> Code {
    match reason {
        Reason::CredentialMissing | Reason::CredentialInvalid | Reason::CredentialExpired | Reason::StartTokenUsed => {
            Code::Unauthenticated
        }
        Reason::PermissionDenied => Code::PermissionDenied,
        Reason::FieldInvalid | Reason::SecretNameReserved | Reason::NoChanges | Reason::PageTokenInvalid => {
            Code::InvalidArgument
        }
        Reason::SecretNotFound
        | Reason::ScopeNotFound
        | Reason::GrantNotFound
        | Reason::TokenNotFound
        | Reason::ReferenceNotFound
        | Reason::ManifestNotFound => Code::NotFound,
        Reason::SecretExists | Reason::GrantExists => Code::AlreadyExists,
        Reason::EtagMismatch | Reason::Contention => Code::Aborted,
        Reason::SecretNotClonable
        | Reason::SecretReferenced
        | Reason::ScopeNotEmpty
        | Reason::ScopeFull
        | Reason::TooMany
        | Reason::ValueUnsafeInHeader
        | Reason::DestinationNotAllowed
        | Reason::NotForInstructions
        | Reason::RotationRunning
        | Reason::HistoryNotKept => Code::FailedPrecondition,
        Reason::StorageFull | Reason::Overloaded | Reason::CallBudgetSpent | Reason::ReaderTooSlow => {
            Code::ResourceExhausted
        }
        Reason::Sealed | Reason::StoreUnavailable | Reason::AuditUnavailable | Reason::ShuttingDown => {
            Code::Unavailable
        }
        Reason::OutcomeUnknown => Code::Unknown,
        Reason::StoreDamaged => Code::DataLoss,
        Reason::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_reason_and_fields() {
        let status = of(Error::field("value", "must be UTF-8 text"));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "value: must be UTF-8 text");
        let details = status.get_error_details();
        assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("FIELD_INVALID"));
        let fields = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
        assert_eq!(fields.len(), 1);
        assert_eq!(fields[0].field, "value");
    }
}
