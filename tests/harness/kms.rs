//! A KMS v2 plugin that does what a test says, lies among it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use coffer_proto::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
    key_management_service_server::{KeyManagementService, KeyManagementServiceServer},
};
use tokio::{net::UnixListener, task::JoinHandle};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// What it does beside its duty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing.
    #[default]
    None,
    Unhealthy,
    OtherVersion,
    /// Never answers.
    Hangs,
    LongKeyId,
    NoKeyId,
    LongCiphertext,
    LongAnnotations,
    NoDomain,
    /// Gives the plaintext back as it is.
    Unwrapped,
    /// Forgets what it has wrapped.
    Forgets,
    /// Unwraps to what another store had it wrap.
    OtherStore,
    /// Unwraps to something else.
    Garbage,
    /// Answers with more than any message may have.
    Huge,
    /// Fails, and says what it was to wrap.
    Tells,
}

#[derive(Default)]
struct State {
    lie: Lie,
    key_id: String,
    /// By key id and ciphertext.
    wrapped: HashMap<(String, Vec<u8>), Vec<u8>>,
    /// All that it was ever given to wrap.
    seen: Vec<Vec<u8>>,
    forgotten: Vec<String>,
    asked: u32,
}

/// The key management service behind plugins: what it wrapped survives each of them.
#[derive(Clone, Default)]
pub(crate) struct Kms(Arc<Mutex<State>>);

/// A plugin that serves a socket, until it is dropped.
pub(crate) struct Plugin {
    socket: PathBuf,
    task: JoinHandle<()>,
}

impl Kms {
    pub(crate) fn new() -> Self {
        let kms = Self::default();
        kms.use_key("key-1");
        kms
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().expect("no panic"))
    }

    /// From here on another key wraps; the ones before still unwrap.
    pub(crate) fn use_key(&self, key_id: &str) {
        self.with(|state| state.key_id = key_id.to_owned());
    }

    /// What this key wrapped, nobody can unwrap any more.
    pub(crate) fn destroy_key(&self, key_id: &str) {
        self.with(|state| state.forgotten.push(key_id.to_owned()));
    }

    pub(crate) fn lie(&self, lie: Lie) {
        self.with(|state| state.lie = lie);
    }

    /// All that it was ever given to wrap.
    pub(crate) fn seen(&self) -> Vec<Vec<u8>> {
        self.with(|state| state.seen.clone())
    }

    /// How often it was asked for its status.
    pub(crate) fn asked(&self) -> u32 {
        self.with(|state| state.asked)
    }

    pub(crate) fn serve(&self, socket: &Path) -> Plugin {
        drop(std::fs::remove_file(socket));
        let listener = UnixListener::bind(socket).expect("a free path");
        let service = KeyManagementServiceServer::new(self.clone());
        let task = tokio::spawn(async move {
            let server = Server::builder().add_service(service);
            server.serve_with_incoming(UnixListenerStream::new(listener)).await.expect("it serves");
        });
        Plugin { socket: socket.to_owned(), task }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.task.abort();
        drop(std::fs::remove_file(&self.socket));
    }
}

async fn hang(lie: Lie) {
    if lie == Lie::Hangs {
        std::future::pending::<()>().await;
    }
}

#[tonic::async_trait]
impl KeyManagementService for Kms {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (lie, key_id) = self.with(|state| {
            state.asked += 1;
            (state.lie, state.key_id.clone())
        });
        hang(lie).await;
        let mut answer = StatusResponse { version: "v2".to_owned(), healthz: "ok".to_owned(), key_id };
        match lie {
            Lie::Unhealthy => answer.healthz = "the HSM is on fire".to_owned(),
            Lie::OtherVersion => answer.version = "v1".to_owned(),
            Lie::LongKeyId => answer.key_id = "k".repeat(1025),
            Lie::NoKeyId => answer.key_id = String::new(),
            _ => {}
        }
        Ok(Response::new(answer))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        let plaintext = request.into_inner().plaintext;
        let (lie, key_id, mut ciphertext) = self.with(|state| {
            let ciphertext = format!("wrapped {}", state.wrapped.len()).into_bytes();
            state.seen.push(plaintext.clone());
            state.wrapped.insert((state.key_id.clone(), ciphertext.clone()), plaintext.clone());
            (state.lie, state.key_id.clone(), ciphertext)
        });
        let mut annotations = HashMap::from([("serial.kms.example.com".to_owned(), vec![7; 10])]);
        match lie {
            Lie::LongCiphertext => ciphertext = vec![1; 1025],
            Lie::LongAnnotations => drop(annotations.insert("long.example.com".to_owned(), vec![1; 32 * 1024])),
            Lie::NoDomain => drop(annotations.insert("serial".to_owned(), Vec::new())),
            Lie::Unwrapped => ciphertext = plaintext,
            Lie::Forgets => self.with(|state| state.wrapped.clear()),
            Lie::Huge => ciphertext = vec![1; 3 << 20],
            Lie::Tells => return Err(Status::internal(String::from_utf8_lossy(&plaintext).into_owned())),
            _ => {}
        }
        Ok(Response::new(EncryptResponse { ciphertext, key_id, annotations }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        let request = request.into_inner();
        let (lie, plaintext, other) = self.with(|state| {
            let is_forgotten = state.forgotten.contains(&request.key_id);
            let key = (request.key_id.clone(), request.ciphertext.clone());
            let plaintext = state.wrapped.get(&key).filter(|_| !is_forgotten).cloned();
            let other = state.seen.iter().find(|seen| plaintext.as_ref().is_some_and(|own| own[..48] != seen[..48]));
            (state.lie, plaintext, other.cloned())
        });
        let plaintext = plaintext.ok_or_else(|| Status::invalid_argument("no such key"))?;
        if request.annotations.get("serial.kms.example.com") != Some(&vec![7; 10]) {
            return Err(Status::invalid_argument("the annotations are not those of Encrypt"));
        }
        let plaintext = match lie {
            Lie::OtherStore => other.expect("another store"),
            Lie::Garbage => vec![9; plaintext.len()],
            Lie::Huge => vec![9; 3 << 20],
            Lie::Tells => return Err(Status::invalid_argument(String::from_utf8_lossy(&plaintext).into_owned())),
            _ => plaintext,
        };
        Ok(Response::new(DecryptResponse { plaintext }))
    }
}
