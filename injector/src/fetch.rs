//! A way to the server as one caller, and its answers.

use std::time::{Duration, Instant, SystemTime};

use coffer_client::{Client, Code, Config, Credential, Error, retry, start};
use coffer_proto::{
    token::TokenKind,
    v1::{FetchEnvironmentRequest, FetchEnvironmentResponse, StartReport},
};
use tokio::runtime::Runtime;

use crate::{
    Args, Exit, Failure,
    cache::{self, Cache},
    report,
    settings::Settings,
};

/// How long threads that resolve host names may hold up the start; an exec ends them anyway.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// The answer to start with, and the way by which it came.
pub(crate) struct Fetched {
    pub(crate) answer: FetchEnvironmentResponse,
    /// It is an older one that was kept: the server knows nothing of this start.
    pub(crate) was_kept: bool,
    pub(crate) runtime: Runtime,
    pub(crate) source: Source,
}

/// Who asks for which environment where.
#[derive(Clone)]
pub(crate) struct Source {
    config: Config,
    /// Of the exchange of a start token, once that was begun: it may have been done though the answer was lost.
    nonce: Option<start::Nonce>,
    /// The workload that was named; empty for the token's own.
    asked: String,
    verbose: bool,
}

impl Fetched {
    /// Nothing of the runtime may reach the workload: neither its threads nor its sockets.
    pub(crate) fn into_answer(self) -> FetchEnvironmentResponse {
        self.runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        self.answer
    }
}

/// Fetches the variables. Tries again what may pass, until the deadline; everything else fails at once. The cache is
/// told the outcome, and may have an answer where the server had none.
pub(crate) fn fetch(
    settings: Settings,
    cache: Option<&Cache>,
    args: &Args,
    deadline: Instant,
) -> Result<Fetched, Failure> {
    let Settings { mut config, source, workload } = settings;
    let credential = source.credential(deadline)?;
    // A file that cannot be read may be there in a moment.
    if args.dry_run && credential.token().is_ok_and(|token| token.kind() == TokenKind::Start) {
        return Err(Failure::new(
            Exit::Usage,
            "--dry-run: the token is a start token, which works once: keep it for the start, and take another for this",
        ));
    }
    config.credential = Some(credential);
    let asked = workload.map(|workload| workload.to_string()).unwrap_or_default();
    let mut source = Source { config, nonce: None, asked, verbose: args.verbose };

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot prepare to connect: {error}")))?;
    let answer = runtime.block_on(async {
        source.exchange(deadline).await?;
        source.fetch(args.dry_run, deadline).await
    });
    let unanswered = answer.is_err();
    let answer = match cache {
        Some(cache) => cache.settle(answer, cache::now()),
        None => answer,
    };
    let answer = answer.map_err(|error| source.failure(&error));
    let answer = answer.and_then(|answer| source.check(&answer).map(|()| answer));
    let answer = answer.map_err(|failure| source.refused(failure))?;
    if let Some(since) = answer.stale_since.and_then(|since| SystemTime::try_from(since).ok()) {
        let since = humantime::format_rfc3339_seconds(since);
        report::line(&format!(
            "warning: the server has not reached its store since {since}: this is the environment of then"
        ));
    }
    Ok(Fetched { answer, was_kept: unanswered, runtime, source })
}

impl Source {
    /// A start token is exchanged for a session token, which is kept in memory only. To be called again if the server is
    /// away.
    pub(crate) async fn exchange(&mut self, deadline: Instant) -> Result<(), Error> {
        let Some(credential) = &self.config.credential else { return Ok(()) };
        let token = credential.token()?;
        if token.kind() == TokenKind::Start {
            let nonce = match &mut self.nonce {
                Some(nonce) => nonce,
                none => none.insert(start::Nonce::random()?),
            };
            let policy = retry::Policy::default();
            let session = start::exchange(self.config.clone(), token, nonce, deadline.into(), policy).await?;
            report::verbose(self.verbose, || format!("start token exchanged for tokens/{}", session.id()));
            self.config.credential = Some(Credential::Token(session));
        }
        Ok(())
    }

    /// A start that ends like this, once it has a session: says what that means for the next.
    pub(crate) fn refused(&self, failure: Failure) -> Failure {
        match (&self.nonce, &self.config.credential) {
            (Some(_), Some(Credential::Token(token))) if token.kind() != TokenKind::Start => {
                failure.and("this start has used its start token up: the next one needs another")
            }
            _ => failure,
        }
    }

    /// A connection that is made at the first call.
    pub(crate) fn client(&self) -> Result<Client, Error> {
        Client::lazy(self.config.clone())
    }

    /// The workload to ask for.
    pub(crate) fn asked(&self) -> &str {
        &self.asked
    }

    /// One answer, until the deadline. It is told as a start unless it is for a dry run.
    pub(crate) async fn fetch(&self, dry_run: bool, deadline: Instant) -> Result<FetchEnvironmentResponse, Error> {
        self.ask(FetchEnvironmentRequest { dry_run, ..Default::default() }, deadline).await
    }

    /// The same while the command runs: whether it is given the answer is told later.
    pub(crate) async fn fetch_again(&self, deadline: Instant) -> Result<FetchEnvironmentResponse, Error> {
        self.ask(FetchEnvironmentRequest { start: StartReport::Later.into(), ..Default::default() }, deadline).await
    }

    /// Tells that the command has the environment of this revision.
    pub(crate) async fn given(&self, revision: &str, deadline: Instant) -> Result<(), Error> {
        let (if_revision_not, start) = (revision.to_owned(), StartReport::Given.into());
        self.ask(FetchEnvironmentRequest { if_revision_not, start, ..Default::default() }, deadline).await.map(drop)
    }

    async fn ask(
        &self,
        request: FetchEnvironmentRequest,
        deadline: Instant,
    ) -> Result<FetchEnvironmentResponse, Error> {
        let request = FetchEnvironmentRequest { workload: self.asked.clone(), ..request };
        let client = self.client()?;
        retry::until(deadline.into(), retry::Policy::default(), || self.call(&client, &request)).await
    }

    async fn call(
        &self,
        client: &Client,
        request: &FetchEnvironmentRequest,
    ) -> Result<FetchEnvironmentResponse, Error> {
        let answer = client.workloads().fetch_environment(request.clone()).await;
        answer.map(coffer_client::Response::into_inner).map_err(|status| {
            let error = Error::from(status);
            report::verbose(self.verbose && error.is_retryable(), || format!("attempt failed: {error}"));
            error
        })
    }

    /// Whether the server answered what was asked.
    pub(crate) fn check(&self, answer: &FetchEnvironmentResponse) -> Result<(), Failure> {
        if answer.unchanged || (!self.asked.is_empty() && answer.workload != self.asked) {
            return Err(Failure::new(Exit::Internal, "the server answered something else than was asked"));
        }
        report::verbose(self.verbose, || {
            format!("{}: {} secrets, revision {}", answer.workload, answer.variables.len(), answer.environment_revision)
        });
        Ok(())
    }

    /// What an error means for who started the injector.
    pub(crate) fn failure(&self, error: &Error) -> Failure {
        failure(&self.config.addresses.to_string(), error)
    }
}

fn failure(address: &str, error: &Error) -> Failure {
    let exit = match error.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => Exit::Unavailable,
        Code::Unauthenticated | Code::PermissionDenied => Exit::Denied,
        // What can be wrong in the request is the workload, and in the settings the CA file.
        Code::InvalidArgument => Exit::Usage,
        _ => Exit::Internal,
    };
    let hint = match (exit, error.certificate_problem()) {
        (Exit::Unavailable, Some(problem)) => format!(" ({})", problem.advice()),
        (Exit::Unavailable, None) => " (gave up, see --timeout)".to_owned(),
        _ => String::new(),
    };
    Failure::new(exit, format!("{address}: {error}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_client::Status;

    #[test]
    fn what_may_help_is_said() {
        let problem = |message: &str| -> String {
            let failure = failure("https://coffer.example", &Error::from(Status::unavailable(message)));
            assert_eq!(failure.exit(), Exit::Unavailable);
            failure.problems().collect()
        };
        assert!(problem("nobody there").ends_with(" (gave up, see --timeout)"));
    }
}
