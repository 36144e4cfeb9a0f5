//! A KMS v2 plugin of Kubernetes: <https://kubernetes.io/docs/tasks/administer-cluster/kms-provider/>.
//!
//! Who serves the socket unwraps the root key and so can read everything: the socket's directory must be the plugin's and
//! this server's alone. What the plugin answers is checked all the same, by the limits that Kubernetes' API server has
//! (apiserver/pkg/storage/value/encrypt/envelope/kmsv2), so that a wrong plugin is refused and never stored.
//!
//! The interface has no associated data, so what is wrapped says itself whose it is:
//! `magic 16 | SHA-256 of the context 32 | root keys`. The context is the store and the purpose.

use std::{error::Error as _, path::Path, time::Duration};

use async_trait::async_trait;
use coffer_proto::kms::{
    DecryptRequest, EncryptRequest, StatusRequest, StatusResponse,
    key_management_service_client::KeyManagementServiceClient,
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::timeout;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};
use zeroize::Zeroizing;

use super::{
    super::{Uid, hex, random},
    Error, KeySource, RootKeyBytes, WrappedKey, printable, wanted,
};

const KIND: &str = "kms";
/// How long connecting and one call may take together.
const CALL_MAX: Duration = Duration::from_secs(5);
/// Longest key id, in bytes. None is empty.
const KEY_ID_BYTES_MAX: usize = 1024;
/// Longest wrapped key, in bytes. None is empty.
const CIPHERTEXT_BYTES_MAX: usize = 1024;
/// All annotations with their names, in bytes.
const ANNOTATIONS_BYTES_MAX: usize = 32 * 1024;
/// Largest message in either direction, in bytes: the parts at their largest, and room for how they are encoded.
const MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// The versions of the interface that are spoken; they differ in nothing that is used.
const VERSIONS: [&str; 2] = ["v2", "v2beta1"];

const MAGIC: &[u8; 16] = b"coffer kms key 2";
const CONTEXT: usize = 32;
const KEY: usize = 32;

type Client = KeyManagementServiceClient<Channel>;

/// A plugin behind a unix socket. Every call connects anew, so that a plugin may come, go and be replaced.
pub struct Kms {
    name: String,
    endpoint: Endpoint,
}

impl Kms {
    /// The plugin that listens at this absolute path, now or later.
    pub fn new(socket: &Path) -> Result<Self, Error> {
        let address = format!("unix://{}", socket.display());
        let name = format!("KMS plugin {address}");
        match Endpoint::from_shared(address) {
            Ok(endpoint) => Ok(Self { name, endpoint }),
            Err(_) => Err(Error::Refused { name, reason: "this is no address of a socket".to_owned() }),
        }
    }

    async fn call<T, F>(&self, method: &str, ask: impl FnOnce(Client) -> F + Send) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let answer = async {
            let channel = self.endpoint.connect().await.map_err(|error| self.unreachable(root_cause(&error)))?;
            let client = Client::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            ask(client).await.map(Response::into_inner).map_err(|status| self.failed(method, &status))
        };
        match timeout(CALL_MAX, answer).await {
            Ok(answered) => answered,
            Err(_) => Err(self.unreachable(format!("{method} took more than {} s", CALL_MAX.as_secs()))),
        }
    }

    /// What a failed call means. The plugin's own words are left out: it has seen the key.
    fn failed(&self, method: &str, status: &Status) -> Error {
        if status.source().is_some() {
            return self.unreachable(format!("{method}: the connection broke"));
        }
        match status.code() {
            Code::OutOfRange => self.refused(format!("the answer to {method} is too large")),
            // So prost begins what it says of bytes that are no message.
            Code::Internal if status.message().starts_with("failed to decode Protobuf message") => {
                self.refused(format!("the answer to {method} is no message of a KMS v2 plugin"))
            }
            code @ (Code::InvalidArgument | Code::NotFound | Code::DataLoss | Code::Unimplemented) => {
                self.refused(format!("it refuses {method} with {code:?}: another key, another plugin, or damage"))
            }
            code => Error::Unhealthy { name: self.name.clone(), reason: format!("{method} fails with {code:?}") },
        }
    }

    fn unreachable(&self, reason: String) -> Error {
        Error::Unreachable { name: self.name.clone(), reason }
    }

    fn refused(&self, reason: impl Into<String>) -> Error {
        Error::Refused { name: self.name.clone(), reason: reason.into() }
    }

    fn check_key_id(&self, key_id: &str) -> Result<(), Error> {
        match key_id.len() {
            0 => Err(self.refused("its key id is empty")),
            1..=KEY_ID_BYTES_MAX => Ok(()),
            bytes => Err(self.refused(format!("its key id has {bytes} bytes; at most {KEY_ID_BYTES_MAX}"))),
        }
    }

    fn check(&self, wrapped: &WrappedKey) -> Result<(), Error> {
        self.check_key_id(&wrapped.key_id)?;
        match wrapped.bytes.len() {
            0 => return Err(self.refused("its ciphertext is empty")),
            1..=CIPHERTEXT_BYTES_MAX => {}
            bytes => {
                return Err(self.refused(format!("its ciphertext has {bytes} bytes; at most {CIPHERTEXT_BYTES_MAX}")));
            }
        }
        let bytes: usize = wrapped.annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > ANNOTATIONS_BYTES_MAX {
            return Err(self.refused(format!("its annotations have {bytes} bytes; at most {ANNOTATIONS_BYTES_MAX}")));
        }
        if wrapped.annotations.iter().any(|(name, _)| !is_domain(name)) {
            return Err(self.refused("an annotation's name is no fully qualified domain name"));
        }
        Ok(())
    }
}

#[async_trait]
impl KeySource for Kms {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn mark(&self) -> String {
        KIND.to_owned()
    }

    async fn status(&self) -> Result<String, Error> {
        let ask = |mut client: Client| async move { client.status(StatusRequest {}).await };
        let StatusResponse { version, healthz, key_id } = self.call("Status", ask).await?;
        if !VERSIONS.contains(&version.as_str()) {
            let version = printable(&version);
            return Err(self.refused(format!("it speaks version {version:?}, not v2")));
        }
        if healthz != "ok" {
            let reason = format!("it says {:?}", printable(&healthz));
            return Err(Error::Unhealthy { name: self.name.clone(), reason });
        }
        self.check_key_id(&key_id)?;
        Ok(key_id)
    }

    async fn wrap(&self, store: Uid, root: &RootKeyBytes) -> Result<WrappedKey, Error> {
        let mut plaintext = Zeroizing::new(Vec::with_capacity(MAGIC.len() + CONTEXT + root.0.len()));
        plaintext.extend_from_slice(MAGIC);
        plaintext.extend_from_slice(&context(store));
        plaintext.extend_from_slice(&root.0);
        let request = EncryptRequest { plaintext: plaintext.to_vec(), uid: hex(&random::<16>()?) };
        let ask = |mut client: Client| async move { client.encrypt(request).await };
        let answer = self.call("Encrypt", ask).await?;
        let mut annotations: Vec<_> = answer.annotations.into_iter().collect();
        annotations.sort();
        let (source, key_id, bytes) = (KIND.to_owned(), answer.key_id, answer.ciphertext);
        let wrapped = WrappedKey { source, key_id, bytes, annotations };
        self.check(&wrapped)?;
        // Any stretch of the keys as long as one, so that none gets through beside others that do not.
        let holds_key = |bytes: &[u8]| {
            root.0.windows(KEY).any(|key| bytes.windows(KEY).any(|window| bool::from(window.ct_eq(key))))
        };
        if holds_key(&wrapped.bytes) || wrapped.annotations.iter().any(|(_, value)| holds_key(value)) {
            return Err(self.refused("it gives the key back unwrapped"));
        }
        Ok(wrapped)
    }

    async fn unwrap(&self, store: Uid, wrapped: &WrappedKey) -> Result<RootKeyBytes, Error> {
        if wrapped.source != KIND {
            let given = self.name.clone();
            return Err(Error::WrongKey { name: self.name.clone(), wanted: wanted(wrapped), given });
        }
        self.check(wrapped).map_err(|_| Error::Damaged)?;
        let request = DecryptRequest {
            ciphertext: wrapped.bytes.clone(),
            uid: hex(&random::<16>()?),
            key_id: wrapped.key_id.clone(),
            annotations: wrapped.annotations.iter().cloned().collect(),
        };
        let ask = |mut client: Client| async move { client.decrypt(request).await };
        let answer = self.call("Decrypt", ask).await.map_err(|error| naming_key(error, wrapped))?;
        let plaintext = Zeroizing::new(answer.plaintext);
        let (told, key) = match plaintext.split_at_checked(MAGIC.len()) {
            Some((magic, rest)) if rest.len() > CONTEXT && bool::from(magic.ct_eq(MAGIC)) => rest.split_at(CONTEXT),
            _ => return Err(self.refused("wrong key: what it unwraps is no key of coffer's")),
        };
        if !bool::from(told.ct_eq(&context(store))) {
            return Err(Error::WrongContext { name: self.name.clone() });
        }
        Ok(RootKeyBytes(Zeroizing::new(key.to_vec())))
    }
}

impl std::fmt::Debug for Kms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kms({})", self.name)
    }
}

/// Says which of the plugin's keys it would have to have.
fn naming_key(error: Error, wrapped: &WrappedKey) -> Error {
    let naming = |reason: String| format!("{reason} (wrapped by {})", wanted(wrapped));
    match error {
        Error::Refused { name, reason } => Error::Refused { name, reason: naming(reason) },
        Error::Unhealthy { name, reason } => Error::Unhealthy { name, reason: naming(reason) },
        error => error,
    }
}

/// Whose key it is, and what for.
fn context(store: Uid) -> [u8; CONTEXT] {
    let mut context = Sha256::new();
    context.update(b"coffer kms context 1: root key of store ");
    context.update(store.0);
    context.finalize().into()
}

/// Two labels at least, of RFC 1123: as Kubernetes wants the names of annotations.
fn is_domain(name: &str) -> bool {
    const NAME_BYTES_MAX: usize = 253;
    const LABEL_BYTES_MAX: usize = 63;
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= NAME_BYTES_MAX && name.contains('.') && name.split('.').all(is_label)
}

/// The operating system's words, at the end of tonic's and hyper's.
fn root_cause(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    printable(&cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_annotations_are_domains() {
        for good in ["a.b", "kms.example.com", "0-1.x.", &format!("{}.b", "a".repeat(63))] {
            assert!(is_domain(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "a",
            "A.b",
            "a..b",
            "-a.b",
            "a-.b",
            "a_b.c",
            "é.b",
            &format!("{}.b", "a".repeat(64)),
            &"a.".repeat(128),
        ] {
            assert!(!is_domain(bad), "{bad}");
        }
    }

    #[test]
    fn limits_hold_to_the_byte() {
        let kms = Kms::new(Path::new("/run/kms.sock")).expect("a path");
        let wrapped = |key_id: usize, bytes: usize, annotation: usize| WrappedKey {
            source: KIND.to_owned(),
            key_id: "k".repeat(key_id),
            bytes: vec![1; bytes],
            annotations: vec![("a.b".to_owned(), vec![2; annotation])],
        };
        let (id, bytes, annotation) = (KEY_ID_BYTES_MAX, CIPHERTEXT_BYTES_MAX, ANNOTATIONS_BYTES_MAX - 3);
        for good in [wrapped(id, bytes, annotation), wrapped(1, 1, 0)] {
            kms.check(&good).expect("within");
        }
        for bad in [
            wrapped(id + 1, 1, 0),
            wrapped(0, 1, 0),
            wrapped(1, bytes + 1, 0),
            wrapped(1, 0, 0),
            wrapped(1, 1, annotation + 1),
        ] {
            assert!(matches!(kms.check(&bad), Err(Error::Refused { .. })));
        }
    }

    #[tokio::test]
    async fn nobody_at_the_socket_is_a_reason_to_try_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let kms = Kms::new(&dir.path().join("none")).expect("a path");
        let error = kms.status().await.expect_err("nobody is there");
        assert_eq!(error.cause(), Some(super::super::Cause::Unreachable), "{error}");
        assert!(error.to_string().contains("No such file"), "{error}");
    }
}
