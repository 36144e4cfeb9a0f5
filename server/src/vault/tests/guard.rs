//! Which references guard which secrets: random trees against a plain model.

use std::collections::BTreeMap;

use coffer_proto::name::{ScopePattern, WILDCARD};
use proptest::{collection::vec, prelude::*, sample::select, strategy::ValueTree as _, test_runner::TestRunner};

use super::{
    references::{declaration, declared, prepared},
    world::{new, scope, secret},
};
use crate::{
    record::SharedWith,
    vault::{Error, NewSecret},
};

const TREES: usize = 120;
const NAMES: [&str; 2] = ["A", "B"];
const SCOPES: [&str; 9] = [
    "organizations/o",
    "organizations/o/workspaces/w",
    "organizations/o/workspaces/x",
    "projects/p",
    "projects/p/environments/e",
    "projects/p/environments/f",
    "projects/q/environments/e",
    "accounts/a",
    "accounts/a/plugins/g",
];
const PATTERNS: [&str; 24] = [
    "organizations/o",
    "organizations/-",
    "organizations/o/workspaces/w",
    "organizations/o/workspaces/-",
    "organizations/-/workspaces/w",
    "organizations/-/workspaces/-",
    "organizations/p/workspaces/w",
    "projects/p",
    "projects/-",
    "projects/q",
    "projects/p/environments/e",
    "projects/p/environments/none",
    "projects/p/environments/-",
    "projects/q/environments/-",
    "projects/-/environments/e",
    "projects/-/environments/-",
    "accounts/a",
    "accounts/-",
    "accounts/a/plugins/g",
    "accounts/b/plugins/g",
    "accounts/a/plugins/-",
    "accounts/-/plugins/g",
    "accounts/-/plugins/h",
    "accounts/-/plugins/-",
];

#[derive(Clone, Debug)]
struct Planted {
    locked: bool,
    /// With whom an organization's is shared; `None` is all.
    only: Option<Vec<String>>,
}

type Secrets = BTreeMap<(&'static str, &'static str), Planted>;
type References = BTreeMap<String, Vec<&'static str>>;

fn tree() -> impl Strategy<Value = (Secrets, References)> {
    let only = prop_oneof![
        Just(None),
        Just(Some(vec![])),
        Just(Some(vec!["w".to_owned()])),
        Just(Some(vec!["x".to_owned(), "y".to_owned()])),
    ];
    let planted = (select(&SCOPES[..]), select(&NAMES[..]), any::<bool>(), only);
    let secrets = vec(planted, 1..16).prop_map(|all| {
        let plant = |(place, name, locked, only): (&'static str, _, bool, _)| {
            let is_organization = place == "organizations/o";
            let locked = locked && (is_organization || place == "projects/p");
            ((place, name), Planted { locked, only: if is_organization { only } else { None } })
        };
        all.into_iter().map(plant).collect()
    });
    let reference = (select(&PATTERNS[..]), 0..2, vec(select(&NAMES[..]), 1..3));
    let references = vec(reference, 1..8)
        .prop_map(|all| all.into_iter().map(|(on, id, names)| (format!("{on}/references/r{id}"), names)).collect());
    (secrets, references)
}

/// The scopes a text stands for, of all that could be: `none` and `any` stand for those that nothing is known of.
fn meant(pattern: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for part in pattern.split('/') {
        let ids: &[&str] =
            if part == WILDCARD { &["o", "p", "q", "a", "w", "x", "e", "f", "g", "any"] } else { &[part] };
        all = all.iter().flat_map(|begun| ids.iter().map(move |id| format!("{begun}/{id}"))).collect();
    }
    all.into_iter().map(|text| text.trim_start_matches('/').to_owned()).collect()
}

/// Whether a reference uses a secret: asked of every scope it can mean.
fn uses(secrets: &Secrets, reference: &str, owner: &str, name: &'static str) -> bool {
    let (on, _) = reference.split_once("/references/").expect("a reference");
    let is_wildcard = ScopePattern::parse(on).expect("a pattern").is_wildcard();
    meant(on).iter().any(|place| {
        if place == owner {
            return true;
        }
        let Some(id) = place.strip_prefix(owner) else { return false };
        let Some(id) = id.strip_prefix("/workspaces/").or_else(|| id.strip_prefix("/environments/")) else {
            return false;
        };
        let above = &secrets[&(owner, name)];
        let anybody = is_wildcard && on.ends_with(WILDCARD);
        let is_shared = match &above.only {
            None => true,
            Some(only) => only.iter().any(|one| one == id) || (anybody && !only.is_empty()),
        };
        let has_own = secrets.keys().any(|(at, own)| at == place && *own == name);
        is_shared && (above.locked || is_wildcard || !has_own)
    })
}

#[tokio::test]
async fn a_secret_is_guarded_by_exactly_what_uses_it() {
    let mut runner = TestRunner::deterministic();
    let (mut guarded, mut free) = (0, 0);
    for number in 0..TREES {
        let (mut secrets, references) = tree().new_tree(&mut runner).expect("a tree").current();
        let (_world, vault, call) = prepared().await;
        for ((place, name), planted) in &secrets {
            let sharing =
                (*place == "organizations/o").then(|| planted.only.clone().map_or(SharedWith::All, SharedWith::Only));
            let secret = NewSecret { locked: planted.locked, sharing, ..new(name, "v") };
            vault.create_secret(&call, scope(place), Ok(secret)).await.map(drop).expect("created");
        }
        for (reference, names) in &references {
            let mut names = names.clone();
            names.sort_unstable();
            names.dedup();
            vault.set_declaration(&call, declaration(reference), Ok(declared(&names))).await.expect("set");
        }
        for (place, name) in secrets.keys().copied().collect::<Vec<_>>() {
            let by = references.iter().filter(|(on, names)| names.contains(&name) && uses(&secrets, on, place, name));
            let by: Vec<_> = by.map(|(on, _)| declaration(on)).collect();
            let full = secret(&format!("{place}/secrets/{name}"));
            let deleted = vault.delete_secret(&call, full.clone(), String::new(), false).await;
            if by.is_empty() {
                assert_eq!(deleted, Ok(()), "tree {number}: {full} of {secrets:?} with {references:?}");
                secrets.remove(&(place, name));
                free += 1;
            } else {
                let expected = Err(Error::SecretReferenced { by, hidden: 0 });
                assert_eq!(deleted, expected, "tree {number}: {full} of {secrets:?} with {references:?}");
                guarded += 1;
            }
        }
    }
    assert!(guarded > TREES && free > TREES, "both happen: {guarded} guarded, {free} free");
}
