//! Writers that know what was acknowledged, and compare it with what is there.

use std::collections::BTreeMap;

use coffer_client::Client;
use coffer_proto::v1::{self, import_secrets_request::Conflict};
use tonic::{Code, Status};

use super::secret;

/// Secrets written together: after a crash they must be equal.
const TOGETHER: [&str; 3] = ["SEQ_A", "SEQ_B", "SEQ_C"];
/// The number of secrets created one by one that a writer leaves standing.
const STANDING: u64 = 20;

/// What one writer knows: numbers, because every value is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) scope: String,
    /// The last number whose import was tried.
    tried: u64,
    /// The last whose import was acknowledged.
    pub(crate) acknowledged: u64,
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
        };
        client.imports().import_secrets(request).await?;
        self.acknowledged = self.tried;

        let number = self.next;
        self.next += 1;
        let create = secret(&self.scope, &format!("N_{number}"), &number.to_string());
        client.secrets().create_secret(create).await?;
        self.single.insert(number, true);
        if let Some(old) = number.checked_sub(STANDING)
            && self.single.get(&old) == Some(&true)
        {
            self.single.remove(&old);
            let name = format!("{}/secrets/N_{old}", self.scope);
            client.secrets().delete_secret(v1::DeleteSecretRequest { name, ..Default::default() }).await?;
            self.single.insert(old, false);
        }
        Ok(())
    }

    /// Compares with what a workload of the scope receives now, and takes over what had been left open.
    pub(crate) async fn settle(&mut self, injector: &Client) {
        let found = environment(injector, &self.scope).await;
        let together: Vec<_> = TOGETHER.iter().map(|name| found.get(*name).copied().unwrap_or(0)).collect();
        assert!(together.iter().all(|n| *n == together[0]), "{}: a torn import: {together:?}", self.scope);
        assert!(
            (self.acknowledged..=self.tried).contains(&together[0]),
            "{}: {} found, {} acknowledged, {} tried",
            self.scope,
            together[0],
            self.acknowledged,
            self.tried
        );
        self.acknowledged = together[0];
        for number in 0..self.next {
            let there = found.get(&format!("N_{number}"));
            if let Some(value) = there {
                assert_eq!(*value, number, "{}: another's value", self.scope);
            }
            match self.single.get(&number) {
                Some(expected) => assert_eq!(there.is_some(), *expected, "{}: N_{number} was acknowledged", self.scope),
                None => drop(self.single.insert(number, there.is_some())),
            }
        }
    }
}

/// A killed server answers nothing, in whatever words the transport has for that; every other error is a fault.
fn expect_loss(status: Status) {
    let lost = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled);
    assert!(lost, "not the error of a lost connection: {status:?}");
}

async fn environment(client: &Client, scope: &str) -> BTreeMap<String, u64> {
    let workload = format!("{scope}/servers/s");
    let request = v1::FetchEnvironmentRequest { workload, ..Default::default() };
    let answer = client.workloads().fetch_environment(request).await.expect("everything opens").into_inner();
    let number =
        |value: Option<Vec<u8>>| String::from_utf8(value.expect("a value")).expect("text").parse().expect("a number");
    answer.variables.into_iter().map(|v| (v.name, number(v.value))).collect()
}
