//! `coffer completions`

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{args::Args, print::Report};

/// Print a script with which a shell completes this command line
///
/// bash: source <(coffer completions bash), in ~/.bashrc. zsh: coffer completions zsh >DIR/_coffer, where DIR is in fpath.
/// fish: coffer completions fish >~/.config/fish/completions/coffer.fish
#[derive(clap::Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Report {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Args::command(), "coffer", &mut script);
        Report::data(String::from_utf8_lossy(&script))
    }
}
