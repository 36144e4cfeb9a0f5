//! What operators do with the store as a whole.

use coffer_proto::name::Permission;

use super::world::{OPERATOR, World};
use crate::{
    audit::Phase,
    identity,
    store::{Backup, Chunks, Epoch, Error as StoreError, Position, Revision, Snapshot},
    vault::{Error, NewGrant},
};

/// A backup that has no end.
struct Endless;

#[async_trait::async_trait]
impl Chunks for Endless {
    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(Some(vec![0]))
    }
}

fn backup() -> Backup {
    let position = Position { epoch: Epoch(1), revision: Revision(1) };
    Backup { snapshot: Snapshot { position, time: None, records: 1, bytes: 1 }, chunks: Box::new(Endless) }
}

#[tokio::test]
async fn a_backup_under_way_ends_with_the_right_to_it() {
    let world = World::new().await;
    let vault = world.vault().await;
    let by = world.call(&vault, OPERATOR).await;
    let new = |whom: &str| NewGrant {
        principal: super::world::principal(whom),
        permission: Permission::Operator,
        pattern: String::new(),
    };
    // The grant first: only a token that was issued to an operator is one.
    let grant = vault.create_grant(&by, new("users/ann")).await.expect("granted").id.clone();
    let token = world.issue(&vault, OPERATOR, "users/ann").await.expect("issued");
    world.tokens.lock().expect("no panic before").insert("users/ann".to_owned(), token.clone());
    let call = world.held("users/ann");
    let mut backup = backup();
    assert_eq!(vault.backup_part(&call, &mut backup).await, Ok(Some(vec![0])));
    vault.delete_grant(&by, grant).await.expect("no operator any more");
    assert_eq!(vault.backup_part(&call, &mut backup).await, Err(Error::Denied));

    let call = world.held(OPERATOR);
    assert_eq!(vault.backup_part(&call, &mut backup).await, Ok(Some(vec![0])));
    let own = world.tokens.lock().expect("no panic before")[OPERATOR].id().clone();
    vault.revoke_token(&by, own).await.expect("revoked");
    world.audit.lines.lock().expect("no panic before").clear();
    let refused = vault.backup_part(&call, &mut backup).await;
    assert_eq!(refused, Err(Error::Unauthenticated(identity::Error::Invalid)));
    assert_eq!(world.audit.phases("test"), [Phase::Refused], "and it is written down");
}
