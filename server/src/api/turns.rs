//! How many calls each principal has under way, so that nobody takes the places of all others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

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
}
