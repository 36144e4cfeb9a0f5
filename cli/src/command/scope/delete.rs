//! `coffer scope delete`

use coffer_proto::{name::Scope, v1::DeleteScopeRequest};

use crate::{failure::Failure, input::confirm::Confirm, print::Report, session::Session, view::ScopeDeleted};

/// Delete a scope for good, with its secrets, its grants and the tokens of its workloads
///
/// Scopes below it stay. A scope made later under the same name revives nothing.
#[derive(clap::Args)]
pub(crate) struct Delete {
    /// The scope
    #[arg(value_parser = Scope::parse)]
    scope: Scope,
    /// Only if it still is the scope with this uid
    #[arg(long, default_value = "", hide_default_value = true)]
    uid: String,
    #[command(flatten)]
    confirm: Confirm,
}

impl Delete {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let name = self.scope.to_string();
        let question = format!("Delete {name} with all of its secrets, grants and workload tokens?");
        self.confirm.ask(&question, &[&name])?;
        let client = session.connect().await?;
        let request = DeleteScopeRequest { name: name.clone(), uid: self.uid };
        let deleted = client.call(client.scopes().delete_scope(request)).await?;
        session.show(&ScopeDeleted { name, secrets_deleted: deleted.secrets_deleted })
    }
}
