//! `coffer-server init`: a new store, and the first operator's token.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use coffer_proto::{name::Principal, token::Token};

use super::{
    Failure,
    offline::{Offline, OpenStore, Place},
    print,
};
use crate::{
    clock::SystemClock,
    config::{AUDIT_FILE_DEFAULT, EtcdSetting, KeySetting, StoreSetting},
    seal::source::{KeyFile, KeySource},
    server::{self, key, place, seal_mark},
    store::{
        self,
        embedded::{Embedded, OpenError, is_empty},
        etcd::Etcd,
    },
    vault,
};

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    #[command(flatten)]
    offline: Offline,
    /// Make the key file too; one that exists is never overwritten
    #[arg(long)]
    generate_key: bool,
    /// Where there is a store already leave it as it is, make no token, and end well: for a job that may run twice
    #[arg(long, conflicts_with = "generate_key")]
    if_missing: bool,
}

impl Init {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Self { offline, generate_key, if_missing } = self;
        let operator = offline.operator()?;
        let place = offline.place()?;
        let Place { store, key, audit_file } = &place;
        let new_key = NewKey::of(key, generate_key)?;
        let outlet = offline.outlet()?;
        let made = match store {
            StoreSetting::Embedded(data) => {
                NewStore { data, key: new_key, audit_file: audit_file.as_deref() }.create(&operator).await
            }
            StoreSetting::Etcd(etcd) => create_in_etcd(etcd, new_key, place.audit_file(), &operator).await,
        };
        if if_missing && made.as_ref().is_err_and(|not_made| not_made.has_data) {
            outlet.take_away();
            print::note(&format!("there is a store in {} already: it is left as it is", store.place()));
            return Ok(());
        }
        outlet.hand_out(made.map_err(Failure::from))?;
        print::note(&format!("made a store in {} for {operator}", store.place()));
        offline.tell_token(&place);
        print::note(&match key {
            KeySetting::File(file) => format!(
                "back up {}: without it nothing in the store can ever be read, and it must not lie beside a copy of the store",
                file.display()
            ),
            KeySetting::Credential { name, .. } => format!(
                "back up the key in the credential {name}: without it nothing in the store can ever be read, and it must not lie beside a copy of the store"
            ),
            KeySetting::Kms(_) => {
                "keep the plugin's key in its key management service: without it nothing in the store can ever be read"
                    .to_owned()
            }
        });
        print::next("to serve it", &format!("coffer-server run {}", offline.flags(&place)));
        Ok(())
    }
}

/// Why no store was made.
#[derive(Debug)]
pub(super) struct NotMade {
    failure: Failure,
    /// There is one already.
    has_data: bool,
}

impl From<Failure> for NotMade {
    fn from(failure: Failure) -> Self {
        Self { failure, has_data: false }
    }
}

impl From<NotMade> for Failure {
    fn from(not_made: NotMade) -> Self {
        not_made.failure
    }
}

/// A store to be made.
pub(super) struct NewStore<'a> {
    pub(super) data: &'a Path,
    pub(super) key: NewKey<'a>,
    pub(super) audit_file: Option<&'a Path>,
}

/// What is to open it.
#[derive(Clone, Copy, Debug)]
pub(super) enum NewKey<'a> {
    /// A key file, to be made too.
    Generated(&'a Path),
    /// Something that is there already.
    Present(&'a KeySetting),
}

impl<'a> NewKey<'a> {
    fn of(key: &'a KeySetting, generate: bool) -> Result<Self, Failure> {
        match (generate, key) {
            (false, key) => Ok(Self::Present(key)),
            (true, KeySetting::File(path)) => Ok(Self::Generated(path)),
            (true, _) => {
                let error = "--generate-key makes a key file, so it needs --key-file".to_owned();
                Err(Failure::usage(vec![error]))
            }
        }
    }

    /// The source; a key that was generated is on the disk.
    fn open(self) -> Result<Arc<dyn KeySource>, Failure> {
        let opened = match self {
            Self::Generated(path) => KeyFile::generate(path).map(|key| Arc::new(key) as Arc<dyn KeySource>),
            Self::Present(setting) => key::open(setting),
        };
        opened.map_err(|error| {
            let failure = Failure::from(server::Error::from(error));
            match self {
                Self::Generated(path) if path.exists() => {
                    failure.hint("without --generate-key `init` uses the key that is there")
                }
                Self::Present(KeySetting::File(path)) if !path.exists() => failure.hint("--generate-key makes one"),
                _ => failure,
            }
        })
    }
}

impl NewStore<'_> {
    /// Makes it; refuses existing data and existing keys.
    pub(super) async fn create(&self, operator: &Principal) -> Result<Token, NotMade> {
        let key = self.key.open()?;
        // Nothing is made that would have to be removed again.
        if let Err(error) = key.status().await {
            return Err(Failure::from(server::Error::from(error)).into());
        }
        let created = Embedded::create(self.data).await;
        // A store without its mark is one whose `init` was interrupted: it is filled if nothing is in it.
        let is_interrupted = matches!(created, Err(OpenError::Exists(_))) && !seal_mark::is_marked(self.data);
        let is_new = created.is_ok();
        let fillable = match created {
            Err(_) if is_interrupted => is_empty(self.data).await,
            created => created.map(|()| true),
        };
        let made = match fillable {
            Ok(true) => self.fill(key.as_ref(), operator).await,
            // Opening it would write, and it may be one that was restored.
            Ok(false) => Err(server::Error::Vault(vault::OpenError::NotEmpty)),
            Err(error) => Err(server::Error::from(error)),
        };
        made.map_err(|error| self.failure(error, is_new))
    }

    fn failure(&self, error: server::Error, is_new: bool) -> NotMade {
        let has_data = matches!(
            error,
            server::Error::Store(OpenError::Exists(_)) | server::Error::Vault(vault::OpenError::NotEmpty)
        );
        if let NewKey::Generated(path) = self.key
            && (has_data || (!is_new && is_unused(&error)))
        {
            // Nothing was sealed with it, and the next try must not find it in its way.
            let _ = fs::remove_file(path);
        }
        let failure = Failure::from(error);
        let failure = if has_data {
            failure.hint("`init` never touches existing data; `run` serves it")
        } else if is_new {
            let directory = self.data.display();
            failure.hint(format!("the new store is unfinished: remove {directory} before the next `init`"))
        } else {
            failure
        };
        NotMade { failure, has_data }
    }

    async fn fill(&self, key: &dyn KeySource, operator: &Principal) -> Result<Token, server::Error> {
        let audit_file = self.audit_file.map_or_else(|| self.data.join(AUDIT_FILE_DEFAULT), Path::to_owned);
        let open = OpenStore::open(&StoreSetting::Embedded(self.data.to_owned()), &audit_file).await?;
        let made = vault::init(open.store(), key, open.audit(), Arc::new(SystemClock), operator).await;
        open.close().await;
        let token = made?;
        seal_mark::set(self.data, key)?;
        Ok(token)
    }
}

/// Makes one in etcd; refuses existing data. One whose `init` was interrupted has nothing in it yet, and is filled.
async fn create_in_etcd(
    setting: &EtcdSetting,
    new_key: NewKey<'_>,
    audit_file: PathBuf,
    operator: &Principal,
) -> Result<Token, NotMade> {
    let key = new_key.open()?;
    let made = async {
        key.status().await?;
        let created = Etcd::create(place::options(setting)?).await;
        let opened = OpenStore::open(&StoreSetting::Etcd(Box::new(setting.clone())), &audit_file).await;
        // What stands in the way of a new store says more than that there is none.
        let open = opened.map_err(|error| created.map_or_else(server::Error::Etcd, |()| error))?;
        let made = vault::init(open.store(), key.as_ref(), open.audit(), Arc::new(SystemClock), operator).await;
        open.close().await;
        Ok::<_, server::Error>(made?)
    };
    made.await.map_err(|error| {
        let (has_data, is_unused) = (matches!(error, server::Error::Vault(vault::OpenError::NotEmpty)), is_unused(&error));
        if let NewKey::Generated(path) = new_key
            && is_unused
        {
            // The next try must not find it in its way.
            let _ = fs::remove_file(path);
        }
        let failure = Failure::from(error);
        let failure = if has_data {
            failure.hint("`init` never touches existing data; `run` serves it")
        } else if is_unused {
            failure
        } else {
            failure.hint(
                "the store may be made all the same: `coffer-server operator` with the same key makes a token then; if it \
                 says that the store is empty, `init` again, without --generate-key",
            )
        };
        NotMade { failure, has_data }
    })
}

/// Whether nothing can have been sealed with a key when `init` ended so.
fn is_unused(error: &server::Error) -> bool {
    use store::Error as Store;
    match error {
        server::Error::Vault(vault::OpenError::Store(error)) => !matches!(error, Store::Unknown(_) | Store::Failed(_)),
        // It may have been the line of what was done.
        server::Error::Vault(vault::OpenError::Audit(_)) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Unavailable;
    use crate::store::embedded::{Target, restore};

    #[tokio::test]
    async fn an_interrupted_init_is_taken_up_and_a_finished_one_never_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let (data, key_file) = (dir.path().join("data"), dir.path().join("key"));
        let operator = Principal::parse("users/operator").expect("a principal");
        // As a kill after the first step leaves it.
        Embedded::create(&data).await.expect("an empty store");
        let setting = KeySetting::File(key_file.clone());
        let new = |generate| {
            let key = NewKey::of(&setting, generate).expect("a file");
            NewStore { data: &data, key, audit_file: None }
        };
        new(true).create(&operator).await.map(drop).expect("filled");
        new(false).create(&operator).await.map(drop).expect_err("it is there");
        // As a kill before the last step leaves it.
        fs::remove_file(data.join("sealed-with")).expect("the mark");
        let failure = new(false).create(&operator).await.map(drop).expect_err("it is there");
        let hint = failure.failure.hint.expect("a hint");
        assert!(!hint.contains("remove"), "nobody is told to remove a store with something in it: {hint}");
        assert!(key_file.exists());
    }

    #[test]
    fn a_key_that_may_have_been_used_is_no_unused_one() {
        let of_store = |error| server::Error::Vault(vault::OpenError::Store(error));
        let lost = || "its answer was lost".to_owned();
        assert!(!is_unused(&of_store(store::Error::Unknown(lost()))));
        assert!(!is_unused(&of_store(store::Error::Failed(lost()))));
        assert!(!is_unused(&server::Error::Vault(vault::OpenError::Audit(Unavailable))), "maybe of what was done");
        assert!(is_unused(&of_store(store::Error::Unavailable(lost()))));
        assert!(is_unused(&server::Error::Vault(vault::OpenError::NotEmpty)));
        assert!(is_unused(&server::Error::File { setting: "etcd.ca", path: "ca.pem".into(), why: "is empty".into() }));
    }

    #[tokio::test]
    async fn a_restored_store_is_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let key = NewKey::Generated(&path("key"));
        let operator = Principal::parse("users/operator").expect("a principal");
        let new = NewStore { data: &path("old"), key, audit_file: None };
        new.create(&operator).await.map(drop).expect("filled");
        restore(&path("old"), &path("data"), Target::Newest, None, &mut |_, _| {}).expect("restored");
        let names = || {
            let entries = fs::read_dir(path("data")).expect("listed");
            entries.map(|entry| entry.expect("an entry").file_name()).collect::<std::collections::BTreeSet<_>>()
        };
        let before = names();
        let setting = KeySetting::File(path("key"));
        let over = NewStore { data: &path("data"), key: NewKey::Present(&setting), audit_file: None };
        let failure = over.create(&operator).await.map(drop).expect_err("there is something in it");
        assert!(failure.has_data && failure.failure.hint.expect("a hint").contains("never touches"));
        assert_eq!(names(), before);
    }
}
