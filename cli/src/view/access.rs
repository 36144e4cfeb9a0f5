//! Grants, and what follows from them.

use coffer_proto::v1::{self, effective_access::Reason};
use serde::Serialize;

use super::{View, counted, fields, listing, some, when_and_who};
use crate::print::{
    table::{Table, dropped, whole},
    time::{rfc3339, short},
};

/// A grant.
#[derive(Serialize)]
pub(crate) struct GrantView {
    name: String,
    principal: String,
    permission: String,
    pattern: String,
    create_time: Option<String>,
    creator: String,
}

/// Grants.
#[derive(Serialize)]
pub(crate) struct GrantList {
    grants: Vec<GrantView>,
    more: bool,
}

/// Who can do what on a scope, and why.
#[derive(Serialize)]
pub(crate) struct EffectiveList {
    scope: String,
    entries: Vec<EffectiveView>,
    more: bool,
}

#[derive(Serialize)]
struct EffectiveView {
    principal: String,
    permission: String,
    reason: &'static str,
    grant: Option<String>,
    pattern: Option<String>,
}

/// Which permissions the caller has.
#[derive(Serialize)]
pub(crate) struct Tested {
    resource: String,
    permissions: Vec<TestedPermission>,
}

#[derive(Serialize)]
struct TestedPermission {
    permission: String,
    allowed: bool,
}

impl From<v1::Grant> for GrantView {
    fn from(grant: v1::Grant) -> Self {
        Self {
            name: grant.name,
            principal: grant.principal,
            permission: grant.permission,
            pattern: grant.pattern,
            create_time: rfc3339(grant.create_time.as_ref()),
            creator: grant.creator,
        }
    }
}

impl View for GrantView {
    fn table(&self, _: Option<usize>) -> String {
        fields(&[
            ("name", self.name.clone()),
            ("principal", self.principal.clone()),
            ("permission", self.permission.clone()),
            ("pattern", self.pattern.clone()),
            ("created", when_and_who(self.create_time.as_deref(), &self.creator)),
        ])
    }
}

impl GrantList {
    pub(crate) fn new(grants: Vec<v1::Grant>, more: bool) -> Self {
        Self { grants: grants.into_iter().map(GrantView::from).collect(), more }
    }
}

impl View for GrantList {
    fn table(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[
            whole("PATTERN"),
            whole("PRINCIPAL"),
            whole("PERMISSION"),
            whole("GRANT"),
            dropped("CREATED (UTC)"),
            dropped("BY"),
        ]);
        for grant in &self.grants {
            table.row([
                &grant.pattern,
                &grant.principal,
                &grant.permission,
                &grant.name,
                &short(grant.create_time.as_deref()),
                &grant.creator,
            ]);
        }
        listing(&table.render(width), &counted(self.grants.len() as i64, "grant"), self.more)
    }
}

impl EffectiveList {
    pub(crate) fn new(scope: String, entries: Vec<v1::EffectiveAccess>, more: bool) -> Self {
        let view = |entry: v1::EffectiveAccess| {
            let reason = match entry.reason() {
                Reason::Grant => "grant",
                Reason::WildcardGrant => "wildcard_grant",
                Reason::Owner => "owner",
                Reason::Operator => "operator",
                Reason::Unspecified => "unknown",
            };
            EffectiveView {
                principal: entry.principal,
                permission: entry.permission,
                reason,
                grant: some(entry.grant),
                pattern: some(entry.pattern),
            }
        };
        Self { scope, entries: entries.into_iter().map(view).collect(), more }
    }
}

impl View for EffectiveList {
    fn table(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&["PRINCIPAL", "PERMISSION", "WHY", "PATTERN", "GRANT"].map(whole));
        for entry in &self.entries {
            let [pattern, grant] = [&entry.pattern, &entry.grant].map(|text| text.as_deref().unwrap_or_default());
            table.row([&entry.principal, &entry.permission, &entry.reason.replace('_', " "), pattern, grant]);
        }
        listing(&table.render(width), &counted(self.entries.len() as i64, "right"), self.more)
    }
}

impl Tested {
    pub(crate) fn new(resource: String, asked: &[String], held: &[String]) -> Self {
        let test = |permission: &String| TestedPermission {
            permission: permission.clone(),
            allowed: held.contains(permission),
        };
        Self { resource, permissions: asked.iter().map(test).collect() }
    }

    /// Whether the caller has every one of them.
    pub(crate) fn all_allowed(&self) -> bool {
        self.permissions.iter().all(|tested| tested.allowed)
    }
}

impl View for Tested {
    fn table(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&["PERMISSION", "ALLOWED"].map(whole));
        for tested in &self.permissions {
            table.row([&tested.permission, if tested.allowed { "yes" } else { "no" }]);
        }
        table.render(width)
    }
}
