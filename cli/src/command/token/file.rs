//! A file that holds a token, readable by its owner alone from the moment it exists.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use coffer_proto::token::Token;

use crate::failure::Failure;

/// A place for a token. Dropped without a token, it leaves nothing behind.
pub(super) struct TokenFile {
    path: PathBuf,
    /// Where the token is written; moved over `path` at the end, so that a reader never finds half a token.
    draft: PathBuf,
    file: File,
    kept: bool,
}

impl TokenFile {
    /// Makes sure the token can be kept. An existing file is refused unless it may be replaced.
    pub(super) fn reserve(path: &Path, replace: bool) -> Result<Self, Failure> {
        let fail = |error: io::Error| Failure::failed(format!("--out {}: {error}", path.display()));
        if !replace && fs::symlink_metadata(path).is_ok() {
            return Err(Failure::failed(format!("--out {}: exists", path.display())).hint("--force replaces it"));
        }
        let name = path.file_name().ok_or_else(|| fail(io::Error::other("must name a file")))?;
        let draft = path.with_file_name(format!(".{}.{}.draft", name.to_string_lossy(), std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(fail)?;
        Ok(Self { path: path.to_owned(), draft, file, kept: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the token and a line break.
    pub(super) fn write(mut self, token: &Token) -> Result<(), Failure> {
        self.file
            .write_all(token.expose().as_bytes())
            .and_then(|()| self.file.write_all(b"\n"))
            .and_then(|()| self.file.sync_all())
            .and_then(|()| fs::rename(&self.draft, &self.path))
            .map_err(|error| Failure::failed(format!("--out {}: {error}", self.path.display())))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_proto::token::TokenKind;
    use std::os::unix::fs::PermissionsExt as _;

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
