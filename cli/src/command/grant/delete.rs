//! `coffer grant delete`

use coffer_proto::v1::DeleteGrantRequest;

use crate::{failure::Failure, print::Report, session::Session, view::Done};

/// Take a right away, from the next call on
#[derive(clap::Args)]
pub(crate) struct Delete {
    /// grants/ID, as `coffer grant list` shows it
    grant: String,
}

impl Delete {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let request = DeleteGrantRequest { name: self.grant.clone() };
        client.call(client.access().delete_grant(request)).await?;
        session.show(&Done { name: self.grant, result: "deleted" })
    }
}
