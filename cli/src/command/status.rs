//! `coffer status`

use coffer_client::health::{HealthCheckRequest, health_check_response::ServingStatus};
use serde::Serialize;

use crate::{failure::Failure, print::Report, session::Session, view::View};

/// Asks grpc.health.v1.
#[derive(clap::Args)]
pub(crate) struct Status {}

#[derive(Serialize)]
struct Health {
    address: String,
    status: &'static str,
}

impl View for Health {
    fn table(&self, _: Option<usize>) -> String {
        format!("{} at {}\n", self.status, self.address)
    }
}

impl Status {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect_anonymously().await?;
        let request = HealthCheckRequest { service: String::new() };
        let answer = client.call(client.health().check(request)).await?;
        let address = session.addresses().to_string();
        match answer.status() {
            ServingStatus::Serving => session.show(&Health { address, status: "serving" }),
            _ => Err(Failure::unavailable(format!("the server at {address} does not serve now"))),
        }
    }
}
