//! The tables of the outbox. Every statement is here.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Appended, OpenError, Outcome, Recorded};
use crate::event::{DEDUP_WINDOW, Delivery, DeliveryState, Event, Priority};
use crate::ids::EventId;

const VERSION: i64 = 1;

/// Ids are UUIDv7 as text: their order is the order of time, and an operator can read them.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS event (
    id TEXT NOT NULL PRIMARY KEY,
    priority INTEGER NOT NULL,
    kind TEXT NOT NULL,
    raised_ms INTEGER NOT NULL,
    body TEXT NOT NULL,
    dedup_key TEXT UNIQUE
) STRICT;
CREATE TABLE IF NOT EXISTS delivery (
    event TEXT NOT NULL REFERENCES event (id),
    platform TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'parked')),
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    updated_ms INTEGER NOT NULL,
    next_ms INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (event, platform)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS delivery_pending ON delivery (platform, priority, event) WHERE state = 'pending';
CREATE TABLE IF NOT EXISTS space (filler BLOB) STRICT;
PRAGMA user_version = 1;";

/// An event whose next attempt lies further ahead than this was put there by a clock that was wrong: it is due.
const AHEAD_MAX_MS: i64 = 2 * 3600 * 1000;

/// A delivery that is due.
pub(super) struct DueRow {
    pub id: EventId,
    pub attempts: u32,
    /// Or why it cannot be read.
    pub event: Result<Event, String>,
}

pub(super) struct Store {
    pub db: Connection,
}

impl Store {
    /// A connection to the file, made if it is not there.
    pub fn open(path: &Path, pages_max: Option<u32>) -> Result<Self, OpenError> {
        let database = |source| OpenError::Database {
            path: path.to_owned(),
            source,
        };
        make_private(path).map_err(|source| OpenError::File {
            path: path.to_owned(),
            source,
        })?;
        let db = Connection::open(path).map_err(database)?;
        let found: i64 = db
            .pragma_query_value(None, "user_version", |r| r.get(0))
            .map_err(database)?;
        if found > VERSION {
            return Err(OpenError::Newer {
                path: path.to_owned(),
                found,
                known: VERSION,
            });
        }
        Self::prepare(&db, found, pages_max).map_err(database)?;
        Ok(Self { db })
    }

    fn prepare(db: &Connection, found: i64, pages_max: Option<u32>) -> rusqlite::Result<()> {
        db.busy_timeout(Duration::from_secs(5))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
        db.pragma_update(None, "foreign_keys", false)?;
        db.set_prepared_statement_cache_capacity(32);
        if found < VERSION {
            db.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;"))?;
        }
        if let Some(pages) = pages_max {
            db.pragma_update(None, "max_page_count", pages)?;
        }
        Ok(())
    }

    pub fn pending_count(&self, platform: &str) -> rusqlite::Result<u32> {
        self.db.query_row(
            "SELECT count(*) FROM delivery WHERE platform = ?1 AND state = 'pending'",
            [platform],
            |r| r.get(0),
        )
    }

    /// Deliveries that are due, at most `limit`, safety events first.
    pub fn due(&self, platform: &str, now_ms: i64, limit: usize) -> rusqlite::Result<Vec<DueRow>> {
        let mut select = self.db.prepare_cached(
            "SELECT e.body, e.dedup_key, e.id, d.attempts FROM delivery d JOIN event e ON e.id = d.event
             WHERE d.platform = ?1 AND d.state = 'pending' AND (d.next_ms <= ?2 OR d.next_ms > ?3)
             ORDER BY d.priority, d.event LIMIT ?4",
        )?;
        let rows = select.query_map(
            params![
                platform,
                now_ms,
                now_ms.saturating_add(AHEAD_MAX_MS),
                rows(limit)
            ],
            |r| {
                Ok(DueRow {
                    id: id(&r.get::<_, String>(2)?)?,
                    attempts: r.get(3)?,
                    event: event(r)?,
                })
            },
        )?;
        rows.collect()
    }

    /// When the next delivery after `now_ms` is due.
    pub fn next_ms(&self, platform: &str, now_ms: i64) -> rusqlite::Result<Option<i64>> {
        self.db
            .prepare_cached(
                "SELECT min(next_ms) FROM delivery WHERE platform = ?1 AND state = 'pending' AND next_ms > ?2",
            )?
            .query_row(params![platform, now_ms], |r| r.get(0))
    }

    pub fn recent(&self, limit: usize, before: Option<EventId>) -> rusqlite::Result<Vec<Recorded>> {
        let before = before.map_or_else(|| "~".to_owned(), |id| id.to_string());
        let mut select = self.db.prepare_cached(
            "SELECT body, dedup_key FROM event WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
        )?;
        let rows: Vec<Result<Event, String>> = select
            .query_map(params![before, rows(limit)], event)?
            .collect::<Result<_, _>>()?;
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            match row {
                Ok(e) => {
                    let deliveries = self.deliveries(e.id)?;
                    events.push((e, deliveries));
                }
                // Its sinks park it with the same reason: that is where it is told.
                Err(reason) => tracing::debug!(reason, "a stored event is unreadable; left out"),
            }
        }
        Ok(events)
    }

    fn deliveries(&self, id: EventId) -> rusqlite::Result<Vec<Delivery>> {
        self.db
            .prepare_cached(
                "SELECT platform, state, attempts, error, updated_ms FROM delivery WHERE event = ?1 ORDER BY platform",
            )?
            .query_map([id.to_string()], |r| {
                Ok(Delivery {
                    platform: r.get(0)?,
                    state: state(&r.get::<_, String>(1)?),
                    attempts: r.get(2)?,
                    error: r.get(3)?,
                    updated_ms: r.get(4)?,
                })
            })?
            .collect()
    }

    /// Inserts the event and a pending delivery for each of `platforms`, unless its id is known, or its key
    /// since [`DEDUP_WINDOW`]. Inside the
    /// caller's transaction.
    pub fn insert(
        &self,
        event: &Event,
        platforms: impl Iterator<Item = impl AsRef<str>>,
        now_ms: i64,
    ) -> rusqlite::Result<Appended> {
        let id = event.id.to_string();
        let body = serde_json::to_string(event)
            .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
        let priority = priority(event.priority);
        if let Some(key) = &event.dedup_key {
            let window = i64::try_from(DEDUP_WINDOW.as_millis()).unwrap_or(i64::MAX);
            self.db
                .prepare_cached(
                    "UPDATE event SET dedup_key = NULL WHERE dedup_key = ?1 AND abs(raised_ms - ?2) >= ?3",
                )?
                .execute(params![key, event.raised_ms, window])?;
        }
        let new = self
            .db
            .prepare_cached(
                "INSERT INTO event (id, priority, kind, raised_ms, body, dedup_key) VALUES (?1,?2,?3,?4,?5,?6)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![id, priority, event.kind, event.raised_ms, body, event.dedup_key])?;
        if new == 0 {
            let known: String = self
                .db
                .prepare_cached(
                    "SELECT id FROM event WHERE dedup_key = ?2 UNION ALL SELECT id FROM event WHERE id = ?1",
                )?
                .query_row(params![id, event.dedup_key], |r| r.get(0))?;
            return Ok(Appended::Again(self::id(&known)?));
        }
        let mut delivery = self.db.prepare_cached(
            "INSERT INTO delivery (event, platform, priority, state, updated_ms) VALUES (?1,?2,?3,'pending',?4)",
        )?;
        for platform in platforms {
            delivery.execute(params![id, platform.as_ref(), priority, now_ms])?;
        }
        Ok(Appended::New)
    }

    /// Writes what became of an attempt; None: there is no such pending delivery.
    pub fn settle(
        &self,
        event: EventId,
        platform: &str,
        outcome: &Outcome,
        now_ms: i64,
    ) -> rusqlite::Result<Option<Delivery>> {
        let (state, error, next_ms) = match outcome {
            Outcome::Delivered => (DeliveryState::Delivered, None, 0),
            Outcome::RetryAt { ms, error } => (DeliveryState::Pending, Some(error), *ms),
            Outcome::Parked { error } => (DeliveryState::Parked, Some(error), 0),
        };
        let attempts: Option<u32> = self
            .db
            .prepare_cached(
                "UPDATE delivery SET state = ?3, attempts = attempts + 1, error = ?4, next_ms = ?5, updated_ms = ?6
                 WHERE event = ?1 AND platform = ?2 AND state = 'pending' RETURNING attempts",
            )?
            .query_row(
                params![event.to_string(), platform, name(state), error, next_ms, now_ms],
                |r| r.get(0),
            )
            .optional()?;
        Ok(attempts.map(|attempts| Delivery {
            platform: platform.to_owned(),
            state,
            attempts,
            error: error.cloned(),
            updated_ms: now_ms,
        }))
    }

    /// A parked delivery becomes pending; None: it is not parked.
    pub fn unpark(
        &self,
        event: EventId,
        platform: &str,
        now_ms: i64,
    ) -> rusqlite::Result<Option<Delivery>> {
        self.db
            .prepare_cached(
                "UPDATE delivery SET state = 'pending', next_ms = 0, updated_ms = ?3
                 WHERE event = ?1 AND platform = ?2 AND state = 'parked' RETURNING attempts, error",
            )?
            .query_row(params![event.to_string(), platform, now_ms], |r| {
                Ok(Delivery {
                    platform: platform.to_owned(),
                    state: DeliveryState::Pending,
                    attempts: r.get(0)?,
                    error: r.get(1)?,
                    updated_ms: now_ms,
                })
            })
            .optional()
    }

    /// Can a few pages be written? What it takes is given back to the database's free pages.
    pub fn probe_space(&self) -> rusqlite::Result<()> {
        self.db
            .execute("INSERT INTO space (filler) VALUES (zeroblob(32768))", [])?;
        self.db.execute("DELETE FROM space", [])?;
        Ok(())
    }
}

fn id(text: &str) -> rusqlite::Result<EventId> {
    text.parse().map_err(|e: uuid::Error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, e.into())
    })
}

/// The event in columns 0 (body) and 1 (key), or why its body cannot be read.
fn event(r: &Row<'_>) -> rusqlite::Result<Result<Event, String>> {
    let body: String = r.get(0)?;
    let dedup_key = r.get(1)?;
    Ok(serde_json::from_str(&body)
        .map(|e| Event { dedup_key, ..e })
        .map_err(|e| format!("the stored event is unreadable: {e}")))
}

fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn priority(p: Priority) -> i64 {
    match p {
        Priority::P0 => 0,
        Priority::P1 => 1,
    }
}

fn name(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Pending => "pending",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Parked => "parked",
    }
}

/// The table's CHECK admits no other word.
fn state(name: &str) -> DeliveryState {
    match name {
        "delivered" => DeliveryState::Delivered,
        "parked" => DeliveryState::Parked,
        _ => DeliveryState::Pending,
    }
}

/// Events hold people's positions: the file is the gateway's alone (SQLite gives its log the same mode).
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}
