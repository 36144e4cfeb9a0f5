//! Watches which workloads must be restarted.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use coffer_proto::{
    limits,
    name::{ResourcePattern, Scope, Workload},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep_until},
};

use super::{
    super::{Call, Error, Vault, instances::KnownWorkload, listing::Readable, read::Answer},
    Wait, check, logged, name,
};
use crate::{access, seal::Uid, view::Place};

/// A watch looks no more often than this: whoever starts a hundred workloads is told of them together.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Watches that look at once, of the whole process; others wait. Many that look at thousands of workloads each second
/// must not take the processors from those who start them.
static LOOKS: Semaphore = Semaphore::const_new(1);
/// Workloads worked out before other tasks have their turn.
const TURN: usize = 50;

/// Workloads whose state is another than before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InstancesChange {
    /// As they are now, each with its newest start only.
    pub workloads: Vec<KnownWorkload>,
    /// Not known any more.
    pub forgotten: Vec<Workload>,
    /// All that there was at the beginning has been told.
    pub synced: bool,
}

/// Follows the workloads of a pattern. Dropping it ends it.
pub struct InstancesWatch {
    vault: Vault,
    call: Call,
    parent: ResourcePattern,
    wait: Wait,
    told: BTreeMap<Workload, Told>,
    is_synced: bool,
    /// What of the last look is still to be told.
    left: Option<Left>,
    looked: Option<Instant>,
}

/// What the caller knows of one workload.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    newest: Option<Uid>,
    restart_required: bool,
    token_replay_time: Option<prost_types::Timestamp>,
}

struct Left {
    workloads: VecDeque<Workload>,
    forgotten: Vec<Workload>,
}

impl Told {
    fn of(known: &KnownWorkload) -> Self {
        Self {
            newest: known.starts.first().map(|start| start.uid),
            restart_required: known.restart_required,
            token_replay_time: known.token_replay_time,
        }
    }
}

impl Vault {
    /// Watches the workloads of a pattern that the caller may read.
    pub async fn watch_instances(&self, call: &Call, parent: ResourcePattern) -> Result<InstancesWatch, Error> {
        let wait = self
            .read(call, vec![parent.to_string()], |state, caller| {
                let readable = Readable::new(state, caller, parent.scope())?;
                let place = match parent.scope().as_scope() {
                    Some(scope) => Place::one(&scope),
                    None => Place::prefix(access::names(parent.scope()).text()),
                };
                let listening = self.0.view.listen_in(place, vec![name(caller)]);
                Ok(Answer::new(&readable.permit, Wait::new(listening)))
            })
            .await?;
        let mut watch = InstancesWatch {
            vault: self.clone(),
            call: call.clone(),
            parent,
            wait,
            told: BTreeMap::new(),
            is_synced: false,
            left: None,
            looked: None,
        };
        let _turn = turn().await?;
        watch.look().await?;
        Ok(watch)
    }
}

async fn turn() -> Result<SemaphorePermit<'static>, Error> {
    LOOKS.acquire().await.map_err(|error| Error::Internal(error.to_string()))
}

impl InstancesWatch {
    /// Waits for something that the caller does not know. An error is the end.
    pub async fn next(&mut self) -> Result<InstancesChange, Error> {
        self.next_told().await.map_err(logged)
    }

    async fn next_told(&mut self) -> Result<InstancesChange, Error> {
        loop {
            if self.left.is_none() {
                self.wait.wait(self.vault.now()).await;
                if let Some(looked) = self.looked {
                    sleep_until(looked + LOOK_INTERVAL).await;
                }
            }
            let _turn = turn().await?;
            match self.left {
                None => self.look().await?,
                Some(_) => self.check_left()?,
            }
            if let Some(change) = self.tell().await? {
                return Ok(change);
            }
        }
    }

    /// Finds out which workloads there are.
    async fn look(&mut self) -> Result<(), Error> {
        self.looked = Some(Instant::now());
        let mut workloads = VecDeque::new();
        let mut after = String::new();
        loop {
            let found = {
                let view = &self.vault.0.view;
                let state = view.read();
                let caller = self.call.caller(&state, self.vault.now())?;
                let readable = Readable::new(&state, &caller, self.parent.scope())?;
                check(view)?;
                self.wait.know(&caller);
                let most = limits::WATCHED_INSTANCES + 1 - workloads.len();
                self.vault.candidates(&state, &readable, &self.parent, &after, most)
            };
            if let Some((last, _)) = found.looks.last() {
                after = last.to_string();
            }
            workloads.extend(found.looks.into_iter().filter(|(_, is_wanted)| *is_wanted).map(|(workload, _)| workload));
            if workloads.len() > limits::WATCHED_INSTANCES {
                return Err(Error::TooMany("at most 5000 workloads of one watch; watch less of them"));
            }
            if !found.goes_on {
                break;
            }
            tokio::task::yield_now().await;
        }
        let forgotten = self.told.keys().filter(|workload| workloads.binary_search(workload).is_err());
        let forgotten: Vec<_> = forgotten.cloned().collect();
        self.told.retain(|workload, _| forgotten.binary_search(workload).is_err());
        self.left = Some(Left { workloads, forgotten });
        Ok(())
    }

    /// What is left of the last look may have been found long ago, where messages are taken slowly: nothing of it is told
    /// that the caller may not know any more.
    fn check_left(&mut self) -> Result<(), Error> {
        let view = &self.vault.0.view;
        let state = view.read();
        let caller = self.call.caller(&state, self.vault.now())?;
        let readable = Readable::new(&state, &caller, self.parent.scope())?;
        check(view)?;
        let Some(left) = &mut self.left else { return Ok(()) };
        let mut last: Option<(Scope, bool)> = None;
        left.workloads.retain(|workload| match &last {
            Some((scope, may_read)) if scope == workload.scope() => *may_read,
            _ => {
                let may_read = readable.reads(&state, workload.scope());
                last = Some((workload.scope().clone(), may_read));
                may_read
            }
        });
        Ok(())
    }

    /// One message of what the last look found; `None` if nothing is new.
    async fn tell(&mut self) -> Result<Option<InstancesChange>, Error> {
        let Some(left) = &mut self.left else { return Ok(None) };
        let mut change = InstancesChange { forgotten: std::mem::take(&mut left.forgotten), ..Default::default() };
        let (mut bytes, mut worked_out) = (0, 0);
        while let Some(workload) = left.workloads.front() {
            worked_out += 1;
            if worked_out % TURN == 0 {
                tokio::task::yield_now().await;
            }
            match self.vault.known(workload.clone(), Vault::newest_start)? {
                Some(known) if self.told.get(workload) != Some(&Told::of(&known)) => {
                    let is_full = change.workloads.len() == limits::PAGE_ENTRIES;
                    let is_large = bytes + known.bytes() > limits::PAGE_BYTES && !change.workloads.is_empty();
                    if is_full || is_large {
                        return Ok(Some(change));
                    }
                    bytes += known.bytes();
                    self.told.insert(workload.clone(), Told::of(&known));
                    change.workloads.push(known);
                }
                Some(_) => {}
                None => change.forgotten.extend(self.told.remove(workload).map(|_| workload.clone())),
            }
            left.workloads.pop_front();
        }
        self.left = None;
        change.synced = !self.is_synced;
        self.is_synced = true;
        let is_news = change.synced || !change.workloads.is_empty() || !change.forgotten.is_empty();
        Ok(is_news.then_some(change))
    }
}
