//! What the server sent, checked again: the injector does not rely on the server's checks for what it will execute.

use std::collections::BTreeSet;

use coffer_proto::{
    name::VariableName,
    v1::{self, FetchEnvironmentResponse, SecretKind},
    value::SecretValue,
};

use crate::{Args, Exit, Failure, report};

/// The kind whose values need no hiding.
pub(crate) const PLAIN: &str = "plain";

/// A variable that passed every check. In a dry run there is no value.
#[derive(Debug)]
pub(crate) struct Variable<V = SecretValue> {
    /// Its name, by the grammar and not reserved.
    pub(crate) name: VariableName,
    /// Its value.
    pub(crate) value: V,
    /// The secret it comes from.
    pub(crate) source: String,
    /// Encrypted or plain.
    pub(crate) kind: &'static str,
    /// The version of the value.
    pub(crate) version: i64,
    /// The secret's uid: versions begin anew in one that was deleted and created again.
    pub(crate) uid: String,
}

/// Every variable, checked, or every problem found: a wrong variable and a missing name alike.
///
/// `only` empty means all. What is left out by it is checked nevertheless: a server that sends a reserved name is
/// not one to take anything from. What manifests require counts whatever `only` says; `ignore_manifest` makes it
/// warnings.
pub(crate) fn check<V>(
    answer: FetchEnvironmentResponse,
    args: &Args,
    value: fn(Option<Vec<u8>>) -> Result<V, String>,
) -> Result<Vec<Variable<V>>, Failure> {
    let mut checked = Vec::with_capacity(answer.variables.len());
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for variable in answer.variables {
        let label = label(&variable.name);
        match check_one(variable, value) {
            Ok(variable) if !names.insert(variable.name.clone()) => problems.push(format!("{label}: sent twice")),
            Ok(variable) => checked.push(variable),
            Err(problem) => problems.push(format!("{label}: {problem}")),
        }
    }
    Failure::unless_empty(Exit::Refused, problems)?;

    let wanted: BTreeSet<_> = args.only.iter().chain(&args.require).collect();
    let missing = wanted.into_iter().filter(|name| !names.contains(*name));
    let missing = missing.map(|name| format!("{name}: required, but the workload has no such secret"));
    let mut missing: Vec<_> = missing.collect();
    let of_manifests = answer.missing_required.iter().filter(|name| args.require.iter().all(|r| r.as_str() != **name));
    for name in of_manifests {
        let problem = format!("{}: required by a manifest, but the workload has no such secret", self::label(name));
        match args.delivery.ignore_manifest {
            true => report::line(&format!("warning: {problem}")),
            false => missing.push(format!("{problem} (see --ignore-manifest)")),
        }
    }
    Failure::unless_empty(Exit::Missing, missing)?;

    checked.retain(|variable| args.only.is_empty() || args.only.contains(&variable.name));
    Ok(checked)
}

fn check_one<V>(
    variable: v1::Variable,
    value: fn(Option<Vec<u8>>) -> Result<V, String>,
) -> Result<Variable<V>, String> {
    // The value first: it must go into its type whatever else is wrong.
    let kind = variable.kind();
    let value = value(variable.value);
    let name = VariableName::parse(&variable.name).map_err(|error| error.to_string())?;
    if name.is_reserved() {
        return Err("reserved: it would steer the shell, the loader or coffer itself".to_owned());
    }
    let kind = match kind {
        SecretKind::Encrypted => "encrypted",
        SecretKind::Plain => PLAIN,
        SecretKind::Unspecified => "unknown",
    };
    let (version, uid) = (variable.value_version, variable.secret_uid);
    Ok(Variable { name, value: value?, source: variable.source, kind, version, uid })
}

/// For a start: the value must be there and fit an environment.
pub(crate) fn with_value(value: Option<Vec<u8>>) -> Result<SecretValue, String> {
    let value = value.ok_or("the server sent no value")?;
    SecretValue::new(value).map_err(|error| format!("its value {}", words(error)))
}

/// For a dry run: none was asked for, and one that comes nevertheless is wiped.
pub(crate) fn without_value(value: Option<Vec<u8>>) -> Result<(), String> {
    value.map(SecretValue::new);
    Ok(())
}

fn words(error: coffer_proto::value::InvalidValue) -> String {
    match error {
        coffer_proto::value::InvalidValue::Empty => "is empty".to_owned(),
        other => other.to_string(),
    }
}

/// The name as sent, if it is short enough to be one.
fn label(name: &str) -> String {
    if name.len() <= coffer_proto::limits::SECRET_NAME_BYTES {
        format!("{name:?}").trim_matches('"').to_owned()
    } else {
        format!("a name of {} bytes", name.len())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::args::{Asked, parse};

    /// Secrets of these names and values.
    pub(crate) fn secrets(pairs: &[(&str, &str)]) -> Vec<Variable> {
        let variables = pairs.iter().map(|(name, value)| sent(name, Some(value.as_bytes()))).collect();
        check(answer(variables), &args(&[]), with_value).expect("accepted")
    }

    fn answer(variables: Vec<v1::Variable>) -> FetchEnvironmentResponse {
        FetchEnvironmentResponse { variables, ..Default::default() }
    }

    fn sent(name: &str, value: Option<&[u8]>) -> v1::Variable {
        let source = format!("projects/p/secrets/{name}");
        let value = value.map(Into::into);
        v1::Variable { name: name.to_owned(), value, source, kind: 1, value_version: 3, ..Default::default() }
    }

    /// A command line with these options.
    pub(crate) fn args(words: &[&str]) -> Box<Args> {
        let words = ["coffer-inject"].iter().chain(words).chain(&["--", "true"]).map(Into::into);
        let Ok(Asked::Run(args)) = parse(words) else { panic!("a good command line") };
        args
    }

    fn failure(variables: Vec<v1::Variable>, words: &[&str]) -> (Exit, Vec<String>) {
        let failure = check(answer(variables), &args(words), with_value).expect_err("refused");
        (failure.exit(), failure.problems().map(str::to_owned).collect())
    }

    #[test]
    fn every_offender_is_named() {
        let long = "A".repeat(129);
        let good = Some(&b"v"[..]);
        let variables = vec![
            sent("GOOD", good),
            sent("LD_PRELOAD", good),
            sent("lower", good),
            sent("A=B", good),
            sent("", good),
            sent("NUL", Some(b"hunter2\0")),
            sent("BYTES", Some(b"\xff")),
            sent("NONE", None),
            sent("EMPTY", Some(b"")),
            sent(&long, good),
            sent("NEW\nLINE", good),
            sent("GOOD", good),
            sent("BIG", Some(&[b'x'; 65_537])),
        ];
        let (exit, problems) = failure(variables, &[]);
        assert_eq!(exit, Exit::Refused);
        let starts = [
            "LD_PRELOAD: reserved",
            "lower: must match",
            "A=B: must match",
            ": Secret key is required",
            "NUL: its value must not contain NUL",
            "BYTES: its value must be UTF-8",
            "NONE: the server sent no value",
            "EMPTY: its value is empty",
            "a name of 129 bytes: must match",
            "NEW\\nLINE: must match",
            "GOOD: sent twice",
            "BIG: its value must be at most 64 KiB",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem}");
        }
        assert!(!problems.concat().contains("hunter2"));
    }

    #[test]
    fn only_leaves_others_out_and_must_find_its_own() {
        let all = || ["A", "B", "C"].map(|name| sent(name, Some(b"v"))).to_vec();
        let names = |words: &[&str]| {
            let checked = check(answer(all()), &args(words), with_value).expect("accepted");
            checked.iter().map(|variable| variable.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["A", "B", "C"]);
        assert_eq!(names(&["--only", "C,A"]), ["A", "C"]);
        assert_eq!(names(&["--require", "B"]), ["A", "B", "C"]);
        let (exit, problems) = failure(all(), &["--only", "A,X", "--only", "Y"]);
        assert_eq!((exit, problems.len()), (Exit::Missing, 2));
        let (exit, problems) = failure(all(), &["--require", "Z,A"]);
        assert_eq!(exit, Exit::Missing);
        assert_eq!(problems, ["Z: required, but the workload has no such secret"]);
    }

    #[test]
    fn what_only_leaves_out_is_checked_nevertheless() {
        let variables = vec![sent("A", Some(b"v")), sent("LD_PRELOAD", Some(b"v"))];
        assert_eq!(failure(variables, &["--only", "A"]).0, Exit::Refused);
    }

    #[test]
    fn a_dry_run_needs_no_values() {
        let variables = vec![sent("A", None), sent("B", Some(b"v"))];
        let checked = check(answer(variables), &args(&[]), without_value).expect("accepted");
        assert_eq!(checked.len(), 2);
        assert_eq!((checked[0].kind, checked[0].version), ("encrypted", 3));
    }
    #[test]
    fn what_manifests_require_must_be_there_unless_they_are_ignored() {
        let missing = || FetchEnvironmentResponse {
            missing_required: vec!["X".into(), "Y\n".into()],
            ..answer(vec![sent("A", Some(b"v"))])
        };
        let told = |words: &[&str]| match check(missing(), &args(words), with_value) {
            Ok(checked) => Err(checked.len()),
            Err(failure) => Ok((failure.exit(), failure.problems().map(str::to_owned).collect::<Vec<_>>())),
        };
        let (exit, problems) = told(&["--only", "A"]).expect("refused");
        assert_eq!((exit, problems.len()), (Exit::Missing, 2));
        assert!(problems[0].starts_with("X: required by a manifest, but"), "{problems:?}");
        assert!(problems[1].starts_with("Y\\n: required by a manifest, but"), "{problems:?}");
        let (_, problems) = told(&["--require", "X"]).expect("refused");
        assert_eq!(problems.len(), 2, "one line for a name: {problems:?}");
        assert_eq!(told(&["--ignore-manifest"]), Err(1));
        assert!(told(&["--ignore-manifest", "--require", "X"]).is_ok(), "what is asked for here is not ignored");
    }
}
