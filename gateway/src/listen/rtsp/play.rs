//! PLAY: what of a stream one reader set up, as RTP and RTCP packets (RFC 3550) for its tracks.
//!
//! Here: numbering, sender reports, interleaving (RFC 2326 §10.12). Not here: when frames come and who writes them
//! (`outlet`).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kerbside_codecs::rtp::{HEADER_BYTES, Header, rtcp};
use kerbside_codecs::rtsp::{Session, Transport};

use super::ports::Pair;
use super::push::put_interleaved;
use crate::stream::{Frame, Item, Reader};

const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// `$`, channel, length, RTP header.
pub const HEAD_BYTES: usize = 4 + HEADER_BYTES;

/// A reader's tracks, by their index in the stream.
pub struct Lanes {
    /// None: not set up.
    lanes: Vec<Option<Lane>>,
    reported: Option<Instant>,
    peer: IpAddr,
}

pub struct Lane {
    clock_rate: u32,
    /// The marker tells the last packet of a frame.
    marks_end: bool,
    payload_type: u8,
    ssrc: u32,
    seq: u16,
    transport: Transport,
    pub pair: Option<Pair>,
    packets: u32,
    bytes: u32,
    /// Of the newest live frame sent: captured (µs since 1970), and its media time.
    live: Option<(i64, u64)>,
    begun: bool,
}

/// The numbers of one frame's packets: enough to write any of them, again and in part.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    pub channel: u8,
    payload_type: u8,
    first_seq: u16,
    time: u32,
    ssrc: u32,
    mark_last: bool,
    count: usize,
}

impl Numbers {
    /// The RTP header of packet `i`.
    pub fn header(&self, i: usize) -> [u8; HEADER_BYTES] {
        #[allow(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
        let seq = self.first_seq.wrapping_add(i as u16);
        Header {
            marker: self.mark_last && i + 1 == self.count,
            payload_type: self.payload_type,
            seq,
            time: self.time,
            ssrc: self.ssrc,
        }
        .to_bytes()
    }

    /// What stands before payload `i` of this size in the interleaved stream. Payloads are small: they fit a datagram.
    pub fn head(&self, i: usize, payload: usize) -> [u8; HEAD_BYTES] {
        let length = u16::try_from(HEADER_BYTES + payload).unwrap_or(u16::MAX);
        let mut head = [0; HEAD_BYTES];
        head[0] = b'$';
        head[1] = self.channel;
        head[2..4].copy_from_slice(&length.to_be_bytes());
        head[4..].copy_from_slice(&self.header(i));
        head
    }
}

impl Lanes {
    /// `pairs[i]` holds the sockets of track `i` if it travels over UDP; `ssrcs[i]` is what SETUP told.
    pub fn new(
        reader: &Reader,
        session: &Session,
        pairs: &[Option<Pair>],
        ssrcs: &[u32],
        peer: IpAddr,
    ) -> Self {
        let mut lanes: Vec<Option<Lane>> = reader.media().iter().map(|_| None).collect();
        for (i, track) in session.tracks().iter().enumerate() {
            let (Some(lane), Some(medium)) =
                (lanes.get_mut(track.index), reader.media().get(track.index))
            else {
                continue;
            };
            *lane = Some(Lane {
                clock_rate: medium.clock_rate.max(1),
                marks_end: medium.codec.marks_end(),
                payload_type: track.payload_type,
                ssrc: ssrcs.get(i).copied().unwrap_or_default(),
                seq: rand::random(),
                transport: track.transport,
                pair: pairs.get(i).cloned().flatten(),
                packets: 0,
                bytes: 0,
                live: None,
                begun: false,
            });
        }
        Self {
            lanes,
            reported: None,
            peer,
        }
    }

    /// Does any of them travel in the RTSP connection?
    pub fn interleaved(&self) -> bool {
        self.lanes
            .iter()
            .flatten()
            .any(|l| matches!(l.transport, Transport::Tcp { .. }))
    }

    /// `RTP-Info` (RFC 2326 §12.33); `base` is the stream's URL without a slash at the end, `first` what comes first.
    pub fn rtp_info(&self, base: &str, first: Option<&Item>) -> String {
        let at = match first {
            Some(Item::Frame { frame, time }) => self
                .lanes
                .get(usize::from(frame.medium))
                .and_then(Option::as_ref)
                .map(|l| seconds(*time, l.clock_rate)),
            _ => None,
        };
        let infos: Vec<String> = self
            .lanes
            .iter()
            .enumerate()
            .filter_map(|(i, lane)| Some((i, lane.as_ref()?)))
            .map(|(i, lane)| {
                let mut info = format!("url={base}/trackID={i};seq={}", lane.seq);
                if let Some(at) = at {
                    info += &format!(";rtptime={}", low(ticks(at, lane.clock_rate)));
                }
                info
            })
            .collect();
        infos.join(",")
    }

    /// Numbers the packets of a frame; None when its medium was not set up. Reports that are due go to `out`, before
    /// the frame: from the first one a player knows how the media belong together.
    pub fn number(
        &mut self,
        frame: &Frame,
        time: u64,
        reader: &Reader,
        out: &mut BytesMut,
        now: Instant,
    ) -> Option<(Numbers, &Lane)> {
        let medium = usize::from(frame.medium);
        let lane = self.lanes.get_mut(medium)?.as_mut()?;
        if !reader.is_replay(frame) {
            lane.live = Some((frame.captured.utc_us, time));
        }
        let begins = !std::mem::replace(&mut lane.begun, true);
        let due = self
            .reported
            .is_none_or(|t| now.saturating_duration_since(t) >= REPORT_INTERVAL);
        if due {
            self.reported = Some(now);
        }
        if begins || due {
            self.reports(reader, out, (!due).then_some(medium));
        }
        let lane = self.lanes.get_mut(medium)?.as_mut()?;
        let count = frame.payloads.len();
        let numbers = Numbers {
            channel: match lane.transport {
                Transport::Tcp { rtp, .. } => rtp,
                Transport::Udp { .. } => 0,
            },
            payload_type: lane.payload_type,
            first_seq: lane.seq,
            time: low(time),
            ssrc: lane.ssrc,
            mark_last: lane.marks_end,
            count,
        };
        #[allow(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
        {
            lane.seq = lane.seq.wrapping_add(count as u16);
        }
        lane.packets = lane.packets.wrapping_add(u32::try_from(count).unwrap_or(0));
        lane.bytes = lane
            .bytes
            .wrapping_add(u32::try_from(frame.payloads.bytes()).unwrap_or(0));
        Some((numbers, lane))
    }

    /// Sender reports of all lanes, or of one: a moment of capture and its media time.
    fn reports(&self, reader: &Reader, out: &mut BytesMut, only: Option<usize>) {
        for (i, lane) in self.lanes.iter().enumerate() {
            let Some(lane) = lane.as_ref().filter(|_| only.is_none_or(|o| o == i)) else {
                continue;
            };
            let edge = || reader.edge(i).map(|(c, time)| (c.utc_us, time));
            let Some((utc_us, time)) = lane.live.or_else(edge) else {
                continue;
            };
            let ntp = rtcp::ntp_of(utc_us);
            let report = rtcp::sender_report(lane.ssrc, ntp, low(time), lane.packets, lane.bytes);
            lane.control(self.peer, &report, out);
        }
    }

    /// Tells the reader that it is over.
    pub fn bye(&self, out: &mut BytesMut) {
        for lane in self.lanes.iter().flatten() {
            lane.control(self.peer, &rtcp::bye(lane.ssrc), out);
        }
    }
}

impl Lane {
    /// Where datagrams of this lane go; None: it is interleaved.
    pub fn datagrams(&self, peer: IpAddr) -> Option<(&Pair, SocketAddr)> {
        match (self.transport, &self.pair) {
            (Transport::Udp { rtp, .. }, Some(pair)) => Some((pair, SocketAddr::new(peer, rtp))),
            _ => None,
        }
    }

    /// Sends an RTCP packet.
    fn control(&self, peer: IpAddr, packet: &[u8], out: &mut BytesMut) {
        match (self.transport, &self.pair) {
            (Transport::Tcp { rtcp, .. }, _) => put_interleaved(out, rtcp, packet),
            (Transport::Udp { rtcp, .. }, Some(pair)) => {
                let to = SocketAddr::new(peer, rtcp);
                if pair.rtcp.try_send_to(packet, to).is_err() {
                    super::outlet::dropped("rtcp", 1);
                }
            }
            (Transport::Udp { .. }, None) => {}
        }
    }
}

fn low(time: u64) -> u32 {
    u32::try_from(time & 0xffff_ffff).unwrap_or(0)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "53 bits hold 3,000 years of 90 kHz ticks"
)]
fn seconds(time: u64, rate: u32) -> f64 {
    time as f64 / f64::from(rate)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "media time is positive and far below 2^63"
)]
fn ticks(seconds: f64, rate: u32) -> u64 {
    (seconds * f64::from(rate)).round() as u64
}
