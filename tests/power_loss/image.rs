//! Looking at what a power loss left, in a process of its own: sled may panic or hang on what it finds.

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::Hasher as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use coffer_server::store::{
    Epoch, Position, Revision, Store as _,
    embedded::{Embedded, Options},
};

use crate::harness::until_within;

/// Names the directory to look at.
const DIRECTORY: &str = "COFFER_TESTS_IMAGE";
const THIS: &str = "power_loss::image::an_image_is_looked_at";
/// Longest time that an image may take to open, be read, and open again.
const PATIENCE: Duration = Duration::from_secs(120);

/// What stands in a store: of which position, and a digest over all records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) position: Position,
    pub(super) records: String,
}

/// Whether the store found its sled unusable and made it anew from the log.
pub(super) fn was_made_anew(directory: &Path) -> bool {
    let names = fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with("sled."))
}

/// Opens the image and shows all of it, twice; or says why not.
pub(super) fn look_at(directory: &Path) -> Result<Shown, String> {
    let mut command = Command::new(env::current_exe().expect("a test knows its own path"));
    command.args(["--exact", THIS, "--nocapture", "--test-threads=1"]).env(DIRECTORY, directory);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    until_within(PATIENCE, "an image to open", || child.try_wait().expect("its own child"));
    let output = child.wait_with_output().expect("it has ended");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let shown = text.lines().find_map(|line| line.split_once("shown: ")).map(|(_, shown)| shown.to_owned());
    let failed = || format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    let shown = shown.filter(|_| output.status.success()).ok_or_else(failed)?;
    let (position, records) = shown.split_once(' ').expect("two words");
    Ok(Shown { position: parse(position).expect("a position"), records: records.to_owned() })
}

/// A position as coffer writes it.
pub(super) fn parse(text: &str) -> Option<Position> {
    let (epoch, revision) = text.split_once('.')?;
    Some(Position { epoch: Epoch(epoch.parse().ok()?), revision: Revision(revision.parse().ok()?) })
}

/// The other side of [`look_at`]; by itself it tests nothing.
#[tokio::test]
async fn an_image_is_looked_at() {
    let Some(directory) = env::var_os(DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let first = shown(directory).await;
    assert_eq!(shown(directory).await, first, "what the first opening mended shows something else");
    #[allow(clippy::print_stdout, reason = "the other side reads it")]
    {
        println!("shown: {} {}", first.position, first.records);
    }
}

async fn shown(directory: &Path) -> Shown {
    let store = Embedded::open(directory, Options::default()).await.unwrap_or_else(|error| panic!("{error}"));
    let mut load = store.load().await.expect("it can be read");
    let position = load.position();
    let (mut hasher, mut count) = (DefaultHasher::new(), 0);
    while let Some(page) = load.page().await.expect("it can be read") {
        for record in page {
            count += 1;
            hasher.write(record.key.as_str().as_bytes());
            hasher.write_u64(record.revision.0);
            hasher.write(&record.value);
        }
    }
    drop(load);
    store.close().await.expect("it closes");
    Shown { position, records: format!("{count} {:016x}", hasher.finish()) }
}
