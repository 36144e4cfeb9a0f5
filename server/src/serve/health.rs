//! grpc.health.v1, by its specification: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.
//!
//! tonic-health's own service keeps its watches open for ever, so that a drain with a watcher would always take its
//! whole time; here a watch ends, after NOT_SERVING, when the drain begins.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use super::Stage;

/// Largest request, in bytes: one service name.
const REQUEST_BYTES_MAX: usize = 1024;

/// How much can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// Nothing.
    Nothing,
    /// The services that can do for a while without the store.
    WithoutStore,
    /// Everything.
    Everything,
}

/// A service of the API.
#[derive(Clone, Debug)]
pub struct ApiService {
    /// `package.Name`.
    pub name: String,
    /// Whether it can do for a while without the store.
    pub does_without_store: bool,
}

/// Answers for the whole server (`""`), which serves while it serves anything, and for each of `services`, until a drain
/// begins.
pub fn health(
    services: Vec<ApiService>,
    extent: watch::Receiver<Extent>,
    stage: watch::Receiver<Stage>,
) -> HealthServer<impl Health> {
    HealthServer::new(Reporter { services: services.into(), state: State { extent, stage } })
        .max_decoding_message_size(REQUEST_BYTES_MAX)
}

struct Reporter {
    services: Arc<[ApiService]>,
    state: State,
}

#[derive(Clone)]
struct State {
    extent: watch::Receiver<Extent>,
    stage: watch::Receiver<Stage>,
}

impl State {
    fn has_ended(&self) -> bool {
        // Whoever dropped a sender is gone, and with it what could be served.
        *self.stage.borrow() != Stage::Serving
            || self.stage.has_changed().is_err()
            || self.extent.has_changed().is_err()
    }

    /// Of what needs so much.
    fn status(&self, needed: Extent) -> ServingStatus {
        if !self.has_ended() && *self.extent.borrow() >= needed {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }

    async fn changed(&mut self) {
        // An error is an end, which `has_ended` sees.
        tokio::select! {
            _ = self.extent.changed() => {}
            _ = self.stage.changed() => {}
        }
    }
}

impl Reporter {
    /// How much must be served for a service to be; `None` if there is no such service.
    fn needed(&self, service: &str) -> Option<Extent> {
        if service.is_empty() {
            return Some(Extent::WithoutStore);
        }
        let known = self.services.iter().find(|known| known.name == service)?;
        Some(if known.does_without_store { Extent::WithoutStore } else { Extent::Everything })
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Reporter {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.needed(&request.get_ref().service) {
            Some(needed) => Ok(Response::new(answer(self.state.status(needed)))),
            None => Err(Status::not_found("no such service")),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let needed = self.needed(&request.get_ref().service);
        let mut state = self.state.clone();
        let (sender, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut sent = None;
            loop {
                let ended = state.has_ended();
                let status = needed.map_or(ServingStatus::ServiceUnknown, |needed| state.status(needed));
                if sent != Some(status) && sender.send(Ok(answer(status))).await.is_err() || ended {
                    return;
                }
                sent = Some(status);
                tokio::select! {
                    () = state.changed() => {}
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    struct Ends {
        extent: watch::Sender<Extent>,
        stage: watch::Sender<Stage>,
        reporter: Reporter,
    }

    fn reporter() -> Ends {
        let (extent, followed_extent) = watch::channel(Extent::Everything);
        let (stage, followed) = watch::channel(Stage::Serving);
        let state = State { extent: followed_extent, stage: followed };
        let services = [("coffer.v1.Secrets", false), ("coffer.v1.Workloads", true)]
            .map(|(name, does_without_store)| ApiService { name: name.to_owned(), does_without_store });
        Ends { extent, stage, reporter: Reporter { services: Arc::from(services), state } }
    }

    fn ask(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    #[tokio::test]
    async fn a_check_follows_store_and_drain() {
        let ends = reporter();
        let check = async |service: &str| {
            ends.reporter.check(ask(service)).await.map(|response| response.into_inner().status())
        };
        for (extent, serving) in [
            (Extent::Everything, &["", "coffer.v1.Secrets", "coffer.v1.Workloads"][..]),
            (Extent::WithoutStore, &["", "coffer.v1.Workloads"]),
            (Extent::Nothing, &[]),
            (Extent::Everything, &["", "coffer.v1.Secrets", "coffer.v1.Workloads"]),
        ] {
            ends.extent.send_replace(extent);
            for service in ["", "coffer.v1.Secrets", "coffer.v1.Workloads"] {
                let is_serving = check(service).await.expect("known") == ServingStatus::Serving;
                assert_eq!(is_serving, serving.contains(&service), "{extent:?} {service}");
            }
        }
        assert_eq!(check("other").await.expect_err("unknown").code(), tonic::Code::NotFound);
        ends.stage.send_replace(Stage::Draining);
        assert_eq!(check("").await.expect("known"), ServingStatus::NotServing);
    }

    #[tokio::test]
    async fn a_watch_tells_changes_and_ends_with_the_drain() {
        let ends = reporter();
        let mut watch = ends.reporter.watch(ask("")).await.expect("a stream").into_inner();
        let mut next = async || watch.next().await.map(|status| status.expect("a status").status());
        assert_eq!(next().await, Some(ServingStatus::Serving));
        ends.extent.send_replace(Extent::Nothing);
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        ends.extent.send_replace(Extent::WithoutStore);
        assert_eq!(next().await, Some(ServingStatus::Serving));
        ends.stage.send_replace(Stage::Draining);
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        assert_eq!(next().await, None);
    }

    #[tokio::test]
    async fn a_watch_of_an_unknown_service_says_so_and_waits() {
        let ends = reporter();
        let mut watch = ends.reporter.watch(ask("other")).await.expect("a stream").into_inner();
        let first = watch.next().await.expect("one").expect("a status");
        assert_eq!(first.status(), ServingStatus::ServiceUnknown);
        ends.stage.send_replace(Stage::Draining);
        assert!(watch.next().await.is_none());
    }

    #[tokio::test]
    async fn without_a_store_nothing_is_served() {
        let ends = reporter();
        drop(ends.extent);
        let answer = ends.reporter.check(ask("")).await.expect("known").into_inner();
        assert_eq!(answer.status(), ServingStatus::NotServing);
        let mut watch = ends.reporter.watch(ask("")).await.expect("a stream").into_inner();
        assert_eq!(watch.next().await.expect("one").expect("a status").status(), ServingStatus::NotServing);
        assert!(watch.next().await.is_none());
    }
}
