//! A synthetic camera: 4 Mbit/s, 30 frames a second, one key frame a second, pushed by RTSP over TCP. Each frame begins
//! with an SEI that carries the time it was sent, so that a reader in the same process knows its age.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kerbside_codecs::rtp::h264::packetize_h264;
use tokio::io::AsyncWriteExt;

use crate::rtsp_client::RtspClient;

pub const FPS: u32 = 30;
pub const FRAME_BYTES: usize = 16_667;
/// user_data_unregistered (H.264 D.1.7) with this UUID.
pub const STAMP_UUID: [u8; 16] = *b"kerbside-bench-1";

/// SPS and PPS of a 1280x720 constrained baseline stream made by x264.
pub const SPS: &[u8] = &[
    0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xec, 0x04, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40,
    0x00, 0x00, 0x0f, 0x03, 0xc6, 0x0c, 0xa8,
];
pub const PPS: &[u8] = &[0x68, 0xce, 0x0f, 0xc8];

/// Nanoseconds since the benchmark began.
pub fn stamp() -> u64 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// SEI NAL unit: UUID and the stamp as 16 hex digits (no start-code emulation possible).
fn sei() -> Bytes {
    let mut b = BytesMut::new();
    b.put_slice(&[0x06, 0x05, 32]);
    b.put_slice(&STAMP_UUID);
    b.put_slice(format!("{:016x}", stamp()).as_bytes());
    b.put_u8(0x80);
    b.freeze()
}

/// Age of the stamp in `payload`, if there is one, in milliseconds.
pub fn age_ms(payload: &[u8]) -> Option<f64> {
    let at = payload
        .windows(16)
        .take(200)
        .position(|w| w == STAMP_UUID)?
        + 16;
    let hex = std::str::from_utf8(payload.get(at..at + 16)?).ok()?;
    let sent = u64::from_str_radix(hex, 16).ok()?;
    Some((stamp().saturating_sub(sent)) as f64 / 1e6)
}

fn slice(key: bool) -> Bytes {
    let mut b = BytesMut::with_capacity(FRAME_BYTES);
    b.put_u8(if key { 0x65 } else { 0x41 });
    b.resize(FRAME_BYTES, 0xa5);
    b.freeze()
}

/// Publishes until the future is dropped.
pub async fn publish(addr: &str, path: &str, user: &str, password: &str) -> anyhow::Result<()> {
    let mut client = RtspClient::connect(addr, path, user, password).await?;
    client.announce(SPS, PPS).await?;
    let mut every = tokio::time::interval(Duration::from_secs(1) / FPS);
    let (mut seq, mut time) = (0u16, 0u32);
    for n in 0u64.. {
        every.tick().await;
        let key = n % u64::from(FPS) == 0;
        let mut nals = Vec::with_capacity(4);
        if key {
            nals.push(Bytes::from_static(SPS));
            nals.push(Bytes::from_static(PPS));
        }
        nals.push(sei());
        nals.push(slice(key));
        let payloads = packetize_h264(&nals, 1200);
        let mut out = BytesMut::with_capacity(FRAME_BYTES + 1024);
        let count = payloads.len();
        for (i, p) in payloads.iter().enumerate() {
            out.put_u8(b'$');
            out.put_u8(0);
            out.put_u16(u16::try_from(p.len() + 12)?);
            out.put_u8(0x80);
            out.put_u8(96 | if i + 1 == count { 0x80 } else { 0 });
            out.put_u16(seq);
            out.put_u32(time);
            out.put_u32(0x1234_5678);
            out.put_slice(p);
            seq = seq.wrapping_add(1);
        }
        time = time.wrapping_add(90_000 / FPS);
        client.stream.write_all(&out).await?;
    }
    Ok(())
}
