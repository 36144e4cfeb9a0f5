//! What followers and loads see.

use super::*;

/// Whole transactions, as they were given, none missing, none twice; for followers of both handles, from any position.
pub async fn followers_see_each_commit_once_in_order(backend: &dyn Backend) {
    const WRITERS: usize = 4;
    const EACH: usize = 20;
    let [one, two] = backend.create().await;
    let start = one.latest().await.expect("latest");
    let mut followers =
        vec![one.changes(start).await.expect("a follower"), two.changes(start).await.expect("a follower")];
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone([&one, &two][writer % 2]);
        writers.spawn(async move {
            let mut made = Vec::new();
            for at in 0..EACH {
                let changes =
                    vec![put(&format!("{writer}/{at}"), "x"), delete_prefix(&format!("{writer}/")), put("shared", "y")];
                made.push((commit(&*store, transaction(changes.clone())).await, changes));
            }
            made
        });
    }
    let mut made = writers.join_all().await.concat();
    made.sort_by_key(|(position, _)| *position);
    let middle = made[made.len() / 2].0;
    followers.push(two.changes(start).await.expect("a late follower"));
    for follower in &mut followers {
        let mut model = Model::default();
        for (position, changes) in &made {
            let seen = next(follower).await;
            assert_eq!(seen.position, *position);
            model.follow(backend, &seen, changes);
        }
        pending(&mut follower.next()).await;
    }
    let mut late = one.changes(middle).await.expect("a follower from the middle");
    assert_eq!(next(&mut late).await.position, made[made.len() / 2 + 1].0);
}

/// Waiting can be given up and taken up again.
pub async fn a_follower_waits_without_losing_anything(backend: &dyn Backend) {
    let [one, two] = backend.create().await;
    let mut follower = two.changes(one.latest().await.expect("latest")).await.expect("a follower");
    for at in 0..3 {
        pending(&mut follower.next()).await;
        let position = commit(&*one, transaction([put("key", &at.to_string())])).await;
        assert_eq!(next(&mut follower).await.position, position);
    }
    let refused = one.commit(expecting([("key", Expect::Absent)], [put("key", "x")])).await;
    assert!(matches!(refused, Ok(Err(_))));
    pending(&mut follower.next()).await;
}

/// Too old, of another epoch, or not there yet; also for a follower that was in time once.
pub async fn what_is_not_kept_is_a_gap(backend: &dyn Backend) {
    let [one, _] = backend.create().await;
    let start = one.latest().await.expect("latest");
    let mut slow = one.changes(start).await.expect("a follower");
    let mut writers = JoinSet::new();
    for at in 0..HISTORY_COMMITS + 1 {
        let store = Arc::clone(&one);
        writers.spawn(async move { commit(&*store, transaction([put("key", &at.to_string())])).await });
    }
    writers.join_all().await;
    backend.forget().await;
    assert_eq!(slow.next().await, Ok(Next::Gap));
    let latest = one.latest().await.expect("latest");
    let positions = [
        start,
        Position { epoch: Epoch(latest.epoch.0 - 1), ..latest },
        Position { epoch: Epoch(latest.epoch.0 + 1), ..latest },
        Position { revision: Revision(latest.revision.0 + 1), ..latest },
    ];
    for position in positions {
        let mut follower = one.changes(position).await.expect("a follower");
        assert_eq!(follower.next().await, Ok(Next::Gap), "{position}");
    }
    let mut follower = one.changes(latest).await.expect("a follower");
    let position = commit(&*one, transaction([put("key", "last")])).await;
    assert_eq!(next(&mut follower).await.position, position);
}

/// While commits go on: every load shows whole transactions, what was acknowledged before, and continues into changes.
pub async fn a_load_is_of_one_position(backend: &dyn Backend) {
    const KEYS: usize = 40;
    const LOADS: usize = 5;
    let [one, two] = backend.create().await;
    let value = |at: usize| format!("{at:04}").repeat(2_000);
    let changes = move |at: usize| (0..KEYS).map(|key| put(&format!("k{key:02}"), &value(at))).collect::<Vec<_>>();
    // Large records between them, so that there are several pages.
    for key in 0..KEYS {
        commit(&*one, transaction([put(&format!("k{key:02}-large"), &"x".repeat(RECORD_BYTES))])).await;
    }
    commit(&*one, transaction(changes(0))).await;
    let enough = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (one, enough) = (Arc::clone(&one), Arc::clone(&enough));
        async move {
            for at in 1.. {
                commit(&*one, transaction(changes(at))).await;
                if enough.load(Ordering::Relaxed) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    for _ in 0..LOADS {
        let before = two.latest().await.expect("latest");
        let (position, mut records) = records(&*two).await;
        assert!(position >= before);
        records.retain(|record| !record.key.as_str().ends_with("large"));
        let first = &records[0].value;
        let whole = records.iter().all(|record| record.value == *first && record.revision == position.revision);
        assert!(whole && records.len() == KEYS, "records of several positions");

        let mut model = Model::of(records);
        let mut follower = two.changes(position).await.expect("a follower");
        let next = next(&mut follower).await;
        model.apply(&next);
        assert!(next.position > position && model.0.values().all(|(at, _)| *at == next.position.revision));
    }
    enough.store(true, Ordering::Relaxed);
    writer.await.expect("the writer ends well");
}
