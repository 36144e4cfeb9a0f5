//! Commands that people look for here, and what coffer has in their place.

use std::ffi::OsString;

use crate::failure::Failure;

/// A command that there is not, with whatever follows it.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Elsewhere {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<OsString>,
}

/// Starting a command with secrets.
pub(super) fn run() -> Failure {
    Failure::usage("coffer runs no commands: secrets are handed to workloads, and never to people").hint(
        "coffer-inject -- COMMAND starts one with a workload's token, which a service with workloads:issue makes: coffer token \
         issue SCOPE/servers/ID --ttl 1h --out FILE. For your own machine, let it be one of a scope made for that, such as \
         projects/shop/environments/dev/servers/ann",
    )
}

/// Signing in.
pub(super) fn login() -> Failure {
    Failure::usage("coffer has no login: who may issue tokens gives you one").hint(
        "an operator, or your platform, runs: coffer token issue users/YOU --out FILE; name the file with --token-file or \
         COFFER_TOKEN_FILE. coffer whoami says whose token it is, and coffer token revoke ends it",
    )
}

/// Reading the audit log.
pub(super) fn audit() -> Failure {
    Failure::usage("the audit log is a file on the server, and read there")
        .hint("coffer-server audit show --data DIR lists it, coffer-server audit verify checks it")
}
