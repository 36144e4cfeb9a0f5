//! Says what is wrong with a command line in one line, without repeating what may be a token.

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use coffer_proto::misplaced::{HIDDEN, may_show};

/// One line, ending in where help is.
pub(super) fn explain(error: &clap::Error) -> String {
    let flag = flag(error, ContextKind::InvalidArg);
    let problem = match (error.kind(), flag) {
        (ErrorKind::UnknownArgument, Some("--token")) => {
            "there is no --token, where other processes could read it: use --token-file or --token-fd".to_owned()
        }
        (ErrorKind::UnknownArgument, Some(flag)) => {
            let shown = if may_show(flag.trim_start_matches('-')) { flag } else { HIDDEN };
            format!("unknown option {shown}")
        }
        (ErrorKind::UnknownArgument, None) => "unexpected argument: the command goes after `--`".to_owned(),
        (ErrorKind::InvalidValue, Some(flag)) => match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(known)) if !known.is_empty() => {
                format!("{flag} must be one of {}", known.join(", "))
            }
            _ => format!("{flag} needs a value"),
        },
        (ErrorKind::ValueValidation, Some(flag)) => match error.source() {
            Some(reason) => format!("{flag}: {reason}"),
            None => format!("{flag}: not a good value"),
        },
        (ErrorKind::ArgumentConflict, Some(given)) => match self::flag(error, ContextKind::PriorArg) {
            Some(prior) if prior != given => format!("{given} cannot be used with {prior}"),
            _ => format!("{given} can be given only once"),
        },
        (_, Some(flag)) => format!("{flag} is not used rightly"),
        (_, None) => "the arguments are not understood".to_owned(),
    };
    format!("{problem} (see coffer-inject --help)")
}

/// The option an error is about, without its value.
fn flag(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    let text = match error.get(kind)? {
        ContextValue::String(text) => text.as_str(),
        ContextValue::Strings(texts) => texts.first()?,
        _ => return None,
    };
    let name = text.split([' ', '=']).next()?;
    name.starts_with('-').then_some(name)
}

#[cfg(test)]
mod tests {
    use crate::args::parse;

    fn problem(words: &[&str]) -> String {
        let failure = parse(["coffer-inject"].iter().chain(words).map(Into::into)).expect_err("a usage error");
        failure.problems().collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_mistake_has_its_line() {
        let cases: &[(&[&str], &str)] = &[
            (&["--token=hunter2"], "there is no --token, where"),
            (&["--token", "hunter2"], "there is no --token, where"),
            (&["--hunter", "--", "true"], "unknown option --hunter"),
            (&["--hunter2", "--", "true"], "unknown option …"),
            (&["hunter2"], "unexpected argument: the command goes after `--`"),
            (&["--timeout", "hunter2", "--", "x"], "--timeout: must be a time with its unit"),
            (&["--timeout", "0s", "--", "x"], "--timeout: must be more than nothing"),
            (&["--timeout", "61min", "--", "x"], "--timeout: must be more than nothing"),
            (&["--timeout"], "--timeout needs a value"),
            (&["--workload", "hunter2", "--", "x"], "--workload: must be a workload"),
            (&["--workload", "organizations/o/servers/s", "--", "x"], "--workload: an organization has no workloads"),
            (&["--only", "hunter2", "--", "x"], "--only: must match"),
            (&["--only", "A,,B", "--", "x"], "--only"),
            (&["--token-fd", "2", "--", "x"], "--token-fd: "),
            (&["--token-fd", "x", "--", "x"], "--token-fd: "),
            (&["--token-fd", "3", "--token-file", "f", "--", "x"], "cannot be used with"),
            (&["--address", "a", "--address", "b", "--", "x"], "--address can be given only once"),
        ];
        for (words, expected) in cases {
            let problem = problem(words);
            assert!(problem.contains(expected), "{words:?}: {problem}");
            assert!(problem.ends_with("(see coffer-inject --help)") && !problem.contains('\n'), "{problem}");
            assert!(!problem.contains("hunter2"), "{words:?}: {problem}");
        }
    }

    #[test]
    fn what_may_be_chosen_is_told_and_what_was_given_is_not() {
        let problem = problem(&["--on-change", "hunter2", "--", "true"]);
        assert_eq!(problem, "--on-change must be one of restart, signal, exit (see coffer-inject --help)");
    }
}
