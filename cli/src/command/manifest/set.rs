//! `coffer manifest set`

use std::collections::BTreeMap;

use coffer_proto::{
    name::{DeclarationName, VariableName},
    v1::{ManifestVariable, SetManifestRequest},
};

use crate::{failure::Failure, print::Report, session::Session, view::ManifestList};

/// Say which variables workloads expect: what is required and missing keeps the injector from starting them
#[derive(clap::Args)]
pub(crate) struct Set {
    /// SCOPE/manifests/ID, or PATTERN/manifests/ID for every scope of a pattern, such as accounts/-/plugins/github
    #[arg(value_parser = DeclarationName::parse_manifest)]
    manifest: DeclarationName,
    /// A variable that a workload cannot start without. Repeatable, or separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = VariableName::parse)]
    require: Vec<VariableName>,
    /// A variable that it can do without. Repeatable, or separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = VariableName::parse)]
    optional: Vec<VariableName>,
    /// What one of them is for. Repeatable
    #[arg(long = "describe", value_name = "NAME=TEXT", value_parser = description)]
    descriptions: Vec<(VariableName, String)>,
    /// Whose expectations these are
    #[arg(long, short, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
}

fn description(text: &str) -> Result<(VariableName, String), String> {
    let (name, text) = text.split_once('=').ok_or("must be NAME=TEXT")?;
    let name = VariableName::parse(name).map_err(|error| error.to_string())?;
    Ok((name, text.to_owned()))
}

impl Set {
    /// Each variable once; what is said twice in different words is a mistake.
    fn variables(&self) -> Result<Vec<ManifestVariable>, Failure> {
        let mut variables = BTreeMap::new();
        let all = self.require.iter().map(|name| (name, true)).chain(self.optional.iter().map(|name| (name, false)));
        for (name, required) in all {
            let variable = ManifestVariable { variable: name.to_string(), required, description: String::new() };
            if variables.insert(name, variable).is_some_and(|before| before.required != required) {
                return Err(Failure::usage(format!("{name}: both --require and --optional")));
            }
        }
        for (name, text) in &self.descriptions {
            match variables.get_mut(name) {
                Some(variable) => variable.description.clone_from(text),
                None => {
                    return Err(Failure::usage(format!(
                        "--describe {name}: neither --require nor --optional names it"
                    )));
                }
            }
        }
        if variables.is_empty() {
            return Err(Failure::usage("no variables: give --require NAME or --optional NAME"));
        }
        Ok(variables.into_values().collect())
    }

    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let variables = self.variables()?;
        let request = SetManifestRequest { name: self.manifest.to_string(), description: self.description, variables };
        let client = session.connect().await?;
        let set = client.call(client.manifests().set_manifest(request)).await?;
        session.show(&ManifestList::new(vec![set], false))
    }
}
