//! Whose is a datagram: by where it comes from, and for MAVLink by the system that speaks. Pure.

use std::net::SocketAddr;
use std::time::Instant;

use kerbside_codecs::telemetry::datagram::Format;
use kerbside_codecs::telemetry::mavlink;

use crate::config::Source;

/// Datagrams a second that are taken of one source, and as many at once.
const EACH_SECOND_MAX: f64 = 500.0;

/// The sources of one port.
pub struct Roster {
    sources: Vec<(Source, Pace)>,
}

#[derive(Debug, PartialEq)]
pub enum Whose {
    /// Of these, by index; false: more than it may send.
    Of(Vec<(usize, bool)>),
    /// Of none, and why.
    Nobodys(&'static str),
}

impl Roster {
    pub fn new(sources: Vec<Source>) -> Self {
        Self {
            sources: sources.into_iter().map(|s| (s, Pace::default())).collect(),
        }
    }

    pub fn whose(
        &mut self,
        datagram: &[u8],
        format: Option<Format>,
        from: SocketAddr,
        now: Instant,
    ) -> Whose {
        let ip = from.ip().to_canonical();
        let from_here = |s: &Source| {
            s.address.is_none_or(|a| a == ip) && s.from_port.is_none_or(|p| p == from.port())
        };
        let candidates: Vec<usize> = (0..self.sources.len())
            .filter(|at| from_here(&self.sources[*at].0))
            .collect();
        if candidates.is_empty() {
            return Whose::Nobodys("unknown_source");
        }
        let by_address = |at: &usize| self.sources[*at].0.address.is_some();
        let known: Vec<usize> = candidates.iter().copied().filter(by_address).collect();
        let of = match format {
            // The only one at its address hears of everything that is wrong with what comes from there.
            _ if candidates.len() == 1 && known.len() == 1 => known,
            Some(Format::Mavlink) => {
                let speaks = |at: &usize| mavlink::speaks(datagram, self.sources[*at].0.sysid);
                candidates.into_iter().filter(speaks).collect()
            }
            // No system id tells several apart: the first one in the file.
            _ => known.into_iter().take(1).collect(),
        };
        if of.is_empty() {
            return Whose::Nobodys("unknown_system");
        }
        let paced = of
            .into_iter()
            .map(|at| (at, self.sources[at].1.may(now)))
            .collect();
        Whose::Of(paced)
    }
}

/// How many more a source may send.
#[derive(Default)]
struct Pace {
    left: f64,
    since: Option<Instant>,
}

impl Pace {
    fn may(&mut self, now: Instant) -> bool {
        let gone = self
            .since
            .map_or(1.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.since = Some(now);
        self.left = (self.left + gone * EACH_SECOND_MAX).min(EACH_SECOND_MAX);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::SigningKey;
    use crate::ids::DeviceId;

    const SYSTEM_1: &[u8] = include_bytes!("../../../../codecs/fuzz/corpus/mavlink/position");
    const GGA: &[u8] = b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47\r\n";

    fn source(address: Option<&str>, from_port: Option<u16>, sysid: u8, key: bool) -> Source {
        Source {
            device: DeviceId::parse("uav-1").unwrap(),
            address: address.map(|a| a.parse().unwrap()),
            from_port,
            listen: None,
            sysid,
            key: key.then_some(SigningKey([1; 32])),
            silence: Duration::from_secs(10),
        }
    }

    fn of(sources: &[Source], datagram: &[u8], from: &str) -> Result<Vec<usize>, &'static str> {
        let mut roster = Roster::new(sources.to_vec());
        match roster.whose(
            datagram,
            Format::of(datagram),
            from.parse().unwrap(),
            Instant::now(),
        ) {
            Whose::Of(all) => Ok(all.into_iter().map(|(at, _)| at).collect()),
            Whose::Nobodys(reason) => Err(reason),
        }
    }

    #[test]
    fn an_address_tells_the_source() {
        let here = Some("192.0.2.1");
        let one = [source(here, None, 1, false)];
        assert_eq!(of(&one, SYSTEM_1, "192.0.2.1:9"), Ok(vec![0]));
        assert_eq!(of(&one, GGA, "[::ffff:192.0.2.1]:9"), Ok(vec![0]));
        assert_eq!(of(&one, b"junk", "192.0.2.1:9"), Ok(vec![0]));
        assert_eq!(of(&one, SYSTEM_1, "192.0.2.2:9"), Err("unknown_source"));
        let by_port = [
            source(here, Some(1), 1, false),
            source(here, Some(2), 1, false),
        ];
        assert_eq!(of(&by_port, GGA, "192.0.2.1:2"), Ok(vec![1]));
        assert_eq!(of(&by_port, GGA, "192.0.2.1:3"), Err("unknown_source"));
    }

    #[test]
    fn systems_behind_one_address_are_told_apart() {
        let here = Some("192.0.2.1");
        let two = [source(here, None, 2, false), source(here, None, 1, false)];
        assert_eq!(of(&two, SYSTEM_1, "192.0.2.1:9"), Ok(vec![1]));
        assert_eq!(of(&two, GGA, "192.0.2.1:9"), Ok(vec![0]), "the first");
        let none = [source(here, None, 2, false), source(here, None, 3, false)];
        assert_eq!(of(&none, SYSTEM_1, "192.0.2.1:9"), Err("unknown_system"));
    }

    #[test]
    fn a_key_may_come_from_anywhere_and_bring_mavlink_alone() {
        let keyed = [source(None, None, 1, true)];
        assert_eq!(of(&keyed, SYSTEM_1, "203.0.113.9:9"), Ok(vec![0]));
        assert_eq!(of(&keyed, GGA, "203.0.113.9:9"), Err("unknown_system"));
        assert_eq!(of(&keyed, b"junk", "203.0.113.9:9"), Err("unknown_system"));
    }

    #[test]
    fn a_source_has_its_share_and_no_more() {
        let mut roster = Roster::new(vec![source(Some("192.0.2.1"), None, 1, false)]);
        let now = Instant::now();
        let from = "192.0.2.1:9".parse().unwrap();
        let mut taken = |at| {
            (0..2000)
                .filter(|_| {
                    roster.whose(SYSTEM_1, Some(Format::Mavlink), from, at)
                        == Whose::Of(vec![(0, true)])
                })
                .count()
        };
        assert_eq!(taken(now), 500);
        assert_eq!(taken(now + Duration::from_millis(100)), 50);
        assert_eq!(taken(now + Duration::from_secs(60)), 500);
    }
}
