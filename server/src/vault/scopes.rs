//! Lists and deletes scopes. Their making is part of the first write in them.

use coffer_proto::name::{Permission, Scope, ScopeKind, ScopePattern};

use super::{
    Call, Error, Page, PageRequest, Vault,
    call::named,
    read::Answer,
    secrets::narrowed,
    write::{Context, Plan},
};
use crate::{
    access::{self, Target},
    audit::Subject,
    record::{SecretMeta, SharedWith, key},
    seal::Uid,
    store::Expect,
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
            let page = page?;
            let after = match page.after() {
                "" => None,
                after => Some(Scope::parse(after).map_err(|_| Error::PageToken)?),
            };
            let within = pattern.as_ref().map_or("", |pattern| pattern.literal_prefix());
            let prefixes = narrowed(access::readable_prefixes(state, caller.principal()), within);
            let scopes = prefixes.iter().flat_map(|prefix| state.scopes_from(prefix, after.as_ref()));
            let matching = scopes.filter(|scope| pattern.as_ref().is_none_or(|pattern| pattern.matches(&scope.name)));
            let shown = matching.filter_map(|scope| {
                let may = |permission: &Permission| {
                    access::why(state, caller.principal(), *permission, &Target::Scope(&scope.name)).is_some()
                };
                let permissions: Vec<_> =
                    [Permission::SecretsRead, Permission::SecretsManage, Permission::AccessManage]
                        .into_iter()
                        .filter(may)
                        .collect();
                permissions.contains(&Permission::SecretsRead).then(|| ShownScope {
                    name: scope.name.clone(),
                    uid: scope.uid,
                    secrets: scope.secrets.len() as u64,
                    value_bytes: scope.value_bytes,
                    create_time: scope.create_time,
                    permissions,
                })
            });
            let page = page.take(shown.map(|scope| (scope.name.to_string(), 200, scope)));
            Ok(Answer::new(&access::permit_self(caller), page))
        })
        .await
    }

    /// Deletes a scope with everything that is bound to it. Answers how many secrets it owned.
    pub async fn delete_scope(&self, call: &Call, scope: Scope, uid: String) -> Result<u64, Error> {
        // A workspace's place in sharing lists is the organization's to write.
        let line = scope.inherits_from().unwrap_or_else(|| scope.clone()).to_string();
        self.write(call, &line, vec![scope.to_string()], move |context| plan_delete(context, &scope, &uid)).await
    }
}

fn plan_delete(context: &Context<'_>, name: &Scope, uid: &str) -> Result<Plan<u64>, Error> {
    let permit = access::permit(context.state, context.caller, Permission::AccessManage, &Target::Scope(name))
        .ok_or(Error::Denied)?;
    let scope = context.state.scope(name).ok_or_else(|| Error::ScopeNotFound(name.clone()))?;
    if !uid.is_empty() && uid != scope.uid.to_string() {
        return Err(Error::EtagMismatch);
    }
    let secrets = scope.secrets.len() as u64;
    let mut plan = Plan::new(&permit, secrets);
    plan.subjects = vec![Subject { uid: Some(scope.uid.to_string()), ..named(name) }];
    plan.details.push(("secrets", secrets.to_string()));
    plan.expect(scope.at.key.clone(), Expect::At(scope.at.revision));
    if name.kind() == ScopeKind::Workspace {
        unshare(context, &mut plan, name)?;
    }
    plan.delete_prefix(key::secrets_of(name));
    key::grants_within(name.as_str()).into_iter().for_each(|prefix| plan.delete_prefix(prefix));
    plan.delete_prefix(key::tokens_in(name));
    plan.delete(key::scope(name));
    plan.delete(key::scope_key(name));
    Ok(plan)
}

/// Takes a workspace out of its organization's sharing lists, so that a later workspace of the same name receives
/// nothing that was meant for this one.
fn unshare(context: &Context<'_>, plan: &mut Plan<u64>, workspace: &Scope) -> Result<(), Error> {
    let Some(organization) = workspace.parent().and_then(|parent| context.state.scope(&parent).cloned()) else {
        return Ok(());
    };
    let Some((_, id)) = workspace.as_str().rsplit_once('/') else { return Ok(()) };
    let listed = organization.owned_secrets().filter_map(|secret| match &secret.entry.meta.sharing {
        Some(SharedWith::Only(ids)) if ids.iter().any(|only| only == id) => {
            let rest = ids.iter().filter(|only| *only != id).cloned().collect();
            Some((secret, SharedWith::Only(rest)))
        }
        _ => None,
    });
    let listed: Vec<_> = listed.collect();
    if listed.is_empty() {
        return Ok(());
    }
    let target = plan.write_scope(context, &organization.name)?;
    for (secret, sharing) in listed {
        let old = &secret.entry.meta;
        let meta = SecretMeta {
            sharing: Some(sharing),
            generation: old.generation + 1,
            updated: context.stamp(),
            ..old.clone()
        };
        let (key, store) = (&secret.entry.at.key, context.state.store());
        let record = secret.entry.record.reseal_metadata(store, target.uid, &target.key, key, &meta)?;
        plan.put(key.clone(), record.bytes().clone());
    }
    Ok(())
}
