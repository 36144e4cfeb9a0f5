//! `coffer secret list`

use coffer_proto::{name::ScopePattern, v1::ListSecretsRequest};

use crate::{
    command::Limit,
    failure::Failure,
    print::Report,
    session::{Session, pages},
    view::SecretList,
};

/// List the secrets of a scope, or of all scopes of a pattern that you may read
#[derive(clap::Args)]
pub(crate) struct List {
    /// A scope or a pattern: accounts/ann/plugins/- lists all of an account's plugins
    #[arg(value_parser = ScopePattern::parse)]
    scope: ScopePattern,
    #[command(flatten)]
    limit: Limit,
}

impl List {
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let (secrets, more) = pages(self.limit.limit, async |page_size, page_token| {
            let request = ListSecretsRequest { parent: self.scope.to_string(), page_size, page_token };
            let page = client.call(client.secrets().list_secrets(request)).await?;
            Ok((page.secrets, page.next_page_token))
        })
        .await?;
        session.show(&SecretList::new(secrets, self.scope.is_wildcard(), more))
    }
}
