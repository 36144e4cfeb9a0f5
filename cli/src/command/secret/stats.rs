//! `coffer secret stats`

use coffer_proto::{name::ScopePattern, v1::GetSecretStatsRequest};

use crate::{failure::Failure, print::Report, session::Session, view};

/// Count the secrets of a scope, or of all scopes of a pattern that you may read
#[derive(clap::Args)]
pub(crate) struct Stats {
    /// A scope or a pattern
    #[arg(value_parser = ScopePattern::parse)]
    scope: ScopePattern,
}

impl Stats {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let parent = self.scope.to_string();
        let request = GetSecretStatsRequest { parent: parent.clone() };
        let stats = client.call(client.secrets().get_secret_stats(request)).await?;
        session.show(&view::Stats::new(parent, &stats))
    }
}
