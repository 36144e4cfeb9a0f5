//! Reads small files whose content the caller must not show.

use std::{
    fs::{File, Metadata},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use zeroize::Zeroizing;

/// Permission bits of everybody but the owner.
const GROUP_AND_OTHERS: u32 = 0o077;
/// The same where the group may read.
const GROUP_WRITES_AND_OTHERS: u32 = 0o037;

/// Reads a regular file of at most `bytes_max`. The error says what is wrong and names the file, nothing else.
pub(crate) fn read_bounded(what: &str, path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    read(what, path, bytes_max, |_| Ok(()))
}

/// The same of a file that others must not be able to read.
pub(crate) fn read_private(what: &str, path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    read(what, path, bytes_max, check_private)
}

/// A file of root's may be read by its group, which is how secrets are mounted for whoever is not root (Kubernetes:
/// fsGroup); PostgreSQL takes key files so.
fn check_private(metadata: &Metadata) -> Result<(), String> {
    let refused = if metadata.uid() == 0 { GROUP_WRITES_AND_OTHERS } else { GROUP_AND_OTHERS };
    if metadata.mode() & refused == 0 {
        return Ok(());
    }
    Err(format!("others can read it (mode {:04o}): chmod 600", metadata.mode() & 0o7777))
}

fn read(
    what: &str,
    path: &Path,
    bytes_max: usize,
    check: impl Fn(&Metadata) -> Result<(), String>,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let fail = |why: &dyn std::fmt::Display| format!("{what} {}: {why}", path.display());
    // Asked before opening: opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(|error| fail(&error))?;
    if !metadata.is_file() {
        return Err(fail(&"must be a regular file"));
    }
    let file = File::open(path).map_err(|error| fail(&error))?;
    // Of the file that is read, whatever has its name by now.
    file.metadata()
        .map_err(|error| error.to_string())
        .and_then(|metadata| check(&metadata))
        .map_err(|why| fail(&why))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(|error| fail(&error))?;
    if bytes.len() > bytes_max {
        return Err(fail(&format_args!("must have at most {bytes_max} bytes")));
    }
    Ok(bytes)
}
