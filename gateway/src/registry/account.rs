//! What an account is: kinds, roles, and the hashes of its secret.

use kerbside_codecs::telemetry::Datum;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::REALM;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    Bodycam,
    Drone,
    Dock,
    Vehicle,
    Terminal,
    Camera,
    Sensor,
    Radio,
}

impl DeviceKind {
    pub const ALL: [Self; 8] = [
        Self::Bodycam,
        Self::Drone,
        Self::Dock,
        Self::Vehicle,
        Self::Terminal,
        Self::Camera,
        Self::Sensor,
        Self::Radio,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bodycam => "bodycam",
            Self::Drone => "drone",
            Self::Dock => "dock",
            Self::Vehicle => "vehicle",
            Self::Terminal => "terminal",
            Self::Camera => "camera",
            Self::Sensor => "sensor",
            Self::Radio => "radio",
        }
    }

    pub fn parse(s: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == s)
    }
}

/// What a user may do: operator and commander watch and handle events, an auditor reads, an admin does all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Operator,
    Commander,
    Auditor,
    Admin,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Operator, Self::Commander, Self::Auditor, Self::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Commander => "commander",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }

    pub fn parse(s: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == s)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub id: String,
    pub kind: DeviceKind,
    pub unit: Option<String>,
    /// City management, traffic police…: names as the city uses them.
    pub agency: Option<String>,
    /// Who bears it, by reference: several devices of one person are one track.
    pub person: Option<String>,
    /// Of positions that do not name their own.
    pub datum: Datum,
    /// Seen only by users with the grant.
    pub restricted: bool,
    pub issue: Issue,
}

impl Device {
    /// One of no unit, agency or person, with WGS-84, seen by all.
    pub fn new(id: &str, kind: DeviceKind) -> Self {
        Self {
            id: id.to_owned(),
            kind,
            unit: None,
            agency: None,
            person: None,
            datum: Datum::Wgs84,
            restricted: false,
            issue: Issue::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub role: Role,
    /// May see restricted devices.
    pub sees_restricted: bool,
    pub issue: Issue,
}

impl User {
    /// One without grants.
    pub fn new(name: &str, role: Role) -> Self {
        Self {
            name: name.to_owned(),
            role,
            sees_restricted: false,
            issue: Issue::default(),
        }
    }
}

/// Which secret of a name this is: an account that was revoked and added again is another one, and sessions that
/// were opened with the former secret end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Issue(u64);

/// An authenticated party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    Device(Device),
    User(User),
}

impl Principal {
    pub fn name(&self) -> &str {
        match self {
            Self::Device(d) => &d.id,
            Self::User(u) => &u.name,
        }
    }
}

/// Hashes of one secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hashes {
    pub sha256: [u8; 32],
    /// Lower-case hex, as RFC 7616 uses it.
    pub ha1_md5: String,
    pub ha1_sha256: String,
}

impl Hashes {
    pub fn of(name: &str, secret: &str) -> Self {
        let line = format!("{name}:{REALM}:{secret}");
        Self {
            sha256: Sha256::digest(secret.as_bytes()).into(),
            ha1_md5: hex(&md5::Md5::digest(line.as_bytes())),
            ha1_sha256: hex(&Sha256::digest(line.as_bytes())),
        }
    }

    pub fn issue(&self) -> Issue {
        let mut first = [0; 8];
        first.copy_from_slice(&self.sha256[..8]);
        Issue(u64::from_be_bytes(first))
    }

    pub fn matches(&self, secret: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(secret).into();
        self.sha256.ct_eq(&given).into()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
            let _ = write!(s, "{b:02x}");
            s
        })
}

/// HA1 of a principal for RTSP Digest.
#[derive(Clone)]
pub struct Ha1 {
    pub md5: String,
    pub sha256: String,
}

/// A generated secret: 160 random bits in hex, safe in URLs and on command lines. Shown once.
pub(super) fn new_secret() -> String {
    hex(&rand::random::<[u8; 20]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ha1_is_that_of_rfc_7616() {
        // printf 'Mufasa:kerbside:Circle of Life' | md5sum, and sha256sum.
        let h = Hashes::of("Mufasa", "Circle of Life");
        assert_eq!(h.ha1_md5, "ed49b90549a880d7c434d6a98f2b50d7");
        assert_eq!(
            h.ha1_sha256,
            "1afb2e1de8ceb8fbbbc40a46128084efbf90470a2aba62b64e93fe1c41d61020"
        );
    }
}
