//! `coffer manifest delete`

use coffer_proto::{name::DeclarationName, v1::DeleteManifestRequest};

use crate::{failure::Failure, print::Report, session::Session, view::Done};

/// Remove a manifest
#[derive(clap::Args)]
pub(crate) struct Delete {
    /// SCOPE/manifests/ID or PATTERN/manifests/ID
    #[arg(value_parser = DeclarationName::parse_manifest)]
    manifest: DeclarationName,
}

impl Delete {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let name = self.manifest.to_string();
        client.call(client.manifests().delete_manifest(DeleteManifestRequest { name: name.clone() })).await?;
        session.show(&Done { name, result: "deleted" })
    }
}
