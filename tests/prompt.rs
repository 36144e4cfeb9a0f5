//! A value that is typed or pasted on a terminal: all of it is stored, none of it is seen or run, and the terminal is left
//! as it was, whatever ends the question.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::{fs::OpenOptionsExt as _, process::ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::{
    fs::OFlags,
    io::ioctl_fionread,
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};

use crate::harness::{Server, binary, until};

const BRACKETED: &str = "xterm";
const PLAIN: &str = "dumb";
const PROMPT: &str = "Value of ";
const PEM: &str = "-----BEGIN KEY-----\n  hunter2\thunter2\n-----END KEY-----";

/// A program on a terminal of its own, which controls it.
struct OnTerminal {
    child: Child,
    /// The program's side, kept open so that the kernel keeps the terminal's modes and what nobody read.
    device: File,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn start(server: &Server, token: &str, term: &str, program: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("ours");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let name = name.to_str().expect("text");
        let flags = OFlags::NOCTTY.bits() as i32;
        let device = OpenOptions::new().read(true).write(true).custom_flags(flags).open(name).expect("its other end");
        let stream = || Stdio::from(device.try_clone().expect("cloned"));
        // It is no leader of a group, and becomes the program itself.
        let child = Command::new("setsid")
            .arg("--ctty")
            .args(program)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TERM", term)
            .env("PS1", "ready> ")
            .env("COFFER", binary("coffer"))
            .env("COFFER_ADDRESS", server.address())
            .env("COFFER_TOKEN", token)
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .expect("this test needs setsid (util-linux)");
        let screen = Arc::<Mutex<String>>::default();
        let (shown, reader) = (Arc::clone(&screen), File::from(master.try_clone().expect("cloned")));
        thread::spawn(move || show(reader, &shown));
        Self { child, device, keyboard: File::from(master), screen }
    }

    fn create(server: &Server, token: &str, term: &str, name: &str) -> Self {
        let coffer = binary("coffer");
        let coffer = coffer.to_str().expect("text");
        Self::start(server, token, term, &[coffer, "secret", "create", name, "--plain"])
    }

    fn type_in(&mut self, text: &str) {
        // More than the kernel keeps for a reader waits until that has read.
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

    fn has_echo(&self) -> bool {
        tcgetattr(&self.device).expect("a terminal").local_modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    fn ended(&mut self) -> ExitStatus {
        until("the program to end", || self.child.try_wait().expect("its own child"))
    }

    /// Bytes that a shell would read next.
    fn unread(&self) -> u64 {
        ioctl_fionread(&self.device).expect("a terminal")
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn show(mut reader: File, screen: &Mutex<String>) {
    let mut bytes = [0; 4096];
    while let Ok(count) = reader.read(&mut bytes)
        && count > 0
    {
        screen.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}

fn value(server: &Server, token: &str, name: &str) -> Option<String> {
    let got = server.cli(token).args(["secret", "get", name, "--output", "json"]).run();
    if got.code != Some(0) {
        return None;
    }
    let secret: serde_json::Value = serde_json::from_str(&got.text()).expect("JSON");
    Some(secret["value"].as_str().expect("a plain value").to_owned())
}

async fn owner(server: &Server) -> String {
    server.grant("users/ann", "secrets:manage", "projects/shop").await;
    server.token("users/ann").await
}

#[tokio::test]
async fn a_paste_is_one_value_and_none_of_it_is_run() {
    let server = Server::start();
    let token = owner(&server).await;
    // Longer than a line that a terminal edits (termios(3): 4096 bytes).
    let long = "hunter2-".repeat(1500);
    for (name, typed, expected, received) in [
        ("TYPED", "hunter3\x7f2\r".to_owned(), "hunter2", "received 1 line, 7 bytes"),
        ("PEM", format!("\x1b[200~{}\r\x1b[201~\r", PEM.replace('\n', "\r")), PEM, "received 3 lines, 55 bytes"),
        ("LONG", format!("\x1b[200~{long}\x1b[201~\r"), &long, "received 1 line, 12000 bytes"),
        // Without brackets one line is one value.
        ("LINE", format!("{long}\r"), &long, "received 1 line, 12000 bytes"),
    ] {
        let name = format!("projects/shop/secrets/{name}");
        let mut run = OnTerminal::create(&server, &token, BRACKETED, &name);
        run.shows(PROMPT);
        run.type_in(&typed);
        run.shows(received);
        assert_eq!(run.ended().code(), Some(0), "{name}");
        assert_eq!(value(&server, &token, &name).as_deref(), Some(expected), "{name}");
        assert_eq!((run.has_echo(), run.unread()), (true, 0), "{name}");
    }
    let mut run = OnTerminal::create(&server, &token, PLAIN, "projects/shop/secrets/CUT");
    run.shows(PROMPT);
    run.type_in("hunter2\rhunter2\rrm -rf x\r");
    run.shows("error: value: 3 lines or more came at once, and this terminal does not say where a paste ends");
    run.shows("hint: nothing was stored or run: use --value-file FILE");
    assert_eq!(run.ended().code(), Some(64));
    assert_eq!((run.has_echo(), run.unread()), (true, 0));
    assert!(!run.screen.lock().expect("no panic").contains("hunter2"));
    assert_eq!(value(&server, &token, "projects/shop/secrets/CUT"), None);
}

#[tokio::test]
async fn the_terminal_is_as_it_was_whatever_ends_the_question() {
    let server = Server::start();
    let token = owner(&server).await;
    let start = || {
        let run = OnTerminal::create(&server, &token, BRACKETED, "projects/shop/secrets/A");
        run.shows(PROMPT);
        assert!(!run.has_echo());
        run
    };
    for (key, signal) in [("hun\x03", Signal::INT), ("hun\x1c", Signal::QUIT)] {
        let mut run = start();
        run.type_in(key);
        assert_eq!(run.ended().signal(), Some(signal.as_raw()));
        run.shows("\x1b[?2004l");
        assert_eq!((run.has_echo(), run.unread()), (true, 0), "{signal:?}");
    }
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut run = start();
        let pid = Pid::from_raw(run.child.id().try_into().expect("a pid")).expect("not zero");
        kill_process(pid, signal).expect("its own child");
        assert_eq!(run.ended().signal(), Some(signal.as_raw()));
        assert!(run.has_echo(), "{signal:?}");
    }
    let mut run = start();
    run.type_in("\x04");
    assert_eq!(run.ended().code(), Some(64));
    assert!(run.has_echo());
    // A shell that leaves the terminal as its commands do.
    let mut shell = OnTerminal::start(&server, &token, BRACKETED, &["dash", "-i"]);
    shell.shows("ready> ");
    shell.type_in("$COFFER secret create projects/shop/secrets/STOPPED --plain\r");
    shell.shows(PROMPT);
    shell.type_in("\x1a");
    shell.shows("ready> ");
    assert!(shell.has_echo());
    shell.type_in("fg\r");
    shell.shows(PROMPT);
    assert!(!shell.has_echo());
    shell.type_in("hunter2\r");
    shell.shows("received 1 line, 7 bytes");
    shell.shows("ready> ");
    assert_eq!(value(&server, &token, "projects/shop/secrets/STOPPED").as_deref(), Some("hunter2"));
    assert!(shell.has_echo());
}
