use super::super::PAYLOAD_BYTES_MAX;
use super::super::aac::{Packing, packetize_aac};
use super::super::h264::{Fault, H264Depacketizer, packetize_h264};
use super::super::packet::Header;
use super::super::{av1, h265};
use super::*;
use crate::media::Codec;
use bytes::Bytes;
use proptest::prelude::*;

const SPS: &[u8] = &[0x67, 66, 0, 30, 0x80, 1];
const PPS: &[u8] = &[0x68, 0x80];

fn video() -> Medium {
    Medium {
        codec: Codec::H264 {
            sps: Bytes::from_static(SPS),
            pps: Bytes::from_static(PPS),
        },
        clock_rate: 90_000,
    }
}

/// A slice that is the first of its picture (`first`), or a later one.
fn slice(kind: u8, first: bool, size: usize) -> Bytes {
    let mut nal = vec![0x60 | kind, if first { 0x80 } else { 0x40 }];
    nal.resize(size.max(2), 0x55);
    nal.into()
}

struct Sender {
    seq: u16,
    ssrc: u32,
}

impl Sender {
    fn packets(&mut self, nals: &[Bytes], time: u32) -> Vec<Packet> {
        self.payloads(&packetize_h264(nals, 300), time)
    }

    fn payloads(&mut self, payloads: &Payloads, time: u32) -> Vec<Packet> {
        let count = payloads.len();
        (0..count)
            .map(|i| {
                self.seq = self.seq.wrapping_add(1);
                Packet {
                    header: Header {
                        marker: i + 1 == count,
                        payload_type: 96,
                        seq: self.seq,
                        time,
                        ssrc: self.ssrc,
                    },
                    payload: payloads.get(i).unwrap(),
                }
            })
            .collect()
    }
}

fn sender() -> Sender {
    Sender {
        seq: 65_530,
        ssrc: 7,
    }
}

fn nals_of(payloads: &Payloads) -> Vec<Bytes> {
    let mut d = H264Depacketizer::default();
    let last = payloads.len() - 1;
    (0..payloads.len())
        .flat_map(|i| d.push(&payloads.get(i).unwrap(), 0, i == last, false))
        .flatten()
        .flat_map(|u| u.unwrap().nals)
        .collect()
}

fn push_all(a: &mut Assembler, packets: impl IntoIterator<Item = Packet>) -> Vec<Assembled> {
    let t = Instant::now();
    packets.into_iter().flat_map(|p| a.push(p, t)).collect()
}

#[test]
fn key_frames_carry_the_parameter_sets_of_the_sdp() {
    let mut a = Assembler::new(&video());
    let idr = slice(5, true, 5000);
    let frames = push_all(&mut a, sender().packets(std::slice::from_ref(&idr), 1000));
    assert_eq!(frames.len(), 1);
    assert!(frames[0].key);
    assert!(
        frames[0]
            .payloads
            .iter()
            .all(|p| p.len() <= PAYLOAD_BYTES_MAX)
    );
    assert_eq!(
        nals_of(&frames[0].payloads),
        [Bytes::from_static(SPS), Bytes::from_static(PPS), idr]
    );
    assert_eq!(a.medium_changed(), None);
}

#[test]
fn parameter_sets_in_an_order_of_their_own_and_changed_in_mid_stream() {
    let mut a = Assembler::new(&video());
    let mut s = sender();
    let new_sps = Bytes::from_static(&[0x67, 77, 0, 31, 0x80, 9]);
    let aud = Bytes::from_static(&[0x09, 0xf0]);
    let sei = Bytes::from_static(&[0x06, 5, 1, 0, 0x80]);
    let idr = slice(5, true, 900);
    let unit = [
        aud,
        new_sps.clone(),
        Bytes::from_static(PPS),
        sei.clone(),
        idr.clone(),
    ];
    let frames = push_all(&mut a, s.packets(&unit, 0));
    assert_eq!(
        nals_of(&frames[0].payloads),
        [new_sps.clone(), Bytes::from_static(PPS), sei, idr]
    );
    let Some(Medium {
        codec: Codec::H264 { sps, .. },
        ..
    }) = a.medium_changed()
    else {
        panic!("the medium changed");
    };
    assert_eq!(sps, new_sps);
}

#[test]
fn without_parameter_sets_a_key_frame_is_dropped_and_says_so() {
    let mut medium = video();
    medium.codec = Codec::H264 {
        sps: Bytes::new(),
        pps: Bytes::new(),
    };
    let mut a = Assembler::new(&medium);
    assert!(push_all(&mut a, sender().packets(&[slice(5, true, 100)], 0)).is_empty());
    assert_eq!(a.stats().dropped.get("no_parameter_sets"), Some(&1));
}

#[test]
fn a_lost_packet_costs_its_unit_only() {
    let mut a = Assembler::with_window(&video(), Window::IN_ORDER);
    let mut s = sender();
    let mut packets = s.packets(&[slice(5, true, 900)], 0);
    packets.extend(s.packets(&[slice(1, true, 2000)], 3000));
    let middle = packets.len() - 3;
    packets.remove(middle);
    packets.extend(s.packets(&[slice(1, true, 2000)], 6000));
    let frames = push_all(&mut a, packets);
    assert_eq!(
        frames.iter().map(|f| f.key).collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(frames[1].time - frames[0].time, 6000);
    assert_eq!(a.stats().dropped.get("lost"), Some(&1));
    assert!(a.key_frame_due());
    assert!(!a.key_frame_due());
}

#[test]
fn the_last_packet_of_a_unit_lost_does_not_cost_the_next_one() {
    let mut a = Assembler::with_window(&video(), Window::IN_ORDER);
    let mut s = sender();
    let mut packets = s.packets(&[slice(5, true, 900)], 0);
    packets.pop();
    packets.extend(s.packets(&[slice(1, true, 2000)], 3000));
    let frames = push_all(&mut a, packets);
    assert_eq!(frames.len(), 1);
    assert!(!frames[0].key);
}

#[test]
fn marker_on_every_packet_or_on_none() {
    for marker in [true, false] {
        let mut a = Assembler::new(&video());
        let mut s = sender();
        let mut frames = Vec::new();
        for i in 0..10 {
            let nals = [
                slice(1, true, 250),
                slice(1, false, 250),
                slice(1, false, 250),
            ];
            let mut packets = s.packets(&nals, i * 3000);
            packets.iter_mut().for_each(|p| p.header.marker = marker);
            frames.extend(push_all(&mut a, packets));
        }
        // The first picture may be split before the lie is noticed; the last one is not complete yet.
        let whole = frames
            .iter()
            .filter(|f| nals_of(&f.payloads).len() == 3)
            .count();
        assert!(whole >= 8, "{marker}: {whole} of 10");
    }
}

#[test]
fn time_that_stands_still_does_not_glue_pictures() {
    let mut a = Assembler::new(&video());
    let mut s = sender();
    let packets: Vec<_> = (0..5)
        .flat_map(|_| s.packets(&[slice(1, true, 700)], 42))
        .collect();
    assert_eq!(push_all(&mut a, packets).len(), 5);
}

#[test]
fn strangers_are_ignored_until_the_source_is_silent() {
    let mut a = Assembler::new(&video());
    let mut s = sender();
    let t = Instant::now();
    for p in s.packets(&[slice(5, true, 10)], 0) {
        a.push(p, t);
    }
    s.ssrc = 8;
    let packets = s.packets(&[slice(5, true, 10)], 3000);
    assert!(a.push(packets[0].clone(), t).is_empty());
    assert_eq!(a.stats().foreign, 1);
    assert_eq!(a.push(packets[0].clone(), t + SSRC_SILENCE).len(), 1);
}

#[test]
fn a_packet_of_many_pictures_is_bounded() {
    let mut bomb = vec![24];
    for _ in 0..20_000 {
        bomb.extend([0, 1, 0x61]);
    }
    let mut d = H264Depacketizer::default();
    let [_, ended] = d.push(&bomb.into(), 0, true, false);
    assert_eq!(ended, Some(Err(Fault::TooLarge)));
    let mut d = H264Depacketizer::default();
    let mut fault = None;
    for i in 0..5000 {
        let mut fu = vec![0x7c, if i == 0 { 0x85 } else { 0x05 }];
        fu.resize(1202, 0x80);
        fault = fault.or(d.push(&fu.into(), 0, i == 4999, false)[1].clone());
    }
    assert_eq!(fault, Some(Err(Fault::TooLarge)));
}

/// Fragments that never end, have no beginning, or are nothing but a header.
#[test]
fn truncated_fragments_cost_their_unit_only() {
    let mut a = Assembler::with_window(&video(), Window::IN_ORDER);
    let mut s = sender();
    let begin = |n: usize| Bytes::from([vec![0x7c, 0x85, 0x88], vec![0; n]].concat());
    let broken = [
        begin(1000),
        begin(1000),
        Bytes::from_static(&[0x7c]),
        Bytes::from_static(&[0x7c, 0x45]),
        Bytes::from_static(&[0x7c, 0x05, 1, 2, 3]),
    ];
    let mut time = 0;
    for round in 0..500 {
        for payload in &broken {
            time += 3000;
            let frames = push_all(&mut a, s.payloads(&Payloads::single(payload.clone()), time));
            assert!(frames.iter().all(|f| f.payloads.bytes() < 4000), "{round}");
        }
    }
    assert!(a.stats().dropped["malformed"] >= 1000, "{:?}", a.stats());
    time += 3000;
    let frames = push_all(&mut a, s.packets(&[slice(5, true, 900)], time));
    assert!(frames.last().unwrap().key, "the next picture is whole");
}

/// Aggregates of as many NAL units as fit, all of one access unit.
#[test]
fn aggregates_made_to_exhaust_memory_are_dropped_with_their_reason() {
    let mut a = Assembler::new(&video());
    let mut s = sender();
    let mut bomb = vec![0x78];
    for _ in 0..480 {
        bomb.extend([0, 1, 0x41]);
    }
    let mut out = Vec::new();
    for _ in 0..1000 {
        let mut packets = s.payloads(&Payloads::single(bomb.clone().into()), 0);
        packets[0].header.marker = false;
        out.extend(push_all(&mut a, packets));
    }
    assert!(out.is_empty());
    let frames = push_all(&mut a, s.packets(&[slice(5, true, 900)], 3000));
    assert_eq!(frames.len(), 1, "the next picture is whole");
    assert_eq!(a.stats().dropped["too_large"], 1);
}

#[test]
fn a_hundred_thousand_sources_disturb_nobody() {
    let mut a = Assembler::new(&video());
    let mut s = sender();
    push_all(&mut a, s.packets(&[slice(5, true, 100)], 0));
    let flood = (1000..101_000).map(|ssrc| Packet {
        header: Header {
            marker: true,
            payload_type: 96,
            seq: 1,
            time: 0,
            ssrc,
        },
        payload: slice(5, true, 100),
    });
    assert!(push_all(&mut a, flood).is_empty());
    assert_eq!(a.stats().foreign, 100_000);
    assert_eq!(
        push_all(&mut a, s.packets(&[slice(1, true, 100)], 3000)).len(),
        1
    );
}

#[test]
fn g711_is_cut_and_keeps_its_time() {
    let mut a = Assembler::new(&Medium {
        codec: Codec::Pcma,
        clock_rate: 8000,
    });
    let header = Header {
        marker: false,
        payload_type: 8,
        seq: 1,
        time: 100,
        ssrc: 1,
    };
    let frames = push_all(
        &mut a,
        [Packet {
            header,
            payload: vec![1; 1500].into(),
        }],
    );
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[1].time - frames[0].time, 1200);
    assert_eq!(frames[1].payloads.bytes(), 300);
}

#[test]
fn b_frames_step_back_without_a_jump() {
    let mut a = Assembler::new(&video());
    let mut s = sender();
    // I P B B P B B …, three frames from one P to the next.
    let order = [0u32, 3, 1, 2, 6, 4, 5, 9, 7, 8];
    let mut frames = Vec::new();
    for shown in order {
        let kind = if shown == 0 { 5 } else { 1 };
        let packets = s.packets(&[slice(kind, true, 400)], 90_000 + shown * 3000);
        frames.extend(push_all(&mut a, packets));
    }
    let times: Vec<u64> = frames.iter().map(|f| f.time - frames[0].time).collect();
    assert_eq!(times, order.map(|o| u64::from(o) * 3000), "as they came");
    assert!(a.b_frames());
    assert_eq!(a.stats().clock_jumps, 0);
    let browser = frames.iter().filter(|f| !f.payloads.in_order().is_empty());
    assert_eq!(browser.count(), 4, "I and three P");
}

fn h265() -> Medium {
    let [vps, sps, pps] =
        [h265::tests::VPS, h265::tests::SPS, h265::tests::PPS].map(Bytes::from_static);
    Medium {
        codec: Codec::H265 { vps, sps, pps },
        clock_rate: 90_000,
    }
}

fn h265_nals(payloads: &Payloads) -> Vec<Bytes> {
    let mut d = h265::H265Depacketizer::default();
    let last = payloads.len() - 1;
    (0..payloads.len())
        .flat_map(|i| d.push(&payloads.get(i).unwrap(), 0, i == last, false))
        .flatten()
        .flat_map(|u| u.unwrap().nals)
        .collect()
}

#[test]
fn h265_changes_its_resolution_in_mid_stream() {
    use h265::tests::{PPS, SPS, SPS_MAIN_10, VPS, slice};
    use h265::{NalType, packetize_h265};
    let [vps, sps, pps, new] = [VPS, SPS, PPS, SPS_MAIN_10].map(Bytes::from_static);
    let mut a = Assembler::new(&h265());
    let mut s = sender();
    let (idr, cra) = (
        slice(NalType::IDR_W_RADL, true, 3000),
        slice(NalType::CRA, true, 900),
    );
    let mut send = |a: &mut Assembler, nals: &[Bytes], time| {
        push_all(a, s.payloads(&packetize_h265(nals, 300), time))
    };
    let frames = send(&mut a, std::slice::from_ref(&idr), 0);
    assert!(frames[0].key);
    let sets = [vps.clone(), sps, pps.clone()];
    assert_eq!(
        h265_nals(&frames[0].payloads),
        [&sets[..], std::slice::from_ref(&idr)].concat(),
        "those of the SDP"
    );
    assert_eq!(a.medium_changed(), None);
    assert!(!send(&mut a, &[slice(NalType::TRAIL_R, true, 90)], 3000)[0].key);
    // The new set comes alone and in front of a key frame of the old kind.
    assert!(send(&mut a, std::slice::from_ref(&new), 6000).is_empty());
    let frames = send(&mut a, std::slice::from_ref(&cra), 9000);
    assert!(frames[0].key);
    assert_eq!(
        h265_nals(&frames[0].payloads),
        [vps, new.clone(), pps, cra],
        "the changed ones"
    );
    let changed = a.medium_changed().map(|m| m.codec);
    assert!(matches!(changed, Some(Codec::H265 { sps, .. }) if sps == new));
    let none = Medium {
        codec: Codec::H265 {
            vps: Bytes::new(),
            sps: Bytes::new(),
            pps: Bytes::new(),
        },
        clock_rate: 90_000,
    };
    let mut a = Assembler::new(&none);
    assert!(push_all(&mut a, sender().payloads(&packetize_h265(&[idr], 300), 0)).is_empty());
    assert_eq!(a.stats().dropped.get("no_parameter_sets"), Some(&1));
}

#[test]
fn av1_key_frames_carry_the_sequence_header() {
    use av1::tests::{SVT, frame};
    let mut a = Assembler::new(&Medium {
        codec: Codec::Av1 {
            profile: 1,
            level_idx: 5,
            tier: 0,
        },
        clock_rate: 90_000,
    });
    let mut s = sender();
    let mut send = |a: &mut Assembler, obus: &[Bytes], time| {
        push_all(a, s.payloads(&av1::packetize_av1(obus, false, 300), time))
    };
    assert!(send(&mut a, &[frame(true, 900)], 0).is_empty());
    assert_eq!(a.stats().dropped.get("no_parameter_sets"), Some(&1));
    let header = Bytes::from_static(SVT);
    let frames = send(&mut a, &[header.clone(), frame(true, 900)], 3000);
    assert!(frames[0].key);
    let codec = a.medium_changed().map(|m| m.codec);
    let main = Codec::Av1 {
        profile: 0,
        level_idx: 1,
        tier: 0,
    };
    assert_eq!(codec, Some(main));
    assert!(!send(&mut a, &[frame(false, 900)], 6000)[0].key);
    assert!(
        !send(&mut a, &[header.clone(), frame(false, 9)], 9000)[0].key,
        "a header may be repeated anywhere"
    );
    let frames = send(&mut a, &[frame(true, 900)], 12_000);
    assert!(frames[0].key);
    let mut d = av1::Av1Depacketizer::default();
    let [_, unit] = d.push(&frames[0].payloads.get(0).unwrap(), 0, true, false);
    assert_eq!(unit.unwrap().unwrap().nals, [header, frame(true, 900)]);
}

fn aac() -> Medium {
    Medium {
        codec: Codec::Aac {
            config: Bytes::from_static(&[0x11, 0x90]),
            channels: 2,
            packing: Packing::HBR,
        },
        clock_rate: 48_000,
    }
}

#[test]
fn aac_becomes_a_frame_for_each_access_unit() {
    let mut a = Assembler::new(&aac());
    let mut s = sender();
    let two = Bytes::from_static(&[0, 32, 0, 3 << 3, 0, 2 << 3, 1, 2, 3, 4, 5]);
    let frames = push_all(&mut a, s.payloads(&Payloads::single(two), 500));
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[1].time - frames[0].time, 1024);
    let one: Vec<_> = frames[1].payloads.iter().collect();
    assert_eq!(one, [[0, 16, 0, 2 << 3, 4, 5]]);
    let large = packetize_aac(&[7; 5000], 1400).unwrap();
    let frames = push_all(&mut a, s.payloads(&large, 2548));
    assert_eq!((frames.len(), frames[0].payloads.len()), (1, 5));
    assert!(
        frames[0]
            .payloads
            .iter()
            .all(|p| p.len() <= PAYLOAD_BYTES_MAX)
    );
}

fn nal_strategy() -> impl Strategy<Value = Bytes> {
    (0usize..4000).prop_map(|size| slice(1, false, size))
}

proptest! {
    #[test]
    fn depacketize_packetize_is_the_same(
        mut nals in prop::collection::vec(nal_strategy(), 0..12),
        max in 50usize..1500,
        first_size in 2usize..9000,
    ) {
        nals.insert(0, slice(1, true, first_size));
        let payloads = packetize_h264(&nals, max);
        prop_assert!(payloads.iter().all(|p| p.len() <= max && !p.is_empty()));
        prop_assert_eq!(nals_of(&payloads), nals);
    }

    #[test]
    fn any_payloads(
        packets in prop::collection::vec((any::<Vec<u8>>(), 0u32..4, any::<bool>(), 0u16..8), 0..60),
        codec in 0usize..4,
    ) {
        let av1 = Codec::Av1 { profile: 0, level_idx: 0, tier: 0 };
        let av1 = Medium { codec: av1, clock_rate: 90_000 };
        let mut a = Assembler::new(&[video(), h265(), av1, aac()][codec]);
        let t = Instant::now();
        for (i, (payload, time, marker, skip)) in packets.into_iter().enumerate() {
            let seq = (i as u16).wrapping_mul(2).wrapping_add(skip);
            let header = Header { marker, payload_type: 96, seq, time: time * 3000, ssrc: 1 };
            for f in a.push(Packet { header, payload: payload.into() }, t) {
                prop_assert!(f.payloads.iter().all(|p| p.len() <= PAYLOAD_BYTES_MAX));
            }
        }
    }
}
