//! Reads the command line; its mistakes are shown without what may be a secret.

use std::ffi::OsString;

use clap::{
    Parser as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use coffer_proto::misplaced::{HIDDEN, may_show};

use crate::args::Args;

/// Why there is nothing to run.
#[derive(Debug)]
pub(crate) enum Early {
    /// Help or version was asked for.
    Help(String),
    /// The command line is wrong.
    Mistake(String),
}

/// Options that take no value, where people may still write one: `--value=hunter2`.
const NEVER_WITH_VALUE: [&str; 4] = ["--value", "--value-stdin", "--token", "--password"];

/// Reads the command line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, Early> {
    Args::try_parse_from(args).map_err(|mut error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Early::Help(error.to_string()),
        // Without any argument: the help, but as a mistake.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Early::Mistake(error.to_string()),
        _ => {
            hide_values(&mut error);
            Early::Mistake(error.to_string())
        }
    })
}

/// stderr is often kept in logs, where an argument that was meant as a value must not end up.
fn hide_values(error: &mut clap::Error) {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    // An option that there is not: `--hunter2`, or what stands where nothing belongs.
    if error.kind() == ErrorKind::UnknownArgument && !may_show(argument.trim_start_matches('-')) {
        error.insert(ContextKind::InvalidArg, ContextValue::String(HIDDEN.to_owned()));
        // It says how to write the same as a value.
        error.remove(ContextKind::Suggested);
    }
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidSubcommand] {
        let Some(ContextValue::String(value)) = error.get(kind) else { continue };
        let shown = match value.split_once('=') {
            _ if NEVER_WITH_VALUE.iter().any(|option| argument.starts_with(option)) => HIDDEN.to_owned(),
            Some((name, _)) if may_show(name) => format!("{name}={HIDDEN}"),
            None if may_show(value) => continue,
            _ => HIDDEN.to_owned(),
        };
        error.insert(kind, ContextValue::String(shown));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(line: &str) -> String {
        match parse(line.split(' ').map(OsString::from)) {
            Err(Early::Mistake(text)) => text,
            Err(Early::Help(text)) => panic!("help: {text}"),
            Ok(_) => panic!("accepted: {line}"),
        }
    }

    #[test]
    fn values_in_mistakes_are_hidden() {
        for line in [
            "coffer secret create projects/p/secrets/A=hunter2",
            "coffer secret create A=hunter2",
            "coffer secret update projects/p/secrets/A --value=hunter2",
            "coffer secret create projects/p/secrets/A --value-stdin=hunter2",
            "coffer secret create projects/p/secrets/A --password=hunter2",
            "coffer secret create hunter2",
            "coffer secret get projects/p/secrets/A hunter2",
            "coffer secret delete projects/p/secrets/A --hunter2",
            "coffer secret list projects/p --limit hunter2",
            "coffer secret list projects/p --output hunter2",
            "coffer key rotate hunter2",
            "coffer secret delete projects/p/secrets/A --yes=hunter2",
            "coffer hunter2",
            "coffer token revoke projects/p cof_u_hunter2",
            "coffer manifest set projects/p/manifests/m --describe hunter2=hunter2",
        ] {
            let text = mistake(line);
            assert!(!text.contains("hunter2"), "{line}: {text}");
            assert!(text.starts_with("error: "), "{text}");
        }
    }

    #[test]
    fn names_in_mistakes_are_shown() {
        for (line, shown) in [
            ("coffer secret get project/p/secrets/A", "'project/p/secrets/A'"),
            ("coffer secret get API_KEY_2", "'API_KEY_2'"),
            ("coffer secret list projects/p --limit 0", "'0'"),
            ("coffer secret list projects/p --lmit 1", "'--lmit'"),
            ("coffer secret drop", "'drop'"),
            ("coffer secret list projects/p --output yaml", "'yaml'"),
            ("coffer secret create projects/p/secrets/A=hunter2", "'projects/p/secrets/A=…'"),
        ] {
            let text = mistake(line);
            assert!(text.contains(shown), "{line}: {text}");
        }
    }

    #[test]
    fn help_and_version_are_no_mistakes() {
        for line in ["coffer --help", "coffer --version", "coffer secret create --help", "coffer help secret"] {
            assert!(matches!(parse(line.split(' ').map(OsString::from)), Err(Early::Help(_))), "{line}");
        }
        assert!(matches!(parse(["coffer".into()]), Err(Early::Mistake(_))));
    }
}
