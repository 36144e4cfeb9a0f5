//! The two records that a store keeps of itself. Numbers are little-endian.
//!
//! ```text
//! head:   format 1 | instance 16 | epoch 8 | id of the last transaction 16 | its time in milliseconds 8 | deletes 4
//! store:  magic 6 | format 1 | instance 16 | epoch 8
//! ```

use coffer_proto::etcd::KeyValue;

use crate::store::{Epoch, Error, Millis, NUMBER_MAX, Position, Revision, TransactionId};

const HEAD_FORMAT: u8 = 1;
const HEAD_BYTES: usize = 53;
/// It is not known how many deletes there are: what begins with something was deleted.
pub(super) const DELETES_UNKNOWN: u32 = u32::MAX;
const MAGIC: &[u8; 6] = b"coffer";
const STORE_FORMAT: u8 = 1;
const STORE_BYTES: usize = 31;

/// What the last transaction left of itself. It is put last, so that a transaction's changes come before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Of the store, so that a head tells whose it is wherever it is seen.
    pub(super) instance: [u8; 16],
    pub(super) epoch: Epoch,
    /// Tells apart two histories that have the same revision, as after etcd itself was put back to an earlier state.
    pub(super) id: TransactionId,
    pub(super) time: Millis,
    /// How many deletes there are at most among its events, or [`DELETES_UNKNOWN`]. etcd may forget some of them and keep
    /// the rest of a transaction, which this tells.
    pub(super) deletes: u32,
}

/// Whose store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Random, of its creation.
    pub(super) instance: [u8; 16],
    pub(super) epoch: Epoch,
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (epoch, time, deletes) =
            (self.epoch.0.to_le_bytes(), self.time.0.to_le_bytes(), self.deletes.to_le_bytes());
        [&[HEAD_FORMAT][..], &self.instance, &epoch, &self.id.0, &time, &deletes].concat()
    }

    /// The head in a key's value, and its position.
    pub(super) fn of(key: &KeyValue) -> Result<(Self, Position), Error> {
        let bytes: &[u8; HEAD_BYTES] = key.value.as_slice().try_into().map_err(|_| foreign(key))?;
        if bytes[0] != HEAD_FORMAT {
            return Err(foreign(key));
        }
        let head = Self {
            instance: array(&bytes[1..]),
            epoch: epoch(key, &bytes[17..])?,
            id: TransactionId(array(&bytes[25..])),
            time: Millis(u64::from_le_bytes(array(&bytes[41..]))),
            deletes: u32::from_le_bytes(array(&bytes[49..])),
        };
        Ok((head, Position { epoch: head.epoch, revision: revision(key.mod_revision) }))
    }

    /// Both records as they stand together.
    pub(super) fn with(head: &KeyValue, stored: &KeyValue) -> Result<(Self, Position, Stored), Error> {
        let (of, position) = Self::of(head)?;
        let stored = Stored::of(stored)?;
        if (of.instance, of.epoch) != (stored.instance, stored.epoch) {
            let name = String::from_utf8_lossy(&head.key);
            return Err(Error::Failed(format!(
                "etcd's key {name} is of another store or epoch than the record beside it"
            )));
        }
        Ok((of, position, stored))
    }
}

impl Stored {
    pub(super) fn encode(&self) -> Vec<u8> {
        [&MAGIC[..], &[STORE_FORMAT], &self.instance, &self.epoch.0.to_le_bytes()].concat()
    }

    pub(super) fn of(key: &KeyValue) -> Result<Self, Error> {
        let bytes: &[u8; STORE_BYTES] = key.value.as_slice().try_into().map_err(|_| foreign(key))?;
        if !bytes.starts_with(MAGIC) || bytes[6] != STORE_FORMAT {
            return Err(foreign(key));
        }
        Ok(Self { instance: array(&bytes[7..]), epoch: epoch(key, &bytes[23..])? })
    }

    /// Between what the records of an instance stand, of whatever epoch.
    pub(super) fn of_instance(instance: [u8; 16]) -> (Vec<u8>, Vec<u8>) {
        let start = [&MAGIC[..], &[STORE_FORMAT], &instance].concat();
        let end = [&start[..], &[u8::MAX; size_of::<u64>() + 1]].concat();
        (start, end)
    }
}

/// A revision of etcd, which never is below 1.
pub(super) fn revision(of_etcd: i64) -> Revision {
    Revision(u64::try_from(of_etcd).unwrap_or(0))
}

fn epoch(key: &KeyValue, bytes: &[u8]) -> Result<Epoch, Error> {
    let epoch = u64::from_le_bytes(array(bytes));
    if epoch > NUMBER_MAX { Err(foreign(key)) } else { Ok(Epoch(epoch)) }
}

fn foreign(key: &KeyValue) -> Error {
    let name = String::from_utf8_lossy(&key.key);
    Error::Failed(format!("etcd's key {name} holds nothing that this version of coffer put there"))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: Vec<u8>) -> KeyValue {
        KeyValue { key: b"coffer/x".to_vec(), value, mod_revision: 7, ..KeyValue::default() }
    }

    fn head(epoch: Epoch) -> Head {
        Head { instance: [8; 16], epoch, id: TransactionId([5; 16]), time: Millis(9), deletes: 2 }
    }

    #[test]
    fn what_is_written_is_read() {
        for deletes in [0, 1, DELETES_UNKNOWN] {
            let head = Head { deletes, ..head(Epoch(3)) };
            let position = Position { epoch: Epoch(3), revision: Revision(7) };
            assert_eq!(Head::of(&key(head.encode())), Ok((head, position)));
        }
        let stored = Stored { instance: [8; 16], epoch: Epoch(3) };
        assert_eq!(Stored::of(&key(stored.encode())), Ok(stored));
        let (above, below) = Stored::of_instance([8; 16]);
        for epoch in [0, 1, u64::MAX] {
            let of = |instance| Stored { instance, epoch: Epoch(epoch) }.encode();
            assert!(above < of([8; 16]) && of([8; 16]) < below);
            assert!(of([7; 16]) < above && below < of([9; 16]));
        }
    }

    #[test]
    fn what_another_wrote_is_refused() {
        let good = head(Epoch(3)).encode();
        let stored = Stored { instance: [8; 16], epoch: Epoch(3) }.encode();
        assert!(Head::of(&key(head(Epoch(NUMBER_MAX)).encode())).is_ok());
        let endless = head(Epoch(NUMBER_MAX + 1)).encode();
        let other_format = [&[2][..], &good[1..]].concat();
        for bytes in [&b""[..], &good[1..], &other_format, &stored, &endless] {
            assert!(matches!(Head::of(&key(bytes.to_vec())), Err(Error::Failed(_))));
        }
        for bytes in [&b""[..], &stored[1..], &[&b"coffee"[..], &stored[6..]].concat(), &good] {
            assert!(matches!(Stored::of(&key(bytes.to_vec())), Err(Error::Failed(_))));
        }
    }
}
