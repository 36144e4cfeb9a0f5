//! The token, when it comes by a descriptor.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::RawFd,
    time::Instant,
};

use coffer_client::Credential;
use coffer_proto::{text, token::Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zeroize::Zeroizing;

use crate::{Exit, Failure, descriptor};

/// Most bytes read from a descriptor: a token has less than 100, and white space around it is ignored.
const TOKEN_BYTES: usize = 4 * 1024;

/// Where the token comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Read until its end, then closed.
    Descriptor(RawFd),
    /// A file that the client reads, or the token itself.
    Ready(Credential),
}

impl Source {
    /// The credential. Waits for a descriptor's end until the deadline.
    pub(crate) fn credential(self, deadline: Instant) -> Result<Credential, Failure> {
        let number = match self {
            Source::Ready(credential) => return Ok(credential),
            Source::Descriptor(number) => number,
        };
        let fail = |why: String| Failure::new(Exit::Denied, format!("--token-fd {number}: {why}"));
        let file = descriptor::take_inherited(number).map_err(|error| fail(format!("cannot be read: {error}")))?;
        let bytes = match read(file, deadline) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(Failure::new(Exit::Unavailable, format!("--token-fd {number}: its writer did not finish")));
            }
            Err(error) => return Err(fail(format!("cannot be read: {error}"))),
        };
        if bytes.trim_ascii().is_empty() {
            return Err(fail("is empty".to_owned()));
        }
        let text = text::decode(&bytes).map_err(|error| fail(error.to_string()))?;
        Token::parse(text.trim()).map(Credential::Token).map_err(|error| fail(error.to_string()))
    }
}

/// Reads to the end.
fn read(mut file: File, deadline: Instant) -> io::Result<Zeroizing<Vec<u8>>> {
    // One byte more than allowed, so that too much is noticed; never grown, which would leave copies behind.
    let mut bytes = Zeroizing::new(vec![0; TOKEN_BYTES + 1]);
    let mut filled = 0;
    loop {
        wait(&file, deadline)?;
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
        if filled > TOKEN_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {TOKEN_BYTES} bytes")));
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Waits until there is something to read, or the end.
fn wait(file: &File, deadline: Instant) -> io::Result<()> {
    let rest = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(rest).map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout)) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_proto::token::TokenKind;
    use std::{
        io::Write as _,
        os::fd::{IntoRawFd as _, OwnedFd},
        time::Duration,
    };

    fn in_secs(secs: u64) -> Instant {
        Instant::now() + Duration::from_secs(secs)
    }

    fn source(reader: impl Into<OwnedFd>) -> Source {
        Source::Descriptor(reader.into().into_raw_fd())
    }

    fn failure(source: Source, deadline: Instant) -> (Exit, String) {
        let failure = source.credential(deadline).expect_err("no token");
        (failure.exit(), failure.problems().collect())
    }

    #[test]
    fn a_token_arrives_in_pieces() {
        let token = Token::generate(TokenKind::Workload);
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let text = format!("  {}\n", token.expose());
        let writing = std::thread::spawn(move || {
            for piece in text.as_bytes().chunks(7) {
                writer.write_all(piece).expect("written");
            }
        });
        let credential = source(reader).credential(in_secs(60)).expect("a token");
        writing.join().expect("written");
        let Credential::Token(read) = credential else { panic!("another kind") };
        assert_eq!(read.expose(), token.expose());
    }

    #[test]
    fn what_is_no_token_is_refused_unseen() {
        for content in [&b"hunter2"[..], b"", b"\xff", &[b'a'; TOKEN_BYTES + 1]] {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            writer.write_all(content).expect("written");
            drop(writer);
            let (exit, problem) = failure(source(reader), in_secs(60));
            assert_eq!(exit, Exit::Denied);
            assert!(problem.starts_with("--token-fd ") && !problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn nothing_is_called_so() {
        for content in [&b""[..], b" \n"] {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            writer.write_all(content).expect("written");
            drop(writer);
            let (exit, problem) = failure(source(reader), in_secs(60));
            assert!(exit == Exit::Denied && problem.ends_with(": is empty"), "{problem}");
        }
    }

    #[test]
    fn a_writer_that_never_ends_is_not_waited_for() {
        let (reader, _writer) = io::pipe().expect("a pipe");
        let (exit, problem) = failure(source(reader), Instant::now() + Duration::from_millis(20));
        assert_eq!(exit, Exit::Unavailable);
        assert!(problem.contains("did not finish"), "{problem}");
    }

    #[test]
    fn a_closed_descriptor_is_named() {
        let (exit, problem) = failure(Source::Descriptor(1_000_000), in_secs(60));
        assert_eq!(exit, Exit::Denied);
        assert!(problem.contains("--token-fd 1000000: cannot be read"), "{problem}");
    }
}
