//! Lists and deletes scopes. Their making is part of the first write in them.

use std::sync::Arc;

use coffer_proto::name::{DeclarationKind, Permission, Scope, ScopeKind, ScopePattern};

use super::{
    Call, Error, Page, PageRequest, Vault,
    call::named,
    read::Answer,
    secrets::subject,
    write::{Context, Plan, line_of},
};
use crate::{
    access::{self, Permit, Span, Target},
    audit::Subject,
    identity::Caller,
    record::{SecretMeta, SharedWith, key},
    seal::Uid,
    store::Expect,
    view::{OwnedSecret, ScopeState, State},
};

/// A scope as those who may see it do.
#[derive(Clone, Debug)]
pub struct ShownScope {
    /// Its name.
    pub name: Scope,
    /// Unique for ever.
    pub uid: Uid,
    /// How many secrets it owns.
    pub secrets: u64,
    /// The size of their values, in bytes.
    pub value_bytes: u64,
    /// When it was made.
    pub create_time: prost_types::Timestamp,
    /// What the caller may do.
    pub permissions: Vec<Permission>,
}

impl Vault {
    /// A page of the scopes the caller may read, of a pattern or of all.
    pub async fn list_scopes(
        &self,
        call: &Call,
        pattern: Option<ScopePattern>,
        page: Result<PageRequest, Error>,
    ) -> Result<Page<ShownScope>, Error> {
        let names = pattern.iter().map(ToString::to_string).collect();
        self.read(call, names, |state, caller| {
            let page = page?.open(state, caller)?;
            let after = match page.after() {
                "" => None,
                after => Some(Scope::parse(after).map_err(|_| Error::PageToken)?),
            };
            let named = pattern.as_ref().map_or_else(|| Span::prefix(""), access::names);
            let spans = access::within(access::readable(state, caller.principal()), &named);
            let scopes = spans.iter().flat_map(|span| {
                let scopes = state.scopes_from(span.text(), after.as_ref());
                scopes.take_while(|scope| span.contains(scope.name.as_str()))
            });
            let page = page.scan(scopes.map(|scope| {
                let matches = pattern.as_ref().is_none_or(|pattern| pattern.matches(&scope.name));
                let shown = if matches { shown(state, caller, scope) } else { None };
                (scope.name.to_string(), shown.map(|shown| (SHOWN_BYTES, shown)))
            }))?;
            Ok(Answer::new(&access::permit_self(caller), page))
        })
        .await
    }

    /// Deletes a scope with everything that is bound to it. Answers how many secrets it owned.
    pub async fn delete_scope(&self, call: &Call, scope: Scope, uid: String) -> Result<u64, Error> {
        let names = vec![scope.to_string()];
        // A workspace's place in sharing lists is the organization's to write.
        let line = line_of(&scope.inherits_from().unwrap_or_else(|| scope.clone()));
        let rounds = if scope.kind() == ScopeKind::Workspace { UNSHARE_ROUNDS_MAX } else { 0 };
        for _ in 0..rounds {
            let (name, uid) = (scope.clone(), uid.clone());
            let is_listed =
                self.write(call, &line, names.clone(), move |context| plan_unshare(context, &name, &uid)).await?;
            if !is_listed {
                break;
            }
        }
        self.write(call, &line, names, move |context| plan_delete(context, &scope, &uid)).await
    }
}

/// About how large a scope is in an answer.
const SHOWN_BYTES: usize = 300;
/// Secrets taken out of sharing lists in one transaction: of any size they fit.
const UNSHARE_AT_ONCE: usize = 10;
/// Transactions that take a workspace out of its organization's 1,000 secrets, and some for those shared meanwhile.
const UNSHARE_ROUNDS_MAX: usize = 120;

fn shown(state: &State, caller: &Caller, scope: &Arc<ScopeState>) -> Option<ShownScope> {
    let may = |permission: &Permission| {
        access::why(state, caller.principal(), *permission, &Target::Scope(&scope.name)).is_some()
    };
    let mut permissions = vec![Permission::SecretsRead, Permission::SecretsManage, Permission::AccessManage];
    permissions.retain(may);
    permissions.contains(&Permission::SecretsRead).then(|| ShownScope {
        name: scope.name.clone(),
        uid: scope.uid,
        secrets: scope.secrets.len() as u64,
        value_bytes: scope.value_bytes,
        create_time: scope.create_time,
        permissions,
    })
}

/// The scope to delete, if the caller may and it is the one meant.
fn doomed<'a>(context: &Context<'a>, name: &Scope, uid: &str) -> Result<(Permit, &'a Arc<ScopeState>), Error> {
    let permit = access::permit(context.state, context.caller, Permission::AccessManage, &Target::Scope(name))
        .ok_or(Error::Denied)?;
    let scope = context.state.scope(name).ok_or_else(|| Error::ScopeNotFound(name.clone()))?;
    if !uid.is_empty() && uid != scope.uid.to_string() {
        return Err(Error::EtagMismatch);
    }
    if context.state.has_scopes_below(name) {
        return Err(Error::ScopeNotEmpty);
    }
    Ok((permit, scope))
}

fn plan_delete(context: &Context<'_>, name: &Scope, uid: &str) -> Result<Plan<u64>, Error> {
    let (permit, scope) = doomed(context, name, uid)?;
    if listing(context, name).next().is_some() {
        return Err(Error::Contention);
    }
    let secrets = scope.secrets.len() as u64;
    let mut plan = Plan::new(&permit, secrets);
    plan.subjects = vec![Subject { uid: Some(scope.uid.to_string()), ..named(name) }];
    plan.details.push(("secrets", secrets.to_string()));
    plan.expect(scope.at.key.clone(), Expect::At(scope.at.revision));
    plan.expect(key::scopes_below(name), Expect::NoneBelow);
    if let Some(parent) = name.inherits_from().and_then(|parent| context.state.scope(&parent)) {
        // So that it is not shared with again in the meantime.
        plan.expect(parent.at.key.clone(), Expect::At(parent.at.revision));
    }
    plan.delete_prefix(key::secrets_of(name));
    key::grants_within(name.as_str()).into_iter().for_each(|prefix| plan.delete_prefix(prefix));
    // Grants on patterns below it, such as all workspaces of a deleted organization.
    plan.delete_prefix(key::grants_below(name));
    for kind in [DeclarationKind::Reference, DeclarationKind::Manifest] {
        plan.delete_prefix(key::declarations_on(kind, name.as_str()));
        plan.delete_prefix(key::declarations_below(kind, name.as_str()));
    }
    plan.delete_prefix(key::patterns_below(name));
    key::starts_in(name).into_iter().for_each(|prefix| plan.delete_prefix(prefix));
    plan.delete(key::used(name));
    key::tokens_in(name).into_iter().for_each(|prefix| plan.delete_prefix(prefix));
    plan.delete(key::scope(name));
    plan.delete(key::scope_key(name));
    Ok(plan)
}

/// The organization's secrets that list a workspace.
fn listing<'a>(
    context: &Context<'a>,
    workspace: &'a Scope,
) -> impl Iterator<Item = (OwnedSecret, SharedWith)> + use<'a> {
    let organization = match workspace.kind() {
        ScopeKind::Workspace => workspace.parent().and_then(|parent| context.state.scope(&parent)),
        _ => None,
    };
    let id = workspace.as_str().rsplit_once('/').map_or("", |(_, id)| id);
    organization.into_iter().flat_map(|organization| organization.owned_secrets()).filter_map(move |secret| {
        let Some(SharedWith::Only(ids)) = &secret.entry.meta.sharing else { return None };
        let rest: Vec<_> = ids.iter().filter(|only| *only != id).cloned().collect();
        (rest.len() < ids.len()).then(|| (secret.clone(), SharedWith::Only(rest)))
    })
}

/// Takes a workspace that is about to be deleted out of its organization's sharing lists, so that a later workspace of
/// the same name receives nothing that was meant for this one. Some at a time: a transaction has its limits, and a
/// deletion that ends half way has only shared less. Answers whether there may be more.
fn plan_unshare(context: &Context<'_>, workspace: &Scope, uid: &str) -> Result<Plan<bool>, Error> {
    let (permit, _) = doomed(context, workspace, uid)?;
    let listed: Vec<_> = listing(context, workspace).take(UNSHARE_AT_ONCE).collect();
    let mut plan = Plan::new(&permit, !listed.is_empty());
    let Some((first, _)) = listed.first() else { return Ok(plan) };
    let target = plan.write_scope(context, &first.scope.name)?;
    for (secret, sharing) in &listed {
        let old = &secret.entry.meta;
        let meta = SecretMeta {
            sharing: Some(sharing.clone()),
            generation: old.generation + 1,
            updated: context.stamp(),
            ..old.clone()
        };
        let (key, store) = (&secret.entry.at.key, context.state.store());
        let record = secret.entry.record.reseal_metadata(store, target.uid, &target.key, key, &meta)?;
        // A deleted secret must not come back by this.
        plan.expect(key.clone(), Expect::At(secret.entry.at.revision));
        plan.put(key.clone(), record.bytes().clone());
        plan.subjects.push(subject(&secret.name(), &meta));
    }
    plan.details.push(("no_longer_shared_with", workspace.to_string()));
    Ok(plan)
}
