use super::*;
use coffer_client::Status;
use coffer_proto::v1::Variable;
use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};
use zeroize::Zeroizing;

const WORKLOAD: &str = "projects/p/servers/s";
const HOUR: Duration = Duration::from_secs(60 * 60);

fn cache(root: &tempfile::TempDir) -> Cache {
    Cache {
        path: root.path().join("cache"),
        key: Zeroizing::new([7; 32]),
        max_age: HOUR,
        workload: WORKLOAD.to_owned(),
        address: "https://coffer.example".to_owned(),
    }
}

fn answer() -> FetchEnvironmentResponse {
    let value = Some(b"hunter2".to_vec());
    FetchEnvironmentResponse {
        workload: WORKLOAD.to_owned(),
        variables: vec![Variable { name: "A".to_owned(), value, kind: 1, ..Default::default() }],
        ..Default::default()
    }
}

fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + Duration::from_secs(secs)
}

fn failed(code: Code) -> Result<FetchEnvironmentResponse, Error> {
    Err(Error::from(Status::new(code, "as scripted")))
}

fn why_not(cache: &Cache, now: SystemTime) -> String {
    cache.load(now).map(drop).expect_err("refused")
}

#[test]
fn it_is_used_exactly_where_nobody_answered() {
    let root = tempfile::tempdir().expect("a directory");
    let cache = cache(&root);
    let codes = (0..=16).map(Code::from).filter(|code| *code != Code::Ok);
    for code in codes {
        assert!(cache.settle(Ok(answer()), at(0)).is_ok_and(|same| same == answer()));
        let settled = cache.settle(failed(code), at(60));
        let (used, kept) = match code {
            Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => (true, true),
            Code::Unauthenticated | Code::PermissionDenied | Code::NotFound => (false, false),
            _ => (false, true),
        };
        assert_eq!(settled.is_ok_and(|kept| kept == answer()), used, "{code:?}");
        assert_eq!(cache.path.exists(), kept, "{code:?}");
    }
    assert_eq!(
        cache.settle(failed(Code::PermissionDenied), at(0)).map(drop).expect_err("none").code(),
        Code::PermissionDenied
    );
    assert_eq!(cache.settle(failed(Code::Unavailable), at(0)).map(drop).expect_err("none").code(), Code::Unavailable);
}

#[test]
fn its_age_is_limited_in_both_directions() {
    let root = tempfile::tempdir().expect("a directory");
    let cache = cache(&root);
    cache.store(&answer(), at(100));
    for (secs, age) in [(100, 0), (101, 1), (100 + 3600, 3600), (99, 0), (40, 0)] {
        assert_eq!(cache.load(at(secs)).map(|kept| kept.age), Ok(Duration::from_secs(age)), "{secs}");
    }
    assert_eq!(why_not(&cache, at(100 + 3601)), "it is 1h 1s old, and --cache-max-age is 1h");
    assert!(why_not(&cache, at(39)).contains("from the future"));
}

#[test]
fn it_is_one_workloads_of_one_address() {
    let root = tempfile::tempdir().expect("a directory");
    let mine = cache(&root);
    mine.store(&answer(), at(0));
    assert!(mine.load(at(0)).is_ok());
    for other in [
        Cache { workload: "projects/p/servers/t".to_owned(), ..cache(&root) },
        Cache { address: "https://other.example".to_owned(), ..cache(&root) },
        Cache { key: Zeroizing::new([8; 32]), ..cache(&root) },
    ] {
        assert!(why_not(&other, at(0)).contains("of another key, workload or address"));
    }
    let other = FetchEnvironmentResponse { workload: "projects/p/servers/t".to_owned(), ..Default::default() };
    mine.store(&other, at(1));
    let of_then = FetchEnvironmentResponse { stale_since: Some(at(0).into()), ..answer() };
    mine.store(&of_then, at(1));
    mine.store(&FetchEnvironmentResponse { unchanged: true, variables: Vec::new(), ..answer() }, at(1));
    assert!(mine.load(at(2)).is_ok_and(|kept| kept.answer == answer()), "what is not its own is not kept");
}

#[test]
fn the_file_is_the_owners_and_not_somebody_elses() {
    let root = tempfile::tempdir().expect("a directory");
    let cache = cache(&root);
    cache.store(&answer(), at(0));
    assert_eq!(fs::metadata(&cache.path).expect("there").permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(root.path()).expect("readable").count(), 1, "nothing is left behind");
    fs::rename(&cache.path, root.path().join("victim")).expect("renamed");
    symlink(root.path().join("victim"), &cache.path).expect("linked");
    let before = fs::read(root.path().join("victim")).expect("there");
    cache.store(&answer(), at(1));
    assert!(fs::read(root.path().join("victim")).expect("there") == before, "a link was followed");
    assert!(why_not(&cache, at(0)).contains("cannot be read"));
}

#[test]
fn what_is_too_large_is_neither_kept_nor_read() {
    let root = tempfile::tempdir().expect("a directory");
    let cache = cache(&root);
    let mut large = answer();
    large.variables[0].value = Some(vec![b'x'; FILE_BYTES_MAX]);
    cache.store(&large, at(0));
    assert!(!cache.path.exists());
    fs::write(&cache.path, vec![1; FILE_BYTES_MAX + 1]).expect("written");
    assert!(why_not(&cache, at(0)).contains("larger than 4 MiB"));
}
