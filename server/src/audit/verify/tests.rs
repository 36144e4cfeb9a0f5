//! Every way to tamper with a log that two servers wrote over several files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use super::*;
use crate::{
    audit::{
        Audit as _,
        file::{AuditFile, Options},
        files,
        line::{code_of, tests::event},
        marker::tests::Sealed,
        read::Links,
    },
    seal::{chain::Chain, source::KeyFile},
};

/// What is found in files with these bytes.
pub(in crate::audit) fn report_on(files: Vec<Vec<u8>>, witnesses: Vec<Witness>, source: &KeyFile) -> Report {
    report_by(files, Expected { witnesses, ..Expected::default() }, source)
}

/// The same, held against more.
pub(in crate::audit) fn report_by(files: Vec<Vec<u8>>, expected: Expected, source: &KeyFile) -> Report {
    let names = (0..).map(|number| PathBuf::from(format!("file {number}")));
    let files = names.zip(files.iter().map(Vec::as_slice)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(read(files, expected, source, |_| {})).expect("read")
}

/// A log: each file's lines.
struct Log {
    sealed: Sealed,
    files: Vec<Vec<Vec<u8>>>,
    note: Note,
}

const LINES: usize = 12;

/// Two chains over three files: the first ends in the second file, in good order or by a kill; the third is rotated to in
/// the second chain, which runs on.
fn write(is_killed: bool) -> Log {
    let sealed = Sealed::new();
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("audit.jsonl");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        for chain in [1, 2] {
            let audit = AuditFile::open(&path, Options::default()).expect("opens");
            audit.begin(sealed.chain()).await.expect("begun");
            for file in [1, 2] {
                for _ in 0..LINES {
                    audit.record(event("m")).await.expect("a line");
                }
                if file == 1 {
                    fs::rename(&path, home.path().join(format!("audit.jsonl.{chain}"))).expect("rotated");
                    audit.reopen();
                }
            }
            if is_killed && chain == 1 {
                drop(audit);
            } else {
                assert!(audit.close(Duration::from_secs(10)).await);
            }
        }
    });
    let found = files::of_log(&path).expect("found");
    let split = |path: &Path| -> Vec<Vec<u8>> {
        let bytes = fs::read(path).expect("a file");
        bytes.strip_suffix(b"\n").expect("whole lines").split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    };
    let note = Note::read(&path).expect("read").expect("a note");
    Log { sealed, files: found.iter().map(|file| split(&file.path)).collect(), note }
}

static LOG: LazyLock<Log> = LazyLock::new(|| write(false));

impl Log {
    fn report(&self, files: &[Vec<Vec<u8>>], witnesses: Vec<Witness>) -> Report {
        self.report_by(files, Expected { witnesses, ..Expected::default() })
    }

    fn report_by(&self, files: &[Vec<Vec<u8>>], expected: Expected) -> Report {
        let bytes = |lines: &Vec<Vec<u8>>| lines.iter().flat_map(|line| [&line[..], b"\n"].concat()).collect();
        report_by(files.iter().map(bytes).collect(), expected, &self.sealed.source)
    }

    /// What is found after a change, without and with the note.
    fn after(&self, change: impl Fn(&mut Vec<Vec<Vec<u8>>>)) -> Vec<Finding> {
        let mut files = self.files.clone();
        change(&mut files);
        let blind = self.report(&files, vec![]).findings;
        let noted = self.report(&files, vec![Witness::Noted(self.note)]).findings;
        assert!(noted.len() >= blind.len(), "{blind:#?} {noted:#?}");
        noted
    }

    /// Every line's file and index.
    fn places(&self) -> Vec<(usize, usize)> {
        let lines = |(file, lines): (usize, &Vec<Vec<u8>>)| (0..lines.len()).map(move |line| (file, line)).collect();
        self.files.iter().enumerate().flat_map(lines as fn(_) -> Vec<_>).collect()
    }
}

/// Whether a finding names one of these lines, given from 0.
fn names(findings: &[Finding], file: usize, lines: &[usize]) -> bool {
    let is_named = |place: Place| place.file == file && lines.iter().any(|line| *line as u64 + 1 == place.line);
    findings.iter().filter_map(|finding| finding.place).any(is_named)
}

#[test]
fn an_untouched_log_is_proved_to_its_last_line() {
    for is_killed in [false, true] {
        let log = write(is_killed);
        let report = log.report(&log.files, vec![Witness::Noted(log.note), Witness::Given(log.note.mark)]);
        assert_eq!((report.findings, report.notes), (vec![], vec![]));
        let count: usize = log.files.iter().map(Vec::len).sum();
        assert_eq!((report.lines, log.files.len()), (count as u64, 3));
        let ends: Vec<_> = report.chains.iter().map(|chain| (chain.lines, chain.end)).collect();
        let first = if is_killed { (2 * 12 + 2, End::Killed) } else { (2 * 12 + 3, End::Ended) };
        assert_eq!(ends, [first, (2 * 12 + 3, End::Ended)]);
    }
}

#[test]
fn a_later_file_is_proved_by_itself_and_says_what_it_follows() {
    for from in [1, 2] {
        let witnesses = vec![Witness::Noted(LOG.note)];
        let expected = Expected { witnesses: witnesses.clone(), is_partial: true, ..Expected::default() };
        let report = LOG.report_by(&LOG.files[from..], expected);
        assert_eq!(report.findings, [], "from file {from}");
        assert!(report.notes[0].what.starts_with("follows line "), "{:?}", report.notes);
        // Unless that is what was asked for, the first files are missed like any others.
        let report = LOG.report(&LOG.files[from..], witnesses);
        assert_eq!((report.findings.len(), report.notes.len()), (1, 0), "{report:?}");
        assert!(names(&report.findings, 0, &[0]) && report.findings[0].what.contains("missing before it"));
    }
}

/// A home with a log that these chains wrote, one after the other, some lines each, after what is done before each.
fn written(home: &Path, options: Options, chains: Vec<Chain>, lines: usize, before: &dyn Fn(usize)) -> PathBuf {
    let path = home.join("audit.jsonl");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        for (number, chain) in chains.into_iter().enumerate() {
            before(number);
            let audit = AuditFile::open(&path, options).expect("opens");
            audit.begin(chain).await.expect("begun");
            for _ in 0..lines {
                audit.record(event("m")).await.expect("a line");
            }
            assert!(audit.close(Duration::from_secs(10)).await);
        }
    });
    path
}

/// What is found in a log with the note beside it.
fn found(path: &Path, expected: Expected, source: &KeyFile) -> Report {
    let note = Note::read(path).expect("readable").expect("a note");
    let files = files::of_log(path).expect("found").into_iter().map(|file| fs::read(file.path).expect("a file"));
    let witnesses = vec![Witness::Noted(note)];
    report_by(files.collect(), Expected { witnesses, ..expected }, source)
}

#[test]
fn files_that_the_server_removed_are_not_missed_and_one_more_is() {
    let (home, sealed) = (tempfile::tempdir().expect("a directory"), Sealed::new());
    let options = Options { max_bytes: 2_000, keep_files: 2, ..Options::default() };
    let path = written(home.path(), options, vec![sealed.chain(), sealed.chain()], 60, &|_| {});
    let report = found(&path, Expected::default(), &sealed.source);
    assert_eq!(report.findings, []);
    assert!(report.notes[0].what.contains("the server removed the files before it"), "{:?}", report.notes);
    let kept = files::of_log(&path).expect("found");
    assert_eq!(kept.len(), 3);
    fs::remove_file(&kept[0].path).expect("removed by somebody else");
    let report = found(&path, Expected::default(), &sealed.source);
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert!(report.findings[0].what.contains("missing before it"), "{report:?}");
}

#[test]
fn a_start_without_a_note_to_go_by_is_found_for_ever() {
    let sealed = Sealed::new();
    type Deed<'a> = &'a dyn Fn(&Path);
    let remove: Deed<'_> = &|note| fs::remove_file(note).expect("removed");
    let garble: Deed<'_> = &|note| fs::write(note, "garbage").expect("garbled");
    for (deed, what) in [(remove, "found no head beside"), (garble, "found no head that could be read")] {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("audit.jsonl");
        let before = |number| {
            if number == 1 {
                // Lines are cut off the end, and who knew of them is silenced.
                let text = fs::read_to_string(&path).expect("a log");
                let cut: String = text.lines().take(4).map(|line| format!("{line}\n")).collect();
                fs::write(&path, cut).expect("cut");
                deed(&Note::path(&path));
            }
        };
        let chains = vec![sealed.chain(), sealed.chain(), sealed.chain()];
        written(home.path(), Options::default(), chains, 5, &before);
        let report = found(&path, Expected::default(), &sealed.source);
        assert_eq!(report.findings.len(), 1, "{report:?}");
        assert!(names(&report.findings, 0, &[4]) && report.findings[0].what.contains(what), "{report:?}");
    }
}

#[test]
fn a_log_that_was_removed_with_its_note_is_missed_by_what_is_left() {
    let (home, sealed) = (tempfile::tempdir().expect("a directory"), Sealed::new());
    let path = home.path().join("audit.jsonl");
    let before = |number| {
        if number == 1 {
            fs::rename(&path, home.path().join("audit.jsonl.1")).expect("an old file");
            fs::remove_file(Note::path(&path)).expect("removed");
        }
    };
    written(home.path(), Options::default(), vec![sealed.chain(), sealed.chain()], 5, &before);
    let report = found(&path, Expected::default(), &sealed.source);
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert!(report.findings[0].what.contains("begins a log anew"), "{report:?}");
    // The log alone: the note says what it followed.
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("audit.jsonl");
    let before = |number| {
        if number == 1 {
            fs::remove_file(&path).expect("removed")
        }
    };
    written(home.path(), Options::default(), vec![sealed.chain(), sealed.chain()], 5, &before);
    let report = found(&path, Expected::default(), &sealed.source);
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert!(report.findings[0].what.contains("missing before it"), "{report:?}");
}

#[test]
fn a_chain_of_another_store_is_found_though_its_key_is_the_same() {
    let (home, sealed) = (tempfile::tempdir().expect("a directory"), Sealed::new());
    let (own, foreign) = (sealed.chain(), sealed.another().chain());
    let (right, wrong) = (own.store(), foreign.store());
    let path = written(home.path(), Options::default(), vec![own, foreign], 5, &|_| {});
    for (store, is_found) in [(None, wrong), (Some(right), wrong), (Some(wrong), right)] {
        let report = found(&path, Expected { store, ..Expected::default() }, &sealed.source);
        assert_eq!(report.findings.len(), 1, "{report:?}");
        assert!(report.findings[0].what.contains(&format!("another store: {is_found}")), "{report:?}");
    }
}

#[test]
fn a_chain_under_a_root_key_of_before_is_found_and_at_the_end_told() {
    let first = Sealed::new();
    let second = first.rotated();
    let check = |chains: Vec<_>| {
        let home = tempfile::tempdir().expect("a directory");
        let path = written(home.path(), Options::default(), chains, 5, &|_| {});
        found(&path, Expected { root: Some(second.root()), ..Expected::default() }, &first.source)
    };
    let report = check(vec![first.chain(), first.chain(), second.chain(), second.chain()]);
    assert!(report.findings.is_empty() && report.notes.is_empty(), "{report:?}");
    let report = check(vec![first.chain(), second.chain(), first.chain()]);
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert!(report.findings[0].what.contains("rotated away before"), "{report:?}");
    let report = check(vec![first.chain(), first.chain()]);
    assert!(report.findings.is_empty(), "{report:?}");
    assert!(report.notes.len() == 1 && report.notes[0].what.contains("rotated away since"), "{report:?}");
}

#[test]
fn a_key_that_is_not_available_is_no_finding_of_a_change() {
    let (home, sealed, other) = (tempfile::tempdir().expect("a directory"), Sealed::new(), Sealed::new());
    let path = written(home.path(), Options::default(), vec![sealed.chain(), other.chain(), other.chain()], 5, &|_| {});
    let report = found(&path, Expected::default(), &other.source);
    assert_eq!(report.chains.len(), 2);
    assert_eq!(report.findings.len(), 2, "{report:?}");
    assert!(report.findings.iter().all(|finding| finding.is_unchecked), "{report:?}");
    assert!(report.findings[1].what.starts_with("6 lines from here on cannot be checked without"), "{report:?}");
    // With a key that opens none of it, too; and a change elsewhere is still told as one.
    let report = found(&path, Expected::default(), &Sealed::new().source);
    assert!(!report.findings.is_empty() && report.findings.iter().all(|finding| finding.is_unchecked), "{report:?}");
    let text = fs::read_to_string(&path).expect("a log");
    let edited: Vec<_> = text
        .lines()
        .enumerate()
        .map(|(at, line)| if at == 9 { line.replace("ann", "eve") } else { line.to_owned() })
        .collect();
    fs::write(&path, edited.into_iter().map(|line| line + "\n").collect::<String>()).expect("edited");
    let report = found(&path, Expected::default(), &other.source);
    let changed: Vec<_> = report.findings.iter().filter(|finding| !finding.is_unchecked).collect();
    assert!(changed.len() == 1 && changed[0].what.contains("was edited"), "{report:?}");
}

#[test]
fn every_flipped_byte_is_found_where_it_is() {
    for (file, line) in LOG.places() {
        let is_very_last = (file, line + 1) == (2, LOG.files[2].len());
        for at in (line % 7..LOG.files[file][line].len()).step_by(7) {
            let bit = 1 << (at % 7);
            let findings = LOG.after(|files| files[file][line][at] ^= bit);
            // A byte that became a newline moves what follows it one line on.
            let became_newline = LOG.files[file][line][at] ^ bit == b'\n';
            let lines = if became_newline { vec![line, line + 1] } else { vec![line] };
            // Of the last line only the note is left to say anything, and it says so of the line before.
            let lines = if is_very_last { vec![line - 1, line] } else { lines };
            assert!(names(&findings, file, &lines), "file {file} line {line} byte {at}: {findings:#?}");
            assert!(findings.len() <= 3, "file {file} line {line} byte {at}: {findings:#?}");
        }
    }
}

#[test]
fn every_deleted_line_is_missed_where_it_was() {
    for (file, line) in LOG.places() {
        let findings = LOG.after(|files| drop(files[file].remove(line)));
        let is_last = line + 1 == LOG.files[file].len();
        let found = match (is_last, file) {
            (false, _) => names(&findings, file, &[line]),
            (true, 2) => names(&findings, file, &[line - 1]),
            (true, _) => names(&findings, file + 1, &[0]),
        };
        assert!(found, "file {file} line {line}: {findings:#?}");
    }
}

#[test]
fn every_repeated_and_every_inserted_line_is_found() {
    for (file, line) in LOG.places() {
        let findings = LOG.after(|files| {
            let again = files[file][line].clone();
            files[file].insert(line + 1, again);
        });
        assert_eq!(findings.len(), 1, "file {file} line {line}: {findings:#?}");
        assert!(names(&findings, file, &[line + 1]), "file {file} line {line}: {findings:#?}");

        let elsewhere = LOG.files[(file + 1) % 3][line % 10 + 1].clone();
        let forged = {
            let text = String::from_utf8(LOG.files[file][line].clone()).expect("text");
            text.replace("users/ann", "users/eve")
                .replace("\"subjects\":[]", "\"subjects\":[{\"name\":\"x\"}]")
                .into_bytes()
        };
        for strange in [elsewhere, forged, b"{}".to_vec(), b"garbage".to_vec()] {
            let findings = LOG.after(|files| files[file].insert(line + 1, strange.clone()));
            assert!(names(&findings, file, &[line + 1]), "file {file} line {line}: {findings:#?}");
        }
    }
}

#[test]
fn every_pair_of_swapped_lines_is_found() {
    for (file, line) in LOG.places() {
        if line + 1 < LOG.files[file].len() {
            let findings = LOG.after(|files| files[file].swap(line, line + 1));
            assert!(names(&findings, file, &[line, line + 1]), "file {file} line {line}: {findings:#?}");
        }
    }
    let findings = LOG.after(|files| {
        let moved = files[0].remove(3);
        files[0].insert(8, moved);
    });
    let told: Vec<_> = findings.iter().map(|finding| (finding.place.expect("a place").line, &finding.what)).collect();
    assert!(told.iter().any(|(line, what)| *line == 4 && what.contains("missing")), "{told:#?}");
    assert!(told.iter().any(|(line, what)| *line == 9 && what.contains("out of its order")), "{told:#?}");
    let later = LOG.after(|files| {
        let moved = files[0].remove(8);
        files[0].insert(3, moved);
    });
    assert_eq!(later.len(), 1, "{later:#?}");
    assert!(later[0].what.contains("out of its order") && names(&later, 0, &[3]), "{later:#?}");
}

#[test]
fn files_in_another_order_or_missing_are_found() {
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        let findings = LOG.after(|files| files.swap(one, other));
        assert!(!findings.is_empty(), "{one} and {other}");
        assert!(findings.iter().all(|finding| finding.place.is_some()), "{findings:#?}");
    }
    let findings = LOG.after(|files| drop(files.remove(1)));
    assert!(names(&findings, 1, &[0]), "{findings:#?}");
    assert_eq!(LOG.after(|files| drop(files.remove(0))).len(), 1, "the oldest is missed");
    assert_ne!(LOG.after(|files| drop(files.remove(2))), [], "the newest is missed by its note");
}

#[test]
fn an_end_that_is_cut_off_is_missed_by_a_head() {
    for left in 1..LOG.files[2].len() {
        let cut = |files: &mut Vec<Vec<Vec<u8>>>| files[2].truncate(left);
        let findings = LOG.after(cut);
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert!(names(&findings, 2, &[left - 1]) && findings[0].what.contains("cut off"), "{findings:#?}");
        let mut files = LOG.files.clone();
        cut(&mut files);
        assert_eq!(LOG.report(&files, vec![]).findings, [], "nobody else could know");
    }
    // In the middle of the log the next file, or the next chain, knows.
    for (file, left) in [(0, 5), (1, LOG.files[1].len() - 5)] {
        let findings = LOG.after(|files| files[file].truncate(left));
        assert!(names(&findings, file + 1, &[0]), "{findings:#?}");
    }
}

#[test]
fn a_note_that_was_moved_back_is_found() {
    let (mut moved, earlier) = (LOG.note, &LOG.files[2][3]);
    moved.mark.seq = Links::of(earlier).expect("a line").seq;
    moved.mark.mac = code_of(earlier).expect("a code");
    let mut files = LOG.files.clone();
    files[2].truncate(4);
    let findings = LOG.report(&files, vec![Witness::Noted(moved)]).findings;
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert!(findings[0].what.contains("was edited"), "{findings:#?}");
}

#[test]
fn heads_of_other_logs_and_of_other_lines_are_not_there() {
    let other = write(false);
    let foreign = LOG.report(&LOG.files, vec![Witness::Given(other.note.mark)]).findings;
    assert!(foreign[0].what.contains("is not in these files"), "{foreign:#?}");
    let wrong = Mark { mac: crate::seal::chain::Mac::NONE, ..LOG.note.mark };
    let wrong = LOG.report(&LOG.files, vec![Witness::Given(wrong)]).findings;
    assert!(wrong[0].what.contains("is not as the head given knows it"), "{wrong:#?}");
}

#[test]
fn a_torn_line_is_harmless_and_mentioned() {
    for (file, line) in LOG.places() {
        let mut files = LOG.files.clone();
        let torn = files[file][line][..files[file][line].len() / 2].to_vec();
        files[file].insert(line, torn);
        let report = LOG.report(&files, vec![Witness::Noted(LOG.note)]);
        assert_eq!(report.findings, [], "file {file} line {line}");
        assert_eq!(report.notes.len(), 1, "file {file} line {line}");
    }
}

#[test]
fn a_line_that_is_just_being_written_is_no_finding() {
    let mut bytes: Vec<Vec<u8>> = LOG.files.iter().map(|lines| lines.join(&b'\n')).collect();
    bytes.iter_mut().for_each(|file| file.push(b'\n'));
    bytes[2].extend_from_slice(&LOG.files[2][3][..40]);
    let report = report_on(bytes, vec![], &LOG.sealed.source);
    assert_eq!((report.findings.len(), report.notes.len()), (0, 1), "{report:?}");
}

#[test]
fn another_key_opens_no_chain_and_ten_thousand_lines_are_one_finding() {
    let other = Sealed::new();
    let bytes = |files: &[Vec<Vec<u8>>]| files.iter().map(|lines| lines.join(&b'\n')).collect();
    let report = report_on(bytes(&LOG.files), vec![], &other.source);
    assert!(report.findings[0].what.contains("wrong key") && report.findings[0].is_unchecked, "{report:#?}");
    assert_eq!(report.lines, 0);

    let mut files = LOG.files.clone();
    for _ in 0..10_000 {
        files[0]
            .insert(2, b"{\"time\":\"2026-01-31T00:00:00Z\",\"seq\":3,\"phase\":\"done\",\"method\":\"m\"}".to_vec());
    }
    let report = report_on(bytes(&files), vec![], &LOG.sealed.source);
    assert!(report.findings.len() < 100, "{}", report.findings.len());
    assert!(report.findings[0].place == Some(Place { file: 0, line: 3 }), "{:?}", report.findings[0]);
}
