//! Streams over real sockets with short limits: who reads too slowly, who goes away, and what is left of them.

use std::time::{Duration, Instant};

use coffer_proto::{
    name::Permission,
    v1::{self, WatchEnvironmentResponse, workloads_client::WorkloadsClient},
};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    config::ListenAddress,
    serve::{Limits, Listener, serve},
    vault::{
        Purpose, Vault,
        tests::world::{World, new, scope, secret, valued, workload},
    },
};

const SHORT: Duration = Duration::from_millis(200);
/// Far more than anything here takes; only a broken server waits so long.
const LONG: Duration = Duration::from_secs(20);
const SERVER: &str = "projects/p/servers/s";
const SERVICE: &str = "services/s";
const USER: &str = "users/a";
/// What a client reads ahead of its caller, in bytes.
const WINDOW: u32 = 1_000;
/// Secrets whose names take far more than that.
const NAMES: usize = 100;

struct Running {
    world: World,
    vault: Vault,
    endpoint: Endpoint,
    /// What the service was handed before there was anything.
    nothing: String,
    stage: watch::Sender<Stage>,
}

async fn start(limits: Limits) -> Running {
    let world = World::new().await;
    let vault = world.vault().await;
    world.grant(&vault, SERVICE, Permission::SecretsInject, "projects/p").await;
    world.grant(&vault, USER, Permission::SecretsManage, "projects/p").await;
    let service = world.call(&vault, SERVICE).await;
    let fetched = vault.fetch_environment(&service, Some(workload(SERVER)), "", Purpose::Start).await.expect("fetched");
    let user = world.call(&vault, USER).await;
    for n in 0..NAMES {
        let name = format!("{}_{n}", "N".repeat(100));
        vault.create_secret(&user, scope("projects/p"), Ok(new(&name, "v"))).await.expect("created");
    }
    let listener = Listener::bind(&"127.0.0.1:0".parse().expect("an address")).await.expect("binds");
    let ListenAddress::Tcp(address) = *listener.address() else { panic!("a TCP address") };
    let (stage, followed) = watch::channel(Stage::Serving);
    tokio::spawn(serve(vec![listener], crate::api::routes(vault.clone(), followed.clone()), limits, None, followed));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
    Running { world, vault, endpoint: endpoint.initial_stream_window_size(WINDOW), nothing: fetched.revision, stage }
}

impl Running {
    async fn connect(&self) -> Option<WorkloadsClient<Channel>> {
        self.endpoint.connect().await.ok().map(WorkloadsClient::new)
    }

    async fn watch(
        &self,
        client: &mut WorkloadsClient<Channel>,
        revision: &str,
    ) -> Result<Streaming<WatchEnvironmentResponse>, Status> {
        let (workload, environment_revision) = (SERVER.to_owned(), revision.to_owned());
        let mut request = Request::new(v1::WatchEnvironmentRequest { workload, environment_revision });
        let token = self.world.tokens.lock().expect("no panic before")[SERVICE].expose().to_owned();
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
        client.watch_environment(request).await.map(Response::into_inner)
    }

    async fn set(&self, name: &str, value: &str) {
        let user = self.world.call(&self.vault, USER).await;
        let name = secret(&format!("projects/p/secrets/{name}"));
        self.vault.update_secret(&user, name, String::new(), Ok(valued(value))).await.expect("updated");
    }

    /// Waits until nobody watches any more.
    async fn until_nobody_listens(&self) {
        let began = Instant::now();
        while self.vault.view().listening() > 0 {
            assert!(began.elapsed() < LONG, "a watch is still there");
            tokio::task::yield_now().await;
        }
    }
}

async fn next(stream: &mut Streaming<WatchEnvironmentResponse>) -> Result<WatchEnvironmentResponse, Status> {
    timeout(LONG, stream.message()).await.expect("in time").map(|message| message.expect("no good end"))
}

fn reason(status: &Status) -> (Code, String) {
    (status.code(), status.get_details_error_info().map(|info| info.reason).unwrap_or_default())
}

#[tokio::test]
async fn a_reader_too_slow_is_cut_off_and_goes_on_from_what_it_has() {
    let running = start(Limits { slow_reader: SHORT, ..Limits::new(10, 10) }).await;
    let mut client = running.connect().await.expect("connects");
    let began = Instant::now();
    let mut slow = running.watch(&mut client, &running.nothing).await.expect("a watch");
    running.until_nobody_listens().await;
    assert!(began.elapsed() >= SHORT, "it has its time");
    let told = next(&mut slow).await.expect("what was under way");
    assert_eq!((told.changed_names.len(), told.reset), (NAMES, false));
    let cut = next(&mut slow).await.expect_err("the end");
    assert_eq!(reason(&cut), (Code::ResourceExhausted, "READER_TOO_SLOW".to_owned()));
    let first = format!("{}_0", "N".repeat(100));
    running.set(&first, "2").await;
    let mut again = running.watch(&mut client, &told.environment_revision).await.expect("a watch");
    assert_eq!(next(&mut again).await.expect("told").changed_names, [first], "nothing was missed");
}

#[tokio::test]
async fn messages_do_not_pile_up_for_a_slow_reader() {
    let running = start(Limits::new(10, 10)).await;
    let mut client = running.connect().await.expect("connects");
    let mut slow = running.watch(&mut client, &running.nothing).await.expect("a watch");
    for n in 0..50 {
        running.set(&format!("{}_1", "N".repeat(100)), &n.to_string()).await;
    }
    let service = running.world.call(&running.vault, SERVICE).await;
    let now =
        running.vault.fetch_environment(&service, Some(workload(SERVER)), "", Purpose::DryRun).await.expect("fetched");
    let mut messages = 0;
    while {
        messages += 1;
        next(&mut slow).await.expect("told").environment_revision != now.revision
    } {}
    assert!(messages <= 2, "{messages}: the one that was under way, and the last state");
}

#[tokio::test]
async fn a_reader_that_never_reads_loses_its_connection() {
    // One connection at a time: the next is served when the first is closed.
    let limits = Limits { slow_reader: SHORT, answer: SHORT, ..Limits::new(10, 1) };
    let running = start(limits).await;
    let mut client = running.connect().await.expect("connects");
    let _slow = running.watch(&mut client, &running.nothing).await.expect("a watch");
    let served = async {
        loop {
            if let Some(mut other) = running.connect().await
                && running.watch(&mut other, "").await.is_ok()
            {
                return;
            }
        }
    };
    timeout(LONG, served).await.expect("the place is given back");
}

#[tokio::test]
async fn a_reader_that_goes_away_leaves_nothing() {
    let running = start(Limits::new(10, 10)).await;
    let mut client = running.connect().await.expect("connects");
    let idle = {
        let mut idle = running.watch(&mut client, "").await.expect("a watch");
        next(&mut idle).await.expect("told");
        idle
    };
    let stuck = running.watch(&mut client, &running.nothing).await.expect("a watch");
    assert!(running.vault.view().listening() > 0);
    drop((idle, stuck));
    running.until_nobody_listens().await;
    let _kept = running.watch(&mut client, "").await.expect("a watch");
    drop(client);
    running.stage.send_replace(Stage::Draining);
    running.until_nobody_listens().await;
}

#[tokio::test]
async fn whoever_waits_is_not_seen_as_slow() {
    let running = start(Limits { slow_reader: SHORT, ..Limits::new(10, 10) }).await;
    let mut client = running.connect().await.expect("connects");
    let mut idle = running.watch(&mut client, "").await.expect("a watch");
    next(&mut idle).await.expect("told");
    assert!(timeout(SHORT * 3, idle.message()).await.is_err(), "nothing comes, not even an end");
    running.set(&format!("{}_2", "N".repeat(100)), "2").await;
    assert_eq!(next(&mut idle).await.expect("told").changed_names.len(), 1);
}

#[tokio::test]
async fn a_panic_ends_the_stream_with_an_error() {
    let (_stage, stage) = watch::channel(Stage::Serving);
    let opening = Opening { taken: Taken::alone(LONG), stage };
    let stream = opening.begin(|_: Outlet<()>| async { panic!("a mistake") });
    let mut messages = stream.into_inner();
    let end = timeout(LONG, messages.next()).await.expect("in time").expect("an end").expect_err("an error");
    assert_eq!(reason(&end), (Code::Internal, "INTERNAL".to_owned()));
    assert!(messages.next().await.is_none());
}
