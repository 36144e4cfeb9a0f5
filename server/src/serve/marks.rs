//! Whether files changed.

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// Files, and how they looked when they were last looked at: when they were written, and their sizes.
#[derive(Debug)]
pub struct Marks {
    files: Vec<PathBuf>,
    seen: Mutex<Vec<Mark>>,
}

type Mark = Option<(SystemTime, u64)>;

impl Marks {
    /// Looks at the files. To be called before they are read, so that no change falls between.
    pub fn of(files: Vec<PathBuf>) -> Self {
        let seen = Mutex::new(look(&files));
        Self { files, seen }
    }

    /// Looks again: whether a file looks different from when it was last looked at.
    pub fn look(&self) -> bool {
        let now = look(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *seen, now.clone()) != now
    }
}

fn look(files: &[PathBuf]) -> Vec<Mark> {
    let one = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(one).collect()
}
