//! Which variables there are, under which names.

use std::collections::BTreeSet;

use coffer_proto::value::SecretValue;

use crate::{Args, Exit, Failure, args::Rename, received::Variable};

/// A variable that the command gets.
pub(crate) struct Assigned {
    /// Its name, which need not be the secret's.
    pub(crate) variable: String,
    /// Its value.
    pub(crate) value: SecretValue,
}

/// The variables of all secrets: under their own names, unless they are renamed or go into files.
pub(crate) fn assign(secrets: &[Variable<SecretValue>], args: &Args) -> Result<Vec<Assigned>, Failure> {
    check(secrets, args)?;
    let assigned = secrets.iter().flat_map(|secret| {
        targets(secret, args).into_iter().map(|variable| Assigned { variable, value: secret.value.clone() })
    });
    Ok(assigned.collect())
}

/// Whether each renamed secret is there, and no two secrets are one variable.
pub(crate) fn check<V>(secrets: &[Variable<V>], args: &Args) -> Result<(), Failure> {
    let renames = &args.delivery.env;
    let missing = renames.iter().filter(|rename| secrets.iter().all(|secret| secret.name != rename.name));
    let missing = missing.map(|Rename { name, target }| {
        format!("{name}: to be delivered as {target}, but the workload has no such secret")
    });
    Failure::unless_empty(Exit::Missing, missing.collect())?;

    let mut taken = BTreeSet::new();
    let mut problems = Vec::new();
    for variable in secrets.iter().flat_map(|secret| targets(secret, args)) {
        if !taken.insert(variable.clone()) {
            problems.push(format!("--env: {variable} is the name of another secret (leave it out with --only)"));
        }
    }
    Failure::unless_empty(Exit::Refused, problems)
}

/// The variables that one secret is delivered as.
pub(crate) fn targets<V>(secret: &Variable<V>, args: &Args) -> Vec<String> {
    let renamed = args.delivery.env.iter().filter(|rename| rename.name == secret.name);
    let renamed: Vec<_> = renamed.map(|rename| rename.target.clone()).collect();
    if renamed.is_empty() && args.delivery.files.is_none() { vec![secret.name.to_string()] } else { renamed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::received::tests::{args, secrets};

    fn names(words: &[&str]) -> Vec<String> {
        let assigned = assign(&secrets(&[("A", "1"), ("B", "2"), ("C", "3")]), &args(words)).expect("accepted");
        assigned.iter().map(|one| format!("{}={}", one.variable, one.value.expose())).collect()
    }

    fn refused(words: &[&str]) -> (Exit, Vec<String>) {
        let failure = check(&secrets(&[("A", "1"), ("B", "2")]), &args(words)).expect_err("refused");
        (failure.exit(), failure.problems().map(str::to_owned).collect())
    }

    #[test]
    fn a_renamed_secret_has_its_other_names_only() {
        assert_eq!(names(&[]), ["A=1", "B=2", "C=3"]);
        assert_eq!(names(&["--env", "B=b"]), ["A=1", "b=2", "C=3"]);
        assert_eq!(names(&["--env", "B=b", "--env", "B=X"]), ["A=1", "b=2", "X=2", "C=3"]);
        assert_eq!(names(&["--env", "A=B", "--env", "B=A"]), ["B=1", "A=2", "C=3"], "they may change places");
    }

    #[test]
    fn files_replace_variables_that_are_not_named() {
        assert!(names(&["--files", "/run/x"]).is_empty());
        assert_eq!(names(&["--files", "/run/x", "--env", "B=b", "--env", "C=C"]), ["b=2", "C=3"]);
    }

    #[test]
    fn what_is_missing_or_meets_another_is_named() {
        let (exit, problems) = refused(&["--env", "X=x", "--env", "Y=y", "--env", "A=a"]);
        assert_eq!((exit, problems.len()), (Exit::Missing, 2));
        assert!(problems[0].starts_with("X: to be delivered as x,"), "{problems:?}");
        let (exit, problems) = refused(&["--env", "A=B"]);
        assert_eq!((exit, problems.len()), (Exit::Refused, 1));
        assert!(problems[0].contains("B is the name of another secret"), "{problems:?}");
    }
}
