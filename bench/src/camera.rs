//! A synthetic camera: 4 Mbit/s, 30 frames a second of H.264, pushed by RTSP over TCP or sent as plain RTP. Each frame
//! begins with an SEI that carries the time it was sent; the clock is the machine's, so any process on it can tell
//! a frame's age.

use std::time::Duration;

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use kerbside_codecs::rtp::h264::packetize_h264;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;

use crate::rtsp_client::RtspClient;

pub const FPS: u32 = 30;
pub const FRAME_BYTES: usize = 16_667;
pub const PAYLOAD_TYPE: u8 = 96;
/// user_data_unregistered (H.264 D.1.7) with this UUID.
const STAMP_UUID: [u8; 16] = *b"kerbside-bench-1";
/// An SEI stands at the beginning of a frame, behind parameter sets at most.
const STAMP_WITHIN: usize = 200;

/// SPS and PPS of a 1280x720 constrained baseline stream made by x264.
pub const SPS: &[u8] = &[
    0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xec, 0x04, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40,
    0x00, 0x00, 0x0f, 0x03, 0xc6, 0x0c, 0xa8,
];
pub const PPS: &[u8] = &[0x68, 0xce, 0x0f, 0xc8];

/// Nanoseconds of the machine's monotonic clock.
pub fn now_ns() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// SEI NAL unit: UUID and the stamp as 16 hex digits (no start-code emulation possible).
pub fn sei(stamp_ns: u64) -> Bytes {
    let mut b = BytesMut::new();
    b.put_slice(&[0x06, 0x05, 32]);
    b.put_slice(&STAMP_UUID);
    b.put_slice(format!("{stamp_ns:016x}").as_bytes());
    b.put_u8(0x80);
    b.freeze()
}

/// The stamp in an RTP payload (RFC 6184) that is or aggregates an SEI.
pub fn stamp_of(payload: &[u8]) -> Option<u64> {
    const SEI: u8 = 6;
    const STAP_A: u8 = 24;
    if !matches!(payload.first()? & 31, SEI | STAP_A) {
        return None;
    }
    let at = payload
        .windows(STAMP_UUID.len())
        .take(STAMP_WITHIN)
        .position(|w| w == STAMP_UUID)?
        + STAMP_UUID.len();
    let hex = std::str::from_utf8(payload.get(at..at + 16)?).ok()?;
    u64::from_str_radix(hex, 16).ok()
}

fn slice(key: bool) -> Bytes {
    let mut b = BytesMut::with_capacity(FRAME_BYTES);
    b.put_u8(if key { 0x65 } else { 0x41 });
    // first_mb_in_slice 0, slice_type I or P, PPS 0; then anything.
    b.put_u8(if key { 0xb8 } else { 0xe0 });
    b.resize(FRAME_BYTES, 0xa5);
    b.freeze()
}

/// Where the camera's packets go.
pub enum Output {
    Rtsp(Box<RtspClient>),
    Rtp(UdpSocket),
}

impl Output {
    /// Announces the camera under an RTSP address.
    pub async fn rtsp(url: &str, login: Option<(String, String)>) -> anyhow::Result<Self> {
        let mut client = RtspClient::connect(url, login).await?;
        client.announce(SPS, PPS).await?;
        Ok(Self::Rtsp(Box::new(client)))
    }

    pub async fn rtp(to: &str) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        socket.connect(to).await.context("--rtp")?;
        Ok(Self::Rtp(socket))
    }

    async fn frame(&mut self, packets: &[BytesMut]) -> anyhow::Result<()> {
        match self {
            Self::Rtsp(client) => {
                let mut out = BytesMut::with_capacity(FRAME_BYTES + 1024);
                for p in packets {
                    out.put_slice(&[b'$', 0]);
                    out.put_u16(u16::try_from(p.len())?);
                    out.put_slice(p);
                }
                client.stream.write_all(&out).await?;
            }
            Self::Rtp(socket) => {
                for p in packets {
                    // Nobody listens yet, or for a moment: a camera by RTP does not know.
                    if let Err(error) = socket.send(p).await
                        && error.kind() != std::io::ErrorKind::ConnectionRefused
                    {
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Publishes until the future is dropped. `gop_s`: seconds from key frame to key frame.
pub async fn publish(mut to: Output, gop_s: u32) -> anyhow::Result<()> {
    let mut every = tokio::time::interval(Duration::from_secs(1) / FPS);
    let (mut seq, mut time) = (0u16, 0u32);
    for n in 0u64.. {
        every.tick().await;
        let key = n % u64::from(FPS * gop_s.max(1)) == 0;
        let mut nals = Vec::with_capacity(4);
        if key {
            nals.push(Bytes::from_static(SPS));
            nals.push(Bytes::from_static(PPS));
        }
        nals.push(sei(now_ns()));
        nals.push(slice(key));
        let payloads = packetize_h264(&nals, 1200);
        let count = payloads.len();
        let mut packets = Vec::with_capacity(count);
        for (i, p) in payloads.iter().enumerate() {
            let mut packet = BytesMut::with_capacity(12 + p.len());
            let marker = if i + 1 == count { 0x80 } else { 0 };
            packet.put_slice(&[0x80, PAYLOAD_TYPE | marker]);
            packet.put_u16(seq);
            packet.put_u32(time);
            packet.put_u32(0x1234_5678);
            packet.put_slice(p);
            packets.push(packet);
            seq = seq.wrapping_add(1);
        }
        time = time.wrapping_add(90_000 / FPS);
        to.frame(&packets).await?;
    }
    Ok(())
}
