//! The `COFFER_SERVER_…` variables.

use std::{ffi::OsString, path::PathBuf};

use super::{
    links,
    setting::{CONFIG_VARIABLE, Given, SETTINGS, Shape, Source},
};

/// Every variable of the server begins so; one that is none of ours is a mistake, most likely of spelling, unless the
/// platform made it.
const PREFIX: &str = "COFFER_SERVER_";

/// What the environment says.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) config: Option<PathBuf>,
    pub(super) given: Vec<Given>,
    /// Names of variables that Kubernetes or docker made for a service.
    pub(super) links: Vec<String>,
}

pub(super) fn read(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    mistakes: &mut Vec<String>,
) -> Environment {
    let mut environment = Environment::default();
    let mut variables: Vec<_> = variables.into_iter().collect();
    variables.sort();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let Some(own) = name.strip_prefix(PREFIX) else { continue };
        if links::is_link(own, &value.to_string_lossy()) {
            environment.links.push(name.into_owned());
            continue;
        }
        if name == CONFIG_VARIABLE {
            environment.config = Some(PathBuf::from(value));
            continue;
        }
        let Some((setting, variable)) =
            SETTINGS.iter().filter_map(|setting| Some((setting, setting.variable?))).find(|(_, known)| *known == name)
        else {
            mistakes.push(format!("{name} is no variable of this server"));
            continue;
        };
        let Ok(text) = value.into_string() else {
            mistakes.push(format!("{variable} is not UTF-8"));
            continue;
        };
        let texts = match setting.shape {
            Shape::List => text.split(',').map(|part| part.trim().to_owned()).collect(),
            _ => vec![text],
        };
        environment.given.push(Given { key: setting.key, source: Source::Variable(variable), texts });
    }
    environment
}
