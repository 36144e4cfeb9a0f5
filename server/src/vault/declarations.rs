//! References and manifests: both are set, listed and removed alike.
//!
//! What guards a delete must not come between its decision and its commit, on any replica. A reference on a scope writes that
//! scope's record, which a delete there compares. One on a pattern puts the pattern's own record. One that its scopes'
//! parents could be meant by puts the record of its *siblings*, too: the same pattern with `-` as its last id. So every
//! delete has few records to compare: see [`super::guard`].

use std::sync::Arc;

use coffer_proto::{
    limits,
    name::{DeclarationKind, DeclarationName, Permission, ScopePattern, WILDCARD},
};

use super::{
    Call, Error, Page, PageRequest, Vault,
    call::named,
    declared::applying,
    read::Answer,
    write::{Context, Plan, line_of},
};
use crate::{
    access::{self, Permit, Target},
    identity::Caller,
    record::{DeclarationRecord, DeclaredVariable, PatternRecord, key},
    store::Expect,
    view::{Declaration, Declared, State},
};

/// What a reference or manifest says, its fields checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDeclaration {
    /// For people.
    pub description: String,
    /// By name, each once.
    pub variables: Vec<Declared>,
}

/// A reference or manifest as its readers see it.
#[derive(Clone, Debug)]
pub struct ShownDeclaration {
    /// Its name.
    pub name: DeclarationName,
    /// For people.
    pub description: String,
    /// By name.
    pub variables: Vec<Declared>,
    /// When it was set first.
    pub create_time: prost_types::Timestamp,
    /// When it was set last.
    pub update_time: prost_types::Timestamp,
    /// Who set it last.
    pub updater: String,
}

/// About how large one is in an answer beside its texts, and each of its variables beside theirs.
const SHOWN_BYTES: usize = 300;
const SHOWN_VARIABLE_BYTES: usize = 16;

impl Vault {
    /// Sets a reference or manifest, over the one of the same name if there is one.
    pub async fn set_declaration(
        &self,
        call: &Call,
        name: DeclarationName,
        fields: Result<NewDeclaration, Error>,
    ) -> Result<ShownDeclaration, Error> {
        self.write(call, &line_of_pattern(name.pattern()), vec![name.to_string()], move |context| {
            plan_set(context, &name, &fields)
        })
        .await
    }

    /// Removes a reference or manifest. A pure delete: it passes when the disk is full, and so it puts no record that a
    /// delete of a secret would compare. It need not: with one reference less, what was allowed before still is.
    pub async fn delete_declaration(&self, call: &Call, name: DeclarationName) -> Result<(), Error> {
        self.write(call, &line_of_pattern(name.pattern()), vec![name.to_string()], move |context| {
            let permit = permit_on(context.state, context.caller, Permission::SecretsManage, name.pattern())?;
            let old = context.state.declaration(&name).ok_or_else(|| Error::DeclarationNotFound(name.clone()))?;
            let mut plan = Plan::new(&permit, ());
            plan.subjects = vec![named(&name)];
            plan.expect(old.at.key.clone(), Expect::At(old.at.revision));
            plan.delete(old.at.key.clone());
            Ok(plan)
        })
        .await
    }

    /// A page of the references or manifests that apply to a scope, or that stand on exactly this pattern.
    pub async fn list_declarations(
        &self,
        call: &Call,
        kind: DeclarationKind,
        parent: ScopePattern,
        page: Result<PageRequest, Error>,
    ) -> Result<Page<ShownDeclaration>, Error> {
        self.read(call, vec![parent.to_string()], |state, caller| {
            let permit = permit_on(state, caller, Permission::SecretsRead, &parent)?;
            let page = page?.open(state, caller)?;
            let mut all: Vec<&Arc<Declaration>> = match parent.as_scope() {
                Some(scope) => applying(state, kind, &scope).collect(),
                None => state.declarations_on(kind, parent.as_str()).collect(),
            };
            all.retain(|declaration| declaration.name.as_str() > page.after());
            all.sort_by(|a, b| a.name.cmp(&b.name));
            let entries = all.into_iter().map(|one| (one.name.to_string(), shown_bytes(one), one));
            let page = page.take(entries)?.try_map(|one| Ok::<_, Error>(ShownDeclaration::from(one.as_ref())))?;
            Ok(Answer::new(&permit, page))
        })
        .await
    }
}

fn plan_set(
    context: &Context<'_>,
    name: &DeclarationName,
    fields: &Result<NewDeclaration, Error>,
) -> Result<Plan<ShownDeclaration>, Error> {
    let (state, pattern) = (context.state, name.pattern());
    let permit = permit_on(state, context.caller, Permission::SecretsManage, pattern)?;
    let new = fields.clone()?;
    let old = state.declaration(name);
    if old.is_none() {
        check_count(state, name)?;
    }
    let mut plan = Plan::new(&permit, ());
    plan.subjects = vec![named(name)];
    plan.details.push(("variables", new.variables.len().to_string()));
    let record_key = key::declaration(name);
    // One that died with its scope may still lie there, and is written over.
    if let Some(old) = old {
        plan.expect(record_key.clone(), Expect::At(old.at.revision));
    }
    let scope_uid = match pattern.as_scope() {
        Some(scope) => plan.write_scope(context, &scope)?.uid.0.to_vec(),
        None => {
            plan.expect_pattern(state, pattern);
            plan.put_pattern(context, pattern)?;
            Vec::new()
        }
    };
    // Manifests guard nothing.
    let siblings = siblings(pattern).filter(|_| name.kind() == DeclarationKind::Reference);
    if let Some(siblings) = siblings.filter(|siblings| siblings != pattern) {
        plan.put_pattern(context, &siblings)?;
    }
    let shown = ShownDeclaration {
        name: name.clone(),
        description: new.description,
        variables: new.variables,
        create_time: old.map_or_else(|| context.timestamp(), |old| old.create_time),
        update_time: context.timestamp(),
        updater: context.caller.principal().to_string(),
    };
    plan.put_system(state, record_key, &stored(&shown, scope_uid))?;
    plan.check_memory(context)?;
    Ok(plan.with_answer(shown))
}

fn stored(shown: &ShownDeclaration, scope_uid: Vec<u8>) -> DeclarationRecord {
    let variable = |declared: &Declared| DeclaredVariable {
        variable: declared.variable.to_string(),
        required: declared.required,
        description: declared.description.clone(),
    };
    DeclarationRecord {
        scope_uid,
        description: shown.description.clone(),
        variables: shown.variables.iter().map(variable).collect(),
        create_time: Some(shown.create_time),
        update_time: Some(shown.update_time),
        updater: shown.updater.clone(),
    }
}

impl From<&Declaration> for ShownDeclaration {
    fn from(declaration: &Declaration) -> Self {
        Self {
            name: declaration.name.clone(),
            description: declaration.description.clone(),
            variables: declaration.variables.clone(),
            create_time: declaration.create_time,
            update_time: declaration.update_time,
            updater: declaration.updater.clone(),
        }
    }
}

impl<T> Plan<T> {
    /// Compares the record of a pattern with a wildcard, as it stands or does not.
    pub(super) fn expect_pattern(&mut self, state: &State, pattern: &ScopePattern) {
        let expect = state.pattern(pattern).map_or(Expect::Absent, |at| Expect::At(at.revision));
        self.expect(key::pattern(pattern), expect);
    }

    fn put_pattern(&mut self, context: &Context<'_>, pattern: &ScopePattern) -> Result<(), Error> {
        let record = PatternRecord { update_time: Some(context.timestamp()) };
        self.put_system(context.state, key::pattern(pattern), &record)
    }
}

/// Refuses one more than may stand there.
fn check_count(state: &State, name: &DeclarationName) -> Result<(), Error> {
    let standing = state.declarations_on(name.kind(), name.pattern().as_str()).count();
    match name.kind() {
        DeclarationKind::Reference if standing >= limits::PATTERN_REFERENCES => {
            return Err(Error::TooMany("at most 1,000 references on one scope or pattern"));
        }
        DeclarationKind::Manifest if standing >= limits::PATTERN_MANIFESTS => {
            return Err(Error::TooMany("at most 100 manifests on one scope or pattern"));
        }
        DeclarationKind::Reference | DeclarationKind::Manifest => {}
    }
    let of_account = account_of(name.pattern()).map_or(0, |account| state.declarations_of_account(account));
    if of_account >= limits::ACCOUNT_DECLARATIONS {
        return Err(Error::TooMany("at most 1,000 references and manifests on one account and its plugins"));
    }
    Ok(())
}

/// Where the scopes beside those of a pattern are, whose parent's secrets it can mean: the same with `-` as its last id.
/// None where nothing is inherited.
fn siblings(pattern: &ScopePattern) -> Option<ScopePattern> {
    let (collection, _) = pattern.as_str().rsplit_once('/').filter(|_| pattern.kind().inherits())?;
    ScopePattern::parse(&format!("{collection}/{WILDCARD}")).ok()
}

/// Where writers of a pattern stand in line: those of one account in one, because an account has limits of its own.
fn line_of_pattern(pattern: &ScopePattern) -> String {
    match (pattern.as_scope(), account_of(pattern)) {
        (Some(scope), _) => line_of(&scope),
        (None, Some(account)) => format!("accounts/{account}"),
        (None, None) => pattern.to_string(),
    }
}

fn account_of(pattern: &ScopePattern) -> Option<&str> {
    let rest = pattern.as_str().strip_prefix("accounts/")?;
    rest.split('/').next().filter(|account| *account != WILDCARD)
}

fn permit_on(state: &State, caller: &Caller, permission: Permission, pattern: &ScopePattern) -> Result<Permit, Error> {
    access::permit(state, caller, permission, &Target::Scopes(pattern)).ok_or(Error::Denied)
}

fn shown_bytes(declaration: &Declaration) -> usize {
    SHOWN_BYTES + declaration.description.len() + variables_bytes(&declaration.variables)
}

/// Upper bound of what variables take in an answer, in bytes.
pub(super) fn variables_bytes(variables: &[Declared]) -> usize {
    let variables = variables.iter();
    variables.map(|one| SHOWN_VARIABLE_BYTES + one.variable.as_str().len() + one.description.len()).sum()
}
