//! `coffer.v1.Instances`.

use coffer_proto::{
    name::ResourcePattern,
    v1::{self, instances_server::Instances},
};
use tonic::{Request, Response, Status};

use super::{Api, convert::name, open, status, streams::Messages};
use crate::{
    vault::{InstancesChange, KnownWorkload, PageRequest},
    view::Start,
};

#[tonic::async_trait]
impl Instances for Api {
    async fn list_instances(
        &self,
        request: Request<v1::ListInstancesRequest>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        let (call, request) = open(request)?;
        let parent = name("parent", ResourcePattern::parse(&request.parent))?;
        let restart_required = request.restart_required;
        let fields = [request.parent.as_str(), if restart_required { "restart_required" } else { "" }];
        let page = PageRequest::new("ListInstances", &fields, request.page_size, &request.page_token);
        let page = self.vault.list_instances(&call, parent, restart_required, page).await.map_err(status::of)?;
        let workloads = page.entries.into_iter().map(to_workload).collect();
        Ok(Response::new(v1::ListInstancesResponse { workloads, next_page_token: page.next }))
    }

    type WatchInstancesStream = Messages<v1::WatchInstancesResponse>;

    async fn watch_instances(
        &self,
        request: Request<v1::WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchInstancesStream>, Status> {
        let (call, opening, request) = self.open_stream(request)?;
        let parent = name("parent", ResourcePattern::parse(&request.parent))?;
        let mut watch = self.vault.watch_instances(&call, parent).await.map_err(status::of)?;
        Ok(opening.begin(|mut outlet| async move {
            loop {
                outlet.send(to_change(watch.next().await.map_err(status::of)?)).await?;
            }
        }))
    }
}

fn to_change(change: InstancesChange) -> v1::WatchInstancesResponse {
    v1::WatchInstancesResponse {
        workloads: change.workloads.into_iter().map(to_workload).collect(),
        forgotten: change.forgotten.iter().map(ToString::to_string).collect(),
        synced: change.synced,
    }
}

fn to_workload(known: KnownWorkload) -> v1::WorkloadInstances {
    v1::WorkloadInstances {
        workload: known.workload.to_string(),
        restart_required: known.restart_required,
        changed_names: known.changed.iter().map(ToString::to_string).collect(),
        instances: known.starts.into_iter().map(to_instance).collect(),
        token_replay_time: known.token_replay_time,
    }
}

fn to_instance(start: Start) -> v1::Instance {
    v1::Instance {
        uid: start.uid.to_string(),
        start_time: Some(start.time),
        environment_revision: start.revision,
        principal: start.principal,
    }
}
