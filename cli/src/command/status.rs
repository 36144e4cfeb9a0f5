//! `coffer status`

use std::time::{Duration, Instant};

use coffer_client::{
    Address, Client, Code, Config, Error,
    health::{HealthCheckRequest, health_check_response::ServingStatus},
};
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    failure::{Exit, Failure},
    print::{Report, escape},
    session::Session,
    view::View,
};

/// Say of each server whether it serves; needs no token
///
/// With --address and several addresses each of them is asked. One that does not reach its store serves workloads with what it
/// last knew, and nobody else. Ends with exit code 0 if all serve, 1 if not all do or one serves workloads only, and 69 if none
/// does.
#[derive(clap::Args)]
pub(crate) struct Status {
    /// Ask again until all servers serve, for at most this long, such as 30s: for scripts that have just started one
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
}

/// How long `--wait` rests between two questions.
const WAIT_INTERVAL: Duration = Duration::from_millis(200);

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
const WORKLOADS_ONLY: &str = "serving workloads only";
const STORE_AWAY: &str = "the store is out of reach; the server's log says why";
/// Answers for calls that need the store.
const NEEDS_STORE: &str = "coffer.v1.Secrets";

/// What a server says of itself.
struct Answer {
    /// Of whatever it serves.
    any: ServingStatus,
    /// Of what needs the store.
    all: ServingStatus,
}

impl Health {
    fn new(address: &Address, answer: &Result<Answer, Error>) -> Self {
        let address = address.to_string();
        match answer {
            Ok(Answer { all: ServingStatus::Serving, .. }) => Self { address, status: SERVING, problem: None },
            Ok(Answer { any: ServingStatus::Serving, .. }) => {
                Self { address, status: WORKLOADS_ONLY, problem: Some(STORE_AWAY.to_owned()) }
            }
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
        let deadline = Instant::now() + self.wait.unwrap_or_default();
        loop {
            let said = Self::ask_all(session).await;
            let can_change = match &said {
                Ok(report) => report.negative || report.failure.is_some(),
                // A mistake in the command line does not mend itself.
                Err(failure) => failure.exit() == Exit::Unavailable,
            };
            if !can_change || Instant::now() + WAIT_INTERVAL > deadline {
                return said;
            }
            sleep(WAIT_INTERVAL).await;
        }
    }

    async fn ask_all(session: &Session) -> Result<Report, Failure> {
        // All at once: one that does not answer takes its time.
        let asked: Vec<_> = session.anonymous().map(|(address, at)| (address, tokio::spawn(ask(at)))).collect();
        let (mut servers, mut error) = (Vec::new(), None);
        for (address, answer) in asked {
            let answer = answer.await.map_err(|error| Failure::failed(format!("cannot ask {address}: {error}")))?;
            servers.push(Health::new(address, &answer));
            error = error.or(answer.err());
        }
        let count = |status| servers.iter().filter(|server| server.status == status).count();
        let (whole, serving) = (count(SERVING), count(SERVING) + count(WORKLOADS_ONLY));
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
        Ok(Report { negative: whole < all, failure, ..report })
    }
}

async fn ask(at: Config) -> Result<Answer, Error> {
    let client = Client::connect(at).await?;
    let check = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        Ok::<_, Error>(client.call(client.health().check(request)).await?.status())
    };
    Ok(Answer { any: check("").await?, all: check(NEEDS_STORE).await? })
}
