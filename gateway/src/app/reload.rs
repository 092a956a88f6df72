//! The grid's file is read again when it changes, and at SIGHUP. A faulty one leaves the grid in force as it is.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use prometheus::{IntCounterVec, IntGaugeVec};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, ConfigFault};
use crate::metrics;
use crate::picture::{Grid, GridFile, NotOwned, Picture};
use crate::screen::Ready;

static RELOADS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_grid_reloads_total",
        "Times that grid.geojson was read again: taken, same, refused (the old one stays in force)",
        &["result"],
    )
});
static FEATURES: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::gauge(
        "kerbside_grid_features",
        "The grid in force: cells, zones, and warnings about them",
        &["what"],
    )
});

/// Between two looks at the file. One that changed is read when two looks find the same: it was written to its end.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Faults that are told one by one.
const FAULTS_MAX: usize = 50;

/// What tells one version of a file from the next.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(file: &Path) -> Stamp {
    let of = |m: Metadata| (m.ino(), m.len(), m.ctime(), m.ctime_nsec());
    std::fs::metadata(file).ok().map(of)
}

/// Says what is in force, and what is doubtful in it.
pub fn told(file: &Path, grid: &Grid) {
    let (cells, zones) = grid.size();
    for (what, n) in [
        ("cells", cells),
        ("zones", zones),
        ("warnings", grid.warnings().len()),
    ] {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        FEATURES.with_label_values(&[what]).set(n);
    }
    for warning in grid.warnings() {
        tracing::warn!(file = %file.display(), "{warning}");
    }
    if cells + zones > 0 {
        tracing::info!(version = grid.version(), cells, zones, "grid in force");
    }
}

/// Follows the file until the picture is gone.
pub async fn grid(file: PathBuf, picture: Picture, ready: Arc<Ready>) {
    let mut hangup = signal(SignalKind::hangup()).ok();
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // A file that was not there at the start need not come.
    let (mut read, mut seen) = (stamp(&file), stamp(&file));
    loop {
        let is_told = tokio::select! {
            _ = every.tick() => false,
            () = asked(&mut hangup) => true,
        };
        let found = stamp(&file);
        let is_settled = std::mem::replace(&mut seen, found) == found;
        if !(is_told || is_settled && found != read) {
            continue;
        }
        read = found;
        let fault = match reread(&file, &picture).await {
            Ok(None) => return,
            Ok(Some(result)) => {
                RELOADS.with_label_values(&[result]).inc();
                None
            }
            Err(faults) => {
                RELOADS.with_label_values(&["refused"]).inc();
                for fault in faults.iter().take(FAULTS_MAX) {
                    tracing::error!("{fault}");
                }
                tracing::error!(
                    faults = faults.len(),
                    version = picture.grid().read().grid.version(),
                    "the new grid is faulty; the old one stays in force"
                );
                faults.first().map(|first| {
                    format!(
                        "the old grid stays in force, the new one has {} faults: {first}",
                        faults.len()
                    )
                })
            }
        };
        ready.degrade("grid", fault.as_deref());
    }
}

async fn asked(hangup: &mut Option<Signal>) {
    match hangup {
        Some(s) => {
            s.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// What became of the file; None: the picture is gone.
async fn reread(file: &Path, picture: &Picture) -> Result<Option<&'static str>, Vec<ConfigFault>> {
    let path = file.to_owned();
    let parsed = tokio::task::spawn_blocking(move || {
        let text = config::reread_grid(&path).map_err(|f| vec![f])?;
        GridFile::parse(Some(&text)).map_err(|faults| {
            let told = |f: &crate::picture::GridFault| {
                config::grid_fault(&path, &text, f.feature, &f.reason)
            };
            faults.iter().map(told).collect::<Vec<_>>()
        })
    });
    let new = match parsed.await {
        Ok(parsed) => parsed?,
        Err(_) => return Ok(None),
    };
    if new.grid.version() == picture.grid().read().grid.version() {
        return Ok(Some("same"));
    }
    told(file, &new.grid);
    match picture.change_grid(new).await {
        Err(NotOwned::Stopped) => Ok(None),
        Ok(_) | Err(NotOwned::Outbox(_)) => Ok(Some("taken")),
    }
}
