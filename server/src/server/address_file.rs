//! Tells scripts where the server listens.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::draft;

/// One address a line; removed at the end, because nobody answers there any more.
#[derive(Debug)]
pub(super) struct AddressFile(PathBuf);

impl AddressFile {
    /// Appears whole or not at all, so that whoever waits for it can read it at once.
    pub(super) fn write(path: &Path, addresses: &[String]) -> io::Result<Self> {
        let text: String = addresses.iter().map(|address| format!("{address}\n")).collect();
        // Where the server is, is no secret; the server's umask would keep it from everybody else.
        draft::put(path, text.as_bytes(), 0o644)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "the address file is not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_whole_replaces_an_old_one_and_goes_at_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("address");
        fs::write(&path, "old").expect("an old one");
        // A link where a draft of this process would once have been.
        let (victim, guess) = (directory.path().join("victim"), format!("address.{}", std::process::id()));
        fs::write(&victim, "precious").expect("a file");
        std::os::unix::fs::symlink(&victim, directory.path().join(guess)).expect("a link");
        let file = AddressFile::write(&path, &["http://127.0.0.1:1".to_owned(), "unix:///s".to_owned()]);
        let file = file.expect("written");
        assert_eq!(fs::read_to_string(&path).expect("text"), "http://127.0.0.1:1\nunix:///s\n");
        assert_eq!(fs::read_dir(directory.path()).expect("entries").count(), 3, "nothing partial is left");
        assert_eq!(fs::read_to_string(&victim).expect("there"), "precious");
        drop(file);
        assert!(!path.exists());
        AddressFile::write(&directory.path().join("none/address"), &[]).expect_err("no directory");
    }
}
