//! `coffer-server init`: a new store, and the first operator's token.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use coffer_proto::{name::Principal, token::Token};

use super::{Failure, print, token::Outlet};
use crate::{
    audit::file::AuditFile,
    clock::SystemClock,
    config::AUDIT_FILE_DEFAULT,
    seal::source::KeyFile,
    server::{self, seal_mark},
    store::embedded::{Embedded, OpenError, Options},
    vault,
};

/// How long the audit log may take to write its lines.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// Directory to make the store in
    #[arg(long, value_name = "DIR", env = "COFFER_SERVER_DATA")]
    data: PathBuf,
    /// File with the root key: 64 hex digits, for its owner only. Without it nothing in the store can be read
    #[arg(long, value_name = "FILE", env = "COFFER_SERVER_KEY_FILE")]
    key_file: PathBuf,
    /// Make the key file too; one that exists is never overwritten
    #[arg(long)]
    generate_key: bool,
    /// Who the first operator is: users/ID or services/ID
    #[arg(long, value_name = "PRINCIPAL", default_value = "users/operator")]
    operator: String,
    /// Write the token to this new file, mode 0600, instead of stdout
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Audit log [default: audit.jsonl in the data directory]
    #[arg(long, value_name = "FILE", env = "COFFER_SERVER_AUDIT_FILE")]
    audit_file: Option<PathBuf>,
}

impl Init {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let operator = match Principal::parse(&self.operator) {
            Ok(operator @ (Principal::User(_) | Principal::Service(_))) => operator,
            _ => return Err(Failure::usage(vec!["--operator must be users/ID or services/ID".to_owned()])),
        };
        let outlet = Outlet::open(self.token_file.as_deref())?;
        let new = NewStore {
            data: &self.data,
            key_file: &self.key_file,
            generate_key: self.generate_key,
            audit_file: self.audit_file.as_deref(),
        };
        match new.create(&operator).await {
            Ok(token) => outlet.write(&token)?,
            Err(failure) => {
                outlet.discard();
                return Err(failure);
            }
        }
        print::note(&format!("made a store in {} for {operator}", self.data.display()));
        match &self.token_file {
            Some(file) => print::note(&format!("the operator's token is in {}", file.display())),
            None => print::note("the operator's token is printed this once and never again: keep it"),
        }
        print::note(&format!(
            "back up {}: without it nothing in the store can ever be read, and it must not lie beside a copy of the store",
            self.key_file.display()
        ));
        print::note(&format!(
            "next: coffer-server run --data {} --key-file {}",
            self.data.display(),
            self.key_file.display()
        ));
        Ok(())
    }
}

/// A store to be made.
pub(super) struct NewStore<'a> {
    pub(super) data: &'a Path,
    pub(super) key_file: &'a Path,
    pub(super) generate_key: bool,
    pub(super) audit_file: Option<&'a Path>,
}

impl NewStore<'_> {
    /// Makes it; refuses existing data and existing keys.
    pub(super) async fn create(&self, operator: &Principal) -> Result<Token, Failure> {
        let key = if self.generate_key { KeyFile::generate(self.key_file) } else { KeyFile::open(self.key_file) };
        let key = key.map_err(|error| {
            let failure = Failure::from(server::Error::from(error));
            match (self.generate_key, self.key_file.exists()) {
                (true, true) => failure.hint("without --generate-key `init` uses the key that is there"),
                (false, false) => failure.hint("--generate-key makes one"),
                _ => failure,
            }
        })?;
        let created = Embedded::create(self.data).await;
        // A store without its mark is one whose `init` was interrupted: it is filled if nothing is in it.
        let is_interrupted = matches!(created, Err(OpenError::Exists(_))) && !seal_mark::is_marked(self.data);
        let is_new = created.is_ok();
        let made = match created {
            Err(error) if !is_interrupted => Err(server::Error::from(error)),
            Ok(()) | Err(_) => self.fill(&key, operator).await,
        };
        made.map_err(|error| self.failure(error, is_new))
    }

    fn failure(&self, error: server::Error, is_new: bool) -> Failure {
        let has_data = matches!(
            error,
            server::Error::Store(OpenError::Exists(_)) | server::Error::Vault(vault::OpenError::NotEmpty)
        );
        if self.generate_key && (has_data || !is_new) {
            // Nothing was sealed with it, and the next try must not find it in its way.
            let _ = fs::remove_file(self.key_file);
        }
        let failure = Failure::from(error);
        if has_data {
            failure.hint("`init` never touches existing data; `run` serves it")
        } else if is_new {
            let directory = self.data.display();
            failure.hint(format!("the new store is unfinished: remove {directory} before the next `init`"))
        } else {
            failure
        }
    }

    async fn fill(&self, key: &KeyFile, operator: &Principal) -> Result<Token, server::Error> {
        let audit_file = self.audit_file.map_or_else(|| self.data.join(AUDIT_FILE_DEFAULT), Path::to_owned);
        let audit = Arc::new(AuditFile::open(&audit_file, true)?);
        let store = Embedded::open(self.data, Options::default()).await?;
        let made = vault::init(Arc::new(store.clone()), key, audit.clone(), Arc::new(SystemClock), operator).await;
        if let Err(error) = store.close().await {
            tracing::warn!(%error, "the store is not closed in good order; its next start repairs it");
        }
        audit.close(CLOSE_WAIT_MAX).await;
        let token = made?;
        seal_mark::set(self.data, key)?;
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interrupted_init_is_taken_up_and_a_finished_one_never_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let (data, key_file) = (dir.path().join("data"), dir.path().join("key"));
        let operator = Principal::parse("users/operator").expect("a principal");
        // As a kill after the first step leaves it.
        Embedded::create(&data).await.expect("an empty store");
        let new = |generate_key| NewStore { data: &data, key_file: &key_file, generate_key, audit_file: None };
        new(true).create(&operator).await.map(drop).expect("filled");
        new(false).create(&operator).await.map(drop).expect_err("it is there");
        // As a kill before the last step leaves it.
        fs::remove_file(data.join("sealed-with")).expect("the mark");
        let failure = new(false).create(&operator).await.map(drop).expect_err("it is there");
        let hint = failure.hint.expect("a hint");
        assert!(!hint.contains("remove"), "nobody is told to remove a store with something in it: {hint}");
        assert!(key_file.exists());
    }
}
