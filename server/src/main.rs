//! `coffer-server`: the process. What it does is in the library.

use std::{process::ExitCode, time::Duration};

use coffer_server::{command, process, telemetry};

/// How long blocking work, such as a write to a hung disk, may hold up the end of the process.
const BLOCKED_WAIT_MAX: Duration = Duration::from_secs(1);

/// A freed value is overwritten, whichever buffer of whichever crate held it.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    // Whatever is made from here on, the store, sockets and the audit log among them, is its owner's alone.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    process::guard();
    telemetry::hide_panic_payloads();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return command::Failure::new(format!("no runtime: {error}")).report(),
    };
    let code = runtime.block_on(command::main());
    runtime.shutdown_timeout(BLOCKED_WAIT_MAX);
    code
}
