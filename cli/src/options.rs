//! The options of every command.

use std::{ffi::OsString, path::PathBuf};

use clap::ValueEnum;

/// Options of every command.
#[derive(Default, clap::Args)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Global {
    /// Where the server is: https://HOST:PORT, unix:///PATH, or http:// on this machine; with commas, several of one store
    /// [default: http://127.0.0.1:7470]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    /// File with the token; `-` is stdin
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Trust only the certificates in this PEM file, instead of the system's
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// table, for people, or json, for programs
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    pub(crate) output: Output,
    /// The same as --output json; errors and remarks are JSON then, too
    #[arg(long, global = true, conflicts_with = "output")]
    pub(crate) json: bool,
}

impl Global {
    /// How data is printed.
    pub(crate) fn output(&self) -> Output {
        if self.json { Output::Json } else { self.output }
    }
}

/// Reads from a command line that may be wrong whether JSON is asked for.
pub(crate) fn asks_for_json(args: &[OsString]) -> bool {
    let args = || args.iter().take_while(|arg| *arg != "--");
    let pairs = args().zip(args().skip(1));
    args().any(|arg| arg == "--json" || arg == "--output=json")
        || pairs.into_iter().any(|(a, b)| a == "--output" && b == "json")
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Aligned columns
    #[default]
    Table,
    /// One JSON object
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_seen_in_a_wrong_command_line() {
        let asks = |line: &str| asks_for_json(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in ["coffer nonsense --json", "coffer --output json x", "coffer x --output=json"] {
            assert!(asks(line), "{line}");
        }
        for line in ["coffer", "coffer --output table", "coffer x -- --json", "coffer x json"] {
            assert!(!asks(line), "{line}");
        }
    }
}
