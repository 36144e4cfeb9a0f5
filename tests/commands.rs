//! The command line's behaviour is data: `cmd/*.toml`, one server a file, one command a step.
//!
//! In what is expected, `[..]` stands for anything within a line, and a line of `...` for any lines. What is not given is
//! not compared, but for stderr, which must be empty unless the step says otherwise.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;

use crate::harness::{Server, write_private};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What the file shows.
    about: String,
    /// Who acts, with their grants; `operator` always does. A name without `/` is a user's.
    #[serde(default)]
    people: BTreeMap<String, Vec<(String, String)>>,
    step: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Of `people`, or `operator`.
    #[serde(rename = "as")]
    who: String,
    /// The command line, separated by spaces; or `args`.
    #[serde(default)]
    run: String,
    #[serde(default)]
    args: Vec<String>,
    /// Files that it finds in its directory.
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    stdin: String,
    #[serde(default)]
    code: i32,
    stdout: Option<String>,
    #[serde(default)]
    stderr: String,
}

/// Whether a line is as expected, where `[..]` stands for anything.
fn line_matches(expected: &str, line: &str) -> bool {
    let mut parts = expected.split("[..]");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        last = Some(part);
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || last.is_some_and(|part| part.is_empty() || line.ends_with(part))
}

fn matches(expected: &[&str], lines: &[&str]) -> bool {
    match expected.split_first() {
        None => lines.is_empty(),
        Some((&"...", after)) => (0..=lines.len()).any(|skipped| matches(after, &lines[skipped..])),
        Some((first, after)) => {
            lines.split_first().is_some_and(|(line, left)| line_matches(first, line) && matches(after, left))
        }
    }
}

fn compare(what: &str, step: &Step, expected: &str, got: &str) -> Result<(), String> {
    let expected_lines: Vec<_> = expected.trim_end().lines().collect();
    let lines: Vec<_> = got.trim_end().lines().map(str::trim_end).collect();
    if matches(&expected_lines, &lines) {
        return Ok(());
    }
    Err(format!("`coffer {} {}`: {what} is\n{got}\ninstead of\n{expected}", step.run, step.args.join(" ")))
}

async fn run(path: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).expect("readable");
    let case: Case = toml::from_str(&text).map_err(|error| error.to_string())?;
    assert!(!case.about.is_empty());
    let server = Server::start();
    let mut tokens = BTreeMap::from([("operator".to_owned(), server.operator_token())]);
    for (name, grants) in &case.people {
        let principal = if name.contains('/') { name.clone() } else { format!("users/{name}") };
        for (permission, pattern) in grants {
            server.grant(&principal, permission, pattern).await;
        }
        tokens.insert(name.clone(), server.token(&principal).await);
    }
    for step in &case.step {
        for (name, content) in &step.files {
            write_private(&server.home().join(name), content);
        }
        let token = tokens.get(&step.who).ok_or_else(|| format!("nobody is called {}", step.who))?;
        let mut tool = server.cli(token).args(step.run.split_whitespace()).args(&step.args).stdin(step.stdin.clone());
        for (name, value) in &step.environment {
            tool = tool.env(name, value);
        }
        let finished = tool.run();
        if finished.code != Some(step.code) {
            let (run, code) = (&step.run, step.code);
            return Err(format!(
                "`coffer {run}` ended with {:?} instead of {code}: {}",
                finished.code, finished.stderr
            ));
        }
        if let Some(expected) = &step.stdout {
            compare("stdout", step, expected, &finished.text())?;
        }
        compare("stderr", step, &step.stderr, &finished.stderr)?;
    }
    Ok(())
}

#[tokio::test]
async fn every_command_does_what_its_file_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cmd");
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    assert!(paths.len() >= 5, "few cases: {paths:?}");
    let mut wrong = Vec::new();
    for path in paths {
        if let Err(why) = run(&path).await {
            wrong.push(format!("{}: {why}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn placeholders_match_what_they_should() {
    assert!(line_matches("a [..] c", "a b c") && line_matches("[..]", "") && line_matches("a[..]", "abc"));
    assert!(!line_matches("a [..] c", "a b") && !line_matches("a", "ab") && !line_matches("[..]b", "abc"));
    assert!(matches(&["a", "...", "c"], &["a", "b", "b", "c"]) && matches(&["..."], &[]) && !matches(&["x"], &[]));
}
