//! `coffer.v1.Templates`.

use coffer_proto::{
    name::Workload,
    v1::{self, render_template_request, templates_server::Templates},
};
use tonic::{Request, Response, Status};

use super::{Api, convert::name, open, status};
use crate::vault::{Error, Sink, Template, fields::Fields};

#[tonic::async_trait]
impl Templates for Api {
    async fn render_template(
        &self,
        request: Request<v1::RenderTemplateRequest>,
    ) -> Result<Response<v1::RenderTemplateResponse>, Status> {
        let (call, request) = open(request)?;
        let workload = match request.workload.as_str() {
            "" => None,
            workload => Some(name("workload", Workload::parse(workload))?),
        };
        let rendered = self.vault.render_template(&call, workload, template(request)).await.map_err(status::of)?;
        Ok(Response::new(v1::RenderTemplateResponse {
            texts: rendered.texts.into_iter().map(|mut text| std::mem::take(&mut *text)).collect(),
            environment_revision: rendered.revision,
            stale_since: call.stale_since().map(Into::into),
        }))
    }
}

fn template(request: v1::RenderTemplateRequest) -> Result<Template, Error> {
    use render_template_request::Sink as Given;
    let mut fields = Fields::new();
    let host = Some(request.destination_host).filter(|host| !host.is_empty());
    let sink = match Given::try_from(request.sink) {
        Ok(Given::Header) => Sink::Header(host),
        Ok(Given::Instruction) => {
            if host.is_some() {
                fields.wrong("destination_host", "must be empty: only a header has one");
            }
            Sink::Instruction
        }
        Ok(Given::Unspecified) | Err(_) => {
            fields.wrong("sink", "must be SINK_HEADER or SINK_INSTRUCTION");
            Sink::Header(host)
        }
    };
    let template = Template { texts: request.texts, sink };
    template.check(&mut fields);
    fields.finish()?;
    Ok(template)
}
