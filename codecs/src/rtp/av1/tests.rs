//! AV1: what libaom and SVT-AV1 write, packets both ways, and what must do no harm.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::units::{Completed, Fault};
use super::obu::{leb128, without_size};
use super::*;

/// libaom, profile High (4:4:4), level 2.1, 640×360: with its size field, as in a file.
const AOM: &[u8] = b"\x0a\x0d\x20\x00\x00\x0c\xc4\xff\x67\x36\xbe\x48\x08\x68\x01";
/// SVT-AV1, profile Main, level 2.1, without size field.
pub const SVT: &[u8] = b"\x08\x00\x00\x00\x0c\xc4\xff\x67\x3e\xfe\x40\x10";

/// A frame OBU: a key frame that is shown, or another one.
pub fn frame(key: bool, size: usize) -> Bytes {
    let mut obu = vec![0x30, if key { 0x10 } else { 0x30 }];
    obu.resize(size.max(2), 0x55);
    obu.into()
}

fn units(completed: Completed) -> Vec<Result<Vec<Bytes>, Fault>> {
    completed
        .into_iter()
        .flatten()
        .map(|u| u.map(|u| u.nals))
        .collect()
}

#[test]
fn sequence_headers() {
    let aom = without_size(&Bytes::from_static(AOM)).unwrap();
    assert_eq!((aom.len(), aom[0]), (14, 0x08));
    let of = |obu: &[u8]| Sequence::parse(obu).map(|s| (s.profile, s.level_idx, s.tier));
    assert_eq!(of(&aom), Some((1, 1, 0)));
    assert_eq!(of(SVT), Some((0, 1, 0)));
    assert_eq!(of(AOM), None, "the size field was to be removed");
    let sequence = Sequence::parse(SVT).unwrap();
    // First bytes of frames by both encoders.
    assert!(is_key_frame(&[0x30, 0x10, 0x00, 0x85], &sequence));
    assert!(!is_key_frame(&[0x30, 0x30, 0x03, 0x80], &sequence));
    assert!(!is_key_frame(&[0x30, 0x80], &sequence), "shown again");
    assert!(!is_key_frame(SVT, &sequence));
}

#[test]
fn lengths_that_lie() {
    assert_eq!(leb128(&[0xe5, 0x8e, 0x26]), Some((624_485, 3)));
    assert_eq!(leb128(&[0x80; 9]), None);
    assert_eq!(leb128(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]), None);
    for obu in [&[0x32, 9, 1][..], &[0x32], &[0x34], &[0x36, 0, 0x80]] {
        assert_eq!(without_size(&Bytes::copy_from_slice(obu)), None, "{obu:?}");
    }
    for payload in [
        &[][..],
        &[0x20, 200, 1],
        &[0x00, 0x80],
        &[0x10, 0x32, 9],
        &[0x80 | 0x10, 1],
    ] {
        let mut d = Av1Depacketizer::default();
        let payload = Bytes::copy_from_slice(payload);
        assert_eq!(
            units(d.push(&payload, 0, true, false)),
            [Err(Fault::Malformed)],
            "{payload:?}"
        );
    }
}

/// Written by hand after §4.4: W=2 and N; W=0 with a temporal delimiter and sizes inside; a frame in three packets.
#[test]
fn golden_packets() {
    let (sequence, key) = (Bytes::from_static(SVT), frame(true, 5));
    let two = [&[0x28, 12][..], SVT, &key].concat();
    let cut = packetize_av1(&[sequence.clone(), key.clone()], true, 1200);
    assert_eq!(cut.iter().collect::<Vec<_>>(), [&two[..]]);
    let mut d = Av1Depacketizer::default();
    let whole = [Ok(vec![sequence.clone(), key.clone()])];
    assert_eq!(units(d.push(&two.into(), 0, true, false)), whole);
    let sized = [
        &[0x08, 2, 0x12, 0, 13, 0x0a, 11][..],
        &SVT[1..],
        &[6, 0x32, 4],
        &key[1..],
    ]
    .concat();
    assert_eq!(units(d.push(&sized.into(), 1, true, false)), whole);
    let parts = [
        &[0x50, 0x30, 0x30, 1][..],
        &[0xd0, 2, 3],
        &[0xa0, 1, 4, 0x30, 9],
    ];
    let mut out = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        out.extend(units(d.push(
            &Bytes::copy_from_slice(part),
            2,
            i == 2,
            false,
        )));
    }
    let first = Bytes::from_static(&[0x30, 0x30, 1, 2, 3, 4]);
    let second = Bytes::from_static(&[0x30, 9]);
    assert_eq!(out, [Ok(vec![first, second])]);
}

#[test]
fn units_end_with_time_or_delimiter_when_the_marker_is_missing() {
    let mut d = Av1Depacketizer::default();
    let one = |obu: &Bytes| Bytes::from([&[0x10][..], obu].concat());
    let delimiter = Bytes::from_static(&[0x10, 0x10]);
    assert!(units(d.push(&one(&frame(true, 9)), 0, false, false)).is_empty());
    assert_eq!(units(d.push(&delimiter, 0, false, false)).len(), 1);
    assert!(units(d.push(&one(&frame(false, 9)), 0, false, false)).is_empty());
    assert_eq!(
        units(d.push(&one(&frame(false, 9)), 3000, false, false)).len(),
        1
    );
}

#[test]
fn bombs_are_bounded() {
    let mut bomb = vec![0x00];
    for _ in 0..20_000 {
        bomb.extend([1, 0x30]);
    }
    let mut d = Av1Depacketizer::default();
    assert_eq!(
        units(d.push(&bomb.into(), 0, true, false)),
        [Err(Fault::TooLarge)]
    );
    let mut d = Av1Depacketizer::default();
    let mut out = Vec::new();
    for i in 0..5000 {
        let mut part = vec![if i == 0 { 0x50 } else { 0xd0 }, 0x30];
        part.resize(1200, 0);
        out.extend(units(d.push(&part.into(), 0, false, false)));
    }
    out.extend(units(d.push(
        &Bytes::from_static(&[0x10, 0x30]),
        1,
        false,
        false,
    )));
    assert_eq!(out, [Err(Fault::TooLarge)]);
}

#[test]
fn a_loss_costs_its_unit() {
    let mut d = Av1Depacketizer::default();
    let cut = packetize_av1(&[frame(false, 3000)], false, 1200);
    d.push(&cut.get(0).unwrap(), 0, false, false);
    assert_eq!(
        units(d.push(&cut.get(2).unwrap(), 0, true, true)),
        [Err(Fault::Lost)]
    );
    let key = packetize_av1(&[Bytes::from_static(SVT), frame(true, 9)], true, 1200);
    assert!(units(d.push(&key.get(0).unwrap(), 3000, true, true))[0].is_ok());
}

proptest! {
    #[test]
    fn depacketize_packetize_is_the_same(
        sizes in prop::collection::vec(2usize..4000, 1..9),
        key: bool,
        max in 16usize..1500,
    ) {
        let obus: Vec<Bytes> = sizes.into_iter().map(|s| frame(key, s)).collect();
        let payloads = packetize_av1(&obus, key, max);
        prop_assert!(payloads.iter().all(|p| p.len() <= max && p.len() > 1));
        for (i, p) in payloads.iter().enumerate() {
            prop_assert_eq!(p[0] & 0x08 != 0, key && i == 0);
        }
        let mut d = Av1Depacketizer::default();
        let last = payloads.len() - 1;
        let got: Vec<_> = (0..=last)
            .flat_map(|i| units(d.push(&payloads.get(i).unwrap(), 0, i == last, false)))
            .collect();
        prop_assert_eq!(got, vec![Ok(obus)]);
    }

    #[test]
    fn any_bytes(packets in prop::collection::vec((any::<Vec<u8>>(), 0u64..4, any::<bool>(), any::<bool>()), 0..60)) {
        let mut d = Av1Depacketizer::default();
        for (payload, time, marker, lost) in packets {
            for unit in d.push(&payload.into(), time, marker, lost).into_iter().flatten().flatten() {
                prop_assert!(!unit.nals.is_empty() && unit.nals.iter().all(|n| !n.is_empty() && n[0] & 2 == 0));
            }
        }
    }

    #[test]
    fn any_sequence_header(mut bytes: Vec<u8>) {
        bytes.insert(0, 0x08);
        let _ = Sequence::parse(&bytes);
    }
}
