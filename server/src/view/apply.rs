//! How changes become state. A record that does not open stops the view: damage is reported, never served.

use std::{collections::BTreeMap, sync::Arc};

use prost::Message as _;

use coffer_proto::{
    name::{Permission, Principal, Scope, VariableName},
    token::TokenId,
};

use super::{
    At, Error,
    state::{
        Grant, Header, RotatedKeys, RotationEntry, ScopeKey, ScopeState, SecretEntry, StartToken, State, SystemKey,
        TokenEntry,
    },
};
use crate::{
    record::{self, GrantRecord, RotationRecord, ScopeRecord, SecretMeta, SecretRecord, TokenRecord, key::Kind},
    seal::{DataKey, Keyring, Uid, digest::DigestKey},
    store::{Change, Commit, Epoch, Key, Record, Revision},
};

/// What an entry takes beside its record: maps, names, metadata, the store's own index and cache. A server with 274,000
/// secrets of 1 byte had 863 MB of resident memory, 3.1 kB each with the record.
pub const ENTRY_BYTES: u64 = 2_700;

impl State {
    /// Puts a commit's changes in, keys first, so that what they open is readable.
    pub(super) fn apply(&mut self, commit: &Commit) -> Result<(), Error> {
        let revision = commit.position.revision;
        let is_key = |change: &&Change| matches!(change, Change::Put(key, _) if record::key::comes_first(key));
        for change in commit.changes.iter().filter(is_key) {
            self.change(change, revision)?;
        }
        for change in commit.changes.iter().filter(|change| !is_key(change)) {
            self.change(change, revision)?;
        }
        self.check_keys_of(commit)?;
        self.position = commit.position;
        Ok(())
    }

    /// Puts loaded records in. Pages come in key order, in which keys precede what they open and scopes precede their
    /// secrets.
    pub(super) fn load(&mut self, page: Vec<Record>) -> Result<(), Error> {
        for record in page {
            self.put(record)?;
        }
        Ok(())
    }

    fn change(&mut self, change: &Change, revision: Revision) -> Result<(), Error> {
        match change {
            Change::Put(key, value) => self.put(Record { key: key.clone(), value: value.clone(), revision }),
            Change::Delete(key) => {
                self.delete(key, revision);
                Ok(())
            }
            Change::DeletePrefix(prefix) => {
                self.delete_prefix(prefix, revision);
                Ok(())
            }
        }
    }

    fn put(&mut self, record: Record) -> Result<(), Error> {
        let key = record.key.clone();
        self.put_record(record).map_err(|error| Error::Damaged { key, error })
    }

    fn put_record(&mut self, record: Record) -> Result<(), record::Error> {
        let at = At { key: record.key, revision: record.revision };
        let bytes = record.value;
        match record::key::parse(&at.key).ok_or(record::Error::NotUnderstood)? {
            // Opened before: it holds the root keys.
            Kind::Header => self.header = Some(Header { at, bytes }),
            Kind::SystemKey => {
                let (key, _) = self.keyring.open_data_key(at.key.as_str(), &bytes)?;
                let root = Keyring::root_of(&bytes).ok_or(record::Error::NotUnderstood)?;
                let key = kept(key, self.system.as_ref().map(|system| &system.key));
                self.system = Some(SystemKey { key, at, root });
            }
            Kind::Rotation => self.put_rotation(at, &bytes)?,
            Kind::Digest => {
                let plaintext = self.open(&at.key, &bytes)?;
                let key = DigestKey::from_slice(&plaintext).ok_or(record::Error::NotUnderstood)?;
                self.digest = Some(Arc::new(key));
            }
            Kind::ScopeKey(scope) => {
                let (key, uid) = self.keyring.open_data_key(at.key.as_str(), &bytes)?;
                let root = Keyring::root_of(&bytes).ok_or(record::Error::NotUnderstood)?;
                let key = kept(key, self.keys.get(&scope).map(|known| &known.key));
                self.keys.insert(scope, ScopeKey { key, uid, root });
            }
            Kind::Scope(name) => self.put_scope(name, at, &bytes)?,
            Kind::Secret(scope, variable) => self.put_secret(&scope, variable, at, bytes)?,
            Kind::Grant => self.put_grant(at, &bytes)?,
            Kind::Token => self.put_token(at, &bytes)?,
            Kind::Declaration(name) => self.put_declaration(name, at, &bytes)?,
            Kind::Pattern(_) => self.put_pattern(at, &bytes)?,
            Kind::Starts(_) => self.put_starts(&at.key, &bytes)?,
            Kind::Used(scope) => self.put_used(scope, &at.key, &bytes)?,
        }
        Ok(())
    }

    pub(super) fn open(&self, key: &Key, bytes: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, record::Error> {
        let system = self.system.as_ref().ok_or(record::Error::KeyMissing)?;
        record::open_system(self.store, &system.key, key, bytes)
    }

    fn put_rotation(&mut self, at: At, bytes: &[u8]) -> Result<(), record::Error> {
        let plaintext = self.open(&at.key, bytes)?;
        let understood = record::Error::NotUnderstood;
        let stored = RotationRecord::decode(plaintext.as_slice()).map_err(|_| understood)?;
        let keys = match stored.keys {
            1 => RotatedKeys::Root,
            2 => RotatedKeys::Data,
            _ => return Err(understood),
        };
        self.rotation = Some(Arc::new(RotationEntry {
            keys,
            generation: stored.generation,
            principal: stored.principal,
            start_time: stored.start_time.ok_or(understood)?,
            end_time: stored.end_time,
            done: stored.done,
            at,
        }));
        Ok(())
    }

    fn put_scope(&mut self, name: Scope, at: At, bytes: &[u8]) -> Result<(), record::Error> {
        let plaintext = self.open(&at.key, bytes)?;
        let stored = ScopeRecord::decode(plaintext.as_slice()).map_err(|_| record::Error::NotUnderstood)?;
        let uid = uid(&stored.uid)?.ok_or(record::Error::NotUnderstood)?;
        let create_time = stored.create_time.ok_or(record::Error::NotUnderstood)?;
        let key = self.keys.get(&name).filter(|key| key.uid == uid).ok_or(record::Error::KeyMissing)?.key.clone();
        // While it loads, the position is that of the load: what was deleted before it is not known.
        let changed = at.revision.max(self.position.revision);
        match self.scopes.get_mut(&name) {
            Some(scope) if scope.uid == uid => {
                let scope = Arc::make_mut(scope);
                scope.at = at;
                scope.changed = changed;
                scope.key = key;
            }
            _ => {
                self.memory_bytes += ENTRY_BYTES;
                let secrets = BTreeMap::new();
                let (name_of, value_bytes, plain) = (name.clone(), 0, 0);
                let scope =
                    ScopeState { name: name_of, uid, create_time, at, changed, key, secrets, value_bytes, plain };
                if let Some(old) = self.scopes.insert(name, Arc::new(scope)) {
                    self.secrets -= old.secrets.len();
                }
            }
        }
        Ok(())
    }

    fn put_secret(
        &mut self,
        scope: &Scope,
        variable: VariableName,
        at: At,
        bytes: Arc<[u8]>,
    ) -> Result<(), record::Error> {
        let changed = at.revision.max(self.position.revision);
        let scope = Arc::make_mut(self.scopes.get_mut(scope).ok_or(record::Error::KeyMissing)?);
        scope.changed = changed;
        let record = SecretRecord::from_stored(bytes);
        let meta = record.open_metadata(self.store, scope.uid, &scope.key, &at.key)?;
        self.memory_bytes += entry_bytes(&record, &meta);
        scope.value_bytes += meta.value_bytes;
        scope.plain += u64::from(meta.kind == record::Kind::Plain);
        self.secrets += 1;
        if let Some(old) = scope.secrets.insert(variable, Arc::new(SecretEntry { meta, record, at })) {
            self.secrets -= 1;
            self.memory_bytes -= entry_bytes(&old.record, &old.meta);
            scope.value_bytes -= old.meta.value_bytes;
            scope.plain -= u64::from(old.meta.kind == record::Kind::Plain);
        }
        Ok(())
    }

    fn put_grant(&mut self, at: At, bytes: &[u8]) -> Result<(), record::Error> {
        let plaintext = self.open(&at.key, bytes)?;
        let stored = GrantRecord::decode(plaintext.as_slice()).map_err(|_| record::Error::NotUnderstood)?;
        let understood = record::Error::NotUnderstood;
        let grant = Grant {
            principal: Principal::parse(&stored.principal).map_err(|_| understood)?,
            permission: Permission::parse(&stored.permission).map_err(|_| understood)?,
            scope_uid: uid(&stored.scope_uid)?,
            create_time: stored.create_time.ok_or(understood)?,
            id: stored.id,
            pattern: stored.pattern,
            creator: stored.creator,
            at,
        };
        let key = grant.at.key.clone();
        self.delete_grant(&key);
        self.memory_bytes += ENTRY_BYTES;
        self.grant_ids.insert(grant.id.clone(), key.clone());
        self.grants_by_principal.insert((grant.principal.to_string(), key.clone()));
        self.grants.insert(key, Arc::new(grant));
        Ok(())
    }

    fn put_token(&mut self, at: At, bytes: &[u8]) -> Result<(), record::Error> {
        let plaintext = self.open(&at.key, bytes)?;
        let stored = TokenRecord::decode(plaintext.as_slice()).map_err(|_| record::Error::NotUnderstood)?;
        let understood = record::Error::NotUnderstood;
        let token = TokenEntry {
            id: TokenId::parse(&stored.id).map_err(|_| understood)?,
            principal: Principal::parse(&stored.principal).map_err(|_| understood)?,
            scope_uid: uid(&stored.scope_uid)?,
            create_time: stored.create_time.ok_or(understood)?,
            expire_time: stored.expire_time.ok_or(understood)?,
            hash: stored.hash,
            issuer: stored.issuer,
            by_operator: stored.by_operator,
            description: stored.description,
            epoch: Epoch(stored.epoch),
            start: (stored.session_ttl_seconds > 0).then_some(StartToken {
                session_ttl_seconds: stored.session_ttl_seconds,
                nonce_hash: stored.nonce_hash,
                session_id: token_id(&stored.session_id)?,
            }),
            start_id: token_id(&stored.start_id)?,
            at,
        };
        let key = token.at.key.clone();
        self.delete_token(&key);
        self.memory_bytes += ENTRY_BYTES;
        self.token_ids.insert(token.id.clone(), key.clone());
        self.tokens.insert(key, Arc::new(token));
        Ok(())
    }

    fn delete(&mut self, key: &Key, revision: Revision) {
        match record::key::parse(key) {
            Some(Kind::Scope(name)) => {
                if let Some(scope) = self.scopes.remove(&name) {
                    self.secrets -= scope.secrets.len();
                    self.memory_bytes -= ENTRY_BYTES;
                    self.memory_bytes -=
                        scope.secrets.values().map(|old| entry_bytes(&old.record, &old.meta)).sum::<u64>();
                }
            }
            Some(Kind::ScopeKey(name)) => {
                self.keys.remove(&name);
            }
            Some(Kind::Secret(scope, variable)) => {
                if let Some(scope) = self.scopes.get_mut(&scope)
                    && scope.secrets.contains_key(&variable)
                    && let Some(old) = Arc::make_mut(scope).secrets.remove(&variable)
                {
                    let scope = Arc::make_mut(scope);
                    self.secrets -= 1;
                    scope.changed = revision;
                    scope.value_bytes -= old.meta.value_bytes;
                    scope.plain -= u64::from(old.meta.kind == record::Kind::Plain);
                    self.memory_bytes -= entry_bytes(&old.record, &old.meta);
                }
            }
            Some(Kind::Grant) => self.delete_grant(key),
            Some(Kind::Token) => self.delete_token(key),
            Some(Kind::Declaration(_)) => self.delete_declaration(key),
            Some(Kind::Pattern(_)) => self.delete_pattern(key),
            Some(Kind::Starts(_)) => self.delete_starts(key),
            Some(Kind::Used(scope)) => self.delete_used(&scope),
            // Never deleted by coffer; should they be, nothing more can be opened, and the next start says so.
            Some(Kind::Header | Kind::Digest | Kind::SystemKey | Kind::Rotation) | None => {}
        }
    }

    /// Prefixes are those of `record::key`: the secrets of a scope, and of all kinds whose keys the view holds in order.
    fn delete_prefix(&mut self, prefix: &Key, revision: Revision) {
        let text = prefix.as_str();
        let doomed: Vec<Key> = if let Some(scope) = text.strip_prefix("secret/").and_then(|rest| rest.strip_suffix(':'))
        {
            let scope = Scope::parse(scope).ok().and_then(|name| self.scopes.get(&name));
            scope.map(|scope| scope.secrets.values().map(|secret| secret.at.key.clone()).collect()).unwrap_or_default()
        } else if text.starts_with("grant/") {
            self.grants_from(text, "").map(|(key, _)| key.clone()).collect()
        } else if text.starts_with("token/") {
            self.tokens_from(text, "").map(|(key, _)| key.clone()).collect()
        } else if text.starts_with("start/") {
            self.starts_below(text)
        } else {
            self.declared_below(text)
        };
        doomed.iter().for_each(|key| self.delete(key, revision));
    }

    fn delete_grant(&mut self, key: &Key) {
        if let Some(old) = self.grants.remove(key) {
            self.memory_bytes -= ENTRY_BYTES;
            self.grant_ids.remove(&old.id);
            self.grants_by_principal.remove(&(old.principal.to_string(), key.clone()));
        }
    }

    fn delete_token(&mut self, key: &Key) {
        if let Some(old) = self.tokens.remove(key) {
            self.memory_bytes -= ENTRY_BYTES;
            self.token_ids.remove(&old.id);
        }
    }
}

/// A data key that was only wrapped anew stays the one in memory.
fn kept(key: DataKey, known: Option<&Arc<DataKey>>) -> Arc<DataKey> {
    known.filter(|known| known.is_same(&key)).map_or_else(|| Arc::new(key), Arc::clone)
}

/// The record as sealed, and its metadata once more as opened: at most the whole of it.
fn entry_bytes(record: &SecretRecord, meta: &SecretMeta) -> u64 {
    let metadata = (record.bytes().len() as u64).saturating_sub(meta.value_bytes);
    ENTRY_BYTES + record.bytes().len() as u64 + metadata
}

/// A token's id; none if there is none.
fn token_id(text: &str) -> Result<Option<TokenId>, record::Error> {
    let parse = |text| TokenId::parse(text).map_err(|_| record::Error::NotUnderstood);
    (!text.is_empty()).then(|| parse(text)).transpose()
}

/// An absent uid is stored as no bytes.
pub(super) fn uid(bytes: &[u8]) -> Result<Option<Uid>, record::Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    bytes.try_into().map(|bytes| Some(Uid(bytes))).map_err(|_| record::Error::NotUnderstood)
}
