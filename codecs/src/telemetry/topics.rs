//! Topics as a foreign broker has them: what to subscribe to, and who speaks in one.
//!
//! Here: names only. Not here: whether that device may use the topic (the broker's access list, behind a broker).

use super::{Codecs, find};

/// Filters over all topics on which devices speak to us; none matches what we say to them.
pub const UPLINKS: [&str; 9] = [
    "kerbside/v1/+/report",
    "kerbside/v1/+/sos",
    "thing/product/+/osd",
    "thing/product/+/state",
    "thing/product/+/status",
    "thing/product/+/events",
    "thing/product/+/requests",
    "thing/product/+/services_reply",
    "sys/product/+/status",
];

impl Codecs {
    /// The device that an uplink topic names; None: no protocol of ours.
    pub fn speaker_of<'a>(&self, topic: &'a str) -> Option<&'a str> {
        find(topic).map(|(_, speaker, _)| speaker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_uplink_names_its_device() {
        let codecs = Codecs::default();
        for filter in UPLINKS {
            let topic = filter.replace('+', "bc-01");
            assert_eq!(codecs.speaker_of(&topic), Some("bc-01"), "{topic}");
            assert!(!codecs.may_subscribe("bc-01", &topic), "{topic}");
        }
        for topic in ["kerbside/v1/bc-01/down/order", "x", "$SYS/broker"] {
            assert_eq!(codecs.speaker_of(topic), None, "{topic}");
        }
    }
}
