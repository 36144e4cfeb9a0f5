//! `coffer token exchange`

use std::{path::PathBuf, time::Duration};

use coffer_client::{
    retry::Policy,
    start::{self, Nonce},
};
use coffer_proto::{reason::Reason, token::TokenKind};
use tokio::time::Instant;

use super::file::TokenFile;
use crate::{failure::Failure, new_file::is_stdout, print::Report, session::Session, view::Exchanged};

/// How long a lost answer is asked for again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Exchange a start token for the session token of its workload, into a file
///
/// The start token is the one that is called with: --token-file, COFFER_TOKEN_FILE or COFFER_TOKEN. It works once.
/// coffer-inject does this by itself.
#[derive(clap::Args)]
pub(crate) struct Exchange {
    /// Write the session token to this file, readable by you alone; `-` is stdout
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace the file if it exists
    #[arg(long, alias = "force")]
    replace: bool,
}

impl Exchange {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let (config, credential) = session.credential()?;
        let token = credential.token()?;
        if token.kind() != TokenKind::Start {
            return Err(Failure::usage("the token is no start token")
                .hint("start tokens are issued with: coffer token issue WORKLOAD --single-use"));
        }
        let file = Some(&self.out).filter(|path| !is_stdout(path));
        let file = file.map(|path| TokenFile::reserve(path, self.replace)).transpose()?;
        let exchanged =
            start::exchange(config, token, &Nonce::random()?, Instant::now() + PATIENCE, Policy::default()).await;
        let session_token = exchanged.map_err(|error| {
            Failure::from(error).hint_if(
                Reason::StartTokenUsed,
                "a start token works once; if you did not use it, somebody else did: revoke what it gave them",
            )
        })?;
        match file {
            None => session.show(&Exchanged { token: Some(session_token) }),
            Some(file) => {
                let place = file.path().display().to_string();
                file.write(&session_token)?;
                Ok(Report::default().note(format!("exchanged, written to {place}")))
            }
        }
    }
}
