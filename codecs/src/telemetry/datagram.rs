//! Telemetry in datagrams: which format one is of, by its first bytes, and what is kept of one source between them.
//!
//! Here: MAVLink, KLV, NMEA and our own JSON report, told apart; at most ten reports a second of one source. A further
//! format is one file, one arm of [`Format::of`] and one of [`Link::decode`]. Not here: sockets, and which source an
//! address is (gateway `listen/datagram`).

use super::{Codecs, Decoded, Fault, Speaker, klv, mavlink, nmea};

pub use super::mavlink::Key;

/// Largest datagram there is over UDP.
pub const BYTES_MAX: usize = 65_507;
/// Reports closer together than this are thinned, milliseconds.
const REPORTS_MS: i64 = 95;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Mavlink,
    Klv,
    Nmea,
    /// Our report, as over MQTT.
    Json,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::Mavlink => "mavlink",
            Self::Klv => "klv",
            Self::Nmea => "nmea",
            Self::Json => "json",
        }
    }

    /// By its first bytes; behind garbage by the first thing that is surely of a format. None: nothing we know.
    pub fn of(datagram: &[u8]) -> Option<Self> {
        match datagram.trim_ascii_start() {
            [0xfd | 0xfe, ..] => Some(Self::Mavlink),
            [0x06, 0x0e, 0x2b, 0x34, ..] => Some(Self::Klv),
            [b'$' | b'!', ..] => Some(Self::Nmea),
            [b'{' | b'[', ..] => Some(Self::Json),
            rest if rest.windows(16).any(|w| w == klv::KEY) => Some(Self::Klv),
            rest if rest.windows(6).any(is_sentence) => Some(Self::Nmea),
            rest if mavlink::has_frame(rest) => Some(Self::Mavlink),
            _ => None,
        }
    }
}

/// `$GPGGA`
fn is_sentence(start: &[u8]) -> bool {
    start[0] == b'$' && start[1..].iter().all(u8::is_ascii_uppercase)
}

/// What is kept of one source.
#[derive(Clone, Debug)]
pub struct Link {
    mavlink: mavlink::Link,
    nmea: nmea::Link,
    signed: bool,
    reported_ms: Option<i64>,
}

impl Link {
    /// `system`: the MAVLink system id it speaks as. `key`: it speaks MAVLink signed with this, and nothing else.
    pub fn new(system: u8, key: Option<Key>) -> Self {
        Self {
            signed: key.is_some(),
            mavlink: mavlink::Link::new(system, key),
            nmea: nmea::Link::default(),
            reported_ms: None,
        }
    }

    /// Takes one datagram. `arrived_ms`: wallclock of the gateway, ms since 1970 UTC. Never fails: what cannot be read is
    /// a [`Fault`]. Neither reports nor faults: a part of a report to come, or one too soon after the last.
    pub fn decode(
        &mut self,
        codecs: &Codecs,
        speaker: Speaker<'_>,
        datagram: &[u8],
        arrived_ms: i64,
    ) -> Decoded {
        let Some(format) = Format::of(datagram) else {
            return Decoded::refused(Fault::Garbage);
        };
        if self.signed && format != Format::Mavlink {
            return Decoded::refused(Fault::Unsigned);
        }
        let Speaker { device, datum, .. } = speaker;
        let mut decoded = match format {
            Format::Mavlink => self.mavlink.handle(device, datagram, arrived_ms),
            Format::Klv => self.thinned(klv::decode(device, datagram), arrived_ms),
            Format::Nmea => {
                let decoded = self.nmea.handle(device, datum, datagram, arrived_ms);
                self.thinned(decoded, arrived_ms)
            }
            Format::Json => {
                let topic = format!("kerbside/v1/{device}/report");
                return codecs.decode(speaker, &topic, datagram, arrived_ms);
            }
        };
        decoded.note_future_times(arrived_ms);
        decoded
    }

    /// KLV comes with every picture. Each report is complete, so one left out is nothing lost.
    fn thinned(&mut self, mut decoded: Decoded, arrived_ms: i64) -> Decoded {
        let is_soon = self
            .reported_ms
            .is_some_and(|at| (0..REPORTS_MS).contains(&arrived_ms.saturating_sub(at)));
        if is_soon {
            decoded.reports.clear();
        } else if !decoded.reports.is_empty() {
            self.reported_ms = Some(arrived_ms);
        }
        decoded
    }
}

#[cfg(test)]
mod tests {
    use super::super::Datum;
    use super::*;

    const POSITION: &[u8] = include_bytes!("../../fuzz/corpus/mavlink/position");
    const KLV: &[u8] = include_bytes!("../../fuzz/corpus/klv/dynamic_only");
    const GGA: &[u8] = b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47\r\n";
    const JSON: &[u8] = br#" {"position":{"lat":37.7,"lon":112.7}}"#;
    const NOW_MS: i64 = 1_795_219_200_000;

    fn decode(link: &mut Link, datagram: &[u8], at: i64) -> Decoded {
        let speaker = Speaker {
            device: "uav-1",
            datum: Datum::Wgs84,
            aircraft: None,
        };
        link.decode(&Codecs::default(), speaker, datagram, at)
    }

    #[test]
    fn first_bytes_tell_the_format() {
        let klv_later = [b"junk", KLV].concat();
        let gga_later = [b"\0\0", GGA].concat();
        let mavlink_later = [b"\0\0\0\0\x02\xd2\x3d\x90", POSITION].concat();
        for (datagram, format) in [
            (POSITION, Some(Format::Mavlink)),
            (KLV, Some(Format::Klv)),
            (GGA, Some(Format::Nmea)),
            (JSON, Some(Format::Json)),
            (&klv_later, Some(Format::Klv)),
            (&gga_later, Some(Format::Nmea)),
            (&mavlink_later, Some(Format::Mavlink)),
            (b"GET / HTTP/1.1\r\n\r\n", None),
            (b"", None),
        ] {
            assert_eq!(Format::of(datagram), format, "{datagram:?}");
        }
    }

    #[test]
    fn every_format_gives_a_position() {
        for datagram in [POSITION, KLV, GGA, JSON] {
            let d = decode(&mut Link::new(1, None), datagram, NOW_MS);
            assert_eq!((d.reports.len(), &d.faults[..]), (1, &[][..]));
            assert!(d.reports[0].fix.is_some() && d.reports[0].device == "uav-1");
        }
    }

    #[test]
    fn a_source_with_a_key_speaks_signed_mavlink_alone() {
        for datagram in [POSITION, KLV, GGA, JSON] {
            let d = decode(&mut Link::new(1, Some(Key([1; 32]))), datagram, NOW_MS);
            assert_eq!(d, Decoded::refused(Fault::Unsigned));
        }
    }

    #[test]
    fn a_report_of_every_picture_is_thinned() {
        let mut link = Link::new(1, None);
        let told = (0..30)
            .map(|n| decode(&mut link, KLV, NOW_MS + n * 33))
            .filter(|d| !d.reports.is_empty())
            .count();
        assert_eq!(told, 10);
    }

    #[test]
    fn a_time_from_the_future_is_counted() {
        let d = decode(&mut Link::new(1, None), KLV, 1_000_000_000_000);
        assert_eq!(d.reports[0].device_time_ms, None, "years are no clock's");
        assert_eq!(d.reports[0].faults, [Fault::FromFuture]);
    }
}
