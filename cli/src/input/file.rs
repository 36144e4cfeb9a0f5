//! Bounded reading of what may be secret.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use zeroize::Zeroizing;

use crate::failure::Failure;

/// All of stdin, if it has at most `bytes_max`.
pub(crate) fn stdin(bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    bounded(io::stdin().lock(), bytes_max).map_err(|error| Failure::failed(format!("stdin: {error}")))
}

/// All of a file, if it has at most `bytes_max`. Pipes are files, too.
pub(crate) fn path(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    File::open(path)
        .and_then(|file| bounded(file, bytes_max))
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

fn bounded(source: impl Read, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for everything from the beginning: growing would leave copies in memory that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    source.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(io::Error::other(format!("must have at most {bytes_max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_exact() {
        assert_eq!(bounded(&b"12345"[..], 5).expect("fits").as_slice(), b"12345");
        assert!(bounded(&b"123456"[..], 5).is_err());
    }
}
