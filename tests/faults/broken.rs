//! One system call fails; every one of the first of its kind, after the other.

use coffer_proto::v1::store_status::Writes;

use super::stage::{Fault, On, Outcome, Stage};

/// Writes until a fault shows, at most: more than sled may be behind the log.
const WRITES: usize = 150;

fn faults(on: On, call: &'static str, what: &'static str, when: &[usize]) -> Vec<Fault> {
    when.iter().map(|when| Fault { on, call, what, when: when.to_string() }).collect()
}

#[allow(clippy::print_stderr, reason = "how much was tried is part of the result")]
fn tell(tried: usize, struck: usize, starts: usize) {
    eprintln!("faults: {tried} tried, {struck} struck, {starts} of them a start");
}

/// Writes until one is not acknowledged, and says what became of it; none if all are.
async fn first_failure(stage: &mut Stage) -> Option<Outcome> {
    for _ in 0..WRITES {
        match stage.create().await {
            Outcome::Acknowledged => {}
            other => return Some(other),
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_write_or_sync_of_the_log_nothing_is_acknowledged_or_tried_again() {
    let mut all = faults(On::Log, "fdatasync", "error=EIO", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 20, 33]);
    all.extend(faults(On::Log, "fdatasync", "error=ENOSPC", &[2, 5]));
    all.extend(faults(On::Log, "pwrite64", "error=EIO", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 31]));
    let mut stage = Stage::set().await;
    let (mut struck, mut starts) = (0, 0);
    for fault in &all {
        if stage.start(fault).is_err() {
            (struck, starts) = (struck + 1, starts + 1);
            stage.recover(false).await;
            continue;
        }
        let first = first_failure(&mut stage).await;
        assert!(matches!(first, Some(Outcome::Open)), "{fault:?}: {first:?}");
        for _ in 0..2 {
            let later = stage.create().await;
            assert!(matches!(&later, Outcome::Refused(why) if why == "STORE_UNAVAILABLE"), "{fault:?}: {later:?}");
        }
        let (writes, reason, healthy) = stage.says().await;
        assert!(writes == Writes::None && reason.contains("the log"), "{fault:?}: {writes:?}, {reason}");
        assert!(healthy, "{fault:?}: reads are served, and a load balancer must go on sending them");
        stage.reads_go_on().await;
        assert_eq!(stage.calls_after_the_fault(), Vec::<String>::new(), "{fault:?}: the log was touched again");
        struck += usize::from(stage.was_struck());
        stage.recover(true).await;
    }
    assert_eq!(struck, all.len());
    tell(all.len(), struck, starts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_the_log_that_finds_no_room_is_refused_and_the_next_one_passes() {
    let mut stage = Stage::set().await;
    let all = faults(On::Log, "pwrite64", "error=ENOSPC", &[2, 3, 6]);
    for fault in &all {
        stage.start(fault).expect("it starts");
        let mut refusals = 0;
        for _ in 0..9 {
            match stage.create().await {
                Outcome::Acknowledged => {}
                Outcome::Refused(why) if why == "STORAGE_FULL" => refusals += 1,
                other => panic!("{fault:?}: {other:?}"),
            }
        }
        assert_eq!(refusals, 1, "{fault:?}");
        assert!(matches!(stage.delete().await, Outcome::Acknowledged));
        assert!(stage.says().await.2, "{fault:?}: it is healthy");
        stage.recover(true).await;
    }
    // From then on for good: nothing can be written, everything can be read.
    let fault = Fault { on: On::Log, call: "pwrite64", what: "error=ENOSPC", when: "3+".into() };
    stage.start(&fault).expect("it starts");
    let mut full = 0;
    for _ in 0..8 {
        full += usize::from(matches!(stage.create().await, Outcome::Refused(why) if why == "STORAGE_FULL"));
    }
    assert!(full >= 5, "{full} of 8 refused");
    let delete = stage.delete().await;
    assert!(matches!(&delete, Outcome::Refused(why) if why == "STORAGE_FULL"), "{delete:?}");
    stage.reads_go_on().await;
    stage.recover(true).await;
    tell(all.len() + 1, all.len() + 1, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sled_fails_to_take_stays_in_the_log() {
    let mut all = faults(On::Sled, "pwrite64", "error=EIO", &[1, 2, 3, 4, 5, 6, 7, 8, 12, 20, 36]);
    all.extend(faults(On::Sled, "pwrite64", "error=ENOSPC", &[1, 3]));
    all.extend(faults(On::Sled, "sync_file_range", "error=EIO", &[1, 2, 5, 12]));
    all.extend(faults(On::Sled, "fdatasync", "error=EIO", &[1, 2, 3, 4, 5, 6, 12, 24]));
    all.extend(faults(On::Sled, "fsync", "error=EIO", &[1]));
    let mut stage = Stage::set().await;
    let (mut struck, mut starts) = (0, 0);
    for fault in &all {
        if stage.start(fault).is_err() {
            (struck, starts) = (struck + 1, starts + 1);
            stage.recover(false).await;
            continue;
        }
        let first = first_failure(&mut stage).await;
        if stage.was_struck() {
            struck += 1;
            // What sled has missed is in the log: writes end when the failure shows, and not one is lost.
            if let Some(first) = first {
                assert!(matches!(&first, Outcome::Refused(why) if why == "STORE_UNAVAILABLE"), "{fault:?}: {first:?}");
                let (writes, reason, healthy) = stage.says().await;
                assert_eq!((writes, healthy), (Writes::None, true), "{fault:?}: {reason}");
            }
        } else {
            assert!(first.is_none(), "{fault:?}: {first:?}");
        }
        stage.reads_go_on().await;
        stage.recover(true).await;
    }
    tell(all.len(), struck, starts);
    assert!(struck > all.len() / 2, "{struck} of {} faults came", all.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_opened_is_said_in_one_line_and_opens_later() {
    let mut all = faults(On::Log, "openat", "error=EIO", &[1, 2]);
    all.extend(faults(On::Log, "openat", "error=EMFILE", &[1]));
    all.extend(faults(On::Sled, "openat", "error=EIO", &[1, 2]));
    let mut stage = Stage::set().await;
    let mut starts = 0;
    for fault in &all {
        let refused = stage.start(fault).is_err();
        starts += usize::from(refused);
        if !refused {
            stage.reads_go_on().await;
        }
        stage.recover(!refused).await;
    }
    tell(all.len(), starts, starts);
    assert!(starts >= 3, "{starts} of {} starts were refused", all.len());
}
