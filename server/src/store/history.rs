//! The recent commits, for followers: bounded, so that a follower that falls behind is told instead of held in memory.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Change, Commit, Error, Follow, Next, Position, Revision};

/// How much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most commits.
    pub(super) commits: usize,
    /// Most bytes of their keys and values.
    pub(super) bytes: usize,
}

/// The recent commits of one epoch, and where the store stands.
#[derive(Debug)]
pub(super) struct History {
    limits: Limits,
    kept: Mutex<Kept>,
    /// Sent to at every change of `kept`; says nothing else.
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct Kept {
    head: Position,
    /// Everything after this revision is in `commits`.
    floor: Revision,
    commits: VecDeque<Commit>,
    bytes: usize,
    closed: bool,
}

impl History {
    /// A history that begins after `head`.
    pub(super) fn new(head: Position, limits: Limits) -> Self {
        let kept = Kept { head, floor: head.revision, commits: VecDeque::new(), bytes: 0, closed: false };
        Self { limits, kept: Mutex::new(kept), news: watch::Sender::new(()) }
    }

    /// The last published commit's position.
    pub(super) fn head(&self) -> Position {
        self.kept().head
    }

    /// Adds commits, in order, and wakes the followers.
    pub(super) fn publish(&self, commits: impl IntoIterator<Item = Commit>) {
        let mut kept = self.kept();
        for commit in commits {
            kept.head = commit.position;
            kept.bytes += bytes(&commit);
            kept.commits.push_back(commit);
        }
        while kept.commits.len() > self.limits.commits || kept.bytes > self.limits.bytes {
            let Some(oldest) = kept.commits.pop_front() else { break };
            kept.bytes -= bytes(&oldest);
            kept.floor = oldest.position.revision;
        }
        drop(kept);
        self.news.send_replace(());
    }

    /// Ends all followers once they have seen everything.
    pub(super) fn close(&self) {
        self.kept().closed = true;
        self.news.send_replace(());
    }

    /// A follower of what comes after a position.
    pub(super) fn follow(self: &Arc<Self>, after: Position) -> Follower {
        Follower { news: self.news.subscribe(), history: Arc::clone(self), after }
    }

    /// What a follower that stands at `after` sees next, if there is anything.
    fn next(&self, after: Position) -> Result<Option<Next>, Error> {
        let kept = self.kept();
        if after.epoch != kept.head.epoch || after.revision < kept.floor || after > kept.head {
            return Ok(Some(Next::Gap));
        }
        let seen = kept.commits.partition_point(|commit| commit.position <= after);
        match kept.commits.get(seen) {
            Some(commit) => Ok(Some(Next::Commit(commit.clone()))),
            None if kept.closed => Err(Error::Unavailable("it is closed".into())),
            None => Ok(None),
        }
    }

    /// Nothing in here panics while it holds the lock half way, so a poisoned one is whole.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes(commit: &Commit) -> usize {
    commit.changes.iter().map(Change::bytes).sum()
}

/// Follows a [`History`].
#[derive(Debug)]
pub(super) struct Follower {
    history: Arc<History>,
    news: watch::Receiver<()>,
    after: Position,
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self) -> Result<Next, Error> {
        loop {
            if let Some(next) = self.history.next(self.after)? {
                if let Next::Commit(commit) = &next {
                    self.after = commit.position;
                }
                return Ok(next);
            }
            // Returns at once if something was published since it last returned: nothing falls between look and wait.
            // The sender lives in the history that this follower holds: it cannot be gone.
            let _ = self.news.changed().await;
        }
    }
}
