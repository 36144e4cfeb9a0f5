//! `coffer reference delete`

use coffer_proto::{name::DeclarationName, v1::DeleteReferenceRequest};

use crate::{failure::Failure, print::Report, session::Session, view::Done};

/// Remove a reference
#[derive(clap::Args)]
pub(crate) struct Delete {
    /// SCOPE/references/ID or PATTERN/references/ID
    #[arg(value_parser = DeclarationName::parse_reference)]
    reference: DeclarationName,
}

impl Delete {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let name = self.reference.to_string();
        client.call(client.references().delete_reference(DeleteReferenceRequest { name: name.clone() })).await?;
        session.show(&Done { name, result: "deleted" })
    }
}
