//! `coffer.v1.Templates`.

use coffer_proto::v1::{self, templates_server::Templates};
use tonic::{Request, Response, Status};

use super::Api;

#[tonic::async_trait]
impl Templates for Api {
    async fn render_template(
        &self,
        _request: Request<v1::RenderTemplateRequest>,
    ) -> Result<Response<v1::RenderTemplateResponse>, Status> {
        Err(Status::unimplemented("being built"))
    }
}
