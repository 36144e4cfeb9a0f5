//! How many calls each principal has under way, so that nobody takes the places of all others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::Semaphore;

use crate::serve::AnswerCeiling;

/// How many calls each principal has under way, and may have.
#[derive(Debug)]
pub(super) struct Principals {
    under_way: Mutex<HashMap<String, UnderWay>>,
    most: usize,
    answer_bytes: u64,
}

#[derive(Debug)]
struct UnderWay {
    calls: usize,
    /// What its answers may take of memory.
    answers: Arc<AnswerCeiling>,
}

/// One call of a principal; ends when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    principals: Arc<Principals>,
    principal: String,
    /// What the principal's answers may take of memory.
    pub(super) answers: Arc<AnswerCeiling>,
}

impl Principals {
    /// So many calls at once, and so many bytes of answers that are not taken.
    pub(super) fn new(most: usize, answer_bytes: u64) -> Self {
        Self { under_way: Mutex::default(), most, answer_bytes }
    }

    pub(super) fn take(self: &Arc<Self>, principal: String) -> Option<Turn> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || UnderWay { calls: 0, answers: AnswerCeiling::new(self.answer_bytes) };
        let of = under_way.entry(principal.clone()).or_insert_with(new);
        if of.calls == self.most {
            return None;
        }
        of.calls += 1;
        Some(Turn { principals: self.clone(), principal, answers: Arc::clone(&of.answers) })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut under_way = self.principals.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of) = under_way.get_mut(&self.principal) {
            of.calls -= 1;
            if of.calls == 0 {
                under_way.remove(&self.principal);
            }
        }
    }
}

/// So many at once of each principal, the others waiting.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Mutex<HashMap<String, Weak<Semaphore>>>,
    width: usize,
}

impl Lanes {
    pub(super) fn new(width: usize) -> Self {
        Self { lanes: Mutex::default(), width }
    }

    /// A principal's lane. It is forgotten once nobody is in it or waits for it.
    pub(super) fn of(&self, principal: String) -> Arc<Semaphore> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|_, lane| lane.strong_count() > 0);
        if let Some(lane) = lanes.get(&principal).and_then(Weak::upgrade) {
            return lane;
        }
        let lane = Arc::new(Semaphore::new(self.width));
        lanes.insert(principal, Arc::downgrade(&lane));
        lane
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_has_so_many_calls_at_once_and_no_more() {
        let principals = Arc::new(Principals::new(3, 1));
        let take = |name: &str| principals.take(name.to_owned());
        let mut turns: Vec<_> = (0..3).map(|_| take("users/a").expect("a turn")).collect();
        assert!(take("users/a").is_none());
        assert!(take("users/b").is_some(), "others are not held up");
        turns.pop();
        assert!(take("users/a").is_some());
        turns.clear();
        assert!(principals.under_way.lock().expect("no panic before").is_empty(), "nobody is remembered");
    }

    #[tokio::test]
    async fn a_lane_is_one_principals_and_goes_with_the_last_in_it() {
        let lanes = Lanes::new(1);
        let held = lanes.of("users/a".into()).acquire_owned().await.expect("open");
        assert!(lanes.of("users/a".into()).try_acquire().is_err());
        assert!(lanes.of("users/b".into()).try_acquire().is_ok());
        drop(held);
        assert!(lanes.of("users/a".into()).try_acquire().is_ok());
        lanes.of("users/c".into());
        assert_eq!(lanes.lanes.lock().expect("no panic before").len(), 1, "only who is there now");
    }
}
