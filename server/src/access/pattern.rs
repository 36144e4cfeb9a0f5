//! Which grants' patterns reach a place. A place has at most three ids, so its covering patterns are few and each is
//! looked up, whatever the number of grants.

use coffer_proto::name::{ResourcePattern, Scope, ScopePattern, WILDCARD, Workload};

/// Where somebody wants to act.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// In one scope.
    Scope(&'a Scope),
    /// In every scope of a pattern.
    Scopes(&'a ScopePattern),
    /// On one workload.
    Workload(&'a Workload),
    /// Wherever this pattern holds.
    Pattern(&'a ResourcePattern),
}

/// Every pattern that covers the place: each id as it is or as `-`; for workloads also those of their scope.
pub fn covering(place: &Target<'_>) -> Vec<String> {
    match place {
        Target::Scope(scope) => variants(scope.as_str()),
        Target::Scopes(pattern) => variants(pattern.as_str()),
        Target::Workload(workload) => with_scope(workload.as_str(), workload.scope().as_str()),
        Target::Pattern(pattern) if pattern.names_workloads() => with_scope(pattern.as_str(), pattern.scope().as_str()),
        Target::Pattern(pattern) => variants(pattern.as_str()),
    }
}

fn with_scope(workload: &str, scope: &str) -> Vec<String> {
    let mut patterns = variants(scope);
    patterns.extend(variants(workload));
    patterns
}

fn variants(text: &str) -> Vec<String> {
    let mut variants = vec![String::with_capacity(text.len())];
    for (at, part) in text.split('/').enumerate() {
        let is_id = at % 2 == 1;
        let mut with_wildcard = Vec::new();
        for variant in &mut variants {
            if at > 0 {
                variant.push('/');
            }
            if is_id && part != WILDCARD {
                with_wildcard.push(format!("{variant}{WILDCARD}"));
            }
            variant.push_str(part);
        }
        variants.extend(with_wildcard);
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_as_it_is_or_any() {
        let scope = Scope::parse("projects/p/environments/e").expect("good");
        let mut found = covering(&Target::Scope(&scope));
        found.sort();
        assert_eq!(
            found,
            [
                "projects/-/environments/-",
                "projects/-/environments/e",
                "projects/p/environments/-",
                "projects/p/environments/e"
            ]
        );
    }

    #[test]
    fn what_is_found_covers_and_nothing_else_does() {
        let all = [
            "accounts/a",
            "accounts/-",
            "accounts/a/plugins/g",
            "accounts/-/plugins/g",
            "accounts/a/plugins/-",
            "accounts/-/plugins/-",
            "accounts/b/plugins/g",
            "accounts/a/plugins/g/servers/s",
            "accounts/a/plugins/g/servers/-",
            "accounts/-/plugins/-/servers/-",
            "accounts/a/plugins/g/sandboxes/-",
            "projects/p",
        ];
        let all = all.map(|text| ResourcePattern::parse(text).expect("good"));
        for place in &all {
            let found = covering(&Target::Pattern(place));
            for pattern in &all {
                assert_eq!(found.contains(&pattern.to_string()), pattern.covers(place), "{pattern} over {place}");
            }
        }
    }
}
