//! A store, its key, an audit log in memory, and vaults on it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use async_trait::async_trait;
use coffer_proto::{
    name::{Permission, Principal, Scope, ScopePattern, SecretName, VariableName, Workload},
    token::Token,
    value::SecretValue,
};

use crate::{
    audit::{Audit, Event, Phase, Unavailable},
    clock::{Clock, SystemClock},
    record::{Kind, SharedWith},
    seal::{chain::Chain, source::KeyFile},
    store::{Store, memory::Memory},
    vault::{
        Call, Error, Limits, NewGrant, NewSecret, NewToken, OpenError, PageRequest, SecretChange, Sharing, ShownSecret,
        Vault, init,
    },
};

/// Lines kept, and a switch that takes the sink away.
#[derive(Default)]
pub(crate) struct Recorder {
    pub lines: Mutex<Vec<Event>>,
    pub broken: Mutex<bool>,
    /// How many lines more are taken before it breaks, if it does.
    pub lines_left: Mutex<Option<usize>>,
}

#[async_trait]
impl Audit for Recorder {
    async fn begin(&self, _: Chain) -> Result<(), Unavailable> {
        Ok(())
    }

    async fn record(&self, event: Event) -> Result<(), Unavailable> {
        if *self.broken.lock().expect("no panic before") {
            return Err(Unavailable);
        }
        if let Some(left) = &mut *self.lines_left.lock().expect("no panic before") {
            *left = left.checked_sub(1).ok_or(Unavailable)?;
        }
        self.lines.lock().expect("no panic before").push(event);
        Ok(())
    }
}

impl Recorder {
    pub(crate) fn phases(&self, method: &str) -> Vec<Phase> {
        let lines = self.lines.lock().expect("no panic before");
        lines.iter().filter(|line| line.method == method).map(|line| line.phase).collect()
    }
}

/// The system's clock, moved forward at will.
#[derive(Default)]
pub(crate) struct MovedClock {
    /// How much time passes beside what does.
    pub moved: Mutex<std::time::Duration>,
    /// By how much the wall clock alone was set forward.
    pub set: Mutex<std::time::Duration>,
}

impl Clock for MovedClock {
    fn now(&self) -> SystemTime {
        SystemClock.now() + *self.moved.lock().expect("no panic before") + *self.set.lock().expect("no panic before")
    }

    fn uptime(&self) -> std::time::Duration {
        SystemClock.uptime() + *self.moved.lock().expect("no panic before")
    }
}

pub(crate) struct World {
    pub store: Arc<dyn Store>,
    pub key: Arc<KeyFile>,
    pub audit: Arc<Recorder>,
    pub clock: Arc<MovedClock>,
    pub tokens: Mutex<HashMap<String, Token>>,
    _dir: tempfile::TempDir,
}

pub(crate) const OPERATOR: &str = "services/operator";

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(Arc::new(Memory::new())).await
    }

    pub(crate) async fn on(store: Arc<dyn Store>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let key = Arc::new(KeyFile::generate(&dir.path().join("key")).expect("a key"));
        let (audit, clock) = (Arc::<Recorder>::default(), Arc::<MovedClock>::default());
        let operator = Principal::parse(OPERATOR).expect("a principal");
        let token =
            init(store.clone(), key.as_ref(), audit.clone(), clock.clone(), &operator).await.expect("initialized");
        let tokens = Mutex::new(HashMap::from([(OPERATOR.to_owned(), token)]));
        Self { store, key, audit, clock, tokens, _dir: dir }
    }

    pub(crate) async fn vault(&self) -> Vault {
        self.open().await.expect("opens")
    }

    pub(crate) async fn vault_with_memory(&self, memory_bytes: u64) -> Vault {
        self.open_with(Limits { memory_bytes, sharing: Sharing::Own, calls: Default::default() }).await.expect("opens")
    }

    pub(crate) async fn open(&self) -> Result<Vault, OpenError> {
        self.open_with(Limits { memory_bytes: 1 << 30, sharing: Sharing::Own, calls: Default::default() }).await
    }

    /// A server of a store that others write to, too.
    pub(crate) async fn replica(&self, max_stale: std::time::Duration) -> Vault {
        self.open_with(Limits {
            memory_bytes: 1 << 30,
            sharing: Sharing::Shared { max_stale },
            calls: Default::default(),
        })
        .await
        .expect("opens")
    }

    async fn open_with(&self, limits: Limits) -> Result<Vault, OpenError> {
        Vault::open(self.store.clone(), self.key.clone(), self.audit.clone(), self.clock.clone(), limits).await
    }

    /// A call of somebody, who is given a token first if they have none.
    pub(crate) async fn call(&self, vault: &Vault, who: &str) -> Call {
        if !self.tokens.lock().expect("no panic before").contains_key(who) {
            let token = self.issue(vault, OPERATOR, who).await.expect("issued");
            self.tokens.lock().expect("no panic before").insert(who.to_owned(), token);
        }
        self.held(who)
    }

    /// A call with the token somebody was given.
    pub(crate) fn held(&self, who: &str) -> Call {
        let tokens = self.tokens.lock().expect("no panic before");
        let header = format!("Bearer {}", tokens[who].expose());
        Call::new("test", None, Some(header.as_bytes())).expect("randomness")
    }

    pub(crate) async fn issue(&self, vault: &Vault, issuer: &str, whom: &str) -> Result<Token, Error> {
        let call = Box::pin(self.call(vault, issuer)).await;
        let new = NewToken { ttl: None, description: String::new(), start: None };
        vault.issue_token(&call, principal(whom), Ok(new)).await.map(|issued| issued.token)
    }

    pub(crate) async fn grant(&self, vault: &Vault, whom: &str, permission: Permission, pattern: &str) -> String {
        let call = self.call(vault, OPERATOR).await;
        let new = NewGrant { principal: principal(whom), permission, pattern: pattern.to_owned() };
        vault.create_grant(&call, new).await.expect("granted").id.clone()
    }

    /// Takes the store's records out, in order.
    pub(crate) async fn records(&self) -> Vec<crate::store::Record> {
        let mut load = self.store.load().await.expect("loads");
        let mut records = Vec::new();
        while let Some(page) = load.page().await.expect("a page") {
            records.extend(page);
        }
        records
    }
}

pub(crate) fn principal(text: &str) -> Principal {
    Principal::parse(text).expect("a principal")
}

pub(crate) fn scope(text: &str) -> Scope {
    Scope::parse(text).expect("a scope")
}

pub(crate) fn workload(text: &str) -> Workload {
    Workload::parse(text).expect("a workload")
}

pub(crate) fn secret(text: &str) -> SecretName {
    SecretName::parse(text).expect("a secret")
}

pub(crate) fn value(text: &str) -> SecretValue {
    SecretValue::new(text.as_bytes().to_vec()).expect("a value")
}

pub(crate) fn new(name: &str, text: &str) -> NewSecret {
    NewSecret {
        variable: VariableName::parse(name).expect("a name"),
        value: value(text),
        kind: Kind::Encrypted,
        description: String::new(),
        sharing: None,
        locked: false,
        clonable: true,
        allowed_hosts: Vec::new(),
        allow_in_instructions: false,
    }
}

pub(crate) fn shared(name: &str, text: &str, sharing: SharedWith) -> NewSecret {
    NewSecret { sharing: Some(sharing), ..new(name, text) }
}

pub(crate) fn valued(text: &str) -> SecretChange {
    SecretChange { value: Some(value(text)), ..SecretChange::default() }
}

pub(crate) async fn list(vault: &Vault, call: &Call, parent: &str) -> Result<Vec<ShownSecret>, Error> {
    let page = PageRequest::new("ListSecrets", &[parent], 200, "");
    let parent = ScopePattern::parse(parent).expect("a pattern");
    vault.list_secrets(call, parent, page).await.map(|page| page.entries)
}

/// What a workload receives, by name.
pub(crate) async fn fetch(vault: &Vault, call: &Call, name: &str) -> Result<Vec<(String, String)>, Error> {
    let fetched = vault.fetch_environment(call, Some(workload(name)), "", crate::vault::Purpose::Start).await?;
    let text = |value: Option<SecretValue>| value.map(|value| value.expose().to_owned()).unwrap_or_default();
    Ok(fetched.variables.into_iter().map(|v| (v.source.variable().to_string(), text(v.value))).collect())
}
