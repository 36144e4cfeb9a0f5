//! What `--help` says after the flags.

use super::failure::{FAILED, USAGE};
use crate::{config::settings_help, serve::DRAIN_MAX};

pub(super) fn run() -> String {
    format!(
        "{}\n\nSignals:\n  \
         SIGTERM, SIGINT  calls under way get {} s to end; a second one cuts them off\n  \
         SIGHUP           open the audit log again, and read the certificate again\n\n{}",
        settings_help(),
        DRAIN_MAX.as_secs(),
        exit_codes("told to end, and ended")
    )
}

pub(super) fn check_config() -> String {
    format!("{}\n\n{}", settings_help(), exit_codes("the configuration is good"))
}

fn exit_codes(good: &str) -> String {
    format!(
        "Exit codes:\n  0   {good}\n  {USAGE}  the command line or the configuration is wrong\n  {FAILED}   anything else"
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use crate::{command::CommandLine, config::settings_help};

    #[test]
    fn run_and_check_config_tell_every_setting() {
        let mut line = CommandLine::command().term_width(120);
        line.build();
        for name in ["run", "check-config"] {
            let command = line.find_subcommand_mut(name).expect("a command");
            for help in [command.render_help(), command.render_long_help()] {
                let help = help.to_string();
                assert!(help.contains(&settings_help()), "{help}");
                assert!(help.contains("Exit codes:"), "{help}");
            }
        }
    }
}
