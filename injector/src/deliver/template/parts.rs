//! The parts of the injector's templates: texts and placeholders as `coffer.v1.Templates` defines them, and besides
//! `{{NAME|form}}`. It stands here only, where values go into files; an API that fills headers has no use for it.

use coffer_proto::{
    limits,
    name::VariableName,
    template::{Piece, pieces},
};

use super::form::{FORMS, Form};

/// Longest thing in braces that is looked at, in bytes: a name, and what people write around one.
const BRACES_BYTES_MAX: usize = limits::SECRET_NAME_BYTES + 64;
const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// A part of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Stands for itself.
    Text(&'a str),
    /// Stands for the value of this name, in this form.
    Value(&'a str, Form),
}

/// The parts of a template, in order.
pub(super) fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    pieces(text).flat_map(|piece| match piece {
        Piece::Text(text) => with_forms(text),
        Piece::Placeholder(name) => vec![Part::Value(name, Form::Plain)],
    })
}

/// Something in braces that is no placeholder, although it names a secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NearMiss<'a> {
    /// Counted from 1.
    pub(super) line: usize,
    /// The secret.
    pub(super) name: &'a str,
    /// Whether the word behind the bar is what is wrong.
    pub(super) has_form: bool,
}

impl NearMiss<'_> {
    /// What to write instead.
    pub(super) fn advice(&self) -> String {
        let Self { line, name, has_form } = self;
        let what = match has_form {
            true => format!("has a form that there is not; there are {FORMS}, as in {{{{{name}|json}}}}"),
            false => format!("is no placeholder as it stands there; write {{{{{name}}}}}"),
        };
        format!("line {line}: {name} {what}, or {{{{{{{{ for braces that stay")
    }
}

/// Where a template nearly has a placeholder for a secret that there is: it would go out as it stands.
pub(super) fn near_misses<'a>(text: &'a str, is_secret: impl Fn(&str) -> bool) -> Vec<NearMiss<'a>> {
    let place = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
    let (mut found, mut line, mut counted) = (Vec::new(), 1, 0);
    for part in parts(text) {
        let Part::Text(part) = part else { continue };
        for (at, _) in part.match_indices(OPEN) {
            let Some(inner) = inner(&part[at + OPEN.len()..]) else { continue };
            let (path, form) = inner.split_once('|').map_or((inner, None), |(path, form)| (path, Some(form)));
            let name = path.rsplit('.').next().unwrap_or_default().trim_matches(|c: char| !is_name_char(c));
            if !is_secret(name) {
                continue;
            }
            let until = place(part) + at;
            line += text[counted..until].matches('\n').count();
            counted = until;
            let is_good_path = [name, &format!(" {name} "), &format!(" {name}")].contains(&path);
            found.push(NearMiss { line, name, has_form: form.is_some() && is_good_path });
        }
    }
    found
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Returns what stands before the next closing braces, if they are near and in the same line.
fn inner(text: &str) -> Option<&str> {
    let near = text.char_indices().nth(BRACES_BYTES_MAX).map_or(text, |(end, _)| &text[..end]);
    let end = near.find(CLOSE)?;
    let inner = &near[..end];
    (!inner.contains(['\n', '{'])).then_some(inner)
}

fn with_forms(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest, mut from) = (Vec::new(), text, 0);
    while let Some(open) = rest[from..].find(OPEN).map(|at| from + at) {
        match formed(&rest[open..]) {
            Some((value, length)) => {
                parts.extend((open > 0).then_some(Part::Text(&rest[..open])));
                parts.push(value);
                (rest, from) = (&rest[open + length..], 0);
            }
            None => from = open + 1,
        }
    }
    parts.extend((!rest.is_empty()).then_some(Part::Text(rest)));
    parts
}

/// `{{NAME|form}}`, `{{ NAME|form }}` or `{{ NAME | form }}`, and how long it is.
fn formed(text: &str) -> Option<(Part<'_>, usize)> {
    let inner = inner(&text[OPEN.len()..])?;
    let (name, form) = inner.split_once('|')?;
    let (name, form) = match (name.strip_prefix(' '), form.strip_suffix(' ')) {
        (Some(name), Some(form)) => match (name.strip_suffix(' '), form.strip_prefix(' ')) {
            (Some(name), Some(form)) => (name, form),
            _ => (name, form),
        },
        (None, None) => (name, form),
        _ => return None,
    };
    let form = Form::parse(form)?;
    VariableName::parse(name).ok()?;
    Some((Part::Value(name, form), OPEN.len() + inner.len() + CLOSE.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        parts(text)
            .map(|part| match part {
                Part::Text(text) => text.to_owned(),
                Part::Value(name, form) => format!("<{name}:{form:?}>"),
            })
            .collect()
    }

    #[test]
    fn a_form_stands_behind_a_bar() {
        for (text, expected) in [
            ("{{A}} {{ B }}", "<A:Plain> <B:Plain>"),
            ("{{A|json}}{{A|toml}}{{A|yaml}}", "<A:Json><A:Json><A:Json>"),
            ("x{{ A|sh }}y{{ A | url }}z", "x<A:Shell>y<A:Url>z"),
            ("{{{A|json}}}", "{<A:Json>}"),
            ("{{{{A|json}}", "{{A|json}}"),
            ("{{x{{A|json}}", "{{x<A:Json>"),
            ("{{A|jsn}}", "{{A|jsn}}"),
            ("{{A |json}}", "{{A |json}}"),
            ("{{ A|json}}", "{{ A|json}}"),
            ("{{a|json}}", "{{a|json}}"),
            ("{{A|json", "{{A|json"),
            ("{{A\n|json}}", "{{A\n|json}}"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn a_near_miss_of_a_secret_is_found() {
        let names =
            |text: &str| near_misses(text, |name| name == "TOKEN").iter().map(|miss| miss.line).collect::<Vec<_>>();
        for near in [
            "{{ TOKEN}}",
            "{{TOKEN }}",
            "{{  TOKEN  }}",
            "{{\tTOKEN\t}}",
            "{{.TOKEN}}",
            "{{ .Env.TOKEN }}",
            "{{secrets.TOKEN}}",
            "{{$TOKEN}}",
            "{{\"TOKEN\"}}",
            "{{-TOKEN-}}",
            "{{TOKEN|yml}}",
            "{{ TOKEN|json}}",
            "{{TOKEN | json}}",
        ] {
            assert_eq!(names(&format!("a\n{near}\n\n{near}")), [2, 4], "{near}");
        }
        for other in [
            "{{TOKEN}}",
            "{{ TOKEN }}",
            "{{TOKEN|json}}",
            "{{{{.TOKEN}}",
            "{{ .OTHER }}",
            "{{token}}",
            "{{ TOKEN",
            "{TOKEN}",
            "${TOKEN}",
            "{{\nTOKEN\n}}",
            "{{ range .TOKEN.LIST }}",
        ] {
            assert_eq!(names(other), [0; 0], "{other}");
        }
    }

    #[test]
    fn the_advice_says_what_to_write() {
        let advice = |text: &str| near_misses(text, |name| name == "A").first().expect("one").advice();
        assert_eq!(
            advice("{{ A}}"),
            "line 1: A is no placeholder as it stands there; write {{A}}, or {{{{ for braces that stay"
        );
        assert!(advice("{{A|yml}}").contains("there are json, toml, yaml, sh and url"));
    }

    #[test]
    fn megabytes_of_braces_are_read() {
        for text in ["{{A|".repeat(256 * 1024), "{".repeat(1024 * 1024 - 1), "{{ A}}".repeat(170 * 1024)] {
            assert!(parts(&text).count() > 0 && near_misses(&text, |_| false).is_empty());
        }
    }

    proptest! {
        #[test]
        fn what_is_text_stays(text in "[{}A| \nj]{0,40}|(\\{\\{[ A|.jsonh]{0,9}\\}\\}){0,5}") {
            let plain: String = parts(&text).map(|part| match part {
                Part::Text(text) => text.to_owned(),
                Part::Value(..) => "\u{1}".to_owned(),
            }).collect();
            near_misses(&text, |name| name == "A");
            let is_itself = plain == text.replace("{{{{", "{{");
            let has_value = plain.contains('\u{1}');
            prop_assert!(has_value || is_itself);
        }
    }
}
