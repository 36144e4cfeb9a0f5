//! An acknowledged write survives a power loss, and one that was not acknowledged happened wholly or not at all.
//!
//! The real server runs under strace, which writes down everything it asks of its files, while clients write and the
//! process is killed again and again. From that, what the disk may hold is made for many moments: what was synced, and of
//! the rest any part, torn and out of order. Every such image must open and show exactly the records of one moment of
//! history, no earlier than what had been acknowledged.

mod disk;
mod image;
mod random;
mod record;
mod trace;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, mpsc},
    thread,
};

use coffer_server::store::Position;
use tempfile::TempDir;

use self::{
    disk::{Disk, Loss, Tree, write_tree},
    image::{Shown, look_at, was_made_anew},
    random::Random,
    record::{Recording, Session, record},
    trace::{Call, Moment, Operation},
};

/// More images than the suite makes: `COFFER_TESTS_IMAGES=20000`.
const IMAGES: &str = "COFFER_TESTS_IMAGES";
const IMAGES_USUAL: usize = 240;
/// Images of one moment.
const IMAGES_A_MOMENT: usize = 6;
/// Another seed: `COFFER_TESTS_SEED=1`. A failure says which it had.
const SEED: &str = "COFFER_TESTS_SEED";
/// Processes that look at images at a time.
const LOOKING: usize = 2;
/// How many writes of the log are looked back for the state that an image shows: what an opening writes again counts,
/// too, and so does what says that a log is closed.
const LOOK_BACK: usize = 4;

/// An image that was looked at.
struct Seen {
    moment: Moment,
    seed: u64,
    shown: Result<Shown, String>,
    made_anew: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_with_the_power() {
    let recording = record().await;
    let images = number(IMAGES).map_or(IMAGES_USUAL, |images| images as usize);
    let seed = number(SEED).unwrap_or_else(|| u64::from(std::process::id()));
    tokio::task::spawn_blocking(move || examine(&recording, images, seed)).await.expect("it holds");
}

#[allow(clippy::disallowed_methods, reason = "what one run of the tests is asked to do beyond the usual")]
fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

fn examine(recording: &Recording, images: usize, seed: u64) {
    let reused = reused_segments(recording);
    let moments = moments(recording, images.div_ceil(IMAGES_A_MOMENT), &mut Random(seed));
    let seen = images_of(recording, &moments, seed);
    let mut truth: BTreeMap<Position, Shown> = BTreeMap::new();
    for back in 0..LOOK_BACK {
        let unknown =
            seen.iter().filter(|seen| seen.shown.as_ref().is_ok_and(|shown| !truth.contains_key(&shown.position)));
        // Before the first write to the log there is what stood there at the beginning.
        let at = unknown.map(|seen| log_write_before(recording, seen.moment, back).unwrap_or_default()).collect();
        for seen in undamaged(recording, at) {
            let shown = seen.shown.unwrap_or_else(|error| panic!("the undamaged store does not open: {error}"));
            truth.insert(shown.position, shown);
        }
    }
    let (mut torn_openings, mut anew) = (0, 0);
    for Seen { moment, seed: image, shown, made_anew } in &seen {
        let which = format!("{SEED}={seed}: moment {moment}, image {image}");
        let shown = shown.as_ref().unwrap_or_else(|error| panic!("{which}: does not open: {error}"));
        let acknowledged = acknowledged(recording, *moment);
        assert!(shown.position >= acknowledged, "{which}: shows {}, {acknowledged} was acknowledged", shown.position);
        assert_eq!(truth.get(&shown.position), Some(shown), "{which}: not what stood there at that position");
        anew += usize::from(*made_anew);
        torn_openings += usize::from(is_opening(recording, *moment));
    }
    assert!(seen.len() >= images && torn_openings > 0 && reused > 0, "{torn_openings} openings, {reused} reused");
    let positions = truth.len();
    #[allow(clippy::print_stderr, reason = "how much was tried is part of the result")]
    {
        eprintln!(
            "power loss: {} images of {positions} positions, {torn_openings} while opening, {reused} segments of sled \
             reused, {anew} sleds made anew (seed {seed})",
            seen.len()
        );
    }
}

/// All operations, with the moments of the sessions' ends.
fn sessions(recording: &Recording) -> impl Iterator<Item = (&Session, Moment)> {
    recording.sessions.iter().map(|session| {
        let last = session.operations.iter().chain(&session.unfinished).map(|o| o.end.unwrap_or(o.begin)).max();
        (session, last.unwrap_or_default() + 1)
    })
}

/// Moments to lose power at, in order: one in four while the server opens its store.
fn moments(recording: &Recording, many: usize, random: &mut Random) -> Vec<Moment> {
    let mut chosen = Vec::new();
    for at in 0..many {
        let session = &recording.sessions[at % recording.sessions.len()];
        let serving = session.acknowledged.first().map_or(Moment::MAX, |(moment, _)| *moment);
        let opening = session.operations.iter().take_while(|operation| operation.begin < serving).count();
        let (from, to) = if at % 4 == 0 { (0, opening) } else { (opening, session.operations.len()) };
        let operation = &session.operations[from + random.below(to - from)];
        // Right before it began, in the middle of it, right after.
        let end = operation.end.unwrap_or(operation.begin);
        chosen.push([operation.begin, end, end + 1][random.below(3)]);
    }
    chosen.sort_unstable();
    chosen
}

fn is_opening(recording: &Recording, moment: Moment) -> bool {
    recording.sessions.iter().any(|session| {
        let begin = session.operations.first().map_or(Moment::MAX, |operation| operation.begin);
        let serving = session.acknowledged.first().map_or(0, |(moment, _)| *moment);
        (begin..serving).contains(&moment)
    })
}

/// The last position whose change was said to be made.
fn acknowledged(recording: &Recording, moment: Moment) -> Position {
    let lines = recording.sessions.iter().flat_map(|session| &session.acknowledged);
    lines.filter(|(at, _)| *at < moment).map(|(_, position)| *position).max().unwrap_or_default()
}

/// The end of a write to the log: the last one that had begun, or one so many before it.
fn log_write_before(recording: &Recording, moment: Moment, back: usize) -> Option<Moment> {
    let log = recording.root.join("log");
    let is_log = |o: &&Operation| matches!(&o.call, Call::Write { path, .. } if path.starts_with(&log));
    let all = recording.sessions.iter().flat_map(|session| &session.operations).filter(is_log);
    let before: Vec<_> = all.filter(|operation| operation.begin < moment).collect();
    let at = before.len().checked_sub(back + 1)?;
    Some(before[at].end.unwrap_or(before[at].begin) + 1)
}

/// How many of sled's segments were written over: it begins each with a write of its own.
fn reused_segments(recording: &Recording) -> usize {
    let file = recording.root.join("sled/db");
    let segment = 8 << 20;
    let mut begun = BTreeMap::new();
    for operation in recording.sessions.iter().flat_map(|session| &session.operations) {
        if let Call::Write { path, offset, bytes } = &operation.call
            && *path == file
            && offset % segment == 0
            && bytes.iter().any(|byte| *byte != 0)
        {
            *begun.entry(*offset).or_insert(0) += 1;
        }
    }
    begun.values().filter(|writes| **writes > 1).count()
}

/// Loses power at each moment in several ways, and looks at what is left.
fn images_of(recording: &Recording, moments: &[Moment], seed: u64) -> Vec<Seen> {
    looked_at(&recording.root, |give| {
        walk(recording, moments, |disk, under_way, moment| {
            for image in 0..IMAGES_A_MOMENT {
                let loss = if image == 0 { Loss::All } else { Loss::Some };
                let seed = seed ^ (moment as u64) << 8 ^ image as u64;
                give(moment, seed, disk.after_power_loss(under_way, loss, &mut Random(seed)));
            }
        });
    })
}

/// What the store showed at these moments, without any loss.
fn undamaged(recording: &Recording, mut moments: Vec<Moment>) -> Vec<Seen> {
    moments.sort_unstable();
    moments.dedup();
    looked_at(&recording.root, |give| {
        walk(recording, &moments, |disk, _, moment| {
            give(moment, 0, disk.after_power_loss(&[], Loss::Nothing, &mut Random(0)));
        });
    })
}

/// Goes through history and stops at these moments, which are in order.
fn walk(recording: &Recording, moments: &[Moment], mut stop: impl FnMut(&Disk, &[&Operation], Moment)) {
    let mut disk = Disk::new(&recording.begin);
    let mut moments = moments.iter().copied().peekable();
    for (session, last) in sessions(recording) {
        let mut operations = session.operations.iter().peekable();
        loop {
            let next = moments.next_if(|moment| *moment <= last);
            let until = next.unwrap_or(last);
            while let Some(operation) = operations.next_if(|o| o.end.is_some_and(|end| end < until)) {
                disk.apply(operation);
            }
            let Some(moment) = next else { break };
            let under_way: Vec<_> = operations
                .clone()
                .take(64)
                .chain(&session.unfinished)
                .filter(|operation| operation.begin < moment)
                .collect();
            stop(&disk, &under_way, moment);
        }
        disk.settle(&session.left, &session.unfinished, last);
    }
}

/// Has processes look at every tree that `make` gives.
fn looked_at(root: &Path, make: impl FnOnce(&mut dyn FnMut(Moment, u64, Tree))) -> Vec<Seen> {
    let directory = TempDir::new_in(memory()).expect("a directory");
    let (sender, receiver) = mpsc::sync_channel::<(Moment, u64, Tree)>(LOOKING);
    let receiver = Mutex::new(receiver);
    let seen = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..LOOKING {
            scope.spawn(|| {
                loop {
                    let next = receiver.lock().expect("no panic").recv();
                    let Ok((moment, seed, tree)) = next else { break };
                    let image = directory.path().join(format!("{moment}-{seed}"));
                    write_tree(&tree, root, &image);
                    let shown = look_at(&image);
                    let made_anew = was_made_anew(&image);
                    fs::remove_dir_all(&image).expect("it is there");
                    seen.lock().expect("no panic").push(Seen { moment, seed, shown, made_anew });
                }
            });
        }
        make(&mut |moment, seed, tree| sender.send((moment, seed, tree)).expect("somebody looks"));
        drop(sender);
    });
    seen.into_inner().expect("no panic")
}

/// A directory in memory where there is one: an image is written once, and its syncs need not reach a disk.
fn memory() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    let room = rustix::fs::statvfs(&shared).map_or(0, |stat| stat.f_bavail * stat.f_frsize);
    if room > 2 << 30 { shared } else { env::temp_dir() }
}
