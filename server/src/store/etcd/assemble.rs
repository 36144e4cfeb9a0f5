//! Puts the events of a watch together to the transactions that made them.
//!
//! A transaction puts the head last, so its event ends what belongs to it, however many messages that came in. Events that
//! no head follows, and heads that are none, are of somebody who writes into coffer's keys: they are no part of its
//! history. They are left out and said, since the view of this server is still right; what it cannot open it refuses when
//! it loads.

use coffer_proto::etcd::{Event, event::EventType};

use super::{
    error::cut,
    head::{Head, revision},
    keys::Keys,
};
use crate::store::{Change, Commit, Position, RECORD_BYTES};

/// Most of one transaction that is kept until its head comes, in bytes of memory. One with more is a gap: it deletes very
/// many records, and they are sooner loaded anew.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Takes events in their order.
pub(super) struct Assembler {
    keys: Keys,
    head: Vec<u8>,
    instance: Option<[u8; 16]>,
    last: Position,
    pending: Pending,
}

/// What was told of one revision and waits for its head.
#[derive(Default)]
struct Pending {
    at: i64,
    changes: Vec<Change>,
    bytes: usize,
    /// Whether it was more than is kept; then nothing is.
    is_too_large: bool,
    /// What is not coffer's, or is not kept: how many keys, and the first.
    left_out: usize,
    first: Option<String>,
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
    /// For what comes after a position of a store.
    pub(super) fn new(keys: Keys, instance: Option<[u8; 16]>, after: Position) -> Self {
        Self { head: keys.head(), keys, instance, last: after, pending: Pending::default() }
    }

    pub(super) fn take(&mut self, event: Event) -> Told {
        let kind = event.r#type();
        let Some(key) = event.kv else { return Told::Nothing };
        if key.mod_revision != self.pending.at {
            self.drop_foreign();
            self.pending.at = key.mod_revision;
        }
        if revision(key.mod_revision) <= self.last.revision {
            return Told::Nothing;
        }
        if key.key != self.head {
            // As a load has it.
            match (self.keys.parse(&key.key).filter(|_| key.value.len() <= RECORD_BYTES), kind) {
                (Some(name), EventType::Put) => self.pending.push(Change::Put(name, key.value.into())),
                (Some(name), EventType::Delete) => self.pending.push(Change::Delete(name)),
                (None, _) => self.pending.leave_out(&key.key),
            }
            return Told::Nothing;
        }
        match Head::of(&key) {
            Ok((head, position)) if kind == EventType::Put && Some(head.instance) == self.instance => {
                if position.epoch != self.last.epoch || self.pending.is_too_large {
                    return Told::Gap;
                }
                self.last = position;
                let changes = std::mem::take(&mut self.pending.changes).into();
                self.drop_foreign();
                Told::Commit(Commit { position, changes }, head)
            }
            _ => {
                self.pending.leave_out(&key.key);
                Told::Nothing
            }
        }
    }

    /// Says what no head belongs to.
    fn drop_foreign(&mut self) {
        let Pending { at, changes, left_out, first, .. } = std::mem::take(&mut self.pending);
        let keys = changes.len() + left_out;
        let Some(key) = first.or_else(|| changes.first().map(|change| change.key().as_str().to_owned())) else {
            return;
        };
        tracing::error!(key, keys, revision = at, "somebody else than coffer changed keys of its in etcd; left out");
    }
}

impl Pending {
    fn push(&mut self, change: Change) {
        self.bytes += size_of::<Change>() + change.bytes();
        if self.bytes <= KEPT_BYTES_MAX {
            self.changes.push(change);
            return;
        }
        self.is_too_large = true;
        self.leave_out(change.key().as_str().as_bytes());
        self.left_out += std::mem::take(&mut self.changes).len();
    }

    fn leave_out(&mut self, key: &[u8]) {
        self.left_out += 1;
        self.first.get_or_insert_with(|| cut(String::from_utf8_lossy(key).into_owned()));
    }
}

#[cfg(test)]
mod tests {
    use coffer_proto::etcd::KeyValue;

    use super::*;
    use crate::store::{Epoch, Millis, Revision, TransactionId};

    const OURS: [u8; 16] = [7; 16];

    fn assembler() -> Assembler {
        let after = Position { epoch: Epoch(1), revision: Revision(1) };
        Assembler::new(Keys::new("coffer/").expect("a prefix"), Some(OURS), after)
    }

    fn event(kind: EventType, key: &str, value: Vec<u8>, mod_revision: i64) -> Event {
        let kv = KeyValue { key: key.into(), value, mod_revision, ..KeyValue::default() };
        Event { r#type: kind.into(), kv: Some(kv) }
    }

    fn head(instance: [u8; 16], epoch: u64, revision: i64) -> Event {
        let head = Head { instance, epoch: Epoch(epoch), id: TransactionId([1; 16]), time: Millis(1), deletes: 0 };
        event(EventType::Put, "coffer/head", head.encode(), revision)
    }

    fn put(key: &str, bytes: usize, revision: i64) -> Event {
        event(EventType::Put, &format!("coffer/r/{key}"), vec![0; bytes], revision)
    }

    /// The keys that it tells at an event.
    fn told(assembler: &mut Assembler, event: Event) -> Option<Vec<String>> {
        match assembler.take(event) {
            Told::Commit(commit, _) => Some(commit.changes.iter().map(|change| change.key().to_string()).collect()),
            Told::Nothing => None,
            Told::Gap => panic!("a gap"),
        }
    }

    #[test]
    fn a_head_that_is_none_ends_nothing_and_the_next_one_does() {
        let mut assembler = assembler();
        let others = [
            event(EventType::Put, "coffer/head", b"x".to_vec(), 2),
            event(EventType::Delete, "coffer/head", Vec::new(), 3),
            head([8; 16], 1, 4),
            head(OURS, u64::MAX, 5),
        ];
        for other in others {
            let revision = other.kv.as_ref().map_or(0, |key| key.mod_revision);
            assert_eq!(told(&mut assembler, put("theirs", 1, revision)), None);
            assert_eq!(told(&mut assembler, other), None);
        }
        assert_eq!(told(&mut assembler, put("ours", 1, i64::MAX)), None);
        assert_eq!(told(&mut assembler, head(OURS, 1, i64::MAX)), Some(vec!["ours".to_owned()]));
        assert_eq!(assembler.take(head(OURS, 2, i64::MAX - 1)), Told::Nothing, "it is of before");
    }

    #[test]
    fn what_is_larger_than_a_record_is_none() {
        let mut assembler = assembler();
        assert_eq!(told(&mut assembler, put("large", RECORD_BYTES + 1, 2)), None);
        assert_eq!(told(&mut assembler, put("largest", RECORD_BYTES, 2)), None);
        assert_eq!(told(&mut assembler, head(OURS, 1, 2)), Some(vec!["largest".to_owned()]));
    }

    #[test]
    fn of_one_transaction_no_more_is_kept_than_there_may_be() {
        const ENOUGH: usize = KEPT_BYTES_MAX / RECORD_BYTES + 1;
        let mut assembler = assembler();
        for revision in [2, 3] {
            for at in 0..ENOUGH {
                assert_eq!(told(&mut assembler, put(&format!("{at}"), RECORD_BYTES, revision)), None);
            }
            assert_eq!(assembler.pending.changes.len(), 0);
        }
        // Nobody's, as long as no head follows.
        assert_eq!(told(&mut assembler, put("ours", 1, 4)), None);
        assert_eq!(told(&mut assembler, head(OURS, 1, 4)), Some(vec!["ours".to_owned()]));
        for at in 0..ENOUGH {
            assert_eq!(told(&mut assembler, put(&format!("{at}"), RECORD_BYTES, 5)), None);
        }
        assert_eq!(assembler.take(head(OURS, 1, 5)), Told::Gap);
    }
}
