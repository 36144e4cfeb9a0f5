//! `coffer.v1.Workloads`: the only service that hands out encrypted values.

use coffer_proto::{
    name::Workload,
    v1::{self, workloads_server::Workloads},
};
use tonic::{Request, Response, Status};

use super::{
    Api,
    convert::{name, signed, to_kind},
    open, status,
};
use crate::vault::FetchedVariable;

#[tonic::async_trait]
impl Workloads for Api {
    async fn fetch_environment(
        &self,
        request: Request<v1::FetchEnvironmentRequest>,
    ) -> Result<Response<v1::FetchEnvironmentResponse>, Status> {
        let (call, request) = open(request)?;
        let workload = match request.workload.as_str() {
            "" => None,
            workload => Some(name("workload", Workload::parse(workload))?),
        };
        let fetched = self
            .vault
            .fetch_environment(&call, workload, &request.if_revision_not, request.dry_run)
            .await
            .map_err(status::of)?;
        Ok(Response::new(v1::FetchEnvironmentResponse {
            workload: fetched.workload.to_string(),
            variables: fetched.variables.into_iter().map(to_variable).collect(),
            environment_revision: fetched.revision,
            unchanged: fetched.unchanged,
            missing_required: fetched.missing.iter().map(ToString::to_string).collect(),
        }))
    }

    type WatchEnvironmentStream = super::Pending<v1::WatchEnvironmentResponse>;

    async fn watch_environment(
        &self,
        _request: Request<v1::WatchEnvironmentRequest>,
    ) -> Result<Response<Self::WatchEnvironmentStream>, Status> {
        Err(Status::unimplemented("being built"))
    }
}

fn to_variable(variable: FetchedVariable) -> v1::Variable {
    v1::Variable {
        name: variable.source.variable().to_string(),
        value: variable.value.map(|value| value.expose().as_bytes().to_vec()),
        source: variable.source.to_string(),
        kind: to_kind(variable.kind),
        value_version: signed(variable.version),
    }
}
