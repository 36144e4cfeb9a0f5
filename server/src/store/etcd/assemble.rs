//! Puts the events of a watch together to the transactions that made them.
//!
//! A transaction puts the head last, so its event ends what belongs to it, however many messages that came in. Events that
//! no head follows are of somebody who writes into coffer's keys: they are no part of its history. They are left out and
//! said, since the view of this server is still right; what it cannot open it refuses when it loads.

use coffer_proto::etcd::{Event, event::EventType};

use super::{
    head::{Head, revision},
    keys::Keys,
};
use crate::store::{Change, Commit, Error, Position};

/// Takes events in their order.
pub(super) struct Assembler {
    keys: Keys,
    head: Vec<u8>,
    last: Position,
    /// The revision of what waits for its head.
    at: i64,
    changes: Vec<Change>,
}

/// What an event makes known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing yet.
    Nothing,
    /// A transaction, whole, and what it left of itself.
    Commit(Commit, Head),
    /// The epoch rose.
    Gap,
}

impl Assembler {
    /// For what comes after a position.
    pub(super) fn new(keys: Keys, after: Position) -> Self {
        Self { head: keys.head(), keys, last: after, at: 0, changes: Vec::new() }
    }

    pub(super) fn take(&mut self, event: Event) -> Result<Told, Error> {
        let kind = event.r#type();
        let Some(key) = event.kv else { return Ok(Told::Nothing) };
        if key.mod_revision != self.at {
            self.drop_foreign();
            self.at = key.mod_revision;
        }
        if revision(key.mod_revision) <= self.last.revision {
            return Ok(Told::Nothing);
        }
        if key.key != self.head {
            match (self.keys.parse(&key.key), kind) {
                (Some(name), EventType::Put) => self.changes.push(Change::Put(name, key.value.into())),
                (Some(name), EventType::Delete) => self.changes.push(Change::Delete(name)),
                (None, _) => said(&String::from_utf8_lossy(&key.key), key.mod_revision),
            }
            return Ok(Told::Nothing);
        }
        if kind == EventType::Delete {
            return Err(Error::Failed(format!("the store {} was deleted from etcd", self.keys.prefix())));
        }
        let (head, position) = Head::of(&key)?;
        if position.epoch != self.last.epoch {
            return Ok(Told::Gap);
        }
        self.last = position;
        Ok(Told::Commit(Commit { position, changes: std::mem::take(&mut self.changes).into() }, head))
    }

    fn drop_foreign(&mut self) {
        for change in self.changes.drain(..) {
            said(change.key().as_str(), self.at);
        }
    }
}

fn said(key: &str, revision: i64) {
    tracing::error!(key, revision, "somebody else than coffer changed a key of its in etcd; this change is left out");
}
