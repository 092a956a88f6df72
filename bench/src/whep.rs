//! WHEP readers of one camera: each a WebRTC peer of its own with its own UDP socket, all in this process.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::BytesMut;
use rtc::peer_connection::RTCPeerConnectionBuilder;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::camera;
use crate::fanout::{Fanout, Seen};
use crate::process::HTTP;

pub async fn run(kerbside: &Path, readers: usize, seconds: u64) -> anyhow::Result<Fanout> {
    Fanout::measure(
        "WHEP",
        kerbside,
        readers,
        seconds,
        |token, count| async move { read(&token, seconds, count).await },
    )
    .await
}

async fn read(token: &str, seconds: u64, mut count: watch::Receiver<bool>) -> anyhow::Result<Seen> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let local = socket.local_addr()?;
    let mut media = MediaEngine::default();
    media.register_default_codecs()?;
    let mut pc = RTCPeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_media_engine(media)
        .with_setting_engine(SettingEngineBuilder::new().build())
        .build(Instant::now())?;
    pc.add_transceiver_from_kind(RtpCodecKind::Video, None)?;
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
    pc.add_local_candidate(RTCIceCandidate::from(&candidate).to_json()?)?;
    let offer = pc.create_offer(None)?;
    pc.set_local_description(Instant::now(), offer)?;
    let offer = pc.local_description().context("no local description")?;

    let http = reqwest::Client::new();
    let started = Instant::now();
    let (answer, asked) = loop {
        let asked = Instant::now();
        let answer = http
            .post(format!("http://{HTTP}/cam/main/whep"))
            .bearer_auth(token)
            .header("content-type", "application/sdp")
            .body(offer.sdp.clone())
            .send()
            .await?;
        if answer.status() == 201 {
            break (answer.text().await?, asked);
        }
        // The publisher may still be on its way.
        if started.elapsed() > Duration::from_secs(4) {
            anyhow::bail!("WHEP: {}", answer.text().await?);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    pc.set_remote_description(Instant::now(), RTCSessionDescription::answer(answer)?)?;

    let mut seen = Seen::default();
    let mut buf = vec![0u8; 2048];
    let mut deadline: Option<tokio::time::Instant> = None;
    let mut stamp = None;
    loop {
        while let Some(out) = pc.poll_write() {
            socket
                .send_to(&out.message, out.transport.peer_addr)
                .await?;
        }
        while pc.poll_event().is_some() {}
        while let Some(tagged) = pc.poll_read() {
            let RTCMessage::RtpPacket(_, packet) = tagged.message else {
                continue;
            };
            stamp = camera::age_ms(&packet.payload)
                .map(|age| (age, Instant::now()))
                .or(stamp);
            if packet.header.marker {
                if seen.join_ms == 0.0 {
                    seen.join_ms = asked.elapsed().as_secs_f64() * 1e3;
                }
                if let (Some((age, at)), true) = (stamp.take(), deadline.is_some()) {
                    seen.frames += 1;
                    seen.latency_ms.push(age + at.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        let timer = pc.poll_timeout().map_or_else(
            || tokio::time::Instant::now() + Duration::from_secs(1),
            tokio::time::Instant::from_std,
        );
        let end =
            deadline.unwrap_or_else(|| tokio::time::Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            got = socket.recv_from(&mut buf) => {
                let (n, peer_addr) = got?;
                pc.handle_read(TaggedBytesMut {
                    now: Instant::now(),
                    transport: TransportContext {
                        local_addr: local,
                        peer_addr,
                        transport_protocol: TransportProtocol::UDP,
                        ecn: None,
                    },
                    message: BytesMut::from(&buf[..n]),
                })?;
            }
            () = tokio::time::sleep_until(timer) => pc.handle_timeout(Instant::now())?,
            _ = count.changed(), if deadline.is_none() => {
                deadline = Some(tokio::time::Instant::now() + Duration::from_secs(seconds));
            }
            () = tokio::time::sleep_until(end) => return Ok(seen),
        }
    }
}
