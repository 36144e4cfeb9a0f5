//! Creates, shows, changes and deletes secrets.

use coffer_proto::{
    limits,
    name::{Permission, Scope, SecretName, VariableName},
    value::SecretValue,
};

use super::{
    Call, Error, Vault,
    call::named,
    guard,
    read::Answer,
    write::{Context, Plan, ScopeForWrite, line_of},
};
use crate::{
    access::{self, Permit, Target},
    audit::Subject,
    identity::Caller,
    record::{self, Hint, Kind, SecretMeta, SecretRecord, SharedWith, Sharing},
    seal::Uid,
    store::{Expect, Key},
    view::{LastUsed, OwnedSecret, State},
};

/// By so many bytes the stamp of a change differs from the one before, with the length of its numbers and of a name.
const STAMP_BYTES: usize = 100;

/// A new secret, its fields checked.
#[derive(Clone)]
pub struct NewSecret {
    /// Its name.
    pub variable: VariableName,
    /// Its value.
    pub value: SecretValue,
    /// Encrypted or plain.
    pub kind: Kind,
    /// What it is for.
    pub description: String,
    /// With whom it is shared; `None` outside organizations.
    pub sharing: Sharing,
    /// It wins over a child's.
    pub locked: bool,
    /// It may be cloned.
    pub clonable: bool,
    /// Where headers rendered with it may go.
    pub allowed_hosts: Vec<String>,
    /// It may be rendered for a model.
    pub allow_in_instructions: bool,
}

/// A change; `None` keeps what is stored.
#[derive(Clone, Default)]
pub struct SecretChange {
    /// The value.
    pub value: Option<SecretValue>,
    /// The description.
    pub description: Option<String>,
    /// Encrypted or plain.
    pub kind: Option<Kind>,
    /// With whom it is shared.
    pub sharing: Option<SharedWith>,
    /// It wins over a child's.
    pub locked: Option<bool>,
    /// It may be cloned.
    pub clonable: Option<bool>,
    /// Where headers rendered with it may go.
    pub allowed_hosts: Option<Vec<String>>,
    /// It may be rendered for a model.
    pub allow_in_instructions: Option<bool>,
}

/// A secret as its readers see it: an encrypted value is never here.
pub struct ShownSecret {
    /// Its name.
    pub name: SecretName,
    /// What is known of it.
    pub meta: SecretMeta,
    /// The value of a plain variable.
    pub value: Option<SecretValue>,
    /// When it was used.
    pub last_used: LastUsed,
}

impl SecretChange {
    fn is_nothing(&self) -> bool {
        self.value.is_none()
            && self.description.is_none()
            && self.kind.is_none()
            && self.sharing.is_none()
            && self.locked.is_none()
            && self.clonable.is_none()
            && self.allowed_hosts.is_none()
            && self.allow_in_instructions.is_none()
    }
}

impl Vault {
    /// Creates a secret.
    pub async fn create_secret(
        &self,
        call: &Call,
        scope: Scope,
        fields: Result<NewSecret, Error>,
    ) -> Result<ShownSecret, Error> {
        self.write(call, &line_of(&scope), vec![scope.to_string()], move |context| {
            let permit = permit_manage(context, &scope)?;
            let new = fields.clone()?;
            let name = SecretName::new(scope.clone(), new.variable.clone());
            if context.state.secret(&scope, &new.variable).is_some() {
                return Err(Error::SecretExists(vec![name]));
            }
            let meta = new_meta(context, &new)?;
            let shown = ShownSecret {
                name: name.clone(),
                meta: meta.clone(),
                value: (meta.kind == Kind::Plain).then(|| new.value.clone()),
                last_used: LastUsed::default(),
            };
            let mut plan = Plan::new(&permit, shown);
            plan.subjects = vec![subject(&name, &meta)];
            let target = plan.write_scope(context, &scope)?;
            check_room(context, &scope, &target, 1, meta.value_bytes, 0)?;
            plan.put_secret(context, &target, &name, &meta, &new.value)?;
            plan.check_memory(context)?;
            Ok(plan)
        })
        .await
    }

    /// One secret.
    pub async fn get_secret(&self, call: &Call, name: SecretName) -> Result<ShownSecret, Error> {
        let found = self
            .read(call, vec![name.to_string()], |state, caller| {
                let permit = permit_read(state, caller, name.scope())?;
                let secret = find(state, &name)?;
                let subject = subject(&name, &secret.entry.meta);
                Ok(Answer::new(&permit, secret).about([subject]))
            })
            .await?;
        self.show(found)
    }

    /// Changes a secret.
    pub async fn update_secret(
        &self,
        call: &Call,
        name: SecretName,
        etag: String,
        fields: Result<SecretChange, Error>,
    ) -> Result<ShownSecret, Error> {
        let line = line_of(name.scope());
        self.write(call, &line, vec![name.to_string()], move |context| {
            let permit = permit_manage(context, name.scope())?;
            let change = fields.clone()?;
            let old = find(context.state, &name)?;
            check_etag(&old.entry.meta, &etag)?;
            if change.is_nothing() {
                return Err(Error::NoChanges);
            }
            let meta = changed_meta(context, &old.entry.meta, &change)?;
            let store = context.state.store();
            let value = match &change.value {
                Some(value) => Some(value.clone()),
                // Kind and version are bound to the envelope, so a kept value is resealed where the kind changes.
                None if meta.kind != old.entry.meta.kind => Some(old.open(store)?),
                None => None,
            };
            let shown = ShownSecret {
                name: name.clone(),
                meta: meta.clone(),
                value: match (meta.kind, &value) {
                    (Kind::Encrypted, _) => None,
                    (Kind::Plain, Some(value)) => Some(value.clone()),
                    (Kind::Plain, None) => Some(old.open(store)?),
                },
                last_used: context.vault.last_used(context.state, &old),
            };
            let mut plan = Plan::new(&permit, shown);
            plan.subjects = vec![subject(&name, &meta)];
            let target = plan.write_scope(context, name.scope())?;
            check_room(context, name.scope(), &target, 0, meta.value_bytes, old.entry.meta.value_bytes)?;
            let key = old.entry.at.key.clone();
            plan.expect(key.clone(), Expect::At(old.entry.at.revision));
            let record = match value {
                Some(value) => SecretRecord::seal(store, target.uid, &target.key, &key, &meta, &value)?,
                None => old.entry.record.reseal_metadata(store, target.uid, &target.key, &key, &meta)?,
            };
            let grows = record.bytes().len() > old.entry.record.bytes().len() + STAMP_BYTES;
            plan.put(key, record.bytes().clone());
            if grows {
                plan.check_memory(context)?;
            }
            Ok(plan)
        })
        .await
    }

    /// Deletes a secret that no reference uses, or any with `force`. A pure delete: it passes when the disk is full.
    pub async fn delete_secret(&self, call: &Call, name: SecretName, etag: String, force: bool) -> Result<(), Error> {
        let line = line_of(name.scope());
        self.write(call, &line, vec![name.to_string()], move |context| {
            let permit = permit_manage(context, name.scope())?;
            let old = find(context.state, &name)?;
            check_etag(&old.entry.meta, &etag)?;
            let mut plan = Plan::new(&permit, ());
            plan.subjects = vec![subject(&name, &old.entry.meta)];
            if force {
                plan.details.push(("force", "true".to_owned()));
            } else {
                guard::check(context, &mut plan, &old)?;
            }
            plan.expect(old.scope.at.key.clone(), Expect::At(old.scope.at.revision));
            plan.expect(old.entry.at.key.clone(), Expect::At(old.entry.at.revision));
            plan.delete(old.entry.at.key.clone());
            Ok(plan)
        })
        .await
    }

    /// A secret as its readers see it. Opens plain values only.
    pub(super) fn show(&self, secret: OwnedSecret) -> Result<ShownSecret, Error> {
        let value = if secret.is_plain() { Some(secret.open(self.0.view.store())?) } else { None };
        let last_used = self.last_used(&self.0.view.read(), &secret);
        Ok(ShownSecret { name: secret.name(), meta: secret.entry.meta.clone(), value, last_used })
    }
}

impl<T> Plan<T> {
    /// Puts a secret with a value, sealed under its scope's key.
    pub(super) fn put_secret(
        &mut self,
        context: &Context<'_>,
        scope: &ScopeForWrite,
        name: &SecretName,
        meta: &SecretMeta,
        value: &SecretValue,
    ) -> Result<(), Error> {
        let key = record::key::secret(name.scope(), name.variable());
        let record = SecretRecord::seal(context.state.store(), scope.uid, &scope.key, &key, meta, value)?;
        self.put(key, record.bytes().clone());
        Ok(())
    }
}

pub(super) fn permit_manage(context: &Context<'_>, scope: &Scope) -> Result<Permit, Error> {
    access::permit(context.state, context.caller, Permission::SecretsManage, &Target::Scope(scope)).ok_or(Error::Denied)
}

pub(super) fn permit_read(state: &State, caller: &Caller, scope: &Scope) -> Result<Permit, Error> {
    access::permit(state, caller, Permission::SecretsRead, &Target::Scope(scope)).ok_or(Error::Denied)
}

pub(super) fn find(state: &State, name: &SecretName) -> Result<OwnedSecret, Error> {
    state.secret(name.scope(), name.variable()).ok_or_else(|| Error::SecretNotFound(name.clone()))
}

fn check_etag(meta: &SecretMeta, etag: &str) -> Result<(), Error> {
    if etag.is_empty() || etag == meta.etag() { Ok(()) } else { Err(Error::EtagMismatch) }
}

/// Whether the scope, and the account it belongs to, may hold so much more.
pub(super) fn check_room(
    context: &Context<'_>,
    name: &Scope,
    scope: &ScopeForWrite,
    more_secrets: u64,
    more_bytes: u64,
    freed_bytes: u64,
) -> Result<(), Error> {
    let (secrets, bytes) = match &scope.state {
        Some(state) => (state.secrets.len() as u64, state.value_bytes),
        None => (0, 0),
    };
    if secrets + more_secrets > limits::SCOPE_SECRETS {
        return Err(Error::ScopeFull("at most 1,000 secrets"));
    }
    if bytes - freed_bytes + more_bytes > limits::SCOPE_VALUE_BYTES {
        return Err(Error::ScopeFull("at most 512 KiB of values"));
    }
    if let Some(account) = name.account_id() {
        let (own, plugins) = (format!("accounts/{account}"), format!("accounts/{account}/plugins/"));
        let own = Scope::parse(&own).ok().and_then(|own| context.state.scope(&own));
        let all = own.into_iter().chain(context.state.scopes_from(&plugins, None));
        let (mut held, mut count) = (0, 0);
        for scope in all {
            held += scope.value_bytes;
            count += scope.secrets.len() as u64;
        }
        if count + more_secrets > limits::ACCOUNT_SECRETS {
            return Err(Error::TooMany("at most 10,000 secrets in one account and its plugins"));
        }
        if held - freed_bytes + more_bytes > limits::ACCOUNT_VALUE_BYTES {
            return Err(Error::ScopeFull("at most 64 MiB of values in one account and its plugins"));
        }
    }
    Ok(())
}

pub(super) fn subject(name: &SecretName, meta: &SecretMeta) -> Subject {
    Subject { uid: Some(meta.uid.to_string()), version: Some(meta.version), ..named(name) }
}

pub(super) fn new_meta(context: &Context<'_>, new: &NewSecret) -> Result<SecretMeta, Error> {
    let stamp = context.stamp();
    Ok(SecretMeta {
        uid: Uid::random()?,
        kind: new.kind,
        version: 1,
        generation: 1,
        description: new.description.clone(),
        hint: Hint(new.value.hint().unwrap_or_default()),
        value_bytes: new.value.bytes() as u64,
        sharing: new.sharing.clone(),
        locked: new.locked,
        clonable: new.clonable,
        allowed_hosts: new.allowed_hosts.clone(),
        allow_in_instructions: new.allow_in_instructions,
        value_time: stamp.time,
        created: stamp.clone(),
        updated: stamp,
        cloned_from: String::new(),
    })
}

/// The metadata after a change. A given value always counts as one: comparing would confirm guesses.
pub(super) fn changed_meta(
    context: &Context<'_>,
    old: &SecretMeta,
    change: &SecretChange,
) -> Result<SecretMeta, Error> {
    let kind = change.kind.unwrap_or(old.kind);
    if (old.kind, kind) == (Kind::Encrypted, Kind::Plain) && change.value.is_none() {
        return Err(Error::field("value", "a new value is needed to make an encrypted secret plain"));
    }
    let mut meta = old.clone();
    meta.kind = kind;
    meta.generation += 1;
    meta.updated = context.stamp();
    if let Some(value) = &change.value {
        meta.version += 1;
        meta.value_time = meta.updated.time;
        meta.hint = Hint(value.hint().unwrap_or_default());
        meta.value_bytes = value.bytes() as u64;
    }
    if let Some(description) = &change.description {
        meta.description.clone_from(description);
    }
    if let Some(sharing) = &change.sharing {
        meta.sharing = Some(sharing.clone());
    }
    if let Some(hosts) = &change.allowed_hosts {
        meta.allowed_hosts.clone_from(hosts);
    }
    meta.locked = change.locked.unwrap_or(meta.locked);
    meta.clonable = change.clonable.unwrap_or(meta.clonable);
    meta.allow_in_instructions = change.allow_in_instructions.unwrap_or(meta.allow_in_instructions);
    Ok(meta)
}

/// The key of a secret's record.
pub(super) fn secret_key(name: &SecretName) -> Key {
    record::key::secret(name.scope(), name.variable())
}
