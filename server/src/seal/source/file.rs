//! A key in a file: 64 hexadecimal digits. systemd hands a credential over as a file, too.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use async_trait::async_trait;
use coffer_proto::text::{self, NotText};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    super::{Field, KeyId, Place, Uid, envelope, hex, key::SecretKey},
    Error, KeySource, RootKeyBytes, WrappedKey, wanted,
};

/// Length of a key file's text, in hexadecimal digits.
const KEY_FILE_DIGITS: usize = 64;
/// Longest key file read: the digits and a line end or two, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 256;

/// Whose file it is, and who may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Readable by its owner only.
    File,
    /// Readable by nobody else, but by the group where the mode says so: systemd lets a service's user in by an access
    /// control list, whose mask stands where the group's bits do, and nobody outside of the unit reaches the directory.
    /// <https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#Credentials>
    Credential,
}

impl Kind {
    fn what(self) -> &'static str {
        match self {
            Kind::File => "key file",
            Kind::Credential => "key credential",
        }
    }

    /// The bits of a mode that must not be set, and what to say if one is.
    fn forbidden(self) -> (u32, &'static str) {
        match self {
            Kind::File => (0o077, "a key file must be readable by its owner only: chmod 600"),
            Kind::Credential => (0o037, "a key credential must not be readable by others, nor writable by its group"),
        }
    }
}

/// A key in a file of its own.
pub struct KeyFile {
    kind: Kind,
    name: String,
    id: KeyId,
    key: SecretKey,
}

impl KeyFile {
    /// Reads a key file. It must be a regular file of this process's user or root, with no rights for group and others.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::read(path, Kind::File)
    }

    /// Reads a credential of systemd, the same but for its rights: a file `name` in the directory that systemd names in
    /// `CREDENTIALS_DIRECTORY`. The same bytes are the same key as in a key file, so that one can take the other's place.
    pub fn credential(directory: &Path, name: &str) -> Result<Self, Error> {
        Self::read(&directory.join(name), Kind::Credential)
    }

    fn read(path: &Path, kind: Kind) -> Result<Self, Error> {
        let what = kind.what();
        let io = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound if is_key(path) => key_for_path(what),
            _ => Error::Io { what, path: path.to_owned(), error },
        };
        let unfit = |reason| Error::Unfit { what, path: path.to_owned(), reason };
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
        let (forbidden, complaint) = kind.forbidden();
        if metadata.mode() & forbidden != 0 {
            return Err(unfit(complaint));
        }
        if metadata.len() > KEY_FILE_BYTES_MAX {
            return Err(unfit("a key file holds 64 hexadecimal digits and nothing else"));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX as usize));
        io::Read::read_to_end(&mut io::Read::take(file, KEY_FILE_BYTES_MAX), &mut bytes).map_err(io)?;
        let text = text::decode(&bytes).map_err(|error| match error {
            NotText::Utf16 => unfit("a key file is UTF-16; save it as UTF-8"),
            NotText::NotUtf8 => unfit("a key file holds 64 hexadecimal digits and nothing else"),
        })?;
        let key = parse(text).ok_or_else(|| unfit("a key file holds 64 hexadecimal digits and nothing else"))?;
        Ok(Self::new(kind, path, key))
    }

    /// Makes a new random key and writes it to a new file, mode 0600. Never overwrites one.
    pub fn generate(path: &Path) -> Result<Self, Error> {
        let io = |error| Error::Io { what: Kind::File.what(), path: path.to_owned(), error };
        if is_key(path) {
            return Err(key_for_path(Kind::File.what()));
        }
        let key = SecretKey::generate()?;
        let mut text = Zeroizing::new(hex(key.bytes()));
        text.push('\n');
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(io)?;
        Ok(Self::new(Kind::File, path, key))
    }

    /// The id is a keyed digest of a constant: it tells two keys apart and says nothing of either.
    fn new(kind: Kind, path: &Path, key: SecretKey) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.bytes()).expect("HMAC takes keys of any length");
        mac.update(b"coffer key file id 1");
        let mut id = [0; 8];
        id.copy_from_slice(&mac.finalize().into_bytes()[..8]);
        Self { kind, name: format!("{} {}", kind.what(), path.display()), id: KeyId(id), key }
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

/// Whether a path is no path but the digits of a key, which no error may show.
fn is_key(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| parse(name).is_some())
}

fn key_for_path(what: &'static str) -> Error {
    Error::Unfit { what, path: "…".into(), reason: "the key itself was given where its file is to be named" }
}

fn parse(text: &str) -> Option<SecretKey> {
    let digits = text.trim_end_matches(['\n', '\r']);
    if digits.len() != KEY_FILE_DIGITS || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    SecretKey::from_slice(bytes.as_slice())
}

const FILE: &str = "file";
const CREDENTIAL: &str = "credential";

#[async_trait]
impl KeySource for KeyFile {
    fn kind(&self) -> &'static str {
        match self.kind {
            Kind::File => FILE,
            Kind::Credential => CREDENTIAL,
        }
    }

    fn name(&self) -> &str {
        &self.name
    }

    /// The same for a file and a credential.
    fn mark(&self) -> String {
        format!("file key {}", self.id)
    }

    /// The key was read at the start: it is there.
    async fn status(&self) -> Result<String, Error> {
        Ok(self.id.to_string())
    }

    async fn wrap(&self, store: Uid, root: &RootKeyBytes) -> Result<WrappedKey, Error> {
        let bytes = envelope::seal(self.id, &self.key, &Self::place(store), &root.0)?;
        let (source, key_id) = (self.kind().to_owned(), self.id.to_string());
        Ok(WrappedKey { source, key_id, bytes, annotations: Vec::new() })
    }

    async fn unwrap(&self, store: Uid, wrapped: &WrappedKey) -> Result<RootKeyBytes, Error> {
        if ![FILE, CREDENTIAL].contains(&wrapped.source.as_str()) || wrapped.key_id != self.id.to_string() {
            let given = format!("{} key {}", self.kind(), self.id);
            return Err(Error::WrongKey { name: self.name.clone(), wanted: wanted(wrapped), given });
        }
        let root = envelope::open(self.id, &self.key, &Self::place(store), &wrapped.bytes);
        root.map(RootKeyBytes).map_err(|_| Error::Damaged)
    }
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
        fs::write(&path, [0xff; 32]).expect("written");
        assert!(matches!(KeyFile::open(&path), Err(Error::Unfit { .. })), "a key as it is");
        // A credential may have the mask of an access control list where a group's rights stand, and no more.
        for (mode, is_fit) in [(0o400, true), (0o440, true), (0o600, true), (0o444, false), (0o460, false)] {
            write(&good, mode);
            assert_eq!(KeyFile::credential(dir.path(), "key").is_ok(), is_fit, "{mode:o}");
        }
        write(&good, 0o600);
        assert!(matches!(KeyFile::open(dir.path()), Err(Error::Unfit { .. })), "a directory");
        assert!(matches!(KeyFile::open(&dir.path().join("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn a_key_in_the_place_of_its_file_is_not_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = "0123456789abcdef".repeat(4);
        let path = dir.path().join(&key);
        for refused in [KeyFile::open(&path), KeyFile::generate(&path)] {
            let told = refused.expect_err("no path").to_string();
            assert!(told.contains("the key itself was given") && !told.contains(&key[..16]), "{told}");
        }
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_and_a_credential_with_the_same_bytes_are_one_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = KeyFile::generate(&dir.path().join("key")).expect("made");
        let credential = KeyFile::credential(dir.path(), "key").expect("read");
        let store = Uid([5; 16]);
        let root = RootKeyBytes(Zeroizing::new(vec![7; 32]));
        for (wraps, unwraps) in [(&file, &credential), (&credential, &file)] {
            let wrapped = wraps.wrap(store, &root).await.expect("wrapped");
            assert_eq!(wrapped.source, wraps.kind());
            assert_eq!(unwraps.unwrap(store, &wrapped).await.map(|root| root.0.to_vec()).expect("opens"), vec![7; 32]);
        }
        assert_eq!(file.mark(), credential.mark());
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
        assert!(told.len() < 300 && !told.contains('\u{1b}'), "{told}");
        *wrapped.bytes.last_mut().expect("bytes") ^= 1;
        assert!(matches!(right.unwrap(store, &wrapped).await, Err(Error::Damaged)));
    }
}
