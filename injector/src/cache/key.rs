//! The key file: 64 hexadecimal digits, under the rule of the server's key file.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use coffer_proto::text;
use rustix::{fs::OFlags, process::geteuid};
use zeroize::Zeroizing;

/// Length of the text, in hexadecimal digits.
const DIGITS: usize = 2 * BYTES;
const BYTES: usize = 32;
/// Longest file that is read: the digits and a line end or two, in bytes.
const FILE_BYTES_MAX: usize = 256;

/// The key, wiped when dropped.
pub(super) type Key = Zeroizing<[u8; BYTES]>;

/// Reads a key file. It must be a regular file of this process's user or root, with no rights for group and others.
pub(super) fn read(path: &Path) -> Result<Key, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    // O_NONBLOCK: opening a FIFO must not wait for a writer; it is refused below.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let mut file = options.open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("must be a regular file".to_owned());
    }
    if metadata.uid() != geteuid().as_raw() && metadata.uid() != 0 {
        return Err("must belong to this user or to root".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err("must be readable by its owner only: chmod 600".to_owned());
    }
    // Never grown, which would leave copies behind.
    let mut text = Zeroizing::new([0; FILE_BYTES_MAX]);
    let mut filled = 0;
    while filled < FILE_BYTES_MAX {
        match file.read(&mut text[filled..]).map_err(unreadable)? {
            0 => break,
            count => filled += count,
        }
    }
    let text = text::decode(&text[..filled]).map_err(|error| error.to_string())?;
    parse(text.as_bytes()).ok_or_else(|| "must hold 64 hexadecimal digits and nothing else".to_owned())
}

fn parse(text: &[u8]) -> Option<Key> {
    let end = text.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |at| at + 1);
    let digits = &text[..end];
    if digits.len() != DIGITS {
        return None;
    }
    let mut key = Zeroizing::new([0; BYTES]);
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    #[test]
    fn only_an_owners_file_of_64_digits_is_a_key() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("key");
        let read_as = |text: &str, mode| {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            read(&path)
        };
        let good = "0123456789abcdefABCDEF0123456789".repeat(2);
        let key = read_as(&format!("{good}\r\n"), 0o600).expect("a key");
        assert_eq!((key[0], key[8], key[31]), (0x01, 0xab, 0x89));
        read_as(&good, 0o400).expect("a key");
        for mode in [0o640, 0o604, 0o610] {
            assert!(read_as(&good, mode).expect_err("refused").contains("chmod 600"));
        }
        for bad in ["", "00", &good[1..], &format!("{good}0"), &format!("{good} "), &good.replace('a', "g")] {
            let problem = read_as(bad, 0o600).expect_err("refused");
            assert!(problem.contains("64 hexadecimal"), "{problem}");
        }
        read_as(&good.repeat(100), 0o600).expect_err("too long");
        read(root.path()).expect_err("a directory");
        read(&root.path().join("none")).expect_err("none");
    }
}
