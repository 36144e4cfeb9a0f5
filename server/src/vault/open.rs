//! Makes a store a vault's, and opens it.

use std::{
    hash::RandomState,
    sync::{Arc, Weak},
};

use prost::Message as _;
use tokio::sync::{Mutex, watch};

use coffer_proto::{
    limits,
    name::{Permission, Principal},
    token::Token,
};

use super::{Inner, LOCKS, Vault, expiry, tokens::token_kind};
use crate::{
    audit::{Audit, Event, Phase, Subject},
    clock::Clock,
    record::{GrantRecord, TokenRecord, TokenSecretHash, key, seal_system},
    seal::{NoRandomness, Uid, digest::DigestKey, header, hex, source::KeySource},
    store::{self, Change, Expect, Key, Store, Transaction, TransactionId},
    view::{self, LoadError},
};

/// What a vault may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The records in memory may take about this much, in bytes; creates beyond it are refused.
    pub memory_bytes: u64,
}

/// Why a vault cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is something in the store already. A key is never made over existing data.
    #[error("the store is not empty; it stays as it is")]
    NotEmpty,
    /// There is nothing in the store.
    #[error("the store is empty: initialize it first")]
    Empty,
    /// An operator is a user or a service.
    #[error("the first operator must be users/{{id}} or services/{{id}}")]
    NoOperator,
    /// The header does not open, or is missing.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] crate::audit::Unavailable),
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Makes an empty store a vault's: its keys, its first operator, and that operator's first token, which is valid for
/// 30 days.
pub async fn init(
    store: Arc<dyn Store>,
    source: &dyn KeySource,
    audit: Arc<dyn Audit>,
    clock: Arc<dyn Clock>,
    operator: &Principal,
) -> Result<Token, OpenError> {
    if operator.as_workload().is_some() {
        return Err(OpenError::NoOperator);
    }
    if store.load().await?.page().await?.is_some() {
        return Err(OpenError::NotEmpty);
    }
    let (keyring, header) = header::create(source).await.map_err(LoadError::from)?;
    let (system, sealed_system) = keyring.create_data_key(key::SYSTEM_KEY, Uid::NONE)?;
    let now = clock.now();
    let token = Token::generate(token_kind(operator));
    let grant = GrantRecord {
        id: hex(&Uid::random()?.0),
        principal: operator.to_string(),
        permission: Permission::Operator.to_string(),
        pattern: String::new(),
        scope_uid: Vec::new(),
        create_time: Some(now.into()),
        creator: METHOD.to_owned(),
    };
    let issued = TokenRecord {
        id: token.id().to_string(),
        hash: TokenSecretHash::of(&token).to_stored(),
        principal: operator.to_string(),
        scope_uid: Vec::new(),
        create_time: Some(now.into()),
        expire_time: Some((now + limits::SERVICE_TOKEN_TTL_DEFAULT).into()),
        issuer: METHOD.to_owned(),
        description: "first token".to_owned(),
    };
    let put = |key: Key, plaintext: &[u8]| -> Result<Change, NoRandomness> {
        let sealed = seal_system(keyring.store(), &system, &key, plaintext)?;
        Ok(Change::Put(key, sealed.into()))
    };
    let header_key = Key::new(key::HEADER);
    let changes = vec![
        Change::Put(header_key.clone(), header.into()),
        Change::Put(Key::new(key::SYSTEM_KEY), sealed_system.into()),
        put(Key::new(key::DIGEST), DigestKey::generate()?.to_sealable())?,
        put(key::grant("", operator, Permission::Operator), &grant.encode_to_vec())?,
        put(key::token(operator, token.id()), &issued.encode_to_vec())?,
    ];
    let event = |phase, position| Event {
        time: now,
        call: [0; 16],
        phase,
        method: METHOD,
        principal: String::new(),
        token: None,
        peer: None,
        subjects: vec![Subject { name: operator.to_string(), uid: None, version: None }],
        reason: None,
        details: vec![("token", token.id().to_string())],
        leads_to_values: false,
        values_leave: false,
        position,
    };
    audit.record(event(Phase::Intent, None)).await?;
    let id = TransactionId::random().map_err(|_| NoRandomness)?;
    let expectations = vec![(header_key, Expect::Absent)];
    let position =
        store.commit(Transaction { id, expectations, changes }).await?.map_err(|_conflict| OpenError::NotEmpty)?;
    audit.record(event(Phase::Done, Some(position.to_string()))).await?;
    Ok(token)
}

const METHOD: &str = "coffer-server/init";

impl Vault {
    /// Opens a store: loads the view and follows it, in tasks that end with the vault.
    pub async fn open(
        store: Arc<dyn Store>,
        source: &dyn KeySource,
        audit: Arc<dyn Audit>,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, OpenError> {
        let view = view::follow(store.clone(), source).await?.ok_or(OpenError::Empty)?;
        let inner = Arc::new(Inner {
            store,
            view,
            audit,
            clock,
            limits,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            line_hasher: RandomState::new(),
            healthy: watch::Sender::new(true),
        });
        tokio::spawn(watch_view(Arc::downgrade(&inner), inner.view.failure()));
        tokio::spawn(expiry::sweep(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }
}

/// Says that calls cannot be served once the view has failed. Ends with the view.
async fn watch_view(vault: Weak<Inner>, failure: impl Future<Output = Option<view::Error>>) {
    if failure.await.is_some()
        && let Some(inner) = vault.upgrade()
    {
        inner.healthy.send_replace(false);
    }
}
