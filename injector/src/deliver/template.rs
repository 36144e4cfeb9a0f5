//! Text with placeholders, rendered into a file.

mod form;
mod parts;

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use coffer_proto::{name::VariableName, text, value::SecretValue};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::{
    Exit, Failure,
    args::TemplateArg,
    deliver::place::{self, Target},
    received::Variable,
};

use parts::{Part, near_misses, parts};

/// Largest template, in bytes.
const TEMPLATE_BYTES_MAX: u64 = 1024 * 1024;
/// Near misses told of one template.
const NEAR_MISSES_SHOWN: usize = 10;
/// Largest rendered file, in bytes: a placeholder of 5 bytes can stand for a value of 64 KiB.
const RENDERED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A template that was read, and where it goes.
pub(super) struct Template {
    path: PathBuf,
    text: String,
    /// Where it is rendered to.
    pub(super) target: Target,
}

/// Reads templates, every one of them or none.
pub(super) fn read(templates: &[TemplateArg]) -> Result<Vec<Template>, Failure> {
    let mut read = Vec::with_capacity(templates.len());
    let mut problems = Vec::new();
    let mut identities = Vec::new();
    for TemplateArg { template, target } in templates {
        match read_one(template) {
            Ok((text, identity)) => {
                identities.push(identity);
                let target = Target { path: target.clone(), not: Vec::new() };
                read.push(Template { path: template.clone(), text, target });
            }
            Err(problem) => problems.push(format!("--template {}: {problem}", template.display())),
        }
    }
    read.iter_mut().for_each(|template| template.target.not.clone_from(&identities));
    Failure::unless_empty(Exit::Usage, problems).map(|()| read)
}

/// Whether every name of every template is there, and none is written so that it would be left as it stands.
pub(super) fn check<V>(templates: &[Template], secrets: &[Variable<V>]) -> Result<(), Failure> {
    let mut missing = Vec::new();
    let mut near = Vec::new();
    for template in templates {
        let misses = near_misses(&template.text, |name| find(secrets, name).is_some());
        let place = |miss: parts::NearMiss<'_>| format!("--template {}: {}", template.path.display(), miss.advice());
        near.extend(misses.into_iter().take(NEAR_MISSES_SHOWN).map(place));
        let unknown = template.names().into_iter().filter(|name| find(secrets, name.as_str()).is_none());
        missing.extend(unknown.map(|name: VariableName| {
            format!("{name}: named by the template {}, but there is no such secret", template.path.display())
        }));
    }
    Failure::unless_empty(Exit::Usage, near)?;
    Failure::unless_empty(Exit::Missing, missing)
}

impl Template {
    /// Whether it is not too large once it is rendered, and may be written where it goes.
    pub(super) fn check(&self, secrets: &[Variable<SecretValue>]) -> Result<(), Failure> {
        if self.bytes(secrets) > RENDERED_BYTES_MAX {
            let problem = format!("--template {}: more than 16 MiB when rendered", self.path.display());
            return Err(Failure::new(Exit::Refused, problem));
        }
        self.target.check()
    }

    /// The secrets it holds.
    pub(super) fn names(&self) -> BTreeSet<VariableName> {
        let name = |part| match part {
            Part::Value(name, _) => VariableName::parse(name).ok(),
            Part::Text(_) => None,
        };
        parts(&self.text).filter_map(name).collect()
    }

    fn bytes(&self, secrets: &[Variable<SecretValue>]) -> usize {
        let mut bytes = 0;
        self.write(secrets, &mut |part| bytes += part.len());
        bytes
    }

    /// Writes it with its placeholders replaced. Values are not looked at again. [`check`] has found every name.
    pub(super) fn render(&self, secrets: &[Variable<SecretValue>]) -> Result<(), Failure> {
        // The exact capacity, so that no copy of a value is left behind while it grows.
        let mut rendered = Zeroizing::new(String::with_capacity(self.bytes(secrets)));
        self.write(secrets, &mut |part| rendered.push_str(part));
        self.target.write(rendered.as_bytes())
    }

    fn write(&self, secrets: &[Variable<SecretValue>], sink: &mut impl FnMut(&str)) {
        for part in parts(&self.text) {
            match part {
                Part::Text(text) => sink(text),
                Part::Value(name, form) => {
                    if let Some(secret) = find(secrets, name) {
                        form.write(secret.value.expose(), sink);
                    }
                }
            }
        }
    }
}

fn find<'a, V>(secrets: &'a [Variable<V>], name: &str) -> Option<&'a Variable<V>> {
    secrets.iter().find(|secret| secret.name.as_str() == name)
}

/// The text, and which file it is. A link is followed: that is how a ConfigMap's files are mounted.
fn read_one(path: &Path) -> Result<(String, place::Identity), String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    // O_NONBLOCK: opening a FIFO must not wait for a writer; it is refused below.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("must be a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(TEMPLATE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > TEMPLATE_BYTES_MAX {
        return Err("must be at most 1 MiB".to_owned());
    }
    let text = text::decode(&bytes).map_err(|error| error.to_string())?;
    Ok((text.to_owned(), place::Identity::of(&metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::received::tests::secrets;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    struct Case {
        root: tempfile::TempDir,
    }

    impl Case {
        fn new(template: impl AsRef<[u8]>) -> Self {
            let root = tempfile::tempdir().expect("a directory");
            fs::write(root.path().join("in"), template).expect("written");
            Self { root }
        }

        fn run(&self, pairs: &[(&str, &str)]) -> Result<String, Failure> {
            let path = |name| self.root.path().join(name);
            let templates = read(&[TemplateArg { template: path("in"), target: path("out") }])?;
            let secrets = secrets(pairs);
            check(&templates, &secrets)?;
            templates[0].check(&secrets)?;
            templates[0].render(&secrets)?;
            assert_eq!(fs::metadata(path("out")).expect("there").permissions().mode() & 0o7777, 0o400);
            Ok(fs::read_to_string(path("out")).expect("text"))
        }
    }

    #[test]
    fn placeholders_become_values_once() {
        let case = Case::new("a={{A}} b={{ B }} {{{{A}} {A} {{a}} {{A\n");
        let rendered = case.run(&[("A", "{{B}}"), ("B", "ü\n")]).expect("rendered");
        assert_eq!(rendered, "a={{B}} b=ü\n {{A}} {A} {{a}} {{A\n");
        assert_eq!(case.run(&[("A", "1"), ("B", "2")]).expect("again"), "a=1 b=2 {{A}} {A} {{a}} {{A\n");
    }

    #[test]
    fn a_value_is_written_in_the_form_of_its_file() {
        let case = Case::new("{\"a\": {{A|json}}}\nA={{ A | sh }}\nurl: https://u:{{A|url}}@h/\n");
        let rendered = case.run(&[("A", "p\"'\n/")]).expect("rendered");
        assert_eq!(rendered, "{\"a\": \"p\\\"'\\n/\"}\nA='p\"'\\''\n/'\nurl: https://u:p%22%27%0A%2F@h/\n");
        assert_eq!(Case::new("{{X|json}}").run(&[]).expect_err("unknown").exit(), Exit::Missing);
    }

    #[test]
    fn a_near_miss_is_refused_and_nothing_written() {
        let case = Case::new("{{A}}\n{{ A}}\n{{.A}} {{A|yml}}");
        let failure = case.run(&[("A", "hunter2")]).expect_err("refused");
        assert_eq!(failure.exit(), Exit::Usage);
        let problems: Vec<_> = failure.problems().collect();
        assert!(problems.len() == 3 && problems[0].contains("line 2: A is no placeholder"), "{problems:?}");
        assert!(!problems.concat().contains("hunter2") && !case.root.path().join("out").exists());
        assert!(case.run(&[("B", "hunter2")]).is_err(), "A is missing");
        assert_eq!(Case::new("{{ .A }}").run(&[("B", "1")]).expect("another's braces"), "{{ .A }}");
    }

    #[test]
    fn every_unknown_name_is_told_and_nothing_written() {
        let case = Case::new("{{A}}{{X}}{{Y}}{{X}}");
        let failure = case.run(&[("A", "hunter2")]).expect_err("refused");
        assert_eq!(failure.exit(), Exit::Missing);
        let problems: Vec<_> = failure.problems().collect();
        assert!(
            problems.len() == 2 && problems[0].starts_with("X: ") && problems[1].starts_with("Y: "),
            "{problems:?}"
        );
        assert!(!case.root.path().join("out").exists());
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for content in [vec![b'a'; 1024 * 1024 + 1], vec![0xff]] {
            assert_eq!(Case::new(content).run(&[]).expect_err("refused").exit(), Exit::Usage);
        }
        assert_eq!(Case::new(vec![b'a'; 1024 * 1024]).run(&[]).expect("accepted").len(), 1024 * 1024);
        let case = Case::new("");
        fs::remove_file(case.root.path().join("in")).expect("removed");
        assert_eq!(case.run(&[]).expect_err("none").exit(), Exit::Usage);
        fs::create_dir(case.root.path().join("in")).expect("made");
        assert_eq!(case.run(&[]).expect_err("a directory").exit(), Exit::Usage);
    }

    #[test]
    fn a_bomb_is_not_rendered() {
        let value = "x".repeat(64 * 1024);
        assert_eq!(Case::new("{{A}}".repeat(257)).run(&[("A", &value)]).expect_err("refused").exit(), Exit::Refused);
    }

    #[test]
    fn the_template_is_not_overwritten() {
        let case = Case::new("{{A}}");
        fs::hard_link(case.root.path().join("in"), case.root.path().join("out")).expect("linked");
        let failure = case.run(&[("A", "v")]).expect_err("refused");
        assert!(failure.problems().any(|problem| problem.contains("is a template itself")), "{failure:?}");
    }
}
