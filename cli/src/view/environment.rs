//! Environments: explained, and fetched.

use coffer_proto::{
    v1::{self, environment_entry::State},
    value::SecretValue,
};
use serde::{Serialize, Serializer};

use super::{View, counted, kind, listing, some};
use crate::print::table::{Table, dropped, whole, wraps};

/// Where each variable comes from.
#[derive(Serialize)]
pub(crate) struct Described {
    name: String,
    environment_revision: String,
    entries: Vec<EntryView>,
}

#[derive(Serialize)]
struct EntryView {
    variable: String,
    state: &'static str,
    source: String,
    winner: Option<String>,
    kind: &'static str,
    locked: Option<bool>,
    value_version: Option<i64>,
    hint: Option<String>,
    value: Option<String>,
    description: Option<String>,
}

/// What a workload receives.
#[derive(Serialize)]
pub(crate) struct Fetched {
    pub(crate) workload: String,
    pub(crate) environment_revision: String,
    pub(crate) unchanged: bool,
    pub(crate) variables: Vec<FetchedVariable>,
}

/// One variable; without its value in a dry run.
#[derive(Serialize)]
pub(crate) struct FetchedVariable {
    pub(crate) name: String,
    #[serde(serialize_with = "exposed")]
    pub(crate) value: Option<SecretValue>,
    pub(crate) source: String,
    pub(crate) kind: &'static str,
    pub(crate) value_version: i64,
}

fn exposed<S: Serializer>(value: &Option<SecretValue>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(SecretValue::expose).serialize(serializer)
}

impl Described {
    pub(crate) fn new(name: String, entries: Vec<v1::EnvironmentEntry>, environment_revision: String) -> Self {
        Self { name, environment_revision, entries: entries.into_iter().map(EntryView::from).collect() }
    }
}

impl From<v1::EnvironmentEntry> for EntryView {
    fn from(entry: v1::EnvironmentEntry) -> Self {
        let state = match entry.state() {
            State::Effective => "effective",
            State::Shadowed => "shadowed",
            State::Overruled => "overruled",
            State::NotShared => "not_shared",
            State::Unspecified => "unknown",
        };
        let kind = kind(entry.kind());
        let (locked, value_version, hint, value, description) = match entry.secret {
            // False would be a claim: the server tells it to readers of the source only.
            None => (None, None, None, None, None),
            Some(secret) => (
                Some(entry.locked),
                Some(secret.value_version),
                some(secret.hint),
                secret.value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
                some(secret.description),
            ),
        };
        Self {
            variable: entry.variable,
            state,
            source: entry.source,
            winner: some(entry.winner),
            kind,
            locked,
            value_version,
            hint,
            value,
            description,
        }
    }
}

impl EntryView {
    /// The scope of a secret: its name is the variable's.
    fn scope<'a>(&self, secret: &'a str) -> &'a str {
        let scope = secret.strip_suffix(&self.variable).and_then(|rest| rest.strip_suffix("/secrets/"));
        scope.unwrap_or(secret)
    }

    fn state_in_words(&self) -> String {
        let winner = self.winner.as_deref().map_or("another scope", |winner| self.scope(winner));
        match self.state {
            "shadowed" => format!("shadowed by {winner}"),
            "overruled" => format!("overruled by lock of {winner}"),
            "not_shared" => "not shared".to_owned(),
            state => state.to_owned(),
        }
    }
}

impl View for Described {
    fn table(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[
            whole("VARIABLE"),
            wraps("STATE"),
            whole("SOURCE"),
            dropped("KIND"),
            dropped("VERSION"),
            dropped("FLAGS"),
        ]);
        for entry in &self.entries {
            table.row([
                &entry.variable,
                &entry.state_in_words(),
                entry.scope(&entry.source),
                entry.kind,
                &entry.value_version.map(|version| version.to_string()).unwrap_or_default(),
                if entry.locked == Some(true) { "locked" } else { "" },
            ]);
        }
        let effective = self.entries.iter().filter(|entry| entry.state == "effective").count();
        listing(&table.render(width), &counted(effective as i64, "variable"), false)
    }
}

impl Fetched {
    pub(crate) fn new(environment: v1::FetchEnvironmentResponse) -> Result<Self, coffer_proto::value::InvalidValue> {
        let variables = environment.variables.into_iter().map(FetchedVariable::try_from).collect::<Result<_, _>>()?;
        Ok(Self {
            workload: environment.workload,
            environment_revision: environment.environment_revision,
            unchanged: environment.unchanged,
            variables,
        })
    }
}

impl TryFrom<v1::Variable> for FetchedVariable {
    type Error = coffer_proto::value::InvalidValue;

    fn try_from(variable: v1::Variable) -> Result<Self, Self::Error> {
        Ok(Self {
            kind: kind(variable.kind()),
            name: variable.name,
            value: variable.value.map(SecretValue::new).transpose()?,
            source: variable.source,
            value_version: variable.value_version,
        })
    }
}

/// Without values, whatever was fetched.
impl View for Fetched {
    fn table(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[whole("VARIABLE"), whole("SOURCE"), dropped("KIND"), dropped("VERSION")]);
        for variable in &self.variables {
            table.row([&variable.name, &variable.source, variable.kind, &variable.value_version.to_string()]);
        }
        listing(&table.render(width), &counted(self.variables.len() as i64, "variable"), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_explained() {
        let entry = |variable: &str, state: State, scope: &str, winner: &str| v1::EnvironmentEntry {
            variable: variable.into(),
            source: format!("{scope}/secrets/{variable}"),
            kind: v1::SecretKind::Encrypted.into(),
            state: state.into(),
            winner: winner.into(),
            ..Default::default()
        };
        let entries = vec![
            entry("A", State::Effective, "projects/p/environments/e", ""),
            entry("A", State::Shadowed, "projects/p", "projects/p/environments/e/secrets/A"),
            entry("B", State::Overruled, "projects/p/environments/e", "projects/p/secrets/B"),
            entry("C", State::NotShared, "organizations/o", ""),
        ];
        let table = Described::new("x".into(), entries, "r".into()).table(None);
        let states: Vec<&str> = table.lines().skip(1).take(4).map(|line| &line[10..]).collect();
        assert!(states[0].starts_with("effective "), "{table}");
        assert!(states[1].starts_with("shadowed by projects/p/environments/e "), "{table}");
        assert!(states[2].starts_with("overruled by lock of projects/p "), "{table}");
        assert!(states[3].starts_with("not shared "), "{table}");
        assert!(table.ends_with("\n1 variable\n"), "{table}");
    }

    #[test]
    fn what_the_caller_may_not_see_is_null() {
        let seen = v1::EnvironmentEntry { secret: Some(v1::Secret::default()), ..Default::default() };
        let locked = v1::EnvironmentEntry { locked: true, ..seen.clone() };
        let entries = vec![v1::EnvironmentEntry::default(), seen, locked];
        let json = serde_json::to_value(Described::new("x".into(), entries, "r".into())).expect("JSON");
        let shown: Vec<_> = (0..3).map(|at| json["entries"][at]["locked"].as_bool()).collect();
        assert_eq!(shown, [None, Some(false), Some(true)]);
        assert!(json["entries"][0].get("locked").is_some_and(serde_json::Value::is_null), "{json}");
    }

    #[test]
    fn a_table_of_a_fetched_environment_has_no_values() {
        let variable = v1::Variable { name: "A".into(), value: Some(b"hunter2".to_vec()), ..Default::default() };
        let response = v1::FetchEnvironmentResponse { variables: vec![variable], ..Default::default() };
        let fetched = Fetched::new(response).expect("good values");
        assert!(!fetched.table(None).contains("hunter2"));
        assert_eq!(serde_json::to_value(&fetched).expect("JSON")["variables"][0]["value"], "hunter2");
    }
}
