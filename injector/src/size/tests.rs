use super::*;
use crate::Inherited;
use std::{ffi::OsString, process};

const TRUE: &str = "/bin/true";
const POINTER_BYTES: usize = size_of::<usize>();

fn environment(variables: &[(String, usize)]) -> Environment {
    let variables = variables.iter().map(|(name, bytes)| (name.into(), "x".repeat(*bytes).into()));
    Environment::new(Inherited::new(variables), Vec::new(), false)
}

fn command() -> Command {
    Command::resolve(OsStr::new(TRUE), &[TRUE.into()], None).expect("every system has it")
}

fn accepted(environment: &Environment) -> bool {
    check(Limits::of_this_process(), &command(), environment).is_ok()
}

/// What the kernel itself says.
fn kernel_takes(variables: &[(String, usize)]) -> bool {
    let variables = variables.iter().map(|(name, bytes)| (OsString::from(name), "x".repeat(*bytes)));
    match process::Command::new(TRUE).env_clear().envs(variables).status() {
        Ok(status) => status.success(),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ArgumentListTooLong);
            false
        }
    }
}

#[test]
fn one_string_is_refused_exactly_where_the_kernel_refuses_it() {
    let largest = Limits::of_this_process().string_bytes - "NAME=".len() - 1;
    for (bytes, expected) in [(largest, true), (largest + 1, false)] {
        let variables = [("NAME".to_owned(), bytes)];
        assert_eq!(accepted(&environment(&variables)), expected, "{bytes}");
        assert_eq!(kernel_takes(&variables), expected, "the kernel, {bytes}");
    }
}

#[test]
fn the_total_is_refused_exactly_where_the_kernel_refuses_it() {
    // Variables of 64 KiB up to the limit, and one that fills the rest to the byte.
    let string = |value: usize| "V_0000=".len() + value + 1 + POINTER_BYTES;
    let mut rest = usize::try_from(Limits::of_this_process().total_bytes).expect("it fits");
    rest -= 2 * (TRUE.len() + 1) + POINTER_BYTES;
    let mut variables = Vec::new();
    while rest > 128 * 1024 {
        variables.push((format!("V_{:04}", variables.len()), 64 * 1024));
        rest -= string(64 * 1024);
    }
    for (value, expected) in [(rest - string(0), true), (rest - string(0) + 1, false)] {
        let mut variables = variables.clone();
        variables.push(("V_LAST".to_owned(), value));
        assert_eq!(accepted(&environment(&variables)), expected, "{value}");
        assert_eq!(kernel_takes(&variables), expected, "the kernel, {value}");
    }
}

#[test]
fn every_offender_is_named_and_no_value() {
    let limits = Limits { string_bytes: 20, total_bytes: 100 };
    let environment = environment(&[("SHORT".into(), 1), ("LONG".into(), 15), ("LONGER".into(), 40)]);
    let words = [TRUE.into(), "an argument that is too long".into()];
    let command = Command::resolve(OsStr::new(TRUE), &words, None).expect("found");
    let failure = check(limits, &command, &environment).expect_err("too large");
    assert_eq!(failure.exit(), Exit::Refused);
    let problems: Vec<_> = failure.problems().collect();
    assert_eq!(problems[0], "argument 1: needs 29 bytes, and the kernel takes 20");
    assert_eq!(problems[1], "LONG: NAME=value needs 21 bytes, and the kernel takes 20");
    assert_eq!(problems[2], "LONGER: NAME=value needs 48 bytes, and the kernel takes 20");
    assert!(problems[3].ends_with("the largest variables are LONGER, LONG, SHORT"), "{}", problems[3]);
    assert!(!problems.concat().contains("xx"));
}
