//! Room on the disk that is the log's before it needs it: on a disk that others have filled, lines are still written, and
//! so what needs a line, reads and deletes above all, goes on.
//!
//! The room lies behind the file's end, where nobody can read it and no other file can take it. It outlives the process.
//! File systems that cannot do this, such as NFS, give none.

use std::{fs::File, io};

use rustix::fs::{FallocateFlags, fallocate};

/// How much is kept, in bytes: ten thousand lines and more.
pub(super) const RESERVE_BYTES: u64 = 8 << 20;

/// What is kept for one file.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// Where the file ended when it was last kept.
    from: u64,
    /// Where it ends, in bytes from the file's start.
    to: u64,
    /// It was said that there is none.
    warned: bool,
}

impl Reserve {
    /// Keeps the whole reserve again if half of it is used. Changes neither the file's length nor what is in it.
    pub(super) fn keep(&mut self, file: &File) {
        let Ok(end) = file.metadata().map(|metadata| metadata.len()) else { return };
        let is_shorter = end < self.from;
        if !is_shorter && self.to >= end + RESERVE_BYTES / 2 {
            return;
        }
        match fallocate(file, FallocateFlags::KEEP_SIZE, end, RESERVE_BYTES).map_err(io::Error::from) {
            Ok(()) => *self = Self { from: end, to: end + RESERVE_BYTES, warned: false },
            Err(error) => {
                let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                if is_full && !self.warned {
                    tracing::warn!(
                        bytes = self.to.saturating_sub(end),
                        "the disk is full: the audit log has room for few more lines, and without one nothing is done"
                    );
                }
                self.warned = true;
            }
        }
    }

    /// Gives back what lies behind the end of a file that gets no more lines.
    pub(super) fn give_back(&mut self, file: &File) {
        // Room that stays taken harms nothing but the disk's.
        let _ = file.metadata().and_then(|metadata| file.set_len(metadata.len()));
        *self = Self::default();
    }

    /// A file that was cut has lost what lay behind its end.
    pub(super) fn is_lost(&mut self) {
        (self.from, self.to) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn taken(file: &File) -> u64 {
        file.metadata().expect("a file").blocks() * 512
    }

    #[test]
    fn room_is_taken_behind_the_end_once_and_given_back() {
        let file = tempfile::tempfile().expect("a file");
        let mut reserve = Reserve::default();
        reserve.keep(&file);
        if reserve.to == 0 {
            // A file system that cannot.
            return;
        }
        assert!(taken(&file) >= RESERVE_BYTES, "{}", taken(&file));
        assert_eq!(file.metadata().expect("a file").len(), 0);
        // Half of it is used, then more.
        file.set_len(RESERVE_BYTES / 2).expect("longer");
        reserve.keep(&file);
        assert_eq!(reserve.to, RESERVE_BYTES);
        file.set_len(RESERVE_BYTES / 2 + 1).expect("longer");
        reserve.keep(&file);
        assert_eq!((reserve.from, reserve.to), (RESERVE_BYTES / 2 + 1, RESERVE_BYTES / 2 + 1 + RESERVE_BYTES));
        assert!(taken(&file) >= RESERVE_BYTES);
        // Others cut it to nothing, which frees the room.
        file.set_len(0).expect("cut");
        reserve.keep(&file);
        assert!(taken(&file) >= RESERVE_BYTES, "{}", taken(&file));
        reserve.give_back(&file);
        assert_eq!(taken(&file), 0);
    }
}
