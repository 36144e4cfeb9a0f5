//! Records sealed under the system key: scopes, grants, tokens, the digest key.

use prost::Message;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use coffer_proto::token::Token;

use super::Error;
use crate::{
    seal::{DataKey, Field, NoRandomness, Place, Uid},
    store::Key,
};

/// A scope. Every write of a scope puts this record anew, and compares it.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeRecord {
    /// Unique for ever.
    #[prost(bytes = "vec", tag = "1")]
    pub uid: Vec<u8>,
    /// When its first secret or grant made it.
    #[prost(message, tag = "2")]
    pub create_time: Option<prost_types::Timestamp>,
}

/// A grant.
#[derive(Clone, PartialEq, Message)]
pub struct GrantRecord {
    /// Names it: `grants/{id}`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Who.
    #[prost(string, tag = "2")]
    pub principal: String,
    /// What.
    #[prost(string, tag = "3")]
    pub permission: String,
    /// Where.
    #[prost(string, tag = "4")]
    pub pattern: String,
    /// The incarnation of the scope it is bound to; empty for wildcards.
    #[prost(bytes = "vec", tag = "5")]
    pub scope_uid: Vec<u8>,
    /// When it was made.
    #[prost(message, tag = "6")]
    pub create_time: Option<prost_types::Timestamp>,
    /// Who made it.
    #[prost(string, tag = "7")]
    pub creator: String,
}

/// A token. Its secret part is not here: only its hash.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct TokenRecord {
    /// Names it: `tokens/{id}`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// SHA-256 of the whole token, which has 256 random bits: nothing slower is needed.
    #[prost(bytes = "vec", tag = "2")]
    pub hash: Vec<u8>,
    /// Who bears it.
    #[prost(string, tag = "3")]
    pub principal: String,
    /// The incarnation of its workload's scope; empty for users and services.
    #[prost(bytes = "vec", tag = "4")]
    pub scope_uid: Vec<u8>,
    /// When it was issued.
    #[prost(message, tag = "5")]
    pub create_time: Option<prost_types::Timestamp>,
    /// When it ends.
    #[prost(message, tag = "6")]
    pub expire_time: Option<prost_types::Timestamp>,
    /// Who issued it.
    #[prost(string, tag = "7")]
    pub issuer: String,
    /// What it is for.
    #[prost(string, tag = "8")]
    pub description: String,
    /// Whether an operator issued it: only then does it carry its bearer's rights as an operator.
    #[prost(bool, tag = "9")]
    pub by_operator: bool,
    /// A start token: how long its session will be valid, in seconds; 0 for every other token.
    #[prost(uint64, tag = "10")]
    pub session_ttl_seconds: u64,
    /// SHA-256 of the nonce that a start token was exchanged with; empty as long as it was not.
    #[prost(bytes = "vec", tag = "11")]
    pub nonce_hash: Vec<u8>,
    /// Of a start token that was exchanged: the id of the session token.
    #[prost(string, tag = "12")]
    pub session_id: String,
    /// Of a session token: the id of the start token it was exchanged for.
    #[prost(string, tag = "13")]
    pub start_id: String,
    /// The store's epoch in which it was issued: after a restore it is nobody's.
    #[prost(uint64, tag = "14")]
    pub epoch: u64,
}

/// The hash of a presented token, compared in constant time.
#[derive(Clone)]
pub struct TokenSecretHash([u8; 32]);

impl TokenSecretHash {
    /// Of a token.
    pub fn of(token: &Token) -> Self {
        Self(Sha256::digest(token.expose().as_bytes()).into())
    }

    /// Whether it is the stored one.
    pub fn matches(&self, stored: &[u8]) -> bool {
        self.0.ct_eq(stored).into()
    }

    /// The bytes to store.
    pub fn to_stored(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

/// Seals a record's bytes under the system key, for its key.
pub fn seal_system(store: Uid, system: &DataKey, record: &Key, plaintext: &[u8]) -> Result<Vec<u8>, NoRandomness> {
    system.seal(&place(store, record), plaintext)
}

/// Opens a record sealed under the system key.
pub fn open_system(store: Uid, system: &DataKey, record: &Key, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    Ok(system.open(&place(store, record), sealed)?)
}

fn place(store: Uid, record: &Key) -> Place<'_> {
    Place {
        store,
        record: record.as_str(),
        scope: Uid::NONE,
        secret: Uid::NONE,
        field: Field::Record,
        kind: 0,
        version: 0,
    }
}
