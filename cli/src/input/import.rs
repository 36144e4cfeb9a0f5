//! Files of many secrets. Every mistake is named at once, none with a value; each is the caller's, like one on the
//! command line.

use std::collections::BTreeMap;

use coffer_proto::{
    limits,
    name::VariableName,
    text,
    value::{InvalidValue, SecretValue},
};

use super::{
    json::{self, Wrong},
    variable_name::{self, Rename},
    white_space,
};
use crate::{dotenv, failure::Failure};

/// Mistakes shown of one file.
const MISTAKES_SHOWN: usize = 20;
/// Remarks shown of one file.
const NOTES_SHOWN: usize = 20;

/// Largest file, in bytes: what fits one request.
pub(crate) const FILE_BYTES: usize = limits::IMPORT_REQUEST_BYTES;

/// What the server says of such names, too; here with the line.
pub(crate) const RESERVED: &str = "is reserved, because it would run code or redirect the loader";

/// How a file is read.
#[derive(Clone, Copy, Default)]
pub(crate) struct Reading {
    /// Names without a value are left out, rather than mistakes.
    pub(crate) skip_empty: bool,
    /// What becomes of names.
    pub(crate) rename: Option<Rename>,
    /// Objects within the JSON object are read, too.
    pub(crate) nested: bool,
}

/// A secret to be.
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: VariableName,
    /// Its value.
    pub(crate) value: SecretValue,
}

/// What was read so far.
struct Reader<'a> {
    source: &'a str,
    reading: Reading,
    /// Where each name was first.
    seen: BTreeMap<VariableName, String>,
    variables: Vec<Variable>,
    mistakes: Vec<String>,
    notes: Vec<String>,
}

/// The variables of a `.env` file, and remarks about them.
pub(crate) fn dotenv(source: &str, bytes: &[u8], reading: Reading) -> Result<(Vec<Variable>, Vec<String>), Failure> {
    let text = decoded(source, bytes)?;
    let read_name = |name: &str| variable_name::variable(name, reading.rename);
    let entries = dotenv::parse(text, &read_name)
        .map_err(|mistakes| refuse(source, &mistakes.iter().map(ToString::to_string).collect::<Vec<_>>()))?;
    let mut reader = Reader::new(source, reading);
    for dotenv::Entry { line, name, value, differs } in entries {
        let place = format!("line {line}");
        differs.iter().for_each(|differs| reader.note(&place, name.as_str(), &differs.to_string()));
        reader.add(&place, name, value.ok_or(Wrong::Value(InvalidValue::Empty)));
    }
    reader.finish()
}

/// The variables of a JSON object, and remarks about them.
pub(crate) fn json(source: &str, bytes: &[u8], reading: Reading) -> Result<(Vec<Variable>, Vec<String>), Failure> {
    let text = decoded(source, bytes)?;
    let entries = json::read(text, reading.nested).map_err(|mistake| Failure::usage(format!("{source}: {mistake}")))?;
    let mut reader = Reader::new(source, reading);
    for (number, json::Entry { path, value }) in (1..).zip(entries) {
        let place = format!("entry {number}");
        match (variable_name::variable(&path, reading.rename), value) {
            (Ok(name), value) => reader.add(&place, name, value),
            // Its path is no name, because it ends too early.
            (Err(_), Err(wrong @ (Wrong::Object | Wrong::List))) => {
                let shown = variable_name::shown(&path);
                reader.mistakes.push(format!("{place}: {shown}: {wrong}"));
            }
            (Err(mistake), _) => reader.mistakes.push(format!("{place}: {mistake}")),
        }
    }
    reader.finish()
}

impl<'a> Reader<'a> {
    fn new(source: &'a str, reading: Reading) -> Self {
        let (variables, mistakes, notes) = Default::default();
        Self { source, reading, seen: BTreeMap::new(), variables, mistakes, notes }
    }

    fn note(&mut self, place: &str, name: &str, what: &str) {
        self.notes.push(format!("note: {}: {place}: {name}: {what}", self.source));
    }

    fn add(&mut self, place: &str, name: VariableName, value: Result<SecretValue, Wrong>) {
        if let Some(first) = self.seen.get(&name) {
            self.mistakes.push(format!("{place}: {name}: is in {first} already"));
        } else {
            self.seen.insert(name.clone(), place.to_owned());
        }
        if name.is_reserved() {
            self.mistakes.push(format!("{place}: {name}: {RESERVED}"));
        }
        match value {
            Ok(value) => {
                if let Some(what) = white_space::at_the_ends(&value) {
                    self.note(place, name.as_str(), &format!("the value {what}, which is kept"));
                }
                self.variables.push(Variable { name, value });
            }
            Err(Wrong::Value(InvalidValue::Empty)) if self.reading.skip_empty => {
                self.note(place, name.as_str(), "left out, it has no value");
            }
            Err(wrong @ Wrong::Value(InvalidValue::Empty)) => {
                self.mistakes.push(format!("{place}: {name}: {wrong}; --skip-empty leaves it out"));
            }
            Err(wrong) => self.mistakes.push(format!("{place}: {name}: {wrong}")),
        }
    }

    fn finish(self) -> Result<(Vec<Variable>, Vec<String>), Failure> {
        if !self.mistakes.is_empty() {
            Err(refuse(self.source, &self.mistakes))
        } else if self.variables.is_empty() {
            Err(Failure::usage(format!("{}: holds no variable", self.source)))
        } else {
            Ok((self.variables, shortened(self.notes)))
        }
    }
}

fn decoded<'a>(source: &str, bytes: &'a [u8]) -> Result<&'a str, Failure> {
    if bytes.len() > FILE_BYTES {
        return Err(Failure::usage(format!("{source}: must have at most {FILE_BYTES} bytes")));
    }
    text::decode(bytes).map_err(|error| Failure::usage(format!("{source}: {error}")))
}

fn shortened(mut notes: Vec<String>) -> Vec<String> {
    let more = notes.len().saturating_sub(NOTES_SHOWN);
    notes.truncate(NOTES_SHOWN);
    notes.extend((more > 0).then(|| format!("note: and {more} more")));
    notes
}

/// A line for each mistake, under one that counts them.
fn refuse(source: &str, mistakes: &[String]) -> Failure {
    if let [mistake] = mistakes {
        return Failure::usage(format!("{source}: {mistake}")).hint("nothing was imported");
    }
    let shown = mistakes.iter().take(MISTAKES_SHOWN).map(String::as_str);
    let mut lines = vec![format!("{source}: {} mistakes", mistakes.len())];
    lines.extend(shown.map(str::to_owned));
    match mistakes.len().saturating_sub(MISTAKES_SHOWN) {
        0 => {}
        more => lines.push(format!("and {more} more")),
    }
    Failure::usage(lines.join("\n")).hint("nothing was imported")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AS_IT_STANDS: Reading = Reading { skip_empty: false, rename: None, nested: false };

    fn shown(variables: &[Variable]) -> Vec<(String, String)> {
        variables.iter().map(|v| (v.name.to_string(), v.value.expose().to_owned())).collect()
    }

    #[test]
    fn dotenv_mistakes_come_all_at_once() {
        let failure = dotenv("x.env", b"A=hunter2\nB=\nA=hunter3\n", AS_IT_STANDS).err().expect("refused");
        let expected = "x.env: 2 mistakes\nline 2: B: Secret value is required; --skip-empty leaves it out\n\
                        line 3: A: is in line 1 already";
        assert_eq!(failure.message(), expected);
    }

    #[test]
    fn dotenv_notes_name_what_is_special() {
        let (variables, notes) =
            dotenv("x.env", b"A=$HOME\nB=\n", Reading { skip_empty: true, ..AS_IT_STANDS }).expect("accepted");
        assert_eq!(shown(&variables), [("A".to_owned(), "$HOME".to_owned())]);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes.iter().all(|note| !note.contains("HOME")), "{notes:?}");
    }

    #[test]
    fn text_of_windows_is_read_or_called_by_its_name() {
        let (read, _) = dotenv("x", b"\xef\xbb\xbfA=1\r\nB=2\r\n", AS_IT_STANDS).expect("accepted");
        assert_eq!(shown(&read), [("A".into(), "1".into()), ("B".into(), "2".into())]);
        let (read, _) = json("x", b"\xef\xbb\xbf{\"A\": \"1\"}", AS_IT_STANDS).expect("accepted");
        assert_eq!(shown(&read), [("A".into(), "1".into())]);
        for text in ["A=1\r\n", "{\"A\": \"1\"}"] {
            let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            for failure in [dotenv("x", &utf16, AS_IT_STANDS).err(), json("x", &utf16, AS_IT_STANDS).err()] {
                assert_eq!(failure.expect("refused").message(), "x: is UTF-16; save it as UTF-8");
            }
        }
    }

    #[test]
    fn a_long_list_of_notes_is_cut() {
        let text: String = (0..30).map(|at| format!("A{at}=$B\n")).collect();
        let (_, notes) = dotenv("x", text.as_bytes(), AS_IT_STANDS).expect("accepted");
        assert_eq!((notes.len(), notes[20].as_str()), (21, "note: and 10 more"));
    }

    #[test]
    fn json_reads_an_object_of_strings() {
        let (read, notes) = json("x", br#" {"B": "2\n", "A": "1", "C": 3} "#, AS_IT_STANDS).expect("accepted");
        assert_eq!(shown(&read), [("B".into(), "2\n".into()), ("A".into(), "1".into()), ("C".into(), "3".into())]);
        assert_eq!(notes, ["note: x: entry 1: B: the value ends with a line break, which is kept"]);
    }

    #[test]
    fn names_are_made_as_asked_and_clashes_are_told() {
        let renamed = Reading { rename: Some(Rename::UpperSnake), nested: true, ..AS_IT_STANDS };
        let (read, _) = json("x", br#"{"db": {"hostName": "h", "port": 1}}"#, renamed).expect("accepted");
        assert_eq!(shown(&read), [("DB_HOST_NAME".into(), "h".into()), ("DB_PORT".into(), "1".into())]);
        let failure = json("x", br#"{"db": {"host": "h"}, "dbHost": "h"}"#, renamed).err().expect("a clash");
        assert_eq!(failure.message(), "x: entry 2: DB_HOST: is in entry 1 already");
        let (read, _) = dotenv("x", b"api-key=1\n", renamed).expect("accepted");
        assert_eq!(shown(&read), [("API_KEY".into(), "1".into())]);
        let failure = json("x", br#"{"db": {"host": "h"}}"#, AS_IT_STANDS).err().expect("nested");
        assert_eq!(failure.message(), "x: entry 1: db: is an object; --nested reads it");
        let failure = dotenv("x", b"apiKey=1\n", AS_IT_STANDS).err().expect("a name");
        assert!(failure.message().starts_with("x: line 1: apiKey: the name must match"), "{}", failure.message());
    }

    #[test]
    fn json_mistakes_never_quote() {
        let cases = [
            r#"["hunter2"]"#,
            r#"{"A": 12345.5}"#,
            r#"{"A": ["hunter2"]}"#,
            r#"{"A": "hunter2""#,
            r#"{"A": "hunter2"} hunter2"#,
            r#"{"A": "hunter2", "A": "hunter2"}"#,
            r#"{"hunter2": "x"}"#,
            r#"{"A": "hunter2\u0000"}"#,
            r#"{"A": ""}"#,
            "hunter2",
            "",
        ];
        for case in cases {
            let failure = json("x.json", case.as_bytes(), AS_IT_STANDS).err().expect(case);
            assert!(failure.message().starts_with("x.json: "), "{}", failure.message());
            assert!(!failure.message().contains("hunter2") && !failure.message().contains("12345"), "{case}");
        }
    }

    #[test]
    fn reserved_names_and_empty_files_are_refused() {
        let failure = dotenv("x", b"A=1\nLD_PRELOAD=x\n", AS_IT_STANDS).err().expect("refused");
        assert!(failure.message().starts_with("x: line 2: LD_PRELOAD: is reserved"), "{}", failure.message());
        let failure = json("x", br#"{"PATH":"y"}"#, AS_IT_STANDS).err().expect("refused");
        assert!(failure.message().starts_with("x: entry 1: PATH: is reserved"), "{}", failure.message());
        assert_eq!(dotenv("x", b"# nothing\n", AS_IT_STANDS).err().expect("refused").message(), "x: holds no variable");
    }

    #[test]
    fn a_long_list_of_mistakes_is_cut() {
        let text = "nonsense\n".repeat(100);
        let failure = dotenv("x", text.as_bytes(), AS_IT_STANDS).err().expect("refused");
        assert!(failure.message().starts_with("x: 100 mistakes\n"), "{}", failure.message());
        assert!(failure.message().ends_with("\nand 80 more"), "{}", failure.message());
        assert_eq!(failure.message().lines().count(), 22);
    }
}
