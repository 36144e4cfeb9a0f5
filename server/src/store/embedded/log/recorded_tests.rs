//! Segments of what is recorded: gaps between revisions, a time of each commit's own.

use proptest::prelude::*;

use super::{
    frame::{self, Kind},
    group::Logged,
    recorded::{self, Recorded},
    segment::{self, Group, Header, Origin, Summary},
};
use crate::store::{Epoch, Millis, Revision, TransactionId, conformance::put};

const HEADER: Header = Header {
    origin: Origin::Recorded,
    instance: [5; 16],
    epoch: Epoch(3),
    first: Revision(7),
    time: Millis(50),
    chain: 99,
};

fn commit(revision: u64, time: u64) -> Recorded {
    let commit = Logged {
        id: TransactionId([revision as u8; 16]),
        revision: Revision(revision),
        changes: [put("key", "a value")].into(),
    };
    Recorded { time: Millis(time), commit }
}

/// A segment of these frames.
fn segment_of(origin: Origin, kind: Kind, frames: &[&[Recorded]]) -> Vec<u8> {
    let mut bytes = segment::encode_header(&Header { origin, ..HEADER }).to_vec();
    let mut chain = HEADER.chain;
    for commits in frames {
        let (first, last) = (&commits[0], &commits[commits.len() - 1]);
        let revisions = [first.commit.revision, last.commit.revision];
        let frame = frame::encode(kind, revisions, last.time, chain, &recorded::encode(commits));
        chain = frame::decode_header(&frame).expect("a header").checksum;
        bytes.extend(frame);
    }
    bytes
}

fn scan(bytes: &[u8]) -> Result<(Summary, Vec<Group>), segment::Damage> {
    let mut groups = Vec::new();
    let summary = segment::scan(bytes, true, &mut |group| groups.push(group))?;
    Ok((summary, groups))
}

#[test]
fn revisions_may_have_gaps_and_each_commit_has_its_time() {
    let frames: [&[Recorded]; 2] = [&[commit(9, 50), commit(12, 60), commit(13, 60)], &[commit(900, 61)]];
    let bytes = segment_of(Origin::Recorded, Kind::Recorded, &frames);
    let (summary, groups) = scan(&bytes).expect("whole");
    assert_eq!((summary.last, summary.time, summary.torn), (Revision(900), Millis(61), 0));
    let read: Vec<_> = groups.iter().map(|group| (group.time.0, group.commits.len())).collect();
    assert_eq!(read, [(50, 1), (60, 2), (61, 1)]);
    // Where a value stands in the segment is where it is read later.
    for group in &groups {
        for offset in super::group::value_offsets(&group.commits) {
            assert_eq!(&bytes[group.offset + offset[0]..][..7], b"a value");
        }
    }
}

#[test]
fn what_goes_back_or_is_of_a_stores_own_is_found() {
    let is_good = |frames: &[&[Recorded]]| scan(&segment_of(Origin::Recorded, Kind::Recorded, frames)).is_ok();
    assert!(is_good(&[&[commit(7, 50)], &[commit(8, 50)]]));
    assert!(!is_good(&[&[commit(6, 50)]]), "before the segment");
    assert!(!is_good(&[&[commit(7, 49)]]), "older than the segment");
    assert!(!is_good(&[&[commit(9, 50), commit(9, 50)]]), "a revision twice");
    assert!(!is_good(&[&[commit(9, 50)], &[commit(9, 50)]]), "in two frames");
    assert!(!is_good(&[&[commit(9, 50), commit(8, 50), commit(10, 50)]]), "out of order");
    assert!(!is_good(&[&[commit(9, 70), commit(10, 60)]]), "a time goes back");
    let frames: [&[Recorded]; 1] = [&[commit(7, 50)]];
    assert!(scan(&segment_of(Origin::Own, Kind::Recorded, &frames)).is_err(), "in a store's own log");
    assert!(scan(&segment_of(Origin::Recorded, Kind::Group, &frames)).is_err(), "a group of its own in a record");
}

#[test]
fn a_frame_that_is_missing_is_missed_although_there_are_gaps() {
    let frames: [&[Recorded]; 3] = [&[commit(9, 50)], &[commit(12, 50)], &[commit(20, 50)]];
    let bytes = segment_of(Origin::Recorded, Kind::Recorded, &frames);
    let frame = (bytes.len() - segment::HEADER_BYTES) / 3;
    let at = |number: usize| segment::HEADER_BYTES + number * frame;
    for missing in 0..2 {
        assert!(scan(&[&bytes[..at(missing)], &bytes[at(missing + 1)..]].concat()).is_err(), "{missing}");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = segment_of(Origin::Recorded, Kind::Recorded, &[&[commit(9, 50), commit(12, 60)], &[commit(20, 60)]]);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(segment::scan(&flipped, false, &mut |_| {}).is_err(), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn what_is_recorded_is_read_as_written(times in prop::collection::vec(0_u64..4, 1..20)) {
        let commits: Vec<_> = (1..).zip(&times).map(|(at, time)| commit(at * 3, *time)).collect();
        let bytes = recorded::encode(&commits);
        prop_assert!(bytes.len() <= commits.iter().map(recorded::encoded_bytes).sum());
        let read = recorded::decode(&bytes).expect("groups");
        let again = read.into_iter().flat_map(|Group { time, commits, .. }| {
            commits.into_iter().map(move |commit| Recorded { time, commit })
        });
        prop_assert_eq!(again.collect::<Vec<_>>(), commits);
    }

    #[test]
    fn any_payload_is_an_error_and_never_a_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = recorded::decode(&payload);
        let frame = frame::encode(Kind::Recorded, [Revision(7); 2], Millis(50), HEADER.chain, &payload);
        prop_assert!(scan(&[&segment::encode_header(&HEADER)[..], &frame].concat()).is_err());
    }
}
