//! Whether the kernel takes the environment: execve(2), "Limits on size of arguments and environment".

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use rustix::{
    param::page_size,
    process::{Resource, getrlimit},
};

use crate::{Command, Environment, Exit, Failure};

/// Pages of one string, its NUL included (MAX_ARG_STRLEN).
const STRING_PAGES: usize = 32;
/// The kernel always takes as much as this, in bytes (ARG_MAX in its limits.h).
const TOTAL_BYTES_MIN: u64 = 128 * 1024;
/// And never more than three quarters of its default stack, in bytes (_STK_LIM).
const TOTAL_BYTES_MAX: u64 = 8 * 1024 * 1024 / 4 * 3;
/// The part of the stack limit that arguments and environment may use.
const STACK_PART: u64 = 4;
/// How many of the largest variables a message names.
const LARGEST_NAMED: usize = 5;

/// What the kernel takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    string_bytes: usize,
    total_bytes: u64,
}

impl Limits {
    /// Those of this process, which the workload inherits.
    pub(crate) fn of_this_process() -> Self {
        let stack_bytes = getrlimit(Resource::Stack).current.unwrap_or(u64::MAX);
        Self {
            string_bytes: STRING_PAGES * page_size(),
            total_bytes: (stack_bytes / STACK_PART).clamp(TOTAL_BYTES_MIN, TOTAL_BYTES_MAX),
        }
    }
}

/// Refuses what the kernel would answer with E2BIG, and says what is too large.
///
/// A script's interpreter line counts as well, at most 256 bytes more: there the kernel has the last word.
pub(crate) fn check(limits: Limits, command: &Command, environment: &Environment) -> Result<(), Failure> {
    let word_bytes = |word: &OsStr| word.as_bytes().len() + 1;
    let mut problems = Vec::new();
    let too_long = |bytes: usize| (bytes > limits.string_bytes).then(|| over(bytes, limits.string_bytes));
    for (at, word) in command.words().iter().enumerate() {
        problems.extend(too_long(word_bytes(word)).map(|over| format!("argument {at}: {over}")));
    }
    for (name, bytes) in environment.sizes() {
        problems.extend(too_long(bytes).map(|over| format!("{}: NAME=value {over}", name.display())));
    }

    let words = command.words().iter().map(|word| word_bytes(word));
    let strings = words.chain(environment.sizes().map(|(_, bytes)| bytes));
    let mut total = word_bytes(command.path().as_os_str()) as u64;
    for bytes in strings {
        total += (bytes + size_of::<*const u8>()) as u64;
    }
    if total > limits.total_bytes {
        problems.push(format!(
            "arguments and environment need {total} bytes, and the kernel takes {} with this stack limit (ulimit -s); \
             the largest variables are {}",
            limits.total_bytes,
            largest(environment)
        ));
    }
    Failure::unless_empty(Exit::Refused, problems)
}

fn over(bytes: usize, limit: usize) -> String {
    format!("needs {bytes} bytes, and the kernel takes {limit}")
}

fn largest(environment: &Environment) -> String {
    let mut sizes: Vec<_> = environment.sizes().collect();
    sizes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let names = sizes.iter().take(LARGEST_NAMED).map(|(name, _)| name.to_string_lossy());
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
