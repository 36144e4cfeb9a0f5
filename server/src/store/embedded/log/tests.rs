//! The log's decoders on what was written, on what was damaged, and on anything else.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    frame::{self, Kind},
    group::{self, Logged},
    segment::{self, Header, Origin, Summary},
};
use crate::store::{
    Change, Epoch, Millis, NUMBER_MAX, Revision, TransactionId,
    conformance::{delete, delete_prefix, put},
};

const FIRST: Revision = Revision(7);
const TIME: Millis = Millis(1_000);

/// A segment, where each of its frames begins, and its groups.
fn small_segment() -> (Vec<u8>, Vec<usize>, Vec<Vec<Logged>>) {
    segment_of("value")
}

fn segment_of(value: &str) -> (Vec<u8>, Vec<usize>, Vec<Vec<Logged>>) {
    let header =
        Header { origin: Origin::Own, instance: [5; 16], epoch: Epoch(3), first: FIRST, time: TIME, chain: 99 };
    let mut bytes = segment::encode_header(&header).to_vec();
    let (mut offsets, mut groups, mut revision, mut chain) = (Vec::new(), Vec::new(), FIRST.0, header.chain);
    for size in [1, 3, 1, 2] {
        let commits: Vec<_> = (revision..revision + size)
            .map(|at| Logged {
                id: TransactionId([at as u8; 16]),
                revision: Revision(at),
                changes: [put(&format!("k{at}"), value), delete("x"), delete_prefix("y/")].into(),
            })
            .collect();
        revision += size;
        let last = Revision(revision - 1);
        let frame = frame::encode(Kind::Group, [commits[0].revision, last], TIME, chain, &group::encode(&commits));
        chain = frame::decode_header(&frame).expect("a header").checksum;
        offsets.push(bytes.len());
        bytes.extend(frame);
        groups.push(commits);
    }
    (bytes, offsets, groups)
}

fn scan(bytes: &[u8], is_last: bool) -> Result<(Summary, Vec<Vec<Logged>>), segment::Damage> {
    let mut groups = Vec::new();
    let summary = segment::scan(bytes, is_last, &mut |group| groups.push(group.commits))?;
    Ok((summary, groups))
}

#[test]
fn what_was_written_is_read() {
    let (bytes, offsets, groups) = small_segment();
    for is_last in [true, false] {
        let (summary, read) = scan(&bytes, is_last).expect("it is whole");
        assert_eq!(read, groups);
        assert_eq!((summary.last, summary.end, summary.torn), (Revision(13), bytes.len(), 0));
        assert_eq!(summary.last_frame, Some(offsets[3]..bytes.len()));
        assert!(!summary.closed);
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let (bytes, offsets, groups) = small_segment();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(scan(&flipped, false).is_err(), "bit {bit} of a segment that another follows");
        match scan(&flipped, true) {
            // The last frame cannot be told from one that was never finished.
            Ok((summary, read)) => {
                assert!(bit / 8 >= offsets[3], "bit {bit}");
                assert_eq!((read, summary.end), (groups[..3].to_vec(), offsets[3]), "bit {bit}");
                assert_eq!(summary.torn, bytes.len() - offsets[3]);
            }
            Err(damage) => assert!(bit / 8 < offsets[3] && damage.offset <= bit / 8, "bit {bit}: {damage}"),
        }
    }
}

#[test]
fn every_cut_leaves_whole_groups() {
    let (bytes, offsets, groups) = small_segment();
    for keep in 0..bytes.len() {
        let whole = offsets.iter().filter(|offset| **offset <= keep).count();
        match scan(&bytes[..keep], true) {
            Ok((summary, read)) => {
                assert_eq!(read, groups[..whole.saturating_sub(1)]);
                assert_eq!(summary.end + summary.torn, keep);
            }
            Err(_) => assert!(keep < segment::HEADER_BYTES, "{keep}"),
        }
        let between_frames = offsets.contains(&keep);
        assert_eq!(scan(&bytes[..keep], false).is_ok(), between_frames, "{keep}");
    }
}

#[test]
fn frames_that_are_whole_but_out_of_place_are_found() {
    let (bytes, offsets, _) = small_segment();
    let frames: Vec<_> =
        (0..4).map(|at| &bytes[offsets[at]..offsets.get(at + 1).copied().unwrap_or(bytes.len())]).collect();
    for order in [&[1, 2, 3][..], &[0, 2, 3], &[0, 0, 1], &[0, 2, 1, 3], &[0, 1, 2, 3, 3]] {
        let mut moved = bytes[..segment::HEADER_BYTES].to_vec();
        order.iter().for_each(|at| moved.extend(frames[*at]));
        assert!(scan(&moved, true).is_err(), "{order:?}");
    }
}

#[test]
fn a_frame_that_is_older_than_the_one_before_it_is_found() {
    let header =
        Header { origin: Origin::Own, instance: [5; 16], epoch: Epoch(3), first: FIRST, time: TIME, chain: 99 };
    let commit = Logged { id: TransactionId([1; 16]), revision: FIRST, changes: [put("k", "v")].into() };
    for (time, is_good) in [(Millis(999), false), (TIME, true), (Millis(1_001), true)] {
        let payload = group::encode(std::slice::from_ref(&commit));
        let frame = frame::encode(Kind::Group, [FIRST, FIRST], time, header.chain, &payload);
        let bytes = [&segment::encode_header(&header)[..], &frame].concat();
        let read = scan(&bytes, true);
        assert_eq!(read.as_ref().map(|(summary, _)| summary.time).ok(), is_good.then_some(time), "{read:?}");
    }
}

#[test]
fn a_frame_of_another_history_is_found() {
    let ((one, offsets, _), (two, same_offsets, _)) = (segment_of("value"), segment_of("other"));
    assert_eq!(offsets, same_offsets);
    for at in offsets {
        let spliced = [&one[..at], &two[at..]].concat();
        // Before the first frame there is nothing that differs.
        assert_eq!(scan(&spliced, true).is_ok(), at == segment::HEADER_BYTES, "{at}");
    }
}

#[test]
fn a_tail_longer_than_any_frame_is_damage() {
    let (mut bytes, _, _) = small_segment();
    bytes.resize(bytes.len() + frame::HEADER_BYTES + frame::PAYLOAD_BYTES_MAX, 0);
    assert!(scan(&bytes, true).is_ok(), "as long as the longest frame");
    bytes.push(0);
    assert!(scan(&bytes, true).is_err());
}

fn change() -> impl Strategy<Value = Change> {
    let key = ".{1,20}";
    prop_oneof![
        (key, prop::collection::vec(any::<u8>(), 0..50))
            .prop_map(|(key, value)| Change::Put(crate::store::Key::new(key), value.into())),
        key.prop_map(|key| delete(&key)),
        key.prop_map(|key| delete_prefix(&key)),
    ]
}

fn logged() -> impl Strategy<Value = Logged> {
    (any::<[u8; 16]>(), any::<u64>(), prop::collection::vec(change(), 0..5)).prop_map(|(id, revision, changes)| {
        Logged { id: TransactionId(id), revision: Revision(revision), changes: Arc::from(changes) }
    })
}

proptest! {
    #[test]
    fn groups_are_read_as_written(commits in prop::collection::vec(logged(), 0..5)) {
        let bytes = group::encode(&commits);
        let size: usize = commits.iter().map(|commit| group::encoded_bytes(&commit.changes)).sum();
        prop_assert_eq!(bytes.len(), 4 + size);
        prop_assert_eq!(group::decode(&bytes), Ok(commits));
    }

    #[test]
    fn cut_groups_are_refused(commits in prop::collection::vec(logged(), 1..4), keep in any::<prop::sample::Index>()) {
        let bytes = group::encode(&commits);
        prop_assert!(group::decode(&bytes[..keep.index(bytes.len())]).is_err());
    }

    #[test]
    fn any_bytes_are_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = group::decode(&bytes);
        let _ = frame::decode(&bytes);
        prop_assert!(scan(&bytes, true).is_err());
        let header = Header { origin: Origin::Own, instance: [5; 16], epoch: Epoch(3), first: FIRST, time: TIME, chain: 99 };
        let after_header = [&segment::encode_header(&header)[..], &bytes].concat();
        let (summary, groups) = scan(&after_header, true).expect("bytes that are no frame are a torn one");
        prop_assert_eq!((summary.torn, groups), (bytes.len(), vec![]));
    }

    #[test]
    fn any_payload_of_a_good_frame_is_an_error(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let header = Header { origin: Origin::Own, instance: [5; 16], epoch: Epoch(3), first: FIRST, time: TIME, chain: 99 };
        let frame = frame::encode(Kind::Group, [FIRST, FIRST], TIME, header.chain, &payload);
        prop_assert!(scan(&[&segment::encode_header(&header)[..], &frame].concat(), true).is_err());
    }
}

#[test]
fn a_segment_that_nothing_can_follow_is_refused() {
    let at = |epoch, first| {
        let header = Header {
            origin: Origin::Own,
            instance: [5; 16],
            epoch: Epoch(epoch),
            first: Revision(first),
            time: TIME,
            chain: 99,
        };
        scan(&segment::encode_header(&header), true).map(drop)
    };
    assert_eq!(at(NUMBER_MAX, NUMBER_MAX), Ok(()));
    for (epoch, first) in [(NUMBER_MAX + 1, 1), (1, NUMBER_MAX + 1), (u64::MAX, 1), (1, u64::MAX)] {
        assert!(at(epoch, first).is_err_and(|damage| damage.what.contains("no store has come so far")));
    }
}
