//! How the key source of a running server is: what the last look at it found.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

/// The last look. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct KeyHealth(Arc<Mutex<Health>>);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The kind of source: `file`, `credential` or `kms`. Empty before the first look.
    pub source: &'static str,
    /// Which of its keys wraps the root key as stored.
    pub key_id: String,
    /// Why the source cannot be used now.
    pub problem: Option<String>,
    /// When it was last found good.
    pub good_time: Option<SystemTime>,
}

impl KeyHealth {
    /// As it is now.
    pub fn get(&self) -> Health {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it, and answers what it was before.
    pub fn update(&self, change: impl FnOnce(&mut Health)) -> Health {
        let mut health = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = health.clone();
        change(&mut health);
        before
    }
}
