//! Whether files are to be read again.

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// Files, and how they looked when they were last looked at: when they were written, and their sizes.
#[derive(Debug)]
pub struct Marks {
    files: Vec<PathBuf>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    marks: Vec<Mark>,
    /// Why they could not be used since they look so. It may pass although they stay as they are.
    problem: Option<String>,
}

type Mark = Option<(SystemTime, u64)>;

impl Marks {
    /// Looks at the files. To be called before they are read, so that no change falls between.
    pub fn of(files: Vec<PathBuf>) -> Self {
        let seen = Mutex::new(Seen { marks: look(&files), problem: None });
        Self { files, seen }
    }

    /// Looks again, because the files are to be read in any case.
    pub fn renew(&self) {
        *self.seen() = Seen { marks: look(&self.files), problem: None };
    }

    /// Looks again: whether the files are to be read, since one looks different from when it was last looked at, or since
    /// they could not be used.
    pub fn look(&self) -> bool {
        let now = look(&self.files);
        let mut seen = self.seen();
        if seen.marks != now {
            *seen = Seen { marks: now, problem: None };
            return true;
        }
        seen.problem.is_some()
    }

    /// To be told how the files were read. Whether there is anything to say of it: not of the same problem over again.
    pub fn were_read(&self, problem: Option<String>) -> bool {
        let mut seen = self.seen();
        let is_known = problem.is_some() && seen.problem == problem;
        seen.problem = problem;
        !is_known
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn look(files: &[PathBuf]) -> Vec<Mark> {
    let one = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(one).collect()
}
