//! Asking before something is gone for good.

use std::io::{self, BufRead, IsTerminal as _};

use crate::{failure::Failure, print};

/// Longest answer read, in bytes.
const ANSWER_BYTES: u64 = 1024;

/// Whether to ask.
#[derive(clap::Args)]
pub(crate) struct Confirm {
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Confirm {
    /// Goes on if `--yes` was given, or a person types one of the names. `question` ends before "This cannot …".
    pub(crate) fn ask(&self, question: &str, names: &[&str]) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(
                Failure::usage("nobody can be asked: stdin is not a terminal").hint("--yes deletes without asking")
            );
        }
        print::question(&format!("{question} This cannot be undone. Type the name to confirm: "));
        answer(io::stdin().lock(), names)
    }
}

fn answer(input: impl BufRead, names: &[&str]) -> Result<(), Failure> {
    let mut line = String::new();
    let read = input.take(ANSWER_BYTES).read_line(&mut line);
    match read {
        Ok(_) if names.contains(&line.trim()) => Ok(()),
        Ok(_) => Err(Failure::failed("not confirmed: nothing was deleted")),
        Err(error) => Err(Failure::failed(format!("stdin: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_confirms() {
        let names = ["projects/p/secrets/A", "A"];
        for good in ["A\n", " A \n", "projects/p/secrets/A"] {
            assert!(answer(good.as_bytes(), &names).is_ok(), "{good:?}");
        }
        for bad in ["", "\n", "y\n", "yes\n", "a\n", "B\n"] {
            assert!(answer(bad.as_bytes(), &names).is_err(), "{bad:?}");
        }
    }
}
