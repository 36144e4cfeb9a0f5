//! Searching files for a value that must not be there, in every shape it could hide in.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

/// How a value could show: raw, in hex of both cases, and in base64 at each of its three alignments.
pub(crate) fn forms_of(value: &str) -> Vec<Vec<u8>> {
    let bytes = value.as_bytes();
    let hex = bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    // As Debug of a byte slice would print it.
    let numbers = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let mut forms = vec![bytes.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes(), numbers.into_bytes()];
    for skip in 0..3 {
        let whole = &bytes[skip..skip + (bytes.len() - skip) / 3 * 3];
        forms.push(STANDARD_NO_PAD.encode(whole).into_bytes());
    }
    forms
}

/// Where any of the forms stands in a file below a directory.
pub(crate) fn occurrences(directory: &Path, forms: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
        } else if metadata.is_file() {
            let bytes = fs::read(&path).expect("readable");
            let held = forms.iter().filter(|form| holds(&bytes, form));
            found.extend(held.map(|form| format!("{}: {}", path.display(), String::from_utf8_lossy(form))));
        }
    }
    found
}

/// Whether the bytes hold the form.
pub(crate) fn holds(bytes: &[u8], form: &[u8]) -> bool {
    bytes.windows(form.len()).any(|window| window == form)
}

#[test]
fn a_planted_value_is_found_in_every_form() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let value = "planted-Xy7-value-0123456789";
    let shapes = [
        format!("..{value}.."),
        value.bytes().map(|b| format!("{b:02x}")).collect(),
        value.bytes().map(|b| format!("{b:02X}")).collect(),
        format!("{:?}", value.as_bytes()),
        base64::engine::general_purpose::STANDARD.encode(value),
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("a{value}")),
        base64::engine::general_purpose::STANDARD.encode(format!("ab{value}cd")),
    ];
    fs::create_dir(directory.path().join("below")).expect("made");
    for (number, shape) in shapes.iter().enumerate() {
        fs::write(directory.path().join(format!("below/{number}")), shape).expect("written");
    }
    let found = occurrences(directory.path(), &forms_of(value));
    for (number, shape) in shapes.iter().enumerate() {
        assert!(found.iter().any(|at| at.contains(&format!("below/{number}: "))), "{shape} is missed");
    }
    assert!(occurrences(directory.path(), &forms_of("another-value-0123456789")).is_empty());
}
