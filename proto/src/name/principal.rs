use super::{InvalidName, WILDCARD, Workload, check_id};
use std::fmt;

/// Who calls: `users/{id}`, `services/{id}`, or a workload by its own name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// A person.
    User(String),
    /// A platform's service.
    Service(String),
    /// A workload, with its own token.
    Workload(Workload),
}

/// Principals that tokens may be issued to: `users/-`, `services/ci`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrincipalPattern {
    /// One user, or with `-` every user.
    Users(String),
    /// One service, or with `-` every service.
    Services(String),
}

const PRINCIPAL_RULE: InvalidName = InvalidName("must be users/{id}, services/{id} or a workload");
const PATTERN_RULE: InvalidName = InvalidName("must be users/{id}, services/{id}, users/- or services/-");

impl Principal {
    /// Reads a principal.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let checked = |id: &str| check_id(id).map(|()| id.to_owned());
        match text.split_once('/') {
            Some(("users", id)) => Ok(Principal::User(checked(id)?)),
            Some(("services", id)) => Ok(Principal::Service(checked(id)?)),
            Some(_) if Workload::looks_like(text) => Workload::parse(text).map(Principal::Workload),
            Some(_) => Err(PRINCIPAL_RULE),
            None => Err(PRINCIPAL_RULE),
        }
    }

    /// The workload, if it is one.
    pub fn as_workload(&self) -> Option<&Workload> {
        match self {
            Principal::Workload(workload) => Some(workload),
            Principal::User(_) | Principal::Service(_) => None,
        }
    }
}

impl PrincipalPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let checked = |id: &str| {
            if id == WILDCARD { Ok(id.to_owned()) } else { check_id(id).map(|()| id.to_owned()) }
        };
        match text.split_once('/') {
            Some(("users", id)) => Ok(PrincipalPattern::Users(checked(id)?)),
            Some(("services", id)) => Ok(PrincipalPattern::Services(checked(id)?)),
            _ => Err(PATTERN_RULE),
        }
    }

    /// Whether it stands for the principal. Never for a workload.
    pub fn matches(&self, principal: &Principal) -> bool {
        match (self, principal) {
            (PrincipalPattern::Users(id), Principal::User(user)) => id == WILDCARD || id == user,
            (PrincipalPattern::Services(id), Principal::Service(service)) => id == WILDCARD || id == service,
            _ => false,
        }
    }

    /// Whether it stands for everyone that `other` stands for.
    pub fn covers(&self, other: &PrincipalPattern) -> bool {
        match (self, other) {
            (PrincipalPattern::Users(a), PrincipalPattern::Users(b))
            | (PrincipalPattern::Services(a), PrincipalPattern::Services(b)) => a == WILDCARD || a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::User(id) => write!(f, "users/{id}"),
            Principal::Service(id) => write!(f, "services/{id}"),
            Principal::Workload(workload) => f.write_str(workload.as_str()),
        }
    }
}

impl fmt::Display for PrincipalPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrincipalPattern::Users(id) => write!(f, "users/{id}"),
            PrincipalPattern::Services(id) => write!(f, "services/{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for text in ["users/alice", "services/ci", "accounts/a/sandboxes/x"] {
            assert_eq!(Principal::parse(text).expect("a good principal").to_string(), text);
        }
        for bad in ["", "users", "users/", "users/-", "users/Alice", "users/a/b", "accounts/a", "robots/r"] {
            assert!(Principal::parse(bad).is_err(), "{bad:?}");
        }
        let none = Principal::parse("organizations/o/servers/s").expect_err("no workload");
        assert!(
            none.message().starts_with("an organization has no workloads"),
            "what is wrong is said of the workload"
        );
    }

    #[test]
    fn patterns_cover() {
        let everybody = PrincipalPattern::parse("users/-").expect("good");
        let alice = PrincipalPattern::parse("users/alice").expect("good");
        assert!(everybody.covers(&alice) && !alice.covers(&everybody));
        assert!(everybody.matches(&Principal::User("bob".into())));
        assert!(!everybody.matches(&Principal::Service("bob".into())));
        assert!(PrincipalPattern::parse("accounts/a/sandboxes/-").is_err());
    }
}
