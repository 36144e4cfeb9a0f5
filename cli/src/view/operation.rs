//! The store as a whole, as its operators see it.

use coffer_proto::v1::{self, RotatedKeys, store_status::Writes};
use serde::Serialize;

use super::{View, counted, fields, listing};
use crate::print::{
    table::{Table, whole},
    time::{rfc3339, short},
};

/// How a server is.
#[derive(Serialize)]
pub(crate) struct StatusView {
    address: String,
    version: String,
    start_time: Option<String>,
    store: StoreView,
    keys: KeysView,
    audit: AuditView,
    process: ProcessView,
}

#[derive(Serialize)]
struct StoreView {
    kind: String,
    uid: String,
    position: String,
    writes: &'static str,
    writes_reason: Option<String>,
    scopes: i64,
    secrets: i64,
    grants: i64,
    tokens: i64,
    memory_bytes: i64,
    memory_bytes_max: i64,
    newest_snapshot: Option<SnapshotView>,
    oldest_position: Option<String>,
    oldest_time: Option<String>,
    history_bytes: i64,
    history_problem: Option<String>,
    free_bytes: i64,
}

#[derive(Serialize)]
struct KeysView {
    source: String,
    key_id: String,
    source_problem: Option<String>,
    source_check_time: Option<String>,
    root_key_id: String,
    rotation: Option<RotationView>,
}

#[derive(Serialize)]
struct AuditView {
    chain: String,
    sequence: i64,
    head: String,
    healthy: bool,
}

#[derive(Serialize)]
struct ProcessView {
    memory_locked: bool,
    memory_lock_problem: Option<String>,
    core_dumps_off: bool,
    undumpable: bool,
}

/// One snapshot.
#[derive(Serialize)]
pub(crate) struct SnapshotView {
    position: String,
    time: Option<String>,
    records: i64,
    bytes: i64,
}

/// The snapshots kept.
#[derive(Serialize)]
pub(crate) struct SnapshotList {
    snapshots: Vec<SnapshotView>,
}

/// A rotation, done or under way.
#[derive(Serialize)]
pub(crate) struct RotationView {
    keys: &'static str,
    principal: String,
    start_time: Option<String>,
    end_time: Option<String>,
    done: i64,
    total: i64,
}

impl From<v1::Snapshot> for SnapshotView {
    fn from(of: v1::Snapshot) -> Self {
        Self { time: rfc3339(of.time.as_ref()), position: of.position, records: of.records, bytes: of.bytes }
    }
}

impl From<v1::Rotation> for RotationView {
    fn from(of: v1::Rotation) -> Self {
        let keys = match of.keys() {
            RotatedKeys::Root => "root",
            RotatedKeys::Data => "data",
            RotatedKeys::Unspecified => "unknown",
        };
        Self {
            keys,
            start_time: rfc3339(of.start_time.as_ref()),
            end_time: rfc3339(of.end_time.as_ref()),
            principal: of.principal,
            done: of.done,
            total: of.total,
        }
    }
}

impl StatusView {
    /// Of the server at an address.
    pub(crate) fn new(address: String, status: v1::GetStatusResponse) -> Self {
        let start_time = rfc3339(status.start_time.as_ref());
        let store = status.store.unwrap_or_default();
        let keys = status.keys.unwrap_or_default();
        let audit = status.audit.unwrap_or_default();
        let process = status.process.unwrap_or_default();
        let writes = match store.writes() {
            Writes::All => "all",
            Writes::Deletes => "deletes only",
            Writes::None => "none",
            Writes::Unspecified => "unknown",
        };
        Self {
            address,
            version: status.version,
            start_time,
            store: StoreView {
                writes,
                newest_snapshot: store.newest_snapshot.map(SnapshotView::from),
                oldest_time: rfc3339(store.oldest_time.as_ref()),
                oldest_position: super::some(store.oldest_position),
                writes_reason: super::some(store.writes_reason),
                kind: store.kind,
                uid: store.uid,
                position: store.position,
                scopes: store.scopes,
                secrets: store.secrets,
                grants: store.grants,
                tokens: store.tokens,
                memory_bytes: store.memory_bytes,
                memory_bytes_max: store.memory_bytes_max,
                history_bytes: store.history_bytes,
                history_problem: super::some(store.history_problem),
                free_bytes: store.free_bytes,
            },
            keys: KeysView {
                source_check_time: rfc3339(keys.source_check_time.as_ref()),
                rotation: keys.rotation.map(RotationView::from),
                source: keys.source,
                key_id: keys.key_id,
                source_problem: super::some(keys.source_problem),
                root_key_id: keys.root_key_id,
            },
            audit: AuditView { chain: audit.chain, sequence: audit.sequence, head: audit.head, healthy: audit.healthy },
            process: ProcessView {
                memory_locked: process.memory_locked,
                memory_lock_problem: super::some(process.memory_lock_problem),
                core_dumps_off: process.core_dumps_off,
                undumpable: process.undumpable,
            },
        }
    }

    /// Whether nobody has to look at anything. Unlocked memory is a choice of the machine's, not a fault.
    pub(crate) fn is_well(&self) -> bool {
        let problems = [&self.store.history_problem, &self.keys.source_problem];
        self.store.writes == "all" && problems.iter().all(|problem| problem.is_none()) && self.audit.healthy
    }
}

impl View for StatusView {
    fn table(&self, _: Option<usize>) -> String {
        let StoreView { newest_snapshot, .. } = &self.store;
        let counts = [
            counted(self.store.secrets, "secret"),
            counted(self.store.scopes, "scope"),
            counted(self.store.grants, "grant"),
            counted(self.store.tokens, "token"),
        ];
        let because = |what: &str, why: &Option<String>| match why {
            Some(why) => format!("{what}: {why}"),
            None => what.to_owned(),
        };
        let oldest = match (&self.store.oldest_position, &self.store.oldest_time) {
            (None, _) => String::new(),
            (Some(position), None) => format!("{position}, its very beginning"),
            (Some(position), Some(time)) => format!("{position} of {} UTC", short(Some(time))),
        };
        let snapshot = newest_snapshot.as_ref().map_or("none".to_owned(), SnapshotView::sentence);
        let head = match self.audit.chain.as_str() {
            "" => String::new(),
            chain => format!("{chain}:{}:{}", self.audit.sequence, self.audit.head),
        };
        let audit = if self.audit.healthy { "written" } else { "cannot be written; calls fail" };
        let source = match self.keys.key_id.as_str() {
            "" => self.keys.source.clone(),
            id => format!("{} key {id}", self.keys.source),
        };
        let locked = if self.process.memory_locked { "locked" } else { "not locked" };
        let yes = |on: bool| if on { "yes" } else { "no" }.to_owned();
        fields(&[
            ("Server", self.address.clone()),
            ("Version", self.version.clone()),
            ("Serving since", short(self.start_time.as_deref())),
            ("Store", format!("{} {}", self.store.kind, self.store.uid)),
            ("Position", self.store.position.clone()),
            ("Holds", counts.join(", ")),
            ("Memory", format!("{} of {}", bytes(self.store.memory_bytes), bytes(self.store.memory_bytes_max))),
            ("Writes", because(self.store.writes, &self.store.writes_reason)),
            ("Newest snapshot", snapshot),
            ("Restorable from", oldest),
            ("History", because(&bytes(self.store.history_bytes), &self.store.history_problem)),
            ("Free disk", if self.store.free_bytes > 0 { bytes(self.store.free_bytes) } else { String::new() }),
            ("Key source", because(&source, &self.keys.source_problem)),
            ("Root key", self.keys.root_key_id.clone()),
            ("Rotation", self.keys.rotation.as_ref().map(RotationView::sentence).unwrap_or_default()),
            ("Audit log", audit.to_owned()),
            ("Audit head", head),
            ("Memory pages", because(locked, &self.process.memory_lock_problem)),
            ("Core dumps off", yes(self.process.core_dumps_off)),
            ("Undumpable", yes(self.process.undumpable)),
        ])
    }
}

impl SnapshotView {
    fn sentence(&self) -> String {
        let time = match &self.time {
            Some(time) => format!(" of {} UTC", short(Some(time))),
            None => String::new(),
        };
        format!("{}{time}, {}, {}", self.position, counted(self.records, "record"), bytes(self.bytes))
    }
}

impl View for SnapshotView {
    fn table(&self, _: Option<usize>) -> String {
        format!("snapshot {}\n", self.sentence())
    }
}

impl SnapshotList {
    pub(crate) fn new(snapshots: Vec<v1::Snapshot>) -> Self {
        Self { snapshots: snapshots.into_iter().map(SnapshotView::from).collect() }
    }
}

impl View for SnapshotList {
    fn table(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&["POSITION", "TIME (UTC)", "RECORDS", "SIZE"].map(whole));
        for snapshot in &self.snapshots {
            table.row([
                &snapshot.position,
                &short(snapshot.time.as_deref()),
                &snapshot.records.to_string(),
                &bytes(snapshot.bytes),
            ]);
        }
        listing(&table.render(width), &counted(self.snapshots.len() as i64, "snapshot"), false)
    }
}

impl RotationView {
    fn sentence(&self) -> String {
        let keys = match self.keys {
            "root" => "root key",
            "data" => "data keys",
            other => other,
        };
        match &self.end_time {
            Some(time) => format!("{keys}: done {} UTC, {}", short(Some(time)), self.done),
            None => format!("{keys}: {} of {}", self.done, self.total),
        }
    }
}

impl View for RotationView {
    fn table(&self, _: Option<usize>) -> String {
        format!("rotated {}\n", self.sentence())
    }
}

/// `3.4 MiB`.
fn bytes(count: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = count.max(0) as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "http://127.0.0.1:7470";

    fn status() -> v1::GetStatusResponse {
        v1::GetStatusResponse {
            version: "0.1.0".into(),
            store: Some(v1::StoreStatus {
                kind: "embedded".into(),
                position: "1.42".into(),
                writes: Writes::All.into(),
                secrets: 2,
                oldest_position: "1.0".into(),
                memory_bytes: 3_565_158,
                ..Default::default()
            }),
            keys: Some(v1::KeyStatus { source: "file".into(), key_id: "ab".into(), ..Default::default() }),
            audit: Some(v1::AuditStatus { chain: "c".into(), sequence: 7, head: "d".into(), healthy: true }),
            ..Default::default()
        }
    }

    #[test]
    fn a_status_says_what_to_look_at() {
        let well = StatusView::new(ADDRESS.into(), status());
        assert!(well.is_well());
        let text = well.table(None);
        assert!(text.contains("2 secrets") && text.contains("3.4 MiB") && text.contains("c:7:d"), "{text}");
        assert!(text.contains("1.0, its very beginning"), "{text}");

        let mut full = status();
        let store = full.store.as_mut().expect("given");
        store.set_writes(Writes::Deletes);
        store.writes_reason = "1 byte is free".into();
        let mut sourceless = status();
        sourceless.keys.as_mut().expect("given").source_problem = "it does not answer".into();
        let mut unwritten = status();
        unwritten.audit.as_mut().expect("given").healthy = false;
        let mut unrecorded = status();
        unrecorded.store.as_mut().expect("given").history_problem = "no such directory".into();
        for (ill, word) in [
            (full, "deletes only: 1 byte is free"),
            (sourceless, "it does not answer"),
            (unwritten, "calls fail"),
            (unrecorded, "0 B: no such directory"),
        ] {
            let ill = StatusView::new(ADDRESS.into(), ill);
            assert!(!ill.is_well());
            assert!(ill.table(None).contains(word), "{}", ill.table(None));
        }
    }

    #[test]
    fn sizes_are_read_at_a_glance() {
        let shown = [0, 1_023, 1_024, 1_536, 5 << 30].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]);
    }
}
