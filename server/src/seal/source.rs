//! What wraps the root key. The store's header says which source wrapped it; without the source nothing opens.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Field, KeyId, NoRandomness, Place, Uid, envelope, hex, key::SecretKey};

/// Length of a key file's text, in hexadecimal digits.
const KEY_FILE_DIGITS: usize = 64;
/// Longest key file read: the digits and a line end or two, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 128;

/// The root key, wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which kind of source wrapped it: `file`.
    pub source: String,
    /// Which of the source's keys wrapped it. Not secret.
    pub key_id: String,
    /// The wrapped bytes.
    pub bytes: Vec<u8>,
}

/// The root key, on its way between a source and the keyring. Wiped when dropped.
pub struct RootKeyBytes(pub(super) Zeroizing<Vec<u8>>);

/// Something that can wrap and unwrap the root key.
#[async_trait]
pub trait KeySource: Send + Sync {
    /// Wraps the root key of a store.
    async fn wrap(&self, store: Uid, root: &RootKeyBytes) -> Result<WrappedKey, Error>;
    /// Unwraps it, or says why not.
    async fn unwrap(&self, store: Uid, wrapped: &WrappedKey) -> Result<RootKeyBytes, Error>;
}

/// Why a key source cannot be used. Never says anything of a key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// The file is not one that may hold a key.
    #[error("{}: {reason}", path.display())]
    Unfit {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another key wrapped this store's root key.
    #[error("wrong key: this store was sealed with {wanted}, the key given is {given}")]
    WrongKey {
        /// The source and key id in the store's header.
        wanted: String,
        /// The source and key id of the source given.
        given: String,
    },
    /// The key is the right one, but the wrapped root key does not open: the store's header is damaged.
    #[error("the store's header is damaged: its root key does not open with the right key")]
    Damaged,
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// A key in a file of its own: 64 hexadecimal digits, readable by its owner only.
pub struct KeyFile {
    id: KeyId,
    key: SecretKey,
}

impl KeyFile {
    /// Reads a key file. It must be a regular file of this process's user or root, with no rights for group and others.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |error| Error::Io { path: path.to_owned(), error };
        let unfit = |reason| Error::Unfit { path: path.to_owned(), reason };
        // O_NONBLOCK: opening a FIFO must not wait for a writer; it is refused below.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .open(path)
            .map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(unfit("a key file must be a regular file"));
        }
        let me = rustix::process::geteuid().as_raw();
        if metadata.uid() != me && metadata.uid() != 0 {
            return Err(unfit("a key file must belong to the user the server runs as, or to root"));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(unfit("a key file must be readable by its owner only: chmod 600"));
        }
        if metadata.len() > KEY_FILE_BYTES_MAX {
            return Err(unfit("a key file holds 64 hexadecimal digits and nothing else"));
        }
        let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX as usize));
        io::Read::read_to_string(&mut io::Read::take(file, KEY_FILE_BYTES_MAX), &mut text).map_err(io)?;
        Self::from_text(&text).ok_or_else(|| unfit("a key file holds 64 hexadecimal digits and nothing else"))
    }

    /// Makes a new random key and writes it to a new file, mode 0600. Never overwrites one.
    pub fn generate(path: &Path) -> Result<Self, Error> {
        let io = |error| Error::Io { path: path.to_owned(), error };
        let key = SecretKey::generate()?;
        let mut text = Zeroizing::new(hex(key.bytes()));
        text.push('\n');
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(io)?;
        Ok(Self::from_key(key))
    }

    /// Which key it is, in words that are not secret: they tell two keys apart and say nothing of either.
    pub fn label(&self) -> String {
        format!("{SOURCE} key {}", self.id)
    }

    fn from_text(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(['\n', '\r']);
        if digits.len() != KEY_FILE_DIGITS || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = Zeroizing::new([0; 32]);
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        SecretKey::from_slice(bytes.as_slice()).map(Self::from_key)
    }

    /// The id is a keyed digest of a constant: it tells two keys apart and says nothing of either.
    fn from_key(key: SecretKey) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.bytes()).expect("HMAC takes keys of any length");
        mac.update(b"coffer key file id 1");
        let mut id = [0; 8];
        id.copy_from_slice(&mac.finalize().into_bytes()[..8]);
        Self { id: KeyId(id), key }
    }

    fn place(store: Uid) -> Place<'static> {
        Place {
            store,
            record: "header",
            scope: Uid::NONE,
            secret: Uid::NONE,
            field: Field::RootKey,
            kind: 0,
            version: 0,
        }
    }
}

const SOURCE: &str = "file";

#[async_trait]
impl KeySource for KeyFile {
    async fn wrap(&self, store: Uid, root: &RootKeyBytes) -> Result<WrappedKey, Error> {
        let bytes = envelope::seal(self.id, &self.key, &Self::place(store), &root.0)?;
        Ok(WrappedKey { source: SOURCE.to_owned(), key_id: self.id.to_string(), bytes })
    }

    async fn unwrap(&self, store: Uid, wrapped: &WrappedKey) -> Result<RootKeyBytes, Error> {
        if wrapped.source != SOURCE || wrapped.key_id != self.id.to_string() {
            return Err(Error::WrongKey {
                wanted: format!("{} key {}", printable(&wrapped.source), printable(&wrapped.key_id)),
                given: self.label(),
            });
        }
        let root = envelope::open(self.id, &self.key, &Self::place(store), &wrapped.bytes);
        root.map(RootKeyBytes).map_err(|_| Error::Damaged)
    }
}

/// The store is untrusted: what it says of itself must not reach a terminal as it is.
fn printable(text: &str) -> String {
    const SHOWN_CHARS: usize = 64;
    text.chars().take(SHOWN_CHARS).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyFile({}, …)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_generated_file_opens_and_is_never_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        let made = KeyFile::generate(&path).expect("made");
        assert_eq!(KeyFile::open(&path).expect("opens").id, made.id);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(matches!(KeyFile::generate(&path), Err(Error::Io { .. })));
        assert_eq!(KeyFile::open(&path).expect("still opens").id, made.id);
    }

    #[test]
    fn refuses_files_that_others_can_read_and_files_that_hold_no_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        let write = |text: &str, mode| {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
        };
        let good = "0123456789abcdef".repeat(4);
        write(&good, 0o600);
        assert!(KeyFile::open(&path).is_ok());
        write(&good, 0o640);
        assert!(matches!(KeyFile::open(&path), Err(Error::Unfit { .. })));
        for bad in ["", "00", &good[1..], &format!("{good}00"), &format!("{}zz", &good[2..]), &"0".repeat(4096)] {
            write(bad, 0o600);
            assert!(matches!(KeyFile::open(&path), Err(Error::Unfit { .. })), "{} digits", bad.len());
        }
        assert!(matches!(KeyFile::open(dir.path()), Err(Error::Unfit { .. })), "a directory");
        assert!(matches!(KeyFile::open(&dir.path().join("none")), Err(Error::Io { .. })));
    }

    #[tokio::test]
    async fn a_wrong_key_is_told_from_damage() {
        let dir = tempfile::tempdir().expect("a directory");
        let right = KeyFile::generate(&dir.path().join("a")).expect("made");
        let wrong = KeyFile::generate(&dir.path().join("b")).expect("made");
        let store = Uid([5; 16]);
        let root = RootKeyBytes(Zeroizing::new(vec![7; 32]));
        let mut wrapped = right.wrap(store, &root).await.expect("wrapped");
        assert_eq!(right.unwrap(store, &wrapped).await.map(|root| root.0.to_vec()).expect("opens"), vec![7; 32]);
        assert!(matches!(wrong.unwrap(store, &wrapped).await, Err(Error::WrongKey { .. })));
        assert!(matches!(right.unwrap(Uid([6; 16]), &wrapped).await, Err(Error::Damaged)), "another store's header");
        let forged = WrappedKey { key_id: "\u{1b}[2J".repeat(1_000), ..wrapped.clone() };
        let told = right.unwrap(store, &forged).await.map(drop).expect_err("another key").to_string();
        assert!(told.len() < 200 && !told.contains('\u{1b}'), "{told}");
        *wrapped.bytes.last_mut().expect("bytes") ^= 1;
        assert!(matches!(right.unwrap(store, &wrapped).await, Err(Error::Damaged)));
    }
}
