//! `coffer access test`

use coffer_proto::{
    name::{Permission, Principal, Scope, Workload},
    v1::TestPermissionsRequest,
};

use crate::{failure::Failure, print::Report, session::Session, view::Tested};

/// Say what you may do
///
/// With --permission the exit code is 1 unless you have every permission named.
#[derive(clap::Args)]
pub(crate) struct Test {
    /// A scope, a workload, or a principal that you may issue tokens to; without it: whether you are an operator
    #[arg(default_value = "", hide_default_value = true)]
    resource: String,
    /// Test these permissions instead of all that fit the resource
    #[arg(long, short, value_name = "PERMISSION", value_delimiter = ',', value_parser = Permission::parse)]
    permission: Vec<Permission>,
}

impl Test {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let permissions = if self.permission.is_empty() { fitting(&self.resource) } else { &self.permission };
        let permissions: Vec<String> = permissions.iter().map(ToString::to_string).collect();
        let client = session.connect().await?;
        let request = TestPermissionsRequest { resource: self.resource.clone(), permissions: permissions.clone() };
        let held = client.call(client.access().test_permissions(request)).await?;
        let tested = Tested::new(self.resource, &permissions, &held.permissions);
        let mut report = session.show(&tested)?;
        report.negative = !self.permission.is_empty() && !tested.all_allowed();
        Ok(report)
    }
}

/// The permissions that mean something on the resource; all of them if it is none, so that the server says why.
fn fitting(resource: &str) -> &'static [Permission] {
    const ON_SCOPE: &[Permission] = &[
        Permission::SecretsRead,
        Permission::SecretsManage,
        Permission::SecretsInject,
        Permission::WorkloadsIssue,
        Permission::AccessManage,
    ];
    if resource.is_empty() {
        &[Permission::Operator]
    } else if Workload::parse(resource).is_ok() {
        &[Permission::SecretsInject, Permission::WorkloadsIssue]
    } else if Scope::parse(resource).is_ok() {
        ON_SCOPE
    } else if Principal::parse(resource).is_ok() {
        &[Permission::TokensIssue]
    } else {
        &Permission::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_fit_the_resource() {
        assert_eq!(fitting(""), [Permission::Operator]);
        assert_eq!(fitting("users/alice"), [Permission::TokensIssue]);
        assert_eq!(fitting("projects/p/servers/s"), [Permission::SecretsInject, Permission::WorkloadsIssue]);
        assert_eq!(fitting("projects/p").len(), 5);
        assert_eq!(fitting("nonsense").len(), 7);
    }
}
