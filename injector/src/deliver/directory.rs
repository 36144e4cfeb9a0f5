//! `--files DIR`: a file for each secret. Which of them are ours is listed beside them, so that nobody else's is
//! replaced or removed.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use coffer_proto::{name::VariableName, value::SecretValue};
use rustix::{
    fs::{CWD, Mode, OFlags, fstat, mkdirat, openat},
    io::Errno,
    process::geteuid,
};

use crate::{
    Exit, Failure,
    deliver::place::{self, MODE_VALUE},
    received::Variable,
};

/// The names of the files that were made, one a line.
const LIST: &str = ".coffer-files";
/// Largest list that is read, in bytes: over 30,000 of the longest names.
const LIST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A directory that may be written to.
pub(super) struct Directory {
    path: PathBuf,
    directory: OwnedFd,
    made: BTreeSet<VariableName>,
}

fn refused(path: &Path, problem: &str) -> Failure {
    Failure::new(Exit::Refused, format!("--files {}: {problem}", path.display()))
}

fn cannot_be_used(path: &Path, error: Errno) -> Failure {
    refused(path, &format!("cannot be used: {}", io::Error::from(error)))
}

impl Directory {
    /// Whether a file lies in it.
    pub(super) fn holds(&self, file: &Path) -> bool {
        let found = std::fs::metadata(place::parent(file));
        let own = fstat(&self.directory);
        matches!((found, own), (Ok(found), Ok(own)) if (found.dev(), found.ino()) == (own.st_dev, own.st_ino))
    }

    /// Whether it can be used, or made where it is to be. What lies in it counts once names are known.
    pub(super) fn check(path: &Path) -> Result<(), Failure> {
        let path: PathBuf = path.components().collect();
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = place::open_directory(place::parent(&path), OFlags::empty());
                parent.map(drop).map_err(|error| cannot_be_used(&path, error))
            }
            _ => Self::existing(path).map(drop),
        }
    }

    /// Opens it, or makes it with mode 0700; its parent must exist. It must be a directory of this user, not a link,
    /// that nobody else may write, where the names of the secrets are free or listed as ours.
    pub(super) fn open(path: &Path, secrets: &[Variable<SecretValue>]) -> Result<Self, Failure> {
        // Without a slash at the end, behind which a link would be followed.
        let path: PathBuf = path.components().collect();
        match mkdirat(CWD, &path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(cannot_be_used(&path, error)),
        }
        let opened = Self::existing(path)?;
        let mut problems = Vec::new();
        for name in secrets.iter().map(|secret| &secret.name) {
            let found = place::find(&opened.directory, OsStr::new(name.as_str()));
            let found = found.map_err(|error| cannot_be_used(&opened.path, error))?;
            let problem = found.and_then(|stat| match place::not_ours(&stat) {
                None if !opened.made.contains(name) => Some("is there already, and coffer-inject did not make it"),
                problem => problem,
            });
            problems.extend(problem.map(|problem| format!("--files {}/{name}: {problem}", opened.path.display())));
        }
        Failure::unless_empty(Exit::Refused, problems).map(|()| opened)
    }

    fn existing(path: PathBuf) -> Result<Self, Failure> {
        let directory = place::open_directory(&path, OFlags::NOFOLLOW).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR => refused(&path, "must be a directory, and not a symbolic link to one"),
            other => cannot_be_used(&path, other),
        })?;
        let stat = fstat(&directory).map_err(|error| cannot_be_used(&path, error))?;
        if stat.st_uid != geteuid().as_raw() {
            return Err(refused(&path, "belongs to another user"));
        }
        if Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
            return Err(refused(&path, "may be written by others than its owner: chmod go-w"));
        }
        let made = list(&directory).map_err(|error| refused(&path, &format!("{LIST} cannot be read: {error}")))?;
        Ok(Self { path, directory, made })
    }

    /// Writes a file for each secret, and removes those that were made for secrets that are gone.
    pub(super) fn write(&self, secrets: &[Variable<SecretValue>]) -> Result<(), Failure> {
        place::warn_of_disk(&self.directory, &self.path);
        self.try_write(secrets).map_err(|error| refused(&self.path, &format!("cannot be written: {error}")))
    }

    fn try_write(&self, secrets: &[Variable<SecretValue>]) -> io::Result<()> {
        let wanted: BTreeSet<_> = secrets.iter().map(|secret| secret.name.clone()).collect();
        // Listed before they are made: whenever this ends, no file of ours is unknown.
        self.write_list(&self.made.union(&wanted).cloned().collect())?;
        for secret in secrets {
            let name = OsStr::new(secret.name.as_str());
            place::replace(&self.directory, name, secret.value.expose().as_bytes(), MODE_VALUE)?;
        }
        for gone in self.made.difference(&wanted) {
            let name = OsStr::new(gone.as_str());
            // Somebody may have put something else into its place.
            if place::find(&self.directory, name)?.is_some_and(|stat| place::not_ours(&stat).is_none()) {
                place::remove(&self.directory, name)?;
            }
        }
        self.write_list(&wanted)?;
        place::clear(&self.directory);
        Ok(())
    }

    fn write_list(&self, names: &BTreeSet<VariableName>) -> io::Result<()> {
        let text: String = names.iter().map(|name| format!("{name}\n")).collect();
        place::replace(&self.directory, OsStr::new(LIST), text.as_bytes(), MODE_VALUE | Mode::WUSR)
    }
}

/// What the list holds, of which only names of secrets count.
fn list(directory: &OwnedFd) -> io::Result<BTreeSet<VariableName>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(directory, LIST, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(BTreeSet::new()),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LIST_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter_map(|line| VariableName::parse(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::received::tests::secrets;
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    fn write(path: &Path, pairs: &[(&str, &str)]) -> Result<(), Failure> {
        let secrets = secrets(pairs);
        Directory::open(path, &secrets)?.write(&secrets)
    }

    fn problem(path: &Path) -> String {
        let failure = write(path, &[("A", "hunter2")]).expect_err("refused");
        assert_eq!(failure.exit(), Exit::Refused);
        failure.problems().collect()
    }

    /// Every file but the list, with its content.
    fn content(path: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(path).expect("readable").map(|entry| entry.expect("readable").path());
        let name = |path: &Path| path.file_name().expect("a name").to_str().expect("text").to_owned();
        let files = entries.map(|path| (name(&path), fs::read_to_string(&path).expect("text")));
        let mut files: Vec<_> = files.filter(|(name, _)| name != LIST).collect();
        files.sort();
        files
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_secret_is_a_file_of_its_own() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("secrets");
        write(&path, &[("A", "1\n"), ("B", "ü")]).expect("written");
        assert_eq!(content(&path), pairs(&[("A", "1\n"), ("B", "ü")]));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(&path.join("A"))), (0o700, 0o400));
    }

    #[test]
    fn what_is_gone_is_removed_and_what_is_not_ours_stays() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("secrets");
        write(&path, &[("A", "1"), ("B", "2"), ("C", "3")]).expect("written");
        fs::write(path.join("OTHER"), "theirs").expect("written");
        fs::remove_file(path.join("C")).expect("removed");
        symlink(path.join("OTHER"), path.join("C")).expect("linked");
        write(&path, &[("B", "new")]).expect("written");
        assert_eq!(content(&path), pairs(&[("B", "new"), ("C", "theirs"), ("OTHER", "theirs")]));
        let told = write(&path, &[("OTHER", "mine"), ("B", "newer")]).expect_err("refused");
        assert!(told.problems().any(|problem| problem.contains("OTHER: is there already")), "{told:?}");
        assert_eq!(content(&path), pairs(&[("B", "new"), ("C", "theirs"), ("OTHER", "theirs")]), "nothing was written");
    }

    #[test]
    fn a_list_that_names_other_paths_removes_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("secrets");
        fs::create_dir(&path).expect("made");
        fs::write(root.path().join("VICTIM"), "").expect("written");
        fs::write(path.join(LIST), "../VICTIM\n/etc/passwd\n\u{0}\nlower\n").expect("written");
        write(&path, &[("A", "1")]).expect("written");
        assert!(root.path().join("VICTIM").exists());
    }

    #[test]
    fn a_directory_that_is_not_ours_alone_is_refused() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("secrets");
        fs::create_dir(&path).expect("made");
        for mode in [0o720, 0o702, 0o1777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            assert!(problem(&path).contains("may be written by others"), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        let link = root.path().join("link");
        symlink(&path, &link).expect("linked");
        for link in [link.clone(), link.join("")] {
            assert!(problem(&link).contains("not a symbolic link"), "{}", link.display());
        }
        fs::write(root.path().join("file"), "").expect("written");
        assert!(problem(&root.path().join("file")).contains("must be a directory"));
        assert!(problem(&root.path().join("none/secrets")).contains("cannot be used"));
        assert!(content(&path).is_empty());
    }
}
