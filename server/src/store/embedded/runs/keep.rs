//! Which runs are kept. What of the newest one is kept it sees to itself.

use std::{fs, time::SystemTime};

use super::{Layout, Listed, OpenError, Runs, UNFINISHED, condition, pick::Begun};
use crate::store::Millis;

/// A run: when it begins, if that is known, and its size in bytes.
#[derive(Clone, Copy, Debug)]
struct Aged {
    time: Option<Millis>,
    bytes: u64,
}

/// How many of the runs, oldest first, may go: those that end before the horizon, and those that are too many bytes. A run
/// ends before the next one begins, of which that must be known. The newest always stays.
fn doomed(runs: &[Aged], horizon: Millis, bytes_max: u64) -> usize {
    let mut doomed = runs.iter().rposition(|run| run.time.is_some_and(|time| time <= horizon)).unwrap_or(0);
    let bytes = |from: usize| runs[from..].iter().map(|run| run.bytes).sum::<u64>();
    while bytes(doomed) > bytes_max && doomed + 1 < runs.len() {
        doomed += 1;
    }
    doomed
}

impl Runs {
    /// Removes runs that are too old.
    pub(in crate::store) fn retain(&self) -> Result<(), OpenError> {
        let runs = self.list()?;
        if runs.len() < 2 {
            return Ok(());
        }
        let mut aged = Vec::new();
        for run in &runs {
            let time = Begun::of(run)?.map(|begun| begun.time);
            aged.push(Aged { time, bytes: condition::bytes(&Layout::new(run.path.clone())) });
        }
        let now = self.ground.clock.now();
        let horizon = now.checked_sub(self.options.retention).unwrap_or(SystemTime::UNIX_EPOCH);
        for run in &runs[..doomed(&aged, horizon.into(), self.options.history_bytes_max)] {
            self.remove(run)?;
        }
        Ok(())
    }

    fn remove(&self, run: &Listed) -> Result<(), OpenError> {
        self.tidy()?;
        // Whoever restores it just now goes on.
        let lock = match Layout::new(run.path.clone()).lock() {
            Err(OpenError::InUse(_)) => return Ok(()),
            lock => lock?,
        };
        let unfinished = self.dir.join(UNFINISHED);
        let disk = &*self.ground.disk;
        disk.rename(&run.path, &unfinished).map_err(OpenError::at(&run.path))?;
        disk.sync_directory(&self.dir).map_err(OpenError::at(&self.dir))?;
        drop(lock);
        fs::remove_dir_all(&unfinished).map_err(OpenError::at(&unfinished))?;
        tracing::info!(position = %run.position, "removed an old run of the history");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_go_when_all_of_them_is_too_old_or_too_large() {
        let aged =
            |days: &[u64]| days.iter().map(|day| Aged { time: Some(Millis(*day)), bytes: 10 }).collect::<Vec<_>>();
        let all = u64::MAX;
        assert_eq!(doomed(&aged(&[1]), Millis(9), all), 0, "the newest stays");
        assert_eq!(doomed(&aged(&[1, 5]), Millis(4), all), 0, "the first may reach beyond the horizon");
        assert_eq!(doomed(&aged(&[1, 5]), Millis(5), all), 1, "of the horizon is the second's beginning");
        assert_eq!(doomed(&aged(&[1, 3, 5, 8]), Millis(6), all), 2);
        assert_eq!(doomed(&aged(&[1, 3, 5]), Millis(0), 29), 1, "too large");
        assert_eq!(doomed(&aged(&[1, 3, 5]), Millis(0), 0), 2);
        let mut unknown = aged(&[1, 3, 5]);
        unknown[2].time = None;
        assert_eq!(doomed(&unknown, Millis(4), all), 1, "nobody knows when the second ended");
    }
}
