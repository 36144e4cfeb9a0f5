//! A server that has no descriptor left for a while, as when a peer holds all: what needs one is refused and nothing else is,
//! and all of it goes on by itself.

use coffer_proto::v1;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tonic::{Code, Status};

use super::stage::{Outcome, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_descriptors_refuses_what_needs_one_and_goes_on_when_it_has_some() {
    let mut stage = Stage::set().await;
    stage.server.run();
    let token = stage.server.operator_token();
    let operator = stage.server.socket_client(&token);
    let pid = Pid::from_raw(stage.server.pid().try_into().expect("a process"));
    let snapshot = async || -> Result<(), Status> {
        let mut stream = operator.operations().create_snapshot(v1::CreateSnapshotRequest {}).await?.into_inner();
        stream.message().await.map(drop)
    };
    // Both channels are connected from here on.
    assert!(matches!(stage.create().await, Outcome::Acknowledged));
    snapshot().await.expect("made");
    for _ in 0..2 {
        assert!(matches!(stage.create().await, Outcome::Acknowledged));
        let usual = prlimit(pid, Resource::Nofile, Rlimit { current: Some(0), ..no_more() }).expect("set");
        // A snapshot begins another segment of the log first.
        let refused = snapshot().await.expect_err("there is no descriptor for it");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        for _ in 0..5 {
            assert!(matches!(stage.create().await, Outcome::Acknowledged), "nothing of the log needs a descriptor");
        }
        assert!(matches!(stage.delete().await, Outcome::Acknowledged));
        stage.reads_go_on().await;
        prlimit(pid, Resource::Nofile, usual).expect("set");
        snapshot().await.expect("nothing was taken for damage");
        assert!(matches!(stage.create().await, Outcome::Acknowledged));
    }
    stage.recover(true).await;
}

/// The highest that this process itself may have.
fn no_more() -> Rlimit {
    rustix::process::getrlimit(Resource::Nofile)
}
