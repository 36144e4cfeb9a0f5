//! Resolves placeholders with a workload's environment, by the rules of where the text goes.

use std::collections::BTreeMap;

use coffer_proto::{
    limits,
    name::{VariableName, Workload},
    template::{Piece, pieces},
    value::SecretValue,
};
use zeroize::Zeroizing;

use super::{
    Call, Environment, Error, Vault, call::named, environment::named_or_own, fields::Fields, read::Answer,
    secrets::subject,
};
use crate::{access, view::OwnedSecret};

/// Where a rendered text goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// A header of a request to this host, in lower case, if one was named.
    Header(Option<String>),
    /// A model reads it.
    Instruction,
}

/// Texts to render.
pub struct Template {
    /// As they were given.
    pub texts: Vec<String>,
    /// What for.
    pub sink: Sink,
}

/// Texts with their placeholders resolved.
pub struct Rendered {
    /// In the order of the request.
    pub texts: Vec<Zeroizing<Vec<u8>>>,
    /// Of the environment.
    pub revision: String,
}

/// Why a template cannot be rendered: everything, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unrenderable {
    /// The environment does not have these.
    pub unknown: Vec<VariableName>,
    /// Their values have control characters.
    pub unsafe_in_header: Vec<VariableName>,
    /// They are for other hosts.
    pub for_other_hosts: Vec<VariableName>,
    /// A model may not read them.
    pub not_for_instructions: Vec<VariableName>,
}

impl Unrenderable {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Template {
    /// Checks the fields of a request. A host is no pattern, and only a header has one.
    pub fn check(&self, fields: &mut Fields) {
        if self.texts.len() > limits::TEXTS {
            fields.wrong("texts", "must be at most 1,000");
        }
        if let Sink::Header(Some(host)) = &self.sink {
            fields.host("destination_host", host);
        }
    }

    /// The names, with how often each is there; and how many bytes stand for themselves.
    fn placeholders(&self) -> (BTreeMap<VariableName, u64>, u64) {
        let (mut names, mut bytes) = (BTreeMap::<_, u64>::new(), 0);
        for piece in self.texts.iter().flat_map(|text| pieces(text)) {
            match piece {
                Piece::Text(text) => bytes += text.len() as u64,
                Piece::Placeholder(name) => {
                    if let Ok(name) = VariableName::parse(name) {
                        *names.entry(name).or_default() += 1;
                    }
                }
            }
        }
        (names, bytes)
    }

    fn rendered(&self, values: &BTreeMap<VariableName, SecretValue>) -> Vec<Zeroizing<Vec<u8>>> {
        let values: BTreeMap<&str, &SecretValue> = values.iter().map(|(name, value)| (name.as_str(), value)).collect();
        let bytes = |piece: Piece<'_>| match piece {
            Piece::Text(text) => text.len(),
            Piece::Placeholder(name) => values.get(name).map_or(0, |value| value.bytes()),
        };
        let render = |text: &String| {
            // Of its final size, so that growing leaves no copies behind.
            let mut rendered = Zeroizing::new(Vec::with_capacity(pieces(text).map(bytes).sum()));
            for piece in pieces(text) {
                match piece {
                    Piece::Text(text) => rendered.extend_from_slice(text.as_bytes()),
                    Piece::Placeholder(name) => {
                        rendered.extend_from_slice(values.get(name).map_or(&[], |value| value.expose().as_bytes()));
                    }
                }
            }
            rendered
        };
        self.texts.iter().map(render).collect()
    }
}

impl Vault {
    /// Renders texts with a workload's environment, all or none. `None` names the caller itself.
    pub async fn render_template(
        &self,
        call: &Call,
        workload: Option<Workload>,
        template: Result<Template, Error>,
    ) -> Result<Rendered, Error> {
        let names = workload.iter().map(ToString::to_string).collect();
        let placeholders = template.as_ref().map(Template::placeholders).unwrap_or_default();
        let (template, secrets, mut wrong, revision) = self
            .read(call, names, |state, caller| {
                let workload = named_or_own(workload, caller)?;
                let permit = access::permit_inject(state, caller, &workload).ok_or(Error::Denied)?;
                let template = template?;
                let mut environment = Environment::of(state, workload.scope());
                let revision = environment.revision(state)?;
                let (placeholders, mut bytes) = placeholders;
                let (mut secrets, mut wrong) = (BTreeMap::new(), Unrenderable::default());
                for (name, times) in placeholders {
                    let Some(secret) = environment.effective.remove(&name) else {
                        wrong.unknown.push(name);
                        continue;
                    };
                    bytes = bytes.saturating_add(times.saturating_mul(secret.entry.meta.value_bytes));
                    match &template.sink {
                        Sink::Header(host) if !is_for_host(&secret, host.as_deref()) => {
                            wrong.for_other_hosts.push(name.clone());
                        }
                        Sink::Instruction if !is_for_instructions(&secret) => {
                            wrong.not_for_instructions.push(name.clone());
                        }
                        Sink::Header(_) | Sink::Instruction => {}
                    }
                    secrets.insert(name, secret);
                }
                if bytes > limits::RENDERED_BYTES as u64 {
                    return Err(Error::field("texts", "must be at most 2 MiB when they are rendered"));
                }
                let rendered = secrets.values().filter(|_| wrong.is_empty());
                let subjects: Vec<_> = std::iter::once(named(&workload))
                    .chain(rendered.map(|secret: &OwnedSecret| subject(&secret.name(), &secret.entry.meta)))
                    .collect();
                let values_leave = wrong.is_empty();
                let mut answer = Answer::new(&permit, (template, secrets, wrong, revision)).about(subjects);
                answer.values_leave = values_leave;
                Ok(answer)
            })
            .await?;
        let store = self.0.view.store();
        let mut values = BTreeMap::new();
        for (name, secret) in &secrets {
            values.insert(name.clone(), secret.open(store)?);
        }
        if matches!(template.sink, Sink::Header(_)) {
            let is_unsafe = |value: &SecretValue| value.expose().chars().any(char::is_control);
            wrong
                .unsafe_in_header
                .extend(values.iter().filter(|(_, value)| is_unsafe(value)).map(|(name, _)| name.clone()));
        }
        if !wrong.is_empty() {
            return Err(Error::Unrenderable(Box::new(wrong)));
        }
        self.rendered(secrets.values());
        Ok(Rendered { texts: template.rendered(&values), revision })
    }
}

/// A secret with hosts of its own goes to those only.
fn is_for_host(secret: &OwnedSecret, host: Option<&str>) -> bool {
    let allowed = &secret.entry.meta.allowed_hosts;
    allowed.is_empty() || host.is_some_and(|host| allowed.iter().any(|pattern| covers(pattern, host)))
}

/// `*.example.com` is every host below example.com, and not itself.
fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern.eq_ignore_ascii_case(host),
        Some(below) => {
            let at = host.len().checked_sub(below.len()).filter(|at| *at > 0);
            at.and_then(|at| host.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(below))
        }
    }
}

fn is_for_instructions(secret: &OwnedSecret) -> bool {
    secret.is_plain() || secret.entry.meta.allow_in_instructions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_every_host_below() {
        for (pattern, host) in [
            ("example.com", "example.com"),
            ("example.com", "EXAMPLE.com"),
            ("*.example.com", "a.example.com"),
            ("*.Example.com", "a.b.eXample.com"),
        ] {
            assert!(covers(pattern, host), "{pattern} {host}");
        }
        for (pattern, host) in [
            ("example.com", "a.example.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", ".example.com"),
            ("*.example.com", "badexample.com"),
            ("*.example.com", "a.example.com.evil.org"),
            ("*.example.com", ""),
        ] {
            assert!(!covers(pattern, host), "{pattern} {host}");
        }
    }
}
