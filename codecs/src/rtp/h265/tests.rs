//! H.265: what x265 writes, packets both ways, and what must do no harm.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::units::{Completed, Fault};
use super::*;

/// x265, Main, 640×360.
pub const VPS: &[u8] =
    b"\x40\x01\x0c\x01\xff\xff\x01\x60\x00\x00\x03\x00\x90\x00\x00\x03\x00\x00\x03\x00\x3f\x95\x94\x09";
pub const SPS: &[u8] =
    b"\x42\x01\x01\x01\x60\x00\x00\x03\x00\x90\x00\x00\x03\x00\x00\x03\x00\x3f\xa0\x05\x02\x01\x71\
    \xf2\xe5\x95\x95\x29\x30\xbc\x05\xa0\x20\x00\x00\x03\x00\x20\x00\x00\x03\x03\x21";
pub const PPS: &[u8] = b"\x44\x01\xc0\x73\xc1\x89";
/// x265, Main 10, 1912×1080, high tier, level 5.1.
pub const SPS_MAIN_10: &[u8] =
    b"\x42\x01\x01\x22\x20\x00\x00\x03\x00\x90\x00\x00\x03\x00\x00\x03\x00\x99\xa0\x03\xc0\
    \x80\x11\x07\x2c\xad\x96\x56\x54\xa4\xc2\xf0\x16\x80\x80\x00\x00\x03\x00\x80\x00\x00\x0c\x84";

/// A slice segment that is the first of its picture, or a later one.
pub fn slice(kind: NalType, first: bool, size: usize) -> Bytes {
    let mut nal = vec![kind.0 << 1, 1, if first { 0x80 } else { 0x40 }];
    nal.resize(size.max(3), 0x55);
    nal.into()
}

fn units(completed: Completed) -> Vec<Result<Vec<Bytes>, Fault>> {
    completed
        .into_iter()
        .flatten()
        .map(|u| u.map(|u| u.nals))
        .collect()
}

#[test]
fn sps_of_x265() {
    let sps = Sps::parse(SPS).unwrap();
    assert_eq!((sps.profile, sps.level, sps.high_tier), (1, 63, false));
    assert_eq!((sps.width, sps.height), (640, 360));
    assert!(sps.decodable_by(1) && sps.decodable_by(2) && !sps.decodable_by(4));
    let sps = Sps::parse(SPS_MAIN_10).unwrap();
    assert_eq!((sps.profile, sps.level, sps.high_tier), (2, 153, true));
    assert_eq!((sps.width, sps.height), (1912, 1080));
    assert!(!sps.decodable_by(1) && sps.decodable_by(2));
}

#[test]
fn sets_are_replaced_by_id() {
    let [vps, sps, pps, other] = [VPS, SPS, PPS, SPS_MAIN_10].map(Bytes::from_static);
    let mut sets = ParameterSets::new(&vps, &sps, &Bytes::new());
    assert!(!sets.is_complete());
    assert!(sets.learn(&pps) && sets.is_complete());
    assert!(!sets.learn(&pps), "the same again is no change");
    assert!(sets.learn(&other), "another resolution");
    assert_eq!(sets.iter().cloned().collect::<Vec<_>>(), [vps, other, pps]);
}

/// Two NAL units aggregated and one in three fragments, written by hand after RFC 7798 §4.4.2 and §4.4.3.
#[test]
fn golden_packets() {
    let ap = [
        &[0x60, 0x01, 0, 6][..],
        PPS,
        &[0, 4, 0x26, 0x01, 0xaf, 0x09],
    ]
    .concat();
    let mut d = H265Depacketizer::default();
    assert!(units(d.push(&ap.clone().into(), 9, false, false)).is_empty());
    let parts = [
        &[0x62, 0x01, 0x93, 0x40, 1][..],
        &[0x62, 0x01, 0x13, 2, 3],
        &[0x62, 0x01, 0x53, 4],
    ];
    let mut out = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let part = Bytes::copy_from_slice(part);
        out.extend(units(d.push(&part, 9, i == 2, false)));
    }
    let idr = Bytes::from_static(&[0x26, 0x01, 0xaf, 0x09]);
    let rest = Bytes::from_static(&[0x26, 0x01, 0x40, 1, 2, 3, 4]);
    let pps = Bytes::from_static(PPS);
    assert_eq!(out, [Ok(vec![pps.clone(), idr.clone(), rest])]);
    let cut = packetize_h265(&[pps, idr], 1200);
    assert_eq!(cut.iter().collect::<Vec<_>>(), [&ap[..]]);
}

#[test]
fn delimiters_filler_and_other_layers_are_dropped() {
    let mut d = H265Depacketizer::default();
    let idr = slice(NalType::IDR_W_RADL, true, 30);
    let mut enhanced = idr.to_vec();
    enhanced[1] = 1 << 3 | 1;
    let nals = [
        Bytes::from_static(&[0x46, 1, 0x50]),
        idr.clone(),
        enhanced.into(),
        Bytes::from_static(&[0x4c, 1, 0xff, 0x80]),
    ];
    let mut out = Vec::new();
    for (i, nal) in nals.iter().enumerate() {
        out.extend(units(d.push(nal, 0, i == 3, false)));
    }
    assert_eq!(out, [Ok(vec![idr])]);
}

#[test]
fn markers_that_lie_and_time_that_stands_still() {
    for marker in [true, false] {
        let mut d = H265Depacketizer::default();
        let mut whole = 0;
        for i in 0..10 {
            for first in [true, false, false] {
                let completed = d.push(&slice(NalType::TRAIL_R, first, 50), i, marker, false);
                whole += units(completed)
                    .iter()
                    .filter(|u| u.as_ref().is_ok_and(|n| n.len() == 3))
                    .count();
            }
        }
        assert!(whole >= 8, "{marker}: {whole} of 10");
    }
    let mut d = H265Depacketizer::default();
    let got: usize = (0..5)
        .map(|_| units(d.push(&slice(NalType::TRAIL_R, true, 50), 7, false, false)).len())
        .sum();
    assert_eq!(got, 4, "each picture but the last has ended");
}

#[test]
fn what_is_not_taken_says_so() {
    let fault = |payload: &'static [u8]| {
        let mut d = H265Depacketizer::default();
        units(d.push(&Bytes::from_static(payload), 0, true, false))
    };
    for (payload, why) in [
        (&[50 << 1, 1, 0, 0][..], "PACI"),
        (&[63 << 1, 1, 0, 0], "unspecified"),
        (&[0x62, 1], "a fragment without its header"),
        (&[0x62, 1, 0x13, 5], "a fragment without its beginning"),
        (&[0x62, 1, 0xc0 | 49, 5], "a fragment of a fragment"),
        (&[0x60, 1, 0, 200, 1], "an aggregate that lies"),
        (&[0x60, 1, 0, 1, 1], "a NAL unit without header"),
        (&[0x26], "half a header"),
    ] {
        assert_eq!(fault(payload), [Err(Fault::Malformed)], "{why}");
    }
}

#[test]
fn bombs_are_bounded() {
    let mut bomb = vec![0x60, 1];
    for _ in 0..20_000 {
        bomb.extend([0, 3, 2, 1, 0x40]);
    }
    let mut d = H265Depacketizer::default();
    assert_eq!(
        units(d.push(&bomb.into(), 0, true, false)),
        [Err(Fault::TooLarge)]
    );
    let mut d = H265Depacketizer::default();
    let mut out = Vec::new();
    for i in 0..5000 {
        let mut fu = vec![0x62, 1, if i == 0 { 0x93 } else { 0x13 }];
        fu.resize(1200, 0x80);
        out.extend(units(d.push(&fu.into(), 0, i == 4999, false)));
    }
    assert_eq!(out, [Err(Fault::TooLarge)]);
}

#[test]
fn a_loss_costs_its_unit_only() {
    let mut d = H265Depacketizer::default();
    let cut = packetize_h265(&[slice(NalType::IDR_W_RADL, true, 3000)], 1200);
    d.push(&cut.get(0).unwrap(), 0, false, false);
    assert_eq!(
        units(d.push(&cut.get(2).unwrap(), 0, true, true)),
        [Err(Fault::Lost)]
    );
    let next = packetize_h265(&[slice(NalType::TRAIL_R, true, 3000)], 1200);
    // The last packet of the former unit was lost: this one is whole.
    let mut out = units(d.push(&next.get(0).unwrap(), 3000, false, true));
    for i in 1..next.len() {
        let marker = i + 1 == next.len();
        out.extend(units(d.push(&next.get(i).unwrap(), 3000, marker, false)));
    }
    assert_eq!(out.len(), 1);
    assert!(out[0].is_ok());
}

proptest! {
    #[test]
    fn depacketize_packetize_is_the_same(
        sizes in prop::collection::vec(3usize..4000, 0..12),
        max in 50usize..1500,
        first in 3usize..9000,
    ) {
        let mut nals = vec![slice(NalType::CRA, true, first)];
        nals.extend(sizes.into_iter().map(|s| slice(NalType::CRA, false, s)));
        let payloads = packetize_h265(&nals, max);
        prop_assert!(payloads.iter().all(|p| p.len() <= max && !p.is_empty()));
        let mut d = H265Depacketizer::default();
        let last = payloads.len() - 1;
        let got: Vec<_> = (0..=last)
            .flat_map(|i| d.push(&payloads.get(i).unwrap(), 0, i == last, false))
            .flatten()
            .map(|u| { let u = u.unwrap(); (u.nals, u.key) })
            .collect();
        prop_assert_eq!(got, vec![(nals, true)]);
    }

    #[test]
    fn any_bytes(packets in prop::collection::vec((any::<Vec<u8>>(), 0u64..4, any::<bool>(), any::<bool>(), 0u8..4), 0..60)) {
        let mut d = H265Depacketizer::default();
        for (mut payload, time, marker, lost, kind) in packets {
            // Mostly something that looks like a payload.
            if let Some(first) = payload.first_mut() && kind > 0 {
                *first = [19, 48, 49][usize::from(kind - 1)] << 1;
            }
            for unit in d.push(&payload.into(), time, marker, lost).into_iter().flatten().flatten() {
                prop_assert!(!unit.nals.is_empty() && unit.nals.iter().all(|n| n.len() >= 2));
            }
        }
    }

    #[test]
    fn any_parameter_set(mut bytes: Vec<u8>, kind in 32u8..35) {
        bytes.splice(0..0, [kind << 1, 1]);
        let nal = Bytes::from(bytes);
        if let Some(sps) = Sps::parse(&nal) {
            prop_assert!(sps.width <= 16_384 && sps.height <= 16_384);
        }
        ParameterSets::default().learn(&nal);
    }
}
