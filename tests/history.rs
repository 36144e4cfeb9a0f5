//! One server of several keeps the history of their store: what was deleted comes back from it, and neither an absence nor
//! a kill of that server leaves a gap.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use coffer_client::Client;
use coffer_proto::v1;
use coffer_server::store::{
    Position, Record,
    embedded::{Target, restore, runs_in, verify},
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::Code;

use crate::harness::{
    Etcd, Ledger, Server, admit, pairs, refused, secret, server_command, strace, text, until, until_async,
};

const SCOPE: &str = "projects/shop";
const WORKLOAD: &str = "projects/shop/servers/web";
/// How often the server that records is killed.
const KILLS: u32 = 8;

/// A server without a history and one with.
fn pair(etcd: &Etcd, history: &Path) -> (Server, Server) {
    let plain = Server::builder().on(etcd.config("")).start();
    let keeper = Server::builder().on(etcd.config(&format!("history = {history:?}"))).beside(&plain);
    (plain, keeper)
}

async fn snapshot(server: &Server) -> Result<v1::Snapshot, tonic::Status> {
    let mut made = server.operator().operations().create_snapshot(v1::CreateSnapshotRequest {}).await?.into_inner();
    let made = made.message().await?.expect("one message");
    Ok(made.snapshot.expect("a snapshot"))
}

/// Everything at the end of a run or backup, as it is stored.
fn records(source: &Path) -> (Position, BTreeMap<String, Record>) {
    let mut all = BTreeMap::new();
    let mut each = |record: &Record| drop(all.insert(record.key.to_string(), record.clone()));
    let verified = verify(source, &mut |_, _| {}, &mut each).expect("whole");
    (verified.position, all)
}

/// A time that every later commit is after, and no earlier one.
#[allow(clippy::disallowed_methods, reason = "the clock that the servers have")]
fn now() -> String {
    let now = SystemTime::now();
    until("the clock to go on", || (SystemTime::now() > now + Duration::from_millis(2)).then_some(()));
    humantime::format_rfc3339_millis(now + Duration::from_millis(1)).to_string()
}

async fn delete(manager: &Client, name: &str) {
    let delete = v1::DeleteSecretRequest { name: format!("{SCOPE}/secrets/{name}"), ..Default::default() };
    manager.secrets().delete_secret(delete).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_while_nobody_recorded_comes_back_from_the_history() {
    let etcd = Etcd::start(1);
    let home = TempDir::new().expect("a directory");
    let history = home.path().join("history");
    let (plain, mut keeper) = pair(&etcd, &history);
    let manager = plain.manager(&[SCOPE]).await;
    for name in ["KEPT", "LOST"] {
        manager.secrets().create_secret(secret(SCOPE, name, "value-1")).await.expect("created");
    }
    assert_eq!(snapshot(&keeper).await.expect("made").position, keeper.store_status().await.position);
    assert!(keeper.stop().await.success());
    let update = v1::UpdateSecretRequest {
        name: format!("{SCOPE}/secrets/KEPT"),
        value: Some(b"value-2".to_vec()),
        ..Default::default()
    };
    manager.secrets().update_secret(update).await.expect("updated");
    let before = now();
    delete(&manager, "LOST").await;
    let after = now();
    manager.secrets().create_secret(secret(SCOPE, "LATER", "value-3")).await.expect("created");

    keeper.run();
    let taken = snapshot(&keeper).await.expect("what was missed is caught up with");
    let told = keeper.store_status().await;
    assert_eq!((taken.position, told.history_problem.as_str()), (told.position, ""));
    assert!(told.oldest_time.is_some() && told.history_bytes > 0 && told.free_bytes > 0);
    let shown = keeper.cli(&keeper.operator_token()).args(["store", "status"]).run();
    assert!(shown.ok().contains(&format!("{} of ", told.oldest_position)), "which can be restored");
    assert_eq!(refused(snapshot(&plain).await).why(), (Code::FailedPrecondition, "HISTORY_NOT_KEPT"));
    let list = plain.cli(&plain.operator_token()).args(["snapshot", "list"]).run();
    assert!(list.code != Some(0) && list.stderr.contains("`etcd.history`"), "{}", list.stderr);
    assert!(keeper.stop().await.success());

    let verified = server_command(&["verify"], &[("--key-file", &plain.key_file()), ("--", &history)]);
    assert!(verified.status.success() && text(&verified).contains("all open"), "{}", text(&verified));
    for (at, expected) in [(&before, &[("KEPT", "value-2"), ("LOST", "value-1")][..]), (&after, &[("KEPT", "value-2")])]
    {
        let data = home.path().join(at);
        let restored = server_command(&["restore", "--to-time", at], &[("--data", &data), ("--", &history)]);
        assert!(restored.status.success(), "{}", text(&restored));
        assert_eq!(serve(&data, &plain).environment(WORKLOAD).await, pairs(expected), "at {at}");
    }
    let data = home.path().join("none");
    let long_ago =
        server_command(&["restore", "--to-time", "2001-01-01T00:00:00Z"], &[("--data", &data), ("--", &history)]);
    assert!(text(&long_ago).contains("does not reach back so far: it begins at"), "{}", text(&long_ago));
    let run = runs_in(&history).expect("listed").remove(0);
    let served = server_command(&["run"], &[("--data", &run), ("--key-file", &plain.key_file())]);
    assert!(text(&served).contains("not a store: restore it"), "{}", text(&served));
}

/// A server on a restored store, with the key of another and a new operator's token.
fn serve(data: &Path, other: &Server) -> Server {
    let home = TempDir::new().expect("a directory");
    fs::copy(other.key_file(), home.path().join("root.key")).expect("copied with its mode");
    let moved = home.path().join("data");
    fs::rename(data, &moved).expect("on one file system");
    admit(home.path(), ("--data", &moved));
    Server::builder().resume_in(home)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_it_records_goes_on_with_the_same_run() {
    let etcd = Etcd::start(1);
    let home = TempDir::new().expect("a directory");
    let history = home.path().join("history");
    let (mut plain, mut keeper) = pair(&etcd, &history);
    plain.grant("users/writer", "secrets:manage", "projects/-").await;
    let writer = plain.token("users/writer").await;
    let writing: Vec<_> =
        Ledger::several(3).into_iter().map(|ledger| tokio::spawn(ledger.write(plain.socket_client(&writer)))).collect();
    let mut recorded = 0;
    for _ in 0..KILLS {
        // Until it has begun to write what the others do.
        until_async("something to be recorded", async || {
            let now = fs::metadata(log_of(&history)?).ok()?.len();
            (now > recorded).then(|| recorded = now)
        })
        .await;
        keeper.kill();
        keeper.run();
    }
    let last = snapshot(&keeper).await;
    assert!(last.is_ok(), "it keeps up with the others: {last:?}");
    plain.kill();
    for writing in writing {
        assert!(writing.await.expect("no panic").acknowledged > u64::from(KILLS));
    }
    plain.run();
    let backup = home.path().join("etcd.backup");
    plain.cli(&plain.operator_token()).args(["store", "backup"]).args([&backup]).run().ok();
    snapshot(&keeper).await.expect("the last of it");
    keeper.kill();

    let runs = runs_in(&history).expect("listed");
    assert_eq!(runs.len(), 1, "{runs:?}");
    records(&runs[0]);
    let (position, of_etcd) = records(&backup);
    let again = home.path().join("again");
    restore(&history, &again, Target::Position(position), None, &mut |_, _| {}).expect("restored");
    let (_, of_run) = records(&again);
    let differs: Vec<_> = of_etcd.iter().filter(|(key, record)| of_run.get(*key) != Some(record)).collect();
    assert!(differs.is_empty() && of_run.len() == of_etcd.len(), "{differs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_is_said_to_be_recorded_again_only_once_something_is() {
    let etcd = Etcd::start(1);
    let home = TempDir::new().expect("a directory");
    let history = home.path().join("history");
    let (plain, mut keeper) = pair(&etcd, &history);
    let manager = plain.manager(&[SCOPE]).await;
    snapshot(&keeper).await.expect("made");
    assert!(keeper.stop().await.success());
    // The run opens as ever, and nothing can be written to it.
    let (run, trace) = (keeper.run_command(), home.path().join("trace"));
    let mut broken = strace();
    // Without its filter: a process whose tracer is gone goes on.
    broken.args(["-D", "-f", "-e", "signal=none", "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EIO"]);
    broken.arg("-P").arg(log_of(&history).expect("a segment")).arg("-o").arg(&trace);
    broken.arg("--").arg(run.get_program()).args(run.get_args());
    keeper.run_by(broken);
    manager.secrets().create_secret(secret(SCOPE, "KEY", "value")).await.expect("created");
    until("two tries to fail", || {
        let trace = fs::read_to_string(&trace).unwrap_or_default();
        (trace.matches("(INJECTED)").count() >= 2).then_some(())
    });
    assert!(keeper.store_status().await.history_problem.contains("Input/output error"));
    let proc = fs::read_to_string(format!("/proc/{}/status", keeper.pid())).expect("it runs");
    let tracer = proc.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok());
    let tracer = Pid::from_raw(tracer.expect("strace")).expect("it is traced");
    kill_process(tracer, Signal::KILL).expect("its own child's");
    until_async("the history to be recorded", async || {
        keeper.store_status().await.history_problem.is_empty().then_some(())
    })
    .await;
    let log = keeper.log();
    let counts = ["the history is not recorded", "the history is recorded again"].map(|said| log.matches(said).count());
    assert_eq!(counts, [1, 1], "{log}");
    let taken = snapshot(&keeper).await.expect("what was missed is caught up with");
    assert_eq!(taken.position, plain.store_status().await.position);
}

/// The newest segment of a history of one run.
fn log_of(history: &Path) -> Option<PathBuf> {
    let run = runs_in(history).ok()?.pop()?;
    let mut segments: Vec<_> =
        fs::read_dir(run.join("log")).ok()?.map(|entry| entry.expect("readable").path()).collect();
    segments.sort();
    segments.pop()
}
