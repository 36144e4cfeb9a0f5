//! `coffer-server audit show`: the log for people. Needs no key, and proves nothing: that is what `verify` is for.

use std::io::{self, BufWriter, Write};

use super::{Failure, Log, filter, joined::Joined, table};
use crate::{
    audit::{
        files::LogFile,
        read::{Lines, Shown},
    },
    clock::{Clock as _, SystemClock},
    escape,
};

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    #[command(flatten)]
    log: Log,
    #[command(flatten)]
    filter: filter::Flags,
    /// Print the lines as they stand in the log, one JSON object each
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(super) fn run(self) -> Result<(), Failure> {
        let filter = filter::Filter::new(self.filter, SystemClock.now()).map_err(Failure::usage)?;
        let which = self.log.which()?;
        let files = self.log.open(which.configured.as_deref())?;
        let mut out = BufWriter::new(io::stdout().lock());
        let shown = if self.json { lines(files, &filter, &mut out) } else { rows(files, &filter, &mut out) };
        match shown.and_then(|()| out.flush()) {
            // Whoever reads has seen enough: `| head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(Failure::new),
        }
    }
}

/// The lines that are shown, as they stand.
fn lines(files: Vec<LogFile>, filter: &filter::Filter, out: &mut impl Write) -> io::Result<()> {
    each(files, |line, shown| {
        if !filter.has(&shown) {
            return Ok(());
        }
        let text = String::from_utf8_lossy(line);
        writeln!(out, "{}", escape::json(&text))
    })
}

/// A table of them, a call a row.
fn rows(files: Vec<LogFile>, filter: &filter::Filter, out: &mut impl Write) -> io::Result<()> {
    let mut joined = Joined::default();
    let mut has_header = false;
    let mut print = |row: &Shown| {
        if !std::mem::replace(&mut has_header, true) {
            out.write_all(table::header().as_bytes())?;
        }
        out.write_all(table::line(row).as_bytes())
    };
    each(files, |_, shown| {
        if !filter.has(&shown) {
            return Ok(());
        }
        joined.add(shown).iter().try_for_each(&mut print)
    })?;
    joined.rest().try_for_each(|row| print(&row))
}

/// Every line that is one, oldest first.
fn each(files: Vec<LogFile>, mut visit: impl FnMut(&[u8], Shown) -> io::Result<()>) -> io::Result<()> {
    for LogFile { path, file, .. } in files {
        let mut lines = Lines::new(file);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        while let Some(line) = lines.next_line().map_err(named)? {
            if let Some(shown) = Shown::of(line.bytes) {
                visit(line.bytes, shown)?;
            }
        }
    }
    Ok(())
}
