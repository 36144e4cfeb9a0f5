use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose};
use proptest::prelude::*;

use super::*;
use crate::{limits, name::VariableName, value::SecretValue};

fn matcher(values: &[(&str, &str)]) -> Arc<Matcher> {
    let values: Vec<_> = values
        .iter()
        .map(|(name, value)| {
            let value = SecretValue::new(value.as_bytes().to_vec()).expect("a good value");
            (VariableName::parse(name).expect("a good name"), value)
        })
        .collect();
    Arc::new(Matcher::new(values.iter().map(|(name, value)| (name, value))))
}

/// The clean text, and how many values were replaced.
fn clean(matcher: &Arc<Matcher>, parts: &[&[u8]]) -> (Vec<u8>, u64) {
    let (mut redactor, mut out) = (Redactor::new(Arc::clone(matcher)), Vec::new());
    let pushed: u64 = parts.iter().map(|part| redactor.push(part, &mut out)).sum();
    let replaced = pushed + redactor.finish(&mut out);
    assert_eq!(redactor.held(), 0);
    (out, replaced)
}

fn cleaned(values: &[(&str, &str)], text: &str) -> String {
    String::from_utf8(clean(&matcher(values), &[text.as_bytes()]).0).expect("still text")
}

fn json(text: &str) -> String {
    text.chars().fold(String::new(), |mut json, char| {
        match char {
            '"' | '\\' => json.extend(['\\', char]),
            '\n' => json += "\\n",
            '\r' => json += "\\r",
            '\t' => json += "\\t",
            char if char < ' ' => write!(json, "\\u{:04x}", u32::from(char)).expect("a string"),
            char => json.push(char),
        }
        json
    })
}

/// JSON of a writer that keeps to ASCII.
fn ascii_json(text: &str) -> String {
    text.encode_utf16().fold(String::new(), |mut json, unit| {
        write!(json, "\\u{unit:04X}").expect("a string");
        json
    })
}

fn percent(text: &str, space: &str) -> String {
    text.bytes().fold(String::new(), |mut url, byte| {
        match byte {
            b' ' => url += space,
            byte if byte.is_ascii_alphanumeric() => url.push(char::from(byte)),
            byte => write!(url, "%{byte:02X}").expect("a string"),
        }
        url
    })
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn wrapped(digits: &str, columns: usize, line_break: &str) -> String {
    let lines: Vec<_> =
        digits.as_bytes().chunks(columns).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    lines.join(line_break)
}

/// Every way to write a value that is promised to be found.
fn ways(value: &str) -> Vec<(&'static str, String)> {
    vec![
        ("raw", value.to_owned()),
        ("JSON", json(value)),
        ("JSON in ASCII", ascii_json(value)),
        ("JSON twice", json(&json(value))),
        ("JSON in ASCII twice", json(&ascii_json(value))),
        ("URL", percent(value, "%20")),
        ("form", percent(value, "+")),
        ("hexadecimal", hex(value)),
        ("upper hexadecimal", hex(value).to_uppercase()),
        ("wrapped hexadecimal", wrapped(&hex(value), 5, "\n")),
        ("base64", general_purpose::STANDARD_NO_PAD.encode(value)),
        ("base64 for URLs", general_purpose::URL_SAFE_NO_PAD.encode(value)),
        ("wrapped base64", wrapped(&general_purpose::STANDARD_NO_PAD.encode(value), 7, "\r\n")),
    ]
}

const HARD: &str = "pä+ss \"wo/rd\\\n{{A}}😀%41é~";

#[test]
fn every_way_to_write_a_value_is_found() {
    for (way, text) in ways(HARD) {
        assert_eq!(cleaned(&[("KEY", HARD)], &format!("<{text}>")), "<{{KEY}}>", "{way}: {text}");
    }
}

#[test]
fn escapes_may_be_mixed() {
    assert_eq!(cleaned(&[("KEY", "12345678/\n")], r#""1\u00323\u0034""5678\/\n""#), r#""1\u00323\u0034""5678\/\n""#);
    assert_eq!(cleaned(&[("KEY", "12345678/\n")], r#""1\u00323\u00345678\/\n""#), r#""{{KEY}}""#);
    assert_eq!(cleaned(&[("KEY", "12345678/ ")], "?a=1%32345678/+&b"), "?a={{KEY}}&b");
    assert_eq!(cleaned(&[("KEY", "12345678/+")], "?a=1%32345678%2f+&b"), "?a={{KEY}}&b");
}

const KEY_FILE: &str = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\n  Zm9v YmFy\n\nqux=\n-----END KEY-----\n";

/// The lines of a value, each behind a line break and an indentation.
fn indented(value: &str, line_break: &str) -> String {
    value.trim_end().split('\n').map(|line| format!("{line_break}{line}")).collect()
}

#[test]
fn a_value_of_many_lines_is_found_as_terminals_mails_and_yaml_write_it() {
    let crlf = KEY_FILE.replace('\n', "\r\n");
    let ways = [
        ("CR LF", format!("<{crlf}>")),
        ("YAML", format!("<key: |{}>", indented(KEY_FILE, "\n    "))),
        ("tabs and CR LF", format!("<{}>", indented(KEY_FILE, "\r\n\t\t"))),
        ("without the last line break", format!("<{}>", KEY_FILE.trim_end())),
    ];
    for (way, text) in &ways {
        let encoded = [text.clone(), json(text), json(&json(text)), percent(text, "%20"), percent(text, "+")];
        for text in encoded {
            let cleaned = cleaned(&[("KEY", KEY_FILE)], &text);
            assert!(cleaned.contains("{{KEY}}"), "{way}: {cleaned}");
            for line in KEY_FILE.lines().filter(|line| !line.is_empty()) {
                assert!(!cleaned.contains(line.trim()), "{way}: {cleaned}");
            }
        }
    }
    // The other way round, and a line break that is none of the value's.
    assert_eq!(cleaned(&[("KEY", &crlf)], &format!("<{KEY_FILE}>")), "<{{KEY}}\n>");
    assert_eq!(cleaned(&[("KEY", "12345678")], "1234\n5678"), "1234\n5678");
    // What begins and ends with blanks, within an indented text.
    assert_eq!(
        cleaned(&[("KEY", "  key: x\n  other: y\n")], "a:\n  b:\n    key: x\n    other: y"),
        "a:\n  b:\n    {{KEY}}"
    );
    let deep = format!("1234567\n{}890", " ".repeat(70));
    assert_eq!(cleaned(&[("KEY", "1234567\n890")], &deep), deep, "deeper than anybody indents");
    assert_eq!(cleaned(&[("KEY", &deep)], &deep), "{{KEY}}");
}

#[test]
fn wrapped_digits_are_found_within_json() {
    let base64 = wrapped(&general_purpose::STANDARD.encode(KEY_FILE), 16, "\r\n");
    let hex = wrapped(&hex(KEY_FILE), 16, "\n");
    for text in [&base64, &hex].into_iter().flat_map(|text| [json(text), json(&json(text))]) {
        let cleaned = cleaned(&[("KEY", KEY_FILE)], &format!("\"{text}\""));
        assert!(cleaned.starts_with("\"{{KEY}}") && cleaned.len() < 16, "{text}: {cleaned}");
    }
    let slashes = general_purpose::STANDARD.encode("????????????");
    assert_eq!(cleaned(&[("KEY", "????????????")], &slashes.replace('/', "\\/")), "{{KEY}}");
    // A backslash that is no escape of a line break ends the digits.
    let text = hex.replace('\n', "\\x");
    assert_eq!(cleaned(&[("KEY", KEY_FILE)], &text), text);
}

#[test]
fn base64_is_found_at_any_alignment() {
    for before in 0..4 {
        for after in 0..4 {
            let text = format!("{}correct horse{}", "x".repeat(before), "y".repeat(after));
            let text = format!("data {}.", general_purpose::STANDARD.encode(text));
            let cleaned = cleaned(&[("KEY", "correct horse")], &text);
            assert!(cleaned.contains("{{KEY}}") && cleaned.len() <= 5 + before * 2 + 8 + after * 2 + 4, "{cleaned}");
        }
    }
}

#[test]
fn short_values_and_plain_text_stay() {
    assert!(matcher(&[("A", "1234567"), ("B", "äöüäöüä")]).is_empty());
    assert_eq!(cleaned(&[("A", "1234567")], "1234567"), "1234567");
    assert_eq!(cleaned(&[("A", "12345678")], "1234567 123456789"), "1234567 {{A}}9");
    assert_eq!(cleaned(&[("A", "äöüäöüäö")], "äöüäöüäö"), "{{A}}");
}

#[test]
fn overlapping_values_are_all_replaced() {
    let (a, b) = (("A", "abcdefgh"), ("B", "efghijkl"));
    assert_eq!(cleaned(&[a, b], "1abcdefghijkl2"), "1{{A}}{{B}}2");
    assert_eq!(cleaned(&[a, b], "abcdefghefghijkl"), "{{A}}{{B}}");
    assert_eq!(cleaned(&[a, ("C", "--abcdefgh--")], "--abcdefgh--abcdefgh-"), "{{C}}{{A}}-");
    assert_eq!(cleaned(&[a, ("C", "--abcdefgh")], "--abcdefgh abcdefgh"), "{{C}} {{A}}");
    assert_eq!(cleaned(&[a, ("C", "abcdefgh--")], "abcdefgh--abcdefgh-"), "{{C}}{{A}}-");
    assert_eq!(cleaned(&[("B", "same value"), ("A", "same value")], "same value"), "{{A}}");
}

#[test]
fn a_value_that_overlaps_itself_is_written_once() {
    let matcher = matcher(&[("A", "aaaaaaaa")]);
    let (out, replaced) = clean(&matcher, &[b"<", &[b'a'; 100_000], b">"]);
    assert_eq!((out.as_slice(), replaced), (b"<{{A}}>".as_slice(), 1));
}

#[test]
fn what_is_counted_is_what_is_written() {
    let (a, b) = (("A", "abcdefgh"), ("B", "efghijkl"));
    assert_eq!(clean(&matcher(&[a, b]), &[b"abcdefghijkl abcdefgh"]).1, 3);
}

#[test]
fn a_cut_anywhere_changes_nothing() {
    let values = [("KEY", HARD), ("B", "😀%41é~/1234"), ("C", "wo/rd\\\n{")];
    let matcher = matcher(&values);
    let lines = format!("{HARD} {HARD}").replace('\n', "\r\n   ");
    let ways = ways(&format!("{HARD}/1234 {HARD}")).into_iter();
    for (way, text) in ways.chain([("indented", lines.clone()), ("indented in JSON", json(&lines))]) {
        let text = format!("x{text}y");
        let whole = clean(&matcher, &[text.as_bytes()]);
        for at in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(at);
            assert_eq!(clean(&matcher, &[head, tail]), whole, "{way}, cut at {at}");
        }
        let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
        assert_eq!(clean(&matcher, &bytes), whole, "{way}, every byte by itself");
    }
}

#[test]
fn beginnings_beside_escapes_are_read_alike() {
    // The first letters of the value are digits of an escape, which ends within the value.
    for (value, text) in [
        ("Aa\n \na\nAaaaa", "aa%Aa%0A%20%0Aa%0AAaaaa"),
        ("Aa\nbcdefg", r"\u00Aa\nbcdefg"),
        ("Aa\nbcdefg", r"\\u00Aa\\nbcdefg"),
        ("41\nbcdefg", r"\u005cu0041\nbcdefg"),
        // And here a value begins where another one, which begins before it, has an escape.
        (" a%\naa+a  %a", "aa%2Ba++%25a\n"),
    ] {
        let matcher = matcher(&[("A", value)]);
        let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
        assert_eq!(clean(&matcher, &[text.as_bytes()]), clean(&matcher, &bytes), "{text}");
    }
}

#[test]
fn what_is_held_is_bounded() {
    let value = format!("{}b", "a".repeat(999));
    let redactor = || Redactor::new(matcher(&[("A", &value)]));
    for (way, text) in ways(&"a".repeat(100_000)) {
        let (mut redactor, mut out) = (redactor(), Vec::new());
        let mut most = 0;
        for part in text.as_bytes().chunks(100) {
            redactor.push(part, &mut out);
            most = most.max(redactor.held());
        }
        assert!(most <= 14 * value.len(), "{way}: {most}");
        redactor.finish(&mut out);
        assert_eq!(out, text.as_bytes(), "{way}");
    }
    // Line breaks, each as deep as it is followed.
    let value = format!("{}12345678", "\n".repeat(100));
    let (mut redactor, mut out) = (Redactor::new(matcher(&[("A", &format!("x{value}"))])), Vec::new());
    let text = format!("x{}", format!("\n{}", " ".repeat(63)).repeat(1_000));
    for part in text.as_bytes().chunks(100) {
        redactor.push(part, &mut out);
        assert!(redactor.held() <= 64 * value.len() + 100, "{}", redactor.held());
    }
    redactor.finish(&mut out);
    assert_eq!(out, text.as_bytes());
    // Replaced text is not held, however long it is.
    let (mut redactor, mut out) = (Redactor::new(matcher(&[("A", "aaaaaaaa")])), Vec::new());
    (0..1000).for_each(|_| {
        redactor.push(&[b'a'; 1000], &mut out);
        assert!(redactor.held() < 100);
    });
}

#[test]
fn long_values_and_texts_are_read_once() {
    let value = format!("{}b", "a".repeat(limits::VALUE_BYTES - 1));
    let (out, replaced) = clean(&matcher(&[("A", &value)]), &[&[b'a'; 4 * 1024 * 1024]]);
    assert_eq!((out.len(), replaced), (4 * 1024 * 1024, 0));
}

#[test]
fn ordinary_text_is_not_held_back() {
    let (mut redactor, mut out) = (Redactor::new(matcher(&[("A", "sk-12345678")])), Vec::new());
    for prompt in ["Password: ", "$ ", "Continue? [y/N] ", "\u{1b}[0m>>> "] {
        redactor.push(prompt.as_bytes(), &mut out);
        assert_eq!(redactor.held(), 0, "{prompt:?}");
    }
}

#[test]
fn a_pause_releases_no_more_than_a_hint_tells() {
    let (mut redactor, mut out) = (Redactor::new(matcher(&[("A", "sk-12345678")])), Vec::new());
    redactor.push(b"<sk-1", &mut out);
    assert_eq!(out, b"<");
    redactor.release(&mut out);
    assert_eq!((out.as_slice(), redactor.held()), (b"<sk-1".as_slice(), 0));
    redactor.push(b"2", &mut out);
    redactor.release(&mut out);
    assert_eq!((out.as_slice(), redactor.held()), (b"<sk-1".as_slice(), 1), "five characters stay");
    assert_eq!(redactor.push(b"345678>", &mut out) + redactor.finish(&mut out), 1);
    assert_eq!(out, b"<sk-1{{A}}>");
}

#[test]
fn debug_tells_nothing() {
    let matcher = matcher(&[("A", "hunter2hunter2")]);
    let mut redactor = Redactor::new(Arc::clone(&matcher));
    redactor.push(b"hunter2h", &mut Vec::new());
    assert_eq!(format!("{matcher:?} {redactor:?}"), "Matcher(…) Redactor(…)");
}

/// Values of few letters, which overlap often, and of any.
fn a_value() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{8,14}", "[ -~]{8,40}", "[^\0]{8,20}"]
}

proptest! {
    #[test]
    fn no_form_of_a_value_survives(
        values in prop::collection::vec(a_value(), 1..4),
        pieces in prop::collection::vec((0usize..4, 0usize..13, "[^\0]{0,6}"), 1..6),
        around in ("[a-z]{0,9}", "[a-z]{0,60}"),
        cuts in prop::collection::vec(0usize..2000, 0..6),
    ) {
        let names = ["A", "B", "C", "D"];
        let named: Vec<_> = names.iter().copied().zip(values.iter().map(String::as_str)).collect();
        let matcher = matcher(&named);
        let mut text = String::new();
        for (value, way, between) in &pieces {
            text += &ways(&values[value % values.len()])[*way].1;
            text.push('\u{1}');
            text += between;
            text.push('\u{1}');
        }
        let inside = format!("{}{}{}", around.0, values[0], around.1);
        text += &wrapped(&general_purpose::STANDARD.encode(inside), 76, "\n");
        let (out, replaced) = clean(&matcher, &[text.as_bytes()]);
        prop_assert!(replaced > pieces.len() as u64 / 2);

        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (text.len() + 1)).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let parts: Vec<_> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
        prop_assert_eq!(&clean(&matcher, &parts).0, &out);

        // What is written in their place may be like a value itself; then there is nothing to see here.
        let out = String::from_utf8_lossy(&out).into_owned();
        let texts = ["{{A}}", "{{B}}", "{{C}}"].iter().fold(out, |out, mark| out.replace(mark, "\u{2}"));
        for value in &values {
            for (way, form) in ways(value) {
                prop_assert!(!texts.contains(&form) || way.starts_with("wrapped"), "{} in {:?}", way, texts);
            }
        }
    }

    #[test]
    fn a_text_without_values_is_itself(text in prop::collection::vec(any::<u8>(), 0..500), cut in 0usize..500) {
        let matcher = matcher(&[("A", "\u{2603}snow\u{2603}man"), ("B", "zzzzzzzzz9")]);
        let (head, tail) = text.split_at(cut.min(text.len()));
        prop_assert_eq!(clean(&matcher, &[head, tail]), (text, 0));
    }
}

/// A piece of a text that is nearly a value, or what may stand in one.
fn a_piece() -> impl Strategy<Value = (usize, usize, usize, usize, usize)> {
    (0usize..3, 0usize..13, 0usize..12, 0usize..40, 0usize..40)
}

const BETWEEN: [&str; 12] = ["", "\\", "\\\\", "%", "+", " ", "\n", "\\n", "\r\n  ", "a", "0", "\t "];

proptest! {
    /// Read a byte at a time nothing is passed over, so that this holds the filter to what the readings find.
    #[test]
    fn what_is_passed_over_holds_no_value(
        values in prop::collection::vec(prop_oneof!["[ab]{8,10}", "[ -~\n]{8,20}", "[a-c\\\\%+ \n]{8,12}"], 1..4),
        pieces in prop::collection::vec(a_piece(), 1..12),
        filler in "[a-zA-Z0-9 \n]{0,60}",
    ) {
        let named: Vec<_> = ["A", "B", "C"].into_iter().zip(values.iter().map(String::as_str)).collect();
        let matcher = matcher(&named);
        let mut text = filler.clone();
        for (value, way, between, skip, take) in pieces {
            let form = ways(&values[value % values.len()]).swap_remove(way).1;
            // All of it, or a part.
            text.extend(form.chars().skip(skip / 8 * 3).take(take + skip));
            text += BETWEEN[between];
        }
        text += &filler;
        let whole = clean(&matcher, &[text.as_bytes()]);
        let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
        prop_assert_eq!(clean(&matcher, &bytes), whole, "{:?}", text);
    }
}

#[test]
fn white_space_around_a_value_and_its_lines_hide_nothing() {
    let token = "sk-live-4242\r";
    assert_eq!(cleaned(&[("KEY", token)], "token sk-live-4242\n"), "token {{KEY}}\n");
    assert_eq!(cleaned(&[("KEY", "\t sk-live-4242 ")], "Bearer sk-live-4242"), "Bearer {{KEY}}");
    assert_eq!(cleaned(&[("KEY", "   1234   ")], "1234 <   1234   >"), "1234 <{{KEY}}>", "too short without");
    // As a shell prints an unquoted variable.
    let words = KEY_FILE.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(cleaned(&[("KEY", KEY_FILE)], &format!("key: {words}!")), "key: {{KEY}}!");
    assert_eq!(cleaned(&[("KEY", KEY_FILE)], &format!("key: {}", words.replace(' ', "\\n\\t"))), "key: {{KEY}}");
    // Line by line, as a log prefixes them; boundaries of PEM are the same in every key.
    let prefixed: Vec<_> = KEY_FILE.lines().map(|line| format!("log| {}", line.trim())).collect();
    assert_eq!(
        cleaned(&[("KEY", KEY_FILE)], &prefixed.join("\n")),
        "log| -----BEGIN KEY-----\nlog| {{KEY}}\nlog| {{KEY}}\nlog| \nlog| qux=\nlog| -----END KEY-----"
    );
}

#[test]
fn a_pause_gives_out_a_value_that_is_complete() {
    let matcher = matcher(&[("KEY", "secret-value")]);
    for written in ["secret-value", "7365637265742d76616c7565\n", "c2VjcmV0LXZhbHVl\n"] {
        let mut redactor = Redactor::new(Arc::clone(&matcher));
        let mut out = Vec::new();
        redactor.push(format!("it is {written}").as_bytes(), &mut out);
        redactor.release(&mut out);
        assert!(out.starts_with(b"it is {{KEY}}"), "{written}: {}", String::from_utf8_lossy(&out));
        assert_eq!(redactor.held(), 0, "{written}");
    }
}
