//! RECORD: the packets of a publisher into its stream.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kerbside_codecs::rtp::rtcp::{self, Reception, Report};
use kerbside_codecs::rtp::{Packet, Window};
use kerbside_codecs::rtsp::{Session, Transport};

use super::ports::{Datagram, Pair};
use crate::ids::StreamId;
use crate::stream::{Ingress, Streams, SubscribeError, Superseded, packet_dropped};

/// Without a packet for so long the publisher is gone, whatever its connection says.
const SILENCE_MAX: Duration = Duration::from_secs(10);
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A publisher's media on their way in.
pub struct Push {
    ingress: Ingress,
    tracks: Vec<Incoming>,
    own_ssrc: u32,
    peer: IpAddr,
    heard: Instant,
    reported: Instant,
}

struct Incoming {
    /// Index in the stream; None: a medium we do not carry.
    medium: Option<usize>,
    payload_type: u8,
    transport: Transport,
    pair: Option<Pair>,
    reception: Reception,
}

/// Why publishing ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushEnd {
    Superseded,
    Silent,
}

impl From<Superseded> for PushEnd {
    fn from(_: Superseded) -> Self {
        Self::Superseded
    }
}

impl Push {
    /// Publishes the tracks that were set up. `pairs[i]` holds the sockets of track `i` if it travels over UDP.
    pub fn start(
        streams: &Streams,
        id: &StreamId,
        session: &Session,
        pairs: &[Option<Pair>],
        peer: IpAddr,
        now: Instant,
    ) -> Result<Self, SubscribeError> {
        let offer = session.offer().ok_or(SubscribeError::NoMedia)?;
        let mut media = Vec::new();
        let mut tracks = Vec::new();
        for (i, track) in session.tracks().iter().enumerate() {
            let medium = offer.media.get(track.index).and_then(|m| m.medium.clone());
            let clock_rate = medium.as_ref().map_or(90_000, |m| m.clock_rate);
            let pair = pairs.get(i).cloned().flatten();
            tracks.push(Incoming {
                medium: medium.is_some().then_some(media.len()),
                payload_type: track.payload_type,
                transport: track.transport,
                pair,
                reception: Reception::new(clock_rate),
            });
            media.extend(medium);
        }
        let udp = session
            .tracks()
            .iter()
            .any(|t| matches!(t.transport, Transport::Udp { .. }));
        let window = if udp { Window::UDP } else { Window::IN_ORDER };
        let publisher = streams.publish(id, media.clone(), "rtsp")?;
        Ok(Self {
            ingress: Ingress::new(publisher, "rtsp", &media, window, now),
            tracks,
            own_ssrc: rand::random(),
            peer,
            heard: now,
            reported: now,
        })
    }

    /// A datagram of one of the tracks.
    pub fn take(&mut self, d: &Datagram) -> Result<(), PushEnd> {
        self.packet(d.track, d.rtcp, &d.data, d.arrived)
    }

    /// Interleaved data. One of an unknown channel is dropped.
    pub fn interleaved(&mut self, channel: u8, data: &Bytes, now: Instant) -> Result<(), PushEnd> {
        let found = self
            .tracks
            .iter()
            .enumerate()
            .find_map(|(i, t)| match t.transport {
                Transport::Tcp { rtp, .. } if rtp == channel => Some((i, false)),
                Transport::Tcp { rtcp, .. } if rtcp == channel => Some((i, true)),
                _ => None,
            });
        match found {
            Some((i, rtcp)) => self.packet(i, rtcp, data, now),
            None => {
                packet_dropped("rtsp", "packet_unknown_channel");
                Ok(())
            }
        }
    }

    fn packet(&mut self, i: usize, rtcp: bool, data: &Bytes, now: Instant) -> Result<(), PushEnd> {
        let Some(track) = self.tracks.get_mut(i) else {
            return Ok(());
        };
        if rtcp {
            for report in rtcp::parse(data) {
                track.reception.report(report, now);
                if let (Report::Sender { ssrc, ntp, time }, Some(medium)) = (report, track.medium) {
                    self.ingress.sender_report(medium, ssrc, ntp, time);
                }
            }
            return Ok(());
        }
        let Ok(packet) = Packet::parse(data) else {
            packet_dropped("rtsp", "packet_malformed");
            return Ok(());
        };
        self.heard = now;
        if packet.header.payload_type != track.payload_type {
            packet_dropped("rtsp", "packet_payload_type");
            return Ok(());
        }
        track.reception.packet(&packet.header, now);
        if let Some(medium) = track.medium {
            self.ingress.packet(medium, packet, now)?;
        }
        Ok(())
    }

    /// About once a second: receiver reports, silence, supersession.
    pub fn tick(&mut self, now: Instant, out: &mut BytesMut) -> Result<(), PushEnd> {
        self.ingress.tick(now)?;
        if now.saturating_duration_since(self.heard) >= SILENCE_MAX {
            return Err(PushEnd::Silent);
        }
        if now.saturating_duration_since(self.reported) < REPORT_INTERVAL {
            return Ok(());
        }
        self.reported = now;
        for track in &mut self.tracks {
            let Some(report) = track.reception.receiver_report(self.own_ssrc, now) else {
                continue;
            };
            match (track.transport, &track.pair) {
                (Transport::Tcp { rtcp, .. }, _) => put_interleaved(out, rtcp, &report),
                (Transport::Udp { rtcp, .. }, Some(pair)) => {
                    if let Err(e) = pair
                        .rtcp
                        .try_send_to(&report, SocketAddr::new(self.peer, rtcp))
                    {
                        tracing::debug!(error = %e, "a receiver report was not sent");
                    }
                }
                (Transport::Udp { .. }, None) => {}
            }
        }
        Ok(())
    }
}

/// `$`, channel, length, data.
pub fn put_interleaved(out: &mut BytesMut, channel: u8, data: &[u8]) {
    let Ok(length) = u16::try_from(data.len()) else {
        return;
    };
    out.put_u8(b'$');
    out.put_u8(channel);
    out.put_u16(length);
    out.put_slice(data);
}
