//! Makes text of others safe to print: nothing that a server sends or a file says may move the cursor, colour the screen, or
//! hide.

/// Whether a terminal would act on the character, or hide or reorder others because of it.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line of visible text: `\n`, `\t`, `\u{1b}` and the like for what is not.
pub fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// The same JSON document with the characters that serde_json leaves as they are (C1 controls, DEL, bidirectional
/// controls) written as `\uXXXX`. Line breaks between tokens stay; inside strings serde_json has escaped them already.
pub fn json(document: &str) -> String {
    let mut safe = String::with_capacity(document.len());
    for c in document.chars() {
        if c != '\n' && is_unsafe(c) {
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
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(text("a\x1b[31mred\r\nb\tc\u{9b}0m\u{202e}x"), "a\\u{1b}[31mred\\r\\nb\\tc\\u{9b}0m\\u{202e}x");
        assert_eq!(text("plain – ünïcödé 漢字 'quoted' \\ slash"), "plain – ünïcödé 漢字 'quoted' \\ slash");
    }

    proptest! {
        #[test]
        fn no_text_stays_unsafe(input: String) {
            prop_assert!(!text(&input).chars().any(is_unsafe));
        }

        #[test]
        fn json_means_the_same(input: String) {
            let document = serde_json::to_string_pretty(&[&input]).expect("a string");
            let safe = json(&document);
            prop_assert!(!safe.chars().any(|c| c != '\n' && is_unsafe(c)));
            let read: [String; 1] = serde_json::from_str(&safe).expect("still JSON");
            prop_assert_eq!(&read[0], &input);
        }
    }

    #[test]
    fn json_escapes_what_serde_leaves() {
        assert_eq!(json("[\"\u{9b}\u{7f}\u{e0041}\"]"), "[\"\\u009b\\u007f\\udb40\\udc41\"]");
    }
}
