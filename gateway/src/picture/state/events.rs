//! The newest events with their deliveries, as screens see them.

use std::collections::{BTreeMap, VecDeque};

use super::view;
use crate::event::{Delivery, Event};
use crate::ids::EventId;
use crate::picture::feed::Change;

/// Events whose deliveries are followed; as many as a snapshot has.
const EVENTS_MAX: usize = 200;
/// Deliveries of events that are not here yet: a platform can be faster than the outbox's answer to us.
pub const EARLY_MAX: usize = 512;

#[derive(Default)]
pub struct Events {
    all: BTreeMap<EventId, (Event, Vec<Delivery>)>,
    pub early: VecDeque<(EventId, Delivery)>,
}

impl Events {
    pub fn show(&mut self, event: Event, mut deliveries: Vec<Delivery>) -> Change {
        let id = event.id;
        self.early.retain(|(early, delivery)| {
            let mine = *early == id;
            if mine {
                put(&mut deliveries, delivery.clone());
            }
            !mine
        });
        let change = view::event_change(&event, &deliveries);
        self.all.insert(id, (event, deliveries));
        if self.all.len() > EVENTS_MAX {
            self.all.pop_first();
        }
        change
    }

    pub fn deliver(&mut self, id: EventId, delivery: Delivery) -> Option<Change> {
        if let Some((event, deliveries)) = self.all.get_mut(&id) {
            put(deliveries, delivery);
            return Some(view::event_change(event, deliveries));
        }
        if self.early.len() == EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back((id, delivery));
        None
    }
}

fn put(all: &mut Vec<Delivery>, next: Delivery) {
    match all.iter_mut().find(|d| d.platform == next.platform) {
        Some(d) => *d = next,
        None => all.push(next),
    }
}
