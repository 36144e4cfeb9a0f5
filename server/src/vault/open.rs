//! Makes a store a vault's, and opens it.

use std::{
    hash::RandomState,
    sync::{Arc, Weak},
    time::SystemTime,
};

use prost::Message as _;
use tokio::sync::watch;

use coffer_proto::{
    limits,
    name::{Permission, Principal},
    token::Token,
};

use super::{
    Inner, LOCKS, Serves, Sharing, Vault,
    budget::{Budgets, CallRates},
    expiry, fresh,
    refusals::{self, Refusals},
    soft,
    tokens::token_kind,
};
use crate::{
    audit::{Audit, Event, Phase, Subject, reached::PutBack},
    clock::Clock,
    record::{GrantRecord, TokenRecord, TokenSecretHash, key, seal_system},
    seal::{DataKey, NoRandomness, Uid, chain::Chain, digest::DigestKey, header, hex, source::KeySource},
    store::{self, Change, Conflict, Epoch, Expect, Key, Position, Store, Transaction},
    view::{self, LoadError, View},
};

/// What a vault may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The records in memory may take about this much, in bytes; creates beyond it are refused.
    pub memory_bytes: u64,
    /// Whose the store is.
    pub sharing: Sharing,
    /// What principals may call.
    pub calls: CallRates,
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
    /// It ends before what its audit log says of it.
    #[error(transparent)]
    PutBack(#[from] PutBack),
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
    check_operator(operator)?;
    if store.load().await?.page().await?.is_some() {
        return Err(OpenError::NotEmpty);
    }
    let (keyring, header) = header::create(source).await.map_err(LoadError::from)?;
    audit.begin(Chain::begin(&keyring, &header)?).await?;
    let (system, sealed_system) = keyring.create_data_key(key::SYSTEM_KEY, Uid::NONE, 0)?;
    let now = clock.now();
    let epoch = store.latest().await?.epoch;
    let admitted = Admitted::new(keyring.store(), &system, operator, (now, epoch), true)?;
    let header_key = Key::new(key::HEADER);
    let digest_key = Key::new(key::DIGEST);
    let digest = seal_system(keyring.store(), &system, &digest_key, DigestKey::generate()?.to_sealable())?;
    let mut changes = vec![
        Change::Put(header_key.clone(), header.into()),
        Change::Put(Key::new(key::SYSTEM_KEY), sealed_system.into()),
        Change::Put(digest_key, digest.into()),
    ];
    changes.extend(admitted.changes);
    let lines = Lines { audit: audit.as_ref(), method: INIT, now, operator, token: &admitted.token };
    let committed = lines.around(store.as_ref(), epoch, vec![(header_key, Expect::Absent)], changes).await?;
    committed.map_err(|_conflict| OpenError::NotEmpty)?;
    Ok(admitted.token)
}

/// Makes somebody an operator and issues them a token, valid for 30 days, without anybody's permission: for whoever has
/// the store and its key, when no operator has a token any more. Nothing else may have the store open.
pub async fn admit_operator(
    store: Arc<dyn Store>,
    source: Arc<dyn KeySource>,
    audit: Arc<dyn Audit>,
    clock: Arc<dyn Clock>,
    operator: &Principal,
) -> Result<Token, OpenError> {
    check_operator(operator)?;
    let (view, chain) = view::follow(store.clone(), source).await?.ok_or(OpenError::Empty)?;
    check_log(&view, audit.as_ref()).await?;
    audit.begin(chain).await?;
    let now = clock.now();
    let (admitted, system, epoch) = {
        let state = view.read();
        let system = state.system_key().ok_or(OpenError::Empty)?;
        let is_new = state.grant("", operator, Permission::Operator).is_none();
        let epoch = state.position().epoch;
        let admitted = Admitted::new(state.store(), &system.key, operator, (now, epoch), is_new)?;
        (admitted, system.at.clone(), epoch)
    };
    let lines = Lines { audit: audit.as_ref(), method: ADMIT, now, operator, token: &admitted.token };
    let committed =
        lines.around(store.as_ref(), epoch, vec![(system.key, Expect::At(system.revision))], admitted.changes).await?;
    committed.map_err(|_conflict| OpenError::NotEmpty)?;
    Ok(admitted.token)
}

/// Refuses a store that its audit log knows to have been further.
async fn check_log(view: &View, audit: &dyn Audit) -> Result<(), PutBack> {
    let (store, position) = {
        let state = view.read();
        (state.store(), state.position())
    };
    PutBack::check(position, audit.reached(store).await)
}

fn check_operator(operator: &Principal) -> Result<(), OpenError> {
    if operator.as_workload().is_some() { Err(OpenError::NoOperator) } else { Ok(()) }
}

/// A new operator's records.
struct Admitted {
    token: Token,
    changes: Vec<Change>,
}

impl Admitted {
    fn new(
        store: Uid,
        system: &DataKey,
        operator: &Principal,
        (now, epoch): (SystemTime, Epoch),
        is_new: bool,
    ) -> Result<Self, NoRandomness> {
        let token = Token::generate(token_kind(operator));
        let issued = TokenRecord {
            id: token.id().to_string(),
            hash: TokenSecretHash::of(&token).to_stored(),
            principal: operator.to_string(),
            scope_uid: Vec::new(),
            create_time: Some(now.into()),
            expire_time: Some((now + limits::SERVICE_TOKEN_TTL_DEFAULT).into()),
            issuer: ISSUER.to_owned(),
            description: "of an operator".to_owned(),
            by_operator: true,
            session_ttl_seconds: 0,
            nonce_hash: Vec::new(),
            session_id: String::new(),
            start_id: String::new(),
            epoch: epoch.0,
        };
        let put = |key: Key, plaintext: &[u8]| -> Result<Change, NoRandomness> {
            let sealed = seal_system(store, system, &key, plaintext)?;
            Ok(Change::Put(key, sealed.into()))
        };
        let mut changes = vec![put(key::token(operator, token.id()), &issued.encode_to_vec())?];
        if is_new {
            let grant = GrantRecord {
                id: hex(&Uid::random()?.0),
                principal: operator.to_string(),
                permission: Permission::Operator.to_string(),
                pattern: String::new(),
                scope_uid: Vec::new(),
                create_time: Some(now.into()),
                creator: ISSUER.to_owned(),
            };
            changes.push(put(key::grant("", operator, Permission::Operator), &grant.encode_to_vec())?);
        }
        Ok(Self { token, changes })
    }
}

/// Who made the first operator, and every one made without a permission: the server's own command.
const ISSUER: &str = "coffer-server";
const INIT: &str = "coffer-server/init";
const ADMIT: &str = "coffer-server/operator";

/// The audit lines around a change that nobody called for over the wire.
struct Lines<'a> {
    audit: &'a dyn Audit,
    method: &'static str,
    now: SystemTime,
    operator: &'a Principal,
    token: &'a Token,
}

impl Lines<'_> {
    /// Commits between the lines.
    async fn around(
        &self,
        store: &dyn Store,
        epoch: Epoch,
        expectations: Vec<(Key, Expect)>,
        changes: Vec<Change>,
    ) -> Result<Result<Position, Conflict>, OpenError> {
        let call = Uid::random()?;
        self.audit.record(self.line(call, Phase::Intent, None)).await?;
        let transaction = Transaction::decided(epoch, expectations, changes).map_err(|_| NoRandomness)?;
        let committed = store.commit(transaction).await?;
        if let Ok(position) = &committed {
            self.audit.record(self.line(call, Phase::Done, Some(position.to_string()))).await?;
        }
        Ok(committed)
    }

    fn line(&self, call: Uid, phase: Phase, position: Option<String>) -> Event {
        Event {
            subjects: vec![Subject { name: self.operator.to_string(), uid: None, version: None }],
            details: vec![("token", self.token.id().to_string())],
            leads_to_values: true,
            position,
            ..Event::of_server(self.now, call.0, phase, self.method)
        }
    }
}

impl Vault {
    /// Opens a store: loads the view and follows it, in tasks that end with the vault.
    pub async fn open(
        store: Arc<dyn Store>,
        source: Arc<dyn KeySource>,
        audit: Arc<dyn Audit>,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, OpenError> {
        // The view is as new as this, however long it is loaded.
        let began = (clock.uptime(), clock.now());
        let (view, chain) = view::follow(store.clone(), source).await?.ok_or(OpenError::Empty)?;
        check_log(&view, audit.as_ref()).await?;
        audit.begin(chain).await?;
        let opened = clock.now();
        let freshness = limits.sharing.freshness(began);
        let inner = Arc::new(Inner {
            store,
            view,
            audit,
            clock,
            limits,
            freshness,
            opened,
            locks: (0..LOCKS).map(|_| Arc::default()).collect(),
            line_hasher: RandomState::new(),
            budgets: Budgets::new(limits.calls),
            refusals: Refusals::default(),
            walks: super::walks::Walks::default(),
            soft: soft::Soft::default(),
            resolutions: Default::default(),
            rotations: Default::default(),
            serves: watch::Sender::new(Serves::Everything),
            keys: Default::default(),
        });
        tokio::spawn(watch_view(Arc::downgrade(&inner), inner.view.failure()));
        tokio::spawn(fresh::keep_looking(Arc::downgrade(&inner)));
        tokio::spawn(expiry::sweep(Arc::downgrade(&inner)));
        tokio::spawn(refusals::write_sums(Arc::downgrade(&inner)));
        tokio::spawn(soft::write_behind(Arc::downgrade(&inner)));
        let vault = Self(inner);
        vault.resume_rotation();
        Ok(vault)
    }
}

/// Says that calls cannot be served once the view has failed. Ends with the view.
async fn watch_view(vault: Weak<Inner>, failure: impl Future<Output = Option<view::Error>>) {
    if failure.await.is_some()
        && let Some(inner) = vault.upgrade()
    {
        inner.serves.send_replace(Serves::Nothing);
    }
}
