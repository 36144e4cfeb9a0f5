//! What many transactions at once do, compared with a model.

use super::*;

/// Concurrent read-modify-write on one record, with expectations: every increment counts.
pub async fn no_update_is_lost(backend: &dyn Backend) {
    const TASKS: usize = 6;
    const EACH: usize = 10;
    let [one, two] = backend.create().await;
    commit(&*one, transaction([put("counter", "0")])).await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone([&one, &two][task % 2]);
        tasks.spawn(async move {
            for _ in 0..EACH {
                loop {
                    let (_, records) = records(&*store).await;
                    let number: usize = String::from_utf8_lossy(&records[0].value).parse().expect("a number");
                    let expect = [("counter", Expect::At(records[0].revision))];
                    let change = [put("counter", &(number + 1).to_string())];
                    if store.commit(expecting(expect, change)).await.expect("commit").is_ok() {
                        break;
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(texts(&*one).await, [format!("counter={}", TASKS * EACH)]);
}

/// Random transactions from many tasks: replaying the changes in order, every success was allowed at its place, every
/// conflict was true at some place, and the end is what the model says.
pub async fn concurrent_transactions_match_the_model(backend: &dyn Backend) {
    const TASKS: u64 = 8;
    const EACH: usize = 25;
    let [one, two] = backend.create().await;
    let start = one.latest().await.expect("latest");
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone([&one, &two][task as usize % 2]);
        tasks.spawn(async move {
            let mut random = Random(task);
            let mut outcomes = Vec::new();
            let mut seen = Revision(1);
            for _ in 0..EACH {
                let transaction = random_transaction(&mut random, seen);
                let outcome = store.commit(transaction.clone()).await.expect("commit");
                if let Ok(position) = &outcome {
                    seen = position.revision;
                }
                outcomes.push((transaction, outcome));
            }
            outcomes
        });
    }
    let outcomes = tasks.join_all().await.concat();
    let mut made: Vec<_> = outcomes.iter().filter_map(|(made, outcome)| Some((outcome.as_ref().ok()?, made))).collect();
    made.sort_by_key(|(position, _)| **position);
    let mut refused: Vec<_> =
        outcomes.iter().filter_map(|(made, outcome)| Some((made, outcome.as_ref().err()?))).collect();
    let mut model = Model::default();
    let mut follower = one.changes(start).await.expect("a follower");
    for (position, transaction) in &made {
        assert_eq!(model.first_conflict(&transaction.expectations), None, "allowed at {position}");
        refused.retain(|(refused, conflict)| model.first_conflict(&refused.expectations).as_ref() != Some(conflict));
        let seen = next(&mut follower).await;
        assert_eq!(seen.position, **position);
        model.follow(backend, &seen, &transaction.changes);
    }
    refused.retain(|(refused, conflict)| model.first_conflict(&refused.expectations).as_ref() != Some(conflict));
    assert!(refused.is_empty(), "conflicts that were never true: {refused:?}");
    assert_eq!(Model::of(records(&*two).await.1), model);
}

/// A transaction on few keys, so that many meet.
pub fn random_transaction(random: &mut Random, seen: Revision) -> Transaction {
    let key = |random: &mut Random| Key::new(format!("{}/{}", random.below(3), random.below(4)));
    let expectations = (0..random.below(3))
        .map(|_| {
            let expect = match random.below(4) {
                0 => Expect::Absent,
                1 => Expect::Present,
                2 => return (Key::new(format!("{}/", random.below(3))), Expect::NoneBelow),
                _ => Expect::At(seen),
            };
            (key(random), expect)
        })
        .collect();
    let changes = (0..1 + random.below(4))
        .map(|_| match random.below(6) {
            0 => Change::Delete(key(random)),
            1 => Change::DeletePrefix(Key::new(format!("{}/", random.below(3)))),
            _ => Change::Put(key(random), vec![random.below(256) as u8; random.below(300) as usize].into()),
        })
        .collect();
    Transaction { id: TransactionId::random().expect("randomness"), epoch: None, expectations, changes }
}

/// Records, revisions and position survive, and history goes on from there.
pub async fn reopening_keeps_everything(backend: &dyn Backend) {
    let mut handles = backend.create().await;
    let mut random = Random(42);
    for round in 0..3 {
        let mut seen = handles[0].latest().await.expect("latest").revision;
        for _ in 0..20 {
            let outcome = handles[0].commit(random_transaction(&mut random, seen)).await.expect("commit");
            seen = outcome.map_or(seen, |position| position.revision);
        }
        let before = (handles[0].latest().await, records(&*handles[0]).await);
        let Some(reopened) = backend.reopen(handles).await else { return };
        handles = reopened;
        assert_eq!((handles[0].latest().await, records(&*handles[1]).await), before, "round {round}");
        let latest = before.0.expect("latest");
        let mut follower = handles[1].changes(latest).await.expect("a follower goes on where it was");
        let position = commit(&*handles[0], transaction([put("again", "x")])).await;
        assert!(position > latest);
        assert_eq!(next(&mut follower).await.position, position);
    }
}
