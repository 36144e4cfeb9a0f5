//! May they: a pure decision over the view. Deny by default; nothing flows down.
//!
//! A [`Permit`] is made here only, and whatever acts takes one. It remembers the records it rests on, which a write
//! compares in its transaction: a grant or token revoked meanwhile permits nothing.

mod pattern;
mod span;

use std::sync::Arc;

use coffer_proto::name::{Permission, Principal, ResourcePattern, Scope, ScopePattern, Workload};

use crate::{
    identity::Caller,
    record::key,
    view::{At, Grant, State},
};

pub use pattern::{Target, covering};
pub use span::{Span, within};

/// That a caller may do one thing.
#[derive(Clone, Debug)]
pub struct Permit {
    basis: Vec<At>,
}

/// Why somebody may do something.
#[derive(Clone)]
pub enum Why {
    /// A grant on the very scope, or on a pattern.
    Grant(Arc<Grant>),
    /// The account is theirs.
    Owner,
    /// They are an operator.
    Operator(Arc<Grant>),
    /// It is their own: a workload's environment, one's own token.
    Own,
}

impl Permit {
    fn new(caller: &Caller, why: &Why) -> Self {
        let mut basis = vec![caller.at().clone()];
        match why {
            Why::Grant(grant) | Why::Operator(grant) => basis.push(grant.at.clone()),
            Why::Owner | Why::Own => {}
        }
        Self { basis }
    }

    /// The records it rests on.
    pub fn basis(&self) -> &[At] {
        &self.basis
    }
}

/// May the caller do this to secrets, workloads or access in a place?
pub fn permit(state: &State, caller: &Caller, permission: Permission, place: &Target<'_>) -> Option<Permit> {
    why(state, caller.principal(), permission, place).map(|why| Permit::new(caller, &why))
}

/// Whether a principal may, and why.
pub fn why(state: &State, principal: &Principal, permission: Permission, place: &Target<'_>) -> Option<Why> {
    match principal {
        Principal::Workload(workload) => {
            let own = permission == Permission::SecretsInject
                && matches!(place, Target::Workload(named) if *named == workload);
            own.then_some(Why::Own)
        }
        Principal::User(_) | Principal::Service(_) => granted(state, principal, permission, place)
            .map(Why::Grant)
            .or_else(|| owns(principal, permission, place).then_some(Why::Owner)),
    }
}

/// A grant that allows it: of the permission itself or one that implies it, on any pattern that covers the place.
fn granted(state: &State, principal: &Principal, permission: Permission, place: &Target<'_>) -> Option<Arc<Grant>> {
    let patterns = covering(place);
    implied_by(permission)
        .iter()
        .flat_map(|permission| patterns.iter().map(move |pattern| (pattern, *permission)))
        .filter_map(|(pattern, permission)| state.grant(pattern, principal, permission))
        .find(|grant| in_force(state, grant))
        .cloned()
}

/// The permissions that allow it.
fn implied_by(permission: Permission) -> &'static [Permission] {
    match permission {
        Permission::SecretsRead => &[Permission::SecretsRead, Permission::SecretsManage],
        Permission::SecretsManage => &[Permission::SecretsManage],
        Permission::SecretsInject => &[Permission::SecretsInject],
        Permission::WorkloadsIssue => &[Permission::WorkloadsIssue],
        Permission::AccessManage => &[Permission::AccessManage],
        Permission::TokensIssue => &[Permission::TokensIssue],
        Permission::Operator => &[Permission::Operator],
    }
}

/// A grant on one scope dies with that scope's incarnation, even should its record outlive it.
pub fn in_force(state: &State, grant: &Grant) -> bool {
    let Some(uid) = grant.scope_uid else { return true };
    let scope = ResourcePattern::parse(&grant.pattern).ok().and_then(|pattern| pattern.scope().as_scope());
    scope.and_then(|scope| state.scope(&scope)).is_some_and(|scope| scope.uid == uid)
}

/// The owner rule: `users/{id}` reads and manages `accounts/{id}` and its plugins, no more.
fn owns(principal: &Principal, permission: Permission, place: &Target<'_>) -> bool {
    let Principal::User(user) = principal else { return false };
    if !matches!(permission, Permission::SecretsRead | Permission::SecretsManage) {
        return false;
    }
    match place {
        Target::Scope(scope) => scope.account_id() == Some(user),
        Target::Scopes(pattern) => is_of_account(pattern, user),
        Target::Workload(_) | Target::Pattern(_) => false,
    }
}

fn is_of_account(pattern: &ScopePattern, user: &str) -> bool {
    let mut parts = pattern.as_str().split('/');
    parts.next() == Some("accounts") && parts.next() == Some(user)
}

/// Whether the principal is an operator.
pub fn operator(state: &State, principal: &Principal) -> Option<Arc<Grant>> {
    state.grant("", principal, Permission::Operator).cloned()
}

/// May the caller act as an operator?
///
/// Only with a token that an operator issued, and not before the bearer was made an operator: whoever issued a token, or
/// was an operator once, must not become one through somebody who is made one later.
pub fn permit_operator(state: &State, caller: &Caller) -> Option<Permit> {
    let is_before = |grant: &Grant| {
        let (made, issued) = (grant.create_time, caller.issued());
        (made.seconds, made.nanos) <= (issued.seconds, issued.nanos)
    };
    let grant = operator(state, caller.principal()).filter(|grant| caller.by_operator() && is_before(grant))?;
    Some(Permit::new(caller, &Why::Operator(grant)))
}

/// May the caller make or remove this grant? The caller's own pattern must cover it; tokens:issue and operator are
/// an operator's to give.
pub fn permit_grant(state: &State, caller: &Caller, permission: Permission, pattern: &str) -> Option<Permit> {
    if let Some(permit) = permit_operator(state, caller) {
        return Some(permit);
    }
    if matches!(permission, Permission::TokensIssue | Permission::Operator) {
        return None;
    }
    let pattern = ResourcePattern::parse(pattern).ok()?;
    permit(state, caller, Permission::AccessManage, &Target::Pattern(&pattern))
}

/// May the caller issue or revoke tokens of this principal?
///
/// Whoever may issue an operator's token is one, so that needs an operator.
pub fn permit_token(state: &State, caller: &Caller, principal: &Principal) -> Option<Permit> {
    if let Principal::Workload(workload) = principal {
        return permit(state, caller, Permission::WorkloadsIssue, &Target::Workload(workload));
    }
    if let Some(permit) = permit_operator(state, caller) {
        return Some(permit);
    }
    if operator(state, principal).is_some() {
        return None;
    }
    let (one, every) = match principal {
        Principal::User(id) => (format!("users/{id}"), "users/-"),
        Principal::Service(id) => (format!("services/{id}"), "services/-"),
        Principal::Workload(_) => return None,
    };
    [one.as_str(), every]
        .into_iter()
        .find_map(|pattern| state.grant(pattern, caller.principal(), Permission::TokensIssue))
        .map(|grant| Permit::new(caller, &Why::Grant(grant.clone())))
}

/// May the caller revoke this token? Whoever may issue it, and its bearer.
pub fn permit_revoke(state: &State, caller: &Caller, principal: &Principal) -> Option<Permit> {
    if caller.principal() == principal {
        return Some(Permit::new(caller, &Why::Own));
    }
    permit_token(state, caller, principal)
}

/// The permit of somebody who needs none: the caller is known, and that is enough.
pub fn permit_self(caller: &Caller) -> Permit {
    Permit::new(caller, &Why::Own)
}

/// Whether the caller may read a scope.
pub fn may_read(state: &State, caller: &Caller, scope: &Scope) -> bool {
    why(state, caller.principal(), Permission::SecretsRead, &Target::Scope(scope)).is_some()
}

/// Whether the caller may fetch a workload's environment.
pub fn permit_inject(state: &State, caller: &Caller, workload: &Workload) -> Option<Permit> {
    permit(state, caller, Permission::SecretsInject, &Target::Workload(workload))
}

/// Where in the names of scopes a principal may read anything.
pub fn readable(state: &State, principal: &Principal) -> Vec<Span> {
    let mut spans: Vec<Span> = state
        .grants_of(principal)
        .filter(|grant| matches!(grant.permission, Permission::SecretsRead | Permission::SecretsManage))
        .filter_map(|grant| ScopePattern::parse(&grant.pattern).ok())
        .map(|pattern| names(&pattern))
        .collect();
    if let Principal::User(id) = principal {
        spans.extend([Span::exact(format!("accounts/{id}")), Span::prefix(format!("accounts/{id}/plugins/"))]);
    }
    span::outermost(spans)
}

/// Where the names of a pattern's scopes lie.
pub fn names(pattern: &ScopePattern) -> Span {
    if pattern.is_wildcard() { Span::prefix(pattern.literal_prefix()) } else { Span::exact(pattern.as_str()) }
}

/// Where in the keys of grants the caller may manage anything.
pub fn manageable_grants(state: &State, caller: &Caller) -> Vec<Span> {
    if permit_operator(state, caller).is_some() {
        return vec![Span::prefix("grant/")];
    }
    let own = state.grants_of(caller.principal()).filter(|grant| grant.permission == Permission::AccessManage);
    let patterns = own.filter_map(|grant| ScopePattern::parse(&grant.pattern).ok());
    let spans = patterns.flat_map(|pattern| {
        if pattern.is_wildcard() {
            vec![Span::prefix(format!("grant/{}", pattern.literal_prefix()))]
        } else {
            key::grants_within(pattern.as_str()).map(|prefix| Span::prefix(prefix.as_str())).to_vec()
        }
    });
    span::outermost(spans.collect())
}

/// Where in the keys of tokens the caller may revoke any.
pub fn revocable_tokens(state: &State, caller: &Caller) -> Vec<Span> {
    let mut spans = vec![Span::prefix(key::tokens_of(caller.principal()).as_str())];
    if permit_operator(state, caller).is_some() {
        spans.extend([Span::prefix("token/users/"), Span::prefix("token/services/")]);
    }
    for grant in state.grants_of(caller.principal()) {
        match grant.permission {
            Permission::TokensIssue => spans.push(Span::prefix(match grant.pattern.strip_suffix('-') {
                Some(every) => format!("token/{every}"),
                None => format!("token/{}:", grant.pattern),
            })),
            Permission::WorkloadsIssue => {
                if let Ok(pattern) = ResourcePattern::parse(&grant.pattern) {
                    spans.extend(tokens_of_workloads(&pattern));
                }
            }
            _ => {}
        }
    }
    span::outermost(spans)
}

fn tokens_of_workloads(pattern: &ResourcePattern) -> Vec<Span> {
    match pattern.scope().as_scope() {
        Some(scope) => key::tokens_in(&scope).map(|prefix| Span::prefix(prefix.as_str())).to_vec(),
        None => vec![Span::prefix(format!("token/{}", pattern.scope().literal_prefix()))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_rule_reaches_the_account_and_its_plugins() {
        let user = Principal::User("a".into());
        let owns_scope =
            |text: &str, permission| owns(&user, permission, &Target::Scope(&Scope::parse(text).expect("a scope")));
        assert!(owns_scope("accounts/a", Permission::SecretsManage));
        assert!(owns_scope("accounts/a/plugins/g", Permission::SecretsRead));
        assert!(!owns_scope("accounts/b", Permission::SecretsRead));
        assert!(!owns_scope("projects/a", Permission::SecretsRead));
        assert!(!owns_scope("accounts/a", Permission::AccessManage));
        assert!(!owns_scope("accounts/a", Permission::SecretsInject));
        let service = Principal::Service("a".into());
        let scope = Scope::parse("accounts/a").expect("a scope");
        assert!(!owns(&service, Permission::SecretsRead, &Target::Scope(&scope)), "services own nothing");
    }
}
