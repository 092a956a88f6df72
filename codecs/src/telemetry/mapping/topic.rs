//! Topics of a format: `acme/{device}/pos`.

use crate::telemetry::is_id;
use crate::telemetry::topics::is_taken;

const LEVELS_MAX: usize = 32;

/// A topic with the device's id on one level; `+` is any level, a last `#` any levels (of a downlink only).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    levels: Vec<Level>,
    /// Ends with `#`.
    is_open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Name(String),
    Device,
    Any,
}

impl Topic {
    /// What devices publish to.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let topic = Self::read(text)?;
        if topic.is_open {
            return Err(format!("{text:?}: \"#\" is for down only"));
        }
        Ok(topic)
    }

    /// What devices subscribe to.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse_down(text: &str) -> Result<Self, String> {
        let topic = Self::read(text)?;
        if topic.levels.contains(&Level::Any) {
            return Err(format!(
                "{text:?}: \"+\" is for topics that devices publish to"
            ));
        }
        Ok(topic)
    }

    fn read(text: &str) -> Result<Self, String> {
        let (names, is_open) = match text.strip_suffix("/#") {
            Some(names) => (names, true),
            None => (text, false),
        };
        let levels: Vec<Level> = names
            .split('/')
            .map(|level| match level {
                "{device}" => Ok(Level::Device),
                "+" => Ok(Level::Any),
                "" => Err(format!("{text:?} has an empty level")),
                l if l.contains(['+', '#', '{', '}', '\0']) => Err(format!(
                    "{text:?}: {l:?} is neither a name nor {{device}} nor \"+\""
                )),
                l => Ok(Level::Name(l.to_owned())),
            })
            .collect::<Result<_, _>>()?;
        if levels.len() > LEVELS_MAX || text.len() > 1024 {
            return Err(format!("has more than {LEVELS_MAX} levels, or 1,024 bytes"));
        }
        match levels.iter().filter(|l| **l == Level::Device).count() {
            1 => {}
            0 => {
                return Err(format!(
                    "{text:?} does not say where the device id is: write {{device}} in its place"
                ));
            }
            _ => return Err(format!("{text:?} has {{device}} twice")),
        }
        match &levels[0] {
            Level::Name(root) if is_taken(root) => Err(format!(
                "{text:?}: topics below {root}/ have a meaning already"
            )),
            Level::Any => Err(format!(
                "{text:?}: the first level must be a name or {{device}}"
            )),
            _ => Ok(Self { levels, is_open }),
        }
    }

    /// The device id in a topic that devices publish to; None: it is another topic.
    pub(in crate::telemetry) fn device<'t>(&self, topic: &'t str) -> Option<&'t str> {
        let mut device = None;
        let mut names = topic.split('/');
        for level in &self.levels {
            let name = names.next()?;
            match level {
                Level::Name(own) if own != name => return None,
                Level::Device => device = Some(name).filter(|d| is_id(d)),
                _ => {}
            }
        }
        device.filter(|_| names.next().is_none())
    }

    /// All topics of this kind, as a client of a broker subscribes to them.
    pub(in crate::telemetry) fn filter(&self) -> String {
        let levels = self.levels.iter().map(|level| match level {
            Level::Name(name) => name.as_str(),
            Level::Device | Level::Any => "+",
        });
        levels.collect::<Vec<_>>().join("/")
    }

    /// Is this filter within the topics of the device?
    pub(super) fn covers(&self, device: &str, filter: &str) -> bool {
        let mut names = filter.split('/');
        let own = self.levels.iter().all(|level| match (level, names.next()) {
            (Level::Name(own), Some(name)) => own == name,
            (Level::Device, Some(name)) => name == device,
            _ => false,
        });
        let mut below = names.peekable();
        let mut open = self.is_open && below.peek().is_some();
        while let Some(name) = below.next() {
            open &= match name {
                "#" => below.peek().is_none(),
                "+" => true,
                other => !other.contains(['#', '+', '\0']),
            };
        }
        own && if self.is_open {
            open
        } else {
            filter.matches('/').count() + 1 == self.levels.len()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_on_its_level() {
        let t = Topic::parse("acme/+/{device}/pos").unwrap();
        assert_eq!(t.device("acme/v1/bc-01/pos"), Some("bc-01"));
        for other in [
            "acme/v1/bc-01",
            "acme/v1/bc-01/pos/x",
            "acme/v1/b c/pos",
            "other/v1/bc-01/pos",
            "acme/v1//pos",
            "",
        ] {
            assert_eq!(t.device(other), None, "{other}");
        }
        assert_eq!(t.device(&"acme/".repeat(65_535)), None);
    }

    #[test]
    fn a_downlink_is_the_devices_own() {
        let exact = Topic::parse_down("acme/{device}/cmd").unwrap();
        let open = Topic::parse_down("acme/{device}/down/#").unwrap();
        for (topic, filter, may) in [
            (&exact, "acme/a/cmd", true),
            (&exact, "acme/b/cmd", false),
            (&exact, "acme/+/cmd", false),
            (&exact, "acme/a/cmd/x", false),
            (&exact, "acme/a/#", false),
            (&exact, "acme/a", false),
            (&exact, "#", false),
            (&open, "acme/a/down/#", true),
            (&open, "acme/a/down/+/x", true),
            (&open, "acme/a/down/x", true),
            (&open, "acme/a/down", false),
            (&open, "acme/a/down/#/x", false),
            (&open, "acme/a/down/x#", false),
            (&open, "acme/b/down/#", false),
            (&open, "acme/#", false),
        ] {
            assert_eq!(topic.covers("a", filter), may, "{filter}");
        }
    }

    #[test]
    fn what_is_no_topic() {
        for bad in [
            "",
            "acme/pos",
            "acme/{device}/{device}",
            "acme/{dev}/pos",
            "acme/{device}/#",
            "acme/#/{device}",
            "acme//{device}",
            "kerbside/{device}/x",
            "thing/product/{device}/osd",
            "sys/{device}",
            "owntracks/{device}/x",
            "$share/{device}",
            "+/{device}/pos",
            "acme/a+/{device}",
        ] {
            assert!(Topic::parse(bad).is_err(), "{bad}");
        }
        assert!(Topic::parse_down("acme/+/{device}").is_err());
        assert!(Topic::parse("{device}/pos").is_ok());
    }
}
