use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
};

use super::{InvalidName, Scope, ScopePattern, WILDCARD, check_id, textual};

/// The kinds of workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    /// `{scope}/servers/{id}`
    Server,
    /// `{scope}/sandboxes/{id}`
    Sandbox,
}

impl WorkloadKind {
    fn collection(self) -> &'static str {
        match self {
            WorkloadKind::Server => "servers",
            WorkloadKind::Sandbox => "sandboxes",
        }
    }

    fn of_collection(text: &str) -> Option<Self> {
        [WorkloadKind::Server, WorkloadKind::Sandbox].into_iter().find(|kind| kind.collection() == text)
    }
}

/// What consumes secrets, for example `projects/p/environments/e/servers/web`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    // First, so that workloads order as their texts do: see `Borrow<str>`.
    text: String,
    scope: Scope,
    kind: WorkloadKind,
}

/// Where a grant holds: a scope pattern, or one workload or all workloads of a kind in a scope pattern.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourcePattern {
    text: String,
    scope: ScopePattern,
    workload: Option<WorkloadKind>,
}

const WORKLOAD_RULE: InvalidName = InvalidName("must be a workload: {scope}/servers/{id} or {scope}/sandboxes/{id}");
const NO_WORKLOADS: InvalidName = InvalidName(
    "an organization has no workloads of its own; name one of a workspace: organizations/{o}/workspaces/{w}",
);

/// Splits the last two parts off, if they are a workload's.
fn split(text: &str) -> Option<(&str, WorkloadKind, &str)> {
    let (rest, id) = text.rsplit_once('/')?;
    let (scope, collection) = rest.rsplit_once('/')?;
    Some((scope, WorkloadKind::of_collection(collection)?, id))
}

impl Workload {
    /// Reads a workload's name.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let (scope, kind, id) = split(text).ok_or(WORKLOAD_RULE)?;
        let scope = Scope::parse(scope)?;
        if !scope.kind().has_workloads() {
            return Err(NO_WORKLOADS);
        }
        check_id(id)?;
        Ok(Self { text: text.to_owned(), scope, kind })
    }

    /// Whether a text has the shape of a workload's name, be it a good one or not.
    pub(super) fn looks_like(text: &str) -> bool {
        split(text).is_some()
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scope it runs in.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Its kind.
    pub fn kind(&self) -> WorkloadKind {
        self.kind
    }
}

impl ResourcePattern {
    /// Reads a scope pattern or a workload pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let Some((scope, kind, id)) = split(text) else {
            return Ok(Self { scope: ScopePattern::parse(text)?, text: text.to_owned(), workload: None });
        };
        let scope = ScopePattern::parse(scope)?;
        if !scope.kind().has_workloads() {
            return Err(NO_WORKLOADS);
        }
        if id != WILDCARD {
            check_id(id)?;
        }
        Ok(Self { text: text.to_owned(), scope, workload: Some(kind) })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scopes it lies in.
    pub fn scope(&self) -> &ScopePattern {
        &self.scope
    }

    /// Whether it names workloads rather than scopes.
    pub fn names_workloads(&self) -> bool {
        self.workload.is_some()
    }

    /// Whether it holds on the scope itself.
    pub fn matches_scope(&self, scope: &Scope) -> bool {
        self.workload.is_none() && self.scope.matches(scope)
    }

    /// Whether it holds for the workload. A scope pattern holds for every workload right in its scopes, for none in
    /// scopes below them.
    pub fn matches_workload(&self, workload: &Workload) -> bool {
        match self.workload {
            None => self.scope.matches(&workload.scope),
            Some(_) => super::scope::covers_text(&self.text, &workload.text),
        }
    }

    /// Whether it holds wherever `other` holds.
    pub fn covers(&self, other: &ResourcePattern) -> bool {
        match (self.workload, other.workload) {
            (None, _) => self.scope.covers(&other.scope),
            (Some(_), Some(_)) => super::scope::covers_text(&self.text, &other.text),
            (Some(_), None) => false,
        }
    }
}

/// The text decides everything else, so ranges of a map by workload can be asked for by text.
impl Borrow<str> for Workload {
    fn borrow(&self) -> &str {
        &self.text
    }
}

/// As the text's, which `Borrow` demands.
impl Hash for Workload {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl From<ScopePattern> for ResourcePattern {
    fn from(scope: ScopePattern) -> Self {
        Self { text: scope.as_str().to_owned(), scope, workload: None }
    }
}

impl From<Workload> for ResourcePattern {
    fn from(workload: Workload) -> Self {
        Self { text: workload.text, scope: workload.scope.into(), workload: Some(workload.kind) }
    }
}

textual!(Workload);
textual!(ResourcePattern);

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(text: &str) -> Workload {
        Workload::parse(text).expect("a good workload")
    }

    fn pattern(text: &str) -> ResourcePattern {
        ResourcePattern::parse(text).expect("a good pattern")
    }

    #[test]
    fn a_workload_names_its_scope() {
        let server = workload("organizations/o/workspaces/w/servers/s");
        assert_eq!(server.scope().as_str(), "organizations/o/workspaces/w");
        assert_eq!(server.kind(), WorkloadKind::Server);
        assert_eq!(workload("accounts/a/sandboxes/x").kind(), WorkloadKind::Sandbox);
    }

    #[test]
    fn refuses_everything_else() {
        for bad in [
            "",
            "servers/s",
            "organizations/o/servers/s",
            "projects/p",
            "projects/p/servers/-",
            "projects/p/servers/",
            "projects/-/servers/s",
            "projects/p/environments/e/jobs/j",
            "projects/p/servers/S",
        ] {
            assert!(Workload::parse(bad).is_err(), "{bad:?}");
        }
        assert!(ResourcePattern::parse("organizations/o/servers/-").is_err());
        assert!(ResourcePattern::parse("-").is_err());
    }

    #[test]
    fn a_scope_pattern_holds_for_its_own_workloads_only() {
        let server = workload("projects/p/environments/e/servers/s");
        assert!(pattern("projects/p/environments/e").matches_workload(&server));
        assert!(pattern("projects/-/environments/-").matches_workload(&server));
        assert!(pattern("projects/p/environments/e/servers/-").matches_workload(&server));
        assert!(!pattern("projects/p").matches_workload(&server), "nothing flows down");
        assert!(!pattern("projects/p/environments/e/sandboxes/-").matches_workload(&server));
        assert!(!pattern("projects/p/environments/e/servers/-").matches_scope(server.scope()));
    }

    #[test]
    fn covering_never_widens() {
        let scope = pattern("projects/p");
        let servers = pattern("projects/p/servers/-");
        let one = pattern("projects/p/servers/s");
        assert!(scope.covers(&servers) && scope.covers(&one) && servers.covers(&one));
        assert!(!servers.covers(&scope) && !one.covers(&servers) && !one.covers(&scope));
        assert!(!scope.covers(&pattern("projects/p/environments/e")));
    }
}
