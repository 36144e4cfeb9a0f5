//! Snapshots that were written, that were damaged, and anything else.

use proptest::prelude::*;

use super::*;
use crate::store::{Key, Record};

fn header() -> Header {
    let position = Position { epoch: Epoch(2), revision: Revision(1 << 40) };
    Header { instance: [7; 16], position, time: Millis(1_700_000_000_000), chain: 99 }
}

fn record(key: &str, revision: u64, value: &[u8]) -> Record {
    Record { key: Key::new(key), value: value.into(), revision: Revision(revision) }
}

fn written(records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), header()).expect("memory");
    for record in records {
        writer.push(&record.key, record.revision, &record.value).expect("memory");
    }
    let (bytes, snapshot) = writer.finish().expect("memory");
    assert_eq!((snapshot.records, snapshot.bytes), (records.len() as u64, bytes.len() as u64));
    bytes
}

fn read(bytes: &[u8]) -> Result<(Header, Vec<Record>), Damage> {
    let mut reader = Reader::new(bytes)?;
    let mut records = Vec::new();
    while let Some(frame) = reader.frame()? {
        records.extend(frame);
    }
    assert_eq!(reader.bytes(), bytes.len() as u64);
    Ok((*reader.header(), records))
}

fn some() -> Vec<Record> {
    vec![record("a", 1, b""), record("b", 7, b"value"), record("b/c", 3, &[0xff; 40])]
}

#[test]
fn what_was_written_is_read() {
    let large = vec![5; crate::store::RECORD_BYTES];
    let many: Vec<_> = (0..12).map(|n| record(&format!("key-{n:02}"), n, &large)).collect();
    for records in [Vec::new(), some(), many] {
        assert_eq!(read(&written(&records)).expect("whole"), (header(), records));
    }
}

#[test]
fn every_flipped_bit_every_cut_and_every_addition_is_found() {
    let bytes = written(&some());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let damage = read(&flipped).expect_err("flipped");
        assert!(damage.offset <= bit as u64 / 8, "bit {bit}: {damage}");
    }
    for keep in 0..bytes.len() {
        assert!(read(&bytes[..keep]).expect_err("cut").to_string().contains("cut short"), "{keep}");
    }
    assert!(read(&[&bytes[..], b"x"].concat()).is_err());
}

#[test]
fn frames_that_are_whole_but_missing_or_out_of_place_are_found() {
    let large = vec![5; crate::store::RECORD_BYTES];
    let many: Vec<_> = (0..12).map(|n| record(&format!("key-{n:02}"), n, &large)).collect();
    let bytes = written(&many);
    // Three records fill a frame.
    let frame = FRAME_BYTES + 3 * (2 + 6 + 8 + 4 + large.len());
    let at = |n: usize| HEADER_BYTES + n * frame;
    let end = &bytes[at(4)..];
    let frames: Vec<&[u8]> = (0..4).map(|n| &bytes[at(n)..at(n + 1)]).collect();
    let together = |order: &[usize]| {
        let mut moved = bytes[..HEADER_BYTES].to_vec();
        order.iter().for_each(|n| moved.extend(frames[*n]));
        moved.extend(end);
        read(&moved)
    };
    assert!(together(&[0, 1, 2, 3]).is_ok());
    for order in [&[0, 1, 2][..], &[1, 2, 3], &[0, 2, 1, 3], &[0, 0, 1, 2, 3], &[]] {
        assert!(together(order).is_err(), "{order:?}");
    }
}

#[test]
fn records_out_of_order_or_of_the_future_are_found() {
    for wrong in [
        vec![record("b", 1, b""), record("a", 1, b"")],
        vec![record("a", 1, b""), record("a", 1, b"")],
        vec![record("a", (1 << 40) + 1, b"")],
    ] {
        assert!(read(&written(&wrong)).is_err(), "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
        let behind_a_header = [&header().encode()[..], &bytes].concat();
        prop_assert!(read(&behind_a_header).is_err());
    }

    #[test]
    fn any_payload_of_a_good_frame_is_read_or_an_error(payload in prop::collection::vec(any::<u8>(), 0..100), kind in 0_u8..4) {
        let mut bytes = header().encode().to_vec();
        bytes.push(kind);
        bytes.extend((payload.len() as u32).to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(checksum(kind, 0, &payload).to_le_bytes());
        bytes.extend(&payload);
        prop_assert!(read(&bytes).is_err(), "it has no end");
    }
}

#[test]
fn a_position_that_nothing_can_follow_is_refused() {
    let at = |epoch, revision| {
        let position = Position { epoch: Epoch(epoch), revision: Revision(revision) };
        Header::decode(&Header { instance: [7; 16], position, time: Millis(u64::MAX), chain: 0 }.encode())
    };
    let header = at(NUMBER_MAX, NUMBER_MAX).expect("as far as it goes");
    let time = humantime::format_rfc3339_seconds(header.time.time().expect("some")).to_string();
    assert_eq!(time, "9999-12-31T23:59:59Z", "any time can be written down");
    for (epoch, revision) in [(NUMBER_MAX + 1, 1), (1, NUMBER_MAX + 1), (u64::MAX, 1), (1, u64::MAX)] {
        assert!(at(epoch, revision).is_err_and(|damage| damage.what.contains("no store has come so far")));
    }
}
