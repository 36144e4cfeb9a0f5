//! References and manifests in the view.

use std::sync::Arc;

use coffer_proto::name::{DeclarationKind, DeclarationName, ScopePattern, VariableName};
use prost::Message as _;

use super::{
    At,
    apply::{ENTRY_BYTES, uid},
    state::State,
    tally,
};
use crate::{
    record::{self, DeclarationRecord, key},
    seal::Uid,
    store::Key,
};

/// A reference or a manifest.
pub struct Declaration {
    /// Its name.
    pub name: DeclarationName,
    /// The incarnation of the scope it is bound to; none on a wildcard.
    pub scope_uid: Option<Uid>,
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
    /// Its record.
    pub at: At,
    /// The size of its record.
    pub(super) bytes: u64,
}

/// A name that is used or expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The name.
    pub variable: VariableName,
    /// A workload cannot start without it.
    pub required: bool,
    /// What it is for.
    pub description: String,
}

impl State {
    /// A reference or manifest.
    pub fn declaration(&self, name: &DeclarationName) -> Option<&Arc<Declaration>> {
        self.declarations.get(&key::declaration(name)).filter(|declaration| self.stands(declaration))
    }

    /// Those of a kind on exactly this scope or pattern, by id.
    pub fn declarations_on(
        &self,
        kind: DeclarationKind,
        pattern: &str,
    ) -> impl Iterator<Item = &Arc<Declaration>> + use<'_> {
        let prefix = key::declarations_on(kind, pattern);
        self.declarations_from(prefix).filter(|declaration| self.stands(declaration))
    }

    /// Those of a kind on scopes and patterns below this one, of which there may be very many: `wanted` is asked first,
    /// because it costs less than whether they stand.
    pub fn declarations_below<'a>(
        &'a self,
        kind: DeclarationKind,
        pattern: &str,
        wanted: impl Fn(&Declaration) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Arc<Declaration>> {
        let all = self.declarations_from(key::declarations_below(kind, pattern));
        all.filter(move |declaration| wanted(declaration) && self.stands(declaration))
    }

    /// How many of both kinds stand on an account and its plugins.
    pub fn declarations_of_account(&self, account: &str) -> usize {
        let kinds = [DeclarationKind::Reference, DeclarationKind::Manifest];
        let scope = format!("accounts/{account}");
        let prefixes = kinds.map(|kind| [key::declarations_on(kind, &scope), key::declarations_below(kind, &scope)]);
        prefixes.into_iter().flatten().map(|prefix| self.declarations_from(prefix).count()).sum()
    }

    fn declarations_from(&self, prefix: Key) -> impl Iterator<Item = &Arc<Declaration>> + use<'_> {
        let range = self.declarations.range(prefix.clone()..);
        range
            .take_while(move |(key, _)| key.as_str().starts_with(prefix.as_str()))
            .map(|(_, declaration)| declaration)
            .inspect(|_| tally::add())
    }

    /// What stands on one scope dies with that scope's incarnation, even should its record outlive it.
    fn stands(&self, declaration: &Declaration) -> bool {
        let Some(uid) = declaration.scope_uid else { return true };
        let scope = declaration.name.pattern().as_scope().and_then(|scope| self.scope(&scope));
        scope.is_some_and(|scope| scope.uid == uid)
    }

    /// The record that every reference on a wildcard pattern changes, if there was ever one.
    pub fn pattern(&self, pattern: &ScopePattern) -> Option<&At> {
        self.patterns.get(&key::pattern(pattern))
    }

    pub(super) fn put_declaration(&mut self, name: DeclarationName, at: At, bytes: &[u8]) -> Result<(), record::Error> {
        let understood = record::Error::NotUnderstood;
        let plaintext = self.open(&at.key, bytes)?;
        let stored = DeclarationRecord::decode(plaintext.as_slice()).map_err(|_| understood)?;
        let declared = |declared: record::DeclaredVariable| {
            let variable = VariableName::parse(&declared.variable).map_err(|_| understood)?;
            Ok(Declared { variable, required: declared.required, description: declared.description })
        };
        let declaration = Declaration {
            name,
            scope_uid: uid(&stored.scope_uid)?,
            description: stored.description,
            variables: stored.variables.into_iter().map(declared).collect::<Result<_, record::Error>>()?,
            create_time: stored.create_time.ok_or(understood)?,
            update_time: stored.update_time.ok_or(understood)?,
            updater: stored.updater,
            bytes: 2 * bytes.len() as u64,
            at,
        };
        let key = declaration.at.key.clone();
        self.delete_declaration(&key);
        self.memory_bytes += ENTRY_BYTES + declaration.bytes;
        self.declarations.insert(key, Arc::new(declaration));
        Ok(())
    }

    pub(super) fn delete_declaration(&mut self, key: &Key) {
        if let Some(old) = self.declarations.remove(key) {
            self.memory_bytes -= ENTRY_BYTES + old.bytes;
        }
    }

    pub(super) fn put_pattern(&mut self, at: At, bytes: &[u8]) -> Result<(), record::Error> {
        self.open(&at.key, bytes)?;
        if self.patterns.insert(at.key.clone(), at).is_none() {
            self.memory_bytes += ENTRY_BYTES;
        }
        Ok(())
    }

    pub(super) fn delete_pattern(&mut self, key: &Key) {
        if self.patterns.remove(key).is_some() {
            self.memory_bytes -= ENTRY_BYTES;
        }
    }

    /// The keys of declarations and patterns below a prefix of their keys.
    pub(super) fn declared_below(&self, prefix: &str) -> Vec<Key> {
        let start = Key::new(prefix);
        let declarations = self.declarations.range(start.clone()..).map(|(key, _)| key);
        let patterns = self.patterns.range(start..).map(|(key, _)| key);
        let below = |key: &&Key| key.as_str().starts_with(prefix);
        declarations.take_while(below).chain(patterns.take_while(below)).cloned().collect()
    }
}
