//! `.env` files, read and written without any expansion: what stands there is the value.
//!
//! The common subset of what dotenv libraries agree on:
//! - `NAME=value`, optionally after `export `; spaces around `=` are ignored; empty lines and lines with `#` are comments.
//! - `'…'` is literal and may span lines.
//! - `"…"` may span lines and knows `\n \r \t \\ \" \$` and `` \` ``; any other backslash stays.
//! - Without quotes the value ends with the line or before ` #`, and is trimmed.
//!
//! Libraries such as dotenvy replace `$NAME` by what the importing machine has there, which would corrupt values. Where
//! others read differently, [`differs`] says so. A carriage return without a line feed ends no line; where it stands
//! outside of quotes, lines would be swallowed, so it is refused.
//! Errors name lines and never values: in a broken file a value may stand where a name is expected, so that whoever reads
//! names says which may be shown.

use std::fmt;

use coffer_proto::{
    name::VariableName,
    value::{InvalidValue, SecretValue},
};
use zeroize::Zeroizing;

pub(crate) mod differs;

use differs::{Differs, begins_expansion};

/// One variable.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Where it begins, counted from 1.
    pub(crate) line: usize,
    /// Its name.
    pub(crate) name: VariableName,
    /// Its value; none if it is empty.
    pub(crate) value: Option<SecretValue>,
    /// How other programs read it differently.
    pub(crate) differs: Vec<Differs>,
}

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Counted from 1.
    pub(crate) line: usize,
    /// What.
    pub(crate) what: What,
}

/// What is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    NoEquals,
    BadName(String),
    BadValue(VariableName, InvalidValue),
    Unclosed(char),
    AfterQuote(VariableName),
    Backtick(VariableName),
    /// In a comment, or in the value of this variable.
    CarriageReturn(Option<VariableName>),
}

/// Makes a name of what stands there, or says what is wrong with it.
pub(crate) type ReadName<'a> = &'a dyn Fn(&str) -> Result<VariableName, String>;

/// Every variable in order, or every mistake.
pub(crate) fn parse(text: &str, read_name: ReadName<'_>) -> Result<Vec<Entry>, Vec<Mistake>> {
    let mut reader = Reader { rest: text, line: 1, read_name };
    let mut entries = Vec::new();
    let mut mistakes = Vec::new();
    while !reader.rest.is_empty() {
        let line = reader.line;
        match reader.statement() {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => {}
            Err(what) => {
                mistakes.push(Mistake { line, what });
                reader.skip_line();
            }
        }
    }
    if mistakes.is_empty() { Ok(entries) } else { Err(mistakes) }
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    read_name: ReadName<'a>,
}

impl<'a> Reader<'a> {
    /// A line, or several if quotes span them. Leaves the reader at the next line, or after an error anywhere before.
    fn statement(&mut self) -> Result<Option<Entry>, What> {
        let line = self.line;
        let current = self.current_line().trim();
        if current.is_empty() || current.starts_with('#') {
            refuse_carriage_return(current, None)?;
            self.skip_line();
            return Ok(None);
        }
        let (left, _) = self.current_line().split_once('=').ok_or(What::NoEquals)?;
        let name = left.trim();
        let name = name.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).map_or(name, str::trim);
        let name = (self.read_name)(name).map_err(What::BadName)?;
        self.take(left.len() + 1);
        let blanks = self.rest.len() - self.rest.trim_start_matches([' ', '\t']).len();
        self.take(blanks);

        let (value, mut differs) = match self.rest.chars().next() {
            Some('\'') => (self.quoted('\'', &name)?, Vec::new()),
            Some('"') => self.double_quoted(&name)?,
            Some('`') => return Err(What::Backtick(name)),
            _ => self.unquoted(blanks > 0, &name)?,
        };
        differs.extend(differs::of_lines(&value));
        let value = match SecretValue::new(value.into_bytes()) {
            Ok(value) => Some(value),
            Err(InvalidValue::Empty) => None,
            Err(error) => return Err(What::BadValue(name, error)),
        };
        Ok(Some(Entry { line, name, value, differs }))
    }

    fn unquoted(&mut self, after_blank: bool, name: &VariableName) -> Result<(String, Vec<Differs>), What> {
        let line = self.current_line();
        refuse_carriage_return(line, Some(name))?;
        let mut end = line.len();
        let mut blank_before = after_blank;
        for (at, c) in line.char_indices() {
            if c == '#' && blank_before {
                end = at;
                break;
            }
            blank_before = c == ' ' || c == '\t';
        }
        let value = line[..end].trim().to_owned();
        let is_cut = end < line.len() && !value.is_empty();
        self.skip_line();
        let differs = differs::of_unquoted(&value, is_cut);
        Ok((value, differs))
    }

    /// Text between two quotes, without a look at what it says.
    fn quoted(&mut self, quote: char, name: &VariableName) -> Result<String, What> {
        let inner = &self.rest[1..];
        let end = inner.find(quote).ok_or(What::Unclosed(quote))?;
        let value = inner[..end].to_owned();
        self.take(end + 2);
        self.end_of_line(name)?;
        Ok(value)
    }

    fn double_quoted(&mut self, name: &VariableName) -> Result<(String, Vec<Differs>), What> {
        let mut value = Zeroizing::new(String::with_capacity(self.rest.len().min(coffer_proto::limits::VALUE_BYTES)));
        let (mut is_expanded, mut has_escapes) = (false, false);
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.take(at + 1);
                    self.end_of_line(name)?;
                    let found = [(is_expanded, Differs::Expanded), (has_escapes, Differs::Escape)];
                    let differs = found.into_iter().filter(|(is_there, _)| *is_there).map(|(_, differs)| differs);
                    return Ok((std::mem::take(&mut *value), differs.collect()));
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 'r')) => value.push('\r'),
                    Some((_, 't')) => value.push('\t'),
                    Some((_, escaped @ ('\\' | '"' | '$' | '`'))) => value.push(escaped),
                    Some((_, other)) => {
                        has_escapes = true;
                        value.extend(['\\', other]);
                    }
                    None => break,
                },
                '$' => {
                    is_expanded |= chars.peek().is_some_and(|(_, next)| begins_expansion(*next));
                    value.push('$');
                }
                other => value.push(other),
            }
        }
        Err(What::Unclosed('"'))
    }

    /// After a closing quote only blanks and a comment may follow.
    fn end_of_line(&mut self, name: &VariableName) -> Result<(), What> {
        let left = self.current_line().trim();
        if left.is_empty() || left.starts_with('#') {
            refuse_carriage_return(left, Some(name))?;
            self.skip_line();
            Ok(())
        } else {
            Err(What::AfterQuote(name.clone()))
        }
    }

    /// Up to the line break, without it and without the carriage return before it.
    fn current_line(&self) -> &'a str {
        self.rest.lines().next().unwrap_or_default()
    }

    fn skip_line(&mut self) {
        let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
        self.take(end);
    }

    fn take(&mut self, bytes: usize) {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
    }
}

/// Of a line, without its end.
fn refuse_carriage_return(line: &str, name: Option<&VariableName>) -> Result<(), What> {
    match line.trim_end().contains('\r') {
        true => Err(What::CarriageReturn(name.cloned())),
        false => Ok(()),
    }
}

const CARRIAGE_RETURN: &str = "a carriage return (CR) ends no line; save the file with LF or CR LF, or quote the value";

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.what {
            What::NoEquals => f.write_str("must be NAME=value, empty, or a comment"),
            What::BadName(rule) => f.write_str(rule),
            What::BadValue(name, error) => write!(f, "{name}: {error}"),
            What::Unclosed(quote) => write!(f, "the {quote} that opens the value is never closed"),
            What::AfterQuote(name) => write!(f, "{name}: only a comment may follow the closing quote"),
            What::Backtick(name) => write!(f, "{name}: backticks do not quote; use ' or \""),
            What::CarriageReturn(None) => f.write_str(CARRIAGE_RETURN),
            What::CarriageReturn(Some(name)) => write!(f, "{name}: {CARRIAGE_RETURN}"),
        }
    }
}

/// `NAME=value` with quotes, read back by [`parse`] as it was. Without `'` in the value also a shell reads it so.
pub(crate) fn write(name: &str, value: &SecretValue, out: &mut String) {
    let value = value.expose();
    out.push_str(name);
    out.push('=');
    if value.contains('\'') {
        out.push('"');
        for c in value.chars() {
            if matches!(c, '\\' | '"' | '$' | '`') {
                out.push('\\');
            }
            out.push(c);
        }
        out.push('"');
    } else {
        out.push('\'');
        out.push_str(value);
        out.push('\'');
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Vec<Entry>, Vec<Mistake>> {
        super::parse(text, &|name| VariableName::parse(name).map_err(|error| format!("the name {error}")))
    }

    fn read(text: &str) -> Vec<(usize, String, String)> {
        let entries = parse(text).expect("no mistakes");
        let value = |entry: &Entry| entry.value.as_ref().map(|v| v.expose().to_owned()).unwrap_or_default();
        entries.iter().map(|entry| (entry.line, entry.name.to_string(), value(entry))).collect()
    }

    fn one(text: &str) -> String {
        let mut entries = read(text);
        assert_eq!(entries.len(), 1, "{text}");
        entries.remove(0).2
    }

    fn mistakes(text: &str) -> Vec<String> {
        parse(text).expect_err("mistakes").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn values_of_every_form() {
        let cases = [
            ("A=value", "value"),
            ("A=", ""),
            ("export A=value", "value"),
            ("export\tA = value ", "value"),
            ("A = spaced out ", "spaced out"),
            ("A=value # comment", "value"),
            ("A=value#no comment", "value#no comment"),
            ("A=#value", "#value"),
            ("A= # comment", ""),
            ("A=it's \"fine\"", "it's \"fine\""),
            ("A=back\\slash\\n", "back\\slash\\n"),
            ("A=$HOME ${HOME} $(id)", "$HOME ${HOME} $(id)"),
            ("A='$HOME \\n \"x\" # y'", "$HOME \\n \"x\" # y"),
            ("A='' # comment", ""),
            ("A=\"\"", ""),
            ("A=\"a\\nb\\r\\t\\\\\\\"\\$\\`\\d\"", "a\nb\r\t\\\"$`\\d"),
            ("A=\"$HOME # x\" # comment", "$HOME # x"),
            ("A=b=c", "b=c"),
            ("A=value\r\n", "value"),
            ("A='a\r\nb'\r\n", "a\r\nb"),
            ("A=ünïcödé 漢", "ünïcödé 漢"),
        ];
        for (text, value) in cases {
            assert_eq!(one(text), value, "{text}");
        }
    }

    #[test]
    fn lines_are_counted_through_quotes() {
        let text = "# comment\n\nKEY=\"-----BEGIN\nline\n-----END\"\nB='x\ny'\n  C=1\n";
        let expected = [(3, "KEY", "-----BEGIN\nline\n-----END"), (6, "B", "x\ny"), (8, "C", "1")];
        let expected: Vec<_> = expected.iter().map(|(l, n, v)| (*l, (*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(read(text), expected);
    }

    #[test]
    fn every_mistake_is_named_without_values() {
        let text = "A=1\nhunter2\nlower=hunter2\nB='hunter2' hunter2\nC=`hunter2`\nD=\"hunter2";
        let found = mistakes(text);
        assert_eq!(found.len(), 5, "{found:?}");
        for (mistake, line) in found.iter().zip(2..) {
            assert!(mistake.starts_with(&format!("line {line}: ")), "{mistake}");
            assert!(!mistake.contains("hunter2") && !mistake.contains("lower"), "{mistake}");
        }
        assert_eq!(found[2], "line 4: B: only a comment may follow the closing quote");
        assert_eq!(mistakes("A=a\0b"), ["line 1: A: must not contain NUL, which an environment variable cannot hold"]);
    }

    #[test]
    fn what_others_read_differently_is_noticed() {
        use Differs::{Commands, Comment, DollarQuoted, Escape, Expanded, NamesWithin};
        let noticed = |text: &str| parse(text).expect("good")[0].differs.clone();
        for (text, expected) in [
            ("A=$HOME", &[Expanded][..]),
            ("A=\"$(id)\"", &[Expanded]),
            ("A=\"a$b\"", &[Expanded]),
            ("A='$HOME'", &[]),
            ("A=\"\\$HOME\"", &[]),
            ("A={\"note\":\"a #b\"}", &[Comment]),
            ("A=x # a comment", &[Comment]),
            ("A= # a comment", &[]),
            ("A=x#y", &[]),
            ("A='x' # a comment", &[]),
            ("A=$'a\\nb'", &[DollarQuoted]),
            ("export A=1; export B=2", &[Commands]),
            ("A=\"\\d\"", &[Escape]),
            ("A=\"\\n\\\\\"", &[]),
            ("A='1\nB=2'", &[NamesWithin]),
            ("A=\"1\nB=2\"", &[NamesWithin]),
            ("A=plain", &[]),
        ] {
            assert_eq!(noticed(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_that_end_with_a_carriage_return_alone_are_refused() {
        for (text, expected) in [
            ("A=hunter2\rB=2\r", "line 1: A: a carriage return"),
            ("# comment\rA=hunter2\r", "line 1: a carriage return"),
            ("A='hunter2' # comment\rB=2", "line 1: A: a carriage return"),
            ("A=1\nB=hunter2\rC=3\n", "line 2: B: a carriage return"),
        ] {
            let found = mistakes(text);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
        }
        assert_eq!(one("A='a\rb'"), "a\rb", "quoted, it belongs to the value");
        assert_eq!(one("A=1\r"), "1");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(?s).{0,200}|([A-C =#'\"\\\\$`\\n\\r\\t]|export){0,60}") {
            if let Err(mistakes) = parse(&text) {
                prop_assert!(!mistakes.is_empty());
                let lines = text.lines().count();
                prop_assert!(mistakes.iter().all(|mistake| (1..=lines).contains(&mistake.line)));
            }
        }

        #[test]
        fn what_is_written_reads_back(values in prop::collection::vec("[^\\x00]{1,60}|[ '\"\\\\$`#\\n\\r\\t=a]{1,20}", 1..4)) {
            let mut text = String::new();
            for (index, value) in values.iter().enumerate() {
                let value = SecretValue::new(value.clone().into_bytes()).expect("a good value");
                write(&format!("NAME_{index}"), &value, &mut text);
            }
            let read: Vec<String> = read(&text).into_iter().map(|(_, _, value)| value).collect();
            prop_assert_eq!(read, values);
        }
    }
}
