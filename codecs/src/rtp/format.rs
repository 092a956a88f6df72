//! The payload formats of one medium: payloads in, frames cut into payloads of our size out.
//!
//! Here: which depacketizer, parameter sets in front of key frames. Not here: order and time of packets (`assemble`).

use bytes::Bytes;

use super::PAYLOAD_BYTES_MAX;
use super::aac::{AacDepacketizer, packetize_aac};
use super::av1::{Av1Depacketizer, ObuType, Sequence, is_key_frame, packetize_av1};
use super::h264::{self, H264Depacketizer, packetize_h264};
use super::h265::{self, H265Depacketizer, packetize_h265};
use super::units::{AccessUnit, Completed, Fault};
use crate::media::{Codec, Medium, Payloads};

/// A sequence header larger than this is not one.
const SEQUENCE_BYTES_MAX: usize = 1024;
const NO_PARAMETER_SETS: &str = "no_parameter_sets";

/// A frame.
#[derive(Debug)]
pub(super) struct Cut {
    pub key: bool,
    pub time: u64,
    pub payloads: Payloads,
}

/// A frame, or why one was dropped.
pub(super) type Outcome = Result<Cut, &'static str>;

#[derive(Debug)]
pub(super) enum Format {
    H264(H264Depacketizer, h264::ParameterSets, bool),
    H265(H265Depacketizer, h265::ParameterSets, bool),
    Av1(Av1Depacketizer, Option<(Bytes, Sequence)>, bool),
    Aac(AacDepacketizer),
    /// One packet is one frame.
    Opus,
    /// One byte is one tick; frames may be cut anywhere.
    G711,
}

impl Format {
    pub fn new(medium: &Medium) -> Self {
        match &medium.codec {
            Codec::H264 { sps, pps } => Self::H264(
                H264Depacketizer::default(),
                h264::ParameterSets::new(sps, pps),
                false,
            ),
            Codec::H265 { vps, sps, pps } => Self::H265(
                H265Depacketizer::default(),
                h265::ParameterSets::new(vps, sps, pps),
                false,
            ),
            Codec::Av1 { .. } => Self::Av1(Av1Depacketizer::default(), None, false),
            Codec::Aac {
                config, packing, ..
            } => Self::Aac(AacDepacketizer::new(config, *packing, medium.clock_rate)),
            Codec::Opus { .. } => Self::Opus,
            Codec::Pcma | Codec::Pcmu => Self::G711,
        }
    }

    /// Another source follows: what is not whole is forgotten, parameter sets stay.
    pub fn restart(&mut self) {
        match self {
            Self::H264(d, ..) => *d = H264Depacketizer::default(),
            Self::H265(d, ..) => *d = H265Depacketizer::default(),
            Self::Av1(d, ..) => *d = Av1Depacketizer::default(),
            Self::Aac(d) => d.restart(),
            Self::Opus | Self::G711 => {}
        }
    }

    /// The codec with parameters that were learned in-band since the last call.
    pub fn learned(&mut self) -> Option<Codec> {
        match self {
            Self::H264(_, sets, learned) => std::mem::take(learned).then(|| {
                let (sps, pps) = sets.first();
                Codec::H264 { sps, pps }
            }),
            Self::H265(_, sets, learned) => std::mem::take(learned).then(|| {
                let [vps, sps, pps] = sets.first();
                Codec::H265 { vps, sps, pps }
            }),
            Self::Av1(_, Some((_, sequence)), learned) => {
                std::mem::take(learned).then_some(Codec::Av1 {
                    profile: sequence.profile,
                    level_idx: sequence.level_idx,
                    tier: sequence.tier,
                })
            }
            _ => None,
        }
    }

    /// Takes a payload, in order. `lost`: packets are missing right before it.
    pub fn push(
        &mut self,
        payload: &Bytes,
        time: u64,
        marker: bool,
        lost: bool,
        out: &mut Vec<Outcome>,
    ) {
        match self {
            Self::H264(d, sets, learned) => {
                let units = d.push(payload, time, marker, lost);
                completed(units, out, |unit| h264_frame(unit, sets, learned));
            }
            Self::H265(d, sets, learned) => {
                let units = d.push(payload, time, marker, lost);
                completed(units, out, |unit| h265_frame(unit, sets, learned));
            }
            Self::Av1(d, sequence, learned) => {
                let units = d.push(payload, time, marker, lost);
                completed(units, out, |unit| av1_frame(unit, sequence, learned));
            }
            Self::Aac(d) => {
                let taken = d.push(payload, time, lost, |time, au| {
                    out.push(match packetize_aac(&au, PAYLOAD_BYTES_MAX) {
                        Some(payloads) => Ok(audio(time, payloads)),
                        None => Err(Fault::TooLarge.name()),
                    });
                });
                if let Err(fault) = taken {
                    out.push(Err(fault.name()));
                }
            }
            Self::Opus => {
                if payload.len() > PAYLOAD_BYTES_MAX {
                    out.push(Err(Fault::TooLarge.name()));
                } else if !payload.is_empty() {
                    out.push(Ok(audio(time, copied(payload))));
                }
            }
            Self::G711 => {
                let mut at = time;
                for part in payload.chunks(PAYLOAD_BYTES_MAX) {
                    out.push(Ok(audio(at, copied(part))));
                    at += part.len() as u64;
                }
            }
        }
    }
}

/// What the units that a packet completed become; a unit without a picture becomes nothing.
fn completed(
    units: Completed,
    out: &mut Vec<Outcome>,
    mut frame: impl FnMut(AccessUnit) -> Option<Outcome>,
) {
    for unit in units.into_iter().flatten() {
        match unit {
            Ok(unit) => out.extend(frame(unit)),
            Err(fault) => out.push(Err(fault.name())),
        }
    }
}

fn h264_frame(
    unit: AccessUnit,
    sets: &mut h264::ParameterSets,
    learned: &mut bool,
) -> Option<Outcome> {
    use h264::NalType;
    for nal in &unit.nals {
        *learned |= sets.learn(nal);
    }
    if !unit.nals.iter().any(|n| NalType::of(n).is_vcl()) {
        return None;
    }
    let is_set = |n: &Bytes| matches!(NalType::of(n), NalType::SPS | NalType::PPS);
    let known = sets.is_complete().then(|| sets.iter());
    Some(coded(unit, known, is_set, packetize_h264))
}

fn h265_frame(
    unit: AccessUnit,
    sets: &mut h265::ParameterSets,
    learned: &mut bool,
) -> Option<Outcome> {
    use h265::NalType;
    for nal in &unit.nals {
        *learned |= sets.learn(nal);
    }
    let is = |nal: &Bytes, what: fn(NalType) -> bool| NalType::of(nal).is_some_and(what);
    if !unit.nals.iter().any(|n| is(n, NalType::is_vcl)) {
        return None;
    }
    let is_set = |n: &Bytes| is(n, NalType::is_parameter_set);
    let known = sets.is_complete().then(|| sets.iter());
    Some(coded(unit, known, is_set, packetize_h265))
}

/// A picture's packets; all parameter sets known go before a key frame, whichever came with it.
fn coded<'a>(
    unit: AccessUnit,
    known: Option<impl Iterator<Item = &'a Bytes>>,
    is_set: impl Fn(&Bytes) -> bool,
    packetize: fn(&[Bytes], usize) -> Payloads,
) -> Outcome {
    let AccessUnit {
        mut nals,
        key,
        time,
    } = unit;
    if key {
        let known = known.ok_or(NO_PARAMETER_SETS)?;
        nals.retain(|n| !is_set(n));
        nals.splice(0..0, known.cloned());
    }
    Ok(Cut {
        key,
        time,
        payloads: packetize(&nals, PAYLOAD_BYTES_MAX),
    })
}

fn av1_frame(
    unit: AccessUnit,
    known: &mut Option<(Bytes, Sequence)>,
    learned: &mut bool,
) -> Option<Outcome> {
    let is_sequence = |o: &Bytes| ObuType::of(o) == Some(ObuType::SEQUENCE_HEADER);
    let fresh = unit
        .nals
        .iter()
        .find(|o| is_sequence(o) && o.len() <= SEQUENCE_BYTES_MAX);
    if let Some(obu) = fresh
        && known.as_ref().is_none_or(|(old, _)| old != obu)
        && let Some(sequence) = Sequence::parse(obu)
    {
        // A copy: a slice would keep the whole receive buffer alive.
        *known = Some((Bytes::copy_from_slice(obu), sequence));
        *learned = true;
    }
    let AccessUnit { mut nals, time, .. } = unit;
    let picture = nals
        .iter()
        .find(|o| ObuType::of(o).is_some_and(ObuType::is_picture))?;
    let Some((header, sequence)) = known else {
        return Some(Err(NO_PARAMETER_SETS));
    };
    let key = is_key_frame(picture, sequence);
    if key && !nals.iter().any(is_sequence) {
        nals.insert(0, header.clone());
    }
    Some(Ok(Cut {
        key,
        time,
        payloads: packetize_av1(&nals, key, PAYLOAD_BYTES_MAX),
    }))
}

fn audio(time: u64, payloads: Payloads) -> Cut {
    Cut {
        key: true,
        time,
        payloads,
    }
}

/// A copy: a slice would keep the whole receive buffer alive in the ring.
fn copied(payload: &[u8]) -> Payloads {
    Payloads::single(Bytes::copy_from_slice(payload))
}
