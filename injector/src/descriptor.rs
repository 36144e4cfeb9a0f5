//! What std and the crates used have no safe function for: a descriptor known by number, and a signal's disposition.
#![expect(unsafe_code, reason = "the only module of the injector with unsafe code, for the two reasons above")]

use std::{
    fs::File,
    io,
    os::fd::{BorrowedFd, FromRawFd as _, RawFd},
};

use nix::sys::signal::{SigHandler, Signal, signal};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Takes over a descriptor that this process was started with. From here on it is closed like every other file, at an
/// exec if not before. Must be called before any file is opened, so that the number cannot be one of ours.
pub(crate) fn take_inherited(number: RawFd) -> io::Result<File> {
    // SAFETY: at worst the descriptor is closed, which the call that borrows it reports as EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl_getfd(borrowed)?;
    fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC)?;
    // SAFETY: it is open, the caller vouches that nothing here owns it, and it is above the standard streams.
    Ok(unsafe { File::from_raw_fd(number) })
}

/// Undoes what Rust's runtime does before main: it ignores SIGPIPE, which an exec would pass on. What the disposition
/// was before that nobody can tell any more; nearly always it was the default.
pub(crate) fn restore_sigpipe() -> io::Result<()> {
    // SAFETY: no handler is installed, only the default put back; no other thread is running.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.map(drop).map_err(io::Error::from)
}
