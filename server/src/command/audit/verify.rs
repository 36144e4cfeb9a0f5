//! `coffer-server audit verify`: is the log as it was written?

use std::{fmt::Write as _, path::Path};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Failure, Log, Which};
use crate::{
    audit::{
        Mark,
        reached::{PutBack, reached},
        verify::{self, ChainReport, End, Expected, Finding, Note, Report, Witness},
    },
    command::{failure::PUT_BACK, print},
    config::KeyFlags,
    escape, record,
    seal::header,
    server::key,
    store::{
        Key, Position,
        embedded::{last, peek},
    },
};

pub(super) const AFTER_HELP: &str = "\
Proves every line from the beginning of a chain (one start of the server) to the last line
that a later line, the head beside the log (FILE.head) or --head vouches for. What was
written after these cannot be missed; nor, without a head that was kept elsewhere, that
a whole log and its head were put back to what they once were.

Lines before the first file are missed, unless the server removed them itself
(audit.keep_files) or --partial is given. With --data, the log must be that store's.

Exit codes:
  0   every line is as it was written
  1   something was changed, is missing, or cannot be checked or read
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
    /// Files from the middle of a log: lines before the first of them may be missing
    #[arg(long)]
    partial: bool,
}

impl Verify {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let heads = self.head.iter().map(|text| text.parse::<Mark>().map_err(|error| format!("--head {error}")));
        let heads = heads.collect::<Result<Vec<_>, _>>().map_err(|mistake| Failure::usage(vec![mistake]))?;
        let Which { data, configured, from_file } = self.log.which()?;
        let source = key::open(&from_file.key(&self.key)?).map_err(Failure::new)?;
        let mut expected = Expected {
            witnesses: heads.into_iter().map(Witness::Given).collect(),
            is_partial: self.partial,
            ..Expected::default()
        };
        if let Some(header) = data.as_deref().and_then(stored_header) {
            expected.store = header::store(&header).ok();
            // What a header that does not open means for the log is told of the log's own.
            expected.root = header::open(source.as_ref(), &header).await.ok().map(|keyring| keyring.root_id());
        }
        let store = expected.store;
        // Before the files: what is written meanwhile is in the files and not yet in the note.
        match &configured {
            Some(log) => read_note(log, true, &mut expected),
            None => {
                self.log.files.iter().for_each(|file| read_note(file, false, &mut expected));
                if expected.witnesses.is_empty() && expected.doubts.is_empty() {
                    print::note("warning: there is no head beside these files: lines cut off the end are not missed");
                }
            }
        }
        let files = self.log.open(configured.as_deref())?;
        // Before the store, which goes on meanwhile.
        let known = store.map(|store| reached(&files, store)).transpose();
        let known = known.map_err(|error| Failure::new(format!("the audit log cannot be read: {error}")))?.flatten();
        let behind = data.as_deref().and_then(|data| is_behind(data, known));
        let names: Vec<_> = files.iter().map(|file| escape::text(&file.path.display().to_string())).collect();
        let bar = progress_bar(files.iter().map(|file| file.bytes).sum());
        let report = verify::verify(files, expected, source.as_ref(), |bytes| bar.inc(bytes)).await;
        bar.finish_and_clear();
        let report = report.map_err(|(path, error)| Failure::new(format!("audit log {}: {error}", path.display())))?;
        print::data(&told(&report, &names)).map_err(Failure::new)?;
        if let Some(failure) = verdict(&report) {
            return Err(failure);
        }
        behind.map_or(Ok(()), |put_back| Err(Failure::new(put_back).hint(PUT_BACK)))
    }
}

/// Why the log is not proved, if it is not.
fn verdict(report: &Report) -> Option<Failure> {
    let findings = report.findings.len() as u64 + report.untold;
    let unchecked = report.findings.iter().filter(|finding| finding.is_unchecked).count() as u64;
    if findings > unchecked {
        let count = counted(findings - unchecked, "finding");
        return Some(Failure::new(format!("the audit log is not as it was written: {count}")));
    }
    if unchecked > 0 {
        let failure = Failure::new("the audit log cannot be checked to its end: a key is not available to open it");
        return Some(failure.hint(
            "give the key source of when it was written; a plugin must still have the key that it had then. \
             Nothing shows that anything was changed",
        ));
    }
    (report.chains.is_empty() || report.lines == 0)
        .then(|| Failure::new("there is no line of an audit log in these files: nothing is proved"))
}

/// Reads the note beside a log. `must_be`: the server that writes the log writes one.
fn read_note(log: &Path, must_be: bool, expected: &mut Expected) {
    let path = Note::path(log);
    match Note::read(log) {
        Ok(Some(note)) => expected.witnesses.push(Witness::Noted(note)),
        Ok(None) if must_be => {
            let what = "there is no such head beside the log: lines cut off the end are not missed";
            expected.doubts.push(format!("{}: {what}", escape::text(&path.display().to_string())));
        }
        Ok(None) => {}
        Err(error) => {
            expected.doubts.push(format!("{}: it cannot be read: {error}", escape::text(&path.display().to_string())));
        }
    }
}

/// Whether the store in a directory, which a server may have open, ends before what its audit log says.
fn is_behind(data: &Path, known: Option<Position>) -> Option<PutBack> {
    match last(data) {
        Ok(last) => PutBack::check(last, known).err(),
        // What is wrong with the store is what `verify` tells.
        Err(error) => {
            print::note(&format!("warning: {error}: the log is not compared with the store"));
            None
        }
    }
}

/// The header of the store in a directory, whether or not a server has it open.
fn stored_header(data: &Path) -> Option<Vec<u8>> {
    let unknown = |error: &dyn std::fmt::Display| {
        print::note(&format!("warning: {error}: nothing says which store's log this must be"));
    };
    match peek(data, &Key::new(record::key::HEADER)) {
        Ok(Some(found)) => header::store(&found).inspect_err(|error| unknown(error)).ok().map(|_| found.to_vec()),
        Ok(None) => {
            unknown(&format!("{}: there is no header", data.display()));
            None
        }
        Err(error) => {
            unknown(&error);
            None
        }
    }
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
            End::Killed => "not ended: the server was killed, or its end was cut off",
            End::Open => "not ended: the server runs, was killed, or the end is cut off",
        };
        let times = format!("{} to {}", escape::text(first_time), escape::text(last_time));
        let _ = writeln!(text, "chain {id} of store {store}: {} from {times}, {end}", counted(*lines, "line"));
    }
    for (word, list) in [("note: ", &report.notes), ("", &report.findings)] {
        for Finding { place, what, .. } in list {
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
    if report.findings.is_empty() && report.lines > 0 {
        let (lines, chains) = (counted(report.lines, "line"), counted(report.chains.len() as u64, "chain"));
        let _ = writeln!(text, "verified {lines} in {chains}");
    }
    text
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
