//! Where the store is, from the setting to the open store.

use std::{
    fs::File,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use zeroize::Zeroizing;

use super::Error;
use crate::{
    clock::{Clock as _, SystemClock},
    config::{EtcdSetting, History, StoreSetting},
    serve::{Of, Pair, Unusable},
    store::{
        self, Store,
        embedded::{Embedded, Options},
        etcd::{Etcd, EtcdOptions, Identity, OpenError, PREFIX_BYTES_MAX, Recorded, Tls, User},
    },
    vault::Sharing,
};

/// Largest file of a certificate, key or password, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// What a configuration may say, the store takes.
const _: () = assert!(EtcdSetting::PREFIX_BYTES_MAX == PREFIX_BYTES_MAX);

/// A store that is open.
#[derive(Clone)]
pub(crate) enum Place {
    /// This process's alone.
    Embedded(Embedded),
    /// In etcd, and the same with its history, if this process keeps that.
    Etcd(Etcd, Option<Recorded>),
}

impl Place {
    /// Opens a store that was made.
    pub(crate) async fn open(setting: &StoreSetting, history: History) -> Result<Self, Error> {
        let History { retention, bytes_max } = history;
        let kept = Options { retention, history_bytes_max: bytes_max, ..Options::default() };
        Ok(match setting {
            StoreSetting::Embedded(data) => Self::Embedded(Embedded::open(data, kept).await?),
            StoreSetting::Etcd(etcd) => {
                let store = Etcd::open(options(etcd)?).await?;
                store.may_write().await.map_err(OpenError::from)?;
                let start = |directory: &PathBuf| Recorded::new(store.clone(), directory.clone(), kept);
                let recorded = etcd.history.as_ref().map(start);
                Self::Etcd(store, recorded)
            }
        })
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => Arc::new(store.clone()),
            Self::Etcd(_, Some(recorded)) => Arc::new(recorded.clone()),
            Self::Etcd(store, None) => Arc::new(store.clone()),
        }
    }

    /// What was recorded of the store counts from now on.
    pub(super) async fn recall(&self) {
        if let Self::Etcd(_, Some(recorded)) = self {
            recorded.recall().await;
        }
    }

    /// Begins to keep the history, now that the key has shown that the store is the one that was meant.
    pub(super) fn record(&self) {
        if let Self::Etcd(_, Some(recorded)) = self {
            recorded.begin();
        }
    }

    /// Writes what is not written yet. Nothing in etcd waits for that, only the history of it.
    pub(crate) async fn close(&self) -> Result<(), store::Error> {
        match self {
            Self::Embedded(store) => store.close().await,
            Self::Etcd(_, recorded) => {
                if let Some(recorded) = recorded {
                    recorded.close().await;
                }
                Ok(())
            }
        }
    }
}

/// Whose the store is.
pub(crate) fn sharing(setting: &StoreSetting) -> Sharing {
    match setting {
        StoreSetting::Embedded(_) => Sharing::Own,
        StoreSetting::Etcd(etcd) => Sharing::Shared { max_stale: etcd.max_stale },
    }
}

/// Reads the files, each of which is good by itself.
pub(crate) fn options(setting: &EtcdSetting) -> Result<EtcdOptions, Error> {
    let tls = match &setting.ca {
        None => None,
        Some(ca) => {
            let identity = match &setting.identity {
                None => None,
                Some((certificate, key)) => {
                    let files = (certificate.as_path(), key.as_path());
                    let (certificate, key) = (pem("etcd.cert", certificate)?, read("etcd.key", key, true)?);
                    check_identity(files, &certificate, &key)?;
                    Some(Identity { certificate, key })
                }
            };
            Some(Tls { ca: pem("etcd.ca", ca)?, identity, name: setting.server_name.clone() })
        }
    };
    let user = match &setting.user {
        None => None,
        Some((name, file)) => {
            let bytes = read(PASSWORD, file, true)?;
            let text = std::str::from_utf8(&bytes).map_err(|_| wrong(PASSWORD, file, "is no text"))?;
            let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
            Some(User { name: name.clone(), password })
        }
    };
    Ok(EtcdOptions { endpoints: setting.endpoints.clone(), prefix: setting.prefix.clone(), tls, user })
}

/// What is to be done soon about coffer's own certificate for etcd.
pub(crate) fn warnings(options: &EtcdOptions) -> Vec<String> {
    let identity = options.tls.as_ref().and_then(|tls| tls.identity.as_ref());
    let now = SystemClock.now();
    let pair = identity.and_then(|identity| Pair::of(&identity.certificate, &identity.key, now).ok());
    let end = pair.and_then(|pair| pair.end_warning(now));
    end.into_iter().map(|end| format!("`etcd.cert`: the certificate {end}")).collect()
}

/// Checks that coffer's own certificate for etcd can be used now; otherwise etcd would refuse it and not say why.
fn check_identity((certificate, key): (&Path, &Path), pem: &[u8], key_pem: &[u8]) -> Result<(), Error> {
    Pair::of(pem, key_pem, SystemClock.now()).map(drop).map_err(|(of, why)| match (of, why) {
        (_, Unusable::Mismatch) => wrong("etcd.key", key, "is the key of another certificate than `etcd.cert`"),
        (Of::Certificate, why) => wrong("etcd.cert", certificate, why),
        (Of::Key, why) => wrong("etcd.key", key, why),
    })
}

const PASSWORD: &str = "etcd.password_file";

/// A file of certificates. rustls would ignore what is none, and then trust nobody without saying why.
fn pem(setting: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let pem = read(setting, path, false)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(found) if !found.is_empty() => Ok(pem.to_vec()),
        _ => Err(wrong(setting, path, "must hold certificates in PEM")),
    }
}

fn wrong(setting: &'static str, path: &Path, why: impl ToString) -> Error {
    Error::File { setting, path: path.to_owned(), why: why.to_string() }
}

/// A file; one that is secret must not be everyone's. A group of its own may read it, as of mounted secrets.
fn read(setting: &'static str, path: &Path, is_secret: bool) -> Result<Zeroizing<Vec<u8>>, Error> {
    let wrong = |path, why: &dyn ToString| wrong(setting, path, why.to_string());
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let open = File::options().read(true).custom_flags(flags).open(path);
    let file = open.map_err(|error| wrong(path, &error))?;
    let metadata = file.metadata().map_err(|error| wrong(path, &error))?;
    if !metadata.is_file() {
        return Err(wrong(path, &"is no regular file"));
    }
    if is_secret && metadata.mode() & 0o007 != 0 {
        return Err(wrong(path, &"can be read by everyone: its mode must be 0600, or 0640 for a group of its own"));
    }
    if metadata.len() == 0 || metadata.len() > FILE_BYTES_MAX {
        return Err(wrong(path, &format!("is empty, or longer than {} KiB", FILE_BYTES_MAX / 1024)));
    }
    let room = usize::try_from(metadata.len()).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| wrong(path, &error))?;
    Ok(bytes)
}
