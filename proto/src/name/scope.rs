use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
};

use super::{InvalidName, WILDCARD, check_id, textual};

/// The kinds of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScopeKind {
    /// `organizations/{o}`
    Organization,
    /// `organizations/{o}/workspaces/{w}`
    Workspace,
    /// `projects/{p}`
    Project,
    /// `projects/{p}/environments/{e}`
    Environment,
    /// `accounts/{a}`
    Account,
    /// `accounts/{a}/plugins/{g}`
    Plugin,
}

/// What owns secrets, for example `organizations/o/workspaces/w`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    // First, so that scopes order as their texts do: see `Borrow<str>`.
    text: String,
    kind: ScopeKind,
}

/// A scope, or many: `-` stands for every id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopePattern {
    text: String,
    kind: ScopeKind,
}

const SCOPE_RULE: InvalidName = InvalidName(
    "must be a scope: organizations/{o}, organizations/{o}/workspaces/{w}, projects/{p}, \
     projects/{p}/environments/{e}, accounts/{a} or accounts/{a}/plugins/{g}",
);

impl ScopeKind {
    /// Every kind.
    pub const ALL: [ScopeKind; 6] = [
        ScopeKind::Organization,
        ScopeKind::Workspace,
        ScopeKind::Project,
        ScopeKind::Environment,
        ScopeKind::Account,
        ScopeKind::Plugin,
    ];

    /// The collections in its name.
    fn collections(self) -> (&'static str, Option<&'static str>) {
        match self {
            ScopeKind::Organization => ("organizations", None),
            ScopeKind::Workspace => ("organizations", Some("workspaces")),
            ScopeKind::Project => ("projects", None),
            ScopeKind::Environment => ("projects", Some("environments")),
            ScopeKind::Account => ("accounts", None),
            ScopeKind::Plugin => ("accounts", Some("plugins")),
        }
    }

    /// Whether workloads run in it: everywhere but in an organization itself.
    pub fn has_workloads(self) -> bool {
        self != ScopeKind::Organization
    }

    /// Whether its secrets may be locked against a child's.
    pub fn has_locks(self) -> bool {
        matches!(self, ScopeKind::Organization | ScopeKind::Project)
    }

    /// Whether its workloads also receive the parent's secrets.
    pub fn inherits(self) -> bool {
        matches!(self, ScopeKind::Workspace | ScopeKind::Environment)
    }
}

/// Reads `collection/id[/collection/id]`, letting `accept` judge each id.
fn parse_kind(text: &str, accept: fn(&str) -> Result<(), InvalidName>) -> Result<ScopeKind, InvalidName> {
    let mut parts = text.split('/');
    let (Some(collection), Some(id)) = (parts.next(), parts.next()) else {
        return Err(SCOPE_RULE);
    };
    let below = match (parts.next(), parts.next(), parts.next()) {
        (None, None, None) => None,
        (Some(collection), Some(id), None) => Some((collection, id)),
        _ => return Err(SCOPE_RULE),
    };
    let kind = ScopeKind::ALL
        .into_iter()
        .find(|kind| kind.collections() == (collection, below.map(|(collection, _)| collection)))
        .ok_or(SCOPE_RULE)?;
    accept(id)?;
    if let Some((_, id)) = below {
        accept(id)?;
    }
    Ok(kind)
}

fn check_id_or_wildcard(id: &str) -> Result<(), InvalidName> {
    if id == WILDCARD { Ok(()) } else { check_id(id) }
}

impl Scope {
    /// Reads a scope's name.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        Ok(Self { kind: parse_kind(text, check_id)?, text: text.to_owned() })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its kind.
    pub fn kind(&self) -> ScopeKind {
        self.kind
    }

    /// The scope above it in its name, whether or not it inherits from it.
    pub fn parent(&self) -> Option<Scope> {
        let kind = match self.kind {
            ScopeKind::Workspace => ScopeKind::Organization,
            ScopeKind::Environment => ScopeKind::Project,
            ScopeKind::Plugin => ScopeKind::Account,
            ScopeKind::Organization | ScopeKind::Project | ScopeKind::Account => return None,
        };
        let mut parts = self.text.splitn(3, '/');
        let text = [parts.next()?, parts.next()?].join("/");
        Some(Scope { text, kind })
    }

    /// The account, project or organization that it is or lies in: whose it is.
    pub fn top(&self) -> Scope {
        self.parent().unwrap_or_else(|| self.clone())
    }

    /// The scope whose secrets its workloads also receive.
    pub fn inherits_from(&self) -> Option<Scope> {
        if self.kind.inherits() { self.parent() } else { None }
    }

    /// The id of an account, for the owner rule: of the account itself or the one above a plugin.
    pub fn account_id(&self) -> Option<&str> {
        match self.kind {
            ScopeKind::Account | ScopeKind::Plugin => self.text.split('/').nth(1),
            _ => None,
        }
    }
}

impl ScopePattern {
    /// Reads a scope or a pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        Ok(Self { kind: parse_kind(text, check_id_or_wildcard)?, text: text.to_owned() })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The kind of scopes it matches.
    pub fn kind(&self) -> ScopeKind {
        self.kind
    }

    /// Whether it stands for more than one scope.
    pub fn is_wildcard(&self) -> bool {
        self.text.split('/').any(|part| part == WILDCARD)
    }

    /// The scope, if it is just one.
    pub fn as_scope(&self) -> Option<Scope> {
        (!self.is_wildcard()).then(|| Scope { text: self.text.clone(), kind: self.kind })
    }

    /// Whether the scope is one of those it stands for.
    pub fn matches(&self, scope: &Scope) -> bool {
        self.kind == scope.kind && covers_text(&self.text, &scope.text)
    }

    /// Whether it stands for everything that `other` stands for.
    pub fn covers(&self, other: &ScopePattern) -> bool {
        self.kind == other.kind && covers_text(&self.text, &other.text)
    }

    /// The part of the text before the first `-`: every match begins with it.
    pub fn literal_prefix(&self) -> &str {
        let mut end = 0;
        for part in self.text.split_inclusive('/') {
            if part.trim_end_matches('/') == WILDCARD {
                break;
            }
            end += part.len();
        }
        &self.text[..end]
    }
}

/// Part by part, where `-` on the left covers any id. Collections never are `-`.
pub(super) fn covers_text(pattern: &str, other: &str) -> bool {
    let mut left = pattern.split('/');
    let mut right = other.split('/');
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == WILDCARD => {}
            _ => return false,
        }
    }
}

/// The text decides everything else, so ranges of a map by scope can be asked for by text.
impl Borrow<str> for Scope {
    fn borrow(&self) -> &str {
        &self.text
    }
}

/// As the text's, which `Borrow` demands.
impl Hash for Scope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl From<Scope> for ScopePattern {
    fn from(scope: Scope) -> Self {
        Self { text: scope.text, kind: scope.kind }
    }
}

textual!(Scope);
textual!(ScopePattern);

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        Scope::parse(text).expect("a good scope")
    }

    fn pattern(text: &str) -> ScopePattern {
        ScopePattern::parse(text).expect("a good pattern")
    }

    #[test]
    fn names_say_kind_and_parent() {
        let cases = [
            ("organizations/o", ScopeKind::Organization, None, None),
            ("organizations/o/workspaces/w", ScopeKind::Workspace, Some("organizations/o"), Some("organizations/o")),
            ("projects/p", ScopeKind::Project, None, None),
            ("projects/p/environments/e", ScopeKind::Environment, Some("projects/p"), Some("projects/p")),
            ("accounts/a", ScopeKind::Account, None, None),
            ("accounts/a/plugins/g", ScopeKind::Plugin, Some("accounts/a"), None),
        ];
        for (text, kind, parent, inherits) in cases {
            let scope = scope(text);
            assert_eq!(scope.kind(), kind);
            assert_eq!(scope.parent().map(|p| p.to_string()).as_deref(), parent);
            assert_eq!(scope.inherits_from().map(|p| p.to_string()).as_deref(), inherits);
        }
    }

    #[test]
    fn refuses_everything_else() {
        for bad in [
            "",
            "/",
            "projects",
            "projects/",
            "/projects/p",
            "projects/p/",
            "projects/P",
            "projects/-",
            "teams/t",
            "projects/p/workspaces/w",
            "projects/../x",
            "projects/p/environments",
            "projects/p/environments/e/x",
            "projects/p/environments/e/servers/s",
            "Projects/p",
            "projects//environments/e",
            "projects/ä",
            "projects/p\0",
        ] {
            assert!(Scope::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn patterns_match_one_id_a_wildcard() {
        let all = pattern("accounts/-/plugins/github");
        assert!(all.matches(&scope("accounts/a/plugins/github")));
        assert!(!all.matches(&scope("accounts/a/plugins/gitlab")));
        assert!(!all.matches(&scope("accounts/a")));
        assert!(!pattern("accounts/-").matches(&scope("accounts/a/plugins/g")), "nothing flows down");
        assert!(pattern("projects/-/environments/-").covers(&pattern("projects/p/environments/-")));
        assert!(!pattern("projects/p/environments/-").covers(&pattern("projects/-/environments/-")));
        assert_eq!(pattern("accounts/a/plugins/-").literal_prefix(), "accounts/a/plugins/");
        assert_eq!(pattern("accounts/-/plugins/g").literal_prefix(), "accounts/");
        assert_eq!(pattern("accounts/a").literal_prefix(), "accounts/a");
    }

    #[test]
    fn only_literal_patterns_are_a_scope() {
        assert_eq!(pattern("projects/p").as_scope(), Some(scope("projects/p")));
        assert_eq!(pattern("projects/-").as_scope(), None);
    }
}
