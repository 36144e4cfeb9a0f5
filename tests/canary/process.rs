//! What a running process holds: below /proc, in its open and mapped files, and in its memory.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
};

use crate::harness::Planted;

/// Files of /proc/PID that tell about a process. Those of an undumpable one are for privileged readers only, so that a
/// test without privileges that is refused has seen enough.
const TOLD: &[&str] =
    &["cmdline", "environ", "comm", "status", "maps", "limits", "stat", "mountinfo", "auxv", "syscall"];
/// Most bytes read at once.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// By how much chunks overlap, in bytes: more than the longest form of what is planted.
const OVERLAP_BYTES: usize = 4096;

/// Where anything planted stands below /proc: of the process, and of each of its threads their names.
pub(super) fn told(pid: u32, planted: &Planted) -> Vec<String> {
    let mut paths: Vec<_> = TOLD.iter().map(|name| format!("/proc/{pid}/{name}")).collect();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process of this test's");
    paths.extend(threads.map(|thread| format!("{}/comm", thread.expect("readable").path().display())));
    let mut found = Vec::new();
    let mut read = 0;
    for path in paths {
        match fs::read(&path) {
            Ok(bytes) => {
                read += 1;
                found.extend(planted.found_in(&bytes).into_iter().map(|what| format!("{path}: {what}")));
            }
            // A thread may have ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.contains("/task/") => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{path}"),
        }
    }
    assert!(read >= 3, "only {read} files could be read");
    found
}

/// Where anything planted stands in what the process has written to its memory, and in the regular files that it has open
/// or mapped, deleted ones among them.
///
/// The heap and the stacks are searched once nothing is under way: what a call has freed must have been overwritten. Keys
/// are looked for as the text of their file only, for the server cannot work without their bytes.
///
/// # Errors
///
/// The memory cannot be read: the process is not dumpable, and this test is not privileged.
pub(super) fn remembered(pid: u32, planted: &Planted) -> io::Result<Vec<String>> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut found = Vec::new();
    let mut bytes_read = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        if !rights.starts_with("rw") {
            continue;
        }
        let region = line.split_whitespace().nth(5).unwrap_or("anonymous");
        let (start, end) = range.split_once('-').expect("a range");
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        let (mut at, end) = (address(start), address(end));
        while at < end {
            let length = CHUNK_BYTES.min((end - at) as usize);
            // What was unmapped since is not remembered.
            let Ok(length) = memory.read_at(&mut buffer[..length], at) else { break };
            bytes_read += length;
            found.extend(planted.found_in(&buffer[..length]).iter().map(|what| format!("{range} {region}: {what}")));
            at += if length < CHUNK_BYTES { length.max(1) } else { CHUNK_BYTES - OVERLAP_BYTES } as u64;
        }
    }
    assert!(bytes_read > 256 * 1024, "only {bytes_read} bytes of its memory were read");
    found.extend(open_files(pid, planted)?);
    Ok(found)
}

/// By the links to them: through these a file is read that has no name any more.
fn open_files(pid: u32, planted: &Planted) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for links in ["fd", "map_files"] {
        for link in fs::read_dir(format!("/proc/{pid}/{links}"))? {
            let link = link?.path();
            let Ok(target) = fs::read_link(&link) else { continue };
            if !fs::metadata(&link).is_ok_and(|metadata| metadata.is_file()) || !seen.insert(target.clone()) {
                continue;
            }
            // Written to only, or gone since.
            let Ok(bytes) = fs::read(&link) else { continue };
            found.extend(planted.found_in(&bytes).iter().map(|what| format!("{}: {what}", target.display())));
        }
    }
    assert!(!seen.is_empty(), "no open file");
    Ok(found)
}
