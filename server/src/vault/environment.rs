//! What a workload receives: its scope's secrets over those it inherits; and the same, explained.

use std::collections::BTreeMap;

use coffer_proto::{
    name::{Principal, Scope, SecretName, VariableName, Workload},
    value::SecretValue,
};

use super::{
    Call, Error, Page, PageRequest, ShownSecret, Vault, declared,
    listing::shown_bytes,
    read::Answer,
    secrets::{permit_read, subject},
};
use crate::{
    access,
    identity::Caller,
    record::{Kind, SharedWith},
    seal::{Uid, digest::DigestKey},
    view::{OwnedSecret, State},
};

/// What happens to a secret in an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// It is received.
    Effective,
    /// A nearer scope's of the same name is.
    Shadowed(SecretName),
    /// A locked one of the parent is.
    Overruled(SecretName),
    /// The organization does not share it with this workspace.
    NotShared,
}

/// An environment, resolved at one position.
#[derive(Clone, Default)]
pub struct Environment {
    /// What is received, by name.
    pub effective: BTreeMap<VariableName, OwnedSecret>,
    /// What is not, with the reason.
    pub others: Vec<(OwnedSecret, EntryState)>,
}

/// An environment handed out.
pub struct Fetched {
    /// The workload.
    pub workload: Workload,
    /// Everything it receives, by name; empty if unchanged.
    pub variables: Vec<FetchedVariable>,
    /// Changes exactly when names, secrets or values do.
    pub revision: String,
    /// The revision asked about still stands.
    pub unchanged: bool,
    /// What manifests require and it lacks.
    pub missing: Vec<VariableName>,
}

/// What an environment is fetched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The workload is started with it.
    Start,
    /// The workload may be given it.
    Later,
    /// The workload was given it: nothing but that is said.
    Given,
    /// A check: without values.
    DryRun,
}

/// Who was handed which environment.
struct Handed {
    workload: Workload,
    revision: String,
    scope_uid: Option<Uid>,
    principal: Principal,
}

/// One variable handed out.
pub struct FetchedVariable {
    /// Where it comes from.
    pub source: SecretName,
    /// Encrypted or plain.
    pub kind: Kind,
    /// The version of its value.
    pub version: u64,
    /// The secret's.
    pub uid: Uid,
    /// Its value; none in a dry run.
    pub value: Option<SecretValue>,
}

/// About how large an entry is in an answer of which only the name is shown.
const HIDDEN_BYTES: usize = 300;

/// An environment, explained.
pub struct Described {
    /// By name, what is received first.
    pub page: Page<DescribedEntry>,
    /// What a start now would carry.
    pub revision: String,
}

/// One secret of an explained environment.
pub struct DescribedEntry {
    /// The secret.
    pub source: SecretName,
    /// Encrypted or plain.
    pub kind: Kind,
    /// What happens to it.
    pub state: EntryState,
    /// In full, if the caller may read its scope.
    pub secret: Option<ShownSecret>,
}

impl Environment {
    /// Resolves the environment of a scope's workloads.
    pub fn of(state: &State, scope: &Scope) -> Self {
        let mut environment = Environment::default();
        if let Some(own) = state.scope(scope) {
            environment.effective.extend(own.owned_secrets().map(|secret| (secret.variable.clone(), secret)));
        }
        let parent = scope.inherits_from().and_then(|parent| state.scope(&parent));
        for inherited in parent.into_iter().flat_map(|parent| parent.owned_secrets().collect::<Vec<_>>()) {
            environment.inherit(scope, inherited);
        }
        environment
    }

    /// A locked secret of the parent wins, wherever it is shared; otherwise the nearer one does.
    fn inherit(&mut self, scope: &Scope, inherited: OwnedSecret) {
        if !is_shared_with(&inherited, scope) {
            self.others.push((inherited, EntryState::NotShared));
            return;
        }
        match self.effective.get(&inherited.variable) {
            None => {
                self.effective.insert(inherited.variable.clone(), inherited);
            }
            Some(_) if inherited.entry.meta.locked => {
                let winner = inherited.name();
                if let Some(own) = self.effective.insert(inherited.variable.clone(), inherited) {
                    self.others.push((own, EntryState::Overruled(winner)));
                }
            }
            Some(own) => {
                let winner = own.name();
                self.others.push((inherited, EntryState::Shadowed(winner)));
            }
        }
    }

    /// A keyed digest over names, secret uids and value versions.
    pub fn revision(&self, state: &State) -> Result<String, Error> {
        let key = state.digest_key().ok_or_else(|| Error::Internal("no digest key is loaded".into()))?;
        Ok(self.revision_by(key))
    }

    /// The same, by the state's digest key.
    pub(super) fn revision_by(&self, key: &DigestKey) -> String {
        let mut digest = key.begin("environment revision 1");
        for (variable, secret) in &self.effective {
            digest.part(variable.as_str().as_bytes());
            digest.part(&secret.entry.meta.uid.0);
            digest.part(&secret.entry.meta.version.to_be_bytes());
        }
        digest.finish()
    }
}

/// Whether a parent's secret reaches this child at all.
pub(super) fn is_shared_with(secret: &OwnedSecret, child: &Scope) -> bool {
    match &secret.entry.meta.sharing {
        None | Some(SharedWith::All) => true,
        Some(SharedWith::Only(ids)) => child
            .as_str()
            .rsplit_once('/')
            .is_some_and(|(_, id)| ids.binary_search_by(|only| only.as_str().cmp(id)).is_ok()),
    }
}

/// The workload that a call is about: the one it names, or the caller itself.
pub(super) fn named_or_own(named: Option<Workload>, caller: &Caller) -> Result<Workload, Error> {
    named
        .or_else(|| caller.principal().as_workload().cloned())
        .ok_or_else(|| Error::field("workload", "must be given: only a workload's own token can leave it out"))
}

impl Vault {
    /// Hands out a workload's environment. `None` names the caller itself.
    pub async fn fetch_environment(
        &self,
        call: &Call,
        workload: Option<Workload>,
        if_revision_not: &str,
        purpose: Purpose,
    ) -> Result<Fetched, Error> {
        let has_values = matches!(purpose, Purpose::Start | Purpose::Later);
        let names = workload.iter().map(ToString::to_string).collect();
        let (start, environment, missing) = self
            .read(call, names, |state, caller| {
                let workload = named_or_own(workload, caller)?;
                let permit = access::permit_inject(state, caller, &workload).ok_or(Error::Denied)?;
                let environment = Environment::of(state, workload.scope());
                let revision = environment.revision(state)?;
                let unchanged = revision == if_revision_not;
                let handed_out = environment.effective.values().filter(|_| !unchanged && purpose != Purpose::Given);
                let subjects: Vec<_> = std::iter::once(super::call::named(&workload))
                    .chain(handed_out.map(|secret| subject(&secret.name(), &secret.entry.meta)))
                    .collect();
                let missing = declared::missing_required(state, workload.scope(), &environment);
                let scope_uid = state.scope(workload.scope()).map(|scope| scope.uid);
                let start = Handed { workload, revision, scope_uid, principal: caller.principal().clone() };
                let mut answer = Answer::new(&permit, (start, environment, missing)).about(subjects);
                answer.values_leave = !unchanged && has_values;
                Ok(answer)
            })
            .await?;
        let Handed { workload, revision, scope_uid, principal } = start;
        let unchanged = revision == if_revision_not;
        let starts = matches!((purpose, unchanged), (Purpose::Start, false) | (Purpose::Given, true));
        if starts {
            self.started(&workload, scope_uid, &principal, &revision)?;
        }
        if starts || !unchanged {
            self.handed_out(&revision, &environment);
        }
        if unchanged || purpose == Purpose::Given {
            return Ok(Fetched { workload, variables: Vec::new(), revision, unchanged, missing });
        }
        if has_values {
            self.injected(&environment);
        }
        let store = self.0.view.store();
        let variables = environment
            .effective
            .into_values()
            .map(|secret| {
                let value = if has_values { Some(secret.open(store)?) } else { None };
                let meta = &secret.entry.meta;
                let (kind, version, uid) = (meta.kind, meta.version, meta.uid);
                Ok(FetchedVariable { source: secret.name(), kind, version, uid, value })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Fetched { workload, variables, revision, unchanged: false, missing })
    }

    /// Explains the environment of a scope's workloads.
    pub async fn describe_environment(
        &self,
        call: &Call,
        scope: Scope,
        page: Result<PageRequest, Error>,
    ) -> Result<Described, Error> {
        let (page, revision) = self
            .read(call, vec![scope.to_string()], |state, caller| {
                let permit = permit_read(state, caller, &scope)?;
                let page = page?.open(state, caller)?;
                let environment = Environment::of(state, &scope);
                let revision = environment.revision(state)?;
                let parent = scope.inherits_from();
                let may_read_parent = parent.is_some_and(|parent| access::may_read(state, caller, &parent));
                let effective = environment.effective.into_values().map(|secret| (secret, EntryState::Effective));
                let mut entries: Vec<_> = effective
                    .chain(environment.others)
                    .map(|(secret, state)| {
                        let readable = secret.scope.name == scope || may_read_parent;
                        (secret, state, readable)
                    })
                    // Why something is not shared here is for readers of the organization.
                    .filter(|(_, state, readable)| *readable || *state != EntryState::NotShared)
                    .collect();
                // What is received comes first, then the nearest scope's.
                let key = |(secret, entry, _): &(OwnedSecret, EntryState, bool)| {
                    let order = if *entry == EntryState::Effective { 0 } else { 1 };
                    format!("{}:{order}:{}", secret.variable, secret.scope.name)
                };
                entries.sort_by_cached_key(key);
                let rest = entries.into_iter().map(|entry| (key(&entry), entry));
                let rest = rest.filter(|(key, _)| key.as_str() > page.after());
                let page = page.take(rest.map(|(key, entry)| {
                    let bytes = if entry.2 { shown_bytes(&entry.0) } else { HIDDEN_BYTES };
                    (key, bytes, entry)
                }))?;
                Ok(Answer::new(&permit, (page, revision)))
            })
            .await?;
        let page = page.try_map(|(secret, state, readable)| {
            let (source, kind) = (secret.name(), secret.entry.meta.kind);
            let secret = if readable { Some(self.show(secret)?) } else { None };
            Ok::<_, Error>(DescribedEntry { source, kind, state, secret })
        })?;
        Ok(Described { page, revision })
    }
}
