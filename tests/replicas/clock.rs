//! A server whose wall clock is set.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use coffer_proto::{token::Token, v1};
use rustix::process::Signal;
use tempfile::TempDir;
use tonic::Code;

use super::{SCOPE, WORKLOAD, fetch, fetched_now, list};
use crate::harness::{Etcd, Server, again, refused, secret, until_async};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The clock of one server.
struct Clock {
    dir: TempDir,
}

impl Clock {
    fn new() -> Self {
        let clock = Self { dir: TempDir::new().expect("a temporary directory") };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/harness/clock.c");
        let mut compile = Command::new("cc");
        let compiled = compile.args(["-shared", "-fPIC", "-O1", source, "-o"]).arg(clock.library()).status();
        assert!(compiled.expect("a C compiler is there: tests/run.sh installs it").success());
        clock.set(0);
        clock
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("clock.so")
    }

    /// Is wrong by so much from now on.
    fn set(&self, seconds: i64) {
        let new = self.dir.path().join("new");
        fs::write(&new, seconds.to_string()).expect("written");
        fs::rename(new, self.dir.path().join("moved")).expect("at once");
    }

    /// Starts a stopped server that has this clock.
    fn run(&self, server: &mut Server) {
        let mut command = server.run_command();
        command.env("LD_PRELOAD", self.library()).env("CLOCK_MOVED_BY", self.dir.path().join("moved"));
        server.run_by(command);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_on_one_server_does_no_lasting_harm() {
    let etcd = Etcd::start(1);
    let first = Server::builder().on(etcd.config("max_stale = \"1h\"")).start();
    let mut second = Server::builder().beside(&first);
    let manager = first.manager(&[SCOPE]).await;
    let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
    let operator = first.operator();
    let short = first.issue(&operator, "users/manager", minutes(30)).await;
    let long = first.issue(&operator, "users/manager", minutes(90)).await;
    let issuer = first.with("services/issuer", &[("workloads:issue", WORKLOAD)]).await;
    let workload = first.issue(&issuer, WORKLOAD, minutes(20 * 24 * 60)).await;

    // Ahead from its start, when it looks for tokens that have ended: by its clock both have.
    second.kill();
    let clock = Clock::new();
    clock.set(110 * MINUTE);
    clock.run(&mut second);
    let there = second.client(&long);
    let over = again(async || there.secrets().list_secrets(list()).await).await;
    assert_eq!(refused(over).why(), (Code::Unauthenticated, "CREDENTIAL_EXPIRED"));
    let id = Token::parse(&short).expect("a token").id().to_string();
    until_async("the one that has ended long ago to be removed", async || {
        let request = v1::ListTokensRequest { principal: "users/manager".into(), ..Default::default() };
        let listed = operator.tokens().list_tokens(request).await.ok()?.into_inner();
        (!listed.tokens.iter().any(|token| token.name.ends_with(&id))).then_some(())
    })
    .await;
    let here = first.client(&long);
    again(async || here.secrets().list_secrets(list()).await).await.expect("the other is not");

    // Back and forth under writes, which none of this touches.
    let there = second.client(&second.operator_token());
    for (n, moved) in [-HOUR, DAY, 0, -DAY, 10 * MINUTE].into_iter().enumerate() {
        clock.set(moved);
        let request = secret(SCOPE, &format!("S{n}"), "v");
        again(async || manager.secrets().create_secret(request.clone()).await).await.expect("created");
        again(async || there.operations().get_status(v1::GetStatusRequest {}).await).await.expect("served");
        let client = second.client(&workload);
        assert_eq!(fetched_now(&client).await.variables.len(), n + 1);
    }

    // How old an answer is no clock says that can be set.
    let client = second.client(&workload);
    etcd.signal(Signal::STOP);
    clock.set(12 * HOUR);
    let stale = client.workloads().fetch_environment(fetch()).await.expect("from what is known").into_inner();
    assert!(stale.stale_since.is_some() && stale.variables.len() == 5);
    etcd.signal(Signal::CONT);
    clock.set(0);
    let there = second.client(&long);
    again(async || there.secrets().list_secrets(list()).await).await.expect("its clock is right again");
}
