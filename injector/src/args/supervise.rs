//! Whether the injector stays and looks after the command.

use std::time::Duration;

use clap::ValueEnum;
use nix::sys::signal::Signal;

/// Longest of each of the times below.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What is done when the environment changes, and how.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Supervision")]
pub(crate) struct SuperviseArgs {
    /// Stay, and when what the command was given changes: restart it, send it a signal, or stop it and exit with 75
    #[arg(long, value_name = "WHAT", value_enum)]
    pub(crate) on_change: Option<OnChange>,

    /// The signal of --on-change signal
    #[arg(long, value_name = "SIGNAL", default_value = "HUP", value_parser = parse_signal)]
    pub(crate) change_signal: Signal,

    /// What stops the command, before KILL
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", value_parser = parse_signal)]
    pub(crate) stop_signal: Signal,

    /// How long the command may take to stop before it is killed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub(crate) grace: Duration,

    /// Changes that follow each other this quickly are one
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
    pub(crate) debounce: Duration,

    /// Wait a random time up to this before acting on a change, so that not all workloads do so at once
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_time)]
    pub(crate) splay: Duration,
}

/// What a change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnChange {
    /// Stop the command and start it with the new environment
    Restart,
    /// Send --change-signal; files and templates are written anew first, variables cannot be
    Signal,
    /// Stop the command and exit with 75, for whoever restarts the injector
    Exit,
}

fn parse_signal(text: &str) -> Result<Signal, String> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let known = Signal::iterator().find(|signal| signal.as_str().strip_prefix("SIG") == Some(name));
    known.ok_or_else(|| "must be the name of a signal, for example TERM or HUP".to_owned())
}

fn parse_time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= TIME_MAX => Ok(time),
        Ok(_) => Err("must be at most 24h".to_owned()),
        Err(_) => Err("must be a time with its unit, for example 10s or 500ms".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names() {
        for text in ["HUP", "hup", "SIGHUP", "sighup"] {
            assert_eq!(parse_signal(text), Ok(Signal::SIGHUP));
        }
        for bad in ["", "1", "SIG", "NONE", "SIGSIGHUP"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_units_and_an_end() {
        assert_eq!(parse_time("0s"), Ok(Duration::ZERO));
        for bad in ["", "10", "-1s", "2days"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
