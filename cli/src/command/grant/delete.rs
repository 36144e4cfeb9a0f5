//! `coffer grant delete`

use coffer_client::Client;
use coffer_proto::{
    name::Permission,
    v1::{DeleteGrantRequest, Grant, ListGrantsRequest},
};

use crate::{
    command::prefix::Collection,
    failure::Failure,
    print::Report,
    session::{Session, pages},
    view::Done,
};

const GRANTS: Collection = Collection { name: "grants/", one: "grant", id_chars: 32, list: "coffer grant list" };

/// Take a right away, from the next call on
///
/// Names the grant as `coffer grant list` shows it, or by the first characters of its ID if no other begins so, or as it
/// was given: coffer grant delete users/bob secrets:read projects/shop.
#[derive(clap::Args)]
#[command(
    override_usage = "coffer grant delete <GRANT>\n       coffer grant delete <PRINCIPAL> <PERMISSION> [PATTERN]"
)]
pub(crate) struct Delete {
    /// grants/ID, or users/ID or services/ID whose right it is
    #[arg(value_name = "GRANT")]
    grant: String,
    /// The right of a principal
    #[arg(value_parser = Permission::parse)]
    permission: Option<Permission>,
    /// Where it holds, as it was given. Nothing for operator
    #[arg(default_value = "", hide_default_value = true)]
    pattern: String,
}

impl Delete {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        if self.permission.is_none() {
            GRANTS.check(&self.grant)?;
        }
        let client = session.connect().await?;
        let name = match (self.permission, GRANTS.whole(&self.grant)) {
            (None, Some(name)) => name,
            (None, None) => {
                let grants = grants(&client, "", "").await?;
                GRANTS.only(&self.grant, grants.iter().map(|grant| grant.name.as_str()))?.to_owned()
            }
            (Some(permission), _) => {
                let permission = permission.to_string();
                let grants = grants(&client, &self.pattern, &self.grant).await?;
                let is_it = |grant: &&Grant| grant.pattern == self.pattern && grant.permission == permission;
                let found = grants.iter().find(is_it).ok_or_else(|| {
                    Failure::not_found("there is no such grant, or you may not take it")
                        .hint("coffer grant list shows those that you may")
                })?;
                found.name.clone()
            }
        };
        let request = DeleteGrantRequest { name: name.clone() };
        client.call(client.access().delete_grant(request)).await?;
        session.show(&Done { name, result: "deleted" })
    }
}

/// The grants that the caller may delete.
async fn grants(client: &Client, pattern: &str, principal: &str) -> Result<Vec<Grant>, Failure> {
    let (grants, _) = pages(None, async |page_size, page_token| {
        let (pattern, principal) = (pattern.to_owned(), principal.to_owned());
        let request = ListGrantsRequest { pattern, principal, page_size, page_token };
        let page = client.call(client.access().list_grants(request)).await?;
        Ok((page.grants, page.next_page_token))
    })
    .await?;
    Ok(grants)
}
