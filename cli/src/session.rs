//! The connection, and how results are shown.

use std::{ffi::OsString, future::Future, path::PathBuf};

use coffer_client::{Address, Addresses, Client, Config, Credential};
use coffer_proto::{limits, token::Token};
use zeroize::Zeroizing;

use crate::{
    failure::Failure,
    input::file,
    options::{Global, Output},
    print::{Report, Terminal, escape},
    view::View,
};

/// Where a server listens unless told otherwise.
const ADDRESS_DEFAULT: &str = "http://127.0.0.1:7470";

/// Bytes read of a token on stdin, with white space around it.
const TOKEN_BYTES_MAX: usize = 4 * 1024;

/// What every command needs.
#[derive(Debug)]
pub(crate) struct Session {
    config: Config,
    output: Output,
    terminal: Terminal,
}

impl Session {
    /// Options over environment over defaults. An empty variable counts as none.
    pub(crate) fn new(
        global: &Global,
        environment: impl Fn(&str) -> Option<OsString>,
        terminal: Terminal,
    ) -> Result<Self, Failure> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let (source, address) = match (&global.address, variable("COFFER_ADDRESS")) {
            (Some(address), _) => ("--address", address.clone()),
            (None, Some(address)) => ("COFFER_ADDRESS", text("COFFER_ADDRESS", address)?),
            (None, None) => ("the default address", ADDRESS_DEFAULT.to_owned()),
        };
        let addresses: Addresses = address.parse().map_err(|error| Failure::usage(format!("{source}: {error}")))?;
        let mut config = Config::new(addresses);
        config.credential = credential(global.token_file.clone(), variable)?;
        config.ca_file = global.ca_file.clone().or_else(|| variable("COFFER_CA_FILE").map(PathBuf::from));
        Ok(Self { config, output: global.output(), terminal })
    }

    /// Whether programs read the output.
    pub(crate) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Whether people read the output as it comes.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal.is_terminal
    }

    /// Connects as the caller.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.config.clone()).await?)
    }

    /// Where the server is, and who calls: for what connects by itself.
    pub(crate) fn credential(&self) -> Result<(Config, Credential), Failure> {
        let credential = self.config.credential.clone();
        let missing =
            || Failure::denied("no token was given").hint("--token-file FILE, COFFER_TOKEN_FILE or COFFER_TOKEN");
        Ok((self.config.clone(), credential.ok_or_else(missing)?))
    }

    /// How to reach each of the servers as nobody: for health checks.
    pub(crate) fn anonymous(&self) -> impl Iterator<Item = (&Address, Config)> {
        let of =
            |address: &Address| Config { addresses: address.clone().into(), credential: None, ..self.config.clone() };
        self.config.addresses.iter().map(move |address| (address, of(address)))
    }

    /// The view as it was asked for.
    pub(crate) fn show(&self, view: &impl View) -> Result<Report, Failure> {
        match self.output {
            Output::Table => Ok(Report::data(view.table(self.terminal.width))),
            Output::Json => Ok(Report::data(json(view)?)),
        }
    }
}

/// Pretty JSON, ending in a line break, safe to print.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    let document = Zeroizing::new(
        serde_json::to_string_pretty(value).map_err(|error| Failure::failed(format!("cannot print JSON: {error}")))?,
    );
    let mut safe = escape::json(&document);
    safe.push('\n');
    Ok(safe)
}

fn credential(
    file: Option<PathBuf>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Credential>, Failure> {
    if file.as_deref().is_some_and(file::is_stdin) {
        let bytes = file::stdin(TOKEN_BYTES_MAX)?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let token =
            Token::parse(text.trim()).map_err(|error| Failure::denied(format!("the token on stdin: {error}")))?;
        return Ok(Some(Credential::Token(token)));
    }
    if let Some(file) = file {
        return Ok(Some(Credential::TokenFile(file)));
    }
    if let Some(token) = variable("COFFER_TOKEN") {
        let token = Zeroizing::new(text("COFFER_TOKEN", token)?);
        let parsed = Token::parse(token.trim()).map_err(|error| Failure::denied(format!("COFFER_TOKEN: {error}")))?;
        return Ok(Some(Credential::Token(parsed)));
    }
    Ok(variable("COFFER_TOKEN_FILE").map(|file| Credential::TokenFile(file.into())))
}

fn text(name: &str, value: OsString) -> Result<String, Failure> {
    value.into_string().map_err(|_| Failure::usage(format!("{name}: must be UTF-8 text")))
}

/// The entries of all pages, or of as many as make up `limit`; and whether there are more.
pub(crate) async fn pages<T, F, Fut>(limit: Option<usize>, mut fetch: F) -> Result<(Vec<T>, bool), Failure>
where
    F: FnMut(i32, String) -> Fut,
    Fut: Future<Output = Result<(Vec<T>, String), Failure>>,
{
    let mut entries = Vec::new();
    let mut token = String::new();
    loop {
        let missing = limit.map_or(limits::PAGE_ENTRIES, |limit| limit.saturating_sub(entries.len()));
        let size = i32::try_from(missing.min(limits::PAGE_ENTRIES)).unwrap_or(i32::MAX);
        let (page, next) = fetch(size, token.clone()).await?;
        entries.extend(page);
        let full = limit.is_some_and(|limit| entries.len() >= limit);
        if next.is_empty() || full {
            return Ok((entries, !next.is_empty()));
        }
        if next == token {
            return Err(Failure::failed("the server sends the same page again and again"));
        }
        token = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_proto::token::TokenKind;
    use std::collections::HashMap;

    fn session(file: Option<&str>, variables: &[(&str, &str)]) -> Result<Session, Failure> {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        let global = Global { token_file: file.map(PathBuf::from), ..Global::default() };
        Session::new(&global, |name| variables.get(name).map(OsString::from), Terminal::default())
    }

    #[test]
    fn the_environment_says_where_and_who() {
        let session = session(
            None,
            &[
                ("COFFER_ADDRESS", "https://coffer.example:7470"),
                ("COFFER_TOKEN_FILE", "/run/token"),
                ("COFFER_CA_FILE", "/etc/ca.pem"),
            ],
        )
        .expect("a good environment");
        assert_eq!(session.config.addresses.to_string(), "https://coffer.example:7470");
        assert!(matches!(session.config.credential, Some(Credential::TokenFile(file)) if file == *"/run/token"));
        assert_eq!(session.config.ca_file, Some("/etc/ca.pem".into()));
    }

    #[test]
    fn an_empty_environment_is_the_default() {
        let session = session(None, &[("COFFER_ADDRESS", ""), ("COFFER_TOKEN", "")]).expect("nothing given");
        assert_eq!(session.config.addresses.to_string(), ADDRESS_DEFAULT);
        assert!(session.config.credential.is_none());
    }

    #[test]
    fn the_file_option_wins_over_the_token_over_its_file() {
        let token = Token::generate(TokenKind::User);
        let both = [("COFFER_TOKEN", token.expose()), ("COFFER_TOKEN_FILE", "/run/token")];
        let given = session(None, &both).expect("good");
        assert!(matches!(given.config.credential, Some(Credential::Token(t)) if t.id() == token.id()));
        let given = session(Some("/option"), &both).expect("good");
        assert!(matches!(given.config.credential, Some(Credential::TokenFile(file)) if file == *"/option"));
    }

    #[test]
    fn mistakes_name_their_source_and_hide_the_token() {
        let failure = session(None, &[("COFFER_ADDRESS", "http://coffer.example")]).expect_err("plaintext");
        assert!(failure.message().starts_with("COFFER_ADDRESS: plain http://"), "{}", failure.message());
        let failure = session(None, &[("COFFER_TOKEN", "hunter2")]).expect_err("no token");
        assert!(failure.message().starts_with("COFFER_TOKEN: ") && !failure.message().contains("hunter2"));
    }

    fn ready<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(future)
    }

    #[test]
    fn pages_are_followed_to_the_end_or_the_limit() {
        let fetch = |size: i32, token: String| async move {
            let start: usize = token.parse().unwrap_or(0);
            let end = (start + usize::try_from(size).expect("positive").min(3)).min(10);
            let next = if end < 10 { end.to_string() } else { String::new() };
            Ok(((start..end).collect::<Vec<_>>(), next))
        };
        assert_eq!(ready(pages(None, fetch)).expect("pages"), ((0..10).collect(), false));
        assert_eq!(ready(pages(Some(4), fetch)).expect("pages"), ((0..4).collect(), true));
        assert_eq!(ready(pages(Some(10), fetch)).expect("pages"), ((0..10).collect(), false));
        let stuck = |_, _| async { Ok((vec![1], "again".to_owned())) };
        assert!(ready(pages(None, stuck)).is_err());
    }
}
