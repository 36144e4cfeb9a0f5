//! The store on real etcd, one server or several, each in a directory and on ports of its own.

mod access;
mod backed_up;
mod cluster;
mod conform;
mod encoding;
mod epochs;
mod followed;
mod foreign;
mod history;
mod outcomes;
mod proxy;
mod restored;
mod room;
mod server;
mod slow;
mod strangers;

use std::time::Duration;

use tokio::time::timeout;

use crate::store::{Change, Commit, Follow, Next};

/// Longer than every wait of the store together: what takes longer hangs.
const HANGS_AFTER: Duration = Duration::from_secs(30);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(HANGS_AFTER, what).await.expect("an answer in time")
}

async fn commit_of(follower: &mut Box<dyn Follow>) -> Commit {
    match soon(follower.next()).await.expect("a follower goes on") {
        Next::Commit(commit) => commit,
        Next::Gap => panic!("a gap where history is kept"),
    }
}

/// The keys that a commit puts and, with a minus, those that it deletes.
fn keys_of(commit: &Commit) -> Vec<String> {
    let text = |change: &Change| match change {
        Change::Put(key, _) => key.to_string(),
        Change::Delete(key) | Change::DeletePrefix(key) => format!("-{key}"),
    };
    commit.changes.iter().map(text).collect()
}
