//! Reads the command line; its mistakes are shown without what may be a secret.

use std::ffi::OsString;

use clap::{
    Parser as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

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
    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else {
        return;
    };
    if NEVER_WITH_VALUE.iter().any(|option| argument.starts_with(option)) {
        error.insert(ContextKind::InvalidValue, ContextValue::String("…".to_owned()));
    } else if let Some((name, _)) = value.split_once('=') {
        let name = format!("{name}=…");
        error.insert(ContextKind::InvalidValue, ContextValue::String(name));
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
        ] {
            let text = mistake(line);
            assert!(!text.contains("hunter2"), "{line}: {text}");
            assert!(text.starts_with("error: "), "{text}");
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
