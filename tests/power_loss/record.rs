//! Records what the real server asks of its files while clients write, over several deaths of the process.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use coffer_client::Client;
use coffer_proto::v1::{self, import_secrets_request::Conflict};
use coffer_server::store::Position;
use tonic::Status;

use super::{
    disk::{Tree, read_tree},
    image::parse,
    trace::{self, Call, Moment, Operation},
};
use crate::harness::{Server, secret, until};

/// How often the server is started and killed.
const SESSIONS: usize = 7;
/// Scopes, each with a writer of its own.
const WRITERS: usize = 3;
/// Rounds of a writer in a session, at most; the server is killed when the first writer is done.
const ROUNDS: usize = 14;
/// Apart from each other in the moments of two sessions.
const SESSION_MOMENTS: Moment = 1 << 32;

/// From one start of the server to its death.
pub(super) struct Session {
    /// By their end.
    pub(super) operations: Vec<Operation>,
    /// What it died in.
    pub(super) unfinished: Vec<Operation>,
    /// When the audit log said that a change was made, and where it stands.
    pub(super) acknowledged: Vec<(Moment, Position)>,
    /// The files after its death.
    pub(super) left: Tree,
}

/// All of it.
pub(super) struct Recording {
    /// The store's directory.
    pub(super) root: PathBuf,
    /// What stood in it before, all durable.
    pub(super) begin: Tree,
    pub(super) sessions: Vec<Session>,
    _server: Server,
}

/// Runs the server and its clients.
pub(super) async fn record() -> Recording {
    let mut server = Server::start();
    server.grant("users/writer", "secrets:manage", "projects/-").await;
    let token = server.token("users/writer").await;
    assert!(server.stop().await.success());
    let root = server.data();
    let begin = read_tree(&root);
    let mut sessions = Vec::new();
    for session in 0..SESSIONS {
        let output = server.home().join(format!("trace-{session}"));
        server.run_by(trace::recorded(&server.run_command(), &output));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let writer = Writer { client: server.socket_client(&token), scope: format!("projects/p-{writer}") };
                tokio::spawn(writer.write(session))
            })
            .collect();
        let mut writers = writers.into_iter();
        let first = writers.next().expect("there are several");
        first.await.expect("it writes").unwrap_or_else(|status| panic!("a healthy server refuses: {status:?}"));
        let pid = server.pid();
        server.kill();
        for writer in writers {
            // The connection breaks off under them.
            drop(writer.await.expect("it ends"));
        }
        until("strace to end", || has_ended(&output, pid).then_some(()));
        sessions.push(read_session(&server, &output, session));
        fs::remove_file(&output).expect("it was there");
    }
    Recording { root, begin, sessions, _server: server }
}

/// Whether strace has seen the process off, which it does with its last line.
fn has_ended(trace: &Path, pid: u32) -> bool {
    let Ok(mut file) = File::open(trace) else { return false };
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(size.saturating_sub(4096))).and_then(|_| file.read_to_end(&mut bytes)).expect("readable");
    let tail = String::from_utf8_lossy(&bytes).into_owned();
    tail.lines().any(|line| line.starts_with(&format!("{pid} ")) && line.ends_with("+++ killed by SIGKILL +++"))
}

fn read_session(server: &Server, output: &Path, session: usize) -> Session {
    let here = std::env::current_dir().expect("there is one");
    let root = server.data();
    let audit = server.home().join("audit.log");
    let all = trace::read(output, &here, server.home(), SESSION_MOMENTS * session);
    let mut found =
        Session { operations: Vec::new(), unfinished: Vec::new(), acknowledged: Vec::new(), left: Tree::new() };
    for operation in all {
        match &operation.call {
            Call::Write { path, bytes, .. } if *path == audit => {
                found.acknowledged.extend(positions(bytes).map(|position| (operation.begin, position)));
            }
            call if !call.paths().iter().all(|path| path.starts_with(&root)) => {}
            _ if operation.end.is_some() => found.operations.push(operation),
            _ => found.unfinished.push(operation),
        }
    }
    found.left = read_tree(&root);
    found
}

/// The positions of the changes that lines of the audit log say were made.
fn positions(lines: &[u8]) -> impl Iterator<Item = Position> {
    let lines: Vec<_> = lines.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.into_iter().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_slice(&line).ok()?;
        (line["phase"] == "done").then_some(())?;
        parse(line["position"].as_str()?)
    })
}

struct Writer {
    client: Client,
    scope: String,
}

impl Writer {
    async fn write(self, session: usize) -> Result<(), Status> {
        for round in 0..ROUNDS {
            self.round(session, round).await?;
        }
        Ok(())
    }

    async fn round(&self, session: usize, round: usize) -> Result<(), Status> {
        let number = session * ROUNDS + round;
        let text = |bytes: usize| format!("{number}-").repeat(bytes / 4);
        let name = |id: &str| format!("{}/secrets/{id}", self.scope);
        let entry = |id: String, value: String| v1::ImportEntry {
            secret_id: id,
            value: value.into_bytes(),
            ..Default::default()
        };
        let import = |entries: Vec<v1::ImportEntry>| v1::ImportSecretsRequest {
            parent: self.scope.clone(),
            entries,
            conflict: Conflict::Replace.into(),
            validate_only: false,
            sharing: None,
        };
        // A large value over one of the six before, small ones together, one more that goes later, and an update.
        let large = entry(format!("LARGE_{}", number % 6), text(60 * 1024));
        self.client.imports().import_secrets(import(vec![large])).await?;
        let small = ["A", "B", "C"].map(|id| entry(id.into(), text(40)));
        self.client.imports().import_secrets(import(small.into())).await?;
        self.client.secrets().create_secret(secret(&self.scope, &format!("N_{number}"), &text(40))).await?;
        let update =
            v1::UpdateSecretRequest { name: name("A"), value: Some(text(3_000).into_bytes()), ..Default::default() };
        self.client.secrets().update_secret(update).await?;
        if round > 2 {
            let delete = v1::DeleteSecretRequest { name: name(&format!("N_{}", number - 2)), ..Default::default() };
            self.client.secrets().delete_secret(delete).await?;
        }
        Ok(())
    }
}
