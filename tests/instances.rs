//! ListInstances and WatchInstances on the real server: who was started with what, and who must be restarted.

use std::time::Duration;

use coffer_client::Client;
use coffer_proto::v1::{self, ListInstancesRequest, WatchInstancesResponse};
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::harness::{Server, refused, secret};

const WEB: &str = "projects/p/servers/web";
const JOB: &str = "projects/p/environments/e/sandboxes/job";
/// Far more than a message takes.
const LONG: Duration = Duration::from_secs(30);

/// A server with one project and its environment, somebody who manages both, and a service that starts workloads.
struct World {
    server: Server,
    manager: Client,
    starter: Client,
}

impl World {
    async fn new() -> Self {
        let server = Server::start();
        let manager = server.manager(&["projects/p", "projects/p/environments/e"]).await;
        let patterns = ["projects/-", "projects/-/environments/-"];
        let starter = server.with("services/starter", &patterns.map(|pattern| ("secrets:inject", pattern))).await;
        manager.secrets().create_secret(secret("projects/p", "KEY", "v")).await.expect("created");
        Self { server, manager, starter }
    }

    /// Starts a workload and gives the revision that it was started with.
    async fn start(&self, workload: &str) -> String {
        let request = v1::FetchEnvironmentRequest { workload: workload.into(), ..Default::default() };
        self.starter.workloads().fetch_environment(request).await.expect("fetched").into_inner().environment_revision
    }

    async fn set(&self, name: &str, value: &str) {
        let (name, value) = (name.to_owned(), Some(value.as_bytes().to_vec()));
        let request = v1::UpdateSecretRequest { name, value, ..Default::default() };
        self.manager.secrets().update_secret(request).await.expect("updated");
    }

    async fn page(&self, request: ListInstancesRequest) -> v1::ListInstancesResponse {
        self.manager.instances().list_instances(request).await.expect("listed").into_inner()
    }

    async fn watch(&self, parent: &str) -> Streaming<WatchInstancesResponse> {
        let request = v1::WatchInstancesRequest { parent: parent.into() };
        self.manager.instances().watch_instances(request).await.expect("a watch").into_inner()
    }
}

fn of(parent: &str) -> ListInstancesRequest {
    ListInstancesRequest { parent: parent.into(), ..Default::default() }
}

fn names(workloads: &[v1::WorkloadInstances]) -> Vec<&str> {
    workloads.iter().map(|known| known.workload.as_str()).collect()
}

async fn next(stream: &mut Streaming<WatchInstancesResponse>) -> WatchInstancesResponse {
    let told = timeout(LONG, stream.message()).await.expect("a message in time");
    told.expect("no end").expect("no end")
}

#[tokio::test]
async fn the_one_that_must_be_restarted_is_named_with_its_reason() {
    let mut world = World::new().await;
    let first = world.start(WEB).await;
    world.start(JOB).await;
    world.set("projects/p/secrets/KEY", "2").await;
    let second = world.start(JOB).await;
    assert_ne!(first, second);
    let page = world.page(of("projects/p")).await;
    assert_eq!(names(&page.workloads), [WEB], "of the scope itself, not of those below");
    let web = &page.workloads[0];
    assert!(web.restart_required);
    assert_eq!(web.changed_names, ["KEY"]);
    assert_eq!((web.instances.len(), web.instances[0].environment_revision.as_str()), (1, first.as_str()));
    assert_eq!(web.instances[0].principal, "services/starter");
    let job = world.page(of("projects/-/environments/-")).await.workloads;
    assert_eq!((names(&job), job[0].restart_required, job[0].instances.len()), (vec![JOB], false, 2));
    assert_eq!(job[0].instances[0].environment_revision, second, "newest first");

    // After a good end nothing is forgotten but the names that an old revision stood for.
    assert!(world.server.stop().await.success());
    world.server.run();
    let manager = world.server.manager(&[]).await;
    let page = manager.instances().list_instances(of("projects/p")).await.expect("listed").into_inner();
    assert_eq!(names(&page.workloads), [WEB]);
    assert_eq!((page.workloads[0].restart_required, page.workloads[0].changed_names.len()), (true, 0));
}

#[tokio::test]
async fn pages_follow_each_other_and_the_current_ones_can_be_left_out() {
    let world = World::new().await;
    let all: Vec<String> = (0..25).map(|n| format!("projects/p/servers/s{n:02}")).collect();
    for workload in &all {
        world.start(workload).await;
    }
    world.start("projects/p/sandboxes/box").await;
    world.set("projects/p/secrets/KEY", "2").await;
    for workload in all.iter().step_by(2) {
        world.start(workload).await;
    }
    for (restart_required, expected) in [
        (false, std::iter::once("projects/p/sandboxes/box").chain(all.iter().map(String::as_str)).collect::<Vec<_>>()),
        (
            true,
            std::iter::once("projects/p/sandboxes/box")
                .chain(all.iter().skip(1).step_by(2).map(String::as_str))
                .collect(),
        ),
    ] {
        let mut found = Vec::new();
        let mut request = ListInstancesRequest { page_size: 4, restart_required, ..of("projects/p") };
        loop {
            let page = world.page(request.clone()).await;
            assert!(page.workloads.len() <= 4);
            found.extend(page.workloads.into_iter().map(|known| known.workload));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(found, expected);
    }
    let servers = world.page(ListInstancesRequest { page_size: 100, ..of("projects/p/servers/-") }).await.workloads;
    assert_eq!(names(&servers), all);
    assert_eq!(names(&world.page(of("projects/p/servers/s07")).await.workloads), ["projects/p/servers/s07"]);
    assert!(world.page(of("projects/p/servers/never")).await.workloads.is_empty());
}

#[tokio::test]
async fn a_list_holds_what_the_caller_may_read_and_refuses_what_is_wrong() {
    let world = World::new().await;
    world.start(WEB).await;
    world.start("projects/secret/servers/s").await;
    assert_eq!(names(&world.page(of("projects/-")).await.workloads), [WEB]);
    assert_eq!(names(&world.page(of("projects/-/servers/-")).await.workloads), [WEB]);
    for parent in ["projects/secret", "projects/secret/servers/s", "projects/absent"] {
        let request = ListInstancesRequest { page_size: -1, ..of(parent) };
        let refusal = refused(world.manager.instances().list_instances(request).await);
        assert_eq!(refusal.why(), (Code::PermissionDenied, "PERMISSION_DENIED"), "{parent}");
        let request = v1::WatchInstancesRequest { parent: parent.into() };
        let refusal = refused(world.manager.instances().watch_instances(request).await);
        assert_eq!(refusal.why(), (Code::PermissionDenied, "PERMISSION_DENIED"), "{parent}");
    }
    for (request, field) in [
        (of("nonsense"), "parent"),
        (ListInstancesRequest { page_size: -1, ..of("projects/p") }, "page_size"),
        (ListInstancesRequest { page_token: "x".into(), ..of("projects/p") }, "page_token"),
    ] {
        let refusal = refused(world.manager.instances().list_instances(request).await);
        assert_eq!((refusal.code, refusal.field()), (Code::InvalidArgument, field));
    }
    // Nor do the starts count as anything that a workload's own token may read.
    let token = world.server.workload_token(WEB).await;
    let refusal = refused(world.server.client(&token).instances().list_instances(of("projects/p")).await);
    assert_eq!(refusal.why(), (Code::PermissionDenied, "PERMISSION_DENIED"));
}

#[tokio::test]
async fn a_watch_tells_all_and_then_what_changes() {
    let world = World::new().await;
    let all: Vec<String> = (0..450).map(|n| format!("projects/p/servers/s{n:03}")).collect();
    let starts = all.iter().map(|workload| world.start(workload));
    for start in starts {
        start.await;
    }
    let mut stream = world.watch("projects/p").await;
    let (mut found, mut messages) = (Vec::new(), 0);
    loop {
        let told = next(&mut stream).await;
        assert!(told.workloads.len() <= 200 && told.forgotten.is_empty());
        found.extend(told.workloads.into_iter().map(|known| known.workload));
        messages += 1;
        if told.synced {
            break;
        }
    }
    assert_eq!((found, messages), (all.clone(), 3));

    world.start("projects/p/servers/new").await;
    let told = next(&mut stream).await;
    assert_eq!((names(&told.workloads), told.synced), (vec!["projects/p/servers/new"], false), "once in a watch");
    world.set("projects/p/secrets/KEY", "2").await;
    let mut required = 0;
    while required <= all.len() {
        let told = next(&mut stream).await;
        assert!(told.workloads.iter().all(|known| known.restart_required && known.changed_names == ["KEY"]));
        assert!(told.workloads.iter().all(|known| known.instances.len() == 1), "the newest start only");
        required += told.workloads.len();
    }
    world.start(&all[7]).await;
    let told = next(&mut stream).await;
    assert_eq!((names(&told.workloads), told.workloads[0].restart_required), (vec![all[7].as_str()], false));
}

#[tokio::test]
async fn more_workloads_than_a_watch_may_have_are_refused() {
    let world = World::new().await;
    // A scope keeps 1,000 workloads: so many scopes are needed.
    for scope in 0..6 {
        // One principal has 256 calls at once.
        for batch in (0..1_000).collect::<Vec<_>>().chunks(64) {
            let starts = batch.iter().map(|n| world.start_later(format!("projects/many{scope}/servers/s{n}")));
            for start in starts.collect::<Vec<_>>() {
                start.await.expect("started");
            }
        }
        world.server.grant("users/manager", "secrets:read", &format!("projects/many{scope}")).await;
    }
    let request = v1::WatchInstancesRequest { parent: "projects/-".into() };
    let refusal = refused(world.manager.instances().watch_instances(request).await);
    assert_eq!(refusal.why(), (Code::FailedPrecondition, "TOO_MANY"));
    let mut one = world.watch("projects/many1").await;
    assert!(!next(&mut one).await.workloads.is_empty());
}

impl World {
    fn start_later(&self, workload: String) -> tokio::task::JoinHandle<()> {
        let starter = self.starter.clone();
        tokio::spawn(async move {
            let request = v1::FetchEnvironmentRequest { workload, ..Default::default() };
            starter.workloads().fetch_environment(request).await.expect("fetched");
        })
    }
}
