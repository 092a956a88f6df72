//! Pictures that were just made or are being made: who asks for the same one gets the same one. Pure: the time is given.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Fault, Snapshot};
use crate::ids::StreamId;

/// How long a picture, or the reason why there is none, is given to whoever asks.
pub const FRESH: Duration = Duration::from_secs(1);
/// Pictures in the making: each waits for a key frame or a decoder.
pub const PENDING_MAX: usize = 32;
const KEPT_MAX: usize = 256;
const KEPT_BYTES_MAX: usize = 8 << 20;

/// Which picture.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub stream: StreamId,
    /// At most so wide; None: as it is.
    pub width: Option<u16>,
}

pub type Outcome = Result<Arc<Snapshot>, Fault>;
type Coming = watch::Receiver<Option<Outcome>>;

/// What the shelf has for somebody.
pub enum Look {
    Made(Outcome),
    /// Somebody else's is being made.
    Coming(Coming),
    /// Nothing yet: the caller makes it, sends it here and puts it on the shelf.
    Make(watch::Sender<Option<Outcome>>, Coming),
    Full,
}

enum Entry {
    Coming(Coming),
    Made { at: Instant, outcome: Outcome },
}

#[derive(Default)]
pub struct Shelf(HashMap<Key, Entry>);

impl Shelf {
    pub fn look(&mut self, key: &Key, now: Instant) -> Look {
        self.tidy(now);
        match self.0.get(key) {
            Some(Entry::Made { outcome, .. }) => return Look::Made(outcome.clone()),
            Some(Entry::Coming(coming)) => return Look::Coming(coming.clone()),
            None => {}
        }
        let pending = |e: &&Entry| matches!(e, Entry::Coming(_));
        if self.0.values().filter(pending).count() >= PENDING_MAX {
            return Look::Full;
        }
        let (send, coming) = watch::channel(None);
        self.0.insert(key.clone(), Entry::Coming(coming.clone()));
        Look::Make(send, coming)
    }

    /// What became of a [`Look::Make`].
    pub fn put(&mut self, key: Key, outcome: Outcome, now: Instant) {
        self.0.insert(key, Entry::Made { at: now, outcome });
        self.tidy(now);
        while self.over() {
            let oldest = self.0.iter().filter_map(|(key, e)| match e {
                Entry::Made { at, .. } => Some((at, key)),
                Entry::Coming(_) => None,
            });
            let Some(oldest) = oldest.min_by_key(|(at, _)| **at).map(|(_, k)| k.clone()) else {
                return;
            };
            self.0.remove(&oldest);
        }
    }

    fn over(&self) -> bool {
        let made = self.0.values().filter_map(|e| match e {
            Entry::Made { outcome, .. } => Some(outcome.as_ref().map_or(0, |s| s.jpeg.len())),
            Entry::Coming(_) => None,
        });
        let (count, bytes) = made.fold((0, 0), |(n, sum), bytes| (n + 1, sum + bytes));
        count > KEPT_MAX || bytes > KEPT_BYTES_MAX
    }

    /// Lets go what is old, and what will never come because its maker died.
    fn tidy(&mut self, now: Instant) {
        self.0.retain(|_, entry| match entry {
            Entry::Coming(coming) => coming.has_changed().is_ok(),
            Entry::Made { at, .. } => now.saturating_duration_since(*at) < FRESH,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::still::tests::WHEN;
    use super::*;

    fn key(n: usize) -> Key {
        Key {
            stream: StreamId::new("bc-01", &format!("c{n}")).unwrap(),
            width: None,
        }
    }

    fn made(bytes: usize) -> Outcome {
        Ok(Arc::new(Snapshot {
            jpeg: vec![0; bytes].into(),
            width: 1,
            height: 1,
            captured: WHEN,
        }))
    }

    #[test]
    fn the_same_for_all_and_anew_after_a_second() {
        let (mut shelf, now) = (Shelf::default(), Instant::now());
        let Look::Make(_send, _) = shelf.look(&key(1), now) else {
            panic!("nothing is there");
        };
        assert!(matches!(shelf.look(&key(1), now), Look::Coming(_)));
        let narrow = Key {
            width: Some(64),
            ..key(1)
        };
        assert!(matches!(shelf.look(&narrow, now), Look::Make(..)));
        shelf.put(key(1), made(1), now);
        let almost = now + FRESH.saturating_sub(Duration::from_millis(1));
        assert!(matches!(shelf.look(&key(1), almost), Look::Made(Ok(_))));
        assert!(matches!(shelf.look(&key(1), now + FRESH), Look::Make(..)));
    }

    #[test]
    fn a_maker_that_died_blocks_nobody() {
        let (mut shelf, now) = (Shelf::default(), Instant::now());
        drop(shelf.look(&key(1), now));
        assert!(matches!(shelf.look(&key(1), now), Look::Make(..)));
    }

    #[test]
    fn bounded() {
        let (mut shelf, now) = (Shelf::default(), Instant::now());
        let mut makers = Vec::new();
        for n in 0..PENDING_MAX {
            makers.push(shelf.look(&key(n), now));
        }
        assert!(matches!(shelf.look(&key(999), now), Look::Full));
        for n in 0..PENDING_MAX {
            shelf.put(
                key(n),
                made(KEPT_BYTES_MAX / 4),
                now + Duration::from_millis(n as u64),
            );
        }
        assert_eq!(shelf.0.len(), 4, "by bytes");
        let last = now + Duration::from_millis(PENDING_MAX as u64);
        assert!(matches!(
            shelf.look(&key(PENDING_MAX - 1), last),
            Look::Made(_)
        ));
        for n in 0..2 * KEPT_MAX {
            shelf.put(key(n), Err(Fault::NoVideo), last);
        }
        assert!(shelf.0.len() <= KEPT_MAX, "by number");
    }
}
