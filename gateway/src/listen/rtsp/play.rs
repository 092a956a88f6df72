//! PLAY: the frames of a stream to one reader. Over TCP the packets of a frame are one write; over UDP one burst.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};
use kerbside_codecs::rtp::{HEADER_BYTES, Header, rtcp};
use kerbside_codecs::rtsp::{Session, Transport};
use prometheus::IntCounterVec;

use super::ports::Pair;
use super::push::put_interleaved;
use crate::metrics;
use crate::stream::{Frame, Item, Reader};
use crate::udp::{self, Burst};

static DROPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_rtsp_datagrams_dropped_total",
        "Datagrams to RTSP readers that were not sent",
        &["reason"],
    )
});

const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes per millisecond to one reader over UDP: 100 Mbit/s, so that a group of pictures at the join is no burst that
/// the reader's buffer cannot take.
const PACE_BYTES_PER_MS: usize = 12_500;

/// A reader's media on their way out.
pub struct Play {
    reader: Reader,
    /// By index in the stream; None: not set up.
    lanes: Vec<Option<Lane>>,
    /// Taken from the reader to learn its time, and not sent yet.
    first: Option<Item>,
    /// The same moment as wallclock (since 1970) and media time in seconds.
    anchor: Option<(Duration, f64)>,
    reported: Option<Instant>,
    peer: IpAddr,
    burst: Burst,
    paced_until: Option<tokio::time::Instant>,
}

struct Lane {
    clock_rate: u32,
    /// The marker tells the last packet of a frame.
    marks_end: bool,
    payload_type: u8,
    ssrc: u32,
    seq: u16,
    transport: Transport,
    pair: Option<Pair>,
    packets: u32,
    bytes: u32,
    /// Media time of the last frame sent.
    time: Option<u64>,
}

impl Play {
    /// `pairs[i]` holds the sockets of track `i` if it travels over UDP; `ssrcs[i]` is what SETUP told.
    pub fn start(
        reader: Reader,
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
            let pair = pairs.get(i).cloned().flatten();
            *lane = Some(Lane {
                clock_rate: medium.clock_rate.max(1),
                marks_end: medium.codec.marks_end(),
                payload_type: track.payload_type,
                ssrc: ssrcs.get(i).copied().unwrap_or_default(),
                seq: rand::random(),
                transport: track.transport,
                pair,
                packets: 0,
                bytes: 0,
                time: None,
            });
        }
        let mut me = Self {
            reader,
            lanes,
            first: None,
            anchor: None,
            reported: None,
            peer,
            burst: Burst::default(),
            paced_until: None,
        };
        me.first = me.reader.poll();
        if let Some(Item::Frame { frame, time }) = &me.first {
            me.anchor = me.anchored(frame, *time);
        }
        me
    }

    fn anchored(&self, frame: &Frame, time: u64) -> Option<(Duration, f64)> {
        let rate = self
            .reader
            .media()
            .get(usize::from(frame.medium))?
            .clock_rate
            .max(1);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let wall = wall.saturating_sub(frame.arrived.elapsed());
        Some((wall, seconds(time, rate)))
    }

    /// `RTP-Info` (RFC 2326 §12.33); `base` is the stream's URL without a slash at the end.
    pub fn rtp_info(&self, base: &str) -> String {
        let lanes = self.lanes.iter().enumerate();
        let infos: Vec<String> = lanes
            .filter_map(|(i, lane)| lane.as_ref().map(|l| (i, l)))
            .map(|(i, lane)| {
                let mut info = format!("url={base}/trackID={i};seq={}", lane.seq);
                if let Some((_, at)) = self.anchor {
                    info += &format!(";rtptime={}", low(ticks(at, lane.clock_rate)));
                }
                info
            })
            .collect();
        infos.join(",")
    }

    /// Waits for the next item (and for the pace over UDP). Cancel-safe.
    pub async fn next(&mut self) -> Item {
        if let Some(until) = self.paced_until {
            tokio::time::sleep_until(until).await;
            self.paced_until = None;
        }
        match self.first.take() {
            Some(item) => item,
            None => self.reader.next().await,
        }
    }

    /// Sends a frame: appends it to `out`, or bursts it.
    pub fn frame(&mut self, frame: &Frame, time: u64, out: &mut BytesMut, now: Instant) {
        if self.anchor.is_none() {
            self.anchor = self.anchored(frame, time);
        }
        let Some(Some(lane)) = self.lanes.get_mut(usize::from(frame.medium)) else {
            return;
        };
        let begins = lane.time.is_none();
        lane.time = Some(time);
        // Before the frame: from the first one a player knows how the media belong together.
        let due = self
            .reported
            .is_none_or(|t| now.saturating_duration_since(t) >= REPORT_INTERVAL);
        if begins || due {
            let only = (!due).then_some(usize::from(frame.medium));
            self.reported = if due { Some(now) } else { self.reported };
            self.reports(out, only);
        }
        let Some(Some(lane)) = self.lanes.get_mut(usize::from(frame.medium)) else {
            return;
        };
        let count = frame.payloads.len();
        self.burst.clear();
        if let Transport::Tcp { .. } = lane.transport {
            out.reserve(frame.payloads.bytes() + count * (4 + HEADER_BYTES));
        }
        for (i, payload) in frame.payloads.iter().enumerate() {
            let header = Header {
                marker: lane.marks_end && i + 1 == count,
                payload_type: lane.payload_type,
                seq: lane.seq,
                time: low(time),
                ssrc: lane.ssrc,
            };
            lane.seq = lane.seq.wrapping_add(1);
            let header = header.to_bytes();
            match lane.transport {
                Transport::Tcp { rtp, .. } => {
                    let Ok(length) = u16::try_from(HEADER_BYTES + payload.len()) else {
                        continue;
                    };
                    out.put_u8(b'$');
                    out.put_u8(rtp);
                    out.put_u16(length);
                    out.put_slice(&header);
                    out.put_slice(payload);
                }
                Transport::Udp { .. } => self.burst.push(&[&header, payload]),
            }
        }
        lane.packets = lane.packets.wrapping_add(u32::try_from(count).unwrap_or(0));
        lane.bytes = lane
            .bytes
            .wrapping_add(u32::try_from(frame.payloads.bytes()).unwrap_or(0));
        if let (Transport::Udp { rtp, .. }, Some(pair)) = (lane.transport, &lane.pair) {
            send_burst(pair, SocketAddr::new(self.peer, rtp), &self.burst);
            let ms = frame.payloads.bytes() / PACE_BYTES_PER_MS;
            if ms > 0 {
                let pause = Duration::from_millis(ms as u64);
                self.paced_until = Some(tokio::time::Instant::now() + pause);
            }
        }
    }

    /// Sender reports of all lanes, or of one.
    fn reports(&mut self, out: &mut BytesMut, only: Option<usize>) {
        let Some((wall, at)) = self.anchor else {
            return;
        };
        for (i, lane) in self.lanes.iter().enumerate() {
            let Some(lane) = lane.as_ref().filter(|_| only.is_none_or(|o| o == i)) else {
                continue;
            };
            let Some(time) = lane.time else {
                continue;
            };
            let passed = (seconds(time, lane.clock_rate) - at).max(0.0);
            let ntp = rtcp::ntp(wall + Duration::from_secs_f64(passed));
            let report = rtcp::sender_report(lane.ssrc, ntp, low(time), lane.packets, lane.bytes);
            lane.control(self.peer, &report, out);
        }
    }

    /// Tells the reader that it is over.
    pub fn bye(&mut self, out: &mut BytesMut) {
        for lane in self.lanes.iter().flatten() {
            lane.control(self.peer, &rtcp::bye(lane.ssrc), out);
        }
    }
}

impl Lane {
    /// Sends an RTCP packet.
    fn control(&self, peer: IpAddr, packet: &[u8], out: &mut BytesMut) {
        match (self.transport, &self.pair) {
            (Transport::Tcp { rtcp, .. }, _) => put_interleaved(out, rtcp, packet),
            (Transport::Udp { rtcp, .. }, Some(pair)) => {
                if pair
                    .rtcp
                    .try_send_to(packet, SocketAddr::new(peer, rtcp))
                    .is_err()
                {
                    DROPPED.with_label_values(&["rtcp"]).inc();
                }
            }
            (Transport::Udp { .. }, None) => {}
        }
    }
}

fn send_burst(pair: &Pair, to: SocketAddr, burst: &Burst) {
    match udp::send(&*pair.rtp, to, burst) {
        Ok(sent) => DROPPED
            .with_label_values(&["buffer_full"])
            .inc_by(sent.dropped as u64),
        Err(_) => DROPPED
            .with_label_values(&["unreachable"])
            .inc_by(burst.len() as u64),
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
