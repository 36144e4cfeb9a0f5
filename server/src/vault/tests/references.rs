//! References guard deletes, on whichever replica either happens; and what stands on a scope dies with it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use coffer_proto::name::{DeclarationKind, DeclarationName, Permission, ScopePattern, SecretName, VariableName};

use super::world::{OPERATOR, World, new, scope, secret, shared};
use crate::{
    record::SharedWith,
    store::{
        self, Conflict, Follow, Load, Position, Store, Transaction,
        faulty::{Fault, Faulty},
        memory::Memory,
    },
    vault::{Call, Error, Limits, NewDeclaration, PageRequest, Vault},
    view::Declared,
};

const USER: &str = "users/alice";

pub(super) fn declared(names: &[&str]) -> NewDeclaration {
    let variable = |name: &&str| Declared {
        variable: VariableName::parse(name).expect("a name"),
        required: true,
        description: String::new(),
    };
    NewDeclaration { description: String::new(), variables: names.iter().map(variable).collect() }
}

pub(super) fn declaration(text: &str) -> DeclarationName {
    DeclarationName::parse(text).expect("a declaration")
}

async fn set(vault: &Vault, call: &Call, name: &str) -> Result<(), Error> {
    vault.set_declaration(call, declaration(name), Ok(declared(&["A"]))).await.map(drop)
}

async fn delete(vault: &Vault, call: &Call, name: &SecretName) -> Result<(), Error> {
    vault.delete_secret(call, name.clone(), String::new(), false).await
}

/// Something that happens just before the next commit of a vault.
type Before = Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>;

/// A store on which another replica is always faster, once.
struct Overtaken {
    inner: Arc<dyn Store>,
    before: Before,
}

#[async_trait]
impl Store for Overtaken {
    async fn load(&self) -> Result<Box<dyn Load>, store::Error> {
        self.inner.load().await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Result<Position, Conflict>, store::Error> {
        let before = self.before.lock().expect("no panic before").take();
        if let Some(before) = before {
            before.await;
        }
        self.inner.commit(transaction).await
    }

    async fn changes(&self, after: Position) -> Result<Box<dyn Follow>, store::Error> {
        self.inner.changes(after).await
    }

    async fn latest(&self) -> Result<Position, store::Error> {
        self.inner.latest().await
    }

    async fn condition(&self) -> store::Condition {
        self.inner.condition().await
    }
}

/// Where a secret stands and a reference that it is meant by.
const PLACES: [(&str, &str); 10] = [
    ("projects/p", "projects/p/references/r"),
    ("projects/p", "projects/-/references/r"),
    ("projects/p", "projects/p/environments/e/references/r"),
    ("projects/p", "projects/p/environments/new/references/r"),
    ("projects/p", "projects/p/environments/-/references/r"),
    ("projects/p", "projects/-/environments/e/references/r"),
    ("projects/p", "projects/-/environments/-/references/r"),
    ("projects/p/environments/e", "projects/-/environments/e/references/r"),
    ("projects/p/environments/e", "projects/p/environments/-/references/r"),
    ("accounts/alice/plugins/g", "accounts/-/plugins/g/references/r"),
];

/// A world in which the user may do everything in the places.
pub(super) async fn prepared() -> (World, Vault, Call) {
    let world = World::new().await;
    let vault = world.vault().await;
    for pattern in [
        "projects/-",
        "projects/-/environments/-",
        "accounts/-",
        "accounts/-/plugins/-",
        "organizations/-",
        "organizations/-/workspaces/-",
    ] {
        world.grant(&vault, USER, Permission::SecretsManage, pattern).await;
    }
    let call = world.call(&vault, USER).await;
    vault
        .create_secret(&call, scope("projects/p/environments/e"), Ok(new("OTHER", "v")))
        .await
        .map(drop)
        .expect("made");
    (world, vault, call)
}

#[tokio::test]
async fn a_reference_set_between_decision_and_commit_guards() {
    for (place, reference) in PLACES {
        // Where something was set before, and where nothing ever was.
        for earlier in [false, true] {
            let (world, there, call) = prepared().await;
            if earlier {
                set(&there, &call, reference).await.expect("set");
                there.delete_declaration(&call, declaration(reference)).await.expect("removed");
            }
            there.create_secret(&call, scope(place), Ok(new("A", "v"))).await.map(drop).expect("created");
            let overtaken = Arc::new(Overtaken { inner: world.store.clone(), before: Before::default() });
            let limits =
                Limits { memory_bytes: 1 << 30, sharing: crate::vault::Sharing::Own, calls: Default::default() };
            let (audit, clock) = (world.audit.clone(), world.clock.clone());
            let here = Vault::open(overtaken.clone(), world.key.clone(), audit, clock, limits).await.expect("opens");
            let name = secret(&format!("{place}/secrets/A"));
            let faster = {
                let (there, call) = (there.clone(), call.clone());
                async move { set(&there, &call, reference).await.expect("set") }
            };
            *overtaken.before.lock().expect("no panic before") = Some(Box::pin(faster));
            let refused = delete(&here, &call, &name).await;
            let expected = Error::SecretReferenced { by: vec![declaration(reference)], hidden: 0 };
            assert_eq!(refused, Err(expected), "{reference} and {name}, earlier {earlier}");
            assert!(overtaken.before.lock().expect("no panic before").is_none(), "it was overtaken");
        }
    }
}

#[tokio::test]
async fn two_replicas_together_never_exceed_the_limit_of_a_pattern() {
    let (world, there, call) = prepared().await;
    for pattern in ["projects/p", "projects/-"] {
        for n in 0..coffer_proto::limits::PATTERN_MANIFESTS - 1 {
            set(&there, &call, &format!("{pattern}/manifests/m{n}")).await.expect("set");
        }
        let overtaken = Arc::new(Overtaken { inner: world.store.clone(), before: Before::default() });
        let limits = Limits { memory_bytes: 1 << 30, sharing: crate::vault::Sharing::Own, calls: Default::default() };
        let (audit, clock) = (world.audit.clone(), world.clock.clone());
        let here = Vault::open(overtaken.clone(), world.key.clone(), audit, clock, limits).await.expect("opens");
        let last = format!("{pattern}/manifests/last");
        let faster = {
            let (there, call) = (there.clone(), call.clone());
            async move { set(&there, &call, &last).await.expect("set") }
        };
        *overtaken.before.lock().expect("no panic before") = Some(Box::pin(faster));
        let refused = set(&here, &call, &format!("{pattern}/manifests/more")).await;
        assert!(matches!(refused, Err(Error::TooMany(_))), "{pattern}: {refused:?}");
        assert_eq!(set(&here, &call, &format!("{pattern}/manifests/m1")).await, Ok(()), "one that is there");
    }
}

#[tokio::test]
async fn what_was_declared_on_a_scope_dies_with_it() {
    let (world, vault, call) = prepared().await;
    let operator = "services/platform";
    for pattern in ["projects/-", "projects/-/environments/-"] {
        world.grant(&vault, operator, Permission::AccessManage, pattern).await;
    }
    let platform = world.call(&vault, operator).await;
    let all = [
        "projects/p/references/r",
        "projects/p/manifests/m",
        "projects/p/environments/e/references/r",
        "projects/p/environments/-/manifests/m",
        "projects/p/environments/-/references/r",
    ];
    for name in all {
        set(&vault, &call, name).await.expect("set");
    }
    let records = world.records().await;
    for place in ["projects/p/environments/e", "projects/p"] {
        vault.delete_scope(&platform, scope(place), String::new()).await.expect("deleted");
    }
    let left = |records: &[crate::store::Record]| {
        let declared = ["reference/", "manifest/", "pattern/"];
        let is_left = |key: &str| declared.iter().any(|prefix| key.starts_with(prefix));
        records.iter().filter(|record| is_left(record.key.as_str())).count()
    };
    assert!(left(&records) > all.len() && left(&world.records().await) == 0, "nothing is left in the store");
    vault.create_secret(&call, scope("projects/p"), Ok(new("A", "v"))).await.map(drop).expect("made again");
    for kind in [DeclarationKind::Reference, DeclarationKind::Manifest] {
        for parent in ["projects/p", "projects/p/environments/e", "projects/p/environments/-"] {
            let page = PageRequest::new("List", &[], 0, "");
            let parent = ScopePattern::parse(parent).expect("a pattern");
            let found = vault.list_declarations(&call, kind, parent, page).await.expect("listed");
            assert!(found.entries.is_empty());
        }
    }
    assert_eq!(delete(&vault, &call, &secret("projects/p/secrets/A")).await, Ok(()));
}

/// Should its record outlive its scope, on a disk somebody wrote to, it says nothing of the scope made later.
#[tokio::test]
async fn a_reference_of_an_earlier_scope_guards_nothing() {
    let (world, vault, call) = prepared().await;
    world.grant(&vault, OPERATOR, Permission::AccessManage, "projects/-").await;
    let operator = world.call(&vault, OPERATOR).await;
    set(&vault, &call, "projects/q/references/r").await.expect("set");
    let key = crate::record::key::declaration(&declaration("projects/q/references/r"));
    let record = world.records().await.into_iter().find(|record| record.key == key).expect("stored");
    vault.delete_scope(&operator, scope("projects/q"), String::new()).await.expect("deleted");
    vault.create_secret(&call, scope("projects/q"), Ok(new("A", "v"))).await.map(drop).expect("made again");
    let transaction = Transaction {
        id: store::TransactionId::random().expect("randomness"),
        epoch: None,
        expectations: Vec::new(),
        changes: vec![store::Change::Put(key, record.value)],
    };
    world.store.commit(transaction).await.expect("stored").expect("no conflict");
    assert_eq!(delete(&vault, &call, &secret("projects/q/secrets/A")).await, Ok(()));
}

#[tokio::test]
async fn sharing_decides_what_a_workspace_uses() {
    let (_world, vault, call) = prepared().await;
    let organization = "organizations/o";
    let only = |ids: &[&str]| SharedWith::Only(ids.iter().map(|id| (*id).to_owned()).collect());
    let cases = [
        (SharedWith::All, "organizations/o/workspaces/w", true),
        (SharedWith::All, "organizations/-/workspaces/w", true),
        (only(&["w"]), "organizations/o/workspaces/w", true),
        (only(&["w"]), "organizations/-/workspaces/-", true),
        (only(&["w"]), "organizations/o/workspaces/-", true),
        (only(&["x"]), "organizations/o/workspaces/w", false),
        (only(&["x"]), "organizations/-/workspaces/w", false),
        (only(&[]), "organizations/o/workspaces/-", false),
    ];
    let name = secret("organizations/o/secrets/A");
    for (sharing, place, guards) in cases {
        vault.create_secret(&call, scope(organization), Ok(shared("A", "v", sharing.clone()))).await.expect("made");
        let reference = format!("{place}/references/r");
        set(&vault, &call, &reference).await.expect("set");
        let refused = delete(&vault, &call, &name).await;
        assert_eq!(refused.is_err(), guards, "{sharing:?} and {place}: {refused:?}");
        vault.delete_declaration(&call, declaration(&reference)).await.expect("removed");
        if guards {
            delete(&vault, &call, &name).await.expect("nothing uses it now");
        }
    }
}

#[tokio::test]
async fn on_a_full_disk_references_go_and_still_guard() {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let vault = world.vault().await;
    world.grant(&vault, USER, Permission::SecretsManage, "projects/-").await;
    let call = world.call(&vault, USER).await;
    vault.create_secret(&call, scope("projects/p"), Ok(new("A", "v"))).await.map(drop).expect("created");
    let reference = "projects/-/references/r";
    set(&vault, &call, reference).await.expect("set");
    (0..10).for_each(|_| faults.next(Fault::Full));
    assert!(matches!(set(&vault, &call, "projects/p/references/r").await, Err(Error::StorageFull(_))));
    let name = secret("projects/p/secrets/A");
    assert!(matches!(delete(&vault, &call, &name).await, Err(Error::SecretReferenced { .. })));
    assert_eq!(vault.delete_declaration(&call, declaration(reference)).await, Ok(()));
    assert_eq!(delete(&vault, &call, &name).await, Ok(()));
}
