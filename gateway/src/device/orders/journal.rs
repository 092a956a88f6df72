//! Orders on disk: `orders.db` in the state directory, so that a restart forgets nothing of the last day.
//!
//! One row an order, written whole by one thread; what changes while it writes goes with the next commit. Not here:
//! what an order is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::state::{KEEP_MS, Order, OrderId};

const FILE: &str = "orders.db";
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS given (
    id TEXT NOT NULL PRIMARY KEY,
    given_ms INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;";
/// Before a commit that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

type Written = oneshot::Sender<Result<(), String>>;

/// What the next commit holds. Bounded by the book: one entry an order.
#[derive(Default)]
struct Page {
    /// The order's row, or None: it is forgotten.
    rows: BTreeMap<OrderId, Option<(i64, String)>>,
    waiting: Vec<Written>,
    closing: bool,
}

#[derive(Default)]
struct Desk {
    page: Mutex<Page>,
    bell: Condvar,
}

pub(super) struct Journal {
    desk: Arc<Desk>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Opens the file and gives the orders of the last day, oldest first.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub fn open(state_dir: &Path, now_ms: i64) -> rusqlite::Result<(Self, Vec<Order>)> {
        let path = state_dir.join(FILE);
        let db = Connection::open(&path)?;
        make_private(&path);
        db.busy_timeout(Duration::from_secs(5))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.execute_batch(SCHEMA)?;
        db.execute("DELETE FROM given WHERE given_ms < ?1", [now_ms - KEEP_MS])?;
        let mut all = Vec::new();
        {
            let mut select = db.prepare("SELECT body FROM given ORDER BY id")?;
            let rows = select.query_map([], |r| r.get::<_, String>(0))?;
            for body in rows {
                match serde_json::from_str(&body?) {
                    Ok(order) => all.push(order),
                    Err(e) => {
                        tracing::warn!(error = %e, "an order in orders.db cannot be read; it is left out");
                    }
                }
            }
        }
        let desk = Arc::new(Desk::default());
        let its = Arc::clone(&desk);
        let thread = std::thread::Builder::new()
            .name("orders".to_owned())
            .spawn(move || write(db, &its))
            .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
        let thread = Mutex::new(Some(thread));
        Ok((Self { desk, thread }, all))
    }

    /// Writes the order's newest state; `written` hears of the commit.
    pub fn put(&self, order: &Order, written: Option<Written>) {
        let body = match serde_json::to_string(order) {
            Ok(body) => body,
            Err(e) => {
                tracing::error!(order = %order.id, error = %e, "an order cannot be written down");
                return;
            }
        };
        let mut page = self.desk.page.lock();
        page.rows.insert(order.id, Some((order.given_ms, body)));
        page.waiting.extend(written);
        drop(page);
        self.desk.bell.notify_one();
    }

    pub fn forget(&self, ids: &[OrderId]) {
        if !ids.is_empty() {
            let mut page = self.desk.page.lock();
            page.rows.extend(ids.iter().map(|id| (*id, None)));
            drop(page);
            self.desk.bell.notify_one();
        }
    }

    /// Writes what is left and closes the file. Blocks for the last commit.
    pub fn close(&self) {
        self.desk.page.lock().closing = true;
        self.desk.bell.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes orders had died");
        }
    }
}

/// Orders name people and places.
fn make_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Err(e) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!(path = %path.display(), error = %e, "the file mode could not be set");
    }
}

fn write(mut db: Connection, desk: &Desk) {
    loop {
        let (rows, waiting, closing) = {
            let mut page = desk.page.lock();
            while page.rows.is_empty() && page.waiting.is_empty() && !page.closing {
                desk.bell.wait(&mut page);
            }
            let rows = std::mem::take(&mut page.rows);
            (rows, std::mem::take(&mut page.waiting), page.closing)
        };
        let result = commit(&mut db, &rows).map_err(|e| e.to_string());
        for w in waiting {
            if w.send(result.clone()).is_err() {
                tracing::debug!("nobody waits for this order any more");
            }
        }
        match result {
            Ok(()) if closing => return,
            Ok(()) => {}
            Err(error) => {
                tracing::error!(
                    error,
                    orders = rows.len(),
                    "orders could not be written to disk; trying again"
                );
                let mut page = desk.page.lock();
                for (id, row) in rows {
                    page.rows.entry(id).or_insert(row);
                }
                if page.closing {
                    return;
                }
                desk.bell.wait_for(&mut page, AGAIN);
            }
        }
    }
}

fn commit(
    db: &mut Connection,
    rows: &BTreeMap<OrderId, Option<(i64, String)>>,
) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    for (id, row) in rows {
        let id = id.to_string();
        match row {
            Some((given_ms, body)) => tx
                .prepare_cached(
                    "INSERT INTO given (id, given_ms, body) VALUES (?1, ?2, ?3)
                     ON CONFLICT (id) DO UPDATE SET body = excluded.body",
                )?
                .execute(params![id, given_ms, body])?,
            None => tx
                .prepare_cached("DELETE FROM given WHERE id = ?1")?
                .execute([id])?,
        };
    }
    tx.commit()
}
