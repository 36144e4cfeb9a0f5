//! Which etcd this is.

use coffer_proto::etcd::StatusRequest;

use super::connect::{Cluster, SHORT, status};
use crate::store::Error;

/// The earliest version that lets deletes pass when it has no room.
const VERSION_MIN: [u32; 3] = [3, 4, 20];

/// Refuses a version that does not do what the store needs.
pub(super) async fn check(cluster: &Cluster) -> Result<(), Error> {
    let version = cluster.read(SHORT, &StatusRequest {}, status).await?.version;
    match parse(&version) {
        Some(parsed) if parsed >= VERSION_MIN => Ok(()),
        _ => Err(Error::Failed(format!("this is etcd {version:.40}; 3.4.20 or later is needed"))),
    }
}

/// Three numbers; what may follow them is no part of the order.
fn parse(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split(['.', '-', '+']).map(str::parse);
    Some([parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, is_enough) in
            [("3.4.20", true), ("3.4.9", false), ("3.5.0-rc.1", true), ("3.10.0", true), ("2.3.8", false)]
        {
            assert_eq!(parse(version).is_some_and(|parsed| parsed >= VERSION_MIN), is_enough, "{version}");
        }
        assert_eq!(parse("three"), None);
    }
}
