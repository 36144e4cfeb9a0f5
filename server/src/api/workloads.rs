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
    streams::Messages,
};
use crate::vault::{EnvironmentChange, Error, FetchedVariable, Purpose};

#[tonic::async_trait]
impl Workloads for Api {
    async fn fetch_environment(
        &self,
        request: Request<v1::FetchEnvironmentRequest>,
    ) -> Result<Response<v1::FetchEnvironmentResponse>, Status> {
        let (call, request) = open(request)?;
        let workload = named(&request.workload)?;
        let purpose = purpose(&request)?;
        let fetched = self.vault.fetch_environment(&call, workload, &request.if_revision_not, purpose).await;
        let fetched = fetched.map_err(status::of)?;
        Ok(Response::new(v1::FetchEnvironmentResponse {
            workload: fetched.workload.to_string(),
            variables: fetched.variables.into_iter().map(to_variable).collect(),
            environment_revision: fetched.revision,
            unchanged: fetched.unchanged,
            missing_required: fetched.missing.iter().map(ToString::to_string).collect(),
            stale_since: call.stale_since().map(Into::into),
        }))
    }

    type WatchEnvironmentStream = Messages<v1::WatchEnvironmentResponse>;

    async fn watch_environment(
        &self,
        request: Request<v1::WatchEnvironmentRequest>,
    ) -> Result<Response<Self::WatchEnvironmentStream>, Status> {
        let (call, opening, request) = self.open_stream(request)?;
        let workload = named(&request.workload)?;
        let watch = self.vault.watch_environment(&call, workload, request.environment_revision).await;
        let mut watch = watch.map_err(status::of)?;
        Ok(opening.begin(|mut outlet| async move {
            loop {
                outlet.send(to_change(watch.next().await.map_err(status::of)?)).await?;
            }
        }))
    }
}

/// The workload that a request names; none if it is the caller itself.
fn named(workload: &str) -> Result<Option<Workload>, Status> {
    match workload {
        "" => Ok(None),
        workload => name("workload", Workload::parse(workload)).map(Some),
    }
}

fn purpose(request: &v1::FetchEnvironmentRequest) -> Result<Purpose, Status> {
    let start = v1::StartReport::try_from(request.start);
    let start = start.map_err(|_| status::of(Error::field("start", "is not known to this server")))?;
    Ok(match start {
        _ if request.dry_run => Purpose::DryRun,
        v1::StartReport::Unspecified => Purpose::Start,
        v1::StartReport::Later => Purpose::Later,
        v1::StartReport::Given => Purpose::Given,
    })
}

fn to_change(change: EnvironmentChange) -> v1::WatchEnvironmentResponse {
    v1::WatchEnvironmentResponse {
        environment_revision: change.revision,
        reset: change.changed.is_none(),
        changed_names: change.changed.unwrap_or_default().iter().map(ToString::to_string).collect(),
    }
}

fn to_variable(variable: FetchedVariable) -> v1::Variable {
    v1::Variable {
        name: variable.source.variable().to_string(),
        value: variable.value.map(|value| value.expose().as_bytes().to_vec()),
        source: variable.source.to_string(),
        kind: to_kind(variable.kind),
        value_version: signed(variable.version),
        secret_uid: variable.uid.to_string(),
    }
}
