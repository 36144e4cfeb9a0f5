//! Out of memory: no thread can be started and no page be had, so that the real binaries panic and abort wherever they
//! happen to be, with values in hand. What they say is where, and nothing more; no core file is left.

use std::{fs, path::Path, process::Command, time::Duration};

use coffer_proto::v1::{self, import_secrets_request::Conflict};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;

use super::{VALUE, belongs, secret_part};
use crate::harness::{Finished, Planted, Server, binary, secret};

/// Address space that each attempt has more than the one before, in KiB: far less than what a thread wants for its stack.
const STEP_KIB: u64 = 512;
/// Enough for any of them, in KiB.
const ENOUGH_KIB: u64 = 512 * 1024;
/// Most calls until the server has no room left.
const ATTEMPTS_MAX: usize = 100;
/// Most runs after the first that did not fail at the loader.
const RUNS_MAX: usize = 60;

/// What a shell says of a program that ended by SIGSEGV.
const LOADER_ENDED: i32 = 128 + 11;
/// What Rust's runtime says before `main`.
const RUNTIME_ENDED: &str = "failed to allocate an alternative stack";

/// Runs a program in more and more address space, until it succeeds. Core files may be written, if it does not forbid them.
fn starve(program: &str, environment: &[(&str, String)], directory: &Path, words: &[&str]) -> Vec<Finished> {
    let script = "ulimit -c \"$(ulimit -H -c)\"; ulimit -v \"$1\"; shift; printf %s \"$value\" | exec \"$@\"";
    let mut runs = Vec::new();
    let mut kib = 2 * 1024;
    while kib < ENOUGH_KIB && runs.len() < RUNS_MAX {
        kib += STEP_KIB;
        let mut command = Command::new("bash");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("value", VALUE).envs(environment.iter().cloned());
        command.args(["-c", script, "sh", &kib.to_string()]).arg(binary(program)).args(words).current_dir(directory);
        let output = command.output().expect("a shell");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        // The loader's own words, or those of a shell without room for itself.
        if output.status.code() == Some(127) || stderr.contains("shared object") {
            continue;
        }
        // Without a page for its stack the loader ends without a word, and without one for its signals Rust's runtime with
        // its own: both before the program's first line, which forbids core files.
        let has_begun = stderr.contains("internal error at")
            || !(output.status.code() == Some(LOADER_ENDED) || stderr.contains(RUNTIME_ENDED));
        if !has_begun {
            drop(fs::remove_file(directory.join("core")));
            continue;
        }
        let done = output.status.success();
        runs.push(Finished { code: output.status.code(), stdout: output.stdout, stderr });
        if done {
            return runs;
        }
    }
    panic!("{program} never had enough: {:?}", runs.last())
}

/// Nothing told, nothing written, and at least one of them ended in a panic.
fn told_nothing(runs: &[Finished], planted: &Planted, directory: &Path) {
    for run in runs {
        assert_eq!(planted.found_in(&run.stdout), planted.found_in(b""), "{run:?}");
        assert_eq!(planted.found_in(run.stderr.as_bytes()), planted.found_in(b""), "{run:?}");
    }
    let panicked = runs.iter().filter(|run| run.stderr.contains("internal error at")).count();
    assert!(
        panicked > 0,
        "none of {} panicked: {:?}",
        runs.len(),
        runs.iter().map(|run| &run.stderr).collect::<Vec<_>>()
    );
    let left: Vec<_> =
        fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").path()).collect();
    assert!(left.is_empty(), "a core file: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_starved_process_says_where_it_failed_and_no_more() {
    let mut server = Server::builder().args(["--log", "trace"]).start();
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", VALUE)).await.expect("created");
    let (workload, managing) =
        (server.workload_token("projects/p/servers/s").await, server.token("users/manager").await);
    let secrets = [&workload, &managing, &server.operator_token()].map(|token| secret_part(token));
    let tokens = secrets.iter().map(|secret| ("a token", secret.as_str()));
    let planted = Planted::new([("a value", VALUE)].into_iter().chain(tokens));
    // A name that must be looked up, for which the client starts a thread.
    let address = server.address().replace("127.0.0.1", "localhost");
    let variables = |token: &str| [("COFFER_ADDRESS", address.clone()), ("COFFER_TOKEN", token.to_owned())];

    let directory = TempDir::new().expect("a directory");
    let words = ["secret", "update", "projects/p/secrets/KEY", "--value"];
    let runs = starve("coffer", &variables(&managing), directory.path(), &words);
    told_nothing(&runs, &planted, directory.path());
    let words = ["--mask", "--timeout", "5s", "--", "true"];
    let runs = starve("coffer-inject", &variables(&workload), directory.path(), &words);
    told_nothing(&runs, &planted, directory.path());

    starved_server(&server, &managing).await;
    server.kill();
    assert!(has_failed(&server), "it had enough: {}", server.log());
    let found = planted.found_below(server.home());
    let elsewhere: Vec<_> = found.iter().filter(|at| !belongs(at)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

/// Takes all further memory from the server while calls with values are under way: each wants some.
async fn starved_server(server: &Server, token: &str) {
    let pid = Pid::from_raw(server.pid().try_into().expect("a pid")).expect("not zero");
    // Of address space a heap has reserved more than it uses: the limit is one of data. (0 is none: an exception of Linux.)
    let limit = Rlimit { current: Some(4096), maximum: None };
    prlimit(Some(pid), Resource::Data, limit).expect("its own child");
    let entry =
        |n| v1::ImportEntry { secret_id: format!("N_{n}"), value: VALUE.repeat(200).into(), ..Default::default() };
    let entries: Vec<_> = (0..40).map(entry).collect();
    let client = server.client(token);
    for _ in 0..ATTEMPTS_MAX {
        let request = v1::ImportSecretsRequest {
            parent: "projects/p".to_owned(),
            entries: entries.clone(),
            conflict: Conflict::Replace.into(),
            validate_only: false,
            sharing: None,
        };
        drop(tokio::time::timeout(Duration::from_secs(2), client.imports().import_secrets(request)).await);
        if has_failed(server) {
            break;
        }
    }
}

fn has_failed(server: &Server) -> bool {
    let log = server.log();
    log.contains("panicked") || log.contains("memory allocation of")
}
