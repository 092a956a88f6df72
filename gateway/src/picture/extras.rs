//! What a device tells beside its position: alarms, properties, delays of its video, where its camera looks.
//!
//! Here: merging of what comes in parts, each kind bounded. Not here: what any of it means.

use kerbside_codecs::telemetry::Report;
use kerbside_codecs::telemetry::report::{Alarm, Property, Sight, VideoDelay};

use super::sight::{Footprint, Stand, footprint};

/// Kept of each kind; the newest stay.
const ALARMS_MAX: usize = 32;
const PROPERTIES_MAX: usize = 64;
const DELAYS_MAX: usize = 8;

/// Most devices have none of it.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    pub alarms: Vec<Alarm>,
    pub properties: Vec<Property>,
    pub video_delays: Vec<VideoDelay>,
    sight: Option<Box<Sight>>,
    pub footprint: Option<Box<Footprint>>,
}

impl Extras {
    /// Does a report have anything for here?
    pub fn concern(r: &Report) -> bool {
        r.alarms.is_some()
            || !r.properties.is_empty()
            || !r.video_delays.is_empty()
            || r.sight.is_some()
    }

    /// The report's parts; what it does not say stays as it was. Alarms are a whole: those not in it are over.
    pub fn learn(&mut self, r: &Report) {
        if let Some(alarms) = &r.alarms {
            self.alarms.clear();
            self.alarms.extend(alarms.iter().take(ALARMS_MAX).cloned());
        }
        for p in &r.properties {
            put(&mut self.properties, p, PROPERTIES_MAX, |a| {
                a.name == p.name
            });
        }
        for d in &r.video_delays {
            put(&mut self.video_delays, d, DELAYS_MAX, |a| {
                a.camera == d.camera
            });
        }
        if let Some(told) = &r.sight {
            let known = self.sight.get_or_insert_default();
            merge(known, told);
        }
    }

    /// The device or its camera moved. True when there is a camera at all.
    pub fn look(&mut self, stand: Option<Stand>) {
        self.footprint = self
            .sight
            .as_ref()
            .and_then(|s| footprint(s, stand))
            .map(Box::new);
    }
}

/// The newest value wins, in its place; when there are too many, the oldest name goes.
fn put<T: Clone>(all: &mut Vec<T>, next: &T, max: usize, is_same: impl Fn(&T) -> bool) {
    if let Some(known) = all.iter_mut().find(|a| is_same(a)) {
        known.clone_from(next);
        return;
    }
    if all.len() == max {
        all.remove(0);
    }
    all.push(next.clone());
}

/// Angles, field of view and height come in different messages; a place on the ground is of its moment only.
fn merge(known: &mut Sight, told: &Sight) {
    let keep = |old: &mut Option<f64>, new: Option<f64>| *old = new.or(*old);
    keep(&mut known.azimuth_deg, told.azimuth_deg);
    keep(&mut known.elevation_deg, told.elevation_deg);
    keep(&mut known.hfov_deg, told.hfov_deg);
    keep(&mut known.vfov_deg, told.vfov_deg);
    keep(&mut known.height_m, told.height_m);
    known.slant_range_m = told.slant_range_m;
    known.centre = told.centre;
    known.target = told.target;
    known.corners.clone_from(&told.corners);
}

#[cfg(test)]
mod tests {
    use kerbside_codecs::telemetry::report::{AlarmLevel, Value};

    use super::*;

    fn property(name: &str, value: f64) -> Property {
        Property {
            name: name.to_owned().into(),
            value: Value::Number(value),
        }
    }

    #[test]
    fn parts_are_merged_and_bounded() {
        let mut all = Extras::default();
        for i in 0..100 {
            all.learn(&Report {
                properties: vec![
                    property(&format!("p{i}"), 1.0),
                    property("same", f64::from(i)),
                ],
                ..Report::default()
            });
        }
        assert_eq!(all.properties.len(), PROPERTIES_MAX);
        assert!(all.properties.contains(&property("p99", 1.0)));
        assert!(!all.properties.contains(&property("p0", 1.0)));
    }

    #[test]
    fn alarms_are_a_whole_and_silence_ends_none() {
        let mut all = Extras::default();
        let alarm = Alarm {
            code: "0x16100083".into(),
            level: AlarmLevel::Warning,
            text: None,
        };
        let said = |alarms| Report {
            alarms,
            ..Report::default()
        };
        all.learn(&said(Some(vec![alarm; 40])));
        assert_eq!(all.alarms.len(), ALARMS_MAX);
        all.learn(&said(None));
        assert_eq!(all.alarms.len(), ALARMS_MAX);
        all.learn(&said(Some(vec![])));
        assert!(all.alarms.is_empty());
    }

    #[test]
    fn a_footprint_needs_angles_and_height_of_several_messages() {
        let stand = Stand {
            lat: 37.69,
            lon: 112.75,
            sigma_m: 1.0,
        };
        let mut all = Extras::default();
        let say = |all: &mut Extras, sight| {
            all.learn(&Report {
                sight: Some(Box::new(sight)),
                ..Report::default()
            });
            all.look(Some(stand));
        };
        let angles = Sight {
            azimuth_deg: Some(0.0),
            elevation_deg: Some(-60.0),
            ..Sight::default()
        };
        say(&mut all, angles);
        assert!(all.footprint.is_none());
        let field = Sight {
            hfov_deg: Some(60.0),
            vfov_deg: Some(40.0),
            height_m: Some(80.0),
            ..Sight::default()
        };
        say(&mut all, field);
        assert_eq!(all.footprint.as_ref().unwrap().polygon.len(), 4);
        all.look(None);
        assert!(all.footprint.is_none());
    }
}
