//! WHIP (RFC 9725): a drone's own publisher. GStreamer encodes and cuts RTP packets, `rtc` carries them.
//!
//! `webrtcbin` would do, but its development files pull in 580 MB; an independent WHIP client judges the gateway in
//! the end-to-end scenarios.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use gstreamer as gst;
use gstreamer::prelude::*;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::interceptor_registry::register_default_interceptors;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MediaEngine};
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::RTCRtpSenderId;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::sansio::Protocol;
use rtc::shared::marshal::Unmarshal;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use super::video::{Picture, Pipeline};
use super::{Backoff, Counters, Device, halted};

const PAYLOAD_TYPE: u8 = 96;
/// Header extension: when the frame was captured, 64-bit NTP.
const CAPTURE_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
/// RTP packets between encoder and socket; what does not fit is lost, as on a radio link.
const PACKETS_MAX: usize = 512;
/// Time for ICE and DTLS.
const CONNECT_MAX: Duration = Duration::from_secs(15);

/// Pushes a device's video by WHIP until the fleet stops; comes back when it is lost.
pub(super) async fn push(
    device: &Device,
    http: &str,
    picture: Picture,
    counters: Arc<Counters>,
    mut stopping: watch::Receiver<bool>,
) {
    let endpoint = format!("{}/{}/main/whip", http.trim_end_matches('/'), device.id);
    let mut backoff = Backoff::default();
    let mut told = String::new();
    loop {
        let began = Instant::now();
        let reason = match publish(device, &endpoint, &picture, &counters, &mut stopping).await {
            Ok(()) => return,
            Err(fault) => format!("{fault:#}"),
        };
        if began.elapsed().as_secs() > 30 {
            backoff.reset();
            told.clear();
        }
        if reason != told {
            tracing::warn!(device = %device.id, %reason, "WHIP lost, tried again");
            told = reason;
        }
        if !backoff.wait(&mut stopping).await {
            return;
        }
    }
}

/// One WHIP session; Ok when the fleet stops.
async fn publish(
    device: &Device,
    endpoint: &str,
    picture: &Picture,
    counters: &Counters,
    stopping: &mut watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
    let (mut peer, sender) = offerer(socket.local_addr()?)?;
    let offer = peer.create_offer(None)?;
    peer.set_local_description(Instant::now(), offer)?;
    let offer = peer.local_description().context("no offer")?.sdp;
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()?;
    let answer = client
        .post(endpoint)
        .bearer_auth(&device.password)
        .header("Content-Type", "application/sdp")
        .body(offer)
        .send()
        .await?;
    let status = answer.status();
    let location = answer
        .headers()
        .get("location")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let base = answer.url().clone();
    let text = answer.text().await?;
    anyhow::ensure!(status.as_u16() == 201, "{status}: {}", text.trim());
    let resource = base.join(&location.context("201 without Location")?)?;
    peer.set_remote_description(Instant::now(), RTCSessionDescription::answer(text)?)?;

    let done = stream(
        device, picture, counters, &socket, &mut peer, sender, stopping,
    )
    .await;
    let deleted = client
        .delete(resource)
        .bearer_auth(&device.password)
        .send()
        .await;
    if let (Ok(()), Err(fault)) = (&done, deleted) {
        tracing::debug!(%fault, "WHIP session not deleted");
    }
    done
}

fn offerer(local: SocketAddr) -> anyhow::Result<(RTCPeerConnection, RTCRtpSenderId)> {
    let codec = RTCRtpCodec {
        mime_type: MIME_TYPE_H264.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
            .to_owned(),
        rtcp_feedback: vec![],
    };
    let mut media = MediaEngine::default();
    media.register_codec(
        RTCRtpCodecParameters {
            rtp_codec: codec.clone(),
            payload_type: PAYLOAD_TYPE,
        },
        RtpCodecKind::Video,
    )?;
    media.register_header_extension(
        RTCRtpHeaderExtensionCapability {
            uri: CAPTURE_TIME.to_owned(),
        },
        RtpCodecKind::Video,
        None,
    )?;
    let registry = register_default_interceptors(rtc::interceptor::Registry::new(), &mut media)?;
    let mut peer = RTCPeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_media_engine(media)
        .with_interceptor_registry(registry)
        .build(Instant::now())?;
    let ssrc = u32::from(local.port()) << 8 | 1;
    let sender = peer.add_track(MediaStreamTrack::new(
        "main".into(),
        "video".into(),
        "video".into(),
        RtpCodecKind::Video,
        vec![RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                ssrc: Some(ssrc),
                ..Default::default()
            },
            codec,
            ..Default::default()
        }],
    ))?;
    let candidate = CandidateHostConfig {
        base_config: CandidateConfig {
            network: "udp".to_owned(),
            address: local.ip().to_string(),
            port: local.port(),
            component: 1,
            ..Default::default()
        },
        ..Default::default()
    }
    .new_candidate_host()?;
    peer.add_local_candidate(RTCIceCandidate::from(&candidate).to_json()?)?;
    Ok((peer, sender))
}

/// The pipeline whose RTP packets come out of the channel.
fn rtp_source(
    device: &Device,
    picture: &Picture,
) -> anyhow::Result<(Pipeline, mpsc::Receiver<Bytes>)> {
    let rest = format!(
        "rtph264pay pt={PAYLOAD_TYPE} mtu=1180 config-interval=-1 aggregate-mode=zero-latency ! \
         appsink name=packets sync=false max-buffers=64 drop=true"
    );
    let pipeline = Pipeline::build(device, picture, &rest)?;
    let sink = pipeline
        .0
        .by_name("packets")
        .and_then(|element| element.downcast::<gstreamer_app::AppSink>().ok())
        .context("no appsink")?;
    let (packets, receiver) = mpsc::channel(PACKETS_MAX);
    sink.set_callbacks(
        gstreamer_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let map = sample
                    .buffer()
                    .ok_or(gst::FlowError::Error)?
                    .map_readable()
                    .map_err(|_| gst::FlowError::Error)?;
                match packets.try_send(Bytes::copy_from_slice(&map)) {
                    Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(gst::FlowSuccess::Ok),
                    Err(mpsc::error::TrySendError::Closed(_)) => Err(gst::FlowError::Eos),
                }
            })
            .build(),
    );
    Ok((pipeline, receiver))
}

/// Carries packets both ways until the connection fails (Err) or the fleet stops (Ok).
async fn stream(
    device: &Device,
    picture: &Picture,
    counters: &Counters,
    socket: &UdpSocket,
    peer: &mut RTCPeerConnection,
    sender: RTCRtpSenderId,
    stopping: &mut watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let local = socket.local_addr()?;
    let (pipeline, mut packets) = rtp_source(device, picture)?;
    let deadline = Instant::now() + CONNECT_MAX;
    let mut connected = Streaming {
        counters,
        on: false,
    };
    let mut buffer = vec![0; 2_048];
    loop {
        while let Some(datagram) = peer.poll_write() {
            if let Err(fault) = socket
                .send_to(&datagram.message, datagram.transport.peer_addr)
                .await
            {
                tracing::debug!(%fault, "datagram not sent");
            }
        }
        while let Some(event) = peer.poll_event() {
            match event {
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(
                    RTCPeerConnectionState::Connected,
                ) => {
                    connected.start();
                    pipeline
                        .0
                        .set_state(gst::State::Playing)
                        .context("video does not start")?;
                }
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(
                    state @ (RTCPeerConnectionState::Failed
                    | RTCPeerConnectionState::Closed
                    | RTCPeerConnectionState::Disconnected),
                ) => anyhow::bail!("connection is {state}"),
                _ => {}
            }
        }
        while let Some(message) = peer.poll_read() {
            if let RTCMessage::RtcpPacket(_, feedback) = message.message
                && feedback.iter().any(|packet| {
                    packet.header().packet_type
                        == rtc::rtcp::header::PacketType::PayloadSpecificFeedback
                })
            {
                want_key_frame(&pipeline);
            }
        }
        anyhow::ensure!(
            connected.on || Instant::now() < deadline,
            "no connection within {CONNECT_MAX:?}"
        );
        let now = Instant::now();
        let due = peer
            .poll_timeout()
            .unwrap_or(now + Duration::from_secs(1))
            .min(now + Duration::from_secs(1));
        if due <= now {
            peer.handle_timeout(now)?;
            continue;
        }
        tokio::select! {
            packet = packets.recv() => {
                let mut packet = packet.context("video ended")?;
                let packet = rtc::rtp::Packet::unmarshal(&mut packet)?;
                send(peer, sender, packet)?;
            }
            received = socket.recv_from(&mut buffer) => {
                let (length, from) = received?;
                peer.handle_read(TaggedBytesMut {
                    now: Instant::now(),
                    transport: TransportContext {
                        local_addr: local, peer_addr: from, ecn: None, transport_protocol: TransportProtocol::UDP,
                    },
                    message: BytesMut::from(&buffer[..length]),
                })?;
            }
            () = tokio::time::sleep_until(due.into()) => peer.handle_timeout(Instant::now())?,
            reason = pipeline.ended(), if connected.on => anyhow::bail!("video ended: {reason}"),
            () = halted(stopping) => {
                peer.close()?;
                return Ok(());
            }
        }
    }
}

fn send(
    peer: &mut RTCPeerConnection,
    sender: RTCRtpSenderId,
    mut packet: rtc::rtp::Packet,
) -> anyhow::Result<()> {
    let mut sender = peer.rtp_sender(sender).context("no sender")?;
    packet.header.ssrc = sender.track().ssrcs().last().context("no SSRC")?;
    packet.header.payload_type = sender
        .get_parameters()
        .rtp_parameters
        .codecs
        .first()
        .context("the answer takes no H.264")?
        .payload_type;
    // The picture is made just before it is sent. The last packet of a frame tells.
    let agreed = &sender.get_parameters().rtp_parameters.header_extensions;
    let capture_time = agreed.iter().find(|e| e.uri == CAPTURE_TIME).map(|e| e.id);
    if let Some(id) = capture_time
        && packet.header.marker
    {
        let ntp = Bytes::copy_from_slice(&ntp(SystemTime::now()));
        packet.header.set_extension(u8::try_from(id)?, ntp)?;
    }
    sender.write_rtp(Instant::now(), packet)?;
    Ok(())
}

/// Seconds since 1900 and 2^-32 of them.
fn ntp(at: SystemTime) -> [u8; 8] {
    let since_1970 = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = (u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000;
    (((since_1970.as_secs() + 2_208_988_800) << 32) + fraction).to_be_bytes()
}

fn want_key_frame(pipeline: &Pipeline) {
    if let Some(encoder) = pipeline.0.by_name("encoder")
        && let Some(pad) = encoder.static_pad("src")
    {
        let wish = gst::Structure::builder("GstForceKeyUnit")
            .field("all-headers", true)
            .build();
        if !pad.send_event(gst::event::CustomUpstream::new(wish)) {
            tracing::debug!("encoder gives no key frame on request");
        }
    }
}

/// Counts this device among the streaming ones while it is.
struct Streaming<'a> {
    counters: &'a Counters,
    on: bool,
}

impl Streaming<'_> {
    fn start(&mut self) {
        if !self.on {
            self.on = true;
            self.counters.streaming.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        if self.on {
            self.counters.streaming.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
