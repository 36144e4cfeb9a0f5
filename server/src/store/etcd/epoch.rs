//! Notices that etcd was put back to an earlier state, and sees to it that nobody takes the new history for the old one.
//!
//! etcd's revisions then begin again where that state was, so a position would mean two things. Whoever notices raises the
//! store's epoch: followers of all servers load again, and what was given out in the old epoch is worth nothing.

use std::sync::{Mutex, PoisonError};

use coffer_proto::etcd::TxnRequest;

use super::{
    Etcd, OpenError, Seen,
    connect::SHORT,
    error::Failure,
    head::{Head, Stored, revision},
    open::no_randomness,
    transaction::{Is, compare, put, within},
};
use crate::store::{Epoch, Error, Millis, NUMBER_MAX, Position, TransactionId};

/// How often others may write while the epoch is to be raised.
const RAISE_TRIES: usize = 20;

/// How far the store was seen by this handle.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    furthest: Position,
    /// The epoch in which a position that was told is now another transaction's, or nobody's.
    replaced: Option<Epoch>,
}

impl Known {
    fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Etcd {
    /// What every later answer of etcd must have reached.
    pub(super) fn floor(&self) -> Position {
        self.0.known.with(|known| known.furthest)
    }

    /// Takes the position of a transaction that was sent when the store had reached the floor.
    pub(super) fn check_above(&self, floor: Position, position: Position) -> Result<Position, Error> {
        if position <= floor {
            self.replaced(floor.epoch);
            return Err(Error::Unknown("etcd was put back to an earlier state meanwhile".into()));
        }
        self.reached(position);
        Ok(position)
    }

    /// Takes a position that a read has shown which was begun when the store had reached the floor.
    pub(super) fn check_at(&self, floor: Position, position: Position) -> Result<Position, Error> {
        if position < floor {
            self.replaced(floor.epoch);
            return Err(Error::Unavailable("etcd was put back to an earlier state".into()));
        }
        self.reached(position);
        Ok(position)
    }

    /// The store was seen at a position.
    pub(super) fn reached(&self, position: Position) {
        self.0.known.with(|known| known.furthest = known.furthest.max(position));
    }

    /// The history that was told of an epoch is not there any more.
    pub(super) fn replaced(&self, epoch: Epoch) {
        self.0.known.with(|known| known.replaced = Some(epoch));
    }

    fn is_replaced(&self, epoch: Epoch) -> bool {
        self.0.known.with(|known| known.replaced == Some(epoch))
    }

    /// Refuses to write in an epoch whose history is not there any more, until there is a new one.
    pub(super) fn check_not_replaced(&self, epoch: Epoch) -> Result<(), Error> {
        if self.is_replaced(epoch) {
            return Err(Error::Unavailable("etcd was put back to an earlier state".into()));
        }
        Ok(())
    }

    /// What a look shows, after raising the epoch if that is due.
    pub(super) async fn look_again(&self) -> Result<Seen, OpenError> {
        for _ in 0..RAISE_TRIES {
            let floor = self.floor();
            let seen = self.look().await?;
            let epoch = seen.position.epoch;
            if !self.is_replaced(epoch) && seen.position >= floor {
                self.reached(seen.position);
                return Ok(seen);
            }
            if let Some(position) = self.raise(&seen, floor).await? {
                tracing::error!(%position, "etcd was put back to an earlier state; the epoch was raised");
            }
        }
        Err(written_on().into())
    }

    /// Raises the epoch, for whoever knows that etcd was put back while no server saw it: those that run load again, and
    /// what was given out in the old epoch is worth nothing. Where the new one begins.
    pub async fn raise_epoch(&self) -> Result<Position, OpenError> {
        for _ in 0..RAISE_TRIES {
            let seen = self.look().await?;
            if let Some(position) = self.raise(&seen, self.floor()).await? {
                return Ok(position);
            }
        }
        Err(written_on().into())
    }

    /// Raises the epoch above every one that was seen; `None` if somebody has written since.
    async fn raise(&self, seen: &Seen, floor: Position) -> Result<Option<Position>, Error> {
        let keys = &self.0.keys;
        let before = seen.position.epoch.max(floor.epoch).0;
        if before >= NUMBER_MAX {
            return Err(Error::Unavailable("the epoch cannot be raised any more".into()));
        }
        let epoch = Epoch(before + 1);
        let id = TransactionId::random().map_err(no_randomness)?;
        let Head { instance, .. } = seen.head;
        let head = Head { instance, epoch, id, time: Millis::from(self.0.clock.now()), deletes: 0 };
        let puts = vec![put(keys.store(), Stored { instance, epoch }.encode()), put(keys.head(), head.encode())];
        let request = TxnRequest {
            compare: vec![
                compare(keys.store(), None, Is::Value(seen.stored.encode())),
                compare(keys.head(), None, Is::Value(seen.head.encode())),
                compare(keys.head(), None, Is::Revision(seen.head_revision)),
            ],
            // Within, it passes although there may be no room.
            success: within(puts, 2),
            failure: Vec::new(),
        };
        let answer = self.ask_ours(SHORT, request).await.map_err(Failure::unread)?;
        let revision = answer.header.filter(|_| answer.succeeded).map(|header| revision(header.revision));
        Ok(revision.map(|revision| Position { epoch, revision }))
    }
}

fn written_on() -> Error {
    Error::Unavailable("the epoch cannot be raised: others keep writing".into())
}
