//! Calls that walk over very many entries in steps: so many at once of one principal and in all, because between two steps
//! of a walk everything else waits for a step of each of the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use coffer_proto::{limits, name::Principal};

/// The walks under way, by principal.
#[derive(Debug, Default)]
pub(super) struct Walks(Arc<Mutex<HashMap<Principal, usize>>>);

/// One walk; ends when dropped.
#[derive(Debug)]
pub(super) struct Walk {
    walks: Arc<Mutex<HashMap<Principal, usize>>>,
    principal: Principal,
}

impl Walks {
    /// Begins a walk of a principal; `None` if too many are under way.
    pub(super) fn begin(&self, principal: &Principal) -> Option<Walk> {
        let mut walks = lock(&self.0);
        if walks.values().sum::<usize>() >= limits::WALKS_AT_ONCE {
            return None;
        }
        let own = walks.entry(principal.clone()).or_default();
        if *own >= limits::PRINCIPAL_WALKS {
            return None;
        }
        *own += 1;
        Some(Walk { walks: Arc::clone(&self.0), principal: principal.clone() })
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        let mut walks = lock(&self.walks);
        if let Some(own) = walks.get_mut(&self.principal) {
            *own -= 1;
            if *own == 0 {
                walks.remove(&self.principal);
            }
        }
    }
}

fn lock(walks: &Mutex<HashMap<Principal, usize>>) -> MutexGuard<'_, HashMap<Principal, usize>> {
    walks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_are_bounded_for_a_principal_and_in_all() {
        let walks = Walks::default();
        let user = |n: usize| Principal::User(format!("u{n}"));
        let mut own: Vec<_> = (0..limits::PRINCIPAL_WALKS).map(|_| walks.begin(&user(0)).expect("room")).collect();
        assert!(walks.begin(&user(0)).is_none(), "of one principal");
        let left = limits::WALKS_AT_ONCE - limits::PRINCIPAL_WALKS;
        let others: Vec<_> = (1..=left).map(|n| walks.begin(&user(n)).expect("room")).collect();
        assert!(walks.begin(&user(left + 1)).is_none(), "in all");
        own.pop();
        assert!(walks.begin(&user(left + 1)).is_some(), "an ended walk makes room");
        drop((own, others));
        assert!(lock(&walks.0).is_empty(), "nobody is remembered");
    }
}
