//! Work on a thread of its own: files may lie where writing them hangs, and signals must be heard meanwhile.

use std::time::Duration;

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

use crate::{Exit, Failure};

/// Work under way. Dropped, it goes on, and nobody hears of it.
pub(super) struct Apart<T> {
    work: JoinHandle<Result<T, Failure>>,
    /// None once it was told that it takes too long.
    late_at: Option<Instant>,
}

/// What there is to tell of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News<T> {
    /// It is done.
    Done(Result<T, Failure>),
    /// It takes longer than it should, and goes on. Told once.
    Late,
}

impl<T: Send + 'static> Apart<T> {
    /// Begins it.
    pub(super) fn begin(patience: Duration, work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Self {
        Self { work: spawn_blocking(work), late_at: Instant::now().checked_add(patience) }
    }

    /// Waits for what is to be told. Cancel-safe. Not to be called again once it is done.
    pub(super) async fn news(&mut self) -> News<T> {
        tokio::select! {
            biased;
            done = &mut self.work => News::Done(done.unwrap_or_else(|_| Err(broken()))),
            () = at(self.late_at) => {
                self.late_at = None;
                News::Late
            }
        }
    }
}

fn broken() -> Failure {
    Failure::new(Exit::Internal, "making a start ready ended by itself")
}

/// Waits until a moment; for ever if there is none.
pub(super) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn what_hangs_holds_nothing_up_and_is_told_once() {
        let (go_on, told_to) = sync_channel::<u8>(1);
        let mut work = Apart::begin(Duration::from_millis(10), move || {
            told_to.recv_timeout(PATIENCE).map_err(|_| Failure::new(Exit::Internal, "nothing came"))
        });
        // This thread waits for it and is free nevertheless.
        assert_eq!(work.news().await, News::Late);
        tokio::select! {
            news = work.news() => panic!("{news:?}"),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        go_on.send(7).expect("it waits");
        assert_eq!(work.news().await, News::Done(Ok(7)));
    }

    #[tokio::test]
    async fn what_ends_by_itself_is_a_failure() {
        let mut work = Apart::begin(PATIENCE, || -> Result<(), Failure> { panic!("on purpose") });
        assert_eq!(work.news().await, News::Done(Err(broken())));
    }
}
