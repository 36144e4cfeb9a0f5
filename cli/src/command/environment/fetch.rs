//! `coffer environment fetch`

use clap::ValueEnum;
use coffer_proto::{name::Workload, v1::FetchEnvironmentRequest};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::{
    dotenv,
    failure::Failure,
    print::Report,
    session::{Session, json},
    view::{Fetched, FetchedVariable},
};

/// Fetch what a workload receives, values included
///
/// Needs secrets:inject, or the workload's own token. To start a workload use coffer-inject, which leaves no copy.
/// On a terminal values are shown only with --reveal.
#[derive(clap::Args)]
pub(crate) struct Fetch {
    /// SCOPE/servers/ID or SCOPE/sandboxes/ID; without it: the workload whose token this is
    #[arg(value_parser = Workload::parse)]
    workload: Option<Workload>,
    /// How to print the variables; otherwise dotenv, and with --output json one object with sources and versions
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Print values to a terminal
    #[arg(long)]
    reveal: bool,
    /// Show names, sources and versions; fetch no values
    #[arg(long, conflicts_with_all = ["format", "reveal"])]
    dry_run: bool,
    /// Print nothing if this still is the environment revision
    #[arg(long, value_name = "REVISION", default_value = "", hide_default_value = true)]
    if_revision_not: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// NAME='value' lines, which `coffer secret import` reads back
    Dotenv,
    /// One object of strings
    Json,
    /// Names only
    Names,
}

impl Fetch {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let without_values = self.dry_run || self.format == Some(Format::Names);
        if session.is_terminal() && !without_values && !self.reveal {
            return Err(Failure::usage("this would print values to a terminal")
                .hint("--reveal prints them all the same, --dry-run shows names and sources"));
        }
        let client = session.connect().await?;
        let request = FetchEnvironmentRequest {
            workload: self.workload.map(|workload| workload.to_string()).unwrap_or_default(),
            if_revision_not: self.if_revision_not,
            dry_run: without_values,
            ..Default::default()
        };
        let fetched = client.call(client.workloads().fetch_environment(request)).await?;
        let stale_since = fetched.stale_since.and_then(|since| std::time::SystemTime::try_from(since).ok());
        let fetched =
            Fetched::new(fetched).map_err(|error| Failure::failed(format!("the server sent a value that {error}")))?;
        let report = match self.format {
            None if self.dry_run || session.is_json() => session.show(&fetched)?,
            _ if fetched.unchanged => Report::default(),
            None | Some(Format::Dotenv) => Report::data(dotenv_lines(&fetched.variables)?),
            Some(Format::Json) => Report::data(json(&Object(&fetched.variables))?),
            Some(Format::Names) => Report::data(names(&fetched.variables)),
        };
        let report = if fetched.unchanged { report.note("unchanged") } else { report };
        Ok(match stale_since.map(humantime::format_rfc3339_seconds) {
            Some(since) => {
                report.note(format!("warning: the server has not reached its store since {since}: this is of then"))
            }
            None => report,
        })
    }
}

fn names(variables: &[FetchedVariable]) -> String {
    variables.iter().map(|variable| format!("{}\n", variable.name)).collect()
}

fn dotenv_lines(variables: &[FetchedVariable]) -> Result<String, Failure> {
    // Room for every character escaped: growing would leave copies of values behind.
    let bytes = |variable: &FetchedVariable| {
        variable.name.len() + 2 * variable.value.as_ref().map_or(0, |value| value.bytes()) + "=''\n".len()
    };
    let mut text = String::with_capacity(variables.iter().map(bytes).sum());
    for variable in variables {
        dotenv::write(&variable.name, present(variable)?, &mut text);
    }
    Ok(text)
}

fn present(variable: &FetchedVariable) -> Result<&coffer_proto::value::SecretValue, Failure> {
    variable.value.as_ref().ok_or_else(|| Failure::failed(format!("the server sent no value for {}", variable.name)))
}

/// Names and values in the server's order.
struct Object<'a>(&'a [FetchedVariable]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for variable in self.0 {
            let value = present(variable).map_err(|failure| serde::ser::Error::custom(failure.message()))?;
            map.serialize_entry(&variable.name, value.expose())?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_proto::value::SecretValue;

    fn variable(name: &str, value: Option<&str>) -> FetchedVariable {
        FetchedVariable {
            name: name.into(),
            value: value.map(|text| SecretValue::new(text.as_bytes().to_vec()).expect("a value")),
            source: String::new(),
            kind: "encrypted",
            value_version: 1,
        }
    }

    #[test]
    fn every_format() {
        let variables = [variable("B", Some("it's\n$x")), variable("A", Some("plain"))];
        assert_eq!(dotenv_lines(&variables).expect("all there"), "B=\"it's\n\\$x\"\nA='plain'\n");
        let object = serde_json::to_string(&Object(&variables)).expect("all there");
        assert_eq!(object, r#"{"B":"it's\n$x","A":"plain"}"#);
        assert_eq!(names(&variables), "B\nA\n");
    }

    #[test]
    fn a_missing_value_is_an_error_and_never_an_empty_one() {
        let variables = [variable("A", None)];
        assert!(dotenv_lines(&variables).is_err());
        assert!(serde_json::to_string(&Object(&variables)).is_err());
    }
}
