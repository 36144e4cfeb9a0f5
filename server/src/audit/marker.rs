//! The lines of a chain that are about the chain itself.

use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use super::{Mark, line::rfc3339};
use crate::seal::{Uid, chain::Chain, hex, unhex};

/// The method that these lines name.
pub(super) const METHOD: &str = "coffer-server/audit";

/// What such a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// The first line of a chain.
    Begin,
    /// The first line of a file, or of what was written after the file was opened again.
    Continued,
    /// The last line of a chain that ended in good order.
    End,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    seq: u64,
    phase: Kind,
    method: &'static str,
    principal: &'static str,
    subjects: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<ChainTexts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<&'a Mark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_after: Option<&'a Mark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<NoteDoubt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed_to: Option<&'a Mark>,
}

/// What a reader needs to check a chain, besides the key source.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ChainTexts {
    id: String,
    store: String,
    nonce: String,
    /// The store's header, in base64: the wrapped root key.
    header: String,
}

/// The same, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChainData {
    pub(super) id: Uid,
    pub(super) store: Uid,
    pub(super) nonce: [u8; 16],
    pub(super) header: Vec<u8>,
}

impl ChainTexts {
    fn of(chain: &Chain) -> Self {
        Self {
            id: chain.id().to_string(),
            store: chain.store().to_string(),
            nonce: hex(chain.nonce()),
            header: BASE64.encode(chain.header()),
        }
    }

    pub(super) fn understand(&self) -> Option<ChainData> {
        Some(ChainData {
            id: Uid(unhex(&self.id)?),
            store: Uid(unhex(&self.store)?),
            nonce: unhex(&self.nonce)?,
            header: BASE64.decode(&self.header).ok()?,
        })
    }
}

/// What was wrong with the note beside a log that there was when a chain began: lines may have been cut off the end
/// unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NoteDoubt {
    /// There was none.
    Missing,
    /// It could not be read.
    Unreadable,
}

/// Which marker, with what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// After which line of another chain, as found in the file; and after which line others are missing there.
    Begin {
        previous: Option<Mark>,
        missing_after: Option<Mark>,
        note: Option<NoteDoubt>,
    },
    /// After which line of the same chain; and up to which line files are removed because enough others are kept.
    Continued {
        previous: Mark,
        removed_to: Option<Mark>,
    },
    End,
}

/// Appends a marker's JSON to `buffer`, without its code.
pub(super) fn append(
    buffer: &mut Vec<u8>,
    seq: u64,
    time: SystemTime,
    chain: &Chain,
    marker: &Marker,
) -> Result<(), serde_json::Error> {
    let (phase, previous) = match marker {
        Marker::Begin { previous, .. } => (Kind::Begin, previous.as_ref()),
        Marker::Continued { previous, .. } => (Kind::Continued, Some(previous)),
        Marker::End => (Kind::End, None),
    };
    let (missing_after, note) = match marker {
        Marker::Begin { missing_after, note, .. } => (missing_after.as_ref(), *note),
        _ => (None, None),
    };
    let removed_to = match marker {
        Marker::Continued { removed_to, .. } => removed_to.as_ref(),
        _ => None,
    };
    let line = Line {
        time: rfc3339(time),
        seq,
        phase,
        method: METHOD,
        principal: "",
        subjects: [],
        chain: (phase != Kind::End).then(|| ChainTexts::of(chain)),
        previous,
        missing_after,
        note,
        removed_to,
    };
    serde_json::to_writer(buffer, &line)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::seal::{Keyring, header, source::KeyFile};

    /// A store that is nowhere else: what chains come from, and what opens them.
    pub(in crate::audit) struct Sealed {
        pub(in crate::audit) source: Arc<KeyFile>,
        keyring: Keyring,
        header: Vec<u8>,
    }

    impl Sealed {
        pub(in crate::audit) fn new() -> Self {
            let home = tempfile::tempdir().expect("a directory");
            Self::by(Arc::new(KeyFile::generate(&home.path().join("key")).expect("a key")))
        }

        /// Another store with the same key source.
        pub(in crate::audit) fn another(&self) -> Self {
            Self::by(Arc::clone(&self.source))
        }

        fn by(source: Arc<KeyFile>) -> Self {
            // In a thread of its own: some tests have a runtime already.
            let (keyring, header) = std::thread::scope(|scope| {
                let make = || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                    runtime.block_on(header::create(source.as_ref())).expect("a header")
                };
                scope.spawn(make).join().expect("no panic")
            });
            Self { source, keyring, header }
        }

        /// The same store after a rotation of its root key.
        pub(in crate::audit) fn rotated(&self) -> Self {
            let make = async {
                let source = self.source.as_ref();
                let (both, header) =
                    header::with_new_root(source, &self.keyring, &self.header).await.expect("a header");
                header::without_old_root(source, &both, &header).await.expect("a header")
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let (keyring, header) = runtime.block_on(make);
            Self { source: Arc::clone(&self.source), keyring, header }
        }

        /// The root key that its chains are under.
        pub(in crate::audit) fn root(&self) -> crate::seal::KeyId {
            self.keyring.root_id()
        }

        pub(in crate::audit) fn chain(&self) -> Chain {
            Chain::begin(&self.keyring, &self.header).expect("randomness")
        }
    }

    pub(in crate::audit) fn chain() -> Chain {
        Sealed::new().chain()
    }

    #[test]
    fn what_a_reader_needs_reads_back() {
        let chain = chain();
        let mut buffer = Vec::new();
        let marker = Marker::Begin { previous: None, missing_after: None, note: None };
        append(&mut buffer, 1, SystemTime::UNIX_EPOCH, &chain, &marker).expect("JSON");
        let line: serde_json::Value = serde_json::from_slice(&buffer).expect("JSON");
        assert_eq!((&line["phase"], &line["method"]), (&"begin".into(), &METHOD.into()));
        let texts: ChainTexts = serde_json::from_value(line["chain"].clone()).expect("the chain");
        let data = texts.understand().expect("understood");
        assert_eq!((data.id, data.store, &data.nonce), (chain.id(), chain.store(), chain.nonce()));
        assert_eq!(data.header, chain.header());
        assert!(["previous", "missing_after", "note", "removed_to"].iter().all(|key| line.get(key).is_none()));
    }
}
