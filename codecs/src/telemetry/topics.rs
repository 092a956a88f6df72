//! Topics as a foreign broker has them: what to subscribe to, and who speaks in one.
//!
//! Here: names only. Not here: whether that device may use the topic (the broker's access list, behind a broker).

use super::{CODECS, Codecs, find};

/// Is this first level of a topic taken: by a protocol that is built in, or by the broker itself?
pub(super) fn is_taken(root: &str) -> bool {
    let roots = CODECS.iter().flat_map(|c| c.uplinks);
    root.starts_with('$') || roots.filter_map(|f| f.split('/').next()).any(|r| r == root)
}

impl Codecs {
    /// The device that an uplink topic names; None: no protocol of ours.
    pub fn speaker_of<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let built_in = find(topic).map(|(_, speaker, _)| speaker);
        built_in.or_else(|| self.mappings.iter().find_map(|m| m.topic.device(topic)))
    }

    /// What a client of a foreign broker has to subscribe to, to hear all devices.
    pub fn uplinks(&self) -> Vec<String> {
        let built_in = CODECS.iter().flat_map(|c| c.uplinks);
        let mut all: Vec<String> = built_in.map(|f| (*f).to_owned()).collect();
        all.extend(self.mappings.iter().map(|m| m.topic.filter()));
        all.sort();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uplinks_name_their_device_and_are_no_downlinks() {
        let codecs = Codecs::default();
        for filter in codecs.uplinks() {
            let topic = filter.replace('+', "bc-01");
            assert_eq!(codecs.speaker_of(&topic), Some("bc-01"), "{topic}");
            assert!(!codecs.may_subscribe("bc-01", &topic), "{topic}");
        }
        for topic in ["kerbside/v1/bc-01/down/order", "x", "$SYS/broker"] {
            assert_eq!(codecs.speaker_of(topic), None, "{topic}");
        }
    }
}
