//! Lists and counts secrets: of a scope, or of those scopes of a pattern that the caller may read.

use std::sync::Arc;

use coffer_proto::name::{Permission, Scope, ScopePattern, VariableName};

use super::{
    Call, Error, Page, PageRequest, ShownSecret, Vault,
    answered::secret_bytes,
    declared,
    read::{Answer, STEP},
};
use crate::{
    access::{self, Permit, Span, Target},
    identity::Caller,
    view::{OwnedSecret, ScopeState, State},
};

/// Counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Encrypted secrets.
    pub encrypted: u64,
    /// Plain variables.
    pub plain: u64,
    /// Scopes counted.
    pub scopes: u64,
    /// Variables that manifests require and environments lack, counted once for each scope.
    pub missing: u64,
}

impl Vault {
    /// A page of the secrets of a scope, or of those of a pattern that the caller may read.
    pub async fn list_secrets(
        &self,
        call: &Call,
        parent: ScopePattern,
        page: Result<PageRequest, Error>,
    ) -> Result<Page<ShownSecret>, Error> {
        let found = self
            .read(call, vec![parent.to_string()], |state, caller| {
                let readable = Readable::new(state, caller, &parent)?;
                let page = page?.open(state, caller)?;
                let after = split_key(page.after())?;
                let amid = after.as_ref().filter(|(_, variable)| variable.is_some());
                let resumed = amid.and_then(|(scope, _)| state.scope(scope));
                let scopes = readable.scopes(state, after.as_ref().map(|(scope, _)| scope));
                let looks = resumed.into_iter().map(|scope| readable.look(state, scope)).chain(scopes);
                let page = page.scan(looks.flat_map(|(scope, readable)| {
                    let past = after.as_ref().filter(|(at, _)| *at == scope.name).and_then(|(_, at)| at.clone());
                    let secrets = scope.owned_secrets().filter(|_| readable).collect::<Vec<_>>();
                    let secrets = secrets.into_iter().filter(move |secret| past.as_ref() < Some(&secret.variable));
                    let secrets = secrets.map(|secret| (join_key(&secret), Some((shown_bytes(&secret), secret))));
                    secrets.chain([(format!("{}:", scope.name), None)])
                }))?;
                Ok(Answer::new(&readable.permit, page))
            })
            .await?;
        found.try_map(|secret| self.show(secret))
    }

    /// Counts the secrets of a scope, or of those of a pattern that the caller may read. Of many scopes each is counted at a
    /// position of its own.
    pub async fn secret_stats(&self, call: &Call, parent: ScopePattern) -> Result<Stats, Error> {
        let (mut stats, mut after) = (Stats::default(), None);
        self.read_in_steps(call, vec![parent.to_string()], move |state, caller| {
            let readable = Readable::new(state, caller, &parent)?;
            let begin: Option<Scope> = after.take();
            for (walked, (scope, is_readable)) in readable.scopes(state, begin.as_ref()).enumerate() {
                if is_readable {
                    stats.scopes += 1;
                    stats.plain += scope.plain;
                    stats.encrypted += scope.secrets.len() as u64 - scope.plain;
                    stats.missing += declared::missing_count(state, &scope.name);
                }
                if walked + 1 == STEP {
                    after = Some(scope.name.clone());
                    return Ok(None);
                }
            }
            // A plugin just installed, for example: nothing is there yet but what its publisher says it needs.
            if let Some(unmade) = parent.as_scope().filter(|scope| state.scope(scope).is_none()) {
                stats.missing += declared::missing_count(state, &unmade);
            }
            Ok(Some(Answer::new(&readable.permit, stats)))
        })
        .await
    }
}

/// The scopes of a pattern that a caller may read.
pub(super) struct Readable<'a> {
    pub permit: Permit,
    parent: &'a ScopePattern,
    caller: &'a Caller,
    all: bool,
    spans: Vec<Span>,
}

impl<'a> Readable<'a> {
    /// One scope must be readable, or the call is denied. Of many, those that are; the rest stays unsaid.
    pub fn new(state: &State, caller: &'a Caller, parent: &'a ScopePattern) -> Result<Self, Error> {
        let all = access::permit(state, caller, Permission::SecretsRead, &Target::Scopes(parent));
        let (permit, all) = match all {
            Some(permit) => (permit, true),
            None if parent.is_wildcard() => (access::permit_self(caller), false),
            None => return Err(Error::Denied),
        };
        let names = access::names(parent);
        let spans = if all { vec![names] } else { access::within(access::readable(state, caller.principal()), &names) };
        Ok(Self { permit, parent, caller, all, spans })
    }

    /// The scopes where there may be some, in order, after one; each with whether it is one of them.
    pub fn scopes<'s>(
        &'s self,
        state: &'s State,
        after: Option<&'s Scope>,
    ) -> impl Iterator<Item = (&'s Arc<ScopeState>, bool)> + use<'s, 'a> {
        let all = self.spans.iter().flat_map(move |span| {
            let scopes = state.scopes_from(span.text(), after);
            scopes.take_while(|scope| span.contains(scope.name.as_str()))
        });
        all.map(|scope| self.look(state, scope))
    }

    /// Whether a scope is one of them.
    pub fn reads(&self, state: &State, scope: &Scope) -> bool {
        self.parent.matches(scope) && (self.all || access::may_read(state, self.caller, scope))
    }

    /// Where in the names of scopes they lie.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    fn look<'s>(&self, state: &State, scope: &'s Arc<ScopeState>) -> (&'s Arc<ScopeState>, bool) {
        (scope, self.reads(state, &scope.name))
    }
}

/// Where a page ends: `{scope}:{NAME}`, or `{scope}:` after a whole scope.
fn join_key(secret: &OwnedSecret) -> String {
    format!("{}:{}", secret.scope.name, secret.variable)
}

fn split_key(after: &str) -> Result<Option<(Scope, Option<VariableName>)>, Error> {
    if after.is_empty() {
        return Ok(None);
    }
    let (scope, variable) = after.split_once(':').ok_or(Error::PageToken)?;
    let scope = Scope::parse(scope).map_err(|_| Error::PageToken)?;
    let variable = match variable {
        "" => None,
        variable => Some(VariableName::parse(variable).map_err(|_| Error::PageToken)?),
    };
    Ok(Some((scope, variable)))
}

/// Upper bound of how large a secret is in an answer, in bytes.
pub(super) fn shown_bytes(secret: &OwnedSecret) -> usize {
    let meta = &secret.entry.meta;
    let value = if secret.is_plain() { meta.value_bytes as usize } else { 0 };
    secret_bytes(secret.scope.name.as_str(), meta, value)
}
