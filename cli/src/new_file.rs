//! A file that has its name only once it is whole, for its owner alone from the moment it exists.

use std::{
    fmt::Display,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::failure::Failure;

/// Random bytes in a draft's name: two that are made at once are two files.
const RANDOM_BYTES: usize = 6;

/// A file being written. Dropped before it is finished, it leaves nothing behind.
pub(crate) struct NewFile {
    path: PathBuf,
    /// What messages call it.
    label: String,
    may_replace: bool,
    /// Beside it, and made by this program: whatever else has a similar name is somebody else's.
    draft: PathBuf,
    file: File,
    is_finished: bool,
}

/// Every option that takes a file to write takes this for stdout; a file of that name is `./-`.
pub(crate) fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Refuses what may not be replaced: anything without `may_replace`, and with it still whatever is no regular file.
pub(crate) fn check(path: &Path, label: impl Display, may_replace: bool) -> Result<(), Failure> {
    let refused = |what: &str| Err(Failure::exists(format!("{label}: {what}")));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::file(&label, &error)),
        Ok(there) if there.is_symlink() => refused("it is a symbolic link; only a regular file is replaced"),
        Ok(there) if !there.is_file() => refused("it exists and is no regular file"),
        Ok(_) if !may_replace => refused("it exists").map_err(|failure| failure.hint("--replace replaces it")),
        Ok(_) => Ok(()),
    }
}

impl NewFile {
    /// Makes sure that there is a place for it. `label` begins every message about it.
    pub(crate) fn create(path: &Path, label: impl Into<String>, may_replace: bool) -> Result<Self, Failure> {
        let label = label.into();
        check(path, &label, may_replace)?;
        let fail = |error: io::Error| Failure::file(&label, &error);
        let name = path.file_name().ok_or_else(|| fail(io::Error::other("must name a file")))?;
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(|error| fail(error.into()))?;
        let mut draft = std::ffi::OsString::from(".");
        draft.push(name);
        draft.push(".");
        random.iter().for_each(|byte| draft.push(format!("{byte:02x}")));
        draft.push(".part");
        let draft = path.with_file_name(draft);
        // No link is followed: what is there already is an error.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(fail)?;
        Ok(Self { path: path.to_owned(), label, may_replace, draft, file, is_finished: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| self.failed(&error))
    }

    /// The whole file is on the disk, and then has its name.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.file.sync_all().map_err(|error| self.failed(&error))?;
        if !self.is_ours() {
            return Err(Failure::failed(format!("{}: its draft was moved or replaced", self.label)));
        }
        check(&self.path, &self.label, self.may_replace)?;
        let named = if self.may_replace { fs::rename(&self.draft, &self.path) } else { self.name_anew() };
        if let Err(error) = named {
            // Made by somebody else after the last look.
            check(&self.path, &self.label, self.may_replace)?;
            return Err(self.failed(&error));
        }
        self.is_finished = true;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(|error| self.failed(&error))
    }

    /// Gives it its name unless that is taken.
    fn name_anew(&self) -> io::Result<()> {
        match renameat_with(CWD, &self.draft, CWD, &self.path, RenameFlags::NOREPLACE) {
            // The file system has no such rename.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                fs::hard_link(&self.draft, &self.path)?;
                fs::remove_file(&self.draft)
            }
            renamed => Ok(renamed?),
        }
    }

    /// Whether the draft's name still means what was written.
    fn is_ours(&self) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        match (self.file.metadata(), fs::symlink_metadata(&self.draft)) {
            (Ok(open), Ok(named)) => identity(open) == identity(named),
            _ => false,
        }
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::file(&self.label, error)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_finished && self.is_ours() {
            let _ = fs::remove_file(&self.draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("readable");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn new(path: &Path, may_replace: bool) -> Result<NewFile, String> {
        NewFile::create(path, "it", may_replace).map_err(|failure| failure.message().to_owned())
    }

    fn finish(file: NewFile) -> Result<(), String> {
        file.finish().map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn it_is_its_owners_alone_and_has_its_name_when_it_is_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        for may_replace in [false, true] {
            let mut file = new(&path, may_replace).expect("made");
            file.write(b"text").expect("written");
            assert_eq!(names(dir.path()).len(), 1 + usize::from(may_replace));
            finish(file).expect("finished");
            assert_eq!(
                (names(dir.path()), fs::read(&path).expect("there")),
                (vec!["file".to_owned()], b"text".to_vec())
            );
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        }
        drop(new(&path, true).expect("made"));
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn two_at_once_are_both_whole_and_leave_what_is_not_theirs() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(dir.path().join("file.part"), "mine").expect("a file");
        let (mut one, mut other) = (new(&path, true).expect("made"), new(&path, true).expect("made"));
        one.write(b"one").expect("written");
        other.write(b"oth").expect("written");
        one.write(b", whole").expect("written");
        finish(one).expect("finished");
        assert_eq!(fs::read(&path).expect("there"), b"one, whole");
        drop(other);
        assert_eq!(fs::read(&path).expect("there"), b"one, whole");
        assert_eq!(fs::read(dir.path().join("file.part")).expect("there"), b"mine");
    }

    #[test]
    fn what_was_made_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let file = new(&path, false).expect("free");
        fs::write(&path, "theirs").expect("meanwhile");
        // The last look and the name itself refuse it.
        assert_eq!(file.name_anew().expect_err("taken").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(finish(file), Err("it: it exists".to_owned()));
        assert_eq!(fs::read(&path).expect("there"), b"theirs");
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn a_draft_that_was_replaced_gets_no_name_and_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let file = new(&path, true).expect("free");
        let draft = file.draft.clone();
        fs::remove_file(&draft).expect("removed");
        fs::write(&draft, "fragment").expect("another");
        assert_eq!(finish(file), Err("it: its draft was moved or replaced".to_owned()));
        assert_eq!(fs::read(&draft).expect("not ours"), b"fragment");
        assert!(!path.exists());
    }

    #[test]
    fn only_a_regular_file_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        fs::write(&target, "text").expect("a file");
        symlink(&target, &link).expect("a link");
        let dangling = dir.path().join("dangling");
        symlink("nowhere", &dangling).expect("a link");
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let before = names(dir.path());
        for may_replace in [false, true] {
            for (path, why) in [
                (&link, "symbolic link"),
                (&dangling, "symbolic link"),
                (&socket, "no regular file"),
                (&dir.path().to_owned(), "no regular file"),
            ] {
                let error = new(path, may_replace).map(drop).expect_err("refused");
                assert!(error.contains(why), "{error}");
            }
        }
        assert_eq!(new(&target, false).map(drop), Err("it: it exists".to_owned()));
        // Also what came to be there while the file was written.
        let late = dir.path().join("late");
        let file = new(&late, true).expect("free");
        symlink(&target, &late).expect("a link");
        assert!(finish(file).expect_err("refused").contains("symbolic link"));
        fs::remove_file(&late).expect("removed");
        assert_eq!(names(dir.path()), before);
        assert!(new(&dir.path().join("none/file"), true).is_err());
    }
}
