//! A disk that fails on demand.

use std::{
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use tokio::sync::watch;

use super::super::disk::{Disk, DiskFile, RealDisk, Room};

/// Which files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Log,
    Sled,
    Snapshot,
}

/// What goes wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// So many bytes are written, then this.
    Write(usize, io::ErrorKind),
    Sync(io::ErrorKind),
    Truncate,
    Create,
    /// A sync waits for `release`.
    HangSync,
}

/// Clones are one disk.
#[derive(Clone, Debug, Default)]
pub(super) struct TestDisk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    plan: Mutex<Plan>,
    released: Condvar,
    hanging: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Plan {
    faults: Vec<(On, Fault)>,
    room: Option<Room>,
    writes: usize,
    syncs: usize,
    releases: usize,
}

impl TestDisk {
    pub(super) fn fail(&self, on: On, fault: Fault) {
        self.plan().faults.push((on, fault));
    }

    pub(super) fn set_free(&self, free_bytes: u64) {
        self.plan().room = Some(Room { free_bytes, total_bytes: 1 << 40 });
    }

    /// Writes to and syncs of the log so far.
    pub(super) fn log_calls(&self) -> (usize, usize) {
        let plan = self.plan();
        (plan.writes, plan.syncs)
    }

    /// Waits until so many syncs have hung in total.
    pub(super) async fn hung(&self, times: usize) {
        self.0.hanging.subscribe().wait_for(|hanging| *hanging >= times).await.expect("the disk is there");
    }

    /// Lets one hanging sync go on.
    pub(super) fn release(&self) {
        self.plan().releases += 1;
        self.0.released.notify_all();
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().expect("lock")
    }

    fn take(&self, on: On, matches: impl Fn(Fault) -> bool) -> Option<Fault> {
        let mut plan = self.plan();
        let at = plan.faults.iter().position(|(at, fault)| *at == on && matches(*fault))?;
        Some(plan.faults.remove(at).1)
    }

    fn wrap(&self, path: &Path, inner: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(TestFile { inner, on: on(path), disk: self.clone() })
    }
}

fn on(path: &Path) -> On {
    match path.parent().and_then(Path::file_name).and_then(|parent| parent.to_str()) {
        Some("log") => On::Log,
        Some("snapshots") => On::Snapshot,
        _ => On::Sled,
    }
}

impl Disk for TestDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        match self.take(on(path), |fault| fault == Fault::Create) {
            Some(_) => Err(io::ErrorKind::StorageFull.into()),
            None => Ok(self.wrap(path, RealDisk.create(path)?)),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(path, RealDisk.open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_directory(path)
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        let set = self.plan().room;
        set.map_or_else(|| RealDisk.room(path), Ok)
    }
}

#[derive(Debug)]
struct TestFile {
    inner: Box<dyn DiskFile>,
    on: On,
    disk: TestDisk,
}

impl DiskFile for TestFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.on == On::Log {
            self.disk.plan().writes += 1;
        }
        match self.disk.take(self.on, |fault| matches!(fault, Fault::Write(..))) {
            Some(Fault::Write(keep, kind)) => {
                self.inner.write_at(offset, &bytes[..keep.min(bytes.len())])?;
                Err(kind.into())
            }
            _ => self.inner.write_at(offset, bytes),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.on == On::Log {
            self.disk.plan().syncs += 1;
        }
        match self.disk.take(self.on, |fault| matches!(fault, Fault::Sync(_) | Fault::HangSync)) {
            Some(Fault::Sync(kind)) => return Err(kind.into()),
            Some(Fault::HangSync) => {
                self.disk.0.hanging.send_modify(|hanging| *hanging += 1);
                let wait = |plan: &mut Plan| plan.releases == 0;
                self.disk.0.released.wait_while(self.disk.plan(), wait).expect("lock").releases -= 1;
            }
            _ => {}
        }
        self.inner.sync()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        match self.disk.take(self.on, |fault| fault == Fault::Truncate) {
            Some(_) => Err(io::Error::other("injected")),
            None => self.inner.truncate(length),
        }
    }
}
