use super::super::PAYLOAD_BYTES_MAX;
use super::super::h264::{Fault, H264Depacketizer, packetize_h264};
use super::super::packet::Header;
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
        let payloads = packetize_h264(nals, 300);
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
    fn any_payloads(packets in prop::collection::vec((any::<Vec<u8>>(), 0u32..4, any::<bool>(), 0u16..8), 0..60)) {
        let mut a = Assembler::new(&video());
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
