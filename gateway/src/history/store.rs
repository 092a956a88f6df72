//! The tables of the history. Every statement is here.
//!
//! A table for each hour in which points became known: old hours are dropped as a whole, and no index over all points
//! is needed. A point never happens after it was known, so a question looks at the hours from its beginning on.

use std::collections::HashMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{Answer, Point, Question, Spot};
use crate::ids::DeviceId;

const VERSION: i64 = 1;
const HOUR_MS: i64 = 3_600_000;
const BACK_FILLED: i64 = 1;
const RESTRICTED: i64 = 2;

pub struct Store {
    db: Connection,
    /// Number of each device, and the newest hour that has points of it.
    devices: HashMap<DeviceId, (i64, i64)>,
    /// Of the writer: the hours that are there, ascending.
    hours: Vec<i64>,
}

impl Store {
    /// A connection to the file, made if it is not there. `mb_max`: of the writer, the file's size at most.
    pub fn open(path: &Path, mb_max: Option<u64>) -> rusqlite::Result<Self> {
        let private = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path);
        // A file that cannot be made cannot be opened either: that tells more.
        drop(private);
        let db = Connection::open(path)?;
        db.busy_timeout(Duration::from_secs(5))?;
        db.set_prepared_statement_cache_capacity(64);
        if let Some(mb) = mb_max {
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "synchronous", "NORMAL")?;
            let found: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0))?;
            if found == 0 {
                db.execute_batch(&format!(
                    "BEGIN IMMEDIATE;
                     CREATE TABLE IF NOT EXISTS device (
                         id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, hour INTEGER NOT NULL) STRICT;
                     PRAGMA user_version = {VERSION}; COMMIT;"
                ))?;
            }
            let page: i64 = db.pragma_query_value(None, "page_size", |r| r.get(0))?;
            db.pragma_update(
                None,
                "max_page_count",
                i64::try_from(mb << 20).unwrap_or(i64::MAX) / page,
            )?;
        }
        let mut me = Self {
            db,
            devices: HashMap::new(),
            hours: Vec::new(),
        };
        me.hours = me.hours()?;
        Ok(me)
    }

    /// Hours that have a table, ascending.
    fn hours(&self) -> rusqlite::Result<Vec<i64>> {
        let mut select = self.db.prepare_cached(
            "SELECT CAST(substr(name, 2) AS INTEGER) AS hour FROM sqlite_master
             WHERE type = 'table' AND name GLOB 'h[0-9]*' ORDER BY hour",
        )?;
        let hours = select.query_map([], |r| r.get(0))?;
        hours.collect()
    }

    /// Writes all of them, or none.
    pub fn insert(&mut self, points: &[Point]) -> rusqlite::Result<()> {
        // Unchecked: no other transaction is open on this connection.
        let tx = rusqlite::Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        let (mut devices, mut hours) = (Vec::new(), Vec::new());
        for Point { device, spot } in points {
            let hour = spot.known_ms.div_euclid(HOUR_MS);
            if !self.hours.contains(&hour) && !hours.contains(&hour) {
                tx.execute_batch(&format!(
                    "CREATE TABLE IF NOT EXISTS h{hour} (
                         device INTEGER NOT NULL, happened_ms INTEGER NOT NULL, known_ms INTEGER NOT NULL,
                         lat_e7 INTEGER NOT NULL, lon_e7 INTEGER NOT NULL, flags INTEGER NOT NULL,
                         accuracy_dm INTEGER, speed_cms INTEGER, heading_dd INTEGER, alt_dm INTEGER,
                         PRIMARY KEY (device, happened_ms, known_ms)) STRICT, WITHOUT ROWID"
                ))?;
                hours.push(hour);
            }
            let id = match self.devices.get(device) {
                Some((id, newest)) if *newest >= hour => *id,
                _ => {
                    let id = tx
                        .prepare_cached(
                            "INSERT INTO device (name, hour) VALUES (?1, ?2)
                             ON CONFLICT (name) DO UPDATE SET hour = max(hour, excluded.hour) RETURNING id",
                        )?
                        .query_row(params![device.as_str(), hour], |r| r.get(0))?;
                    devices.push((device.clone(), (id, hour)));
                    id
                }
            };
            tx.prepare_cached(&format!(
                "INSERT OR REPLACE INTO h{hour} VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
            ))?
            .execute(params![
                id,
                spot.happened_ms,
                spot.known_ms,
                scaled(spot.lat, 1e7),
                scaled(spot.lon, 1e7),
                if spot.is_back_filled { BACK_FILLED } else { 0 }
                    | if spot.is_restricted { RESTRICTED } else { 0 },
                spot.accuracy_m.map(|v| scaled(v, 10.0)),
                spot.speed_mps.map(|v| scaled(v, 100.0)),
                spot.heading_deg.map(|v| scaled(v, 10.0)),
                spot.alt_m.map(|v| scaled(v, 10.0)),
            ])?;
        }
        tx.commit()?;
        self.devices.extend(devices);
        self.hours.extend(hours);
        self.hours.sort_unstable();
        Ok(())
    }

    /// Answers a question; see [`super::History::track`].
    pub fn track(&self, q: &Question) -> rusqlite::Result<Answer> {
        // One moment for all tables.
        let tx = self.db.unchecked_transaction()?;
        let id: Option<i64> = tx
            .prepare_cached("SELECT id FROM device WHERE name = ?1")?
            .query_row([q.device.as_str()], |r| r.get(0))
            .optional()?;
        let Some(id) = id else {
            return Ok(Answer::default());
        };
        let known_before_ms = q.known_before_ms.unwrap_or(i64::MAX);
        let hidden = if q.with_restricted { 0 } else { RESTRICTED };
        // One more than wanted, to know whether there are more.
        let wanted = q.limit.saturating_add(1);
        let (mut spots, mut to_ms) = (Vec::new(), q.to_ms);
        let first = q.from_ms.div_euclid(HOUR_MS);
        let last = known_before_ms.div_euclid(HOUR_MS);
        for hour in self
            .hours()?
            .into_iter()
            .filter(|h| (first..=last).contains(h))
        {
            let mut select = tx.prepare_cached(&format!(
                "SELECT happened_ms, known_ms, lat_e7, lon_e7, flags, accuracy_dm, speed_cms, heading_dd, alt_dm
                 FROM h{hour} WHERE device = ?1 AND happened_ms BETWEEN ?2 AND ?3 AND known_ms < ?4 AND flags & ?5 = 0
                 ORDER BY happened_ms, known_ms LIMIT ?6"
            ))?;
            let limit = i64::try_from(wanted).unwrap_or(i64::MAX);
            let before = spots.len();
            let rows = select.query_map(
                params![id, q.from_ms, to_ms, known_before_ms, hidden, limit],
                |r| {
                    let tenth = |i| -> rusqlite::Result<_> {
                        Ok(r.get::<_, Option<i32>>(i)?.map(|v| f64::from(v) / 10.0))
                    };
                    let flags: i64 = r.get(4)?;
                    Ok(Spot {
                        happened_ms: r.get(0)?,
                        known_ms: r.get(1)?,
                        lat: f64::from(r.get::<_, i32>(2)?) / 1e7,
                        lon: f64::from(r.get::<_, i32>(3)?) / 1e7,
                        is_back_filled: flags & BACK_FILLED != 0,
                        is_restricted: flags & RESTRICTED != 0,
                        accuracy_m: tenth(5)?,
                        speed_mps: r.get::<_, Option<i32>>(6)?.map(|v| f64::from(v) / 100.0),
                        heading_deg: tenth(7)?,
                        alt_m: tenth(8)?,
                    })
                },
            )?;
            for row in rows {
                spots.push(row?);
            }
            if spots.len() > before && before > 0 {
                spots.sort_by_key(|s: &Spot| (s.happened_ms, s.known_ms));
            }
            if spots.len() >= wanted {
                spots.truncate(wanted);
                // Later hours can only have what was told late.
                to_ms = spots.last().map_or(to_ms, |s| s.happened_ms);
            }
        }
        let has_more = spots.len() > q.limit;
        spots.truncate(q.limit);
        Ok(Answer { spots, has_more })
    }

    /// Bytes of the file that are in use.
    pub fn bytes(&self) -> rusqlite::Result<i64> {
        let of = |name| {
            self.db
                .pragma_query_value::<i64, _>(None, name, |r| r.get(0))
        };
        Ok((of("page_count")? - of("freelist_count")?) * of("page_size")?)
    }

    /// The end of the oldest hour, milliseconds since 1970 UTC.
    pub fn oldest_ends_ms(&self) -> Option<i64> {
        self.hours.first().map(|h| (h + 1).saturating_mul(HOUR_MS))
    }

    /// Drops the oldest hour, and devices that have no points any more. True: there was one.
    pub fn drop_oldest(&mut self) -> rusqlite::Result<bool> {
        let Some(hour) = self.hours.first().copied() else {
            return Ok(false);
        };
        self.db.execute_batch(&format!(
            "BEGIN IMMEDIATE; DROP TABLE IF EXISTS h{hour}; DELETE FROM device WHERE hour <= {hour}; COMMIT;"
        ))?;
        self.hours.remove(0);
        self.devices.retain(|_, (_, newest)| *newest > hour);
        Ok(true)
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "saturates, and the reader takes 32 bits"
)]
fn scaled(v: f64, by: f64) -> i32 {
    (v * by).round() as i32
}
