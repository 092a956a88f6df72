//! Places by their last change: a list through a vector, so that a change costs the same however many items there are.

/// No place.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    older: u32,
    newer: u32,
    seq: u64,
    listed: bool,
}

const FREE: Link = Link {
    older: NONE,
    newer: NONE,
    seq: 0,
    listed: false,
};

/// The order of changes.
#[derive(Debug)]
pub struct Order {
    links: Vec<Link>,
    newest: u32,
    oldest: u32,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            links: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }
}

impl Order {
    fn link(&mut self, place: u32) -> Option<&mut Link> {
        self.links.get_mut(place as usize)
    }

    /// The place changed as number `seq`, after all others.
    pub fn touch(&mut self, place: u32, seq: u64) {
        self.remove(place);
        if self.links.len() <= place as usize {
            self.links.resize(place as usize + 1, FREE);
        }
        let before = self.newest;
        match self.link(before) {
            Some(l) => l.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
        if let Some(l) = self.link(place) {
            *l = Link {
                older: before,
                newer: NONE,
                seq,
                listed: true,
            };
        }
    }

    pub fn remove(&mut self, place: u32) {
        let Some(l) = self.link(place).filter(|l| l.listed) else {
            return;
        };
        let Link { older, newer, .. } = std::mem::replace(l, FREE);
        match self.link(older) {
            Some(l) => l.newer = newer,
            None => self.oldest = newer,
        }
        match self.link(newer) {
            Some(l) => l.older = older,
            None => self.newest = older,
        }
    }

    /// Places with the number of their last change.
    pub fn newest_first(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let mut at = self.newest;
        std::iter::from_fn(move || {
            let link = self.links.get(at as usize)?;
            let found = (at, link.seq);
            at = link.older;
            Some(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_order_of_a_plain_list(steps in proptest::collection::vec((0u32..12, any::<bool>()), 0..200)) {
            let mut order = Order::default();
            let mut plain: Vec<(u32, u64)> = Vec::new();
            for (seq, (place, stays)) in (1u64..).zip(steps) {
                plain.retain(|(p, _)| *p != place);
                if stays {
                    order.touch(place, seq);
                    plain.push((place, seq));
                } else {
                    order.remove(place);
                }
                let listed: Vec<_> = order.newest_first().collect();
                let expected: Vec<_> = plain.iter().rev().copied().collect();
                prop_assert_eq!(listed, expected);
                prop_assert_eq!(order.oldest, plain.first().map_or(NONE, |(p, _)| *p));
            }
        }
    }
}
