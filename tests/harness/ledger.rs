//! Writers that know what was acknowledged, and compare it with what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use coffer_client::Client;
use coffer_proto::v1::{self, import_secrets_request::Conflict};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::secret;

/// Secrets written together: after a crash they must be equal.
const TOGETHER: [&str; 3] = ["SEQ_A", "SEQ_B", "SEQ_C"];
/// The number of secrets created one by one that a writer leaves standing.
const STANDING: u64 = 20;
/// Before a writer that goes on tries again.
const PAUSE: Duration = Duration::from_millis(20);

/// What a workload of a scope received: values and their versions.
pub(crate) type Found = BTreeMap<String, (u64, i64)>;

/// What one writer knows: numbers, because every value is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) scope: String,
    /// The last number whose import was tried.
    tried: u64,
    /// The last whose import was acknowledged.
    pub(crate) acknowledged: u64,
    /// Those that were refused by the server, which says that nothing happened.
    refused: BTreeSet<u64>,
    /// How many imports were acknowledged or found to have happened, and of how many since it is not known.
    happened: i64,
    unknown: i64,
    /// Counts steps that were acknowledged as a whole, for others to see.
    pub(crate) steps: Arc<AtomicU64>,
    /// Secrets made one by one: `true` if acknowledged as there, `false` if acknowledged as deleted, absent if the
    /// answer was lost.
    single: BTreeMap<u64, bool>,
    next: u64,
}

impl Ledger {
    /// So many, each for a scope of its own.
    pub(crate) fn several(count: usize) -> Vec<Self> {
        (0..count).map(|n| Self { scope: format!("projects/ledger-{n}"), ..Self::default() }).collect()
    }

    /// Writes until the server is gone.
    pub(crate) async fn write(mut self, client: Client) -> Self {
        while self.step(&client).await.map_err(expect_loss).is_ok() {}
        self
    }

    /// Writes until it is told that that is over, whatever servers and their store do meanwhile.
    pub(crate) async fn write_on(mut self, client: Client, is_over: Arc<AtomicBool>) -> Self {
        while !is_over.load(Ordering::Relaxed) {
            if let Err(status) = self.step(&client).await {
                expect_outage(&status);
                tokio::time::sleep(PAUSE).await;
            }
        }
        self
    }

    pub(crate) async fn step(&mut self, client: &Client) -> Result<(), Status> {
        self.tried += 1;
        let entry = |name: &&str| v1::ImportEntry {
            secret_id: (*name).to_owned(),
            value: self.tried.to_string().into_bytes(),
            ..Default::default()
        };
        let request = v1::ImportSecretsRequest {
            parent: self.scope.clone(),
            entries: TOGETHER.iter().map(entry).collect(),
            conflict: Conflict::Replace.into(),
            validate_only: false,
            sharing: None,
        };
        if let Err(status) = client.imports().import_secrets(request).await {
            if is_refused(&status) {
                self.refused.insert(self.tried);
            } else {
                self.unknown += 1;
            }
            return Err(status);
        }
        self.acknowledged = self.tried;
        self.happened += 1;

        let number = self.next;
        self.next += 1;
        let create = secret(&self.scope, &format!("N_{number}"), &number.to_string());
        let created = client.secrets().create_secret(create).await.map(drop);
        self.learn(number, created, true)?;
        if let Some(old) = number.checked_sub(STANDING)
            && self.single.get(&old) == Some(&true)
        {
            let name = format!("{}/secrets/N_{old}", self.scope);
            let delete = v1::DeleteSecretRequest { name, ..Default::default() };
            let deleted = client.secrets().delete_secret(delete).await.map(drop);
            self.learn(old, deleted, false)?;
        }
        self.steps.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes down what became of a single secret that was to be there, or not any more.
    fn learn(&mut self, number: u64, result: Result<(), Status>, is_there: bool) -> Result<(), Status> {
        match &result {
            Ok(()) => drop(self.single.insert(number, is_there)),
            Err(status) if is_refused(status) => drop(self.single.insert(number, !is_there)),
            Err(_) => drop(self.single.remove(&number)),
        }
        result
    }

    /// Compares with what a workload of the scope receives now, and takes over what had been left open.
    pub(crate) async fn settle(&mut self, injector: &Client) -> Found {
        let found = environment(injector, &self.scope).await;
        let together: Vec<_> = TOGETHER.iter().map(|name| found.get(*name).map_or(0, |(value, _)| *value)).collect();
        assert!(together.iter().all(|n| *n == together[0]), "{}: a torn import: {together:?}", self.scope);
        assert!(
            (self.acknowledged..=self.tried).contains(&together[0]),
            "{}: {} found, {} acknowledged, {} tried",
            self.scope,
            together[0],
            self.acknowledged,
            self.tried
        );
        assert!(!self.refused.contains(&together[0]), "{}: {} was refused", self.scope, together[0]);
        self.acknowledged = together[0];
        // Every import counts the version up by one.
        let versions = found.get(TOGETHER[0]).map_or(0, |(_, version)| *version);
        assert!(
            (self.happened..=self.happened + self.unknown).contains(&versions),
            "{}: {versions} imports, of which {} are known and {} possible",
            self.scope,
            self.happened,
            self.unknown
        );
        (self.happened, self.unknown) = (versions, 0);
        for number in 0..self.next {
            let there = found.get(&format!("N_{number}"));
            if let Some(there) = there {
                assert_eq!(*there, (number, 1), "{}: another's value, or written twice", self.scope);
            }
            match self.single.get(&number) {
                Some(expected) => assert_eq!(there.is_some(), *expected, "{}: N_{number} was acknowledged", self.scope),
                None => drop(self.single.insert(number, there.is_some())),
            }
        }
        found
    }
}

/// Whether the server says that nothing happened.
fn is_refused(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.get_error_details().error_info().is_some()
}

/// What a writer may be told while servers, or members of their store, are away.
fn expect_outage(status: &Status) {
    let outage = [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled, Code::DeadlineExceeded];
    assert!(outage.contains(&status.code()), "not the error of an outage: {status:?}");
}

/// A killed server answers nothing, in whatever words the transport has for that; every other error is a fault.
fn expect_loss(status: Status) {
    let lost = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled);
    assert!(lost, "not the error of a lost connection: {status:?}");
}

/// What a workload of a scope receives.
pub(crate) async fn environment(client: &Client, scope: &str) -> Found {
    let workload = format!("{scope}/servers/s");
    let request = v1::FetchEnvironmentRequest { workload, ..Default::default() };
    let answer = client.workloads().fetch_environment(request).await.expect("everything opens").into_inner();
    assert_eq!(answer.stale_since, None, "of now");
    let number =
        |value: Option<Vec<u8>>| String::from_utf8(value.expect("a value")).expect("text").parse().expect("a number");
    answer.variables.into_iter().map(|v| (v.name, (number(v.value), v.value_version))).collect()
}
