//! What is kept how long: delivered events go when they are old or too many, in small steps. Events that a platform
//! still has to get, or refused, stay.

use rusqlite::{Connection, params};

/// Limits for delivered events.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub age_max_ms: i64,
    pub events_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age_max_ms: 30 * 24 * 3600 * 1000,
            events_max: 1_000_000,
        }
    }
}

/// Events looked at in one step: one short transaction.
const STEP: u32 = 200;

/// What one step did.
pub(super) struct Step {
    pub deleted: u64,
    /// Nothing further can go in this pass.
    pub over: bool,
}

/// A walk over the events from the oldest on.
pub(super) struct Pass {
    /// Id of the last event looked at.
    cursor: String,
    /// Events in the table.
    count: u64,
}

impl Pass {
    pub fn begin(db: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            cursor: String::new(),
            count: db
                .query_row("SELECT count(*) FROM event", [], |r| r.get::<_, u32>(0))?
                .into(),
        })
    }

    pub fn step(
        &mut self,
        db: &mut Connection,
        keep: Retention,
        now_ms: i64,
    ) -> rusqlite::Result<Step> {
        let oldest_ms = now_ms.saturating_sub(keep.age_max_ms);
        let tx = db.transaction()?;
        let seen: Vec<(String, i64, bool)> = tx
            .prepare_cached(
                "SELECT id, raised_ms, EXISTS (SELECT 1 FROM delivery WHERE event = e.id AND state <> 'delivered')
                 FROM event e WHERE id > ?1 ORDER BY id LIMIT ?2",
            )?
            .query_map(params![self.cursor, STEP], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?
            .collect::<Result<_, _>>()?;
        let mut over = seen.len() < STEP as usize;
        let mut deleted = 0;
        for (id, raised_ms, open) in &seen {
            if *raised_ms >= oldest_ms && self.count - deleted <= keep.events_max {
                over = true;
                break;
            }
            if !open {
                tx.prepare_cached("DELETE FROM delivery WHERE event = ?1")?
                    .execute([id])?;
                tx.prepare_cached("DELETE FROM event WHERE id = ?1")?
                    .execute([id])?;
                deleted += 1;
            }
        }
        tx.commit()?;
        self.count -= deleted;
        if let Some((id, ..)) = seen.last() {
            self.cursor.clone_from(id);
        }
        Ok(Step { deleted, over })
    }
}
