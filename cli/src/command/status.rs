//! `coffer status`

use coffer_client::{
    Address, Client, Code, Config, Error,
    health::{HealthCheckRequest, health_check_response::ServingStatus},
};
use serde::Serialize;

use crate::{
    failure::Failure,
    print::{Report, escape},
    session::Session,
    view::View,
};

/// Say of each server whether it serves; needs no token
///
/// With --address and several addresses each of them is asked. Ends with exit code 0 if all serve, 1 if some do, and 69 if
/// none does.
#[derive(clap::Args)]
pub(crate) struct Status {}

#[derive(Serialize)]
struct HealthList {
    servers: Vec<Health>,
}

/// What became of asking one server.
#[derive(Serialize)]
struct Health {
    address: String,
    status: &'static str,
    problem: Option<String>,
}

const SERVING: &str = "serving";

impl Health {
    fn new(address: &Address, answer: &Result<ServingStatus, Error>) -> Self {
        let address = address.to_string();
        match answer {
            Ok(ServingStatus::Serving) => Self { address, status: SERVING, problem: None },
            Ok(_) => Self { address, status: "not serving", problem: None },
            Err(error) => {
                let message = error.message();
                let cause = message.strip_prefix(&format!("cannot connect to {address}: ")).unwrap_or(message);
                Self { status: "no answer", problem: Some(cause.to_owned()), address }
            }
        }
    }
}

impl View for HealthList {
    fn table(&self, _: Option<usize>) -> String {
        let line = |Health { address, status, problem }: &Health| {
            let problem = problem.as_ref().map_or(String::new(), |problem| format!(": {}", escape::text(problem)));
            format!("{status} at {address}{problem}\n")
        };
        self.servers.iter().map(line).collect()
    }
}

impl Status {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        // All at once: one that does not answer takes its time.
        let asked: Vec<_> = session.anonymous().map(|(address, at)| (address, tokio::spawn(ask(at)))).collect();
        let (mut servers, mut error) = (Vec::new(), None);
        for (address, answer) in asked {
            let answer = answer.await.map_err(|error| Failure::failed(format!("cannot ask {address}: {error}")))?;
            servers.push(Health::new(address, &answer));
            error = error.or(answer.err());
        }
        let serving = servers.iter().filter(|server| server.status == SERVING).count();
        let failed = match (&servers[..], error) {
            ([_], Some(error)) => return Err(error.into()),
            // It is wrong here.
            (_, Some(error)) if error.code() == Code::InvalidArgument => return Err(error.into()),
            ([Health { address, .. }], None) if serving == 0 => {
                return Err(Failure::unavailable(format!("the server at {address} does not serve now")));
            }
            (_, error) => error.map(Failure::from),
        };
        let all = servers.len();
        let report = session.show(&HealthList { servers })?;
        let failure = (serving == 0).then(|| {
            let failure = Failure::unavailable(format!("none of {all} servers serves now"));
            let hint = failed.as_ref().and_then(Failure::hint_text).map(str::to_owned);
            hint.into_iter().fold(failure, Failure::hint)
        });
        Ok(Report { negative: serving < all, failure, ..report })
    }
}

async fn ask(at: Config) -> Result<ServingStatus, Error> {
    let client = Client::connect(at).await?;
    let request = HealthCheckRequest { service: String::new() };
    Ok(client.call(client.health().check(request)).await?.status())
}
