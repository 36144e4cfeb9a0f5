//! Makes what a file says safe to print: whoever could write it must not steer the terminal of whoever reads it.

/// Whether a terminal would act on the character, or hide or reorder others because of it.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line of visible text.
pub(crate) fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// The same lines, each of visible text.
pub(crate) fn lines(lines: &str) -> String {
    lines.split('\n').map(text).collect::<Vec<_>>().join("\n")
}

/// The same JSON object, on one line, with what a terminal would act on written as `\uXXXX`.
pub(crate) fn json(line: &str) -> String {
    let mut safe = String::with_capacity(line.len());
    for c in line.chars() {
        if is_unsafe(c) {
            let mut units = [0; 2];
            safe.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_unsafe_stays_and_json_means_the_same(input: String) {
            prop_assert!(!text(&input).chars().any(is_unsafe));
            prop_assert!(!lines(&input).chars().any(|c| c != '\n' && is_unsafe(c)));
            let line = serde_json::to_string(&[&input]).expect("a string");
            let safe = json(&line);
            prop_assert!(!safe.chars().any(is_unsafe));
            let read: [String; 1] = serde_json::from_str(&safe).expect("still JSON");
            prop_assert_eq!(&read[0], &input);
        }
    }
}
