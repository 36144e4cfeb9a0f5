//! Which lines are shown.

use std::time::{Duration, SystemTime};

use clap::ValueEnum;

use crate::audit::read::Shown;

/// The flags that choose.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Flags {
    /// Of this principal; ending in `/`, of all whose names begin so
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// About this name; ending in `/`, about all that begin so
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Of this method: CreateSecret, coffer.v1.Secrets/CreateSecret, or coffer.v1.Secrets/ for all of a service
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// From this time on: 2026-01-31T12:00:00Z, or 2h or 7d ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Of these phases; may be repeated
    #[arg(long, value_name = "PHASE", value_enum)]
    phase: Vec<PhaseName>,
}

/// Where in a call, or in a chain, a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PhaseName {
    /// Before a change
    Intent,
    /// A change that was made
    Done,
    /// A change that was allowed but not made
    Failed,
    /// An answer that hands something out
    Read,
    /// A call that was refused
    Refused,
    /// The first line of a server's start
    Begin,
    /// The first line of a file after the first
    Continued,
    /// The last line of a server that ended in good order
    End,
}

impl PhaseName {
    fn as_str(self) -> &'static str {
        match self {
            PhaseName::Intent => "intent",
            PhaseName::Done => "done",
            PhaseName::Failed => "failed",
            PhaseName::Read => "read",
            PhaseName::Refused => "refused",
            PhaseName::Begin => "begin",
            PhaseName::Continued => "continued",
            PhaseName::End => "end",
        }
    }
}

/// The same, understood.
#[derive(Debug)]
pub(super) struct Filter {
    flags: Flags,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
}

impl Filter {
    /// What is wrong with the flags, one text each.
    pub(super) fn new(flags: Flags, now: SystemTime) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let mut time = |flag: &str, text: &Option<String>| {
            let text = text.as_deref()?;
            let time = parse_time(text, now);
            if time.is_none() {
                mistakes
                    .push(format!("{flag} must be a time such as 2026-01-31T12:00:00Z, or 2h or 7d for so long ago"));
            }
            time
        };
        let (since, until) = (time("--since", &flags.since), time("--until", &flags.until));
        if mistakes.is_empty() { Ok(Self { flags, since, until }) } else { Err(mistakes) }
    }

    pub(super) fn has(&self, line: &Shown) -> bool {
        let Flags { principal, name, method, phase, .. } = &self.flags;
        let is_of = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| matches(wanted, text));
        is_of(principal, &line.principal)
            && (name.is_none() || line.subjects.iter().any(|subject| is_of(name, &subject.name)))
            && (is_of(method, &line.method) || line.method.rsplit('/').next() == method.as_deref())
            && (phase.is_empty() || phase.iter().any(|phase| phase.as_str() == line.phase))
            && self.is_in_time(line)
    }

    fn is_in_time(&self, line: &Shown) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let Ok(time) = humantime::parse_rfc3339(&line.time) else { return false };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }
}

/// Exactly, or by a beginning that ends in `/`.
fn matches(wanted: &str, text: &str) -> bool {
    text == wanted || (wanted.ends_with('/') && text.starts_with(wanted))
}

fn parse_time(text: &str, now: SystemTime) -> Option<SystemTime> {
    let ago = |text| humantime::parse_duration(text).ok().and_then(|ago: Duration| now.checked_sub(ago));
    humantime::parse_rfc3339_weak(text).ok().or_else(|| ago(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::read::ShownSubject;

    fn line() -> Shown {
        Shown {
            time: "2026-01-31T12:00:00.000001Z".to_owned(),
            phase: "done".to_owned(),
            method: "coffer.v1.Secrets/CreateSecret".to_owned(),
            principal: "users/ann".to_owned(),
            subjects: vec![
                ShownSubject { name: "projects/p/secrets/A".to_owned() },
                ShownSubject { name: "projects/q".to_owned() },
            ],
            ..Shown::default()
        }
    }

    fn is_shown(flags: Flags) -> bool {
        let now = humantime::parse_rfc3339("2026-01-31T14:00:00Z").expect("a time");
        Filter::new(flags, now).expect("good flags").has(&line())
    }

    #[test]
    fn each_flag_chooses() {
        let some = |text: &str| Some(text.to_owned());
        assert!(is_shown(Flags::default()));
        for (text, shown) in
            [("users/ann", true), ("users/", true), ("users/an", false), ("services/", false), ("", false)]
        {
            assert_eq!(is_shown(Flags { principal: some(text), ..Flags::default() }), shown, "{text}");
        }
        for (text, shown) in [
            ("projects/p/secrets/A", true),
            ("projects/p/", true),
            ("projects/q", true),
            ("projects/p", false),
            ("projects/r/", false),
        ] {
            assert_eq!(is_shown(Flags { name: some(text), ..Flags::default() }), shown, "{text}");
        }
        for (text, shown) in [
            ("CreateSecret", true),
            ("coffer.v1.Secrets/CreateSecret", true),
            ("coffer.v1.Secrets/", true),
            ("Secrets/CreateSecret", false),
            ("DeleteSecret", false),
        ] {
            assert_eq!(is_shown(Flags { method: some(text), ..Flags::default() }), shown, "{text}");
        }
        assert!(is_shown(Flags { phase: vec![PhaseName::Read, PhaseName::Done], ..Flags::default() }));
        assert!(!is_shown(Flags { phase: vec![PhaseName::Read], ..Flags::default() }));
    }

    #[test]
    fn times_are_absolute_or_ago_and_until_is_exclusive() {
        let some = |text: &str| Some(text.to_owned());
        for (since, until, shown) in [
            (some("3h"), None, true),
            (some("1h 59m"), None, false),
            (some("2026-01-31T12:00:00Z"), None, true),
            (some("2026-01-31 12:00:01"), None, false),
            (None, some("2026-01-31T12:00:00.000001Z"), false),
            (None, some("1h"), true),
            (None, some("7d"), false),
        ] {
            assert_eq!(is_shown(Flags { since, until, ..Flags::default() }), shown);
        }
        let wrong = Flags { since: some("soon"), until: some("2026-13-01T00:00:00Z"), ..Flags::default() };
        assert_eq!(Filter::new(wrong, SystemTime::UNIX_EPOCH).expect_err("no times").len(), 2);
    }
}
