//! Searching for a value that must not be there, in every shape it could hide in.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use aho_corasick::AhoCorasick;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// Shortest run of letters and digits within a value that is looked for by itself, in bytes: whatever is escaped around
/// it, and wherever the rest is cut off.
const RUN_BYTES_MIN: usize = 10;

/// How a value could show: raw, in hex of both cases, as numbers, in base64 of both alphabets at each of its three
/// alignments, escaped for URLs, forms, JSON and Rust, and in UTF-16.
pub(crate) fn forms_of(value: &str) -> Vec<Vec<u8>> {
    let bytes = value.as_bytes();
    let hex = bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    // As Debug of a byte slice would print it.
    let numbers = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let mut forms = vec![bytes.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes(), numbers.into_bytes()];
    for skip in 0..3 {
        let whole = &bytes[skip..skip + (bytes.len() - skip) / 3 * 3];
        forms.push(STANDARD_NO_PAD.encode(whole).into_bytes());
        forms.push(URL_SAFE_NO_PAD.encode(whole).into_bytes());
    }
    for kept in [&b""[..], b"-._~", b"*-._", b"-_.!~*'()"] {
        let upper = percent_encoded(bytes, kept, |b| format!("%{b:02X}"));
        forms.push(upper.replace("%20", "+").into_bytes());
        forms.push(upper.into_bytes());
        forms.push(percent_encoded(bytes, kept, |b| format!("%{b:02x}")).into_bytes());
    }
    let json = serde_json::to_string(value).expect("text");
    for quoted in [json, format!("{value:?}"), format!("\"{}\"", value.escape_default())] {
        forms.push(quoted[1..quoted.len() - 1].into());
    }
    forms.push(value.encode_utf16().flat_map(u16::to_le_bytes).collect());
    forms.push(value.encode_utf16().flat_map(u16::to_be_bytes).collect());
    forms.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

fn percent_encoded(bytes: &[u8], kept: &[u8], escaped: fn(u8) -> String) -> String {
    let one = |&byte: &u8| match byte {
        b if b.is_ascii_alphanumeric() || kept.contains(&b) => char::from(b).to_string(),
        b => escaped(b),
    };
    bytes.iter().map(one).collect()
}

/// Texts that must not be found, each by what it is called.
pub(crate) struct Planted {
    forms: AhoCorasick,
    names: Vec<String>,
}

impl Planted {
    /// Each is looked for in every form, and so is each long part of it.
    pub(crate) fn new<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let (mut forms, mut names) = (Vec::new(), Vec::new());
        for (name, text) in texts {
            let runs = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|run| run.len() >= RUN_BYTES_MIN);
            for form in [text].into_iter().chain(runs).flat_map(forms_of) {
                names.push(format!("{name}: {}", String::from_utf8_lossy(&form)));
                forms.push(form);
            }
        }
        Self { forms: AhoCorasick::new(&forms).expect("short forms"), names }
    }

    /// What of it stands in the bytes, and in which form.
    pub(crate) fn found_in(&self, bytes: &[u8]) -> BTreeSet<&str> {
        self.forms.find_iter(bytes).map(|hit| self.names[hit.pattern()].as_str()).collect()
    }

    /// What of it stands in files below a directory, or in their names.
    pub(crate) fn found_below(&self, directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for (path, bytes) in files_below(directory) {
            let name = path.display().to_string();
            found.extend(self.found_in(&bytes).iter().map(|what| format!("{name}: {what}")));
            found.extend(self.found_in(name.as_bytes()).iter().map(|what| format!("the name {name}: {what}")));
        }
        found
    }
}

/// Where any of the forms stands in a file below a directory.
pub(crate) fn occurrences(directory: &Path, forms: &[Vec<u8>]) -> Vec<String> {
    let search = AhoCorasick::new(forms).expect("short forms");
    let found = |(path, bytes): (PathBuf, Vec<u8>)| {
        let hits: BTreeSet<_> = search.find_iter(&bytes).map(|hit| hit.pattern()).collect();
        let told = hits.into_iter().map(|hit| String::from_utf8_lossy(&forms[hit]));
        told.map(|form| format!("{}: {form}", path.display())).collect::<Vec<_>>()
    };
    files_below(directory).into_iter().flat_map(found).collect()
}

fn files_below(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
        } else if metadata.is_file() {
            let bytes = fs::read(&path).expect("readable");
            files.push((path, bytes));
        }
    }
    files
}

/// Whether the bytes hold the form.
pub(crate) fn holds(bytes: &[u8], form: &[u8]) -> bool {
    bytes.windows(form.len()).any(|window| window == form)
}

#[test]
fn a_planted_value_is_found_in_every_form() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let value = "planted-Xy7?~ \"valué/0123456789";
    let shapes = [
        format!("..{value}.."),
        value.bytes().map(|b| format!("{b:02x}")).collect(),
        value.bytes().map(|b| format!("{b:02X}")).collect(),
        format!("{:?}", value.as_bytes()),
        base64::engine::general_purpose::STANDARD.encode(value),
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("a{value}")),
        base64::engine::general_purpose::STANDARD.encode(format!("ab{value}cd")),
        "planted-Xy7%3F~%20%22valu%C3%A9%2F0123456789".into(),
        "planted-Xy7%3F%7E+%22valu%C3%A9%2F0123456789".into(),
        "planted-Xy7%3f~%20%22valu%c3%a9%2f0123456789".into(),
        r#"planted-Xy7?~ \"valu\u{e9}/0123456789"#.into(),
        serde_json::to_string(value).expect("text"),
    ];
    fs::create_dir(directory.path().join("below")).expect("made");
    for (number, shape) in shapes.iter().enumerate() {
        fs::write(directory.path().join(format!("below/{number}")), shape).expect("written");
    }
    let found = occurrences(directory.path(), &forms_of(value));
    for (number, shape) in shapes.iter().enumerate() {
        assert!(found.iter().any(|at| at.contains(&format!("below/{number}: "))), "{shape} is missed");
    }
    let wide: Vec<_> = value.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cut = "0123456789 is what is left of it".as_bytes();
    let planted = Planted::new([("it", value)]);
    for shape in shapes.iter().map(String::as_bytes).chain([&wide[..], cut]) {
        assert!(!planted.found_in(shape).is_empty(), "{} is missed", String::from_utf8_lossy(shape));
    }
    assert!(planted.found_in(b"planted-Xy7, value, 012345678").is_empty());
    assert!(planted.found_below(directory.path()).len() >= shapes.len());
    assert!(occurrences(directory.path(), &forms_of("another-value-0123456789")).is_empty());
}
