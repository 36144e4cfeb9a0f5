//! What one transaction does.

use super::*;

/// Nothing is there, and both handles agree on it.
pub async fn an_empty_store_is_empty(backend: &dyn Backend) {
    let [one, two] = backend.create().await;
    let latest = one.latest().await.expect("latest");
    assert_eq!(records(&*one).await, (latest, Vec::new()));
    assert_eq!(records(&*two).await, (latest, Vec::new()));
    assert!(latest.epoch >= Epoch(1));
}

/// Puts, overwrites, deletes; from either handle, seen by both; positions rise.
pub async fn records_stand_at_the_transaction_that_put_them(backend: &dyn Backend) {
    let [one, two] = backend.create().await;
    let before = one.latest().await.expect("latest");
    let first = commit(&*one, transaction([put("a", "1"), put("b", "1"), put("empty", "")])).await;
    let second = commit(&*two, transaction([put("b", "2"), delete("missing")])).await;
    assert!(before < first && first < second && first.revision >= Revision(1));
    for store in [&one, &two] {
        let (position, records) = records(&**store).await;
        let stands: Vec<_> = records.iter().map(|record| (record.key.as_str(), record.revision)).collect();
        assert_eq!(stands, [("a", first.revision), ("b", second.revision), ("empty", first.revision)]);
        assert_eq!(position, second);
        assert_eq!(store.latest().await, Ok(second));
    }
    commit(&*one, transaction([delete("a"), delete("empty")])).await;
    assert_eq!(texts(&*two).await, ["b=2"]);
}

/// Expectations on keys that are and are not changed; the first that fails is named; then nothing happens.
pub async fn a_transaction_happens_only_if_all_expectations_hold(backend: &dyn Backend) {
    let [one, two] = backend.create().await;
    let at = commit(&*one, transaction([put("a", "1")])).await.revision;
    let holds = [
        ("a", Expect::Present, "none", Expect::Absent),
        ("a", Expect::At(at), "a", Expect::Present),
        ("none", Expect::Absent, "also-none", Expect::Absent),
        ("a/", Expect::NoneBelow, "else/", Expect::NoneBelow),
    ];
    for (key, expect, other, other_expect) in holds {
        commit(&*two, expecting([(key, expect), (other, other_expect)], [put("elsewhere", "1")])).await;
    }
    let before = (one.latest().await, records(&*one).await);
    let conflicts = [
        ("a", Expect::Absent, Some(at)),
        ("a", Expect::At(Revision(at.0 + 1)), Some(at)),
        ("none", Expect::Present, None),
        ("none", Expect::At(at), None),
        // A prefix of a key is another key.
        ("else", Expect::Present, None),
        ("a", Expect::NoneBelow, Some(at)),
    ];
    for (key, expect, found) in conflicts {
        let refused = expecting(
            [("a", Expect::Present), (key, expect), ("never", Expect::Present)],
            [put("a", "2"), put("c", "2"), delete_prefix("e")],
        );
        let conflict = Conflict { key: Key::new(key), found };
        assert_eq!(two.commit(refused).await, Ok(Err(conflict)), "{key} {expect:?}");
    }
    assert_eq!((one.latest().await, records(&*one).await), before);
}

/// What is below a prefix is what all transactions before have left there, also those of the same moment.
pub async fn none_below_sees_what_was_put_and_deleted_before(backend: &dyn Backend) {
    let [one, two] = backend.create().await;
    let none_below = |changes: Vec<Change>| expecting([("p/", Expect::NoneBelow)], changes);
    commit(&*one, none_below(vec![put("p", "beside"), put("q/1", "beside")])).await;
    let at = commit(&*two, none_below(vec![put("p/1/x", "below")])).await.revision;
    let conflict = Conflict { key: Key::new("p/"), found: Some(at) };
    assert_eq!(one.commit(none_below(vec![put("p/2", "")])).await, Ok(Err(conflict.clone())));
    assert_eq!(two.commit(none_below(vec![delete_prefix("p/")])).await, Ok(Err(conflict)), "it is asked before");
    commit(&*one, transaction([delete_prefix("p/1")])).await;
    commit(&*two, none_below(vec![put("p/3", "")])).await;
    // Many at once: of those that expect none, one is the first.
    let mut first = JoinSet::new();
    for at in 0..16 {
        let store = Arc::clone(if at % 2 == 0 { &one } else { &two });
        first.spawn(async move {
            let key = format!("r/{at}");
            store.commit(expecting([("r/", Expect::NoneBelow)], [put(&key, "")])).await.expect("an answer").is_ok()
        });
    }
    assert_eq!(first.join_all().await.into_iter().filter(|is_first| *is_first).count(), 1);
}

/// A later change of a key wins, whatever the kinds; expectations see the state before all of them.
pub async fn changes_are_made_in_order(backend: &dyn Backend) {
    let [one, _] = backend.create().await;
    commit(&*one, transaction([put("p/1", "old"), put("p/2", "old"), put("q", "old")])).await;
    let changes = [put("p/3", "gone"), delete_prefix("p/"), put("p/2", "new"), put("q", "1"), put("q", "2")];
    commit(&*one, expecting([("p/1", Expect::Present), ("p/3", Expect::Absent)], changes)).await;
    assert_eq!(texts(&*one).await, ["p/2=new", "q=2"]);
    commit(&*one, transaction([put("r", "1"), delete("r"), delete("q"), put("q", "3"), delete_prefix("p")])).await;
    assert_eq!(texts(&*one).await, ["q=3"]);
}

/// Neighbours in the order of keys stay.
pub async fn a_prefix_deletes_what_begins_with_it_and_nothing_else(backend: &dyn Backend) {
    let [one, two] = backend.create().await;
    let keys = ["a", "a.", "a/", "a/1", "a/\u{10ffff}", "a/é/x", "a0", "b", "b/a/"];
    commit(&*one, transaction(keys.map(|key| put(key, "")))).await;
    commit(&*two, transaction([delete_prefix("a/"), delete_prefix("none")])).await;
    assert_eq!(texts(&*one).await, ["a=", "a.=", "a0=", "b=", "b/a/="]);
}

/// Revisions of another epoch may be other records', so nothing is compared with them.
pub async fn what_another_epoch_decided_is_refused(backend: &dyn Backend) {
    let [one, two] = backend.create().await;
    let at = commit(&*one, transaction([put("a", "1")])).await;
    let decided = |epoch, expect, value| Transaction {
        epoch: Some(Epoch(epoch)),
        ..expecting([("a", expect)], [put("a", value)])
    };
    for epoch in [at.epoch.0 - 1, at.epoch.0 + 1] {
        for expect in [Expect::At(at.revision), Expect::Absent] {
            let refused = two.commit(decided(epoch, expect, "2")).await;
            assert!(matches!(refused, Err(Error::Unavailable(_))), "{epoch}: {refused:?}");
        }
    }
    assert_eq!(texts(&*one).await, ["a=1"]);
    commit(&*two, decided(at.epoch.0, Expect::At(at.revision), "3")).await;
    assert_eq!(texts(&*one).await, ["a=3"]);
}

/// What breaks a limit is refused before anything happens; what reaches it is not.
pub async fn limits_are_kept_and_reached(backend: &dyn Backend) {
    let [one, _] = backend.create().await;
    let empty = one.latest().await;
    let bytes = |length| -> Arc<[u8]> { vec![7; length].into() };
    let key = |length| Key::new("k".repeat(length));
    let numbered = |count: usize| (0..count).map(|at| put(&format!("{at:04}"), "")).collect::<Vec<_>>();
    let expected = |count: usize| {
        let expectations = (0..count).map(|at| (Key::new(format!("{at}-none")), Expect::Absent)).collect();
        Transaction { expectations, ..transaction([put("a", "")]) }
    };
    let filled = |length: usize| {
        let whole = length / RECORD_BYTES;
        let put = |at: usize, bytes| Change::Put(Key::new(format!("{at:02}")), bytes);
        let mut changes: Vec<_> = (0..whole).map(|at| put(at, bytes(RECORD_BYTES - 2))).collect();
        changes.push(put(whole, bytes(length % RECORD_BYTES - 2)));
        assert_eq!(changes.iter().map(Change::bytes).sum::<usize>(), length);
        transaction(changes)
    };
    let invalid = [
        transaction([]),
        transaction(numbered(TRANSACTION_CHANGES + 1)),
        expected(TRANSACTION_EXPECTATIONS + 1),
        transaction([put("", "x")]),
        transaction([delete_prefix("")]),
        transaction([Change::Delete(key(KEY_BYTES + 1))]),
        Transaction { expectations: vec![(key(KEY_BYTES + 1), Expect::Absent)], ..transaction([put("a", "")]) },
        transaction([Change::Put(key(1), bytes(RECORD_BYTES + 1))]),
        filled(TRANSACTION_BYTES + 1),
    ];
    for (at, refused) in invalid.into_iter().enumerate() {
        let outcome = one.commit(refused).await;
        assert!(matches!(outcome, Err(Error::Invalid(_))), "case {at}: {outcome:?}");
    }
    assert_eq!(one.latest().await, empty);
    let largest = [
        transaction(numbered(TRANSACTION_CHANGES)),
        expected(TRANSACTION_EXPECTATIONS),
        transaction([Change::Put(key(KEY_BYTES), bytes(RECORD_BYTES))]),
        filled(TRANSACTION_BYTES),
    ];
    for largest in largest {
        commit(&*one, largest).await;
    }
    let (_, records) = records(&*one).await;
    let long = records.iter().find(|record| record.key == key(KEY_BYTES)).expect("the longest key");
    assert_eq!(long.value, bytes(RECORD_BYTES));
    assert_eq!(records.len(), TRANSACTION_CHANGES + 1 + 1 + TRANSACTION_BYTES.div_ceil(RECORD_BYTES));
}
