//! Where each secret goes: into variables, files and rendered templates.
//!
//! - [`assign`]: which variables there are, under which names.
//! - [`template`]: text with placeholders.
//! - [`directory`]: a file for each secret, and which of them are ours.
//! - [`place`]: one file, written whole or not at all.
//!
//! What can be refused is refused before the first file is written.

use std::collections::BTreeSet;

use coffer_proto::{name::VariableName, value::SecretValue};

use crate::{Args, Command, Environment, Exit, Failure, Inherited, received::Variable, size};

pub(crate) mod assign;
mod directory;
pub(crate) mod place;
mod template;

pub(crate) use assign::Assigned;
use directory::Directory;

/// Whether files can be written where they are to go, before anybody is asked for what they will hold: a start that is
/// refused later has used its start token up.
pub(crate) fn check_places(args: &Args) -> Result<(), Failure> {
    let templates = template::read(&args.delivery.templates)?;
    args.delivery.files.as_deref().map_or(Ok(()), Directory::check)?;
    templates.iter().try_for_each(|template| template.target.check())
}

/// For a dry run: whether every name is there and none meets another. Reads templates, writes nothing.
pub(crate) fn check<V>(secrets: &[Variable<V>], args: &Args) -> Result<(), Failure> {
    assign::check(secrets, args)?;
    let templates = template::read(&args.delivery.templates)?;
    template::check(&templates, secrets)?;
    templates.iter().try_for_each(|template| template.target.check())
}

/// What was delivered.
pub(crate) struct Delivered {
    /// The environment of the command.
    pub(crate) environment: Environment,
    /// The secrets that lie in files of their own or in rendered templates, maybe besides their variables.
    pub(crate) in_files: BTreeSet<VariableName>,
}

/// Writes what is delivered in files, and makes the environment of the command. Called at every start.
pub(crate) fn deliver(
    secrets: &[Variable<SecretValue>],
    inherited: Inherited,
    args: &Args,
    limits: size::Limits,
    command: &Command,
) -> Result<Delivered, Failure> {
    let assigned = assign::assign(secrets, args)?;
    let environment = Environment::new(inherited, assigned, args.keep_existing);
    size::check(limits, command, &environment)?;
    let templates = template::read(&args.delivery.templates)?;
    template::check(&templates, secrets)?;

    let directory = args.delivery.files.as_deref().map(|path| Directory::open(path, secrets)).transpose()?;
    for template in &templates {
        template.check(secrets)?;
        if directory.as_ref().is_some_and(|directory| directory.holds(&template.target.path)) {
            let problem = format!("--template {}: lies in the directory of --files", template.target.path.display());
            return Err(Failure::new(Exit::Refused, problem));
        }
    }
    if let Some(directory) = directory {
        directory.write(secrets)?;
    }
    templates.iter().try_for_each(|template| template.render(secrets))?;
    let own = secrets.iter().filter(|_| args.delivery.files.is_some()).map(|secret| secret.name.clone());
    let in_files = own.chain(templates.iter().flat_map(template::Template::names)).collect();
    Ok(Delivered { environment, in_files })
}
