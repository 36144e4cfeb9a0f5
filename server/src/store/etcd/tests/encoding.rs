//! What etcd is asked to do is what the transaction says, within etcd's rules. Needs no etcd.

use std::collections::BTreeMap;

use coffer_proto::etcd::{RequestOp, TxnRequest, request_op::Request as Op};
use proptest::prelude::*;

use crate::store::{
    Change, Epoch, Error, Expect, KEY_BYTES, Key, Millis, RECORD_BYTES, Revision, TRANSACTION_CHANGES,
    TRANSACTION_EXPECTATIONS, Transaction,
    conformance::{Random, put, random_transaction, transaction},
    etcd::{
        head::Stored,
        keys::Keys,
        request::Slots,
        transaction::{Around, encode},
    },
};

const LIST_MAX: usize = 128;

fn encoded(transaction: &Transaction) -> Result<TxnRequest, Error> {
    let keys = Keys::new("coffer/").expect("a prefix");
    let slots = Slots::new().expect("randomness");
    let attempt = slots.attempt(&keys, &slots.take(), transaction.id, Millis(1));
    encode(
        transaction,
        Around {
            keys: &keys,
            stored: Stored { instance: [1; 16], epoch: Epoch(1) },
            attempt: &attempt,
            time: Millis(1),
        },
    )
}

/// Every operation, in order. Checks that the lists of each level fit into what those above left.
fn flatten(request: &TxnRequest, left: usize, into: &mut Vec<RequestOp>) {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    assert!(longest <= left, "{longest} in a list where {left} may be");
    for operation in &request.success {
        match &operation.request {
            Some(Op::RequestTxn(within)) => flatten(within, left - longest, into),
            _ => into.push(operation.clone()),
        }
    }
}

/// What the operations make of records. No key is touched twice by more than deletes, as etcd demands.
fn done(operations: &[RequestOp], records: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut ranges = Vec::new();
    for operation in operations {
        match operation.request.clone().expect("an operation") {
            Op::RequestPut(put) => {
                let is_deleted = ranges.iter().any(|(from, end)| *from <= put.key && put.key < *end);
                assert!(!is_deleted, "a key is deleted and put");
                records.insert(put.key, put.value);
            }
            Op::RequestDeleteRange(range) => {
                let end = if range.range_end.is_empty() { [&range.key[..], &[0]].concat() } else { range.range_end };
                records.retain(|key, _| !(range.key <= *key && *key < end));
                ranges.push((range.key, end));
            }
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn what_is_done_is_what_was_given(seed: u64) {
        let mut random = Random(seed);
        let (mut theirs, mut ours) = (BTreeMap::new(), BTreeMap::<Vec<u8>, Vec<u8>>::new());
        for _ in 0..20 {
            let mut transaction = random_transaction(&mut random, Revision(1));
            transaction.changes.extend(random_transaction(&mut random, Revision(1)).changes);
            transaction.changes.extend(random_transaction(&mut random, Revision(1)).changes);
            let mut operations = Vec::new();
            flatten(&encoded(&transaction).expect("within limits"), LIST_MAX, &mut operations);
            let head = operations.last().and_then(|last| match &last.request {
                Some(Op::RequestPut(put)) => Some(put.key.clone()),
                _ => None,
            });
            prop_assert_eq!(head, Some(b"coffer/head".to_vec()), "the head is last");
            done(&operations, &mut theirs);
            theirs.retain(|key: &Vec<u8>, _| key.starts_with(b"coffer/r/"));
            for change in &transaction.changes {
                let at = format!("coffer/r/{}", change.key()).into_bytes();
                match change {
                    Change::Put(_, value) => drop(ours.insert(at, value.to_vec())),
                    Change::Delete(_) => drop(ours.remove(&at)),
                    Change::DeletePrefix(_) => ours.retain(|key, _| !key.starts_with(&at)),
                }
            }
            prop_assert_eq!(&theirs, &ours);
        }
    }
}

/// The most operations: a prefix, and puts below it that its range goes around.
#[test]
fn the_most_of_everything_fits_into_etcds_lists() {
    let mut changes = vec![Change::DeletePrefix(Key::new("p/"))];
    changes.extend((1..TRANSACTION_CHANGES).map(|at| put(&format!("p/{at:04}"), "")));
    let expectations = (0..TRANSACTION_EXPECTATIONS).map(|at| (Key::new(format!("{at}")), Expect::Absent)).collect();
    let most = Transaction { expectations, ..transaction(changes) };
    let mut operations = Vec::new();
    flatten(&encoded(&most).expect("within limits"), LIST_MAX, &mut operations);
    assert_eq!(operations.len(), 2 * TRANSACTION_CHANGES - 1 + 2);
}

#[test]
fn only_a_transaction_that_only_deletes_passes_by_the_quota() {
    let counted = |transaction: &Transaction| {
        let request = encoded(transaction).expect("within limits");
        request.success.iter().filter(|operation| matches!(operation.request, Some(Op::RequestPut(_)))).count()
    };
    let many: Vec<_> = (0..TRANSACTION_CHANGES).map(|at| put(&format!("{at:04}"), "")).collect();
    assert!(counted(&transaction(many)) > 0 && counted(&transaction([put("a", "")])) > 0);
    let deletes: Vec<_> = (0..TRANSACTION_CHANGES).map(|at| Change::Delete(Key::new(format!("{at:04}")))).collect();
    assert_eq!((counted(&transaction(deletes)), counted(&transaction([Change::Delete(Key::new("a"))]))), (0, 0));
}

#[test]
fn what_is_too_large_for_etcd_is_said_and_never_sent() {
    // Keys of the largest size stand three times where the range of a prefix goes around them.
    let key = |at: usize| Key::new(format!("p/{at:04}{}", "x".repeat(KEY_BYTES - 6)));
    let mut changes = vec![Change::DeletePrefix(Key::new("p/"))];
    changes.extend((1..TRANSACTION_CHANGES).map(|at| Change::Put(key(at), [][..].into())));
    let error = encoded(&transaction(changes)).expect_err("too large");
    assert!(matches!(&error, Error::Invalid(text) if text.contains("as etcd takes it")), "{error}");
    let largest: Vec<_> = (0..13).map(|at| Change::Put(key(at), vec![7; RECORD_BYTES].into())).collect();
    assert!(encoded(&transaction(largest)).is_ok());
}
