//! How to reach the server and as whom: flags over `COFFER_*` variables.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use coffer_client::{Addresses, Config, Credential};
use coffer_proto::{name::Workload, token::Token};

use crate::{Args, Exit, Failure, Inherited, credential::Source};

/// Longest time for one attempt; the whole has a deadline of its own.
const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// What the fetch needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    /// How to connect; the credential is still missing.
    pub(crate) config: Config,
    /// Where the credential is.
    pub(crate) source: Source,
    /// Whose environment; without it that of the token's own workload.
    pub(crate) workload: Option<Workload>,
}

impl Settings {
    /// Names every mistake at once.
    pub(crate) fn new(args: &Args, inherited: &Inherited) -> Result<Self, Failure> {
        let mut problems = Vec::new();
        let mut keep = |problem| problems.push(problem);
        let address = address(args, inherited).map_err(&mut keep).ok();
        let source = source(args, inherited).map_err(&mut keep).ok();
        let workload = workload(args, inherited).map_err(&mut keep).ok();
        let (Some(address), Some(source), Some(workload)) = (address, source, workload) else {
            return Err(Failure::all(Exit::Usage, problems));
        };
        let mut config = Config::new(address);
        config.ca_file = args.ca_file.clone().or_else(|| given(inherited, "COFFER_CA_FILE").map(PathBuf::from));
        config.call_timeout = args.timeout.min(CALL_TIMEOUT_MAX);
        config.connect_timeout = config.connect_timeout.min(args.timeout);
        Ok(Self { config, source, workload })
    }
}

fn address(args: &Args, inherited: &Inherited) -> Result<Addresses, String> {
    let (name, text) = match &args.address {
        Some(text) => ("--address", Some(text.clone())),
        None => ("COFFER_ADDRESS", text(inherited, "COFFER_ADDRESS")?),
    };
    let text = text.ok_or("no address: give --address or COFFER_ADDRESS")?;
    text.parse().map_err(|error| format!("{name}: {error}"))
}

fn workload(args: &Args, inherited: &Inherited) -> Result<Option<Workload>, String> {
    if args.workload.is_some() {
        return Ok(args.workload.clone());
    }
    let text = text(inherited, "COFFER_WORKLOAD")?;
    text.map(|text| Workload::parse(&text).map_err(|error| format!("COFFER_WORKLOAD: {error}"))).transpose()
}

fn source(args: &Args, inherited: &Inherited) -> Result<Source, String> {
    // The command line lets only one of the two through.
    if let Some(number) = args.token_fd {
        return Ok(Source::Descriptor(number));
    }
    if let Some(path) = &args.token_file {
        return Ok(Source::Ready(Credential::TokenFile(path.clone())));
    }
    match (given(inherited, "COFFER_TOKEN_FILE"), text(inherited, "COFFER_TOKEN")?) {
        (Some(_), Some(_)) => Err("COFFER_TOKEN and COFFER_TOKEN_FILE are both set: unset one".to_owned()),
        (Some(path), None) => Ok(Source::Ready(Credential::TokenFile(path.into()))),
        (None, Some(text)) => {
            let token = Token::parse(text.trim()).map_err(|error| format!("COFFER_TOKEN: {error}"))?;
            Ok(Source::Ready(Credential::Token(token)))
        }
        (None, None) => Err("no token: give --token-file, --token-fd, COFFER_TOKEN_FILE or COFFER_TOKEN".to_owned()),
    }
}

/// A variable that is set and not empty.
fn given(inherited: &Inherited, name: &str) -> Option<OsString> {
    inherited.get(name).filter(|value| !value.is_empty()).map(OsString::from)
}

fn text(inherited: &Inherited, name: &str) -> Result<Option<String>, String> {
    let text = given(inherited, name).map(OsString::into_string).transpose();
    text.map_err(|_| format!("{name}: must be UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Asked, parse};
    use coffer_proto::token::TokenKind;
    use std::os::unix::ffi::OsStringExt as _;

    const ADDRESS: (&str, &str) = ("COFFER_ADDRESS", "unix:///run/coffer.sock");

    fn settings(words: &[&str], variables: &[(&str, &str)]) -> Result<Settings, Failure> {
        let words = ["coffer-inject"].iter().chain(words).chain(&["--", "true"]).map(OsString::from);
        let Ok(Asked::Run(args)) = parse(words) else { panic!("a good command line") };
        Settings::new(&args, &Inherited::new(variables.iter().map(|(k, v)| (k.into(), v.into()))))
    }

    fn problems(words: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
        let failure = settings(words, variables).expect_err("a usage error");
        assert_eq!(failure.exit(), Exit::Usage);
        failure.problems().map(str::to_owned).collect()
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let problems = problems(&[], &[("COFFER_WORKLOAD", "x"), ("COFFER_TOKEN", "hunter2")]);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("no address"));
        assert!(problems[1].starts_with("COFFER_TOKEN: not a coffer token"));
        assert!(problems[2].starts_with("COFFER_WORKLOAD: must be a workload"));
        assert!(!problems.concat().contains("hunter2"));
    }

    #[test]
    fn flags_win_over_variables() {
        let variables = [
            ("COFFER_ADDRESS", "https://other:1"),
            ("COFFER_CA_FILE", "/other"),
            ("COFFER_TOKEN_FILE", "/other"),
            ("COFFER_TOKEN", "also other"),
            ("COFFER_WORKLOAD", "other"),
        ];
        let words = [
            "--address",
            "https://mine:2",
            "--ca-file",
            "/mine",
            "--token-file",
            "/mine",
            "--workload",
            "projects/p/servers/s",
        ];
        let settings = settings(&words, &variables).expect("flags only");
        assert_eq!(settings.config.addresses.to_string(), "https://mine:2");
        assert_eq!(settings.config.ca_file, Some("/mine".into()));
        assert!(matches!(settings.source, Source::Ready(Credential::TokenFile(path)) if path == *"/mine"));
        assert_eq!(settings.workload.map(|w| w.to_string()).as_deref(), Some("projects/p/servers/s"));
    }

    #[test]
    fn one_credential_wins_or_none() {
        let token = Token::generate(TokenKind::Workload);
        let text = format!(" {}\n", token.expose());
        let from = |words: &[&str], variables: &[(&str, &str)]| {
            settings(words, &[&[ADDRESS], variables].concat()).expect("one credential").source
        };
        let both = [("COFFER_TOKEN", text.as_str()), ("COFFER_TOKEN_FILE", "/f")];
        assert!(matches!(from(&["--token-fd", "7"], &both), Source::Descriptor(7)));
        assert!(matches!(from(&[], &both[1..]), Source::Ready(Credential::TokenFile(_))));
        let Source::Ready(Credential::Token(read)) = from(&[], &both[..1]) else { panic!("another kind") };
        assert_eq!(read.expose(), token.expose());
        let conflict = problems(&[], &[ADDRESS, both[0], both[1]]);
        assert_eq!(conflict, ["COFFER_TOKEN and COFFER_TOKEN_FILE are both set: unset one"]);
    }

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let empty =
            [("COFFER_TOKEN", ""), ("COFFER_CA_FILE", ""), ("COFFER_WORKLOAD", ""), ("COFFER_TOKEN_FILE", "/f")];
        let settings = settings(&[], &[&[ADDRESS][..], &empty].concat()).expect("the file");
        assert_eq!((settings.config.ca_file, settings.workload), (None, None));
        assert!(problems(&["--token-file", "/f"], &[("COFFER_ADDRESS", "")])[0].starts_with("no address"));
    }

    #[test]
    fn what_is_not_text_is_named() {
        let variables = [("COFFER_ADDRESS".into(), OsString::from_vec(vec![0xff]))];
        let Err(problem) = text(&Inherited::new(variables), "COFFER_ADDRESS") else { panic!("accepted") };
        assert_eq!(problem, "COFFER_ADDRESS: must be UTF-8 text");
    }

    #[test]
    fn no_attempt_may_last_longer_than_the_whole() {
        let settings = settings(&["--timeout", "300ms", "--token-file", "/f"], &[ADDRESS]).expect("good");
        assert_eq!(settings.config.call_timeout, Duration::from_millis(300));
        assert_eq!(settings.config.connect_timeout, Duration::from_millis(300));
    }
}
