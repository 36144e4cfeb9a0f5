//! Texts that are no values: templates. They come from the command line, from files, or from stdin.

use std::path::PathBuf;

use coffer_proto::limits;

use super::file;
use crate::failure::Failure;

/// Where texts come from.
#[derive(clap::Args)]
pub(crate) struct Texts {
    /// Take a text from this file; `-` is stdin. Repeatable
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Texts {
    /// The texts given, then those of the files, in order.
    pub(crate) fn read(&self, given: Vec<String>) -> Result<Vec<String>, Failure> {
        let mut texts = given;
        for path in &self.files {
            let bytes = file::path_or_stdin(path, limits::REQUEST_BYTES)?;
            let place = || path.display();
            if bytes.len() > limits::REQUEST_BYTES {
                return Err(Failure::usage(format!("{}: must be at most 256 KiB", place())));
            }
            let text =
                std::str::from_utf8(&bytes).map_err(|_| Failure::usage(format!("{}: must be UTF-8", place())))?;
            texts.push(text.to_owned());
        }
        Ok(texts)
    }
}
