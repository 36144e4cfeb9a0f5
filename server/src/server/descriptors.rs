//! How many connections the limit of open files leaves room for.

use rustix::process::{Resource, getrlimit};

use crate::serve::EVICTED_MAX;

/// Descriptors that no connection takes: the files of the store, its log and its snapshots, the audit log, certificates,
/// etcd and the key source (a server that does nothing has about 20), and connections that are about to close.
const RESERVE: u64 = 64 + EVICTED_MAX as u64;

/// Returns how many connections there may be: as configured, or as many as leave enough descriptors free, if they are
/// fewer.
pub(super) fn connections_max(configured: u32) -> u32 {
    let limit = getrlimit(Resource::Nofile).current;
    let most = limit.map_or(configured, |limit| within(configured, limit));
    if most < configured {
        tracing::warn!(
            connections = most,
            configured,
            open_files = limit,
            "the limit of open files (ulimit -Hn, LimitNOFILE=) leaves room for fewer connections than limits.connections"
        );
    }
    most
}

fn within(configured: u32, open_files: u64) -> u32 {
    let room = open_files - RESERVE.min(open_files / 2);
    configured.min(u32::try_from(room).unwrap_or(u32::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_room_beside_connections() {
        for (configured, open_files, most) in [
            (10_000, 1 << 20, 10_000),
            (10_000, 10_128, 10_000),
            (10_000, 10_127, 9_999),
            (10_000, 1_024, 896),
            (10_000, 64, 32),
            (10, 64, 10),
            (10, 1, 1),
            (u32::MAX, u64::MAX, u32::MAX),
        ] {
            assert_eq!(within(configured, open_files), most, "{configured} of {open_files}");
        }
    }
}
