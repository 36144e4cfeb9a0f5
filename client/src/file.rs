//! Reads small files whose content the caller must not show.

use std::{fs::File, io::Read as _, path::Path};

use zeroize::Zeroizing;

/// Reads a regular file of at most `bytes_max`. The error says what is wrong and names the file, nothing else.
pub(crate) fn read_bounded(what: &str, path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    let fail = |why: &dyn std::fmt::Display| format!("{what} {}: {why}", path.display());
    // Asked before opening: opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(|error| fail(&error))?;
    if !metadata.is_file() {
        return Err(fail(&"must be a regular file"));
    }
    let file = File::open(path).map_err(|error| fail(&error))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(|error| fail(&error))?;
    if bytes.len() > bytes_max {
        return Err(fail(&format_args!("must have at most {bytes_max} bytes")));
    }
    Ok(bytes)
}
