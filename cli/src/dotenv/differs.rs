//! The ways in which others read a `.env` file differently: shells, docker, systemd, and libraries that expand. Nothing is guessed;
//! each place is named, so that whoever imports a file sees that a value is not the one that ran until now.

use std::fmt;

/// A way in which others read a value differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Differs {
    /// Shells and many libraries replace `$NAME` and `$(…)`.
    Expanded,
    /// Docker's `--env-file` and systemd take ` #` into the value.
    Comment,
    /// Shells read escapes in `$'…'`, and a translation in `$"…"`.
    DollarQuoted,
    /// A shell ends the value at `;`, `&` or `|` and runs what follows.
    Commands,
    /// A shell and systemd go on with the next line.
    Continued,
    /// Some libraries read more escapes in double quotes, others none.
    Escape,
    /// Lines that look like other variables: a quote may be missing.
    NamesWithin,
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Differs::Expanded => "`$` is taken as it stands, nothing is expanded",
            Differs::Comment => "the value ends before ` #`; quote it if the rest belongs to it",
            Differs::DollarQuoted => "`$` and the quotes are taken as they stand; a shell would read what is quoted",
            Differs::Commands => "the whole line is one value; a shell would read more than one command",
            Differs::Continued => "the backslash at the end is taken as it stands; others go on with the next line",
            Differs::Escape => "a backslash in double quotes stays, but before n, r, t, \\, \", $ and `; others differ",
            Differs::NamesWithin => "the quoted value has lines that look like variables; is a quote missing?",
        })
    }
}

/// Returns what others read differently in a value without quotes. `is_cut`: a comment followed.
pub(super) fn of_unquoted(value: &str, is_cut: bool) -> Vec<Differs> {
    let is_quoted = |quote: char| {
        let inner = value.strip_prefix('$').and_then(|rest| rest.strip_prefix(quote));
        inner.is_some_and(|inner| inner.ends_with(quote))
    };
    let found = [
        (is_cut, Differs::Comment),
        (is_quoted('\'') || is_quoted('"'), Differs::DollarQuoted),
        (is_expanded(value), Differs::Expanded),
        (has_commands(value), Differs::Commands),
        (value.ends_with('\\'), Differs::Continued),
    ];
    found.into_iter().filter(|(is_there, _)| *is_there).map(|(_, differs)| differs).collect()
}

/// Returns what others read differently in a value over several lines.
pub(super) fn of_lines(value: &str) -> Option<Differs> {
    value.lines().skip(1).any(is_assignment).then_some(Differs::NamesWithin)
}

/// Whether a `$` before this begins what others replace.
pub(super) fn begins_expansion(c: char) -> bool {
    c == '{' || c == '(' || c == '_' || c.is_ascii_alphabetic()
}

fn is_expanded(value: &str) -> bool {
    value.split('$').skip(1).any(|rest| rest.starts_with(begins_expansion))
}

/// Whether something follows a `;`, `&` or `|` that is a command: an assignment, or any word after a blank.
fn has_commands(value: &str) -> bool {
    let mut rest = value;
    while let Some(at) = rest.find([';', '&', '|']) {
        let after = rest[at..].trim_start_matches([';', '&', '|']);
        let command = after.trim_start_matches([' ', '\t']);
        if is_assignment(command) || (command.len() < after.len() && !command.is_empty()) {
            return true;
        }
        rest = after;
    }
    false
}

/// Whether a line begins with `NAME=`, maybe after `export`, as names of variables are written.
fn is_assignment(line: &str) -> bool {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    line.split_once('=').is_some_and(|(name, value)| {
        let name = name.trim_end();
        // Base64 ends so, too.
        let is_padding = value.trim_matches('=').is_empty();
        name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_') && name.chars().all(is_name) && !is_padding
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_without_quotes_is_compared_with_what_a_shell_reads() {
        use Differs::{Commands, Continued, DollarQuoted, Expanded};
        for (value, expected) in [
            ("plain", &[][..]),
            ("spaced out", &[]),
            ("postgres://u:p@h/db?a=1&b=2", &[]),
            ("a;b", &[]),
            ("a|b&c;", &[]),
            ("1; export B=2", &[Commands]),
            ("1;B=2", &[Commands]),
            ("1 && rm x", &[Commands]),
            ("1 | tee log", &[Commands]),
            ("$'a\\nb'", &[DollarQuoted]),
            ("$\"a b\"", &[DollarQuoted]),
            ("$HOME", &[Expanded]),
            ("x${B}y", &[Expanded]),
            ("5$", &[]),
            ("$5", &[]),
            ("C:\\dir\\", &[Continued]),
            ("C:\\dir", &[]),
        ] {
            assert_eq!(of_unquoted(value, false), expected, "{value}");
        }
        assert_eq!(of_unquoted("{\"note\":\"a", true), [Differs::Comment]);
    }

    #[test]
    fn a_missing_quote_is_suspected() {
        for value in ["a\nB=1\nc", "a\n  export B=1", "a\r\nB_2 = x"] {
            assert_eq!(of_lines(value), Some(Differs::NamesWithin), "{value}");
        }
        for value in ["B=1", "a\nb=1", "-----BEGIN\nQUJD=\nQQ==\n-----END", "a\n=\n", "a\n1A=1"] {
            assert_eq!(of_lines(value), None, "{value}");
        }
    }
}
