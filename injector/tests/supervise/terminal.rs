//! On a terminal the command is in the foreground, and job control works as for the bare command.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::{
    fake::{Fake, Script},
    run::{INJECTOR, PATH, token},
    supervised::until,
};

/// open(2): must not become the test's own terminal.
const O_NOCTTY: i32 = 0o400;

/// A shell with job control on a terminal of its own.
struct Terminal {
    shell: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    fn new(server: &Fake) -> Self {
        // Closed in every process that other tests start at this moment.
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("ours");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let name = name.to_str().expect("text");
        let slave = OpenOptions::new().read(true).write(true).custom_flags(O_NOCTTY).open(name).expect("its other end");
        let stream = || Stdio::from(slave.try_clone().expect("cloned"));
        let shell = Command::new("setsid")
            .args(["--ctty", "--wait", "bash", "--norc", "--noprofile", "-i"])
            .env_clear()
            .env("PATH", PATH)
            .env("PS1", "$ ")
            .env("TERM", "dumb")
            .env("COFFER_ADDRESS", &server.address)
            .env("COFFER_TOKEN", token())
            .env("INJECT", format!("{INJECTOR} --on-change restart --debounce 50ms --"))
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .expect("this test needs setsid (util-linux) and bash");
        drop(slave);
        let screen = Arc::<Mutex<String>>::default();
        let (shown, reader) = (Arc::clone(&screen), master.try_clone().expect("cloned"));
        thread::spawn(move || show(reader, &shown));
        Self { shell, keyboard: File::from(master), screen }
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("typed");
    }

    /// Waits until the screen shows this, and forgets everything up to it.
    fn shows(&self, text: &str) {
        until(&format!("{text:?} on the screen: {:?}", self.screen.lock().expect("no panic")), || {
            let mut screen = self.screen.lock().expect("no panic");
            let end = screen.find(text)? + text.len();
            *screen = screen[end..].to_owned();
            Some(())
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn show(reader: OwnedFd, screen: &Mutex<String>) {
    let mut reader = File::from(reader);
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = reader.read(&mut bytes) {
        screen.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}

#[test]
fn the_command_reads_the_keyboard_and_gets_its_interrupt_once() {
    let server = Script::of(&[("A", "one")]).start();
    let mut terminal = Terminal::new(&server);
    terminal
        .type_in("$INJECT sh -c 'trap \"echo got-$((40+2))\" INT; read line; echo read-$line; read line; exit 3'\n");
    terminal.type_in("hello\n");
    terminal.shows("read-hello");
    terminal.type_in("\x03");
    terminal.shows("got-42");
    terminal.type_in("\n");
    terminal.type_in("echo code-$?\n");
    terminal.shows("code-3");
    let screen = terminal.screen.lock().expect("no panic").clone();
    assert!(!screen.contains("got-42"), "once: {screen}");
}

#[test]
fn it_can_be_stopped_and_brought_back() {
    let server = Script::of(&[("A", "one")]).start();
    let mut terminal = Terminal::new(&server);
    terminal.type_in("$INJECT sh -c 'echo began-$((40+2)); read line; echo read-$line; exit 5'\n");
    // The screen shows what is typed as well: what is waited for must not be that.
    terminal.shows("began-42");
    terminal.type_in("\x1a");
    terminal.shows("Stopped");
    terminal.type_in("echo at-the-$((40+2))\n");
    terminal.shows("at-the-42");
    terminal.type_in("fg\n");
    terminal.shows("fg");
    terminal.type_in("back\n");
    terminal.shows("read-back");
    terminal.type_in("echo code-$?\n");
    terminal.shows("code-5");
}

#[test]
fn a_pager_at_the_other_end_of_a_pipe_keeps_the_keyboard() {
    let server = Script::of(&[("A", "one")]).start();
    let mut terminal = Terminal::new(&server);
    let pager = "sh -c 'read line </dev/tty; echo pager-$line; cat'";
    terminal.type_in(&format!("$INJECT sh -c 'echo text-$((40+2)); sleep 0.3' | {pager}\n"));
    terminal.type_in("page\n");
    terminal.shows("pager-page");
    terminal.shows("text-42");
}

#[test]
fn after_a_restart_the_command_still_reads_the_keyboard() {
    let server = Script::of(&[("A", "one")]).start();
    let mut terminal = Terminal::new(&server);
    terminal.type_in("$INJECT sh -c 'echo began-$A; read line; echo read-$line-$A; exit 0'\n");
    terminal.shows("began-one");
    server.change(&[("A", "two")]);
    terminal.shows("began-two");
    terminal.type_in("again\n");
    terminal.shows("read-again-two");
}
