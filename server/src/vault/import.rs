//! Many secrets for one scope in one step: all or none.

use std::collections::BTreeSet;

use coffer_proto::{
    name::{Scope, ScopeKind, SecretName, VariableName},
    value::SecretValue,
};

use super::{
    Call, Error, NewSecret, SecretChange, Vault,
    fields::Fields,
    secrets::{changed_meta, check_room, new_meta, permit_manage, subject},
    write::{Context, Plan, line_of},
};
use crate::record::{Kind, SharedWith};

/// What to do with a name that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Import nothing.
    Fail,
    /// Keep what is there.
    Skip,
    /// Give it the new value.
    Replace,
}

/// One secret to import.
#[derive(Clone)]
pub struct ImportEntry {
    /// Its name.
    pub variable: VariableName,
    /// Its value; `None` only in a preview.
    pub value: Option<SecretValue>,
    /// Encrypted or plain; `None` keeps what is there, and makes new ones encrypted.
    pub kind: Option<Kind>,
    /// What it is for; `None` keeps what is there.
    pub description: Option<String>,
}

/// An import.
#[derive(Clone)]
pub struct Import {
    /// What.
    pub entries: Vec<ImportEntry>,
    /// Over what is there?
    pub conflict: Conflict,
    /// Only say what would happen.
    pub validate_only: bool,
    /// Of all of them; `None` keeps what is there, and shares new ones of an organization with all.
    pub sharing: Option<SharedWith>,
}

/// What was done with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportAction {
    /// It is new.
    Created,
    /// It has the new value.
    Replaced,
    /// It was kept.
    Skipped,
}

/// What an import did, or would do.
pub struct ImportOutcome {
    /// The secret.
    pub name: SecretName,
    /// What was done.
    pub action: ImportAction,
}

impl Vault {
    /// Imports secrets.
    pub async fn import_secrets(
        &self,
        call: &Call,
        scope: Scope,
        fields: Result<Import, Error>,
    ) -> Result<Vec<ImportOutcome>, Error> {
        self.write(call, &line_of(&scope), vec![scope.to_string()], move |context| {
            plan(context, &scope, fields.clone()?)
        })
        .await
    }
}

impl Import {
    /// Checks what holds between entries.
    pub fn check(&self, fields: &mut Fields) {
        if self.entries.is_empty() {
            fields.wrong("entries", "must hold at least one secret");
        }
        let mut seen = BTreeSet::new();
        for (at, entry) in self.entries.iter().enumerate() {
            if !seen.insert(&entry.variable) {
                fields.wrong(format!("entries[{at}].secret_id"), format!("{} is there twice", entry.variable));
            }
            if entry.value.is_none() && !self.validate_only {
                fields.wrong(format!("entries[{at}].value"), "Secret value is required");
            }
        }
    }
}

fn plan(context: &Context<'_>, scope: &Scope, import: Import) -> Result<Plan<Vec<ImportOutcome>>, Error> {
    let permit = permit_manage(context, scope)?;
    let outcomes = outcomes(context, scope, &import)?;
    let mut plan = Plan::new(&permit, ());
    if !import.validate_only && outcomes.iter().any(|outcome| outcome.action != ImportAction::Skipped) {
        let target = plan.write_scope(context, scope)?;
        let replaced = outcomes.iter().filter(|outcome| outcome.action == ImportAction::Replaced).count();
        let (mut more, mut bytes, mut freed) = (0, 0, 0);
        for (entry, outcome) in import.entries.iter().zip(&outcomes) {
            let Some(value) = &entry.value else { continue };
            let meta = match (outcome.action, context.state.secret(scope, &entry.variable)) {
                (ImportAction::Skipped, _) => continue,
                (_, Some(old)) => {
                    freed += old.entry.meta.value_bytes;
                    plan.expect_if_few(replaced, &old);
                    let change = SecretChange {
                        value: Some(value.clone()),
                        kind: entry.kind,
                        description: entry.description.clone(),
                        sharing: import.sharing.clone(),
                        ..SecretChange::default()
                    };
                    changed_meta(context, &old.entry.meta, &change)?
                }
                (_, None) => {
                    more += 1;
                    new_meta(context, &new_secret(scope, entry, value, import.sharing.as_ref()))?
                }
            };
            bytes += meta.value_bytes;
            plan.subjects.push(subject(&outcome.name, &meta));
            plan.put_secret(context, &target, &outcome.name, &meta, value)?;
        }
        check_room(context, scope, &target, more, bytes, freed)?;
        plan.check_memory(context)?;
    }
    Ok(plan.with_answer(outcomes))
}

fn outcomes(context: &Context<'_>, scope: &Scope, import: &Import) -> Result<Vec<ImportOutcome>, Error> {
    let mut taken = Vec::new();
    let mut outcomes = Vec::with_capacity(import.entries.len());
    for entry in &import.entries {
        let name = SecretName::new(scope.clone(), entry.variable.clone());
        let action = match (context.state.secret(scope, &entry.variable), import.conflict) {
            (None, _) => ImportAction::Created,
            (Some(_), Conflict::Skip) => ImportAction::Skipped,
            (Some(_), Conflict::Replace) => ImportAction::Replaced,
            (Some(_), Conflict::Fail) => {
                taken.push(name);
                continue;
            }
        };
        outcomes.push(ImportOutcome { name, action });
    }
    if taken.is_empty() { Ok(outcomes) } else { Err(Error::SecretExists(taken)) }
}

fn new_secret(scope: &Scope, entry: &ImportEntry, value: &SecretValue, sharing: Option<&SharedWith>) -> NewSecret {
    let default = || (scope.kind() == ScopeKind::Organization).then_some(SharedWith::All);
    NewSecret {
        variable: entry.variable.clone(),
        value: value.clone(),
        kind: entry.kind.unwrap_or(Kind::Encrypted),
        description: entry.description.clone().unwrap_or_default(),
        sharing: sharing.cloned().or_else(default),
        locked: false,
        clonable: true,
        allowed_hosts: Vec::new(),
        allow_in_instructions: false,
    }
}
