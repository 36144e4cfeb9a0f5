//! How many entries one hold of the view's lock walks over. Tests hold every call against a bound, because a change waits
//! for the lock, and all readers wait for the change; a server counts nothing.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static WALKED: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

/// A hold of the lock begins on this thread.
pub(super) fn begin() {
    #[cfg(test)]
    WALKED.set(0);
}

/// The hold came to another entry.
pub(super) fn add() {
    #[cfg(test)]
    {
        WALKED.set(WALKED.get() + 1);
        MOST.set(MOST.get().max(WALKED.get()));
    }
}

/// The most entries that one hold of this thread walked over while `future` ran, on a runtime of one thread.
#[cfg(test)]
pub(crate) async fn most_of<T>(future: impl Future<Output = T>) -> (usize, T) {
    MOST.set(0);
    let value = future.await;
    (MOST.get(), value)
}
