//! From a directory to a [`Config`], or to all faults at once.

use std::collections::BTreeSet;
use std::path::Path;

use super::secret::Credentials;
use super::table::{ConfigFault, Source, nearest};
use super::{Config, Rule, formats, gateway, geojson, lists};

const TOML_BYTES_MAX: u64 = 4 << 20;
const GRID_BYTES_MAX: u64 = 256 << 20;
/// Cells and zones.
const GRID_FILE: &str = "grid.geojson";
const FILES: [&str; 6] = [
    "gateway.toml",
    "devices.toml",
    "formats.toml",
    "rules.toml",
    "platforms.toml",
    GRID_FILE,
];

/// Checks that belong to rooms above this one.
#[derive(Clone, Copy)]
pub struct Checks {
    /// Does the rule's condition compile?
    pub rule: fn(&Rule) -> Result<(), String>,
    /// Faults of a grid: which feature, from 1 (0: the file as a whole), and the reason.
    pub grid: fn(&str) -> Vec<(usize, String)>,
}

/// Who reads the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The gateway, which needs all secrets.
    ToRun,
    /// Somebody at a shell, to whom systemd's credentials are not shown.
    ToCheck,
}

/// Reads the directory.
///
/// # Errors
/// Every fault of every file, in the order of files and lines.
pub fn load(dir: &Path, checks: &Checks, reading: Reading) -> Result<Config, Vec<ConfigFault>> {
    let credentials = Credentials {
        dir: std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into),
        may_be_unseen: reading == Reading::ToCheck,
    };
    load_with(dir, checks, &credentials)
}

pub(super) fn load_with(
    dir: &Path,
    checks: &Checks,
    credentials: &Credentials,
) -> Result<Config, Vec<ConfigFault>> {
    let mut faults = strangers(dir);
    let mut open = |name, is_required| match source(dir, name, is_required) {
        Ok(source) => source,
        Err(fault) => {
            faults.push(fault);
            None
        }
    };
    let [gateway_toml, devices, formats, rules, platforms, grid] = [
        open("gateway.toml", true),
        open("devices.toml", false),
        open("formats.toml", false),
        open("rules.toml", false),
        open("platforms.toml", false),
        open(GRID_FILE, false),
    ];
    let mut close = |source: Source| {
        let found = source.into_faults();
        let clean = found.is_empty();
        faults.extend(found);
        clean
    };

    let gateway = gateway_toml.map(|s| {
        let g = gateway::read(&s, credentials);
        close(s);
        g
    });
    // Faults of gateway.toml are told there.
    let has_port = gateway.as_ref().is_none_or(|g| g.listen.datagram.is_some());
    let (cameras, sources) = devices.map_or_else(Default::default, |s| {
        let lists = lists::devices(&s, has_port, credentials);
        close(s);
        lists
    });
    let formats = formats.map(|s| {
        let list = formats::formats(&s);
        close(s);
        list
    });
    let (rules, rules_clean) = match rules {
        Some(s) => (lists::rules(&s, checks), close(s)),
        None => (lists::default_rules(), true),
    };
    let raised: Option<BTreeSet<_>> =
        rules_clean.then(|| rules.iter().map(|r| r.kind.clone()).collect());
    let platforms = platforms.map(|s| {
        let list = lists::platforms(&s, raised.as_ref(), credentials);
        close(s);
        list
    });
    let grid = grid.map(|s| {
        for (feature, reason) in (checks.grid)(&s.text) {
            let (line, key) = geojson::place(&s.text, feature);
            s.fault(line, &key, reason.replace('\n', "; "));
        }
        let text = s.text.clone();
        close(s);
        text
    });

    match gateway {
        Some(g) if faults.is_empty() => Ok(Config {
            box_id: g.box_id,
            listen: g.listen,
            tls: g.tls,
            client_certs: g.client_certs,
            mqtt: g.mqtt,
            broker: g.broker,
            rtsp: g.rtsp,
            streams: g.streams,
            webrtc: g.webrtc,
            tracks: g.tracks,
            drain_max: g.drain_max,
            orders_host: g.orders_host,
            cameras,
            formats: formats.unwrap_or_default(),
            sources,
            rules,
            platforms: platforms.unwrap_or_default(),
            grid,
            grid_file: dir.join(GRID_FILE),
            map_dir: g.map_dir,
        }),
        _ => Err(faults),
    }
}

/// Reads the grid's file alone, while the gateway runs: its text, or why it cannot be read.
///
/// # Errors
/// The one fault.
pub fn reread_grid(file: &Path) -> Result<String, ConfigFault> {
    let (dir, name) = (file.parent(), file.file_name().and_then(|n| n.to_str()));
    let read = source(
        dir.unwrap_or(Path::new("")),
        name.unwrap_or(GRID_FILE),
        true,
    )?;
    Ok(read.map(|s| s.text.clone()).unwrap_or_default())
}

/// What is wrong with a feature of the grid, by file, line and key.
pub fn grid_fault(file: &Path, text: &str, feature: usize, reason: &str) -> ConfigFault {
    let (line, key) = geojson::place(text, feature);
    ConfigFault {
        file: file.to_owned(),
        line,
        key,
        reason: reason.replace('\n', "; "),
    }
}

fn source(dir: &Path, name: &str, is_required: bool) -> Result<Option<Source>, ConfigFault> {
    let path = dir.join(name);
    let fault = |line, reason| ConfigFault {
        file: path.clone(),
        line,
        key: "file".to_owned(),
        reason,
    };
    let max = if name.ends_with(".toml") {
        TOML_BYTES_MAX
    } else {
        GRID_BYTES_MAX
    };
    match std::fs::metadata(&path) {
        Ok(m) if m.len() > max => {
            return Err(fault(
                1,
                format!("is larger than {max} bytes; is it the right file?"),
            ));
        }
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !is_required => return Ok(None),
        Err(e) => return Err(fault(1, unreadable(&e))),
    }
    let bytes = std::fs::read(&path).map_err(|e| fault(1, unreadable(&e)))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(Source::new(path, text))),
        Err(e) => {
            let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|b| **b == b'\n').count();
            Err(fault(
                line,
                "is not UTF-8 text; save it as UTF-8".to_owned(),
            ))
        }
    }
}

fn unreadable(e: &std::io::Error) -> String {
    format!(
        "cannot be read: {e}; see configs/ for an example, or name another directory with --config"
    )
}

/// Files that look like configuration, but that nobody reads: a misspelt name would be lost without a word.
fn strangers(dir: &Path) -> Vec<ConfigFault> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new(); // told as the missing gateway.toml
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|n| n.ends_with(".toml") || n.ends_with(".geojson"))
        .filter(|n| !FILES.contains(&n.as_str()) && dir.join(n).is_file())
        .map(|n| ConfigFault {
            file: dir.join(&n),
            line: 1,
            key: "file".to_owned(),
            reason: nearest(&n, &FILES).map_or_else(
                || format!("is not read by anybody; known files: {}", FILES.join(", ")),
                |k| format!("is not read by anybody; did you mean {k}?"),
            ),
        })
        .collect();
    found.sort();
    found
}
