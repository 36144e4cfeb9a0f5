//! A disk that fails on demand.

use std::{
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use tokio::sync::watch;

use super::super::disk::{Disk, DiskDirectory, DiskFile, RealDisk, Room};

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
    /// So many bytes are written, then the system says this, by its number.
    WriteErrno(usize, i32),
    /// The same of a creation.
    CreateErrno(i32),
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
    /// How many files and directories may be opened until one is refused, with this number.
    refusal: Option<(usize, i32)>,
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

    /// Refuses one opening or creation, whatever of, after so many that pass.
    pub(super) fn refuse_opening(&self, after: usize, errno: i32) {
        self.plan().refusal = Some((after, errno));
    }

    /// Whether that is still to come.
    pub(super) fn is_to_refuse(&self) -> bool {
        self.plan().refusal.is_some()
    }

    fn opening(&self) -> io::Result<()> {
        let mut plan = self.plan();
        match plan.refusal {
            Some((0, errno)) => {
                plan.refusal = None;
                Err(io::Error::from_raw_os_error(errno))
            }
            Some((after, errno)) => {
                plan.refusal = Some((after - 1, errno));
                Ok(())
            }
            None => Ok(()),
        }
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
        self.opening()?;
        match self.take(on(path), |fault| matches!(fault, Fault::Create | Fault::CreateErrno(_))) {
            Some(Fault::CreateErrno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(_) => Err(io::ErrorKind::StorageFull.into()),
            None => Ok(self.wrap(path, RealDisk.create(path)?)),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.opening()?;
        Ok(self.wrap(path, RealDisk.open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn directory(&self, path: &Path) -> io::Result<Box<dyn DiskDirectory>> {
        self.opening()?;
        RealDisk.directory(path)
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
        match self.disk.take(self.on, |fault| matches!(fault, Fault::Write(..) | Fault::WriteErrno(..))) {
            Some(Fault::WriteErrno(keep, errno)) => {
                self.inner.write_at(offset, &bytes[..keep.min(bytes.len())])?;
                Err(io::Error::from_raw_os_error(errno))
            }
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

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
}
