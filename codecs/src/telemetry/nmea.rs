//! NMEA 0183: GGA and RMC of any talker, joined into one report an epoch.
//!
//! Here: sentences of one datagram with whatever stands between them, the XOR check, the date that GGA lacks. Other
//! sentences (satellites, AIS, makers' own) are passed over. Not here: serial lines.

use time::{Date, Month, PrimitiveDateTime, Time};

use super::{Datum, Decoded, Fault, Fix, Report};
use crate::geo;

/// Sentences of one datagram.
const SENTENCES_MAX: usize = 64;
/// The standard has 82; receivers with more digits send more.
const SENTENCE_BYTES_MAX: usize = 128;
/// A kind of sentence that was not heard for so long is not waited for, milliseconds.
const HEARD_MS: i64 = 5_000;
const KNOT_MPS: f64 = 1852.0 / 3600.0;
const DAY_MS: i64 = 86_400_000;
/// GPS counts 1,024 weeks; old receivers then say a date so much too early.
const ROLL_OVER_MS: i64 = 1024 * 7 * DAY_MS;
/// Below this speed the course is noise, m/s.
const COURSE_SPEED_MIN: f64 = 0.2;

/// One receiver: what belongs together, and the date.
#[derive(Clone, Debug, Default)]
pub struct Link {
    epoch: Option<Epoch>,
    gga_heard_ms: Option<i64>,
    rmc_heard_ms: Option<i64>,
    /// The moment that RMC said last, unix ms, with its arrival.
    clock: Option<(i64, i64)>,
}

/// Sentences of one moment.
#[derive(Clone, Debug)]
struct Epoch {
    datum: Datum,
    /// Of the day, milliseconds.
    time_ms: i64,
    /// Of the day that its RMC says, unix ms.
    midnight_ms: Option<i64>,
    gga: Option<Gga>,
    rmc: Option<Rmc>,
    told: bool,
}

#[derive(Clone, Copy, Debug)]
struct Gga {
    place: Result<(f64, f64), Fault>,
    alt_m: Option<f64>,
    accuracy_m: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Rmc {
    place: Result<(f64, f64), Fault>,
    speed_mps: Option<f64>,
    course_deg: Option<f64>,
}

enum Sentence {
    Gga(i64, Gga),
    Rmc(i64, Option<Date>, Rmc),
    Other,
}

impl Link {
    /// Takes the sentences of one datagram. `datum`: what the receiver's map is, as registered. `arrived_ms`: wallclock
    /// of the gateway, ms since 1970 UTC. A receiver that sends both sentences has one report for the two.
    pub fn handle(
        &mut self,
        device: &str,
        datum: Datum,
        datagram: &[u8],
        arrived_ms: i64,
    ) -> Decoded {
        let mut decoded = Decoded::default();
        for (n, found) in sentences(datagram).enumerate() {
            if n >= SENTENCES_MAX {
                decoded.faults.push(Fault::TooLarge);
                break;
            }
            let parsed = found.and_then(|text| sentence(text, datum));
            let told = match parsed {
                Ok(Sentence::Other) => continue,
                Ok(Sentence::Gga(time_ms, gga)) => {
                    self.gga_heard_ms = Some(arrived_ms);
                    let before = self.turn(device, time_ms, arrived_ms);
                    decoded.reports.extend(before);
                    self.at(time_ms, datum).gga = Some(gga);
                    self.tell(device, arrived_ms, false)
                }
                Ok(Sentence::Rmc(time_ms, date, rmc)) => {
                    self.rmc_heard_ms = Some(arrived_ms);
                    let before = self.turn(device, time_ms, arrived_ms);
                    decoded.reports.extend(before);
                    let midnight_ms = date.map(|d| unrolled(midnight_ms(d), arrived_ms));
                    if let Some(midnight) = midnight_ms {
                        self.clock = Some((midnight + time_ms, arrived_ms));
                    }
                    let epoch = self.at(time_ms, datum);
                    epoch.rmc = Some(rmc);
                    epoch.midnight_ms = midnight_ms;
                    self.tell(device, arrived_ms, false)
                }
                Err(fault) => {
                    decoded.faults.push(fault);
                    None
                }
            };
            decoded.reports.extend(told);
        }
        decoded
    }

    fn at(&mut self, time_ms: i64, datum: Datum) -> &mut Epoch {
        self.epoch.get_or_insert(Epoch {
            datum,
            time_ms,
            midnight_ms: None,
            gga: None,
            rmc: None,
            told: false,
        })
    }

    /// Another moment begins: what was not told of the last one is told now.
    fn turn(&mut self, device: &str, time_ms: i64, arrived_ms: i64) -> Option<Report> {
        if self.epoch.as_ref().is_none_or(|e| e.time_ms == time_ms) {
            return None;
        }
        let last = self.tell(device, arrived_ms, true);
        self.epoch = None;
        last
    }

    /// The report of this moment, once all that is expected is there, or `anyway`.
    fn tell(&mut self, device: &str, arrived_ms: i64, anyway: bool) -> Option<Report> {
        let expected = |heard: Option<i64>| {
            heard.is_some_and(|at| (0..HEARD_MS).contains(&arrived_ms.saturating_sub(at)))
        };
        let (gga, rmc) = (expected(self.gga_heard_ms), expected(self.rmc_heard_ms));
        let epoch = self.epoch.as_mut()?;
        let whole = (epoch.gga.is_some() || !gga) && (epoch.rmc.is_some() || !rmc);
        if epoch.told || !(whole || anyway) {
            return None;
        }
        epoch.told = true;
        let epoch = epoch.clone();
        let mut report = epoch.report(device);
        report.device_time_ms = Some(match epoch.midnight_ms {
            Some(midnight) => midnight + epoch.time_ms,
            None => self.moment(epoch.time_ms, arrived_ms),
        });
        Some(report)
    }

    /// A time of day on the day that puts it nearest to what the receiver's clock says now, or to the arrival.
    fn moment(&self, time_ms: i64, arrived_ms: i64) -> i64 {
        let near = match self.clock {
            Some((said_ms, heard_ms)) => {
                said_ms.saturating_add(arrived_ms.saturating_sub(heard_ms))
            }
            None => arrived_ms,
        };
        nearest(time_ms, near)
    }
}

impl Epoch {
    fn report(&self, device: &str) -> Report {
        // GGA knows how good the position is; a receiver that has none says so in both.
        let place = match (&self.gga, &self.rmc) {
            (Some(g), _) => g.place,
            (None, Some(r)) => r.place,
            (None, None) => Err(Fault::NoFix),
        };
        let place = place.and_then(|p| match self.rmc {
            Some(Rmc { place: Err(e), .. }) => Err(e),
            _ => Ok(p),
        });
        let (fix, faults) = match place {
            Ok((lat, lon)) => (Some(self.fix(lat, lon)), Vec::new()),
            Err(fault) => (None, vec![fault]),
        };
        Report {
            device: device.to_owned(),
            fix,
            faults,
            ..Report::default()
        }
    }

    fn fix(&self, lat: f64, lon: f64) -> Fix {
        let speed = self.rmc.and_then(|r| r.speed_mps);
        Fix {
            alt_m: self.gga.and_then(|g| g.alt_m),
            accuracy_m: self.gga.and_then(|g| g.accuracy_m),
            speed_mps: speed,
            course_deg: self
                .rmc
                .and_then(|r| r.course_deg)
                .filter(|_| speed.is_some_and(|s| s >= COURSE_SPEED_MIN)),
            ..Fix::at(lat, lon, self.datum)
        }
    }
}

/// `time_ms` of the day on the day that puts it nearest to `near`.
fn nearest(time_ms: i64, near: i64) -> i64 {
    let today = near
        .saturating_sub(near.rem_euclid(DAY_MS))
        .saturating_add(time_ms);
    [today - DAY_MS, today, today + DAY_MS]
        .into_iter()
        .min_by_key(|t| (t - near).abs())
        .unwrap_or(today)
}

fn midnight_ms(date: Date) -> i64 {
    PrimitiveDateTime::new(date, Time::MIDNIGHT)
        .assume_utc()
        .unix_timestamp()
        * 1000
}

/// A date that is one or more turns of the GPS week counter too early, set right.
fn unrolled(midnight: i64, arrived_ms: i64) -> i64 {
    let turns = (arrived_ms - midnight + 2 * DAY_MS).div_euclid(ROLL_OVER_MS);
    let moved = midnight + turns.max(0) * ROLL_OVER_MS;
    match (arrived_ms - moved).abs() <= 2 * DAY_MS {
        true => moved,
        false => midnight,
    }
}

/// The sentences of a datagram between `$` and `*`, checked; bytes that are none are told once for each run.
fn sentences(datagram: &[u8]) -> impl Iterator<Item = Result<&str, Fault>> {
    let lines = datagram.split(|b| matches!(b, b'\r' | b'\n'));
    lines.filter(|l| !l.is_empty()).flat_map(line)
}

/// A line holds one sentence, perhaps with garbage before it; a new `$` begins another one.
fn line(line: &[u8]) -> impl Iterator<Item = Result<&str, Fault>> {
    let start = line.iter().position(|b| matches!(b, b'$' | b'!'));
    let garbage = (start != Some(0)).then_some(Err(Fault::Garbage));
    let rest = start.map_or(&[][..], |at| &line[at..]);
    garbage.into_iter().chain(
        rest.split(|b| *b == b'$')
            .filter(|s| !s.is_empty())
            .map(checked),
    )
}

/// `GPGGA,…*47` → what stands before the asterisk, when it has the check that is told.
fn checked(sentence: &[u8]) -> Result<&str, Fault> {
    if sentence.len() > SENTENCE_BYTES_MAX {
        return Err(Fault::TooLarge);
    }
    // AIS begins with an exclamation mark and is nothing of ours.
    if sentence.starts_with(b"!") {
        return Ok("");
    }
    let star = sentence.iter().position(|b| *b == b'*');
    let (body, told) = sentence.split_at(star.ok_or(Fault::BadChecksum)?);
    let told = told
        .get(1..3)
        .and_then(|d| std::str::from_utf8(d).ok())
        .and_then(|d| u8::from_str_radix(d, 16).ok());
    if told != Some(body.iter().fold(0, |x, b| x ^ b)) {
        return Err(Fault::BadChecksum);
    }
    std::str::from_utf8(body).map_err(|_| Fault::BadField)
}

fn sentence(text: &str, datum: Datum) -> Result<Sentence, Fault> {
    let mut fields = text.split(',');
    let name = fields.next().unwrap_or_default();
    // Two letters of the talker (GP, BD, GN…), three of the sentence; makers' own begin with P.
    let kind = name
        .get(2..)
        .filter(|_| name.len() == 5 && !name.starts_with('P'));
    let f: Vec<&str> = fields.take(20).collect();
    let field = |n: usize| f.get(n).copied().unwrap_or_default();
    match kind {
        Some("GGA") => {
            let quality = field(5);
            // 0: none; 7: typed in by hand; 8: simulated.
            let has_fix = matches!(quality, "1" | "2" | "3" | "4" | "5" | "6" | "9");
            let gga = Gga {
                place: place(&f, 1, has_fix, datum),
                alt_m: altitude(field(8), field(10)),
                accuracy_m: accuracy(field(7), quality),
            };
            Ok(Sentence::Gga(time_of_day(field(0))?, gga))
        }
        Some("RMC") => {
            // Mode (NMEA 2.3): N none, M typed in by hand, S simulated.
            let has_fix = field(1) == "A" && !matches!(field(11), "N" | "M" | "S");
            let course = number(field(7)).filter(|c| (0.0..=360.0).contains(c));
            let speed = number(field(6)).map(|knots| knots * KNOT_MPS);
            let rmc = Rmc {
                place: place(&f, 2, has_fix, datum),
                speed_mps: speed.filter(|s| (0.0..=1000.0).contains(s)),
                course_deg: course.map(|c| c % 360.0),
            };
            Ok(Sentence::Rmc(time_of_day(field(0))?, date(field(8)), rmc))
        }
        _ => Ok(Sentence::Other),
    }
}

fn number(field: &str) -> Option<f64> {
    field.parse().ok().filter(|n: &f64| n.is_finite())
}

/// `hhmmss[.sss]` as milliseconds of the day.
fn time_of_day(field: &str) -> Result<i64, Fault> {
    let part = |from: usize| -> Option<i64> {
        let digits = field.get(from..from + 2)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let fraction = match field.get(6..) {
        None | Some("") => Some(0.0),
        Some(rest) if rest.starts_with('.') => number(&format!("0{rest}")),
        Some(_) => None,
    };
    let (Some(h), Some(m), Some(s), Some(f)) = (part(0), part(2), part(4), fraction) else {
        return Err(Fault::BadField);
    };
    // A leap second is told as the 60th.
    if h > 23 || m > 59 || s > 60 {
        return Err(Fault::BadField);
    }
    #[allow(clippy::cast_possible_truncation, reason = "below one second")]
    let millis = (f * 1e3).round() as i64;
    Ok(((h * 60 + m) * 60 + s) * 1000 + millis)
}

/// `ddmmyy`.
fn date(field: &str) -> Option<Date> {
    let part = |from: usize| field.get(from..from + 2)?.parse::<u8>().ok();
    let month = Month::try_from(part(2)?).ok()?;
    let year = i32::from(part(4)?);
    // Receivers of the last century have a date of 1980 before their first fix.
    let year = if year >= 80 { 1900 + year } else { 2000 + year };
    Date::from_calendar_date(year, month, part(0)?).ok()
}

/// The four fields from `at`: `ddmm.mmm,N,dddmm.mmm,E`.
fn place(f: &[&str], at: usize, has_fix: bool, datum: Datum) -> Result<(f64, f64), Fault> {
    if !has_fix {
        return Err(Fault::NoFix);
    }
    let half = |n: usize, digits: usize, plus: &str, minus: &str| {
        let (whole, minutes) = f.get(n)?.split_at_checked(digits)?;
        let degrees: u8 = whole.parse().ok()?;
        let minutes = number(minutes).filter(|m| (0.0..60.0).contains(m))?;
        let value = f64::from(degrees) + minutes / 60.0;
        match f.get(n + 1) {
            Some(side) if *side == plus => Some(value),
            Some(side) if *side == minus => Some(-value),
            _ => None,
        }
    };
    let lat = half(at, 2, "N", "S").ok_or(Fault::BadField)?;
    let lon = half(at + 2, 3, "E", "W").ok_or(Fault::BadField)?;
    if (lat, lon) == (0.0, 0.0) {
        return Err(Fault::NoFix);
    }
    if !geo::valid(lat, lon) {
        return Err(Fault::OutsideWorld);
    }
    let (lat, lon) = geo::to_wgs84(datum, lat, lon);
    geo::valid(lat, lon)
        .then_some((lat, lon))
        .ok_or(Fault::OutsideWorld)
}

/// Above the ellipsoid: the height over the sea and the geoid's over the ellipsoid. Without the latter, that over the sea.
fn altitude(sea: &str, geoid: &str) -> Option<f64> {
    let alt = number(sea)? + number(geoid).unwrap_or(0.0);
    (-1000.0..100_000.0).contains(&alt).then_some(alt)
}

/// Radius of 68 %, metres: the dilution of precision times the usual error of one range by this kind of fix.
fn accuracy(hdop: &str, quality: &str) -> Option<f64> {
    let range_error_m = match quality {
        "2" | "9" => 2.0,
        "4" => 0.05,
        "5" => 0.5,
        // Dead reckoning.
        "6" => 20.0,
        _ => 5.0,
    };
    number(hdop)
        .filter(|h| *h > 0.0 && *h < 99.0)
        .map(|h| h * range_error_m)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-22 05:40:00 UTC.
    const NOW_MS: i64 = 1_795_326_000_000;

    fn line(body: &str) -> String {
        let check = body.bytes().fold(0, |x, b| x ^ b);
        format!("${body}*{check:02X}\r\n")
    }

    fn heard(link: &mut Link, text: &str, at: i64) -> Decoded {
        link.handle("v-1", Datum::Wgs84, text.as_bytes(), at)
    }

    fn only(text: &str) -> Report {
        let mut d = heard(&mut Link::default(), text, NOW_MS);
        assert_eq!((d.reports.len(), &d.faults[..]), (1, &[][..]), "{text}");
        d.reports.remove(0)
    }

    const GGA: &str = "GPGGA,054000.00,3741.4000,N,11245.0000,E,1,08,0.9,812.3,M,-20.0,M,,";
    const RMC: &str = "BDRMC,054000.00,A,3741.4000,N,11245.0000,E,10.0,270.5,221126,,,A";

    #[test]
    fn the_sentences_of_the_textbooks() {
        let r = only("$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47\r\n");
        let f = r.fix.unwrap();
        assert!((f.lat - 48.117_3).abs() < 1e-9 && (f.lon - 11.516_666_667).abs() < 1e-6);
        assert_eq!(f.alt_m, Some(545.4 + 46.9));
        assert_eq!(f.accuracy_m, Some(4.5));
        let r = only("$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A");
        let f = r.fix.unwrap();
        assert!((f.speed_mps.unwrap() - 11.523_555).abs() < 1e-5);
        assert_eq!(f.course_deg, Some(84.4));
        // 1994-03-23 12:35:19; NOW_MS is no whole number of week counter turns later.
        assert_eq!(r.device_time_ms, Some(764_426_119_000));
    }

    #[test]
    fn two_sentences_of_one_moment_are_one_report() {
        let mut link = Link::default();
        heard(&mut link, &(line(GGA) + &line(RMC)), NOW_MS);
        let next = |s: &str| line(&s.replace("054000.00", "054001.00"));
        // From now on both are expected, also in datagrams of their own.
        assert!(
            heard(&mut link, &next(GGA), NOW_MS + 1000)
                .reports
                .is_empty()
        );
        let d = heard(&mut link, &next(RMC), NOW_MS + 1010);
        let f = d.reports[0].fix.clone().unwrap();
        assert_eq!(f.alt_m, Some(792.3));
        assert!((f.speed_mps.unwrap() - 5.144_444).abs() < 1e-5);
        assert_eq!(d.reports[0].device_time_ms, Some(NOW_MS + 1000));
        // One that stays away is waited for until the next moment, and no longer for five seconds.
        let gga = |s: u32| line(&GGA.replace("054000.00", &format!("0540{s:02}.00")));
        let told: Vec<_> = (2..9)
            .map(|s| {
                heard(&mut link, &gga(s), NOW_MS + i64::from(s) * 1000)
                    .reports
                    .len()
            })
            .collect();
        assert_eq!(told, [0, 1, 1, 1, 1, 2, 1]);
    }

    #[test]
    fn no_fix_is_no_position() {
        for text in [
            GGA.replace(",E,1,", ",E,0,"),
            GGA.replace(",E,1,", ",E,8,"),
            RMC.replace(",A,3", ",V,3"),
            RMC.replace(",,,A", ",,,N"),
            "GPGGA,054000,,,,,0,00,,,M,,M,,".to_owned(),
            "GPGGA,054000,0000.0,N,00000.0,E,1,05,1,1,M,1,M,,".to_owned(),
        ] {
            let d = heard(&mut Link::default(), &line(&text), NOW_MS);
            assert_eq!(d.reports[0].fix, None, "{text}");
            assert_eq!(d.reports[0].faults, [Fault::NoFix]);
        }
        for text in [
            "GPGGA,054000,3760.0,N,11245.0,E,1,05,1,1,M,1,M,,",
            "GPGGA,054000,3741.4,X,11245.0,E,1,05,1,1,M,1,M,,",
        ] {
            let d = heard(&mut Link::default(), &line(text), NOW_MS);
            assert_eq!(d.reports[0].faults, [Fault::BadField], "{text}");
        }
        // RMC warns of what GGA still tells.
        let d = heard(
            &mut Link::default(),
            &(line(&RMC.replace(",A,3", ",V,3")) + &line(GGA)),
            NOW_MS,
        );
        assert!(d.reports.iter().all(|r| r.fix.is_none()));
    }

    #[test]
    fn a_day_turns_between_two_sentences() {
        let mut link = Link::default();
        let midnight = 1_795_305_600_000; // 2026-11-22
        let rmc = "GPRMC,235959.00,A,3741.4,N,11245.0,E,1,1,211126,,,A";
        let d = heard(&mut link, &line(rmc), midnight - 500);
        assert_eq!(d.reports[0].device_time_ms, Some(midnight - 1000));
        let gga = |t: &str| line(&GGA.replace("054000.00", t));
        let mut d = heard(&mut link, &gga("000000.00"), midnight + 500);
        d.reports
            .extend(heard(&mut link, &gga("000001.00"), midnight + 1500).reports);
        assert_eq!(d.reports[0].device_time_ms, Some(midnight));
        // Without any RMC the arrival tells the day, also when the receiver is a little ahead.
        let mut alone = Link::default();
        let d = heard(&mut alone, &gga("000000.00"), midnight - 400);
        assert_eq!(d.reports[0].device_time_ms, Some(midnight));
    }

    #[test]
    fn a_week_counter_that_turned_is_set_right() {
        // 1,024 weeks before 2026-11-22.
        let rmc = RMC.replace("221126", "080407");
        assert_eq!(only(&line(&rmc)).device_time_ms, Some(NOW_MS));
    }

    #[test]
    fn garbage_wrong_checks_and_other_sentences() {
        let all = [
            "junk",
            &line(GGA),
            "!AIVDM,1,1,,A,13aEOK?P00PD2wVMdLDRhgvL289?,0*26\r\n",
            &line("GPGSV,1,1,00"),
            &line("PUBX,00,1"),
            &line(RMC).replace("3741", "3742"),
            "$GPGGA,no check\r\n",
            "\x07\x07\r\n",
            &line(&GGA.replace("054000", "054001")),
        ]
        .concat();
        let d = heard(&mut Link::default(), &all, NOW_MS);
        assert_eq!(d.reports.len(), 2);
        assert_eq!(
            d.faults,
            [
                Fault::Garbage,
                Fault::BadChecksum,
                Fault::BadChecksum,
                Fault::Garbage
            ]
        );
        let long = format!("${}\r\n", "A".repeat(1000));
        assert_eq!(
            heard(&mut Link::default(), &long, NOW_MS).faults,
            [Fault::TooLarge]
        );
        let many = line(GGA).repeat(1000);
        let d = heard(&mut Link::default(), &many, NOW_MS);
        assert_eq!(d.faults, [Fault::TooLarge]);
    }

    #[test]
    fn a_receiver_with_a_crooked_map_is_set_right() {
        let d = Link::default().handle("v-1", Datum::Gcj02, line(GGA).as_bytes(), NOW_MS);
        let f = d.reports[0].fix.clone().unwrap();
        let (lat, lon) = geo::to_wgs84(Datum::Gcj02, 37.69, 112.75);
        assert!((f.lat - lat).abs() < 1e-9 && (f.lon - lon).abs() < 1e-9);
        assert_eq!(f.source_datum, Datum::Gcj02);
    }

    proptest! {
        #[test]
        fn any_text_is_harmless(text in "[$!*,.0-9A-Z\r\n]{0,300}", at in any::<i64>()) {
            heard(&mut Link::default(), &text, at / 4);
        }

        #[test]
        fn any_fields_are_harmless(
            parts in prop::collection::vec(("(GPGGA|BDRMC)", "[0-9]{0,6}(\\.[0-9]{0,3})?", "[AV]?", prop::collection::vec("[0-9NSEWA.-]{0,9}", 0..14)), 1..6),
            at in 0i64..4_000_000_000_000,
        ) {
            let mut link = Link::default();
            for (name, time, status, fields) in parts {
                let text = line(&format!("{name},{time},{status}{}", fields.join(",")));
                for r in heard(&mut link, &text, at).reports {
                    prop_assert!(r.fix.is_none_or(|f| geo::valid(f.lat, f.lon)));
                }
            }
        }
    }
}
