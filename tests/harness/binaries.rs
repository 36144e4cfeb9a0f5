//! Where cargo put the binaries under test.

use std::{env, path::PathBuf};

/// The path of a binary of this workspace, built with the profile of this test.
pub(crate) fn binary(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("tests lie in {target}/{profile}/deps");
    let path = profile.join(name);
    assert!(path.is_file(), "{} is not built; run tests/run.sh, or cargo build --workspace --bins", path.display());
    path
}

/// A file that tests/run.sh made under the target directory.
pub(crate) fn prepared(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    let target = test.ancestors().nth(3).expect("tests lie in {target}/{profile}/deps");
    let path = target.join("tests").join(name);
    assert!(path.exists(), "{} is missing; tests/run.sh makes it: run that instead", path.display());
    path
}
