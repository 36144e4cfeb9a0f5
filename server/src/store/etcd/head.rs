//! The two records that a store keeps of itself. Numbers are little-endian.
//!
//! ```text
//! head:   format 1 | epoch 8 | id of the last transaction 16 | its time in milliseconds 8
//! store:  magic 6 | format 1 | instance 16 | epoch 8
//! ```

use coffer_proto::etcd::KeyValue;

use crate::store::{Epoch, Error, Millis, Position, Revision, TransactionId};

const HEAD_FORMAT: u8 = 1;
const HEAD_BYTES: usize = 33;
const MAGIC: &[u8; 6] = b"coffer";
const STORE_FORMAT: u8 = 1;
const STORE_BYTES: usize = 31;

/// What the last transaction left of itself. It is put last, so that a transaction's changes come before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) epoch: Epoch,
    /// Tells apart two histories that have the same revision, as after etcd itself was put back to an earlier state.
    pub(super) id: TransactionId,
    pub(super) time: Millis,
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
        let (epoch, time) = (self.epoch.0.to_le_bytes(), self.time.0.to_le_bytes());
        [&[HEAD_FORMAT][..], &epoch, &self.id.0, &time].concat()
    }

    /// The head in a key's value, and its position.
    pub(super) fn of(key: &KeyValue) -> Result<(Self, Position), Error> {
        let bytes: &[u8; HEAD_BYTES] = key.value.as_slice().try_into().map_err(|_| foreign(key))?;
        if bytes[0] != HEAD_FORMAT {
            return Err(foreign(key));
        }
        let head = Self {
            epoch: Epoch(u64::from_le_bytes(array(&bytes[1..]))),
            id: TransactionId(array(&bytes[9..])),
            time: Millis(u64::from_le_bytes(array(&bytes[25..]))),
        };
        Ok((head, Position { epoch: head.epoch, revision: revision(key.mod_revision) }))
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
        Ok(Self { instance: array(&bytes[7..]), epoch: Epoch(u64::from_le_bytes(array(&bytes[23..]))) })
    }
}

/// A revision of etcd, which never is below 1.
pub(super) fn revision(of_etcd: i64) -> Revision {
    Revision(of_etcd.unsigned_abs())
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

    #[test]
    fn what_is_written_is_read() {
        let head = Head { epoch: Epoch(3), id: TransactionId([5; 16]), time: Millis(9) };
        let position = Position { epoch: Epoch(3), revision: Revision(7) };
        assert_eq!(Head::of(&key(head.encode())), Ok((head, position)));
        let stored = Stored { instance: [8; 16], epoch: Epoch(3) };
        assert_eq!(Stored::of(&key(stored.encode())), Ok(stored));
    }

    #[test]
    fn what_another_wrote_is_refused() {
        let head = Head { epoch: Epoch(3), id: TransactionId([5; 16]), time: Millis(9) }.encode();
        let stored = Stored { instance: [8; 16], epoch: Epoch(3) }.encode();
        for bytes in [&b""[..], &head[1..], &[&[2][..], &head[1..]].concat(), &stored] {
            assert!(matches!(Head::of(&key(bytes.to_vec())), Err(Error::Failed(_))));
        }
        for bytes in [&b""[..], &stored[1..], &[&b"coffee"[..], &stored[6..]].concat(), &head] {
            assert!(matches!(Stored::of(&key(bytes.to_vec())), Err(Error::Failed(_))));
        }
    }
}
