//! What a failed call says.

use std::{error::Error as StdError, fmt, time::Duration};

use coffer_proto::reason::{DOMAIN, Reason};
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use crate::CertificateProblem;

/// Why a call failed, or why it could not be made. Never contains a token or a value: the server's messages do not
/// (a promise of the API), and nothing of the request is added here.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    code: Code,
    reason: Option<Reason>,
    message: String,
    fields: Vec<(String, String)>,
    retry_after: Option<Duration>,
    is_local: bool,
    certificate: Option<CertificateProblem>,
}

/// In the metadata of an ErrorInfo: no server said so.
pub(crate) const LOCAL: &str = "made_by_client";

impl Error {
    /// An error that no server sent.
    pub(crate) fn local(code: Code, reason: Option<Reason>, message: impl Into<String>) -> Self {
        let message = message.into();
        let (fields, retry_after, certificate) = (Vec::new(), None, None);
        Self(Box::new(Inner { code, reason, message, fields, retry_after, is_local: true, certificate }))
    }

    /// No connection: `cause` is why, down to the operating system's words.
    pub(crate) fn not_connected(address: &crate::Address, cause: &(dyn StdError + 'static)) -> Self {
        let mut error =
            Self::local(Code::Unavailable, None, format!("cannot connect to {address}: {}", innermost(cause)));
        error.0.certificate = CertificateProblem::of(cause);
        error
    }

    /// No answer in time.
    pub(crate) fn deadline(message: impl Into<String>) -> Self {
        Self::local(Code::DeadlineExceeded, None, message)
    }

    /// The gRPC code. UNAVAILABLE if the connection failed, DEADLINE_EXCEEDED if the answer did not come in time.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Why, as a server of coffer says. None if no server was reached, or if it is newer and gives a reason not known here.
    pub fn reason(&self) -> Option<Reason> {
        self.0.reason
    }

    /// For people, one line.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The fields of the request that break their rules, each with what is wrong.
    pub fn fields(&self) -> &[(String, String)] {
        &self.0.fields
    }

    /// How long the server asks to wait before trying again, if it asks.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether it was made here, before any server was asked: for want of a token, say.
    pub fn is_local(&self) -> bool {
        self.0.is_local
    }

    /// What is wrong with the server's certificate, if the connection failed for it.
    pub fn certificate_problem(&self) -> Option<CertificateProblem> {
        self.0.certificate
    }

    /// Whether the same call may succeed later: UNAVAILABLE, RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED.
    pub fn is_retryable(&self) -> bool {
        matches!(self.code(), Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        // A malformed detail is a flaw of the server; what else the status says is still worth having.
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let fields = details.bad_request().map(|bad| &bad.field_violations[..]).unwrap_or_default();
        let (code, message) = code_and_message(&status, info.is_some());
        Self(Box::new(Inner {
            code,
            reason: info.and_then(|info| info.reason.parse().ok()),
            message,
            fields: fields.iter().map(|violation| (violation.field.clone(), violation.description.clone())).collect(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            is_local: info.is_some_and(|info| info.metadata.contains_key(LOCAL)),
            certificate: status.source().and_then(CertificateProblem::of),
        }))
    }
}

/// tonic reports what happened on its own side under codes that a server could have sent as well: an expired timeout
/// as CANCELLED, a lost connection as UNKNOWN, CANCELLED or INTERNAL, with what it knows in the chain of sources.
fn code_and_message(status: &Status, from_coffer: bool) -> (Code, String) {
    let timed_out = || has_source(status, |source| source.is::<TimeoutExpired>());
    if from_coffer {
        (status.code(), status.message().to_owned())
    } else if timed_out() || is_server_timeout(status) {
        (Code::DeadlineExceeded, "no answer in time".to_owned())
    } else if let Some(source) = status.source() {
        let lost = matches!(status.code(), Code::Unknown | Code::Cancelled | Code::Internal);
        let code = if lost { Code::Unavailable } else { status.code() };
        (code, format!("the connection failed: {}", innermost(source)))
    } else if status.message().is_empty() {
        (status.code(), status.code().description().to_owned())
    } else {
        (status.code(), status.message().to_owned())
    }
}

/// tonic's server side also answers an expired `grpc-timeout` with CANCELLED, and nothing but this text tells it apart.
fn is_server_timeout(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.message() == TimeoutExpired(()).to_string()
}

fn has_source(status: &Status, found: impl Fn(&(dyn StdError + 'static)) -> bool) -> bool {
    chain(status).any(found)
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let this = next?;
        next = this.source();
        Some(this)
    })
}

/// The outer layers say "transport error"; the last one is what happened.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).filter(|text| !text.is_empty()).unwrap_or_else(|| error.to_string())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())?;
        for (field, description) in self.fields() {
            if !self.message().contains(description.as_str()) {
                write!(f, "; {field}: {description}")?;
            }
        }
        Ok(())
    }
}

impl StdError for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tonic_types::ErrorDetails;

    fn error(code: Code, message: &str, details: ErrorDetails) -> Error {
        Status::with_error_details(code, message, details).into()
    }

    #[test]
    fn reasons_fields_and_delays_are_read_out() {
        let mut details = ErrorDetails::with_error_info("FIELD_INVALID", DOMAIN, HashMap::default());
        details.add_bad_request_violation("value", "must be UTF-8 text");
        details.add_bad_request_violation("secret_id", "Secret key is required");
        details.set_retry_info(Some(Duration::from_secs(3)));
        let error = error(Code::InvalidArgument, "2 fields are invalid", details);
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(error.reason(), Some(Reason::FieldInvalid));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
        assert_eq!(
            error.to_string(),
            "2 fields are invalid; value: must be UTF-8 text; secret_id: Secret key is required"
        );
        assert!(!error.is_retryable());
    }

    #[test]
    fn a_field_already_in_the_message_is_not_said_twice() {
        let details = ErrorDetails::with_bad_request_violation("value", "must be UTF-8 text");
        let error = error(Code::InvalidArgument, "value: must be UTF-8 text", details);
        assert_eq!(error.to_string(), "value: must be UTF-8 text");
    }

    #[test]
    fn reasons_of_others_are_not_ours() {
        let info = |reason: &str, domain: &str| ErrorDetails::with_error_info(reason, domain, HashMap::default());
        assert_eq!(error(Code::Internal, "x", info("SEALED", "example.com")).reason(), None);
        assert_eq!(error(Code::Internal, "x", info("OF_A_NEWER_SERVER", DOMAIN)).reason(), None);
        assert_eq!(Error::from(Status::internal("x")).reason(), None);
    }

    #[test]
    fn damaged_details_leave_the_rest() {
        let status = Status::with_details(Code::NotFound, "no such secret", b"\xff\xff\xff".to_vec().into());
        let error = Error::from(status);
        assert_eq!((error.code(), error.message()), (Code::NotFound, "no such secret"));
    }

    #[test]
    fn what_may_be_retried() {
        for code in (0..17).map(Code::from_i32) {
            let expected = matches!(code, Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded);
            assert_eq!(Error::from(Status::new(code, "x")).is_retryable(), expected, "{code:?}");
        }
    }

    #[test]
    fn an_expired_timeout_is_a_deadline_on_either_side() {
        let here = Error::from(Status::from_error(Box::new(TimeoutExpired(()))));
        let there = Error::from(Status::cancelled("Timeout expired"));
        let cancelled = Error::from(Status::cancelled("the caller went away"));
        assert_eq!(here.code(), Code::DeadlineExceeded);
        assert_eq!(there.code(), Code::DeadlineExceeded);
        assert_eq!(cancelled.code(), Code::Cancelled);
    }

    #[test]
    fn a_lost_connection_is_unavailable_and_says_why() {
        let reset = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection reset by peer");
        let error = Error::from(Status::from_error(Box::new(reset)));
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!(error.message(), "the connection failed: connection reset by peer");
    }

    #[test]
    fn an_empty_message_is_filled() {
        assert!(!Error::from(Status::new(Code::NotFound, "")).message().is_empty());
    }
}
