use std::fmt;

use super::InvalidName;

/// What a grant allows. Deny by default; none implies another but where its text says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// `secrets:read`: list, get, stats, describe; never an encrypted value.
    SecretsRead,
    /// `secrets:manage`: read, and create, update, delete, clone, import.
    SecretsManage,
    /// `secrets:inject`: fetch the environment of workloads. Services only.
    SecretsInject,
    /// `workloads:issue`: issue workload tokens, which is inject by another door. Services only.
    WorkloadsIssue,
    /// `access:manage`: grants; delete the scope.
    AccessManage,
    /// `tokens:issue`: tokens for principals. Services only.
    TokensIssue,
    /// `operator`: first grants and tokens, keys, backup, status.
    Operator,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Permission; 7] = [
        Permission::SecretsRead,
        Permission::SecretsManage,
        Permission::SecretsInject,
        Permission::WorkloadsIssue,
        Permission::AccessManage,
        Permission::TokensIssue,
        Permission::Operator,
    ];

    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::SecretsRead => "secrets:read",
            Permission::SecretsManage => "secrets:manage",
            Permission::SecretsInject => "secrets:inject",
            Permission::WorkloadsIssue => "workloads:issue",
            Permission::AccessManage => "access:manage",
            Permission::TokensIssue => "tokens:issue",
            Permission::Operator => "operator",
        }
    }

    /// Reads a permission.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        Permission::ALL.into_iter().find(|known| known.as_str() == text).ok_or(InvalidName(
            "must be one of secrets:read, secrets:manage, secrets:inject, workloads:issue, access:manage, \
             tokens:issue, operator",
        ))
    }

    /// Whether people may hold it, or services only.
    pub fn held_by_users(self) -> bool {
        matches!(
            self,
            Permission::SecretsRead | Permission::SecretsManage | Permission::AccessManage | Permission::Operator
        )
    }

    /// Whether it leads to encrypted values: marked in the audit log when granted.
    pub fn leads_to_values(self) -> bool {
        matches!(self, Permission::SecretsInject | Permission::WorkloadsIssue | Permission::TokensIssue)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
