//! `coffer.v1.Operations`.

use std::time::{Duration, SystemTime};

use coffer_proto::v1::{self, operations_server::Operations};
use tonic::{Request, Response, Status};

use super::{Api, convert::signed, open, status, streams::Messages};
use crate::{
    audit::Head,
    process::{self, Guarded},
    vault::{self, Error, KeySourceHealth, RotatedKeys, Rotation, Snapshot, Writes},
};

/// Least time between two messages of a rotation.
const NEWS_INTERVAL: Duration = Duration::from_millis(100);

#[tonic::async_trait]
impl Operations for Api {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let (call, _) = open(request)?;
        let status = self.vault.status(&call).await.map_err(status::of)?;
        let keys = v1::KeyStatus {
            root_key_id: status.root_key_id.to_string(),
            rotation: self.vault.rotation().map(to_rotation),
            ..to_keys(self.vault.key_health())
        };
        let audit = status.audit.map(to_audit);
        Ok(Response::new(v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start_time: Some(time(status.opened)),
            store: Some(to_store(status)),
            keys: Some(keys),
            audit,
            process: process::guarded().map(to_process),
        }))
    }

    type CreateSnapshotStream = Messages<v1::CreateSnapshotResponse>;

    async fn create_snapshot(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<Self::CreateSnapshotStream>, Status> {
        let (call, opening, _) = self.open_stream(request)?;
        let vault = self.vault.clone();
        // A task of its own: what was begun is made and written down, whoever waits for it.
        let made = tokio::spawn(async move { vault.create_snapshot(&call).await });
        Ok(opening.begin(|mut outlet| async move {
            let made = made.await.map_err(|_| status::of(Error::Internal("a snapshot ended by itself".to_owned())))?;
            let snapshot = made.map_err(status::of)?;
            outlet.send(v1::CreateSnapshotResponse { snapshot: Some(to_snapshot(snapshot)) }).await
        }))
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        let (call, _) = open(request)?;
        let snapshots = self.vault.list_snapshots(&call).await.map_err(status::of)?;
        Ok(Response::new(v1::ListSnapshotsResponse { snapshots: snapshots.into_iter().map(to_snapshot).collect() }))
    }

    type StreamBackupStream = Messages<v1::StreamBackupResponse>;

    async fn stream_backup(
        &self,
        request: Request<v1::StreamBackupRequest>,
    ) -> Result<Response<Self::StreamBackupStream>, Status> {
        let (call, opening, _) = self.open_stream(request)?;
        let vault = self.vault.clone();
        Ok(opening.begin(|mut outlet| async move {
            let mut backup = vault.backup(&call).await.map_err(status::of)?;
            let part = |part| v1::StreamBackupResponse { part: Some(part) };
            let snapshot = to_snapshot(backup.snapshot.clone());
            outlet.send(part(v1::stream_backup_response::Part::Snapshot(snapshot))).await?;
            while let Some(chunk) = vault.backup_part(&call, &mut backup).await.map_err(status::of)? {
                outlet.send(part(v1::stream_backup_response::Part::Chunk(chunk))).await?;
            }
            Ok(())
        }))
    }

    type RotateKeysStream = Messages<v1::RotateKeysResponse>;

    async fn rotate_keys(
        &self,
        request: Request<v1::RotateKeysRequest>,
    ) -> Result<Response<Self::RotateKeysStream>, Status> {
        let (call, opening, request) = self.open_stream(request)?;
        let keys = match v1::RotatedKeys::try_from(request.keys) {
            Ok(v1::RotatedKeys::Root) => RotatedKeys::Root,
            Ok(v1::RotatedKeys::Data) => RotatedKeys::Data,
            Ok(v1::RotatedKeys::Unspecified) | Err(_) => {
                let must = "must be ROTATED_KEYS_ROOT or ROTATED_KEYS_DATA";
                return Err(status::of(Error::field("keys", must)));
            }
        };
        let mut news = self.vault.rotate_keys(&call, keys).await.map_err(status::of)?;
        Ok(opening.begin(|mut outlet| async move {
            loop {
                // What changed meanwhile is told at once; the channel ends after the last state.
                let (rotation, is_over) = {
                    let ended = news.has_changed().is_err();
                    let rotation = news.borrow_and_update().clone();
                    let is_over = ended || rotation.end.is_some() || rotation.failed.is_some();
                    (rotation, is_over)
                };
                if let Some(failed) = &rotation.failed {
                    return Err(status::of(Error::StoreUnavailable(failed.clone())));
                }
                outlet.send(v1::RotateKeysResponse { rotation: Some(to_rotation(rotation)) }).await?;
                if is_over {
                    return Ok(());
                }
                // An error is the end, which the next turn tells.
                let _ = news.changed().await;
                tokio::time::sleep(NEWS_INTERVAL).await;
            }
        }))
    }
}

fn to_audit(Head { chain, seq, mac, healthy }: Head) -> v1::AuditStatus {
    v1::AuditStatus { chain: chain.to_string(), sequence: signed(seq), head: mac.to_string(), healthy }
}

fn to_store(status: vault::Status) -> v1::StoreStatus {
    let condition = status.condition;
    let (writes, writes_reason) = match condition.writes {
        Writes::All => (v1::store_status::Writes::All, String::new()),
        Writes::Deletes(why) => (v1::store_status::Writes::Deletes, why),
        Writes::Nothing(why) => (v1::store_status::Writes::None, why),
    };
    let (oldest_position, oldest_time) = condition.oldest.unzip();
    v1::StoreStatus {
        kind: condition.kind.to_owned(),
        uid: status.store.to_string(),
        position: status.position.to_string(),
        writes: writes.into(),
        writes_reason,
        scopes: signed(status.counts.scopes as u64),
        secrets: signed(status.counts.secrets as u64),
        grants: signed(status.counts.grants as u64),
        tokens: signed(status.counts.tokens as u64),
        memory_bytes: signed(status.memory_bytes),
        memory_bytes_max: signed(status.memory_bytes_max),
        newest_snapshot: status.newest_snapshot.map(to_snapshot),
        oldest_position: oldest_position.map(|position| position.to_string()).unwrap_or_default(),
        oldest_time: oldest_time.flatten().map(time),
        history_bytes: signed(condition.history_bytes),
        history_problem: condition.history_problem.unwrap_or_default(),
        free_bytes: signed(condition.free_bytes.unwrap_or_default()),
    }
}

fn to_keys(health: KeySourceHealth) -> v1::KeyStatus {
    v1::KeyStatus {
        source: health.source.to_owned(),
        key_id: health.key_id,
        source_problem: health.problem.unwrap_or_default(),
        source_check_time: health.good_time.map(time),
        ..v1::KeyStatus::default()
    }
}

fn to_process(guarded: &Guarded) -> v1::ProcessStatus {
    v1::ProcessStatus {
        memory_locked: guarded.memory_locked,
        memory_lock_problem: guarded.memory_lock_problem.clone(),
        core_dumps_off: guarded.core_dumps_off,
        undumpable: guarded.undumpable,
    }
}

fn to_rotation(rotation: Rotation) -> v1::Rotation {
    let keys = match rotation.keys {
        RotatedKeys::Root => v1::RotatedKeys::Root,
        RotatedKeys::Data => v1::RotatedKeys::Data,
    };
    v1::Rotation {
        keys: keys.into(),
        principal: rotation.principal,
        start_time: Some(rotation.start),
        end_time: rotation.end,
        done: signed(rotation.done),
        total: signed(rotation.total),
    }
}

fn to_snapshot(snapshot: Snapshot) -> v1::Snapshot {
    v1::Snapshot {
        position: snapshot.position.to_string(),
        time: snapshot.time.map(time),
        records: signed(snapshot.records),
        bytes: signed(snapshot.bytes),
    }
}

fn time(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}
