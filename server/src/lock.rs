//! Takes a file's lock, which the system tells nobody about when it is free again.

use std::{
    fs::TryLockError,
    thread,
    time::{Duration, Instant},
};

/// How long a process that is ending may still hold it, or one that was begun by another thread until it runs its own
/// program: it has all files open that this process has.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Before it is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// Tries again for a second. Blocks.
#[expect(clippy::disallowed_methods, reason = "a lock can be waited for with a deadline in no other way")]
pub(crate) fn take(try_lock: impl Fn() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    let began = Instant::now();
    loop {
        match try_lock() {
            Err(TryLockError::WouldBlock) if began.elapsed() < WAIT_MAX => thread::sleep(AGAIN),
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn who_lets_go_is_waited_for_and_who_does_not_is_told() {
        let tries = Cell::new(0);
        let held_for = |times: usize| {
            tries.set(0);
            let outcome = take(|| {
                tries.set(tries.get() + 1);
                if tries.get() > times { Ok(()) } else { Err(TryLockError::WouldBlock) }
            });
            outcome.is_ok()
        };
        assert!(held_for(0) && held_for(3));
        assert!(!held_for(usize::MAX));
        assert!(tries.get() > 3);
    }
}
