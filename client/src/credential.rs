//! The bearer token that every call carries.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use coffer_proto::{
    reason::{self, Reason},
    text,
    token::Token,
};
use tonic::{
    Code, GrpcMethod, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};
use tonic_types::{ErrorDetails, StatusExt as _};
use zeroize::Zeroizing;

use crate::{Error, error::LOCAL, file};

/// The methods whose answer is a stream; a test holds them against the contract.
const STREAMS: [&str; 6] =
    ["WatchEnvironment", "WatchInstances", "RedactStream", "CreateSnapshot", "StreamBackup", "RotateKeys"];
/// Largest token file, in bytes.
const TOKEN_FILE_BYTES: usize = 4 * 1024;

/// How a client proves who it is.
#[derive(Clone, Debug)]
pub enum Credential {
    /// One token for the whole life of the client.
    Token(Token),
    /// A file with a token, read anew for each call so that a renewed token is used at once. White space around the
    /// token is ignored. A regular file of at most 4 KiB that others cannot read: mode 0600, or 0640 of root's.
    TokenFile(PathBuf),
}

impl Credential {
    /// The token as it is now. Fails if the file cannot be read, is empty or holds no token; the error names the file.
    pub fn token(&self) -> Result<Token, Error> {
        match self {
            Credential::Token(token) => Ok(token.clone()),
            Credential::TokenFile(path) => {
                let invalid = |reason, message: String| Error::local(Code::Unauthenticated, Some(reason), message);
                // Every other error shows the path, and errors are kept in logs.
                if path.to_str().is_some_and(|text| Token::parse(text.trim()).is_ok()) {
                    let message = "token file: the token itself was given where its file is to be named".to_owned();
                    return Err(invalid(Reason::CredentialInvalid, message));
                }
                let bytes = file::read_private("token file", path, TOKEN_FILE_BYTES)
                    .map_err(|message| invalid(Reason::CredentialMissing, message))?;
                if bytes.trim_ascii().is_empty() {
                    let message = format!("token file {}: is empty", path.display());
                    return Err(invalid(Reason::CredentialMissing, message));
                }
                let text = text::decode(&bytes).map_err(|error| {
                    invalid(Reason::CredentialInvalid, format!("token file {}: {error}", path.display()))
                })?;
                Token::parse(text.trim()).map_err(|error| {
                    invalid(Reason::CredentialInvalid, format!("token file {}: {error}", path.display()))
                })
            }
        }
    }
}

/// Adds the credential and the time limit to each call.
#[derive(Clone)]
pub struct Authorize {
    credential: Option<Arc<Credential>>,
    call_timeout: Duration,
}

impl Authorize {
    pub(crate) fn new(credential: Option<Credential>, call_timeout: Duration) -> Self {
        Self { credential: credential.map(Arc::new), call_timeout }
    }

    /// The time limit of each call.
    pub(crate) fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// Whether a call could be made now.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.credential.as_ref().map_or(Ok(()), |credential| credential.token().map(drop))
    }
}

impl Interceptor for Authorize {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !is_stream(&request) && !request.metadata().contains_key("grpc-timeout") {
            // Tells the server, too, when nobody waits for the answer any more.
            request.set_timeout(self.call_timeout);
        }
        if let Some(credential) = &self.credential {
            let token = credential.token().map_err(|error| local_status(&error))?;
            request.metadata_mut().insert("authorization", bearer(&token)?);
        }
        Ok(request)
    }
}

/// Streams go on for as long as both sides like; only the beginning of their answer is waited for, by the endpoint.
fn is_stream(request: &Request<()>) -> bool {
    let method = request.extensions().get::<GrpcMethod<'static>>();
    method.is_some_and(|method| STREAMS.contains(&method.method()))
}

fn bearer(token: &Token) -> Result<MetadataValue<Ascii>, Status> {
    let text = Zeroizing::new(format!("Bearer {}", token.expose()));
    let mut value: MetadataValue<Ascii> =
        text.parse().map_err(|_| Status::internal("the token cannot be sent in a header"))?;
    // Keeps it out of Debug output and of the header compression table (RFC 7541, 7.1.3).
    value.set_sensitive(true);
    Ok(value)
}

/// An interceptor answers with a status whose source is lost on its way, so that the reason must travel in its details.
fn local_status(error: &Error) -> Status {
    let reason = error.reason().unwrap_or(Reason::CredentialInvalid);
    let local = HashMap::from([(LOCAL.to_owned(), String::new())]);
    let details = ErrorDetails::with_error_info(reason.as_str(), reason::DOMAIN, local);
    Status::with_error_details(error.code(), error.message(), details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_proto::token::TokenKind;
    use prost::Message as _;
    use std::{
        io::Write as _,
        os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
        path::Path,
    };

    fn authorize(credential: Credential) -> Result<Request<()>, Status> {
        Authorize::new(Some(credential), Duration::from_secs(10)).call(Request::new(()))
    }

    fn sent(request: &Request<()>) -> &MetadataValue<Ascii> {
        request.metadata().get("authorization").expect("a header")
    }

    #[test]
    fn the_header_carries_the_token_and_hides_it() {
        let token = Token::generate(TokenKind::User);
        let request = authorize(Credential::Token(token.clone())).expect("authorized");
        assert_eq!(sent(&request).to_str().expect("ASCII"), format!("Bearer {}", token.expose()));
        assert!(sent(&request).is_sensitive());
        assert!(!format!("{:?}", request.metadata()).contains(token.expose()));
        assert_eq!(request.metadata().get("grpc-timeout").map(|v| v.as_bytes()), Some(b"10000000u".as_slice()));
    }

    #[test]
    fn streams_have_no_deadline() {
        let descriptors =
            prost_types::FileDescriptorSet::decode(coffer_proto::FILE_DESCRIPTOR_SET).expect("compiled in");
        let services = descriptors.file.iter().flat_map(|file| &file.service);
        for method in services.flat_map(|service| &service.method) {
            let mut request = Request::new(());
            let name: &'static str = Box::leak(method.name().to_owned().into_boxed_str());
            request.extensions_mut().insert(GrpcMethod::new("coffer.v1.Any", name));
            let mut authorize = Authorize::new(None, Duration::from_secs(10));
            let request = authorize.call(request).expect("authorized");
            assert_eq!(!request.metadata().contains_key("grpc-timeout"), method.server_streaming(), "{name}");
        }
    }

    #[test]
    fn a_renewed_file_is_used_by_the_next_call() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let credential = Credential::TokenFile(file.path().to_owned());
        for _ in 0..2 {
            let token = Token::generate(TokenKind::Workload);
            file.as_file_mut().set_len(0).expect("emptied");
            std::fs::write(file.path(), format!("\n  {}\n", token.expose())).expect("written");
            let request = authorize(credential.clone()).expect("authorized");
            assert_eq!(sent(&request).to_str().expect("ASCII"), format!("Bearer {}", token.expose()));
        }
    }

    #[test]
    fn a_token_in_the_place_of_its_file_is_not_shown() {
        let token = Token::generate(TokenKind::User);
        let given = Credential::TokenFile(token.expose().into());
        let error = Error::from(authorize(given).expect_err("no file"));
        assert_eq!(error.reason(), Some(Reason::CredentialInvalid));
        assert!(error.to_string().contains("the token itself"), "{error}");
        assert!(!error.to_string().contains(token.expose()));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let token = Token::generate(TokenKind::Workload);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), token.expose()).expect("written");
        let of_root = std::fs::metadata(file.path()).expect("there").uid() == 0;
        for (mode, is_good) in [
            (0o600, true),
            (0o640, of_root),
            (0o400, true),
            (0o604, false),
            (0o644, false),
            (0o620, false),
            (0o601, false),
        ] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("set");
            match Credential::TokenFile(file.path().to_owned()).token() {
                Ok(_) => assert!(is_good, "{mode:o}"),
                Err(error) => {
                    assert!(!is_good, "{mode:o}: {error}");
                    assert!(error.message().contains(&format!("others can read it (mode {mode:04o})")), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_bad_file_is_named_and_not_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let missing = dir.path().join("missing");
        let garbage = dir.path().join("garbage");
        let large = dir.path().join("large");
        let empty = dir.path().join("empty");
        let write = |path: &Path, bytes: &[u8]| {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| file.write_all(bytes))
        };
        write(&empty, b" \n").expect("written");
        write(&garbage, b"hunter2").expect("written");
        write(&large, &[b'a'; 4097]).expect("written");
        let cases = [
            (missing.clone(), Reason::CredentialMissing),
            (dir.path().to_owned(), Reason::CredentialMissing),
            (large, Reason::CredentialMissing),
            (empty.clone(), Reason::CredentialMissing),
            (garbage, Reason::CredentialInvalid),
        ];
        let error = Credential::TokenFile(empty.clone()).token().expect_err("no token");
        assert_eq!(error.message(), format!("token file {}: is empty", empty.display()));
        for (path, reason) in cases {
            let error = Error::from(authorize(Credential::TokenFile(path.clone())).expect_err("no token"));
            assert_eq!((error.code(), error.reason()), (Code::Unauthenticated, Some(reason)));
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            assert!(!error.to_string().contains("hunter2"));
            assert!(!error.is_retryable() && error.is_local());
        }
    }
}
