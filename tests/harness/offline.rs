//! The server's verbs that work without a running server, as an operator uses them.

use std::{fs, path::Path, process::Command};

use super::{Server, text};

/// Where a store is: `--data` and its directory, or `--config` and a file.
pub(crate) type Place<'a> = (&'static str, &'a Path);

/// A verb that must do what it says; what it tells.
pub(crate) fn done(command: &mut Command) -> String {
    let output = command.output().expect("coffer-server starts");
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

/// A verb that must refuse; what it tells.
pub(crate) fn not_done(command: &mut Command) -> String {
    let output = command.output().expect("coffer-server starts");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    text(&output)
}

/// A restore of a backup or of another store.
pub(crate) fn restore(source: &Path, (flag, to): Place<'_>) -> Command {
    let mut command = Server::command(&["restore", flag]);
    command.arg(to).arg("--").arg(source);
    command
}

/// Makes a first operator of a store, in a home with its key: the token that is there is replaced.
pub(crate) fn admit(home: &Path, (flag, place): Place<'_>) {
    let token_file = home.join("operator.token");
    drop(fs::remove_file(&token_file));
    let mut command = Server::command(&["operator", flag]);
    command.arg(place).arg("--key-file").arg(home.join("root.key"));
    done(command.arg("--token-file").arg(token_file).arg("--audit-file").arg(home.join("audit.log")));
}

impl Server {
    /// Goes on elsewhere, with a new operator's token made as the README says.
    pub(crate) fn go_on(&mut self, place: Place<'_>) {
        admit(self.home(), place);
        let mut command = Server::command(&["run", "--listen", "127.0.0.1:0", "--listen"]);
        command.arg(format!("unix:{}", self.home().join("coffer.sock").display()));
        command.arg(place.0).arg(place.1).arg("--key-file").arg(self.key_file());
        command.arg("--audit-file").arg(self.home().join("audit.log"));
        command.arg("--address-file").arg(self.home().join("address"));
        self.run_by(command);
    }
}
