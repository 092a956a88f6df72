//! One marker for each person, however many devices the person carries.
//!
//! Here: which device of a person is the primary one. Its track is the person's track: the errors of receivers on one
//! body are alike (the same houses around them), so two of them averaged would only seem more exact. Not here: tracks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::track::Freshness;
use crate::ids::DeviceId;

/// Another device takes over when it is better by this factor for so long, at once when the primary one falls silent.
const BETTER: f32 = 0.7;
const BETTER_FOR: Duration = Duration::from_secs(10);

/// What one device of a person offers.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub device: DeviceId,
    pub freshness: Freshness,
    /// Standard deviation of its position now, metres.
    pub sigma_m: f32,
}

impl Candidate {
    /// Smaller is better, before any exactness.
    fn rank(&self) -> u8 {
        match self.freshness {
            Freshness::Live => 0,
            Freshness::Stale => 1,
            Freshness::Coasting => 2,
            Freshness::Lost => 3,
            Freshness::Silent => 4,
        }
    }
}

#[derive(Debug, Default)]
struct Person {
    devices: Vec<DeviceId>,
    primary: Option<DeviceId>,
    challenger: Option<(DeviceId, Instant)>,
}

/// Persons by their reference in the registry.
#[derive(Debug, Default)]
pub struct People {
    map: HashMap<Box<str>, Person>,
}

impl People {
    /// `device` is now carried by `person`; formerly by `former`.
    pub fn carry(&mut self, device: &DeviceId, former: Option<&str>, person: Option<&str>) {
        if former == person {
            return;
        }
        if let Some(former) = former
            && let Some(p) = self.map.get_mut(former)
        {
            p.devices.retain(|d| d != device);
            if p.primary.as_ref() == Some(device) {
                p.primary = None;
            }
            if p.devices.is_empty() {
                self.map.remove(former);
            }
        }
        if let Some(person) = person {
            let p = self.map.entry(person.into()).or_default();
            if !p.devices.contains(device) {
                p.devices.push(device.clone());
            }
        }
    }

    /// The devices of a person, if there are several.
    pub fn several(&self, person: &str) -> Option<&[DeviceId]> {
        let p = self.map.get(person)?;
        (p.devices.len() > 1).then_some(&p.devices)
    }

    /// Everybody with several devices, or who had.
    pub fn all_with_several(&self) -> Vec<Box<str>> {
        self.map
            .iter()
            .filter(|(_, p)| p.devices.len() > 1)
            .map(|(person, _)| person.clone())
            .collect()
    }

    /// Chooses again. Some: the primary device changed.
    pub fn choose(
        &mut self,
        person: &str,
        candidates: &[Candidate],
        now: Instant,
    ) -> Option<DeviceId> {
        let p = self.map.get_mut(person)?;
        let best = candidates.iter().min_by(|a, b| {
            a.rank()
                .cmp(&b.rank())
                .then(a.sigma_m.total_cmp(&b.sigma_m))
                .then_with(|| a.device.as_str().cmp(b.device.as_str()))
        })?;
        let current = p
            .primary
            .as_ref()
            .and_then(|d| candidates.iter().find(|c| c.device == *d));
        let takes_over = match current {
            None => true,
            Some(c) if c.device == best.device => false,
            Some(c) if c.rank() > best.rank() => true,
            Some(c) if best.sigma_m < c.sigma_m * BETTER => match &p.challenger {
                Some((d, since)) if *d == best.device => {
                    now.saturating_duration_since(*since) >= BETTER_FOR
                }
                _ => {
                    p.challenger = Some((best.device.clone(), now));
                    return None;
                }
            },
            Some(_) => false,
        };
        if takes_over {
            p.primary = Some(best.device.clone());
            p.challenger = None;
            return p.primary.clone();
        }
        if current.is_some_and(|c| best.sigma_m >= c.sigma_m * BETTER) {
            p.challenger = None;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(s: &str) -> DeviceId {
        DeviceId::parse(s).unwrap()
    }

    fn candidate(device: &str, freshness: Freshness, sigma_m: f32) -> Candidate {
        Candidate {
            device: id(device),
            freshness,
            sigma_m,
        }
    }

    #[test]
    fn the_best_device_wins_and_does_not_flap() {
        use Freshness::{Live, Stale};
        let mut people = People::default();
        people.carry(&id("a"), None, Some("p1"));
        assert!(people.several("p1").is_none());
        people.carry(&id("b"), None, Some("p1"));
        assert_eq!(people.several("p1").unwrap().len(), 2);
        let begin = Instant::now();
        let mut choose = |s: u64, a: Candidate, b: Candidate| {
            let now = begin + Duration::from_secs(s);
            people
                .choose("p1", &[a, b], now)
                .map(|d| d.as_str().to_owned())
        };
        let pair = |a, b| (candidate("a", Live, a), candidate("b", Live, b));
        let (a, b) = pair(5.0, 4.0);
        assert_eq!(choose(0, a, b).as_deref(), Some("b"));
        let (a, b) = pair(3.9, 4.0);
        assert_eq!(choose(1, a, b), None, "hardly better");
        let (a, b) = pair(2.0, 4.0);
        assert_eq!(choose(2, a.clone(), b.clone()), None, "not for long");
        assert_eq!(choose(11, a.clone(), b.clone()), None);
        let (a2, b2) = pair(4.0, 4.0);
        assert_eq!(choose(12, a2, b2), None, "no longer better");
        assert_eq!(choose(13, a.clone(), b.clone()), None);
        assert_eq!(choose(23, a, b).as_deref(), Some("a"));
        let falls_silent = candidate("a", Stale, 2.0);
        let other = candidate("b", Live, 9.0);
        assert_eq!(choose(24, falls_silent, other).as_deref(), Some("b"));
    }

    #[test]
    fn a_device_changes_hands() {
        let mut people = People::default();
        people.carry(&id("a"), None, Some("p1"));
        people.carry(&id("b"), None, Some("p1"));
        people.carry(&id("b"), Some("p1"), Some("p2"));
        assert!(people.several("p1").is_none());
        people.carry(&id("b"), Some("p2"), None);
        assert!(people.all_with_several().is_empty());
        assert_eq!(people.map.len(), 1);
    }
}
