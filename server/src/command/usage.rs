//! Reads the command line; its mistakes are shown without what may be a key or a token.

use clap::{
    Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};
use coffer_proto::misplaced::{HIDDEN, may_show};

/// The command line of this process.
///
/// # Errors
///
/// Help, the version, or a mistake, to be printed as it is.
pub(super) fn parse<T: Parser>() -> Result<T, clap::Error> {
    T::try_parse().map_err(hidden)
}

/// stderr is kept in logs.
fn hidden(mut error: clap::Error) -> clap::Error {
    let text = |error: &clap::Error, kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    if error.kind() == ErrorKind::UnknownArgument
        && !may_show(text(&error, ContextKind::InvalidArg).trim_start_matches('-'))
    {
        error.insert(ContextKind::InvalidArg, ContextValue::String(HIDDEN.to_owned()));
        // It says how to write the same as a value.
        error.remove(ContextKind::Suggested);
    }
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidSubcommand] {
        if error.get(kind).is_some() && !may_show(&text(&error, kind)) {
            error.insert(kind, ContextValue::String(HIDDEN.to_owned()));
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::command::CommandLine;

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        let key = "0123456789abcdef".repeat(4);
        for words in [
            &[key.as_str()][..],
            &["init", &key],
            &["init", &format!("--{key}")],
            &["verify", &format!("--without-key={key}")],
            &["audit", "show", "--phase", &key],
            &["audit", &key],
        ] {
            let error = CommandLine::try_parse_from([&["coffer-server"], words].concat()).expect_err("a mistake");
            assert!(error.to_string().contains(&key), "{error}");
            let told = hidden(error).to_string();
            assert!(told.contains(HIDDEN) && !told.contains(&key), "{told}");
        }
        let error = CommandLine::try_parse_from(["coffer-server", "inti"]).expect_err("a mistake");
        assert!(hidden(error).to_string().contains("'inti'"));
    }
}
