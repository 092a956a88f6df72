//! How the outbox fails, in words for operators.

use std::path::PathBuf;

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OutboxError {
    /// The event is not on disk. The device has to send it again.
    #[error(
        "the event could not be written to disk: {0}; free space on the disk of the state directory, or replace it"
    )]
    Full(String),
    #[error("stored events could not be read: {0}; check the disk of the state directory")]
    Unreadable(String),
    #[error("the outbox is closed: the gateway is stopping")]
    Closed,
}

/// Why the outbox could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{path}: {source}; check that the state directory exists and belongs to the gateway's user"
    )]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{path} is in use by another gateway; stop it, or give this one its own state directory"
    )]
    InUse { path: PathBuf },
    #[error(
        "{path}: {source}; if the file is damaged, move it away (it holds undelivered events) and start again"
    )]
    Database {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error(
        "{path} was written by a newer gateway (schema {found}, this one knows {known}); install that version again"
    )]
    Newer {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error("a thread of the outbox could not be started: {0}")]
    Thread(std::io::Error),
}
