//! RTCP (RFC 3550 §6): sender and receiver reports, as much of them as RTSP needs.

use std::time::{Duration, Instant};

use super::packet::Header;
use super::time::ExtendSeq;

const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const BYE: u8 = 203;

/// What we act on in a compound packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Sender report: `ntp` is 64-bit NTP time, `time` the same moment in media time.
    Sender { ssrc: u32, ntp: u64, time: u32 },
    /// The source ends.
    Bye { ssrc: u32 },
}

/// The reports in a compound packet; stops at the first thing that is not RTCP.
pub fn parse(mut packet: &[u8]) -> impl Iterator<Item = Report> {
    std::iter::from_fn(move || {
        loop {
            let [first, kind, len @ ..] = *packet.first_chunk::<4>()?;
            let size = usize::from(u16::from_be_bytes(len)) * 4 + 4;
            if first >> 6 != 2 || size > packet.len() {
                return None;
            }
            let (this, rest) = packet.split_at(size);
            packet = rest;
            let word = |i: usize| -> Option<u32> {
                Some(u32::from_be_bytes(*this.get(i..)?.first_chunk()?))
            };
            let report = match kind {
                SR => word(4).zip(word(8)).zip(word(12).zip(word(16))).map(
                    |((ssrc, high), (low, time))| Report::Sender {
                        ssrc,
                        ntp: u64::from(high) << 32 | u64::from(low),
                        time,
                    },
                ),
                BYE if first & 0x1f > 0 => word(4).map(|ssrc| Report::Bye { ssrc }),
                _ => None,
            };
            if report.is_some() {
                return report;
            }
        }
    })
}

/// Seconds from 1900 to 1970.
const FROM_1900: u64 = 2_208_988_800;

/// 64-bit NTP time (RFC 5905 §6) of a moment since 1970.
pub fn ntp(since_1970: Duration) -> u64 {
    let seconds = since_1970.as_secs().wrapping_add(FROM_1900) & 0xffff_ffff;
    (seconds << 32) | ((u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000)
}

/// 64-bit NTP time of a moment in microseconds since 1970 UTC; moments before 1970 count as 1970.
pub fn ntp_of(utc_us: i64) -> u64 {
    ntp(Duration::from_micros(u64::try_from(utc_us).unwrap_or(0)))
}

/// Microseconds since 1970 UTC of a 64-bit NTP time, between 1968 and 2104 (RFC 4330 §3: a time whose first bit is 0
/// is of the era that begins in 2036). Rounded, so that [`ntp_of`] reads back.
pub fn utc_us_of(ntp: u64) -> i64 {
    let (seconds, fraction) = (ntp >> 32, ntp & 0xffff_ffff);
    let era = if seconds >> 31 == 0 { 1 << 32 } else { 0 };
    let us = (fraction * 1_000_000 + (1 << 31)) >> 32;
    (seconds + era).cast_signed() * 1_000_000 - FROM_1900.cast_signed() * 1_000_000
        + us.cast_signed()
}

/// A sender report with CNAME.
pub fn sender_report(ssrc: u32, ntp: u64, time: u32, packets: u32, bytes: u32) -> Vec<u8> {
    let mut p = vec![0x80, SR, 0, 6];
    p.extend(ssrc.to_be_bytes());
    p.extend(ntp.to_be_bytes());
    p.extend(time.to_be_bytes());
    p.extend(packets.to_be_bytes());
    p.extend(bytes.to_be_bytes());
    put_cname(&mut p, ssrc);
    p
}

/// The source ends.
pub fn bye(ssrc: u32) -> Vec<u8> {
    // An empty receiver report first: a compound packet begins with a report (RFC 3550 §6.1).
    let mut p = vec![0x80, RR, 0, 1];
    p.extend(ssrc.to_be_bytes());
    p.extend([0x81, BYE, 0, 1]);
    p.extend(ssrc.to_be_bytes());
    p
}

fn put_cname(p: &mut Vec<u8>, ssrc: u32) {
    const CNAME: &[u8; 8] = b"kerbside";
    // Header, SSRC, item (type, length, text), end and padding: 4 words behind the header word.
    p.extend([0x81, SDES, 0, 4]);
    p.extend(ssrc.to_be_bytes());
    p.extend([1, 8]);
    p.extend(CNAME);
    p.extend([0, 0]);
}

/// How unevenly packets come (RFC 3550 A.8).
#[derive(Clone, Copy, Debug)]
pub struct Jitter {
    clock_rate: u32,
    transit: Option<(Instant, u32)>,
    /// In 1/16 ticks.
    jitter: u32,
}

impl Jitter {
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate: clock_rate.max(1),
            transit: None,
            jitter: 0,
        }
    }

    /// Takes a packet's media time and arrival.
    pub fn packet(&mut self, time: u32, arrived: Instant) {
        if let Some((last_arrived, last_time)) = self.transit {
            let passed = arrived.saturating_duration_since(last_arrived).as_micros();
            let passed = passed * u128::from(self.clock_rate) / 1_000_000;
            let sent = i64::from(time.wrapping_sub(last_time).cast_signed());
            let d = i64::try_from(passed).unwrap_or(i64::MAX).abs_diff(sent);
            let d = u32::try_from(d).unwrap_or(u32::MAX).min(1 << 24);
            self.jitter = self.jitter.saturating_add(d) - ((self.jitter + 8) >> 4).min(self.jitter);
        }
        self.transit = Some((arrived, time));
    }

    /// In ticks of the medium's clock.
    pub fn ticks(&self) -> u32 {
        self.jitter >> 4
    }

    /// In milliseconds.
    pub fn ms(&self) -> f64 {
        f64::from(self.ticks()) * 1000.0 / f64::from(self.clock_rate)
    }
}

/// What a receiver knows of one source (RFC 3550 §6.4.1, A.3, A.8).
#[derive(Debug)]
pub struct Reception {
    clock_rate: u32,
    source: Option<u32>,
    seq: ExtendSeq,
    first: u64,
    highest: u64,
    received: u64,
    /// Expected and received at the last report.
    reported: (u64, u64),
    jitter: Jitter,
    sender_report: Option<(u64, Instant)>,
}

impl Reception {
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate: clock_rate.max(1),
            source: None,
            seq: ExtendSeq::default(),
            first: 0,
            highest: 0,
            received: 0,
            reported: (0, 0),
            jitter: Jitter::new(clock_rate),
            sender_report: None,
        }
    }

    pub fn packet(&mut self, h: &Header, arrived: Instant) {
        if self.source != Some(h.ssrc) {
            *self = Self::new(self.clock_rate);
            self.source = Some(h.ssrc);
        }
        let seq = self.seq.extend(h.seq);
        if self.received == 0 {
            self.first = seq;
        }
        self.highest = self.highest.max(seq);
        self.received += 1;
        self.jitter.packet(h.time, arrived);
    }

    pub fn report(&mut self, r: Report, now: Instant) {
        if let Report::Sender { ssrc, ntp, .. } = r
            && self.source == Some(ssrc)
        {
            self.sender_report = Some((ntp, now));
        }
    }

    /// A receiver report about the source, once there is one.
    pub fn receiver_report(&mut self, own_ssrc: u32, now: Instant) -> Option<Vec<u8>> {
        let source = self.source?;
        let expected = self.highest - self.first + 1;
        let lost = expected.saturating_sub(self.received);
        let expected_now = expected.saturating_sub(self.reported.0);
        let received_now = self.received - self.reported.1;
        self.reported = (expected, self.received);
        let lost_now = expected_now.saturating_sub(received_now);
        let fraction = (lost_now * 256).checked_div(expected_now).unwrap_or(0);
        let (last_sr, delay) = self.sender_report.map_or((0, 0), |(ntp, at)| {
            let delay = now.saturating_duration_since(at).as_micros() * 65_536 / 1_000_000;
            (
                (ntp >> 16) & 0xffff_ffff,
                u32::try_from(delay).unwrap_or(u32::MAX),
            )
        });
        let mut p = vec![0x81, RR, 0, 7];
        p.extend(own_ssrc.to_be_bytes());
        p.extend(source.to_be_bytes());
        let lost = lost.min(0x7f_ffff) | fraction.min(255) << 24;
        p.extend(u32::try_from(lost).unwrap_or(u32::MAX).to_be_bytes());
        p.extend(
            u32::try_from(self.highest & 0xffff_ffff)
                .unwrap_or(0)
                .to_be_bytes(),
        );
        p.extend(self.jitter.ticks().to_be_bytes());
        p.extend(u32::try_from(last_sr).unwrap_or(0).to_be_bytes());
        p.extend(delay.to_be_bytes());
        put_cname(&mut p, own_ssrc);
        Some(p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn our_sender_report_reads_back() {
        let ntp = ntp(Duration::from_millis(1_500));
        let p = sender_report(9, ntp, 77, 3, 4000);
        assert_eq!(p.len() % 4, 0);
        assert_eq!(
            parse(&p).collect::<Vec<_>>(),
            [Report::Sender {
                ssrc: 9,
                ntp,
                time: 77
            }]
        );
        assert_eq!(ntp & 0xffff_ffff, 1 << 31);
        assert_eq!(
            parse(&bye(9)).collect::<Vec<_>>(),
            [Report::Bye { ssrc: 9 }]
        );
    }

    #[test]
    fn ntp_times_read_back_over_the_end_of_their_era() {
        for utc_us in [0, 1, 999_999, 1_795_219_200_123_456, 2_100_000_000_000_001] {
            assert_eq!(utc_us_of(ntp_of(utc_us)), utc_us);
        }
        assert_eq!(ntp_of(-5), ntp_of(0));
        assert_eq!(ntp_of(0) >> 32, FROM_1900);
    }

    #[test]
    fn jitter_is_of_the_time_between_packets() {
        let t = Instant::now();
        let mut j = Jitter::new(90_000);
        for i in 0..1000_u32 {
            let late = Duration::from_millis(if i % 2 == 0 { 0 } else { 8 });
            j.packet(i * 3600, t + Duration::from_millis(40) * i + late);
        }
        assert!((j.ms() - 8.0).abs() < 0.2, "{}", j.ms());
    }

    #[test]
    fn receiver_reports_count_losses() {
        let t = Instant::now();
        let mut r = Reception::new(90_000);
        assert_eq!(r.receiver_report(1, t), None);
        for seq in [10, 11, 13] {
            r.packet(
                &Header {
                    marker: false,
                    payload_type: 96,
                    seq,
                    time: 0,
                    ssrc: 5,
                },
                t,
            );
        }
        let p = r.receiver_report(1, t).unwrap();
        assert_eq!(p.len() % 4, 0);
        assert_eq!(p[8..12], 5_u32.to_be_bytes());
        assert_eq!(p[12..16], [64, 0, 0, 1], "a quarter lost, one in total");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            prop_assert!(parse(&bytes).count() <= bytes.len() / 4);
        }
    }
}
