//! Streams that the server sends: one message under way at a time, and an end for each reason there can be.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use coffer_proto::reason::Reason;
use tokio::sync::{Notify, watch};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{Api, status};
use crate::{
    serve::{ReaderTooSlow, Stage, Taken, wait},
    vault::{Call, Error},
};

/// What a stream needs to begin.
pub(super) struct Opening {
    taken: Taken,
    stage: watch::Receiver<Stage>,
}

/// Where the messages of a stream go.
pub(super) struct Outlet<T> {
    slot: Arc<Slot<T>>,
    taken: Taken,
}

/// The messages, as they come. Dropping them ends whatever makes them.
pub(super) struct Messages<T>(Arc<Slot<T>>);

/// Between the two: at most one message.
struct Slot<T> {
    next: Mutex<Next<T>>,
    left: Notify,
}

struct Next<T> {
    message: Option<T>,
    end: Option<Result<(), Status>>,
    waker: Option<Waker>,
}

impl Api {
    /// Takes the request of a stream apart, as [`super::open`] does, with what the stream needs to begin.
    pub(super) fn open_stream<T>(&self, mut request: Request<T>) -> Result<(Call, Opening, T), Status> {
        let taken = request.extensions_mut().remove::<Taken>();
        let taken = taken.ok_or_else(|| status::of(Error::Internal("a stream came from nowhere".into())))?;
        let (call, message) = super::open(request)?;
        Ok((call, Opening { taken, stage: self.stage.clone() }, message))
    }
}

impl Opening {
    /// Begins the stream. `make` sends its messages until it ends, well or with a status; it is dropped as soon as the
    /// caller goes away or the server ends.
    pub(super) fn begin<T, F>(self, make: impl FnOnce(Outlet<T>) -> F) -> Response<Messages<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let Self { taken, mut stage } = self;
        let slot = Arc::new(Slot::default());
        let made = make(Outlet { slot: Arc::clone(&slot), taken: taken.clone() });
        let ending = Ending { slot: Arc::clone(&slot), taken };
        tokio::spawn({
            let slot = Arc::clone(&slot);
            async move {
                let end = tokio::select! {
                    biased;
                    () = slot.left.notified() => return,
                    () = wait(&mut stage, Stage::Draining) => Err(status::with(Reason::ShuttingDown, ENDS)),
                    end = made => end,
                };
                ending.end(end);
            }
        });
        Response::new(Messages(slot))
    }
}

const ENDS: &str = "the server ends; begin again with the last message received";
const TOO_SLOW: &str = "a message was not taken in time; begin again with the last message received";

impl<T> Outlet<T> {
    /// Sends a message and waits until it is taken.
    pub(super) async fn send(&mut self, message: T) -> Result<(), Status> {
        self.taken.announce();
        self.slot.change(|next| next.message = Some(message));
        self.taken.all().await.map_err(|ReaderTooSlow| status::with(Reason::ReaderTooSlow, TOO_SLOW))
    }
}

/// Sees to it that a stream has an end, should its making panic.
struct Ending<T> {
    slot: Arc<Slot<T>>,
    taken: Taken,
}

impl<T> Ending<T> {
    fn end(&self, end: Result<(), Status>) {
        self.taken.ends();
        self.slot.change(|next| {
            next.end.get_or_insert(end);
        });
    }
}

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        if self.slot.next().end.is_none() {
            self.end(Err(status::of(Error::Internal("a stream ended by itself".into()))));
        }
    }
}

impl<T> Slot<T> {
    fn change(&self, change: impl FnOnce(&mut Next<T>)) {
        let waker = {
            let mut next = self.next();
            change(&mut next);
            next.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn next(&self) -> MutexGuard<'_, Next<T>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { next: Mutex::new(Next { message: None, end: None, waker: None }), left: Notify::new() }
    }
}

impl<T> Stream for Messages<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut next = self.0.next();
        if let Some(message) = next.message.take() {
            return Poll::Ready(Some(Ok(message)));
        }
        match &next.end {
            None => {
                next.waker = Some(context.waker().clone());
                Poll::Pending
            }
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(status)) => {
                let status = status.clone();
                next.end = Some(Ok(()));
                Poll::Ready(Some(Err(status)))
            }
        }
    }
}

impl<T> Drop for Messages<T> {
    fn drop(&mut self) {
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests;
