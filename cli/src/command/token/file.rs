//! A file that holds a token, readable by its owner alone from the moment it exists.

use std::path::Path;

use coffer_proto::token::Token;

use crate::{failure::Failure, new_file::NewFile};

/// A place for a token. Dropped without a token, it leaves nothing behind.
pub(super) struct TokenFile(NewFile);

impl TokenFile {
    /// Makes sure the token can be kept. An existing file is refused unless it may be replaced.
    pub(super) fn reserve(path: &Path, replace: bool) -> Result<Self, Failure> {
        NewFile::create(path, format!("--out {}", path.display()), replace).map(Self)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes the token and a line break.
    pub(super) fn write(mut self, token: &Token) -> Result<(), Failure> {
        self.0.write(token.expose().as_bytes())?;
        self.0.write(b"\n")?;
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_proto::token::TokenKind;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("readable");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_file_is_its_owners_alone_and_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let token = Token::generate(TokenKind::User);
        TokenFile::reserve(&path, false).expect("free").write(&token).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("readable"), format!("{}\n", token.expose()));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["token"]);
    }

    #[test]
    fn an_existing_file_needs_force() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        fs::write(&path, "old").expect("written");
        assert!(TokenFile::reserve(&path, false).is_err());
        assert_eq!(fs::read_to_string(&path).expect("readable"), "old");
        let token = Token::generate(TokenKind::User);
        TokenFile::reserve(&path, true).expect("replaceable").write(&token).expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["token"]);
    }

    #[test]
    fn a_call_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(TokenFile::reserve(&dir.path().join("token"), false).expect("free"));
        assert_eq!(names(dir.path()), [""; 0]);
        assert!(TokenFile::reserve(&dir.path().join("none/token"), false).is_err());
    }
}
