//! MAVLink frames in a datagram: v1 and v2, one after the other, with whatever stands between them.
//!
//! Here: boundaries, checksums, finding the next frame after garbage, the parts of a signature. Not here: keys
//! (`signing.rs`), what a message means (`mod.rs`). The checksum's seed of a message comes from the crate `mavlink`.

use mavlink::Message;
use mavlink::dialects::common::MavMessage;

const V1: u8 = 0xfe;
const V2: u8 = 0xfd;
/// incompat_flags: the frame ends with a signature.
const SIGNED: u8 = 1;
/// Frame starts with a wrong checksum that are tried in one datagram: each costs a checksum of up to 267 bytes.
const TRIES_MAX: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// One frame whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub version: Version,
    pub system: u8,
    pub component: u8,
    pub message: u32,
    /// v2: without the zeros at its end.
    pub payload: &'a [u8],
    pub signature: Option<Signature<'a>>,
}

/// The 13 bytes behind a signed frame (MAVLink 2 message signing).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature<'a> {
    pub link: u8,
    /// 10 µs since 2015-01-01 UTC.
    pub stamp: u64,
    /// First 48 bits of SHA-256 over the key, `signed`, link and time stamp.
    pub digest: &'a [u8],
    /// From the start of the frame to the end of its time stamp.
    pub signed: &'a [u8],
}

/// What stands in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Frame(Frame<'a>),
    /// A frame with another message or flags than we know: neither checked nor wrong.
    Unknown,
    /// A frame, or what looks like one, with a wrong checksum.
    BadChecksum,
    /// Bytes that are no frame; told once for each run of them.
    Garbage,
}

/// Goes through a datagram.
pub struct Frames<'a> {
    rest: &'a [u8],
    /// Within bytes that are no frame.
    lost: bool,
    tries: u32,
}

impl<'a> Frames<'a> {
    pub fn new(datagram: &'a [u8]) -> Self {
        Self {
            rest: datagram,
            lost: false,
            tries: 0,
        }
    }

    fn skip(&mut self, n: usize) {
        self.rest = self.rest.get(n..).unwrap_or_default();
    }

    /// Goes on to what may be the next frame.
    fn resync(&mut self) {
        self.skip(1);
        let next = self.rest.iter().position(|b| matches!(*b, V1 | V2));
        self.skip(next.unwrap_or(self.rest.len()));
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let was_lost = self.lost;
            let seen = parse(self.rest);
            match seen {
                Seen::Frame(frame, size) => {
                    self.skip(size);
                    self.lost = false;
                    return Some(Found::Frame(frame));
                }
                // Its length is all we know of it: believed where a frame follows, or nothing.
                Seen::Unknown(size)
                    if matches!(self.rest.get(size), None | Some(&(V1 | V2))) && !was_lost =>
                {
                    self.skip(size);
                    return Some(Found::Unknown);
                }
                Seen::BadChecksum => {
                    self.tries += 1;
                    if self.tries > TRIES_MAX {
                        self.rest = &[];
                        return Some(Found::Garbage);
                    }
                }
                Seen::Unknown(_) | Seen::Nothing => {}
            }
            self.resync();
            self.lost = true;
            if !was_lost {
                return Some(match seen {
                    Seen::BadChecksum => Found::BadChecksum,
                    _ => Found::Garbage,
                });
            }
        }
    }
}

enum Seen<'a> {
    Frame(Frame<'a>, usize),
    /// Whole, of this size, and not ours to check.
    Unknown(usize),
    BadChecksum,
    Nothing,
}

fn parse(data: &[u8]) -> Seen<'_> {
    match data {
        &[V1, size, _, system, component, message, ..] => {
            let size = 6 + usize::from(size);
            let Some(whole) = data.get(..size + 2) else {
                return Seen::Nothing;
            };
            let frame = Frame {
                version: Version::V1,
                system,
                component,
                message: u32::from(message),
                payload: &whole[6..size],
                signature: None,
            };
            check(frame, whole, size)
        }
        &[
            V2,
            size,
            incompat,
            _,
            _,
            system,
            component,
            low,
            mid,
            high,
            ..,
        ] => {
            let size = 10 + usize::from(size);
            let signature_size = if incompat & SIGNED == 0 { 0 } else { 13 };
            let Some(whole) = data.get(..size + 2 + signature_size) else {
                return Seen::Nothing;
            };
            if incompat & !SIGNED != 0 {
                // To be dropped (serialization guide); what comes where is only known to who knows the flag.
                return Seen::Unknown(whole.len());
            }
            let frame = Frame {
                version: Version::V2,
                system,
                component,
                message: u32::from_le_bytes([low, mid, high, 0]),
                payload: &whole[10..size],
                signature: signature(whole, size + 2),
            };
            check(frame, whole, size)
        }
        _ => Seen::Nothing,
    }
}

fn signature(whole: &[u8], at: usize) -> Option<Signature<'_>> {
    let &[link, t0, t1, t2, t3, t4, t5, ..] = whole.get(at..at + 13)? else {
        return None;
    };
    Some(Signature {
        link,
        stamp: u64::from_le_bytes([t0, t1, t2, t3, t4, t5, 0, 0]),
        digest: &whole[at + 7..at + 13],
        signed: &whole[..at + 7],
    })
}

/// `end`: where the checksum stands.
fn check<'a>(frame: Frame<'a>, whole: &'a [u8], end: usize) -> Seen<'a> {
    // 0 for messages outside the common dialect.
    let seed = MavMessage::extra_crc(frame.message);
    if seed == 0 {
        return Seen::Unknown(whole.len());
    }
    let told = u16::from_le_bytes([whole[end], whole[end + 1]]);
    if checksum(&whole[1..end], seed) == told {
        Seen::Frame(frame, whole.len())
    } else {
        Seen::BadChecksum
    }
}

/// CRC-16/MCRF4XX over everything behind the start byte and the message's seed.
pub fn checksum(bytes: &[u8], seed: u8) -> u16 {
    bytes.iter().chain([&seed]).fold(0xffff, |crc, byte| {
        let low = byte ^ crc.to_le_bytes()[0];
        let x = u16::from(low ^ (low << 4));
        (crc >> 8) ^ (x << 8) ^ (x << 3) ^ (x >> 4)
    })
}

/// Where a frame with a right checksum starts that comes first in these bytes.
pub fn has_frame(data: &[u8]) -> bool {
    Frames::new(data).any(|found| matches!(found, Found::Frame(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digit = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digit).collect()
    }

    const HEARTBEAT: &str = "fd09000000010100000000000000020c5104031b74";
    const SIGNED: &str = "fd09010000010100000000000000020c510403fc8c0700e876481700bf32b4654b9b";

    fn found(data: &[u8]) -> Vec<Option<u32>> {
        let told = |f| match f {
            Found::Frame(f) => Some(f.message),
            _ => None,
        };
        Frames::new(data).map(told).collect()
    }

    #[test]
    fn the_checksum_is_that_of_the_catalogue() {
        // CRC-16/MCRF4XX of "123456789" is 0x6F91; the seed is its last byte here.
        assert_eq!(checksum(b"12345678", b'9'), 0x6f91);
    }

    #[test]
    fn frames_one_after_the_other_and_between_garbage() {
        let beat = hex(HEARTBEAT);
        assert_eq!(
            found(&[beat.clone(), hex(SIGNED)].concat()),
            [Some(0), Some(0)]
        );
        let junk = [0xfd, 0xfe, 1, 2, 0xfd];
        assert_eq!(
            found(&[&junk[..], &beat, &junk, &beat, &junk].concat()),
            [None, Some(0), None, Some(0), None],
            "told once for each run of garbage"
        );
    }

    #[test]
    fn a_wrong_byte_anywhere_is_found() {
        let beat = hex(HEARTBEAT);
        for at in 1..beat.len() {
            let mut bad = beat.clone();
            bad[at] ^= 0x40;
            assert!(!has_frame(&bad), "byte {at}");
        }
        let mut bad = beat.clone();
        bad[12] ^= 1;
        let all: Vec<_> = Frames::new(&bad).collect();
        assert_eq!(all, [Found::BadChecksum]);
    }

    #[test]
    fn version_1_has_its_own_header() {
        let mut frame = hex("fe09000101000000000002035104033fac");
        frame.truncate(15);
        let crc = checksum(&frame[1..], 50).to_le_bytes();
        frame.extend(crc);
        assert_eq!(found(&frame), [Some(0)]);
    }

    #[test]
    fn messages_we_do_not_know_are_stepped_over() {
        // Message 11030 is of another dialect.
        let other = hex("fd02000000010116 2b00aabbccdd".replace(' ', "").as_str());
        let all = [other.clone(), hex(HEARTBEAT), other].concat();
        assert_eq!(found(&all), [None, Some(0), None]);
        assert!(Frames::new(&all).all(|f| f != Found::Garbage));
    }

    #[test]
    fn many_false_starts_are_given_up() {
        let worst = [[0xfd, 0xff, 0, 0, 0, 1, 1, 0, 0, 0]; 6000].concat();
        let started = Frames::new(&worst);
        assert!(started.count() <= 3);
    }
}
