//! The media socket of one reader, whichever transport: read without waiting, by whoever has the time.
//!
//! Here: bytes to packets for the meter, keep-alives. Not here: how it was set up, threads.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::io::Interest;

use super::meter::Meter;
use super::rtc::Rtc;
use crate::camera::now_ns;

/// Room for the biggest interleaved packet, several times.
pub const TCP_BUFFER_BYTES: usize = 256 << 10;
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Nonblocking sockets.
pub enum Line {
    Tcp(Interleaved),
    Udp(Datagrams),
    Rtc(Box<Rtc>),
}

/// Tells when a line has something to read; the line itself stays free to be handed on.
pub enum Readiness {
    Tcp(tokio::net::TcpStream),
    Udp(tokio::net::UdpSocket),
}

impl Readiness {
    /// Returns when something has come since the last call; what is there has to be drained then.
    pub async fn wait(&self) -> std::io::Result<()> {
        let seen = || Err::<(), _>(std::io::Error::from(ErrorKind::WouldBlock));
        let cleared = match self {
            Self::Tcp(s) => {
                s.readable().await?;
                s.try_io(Interest::READABLE, seen)
            }
            Self::Udp(s) => {
                s.readable().await?;
                s.try_io(Interest::READABLE, seen)
            }
        };
        match cleared {
            Err(e) if e.kind() != ErrorKind::WouldBlock => Err(e),
            _ => Ok(()),
        }
    }
}

impl Line {
    pub fn readiness(&self) -> std::io::Result<Readiness> {
        let udp =
            |s: &UdpSocket| tokio::net::UdpSocket::from_std(s.try_clone()?).map(Readiness::Udp);
        match self {
            Self::Tcp(l) => {
                tokio::net::TcpStream::from_std(l.stream.try_clone()?).map(Readiness::Tcp)
            }
            Self::Udp(l) => udp(&l.rtp),
            Self::Rtc(l) => udp(&l.socket),
        }
    }

    /// Takes all that is there.
    pub fn drain(&mut self, meter: &mut Meter, scratch: &mut [u8]) -> anyhow::Result<()> {
        match self {
            Self::Tcp(l) => l.drain(meter),
            Self::Udp(l) => l.drain(meter, scratch),
            Self::Rtc(l) => l.drain(meter, scratch),
        }
    }

    /// When [`Self::tick`] is due.
    pub fn due(&self) -> Instant {
        match self {
            Self::Tcp(l) => l.keep_at,
            Self::Udp(l) => l.report_at,
            Self::Rtc(l) => l.due(),
        }
    }

    pub fn tick(&mut self, now: Instant, meter: &Meter) -> anyhow::Result<()> {
        match self {
            Self::Tcp(l) => l.tick(now),
            Self::Udp(l) => {
                l.tick(now);
                Ok(())
            }
            Self::Rtc(l) => l.tick(now, meter),
        }
    }

    /// SRTP profile, if there is SRTP.
    pub fn profile(&self) -> Option<&'static str> {
        match self {
            Self::Rtc(l) => l.profile(),
            _ => None,
        }
    }

    pub fn leave(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Tcp(l) => l.write(&l.words.teardown),
            Self::Udp(_) => Ok(()),
            Self::Rtc(l) => {
                l.leave();
                Ok(())
            }
        }
    }
}

/// Requests of an RTSP session, ready to be sent.
#[derive(Clone, Debug)]
pub struct Words {
    pub keep: String,
    pub teardown: String,
    pub every: Duration,
}

/// RTP in the RTSP connection (RFC 2326 §10.12).
pub struct Interleaved {
    stream: TcpStream,
    channel: u8,
    buffer: Vec<u8>,
    filled: usize,
    words: Words,
    keep_at: Instant,
}

impl Interleaved {
    /// `rest`: what was read behind the answer to PLAY.
    pub fn new(stream: TcpStream, channel: u8, rest: &[u8], words: Words) -> Self {
        let mut buffer = vec![0; TCP_BUFFER_BYTES.max(rest.len() * 2)];
        buffer[..rest.len()].copy_from_slice(rest);
        Self {
            stream,
            channel,
            filled: rest.len(),
            buffer,
            keep_at: Instant::now() + words.every,
            words,
        }
    }

    fn write(&self, text: &str) -> anyhow::Result<()> {
        match (&self.stream).write_all(text.as_bytes()) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
            done => Ok(done?),
        }
    }

    fn tick(&mut self, now: Instant) -> anyhow::Result<()> {
        if now >= self.keep_at {
            self.keep_at = now + self.words.every;
            self.write(&self.words.keep)?;
        }
        Ok(())
    }

    fn drain(&mut self, meter: &mut Meter) -> anyhow::Result<()> {
        loop {
            let used = cut(&self.buffer[..self.filled], self.channel, meter)?;
            self.buffer.copy_within(used..self.filled, 0);
            self.filled -= used;
            if self.filled == self.buffer.len() {
                bail!("the server sends something that never ends");
            }
            match (&self.stream).read(&mut self.buffer[self.filled..]) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(n) => self.filled += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Shows the whole packets in `data` to the meter; how many bytes they were. Answers to keep-alives are skipped.
fn cut(data: &[u8], channel: u8, meter: &mut Meter) -> anyhow::Result<usize> {
    let mut at = 0;
    loop {
        match &data[at..] {
            [b'$', on, l0, l1, rest @ ..] => {
                let length = usize::from(u16::from_be_bytes([*l0, *l1]));
                let Some(packet) = rest.get(..length) else {
                    return Ok(at);
                };
                if *on == channel
                    && let Some(header) = meter.packet(packet)
                    && meter.is_curious()
                {
                    meter.payload(header, &packet[header.payload..], now_ns());
                }
                at += 4 + length;
            }
            [b'$', ..] | [] => return Ok(at),
            text => {
                let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") else {
                    return Ok(at);
                };
                if !text.starts_with(b"RTSP/1.0 ") {
                    bail!("the server sent something else than interleaved data");
                }
                let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
                let body = head
                    .lines()
                    .find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok())
                    .unwrap_or(0);
                if text.len() < end + 4 + body {
                    return Ok(at);
                }
                at += end + 4 + body;
            }
        }
    }
}

/// RTP over UDP; the RTSP connection is kept by somebody else.
pub struct Datagrams {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    /// Where receiver reports go.
    reports_to: Option<SocketAddr>,
    report_at: Instant,
}

impl Datagrams {
    pub fn new(rtp: UdpSocket, rtcp: UdpSocket, reports_to: Option<SocketAddr>) -> Self {
        Self {
            rtp,
            rtcp,
            reports_to,
            report_at: Instant::now() + REPORT_EVERY,
        }
    }

    fn drain(&mut self, meter: &mut Meter, scratch: &mut [u8]) -> anyhow::Result<()> {
        loop {
            match self.rtp.recv(scratch) {
                Ok(n) => {
                    if let Some(header) = meter.packet(&scratch[..n])
                        && meter.is_curious()
                    {
                        meter.payload(header, &scratch[header.payload..n], now_ns());
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// An empty receiver report: a sign of life that some servers want. What they report is read and dropped.
    fn tick(&mut self, now: Instant) {
        if now < self.report_at {
            return;
        }
        self.report_at = now + REPORT_EVERY;
        let mut dropped = [0; 1500];
        while self.rtcp.recv(&mut dropped).is_ok() {}
        if let Some(to) = self.reports_to
            && self
                .rtcp
                .send_to(&[0x80, 201, 0, 1, 0, 0, 0, 1], to)
                .is_err()
        {
            self.reports_to = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_found_however_they_are_split() {
        let mut all = Vec::new();
        for seq in 0..3u8 {
            all.extend([b'$', 1, 0, 2, 9, 9]);
            all.extend([
                b'$',
                0,
                0,
                13,
                0x80,
                0x80 | 96,
                0,
                seq,
                0,
                0,
                0,
                seq,
                0,
                0,
                0,
                7,
                0x41,
            ]);
            all.extend(b"RTSP/1.0 200 OK\r\nCSeq: 9\r\nContent-Length: 2\r\n\r\n$$");
        }
        for first in 0..all.len() {
            let mut meter = Meter::new(Some(96), false);
            let used = cut(&all[..first], 0, &mut meter).unwrap();
            assert_eq!(cut(&all[used..], 0, &mut meter).unwrap(), all.len() - used);
            let tally = meter.take();
            assert_eq!(
                (tally.packets, tally.frames, tally.lost),
                (3, 3, 0),
                "{first}"
            );
        }
        assert!(cut(b"HTTP/1.1 200\r\n\r\n", 0, &mut Meter::default()).is_err());
    }
}
