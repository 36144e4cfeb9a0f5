//! Why a command failed, what may help, and with which code the program ends.

mod argument;

use std::{fmt::Display, io};

use coffer_client::{CertificateProblem, Code};
use coffer_proto::reason::Reason;

/// The codes that `coffer --help` documents; those above 1 are of sysexits.h. A mistake has the same code whether it is
/// found here or by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Refused, or failed in any other way.
    Failed = 1,
    /// EX_USAGE: the command line, or a value that was given, is wrong.
    Usage = 64,
    /// EX_NOINPUT: what was named is not there.
    NotFound = 66,
    /// EX_UNAVAILABLE: no server answers.
    Unavailable = 69,
    /// EX_CANTCREAT: what was to be made is there already.
    Exists = 73,
    /// EX_TEMPFAIL: somebody else changed it meanwhile.
    Conflict = 75,
    /// EX_NOPERM: not authenticated, or not allowed.
    Denied = 77,
}

impl Exit {
    /// For programs: the name of the code.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::NotFound => "not_found",
            Exit::Unavailable => "unavailable",
            Exit::Exists => "exists",
            Exit::Conflict => "conflict",
            Exit::Denied => "denied",
        }
    }
}

impl From<io::ErrorKind> for Exit {
    fn from(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::NotFound => Exit::NotFound,
            io::ErrorKind::AlreadyExists => Exit::Exists,
            io::ErrorKind::PermissionDenied => Exit::Denied,
            _ => Exit::Failed,
        }
    }
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    exit: Exit,
    reason: Option<Reason>,
}

impl Failure {
    fn new(exit: Exit, message: String) -> Self {
        Self { message, hint: None, exit, reason: None }
    }

    /// The command line is wrong, or what it gives.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message.into())
    }

    /// What was named is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message.into())
    }

    /// What was to be made is there already.
    pub(crate) fn exists(message: impl Into<String>) -> Self {
        Self::new(Exit::Exists, message.into())
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(file: impl Display, error: &io::Error) -> Self {
        Self::new(error.kind().into(), format!("{file}: {error}"))
    }

    /// It went wrong here.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message.into())
    }

    /// What proves who calls is no good.
    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(Exit::Denied, message.into())
    }

    /// The server does not serve.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unavailable, message.into())
    }

    /// With advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With advice if the server gave this reason: what helps differs between commands.
    pub(crate) fn hint_if(self, reason: Reason, hint: impl Into<String>) -> Self {
        if self.reason == Some(reason) { self.hint(hint) } else { self }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The advice to show.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The reason that the server gave.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

impl From<coffer_client::Error> for Failure {
    fn from(error: coffer_client::Error) -> Self {
        let exit = match error.code() {
            Code::Unavailable | Code::DeadlineExceeded => Exit::Unavailable,
            Code::PermissionDenied | Code::Unauthenticated => Exit::Denied,
            Code::InvalidArgument => Exit::Usage,
            Code::NotFound => Exit::NotFound,
            Code::AlreadyExists => Exit::Exists,
            Code::Aborted => Exit::Conflict,
            Code::ResourceExhausted if matches!(error.reason(), Some(Reason::Overloaded | Reason::CallBudgetSpent)) => {
                Exit::Unavailable
            }
            Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Exit::Failed,
        };
        let hint = match error.reason() {
            Some(reason) => reason_hint(reason),
            None => error.certificate_problem().map(CertificateProblem::advice).or_else(|| code_hint(error.code())),
        };
        let fields = error.fields().iter().map(|(field, _)| field.as_str());
        let message = fields.fold(error.to_string(), |message, field| argument::in_message(&message, field));
        let message = argument::in_text(&message);
        Self { message, hint: hint.map(str::to_owned), exit, reason: error.reason() }
    }
}

fn reason_hint(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::CredentialMissing => "give a token: --token-file FILE, COFFER_TOKEN_FILE or COFFER_TOKEN",
        Reason::CredentialInvalid => "the token may be revoked, damaged, or of another server: ask for a new one",
        Reason::StartTokenUsed => "a start token works once: ask for a new one",
        Reason::CredentialExpired => "ask for a new token: coffer token issue",
        Reason::PermissionDenied => {
            "check the name, because absent and forbidden look alike; whoever has access:manage there can grant access"
        }
        Reason::NoChanges => "give --value, --description or another change: coffer secret update --help",
        Reason::SecretNameReserved => "choose another name",
        Reason::EtagMismatch => "get it again and repeat with its new etag",
        Reason::SecretReferenced => "change what uses it first",
        Reason::SecretNotClonable => "its owner can allow it: coffer secret update NAME --clonable",
        Reason::GrantExists => "nothing is left to do: coffer grant list shows it",
        Reason::Contention | Reason::Overloaded | Reason::CallBudgetSpent | Reason::StoreUnavailable => {
            "try again in a moment"
        }
        Reason::OutcomeUnknown => "the change may or may not have happened: look before repeating it",
        Reason::StorageFull => "an operator must make room",
        Reason::Sealed => {
            "its key source does not give the root key: an operator must look at it, and at the server's log"
        }
        Reason::AuditUnavailable | Reason::StoreDamaged => "an operator must look at the server's log",
        _ => return None,
    })
}

fn code_hint(code: Code) -> Option<&'static str> {
    match code {
        Code::Unavailable => {
            Some("is the server running there, and is it https or http? --address or COFFER_ADDRESS says where it is")
        }
        Code::DeadlineExceeded => Some("a change may or may not have happened: look before repeating it"),
        Code::Unimplemented => Some("the server is older than this program, or not coffer at all"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_client::{Error, Status};

    #[test]
    fn codes_say_who_must_act() {
        let cases = [
            (Code::Unavailable, Exit::Unavailable),
            (Code::DeadlineExceeded, Exit::Unavailable),
            (Code::PermissionDenied, Exit::Denied),
            (Code::Unauthenticated, Exit::Denied),
            (Code::InvalidArgument, Exit::Usage),
            (Code::NotFound, Exit::NotFound),
            (Code::AlreadyExists, Exit::Exists),
            (Code::Aborted, Exit::Conflict),
            (Code::FailedPrecondition, Exit::Failed),
            (Code::Internal, Exit::Failed),
        ];
        for (code, exit) in cases {
            assert_eq!(Failure::from(Error::from(Status::new(code, "x"))).exit(), exit, "{code:?}");
        }
    }

    #[test]
    fn nobody_there_points_at_the_address() {
        let failure = Failure::from(Error::from(Status::unavailable("cannot connect")));
        assert!(failure.hint_text().expect("a hint").contains("COFFER_ADDRESS"));
    }

    #[test]
    fn a_hint_of_a_command_needs_its_reason() {
        let plain = Failure::failed("x").hint_if(Reason::SecretExists, "update it");
        assert_eq!(plain.hint_text(), None);
        let known = Failure { reason: Some(Reason::SecretExists), ..Failure::failed("x") };
        assert_eq!(known.hint_if(Reason::SecretExists, "update it").hint_text(), Some("update it"));
    }
}
