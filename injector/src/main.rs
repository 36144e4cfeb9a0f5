//! `coffer-inject [options] -- command args…`: becomes the command, with the workload's secrets in its environment.
//!
//! The order of work is the order of the modules:
//!
//! - [`args`], [`settings`]: what was asked, by flags over `COFFER_*` variables.
//! - [`command`]: which file will run, decided before anything is fetched.
//! - [`credential`], [`fetch`]: one answer of the server within one deadline, or none.
//! - [`cache`]: the last answer, for when there is none.
//! - [`received`]: what the server sent, checked; every offender is named.
//! - [`deliver`]: which secret goes where: variables, files, rendered templates.
//! - [`environment`], [`size`]: what the workload will see, and whether the kernel takes it.
//! - [`exec`]: the point of no return; [`supervise`]: what stays instead where that was asked for. [`table`]: what a dry run prints instead.
//! - [`exit`], [`report`], [`panics`], [`cores`]: how it ends otherwise. [`descriptor`] is the one module with unsafe code.
//!
//! Nothing is started with an incomplete set of secrets, and no line it prints holds a value.

mod args;
mod cache;
mod command;
mod cores;
mod credential;
mod deliver;
mod descriptor;
mod environment;
mod exec;
mod exit;
mod fetch;
mod mask;
mod panics;
mod received;
mod report;
mod settings;
mod size;
mod supervise;
mod table;

use std::{ffi::OsString, process::ExitCode, sync::Arc, time::Instant};

use args::{Args, Asked};
use cache::Cache;
use command::Command;
use environment::{Environment, Inherited};
use exit::{Exit, Failure};
use settings::Settings;

/// A freed value is overwritten, whichever buffer of whichever crate held it.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    panics::install();
    let _ = cores::forbid();
    let end = match args::parse(std::env::args_os()) {
        Ok(Asked::Run(args)) => run(args),
        Ok(Asked::Print(text)) => report::print(&text).map(|()| 0),
        Err(failure) => Err(failure),
    };
    match end {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.problems().for_each(report::line);
            failure.exit().into()
        }
    }
}

/// Returns after a dry run, when a command that was looked after has ended, or with why it was not started.
fn run(args: Box<Args>) -> Result<u8, Failure> {
    let deadline = Instant::now() + args.timeout;
    let inherited = Inherited::of_this_process();
    let settings = Settings::new(&args, &inherited)?;
    let command = resolve(&args.command, &inherited)?;
    let limits = size::Limits::of_this_process();
    let cache = Cache::open(&args, &settings)?;
    if !args.dry_run {
        deliver::check_places(&args)?;
    }

    let fetched = fetch::fetch(settings, cache.as_ref(), &args, deadline)?;
    let Some(command) = command.filter(|_| !args.dry_run) else {
        let checked = received::check(fetched.into_answer(), &args, received::without_value)?;
        deliver::check(&checked, &args)?;
        return report::print(&table::render(&checked, &args, &inherited)).map(|()| 0);
    };
    let source = fetched.source.clone();
    if args.supervise.on_change.is_some() || args.delivery.mask {
        let work = supervise::Work { args, command, inherited, limits, cache: cache.map(Arc::new) };
        return supervise::run(work, fetched).map_err(|failure| source.refused(failure));
    }
    let start = || {
        let secrets = received::check(fetched.into_answer(), &args, received::with_value)?;
        let count = secrets.len();
        let delivered = deliver::deliver(&secrets, inherited, &args, limits, &command)?;
        report::verbose(args.verbose, || format!("starting {} with {count} secrets", command.path().display()));
        Err(exec::exec(&command, delivered.environment))
    };
    start().map_err(|failure| source.refused(failure))
}

/// A dry run may go without a command.
fn resolve(words: &[OsString], inherited: &Inherited) -> Result<Option<Command>, Failure> {
    match words {
        [] => Ok(None),
        [name, ..] => Command::resolve(name, words, inherited.get("PATH")).map(Some),
    }
}
