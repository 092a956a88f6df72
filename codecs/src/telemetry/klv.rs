//! MISB ST 0601 (UAS datalink local set): where an aircraft is and where its camera looks, in KLV packets.
//!
//! Here: packets of one datagram, with whatever stands between them; BER lengths, BER-OID tags, the checksum, scales and
//! error values. A packet whose checksum is missing or wrong says nothing. Unknown tags are passed over. Positions are
//! WGS-84 whatever the registry says. Not here: MPEG-TS, other sets (ST 0102, ST 0903), which are passed over too.

use super::mavlink::direction;
use super::report::{Property, Sight, Value};
use super::{Datum, Decoded, Fault, Fix, Report};
use crate::geo;

/// Universal key of the local set.
pub const KEY: [u8; 16] = [
    0x06, 0x0e, 0x2b, 0x34, 0x02, 0x0b, 0x01, 0x01, 0x0e, 0x01, 0x03, 0x01, 0x01, 0x00, 0x00, 0x00,
];
/// Beginning of every SMPTE universal key.
const DESIGNATOR: &[u8] = &[0x06, 0x0e, 0x2b, 0x34];
/// Packets of one datagram.
const PACKETS_MAX: usize = 64;
/// Items of one packet.
const ITEMS_MAX: usize = 512;
const TEXT_MAX: usize = 127;

/// Takes the packets of one datagram: one report each.
pub fn decode(device: &str, datagram: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    let mut rest = datagram;
    let mut packets = 0;
    while !rest.is_empty() {
        let start = rest
            .windows(DESIGNATOR.len())
            .position(|w| w == DESIGNATOR)
            .unwrap_or(rest.len());
        if start > 0 {
            decoded.faults.push(Fault::Garbage);
            rest = &rest[start..];
            continue;
        }
        packets += 1;
        if packets > PACKETS_MAX {
            decoded.faults.push(Fault::TooLarge);
            break;
        }
        let Some((packet, value)) = split(rest) else {
            // Cut off, or a length that lies: the next key may be inside.
            decoded.faults.push(Fault::Garbage);
            rest = &rest[DESIGNATOR.len()..];
            let next = rest.windows(DESIGNATOR.len()).position(|w| w == DESIGNATOR);
            rest = &rest[next.unwrap_or(rest.len())..];
            continue;
        };
        if !packet.starts_with(&KEY) {
            rest = &rest[packet.len()..];
            continue;
        }
        match set(packet, value) {
            Ok(items) => {
                decoded.reports.push(report(device, &items));
                rest = &rest[packet.len()..];
            }
            Err(fault) => {
                decoded.faults.push(fault);
                // Its length may be what is wrong with it.
                rest = &rest[KEY.len()..];
                let next = rest.windows(DESIGNATOR.len()).position(|w| w == DESIGNATOR);
                rest = &rest[next.unwrap_or(rest.len())..];
            }
        }
    }
    decoded
}

/// The first packet, whole and its value alone. None: it is not all there.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, header) = length(data.get(KEY.len()..)?)?;
    let start = KEY.len() + header;
    let end = start.checked_add(size)?;
    Some((data.get(..end)?, &data[start..end]))
}

/// A BER length (ITU-T X.690 §8.1.3), short or long form, and how many bytes it takes. The indefinite form is not used.
fn length(data: &[u8]) -> Option<(usize, usize)> {
    match *data.first()? {
        short @ ..=0x7f => Some((usize::from(short), 1)),
        long => {
            let bytes = usize::from(long & 0x7f);
            let digits = data.get(1..=bytes).filter(|d| (1..=4).contains(&d.len()))?;
            let size = digits.iter().fold(0, |n, d| n << 8 | usize::from(*d));
            Some((size, 1 + bytes))
        }
    }
}

/// A BER-OID tag, 7 bits a byte, and how many bytes it takes.
fn tag(data: &[u8]) -> Option<(u32, usize)> {
    let mut tag = 0;
    for (at, byte) in data.iter().take(4).enumerate() {
        tag = tag << 7 | u32::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((tag, at + 1));
        }
    }
    None
}

/// 16-bit running sum over everything from the key through the length of the checksum's own item.
pub fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().enumerate().fold(0, |sum: u16, (i, b)| {
        sum.wrapping_add(u16::from(*b) << (8 * ((i + 1) % 2)))
    })
}

/// Values by their tags.
struct Items<'a>(Vec<(u32, &'a [u8])>);

/// `value`: the end of `packet`.
fn set<'a>(packet: &'a [u8], value: &'a [u8]) -> Result<Items<'a>, Fault> {
    let mut items = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let (tag, tag_size) = tag(rest).ok_or(Fault::BadField)?;
        let (size, length_size) = length(&rest[tag_size..]).ok_or(Fault::BadField)?;
        let start = tag_size + length_size;
        let item = rest
            .get(start..)
            .and_then(|r| r.get(..size))
            .ok_or(Fault::BadField)?;
        rest = &rest[start + size..];
        if tag == 1 {
            // The last one (ST 0601): what stands behind it would be unchecked.
            let &[high, low] = item else {
                return Err(Fault::BadChecksum);
            };
            let summed = &packet[..packet.len() - rest.len() - 2];
            let right = rest.is_empty() && checksum(summed) == u16::from_be_bytes([high, low]);
            return match right {
                true => Ok(Items(items)),
                false => Err(Fault::BadChecksum),
            };
        }
        if items.len() >= ITEMS_MAX {
            return Err(Fault::TooLarge);
        }
        items.push((tag, item));
    }
    Err(Fault::BadChecksum)
}

/// A value that is there: a number, or the word for "out of range".
#[derive(Clone, Copy, PartialEq)]
enum Told {
    Number(f64),
    Error,
}

impl Told {
    fn number(self) -> Option<f64> {
        match self {
            Self::Number(n) => Some(n),
            Self::Error => None,
        }
    }
}

impl Items<'_> {
    fn bytes(&self, tag: u32) -> Option<&[u8]> {
        self.0
            .iter()
            .rev()
            .find(|(t, _)| *t == tag)
            .map(|(_, v)| *v)
    }

    /// An unsigned value of exactly `bytes` bytes, from 0 to 1.
    fn part(&self, tag: u32, bytes: usize) -> Option<f64> {
        let value = self.bytes(tag).filter(|v| v.len() == bytes)?;
        let whole = value.iter().fold(0_u64, |n, b| n << 8 | u64::from(*b));
        let most = (1_u64 << (8 * bytes)) - 1;
        #[allow(clippy::cast_precision_loss, reason = "at most 32 bits")]
        Some(whole as f64 / most as f64)
    }

    fn between(&self, tag: u32, bytes: usize, min: f64, max: f64) -> Option<f64> {
        Some(min + self.part(tag, bytes)? * (max - min))
    }

    /// A signed value of exactly `bytes` bytes from −`max` to `max`; the least one means an error.
    fn signed(&self, tag: u32, bytes: usize, max: f64) -> Option<Told> {
        let (value, most) = match (bytes, self.bytes(tag)?) {
            (2, &[a, b]) => (i32::from(i16::from_be_bytes([a, b])), i32::from(i16::MAX)),
            (4, &[a, b, c, d]) => (i32::from_be_bytes([a, b, c, d]), i32::MAX),
            _ => return None,
        };
        if value == -most - 1 {
            return Some(Told::Error);
        }
        Some(Told::Number(f64::from(value) / f64::from(most) * max))
    }

    fn angle(&self, tag: u32, bytes: usize, max: f64) -> Option<f64> {
        self.signed(tag, bytes, max)?.number()
    }

    /// A place by two 4-byte tags, latitude and longitude. None: not told.
    fn place(&self, lat: u32, lon: u32) -> Option<Result<(f64, f64), Fault>> {
        let (lat, lon) = (self.signed(lat, 4, 90.0)?, self.signed(lon, 4, 180.0)?);
        Some(match (lat, lon) {
            (Told::Number(0.0), Told::Number(0.0)) | (Told::Error, _) | (_, Told::Error) => {
                Err(Fault::NoFix)
            }
            (Told::Number(lat), Told::Number(lon)) if geo::valid(lat, lon) => Ok((lat, lon)),
            _ => Err(Fault::OutsideWorld),
        })
    }

    fn text(&self, tag: u32) -> Option<String> {
        let text = std::str::from_utf8(self.bytes(tag)?).ok()?;
        let text: String = text
            .chars()
            .filter(|c| !c.is_control())
            .take(TEXT_MAX)
            .collect();
        Some(text).filter(|t| !t.is_empty())
    }
}

fn report(device: &str, items: &Items<'_>) -> Report {
    let mut faults = Vec::new();
    let fix = match items.place(13, 14) {
        None => None,
        Some(Ok((lat, lon))) => Some(fix(items, lat, lon)),
        Some(Err(fault)) => {
            faults.push(fault);
            None
        }
    };
    let mut properties = Vec::new();
    if let Some(fix) = &fix
        && fix.alt_m.is_some()
    {
        let reference = match items.bytes(75).is_some() {
            true => "ellipsoid",
            false => "msl",
        };
        properties.push(Property {
            name: "alt_reference".into(),
            value: Value::Text(reference.to_owned()),
        });
    }
    let device_time_ms = time_ms(items, &mut faults);
    Report {
        device: device.to_owned(),
        model: items.text(10),
        device_time_ms,
        fix,
        sight: sight(items).map(Box::new),
        properties,
        faults,
        ..Report::default()
    }
}

/// Tag 2, microseconds since 1970 UTC; 13 digits of milliseconds are 2001 to 2286.
fn time_ms(items: &Items<'_>, faults: &mut Vec<Fault>) -> Option<i64> {
    let bytes = items.bytes(2)?;
    let time = <[u8; 8]>::try_from(bytes)
        .ok()
        .and_then(|b| i64::try_from(u64::from_be_bytes(b) / 1000).ok())
        .filter(|t| (1_000_000_000_000..10_000_000_000_000).contains(t));
    if time.is_none() {
        faults.push(Fault::BadField);
    }
    time
}

/// Height above the ellipsoid (tag 75) if it is told, else the one above the sea (tag 15).
fn fix(items: &Items<'_>, lat: f64, lon: f64) -> Fix {
    let height = |tag| items.between(tag, 2, -900.0, 19_000.0);
    Fix {
        alt_m: height(75).or_else(|| height(15)),
        // One byte, whole metres a second.
        speed_mps: items.between(56, 1, 0.0, 255.0),
        heading_deg: items.between(5, 2, 0.0, 360.0).map(|h| h % 360.0),
        ..Fix::at(lat, lon, Datum::Wgs84)
    }
}

fn sight(items: &Items<'_>) -> Option<Sight> {
    let centre = items.place(23, 24).and_then(Result::ok);
    let axis = axis(items);
    let height = |tag| items.between(tag, 2, -900.0, 19_000.0);
    let over_ground = height(15)
        .zip(height(25))
        .map(|(sensor, ground)| sensor - ground)
        .filter(|h| *h > 0.0);
    let sight = Sight {
        azimuth_deg: axis.and_then(|(azimuth, _)| azimuth),
        elevation_deg: axis.map(|(_, elevation)| elevation),
        hfov_deg: items.between(16, 2, 0.0, 180.0).filter(|f| *f > 0.0),
        vfov_deg: items.between(17, 2, 0.0, 180.0).filter(|f| *f > 0.0),
        height_m: over_ground,
        centre,
        corners: corners(items, centre),
        slant_range_m: items.between(21, 4, 0.0, 5e6).filter(|r| *r > 0.0),
        target: items.place(40, 41).and_then(Result::ok),
    };
    (sight != Sight::default()).then_some(sight)
}

/// The camera's axis: its angles against the platform (18, 19) turned by the platform's (5; 90 and 91, or 6 and 7).
fn axis(items: &Items<'_>) -> Option<(Option<f64>, f64)> {
    let heading = items.between(5, 2, 0.0, 360.0)?.to_radians();
    let azimuth = items.between(18, 4, 0.0, 360.0)?.to_radians();
    let elevation = items.angle(19, 4, 180.0)?.to_radians();
    let short = |full: u32, short: u32, max: f64| {
        items
            .angle(full, 4, 90.0)
            .or_else(|| items.angle(short, 2, max))
            .unwrap_or(0.0)
            .to_radians()
    };
    let (pitch, roll) = (short(90, 6, 20.0), short(91, 7, 50.0));
    // Forward, right, down.
    let body = [
        elevation.cos() * azimuth.cos(),
        elevation.cos() * azimuth.sin(),
        -elevation.sin(),
    ];
    let [x, y, z] = body;
    let (y, z) = (
        y * roll.cos() - z * roll.sin(),
        y * roll.sin() + z * roll.cos(),
    );
    let (x, z) = (
        x * pitch.cos() + z * pitch.sin(),
        -x * pitch.sin() + z * pitch.cos(),
    );
    let (north, east) = (
        x * heading.cos() - y * heading.sin(),
        x * heading.sin() + y * heading.cos(),
    );
    Some(direction(north, east, z))
}

/// Full coordinates (82 to 89), or offsets from the frame centre (26 to 33). All four or none.
fn corners(items: &Items<'_>, centre: Option<(f64, f64)>) -> Vec<(f64, f64)> {
    let full: Option<Vec<_>> = (0..4)
        .map(|n| items.place(82 + 2 * n, 83 + 2 * n)?.ok())
        .collect();
    if let Some(full) = full {
        return full;
    }
    let Some((lat, lon)) = centre else {
        return Vec::new();
    };
    let by_offset = (0..4).map(|n| {
        let (north, east) = (
            items.angle(26 + 2 * n, 2, 0.075)?,
            items.angle(27 + 2 * n, 2, 0.075)?,
        );
        Some((lat + north, lon + east)).filter(|(lat, lon)| geo::valid(*lat, *lon))
    });
    by_offset.collect::<Option<Vec<_>>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The packet of klvdata's `DynamicOnlyMISMMSPacketData.bin`, 114 bytes, rebuilt from its values: the checksum that
    /// it stores, C850, is right for these bytes and this order only.
    const DYNAMIC: &[u8] = include_bytes!("../../fuzz/corpus/klv/dynamic_only");
    const NOTHING: [u8; 0] = [];

    /// A packet of these items, with its checksum.
    fn packet(items: &[(u8, &[u8])]) -> Vec<u8> {
        let mut value = Vec::new();
        for (tag, bytes) in items {
            value.push(*tag);
            value.push(u8::try_from(bytes.len()).unwrap());
            value.extend_from_slice(bytes);
        }
        value.extend([1, 2]);
        let size = u8::try_from(value.len() + 2).unwrap();
        let mut packet = [&KEY[..], &[0x81, size], &value].concat();
        packet.extend(checksum(&packet).to_be_bytes());
        packet
    }

    #[track_caller]
    fn near(a: Option<f64>, b: f64) {
        let a = a.expect("a number");
        assert!((a - b).abs() <= b.abs() * 1e-6 + 1e-7, "{a} is not {b}");
    }

    fn only(data: &[u8]) -> Report {
        let mut d = decode("uav-1", data);
        assert_eq!((d.reports.len(), d.faults), (1, Vec::new()));
        d.reports.remove(0)
    }

    #[test]
    fn checksums() {
        let bytes = [0x06, 0x0e, 0x2b, 0x34, 0x02, 0x00, 0x81, 0xbb];
        assert_eq!(checksum(&bytes), 0xb4fd);
        assert_eq!(DYNAMIC.len(), 114);
        assert_eq!(checksum(&DYNAMIC[..112]), 0xc850);
    }

    #[test]
    fn the_golden_packet() {
        let r = only(DYNAMIC);
        assert_eq!(r.device_time_ms, Some(1_231_798_102_000));
        let fix = r.fix.unwrap();
        near(Some(fix.lat), 60.176_822_966_978_3);
        near(Some(fix.lon), 128.426_759_042_044_52);
        near(fix.alt_m, 14_190.719_5);
        near(fix.heading_deg, 159.974_365);
        let s = r.sight.unwrap();
        near(s.hfov_deg, 144.571_3);
        near(s.vfov_deg, 152.643_63);
        near(s.slant_range_m, 68_590.983_3);
        let (lat, lon) = s.centre.unwrap();
        near(Some(lat), -10.542_388_633);
        near(Some(lon), 29.157_890_122_9);
        near(s.height_m, 14_190.719_5 - 3_216.037_2);
        assert!(s.azimuth_deg.is_some() && s.corners.is_empty());
        assert_eq!(r.properties[0].value, Value::Text("msl".to_owned()));
    }

    #[test]
    fn the_axis_turns_with_the_platform() {
        // A heading of 90°, the camera 90° to the right of the nose and 30° down; then banked 30° to the right, which
        // turns it 30° further down.
        let quarter = [0x40, 0, 0, 0];
        let down_30 = i32::MIN / 6;
        let down_30 = down_30.to_be_bytes();
        let level: [(u8, &[u8]); 3] = [(5, &[0x40, 0]), (18, &quarter), (19, &down_30)];
        let s = only(&packet(&level)).sight.unwrap();
        assert!((s.azimuth_deg.unwrap() - 180.0).abs() < 0.01, "{s:?}");
        assert!((s.elevation_deg.unwrap() + 30.0).abs() < 0.01, "{s:?}");
        let roll = (30.0_f64 / 50.0 * 32_767.0).round();
        #[allow(clippy::cast_possible_truncation, reason = "a test's angle")]
        let roll = (roll as i16).to_be_bytes();
        let banked = [&level[..], &[(7, &roll[..])]].concat();
        let s = only(&packet(&banked)).sight.unwrap();
        assert!((s.elevation_deg.unwrap() + 60.0).abs() < 0.01, "{s:?}");
        assert!((s.azimuth_deg.unwrap() - 180.0).abs() < 0.01, "{s:?}");
    }

    #[test]
    fn corners_are_offsets_from_the_centre() {
        let (lat, lon) = ([0x20, 0, 0, 0], [0x30, 0, 0, 0]);
        let (plus, minus) = (i16::MAX.to_be_bytes(), (-i16::MAX).to_be_bytes());
        let mut items: Vec<(u8, &[u8])> = vec![(23, &lat), (24, &lon)];
        for n in 0..4 {
            items.push((26 + 2 * n, if n < 2 { &plus } else { &minus }));
            items.push((27 + 2 * n, if n % 2 == 0 { &minus } else { &plus }));
        }
        let s = only(&packet(&items)).sight.unwrap();
        let (lat, lon) = s.centre.unwrap();
        assert_eq!(s.corners.len(), 4);
        near(Some(s.corners[0].0 - lat), 0.075);
        near(Some(s.corners[3].1 - lon), 0.075);
        // One that is out of range: no shape from the others.
        items[3].1 = &[0x80, 0];
        assert!(only(&packet(&items)).sight.unwrap().corners.is_empty());
    }

    #[test]
    fn error_values_and_zero_are_no_fix() {
        let error = [0x80, 0, 0, 0];
        let here = [0x20, 0, 0, 0];
        for (lat, lon) in [(error, here), (here, error), ([0; 4], [0; 4])] {
            let d = decode("uav-1", &packet(&[(13, &lat), (14, &lon)]));
            assert_eq!(d.reports[0].fix, None);
            assert_eq!(d.reports[0].faults, [Fault::NoFix]);
        }
    }

    #[test]
    fn a_wrong_or_missing_checksum_says_nothing() {
        for at in 0..DYNAMIC.len() {
            let mut bad = DYNAMIC.to_vec();
            bad[at] ^= 0x10;
            let d = decode("uav-1", &bad);
            assert!(
                d.reports.is_empty() && at.max(d.faults.len()) > 0,
                "byte {at}"
            );
        }
        let mut bad = DYNAMIC.to_vec();
        bad[112] = 0;
        assert_eq!(decode("uav-1", &bad).faults, [Fault::BadChecksum]);
        let without = [&KEY[..], &[4, 6, 2, 0, 0]].concat();
        assert_eq!(decode("uav-1", &without).faults, [Fault::BadChecksum]);
    }

    #[test]
    fn packets_between_garbage_and_other_sets() {
        let mut other = DYNAMIC.to_vec();
        other[4] = 0x01;
        let all = [
            b"xx",
            DYNAMIC,
            &other,
            DYNAMIC,
            &DYNAMIC[..50],
            DYNAMIC,
            b"yy",
        ]
        .concat();
        let d = decode("uav-1", &all);
        assert_eq!(d.reports.len(), 3, "{:?}", d.faults);
        assert!(d.faults.len() >= 3);
    }

    #[test]
    fn lengths_and_tags_of_several_bytes() {
        assert_eq!(length(&[0x7f]), Some((127, 1)));
        assert_eq!(length(&[0x82, 1, 2]), Some((258, 3)));
        assert_eq!(length(&[0x80]), None);
        assert_eq!(length(&[0x88, 0, 0, 0, 0, 0, 0, 0, 1]), None);
        assert_eq!(length(&NOTHING), None);
        assert_eq!(tag(&[0x81, 0x02]), Some((130, 2)));
        assert_eq!(tag(&[0x81]), None);
        // Tag 130 is unknown and passed over.
        let mut value = vec![0x81, 0x02, 1, 0xaa, 1, 2];
        let mut all = [&KEY[..], &[u8::try_from(value.len() + 2).unwrap()]].concat();
        all.append(&mut value);
        all.extend(checksum(&all).to_be_bytes());
        assert_eq!(only(&all).faults, []);
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(data in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..114) {
            let all = [&DYNAMIC[..cut], &data, &KEY, &data].concat();
            for r in decode("uav-1", &all).reports {
                prop_assert!(r.fix.is_none_or(|f| geo::valid(f.lat, f.lon)));
            }
        }

        #[test]
        fn any_items_are_harmless(items in prop::collection::vec((2u8..100, prop::collection::vec(any::<u8>(), 0..9)), 0..12)) {
            let items: Vec<_> = items.iter().map(|(t, v)| (*t, &v[..])).collect();
            for r in decode("uav-1", &packet(&items)).reports {
                prop_assert!(r.fix.is_none_or(|f| geo::valid(f.lat, f.lon) && f.heading_deg.is_none_or(|h| (0.0..360.0).contains(&h))));
                if let Some(s) = r.sight {
                    prop_assert!(s.centre.is_none_or(|(lat, lon)| geo::valid(lat, lon)));
                    prop_assert!(s.corners.iter().all(|(lat, lon)| geo::valid(*lat, *lon)));
                }
            }
        }
    }
}
