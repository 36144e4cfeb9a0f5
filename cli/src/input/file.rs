//! Bounded reading of what may be secret.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use zeroize::Zeroizing;

use crate::failure::Failure;

/// Stdin, up to one byte more than `bytes_max`: the caller knows best how to say that it is too long.
pub(crate) fn stdin(bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    bounded(io::stdin().lock(), bytes_max).map_err(|error| Failure::file("stdin", &error))
}

/// A file, up to one byte more than `bytes_max`. Pipes are files, too.
pub(crate) fn path(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    File::open(path).and_then(|file| bounded(file, bytes_max)).map_err(|error| Failure::file(path.display(), &error))
}

/// The same, where a file called `-` is stdin.
pub(crate) fn path_or_stdin(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if is_stdin(path) { stdin(bytes_max) } else { self::path(path, bytes_max) }
}

/// Every option that takes a file to read takes this for stdin; a file of that name is `./-`.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn bounded(source: impl Read, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for everything from the beginning: growing would leave copies in memory that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    source.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_sees_one_byte_too_many() {
        let read = |bytes: &[u8]| bounded(bytes, 5).expect("readable").to_vec();
        assert_eq!(read(b"12345"), b"12345");
        assert_eq!(read(b"12345678"), b"123456");
    }
}
