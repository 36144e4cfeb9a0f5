//! The command line.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Parser, builder::TypedValueParser as _};
use coffer_proto::name::{VariableName, Workload};

use crate::{Exit, Failure};

mod delivery;
mod supervise;
mod usage;

pub(crate) use delivery::{DeliveryArgs, Rename, TemplateArg};
pub(crate) use supervise::{OnChange, SuperviseArgs};

/// Longest time that may be given to fetching.
const TIMEOUT_MAX: Duration = Duration::from_secs(60 * 60);
/// The descriptors below belong to the workload: stdin, stdout, stderr.
const DESCRIPTOR_MIN: i64 = 3;

const HELP: &str = "\
The token comes from --token-fd or --token-file (not both); without them from COFFER_TOKEN_FILE or COFFER_TOKEN \
(not both). Other flags win over their variables; an empty variable counts as not set. The command inherits no \
COFFER_* variable.

Exit codes, when the command was not started (every other code is the command's own):
  64   the command line or a COFFER_* variable is wrong
  65   the environment is refused: a name, a value, a size or a file; every offender is named
  69   no answer within the time
  70   internal error, here or in the server
  75   what the command was given changed (--on-change exit); the command was stopped
  77   no usable token, or it does not permit this
  78   a secret is missing: of --require, --only, --env, a template, or a manifest
  126  the command cannot be executed
  127  the command was not found";

/// Fetches the secrets of a workload and becomes the command, with the secrets in its environment.
///
/// The command keeps the process id, descriptors, signals, working directory and terminal; it is not run by a shell.
/// It starts with every secret of the workload or not at all.
///
/// With --on-change or --mask the injector stays: the command is its child in a process group of its own, signals are
/// passed on to that group, everything that is left behind is reaped, and the exit code is the command's, 128+N if signal
/// N ended it. A second TERM or INT kills the group. What is left of the group when the command has ended is stopped, too.
/// Signals that were ignored when the injector was started stay so.
///
/// With --on-change, give each workload its own token: the watches of a service's token are few, and all that it starts
/// share them. A token in COFFER_TOKEN stays in the environment of an injector that stays, for root to read: then prefer
/// --token-fd or --token-file.
#[derive(Debug, Parser)]
#[command(name = "coffer-inject", version, after_help = HELP, max_term_width = 120)]
#[command(override_usage = "coffer-inject [OPTIONS] -- COMMAND [ARGS]...")]
pub(crate) struct Args {
    /// Server: https://host:port, http:// on this machine, or unix:///path; with commas, several of one store
    /// [env: COFFER_ADDRESS]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<String>,

    /// PEM file with the authorities to trust instead of the system's [env: COFFER_CA_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    /// File with the token, which others must not be able to read; read anew for every attempt [env: COFFER_TOKEN_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "token_fd")]
    pub(crate) token_file: Option<PathBuf>,

    /// Open descriptor to read the token from, closed before the command starts; 3 or above
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(DESCRIPTOR_MIN..))]
    pub(crate) token_fd: Option<i32>,

    /// Whose environment, for example projects/p/servers/web; a workload's own token needs none
    /// [env: COFFER_WORKLOAD]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::StringValueParser::new().try_map(|text| Workload::parse(&text)))]
    pub(crate) workload: Option<Workload>,

    /// Limit for everything before the command starts, for example 500ms or 1min
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_timeout)]
    pub(crate) timeout: Duration,

    /// Give the command these secrets only; each must exist. Repeatable, or separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) only: Vec<VariableName>,

    /// Do not start without these secrets; an inherited variable does not count. Repeatable, or separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) require: Vec<VariableName>,

    /// An inherited variable wins over a secret of the same name
    #[arg(long)]
    pub(crate) keep_existing: bool,

    /// Check, print names, kinds, versions and sources on stdout, and start nothing; no value is fetched. Not with a start
    /// token, which works once
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Tell on stderr what happens, never a value
    #[arg(long, short)]
    pub(crate) verbose: bool,

    #[command(flatten)]
    pub(crate) delivery: DeliveryArgs,

    #[command(flatten)]
    pub(crate) supervise: SuperviseArgs,

    /// The command, found by the PATH the injector was started with, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// To do the work.
    Run(Box<Args>),
    /// The help or the version, to be printed.
    Print(String),
}

/// Reads the command line. A failure never repeats what was given: it could be a token.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Asked, Failure> {
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) if error.use_stderr() => return Err(Failure::new(Exit::Usage, usage::explain(&error))),
        Err(error) => return Ok(Asked::Print(error.to_string())),
    };
    let mut problems = Vec::new();
    if args.command.is_empty() && !args.dry_run {
        problems.push("no command: give it after `--`".to_owned());
    }
    if !args.only.is_empty() {
        let left_out = args.require.iter().filter(|name| !args.only.contains(name));
        problems.extend(left_out.map(|name| format!("--require {name}: --only leaves it out")));
    }
    problems.extend(delivery::problems(&args));
    Failure::unless_empty(Exit::Usage, problems).map(|()| Asked::Run(Box::new(args)))
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() && time <= TIMEOUT_MAX => Ok(time),
        Ok(_) => Err("must be more than nothing and at most 1h".to_owned()),
        Err(_) => Err("must be a time with its unit, for example 20s or 500ms".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Result<Asked, Failure> {
        parse(["coffer-inject"].iter().chain(words).map(OsString::from))
    }

    fn args(words: &[&str]) -> Box<Args> {
        match asked(words) {
            Ok(Asked::Run(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    fn refused(words: &[&str]) -> Vec<String> {
        let failure = asked(words).expect_err("a usage error");
        assert_eq!(failure.exit(), Exit::Usage);
        failure.problems().map(str::to_owned).collect()
    }

    #[test]
    fn the_definition_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn everything_after_the_dashes_is_the_commands() {
        let args = args(&["--only", "A,B", "--only=C", "--", "sh", "--only", "D", "--", "-v"]);
        assert_eq!(args.command, ["sh", "--only", "D", "--", "-v"]);
        assert_eq!(args.only.iter().map(VariableName::as_str).collect::<Vec<_>>(), ["A", "B", "C"]);
        assert_eq!(args.timeout, Duration::from_secs(20));
    }

    #[test]
    fn only_a_dry_run_goes_without_a_command() {
        assert!(args(&["--dry-run"]).command.is_empty());
        assert_eq!(refused(&[]), ["no command: give it after `--`"]);
    }

    #[test]
    fn what_only_leaves_out_cannot_be_required() {
        let problems = refused(&["--only", "A", "--require", "A,B", "--require", "C", "--", "true"]);
        assert_eq!(problems, ["--require B: --only leaves it out", "--require C: --only leaves it out"]);
    }

    #[test]
    fn help_and_version_are_for_stdout() {
        for flag in ["--help", "-h", "--version"] {
            assert!(matches!(asked(&[flag]), Ok(Asked::Print(_))), "{flag}");
        }
        let Ok(Asked::Print(help)) = asked(&["--help"]) else { panic!("no help") };
        for code in ["64", "65", "69", "70", "75", "77", "78", "126", "127"] {
            assert!(help.lines().any(|line| line.trim_start().starts_with(code)), "{code} is not documented");
        }
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for told in ["give each workload its own token", "A token in COFFER_TOKEN stays", "prefer --token-fd"] {
            assert!(words.contains(told), "{told}");
        }
    }
}
