//! How a command fails.

use std::{fmt::Display, process::ExitCode};

use super::print;
use crate::{
    config::Mistakes,
    server,
    store::{embedded::OpenError as StoreError, etcd::OpenError as EtcdError},
    vault::OpenError as VaultError,
};

/// The command line or the configuration is wrong: EX_USAGE of sysexits(3).
pub(super) const USAGE: u8 = 64;
/// Anything else.
pub(super) const FAILED: u8 = 1;

/// What went wrong, for people.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// One line each, without `error:`.
    pub errors: Vec<String>,
    /// What would help.
    pub hint: Option<String>,
}

impl Failure {
    /// An error that no usage could have prevented.
    pub fn new(error: impl Display) -> Self {
        // An error that quotes others may have several lines; each mistake is one.
        Self { code: FAILED, errors: vec![error.to_string().replace('\n', ": ")], hint: None }
    }

    pub(super) fn usage(errors: Vec<String>) -> Self {
        Self { code: USAGE, errors, hint: None }
    }

    /// Tells it on stderr and returns its exit code.
    pub fn report(&self) -> ExitCode {
        print::failure(self);
        ExitCode::from(self.code)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What helps where an earlier copy of a store was put in its place.
pub(super) const PUT_BACK: &str = "put the newest copy in its place; if this one is to count, make a store of it in which every \
     token of before has ended: `coffer-server restore DATA --data NEW --audit-file FILE`, and serve NEW; in etcd \
     `coffer-server raise-epoch --config FILE`";

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self::usage(mistakes.0)
    }
}

impl From<server::Error> for Failure {
    fn from(error: server::Error) -> Self {
        let failure = Self::new(&error);
        match error {
            server::Error::Store(StoreError::Missing(dir)) => {
                failure.hint(format!("`coffer-server init --data {}` makes one", dir.display()))
            }
            server::Error::Store(StoreError::Unfinished(_)) => {
                failure.hint("run again what was interrupted, `coffer-server restore` or `init`: it begins anew")
            }
            server::Error::Vault(VaultError::PutBack(_)) => failure.hint(PUT_BACK),
            server::Error::Etcd(EtcdError::Missing(_)) => {
                failure.hint("`coffer-server init` makes one, and `coffer-server restore` one of a backup")
            }
            server::Error::Etcd(EtcdError::Unfinished(_)) => {
                failure.hint("if that restore was interrupted, run it again: it begins anew")
            }
            server::Error::Etcd(error) => match error.advice() {
                Some(advice) => failure.hint(advice),
                None => failure,
            },
            server::Error::Audit(error) if error.is_in_use() => failure.hint(
                "a server writes it, and each process has a log of its own: name another with --audit-file or `audit.file`",
            ),
            _ => failure,
        }
    }
}
