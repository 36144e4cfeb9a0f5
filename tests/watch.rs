//! WatchEnvironment on the real server: one test for each guarantee of the contract, by its name, and what ends a watch.
//!
//! A writer changes an environment and its parent at random and keeps a history of what the environment was; validators
//! hold what watches tell against it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use coffer_client::Client;
use coffer_proto::v1::{self, WatchEnvironmentResponse as Told};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use crate::harness::{Refusal, Server, refused, secret};

const PROJECT: &str = "projects/p";
const ENVIRONMENT: &str = "projects/p/environments/e";
const WORKLOAD: &str = "projects/p/environments/e/servers/s";
/// Far more than a message takes.
const LONG: Duration = Duration::from_secs(30);
/// Changes of one history.
const CHANGES: u32 = 120;

/// A server, who changes it and who watches. Both come over the unix socket, whose address survives restarts.
struct World {
    server: Server,
    manager: Client,
    service: Client,
}

impl World {
    async fn new() -> Self {
        let server = Server::start();
        for scope in [PROJECT, ENVIRONMENT] {
            server.grant("users/manager", "secrets:manage", scope).await;
            server.grant("services/watcher", "secrets:inject", scope).await;
        }
        let manager = server.socket_client(&server.token("users/manager").await);
        let service = server.socket_client(&server.token("services/watcher").await);
        Self { server, manager, service }
    }

    async fn create(&self, scope: &str, name: &str) {
        self.manager.secrets().create_secret(secret(scope, name, "v")).await.expect("created");
    }

    async fn set(&self, name: &str, value: &str) {
        let (name, value) = (name.to_owned(), Some(value.as_bytes().to_vec()));
        let request = v1::UpdateSecretRequest { name, value, ..Default::default() };
        self.manager.secrets().update_secret(request).await.expect("updated");
    }

    /// The revision now, without a start.
    async fn revision(&self) -> String {
        let request = v1::FetchEnvironmentRequest { workload: WORKLOAD.into(), dry_run: true, ..Default::default() };
        self.service.workloads().fetch_environment(request).await.expect("fetched").into_inner().environment_revision
    }

    async fn watch(&self, revision: &str) -> Streaming<Told> {
        watch(&self.service, WORKLOAD, revision).await.expect("a watch")
    }
}

async fn watch(client: &Client, workload: &str, revision: &str) -> Result<Streaming<Told>, Status> {
    let (workload, environment_revision) = (workload.to_owned(), revision.to_owned());
    let request = v1::WatchEnvironmentRequest { workload, environment_revision };
    client.workloads().watch_environment(request).await.map(tonic::Response::into_inner)
}

async fn next(stream: &mut Streaming<Told>) -> Result<Told, Status> {
    let told = timeout(LONG, stream.message()).await.expect("a message in time");
    told.map(|told| told.expect("a watch has no good end"))
}

/// How a watch ends that may have something to tell before.
async fn end(mut stream: Streaming<Told>) -> Refusal {
    loop {
        if let Err(status) = next(&mut stream).await {
            return Refusal::of(&status);
        }
    }
}

/// What each name of an environment was set to: where, and by which change.
type Names = BTreeMap<String, (usize, u32)>;

/// Every state of an environment, in order, with its revision.
#[derive(Default)]
struct History {
    scopes: [Names; 2],
    states: Vec<(String, Names)>,
    random: u64,
}

impl History {
    /// Changes one name at random, in the environment or in its project, and writes down what comes of it.
    async fn change(&mut self, world: &World, n: u32) {
        // xorshift64: the same changes in every run.
        self.random = self.random.max(0x9e37_79b9_7f4a_7c15);
        for shift in [13_i32, -7, 17] {
            self.random ^= if shift > 0 { self.random << shift } else { self.random >> -shift };
        }
        let (place, name) = (self.random as usize % 2, format!("NAME_{}", self.random / 2 % 6));
        let scope = [PROJECT, ENVIRONMENT][place];
        let full = format!("{scope}/secrets/{name}");
        let is_there = self.scopes[place].contains_key(&name);
        if is_there && (self.random / 12).is_multiple_of(3) {
            let request = v1::DeleteSecretRequest { name: full, ..Default::default() };
            world.manager.secrets().delete_secret(request).await.expect("deleted");
            self.scopes[place].remove(&name);
        } else {
            match is_there {
                true => world.set(&full, &n.to_string()).await,
                false => world.create(scope, &name).await,
            }
            self.scopes[place].insert(name, (place, n));
        }
        self.note(world).await;
    }

    async fn note(&mut self, world: &World) {
        let revision = world.revision().await;
        let mut effective = self.scopes[0].clone();
        effective.extend(self.scopes[1].clone());
        let last = self.states.last();
        let is_new = last.is_none_or(|(_, names)| *names != effective);
        assert_eq!(
            is_new,
            last.is_none_or(|(old, _)| *old != revision),
            "a revision changes when its environment does"
        );
        if is_new {
            self.states.push((revision, effective));
        }
    }

    fn last(&self) -> &str {
        &self.states.last().expect("a state").0
    }

    /// Where in the history a revision stands.
    fn position(&self, revision: &str) -> usize {
        self.states.iter().position(|(known, _)| known == revision).expect("a revision that there was")
    }

    /// The names that differ between two revisions, in order.
    fn changed(&self, old: &str, new: &str) -> Vec<String> {
        let (old, new) = (&self.states[self.position(old)].1, &self.states[self.position(new)].1);
        let names = old.keys().chain(new.keys()).collect::<std::collections::BTreeSet<_>>();
        names.into_iter().filter(|name| old.get(*name) != new.get(*name)).cloned().collect()
    }
}

/// What one watch told, and from which revision it began.
struct Watched {
    given: String,
    told: Vec<Told>,
}

impl Watched {
    fn last(&self) -> &str {
        self.told.last().map_or(&self.given, |told| &told.environment_revision)
    }

    /// Each revision with the one before it.
    fn steps(&self) -> impl Iterator<Item = (&str, &Told)> {
        let before =
            std::iter::once(self.given.as_str()).chain(self.told.iter().map(|t| t.environment_revision.as_str()));
        before.zip(&self.told)
    }
}

/// A history made while watches look on: the first from its beginning to its end, and one after the other if `breaks`
/// says after how many messages each ends.
async fn watched_history(world: &World, breaks: Option<usize>) -> (History, Vec<Watched>) {
    let mut history = History::default();
    world.create(ENVIRONMENT, "FIRST").await;
    history.scopes[1].insert("FIRST".into(), (1, 0));
    history.note(world).await;
    let first = history.last().to_owned();
    let (ended, mut end) = tokio::sync::watch::channel(None::<String>);
    let writer = async {
        for n in 1..=CHANGES {
            history.change(world, n).await;
        }
        ended.send_replace(Some(history.last().to_owned()));
        history
    };
    let watcher = async {
        let mut all = Vec::new();
        let mut given = first;
        loop {
            let mut stream = world.watch(&given).await;
            let mut watched = Watched { given, told: Vec::new() };
            while breaks.is_none_or(|most| watched.told.len() < most) {
                let is_last = end.borrow().as_deref() == Some(watched.last());
                if is_last {
                    all.push(watched);
                    return all;
                }
                tokio::select! {
                    told = next(&mut stream) => watched.told.push(told.expect("a message")),
                    _ = end.changed() => {}
                }
            }
            given = watched.last().to_owned();
            all.push(watched);
        }
    };
    let (history, all) = tokio::join!(writer, watcher);
    (history, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordered() {
    let world = World::new().await;
    let (history, watched) = watched_history(&world, None).await;
    let positions: Vec<_> = watched[0].told.iter().map(|told| history.position(&told.environment_revision)).collect();
    assert!(positions.len() > 10, "{positions:?}");
    assert!(positions.is_sorted(), "{positions:?}");
    for (before, told) in watched[0].steps() {
        assert!(!told.reset, "what was fetched or told is remembered");
        assert_eq!(told.changed_names, history.changed(before, &told.environment_revision));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_repeats() {
    let world = World::new().await;
    let (_, watched) = watched_history(&world, Some(3)).await;
    for (before, told) in watched.iter().flat_map(Watched::steps) {
        assert_ne!(before, told.environment_revision);
        assert!(!told.changed_names.is_empty(), "{told:?}");
    }
    // Nor is a change told that changes nothing: the next message is that of the change after it.
    let last = watched.last().expect("a watch").last().to_owned();
    let mut stream = world.watch(&last).await;
    world.set(&format!("{ENVIRONMENT}/secrets/FIRST"), "other").await;
    assert_eq!(next(&mut stream).await.expect("a message").changed_names, ["FIRST"]);
    let (name, description) = (format!("{ENVIRONMENT}/secrets/FIRST"), Some("a text".to_owned()));
    let request = v1::UpdateSecretRequest { name, description, ..Default::default() };
    world.manager.secrets().update_secret(request).await.expect("updated");
    world.create(PROJECT, "FIRST").await;
    world.create(PROJECT, "SECOND").await;
    assert_eq!(next(&mut stream).await.expect("a message").changed_names, ["SECOND"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn final_state() {
    let world = World::new().await;
    let (history, watched) = watched_history(&world, None).await;
    assert_eq!(watched[0].last(), history.last());
    // One change at a time, each waited for: none is missed between looking and listening.
    let mut stream = world.watch(history.last()).await;
    for n in 0..200 {
        world.set(&format!("{ENVIRONMENT}/secrets/FIRST"), &n.to_string()).await;
        let told = next(&mut stream).await.expect("a message");
        assert_eq!(told.environment_revision, world.revision().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resumable() {
    let mut world = World::new().await;
    let (history, watched) = watched_history(&world, Some(2)).await;
    assert!(watched.len() > 5, "{}", watched.len());
    assert_eq!(watched.last().expect("a watch").last(), history.last());
    for (before, told) in watched.iter().flat_map(Watched::steps) {
        assert!(!told.reset);
        assert_eq!(
            told.changed_names,
            history.changed(before, &told.environment_revision),
            "nothing between is missed"
        );
    }
    // Across a crash, with a change that nobody was there to be told of.
    let last = history.last().to_owned();
    let mut stream = world.watch(&last).await;
    world.server.kill_and_restart();
    assert!(next(&mut stream).await.is_err(), "it went with the server");
    world.set(&format!("{ENVIRONMENT}/secrets/FIRST"), "after").await;
    let told = next(&mut world.watch(&last).await).await.expect("a message");
    assert!(told.reset, "the names went with the server");
    let now = world.revision().await;
    assert_eq!(told.environment_revision, now);
    let mut stream = world.watch(&now).await;
    world.create(ENVIRONMENT, "MORE").await;
    assert_eq!(next(&mut stream).await.expect("a message").changed_names, ["MORE"]);
}

#[tokio::test]
async fn level() {
    let world = World::new().await;
    let own = format!("{ENVIRONMENT}/secrets/KEY");
    let base = format!("{PROJECT}/secrets/KEY");
    world.create(PROJECT, "KEY").await;
    world.create(ENVIRONMENT, "KEY").await;
    let before = world.revision().await;
    let lock = async |locked| {
        let request = v1::UpdateSecretRequest { name: base.clone(), locked: Some(locked), ..Default::default() };
        world.manager.secrets().update_secret(request).await.expect("updated");
        world.revision().await
    };
    // Undone before anybody watches: there is nothing to tell.
    let locked = lock(true).await;
    assert_ne!(locked, before);
    assert_eq!(lock(false).await, before, "undone, it is the environment that it was");
    let mut stream = world.watch(&before).await;
    world.set(&own, "2").await;
    let second = next(&mut stream).await.expect("a message");
    assert_eq!((second.changed_names.as_slice(), second.reset), (&["KEY".to_owned()][..], false));
    // Undone while somebody does: both are told or none, and the state it ends with is known either way.
    for _ in 0..20 {
        lock(true).await;
        lock(false).await;
    }
    world.create(ENVIRONMENT, "END").await;
    let end = world.revision().await;
    let mut told = second.environment_revision;
    while told != end {
        let next = next(&mut stream).await.expect("a message").environment_revision;
        assert_ne!(next, told);
        told = next;
    }
}

#[tokio::test]
async fn a_revision_that_is_not_known_is_a_reset() {
    let world = World::new().await;
    world.create(ENVIRONMENT, "KEY").await;
    let now = world.revision().await;
    for unknown in ["", "0", "ffffffffffffffffffffffffffffffff", &"f".repeat(64), "no revision"] {
        let told = next(&mut world.watch(unknown).await).await.expect("a message");
        let expected = Told { environment_revision: now.clone(), changed_names: Vec::new(), reset: true };
        assert_eq!(told, expected, "{unknown:?}");
    }
    let refusal = refused(watch(&world.service, WORKLOAD, &"f".repeat(65)).await);
    assert_eq!((refusal.why(), refusal.field()), ((Code::InvalidArgument, "FIELD_INVALID"), "environment_revision"));
    let refusal = refused(watch(&world.service, "", "").await);
    assert_eq!((refusal.why(), refusal.field()), ((Code::InvalidArgument, "FIELD_INVALID"), "workload"));
    let refusal = refused(watch(&world.service, "projects/other/servers/s", &"f".repeat(65)).await);
    assert_eq!(refusal.why(), (Code::PermissionDenied, "PERMISSION_DENIED"), "rights come first");
}

#[tokio::test]
async fn it_ends_with_its_right_its_token_and_its_scope() {
    let world = World::new().await;
    world.create(ENVIRONMENT, "KEY").await;
    let operator = world.server.operator();
    let issuer = world.server.with("services/issuer", &[("workloads:issue", ENVIRONMENT)]).await;

    let token = world.server.issue(&issuer, WORKLOAD, None).await;
    let revoked = watch(&world.server.client(&token), "", "").await.expect("a watch");
    let name = format!("tokens/{}", token.split('_').nth(2).expect("an id"));
    operator.tokens().revoke_token(v1::RevokeTokenRequest { name: name.clone() }).await.expect_err("not an operator's");
    issuer.tokens().revoke_token(v1::RevokeTokenRequest { name }).await.expect("revoked");
    assert_eq!(end(revoked).await.why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"));

    let token = world.server.issue(&issuer, WORKLOAD, Some(Duration::from_secs(2))).await;
    let expired = watch(&world.server.client(&token), "", "").await.expect("a watch");
    assert_eq!(end(expired).await.why(), (Code::Unauthenticated, "CREDENTIAL_EXPIRED"), "though nothing happens");

    let pattern = "projects/p/environments/e/servers/s";
    let service = world.server.with("services/b", &[("secrets:inject", pattern)]).await;
    let denied = watch(&service, WORKLOAD, "").await.expect("a watch");
    let kept = world.watch("").await;
    let own = watch(&world.server.client(&world.server.issue(&issuer, WORKLOAD, None).await), "", "").await;
    let own = own.expect("a watch");
    let request = v1::ListGrantsRequest { principal: "services/b".into(), ..Default::default() };
    let grants = operator.access().list_grants(request).await.expect("listed").into_inner().grants;
    let request = v1::DeleteGrantRequest { name: grants[0].name.clone() };
    operator.access().delete_grant(request).await.expect("deleted");
    assert_eq!(end(denied).await.why(), (Code::PermissionDenied, "PERMISSION_DENIED"));

    let owner = world.server.with("users/owner", &[("access:manage", ENVIRONMENT)]).await;
    let request = v1::DeleteScopeRequest { name: ENVIRONMENT.into(), ..Default::default() };
    owner.scopes().delete_scope(request).await.expect("deleted");
    assert_eq!(end(own).await.why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"));
    assert_eq!(end(kept).await.why(), (Code::PermissionDenied, "PERMISSION_DENIED"));
}

#[tokio::test]
async fn a_principal_has_eight_and_gets_a_place_back() {
    let world = World::new().await;
    let mut watches = Vec::new();
    for _ in 0..8 {
        watches.push(world.watch("").await);
    }
    assert_eq!(refused(watch(&world.service, WORKLOAD, "").await).why(), (Code::ResourceExhausted, "OVERLOADED"));
    world.revision().await;
    let other = world.server.with("services/other", &[("secrets:inject", ENVIRONMENT)]).await;
    watch(&other, WORKLOAD, "").await.expect("places are each principal's own");
    drop(watches.pop());
    let start = Instant::now();
    while watch(&world.service, WORKLOAD, "").await.is_err() {
        assert!(start.elapsed() < LONG, "the place is not given back");
    }
}

#[tokio::test]
async fn it_ends_at_once_when_the_server_does() {
    let mut world = World::new().await;
    world.create(ENVIRONMENT, "KEY").await;
    let streams = [world.watch("").await, world.watch(&world.revision().await).await];
    let start = Instant::now();
    let (status, ends) = tokio::join!(world.server.stop(), async {
        let [one, other] = streams;
        [end(one).await, end(other).await]
    });
    assert_eq!(status.code(), Some(0));
    for end in ends {
        assert_eq!(end.why(), (Code::Unavailable, "SHUTTING_DOWN"));
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn its_beginning_is_in_the_audit_log() {
    let world = World::new().await;
    world.create(ENVIRONMENT, "KEY").await;
    next(&mut world.watch("").await).await.expect("a message");
    let lines: Vec<_> = world.server.audit().into_iter().map(|line| line.to_string()).collect();
    let of_watch: Vec<_> = lines.iter().filter(|line| line.contains("Workloads/WatchEnvironment")).collect();
    assert_eq!(of_watch.len(), 1, "{of_watch:?}");
    assert!(of_watch[0].contains(WORKLOAD), "{of_watch:?}");
}
