//! What a running process holds: below /proc, and in its memory.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
};

use aho_corasick::AhoCorasick;

/// Files of /proc/PID that tell about a process what others of its user may read.
const TOLD: &[&str] = &["cmdline", "environ", "comm", "status", "maps", "limits", "stat", "mountinfo"];
/// Most bytes read at once.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// What is planted: what to call it, and every form of it.
pub(super) type Planted = (String, Vec<Vec<u8>>);

/// Where anything planted stands below /proc.
pub(super) fn told(pid: u32, planted: &[Planted]) -> Vec<String> {
    let search = Search::new(planted);
    let mut found = Vec::new();
    for name in TOLD {
        let bytes = fs::read(format!("/proc/{pid}/{name}")).expect("a process of this test's");
        found.extend(search.names(&bytes).map(|what| format!("/proc/PID/{name}: {what}")));
    }
    found
}

/// Where anything planted stands in what the process has written to its memory.
///
/// # Errors
///
/// The memory cannot be read: the process is not dumpable, and this test is not privileged.
pub(super) fn remembered(pid: u32, planted: &[Planted]) -> io::Result<Vec<String>> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let search = Search::new(planted);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut found = Vec::new();
    let mut bytes_read = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').expect("a range");
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        let (mut at, end) = (address(start), address(end));
        while at < end {
            let length = CHUNK_BYTES.min((end - at) as usize);
            // What was unmapped since is not remembered.
            let Ok(length) = memory.read_at(&mut buffer[..length], at) else { break };
            bytes_read += length;
            let region = fields.clone().last().unwrap_or("anonymous");
            found.extend(search.names(&buffer[..length]).map(|what| format!("{range} {region}: {what}")));
            // Chunks overlap by more than the longest form.
            at += if length < CHUNK_BYTES { length.max(1) } else { CHUNK_BYTES - 4096 } as u64;
        }
    }
    assert!(bytes_read > 1024 * 1024, "only {bytes_read} bytes of a server's memory were read");
    Ok(found)
}

struct Search<'a> {
    forms: AhoCorasick,
    names: Vec<&'a str>,
}

impl<'a> Search<'a> {
    fn new(planted: &'a [Planted]) -> Self {
        let forms = planted.iter().flat_map(|(_, forms)| forms);
        let names = planted.iter().flat_map(|(name, forms)| forms.iter().map(move |_| name.as_str())).collect();
        Self { forms: AhoCorasick::new(forms).expect("short forms"), names }
    }

    fn names(&self, bytes: &[u8]) -> impl Iterator<Item = &'a str> {
        let found = self.forms.find_iter(bytes).map(|hit| self.names[hit.pattern()]).collect::<Vec<_>>();
        found.into_iter()
    }
}
