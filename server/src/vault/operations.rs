//! What an operator does with the store as a whole. Nothing here opens a value.

use coffer_proto::name::Principal;

use super::{
    Call, Error, Vault,
    call::{Line, named},
    read::Answer,
};
use crate::{
    access,
    audit::{Head, Phase},
    identity::Caller,
    seal::{KeyId, Uid},
    store::{Backup, Condition, Position},
    view::{Counts, State},
};

pub use crate::store::{Snapshot, Writes};

/// How the vault and its store are.
#[derive(Debug)]
pub struct Status {
    /// When the vault was opened.
    pub opened: std::time::SystemTime,
    /// The store's identity.
    pub store: Uid,
    /// The root key that wraps.
    pub root_key_id: KeyId,
    /// What the view shows.
    pub position: Position,
    /// How much there is.
    pub counts: Counts,
    /// About what the records take in memory, in bytes.
    pub memory_bytes: u64,
    /// The ceiling of that, in bytes.
    pub memory_bytes_max: u64,
    /// How the store is.
    pub condition: Condition,
    /// The newest snapshot.
    pub newest_snapshot: Option<Snapshot>,
    /// How far the audit log has come.
    pub audit: Option<Head>,
}

impl Vault {
    /// How everything is. Only a refusal is written to the audit log: a monitor that asks every few seconds would fill it,
    /// and must hear from it when it cannot be written.
    pub async fn status(&self, call: &Call) -> Result<Status, Error> {
        let look = |state: &State| {
            let root_key_id = state.keyring().root_id();
            (state.store(), root_key_id, state.position(), state.counts(), state.memory_bytes())
        };
        let (_operator, seen) = self.as_operator(call, look).await?;
        let (store, root_key_id, position, counts, memory_bytes) = seen;
        let newest_snapshot = self.0.store.snapshots().await.ok().and_then(|mut snapshots| snapshots.pop());
        let condition = self.0.store.condition().await;
        let memory_bytes_max = self.0.limits.memory_bytes;
        Ok(Status {
            opened: self.0.opened,
            store,
            root_key_id,
            position,
            counts,
            memory_bytes,
            memory_bytes_max,
            condition,
            newest_snapshot,
            audit: self.0.audit.head(),
        })
    }

    /// Writes a snapshot.
    pub async fn create_snapshot(&self, call: &Call) -> Result<Snapshot, Error> {
        let (principal, ()) = self.as_operator(call, |_| ()).await?;
        let line = || Line { principal: Some(principal.clone()), ..Line::default() };
        self.record(call, Phase::Intent, line()).await?;
        match self.0.store.snapshot().await {
            Ok(snapshot) => {
                let line = Line { position: Some(snapshot.position.to_string()), ..line() };
                self.record(call, Phase::Done, line).await?;
                Ok(snapshot)
            }
            Err(error) => {
                let error = Error::from(error);
                self.record(call, Phase::Failed, Line { reason: Some(error.reason().as_str()), ..line() }).await?;
                Err(error)
            }
        }
    }

    /// The snapshots kept, oldest first.
    pub async fn list_snapshots(&self, call: &Call) -> Result<Vec<Snapshot>, Error> {
        self.read(call, Vec::new(), |state, caller| Ok(Answer::new(&permit(state, caller)?, ()))).await?;
        Ok(self.0.store.snapshots().await?)
    }

    /// A backup, which is written down before its first byte leaves.
    pub async fn backup(&self, call: &Call) -> Result<Backup, Error> {
        let (principal, ()) = self.as_operator(call, |_| ()).await?;
        let backup = match self.0.store.backup().await {
            Ok(backup) => backup,
            Err(error) => {
                let error = Error::from(error);
                let line =
                    Line { principal: Some(principal), reason: Some(error.reason().as_str()), ..Line::default() };
                self.record(call, Phase::Failed, line).await?;
                return Err(error);
            }
        };
        let line = Line {
            principal: Some(principal),
            subjects: vec![named("backup")],
            position: Some(backup.snapshot.position.to_string()),
            ..Line::default()
        };
        self.record(call, Phase::Read, line).await?;
        Ok(backup)
    }

    /// The next part of a backup, for as long as who began it may have it: a token that is revoked meanwhile gets no more.
    pub async fn backup_part(&self, call: &Call, backup: &mut Backup) -> Result<Option<Vec<u8>>, Error> {
        self.as_operator(call, |_| ()).await?;
        Ok(backup.chunks.chunk().await?)
    }

    /// The operator who calls, and what they look at; a refusal is written down.
    pub(super) async fn as_operator<T>(
        &self,
        call: &Call,
        look: impl FnOnce(&State) -> T,
    ) -> Result<(Principal, T), Error> {
        self.fresh(call).await?;
        let (caller, seen) = {
            let state = self.0.view.read();
            match call.caller(&state, self.now()) {
                Ok(caller) => {
                    let seen = permit(&state, &caller).map(|_| (caller.principal().clone(), look(&state)));
                    (Some(caller), seen)
                }
                Err(error) => (None, Err(error)),
            }
        };
        match seen {
            Ok(seen) => Ok(seen),
            Err(error) => Err(self.refused(call, caller.as_ref(), &[], error).await),
        }
    }
}

fn permit(state: &State, caller: &Caller) -> Result<access::Permit, Error> {
    access::permit_operator(state, caller).ok_or(Error::Denied)
}
