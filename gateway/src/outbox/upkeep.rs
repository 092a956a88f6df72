//! Checkpoints, away from the commit path: the log is folded into the database when the writer says that some has
//! come together, and at the end.

use std::sync::mpsc::Receiver;

use super::store::Store;

/// Pages in the log (4 kB each) that make the writer wait for a full checkpoint: the log then starts again from its
/// beginning instead of growing while the disk cannot keep up.
const LOG_PAGES_MAX: i64 = 16_384;

/// Runs until the writing thread has dropped its end of `nudged`.
pub(super) fn run(store: &Store, nudged: &Receiver<()>) {
    let mut failing = false;
    while nudged.recv().is_ok() {
        if checkpoint(store, "PASSIVE", &mut failing) > LOG_PAGES_MAX {
            checkpoint(store, "RESTART", &mut failing);
        }
    }
    checkpoint(store, "TRUNCATE", &mut failing);
}

/// Pages that were in the log.
fn checkpoint(store: &Store, mode: &str, failing: &mut bool) -> i64 {
    let done = store
        .db
        .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |r| r.get(1));
    match done {
        Ok(pages) => {
            if std::mem::replace(failing, false) {
                tracing::info!("the outbox's log is folded into the database again");
            }
            pages
        }
        Err(e) => {
            if !std::mem::replace(failing, true) {
                tracing::warn!(error = %e, "the outbox's log could not be folded into the database; it is tried again, no event is lost");
            }
            0
        }
    }
}
