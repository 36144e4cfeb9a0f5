//! `coffer.v1.References`.

use coffer_proto::v1::{self, manifests_server::Manifests, references_server::References};
use tonic::{Request, Response, Status};

use super::Api;

#[tonic::async_trait]
impl References for Api {
    async fn set_reference(
        &self,
        _request: Request<v1::SetReferenceRequest>,
    ) -> Result<Response<v1::Reference>, Status> {
        Err(Status::unimplemented("being built"))
    }

    async fn list_references(
        &self,
        _request: Request<v1::ListReferencesRequest>,
    ) -> Result<Response<v1::ListReferencesResponse>, Status> {
        Err(Status::unimplemented("being built"))
    }

    async fn delete_reference(
        &self,
        _request: Request<v1::DeleteReferenceRequest>,
    ) -> Result<Response<v1::DeleteReferenceResponse>, Status> {
        Err(Status::unimplemented("being built"))
    }
}

#[tonic::async_trait]
impl Manifests for Api {
    async fn set_manifest(&self, _request: Request<v1::SetManifestRequest>) -> Result<Response<v1::Manifest>, Status> {
        Err(Status::unimplemented("being built"))
    }

    async fn list_manifests(
        &self,
        _request: Request<v1::ListManifestsRequest>,
    ) -> Result<Response<v1::ListManifestsResponse>, Status> {
        Err(Status::unimplemented("being built"))
    }

    async fn delete_manifest(
        &self,
        _request: Request<v1::DeleteManifestRequest>,
    ) -> Result<Response<v1::DeleteManifestResponse>, Status> {
        Err(Status::unimplemented("being built"))
    }
}
