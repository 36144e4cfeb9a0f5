//! Asks for a value on the terminal without echo, and leaves the terminal as it was on every way out.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    time::Duration,
};

use nix::sys::{
    signal::{SigSet, Signal, raise},
    signalfd::SignalFd,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::OFlags,
    io::retry_on_intr,
    termios::{InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr},
};
use zeroize::Zeroizing;

use super::keys::{BRACKETS_OFF, BRACKETS_ON, End, Text};
use crate::failure::Failure;

/// The terminal that controls the process, then the one on stdin.
const TERMINALS: [&str; 2] = ["/dev/tty", "/proc/self/fd/0"];
/// More that arrives within this time after Enter was not typed but pasted.
const PASTE_GAP: Duration = Duration::from_millis(100);
/// A paste without brackets has ended when nothing came for this long: networks deliver it in parts.
const PASTE_QUIET: Duration = Duration::from_millis(500);
/// Bytes of such a paste that are taken from the terminal before giving up, so that no shell runs them.
const PASTE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Signals that end or stop a program by themselves; a terminal or a person sends them.
const SIGNALS: [Signal; 5] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTSTP];

/// Asks for a value. An empty one is an answer, too.
pub(crate) fn ask(prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let fail = |error: io::Error| {
        Failure::failed(format!("cannot ask for the value: {error}")).hint("--value-stdin reads a pipe")
    };
    let signals = Signals::block().map_err(fail)?;
    let device = open().map_err(fail)?;
    let mut terminal = Hidden::new(&device).map_err(fail)?;
    terminal.show(prompt).map_err(fail)?;
    let mut text = Text::new();
    loop {
        match next(&device, &signals, None).map_err(fail)? {
            Next::Signal(signal) => {
                // The terminal first: the signal may be the end of this program, or stop it.
                drop(terminal);
                signals.deliver(signal).map_err(fail)?;
                terminal = Hidden::new(&device).map_err(fail)?;
                terminal.show(prompt).map_err(fail)?;
            }
            Next::Byte(byte) => match text.push(byte) {
                None => {}
                Some(End::Nothing) => return Ok(Zeroizing::default()),
                Some(End::Enter) => {
                    refuse_more(&device, &signals, byte).map_err(fail)??;
                    return Ok(text.finish());
                }
            },
            // It hung up.
            Next::Nothing => return Err(fail(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Takes the rest of a paste that the terminal did not bracket, and refuses it: the shell would run it.
fn refuse_more(device: &File, signals: &Signals, enter: u8) -> io::Result<Result<(), Failure>> {
    let (mut lines, mut bytes, mut wait) = (1, 0, PASTE_GAP);
    loop {
        match next(device, signals, Some(wait))? {
            // Some send both for the key.
            Next::Byte(b'\n') if enter == b'\r' && bytes == 0 => {}
            Next::Byte(byte) => {
                bytes += 1;
                lines += usize::from(matches!(byte, b'\r' | b'\n'));
                wait = PASTE_QUIET;
            }
            Next::Nothing => break,
            // It is delivered when the terminal is as it was.
            Next::Signal(signal) => {
                raise(signal)?;
                break;
            }
        }
        if bytes > PASTE_BYTES_MAX {
            break;
        }
    }
    if bytes == 0 {
        return Ok(Ok(()));
    }
    let more = if lines == 1 { "more text".to_owned() } else { format!("{lines} lines or more") };
    let message = format!("value: {more} came at once, and this terminal does not say where a paste ends");
    Ok(Err(Failure::usage(message).hint("nothing was stored or run: use --value-file FILE, or a pipe")))
}

fn open() -> io::Result<File> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for path in TERMINALS {
        match OpenOptions::new().read(true).write(true).custom_flags(OFlags::NOCTTY.bits() as i32).open(path) {
            Ok(device) => return Ok(device),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// What happens next.
enum Next {
    Byte(u8),
    Signal(Signal),
    /// The time is up, or the terminal is gone.
    Nothing,
}

fn next(device: &File, signals: &Signals, wait: Option<Duration>) -> io::Result<Next> {
    let wait = wait.map(|wait| wait.try_into().map_err(io::Error::other)).transpose()?;
    let mut ready = [PollFd::new(device, PollFlags::IN), PollFd::new(&signals.received, PollFlags::IN)];
    if retry_on_intr(|| poll(&mut ready, wait.as_ref()))? == 0 {
        return Ok(Next::Nothing);
    }
    if !ready[1].revents().is_empty()
        && let Some(info) = signals.received.read_signal()?
    {
        let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
        return Ok(Next::Signal(Signal::try_from(number)?));
    }
    let mut byte = Zeroizing::new([0]);
    match { device }.read(byte.as_mut_slice())? {
        0 => Ok(Next::Nothing),
        _ => Ok(Next::Byte(byte[0])),
    }
}

/// Holds back signals, so that the terminal is put right before they act. No other thread may run: it would receive them.
struct Signals {
    before: SigSet,
    received: SignalFd,
}

impl Signals {
    fn block() -> io::Result<Self> {
        let held: SigSet = SIGNALS.into_iter().collect();
        // Before they are blocked: what fails afterwards would leave them so.
        let received = SignalFd::new(&held)?;
        let before = SigSet::thread_get_mask()?;
        held.thread_block()?;
        Ok(Self { before, received })
    }

    /// Lets a signal act as if it came now; returns if it was ignored, or stopped the program and that goes on.
    fn deliver(&self, signal: Signal) -> io::Result<()> {
        let held = SigSet::thread_get_mask()?;
        self.before.thread_set_mask()?;
        raise(signal)?;
        held.thread_set_mask()?;
        Ok(())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// A terminal without echo, which hands out every byte as it comes; as it was when this is dropped.
struct Hidden<'a> {
    device: &'a File,
    before: Termios,
    has_brackets: bool,
}

impl<'a> Hidden<'a> {
    fn new(device: &'a File) -> io::Result<Self> {
        let before = tcgetattr(device)?;
        let mut modes = before.clone();
        // Lines longer than 4095 bytes would be cut in canonical mode (termios(3)). Signals of keys stay.
        modes.local_modes &= !(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN);
        modes.input_modes &= !(InputModes::ICRNL | InputModes::INLCR | InputModes::IGNCR | InputModes::ISTRIP);
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        // What was typed before the question is no answer to it, and was echoed.
        tcsetattr(device.as_fd(), OptionalActions::Flush, &modes)?;
        let has_brackets = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        Ok(Self { device, before, has_brackets })
    }

    fn show(&mut self, prompt: &str) -> io::Result<()> {
        if self.has_brackets {
            self.device.write_all(BRACKETS_ON)?;
        }
        self.device.write_all(crate::print::escape::text(prompt).as_bytes())
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        if self.has_brackets {
            let _ = self.device.write_all(BRACKETS_OFF);
        }
        let _ = self.device.write_all(b"\n");
        // What was not read is no command for the shell.
        let _ = tcsetattr(self.device.as_fd(), OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    #[test]
    fn a_panic_leaves_the_terminal_as_it_was() {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&controller).and_then(|()| unlockpt(&controller)).expect("ours");
        let name = ptsname(&controller, Vec::new()).expect("a name");
        let name = name.to_str().expect("text");
        let flags = OFlags::NOCTTY.bits() as i32;
        let device = OpenOptions::new().read(true).write(true).custom_flags(flags).open(name).expect("its other end");
        let modes = || tcgetattr(&device).expect("a terminal").local_modes;
        let before = modes();
        let during = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _hidden = Hidden::new(&device).expect("hidden");
            assert!(!modes().contains(LocalModes::ECHO));
            panic!("a fault of the program");
        }));
        assert!(during.is_err());
        assert_eq!(modes(), before);
    }
}
