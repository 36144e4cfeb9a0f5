//! How fast texts are searched for values, by kind of text, number of secrets, and with values of one line or of many.
//!
//! `cargo bench -p coffer-tests --bench redaction` prints MB/s on one core, and how many times as long a plain copy of the
//! same text takes. The same code is behind `coffer-inject --mask` and `RedactText`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "it measures")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use coffer_proto::{
    name::VariableName,
    redaction::{Matcher, Redactor},
    value::SecretValue,
};

const TEXT_BYTES: usize = 8 << 20;
/// What a pipe gives at once.
const PART_BYTES: usize = 64 << 10;
/// Each figure is the best of this many runs, or of as many as fit the time.
const RUNS: u32 = 5;
const TIME_MAX: Duration = Duration::from_secs(3);

/// Numbers that only look like chance, the same in every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn digits(&mut self, alphabet: &[u8], count: usize) -> String {
        (0..count).map(|_| char::from(alphabet[self.next() as usize % alphabet.len()])).collect()
    }
}

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const HEX: &[u8] = b"0123456789abcdef";

fn filled(mut line: impl FnMut(&mut Numbers) -> String) -> Vec<u8> {
    let (mut numbers, mut text) = (Numbers(42), String::with_capacity(TEXT_BYTES + 256));
    while text.len() < TEXT_BYTES {
        text += &line(&mut numbers);
    }
    text.truncate(TEXT_BYTES);
    text.into_bytes()
}

fn texts() -> Vec<(&'static str, Vec<u8>)> {
    let words =
        ["the", "request", "was", "answered", "in", "time", "by", "worker", "after", "connection", "to", "cache"];
    let word = move |numbers: &mut Numbers| words[numbers.next() as usize % words.len()];
    vec![
        (
            "access log",
            filled(|n| {
                let (a, b, path) = (n.next() % 256, n.next() % 100_000, n.digits(HEX, 6));
                format!(
                    "10.0.{a}.7 - - [01/Dec/2026:07:12:43 +0000] \"GET /v1/items/{path}?page={a} HTTP/2\" 200 {b}\n"
                )
            }),
        ),
        (
            "JSON lines",
            filled(|n| {
                let said: Vec<_> = (0..8).map(|_| word(n)).collect();
                format!(
                    "{{\"time\":\"2026-12-01T07:12:43Z\",\"level\":\"info\",\"message\":\"{}\",\"ms\":{}}}\n",
                    said.join(" "),
                    n.next() % 1000
                )
            }),
        ),
        (
            "JSON in JSON",
            filled(|n| {
                format!("{{\"body\":\"{{\\\"name\\\":\\\"{}\\\",\\\"count\\\":{}}}\\n\"}}\n", word(n), n.next() % 1000)
            }),
        ),
        (
            "URLs",
            filled(|n| {
                format!("https://shop.example/search?q={}%20{}&next=%2Fcart%2F{}\n", word(n), word(n), n.next() % 1000)
            }),
        ),
        ("base64", filled(|n| n.digits(BASE64, 76) + "\n")),
        ("hexadecimal", filled(|n| n.digits(HEX, 64) + "\n")),
    ]
}

fn matcher(secrets: usize, has_lines: bool) -> Arc<Matcher> {
    let mut numbers = Numbers(7);
    let value = |numbers: &mut Numbers| match has_lines {
        false => format!("sk-{}", numbers.digits(BASE64, 40)),
        true => {
            let lines: Vec<_> = (0..24).map(|_| numbers.digits(BASE64, 64)).collect();
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
        }
    };
    let all: Vec<_> = (0..secrets)
        .map(|at| {
            let name = VariableName::parse(&format!("SECRET_{at}")).unwrap();
            (name, SecretValue::new(value(&mut numbers).into_bytes()).unwrap())
        })
        .collect();
    Arc::new(Matcher::new(all.iter().map(|(name, value)| (name, value))))
}

fn best(mut run: impl FnMut()) -> Duration {
    let (began, mut best) = (Instant::now(), Duration::MAX);
    for _ in 0..RUNS {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
        if began.elapsed() > TIME_MAX {
            break;
        }
    }
    best
}

fn main() {
    let columns = [(1, false), (20, false), (100, false), (1, true), (20, true), (100, true)];
    print!("{:<14}", "MB/s (x copy)");
    for (secrets, has_lines) in columns {
        print!("{:>18}", format!("{secrets} {}", if has_lines { "of 26 lines" } else { "of one line" }));
    }
    println!();
    let matchers: Vec<_> = columns.iter().map(|(secrets, has_lines)| matcher(*secrets, *has_lines)).collect();
    for (name, text) in texts() {
        let mut out = Vec::with_capacity(text.len() + PART_BYTES);
        let copy = best(|| {
            out.clear();
            black_box(&text).chunks(PART_BYTES).for_each(|part| out.extend_from_slice(part));
        });
        print!("{name:<14}");
        for matcher in &matchers {
            let took = best(|| {
                out.clear();
                let mut redactor = Redactor::new(Arc::clone(matcher));
                let replaced: u64 = text.chunks(PART_BYTES).map(|part| redactor.push(part, &mut out)).sum();
                assert_eq!(replaced + redactor.finish(&mut out), 0, "{name}: nothing is to be found");
            });
            assert!(out == text, "{name}: the text is itself");
            let speed = TEXT_BYTES as f64 / 1e6 / took.as_secs_f64();
            print!("{:>18}", format!("{speed:.0} ({:.0})", took.as_secs_f64() / copy.as_secs_f64()));
        }
        println!();
    }
}
