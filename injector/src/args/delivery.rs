//! How the command gets its secrets, besides or instead of variables of their names.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use coffer_proto::name::{self, VariableName};

use super::Args;

/// Most files that are rendered.
const TEMPLATES_MAX: usize = 100;
/// Longest name of a variable that a secret may be delivered as, in bytes.
const VARIABLE_BYTES_MAX: usize = 128;
/// Oldest environment that a start may use when the server is away.
const CACHE_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What else is delivered, where, and under which names.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Delivery")]
pub(crate) struct DeliveryArgs {
    /// Deliver the secret NAME as the variable OTHER and not as NAME; OTHER may be lower case. Repeatable
    #[arg(long, value_name = "NAME=OTHER", value_parser = parse_rename)]
    pub(crate) env: Vec<Rename>,

    /// Write each secret to DIR/NAME, mode 0400, instead of setting variables; those of --env are set nevertheless.
    /// DIR is made if it is missing, and belongs to one workload: files of secrets that are gone are removed. Take one
    /// in memory, below /run or /dev/shm
    #[arg(long, value_name = "DIR")]
    pub(crate) files: Option<PathBuf>,

    /// Write the file IN with every {{NAME}} replaced by its secret to OUT, mode 0400, at each start. {{NAME|json}} writes
    /// the value as a quoted string of JSON, also good in TOML and YAML ({{NAME|toml}}, {{NAME|yaml}}); {{NAME|sh}} as a
    /// quoted word of a shell, {{NAME|url}} percent-encoded. {{{{ stands for {{. Variables are set as without it. Repeatable
    #[arg(long = "template", value_name = "IN:OUT", value_parser = parse_template)]
    pub(crate) templates: Vec<TemplateArg>,

    /// Replace encrypted values of 8 characters or more in the command's stdout and stderr by {{NAME}}, in the usual
    /// encodings too; not in UTF-16, in other encodings or with something in between, like a time before each line. A
    /// stream that is a terminal is left as it is
    #[arg(long)]
    pub(crate) mask: bool,

    /// Start although secrets are missing that a manifest requires
    #[arg(long)]
    pub(crate) ignore_manifest: bool,

    /// Keep the last environment in FILE, sealed, and start with it when coffer cannot be reached. Coffer's refusal
    /// deletes it. Needs --cache-key-file, and --workload or COFFER_WORKLOAD
    #[arg(long, value_name = "FILE", requires = "cache_key_file")]
    pub(crate) cache: Option<PathBuf>,

    /// File with the key of --cache: 64 hexadecimal digits, readable by its owner only
    #[arg(long, value_name = "FILE", requires = "cache")]
    pub(crate) cache_key_file: Option<PathBuf>,

    /// Oldest environment to start with from --cache; at most 30days
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_age)]
    pub(crate) cache_max_age: Duration,
}

/// A secret and the variable it is delivered as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rename {
    /// The secret.
    pub(crate) name: VariableName,
    /// The variable: a portable name (POSIX.1-2024, 3.216), not reserved.
    pub(crate) target: String,
}

/// A template and where it is rendered to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemplateArg {
    /// The template.
    pub(crate) template: PathBuf,
    /// The file that is written.
    pub(crate) target: PathBuf,
}

/// What is wrong with the flags together.
pub(super) fn problems(args: &Args) -> Vec<String> {
    let delivery = &args.delivery;
    let mut problems = Vec::new();
    let mut targets = BTreeSet::new();
    for Rename { name, target } in &delivery.env {
        if !targets.insert(target) {
            problems.push(format!("--env: two secrets cannot be the one variable {target}"));
        }
        if !args.only.is_empty() && !args.only.contains(name) {
            problems.push(format!("--env {name}={target}: --only leaves {name} out"));
        }
    }
    let mut outs = BTreeSet::new();
    for template in &delivery.templates {
        if !outs.insert(&template.target) {
            problems.push(format!("--template: two templates cannot be the one file {}", template.target.display()));
        }
    }
    let inputs: BTreeSet<_> = delivery.templates.iter().map(|template| &template.template).collect();
    for output in outs.iter().filter(|output| inputs.contains(**output)) {
        problems.push(format!("--template: what is rendered cannot be a template: {}", output.display()));
    }
    if delivery.templates.len() > TEMPLATES_MAX {
        problems.push(format!("--template: at most {TEMPLATES_MAX} templates"));
    }
    problems
}

fn parse_rename(text: &str) -> Result<Rename, String> {
    let (name, target) = text.split_once('=').ok_or("must be NAME=OTHER")?;
    let name = VariableName::parse(name).map_err(|error| format!("the secret's name {error}"))?;
    let head = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let portable = target.bytes().next().is_some_and(head) && target.bytes().all(|b| head(b) || b.is_ascii_digit());
    if !portable || target.len() > VARIABLE_BYTES_MAX {
        return Err(format!(
            "the variable must match ^[A-Za-z_][A-Za-z0-9_]*$ and have at most {VARIABLE_BYTES_MAX} bytes"
        ));
    }
    if name::is_reserved(target) {
        return Err("the variable is reserved: it would steer the shell, the loader or coffer itself".to_owned());
    }
    Ok(Rename { name, target: target.to_owned() })
}

fn parse_template(text: &str) -> Result<TemplateArg, String> {
    match text.split(':').collect::<Vec<_>>()[..] {
        [template, target] if !template.is_empty() && !target.is_empty() => {
            Ok(TemplateArg { template: template.into(), target: target.into() })
        }
        _ => Err("must be IN:OUT, two paths without a colon in them".to_owned()),
    }
}

fn parse_age(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() && time <= CACHE_AGE_MAX => Ok(time),
        Ok(_) => Err("must be more than nothing and at most 30days".to_owned()),
        Err(_) => Err("must be a time with its unit, for example 24h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Asked, parse};

    fn asked(words: &[&str]) -> Result<Box<Args>, String> {
        let words = ["coffer-inject"].iter().chain(words).chain(&["--", "true"]).map(Into::into);
        match parse(words) {
            Ok(Asked::Run(args)) => Ok(args),
            Ok(Asked::Print(text)) => panic!("{text}"),
            Err(failure) => Err(failure.problems().collect::<Vec<_>>().join("\n")),
        }
    }

    #[test]
    fn a_variable_has_a_portable_name() {
        let args = asked(&["--env", "A=a", "--env", "A=_B2", "--env=B=http_proxy"]).expect("good");
        let renames: Vec<_> = args.delivery.env.iter().map(|r| (r.name.as_str(), r.target.as_str())).collect();
        assert_eq!(renames, [("A", "a"), ("A", "_B2"), ("B", "http_proxy")]);
        let long = format!("A={}", "a".repeat(129));
        for (bad, expected) in [
            ("A", "must be NAME=OTHER"),
            ("a=A", "the secret's name must match"),
            ("=A", "the secret's name"),
            ("A=", "the variable must match"),
            ("A=2", "the variable must match"),
            ("A=b c", "the variable must match"),
            ("A=ä", "the variable must match"),
            ("A=b=c", "the variable must match"),
            (&long, "the variable must match"),
            ("A=PATH", "reserved"),
            ("A=LD_PRELOAD", "reserved"),
            ("A=COFFER_TOKEN", "reserved"),
        ] {
            let problem = asked(&["--env", bad]).expect_err("refused");
            assert!(problem.starts_with("--env: ") && problem.contains(expected), "{bad}: {problem}");
        }
    }

    #[test]
    fn two_things_have_two_places() {
        assert!(asked(&["--env", "A=x", "--env", "B=x"]).expect_err("refused").contains("the one variable x"));
        assert!(asked(&["--template", "a:x", "--template", "b:x"]).expect_err("refused").contains("the one file x"));
        assert!(asked(&["--only", "A", "--env", "B=x"]).expect_err("refused").contains("--only leaves B out"));
    }

    #[test]
    fn a_template_is_two_paths() {
        let args = asked(&["--template", "a.in:/run/a"]).expect("good");
        assert_eq!(args.delivery.templates, [TemplateArg { template: "a.in".into(), target: "/run/a".into() }]);
        for bad in ["a", "a:", ":b", "a:b:c", ""] {
            assert!(asked(&["--template", bad]).expect_err("refused").starts_with("--template"), "{bad}");
        }
    }

    #[test]
    fn a_cache_needs_its_key_and_an_age() {
        let args = asked(&["--cache", "c", "--cache-key-file", "k"]).expect("good");
        assert_eq!(args.delivery.cache_max_age, Duration::from_secs(24 * 60 * 60));
        asked(&["--cache", "c"]).expect_err("no key");
        asked(&["--cache-key-file", "k"]).expect_err("no cache");
        for bad in ["0s", "31days", "1"] {
            let problem = asked(&["--cache", "c", "--cache-key-file", "k", "--cache-max-age", bad]).expect_err("age");
            assert!(problem.starts_with("--cache-max-age: must be"), "{problem}");
        }
    }
}
