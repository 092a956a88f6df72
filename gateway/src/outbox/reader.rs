//! The reading thread: looks that must not hold a commit back.

use tokio::sync::{mpsc, oneshot};

use super::queue::answer;
use super::store::Store;
use super::{Due, OutboxError, Pending, Recorded, Shared};
use crate::ids::EventId;

pub(super) enum Query {
    Due {
        platform: String,
        now_ms: i64,
        limit: usize,
        reply: oneshot::Sender<Result<Due, OutboxError>>,
    },
    Recent {
        limit: usize,
        before: Option<EventId>,
        reply: oneshot::Sender<Result<Vec<Recorded>, OutboxError>>,
    },
}

pub(super) fn run(store: &Store, shared: &Shared, mut queries: mpsc::Receiver<Query>) {
    while let Some(query) = queries.blocking_recv() {
        match query {
            Query::Due {
                platform,
                now_ms,
                limit,
                reply,
            } => {
                if let Err(Ok(unwanted)) = reply
                    .send(due(store, shared, &platform, now_ms, limit).map_err(|e| unreadable(&e)))
                {
                    release(shared, &platform, &unwanted);
                }
            }
            Query::Recent {
                limit,
                before,
                reply,
            } => answer(
                reply,
                store.recent(limit, before).map_err(|e| unreadable(&e)),
            ),
        }
    }
}

/// What is due and not in flight; it is in flight from here on.
fn due(
    store: &Store,
    shared: &Shared,
    platform: &str,
    now_ms: i64,
    limit: usize,
) -> rusqlite::Result<Due> {
    let Some(lane) = shared.lane(platform) else {
        return Ok(Due::default());
    };
    // Taken before the look: an event whose outcome is written meanwhile may still show as pending in it.
    let busy = lane.in_flight.lock().clone();
    let mut due = Due {
        next_ms: store.next_ms(platform, now_ms)?,
        ..Due::default()
    };
    let rows = store.due(platform, now_ms, limit.saturating_add(busy.len()))?;
    for row in rows
        .into_iter()
        .filter(|r| !busy.contains(&r.id))
        .take(limit)
    {
        match row.event {
            Ok(event) => due.now.push(Pending {
                event,
                attempts: row.attempts,
            }),
            Err(reason) => due.unreadable.push((row.id, reason)),
        }
    }
    lane.in_flight.lock().extend(due.ids());
    Ok(due)
}

fn release(shared: &Shared, platform: &str, due: &Due) {
    if let Some(lane) = shared.lane(platform) {
        let mut in_flight = lane.in_flight.lock();
        for id in due.ids() {
            in_flight.remove(&id);
        }
        lane.notify.notify_one();
    }
}

fn unreadable(e: &rusqlite::Error) -> OutboxError {
    OutboxError::Unreadable(e.to_string())
}
