//! Topics as a foreign broker has them: what to subscribe to, and who speaks in one.
//!
//! Here: names only. Not here: whether that device may use the topic (the broker's access list, behind a broker).

use super::{Codecs, find};

/// Filters over the topics on which devices speak to us; none matches what we say to them.
const UPLINKS: [&str; 14] = [
    "kerbside/v1/+/report",
    "kerbside/v1/+/sos",
    "kerbside/v1/+/ack",
    "kerbside/v1/+/online",
    "thing/product/+/osd",
    "thing/product/+/state",
    "thing/product/+/status",
    "thing/product/+/events",
    "thing/product/+/requests",
    "thing/product/+/services_reply",
    "thing/product/+/drc/up",
    "sys/product/+/status",
    "owntracks/+/+",
    "owntracks/+/+/event",
];

impl Codecs {
    /// The device that an uplink topic names; None: no protocol of ours.
    pub fn speaker_of<'a>(&self, topic: &'a str) -> Option<&'a str> {
        find(topic).map(|(_, speaker, _)| speaker)
    }

    /// What a client of a foreign broker has to subscribe to, to hear all devices.
    pub fn uplinks(&self) -> Vec<String> {
        UPLINKS.map(str::to_owned).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uplinks_name_their_device_and_are_no_downlinks() {
        let codecs = Codecs::default();
        let mut known = 0;
        for filter in codecs.uplinks() {
            let topic = filter.replace('+', "bc-01");
            assert!(
                matches!(codecs.speaker_of(&topic), None | Some("bc-01")),
                "{topic}"
            );
            assert!(!codecs.may_subscribe("bc-01", &topic), "{topic}");
            known += usize::from(codecs.speaker_of(&topic).is_some());
        }
        assert!(known >= 9, "{known}");
        for topic in ["kerbside/v1/bc-01/down/order", "x", "$SYS/broker"] {
            assert_eq!(codecs.speaker_of(topic), None, "{topic}");
        }
    }
}
