//! One answer of the server within one deadline, or none.

use std::time::{Duration, Instant};

use coffer_client::Code;
use coffer_client::{Client, Error, retry};
use coffer_proto::v1::{FetchEnvironmentRequest, FetchEnvironmentResponse};

use crate::{
    Args, Exit, Failure,
    cache::{self, Cache},
    report,
    settings::Settings,
};

/// How long threads that resolve host names may hold up the start; an exec ends them anyway.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// Fetches the variables. Tries again what may pass, until the deadline; everything else fails at once. The cache is
/// told the outcome, and may have an answer where the server had none.
pub(crate) fn fetch(
    settings: Settings,
    cache: Option<&Cache>,
    args: &Args,
    deadline: Instant,
) -> Result<FetchEnvironmentResponse, Failure> {
    let internal = |why: &str| Failure::new(Exit::Internal, why);
    let Settings { mut config, source, workload } = settings;
    config.credential = Some(source.credential(deadline)?);
    let asked = workload.map(|workload| workload.to_string()).unwrap_or_default();
    let request = FetchEnvironmentRequest { workload: asked.clone(), dry_run: args.dry_run, ..Default::default() };

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot prepare to connect: {error}")))?;
    let address = config.address.to_string();
    let answer = runtime.block_on(async {
        let client = Client::lazy(config)?;
        retry::until(deadline.into(), retry::Policy::default(), || call(&client, &request, args.verbose)).await
    });
    // Nothing of the runtime may reach the workload: neither its threads nor its sockets.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);

    let answer = match cache {
        Some(cache) => cache.settle(answer, cache::now()),
        None => answer,
    };
    let answer = answer.map_err(|error| failure(&address, &error))?;
    if answer.unchanged || (!asked.is_empty() && answer.workload != asked) {
        return Err(internal("the server answered something else than was asked"));
    }
    report::verbose(args.verbose, || {
        format!("{}: {} secrets, revision {}", answer.workload, answer.variables.len(), answer.environment_revision)
    });
    Ok(answer)
}

async fn call(
    client: &Client,
    request: &FetchEnvironmentRequest,
    verbose: bool,
) -> Result<FetchEnvironmentResponse, Error> {
    let answer = client.workloads().fetch_environment(request.clone()).await;
    answer.map(coffer_client::Response::into_inner).map_err(|status| {
        let error = Error::from(status);
        report::verbose(verbose && error.is_retryable(), || format!("attempt failed: {error}"));
        error
    })
}

fn failure(address: &str, error: &Error) -> Failure {
    let exit = match error.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => Exit::Unavailable,
        Code::Unauthenticated | Code::PermissionDenied => Exit::Denied,
        // What can be wrong in the request is the workload, and in the settings the CA file.
        Code::InvalidArgument => Exit::Usage,
        _ => Exit::Internal,
    };
    let hint = match exit {
        // rustls says so of every certificate that `openssl req -x509` makes without more options.
        Exit::Unavailable if error.message().contains("CaUsedAsEndEntity") => {
            " (an authority's certificate: make one of the server's own, in openssl req -x509 with -addext \
             basicConstraints=critical,CA:FALSE)"
        }
        Exit::Unavailable => " (gave up, see --timeout)",
        _ => "",
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
        // The words of rustls, as they come.
        assert!(problem("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))").contains("CA:FALSE"));
    }
}
