//! The sinks: one task per command platform takes what is due from the outbox, sends it as CloudEvents over HTTP and
//! reports what became of it.
//!
//! - `state` decides: what an answer means, when to try again, how many requests at once. Pure.
//! - `cloudevent` is the body. Pure.
//! - `client` is HTTP: one request, one [`state::Answer`].
//! - `task` is the loop of one platform.
//!
//! Not here: what is kept and for how long (`outbox`). A platform that is slow or down holds nobody else up: tasks
//! share nothing.

mod client;
mod cloudevent;
mod state;
mod task;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Platform;
use crate::outbox::Outbox;

/// Why a platform's task cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("platform {platform}: ca_file {path}: {reason}; it must hold certificates in PEM")]
    CaFile {
        platform: String,
        path: PathBuf,
        reason: String,
    },
    #[error("platform {platform}: the token has characters that cannot be sent in a header")]
    Token { platform: String },
    #[error(
        "platform {platform}: {reason}; for https install the package ca-certificates, or set ca_file"
    )]
    Tls { platform: String, reason: String },
}

/// Starts one task per platform on `io`. They end when `shutdown` turns true: requests under way are finished (each
/// has its time limit), what was not sent stays in the outbox.
///
/// # Errors
/// [`SinkError`] when a platform's CA file or token cannot be used; nothing is started then.
pub fn start(
    io: &tokio::runtime::Handle,
    platforms: &[Platform],
    outbox: &Outbox,
    box_id: &str,
    shutdown: &watch::Receiver<bool>,
) -> Result<Vec<JoinHandle<()>>, SinkError> {
    let clients = platforms
        .iter()
        .map(|p| client::Client::new(p, box_id))
        .collect::<Result<Vec<_>, _>>()?;
    let tasks = platforms.iter().zip(clients);
    Ok(tasks
        .map(|(p, client)| {
            let limits = state::Limits {
                retry_min: p.retry_min,
                retry_max: p.retry_max,
                concurrency: p.concurrency.max(1),
            };
            io.spawn(task::run(
                p.name.clone(),
                limits,
                client,
                outbox.clone(),
                shutdown.clone(),
            ))
        })
        .collect())
}
