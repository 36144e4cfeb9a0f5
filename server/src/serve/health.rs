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

/// Answers for the whole server (`""`) and for each of `services`: serving while `is_serving` and no drain has begun.
pub fn health(
    services: Vec<String>,
    is_serving: watch::Receiver<bool>,
    stage: watch::Receiver<Stage>,
) -> HealthServer<impl Health> {
    HealthServer::new(Reporter { services: services.into(), state: State { is_serving, stage } })
        .max_decoding_message_size(REQUEST_BYTES_MAX)
}

struct Reporter {
    services: Arc<[String]>,
    state: State,
}

#[derive(Clone)]
struct State {
    is_serving: watch::Receiver<bool>,
    stage: watch::Receiver<Stage>,
}

impl State {
    fn has_ended(&self) -> bool {
        // Whoever dropped a sender is gone, and with it what could be served.
        *self.stage.borrow() != Stage::Serving
            || self.stage.has_changed().is_err()
            || self.is_serving.has_changed().is_err()
    }

    fn status(&self) -> ServingStatus {
        if !self.has_ended() && *self.is_serving.borrow() { ServingStatus::Serving } else { ServingStatus::NotServing }
    }

    async fn changed(&mut self) {
        // An error is an end, which `has_ended` sees.
        tokio::select! {
            _ = self.is_serving.changed() => {}
            _ = self.stage.changed() => {}
        }
    }
}

impl Reporter {
    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.iter().any(|known| known == service)
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Reporter {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if self.knows(&request.get_ref().service) {
            Ok(Response::new(answer(self.state.status())))
        } else {
            Err(Status::not_found("no such service"))
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let is_known = self.knows(&request.get_ref().service);
        let mut state = self.state.clone();
        let (sender, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut sent = None;
            loop {
                let ended = state.has_ended();
                let status = if is_known { state.status() } else { ServingStatus::ServiceUnknown };
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
        serving: watch::Sender<bool>,
        stage: watch::Sender<Stage>,
        reporter: Reporter,
    }

    fn reporter() -> Ends {
        let (serving, is_serving) = watch::channel(true);
        let (stage, followed) = watch::channel(Stage::Serving);
        let state = State { is_serving, stage: followed };
        Ends { serving, stage, reporter: Reporter { services: Arc::from(["coffer.v1.Secrets".to_owned()]), state } }
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
        for service in ["", "coffer.v1.Secrets"] {
            assert_eq!(check(service).await.expect("known"), ServingStatus::Serving);
        }
        assert_eq!(check("other").await.expect_err("unknown").code(), tonic::Code::NotFound);
        ends.serving.send_replace(false);
        assert_eq!(check("").await.expect("known"), ServingStatus::NotServing);
        ends.serving.send_replace(true);
        assert_eq!(check("").await.expect("known"), ServingStatus::Serving);
        ends.stage.send_replace(Stage::Draining);
        assert_eq!(check("").await.expect("known"), ServingStatus::NotServing);
    }

    #[tokio::test]
    async fn a_watch_tells_changes_and_ends_with_the_drain() {
        let ends = reporter();
        let mut watch = ends.reporter.watch(ask("")).await.expect("a stream").into_inner();
        let mut next = async || watch.next().await.map(|status| status.expect("a status").status());
        assert_eq!(next().await, Some(ServingStatus::Serving));
        ends.serving.send_replace(false);
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        ends.serving.send_replace(true);
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
        drop(ends.serving);
        let answer = ends.reporter.check(ask("")).await.expect("known").into_inner();
        assert_eq!(answer.status(), ServingStatus::NotServing);
        let mut watch = ends.reporter.watch(ask("")).await.expect("a stream").into_inner();
        assert_eq!(watch.next().await.expect("one").expect("a status").status(), ServingStatus::NotServing);
        assert!(watch.next().await.is_none());
    }
}
