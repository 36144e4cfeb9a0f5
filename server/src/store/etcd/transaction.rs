//! A transaction as etcd takes it: one of its own, whose operations stand in transactions within where there are many.
//!
//! etcd counts the longest list of a transaction (comparisons, operations) against its limit, and those of a transaction
//! within against what that left over (`checkTxnRequest` in etcd 3.4's `etcdserver/api/v3rpc/key.go`).
//!
//! The quota of etcd counts only puts that stand on top (`costTxn` in its `etcdserver/quota.go`). So the head stands on
//! top, and a transaction that puts anything is refused when etcd has no room; but where only deletes are asked for, the
//! head stands within, and they pass.

use coffer_proto::etcd::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest, TxnResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request as Op,
    response_op::Response as Done,
};
use prost::Message as _;

use super::{
    head::{Head, Stored, revision},
    keys::{Keys, Range},
    net::Net,
    request::Attempt,
};
use crate::store::{Conflict, Error, Expect, Key, Millis, Transaction};

/// etcd's limit of lists in a transaction, as it is unless an operator lowers it (`--max-txn-ops`).
const LIST_MAX: usize = 128;
/// Most operations on top, unless there are more comparisons. Half of the limit leaves the most room in all.
const TOP_MAX: usize = LIST_MAX / 2;
/// Largest request, in bytes: etcd's limit, as it is unless an operator changes it (`--max-request-bytes`), less what etcd
/// puts around it.
const REQUEST_BYTES_MAX: usize = 1536 * 1024 - 512;

/// What a transaction is compared and made with, beside itself.
pub(super) struct Around<'a> {
    pub(super) keys: &'a Keys,
    /// The store's own record: whose the store is, and its epoch.
    pub(super) stored: Stored,
    /// This attempt.
    pub(super) attempt: &'a Attempt,
    /// When it is sent.
    pub(super) time: Millis,
}

/// The transaction, encoded within etcd's limits.
pub(super) fn encode(transaction: &Transaction, around: Around<'_>) -> Result<TxnRequest, Error> {
    let Around { keys, stored, attempt, time } = around;
    let mut compare = vec![
        compare(keys.store(), None, Is::Value(stored.encode())),
        compare(attempt.key.clone(), None, attempt.expected()),
    ];
    let mut failure = vec![get(keys.store(), 0), get(attempt.key.clone(), 0)];
    for (key, expect) in &transaction.expectations {
        compare.push(expected(keys, key, *expect));
        failure.push(found(keys, key, *expect));
    }

    let net = Net::of(&transaction.changes);
    let Stored { instance, epoch } = stored;
    let head = Head { instance, epoch, id: transaction.id, time, deletes: net.deletes_max() };
    let mut operations = operations(keys, &net);
    // The last operation is the head: a follower that sees it has seen all before it.
    let mut last = vec![put(attempt.key.clone(), attempt.landed()), put(keys.head(), head.encode())];
    let top_max = TOP_MAX.max(compare.len());
    let success = if transaction.only_deletes() {
        operations.append(&mut last);
        within(operations, LIST_MAX - top_max)
    } else if operations.len() + last.len() <= top_max {
        operations.append(&mut last);
        operations
    } else {
        let mut top = within(operations, LIST_MAX - top_max);
        top.append(&mut last);
        top
    };

    let request = TxnRequest { compare, success, failure };
    let bytes = request.encoded_len();
    if bytes > REQUEST_BYTES_MAX {
        return Err(Error::Invalid(format!("{bytes} bytes as etcd takes it; at most {REQUEST_BYTES_MAX}")));
    }
    Ok(request)
}

/// What became of a transaction whose comparisons did not all hold.
pub(super) enum Refusal<'a> {
    /// The store's own record was rewritten.
    Restored,
    /// The record of this attempt is not the one that was expected.
    Settled(Option<&'a coffer_proto::etcd::KeyValue>),
    /// An expectation does not hold.
    Conflict(Conflict),
}

/// Reads the answer of a transaction that was not done.
pub(super) fn refusal<'a>(
    answer: &'a TxnResponse,
    transaction: &Transaction,
    stored: Stored,
    attempt: &Attempt,
) -> Result<Refusal<'a>, Error> {
    let mut found = answer.responses.iter().map(first);
    let mut next = || found.next().flatten().ok_or_else(malformed);
    if next()?.is_none_or(|key| key.value != stored.encode()) {
        return Ok(Refusal::Restored);
    }
    let record = next()?;
    if record.map_or(0, |record| record.mod_revision) != attempt.before {
        return Ok(Refusal::Settled(record));
    }
    for (key, expect) in &transaction.expectations {
        let found = next()?.map(|key| revision(key.mod_revision));
        if !expect.holds(found) {
            return Ok(Refusal::Conflict(Conflict { key: key.clone(), found }));
        }
    }
    Err(malformed())
}

/// The first key that a read found, if it was one.
#[allow(clippy::option_option, reason = "no read at all, and a read that found nothing, are two things")]
pub(super) fn first(done: &ResponseOp) -> Option<Option<&coffer_proto::etcd::KeyValue>> {
    match &done.response {
        Some(Done::ResponseRange(range)) => Some(range.kvs.first()),
        _ => None,
    }
}

pub(super) fn malformed() -> Error {
    Error::Failed("etcd's answer to a transaction is none".into())
}

fn operations(keys: &Keys, net: &Net<'_>) -> Vec<RequestOp> {
    let mut operations = Vec::new();
    for prefix in &net.prefixes {
        let Range { mut from, end } = keys.records_below(prefix);
        for kept in net.puts_below(prefix) {
            let kept = keys.record(kept);
            if from < kept {
                operations.push(delete(from, kept.clone()));
            }
            // The key after it.
            from = kept;
            from.push(0);
        }
        operations.push(delete(from, end));
    }
    operations.extend(net.deletes.iter().map(|key| delete(keys.record(key), Vec::new())));
    operations.extend(net.puts.iter().map(|(key, value)| put(keys.record(key), value.to_vec())));
    operations
}

pub(super) fn within(operations: Vec<RequestOp>, each: usize) -> Vec<RequestOp> {
    let mut operations = operations.into_iter().peekable();
    let mut groups = Vec::new();
    while operations.peek().is_some() {
        let success = operations.by_ref().take(each).collect();
        groups.push(op(Op::RequestTxn(TxnRequest { success, ..TxnRequest::default() })));
    }
    groups
}

/// What a comparison asks of a key, or of every key of a range.
pub(super) enum Is {
    Absent,
    Present,
    Revision(i64),
    Value(Vec<u8>),
    /// Its value is greater than this.
    Above(Vec<u8>),
    /// Its value is less than this.
    Below(Vec<u8>),
}

pub(super) fn compare(key: Vec<u8>, range_end: Option<Vec<u8>>, is: Is) -> Compare {
    use TargetUnion::{CreateRevision, ModRevision, Value};
    let (result, target, union) = match is {
        Is::Absent => (CompareResult::Equal, CompareTarget::Create, CreateRevision(0)),
        Is::Present => (CompareResult::Greater, CompareTarget::Create, CreateRevision(0)),
        Is::Revision(revision) => (CompareResult::Equal, CompareTarget::Mod, ModRevision(revision)),
        Is::Value(value) => (CompareResult::Equal, CompareTarget::Value, Value(value)),
        Is::Above(value) => (CompareResult::Greater, CompareTarget::Value, Value(value)),
        Is::Below(value) => (CompareResult::Less, CompareTarget::Value, Value(value)),
    };
    let range_end = range_end.unwrap_or_default();
    Compare { result: result.into(), target: target.into(), key, target_union: Some(union), range_end }
}

fn expected(keys: &Keys, key: &Key, expect: Expect) -> Compare {
    let at = keys.record(key.as_str());
    match expect {
        Expect::Absent => compare(at, None, Is::Absent),
        Expect::Present => compare(at, None, Is::Present),
        // A revision that etcd cannot have is nobody's.
        Expect::At(revision) => {
            let revision = i64::try_from(revision.0).ok().filter(|revision| *revision > 0);
            compare(at, None, Is::Revision(revision.unwrap_or(i64::MAX)))
        }
        Expect::NoneBelow => {
            let Range { from, end } = keys.records_below(key.as_str());
            compare(from, Some(end), Is::Absent)
        }
    }
}

fn found(keys: &Keys, key: &Key, expect: Expect) -> RequestOp {
    match expect {
        Expect::NoneBelow => {
            let Range { from, end } = keys.records_below(key.as_str());
            find(from, end)
        }
        Expect::Absent | Expect::Present | Expect::At(_) => find(keys.record(key.as_str()), Vec::new()),
    }
}

/// Where a key stands, or the first of a range.
fn find(key: Vec<u8>, range_end: Vec<u8>) -> RequestOp {
    op(Op::RequestRange(RangeRequest { key, range_end, limit: 1, keys_only: true, ..RangeRequest::default() }))
}

/// Reads a key of a revision; 0 for now.
pub(super) fn get(key: Vec<u8>, revision: i64) -> RequestOp {
    read(RangeRequest { key, revision, ..RangeRequest::default() })
}

pub(super) fn read(range: RangeRequest) -> RequestOp {
    op(Op::RequestRange(range))
}

pub(super) fn put(key: Vec<u8>, value: Vec<u8>) -> RequestOp {
    op(Op::RequestPut(PutRequest { key, value }))
}

pub(super) fn delete(key: Vec<u8>, range_end: Vec<u8>) -> RequestOp {
    op(Op::RequestDeleteRange(DeleteRangeRequest { key, range_end }))
}

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}
