//! `coffer.v1.Instances`.

use coffer_proto::v1::{self, instances_server::Instances};
use tonic::{Request, Response, Status};

use super::Api;

#[tonic::async_trait]
impl Instances for Api {
    async fn list_instances(
        &self,
        _request: Request<v1::ListInstancesRequest>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        Err(Status::unimplemented("being built"))
    }

    type WatchInstancesStream = super::Pending<v1::WatchInstancesResponse>;

    async fn watch_instances(
        &self,
        _request: Request<v1::WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchInstancesStream>, Status> {
        Err(Status::unimplemented("being built"))
    }
}
