//! How much memory the machine, or the cgroup the server runs in, has.

use std::{fs, path::Path};

/// What is assumed where the system does not tell, in bytes.
const UNKNOWN_BYTES: u64 = 1024 * 1024 * 1024;

/// The memory this process may use, in bytes: the machine's, or its cgroup's (version 2) if that is less.
pub(super) fn available_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(meminfo_total).unwrap_or(UNKNOWN_BYTES);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // A limit holds for everything below it, so each directory up to the root may say less.
    let limits = root.join(own);
    let limit = limits
        .ancestors()
        .take_while(|directory| directory.starts_with(root))
        .filter_map(|directory| fs::read_to_string(directory.join("memory.max")).ok())
        .filter_map(|text| text.trim().parse::<u64>().ok())
        .min();
    limit.map_or(machine, |limit| limit.min(machine))
}

/// `MemTotal` of proc_meminfo(5), in bytes.
fn meminfo_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_in_bytes() {
        assert_eq!(meminfo_total("MemTotal:        8000000 kB\nMemFree: 1 kB\n"), Some(8_192_000_000));
        assert_eq!(meminfo_total("MemFree: 1 kB\n"), None);
        assert_eq!(meminfo_total("MemTotal: many kB\n"), None);
        assert!(available_bytes() > 0);
    }
}
