//! When files are to be read again, and when a warning about them is to be said again.

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

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

/// Decides when a warning that lasts is said again: once a day.
#[derive(Debug, Default)]
pub struct Daily(Mutex<Option<Duration>>);

impl Daily {
    /// Returns true if a day has passed since it last did, by the machine's uptime.
    pub fn is_due(&self, uptime: Duration) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = said.is_none_or(|said| uptime.saturating_sub(said) >= DAY);
        if is_due {
            *said = Some(uptime);
        }
        is_due
    }

    /// Lets it be due at once.
    pub fn reset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn look(files: &[PathBuf]) -> Vec<Mark> {
    let one = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_due_once_a_day_and_after_a_change() {
        let daily = Daily::default();
        let hours: Vec<_> = (0..50).filter(|hour| daily.is_due(DAY / 24 * *hour)).collect();
        assert_eq!(hours, [0, 24, 48]);
        daily.reset();
        assert!(daily.is_due(DAY * 2 + DAY / 2));
    }
}
