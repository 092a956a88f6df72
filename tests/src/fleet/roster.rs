//! The devices of the fleet: what `kerbside device add --json` printed, one per line, with kind and unit.

use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// What a device is; other kinds of the registry behave like `Vehicle`s that stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Bodycam,
    Drone,
    Vehicle,
    Radio,
    Terminal,
    Camera,
    Sensor,
    Dock,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Bodycam => "bodycam",
            Kind::Drone => "drone",
            Kind::Vehicle => "vehicle",
            Kind::Radio => "radio",
            Kind::Terminal => "terminal",
            Kind::Camera => "camera",
            Kind::Sensor => "sensor",
            Kind::Dock => "dock",
        }
    }

    pub fn has_camera(self) -> bool {
        matches!(self, Kind::Bodycam | Kind::Drone)
    }
}

/// One device and what it needs to connect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    pub id: String,
    pub password: String,
    pub kind: Kind,
    #[serde(default)]
    pub unit: Option<String>,
    /// Who bears it: devices of one person go the same way.
    #[serde(default)]
    pub person: Option<String>,
}

/// Reads a file of JSON lines; faults name their line.
pub fn read_devices(path: &Path) -> anyhow::Result<Vec<Device>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut devices = Vec::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        match serde_json::from_str(line) {
            Ok(device) => devices.push(device),
            // serde's message could quote the password: say only where.
            Err(fault) => bail!(
                "{}:{}: not a device {{\"id\",\"password\",\"kind\",\"unit\"}} (column {})",
                path.display(),
                number + 1,
                fault.column()
            ),
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_line_and_never_the_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("devices.jsonl");
        std::fs::write(
            &path,
            "{\"id\":\"bc-01\",\"password\":\"geheim\",\"kind\":\"bodycam\"}\n\n{\"id\":\"x\",\"password\":\"geheim\",\"kind\":\"ship\"}\n",
        )
        .unwrap();
        let fault = read_devices(&path).unwrap_err().to_string();
        assert!(fault.contains("devices.jsonl:3"), "{fault}");
        assert!(!fault.contains("geheim"), "{fault}");
    }
}
