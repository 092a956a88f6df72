//! AAC: configs, packets both ways, and what must do no harm.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::units::Fault;
use super::*;

/// AAC-LC, 48 kHz, stereo.
const LC: &[u8] = &[0x11, 0x90];

type Given = (Result<(), Fault>, Vec<(u64, Vec<u8>)>);

fn push(d: &mut AacDepacketizer, payload: &[u8], time: u64, lost: bool) -> Given {
    let mut out = Vec::new();
    let taken = d.push(&Bytes::copy_from_slice(payload), time, lost, |t, au| {
        out.push((t, au.to_vec()));
    });
    (taken, out)
}

fn hbr() -> AacDepacketizer {
    AacDepacketizer::new(LC, Packing::HBR, 48_000)
}

#[test]
fn configs() {
    let lc = AudioConfig::parse(LC).unwrap();
    assert_eq!(
        (lc.object_type, lc.sampling_rate, lc.channels),
        (2, 48_000, 2)
    );
    assert_eq!(lc.frame_ticks(48_000), 1024);
    // HE-AAC, SBR signalled: core 24 kHz, clock 48 kHz.
    let he = AudioConfig::parse(&[0x2b, 0x11, 0x88, 0x00]).unwrap();
    assert_eq!((he.object_type, he.sampling_rate), (2, 24_000));
    assert_eq!(he.frame_ticks(48_000), 2048);
    // AAC-LC in frames of 960 samples.
    assert_eq!(
        AudioConfig::parse(&[0x11, 0x94]).unwrap().frame_samples,
        960
    );
    for bad in [
        &[][..],
        &[0x11],
        &[0xf8, 0x00, 0x00],
        &[0x17, 0x80, 0, 0, 8, 0],
    ] {
        assert_eq!(AudioConfig::parse(bad), None, "{bad:?}");
    }
}

/// RFC 3640 §3.3.6: two access units of 3 and 2 bytes.
#[test]
fn several_in_a_packet_are_a_frame_apart() {
    let packet = [0, 32, 0, 3 << 3, 0, 2 << 3, b'a', b'b', b'c', b'd', b'e'];
    let (taken, out) = push(&mut hbr(), &packet, 5000, false);
    assert_eq!(taken, Ok(()));
    assert_eq!(out, [(5000, b"abc".to_vec()), (6024, b"de".to_vec())]);
    let lbr = Packing {
        size: 6,
        index: 2,
        index_delta: 2,
    };
    let mut d = AacDepacketizer::new(LC, lbr, 48_000);
    let (_, out) = push(&mut d, &[0, 16, 1 << 2, 2 << 2, b'x', b'y', b'z'], 0, false);
    assert_eq!(out, [(0, b"x".to_vec()), (1024, b"yz".to_vec())]);
}

#[test]
fn fragments_and_their_losses() {
    let au: Vec<u8> = (0..3000u16).map(|i| (i % 251) as u8).collect();
    let cut = packetize_aac(&au, 1200).unwrap();
    assert_eq!(cut.len(), 3);
    let small = [&[0, 16, 0, 1 << 3][..], b"s"].concat();
    let mut d = hbr();
    let mut out = Vec::new();
    for p in cut.iter() {
        out.extend(push(&mut d, p, 7, false).1);
    }
    assert_eq!(out, [(7, au)]);
    // The middle one is lost: the rest is no access unit, the next is.
    let (taken, _) = push(&mut d, cut.iter().next().unwrap(), 9, false);
    assert_eq!(taken, Ok(()));
    assert_eq!(push(&mut d, cut.iter().last().unwrap(), 9, true).1, []);
    let (taken, out) = push(&mut d, &small, 1033, false);
    assert_eq!(taken, Err(Fault::Malformed), "the fragment was never whole");
    assert_eq!(out, [(1033, b"s".to_vec())]);
    assert_eq!(push(&mut d, &small, 2057, false).0, Ok(()));
}

#[test]
fn headers_that_lie() {
    for (packet, fault) in [
        (&[0][..], Fault::Malformed),
        (&[0, 0, 1, 2], Fault::Malformed),
        (&[0xff, 0xff, 1, 2], Fault::Malformed),
        (&[0, 32, 0, 3 << 3, 0xff, 0xf8, 1, 2, 3], Fault::Malformed),
    ] {
        assert_eq!(
            push(&mut hbr(), packet, 0, false).0,
            Err(fault),
            "{packet:?}"
        );
    }
    let bomb = [&[0x7f, 0xf0][..], &[0; 0x0ffe]].concat();
    assert_eq!(push(&mut hbr(), &bomb, 0, false).0, Err(Fault::TooLarge));
    let mut d = hbr();
    let start = [&[0, 16, 0xff, 0xf8][..], &[1; 1000]].concat();
    for i in 0..1000 {
        // Always the beginning of a large one.
        let (taken, out) = push(&mut d, &start, i, false);
        assert_eq!((taken.is_err(), out.len()), (i > 0, 0));
    }
}

#[test]
fn what_is_too_large_is_not_cut() {
    assert!(packetize_aac(&[0; 8191], 1200).is_some());
    assert!(packetize_aac(&[0; 8192], 1200).is_none());
    assert!(packetize_aac(&[], 1200).is_none());
}

proptest! {
    #[test]
    fn depacketize_packetize_is_the_same(au in prop::collection::vec(any::<u8>(), 1..8192), max in 50usize..1500, time in 0u64..1 << 48) {
        let cut = packetize_aac(&au, max).unwrap();
        prop_assert!(cut.iter().all(|p| p.len() <= max));
        let mut d = hbr();
        let mut out = Vec::new();
        for p in cut.iter() {
            let (taken, given) = push(&mut d, p, time, false);
            prop_assert_eq!(taken, Ok(()));
            out.extend(given);
        }
        prop_assert_eq!(out, vec![(time, au)]);
    }

    #[test]
    fn any_bytes(
        packets in prop::collection::vec((any::<Vec<u8>>(), 0u64..4, any::<bool>(), any::<bool>()), 0..60),
        size in 1u8..17,
        index in 0u8..9,
    ) {
        let packing = Packing { size, index, index_delta: index };
        let mut d = AacDepacketizer::new(LC, packing, 48_000);
        for (mut payload, time, lost, sane) in packets {
            if sane && payload.len() > 4 {
                payload[0] = 0;
                payload[1] &= 0x3f;
            }
            let bytes = payload.len();
            let (_, out) = push(&mut d, &payload, time, lost);
            prop_assert!(out.len() <= bytes.max(1));
            prop_assert!(out.iter().all(|(_, au)| !au.is_empty() && au.len() <= 8191));
        }
    }

    #[test]
    fn any_config(bytes: Vec<u8>) {
        if let Some(c) = AudioConfig::parse(&bytes) {
            prop_assert!(c.frame_ticks(192_000) < 1 << 20);
        }
    }
}
