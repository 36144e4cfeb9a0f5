//! Keys of records. `:` stands between a scope and what it owns, because no id contains it: deleting by the prefix
//! `secret/accounts/a:` never touches `accounts/a/plugins/g`.
//!
//! ```text
//!   header                                    digest            key/system
//!   key/scope/{scope}                         scope/{scope}     secret/{scope}:{NAME}
//!   grant/{pattern}:{principal}:{permission}  token/{principal}:{id}
//!   reference/{pattern}:{id}                  manifest/{pattern}:{id}           pattern/{pattern}
//!   start/{workload}                          used/{scope}      rotation
//! ```
//!
//! What is sealed under a key sorts after `key/`, so that a load, which comes in order, can open it; `digest` and `grant`
//! are older than this rule and wait.
//!
//! ```text
//! ```

use coffer_proto::{
    name::{DeclarationKind, DeclarationName, Permission, Principal, Scope, ScopePattern, VariableName, Workload},
    token::TokenId,
};

use crate::store::Key;

/// The store's header.
pub const HEADER: &str = "header";
/// The digest key behind environment revisions.
pub const DIGEST: &str = "digest";
/// The system's data key.
pub const SYSTEM_KEY: &str = "key/system";
/// The last rotation of keys.
pub const ROTATION: &str = "rotation";
/// The prefix of all tokens. The epoch that ends those of before a restore is one that whoever has a backup can edit:
/// they are left out of what is restored.
pub const TOKENS: &str = "token/";
/// The prefix of all data keys.
pub const DATA_KEYS: &str = "key/";

/// What a key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`HEADER`].
    Header,
    /// [`DIGEST`].
    Digest,
    /// [`SYSTEM_KEY`].
    SystemKey,
    /// [`ROTATION`].
    Rotation,
    /// A scope's data key.
    ScopeKey(Scope),
    /// A scope.
    Scope(Scope),
    /// A secret.
    Secret(Scope, VariableName),
    /// A grant.
    Grant,
    /// A token.
    Token,
    /// A reference or manifest.
    Declaration(DeclarationName),
    /// What changes with every reference on a pattern.
    Pattern(ScopePattern),
    /// The starts of a workload.
    Starts(Workload),
    /// When the secrets of a scope were used last.
    Used(Scope),
}

/// Of a scope's data key.
pub fn scope_key(scope: &Scope) -> Key {
    Key::new(format!("key/scope/{scope}"))
}

/// Of a scope.
pub fn scope(scope: &Scope) -> Key {
    Key::new(format!("scope/{scope}"))
}

/// Of a secret.
pub fn secret(scope: &Scope, variable: &VariableName) -> Key {
    Key::new(format!("secret/{scope}:{variable}"))
}

/// The prefix of all secrets of a scope.
pub fn secrets_of(scope: &Scope) -> Key {
    Key::new(format!("secret/{scope}:"))
}

/// Of a grant.
pub fn grant(pattern: &str, principal: &Principal, permission: Permission) -> Key {
    Key::new(format!("grant/{pattern}:{principal}:{permission}"))
}

/// The prefix of all grants of a pattern.
pub fn grants_on(pattern: &str) -> Key {
    Key::new(format!("grant/{pattern}:"))
}

/// The prefixes of all grants on a scope, or a pattern of scopes, and on the workloads in it; not on scopes below.
pub fn grants_within(scope: &str) -> [Key; 3] {
    [format!("grant/{scope}:"), format!("grant/{scope}/servers/"), format!("grant/{scope}/sandboxes/")].map(Key::new)
}

/// Of a token.
pub fn token(principal: &Principal, id: &TokenId) -> Key {
    Key::new(format!("token/{principal}:{id}"))
}

/// The prefix of all tokens of a principal.
pub fn tokens_of(principal: &Principal) -> Key {
    Key::new(format!("token/{principal}:"))
}

/// The prefixes of all tokens of a scope's workloads, not of workloads in scopes below.
pub fn tokens_in(scope: &Scope) -> [Key; 2] {
    [format!("token/{scope}/servers/"), format!("token/{scope}/sandboxes/")].map(Key::new)
}

/// The principal that a grant's or token's key names.
pub fn principal(key: &Key) -> Option<&str> {
    key.as_str().split(':').nth(1).filter(|_| key.as_str().starts_with("grant/")).or_else(|| {
        let token = key.as_str().strip_prefix("token/")?;
        token.split_once(':').map(|(principal, _)| principal)
    })
}

/// Of a reference or manifest.
pub fn declaration(name: &DeclarationName) -> Key {
    let id = name.as_str().rsplit_once('/').map_or("", |(_, id)| id);
    Key::new(format!("{}{id}", declarations_on(name.kind(), name.pattern().as_str()).as_str()))
}

/// The prefix of all references or manifests on a scope or pattern.
pub fn declarations_on(kind: DeclarationKind, pattern: &str) -> Key {
    Key::new(format!("{}/{pattern}:", singular(kind)))
}

/// The prefix of all references or manifests on scopes and patterns below a scope or pattern.
pub fn declarations_below(kind: DeclarationKind, pattern: &str) -> Key {
    Key::new(format!("{}/{pattern}/", singular(kind)))
}

fn singular(kind: DeclarationKind) -> &'static str {
    match kind {
        DeclarationKind::Reference => "reference",
        DeclarationKind::Manifest => "manifest",
    }
}

/// Of a pattern with a wildcard.
pub fn pattern(pattern: &ScopePattern) -> Key {
    Key::new(format!("pattern/{pattern}"))
}

/// The prefix of all patterns below a scope.
pub fn patterns_below(scope: &Scope) -> Key {
    Key::new(format!("pattern/{scope}/"))
}

/// Of a workload's starts.
pub fn starts(workload: &Workload) -> Key {
    Key::new(format!("start/{workload}"))
}

/// The prefixes of the starts of all workloads of a scope, not of workloads in scopes below.
pub fn starts_in(scope: &Scope) -> [Key; 2] {
    [format!("start/{scope}/servers/"), format!("start/{scope}/sandboxes/")].map(Key::new)
}

/// Of when a scope's secrets were used.
pub fn used(scope: &Scope) -> Key {
    Key::new(format!("used/{scope}"))
}

/// The prefix of all scopes below a scope, whether or not they inherit from it.
pub fn scopes_below(scope: &Scope) -> Key {
    Key::new(format!("scope/{scope}/"))
}

/// The prefix of all grants on patterns below a scope.
pub fn grants_below(scope: &Scope) -> Key {
    Key::new(format!("grant/{scope}/"))
}

/// Reads a key. `None` for one that this version does not know.
pub fn parse(key: &Key) -> Option<Kind> {
    match key.as_str() {
        HEADER => return Some(Kind::Header),
        DIGEST => return Some(Kind::Digest),
        SYSTEM_KEY => return Some(Kind::SystemKey),
        ROTATION => return Some(Kind::Rotation),
        _ => {}
    }
    let (collection, rest) = key.as_str().split_once('/')?;
    match collection {
        "key" => Some(Kind::ScopeKey(Scope::parse(rest.strip_prefix("scope/")?).ok()?)),
        "scope" => Some(Kind::Scope(Scope::parse(rest).ok()?)),
        "secret" => {
            let (scope, variable) = rest.split_once(':')?;
            Some(Kind::Secret(Scope::parse(scope).ok()?, VariableName::parse(variable).ok()?))
        }
        "grant" => Some(Kind::Grant),
        "token" => Some(Kind::Token),
        "reference" => Some(Kind::Declaration(parse_declaration(DeclarationKind::Reference, rest)?)),
        "manifest" => Some(Kind::Declaration(parse_declaration(DeclarationKind::Manifest, rest)?)),
        "pattern" => Some(Kind::Pattern(ScopePattern::parse(rest).ok()?)),
        "start" => Some(Kind::Starts(Workload::parse(rest).ok()?)),
        "used" => Some(Kind::Used(Scope::parse(rest).ok()?)),
        _ => None,
    }
}

fn parse_declaration(kind: DeclarationKind, rest: &str) -> Option<DeclarationName> {
    let (pattern, id) = rest.split_once(':')?;
    DeclarationName::parse(&format!("{pattern}/{}/{id}", kind.collection())).ok()
}

/// Whether the record is sealed under the system key.
pub fn is_of_system(key: &Key) -> bool {
    key.as_str() != HEADER && !key.as_str().starts_with(DATA_KEYS) && !key.as_str().starts_with("secret/")
}

/// Whether the record must be read before others of the same commit or page: keys open the rest.
pub fn comes_first(key: &Key) -> bool {
    key.as_str().starts_with("key/") || key.as_str() == HEADER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        let place = Scope::parse("accounts/a/plugins/g").expect("good");
        let variable = VariableName::parse("TOKEN").expect("good");
        assert_eq!(parse(&scope_key(&place)), Some(Kind::ScopeKey(place.clone())));
        assert_eq!(parse(&scope(&place)), Some(Kind::Scope(place.clone())));
        assert_eq!(parse(&secret(&place, &variable)), Some(Kind::Secret(place, variable)));
        assert_eq!(parse(&Key::new("something/else")), None);
        for text in ["accounts/-/plugins/github/manifests/m", "projects/p/references/r"] {
            let name = DeclarationName::parse(text).expect("good");
            assert_eq!(parse(&declaration(&name)), Some(Kind::Declaration(name)));
        }
        let every = ScopePattern::parse("projects/-/environments/-").expect("good");
        assert_eq!(parse(&pattern(&every)), Some(Kind::Pattern(every)));
        let server = Workload::parse("accounts/a/plugins/g/servers/s").expect("good");
        assert_eq!(parse(&starts(&server)), Some(Kind::Starts(server)));
    }

    #[test]
    fn grants_and_tokens_name_their_principal() {
        let user = Principal::User("u".into());
        for pattern in ["projects/-/environments/e", "users/-", ""] {
            assert_eq!(principal(&grant(pattern, &user, Permission::SecretsRead)), Some("users/u"), "{pattern}");
        }
        let server = Principal::parse("projects/p/servers/s").expect("good");
        let id = coffer_proto::token::Token::generate(coffer_proto::token::TokenKind::Workload).id().clone();
        assert_eq!(principal(&token(&server, &id)), Some("projects/p/servers/s"));
        assert_eq!(principal(&Key::new("scope/projects/p")), None);
    }

    #[test]
    fn a_scopes_prefixes_leave_the_scopes_below_alone() {
        let account = Scope::parse("accounts/a").expect("good");
        let plugin = Scope::parse("accounts/a/plugins/g").expect("good");
        let name = VariableName::parse("TOKEN").expect("good");
        assert!(secret(&account, &name).as_str().starts_with(secrets_of(&account).as_str()));
        assert!(!secret(&plugin, &name).as_str().starts_with(secrets_of(&account).as_str()));
        let user = Principal::User("u".into());
        let below = grant(plugin.as_str(), &user, Permission::SecretsRead);
        assert!(grants_within(account.as_str()).iter().all(|prefix| !below.as_str().starts_with(prefix.as_str())));
    }
}
