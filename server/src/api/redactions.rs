//! `coffer.v1.Redactions`.

use coffer_proto::v1::{self, redactions_server::Redactions};
use tonic::{Request, Response, Status};

use super::Api;

#[tonic::async_trait]
impl Redactions for Api {
    async fn redact_text(
        &self,
        _request: Request<v1::RedactTextRequest>,
    ) -> Result<Response<v1::RedactTextResponse>, Status> {
        Err(Status::unimplemented("being built"))
    }

    type RedactStreamStream = super::Pending<v1::RedactStreamResponse>;

    async fn redact_stream(
        &self,
        _request: Request<tonic::Streaming<v1::RedactStreamRequest>>,
    ) -> Result<Response<Self::RedactStreamStream>, Status> {
        Err(Status::unimplemented("being built"))
    }
}
