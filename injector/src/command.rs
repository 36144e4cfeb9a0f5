//! Which file will run, decided as execvp(3) does, before anything is fetched.
//!
//! The search uses the PATH that the injector was started with: no secret takes part in it.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt as _,
    path::{self, Path, PathBuf},
};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::{Exit, Failure};

/// Where execvp(3) looks without a PATH.
const PATH_DEFAULT: &str = "/bin:/usr/bin";

/// A file that can be executed, and the words it will see.
#[derive(Debug)]
pub(crate) struct Command {
    path: PathBuf,
    words: Vec<OsString>,
}

impl Command {
    /// Finds the file. A name with `/` is used as it is; otherwise the first match of the search path, where an empty
    /// entry is the current directory.
    ///
    /// [`Exit::NotFound`] if there is none; [`Exit::NotExecutable`] if all that was found cannot be executed.
    pub(crate) fn resolve(name: &OsStr, words: &[OsString], search: Option<&OsStr>) -> Result<Self, Failure> {
        let path = find(name, search.unwrap_or(OsStr::new(PATH_DEFAULT))).map_err(|error| failure(name, &error))?;
        Ok(Self { path, words: words.to_vec() })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All of its arguments; the first is the name as it was given.
    pub(crate) fn words(&self) -> &[OsString] {
        &self.words
    }
}

/// Why a file cannot be started, in the words and the code of every shell.
pub(crate) fn failure(name: &OsStr, error: &io::Error) -> Failure {
    let name = name.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Failure::new(Exit::NotFound, format!("{name}: command not found"))
        }
        _ => Failure::new(Exit::NotExecutable, format!("{name}: cannot be executed: {error}")),
    }
}

fn find(name: &OsStr, search: &OsStr) -> io::Result<PathBuf> {
    if name.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    if name.as_bytes().contains(&b'/') {
        return executable(Path::new(name)).map(|()| name.into());
    }
    let mut denied = None;
    for directory in search.as_bytes().split(|byte| *byte == b':') {
        let candidate = Path::new(OsStr::from_bytes(directory)).join(name);
        match executable(&candidate) {
            // A relative entry is made absolute. If the current directory is gone it stays as it is, which works too.
            Ok(()) => return Ok(path::absolute(&candidate).unwrap_or(candidate)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied = Some(error),
            Err(_) => {}
        }
    }
    Err(denied.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// Whether execve(2) would take it, with the rights it would be taken with.
fn executable(path: &Path) -> io::Result<()> {
    if !path.metadata()?.is_file() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    /// Directories `plain` (a file without the right to execute it), `folder` (a directory of that name), `good`.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (directory, mode) in [("plain", 0o644), ("good", 0o755), ("better", 0o755)] {
            let file = root.path().join(directory).join("tool");
            fs::create_dir(file.parent().expect("its directory")).expect("made");
            fs::write(&file, "").expect("written");
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set");
        }
        fs::create_dir_all(root.path().join("folder/tool")).expect("made");
        fs::write(root.path().join("file"), "").expect("written");
        root
    }

    fn search(root: &tempfile::TempDir, entries: &[&str]) -> OsString {
        let entries =
            entries.iter().map(|entry| if entry.is_empty() { PathBuf::new() } else { root.path().join(entry) });
        std::env::join_paths(entries).expect("no colon")
    }

    fn exit(name: &str, search: &OsStr) -> Exit {
        Command::resolve(OsStr::new(name), &[], Some(search)).expect_err("not found").exit()
    }

    #[test]
    fn the_first_that_can_be_executed_wins() {
        let root = tree();
        let search = search(&root, &["none", "file", "plain", "folder", "good", "better"]);
        let command = Command::resolve(OsStr::new("tool"), &[], Some(&search)).expect("found");
        assert_eq!(command.path(), root.path().join("good/tool"));
    }

    #[test]
    fn found_but_not_executable_is_told_from_not_found() {
        let root = tree();
        for entries in [&["plain", "none"][..], &["folder"], &["none", "plain", "file"]] {
            assert_eq!(exit("tool", &search(&root, entries)), Exit::NotExecutable, "{entries:?}");
        }
        for entries in [&["none"][..], &["file"], &[]] {
            assert_eq!(exit("tool", &search(&root, entries)), Exit::NotFound, "{entries:?}");
        }
        assert_eq!(exit("", &search(&root, &["good"])), Exit::NotFound);
        assert_eq!(exit(&"x".repeat(300), &search(&root, &["good"])), Exit::NotFound);
    }

    #[test]
    fn a_name_with_a_slash_is_used_as_it_is() {
        let root = tree();
        let nowhere = search(&root, &["none"]);
        for (file, expected) in [
            ("plain/tool", Exit::NotExecutable),
            ("folder/tool", Exit::NotExecutable),
            ("none/tool", Exit::NotFound),
            ("file/tool", Exit::NotFound),
        ] {
            let name = root.path().join(file);
            assert_eq!(exit(name.to_str().expect("text"), &nowhere), expected, "{file}");
        }
        let odd = root.path().join("good/../good/./tool");
        let command = Command::resolve(odd.as_os_str(), &[], Some(&nowhere)).expect("found");
        assert_eq!(command.path().as_os_str(), odd.as_os_str());
    }

    #[test]
    fn without_a_search_path_the_system_directories_are_searched() {
        let command = Command::resolve(OsStr::new("sh"), &["sh".into()], None).expect("every system has a shell");
        assert!(command.path().is_absolute());
        assert_eq!(command.words(), ["sh"]);
    }
}
