//! One start of the command: what it receives, made ready before anything is stopped.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use coffer_proto::{
    name::VariableName,
    v1::{FetchEnvironmentResponse, Variable as Sent},
};
use nix::sys::signal::SigSet;

use super::group::Group;
use crate::{
    Args, Cache, Command, Environment, Exit, Failure, Inherited, deliver, exec,
    mask::{Copying, Known, Outputs},
    received::{self, Variable},
    report, size,
};

/// What every start needs.
pub(crate) struct Work {
    pub(crate) args: Box<Args>,
    pub(crate) command: Command,
    pub(crate) inherited: Inherited,
    pub(crate) limits: size::Limits,
    pub(crate) cache: Option<Arc<Cache>>,
}

/// What the command is given: by this, and not by revisions, it is told whether that changed, since `--only` leaves
/// changes out.
pub(super) type Given = BTreeSet<Entry>;

/// One secret; another value is another uid or another version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    name: VariableName,
    source: String,
    uid: String,
    version: i64,
    kind: &'static str,
}

/// A start that is ready.
pub(super) struct Start {
    environment: Environment,
    pub(super) given: Given,
    /// The environment revision.
    pub(super) revision: String,
    /// The secrets that are in files: a command that runs has the new ones, too.
    in_files: BTreeSet<VariableName>,
    outputs: Option<Outputs>,
}

/// What there is to do about a change.
pub(super) enum Prepared {
    /// The command has it all already. The environment revision.
    Same(String),
    /// A start is ready.
    Start(Box<Start>),
}

impl Start {
    /// Whether a command that was started with this has everything now, though its variables cannot change.
    pub(super) fn completes(&self, args: &Args, started_with: &Given) -> bool {
        let mut changed = self.given.symmetric_difference(started_with);
        changed.all(|entry| args.delivery.files.is_some() || self.in_files.contains(&entry.name))
    }
}

/// Checks and writes what a start receives.
pub(super) fn prepare(work: &Work, known: &Mutex<Known>, answer: FetchEnvironmentResponse) -> Result<Start, Failure> {
    let revision = answer.environment_revision.clone();
    let secrets = received::check(answer, &work.args, received::with_value)?;
    let given = given(&secrets);
    let delivered = deliver::deliver(&secrets, work.inherited.clone(), &work.args, work.limits, &work.command)?;
    let deliver::Delivered { environment, in_files } = delivered;
    let outputs = match work.args.delivery.mask {
        true => {
            let matcher = known.lock().unwrap_or_else(PoisonError::into_inner).matcher(&secrets);
            Some(Outputs::new(&matcher).map_err(|error| {
                Failure::new(Exit::Internal, format!("--mask: cannot copy the command's output: {error}"))
            })?)
        }
        false => None,
    };
    let count = secrets.len();
    report::verbose(work.args.verbose, || format!("starting {} with {count} secrets", work.command.path().display()));
    Ok(Start { environment, given, revision, in_files, outputs })
}

/// The same, unless the command has it all already. The values stay where they are until that is known.
pub(super) fn prepare_change(
    work: &Work,
    known: &Mutex<Known>,
    given: &Given,
    answer: FetchEnvironmentResponse,
) -> Result<Prepared, Failure> {
    if would_give(work, &answer)? == *given {
        return Ok(Prepared::Same(answer.environment_revision));
    }
    prepare(work, known, answer).map(|start| Prepared::Start(Box::new(start)))
}

/// What a start with this answer would give the command.
fn would_give(work: &Work, answer: &FetchEnvironmentResponse) -> Result<Given, Failure> {
    received::check(without_values(answer), &work.args, received::without_value).map(|secrets| given(&secrets))
}

fn given<V>(secrets: &[Variable<V>]) -> Given {
    let entry = |secret: &Variable<V>| Entry {
        name: secret.name.clone(),
        source: secret.source.clone(),
        uid: secret.uid.clone(),
        version: secret.version,
        kind: secret.kind,
    };
    secrets.iter().map(entry).collect()
}

/// Starts the command; its output is copied from here on if it is to be masked.
pub(super) fn spawn(work: &Work, start: Start, ignored: SigSet) -> Result<(Group, Given, Option<Copying>), Failure> {
    let (stdout, stderr, copying) = match start.outputs.map(Outputs::split) {
        Some((stdout, stderr, copying)) => (stdout, stderr, Some(copying)),
        None => (None, None, None),
    };
    let group = Group::start(&work.command, start.environment, stdout.as_ref(), stderr.as_ref(), ignored);
    let group = group.map_err(|error: io::Error| exec::explain(&work.command, &error))?;
    Ok((group, start.given, copying))
}

/// The same answer as a dry run would be.
fn without_values(answer: &FetchEnvironmentResponse) -> FetchEnvironmentResponse {
    let variable = |variable: &Sent| Sent {
        name: variable.name.clone(),
        value: None,
        source: variable.source.clone(),
        kind: variable.kind,
        value_version: variable.value_version,
        secret_uid: variable.secret_uid.clone(),
    };
    FetchEnvironmentResponse {
        workload: answer.workload.clone(),
        variables: answer.variables.iter().map(variable).collect(),
        environment_revision: answer.environment_revision.clone(),
        unchanged: answer.unchanged,
        missing_required: answer.missing_required.clone(),
        stale_since: answer.stale_since,
    }
}
