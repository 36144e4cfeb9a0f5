//! What etcd's errors mean. The texts are those of etcd 3.4's `etcdserver/api/v3rpc/rpctypes/error.go`; several of its
//! errors share a code, so the text decides. What is not known may have been done or not.

use std::error::Error as _;

use tonic::{Code, ConnectError, Status};

use super::ours::Foreign;
use crate::store::Error;

/// Longest text of etcd that is passed on, in bytes.
const TEXT_BYTES_MAX: usize = 200;

/// Why a call to one member has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// No member would do it. It was not done, unless there was no room: then it may have been done nevertheless.
    Refused(Error),
    /// It was not done; another member may.
    Elsewhere(String),
    /// It may have been done, or may yet be.
    Lost(String),
    /// It was not done: the revision that was asked for is not kept, or is still to come.
    OutOfRange,
    /// It was not done: the token is none, or none any more.
    Unauthenticated,
}

impl Failure {
    /// Of what a member answered, or of the connection to it.
    pub(super) fn of(member: &str, status: &Status) -> Self {
        let said = said(status);
        let text = format!("{member}: {said}");
        if never_connected(status) || is_foreign(status) {
            return Self::Elsewhere(text);
        }
        let Some(etcd) = said.strip_prefix("etcdserver: ") else { return Self::Lost(text) };
        match (status.code(), etcd) {
            (Code::OutOfRange, etcd) if etcd.starts_with("mvcc: required revision") => Self::OutOfRange,
            (Code::ResourceExhausted, "mvcc: database space exceeded") => Self::Refused(Error::Full(text)),
            (Code::ResourceExhausted, _) => Self::Elsewhere(text),
            (Code::Unavailable, "no leader" | "not capable" | "rpc not supported for learner") => Self::Elsewhere(text),
            (Code::Unauthenticated, _)
            | (Code::InvalidArgument, "revision of auth store is old" | "user name is empty") => Self::Unauthenticated,
            // All of this can be mended at etcd while the server runs.
            (Code::PermissionDenied | Code::FailedPrecondition | Code::DataLoss, _) => {
                Self::Refused(Error::Unavailable(text))
            }
            (Code::InvalidArgument, etcd) if etcd.starts_with("authentication failed") => {
                Self::Refused(Error::Unavailable(text))
            }
            (Code::InvalidArgument, _) => Self::Refused(Error::Invalid(text)),
            _ => Self::Lost(text),
        }
    }

    /// Of one that had no time left: that there was no answer says less than why there was none before.
    pub(super) fn after(self, earlier: Option<Self>) -> Self {
        match (self, earlier) {
            (Self::Lost(_), Some(Self::Lost(text) | Self::Elsewhere(text))) => Self::Lost(text),
            (Self::Elsewhere(_), Some(Self::Lost(text) | Self::Elsewhere(text))) => Self::Elsewhere(text),
            (failure, _) => failure,
        }
    }

    /// For a call that changes nothing and has no answer.
    pub(super) fn unread(self) -> Error {
        self.of_read().map_or_else(|error| error, Error::Unavailable)
    }

    /// For a call that changes nothing: whether another member is worth asking, and what is wrong.
    pub(super) fn of_read(self) -> Result<String, Error> {
        match self {
            Self::Elsewhere(text) | Self::Lost(text) => Ok(text),
            Self::Refused(error) => Err(error),
            Self::OutOfRange => Err(Error::Unavailable("etcd was compacted meanwhile".into())),
            Self::Unauthenticated => Err(unauthenticated()),
        }
    }
}

/// Nobody, or nobody any more.
pub(super) fn unauthenticated() -> Error {
    Error::Unavailable("etcd wants a user and password, or does not know the ones given".into())
}

fn never_connected(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<ConnectError>())
}

fn is_foreign(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<Foreign>())
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(status.source(), |&cause| cause.source())
}

/// What the member said, or what is at the root of there being no answer.
fn said(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    if text.is_empty() {
        text = status.code().to_string();
    }
    cut(text)
}

/// As much of a text of others as is passed on.
pub(super) fn cut(mut text: String) -> String {
    text.truncate((0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_there_was_no_answer_outlives_the_time_there_was_for_one() {
        let late = || Failure::Lost("no answer within 0 ms".into());
        let Failure::Lost(text) = late().after(Some(Failure::Elsewhere("refused".into()))) else {
            panic!("what was asked last may have been done")
        };
        assert_eq!(text, "refused");
        assert!(matches!(late().after(None), Failure::Lost(text) if text.starts_with("no answer")));
    }
}
