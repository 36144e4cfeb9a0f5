//! Prints the names of a workload's environment, never a value, and then what changes, until Ctrl-C.
//!
//! `COFFER_ADDRESS=… COFFER_TOKEN_FILE=… cargo run -p coffer-client --example follow [WORKLOAD]`

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is what it is for")]

use std::{env, process::ExitCode};

use coffer_client::{Client, Config, Credential, follow::Follow, retry::Policy};
use coffer_proto::v1::FetchEnvironmentRequest;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tokio::select! {
        ended = run() => match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        // Dropping the work cancels its calls, here and on the server.
        _ = tokio::signal::ctrl_c() => ExitCode::SUCCESS,
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let address = env::var_os("COFFER_ADDRESS").ok_or("COFFER_ADDRESS says where the server is")?;
    let mut config = Config::new(address.to_string_lossy().parse()?);
    let token_file = env::var_os("COFFER_TOKEN_FILE").ok_or("COFFER_TOKEN_FILE names the file with the token")?;
    config.credential = Some(Credential::TokenFile(token_file.into()));
    config.ca_file = env::var_os("COFFER_CA_FILE").map(Into::into);
    let client = Client::connect(config).await?;
    let workload = env::args().nth(1).unwrap_or_default();

    let request = FetchEnvironmentRequest { workload: workload.clone(), dry_run: true, ..Default::default() };
    let environment = client.call(client.workloads().fetch_environment(request)).await?;
    for variable in &environment.variables {
        println!("{} from {}, version {}", variable.name, variable.source, variable.value_version);
    }

    let mut follow = Follow::new(client, &workload, &environment.environment_revision, Policy::default());
    loop {
        let change = follow.next().await?;
        let names = if change.reset { "anything".to_owned() } else { change.changed.join(", ") };
        println!("changed: {names}");
    }
}
