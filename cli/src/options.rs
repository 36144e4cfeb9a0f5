//! The options of every command.

use std::path::PathBuf;

use clap::ValueEnum;

/// Options of every command.
#[derive(clap::Args)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Global {
    /// Where the server is: https://HOST:PORT, unix:///PATH, or http:// on this machine; with commas, several of one store
    /// [default: http://127.0.0.1:7470]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    /// File with the token
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Trust only the certificates in this PEM file, instead of the system's
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// table, for people, or json, for programs
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    pub(crate) output: Output,
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
