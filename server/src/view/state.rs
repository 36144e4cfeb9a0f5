//! What the view holds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use coffer_proto::{
    name::{Permission, Principal, Scope, VariableName},
    token::TokenId,
    value::SecretValue,
};

use super::{
    At, Declaration, Starts, Used,
    keys::{Recorded, Standing},
    tally,
};
use crate::{
    record::{self, Kind, SecretMeta, SecretRecord},
    seal::{DataKey, KeyId, Keyring, Uid, digest::DigestKey},
    store::{Epoch, Key, Position, Revision},
};

/// Everything, at one position.
pub struct State {
    pub(super) store: Uid,
    pub(super) position: Position,
    pub(super) keyring: Arc<Keyring>,
    pub(super) header: Option<Header>,
    pub(super) system: Option<SystemKey>,
    pub(super) rotation: Option<Arc<RotationEntry>>,
    pub(super) digest: Option<Arc<DigestKey>>,
    pub(super) keys: HashMap<Scope, ScopeKey>,
    pub(super) scopes: BTreeMap<Scope, Arc<ScopeState>>,
    pub(super) grants: BTreeMap<Key, Arc<Grant>>,
    pub(super) grant_ids: HashMap<String, Key>,
    pub(super) grants_by_principal: BTreeSet<(String, Key)>,
    pub(super) tokens: BTreeMap<Key, Arc<TokenEntry>>,
    pub(super) token_ids: HashMap<TokenId, Key>,
    pub(super) declarations: BTreeMap<Key, Arc<Declaration>>,
    pub(super) patterns: BTreeMap<Key, At>,
    pub(super) starts: BTreeMap<Key, Arc<Starts>>,
    pub(super) used: HashMap<Scope, Arc<Used>>,
    pub(super) secrets: usize,
    pub(super) memory_bytes: u64,
    pub(super) soft_bytes: u64,
    /// The same by account, project and organization.
    pub(super) soft_bytes_of: HashMap<Scope, u64>,
}

/// The store's header as stored.
#[derive(Clone)]
pub struct Header {
    /// Its record.
    pub at: At,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

/// The system's data key. Whatever puts a record sealed under it compares its record, so that none is left under a key
/// of before.
#[derive(Clone)]
pub struct SystemKey {
    /// The key.
    pub key: Arc<DataKey>,
    /// Its record.
    pub at: At,
    /// The root key that wraps it.
    pub(super) root: KeyId,
}

/// Which keys are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotatedKeys {
    /// The root key.
    Root,
    /// The data keys, of every scope and of the system.
    Data,
}

/// The last rotation of keys.
pub struct RotationEntry {
    /// Which keys.
    pub keys: RotatedKeys,
    /// How many rotations of data keys have begun.
    pub generation: u32,
    /// Who began it.
    pub principal: String,
    /// When.
    pub start_time: prost_types::Timestamp,
    /// When it was done; none while it goes on.
    pub end_time: Option<prost_types::Timestamp>,
    /// How much was done, once it is.
    pub done: u64,
    /// Its record.
    pub at: At,
}

impl RotationEntry {
    pub(super) fn recorded(&self) -> Recorded {
        let is_under_way = |keys| self.keys == keys && self.end_time.is_none();
        Recorded {
            is_root_under_way: is_under_way(RotatedKeys::Root),
            is_data_under_way: is_under_way(RotatedKeys::Data),
            generation: self.generation,
        }
    }
}

/// A scope's data key, and the incarnation it seals for.
#[derive(Clone)]
pub(super) struct ScopeKey {
    pub key: Arc<DataKey>,
    pub uid: Uid,
    /// The root key that wraps it.
    pub root: KeyId,
}

impl ScopeKey {
    pub(super) fn standing(&self) -> Standing<'_> {
        Standing { key: &self.key, root: self.root }
    }
}

/// A scope and its secrets. Immutable once shared.
#[derive(Clone)]
pub struct ScopeState {
    /// Its name.
    pub name: Scope,
    /// Unique for ever.
    pub uid: Uid,
    /// When it was made.
    pub create_time: prost_types::Timestamp,
    /// Its record, which every write of the scope compares.
    pub at: At,
    /// The last commit that changed it or a secret of it, or the load. A delete leaves no other trace.
    pub changed: Revision,
    /// What seals its secrets.
    pub key: Arc<DataKey>,
    /// By name.
    pub secrets: BTreeMap<VariableName, Arc<SecretEntry>>,
    /// The size of all values.
    pub value_bytes: u64,
    /// How many of the secrets are plain.
    pub plain: u64,
}

/// A secret: metadata open, value sealed.
pub struct SecretEntry {
    /// What is known of it.
    pub meta: SecretMeta,
    /// The sealed record.
    pub record: SecretRecord,
    /// Its record.
    pub at: At,
}

/// A secret with its scope: what is needed to show or open it after the guard is gone.
#[derive(Clone)]
pub struct OwnedSecret {
    /// The scope.
    pub scope: Arc<ScopeState>,
    /// The secret.
    pub entry: Arc<SecretEntry>,
    /// Its name within the scope.
    pub variable: VariableName,
}

/// A grant.
pub struct Grant {
    /// Names it: `grants/{id}`.
    pub id: String,
    /// Who.
    pub principal: Principal,
    /// What.
    pub permission: Permission,
    /// Where: a resource pattern, a principal pattern, or nothing.
    pub pattern: String,
    /// The incarnation of the scope it is bound to; none for wildcards and where no scope is concerned.
    pub scope_uid: Option<Uid>,
    /// When it was made.
    pub create_time: prost_types::Timestamp,
    /// Who made it.
    pub creator: String,
    /// Its record.
    pub at: At,
}

/// A token; the token itself is not stored.
pub struct TokenEntry {
    /// Names it.
    pub id: TokenId,
    /// The hash to compare.
    pub hash: Vec<u8>,
    /// Who bears it.
    pub principal: Principal,
    /// For a workload: the incarnation of its scope.
    pub scope_uid: Option<Uid>,
    /// When it was issued.
    pub create_time: prost_types::Timestamp,
    /// When it ends.
    pub expire_time: prost_types::Timestamp,
    /// Who issued it.
    pub issuer: String,
    /// Whether an operator did.
    pub by_operator: bool,
    /// What it is for.
    pub description: String,
    /// The store's epoch in which it was issued.
    pub epoch: Epoch,
    /// What makes it a start token.
    pub start: Option<StartToken>,
    /// The start token that it was exchanged for.
    pub start_id: Option<TokenId>,
    /// Its record.
    pub at: At,
}

/// What a start token has beyond other tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartToken {
    /// How long its session will be valid, in seconds.
    pub session_ttl_seconds: u64,
    /// SHA-256 of the nonce it was exchanged with; empty as long as it was not.
    pub nonce_hash: Vec<u8>,
    /// The session token that it was exchanged for.
    pub session_id: Option<TokenId>,
}

impl State {
    pub(super) fn new(keyring: Arc<Keyring>, position: Position) -> Self {
        Self {
            store: keyring.store(),
            position,
            keyring,
            header: None,
            rotation: None,
            system: None,
            digest: None,
            keys: HashMap::new(),
            scopes: BTreeMap::new(),
            grants: BTreeMap::new(),
            grant_ids: HashMap::new(),
            grants_by_principal: BTreeSet::new(),
            tokens: BTreeMap::new(),
            token_ids: HashMap::new(),
            declarations: BTreeMap::new(),
            patterns: BTreeMap::new(),
            starts: BTreeMap::new(),
            used: HashMap::new(),
            secrets: 0,
            memory_bytes: 0,
            soft_bytes: 0,
            soft_bytes_of: HashMap::new(),
        }
    }

    /// The position shown.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The store's identity.
    pub fn store(&self) -> Uid {
        self.store
    }

    /// The system's data key. Present once a store is loaded.
    pub fn system_key(&self) -> Option<&SystemKey> {
        self.system.as_ref()
    }

    /// The root keys.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// The header. Present once a store is loaded. Whatever makes a data key compares it, so that none is left under a
    /// root key of before.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// The last rotation of keys, if there ever was one.
    pub fn rotation(&self) -> Option<&Arc<RotationEntry>> {
        self.rotation.as_ref()
    }

    /// The number of the last rotation of data keys: the highest that is known of, so that the next one is above whatever
    /// was put back or left out.
    pub fn last_generation(&self) -> u32 {
        let recorded = self.rotation.as_ref().map_or(0, |rotation| rotation.generation);
        let system = self.system.as_ref().map_or(0, |system| system.key.generation());
        let scopes = self.keys.values().map(|scope| scope.key.generation()).max().unwrap_or_default();
        recorded.max(system).max(scopes)
    }

    /// Whether a token is of this time: a restore revives none of before it.
    pub fn is_of_now(&self, token: &TokenEntry) -> bool {
        token.epoch == self.position.epoch
    }

    /// About how many records there are that the system's key seals, without those of scopes.
    pub fn system_records(&self) -> usize {
        let declared = self.declarations.len() + self.patterns.len();
        self.grants.len() + self.tokens.len() + declared + self.starts.len() + self.used.len()
    }

    /// The key of environment revisions. Present once a store is loaded.
    pub fn digest_key(&self) -> Option<&Arc<DigestKey>> {
        self.digest.as_ref()
    }

    /// A scope, if it exists.
    pub fn scope(&self, name: &Scope) -> Option<&Arc<ScopeState>> {
        self.scopes.get(name)
    }

    /// A secret, if it exists.
    pub fn secret(&self, scope: &Scope, variable: &VariableName) -> Option<OwnedSecret> {
        let scope = self.scopes.get(scope)?;
        let entry = scope.secrets.get(variable)?;
        Some(OwnedSecret { scope: scope.clone(), entry: entry.clone(), variable: variable.clone() })
    }

    /// The scopes whose names begin with a prefix and come after `after`, in order.
    pub fn scopes_from<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&Scope>,
    ) -> impl Iterator<Item = &'a Arc<ScopeState>> + use<'a> {
        use std::ops::Bound;
        let start = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        self.scopes
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(name, _)| name.as_str().starts_with(prefix))
            .map(|(_, scope)| scope)
            .inspect(|_| tally::add())
    }

    /// Whether there is a scope below this one.
    pub fn has_scopes_below(&self, scope: &Scope) -> bool {
        let prefix = format!("{scope}/");
        self.scopes_from(&prefix, None).next().is_some()
    }

    /// A grant by what it says.
    pub fn grant(&self, pattern: &str, principal: &Principal, permission: Permission) -> Option<&Arc<Grant>> {
        self.grants.get(&record::key::grant(pattern, principal, permission))
    }

    /// A grant by its id.
    pub fn grant_by_id(&self, id: &str) -> Option<&Arc<Grant>> {
        self.grants.get(self.grant_ids.get(id)?)
    }

    /// The grants whose keys begin with a prefix and come after `after`, in order.
    pub fn grants_from<'a>(
        &'a self,
        prefix: &'a str,
        after: &str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Grant>)> + use<'a> {
        range(&self.grants, prefix, after)
    }

    /// The grants of a principal.
    pub fn grants_of<'a>(&'a self, principal: &Principal) -> impl Iterator<Item = &'a Arc<Grant>> + use<'a> {
        let principal = principal.to_string();
        self.grants_by_principal
            .range((principal.clone(), Key::new(""))..)
            .take_while(move |(name, _)| *name == principal)
            .filter_map(|(_, key)| self.grants.get(key))
            .inspect(|_| tally::add())
    }

    /// A token by its id.
    pub fn token(&self, id: &TokenId) -> Option<&Arc<TokenEntry>> {
        self.tokens.get(self.token_ids.get(id)?)
    }

    /// The tokens whose keys begin with a prefix and come after `after`, in order.
    pub fn tokens_from<'a>(
        &'a self,
        prefix: &'a str,
        after: &str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<TokenEntry>)> + use<'a> {
        range(&self.tokens, prefix, after)
    }

    /// About how much memory the records take, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// How many scopes, secrets, grants and tokens there are: kept, so that asking costs nothing.
    pub fn counts(&self) -> Counts {
        Counts {
            scopes: self.scopes.len(),
            secrets: self.secrets,
            grants: self.grants.len(),
            tokens: self.tokens.len(),
        }
    }
}

/// How much a state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Scopes.
    pub scopes: usize,
    /// Secrets.
    pub secrets: usize,
    /// Grants.
    pub grants: usize,
    /// Tokens.
    pub tokens: usize,
}

fn range<'a, T>(
    map: &'a BTreeMap<Key, T>,
    prefix: &'a str,
    after: &str,
) -> impl Iterator<Item = (&'a Key, &'a T)> + use<'a, T> {
    use std::ops::Bound;
    let start = if after >= prefix { Bound::Excluded(Key::new(after)) } else { Bound::Included(Key::new(prefix)) };
    let entries = map.range((start, Bound::Unbounded)).take_while(move |(key, _)| key.as_str().starts_with(prefix));
    entries.inspect(|_| tally::add())
}

impl ScopeState {
    /// Its secrets, each with what is needed to show or open it.
    pub fn owned_secrets(self: &Arc<Self>) -> impl Iterator<Item = OwnedSecret> + '_ {
        self.secrets.iter().map(|(variable, entry)| OwnedSecret {
            scope: self.clone(),
            entry: entry.clone(),
            variable: variable.clone(),
        })
    }
}

impl OwnedSecret {
    /// Opens the value. Only for a caller that may have it.
    pub fn open(&self, store: Uid) -> Result<SecretValue, record::Error> {
        self.entry.record.open_value(store, self.scope.uid, &self.scope.key, &self.entry.at.key)
    }

    /// Whether its value may be shown to readers.
    pub fn is_plain(&self) -> bool {
        self.entry.meta.kind == Kind::Plain
    }

    /// Its resource name.
    pub fn name(&self) -> coffer_proto::name::SecretName {
        coffer_proto::name::SecretName::new(self.scope.name.clone(), self.variable.clone())
    }
}
