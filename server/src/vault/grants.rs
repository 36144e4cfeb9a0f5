//! Who may do what: makes, removes and explains grants.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use coffer_proto::{
    limits,
    name::{Permission, Principal, PrincipalPattern, ResourcePattern, Scope, ScopeKind, WILDCARD, Workload},
};

use super::{
    Call, Error, Page, PageRequest, Pages, Vault,
    call::named,
    fields::Fields,
    read::{Answer, STEP},
    write::{Context, Plan, line_of},
};
use crate::{
    access::{self, Target, covering},
    record::{GrantRecord, key},
    seal::{Uid, hex},
    store::Expect,
    view::Grant,
};

/// A new grant, its fields well-formed by themselves.
#[derive(Clone, Debug)]
pub struct NewGrant {
    /// Who.
    pub principal: Principal,
    /// What.
    pub permission: Permission,
    /// Where.
    pub pattern: String,
}

/// Why a principal may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectiveReason {
    /// A grant on the very scope.
    Grant,
    /// A grant on a pattern.
    Wildcard,
    /// The account is theirs.
    Owner,
    /// An operator.
    Operator,
}

/// That a principal may do something.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Who.
    pub principal: Principal,
    /// What.
    pub permission: Permission,
    /// Why.
    pub reason: EffectiveReason,
    /// The grant's id and pattern; none for owners.
    pub grant: Option<(String, String)>,
}

/// About how large a grant is in an answer.
const SHOWN_BYTES: usize = 300;
/// Where operators' grants hold: everywhere.
const OPERATOR_PATTERN: &str = "";

impl NewGrant {
    /// Checks who may hold what, and where it may hold.
    pub fn check(&self, fields: &mut Fields) {
        match &self.principal {
            Principal::Workload(_) => fields.wrong("principal", "must be users/{id} or services/{id}"),
            Principal::User(_) if !self.permission.held_by_users() => {
                fields.wrong("principal", format!("{} is held by services only", self.permission));
            }
            Principal::User(_) | Principal::Service(_) => {}
        }
        match self.permission {
            Permission::Operator if !self.pattern.is_empty() => {
                fields.wrong("pattern", "must be empty: an operator is one everywhere");
            }
            Permission::Operator => {}
            Permission::TokensIssue => {
                fields.take("pattern", PrincipalPattern::parse(&self.pattern));
            }
            Permission::SecretsInject | Permission::WorkloadsIssue => {
                if let Some(pattern) = fields.take("pattern", ResourcePattern::parse(&self.pattern))
                    && pattern.scope().kind() == ScopeKind::Organization
                {
                    fields.wrong("pattern", "an organization has no workloads of its own; name its workspaces");
                }
            }
            Permission::SecretsRead | Permission::SecretsManage | Permission::AccessManage => {
                if let Some(pattern) = fields.take("pattern", ResourcePattern::parse(&self.pattern))
                    && pattern.names_workloads()
                {
                    fields.wrong("pattern", format!("{} holds on scopes, not on workloads", self.permission));
                }
            }
        }
    }

    /// The one scope it is bound to, if it is just one.
    fn scope(&self) -> Option<Scope> {
        match self.permission {
            Permission::Operator | Permission::TokensIssue => None,
            _ => ResourcePattern::parse(&self.pattern).ok()?.scope().as_scope(),
        }
    }
}

impl Vault {
    /// Makes a grant.
    pub async fn create_grant(&self, call: &Call, new: NewGrant) -> Result<Arc<Grant>, Error> {
        let line = new.scope().map_or_else(|| new.pattern.clone(), |scope| line_of(&scope));
        self.write(call, &line, vec![new.pattern.clone()], move |context| plan_create(context, &new)).await
    }

    /// Removes a grant. A pure delete: it passes when the disk is full.
    pub async fn delete_grant(&self, call: &Call, id: String) -> Result<(), Error> {
        self.write(call, &format!("grants/{id}"), vec![format!("grants/{id}")], move |context| {
            // Without the right to remove it, nobody learns whether it is there; an operator may know.
            let Some(grant) = context.state.grant_by_id(&id) else {
                let operator = access::permit_operator(context.state, context.caller);
                return Err(if operator.is_some() { Error::GrantNotFound } else { Error::Denied });
            };
            let permit = access::permit_grant(context.state, context.caller, grant.permission, &grant.pattern)
                .ok_or(Error::Denied)?;
            let mut plan = Plan::new(&permit, ());
            describe(&mut plan, grant);
            // Taking a way away opens none.
            plan.leads_to_values = false;
            plan.expect(grant.at.key.clone(), Expect::At(grant.at.revision));
            plan.delete(grant.at.key.clone());
            Ok(plan)
        })
        .await
    }

    /// A page of the grants that the caller may remove.
    pub async fn list_grants(
        &self,
        call: &Call,
        pattern: Option<String>,
        principal: Option<Principal>,
        page: Result<PageRequest, Error>,
    ) -> Result<Page<Arc<Grant>>, Error> {
        let names = pattern.iter().cloned().collect();
        self.read(call, names, |state, caller| {
            let page = page?.open(state, caller)?;
            let wanted = |grant: &Grant| {
                pattern.as_ref().is_none_or(|pattern| within(pattern, &grant.pattern))
                    && principal.as_ref().is_none_or(|principal| *principal == grant.principal)
                    && access::permit_grant(state, caller, grant.permission, &grant.pattern).is_some()
            };
            let spans = access::manageable_grants(state, caller);
            let grants = spans.iter().flat_map(|span| state.grants_from(span.text(), page.after()));
            let page = page
                .scan(grants.map(|(key, grant)| {
                    (key.as_str().to_owned(), wanted(grant).then(|| (SHOWN_BYTES, grant.clone())))
                }))?;
            Ok(Answer::new(&access::permit_self(caller), page))
        })
        .await
    }

    /// A page of who can do what on a scope, and why.
    pub async fn list_effective_access(
        &self,
        call: &Call,
        scope: Scope,
        page: Result<PageRequest, Error>,
    ) -> Result<Page<Effective>, Error> {
        let reaching = covering(&Target::Scope(&scope)).into_iter().flat_map(|pattern| key::grants_within(&pattern));
        let mut prefixes: VecDeque<_> = reaching.chain([key::grants_on(OPERATOR_PATTERN)]).collect();
        let mut after = String::new();
        let mut first = First::default();
        let names = vec![scope.to_string()];
        self.read_in_steps(call, names, move |state, caller| {
            let permit = access::permit(state, caller, Permission::AccessManage, &Target::Scope(&scope))
                .or_else(|| access::permit_operator(state, caller))
                .ok_or(Error::Denied)?;
            let page = page.clone()?.open(state, caller)?;
            let mut walked = 0;
            while let Some(prefix) = prefixes.front() {
                for (key, grant) in state.grants_from(prefix.as_str(), &after) {
                    if access::in_force(state, grant) {
                        first.add(&page, effective(grant));
                    }
                    walked += 1;
                    if walked == STEP {
                        after = key.as_str().to_owned();
                        return Ok(None);
                    }
                }
                prefixes.pop_front();
                after.clear();
            }
            if let Some(user) = scope.account_id() {
                for permission in [Permission::SecretsRead, Permission::SecretsManage] {
                    let principal = Principal::User(user.to_owned());
                    first.add(&page, Effective { principal, permission, reason: EffectiveReason::Owner, grant: None });
                }
            }
            let entries = std::mem::take(&mut first).0;
            Ok(Some(Answer::new(&permit, page.take(entries.into_iter().map(|(key, one)| (key, SHOWN_BYTES, one)))?)))
        })
        .await
    }

    /// Which of these the caller may do. `resource` is empty, a principal, or a scope or workload, or a pattern.
    pub async fn test_permissions(
        &self,
        call: &Call,
        resource: String,
        permissions: Result<Vec<Permission>, Error>,
    ) -> Result<Vec<Permission>, Error> {
        self.read(call, vec![resource.clone()], |state, caller| {
            let mut held = Vec::new();
            for permission in permissions? {
                if holds(state, caller, permission, &resource) {
                    held.push(permission);
                }
            }
            Ok(Answer::new(&access::permit_self(caller), held))
        })
        .await
    }
}

/// The first entries after where a page begins, of very many that come in any order: as many as a page holds, and one that
/// tells that there are more.
#[derive(Default)]
struct First(BTreeMap<String, Effective>);

impl First {
    fn add(&mut self, page: &Pages, entry: Effective) {
        let pattern = entry.grant.as_ref().map_or("", |(_, pattern)| pattern);
        let key = format!("{}:{}:{pattern}", entry.principal, entry.permission);
        if key.as_str() > page.after() {
            self.0.insert(key, entry);
            if self.0.len() > limits::PAGE_ENTRIES + 1 {
                self.0.pop_last();
            }
        }
    }
}

fn holds(state: &crate::view::State, caller: &crate::identity::Caller, permission: Permission, resource: &str) -> bool {
    match permission {
        Permission::Operator => access::permit_operator(state, caller).is_some(),
        Permission::TokensIssue => match Principal::parse(resource) {
            Ok(principal) if principal.as_workload().is_none() => {
                access::permit_token(state, caller, &principal).is_some()
            }
            _ => false,
        },
        _ => {
            if let Ok(scope) = Scope::parse(resource) {
                return access::permit(state, caller, permission, &Target::Scope(&scope)).is_some();
            }
            match Workload::parse(resource) {
                Ok(workload) => access::permit(state, caller, permission, &Target::Workload(&workload)).is_some(),
                Err(_) => false,
            }
        }
    }
}

fn plan_create(context: &Context<'_>, new: &NewGrant) -> Result<Plan<Arc<Grant>>, Error> {
    let permit =
        access::permit_grant(context.state, context.caller, new.permission, &new.pattern).ok_or(Error::Denied)?;
    let mut fields = Fields::new();
    new.check(&mut fields);
    fields.finish()?;
    let record_key = key::grant(&new.pattern, &new.principal, new.permission);
    if context.state.grant(&new.pattern, &new.principal, new.permission).is_some() {
        return Err(Error::GrantExists);
    }
    let on_pattern = key::grants_on(&new.pattern);
    if context.state.grants_from(on_pattern.as_str(), "").count() >= limits::PATTERN_GRANTS {
        return Err(Error::TooMany("at most 1,000 grants on one pattern"));
    }
    if context.state.grants_of(&new.principal).count() >= limits::PRINCIPAL_GRANTS {
        return Err(Error::TooMany("at most 10,000 grants of one principal"));
    }
    let mut plan = Plan::new(&permit, ());
    let scope_uid = match new.scope() {
        Some(scope) => Some(plan.write_scope(context, &scope)?.uid),
        None => None,
    };
    let id = hex(&Uid::random()?.0);
    let stored = GrantRecord {
        id: id.clone(),
        principal: new.principal.to_string(),
        permission: new.permission.to_string(),
        pattern: new.pattern.clone(),
        scope_uid: scope_uid.map(|uid| uid.0.to_vec()).unwrap_or_default(),
        create_time: Some(context.timestamp()),
        creator: context.caller.principal().to_string(),
    };
    plan.expect(record_key.clone(), Expect::Absent);
    plan.put_system(context.state, record_key.clone(), &stored)?;
    // The last of the memory is for operators, who can make room again, and for people to sign in.
    match access::permit_operator(context.state, context.caller) {
        Some(_) => plan.check_last_memory(context)?,
        None => plan.check_memory(context)?,
    }
    let grant = Grant {
        id,
        principal: new.principal.clone(),
        permission: new.permission,
        pattern: new.pattern.clone(),
        scope_uid,
        create_time: context.timestamp(),
        creator: stored.creator,
        at: crate::view::At { key: record_key, revision: crate::store::Revision::default() },
    };
    describe(&mut plan, &grant);
    Ok(plan.with_answer(Arc::new(grant)))
}

/// What the audit log says of a grant made or removed.
fn describe<T>(plan: &mut Plan<T>, grant: &Grant) {
    plan.subjects = vec![named(format!("grants/{}", grant.id))];
    plan.details = vec![
        ("principal", grant.principal.to_string()),
        ("permission", grant.permission.to_string()),
        ("pattern", grant.pattern.clone()),
    ];
    plan.leads_to_values = grant.permission.leads_to_values();
}

/// Whether a grant's pattern is the one asked for or covered by it.
fn within(asked: &str, pattern: &str) -> bool {
    if asked == pattern {
        return true;
    }
    if let (Ok(asked), Ok(pattern)) = (ResourcePattern::parse(asked), ResourcePattern::parse(pattern)) {
        return asked.covers(&pattern);
    }
    match (PrincipalPattern::parse(asked), PrincipalPattern::parse(pattern)) {
        (Ok(asked), Ok(pattern)) => asked.covers(&pattern),
        _ => false,
    }
}

fn effective(grant: &Grant) -> Effective {
    let reason = if grant.permission == Permission::Operator {
        EffectiveReason::Operator
    } else if grant.pattern.split('/').any(|part| part == WILDCARD) {
        EffectiveReason::Wildcard
    } else {
        EffectiveReason::Grant
    };
    Effective {
        principal: grant.principal.clone(),
        permission: grant.permission,
        reason,
        grant: Some((grant.id.clone(), grant.pattern.clone())),
    }
}
