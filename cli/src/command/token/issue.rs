//! `coffer token issue`

use std::{path::PathBuf, time::Duration};

use coffer_proto::{
    name::{InvalidName, Principal, Workload},
    reason::Reason,
    token::Token,
    v1::IssueTokenRequest,
};
use zeroize::Zeroizing;

use super::file::TokenFile;
use crate::{failure::Failure, new_file::is_stdout, print::Report, session::Session, view::Issued};

/// Issue a token, on stdout or into a file
#[derive(clap::Args)]
pub(crate) struct Issue {
    /// users/ID, services/ID, or a workload: SCOPE/servers/ID, SCOPE/sandboxes/ID
    #[arg(value_parser = principal)]
    principal: Principal,
    /// How long it is valid, for example 15m, 1h or 30d; otherwise 1h, 30d for services, and 10m for start tokens
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// Issue a start token of a workload: it is good for one exchange, which coffer-inject makes by itself
    #[arg(long)]
    single_use: bool,
    /// How long the session will be valid that a start token is exchanged for; otherwise 1h
    #[arg(long, value_name = "TIME", requires = "single_use", value_parser = humantime::parse_duration)]
    session_ttl: Option<Duration>,
    /// What it is for
    #[arg(long, short, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// Write it to this file, readable by you alone; `-` is stdout, as without it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long, alias = "force", requires = "out")]
    replace: bool,
}

/// What names a workload is checked as one: that says why, where a principal's rule would only say what else there is.
fn principal(text: &str) -> Result<Principal, InvalidName> {
    match text.rsplit('/').nth(1) {
        Some("servers" | "sandboxes") => Workload::parse(text).map(Principal::Workload),
        _ => Principal::parse(text),
    }
}

/// Who could issue it, to those who may not.
fn issuers(principal: &Principal) -> &'static str {
    match principal {
        Principal::Workload(_) => "workload tokens are issued by services with workloads:issue",
        _ => "tokens of users and services are issued by operators, and by services with tokens:issue",
    }
}

impl Issue {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let ttl = self.ttl.map(prost_types::Duration::try_from).transpose();
        let ttl = ttl.map_err(|_| Failure::usage("--ttl: too long"))?;
        let session_ttl = self.session_ttl.map(prost_types::Duration::try_from).transpose();
        let session_ttl = session_ttl.map_err(|_| Failure::usage("--session-ttl: too long"))?;
        // Before the token exists: a token that cannot be kept would be valid all the same.
        let file = self.out.as_deref().filter(|path| !is_stdout(path));
        let file = file.map(|path| TokenFile::reserve(path, self.replace)).transpose()?;
        let client = session.connect().await?;
        let request = IssueTokenRequest {
            principal: self.principal.to_string(),
            ttl,
            description: self.description,
            single_use: self.single_use,
            session_ttl,
        };
        let mut issued = client
            .call(client.tokens().issue_token(request))
            .await
            .map_err(|error| Failure::from(error).hint_if(Reason::PermissionDenied, issuers(&self.principal)))?;
        let text = Zeroizing::new(std::mem::take(&mut issued.token));
        let token = Token::parse(&text).map_err(|error| Failure::failed(format!("the server's answer is {error}")))?;
        let metadata = issued.metadata.take().unwrap_or_default();
        let (issued, place) = match file {
            Some(file) => {
                let place = format!(", written to {}", file.path().display());
                file.write(&token)?;
                (Issued::new(None, metadata), place)
            }
            None => (Issued::new(Some(token), metadata), String::new()),
        };
        let note = format!("issued {}{place}", issued.summary());
        Ok(session.show(&issued)?.note(note))
    }
}
