//! The packets of a playing camera into its stream, and receiver reports back.
//!
//! Here: which packet belongs to which medium, UDP sockets, reports. Not here: requests (`client`), frames (`stream`).

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kerbside_codecs::media::Medium;
use kerbside_codecs::rtp::rtcp::{self, Reception, Report};
use kerbside_codecs::rtp::{Packet, Window};
use tokio::sync::watch;

use super::PullEnd;
use super::client::{Client, ClientFault, Way};
use super::metrics::dropped;
use crate::config::Camera;
use crate::listen::rtsp::ports::{Inbox, Pair};
use crate::stream::{Ingress, Streams};

/// Without a packet for so long the camera is connected anew.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Over UDP a first packet comes within this, or something between us lets none through.
const FIRST_UDP_MAX: Duration = Duration::from_secs(3);
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// A set up and playing camera.
pub struct Playing {
    client: Client,
    inbox: Inbox,
    lanes: Vec<Lane>,
    media: Vec<Medium>,
    udp: bool,
    /// Our SSRC in reports.
    own: u32,
}

/// One medium.
struct Lane {
    payload_type: u8,
    /// Channels of RTP and RTCP over TCP.
    channels: Option<(u8, u8)>,
    /// Over UDP: our sockets and the camera's ports, if it named them.
    pair: Option<(Pair, Option<(u16, u16)>)>,
    reception: Reception,
}

impl Playing {
    /// DESCRIBE, SETUP of what we carry, PLAY.
    ///
    /// # Errors
    /// [`ClientFault`].
    pub async fn begin(camera: &Camera, udp: bool) -> Result<Self, ClientFault> {
        let mut client = Client::connect(camera).await?;
        let described = client.describe().await?;
        let mut inbox = Inbox::new();
        let (mut lanes, mut media) = (Vec::new(), Vec::new());
        for (index, m) in described.offer.media.iter().enumerate() {
            let Some(medium) = &m.medium else { continue };
            let (way, pair) = if udp {
                let any = match client.local_ip() {
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                    ip => ip,
                };
                let pair = Pair::bind(any, None)?;
                let rtp = pair.port;
                let way = Way::Udp {
                    rtp,
                    rtcp: rtp.saturating_add(1),
                };
                (way, Some(pair))
            } else {
                (Way::Tcp, None)
            };
            let answered = client.setup(&described, index, way).await?;
            if let Some(pair) = &pair {
                inbox.listen(lanes.len(), pair, client.peer_ip().to_canonical());
                open_path(pair, client.peer_ip(), answered.server_ports);
            }
            lanes.push(Lane {
                payload_type: m.payload_type,
                channels: answered.channels.filter(|_| !udp),
                pair: pair.map(|p| (p, answered.server_ports)),
                reception: Reception::new(medium.clock_rate),
            });
            media.push(medium.clone());
        }
        client.play().await?;
        Ok(Self {
            client,
            inbox,
            lanes,
            media,
            udp,
            own: rand::random::<u32>() | 1,
        })
    }

    /// Moves packets until something ends it; the camera is told.
    pub async fn forward(
        mut self,
        camera: &Camera,
        streams: &Streams,
        readers: Option<watch::Receiver<usize>>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> PullEnd {
        let publisher = match streams.publish(&camera.stream, self.media.clone(), "pull") {
            Ok(p) => p,
            Err(e) => return e.into(),
        };
        let window = if self.udp {
            Window::UDP
        } else {
            Window::IN_ORDER
        };
        let mut ingress = Ingress::new(publisher, "pull", &self.media, window, Instant::now());
        tracing::info!(stream = %camera.stream, udp = self.udp, "camera connected");
        let end = tokio::select! {
            Err(end) = self.until_end(&mut ingress, camera.linger, readers) => end,
            () = super::stopped(shutdown) => PullEnd::Stopped,
        };
        // The stream waits from now on; the goodbye must not delay it.
        drop(ingress);
        if !matches!(end, PullEnd::Camera(_)) {
            self.client.teardown().await;
        }
        end
    }

    async fn until_end(
        &mut self,
        ingress: &mut Ingress,
        linger: Duration,
        readers: Option<watch::Receiver<usize>>,
    ) -> Result<Infallible, PullEnd> {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let began = Instant::now();
        let (mut heard, mut read, mut reported) = (None, began, began);
        loop {
            tokio::select! {
                data = self.client.next() => {
                    let (channel, data) = data?;
                    let now = Instant::now();
                    if self.interleaved(ingress, channel, &data, now)? {
                        heard = Some(now);
                    }
                }
                d = self.inbox.next() => {
                    heard = Some(d.arrived);
                    self.packet(ingress, d.track, d.rtcp, &d.data, d.arrived)?;
                }
                _ = tick.tick() => {
                    let now = Instant::now();
                    ingress.tick(now)?;
                    if readers.as_ref().is_none_or(|r| *r.borrow() > 0) {
                        read = now;
                    }
                    if now.saturating_duration_since(read) >= linger {
                        return Err(PullEnd::NoReaders);
                    }
                    if self.udp && heard.is_none() && now.saturating_duration_since(began) >= FIRST_UDP_MAX {
                        return Err(PullEnd::NoUdp);
                    }
                    if now.saturating_duration_since(heard.unwrap_or(began)) >= SILENCE_MAX {
                        return Err(PullEnd::Silent);
                    }
                    self.client.keep(now).await?;
                    if now.saturating_duration_since(reported) >= REPORT_EVERY {
                        reported = now;
                        self.report(now).await?;
                    }
                }
            }
        }
    }

    /// Takes what came on the connection. False when it belongs to no medium.
    fn interleaved(
        &mut self,
        ingress: &mut Ingress,
        channel: u8,
        data: &Bytes,
        now: Instant,
    ) -> Result<bool, PullEnd> {
        let place = self.lanes.iter().enumerate().find_map(|(i, l)| {
            let (rtp, rtcp) = l.channels?;
            (channel == rtp || channel == rtcp).then_some((i, channel == rtcp))
        });
        let Some((lane, is_rtcp)) = place else {
            dropped("channel");
            return Ok(false);
        };
        self.packet(ingress, lane, is_rtcp, data, now)?;
        Ok(true)
    }

    fn packet(
        &mut self,
        ingress: &mut Ingress,
        index: usize,
        is_rtcp: bool,
        data: &Bytes,
        now: Instant,
    ) -> Result<(), PullEnd> {
        let Some(lane) = self.lanes.get_mut(index) else {
            return Ok(());
        };
        if is_rtcp {
            for report in rtcp::parse(data) {
                lane.reception.report(report, now);
                if let Report::Sender { ssrc, ntp, time } = report {
                    ingress.sender_report(index, ssrc, ntp, time);
                }
            }
            return Ok(());
        }
        let Ok(packet) = Packet::parse(data) else {
            dropped("bad_rtp");
            return Ok(());
        };
        // Others than described: metadata of the maker (Geovision's type 50), comfort noise.
        if packet.header.payload_type != lane.payload_type {
            dropped("payload_type");
            return Ok(());
        }
        lane.reception.packet(&packet.header, now);
        ingress.packet(index, packet, now)?;
        Ok(())
    }

    /// Receiver reports: cameras built on live555 take them for a sign of life too.
    async fn report(&mut self, now: Instant) -> Result<(), ClientFault> {
        let peer = self.client.peer_ip();
        for lane in &mut self.lanes {
            let Some(report) = lane.reception.receiver_report(self.own, now) else {
                continue;
            };
            if let Some((_, rtcp)) = lane.channels {
                self.client.interleaved(rtcp, &report).await?;
            } else if let Some((pair, Some((_, rtcp)))) = &lane.pair {
                // What UDP loses is lost; the next one comes soon.
                if let Err(error) = pair.rtcp.try_send_to(&report, SocketAddr::new(peer, *rtcp)) {
                    tracing::trace!(%error, "receiver report");
                }
            }
        }
        Ok(())
    }
}

/// Opens the way for the camera's packets through address translators and stateful filters on ours: an empty RTP
/// packet and an empty receiver report.
fn open_path(pair: &Pair, peer: IpAddr, ports: Option<(u16, u16)>) {
    let Some((rtp, rtcp)) = ports else { return };
    let rtp_packet = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let report = [0x80, 201, 0, 1, 0, 0, 0, 0];
    for (socket, packet, port) in [
        (&pair.rtp, &rtp_packet[..], rtp),
        (&pair.rtcp, &report[..], rtcp),
    ] {
        if let Err(error) = socket.try_send_to(packet, SocketAddr::new(peer, port)) {
            tracing::trace!(%error, "the path of a camera's packets");
        }
    }
}
