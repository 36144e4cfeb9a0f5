//! `coffer-server audit verify`: is the log as it was written?

use std::{fmt::Write as _, path::Path};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Failure, Log, escape};
use crate::{
    audit::{
        Mark,
        verify::{self, ChainReport, End, Finding, Note, Report, Witness},
    },
    command::print,
    config::KeyFlags,
    server::key,
};

pub(super) const AFTER_HELP: &str = "\
Proves every line from the beginning of a chain (one start of the server) to the last line
that a later line, the head beside the log or --head vouches for. What was written after
these, and the files before the first one, cannot be missed.

Exit codes:
  0   every line is as it was written
  1   something was changed, or cannot be read
  64  the command line is wrong";

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    #[command(flatten)]
    log: Log,
    #[command(flatten)]
    key: KeyFlags,
    /// A line that must be there, as the server's status told it earlier; may be repeated
    #[arg(long, value_name = "CHAIN:SEQUENCE:MAC")]
    head: Vec<String>,
}

impl Verify {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let heads = self.head.iter().map(|text| text.parse::<Mark>().map_err(|error| format!("--head {error}")));
        let heads = heads.collect::<Result<Vec<_>, _>>().map_err(|mistake| Failure::usage(vec![mistake]))?;
        let configured = self.log.configured()?;
        let source = key::open(&self.key.setting()?).map_err(Failure::new)?;
        let mut witnesses: Vec<_> = heads.into_iter().map(Witness::Given).collect();
        // Before the files: what is written meanwhile is in the files and not yet in the note.
        witnesses.extend(note(configured.as_deref())?);
        let files = self.log.open(configured.as_deref())?;
        let names: Vec<_> = files.iter().map(|file| escape::text(&file.path.display().to_string())).collect();
        let bar = progress_bar(files.iter().map(|file| file.bytes).sum());
        let report = verify::verify(files, witnesses, source.as_ref(), |bytes| bar.inc(bytes)).await;
        bar.finish_and_clear();
        let report = report.map_err(|(path, error)| Failure::new(format!("audit log {}: {error}", path.display())))?;
        print::data(&told(&report, &names)).map_err(Failure::new)?;
        match report.findings.len() as u64 + report.untold {
            0 => Ok(()),
            1 => Err(Failure::new("the audit log is not as it was written: 1 finding")),
            count => Err(Failure::new(format!("the audit log is not as it was written: {count} findings"))),
        }
    }
}

/// The note beside the log that the server writes.
fn note(log: Option<&Path>) -> Result<Option<Witness>, Failure> {
    let Some(log) = log else { return Ok(None) };
    let path = Note::path(log);
    let note = Note::read(log).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    if note.is_none() {
        print::note(&format!("warning: there is no {}: lines cut off the end are not missed", path.display()));
    }
    Ok(note.map(Witness::Noted))
}

fn progress_bar(bytes: u64) -> ProgressBar {
    // Draws nothing where stderr is no terminal.
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("verifying {bar:40} {bytes} of {total_bytes}, {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The report as text.
fn told(report: &Report, names: &[String]) -> String {
    let mut text = String::new();
    for ChainReport { id, store, lines, first_time, last_time, end, .. } in &report.chains {
        let end = match end {
            End::Ended => "ended in good order",
            End::Killed => "not ended: the server was killed",
            End::Open => "not ended: the server runs, was killed, or the end is cut off",
        };
        let times = format!("{} to {}", escape::text(first_time), escape::text(last_time));
        let _ = writeln!(text, "chain {id} of store {store}: {} from {times}, {end}", counted(*lines, "line"));
    }
    for (word, list) in [("note: ", &report.notes), ("", &report.findings)] {
        for Finding { place, what } in list {
            match place.and_then(|place| Some((names.get(place.file)?, place.line))) {
                Some((name, line)) => writeln!(text, "{name}:{line}: {word}{what}"),
                None => writeln!(text, "{word}{what}"),
            }
            .ok();
        }
    }
    if report.untold > 0 {
        let _ = writeln!(text, "and {} more", report.untold);
    }
    if report.findings.is_empty() {
        let (lines, chains) = (counted(report.lines, "line"), counted(report.chains.len() as u64, "chain"));
        let _ = writeln!(text, "verified {lines} in {chains}");
    }
    text
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
