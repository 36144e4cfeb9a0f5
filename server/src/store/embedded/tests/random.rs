//! Random histories with random ends, compared with the model.

use proptest::prelude::*;

use super::*;
use crate::store::{
    Expect, Revision,
    conformance::{Random, random_transaction, records},
    memory::Memory,
};

/// How a store ends, to be opened again.
#[derive(Clone, Copy, Debug)]
enum End {
    /// In good order.
    Close,
    /// Its handles are dropped.
    Drop,
    /// It is killed, and sled loses everything since it was last closed.
    Kill,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Commit(u64),
    Reopen(End),
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![Just(End::Close), Just(End::Drop), Just(End::Kill)];
    prop_oneof![8 => any::<u64>().prop_map(Step::Commit), 1 => end.prop_map(Step::Reopen)]
}

/// The store and the model, and which revision of one is which of the other.
struct Pair {
    dir: tempfile::TempDir,
    /// Sled as it was when the store was last closed.
    sled: tempfile::TempDir,
    store: Embedded,
    model: Memory,
    revisions: Vec<[Revision; 2]>,
}

impl Pair {
    async fn commit(&mut self, seed: u64) {
        let mut random = Random(seed);
        let known = self.revisions.last().copied().unwrap_or_default();
        let recent =
            self.revisions.get(random.below(1 + self.revisions.len() as u64) as usize).copied().unwrap_or(known);
        let transaction = random_transaction(&mut random, recent[0]);
        let mut modelled = transaction.clone();
        for (_, expect) in &mut modelled.expectations {
            if let Expect::At(_) = expect {
                *expect = Expect::At(recent[1]);
            }
        }
        let outcomes = [
            self.store.commit(transaction).await.expect("commit"),
            self.model.commit(modelled).await.expect("commit to the model"),
        ];
        match outcomes {
            [Ok(one), Ok(two)] => self.revisions.push([one.revision, two.revision]),
            [Err(one), Err(two)] => {
                assert_eq!(one.key, two.key);
                assert_eq!(one.found, two.found.map(|found| self.translate(found)));
            }
            outcomes => panic!("they differ: {outcomes:?}"),
        }
    }

    fn translate(&self, modelled: Revision) -> Revision {
        self.revisions.iter().find(|pair| pair[1] == modelled).expect("a known revision")[0]
    }

    async fn reopen(self, end: End) -> Self {
        let Self { mut dir, sled, store, model, revisions } = self;
        let store = match end {
            End::Close => {
                store.close().await.expect("close");
                replace(&dir.path().join("sled"), sled.path());
                open(dir.path()).await
            }
            End::Drop => {
                drop(store);
                open_when_free(dir.path()).await
            }
            End::Kill => {
                let killed = tempfile::tempdir().expect("a directory");
                copy(&dir.path().join("log"), &killed.path().join("log"));
                fs::copy(dir.path().join("format"), killed.path().join("format")).expect("copy");
                copy(sled.path(), &killed.path().join("sled"));
                dir = killed;
                open(dir.path()).await
            }
        };
        Self { dir, sled, store, model, revisions }
    }

    async fn compare(&self) {
        let (_, mut modelled) = records(&self.model).await;
        modelled.iter_mut().for_each(|record| record.revision = self.translate(record.revision));
        let (position, shown) = shown(&self.store).await;
        assert_eq!(shown, modelled);
        assert_eq!(position.revision, self.revisions.last().map_or(Revision(0), |pair| pair[0]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_embedded_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let [dir, sled] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
            let store = create(dir.path()).await;
            let mut pair = Pair { dir, sled, store, model: Memory::new(), revisions: Vec::new() };
            for step in steps {
                match step {
                    Step::Commit(seed) => pair.commit(seed).await,
                    Step::Reopen(end) => {
                        pair = pair.reopen(end).await;
                        pair.compare().await;
                    }
                }
            }
            pair.compare().await;
        });
    }
}
