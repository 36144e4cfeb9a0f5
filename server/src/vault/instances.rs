//! Which workloads were started, with what, and which of them must be restarted.

use coffer_proto::{
    limits,
    name::{ResourcePattern, Scope, VariableName, Workload},
};

use super::{Call, Error, Page, PageRequest, Vault, listing::Readable, read::Answer, watch::Resolved};
use crate::{
    access::Span,
    view::{Start, Starts, State},
};

/// Workloads whose environments are worked out for one page: a page may be short, or empty, and yet have a next one.
const PAGE_WORKLOADS: usize = 500;
/// About how large a workload is in an answer, beside its names and starts.
const WORKLOAD_BYTES: usize = 400;
/// About how large one of its starts is.
const START_BYTES: usize = 250;

/// A workload that was started.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownWorkload {
    /// Its name.
    pub workload: Workload,
    /// Whether its newest start has another environment than a start now would have.
    pub restart_required: bool,
    /// The names that differ then, in order; none if that is not known any more.
    pub changed: Vec<VariableName>,
    /// Its starts, newest first.
    pub starts: Vec<Start>,
    /// When a used-up start token of its was presented again.
    pub token_replay_time: Option<prost_types::Timestamp>,
}

/// Workloads that may have starts, in order, and whether each is one the caller asked for and may know.
pub(super) struct Candidates {
    pub looks: Vec<(Workload, bool)>,
    /// There are more after the last.
    pub goes_on: bool,
}

impl KnownWorkload {
    /// About how large it is in an answer.
    pub fn bytes(&self) -> usize {
        let names: usize = self.changed.iter().map(|name| name.as_str().len() + 4).sum();
        WORKLOAD_BYTES + names + START_BYTES * self.starts.len()
    }
}

impl Vault {
    /// A page of the workloads that were started, of those that the caller may read.
    pub async fn list_instances(
        &self,
        call: &Call,
        parent: ResourcePattern,
        restart_required: bool,
        page: Result<PageRequest, Error>,
    ) -> Result<Page<KnownWorkload>, Error> {
        let (candidates, page) = self
            .read(call, vec![parent.to_string()], |state, caller| {
                let readable = Readable::new(state, caller, parent.scope())?;
                let page = page?.open(state, caller)?;
                if !page.after().is_empty() {
                    Workload::parse(page.after()).map_err(|_| Error::PageToken)?;
                }
                let candidates = self.candidates(state, &readable, &parent, page.after(), PAGE_WORKLOADS);
                Ok(Answer::new(&readable.permit, (candidates, page)))
            })
            .await?;
        let Candidates { looks, goes_on } = candidates;
        let mut failed = None;
        let looks = looks.into_iter().map_while(|(workload, is_wanted)| {
            let key = workload.to_string();
            let known = if is_wanted { self.known(workload, Vault::starts) } else { Ok(None) };
            match known {
                Ok(known) => {
                    let known = known.filter(|known| known.restart_required || !restart_required);
                    Some((key, known.map(|known| (known.bytes(), known))))
                }
                Err(error) => {
                    failed = Some(error);
                    None
                }
            }
        });
        let page = page.scan_part(looks, goes_on)?;
        failed.map_or(Ok(page), Err)
    }

    /// What is known of a workload now; `None` if it was not started or that is forgotten.
    pub(super) fn known(
        &self,
        workload: Workload,
        starts: impl FnOnce(&Vault, &State, &Workload) -> Option<Starts>,
    ) -> Result<Option<KnownWorkload>, Error> {
        let (starts, found) = {
            let state = self.0.view.read();
            let Some(starts) = starts(self, &state, &workload) else { return Ok(None) };
            (starts, self.find(&state, workload.scope())?)
        };
        let Starts { starts, token_replay_time, .. } = starts;
        let now = self.resolve(found);
        let old = starts.first().map(|start| start.revision.as_str()).filter(|revision| *revision != now.revision);
        let changed = old.and_then(|revision| self.changed(revision, &now)).unwrap_or_default();
        let restart_required = old.is_some();
        Ok(Some(KnownWorkload { workload, restart_required, changed, starts, token_replay_time }))
    }

    fn changed(&self, revision: &str, now: &Resolved) -> Option<Vec<VariableName>> {
        self.changed_since(revision, &now.names)
    }

    /// The workloads after one, in order: at most so many that are wanted, and as many looks as one page may have.
    pub(super) fn candidates(
        &self,
        state: &State,
        readable: &Readable<'_>,
        parent: &ResourcePattern,
        after: &str,
        most: usize,
    ) -> Candidates {
        let mut candidates = Candidates { looks: Vec::new(), goes_on: false };
        let (mut wanted, mut last): (usize, Option<(Scope, bool)>) = (0, None);
        for prefix in prefixes(readable.spans()) {
            let left = limits::PAGE_SCANNED - candidates.looks.len();
            // One more than there is room for tells that there is more.
            for workload in self.started_from(state, &prefix, after, left + 1) {
                if wanted == most || candidates.looks.len() == limits::PAGE_SCANNED {
                    candidates.goes_on = true;
                    return candidates;
                }
                let is_known = last.as_ref().is_some_and(|(scope, _)| scope == workload.scope());
                if !is_known {
                    let may_read = readable.reads(state, workload.scope());
                    last = Some((workload.scope().clone(), may_read));
                }
                let may_read = last.as_ref().is_some_and(|(_, may_read)| *may_read);
                let is_wanted = may_read && parent.matches_workload(&workload);
                wanted += usize::from(is_wanted);
                candidates.looks.push((workload, is_wanted));
            }
        }
        candidates
    }
}

/// How the names of workloads in some scopes begin, in order.
fn prefixes(scopes: &[Span]) -> Vec<String> {
    let mut prefixes: Vec<String> = scopes
        .iter()
        .flat_map(|span| match span.is_exact() {
            true => vec![format!("{}/sandboxes/", span.text()), format!("{}/servers/", span.text())],
            false => vec![span.text().to_owned()],
        })
        .collect();
    prefixes.sort();
    prefixes
}
