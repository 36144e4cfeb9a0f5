//! `coffer grant create`

use coffer_proto::{name::Permission, v1::CreateGrantRequest};

use crate::{failure::Failure, print::Report, session::Session, view::GrantView};

/// Let a principal do something
///
/// Permissions: secrets:read, secrets:manage, access:manage (users and services), secrets:inject, workloads:issue,
/// tokens:issue (services), operator. Whoever has secrets:inject or workloads:issue can obtain encrypted values.
#[derive(clap::Args)]
pub(crate) struct Create {
    /// users/ID or services/ID
    principal: String,
    /// What it may do
    #[arg(value_parser = Permission::parse)]
    permission: Permission,
    /// Where: a scope, workloads, or for tokens:issue principals; `-` for all of a kind. Nothing for operator
    pattern: Option<String>,
}

impl Create {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let request = CreateGrantRequest {
            principal: self.principal,
            permission: self.permission.to_string(),
            pattern: self.pattern.unwrap_or_default(),
        };
        let grant = client.call(client.access().create_grant(request)).await?;
        let report = session.show(&GrantView::from(grant))?;
        Ok(match self.permission {
            Permission::Operator => report.note(
                "note: it holds only with a token that an operator issued; what others issued to this principal stays \
                 without it",
            ),
            _ => report,
        })
    }
}
