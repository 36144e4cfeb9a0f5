//! A server that sends a backup of ten bytes, or less of it.

use std::pin::Pin;

use coffer_proto::v1::{
    CreateSnapshotRequest, CreateSnapshotResponse, GetStatusRequest, GetStatusResponse, ListSnapshotsRequest,
    ListSnapshotsResponse, RotateKeysRequest, RotateKeysResponse, Rotation, Snapshot, StreamBackupRequest,
    StreamBackupResponse, operations_server::Operations, stream_backup_response::Part,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status};

use super::fake::{refused, unasked};

/// What becomes of the stream.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Ending {
    Whole,
    Early,
    Error,
    /// It has none.
    Never,
}

#[derive(Clone)]
pub(crate) struct Service(pub(crate) Ending);

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Operations for Service {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        match self.0 {
            Ending::Error => refused(Code::Unavailable, "STORE_UNAVAILABLE"),
            _ => Ok(Response::new(GetStatusResponse::default())),
        }
    }

    type CreateSnapshotStream = Messages<CreateSnapshotResponse>;

    async fn create_snapshot(
        &self,
        _: Request<CreateSnapshotRequest>,
    ) -> Result<Response<Self::CreateSnapshotStream>, Status> {
        unasked()
    }

    async fn list_snapshots(
        &self,
        _: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        unasked()
    }

    type StreamBackupStream = Messages<StreamBackupResponse>;

    async fn stream_backup(
        &self,
        _: Request<StreamBackupRequest>,
    ) -> Result<Response<Self::StreamBackupStream>, Status> {
        let part = |part| Ok(StreamBackupResponse { part: Some(part) });
        let snapshot = Snapshot { position: "1.7".into(), records: 2, bytes: 10, ..Snapshot::default() };
        let mut parts = vec![part(Part::Snapshot(snapshot)), part(Part::Chunk(b"01234".to_vec()))];
        match self.0 {
            Ending::Whole => parts.push(part(Part::Chunk(b"56789".to_vec()))),
            Ending::Early => {}
            Ending::Never => {
                let parts = tokio_stream::iter(parts).chain(tokio_stream::pending());
                return Ok(Response::new(Box::pin(parts)));
            }
            Ending::Error => parts.push(Err(Status::unavailable("the server ends"))),
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    type RotateKeysStream = Messages<RotateKeysResponse>;

    async fn rotate_keys(
        &self,
        request: Request<RotateKeysRequest>,
    ) -> Result<Response<Self::RotateKeysStream>, Status> {
        let keys = request.into_inner().keys;
        let rotation = |done, end_time| {
            Ok(RotateKeysResponse {
                rotation: Some(Rotation { keys, done, total: 3, end_time, ..Rotation::default() }),
            })
        };
        let mut news = vec![rotation(1, None)];
        if self.0 == Ending::Whole {
            news.push(rotation(3, Some(prost_types::Timestamp { seconds: 1_769_903_999, nanos: 0 })));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(news))))
    }
}
