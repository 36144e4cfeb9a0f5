//! Hands an operator's token out: the only file of the commands that sees one.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use coffer_proto::token::Token;
use zeroize::Zeroizing;

use super::{Failure, print};

/// Where a token goes.
#[derive(Debug)]
pub(super) enum Outlet {
    Stdout,
    /// A new file, opened before there is a token, so that none is made that cannot be kept.
    File(File, PathBuf),
}

impl Outlet {
    /// A new file with mode 0600, or stdout.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Outlet::Stdout) };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| {
            let failure = Failure::new(format!("token file {}: {error}", path.display()));
            match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    failure.hint("name another file, or move that one away: none is overwritten")
                }
                _ => failure,
            }
        })?;
        Ok(Outlet::File(file, path.to_owned()))
    }

    /// Writes the token and a line end.
    pub(super) fn write(self, token: &Token) -> Result<(), Failure> {
        self.write_text(token.expose())
    }

    /// The same for a token that came over the wire.
    pub(super) fn write_text(self, token: &str) -> Result<(), Failure> {
        let line = Zeroizing::new(format!("{token}\n"));
        match self {
            Outlet::Stdout => print::data(&line).map_err(|error| Failure::new(format!("stdout: {error}"))),
            Outlet::File(mut file, path) => file
                .write_all(line.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|error| Failure::new(format!("token file {}: {error}", path.display()))),
        }
    }

    /// Writes the token that was made, or takes the file away again: there will be none.
    pub(super) fn hand_out(self, made: Result<Token, Failure>) -> Result<(), Failure> {
        match made {
            Ok(token) => self.write(&token),
            Err(failure) => {
                self.take_away();
                Err(failure)
            }
        }
    }

    /// There will be no token.
    pub(super) fn take_away(self) {
        if let Outlet::File(_, path) = self {
            let _: io::Result<()> = std::fs::remove_file(path);
        }
    }
}

/// The value of an `authorization` header.
pub(super) fn authorization(token: &Token) -> Zeroizing<String> {
    Zeroizing::new(format!("Bearer {}", token.expose()))
}
