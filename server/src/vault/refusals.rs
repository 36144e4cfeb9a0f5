//! Keeps refused calls from filling the audit log: of one caller so many refusals get a line each. Further ones are added up,
//! and the sum is written with the caller's next refusal or after [`INTERVAL`]. A flood of one caller hides nothing of
//! another's.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError, Weak},
    time::Duration,
};

use coffer_proto::name::Principal;

use super::{
    Call, Inner, Vault,
    budget::{Bucket, Rate, cost},
    call::{Line, named},
};
use crate::audit::Phase;

/// Lines about the refusals of one address that has no good token.
const UNAUTHENTICATED: Rate = Rate { burst: 20, per_second: 1 };
/// Lines about the refusals of one principal: more, because mistakes of those who may call are looked for in the log.
const PRINCIPAL: Rate = Rate { burst: 100, per_second: 1 };
/// Callers told apart; beyond that, further ones share an allowance.
const CALLERS_MAX: usize = 4_096;
/// How long a sum waits for the caller's next refusal, at most.
const INTERVAL: Duration = Duration::from_secs(10);
/// Names, methods and reasons kept of refusals that are added up.
const NAMES_MAX: usize = 16;
/// Sums written after one interval, so that many callers write no more than few; the others wait for the next.
const SUMS_AT_ONCE: usize = 64;
/// What the line of a sum has in place of an RPC.
const METHOD: &str = "coffer-server/refusals";

/// Who was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Refused {
    Principal(Principal),
    /// An address without its port, which the caller chooses.
    Address(String),
    /// One of those for whom there is no place.
    Other,
}

impl Refused {
    pub(super) fn address(peer: Option<&str>) -> Self {
        let peer = peer.unwrap_or_default();
        Self::Address(peer.rsplit_once(':').map_or(peer, |(address, _)| address).to_owned())
    }

    fn rate(&self) -> Rate {
        match self {
            Refused::Principal(_) => PRINCIPAL,
            Refused::Address(_) | Refused::Other => UNAUTHENTICATED,
        }
    }
}

/// Refusals that got no line of their own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) count: u64,
    names: Vec<String>,
    methods: Vec<&'static str>,
    reasons: Vec<&'static str>,
}

impl Sum {
    fn add(&mut self, method: &'static str, reason: &'static str, names: &[String]) {
        self.count += 1;
        for name in names {
            if self.names.len() >= NAMES_MAX {
                break;
            }
            if !self.names.contains(name) {
                self.names.push(name.clone());
            }
        }
        for (list, text) in [(&mut self.methods, method), (&mut self.reasons, reason)] {
            if list.len() < NAMES_MAX && !list.contains(&text) {
                list.push(text);
            }
        }
    }

    /// Adds it to the line of a refusal or makes it a line's content.
    pub(super) fn write(self, line: &mut Line) {
        if self.count == 0 {
            return;
        }
        line.subjects.extend(self.names.into_iter().map(named));
        line.details.push(("unwritten_refusals", self.count.to_string()));
        line.details.extend(self.methods.into_iter().map(|method| ("unwritten_methods", method.to_owned())));
        line.details.extend(self.reasons.into_iter().map(|reason| ("unwritten_reasons", reason.to_owned())));
    }
}

/// How many lines about refusals each caller has left.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<Refused, Allowance>>);

#[derive(Debug)]
struct Allowance {
    bucket: Bucket,
    unwritten: Sum,
}

impl Refusals {
    /// Returns the refusals of the caller that have no line yet if this one may have one now; otherwise adds it to them.
    pub(super) fn take(
        &self,
        caller: Refused,
        (method, reason): (&'static str, &'static str),
        names: &[String],
        now: Duration,
    ) -> Option<Sum> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut caller = caller;
        if callers.len() >= CALLERS_MAX && !callers.contains_key(&caller) {
            // Those that have been quiet are as good as new.
            callers.retain(|caller, allowance| {
                !allowance.bucket.is_full(caller.rate(), now) || allowance.unwritten.count > 0
            });
            if callers.len() >= CALLERS_MAX {
                caller = Refused::Other;
            }
        }
        let rate = caller.rate();
        let new = || Allowance { bucket: Bucket::full(rate, now), unwritten: Sum::default() };
        let allowance = callers.entry(caller).or_insert_with(new);
        match allowance.bucket.take(rate, cost(names.len()), now) {
            Ok(()) => Some(std::mem::take(&mut allowance.unwritten)),
            Err(_) => {
                allowance.unwritten.add(method, reason, names);
                None
            }
        }
    }

    /// Takes the sums that may be written now, at most [`SUMS_AT_ONCE`].
    fn sums(&self, now: Duration) -> Vec<(Refused, Sum)> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = callers.iter_mut().filter(|(_, allowance)| allowance.unwritten.count > 0);
        let due = due.filter_map(|(caller, allowance)| {
            allowance.bucket.take(caller.rate(), 1, now).ok()?;
            Some((caller.clone(), std::mem::take(&mut allowance.unwritten)))
        });
        due.take(SUMS_AT_ONCE).collect()
    }
}

/// Writes the sums, until the vault is gone.
pub(super) async fn write_sums(vault: Weak<Inner>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(inner) = vault.upgrade() else { return };
        Vault(inner).write_refusal_sums().await;
    }
}

impl Vault {
    /// Writes the refusals that were added up, a line a caller.
    pub(super) async fn write_refusal_sums(&self) {
        for (caller, sum) in self.0.refusals.sums(self.0.clock.uptime()) {
            let Ok(mut call) = Call::of_server(METHOD) else { return };
            let mut line = Line::default();
            match caller {
                Refused::Principal(principal) => line.principal = Some(principal),
                Refused::Address(address) => call.peer = Some(address),
                Refused::Other => {}
            }
            sum.write(&mut line);
            if self.record(&call, Phase::Refused, line).await.is_err() {
                tracing::error!("refused calls that were added up could not be written to the audit log");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn take(refusals: &Refusals, peer: &str, at: Duration) -> Option<u64> {
        refusals.take(Refused::address(Some(peer)), ("m", "R"), &[], at).map(|sum| sum.count)
    }

    #[test]
    fn a_flood_is_counted_instead_of_written() {
        let refusals = Refusals::default();
        let take = |at| take(&refusals, "10.0.0.1:999", at);
        let written = (0..100_000).filter(|_| take(START).is_some()).count();
        assert_eq!(written, UNAUTHENTICATED.burst as usize);
        assert_eq!(take(START + SECOND), Some(100_000 - u64::from(UNAUTHENTICATED.burst)));
        assert_eq!(take(START + SECOND), None);
        assert_eq!(take(START + SECOND * 3_600), Some(1));
    }

    #[test]
    fn a_sum_names_what_was_refused_and_is_written_without_another_refusal() {
        let refusals = Refusals::default();
        let ann = Refused::Principal(Principal::parse("users/ann").expect("a principal"));
        for n in 0..1_000 {
            refusals.take(ann.clone(), ("Get", "PERMISSION_DENIED"), &[format!("projects/p{}", n % 200)], START);
        }
        assert_eq!(refusals.sums(START), [], "no line is left");
        let sums = refusals.sums(START + SECOND);
        let [(caller, sum)] = &sums[..] else { panic!("{sums:?}") };
        assert_eq!((caller, sum.count), (&ann, 1_000 - u64::from(PRINCIPAL.burst)));
        assert_eq!(sum.names, (100..100 + NAMES_MAX).map(|n| format!("projects/p{n}")).collect::<Vec<_>>());
        assert_eq!((&sum.methods[..], &sum.reasons[..]), (&["Get"][..], &["PERMISSION_DENIED"][..]));
        assert_eq!(refusals.sums(START + SECOND * 9), [], "a sum is written once");
    }

    #[test]
    fn a_refusal_that_names_much_costs_more() {
        let refusals = Refusals::default();
        let ann = Refused::Principal(Principal::parse("users/ann").expect("a principal"));
        let names: Vec<_> = (0..1_000).map(|n| format!("projects/p/secrets/S{n}")).collect();
        let written = (0..100).filter(|_| refusals.take(ann.clone(), ("m", "R"), &names, START).is_some()).count();
        assert_eq!(written, 3);
    }

    #[test]
    fn one_peers_flood_hides_nothing_of_anothers() {
        let refusals = Refusals::default();
        for port in 0..10_000 {
            take(&refusals, &format!("10.0.0.1:{port}"), START);
        }
        for peer in ["10.0.0.2:1", "[::1]:1", ""] {
            assert_eq!(take(&refusals, peer, START), Some(0), "{peer}");
        }
    }

    #[test]
    fn callers_without_number_take_no_memory_without_end() {
        let refusals = Refusals::default();
        for n in 0..3 * CALLERS_MAX {
            for _ in 0..2 {
                take(&refusals, &format!("peer{n}:1"), START);
            }
        }
        assert!(refusals.0.lock().expect("no panic before").len() <= CALLERS_MAX + 1);
        assert_eq!(take(&refusals, "new:1", START + SECOND * 3_600), Some(0), "the quiet ones made room");
    }
}
