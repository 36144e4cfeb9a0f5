//! How many calls each principal has under way, so that nobody takes the places of all others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::Semaphore;

/// How many calls each principal has under way, and may have.
#[derive(Debug)]
pub(super) struct Principals {
    counts: Mutex<HashMap<String, usize>>,
    most: usize,
}

/// One call of a principal; ends when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    principals: Arc<Principals>,
    principal: String,
}

impl Principals {
    pub(super) fn new(most: usize) -> Self {
        Self { counts: Mutex::default(), most }
    }

    pub(super) fn take(self: &Arc<Self>, principal: String) -> Option<Turn> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(principal.clone()).or_default();
        if *count == self.most {
            return None;
        }
        *count += 1;
        Some(Turn { principals: self.clone(), principal })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.principals.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.principal) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.principal);
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
        let principals = Arc::new(Principals::new(3));
        let take = |name: &str| principals.take(name.to_owned());
        let mut turns: Vec<_> = (0..3).map(|_| take("users/a").expect("a turn")).collect();
        assert!(take("users/a").is_none());
        assert!(take("users/b").is_some(), "others are not held up");
        turns.pop();
        assert!(take("users/a").is_some());
        turns.clear();
        assert!(principals.counts.lock().expect("no panic before").is_empty(), "nobody is remembered");
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
