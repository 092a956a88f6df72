//! A vendor's JSON by configuration (`configs/formats.toml`): which topic, which path of the message is which field.
//!
//! Here: the compiled form and how a message is read by it. `path`: `gps.lat`, `pos[0]`. `topic`: `acme/{device}/pos`.
//! `unit`: what numbers and times are counted in. Not here: TOML and its faults (gateway `config`).

mod path;
mod topic;
mod unit;

use std::cell::RefCell;

use super::document::{Document, Item};
use super::field::{self, TEXT_MAX};
use super::report::{Property, Sos, Value};
use super::{Datum, Decoded, Fault, Fix, Report, Speaker};

pub use path::Path;
pub use topic::Topic;
pub use unit::{Quantity, Scale, Time};

/// Most reports in one message.
const REPORTS_MAX: usize = 256;

/// One format.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// For people and the log.
    pub name: String,
    pub topic: Topic,
    /// What the device may subscribe to.
    pub down: Option<Topic>,
    /// Holds for the messages that this format is for.
    pub when: Vec<Test>,
    /// The list whose items are reports, oldest first or each with its time. None: the message is one report.
    pub positions: Option<Path>,
    /// Of its positions; None: the device's.
    pub datum: Option<Datum>,
    pub fields: Fields,
    /// Further things to be shown: a name with its unit, and where it is.
    pub properties: Vec<(String, Path)>,
}

/// Where the fields of a report are. Within a list of reports a path starts at the item, or with `$.` at the message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields {
    pub lat: Option<Number>,
    pub lon: Option<Number>,
    pub alt: Option<Number>,
    pub accuracy: Option<Number>,
    pub speed: Option<Number>,
    pub heading: Option<Number>,
    pub course: Option<Number>,
    pub climb: Option<Number>,
    pub battery: Option<Number>,
    pub time: Option<(Path, Time)>,
    /// Does the device have a fix? Without the field it has.
    pub fix: Option<Test>,
    pub sos: Option<Test>,
    pub back_fill: Option<Test>,
    pub mode: Option<Path>,
    pub kind: Option<Path>,
    pub model: Option<Path>,
}

/// A number and what it is counted in.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    pub path: Path,
    pub scale: Scale,
}

/// A field that says yes or no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    pub path: Path,
    /// Any of these means yes, as text. Empty: true, a number that is not 0, or a text that is not empty, "0", "false",
    /// "no", "off".
    pub values: Vec<String>,
}

impl Mapping {
    /// Is this filter within what the device may subscribe to?
    pub(super) fn is_down(&self, device: &str, filter: &str) -> bool {
        self.down.as_ref().is_some_and(|d| d.covers(device, filter))
    }

    fn is_for(&self, root: Item<'_>) -> bool {
        let found = Found::default();
        let there = Place {
            root,
            item: root,
            found: &found,
        };
        self.when.iter().all(|t| t.holds(there) == Some(true))
    }
}

/// By the first of the device's mappings whose conditions hold.
pub(super) fn decode<'m>(
    mappings: impl Iterator<Item = &'m Mapping>,
    speaker: Speaker<'_>,
    payload: &[u8],
) -> Decoded {
    let mut mappings = mappings.peekable();
    if mappings.peek().is_none() {
        return Decoded::refused(Fault::UnknownTopic);
    }
    let document = match Document::parse(payload) {
        Ok(document) => document,
        Err(fault) => return Decoded::refused(fault),
    };
    let root = document.root();
    match mappings.find(|m| m.is_for(root)) {
        // Numbers as text may be the format's own way.
        Some(mapping) => read(mapping, speaker, root)
            .note_quirks(document.quirks().filter(|f| *f == Fault::DuplicateKey)),
        None => Decoded::refused(Fault::UnknownMethod),
    }
}

fn read(mapping: &Mapping, speaker: Speaker<'_>, root: Item<'_>) -> Decoded {
    let mut decoded = Decoded::default();
    let found = Found::default();
    let one = |item| {
        let at = Place {
            root,
            item,
            found: &found,
        };
        report(mapping, speaker, at)
    };
    let Some(path) = &mapping.positions else {
        match root.as_object() {
            Some(_) => decoded.reports.push(one(root)),
            None => decoded.faults.push(Fault::NotJson),
        }
        return decoded;
    };
    let Some(list) = path.find(root, root).and_then(Item::as_list) else {
        return Decoded::refused(Fault::BadField);
    };
    // The newest are at the end.
    let more = list.clone().count().saturating_sub(REPORTS_MAX);
    if more > 0 {
        decoded.faults.push(Fault::TooLarge);
    }
    decoded.reports = list.skip(more).map(one).collect();
    // Whatever the vendor's order is, we tell the oldest first.
    let times = || decoded.reports.iter().map(|r| r.device_time_ms);
    if times().all(|t| t.is_some()) && !times().is_sorted() {
        decoded.reports.sort_by_key(|r| r.device_time_ms);
    }
    decoded
}

/// Paths from the message's root, each looked up once and not for every report of a list.
type Found<'d> = RefCell<Vec<(*const Path, Option<Item<'d>>)>>;

/// Where paths start.
#[derive(Clone, Copy)]
struct Place<'d, 'f> {
    root: Item<'d>,
    item: Item<'d>,
    found: &'f Found<'d>,
}

impl<'d> Place<'d, '_> {
    fn find(self, path: &Path) -> Option<Item<'d>> {
        if !path.is_from_root() {
            return path.find(self.root, self.item);
        }
        let mut found = self.found.borrow_mut();
        let known = found.iter().find(|(p, _)| std::ptr::eq(*p, path));
        if let Some((_, item)) = known {
            return *item;
        }
        let item = path.find(self.root, self.item);
        found.push((path, item));
        item
    }
}

impl Test {
    /// None: there is no such field.
    fn holds(&self, at: Place<'_, '_>) -> Option<bool> {
        let item = at.find(&self.path)?;
        let text = match item.as_flag() {
            Some(b) => Some(if b { "true" } else { "false" }.into()),
            None => item.to_text(),
        };
        Some(match text {
            Some(text) if self.values.is_empty() => {
                let no = ["", "0", "false", "no", "off"];
                !no.iter().any(|n| n.eq_ignore_ascii_case(text.trim()))
            }
            Some(text) => self.values.contains(&text.into_owned()),
            // An object or a list is there, and nothing more can be said.
            None => self.values.is_empty(),
        })
    }
}

/// Reads fields of one report, and notes what is wrong.
struct Reader<'d, 'f> {
    at: Place<'d, 'f>,
    faults: Vec<Fault>,
}

impl Reader<'_, '_> {
    fn number(&mut self, of: Option<&Number>, min: f64, max: f64) -> Option<f64> {
        let of = of?;
        let n = of.scale.read(self.at.find(&of.path)?);
        let n = n.filter(|n| (min..=max).contains(n));
        field::or_fault(n, &mut self.faults)
    }

    fn turn(&mut self, of: Option<&Number>) -> Option<f64> {
        self.number(of, -360.0, 360.0).map(field::turn)
    }

    fn text(&mut self, path: Option<&Path>) -> Option<String> {
        let text = self.at.find(path?)?.to_text();
        let text = field::or_fault(text, &mut self.faults)?;
        Some(field::cut(text, TEXT_MAX, &mut self.faults)).filter(|t| !t.is_empty())
    }

    fn test(&self, test: Option<&Test>) -> Option<bool> {
        test?.holds(self.at)
    }
}

fn report(mapping: &Mapping, speaker: Speaker<'_>, at: Place<'_, '_>) -> Report {
    let fields = &mapping.fields;
    let mut r = Reader {
        at,
        faults: Vec::new(),
    };
    let fix = fix(fields, mapping.datum.unwrap_or(speaker.datum), &mut r);
    let device_time_ms = fields.time.as_ref().and_then(|(path, time)| {
        let ms = time.read(at.find(path)?).filter(field::is_time_ms);
        field::or_fault(ms, &mut r.faults)
    });
    let mut properties: Vec<Property> = Vec::new();
    for (name, path) in &mapping.properties {
        let item = at.find(path);
        let value: Option<Value> = item.and_then(|v| field::value(v, &mut r.faults));
        if let Some(value) = value {
            field::property(&mut properties, name.clone(), value, &mut r.faults);
        }
    }
    Report {
        device: speaker.device.to_owned(),
        device_time_ms,
        fix,
        battery_pct: r.number(fields.battery.as_ref(), 0.0, 100.0),
        sos: (r.test(fields.sos.as_ref()) == Some(true)).then(Sos::default),
        is_back_fill: r.test(fields.back_fill.as_ref()) == Some(true),
        mode: r.text(fields.mode.as_ref()),
        kind: r.text(fields.kind.as_ref()).map(Into::into),
        model: r.text(fields.model.as_ref()),
        properties,
        faults: r.faults,
        ..Report::default()
    }
}

fn fix(fields: &Fields, datum: Datum, r: &mut Reader<'_, '_>) -> Option<Fix> {
    let (lat, lon) = (fields.lat.as_ref()?, fields.lon.as_ref()?);
    let coordinate = |of: &Number| Some(of.scale.read(r.at.find(&of.path)?));
    let place = match (coordinate(lat), coordinate(lon)) {
        (None, None) => return None,
        _ if r.test(fields.fix.as_ref()) == Some(false) => Err(Fault::NoFix),
        (Some(Some(lat)), Some(Some(lon))) => field::place(lat, lon, datum),
        _ => Err(Fault::BadField),
    };
    let fix = place.map_err(|fault| r.faults.push(fault)).ok()?;
    let speed_max = field::SPEED_MAX_MPS;
    Some(Fix {
        alt_m: r.number(fields.alt.as_ref(), field::ALT_MIN_M, field::ALT_MAX_M),
        accuracy_m: r.number(fields.accuracy.as_ref(), 0.0, field::ACCURACY_MAX_M),
        speed_mps: r.number(fields.speed.as_ref(), 0.0, speed_max),
        heading_deg: r.turn(fields.heading.as_ref()),
        course_deg: r.turn(fields.course.as_ref()),
        climb_mps: r.number(fields.climb.as_ref(), -speed_max, speed_max),
        ..fix
    })
}

#[cfg(test)]
pub(super) mod tests;
